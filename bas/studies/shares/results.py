"""A shares study's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bas.report.results import Results, Score
from bas.runs.results import Context
from bas.stats import Paired
from bas.stats.shares import Ceiling


@dataclass(frozen=True)
class Pairs:
    """The pairs of baselines to compare, the first with the second."""

    attention: tuple[tuple[str, str], ...]  # alike but for the pool, which attends in the first and not in the second
    each: tuple[tuple[str, str], ...]  # alike, but the first has a network of its own for each output

    @property
    def attentive(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(first for first, _ in self.attention))


@dataclass(frozen=True, kw_only=True)
class ShareRow(Score):
    """One model on one store."""

    seeds: int
    remarks: tuple[str, ...]
    parameters: float  # median over folds and seeds
    seconds: float  # of one training, the mean


@dataclass(frozen=True)
class PairRow:
    """One baseline minus another, by the headline."""

    row: str
    other: str
    difference: Paired


@dataclass(frozen=True)
class Correlation:
    """Correlation of the attention weights with a measure: mean rank correlation over utterances."""

    mean: float
    low: float
    high: float
    p: float  # against circular shifts of the weights
    shown: bool  # the interval excludes 0, and p is at most 0.05
    utterances: int


@dataclass(frozen=True)
class ModelAttention:
    """What the attention weights of a model correlate with; means over utterances."""

    measures: Mapping[str, Correlation | None]  # None: no utterance has it
    behind: float  # weight on frames behind the recording's end
    spread: float  # over how many of the frames the weights spread, 0..1
    agreement: float | None  # rank correlation between two seeds; None: one seed


@dataclass(frozen=True)
class Example:
    """One utterance to look at, frame by frame."""

    id: str
    rho: float  # rank correlation of the mean weights with energy
    seconds: np.ndarray  # (T,) centres
    weights: np.ndarray  # (S, T)
    energy: np.ndarray  # (T,) sone
    pitch: np.ndarray  # (T,) semitones; NaN: unvoiced


@dataclass(frozen=True, kw_only=True)
class StoreShares(Context):
    """One store."""

    store: str
    outputs: tuple[str, ...]
    rows: Mapping[str, ShareRow]
    attention: tuple[PairRow, ...]  # with minus without
    each: tuple[PairRow, ...]  # one network an emotion minus one for all
    against_linear: Mapping[str, Paired]
    against_first: Mapping[str, Paired]  # row by row less those on the first store, which has none
    models: Mapping[str, ModelAttention]
    examples: Mapping[str, tuple[Example, ...]]


@dataclass(frozen=True)
class WithMetadata:
    """The rows of the first store with metadata beside its frames, and their differences from those without."""

    store: str
    fields: tuple[str, ...]
    rows: Mapping[str, ShareRow]
    against: Mapping[str, Paired]


@dataclass(frozen=True, kw_only=True)
class ShareStudy(Results):
    study: ClassVar = "shares"

    run: str
    pairs: Pairs
    metadata: WithMetadata | None
    ceiling: Ceiling | None
    opensmile: str  # its version
    stores: tuple[StoreShares, ...]

    @property
    def table(self) -> Sequence[object]:
        return [{"store": s.store, "row": name, **vars(row)} for s in self.stores for name, row in s.rows.items()]

    @property
    def comparisons(self) -> int:
        """How many differences and correlations are tested."""
        count = len(self.metadata.against) if self.metadata else 0
        for store in self.stores:
            tested = store.attention, store.each, store.against_linear, store.against_first
            count += sum(map(len, tested))
            count += sum(of is not None for model in store.models.values() for of in model.measures.values())
        return count
