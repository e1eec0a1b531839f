"""Whole units (speakers, sessions, texts) into parts of given shares, each with its share of every class and sex."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random

import numpy as np

from bas.corpora import Utterance
from bas.protocols.base import field_of

ORDERS = 3  # are tried and the nearest to the shares is taken: more would leave a seed little to choose
MOST = 20  # orders are tried while a class is missing somewhere


def allot(
    groups: Mapping[str, Sequence[Utterance]],
    label: str,
    shares: Sequence[float],
    trained: Sequence[Sequence[int]],
    rng: Random,
) -> list[list[str]]:
    """The units of each part, sorted.

    groups: the utterances of each unit. label: the field whose values are the classes. shares: of each part, sum 1.
    trained: sets of parts that are trained on together: each should hold every class.

    Units come in random order, large ones rather earlier, each into the part that then is nearest to its share: of all
    utterances, of each class, of each sex and of each class in each sex, by squared distance over the share's size (as
    in Pearson's chi-squared). Of several orders the best is taken: fewest classes missing from `trained`, then from any
    part, then nearest. No part stays empty; `groups` must have as many units as there are parts.
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
        far = round(float(((held_PS - wanted_PS) ** 2 / wanted_PS).sum()), 6)
        score = untrained, int((classes_PC == 0).sum()), far
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
        # Rounded: on every machine the same of two that are equal but for the last bit.
        part = min(open_, key=lambda p: (round(float(worse_P[p]), 6), p))
        part_U[u] = part
        held_PS[part] += counts_US[u]
        empty.discard(part)
    return part_U


def _strata(groups: Sequence[Sequence[Utterance]], label: str) -> tuple[np.ndarray, np.ndarray]:
    """Utterances of each unit by stratum: all, then by class, sex, and both; and which strata are classes."""
    kinds: dict[tuple[str | None, ...], int] = {("all",): 0}
    found: list[dict[int, int]] = []
    for utterances in groups:
        of_unit: dict[int, int] = {}
        for u in utterances:
            class_, sex = field_of(u, label), u.sex
            for kind in (("all",), ("class", class_), ("sex", sex), ("both", class_, sex)):
                index = kinds.setdefault(kind, len(kinds))
                of_unit[index] = of_unit.get(index, 0) + 1
        found.append(of_unit)
    counts_US = np.zeros((len(groups), len(kinds)))
    for row_S, of_unit in zip(counts_US, found, strict=True):
        for index, count in of_unit.items():
            row_S[index] = count
    return counts_US, np.array([kind[0] == "class" for kind in kinds])


def thin(ids: Iterable[str], label: Mapping[str, str], size: int, rng: Random) -> tuple[str, ...]:
    """`size` of these utterances, sorted, drawn so that each class keeps its share; equal draws are nested by size."""
    members: dict[str, list[str]] = defaultdict(list)
    for id_ in sorted(ids):
        members[label[id_]].append(id_)
    for drawn in members.values():
        rng.shuffle(drawn)
    # The n-th of a class of N stands at n / N, from 0: rare classes come first, then all keep their share.
    order = sorted((n / len(drawn), class_, id_) for class_, drawn in members.items() for n, id_ in enumerate(drawn))
    return tuple(sorted(id_ for _, _, id_ in order[:size]))
