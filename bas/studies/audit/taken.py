"""Which architectures of a space an audit trains alone: those that stand for it, and what searches picked besides.

Axes as in `bas.studies.audit.trained`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bas.runs.results import search_of
from bas.runs.run import Run
from bas.space import Architecture, SearchSpace
from bas.stats.reference import Reference

SEED = 0
"""Of the sample, the same for all folds and seeds."""


@dataclass(frozen=True)
class Taken:
    """Numbers, in the order of `SearchSpace.architectures`: first those of the reference, then the picks beside it.

    A pick that is no part of the sample was chosen for what it is: counted there, it would bias every number about the
    space. It is trained like the others, in all folds, with the seeds that judge it (`judges`).
    """

    space: SearchSpace
    reference: Reference
    numbers: tuple[int, ...]
    picks: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # by number, the places of its seeds

    @property
    def sampled(self) -> bool:
        return self.reference.drawn < self.reference.size

    @property
    def every(self) -> tuple[int, ...]:
        return (*self.numbers, *self.picks)

    @property
    def architectures(self) -> tuple[Architecture, ...]:
        return tuple(self.space.at(number) for number in self.every)

    def number(self, architecture: Architecture) -> int:
        """In a sample, that of the architecture which stands for all that are the same network."""
        return self.space.number(self.space.distinct(architecture) if self.sampled else architecture)

    def alike(self, architecture: Architecture) -> tuple[Architecture, ...]:
        """All architectures of the space that a taken one stands for."""
        return tuple(self.space.same(architecture)) if self.sampled else (architecture,)


def take(space: SearchSpace, sample: int | None) -> Taken:
    """All architectures, or a sample of those that are different networks, where there are more of these."""
    different = space.different
    if sample is None or sample >= different:
        return Taken(space, Reference.all_of(space.size), tuple(range(space.size)))
    drawn = space.sample(sample, SEED)
    return Taken(space, Reference(sample, different), tuple(space.number(a) for a in drawn))


def with_picks(run: Run, name: str, strategies: Sequence[str], sample: int | None) -> Taken:
    """The same with what searches picked outside the sample. All searches must be done."""
    taken = take(run.spaces[name].space, sample)
    if not taken.sampled:
        return taken
    seeds = run.plan.seeds
    places: dict[int, set[int]] = {}
    for strategy in strategies:
        for place, seed in enumerate(seeds):
            for fold in range(len(run.protocol.folds)):
                pick = taken.number(Architecture.of(search_of(run, name, fold, seed, strategy).architecture))
                if pick not in taken.numbers:
                    places.setdefault(pick, set()).update(judges(place, len(seeds)))
    picks = {number: tuple(sorted(places[number])) for number in sorted(places)}
    return Taken(taken.space, taken.reference, taken.numbers, picks)


def judges(place: int, seeds: int) -> list[int]:
    """The places of the seeds whose trainings judge a pick of one seed: all others; of a single seed, its own."""
    return [other for other in range(seeds) if other != place] or [place]
