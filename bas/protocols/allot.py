"""Divide whole units (speakers, sessions, texts) into parts of given shares, balanced by class and sex."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random

import numpy as np

from bas.corpora import Utterance
from bas.protocols.base import field_of

ORDERS = 3  # random orders tried, of which the best is taken: with more, all seeds would give like splits
MOST = 20  # orders tried at most while a class is missing from a part


def allot(
    groups: Mapping[str, Sequence[Utterance]],
    label: str,
    shares: Sequence[float],
    trained: Sequence[Sequence[int]],
    rng: Random,
) -> list[list[str]]:
    """The units of each part, sorted.

    groups: the utterances of each unit. label: the field whose values are the classes. shares: of each part, sum 1.
    trained: sets of parts that are trained on together; each set should have every class.

    Greedy: units are taken in random order, larger ones earlier on average, and each goes to the part that it brings
    nearest to its shares of all utterances, of each class, of each sex and of each class within each sex (the sum of
    squared distances over the expected counts, as in Pearson's chi-squared). Of several orders the best is taken: the
    fewest classes missing from `trained`, then from any part, then the smallest distance. No part is empty; `groups`
    must have at least as many units as there are parts.
    """
    assert len(groups) >= len(shares), (len(groups), len(shares))
    units = sorted(groups)
    counts_US, is_class_S = _strata([groups[unit] for unit in units], label)
    wanted_PS = np.outer(shares, counts_US.sum(0))
    best: tuple[tuple[int, int, float], list[int]] | None = None
    for draw in range(1, MOST + 1):
        sizes = [count * rng.uniform(0.5, 1.5) for count in counts_US[:, 0]]
        part_U = _greedy(counts_US, wanted_PS, sorted(range(len(units)), key=lambda u: -sizes[u]))
        held_PS = np.array([counts_US[np.equal(part_U, p)].sum(0) for p in range(len(shares))])
        classes_PC = held_PS[:, is_class_S]
        untrained = sum(int((classes_PC[list(parts)].sum(0) == 0).sum()) for parts in trained)
        distance = round(float(((held_PS - wanted_PS) ** 2 / wanted_PS).sum()), 6)
        score = untrained, int((classes_PC == 0).sum()), distance
        if best is None or score < best[0]:
            best = score, part_U
        if draw >= ORDERS and best[0][:2] == (0, 0):
            break
    assert best is not None
    return [[unit for unit, p in zip(units, best[1], strict=True) if p == part] for part in range(len(shares))]


def _greedy(counts_US: np.ndarray, wanted_PS: np.ndarray, order: Sequence[int]) -> list[int]:
    part_U = [-1] * len(order)
    held_PS = np.zeros_like(wanted_PS)
    empty = set(range(len(wanted_PS)))
    for done, u in enumerate(order):
        worse_P = (counts_US[u] * (counts_US[u] + 2 * (held_PS - wanted_PS)) / wanted_PS).sum(1)
        open_ = empty if len(empty) == len(order) - done else range(len(wanted_PS))
        # Rounded, so that every machine breaks a tie in the last bit alike.
        part = min(open_, key=lambda p: (round(float(worse_P[p]), 6), p))
        part_U[u] = part
        held_PS[part] += counts_US[u]
        empty.discard(part)
    return part_U


def _strata(groups: Sequence[Sequence[Utterance]], label: str) -> tuple[np.ndarray, np.ndarray]:
    """`(U, S)`: utterances by unit and stratum (all, each class, sex, and both); `(S,)`: which strata are classes."""
    kinds: dict[tuple[str | None, ...], int] = {("all",): 0}
    counts: list[dict[int, int]] = []
    for utterances in groups:
        of_unit: dict[int, int] = {}
        for u in utterances:
            class_, sex = field_of(u, label), u.sex
            for kind in (("all",), ("class", class_), ("sex", sex), ("both", class_, sex)):
                index = kinds.setdefault(kind, len(kinds))
                of_unit[index] = of_unit.get(index, 0) + 1
        counts.append(of_unit)
    counts_US = np.zeros((len(groups), len(kinds)))
    for row_S, of_unit in zip(counts_US, counts, strict=True):
        for index, count in of_unit.items():
            row_S[index] = count
    return counts_US, np.array([kind[0] == "class" for kind in kinds])


def thin(ids: Iterable[str], label: Mapping[str, str], size: int, rng: Random) -> tuple[str, ...]:
    """`size` of these utterances, sorted, drawn so that each class keeps its share.

    With an equal `rng` a smaller draw is a subset of a larger one.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for id_ in sorted(ids):
        members[label[id_]].append(id_)
    for drawn in members.values():
        rng.shuffle(drawn)
    # The n-th utterance of a class of N has position n / N, from 0: each class comes once, then all keep their shares.
    order = sorted((n / len(drawn), class_, id_) for class_, drawn in members.items() for n, id_ in enumerate(drawn))
    return tuple(sorted(id_ for _, _, id_ in order[:size]))
