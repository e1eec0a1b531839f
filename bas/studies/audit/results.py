"""The results of an audit: every architecture of a space, every strategy, and how far the verdicts can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from bas.report.results import Results
from bas.runs.results import Context
from bas.stats import Estimate, FalseVerdicts, Paired, Spread
from bas.stats.decisions import Selection
from bas.stats.ranking import Ceiling, SlotEffects

Conclusion = Literal["confirmed", "rejected", "undecided", "no claim"]


@dataclass(frozen=True, kw_only=True)
class ArchitectureRow:
    """One architecture, trained alone."""

    number: int  # in the order of `SearchSpace.architectures`
    architecture: str
    score: Spread  # the headline metric, over seeds
    shrunken: float | None  # its mean without the part that is noise, see `ranking.shrink`; None: one seed
    valid_score: float  # validation loss of the kept epoch, negated
    cost: float  # multiply-adds of one training
    parameters: int


@dataclass(frozen=True)
class RandomSearch:
    """Random search at the cost of a strategy."""

    mean: float
    percentile: Estimate | None
    tried: float  # architectures trained, mean over draws
    paid: float  # so many mean trainings the cost pays for, beside that of the pick; a sample may have fewer
    draws: int


@dataclass(frozen=True, kw_only=True)
class Searched:
    """The part of a row that only a strategy with searches has."""

    seconds: float  # of one search
    random: RandomSearch | None  # None: with one seed it would be judged by the trainings that it chose between
    against_random: Paired | None
    ahead: Estimate | None  # its percentile minus that of random search
    paths: Estimate | None  # Kendall's tau of the scores of its paths with the accuracies; None: it scores no paths
    beliefs: Estimate | None  # the same of its probabilities; None: it has none


@dataclass(frozen=True, kw_only=True)
class StrategyRow:
    """Percentile, regret and both tau, here and in `Searched`, are None where the trainings rank no architectures."""

    strategy: str
    score: Spread | None  # of the picks, over seeds; of a blind draw, over architectures and seeds
    percentile: Estimate | None
    regret: Estimate | None  # below 0 where a pick from outside the sample is better than its best
    cost: float  # multiply-adds of search, selection and retraining
    against_reference: Paired | None
    searched: Searched | None


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The range of scores in the space, and how well its architectures can be ranked."""

    mean: float
    best: float | None  # of the shrunken means; None: one seed
    worst: float | None
    split_half: float | None  # tau between two halves of the seeds; None: one seed
    ceiling: Ceiling | None  # None: one seed

    @property
    def ranks(self) -> bool:
        """Whether the trainings rank the architectures; else no percentile, regret or tau is given."""
        return self.ceiling is not None and self.ceiling.ranks


@dataclass(frozen=True)
class Claim:
    """A conclusion about a claim of the paper, and the contrast that decides it."""

    value: float
    low: float
    high: float
    p: float  # two-sided, that the contrast is 0; of "good enough", that it is the most that it may be behind
    units: int
    by_fold: bool  # the units are the folds, as there was one seed
    conclusion: Conclusion  # by the interval alone, not corrected for the number of claims


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The results on blocks and claims under other settings."""

    seeds: tuple[int, ...]
    mean: float  # over the space
    baselines: Mapping[str, Spread]
    effects: Mapping[str, SlotEffects]
    claims: Mapping[str, Claim]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The architectures that were drawn from a space to stand for it."""

    drawn: int
    seed: int
    mean: Estimate  # of the space, with its interval for other draws
    best: float  # with 95 % certainty, the best of them is among this best share of the space
    picked: tuple[ArchitectureRow, ...]  # by searches, and not drawn: in no number about the space


@dataclass(frozen=True, kw_only=True)
class SpaceAudit:
    """One space under the run's own settings, and under each variant."""

    space: str
    size: int  # of a space that was sampled, its architectures that are different networks
    sample: Sample | None  # None: every architecture was trained
    architectures: tuple[ArchitectureRow, ...]  # those that stand for the space, best first
    summary: Summary
    baselines: Mapping[str, Spread]
    learning: Mapping[str, tuple[float, ...]]  # by kind of loss, the tau of each epoch
    strategies: tuple[StrategyRow, ...]
    effects: Mapping[str, SlotEffects]
    claims: Mapping[str, Claim]
    decisions: Mapping[str, Selection]  # by strategy
    false_verdicts: FalseVerdicts | None  # of each architecture against itself; None: too few units or seeds
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
