"""Do words that sound alike mean alike? Local neighbourhood similarity (LNS) of acoustic and lexical word vectors.

Axes: W word tokens of all utterances end to end, M of them of types that take part, T those types, U units (speakers),
V all units, then without each, L hidden states, D width of the acoustic and E of the lexical vectors, K neighbours (the
most asked for), Q the sizes k of a neighbourhood, R draws.

A type is a word as written, whatever its case. In either space its vector is the mean over its tokens; all are then
standardised over the types, and compared by cosine. The LNS at k is the Jaccard overlap of the two sets of a type's k
nearest types, averaged over the types.

Why standardised: hidden states are anisotropic. All have a large vector in common, and a few dimensions are far larger
than the rest, so a plain cosine sees little else (Timkey and van Schijndel). The mean is that of the types, so that
frequent words do not decide where the middle is.

Why no neighbour from the same sentence: words of one sentence share its context in both spaces (and, where few
sentences are read by everyone, only each other), so their overlap would measure which sentence is which. Nearest are
sought in both spaces among the types that no sentence of the corpus has in common with the type.

What chance gives, in three ways: the lexical vectors change places, the types keep their allowed neighbours.
    chance   over all types: each set is then uniform over the allowed ones.
    within   among types that stand in exactly the same sentences. Words of one sentence share its context even with
             their neighbours elsewhere, so where sentences are few the types are fewer independent observations than
             `chance` takes them for. Here the sentences, and what they have in common, stay as they are.
    place    among types of like places in their sentences: the same mean and deviation of their index, both rounded.
             Contextual vectors know a word's place, and so do hidden states: an untrained lexicon, which knows little
             else, is far above both of the others.
Each null leaves in what the others take away. So a similarity of words is claimed only against all of them, by the
largest p (an intersection-union test). `within` and `place` are None where fewer than half of the types have another
one to change with, as `within` is in free speech. The p values speak of the words, the intervals of new speakers of
these words.

References
    Saliba, Li, Sanabria and Lai, *Layer-wise analysis of self-supervised acoustic word embeddings*, 2024
        (arXiv 2402.02617), section 4.1.
    Timkey and van Schijndel, *All bark and no bite: rogue dimensions in transformer language models*, EMNLP 2021.
    Phipson and Smyth, *Stat. Appl. Genet. Mol. Biol.* 9(1):39, 2010: (1 + count) / (1 + draws).
    Berger, *Technometrics* 24, 1982: the intersection-union test.
    Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, ch. 11: the jackknife with Student-t.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from bas.errors import UserError
from bas.stats import jackknife_t
from bas.stats.similarity import TOLERANCE, Chance, standardised
from bas.studies.words.lexicon import Tokens, word_type
from bas.studies.words.results import Neighbour, Overlap, Similarity, StateDifference, StateOverlap, WordNeighbours

MIN_TOKENS = 2
MAX_UNITS = 20  # more are left out in as many groups: a jackknife over a thousand dialogues would take hours
SHARE = 4  # a neighbourhood is smaller than the types divided by this
LARGEST, SIZES = 100, 20  # of a neighbourhood, and how many, where nobody says
DRAWS = 999
LEVEL = 0.95
MOVABLE = 0.5


@dataclass(frozen=True)
class _Types:
    """The types that take part, their tokens and whom each may have as a neighbour."""

    names_T: np.ndarray
    tokens_W: np.ndarray  # bool: is it a token of such a type
    type_M: np.ndarray
    unit_M: np.ndarray
    allowed_TT: np.ndarray  # bool: no sentence has both
    classes: dict[str, np.ndarray]  # by null, (T,): equal for types that may change places
    left_out: int


def similarity(
    awe_WLD: np.ndarray,
    lexical_WE: np.ndarray,
    tokens: Tokens,
    ks: Sequence[int] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Similarity:
    """The LNS of every state at every k, with intervals and chance.

    Tokens with type "" or a lexical vector of zeros do not count. A type takes part that has MIN_TOKENS tokens, and of
    two units where there are several. At each k a type is left out that has no more than k types to choose from: with k
    its two sets would have to be the same.
    ks: each below a quarter of the types. None: all up to LARGEST; of many, SIZES evenly by logarithm.

    The interval is the jackknife with Student-t, as in `bas.stats`: a unit's tokens are left out of the means in both
    spaces. More than MAX_UNITS units are left out in groups. Sets of neighbours jump where means move little, so it is
    approximate. The p values are one-sided; all states and ks share the same draws; none is corrected for their number.
    Raises UserError where a k is out of bounds, no type has enough to choose from, or a vector is not finite.
    """
    assert awe_WLD.ndim == 3, awe_WLD.shape
    assert draws > 0, draws
    found = _types(lexical_WE, tokens)
    sizes_Q, part_TQ = _sizes(ks, found.allowed_TT)
    most, states = int(sizes_Q[-1]), range(awe_WLD.shape[1])

    def lns(near_TK: np.ndarray, ranks_TT: np.ndarray) -> np.ndarray:
        return np.asarray((_jaccard(near_TK, ranks_TT)[:, sizes_Q - 1] * part_TQ).sum(0) / part_TQ.sum(0))

    near_VTK = [_nearest(_order(_cosines(x_TE)), found.allowed_TT, most) for x_TE in _means(lexical_WE, found)]
    lns_VLQ = np.empty((len(near_VTK), len(states), len(sizes_Q)))
    ranks_LTT: list[np.ndarray] = []  # with all units
    for state in states:
        for v, awe_TD in enumerate(_means(awe_WLD[:, state], found)):
            ranks_TT = _ranks(_nearest(_order(_cosines(awe_TD)), found.allowed_TT, most))
            lns_VLQ[v, state] = lns(near_VTK[v], ranks_TT)
            ranks_LTT += [ranks_TT] if v == 0 else []

    drawn: dict[str, np.ndarray] = {}  # R, L, Q
    order_TT = _order(_cosines(next(_means(lexical_WE, found))))
    for name, class_T in found.classes.items():
        if np.mean(np.bincount(class_T)[class_T] > 1) < MOVABLE:
            continue
        near_RTK = (_nearest(order_TT, found.allowed_TT, most, of_T) for of_T in _shuffles(class_T, draws, seed))
        drawn[name] = np.array([[lns(near_TK, ranks_TT) for ranks_TT in ranks_LTT] for near_TK in near_RTK])

    def overlap(values_V: np.ndarray, drawn_R: dict[str, np.ndarray]) -> Overlap:
        chances = {name: _chance(float(values_V[0]), x_R) for name, x_R in drawn_R.items()}
        by_name = (chances["chance"], chances.get("within"), chances.get("place"))
        return Overlap(*_interval(values_V), *by_name, p=max(chance.p for chance in chances.values()))

    def of_state(lns_VQ: np.ndarray, drawn_RQ: dict[str, np.ndarray]) -> StateOverlap:
        by_k = [overlap(lns_VQ[:, q], {n: x_RQ[:, q] for n, x_RQ in drawn_RQ.items()}) for q in range(len(sizes_Q))]
        return StateOverlap(tuple(by_k), overlap(lns_VQ.mean(1), {n: x_RQ.mean(1) for n, x_RQ in drawn_RQ.items()}))

    def difference(a: int, b: int) -> StateDifference:
        return StateDifference(a, b, *_interval((lns_VLQ[:, a] - lns_VLQ[:, b]).mean(1)))

    return Similarity(
        types=len(found.names_T),
        tokens=len(found.type_M),
        left_out=found.left_out,
        units=len(np.unique(found.unit_M)),
        draws=draws,
        ks=tuple(sizes_Q.tolist()),
        took_part=tuple(part_TQ.sum(0).tolist()),
        states=tuple(of_state(lns_VLQ[:, s], {n: x_RLQ[:, s] for n, x_RLQ in drawn.items()}) for s in states),
        differences=tuple(difference(a, b) for a, b in itertools.combinations(states, 2)),
    )


def table(
    awe_WD: np.ndarray, lexical_WE: np.ndarray, tokens: Tokens, words: Sequence[str], k: int
) -> tuple[WordNeighbours, ...]:
    """For each word its k nearest types by one state and by the lexicon, under the rules of `similarity`.

    Raises UserError for a word that is no type taking part, or has no more than k types to choose from.
    """
    found = _types(lexical_WE, tokens)
    at = [_place_of(word, found, k) for word in words]
    spaces = [_cosines(next(_means(x, found))) for x in (awe_WD, lexical_WE)]

    def near(cosines_TT: np.ndarray, t: int) -> tuple[Neighbour, ...]:
        order_T = np.argsort(-cosines_TT[t], kind="stable")
        nearest_K = order_T[found.allowed_TT[t, order_T]][:k]
        return tuple(Neighbour(str(found.names_T[j]), float(cosines_TT[t, j])) for j in nearest_K)

    rows = []
    for t in at:
        acoustic, lexical = (near(cosines_TT, t) for cosines_TT in spaces)
        there = {one.word for one in lexical}
        common = tuple(one.word for one in acoustic if one.word in there)
        name, count = str(found.names_T[t]), int((found.type_M == t).sum())
        rows.append(WordNeighbours(name, count, acoustic, lexical, common))
    return tuple(rows)


def _place_of(word: str, found: _Types, k: int) -> int:
    at = np.flatnonzero(found.names_T == word_type(word))
    if not at.size:
        example = str(found.names_T[np.bincount(found.type_M).argmax()])
        told = f"not said {MIN_TOKENS} times and by two speakers"
        raise UserError(f"word {word!r}: {told}, so it has no place among the others; {example!r} has")
    choice = int(found.allowed_TT[at[0]].sum())
    if choice <= k:
        told = f"its {k} nearest are asked for, but {choice} words share no sentence with it"
        raise UserError(f"word {word!r}: {told}")
    return int(at[0])


def _types(lexical_WE: np.ndarray, tokens: Tokens) -> _Types:
    known_W = (tokens.types_W != "") & lexical_WE.any(1)
    names_N, type_W = np.unique(tokens.types_W[known_W], return_inverse=True)
    labels_U, unit_W = np.unique(tokens.units_W[known_W], return_inverse=True)
    unit_W %= MAX_UNITS
    counts_NU = np.zeros((len(names_N), min(len(labels_U), MAX_UNITS)), np.int64)
    np.add.at(counts_NU, (type_W, unit_W), 1)
    # Two units of each type: whichever is left out, the same types remain.
    takes_N = (counts_NU.sum(1) >= MIN_TOKENS) & ((counts_NU > 0).sum(1) >= min(2, counts_NU.shape[1]))
    if not takes_N.any():
        told = f"of {len(names_N)} none is said {MIN_TOKENS} times and by two speakers"
        raise UserError(f"neighbours of words: {told}; there is nothing to compare")
    takes_W = takes_N[type_W]
    tokens_W = known_W.copy()
    tokens_W[known_W] = takes_W
    type_M = (np.cumsum(takes_N) - 1)[type_W[takes_W]]
    sentence_M = np.unique(tokens.sentences_W[tokens_W], return_inverse=True)[1]
    has_TS = csr_array((np.ones(len(type_M), bool), (type_M, sentence_M)), shape=(takes_N.sum(), sentence_M.max() + 1))
    has_TS.sum_duplicates()
    has_TS.sort_indices()
    sets = [has_TS.indices[a:b].tobytes() for a, b in itertools.pairwise(has_TS.indptr)]
    shared_TT = (has_TS.astype(np.int32) @ has_TS.T.astype(np.int32)).toarray()
    count_T = np.bincount(type_M)
    mean_T, square_T = (np.bincount(type_M, tokens.places_W[tokens_W] ** power) / count_T for power in (1, 2))
    spread_T = np.sqrt(np.maximum(square_T - mean_T**2, 0))
    return _Types(
        names_T=names_N[takes_N],
        tokens_W=tokens_W,
        type_M=type_M,
        unit_M=np.unique(unit_W[takes_W], return_inverse=True)[1],
        allowed_TT=shared_TT == 0,
        classes={
            "chance": np.zeros(len(sets), np.int64),
            "within": np.unique(np.array(sets, object), return_inverse=True)[1],
            "place": np.unique(np.rint([mean_T, spread_T]), axis=1, return_inverse=True)[1],
        },
        left_out=int((~takes_N).sum()),
    )


def _sizes(ks: Sequence[int] | None, allowed_TT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ks in order, and `(T, Q)` which types take part at each."""
    types, choice_T = len(allowed_TT), allowed_TT.sum(1)
    largest = math.ceil(types / SHARE) - 1
    if ks is None:
        up_to = min(largest, LARGEST)
        even_Q = np.geomspace(1, max(up_to, 1), SIZES).round().astype(int)
        sizes_Q = np.arange(1, up_to + 1) if up_to <= SIZES else np.unique(even_Q)
        sizes_Q = sizes_Q[sizes_Q < choice_T.max()]
        if not sizes_Q.size:
            told = f"{types} words, and none shares no sentence with two others or more"
            raise UserError(f"neighbours of words: {told}: too few, or too few sentences")
    else:
        sizes_Q = np.unique(np.array(ks, int))
        assert sizes_Q.size, "no k"
        wrong_Q = sizes_Q[(sizes_Q < 1) | (sizes_Q > min(largest, choice_T.max() - 1))]
        if wrong_Q.size:
            told = f"{types} words, of which one shares no sentence with at most {choice_T.max()}"
            raise UserError(f"k {wrong_Q[0]}: with {told}, k is 1 to {min(largest, choice_T.max() - 1)}")
    return sizes_Q, choice_T[:, None] > sizes_Q


def _means(x_WD: np.ndarray, found: _Types) -> Iterator[np.ndarray]:
    """`(T, D)` means over the tokens of each type: of all units, then without each where there are several."""
    types, units = len(found.names_T), int(found.unit_M.max()) + 1
    cell_M, x_MD = found.unit_M * types + found.type_M, x_WD[found.tokens_W].astype(np.float64)
    holds_CM = csr_array((np.ones(len(cell_M)), (cell_M, np.arange(len(cell_M)))), shape=(units * types, len(cell_M)))
    sums_UTD = (holds_CM @ x_MD).reshape(units, types, -1)
    counts_UT1 = np.bincount(cell_M, minlength=units * types).reshape(units, types, 1)
    sum_TD, count_T1 = sums_UTD.sum(0), counts_UT1.sum(0)
    yield sum_TD / count_T1
    if units > 1:
        for without_TD, without_T1 in zip(sums_UTD, counts_UT1, strict=True):
            yield (sum_TD - without_TD) / (count_T1 - without_T1)


def _cosines(x_TD: np.ndarray) -> np.ndarray:
    """`(T, T)` float32; 0 with a type that lies in the middle of all."""
    if not np.isfinite(x_TD).all():
        raise UserError("neighbours of words: a word's vector is not finite; the features are damaged, or overflowed")
    x_TD = standardised(x_TD).astype(np.float32)
    norm_T1 = np.linalg.norm(x_TD, axis=1, keepdims=True)
    x_TD = np.divide(x_TD, norm_T1, out=np.zeros_like(x_TD), where=norm_T1 > 0)
    return np.asarray(x_TD @ x_TD.T)


def _order(cosines_TT: np.ndarray) -> np.ndarray:
    """`(T, T)`: for each all of them, the nearest first."""
    return np.argsort(-cosines_TT, axis=1, kind="stable").astype(np.int32)


def _nearest(order_TT: np.ndarray, allowed_TT: np.ndarray, k: int, of_T: np.ndarray | None = None) -> np.ndarray:
    """`(T, k)`: the nearest allowed ones, the nearest first; where they are fewer, any others follow.

    of_T: whose vector each type has, where the vectors have changed places; order_TT is that of the vectors.
    """
    types = len(order_TT)
    of_T = np.arange(types) if of_T is None else of_T
    holder_T, near_TK = np.argsort(of_T), np.empty((types, k), np.int64)
    needed_T, rows_N, width = np.minimum(allowed_TT.sum(1), k), np.arange(types), 2 * k
    while rows_N.size:  # in most rows the first few hold enough
        near_NM = holder_T[order_TT[:, :width][of_T[rows_N]]]
        is_allowed_NM = allowed_TT[rows_N[:, None], near_NM]
        first_NK = np.argsort(~is_allowed_NM, axis=1, kind="stable")[:, :k]
        near_TK[rows_N] = np.take_along_axis(near_NM, first_NK, 1)
        rows_N, width = rows_N[is_allowed_NM.sum(1) < needed_T[rows_N]], 4 * width
    return near_TK


def _ranks(near_TK: np.ndarray) -> np.ndarray:
    """`(T, T)` the place, from 0, of each among the nearest of each; K for one that is not among them."""
    types, most = near_TK.shape
    ranks_TT = np.full((types, types), most, np.int16 if most < 2**15 else np.int32)
    np.put_along_axis(ranks_TT, near_TK, np.arange(most, dtype=ranks_TT.dtype)[None], 1)
    return ranks_TT


def _jaccard(near_TK: np.ndarray, ranks_TT: np.ndarray) -> np.ndarray:
    """`(T, K)`: the Jaccard overlap of the first 1, 2, ... K neighbours in the one and in the other space."""
    types, most = near_TK.shape
    # A type that is a neighbour in both is shared from the later of its two places on.
    later_TK = np.maximum(np.take_along_axis(ranks_TT, near_TK, 1), np.arange(most))
    cells = np.arange(types)[:, None] * (most + 1) + later_TK
    shared_TK = np.bincount(cells.ravel(), minlength=types * (most + 1)).reshape(types, -1)[:, :most].cumsum(1)
    return np.asarray(shared_TK / (2 * np.arange(1, most + 1) - shared_TK))


def _shuffles(class_T: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """`draws` orders `(T,)` of the types in which those of one class change places."""
    rng, by_class_T = np.random.default_rng(seed), np.argsort(class_T, kind="stable")
    for _ in range(draws):
        order_T = np.empty_like(by_class_T)
        order_T[by_class_T] = np.lexsort((rng.random(len(class_T)), class_T))
        yield order_T


def _chance(value: float, drawn_R: np.ndarray) -> Chance:
    count = int(np.count_nonzero(drawn_R >= value - TOLERANCE))
    return Chance(value, float(drawn_R.mean()), float(np.quantile(drawn_R, 0.95)), (1 + count) / (1 + len(drawn_R)))


def _interval(values_V: np.ndarray) -> tuple[float, float, float]:
    """The value of all units, and its interval from those without each."""
    value = float(values_V[0])
    half_width = jackknife_t(value, values_V[1:], LEVEL) if len(values_V) > 1 else math.inf
    return value, value - half_width, value + half_width
