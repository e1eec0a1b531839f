"""A shares study's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bas.report.results import Results, Score
from bas.runs.results import Context
from bas.stats import FalseVerdicts, Paired
from bas.stats.shares import Ceiling

ACOUSTIC = "openSMILE+SVR"
"""The row that reads recordings, see `bas.studies.shares.acoustic`."""


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
    """Correlation of the attention weights with a measure: mean rank correlation over seeds and utterances."""

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
    rho: float  # rank correlation of the weights with energy, mean over seeds
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
    false_verdicts: FalseVerdicts | None  # of rows against themselves; None: too few seeds or units
    models: Mapping[str, ModelAttention]
    examples: Mapping[str, tuple[Example, ...]]
    against_acoustic: Mapping[str, Paired] = field(default_factory=dict)  # networks less the row ACOUSTIC


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
    recordings: Mapping[str, ShareRow] = field(default_factory=dict)  # ACOUSTIC, of no store; before 0.13 none

    @property
    def table(self) -> Sequence[object]:
        rows = [{"store": s.store, "row": name, **vars(row)} for s in self.stores for name, row in s.rows.items()]
        return rows + [{"store": None, "row": name, **vars(row)} for name, row in self.recordings.items()]

    @property
    def compared(self) -> dict[str, Paired]:
        """Every difference, by what it is of."""
        first = self.stores[0]
        compared: dict[str, Paired] = {}
        for s in self.stores:
            compared |= {
                f"{s.store}: {pair.row} against {pair.other}": pair.difference for pair in (*s.attention, *s.each)
            }
            compared |= {f"{s.store}: {row} against the {s.linear}": of for row, of in s.against_linear.items()}
            compared |= {f"{s.store}: {row} against {ACOUSTIC}": of for row, of in s.against_acoustic.items()}
            compared |= {f"{row} on {s.store} against {first.store}": of for row, of in s.against_first.items()}
        if self.metadata:
            compared |= {f"{row} with metadata against without": of for row, of in self.metadata.against.items()}
        return compared

    @property
    def correlations(self) -> int:
        """How many are tested."""
        models = [model for store in self.stores for model in store.models.values()]
        return sum(of is not None for model in models for of in model.measures.values())
