"""Do words that sound alike mean alike? Local neighbourhood similarity (LNS) of acoustic and lexical word vectors.

Axes: W word tokens of all utterances end to end, M those of types that take part, T these types, U units (speakers), V
all units together, then without each one, L hidden states, D width of the acoustic and E of the lexical vectors, K
neighbours (the largest k), Q sizes k of a neighbourhood, R draws.

A type is a word as written, regardless of case. In either space its vector is the mean over its tokens; the vectors are
then standardised over the types, and compared by cosine. The LNS at k is the Jaccard overlap of the two sets of a
type's k nearest types, averaged over the types.

Why standardised: hidden states are anisotropic. They share a large common vector, and a few dimensions are far larger
than the rest and dominate a plain cosine (Timkey and van Schijndel). The mean is over types, so that frequent words do
not determine it.

Why no neighbour from the same sentence: words of one sentence share its context in both spaces (and, where all speakers
read the same few sentences, occur only with each other), so their overlap would measure which sentence is which. In
both spaces, only types that share no sentence of the corpus with a type can be its neighbours.

Three null distributions permute the lexical vectors among types, which keep their allowed neighbours:
    chance   among all types: each set is then uniform over the allowed types.
    within   among types that occur in exactly the same sentences. Words of one sentence share its context even with
             their neighbours elsewhere, so where sentences are few the types are fewer independent observations than
             `chance` takes them for. Here the sentences, and what they have in common, stay the same.
    place    among types with similar places in their sentences: the same mean and deviation of their index, rounded.
             Contextual vectors encode a word's place, and so do hidden states: an untrained lexicon, which encodes
             little else, is far above the two other nulls.
Each null keeps what the others remove. So a similarity of words is claimed only against all of them, by the largest p
(an intersection-union test). `within` and `place` are None where fewer than half of the types have another type to
exchange vectors with, as for `within` in free speech. The p values generalise to other words, the intervals to other
speakers of these words.

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
from bas.stats import CORRELATION, FRACTION, Limits, Sampled, conclude
from bas.stats.similarity import TOLERANCE, Chance, standardise
from bas.studies.words.lexicon import Tokens, word_type
from bas.studies.words.results import Neighbour, Overlap, Similarity, StateDifference, StateOverlap, WordNeighbours

MIN_TOKENS = 2
MAX_UNITS = 20  # more units are left out in this many groups: a jackknife over a thousand dialogues would take hours
SHARE = 4  # a neighbourhood is smaller than the number of types divided by this
LARGEST, SIZES = 100, 20  # the default sizes: up to LARGEST, at most SIZES of them
DRAWS = 999
MOVABLE = 0.5  # a null needs at least this share of types that have another to exchange vectors with


@dataclass(frozen=True)
class _Types:
    """The types that take part, their tokens, and the allowed neighbours of each."""

    names_T: np.ndarray
    tokens_W: np.ndarray  # bool: whether the token is of such a type
    type_M: np.ndarray
    unit_M: np.ndarray
    allowed_TT: np.ndarray  # bool: whether no sentence has both
    classes: dict[str, np.ndarray]  # by null, (T,): equal for types that may exchange vectors
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

    Tokens with type "" or a lexical vector of zeros are ignored. A type takes part if it has MIN_TOKENS tokens and,
    where there are several units, tokens of two of them. At each k, a type with k or fewer allowed neighbours is left
    out: its two sets could not differ.
    ks: each below a quarter of the number of types. None: all up to LARGEST, or SIZES of them evenly by logarithm.

    The interval is the jackknife with Student-t, as in `bas.stats`: a unit's tokens are left out of the means in both
    spaces. More than MAX_UNITS units are left out in groups. Sets of neighbours change abruptly while means change
    little, so it is approximate. The p values are one-sided and not corrected for the number of states and ks, which
    all share the same draws.
    Raises UserError where a k is out of bounds, no type has enough allowed neighbours, or a vector is not finite.
    """
    assert awe_WLD.ndim == 3, awe_WLD.shape
    assert draws > 0, draws
    types = _types(lexical_WE, tokens)
    sizes_Q, part_TQ = _sizes(ks, types.allowed_TT)
    most, states = int(sizes_Q[-1]), range(awe_WLD.shape[1])

    def lns(near_TK: np.ndarray, ranks_TT: np.ndarray) -> np.ndarray:
        return np.asarray((_jaccard(near_TK, ranks_TT)[:, sizes_Q - 1] * part_TQ).sum(0) / part_TQ.sum(0))

    near_VTK = [_nearest(_order(_cosines(x_TE)), types.allowed_TT, most) for x_TE in _means(lexical_WE, types)]
    lns_VLQ = np.empty((len(near_VTK), len(states), len(sizes_Q)))
    ranks_LTT: list[np.ndarray] = []  # with all units
    for state in states:
        for v, awe_TD in enumerate(_means(awe_WLD[:, state], types)):
            ranks_TT = _ranks(_nearest(_order(_cosines(awe_TD)), types.allowed_TT, most))
            lns_VLQ[v, state] = lns(near_VTK[v], ranks_TT)
            ranks_LTT += [ranks_TT] if v == 0 else []

    drawn: dict[str, np.ndarray] = {}  # R, L, Q
    order_TT = _order(_cosines(next(_means(lexical_WE, types))))
    for name, class_T in types.classes.items():
        if np.mean(np.bincount(class_T)[class_T] > 1) < MOVABLE:
            continue
        near_RTK = (_nearest(order_TT, types.allowed_TT, most, of_T) for of_T in _shuffles(class_T, draws, seed))
        drawn[name] = np.array([[lns(near_TK, ranks_TT) for ranks_TT in ranks_LTT] for near_TK in near_RTK])

    def overlap(values_V: np.ndarray, drawn_R: dict[str, np.ndarray]) -> Overlap:
        chances = {name: _chance(float(values_V[0]), x_R) for name, x_R in drawn_R.items()}
        by_name = (chances["chance"], chances.get("within"), chances.get("place"))
        return Overlap(*_interval(values_V, FRACTION), *by_name, p=max(chance.p for chance in chances.values()))

    def of_state(lns_VQ: np.ndarray, drawn_RQ: dict[str, np.ndarray]) -> StateOverlap:
        by_k = [overlap(lns_VQ[:, q], {n: x_RQ[:, q] for n, x_RQ in drawn_RQ.items()}) for q in range(len(sizes_Q))]
        return StateOverlap(tuple(by_k), overlap(lns_VQ.mean(1), {n: x_RQ.mean(1) for n, x_RQ in drawn_RQ.items()}))

    def difference(a: int, b: int) -> StateDifference:
        return StateDifference(a, b, *_interval((lns_VLQ[:, a] - lns_VLQ[:, b]).mean(1), CORRELATION))

    return Similarity(
        types=len(types.names_T),
        tokens=len(types.type_M),
        left_out=types.left_out,
        units=len(np.unique(types.unit_M)),
        draws=draws,
        ks=tuple(sizes_Q.tolist()),
        took_part=tuple(part_TQ.sum(0).tolist()),
        states=tuple(of_state(lns_VLQ[:, s], {n: x_RLQ[:, s] for n, x_RLQ in drawn.items()}) for s in states),
        differences=tuple(difference(a, b) for a, b in itertools.combinations(states, 2)),
    )


def table(
    awe_WD: np.ndarray, lexical_WE: np.ndarray, tokens: Tokens, words: Sequence[str], k: int
) -> tuple[WordNeighbours, ...]:
    """For each word its k nearest types in one state and in the lexicon, under the rules of `similarity`.

    Raises UserError for a word whose type does not take part, or that has k or fewer allowed neighbours.
    """
    types = _types(lexical_WE, tokens)
    positions = [_position_of(word, types, k) for word in words]
    spaces = [_cosines(next(_means(x, types))) for x in (awe_WD, lexical_WE)]

    def near(cosines_TT: np.ndarray, t: int) -> tuple[Neighbour, ...]:
        order_T = np.argsort(-cosines_TT[t], kind="stable")
        nearest_K = order_T[types.allowed_TT[t, order_T]][:k]
        return tuple(Neighbour(str(types.names_T[j]), float(cosines_TT[t, j])) for j in nearest_K)

    rows = []
    for t in positions:
        acoustic, lexical = (near(cosines_TT, t) for cosines_TT in spaces)
        lexical_words = {one.word for one in lexical}
        common = tuple(one.word for one in acoustic if one.word in lexical_words)
        name, count = str(types.names_T[t]), int((types.type_M == t).sum())
        rows.append(WordNeighbours(name, count, acoustic, lexical, common))
    return tuple(rows)


def _position_of(word: str, types: _Types, k: int) -> int:
    """The index of a word's type. Raises UserError as `table` does."""
    matches = np.flatnonzero(types.names_T == word_type(word))
    if not matches.size:
        example = str(types.names_T[np.bincount(types.type_M).argmax()])
        reason = f"not said {MIN_TOKENS} times and by two speakers"
        raise UserError(f"word {word!r}: {reason}, so it has no neighbours; {example!r} has")
    count = int(types.allowed_TT[matches[0]].sum())
    if count <= k:
        raise UserError(f"word {word!r}: only {count} words share no sentence with it; its {k} nearest need more")
    return int(matches[0])


def _types(lexical_WE: np.ndarray, tokens: Tokens) -> _Types:
    """The types that take part. Raises UserError where there are none."""
    known_W = (tokens.types_W != "") & lexical_WE.any(1)
    names_N, type_W = np.unique(tokens.types_W[known_W], return_inverse=True)
    labels_U, unit_W = np.unique(tokens.units_W[known_W], return_inverse=True)
    unit_W %= MAX_UNITS
    counts_NU = np.zeros((len(names_N), min(len(labels_U), MAX_UNITS)), np.int64)
    np.add.at(counts_NU, (type_W, unit_W), 1)
    # Tokens of two units for each type: the same types remain whichever unit is left out.
    takes_N = (counts_NU.sum(1) >= MIN_TOKENS) & ((counts_NU > 0).sum(1) >= min(2, counts_NU.shape[1]))
    if not takes_N.any():
        reason = f"of {len(names_N)} none is said {MIN_TOKENS} times and by two speakers"
        raise UserError(f"neighbours of words: {reason}; there is nothing to compare")
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
    """The ks in order, and `(T, Q)`, which types take part at each."""
    types, choice_T = len(allowed_TT), allowed_TT.sum(1)
    largest = math.ceil(types / SHARE) - 1
    if ks is None:
        up_to = min(largest, LARGEST)
        even_Q = np.geomspace(1, max(up_to, 1), SIZES).round().astype(int)
        sizes_Q = np.arange(1, up_to + 1) if up_to <= SIZES else np.unique(even_Q)
        sizes_Q = sizes_Q[sizes_Q < choice_T.max()]
        if not sizes_Q.size:
            reason = f"{types} words, of which none has two others that share no sentence with it"
            raise UserError(f"neighbours of words: {reason}: too few words, or too few sentences")
    else:
        sizes_Q = np.unique(np.array(ks, int))
        assert sizes_Q.size, "no k"
        wrong_Q = sizes_Q[(sizes_Q < 1) | (sizes_Q > min(largest, choice_T.max() - 1))]
        if wrong_Q.size:
            limits = f"{types} words, of which one shares no sentence with at most {choice_T.max()}"
            raise UserError(f"k {wrong_Q[0]}: with {limits}, k is 1 to {min(largest, choice_T.max() - 1)}")
    return sizes_Q, choice_T[:, None] > sizes_Q


def _means(x_WD: np.ndarray, types: _Types) -> Iterator[np.ndarray]:
    """`(T, D)` means over the tokens of each type: of all units, then without each one where there are several."""
    count, units = len(types.names_T), int(types.unit_M.max()) + 1
    cell_M, x_MD = types.unit_M * count + types.type_M, x_WD[types.tokens_W].astype(np.float64)
    holds_CM = csr_array((np.ones(len(cell_M)), (cell_M, np.arange(len(cell_M)))), shape=(units * count, len(cell_M)))
    sums_UTD = (holds_CM @ x_MD).reshape(units, count, -1)
    counts_UT1 = np.bincount(cell_M, minlength=units * count).reshape(units, count, 1)
    sum_TD, count_T1 = sums_UTD.sum(0), counts_UT1.sum(0)
    yield sum_TD / count_T1
    if units > 1:
        for without_TD, without_T1 in zip(sums_UTD, counts_UT1, strict=True):
            yield (sum_TD - without_TD) / (count_T1 - without_T1)


def _cosines(x_TD: np.ndarray) -> np.ndarray:
    """`(T, T)` float32 cosines of standardised vectors; 0 for a type whose vector is the mean of all."""
    if not np.isfinite(x_TD).all():
        raise UserError("neighbours of words: a word's vector is not finite; the features are damaged, or overflowed")
    x_TD = standardise(x_TD).astype(np.float32)
    norm_T1 = np.linalg.norm(x_TD, axis=1, keepdims=True)
    x_TD = np.divide(x_TD, norm_T1, out=np.zeros_like(x_TD), where=norm_T1 > 0)
    return np.asarray(x_TD @ x_TD.T)


def _order(cosines_TT: np.ndarray) -> np.ndarray:
    """`(T, T)`: for each type all types, nearest first."""
    return np.argsort(-cosines_TT, axis=1, kind="stable").astype(np.int32)


def _nearest(order_TT: np.ndarray, allowed_TT: np.ndarray, k: int, of_T: np.ndarray | None = None) -> np.ndarray:
    """`(T, k)`: the nearest allowed types, nearest first; where there are fewer than k, any other types follow.

    of_T: the type whose vector each type has, where vectors are permuted; order_TT is the order of the vectors.
    """
    types = len(order_TT)
    of_T = np.arange(types) if of_T is None else of_T
    holder_T, near_TK = np.argsort(of_T), np.empty((types, k), np.int64)
    needed_T, rows_N, width = np.minimum(allowed_TT.sum(1), k), np.arange(types), 2 * k
    while rows_N.size:  # in most rows the nearest few include enough allowed types
        near_NM = holder_T[order_TT[:, :width][of_T[rows_N]]]
        is_allowed_NM = allowed_TT[rows_N[:, None], near_NM]
        first_NK = np.argsort(~is_allowed_NM, axis=1, kind="stable")[:, :k]
        near_TK[rows_N] = np.take_along_axis(near_NM, first_NK, 1)
        rows_N, width = rows_N[is_allowed_NM.sum(1) < needed_T[rows_N]], 4 * width
    return near_TK


def _ranks(near_TK: np.ndarray) -> np.ndarray:
    """`(T, T)`: the rank, from 0, of each type among the nearest of each; K for a type that is not among them."""
    types, most = near_TK.shape
    ranks_TT = np.full((types, types), most, np.int16 if most < 2**15 else np.int32)
    np.put_along_axis(ranks_TT, near_TK, np.arange(most, dtype=ranks_TT.dtype)[None], 1)
    return ranks_TT


def _jaccard(near_TK: np.ndarray, ranks_TT: np.ndarray) -> np.ndarray:
    """`(T, K)`: the Jaccard overlap of the first 1, 2, ... K neighbours in the two spaces."""
    types, most = near_TK.shape
    # A type that is a neighbour in both spaces is shared from the later of its two ranks on.
    later_TK = np.maximum(np.take_along_axis(ranks_TT, near_TK, 1), np.arange(most))
    cells = np.arange(types)[:, None] * (most + 1) + later_TK
    shared_TK = np.bincount(cells.ravel(), minlength=types * (most + 1)).reshape(types, -1)[:, :most].cumsum(1)
    return np.asarray(shared_TK / (2 * np.arange(1, most + 1) - shared_TK))


def _shuffles(class_T: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """`draws` permutations `(T,)` of the types within their classes."""
    rng, by_class_T = np.random.default_rng(seed), np.argsort(class_T, kind="stable")
    for _ in range(draws):
        order_T = np.empty_like(by_class_T)
        order_T[by_class_T] = np.lexsort((rng.random(len(class_T)), class_T))
        yield order_T


def _chance(value: float, drawn_R: np.ndarray) -> Chance:
    count = int(np.count_nonzero(drawn_R >= value - TOLERANCE))
    return Chance(value, float(drawn_R.mean()), float(np.quantile(drawn_R, 0.95)), (1 + count) / (1 + len(drawn_R)))


def _interval(values_V: np.ndarray, limits: Limits) -> tuple[float, float, float]:
    """The value with all units, and its interval from the values without each unit, within its limits."""
    without_U = values_V[1:]
    of = conclude(Sampled(values_V[0], without_U, np.ones(len(without_U), int), (), by_fold=False), limits=limits)
    return of.value, of.low, of.high
