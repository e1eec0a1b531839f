"""What a set of searches decided, slot by slot, with warnings of collapse, indecision and disagreement.

A search ends with softmax(theta) over every slot's candidates and chooses one of them. Axes: P searches of one space,
one for each fold and seed; K candidates of a slot. The searches share training data and seeds, so their p is, if
anything, too small.

Reference
    Zela et al., *Understanding and Robustifying Differentiable Architecture Search*, ICLR 2020: searches that collapse
        onto one operation everywhere.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr
from scipy.stats import binomtest

from bas.stats.intervals import spread

COLLAPSED = 0.5  # Collapse is reported from this share of searches that chose one block for all equal slots.
UNDECIDED_ENTROPY = 0.9  # With three candidates, 0.50, 0.25 and 0.25 have 0.95; 0.60, 0.20 and 0.20 have 0.86.
UNDECIDED_MARGIN = 0.1
LEVEL = 0.05


@dataclass(frozen=True)
class SlotChoice:
    """One slot over P searches, with sample deviations (0.0 with one search). Margin and entropy are None where the
    searches chose without probabilities."""

    candidates: tuple[str, ...]
    frequency: dict[str, float]  # share of the searches that chose each block, the most frequent first
    margin: float | None  # probability of the first candidate minus that of the second; 1 with one candidate
    margin_sd: float
    entropy: float | None  # of the probabilities, divided by log K: 0..1; 0 with one candidate
    entropy_sd: float
    agreement: float | None  # share of the pairs of searches with the same choice; chance: 1 / K; None with one search
    p: float  # probability of a first choice at least this frequent, if all K candidates are equally likely

    @property
    def open(self) -> bool:
        """Whether there was more than one candidate."""
        return len(self.candidates) > 1


@dataclass(frozen=True)
class Alike:
    """Slots with the same candidates, and how many of the searches chose one block for all of them."""

    slots: tuple[str, ...]
    count: int
    p: float  # probability of at least this count, if choices are independent and equally likely
    blocks: dict[str, int]  # the number of searches by that block, the most frequent first


@dataclass(frozen=True)
class Selection:
    """What P searches of one space decided."""

    searches: int
    slots: dict[str, SlotChoice]
    alike: tuple[Alike, ...]
    agreement: float | None  # mean over the open slots; None with one search or no open slot
    warnings: tuple[str, ...] = ()  # see `warnings`


def summarise(
    probabilities: Sequence[Mapping[str, Mapping[str, float]]], chosen: Sequence[Mapping[str, str]]
) -> Selection:
    """Frequencies, margins, entropies and agreement of P >= 1 searches of one space.

    probabilities: for each search, its final softmax(theta) by slot and block. chosen: for each search, in the same
    order, the chosen block by slot.
    """
    assert len(probabilities) == len(chosen) > 0, (len(probabilities), len(chosen))
    names = {slot: tuple(blocks) for slot, blocks in probabilities[0].items()}
    for search, choice in zip(probabilities, chosen, strict=True):
        assert {slot: tuple(blocks) for slot, blocks in search.items()} == names, "searches of several spaces"
        assert choice.keys() == names.keys(), "a choice for other slots"
        assert all(block in names[slot] for slot, block in choice.items()), choice

    frequencies = selection_frequency(chosen)
    slots = {
        slot: _slot(np.array([list(search[slot].values()) for search in probabilities]), blocks, frequencies[slot])
        for slot, blocks in names.items()
    }
    groups: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for slot, choice_of in slots.items():
        if choice_of.open:
            groups[tuple(sorted(choice_of.candidates))].append(slot)
    alike = tuple(_alike(tuple(group), len(k), chosen) for k, group in groups.items() if len(group) > 1)
    agreements = [s.agreement for s in slots.values() if s.open and s.agreement is not None]
    return Selection(len(chosen), slots, alike, float(np.mean(agreements)) if agreements else None)


def _slot(probability_PK: np.ndarray, blocks: tuple[str, ...], frequency: dict[str, float]) -> SlotChoice:
    searches, candidates = probability_PK.shape
    assert np.allclose(probability_PK.sum(1), 1, atol=1e-4), "probabilities that do not sum to 1"
    margins, entropies = np.ones(searches), np.zeros(searches)
    if candidates > 1:
        second_P, first_P = np.sort(probability_PK, axis=1)[:, -2:].T
        margins, entropies = first_P - second_P, entr(probability_PK).sum(1) / math.log(candidates)
    counts = [round(share * searches) for share in frequency.values()]
    pairs = math.comb(searches, 2)
    agreement = sum(math.comb(count, 2) for count in counts) / pairs if pairs else None
    # Any of the K candidates might have come first, so p is multiplied by K (Bonferroni).
    p = min(1.0, candidates * _tail(counts[0], searches, 1 / candidates))
    return SlotChoice(blocks, frequency, *spread(margins.tolist()), *spread(entropies.tolist()), agreement, p)


def _alike(slots: tuple[str, ...], candidates: int, chosen: Sequence[Mapping[str, str]]) -> Alike:
    sets = [{choice[slot] for slot in slots} for choice in chosen]
    blocks = Counter(next(iter(s)) for s in sets if len(s) == 1)
    p = _tail(blocks.total(), len(chosen), candidates ** (1 - len(slots)))
    return Alike(slots, blocks.total(), p, dict(sorted(blocks.items(), key=lambda item: (-item[1], item[0]))))


def _tail(count: int, total: int, chance: float) -> float:
    return float(binomtest(count, total, chance, alternative="greater").pvalue)


def warnings(selection: Selection) -> list[str]:
    """Warnings for a reader of the chosen blocks, one sentence each, collapse first.

    Collapse: at least half of the searches chose one block for all slots with the same candidates, more often than by
    chance. Indecision, by slot: the mean normalised entropy is above 0.9 or the mean margin below 0.1. Disagreement, by
    slot: the first choice is no more frequent than by chance (binomial test, corrected for K candidates, p > 0.05);
    where not even a unanimous choice could pass the test, one warning says so instead. Searches without probabilities
    get neither a warning of indecision nor a margin.
    """
    searches = selection.searches
    return [
        *(_collapse(a, searches) for a in selection.alike if a.count >= COLLAPSED * searches and a.p <= LEVEL),
        *(line for name, slot in selection.slots.items() for line in _indecision(name, slot)),
        *_disagreements(selection),
    ]


def _collapse(alike: Alike, searches: int) -> str:
    which = ", ".join(f"{block} {count}" for block, count in alike.blocks.items())
    return (
        f"Collapse: {alike.count} of {searches} searches chose one block for all of {', '.join(alike.slots)} "
        f"({which}); independent choices would do so with p {alike.p:.2g}."
    )


def _indecision(name: str, slot: SlotChoice) -> list[str]:
    if slot.margin is None or slot.entropy is None or not slot.open:
        return []
    if slot.entropy <= UNDECIDED_ENTROPY and slot.margin >= UNDECIDED_MARGIN:
        return []
    return [
        f"Indecision: the searches hardly prefer a block for {name} (mean normalised entropy {slot.entropy:.2f}, "
        f"reported above {UNDECIDED_ENTROPY:g}; mean margin {slot.margin:.2f}, reported below {UNDECIDED_MARGIN:g})."
    ]


def _disagreements(selection: Selection) -> list[str]:
    searches, messages, too_few = selection.searches, [], []
    for name, slot in selection.slots.items():
        if slot.p <= LEVEL or not slot.open:
            continue
        candidates = len(slot.candidates)
        if candidates ** (1 - searches) > LEVEL:  # p of a unanimous choice
            too_few.append(name)
            continue
        first, share = next(iter(slot.frequency.items()))
        messages.append(
            f"Disagreement: {round(share * searches)} of {searches} searches chose {first} for {name}, no more than "
            f"chance among {candidates} candidates gives (p {slot.p:.2g})"
            + ("." if slot.margin is None else f", with a mean margin of {slot.margin:.2f}.")
        )
    if too_few:
        plural = "es are" if searches > 1 else " is"
        messages.append(
            f"Too few: {searches} search{plural} too few to tell a choice for {', '.join(too_few)} from chance."
        )
    return messages


def selection_frequency(choices: Sequence[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """How often each block was chosen for each slot, as a fraction of the choices that have the slot.

    choices: slot to block, one mapping for each fold and seed. Slots are in order of first appearance; within a slot,
    the most frequent block comes first, ties by name.
    """
    counts: dict[str, Counter[str]] = {}
    for choice in choices:
        for slot, block in choice.items():
            counts.setdefault(slot, Counter())[block] += 1
    return {
        slot: {block: c / blocks.total() for block, c in sorted(blocks.items(), key=lambda item: (-item[1], item[0]))}
        for slot, blocks in counts.items()
    }
