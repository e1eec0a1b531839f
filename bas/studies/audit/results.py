"""An audit's results: every architecture of a space, what each strategy's user gets, and how far to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from bas.report.results import Results
from bas.runs.results import Context
from bas.stats import Paired, Spread
from bas.stats.decisions import Selection
from bas.stats.ranking import Agreement, Ceiling, FalseVerdicts, SlotEffects

Conclusion = Literal["confirmed", "rejected", "undecided", "no claim"]


@dataclass(frozen=True, kw_only=True)
class ArchitectureRow:
    """One architecture, trained alone."""

    number: int  # in the order of `SearchSpace.architectures`
    architecture: str
    score: Spread  # the headline, over seeds
    valid_score: float  # validation loss of the kept epoch, negated
    cost: float  # multiply-adds of one training
    parameters: int


@dataclass(frozen=True)
class RandomSearch:
    """At the cost of a strategy."""

    mean: float
    percentile: float | None
    tried: float  # architectures, the mean over draws
    draws: int


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What only a strategy that searches has."""

    seconds: float  # of one search
    random: RandomSearch
    against_random: Paired
    paths: Agreement | None  # of its paths' scores with the truth; None: it has none
    beliefs: Agreement | None  # of its probabilities


@dataclass(frozen=True, kw_only=True)
class StrategyRow:
    strategy: str
    score: Spread  # of its picks, over seeds; of one drawn blindly, over architectures and seeds
    percentile: float | None  # None: too few seeds
    regret: float | None
    cost: float  # multiply-adds of search, selection and retraining
    against_reference: Paired | None
    searched: Searched | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The space: what there is to find, and how well it can be ranked."""

    mean: float
    best: float
    worst: float
    split_half: float | None  # tau of one half of the seeds with the other; None: one seed
    ceiling: Ceiling | None  # None: one seed


@dataclass(frozen=True)
class Claim:
    """A conclusion of the paper's, and the contrast that it goes by."""

    value: float
    low: float
    high: float
    units: int
    conclusion: Conclusion


@dataclass(frozen=True)
class Checks:
    """Verdicts where nothing differs; None: too few units or seeds."""

    a_a: FalseVerdicts | None
    null: FalseVerdicts | None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is said of the blocks under other settings."""

    seeds: tuple[int, ...]
    mean: float  # of the space
    baselines: Mapping[str, Spread]
    effects: Mapping[str, SlotEffects]
    claims: Mapping[str, Claim]


@dataclass(frozen=True, kw_only=True)
class SpaceAudit:
    """One space under the run's own settings, and under each variant."""

    space: str
    size: int
    architectures: tuple[ArchitectureRow, ...]  # best first
    summary: Summary
    baselines: Mapping[str, Spread]
    learning: Mapping[str, tuple[float, ...]]  # by kind of loss, the tau of each epoch
    strategies: tuple[StrategyRow, ...]
    effects: Mapping[str, SlotEffects]
    claims: Mapping[str, Claim]
    decisions: Mapping[str, Selection]  # by strategy
    false_verdicts: Checks
    variants: Mapping[str, Variant]  # by spec


@dataclass(frozen=True, kw_only=True)
class Audit(Results, Context):
    study: ClassVar = "audit"

    variant_seeds: tuple[int, ...]
    good_enough: float
    spaces: tuple[SpaceAudit, ...]

    @property
    def table(self) -> Sequence[object]:
        return [{"space": space.space, **vars(row)} for space in self.spaces for row in space.strategies]
