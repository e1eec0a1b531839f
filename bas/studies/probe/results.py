"""A probe's results: its jobs', and those of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from bas.encoders import EncoderInfo
from bas.report.results import Results, Score
from bas.runs.results import Context, Tested
from bas.stats import Estimate, FalseVerdicts, Paired, Spread
from bas.stats.shares import Ceiling


@dataclass(frozen=True)
class HeadResult:
    """One head of a job."""

    valid: Mapping[str, float]  # loss and metrics, at its best epoch
    test: Tested
    mix: tuple[float, ...]  # the weight of each state


@dataclass(frozen=True)
class ProbeResult:
    """A job: every head on every input, in one fold."""

    fit: int  # utterances
    seconds: float
    heads: Mapping[str, HeadResult]


@dataclass(frozen=True)
class FewResult:
    """A job: by how many utterances were labelled (of each class; without classes, in all), the state that each draw of
    them names."""

    layers: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TargetPredictions:
    """What a source's heads predict of one target."""

    members: np.ndarray  # (N,) of all utterances
    heads: Mapping[str, np.ndarray]  # (N,) classes, by head


@dataclass(frozen=True)
class TransferResult:
    """A job: all heads trained on a source in one fold."""

    fit: int
    seconds: float
    layer: int  # the state chosen from the source's own speakers
    tests: Mapping[str, TargetPredictions]


@dataclass(frozen=True, kw_only=True)
class HeadRow(Score):
    """One input of a kind of head; None: it is the other itself, or there is none."""

    against_last: Paired | None  # the last state
    against_softmax: Paired | None  # the softmax mix


@dataclass(frozen=True)
class LayerClaim:
    """The score that a way of choosing the layer claims."""

    claims: float
    bias: float  # more than the first, by training speakers of disjoint folds
    low: float
    high: float


@dataclass(frozen=True)
class Biases:
    tested: int  # utterances that both splits test
    claims: Mapping[str, LayerClaim]
    best: Mapping[str, int]  # by split, the state that is best on test


@dataclass(frozen=True)
class FewRow:
    """The layers chosen from so many labels, each probe trained on all."""

    score: Spread  # over draws
    draws: int
    picks: Mapping[int, int]  # how often each state was named


@dataclass(frozen=True)
class FewLabels:
    rows: Mapping[str, FewRow]  # by how many of a class, or without classes in all; "0": the middle state; "all"
    all: float  # the headline of the layers chosen from all labels
    best: float  # of the state that is best on test
    best_state: int


Reductions = Mapping[str, Mapping[str, Estimate]]
"""By way of choosing (`numbers.WHOSE`) and aggregate, the share of its errors that one layer avoids, or the gain."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The results on choosing a layer, where several are stored; by kind of head."""

    chosen: Mapping[str, tuple[int, ...]]  # by way of choosing, the state of each fold
    biases: Mapping[str, Biases]
    reduction: Mapping[str, Reductions]  # empty without classes: what a correlation lacks of 1 are no errors
    gain: Mapping[str, Reductions] = field(default_factory=dict)  # there: the headline of one layer less an aggregate's
    mixes: Mapping[str, Mapping[str, tuple[float, ...]]]  # by learned mix, the weight of each state
    few: Mapping[str, FewLabels]


@dataclass(frozen=True)
class RandomSplit:
    """The split with speakers on both sides."""

    description: str
    marks: tuple[str, ...]
    rule: str
    fit: float  # training utterances of a fold, the mean


@dataclass(frozen=True, kw_only=True)
class StoreProbe(Context):
    """One store."""

    store: str
    states: tuple[int, ...]
    languages: tuple[str, ...]
    classes: tuple[str, ...]  # none: the task predicts real numbers
    fit: float  # training utterances of a fold, the mean
    seconds: float  # of one job, the mean
    heads: Mapping[str, Mapping[str, HeadRow]]  # by kind and input
    false_verdicts: FalseVerdicts | None  # of heads against themselves; None: too few seeds or units
    random: RandomSplit
    curves: Mapping[int, Mapping[str, Spread]]  # by percent of the fit part and head, the headline over seeds
    choice: Choice | None  # None: one state is stored
    ceiling: Ceiling | None = None  # what the targets' own noise leaves to reach


@dataclass(frozen=True)
class TransferCell:
    """A source's heads on a target."""

    mean: float
    low: float
    high: float
    chosen: tuple[int, ...]  # by fold, the state that the source's speakers name
    by_state: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Between the corpora of one encoder."""

    encoder: EncoderInfo
    pretraining: str
    left_out: tuple[str, ...]  # sources that nothing is trained on
    marks: tuple[str, ...]
    languages: Mapping[str, tuple[str, ...]]  # by corpus
    classes: tuple[str, ...]
    labels: str
    metric: str
    seeds: int
    matrix: Mapping[str, Mapping[str, Mapping[str, TransferCell]]]  # by kind of head, source and target


@dataclass(frozen=True, kw_only=True)
class Probe(Results):
    study: ClassVar = "probe"

    run: str
    stores: tuple[StoreProbe, ...]
    mean: Mapping[str, Mapping[str, Mapping[str, Spread]]]  # `reduction`, or `gain`, over corpora; empty: one
    transfer: tuple[Transfer, ...]

    @property
    def table(self) -> Sequence[object]:
        return [
            {"store": store.store, "head": kind, "reads": name, **vars(row)}
            for store in self.stores
            for kind, rows in store.heads.items()
            for name, row in rows.items()
        ]
