"""A dynamics study's results: what is measured of each checkpoint, and those of the report.

A grid is by row (a step, and the last one of every rotation) and state; None: a rotation of that row has no value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bas.encoders import EncoderInfo
from bas.report.results import Results
from bas.runs.results import Split
from bas.stats import Paired, Spread
from bas.stats.similarity import Svcca
from bas.studies.dynamics.classifiers import AnalysisSettings
from bas.training.tuning import Tuning

ByState = tuple[float | None, ...]
Grid = tuple[ByState, ...]


@dataclass(frozen=True)
class Refused:
    """Why something was not measured."""

    refused: str


# --- of one checkpoint, as its analysis file holds it ---


@dataclass(frozen=True)
class CkaByState:
    """The CKA of each state, and with permuted utterances its mean and 95th percentile; None: not permuted."""

    value: tuple[float, ...]
    mean: tuple[float, ...] | None = None
    p95: tuple[float, ...] | None = None
    p: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Cka:
    debiased: CkaByState
    plain: CkaByState


@dataclass(frozen=True)
class Draws:
    """By probe; predictions `(S, N)` where each utterance is tested once and they are kept."""

    macro_f1: tuple[float, ...]
    epochs: tuple[float, ...]
    predictions: np.ndarray | None = None


@dataclass(frozen=True)
class ProbeScores:
    """Of one state."""

    initialisations: Draws  # on the first split
    splits: Draws  # each with the first initialisation


@dataclass(frozen=True)
class Probes:
    note: str
    states: tuple[ProbeScores, ...]
    egemaps: ProbeScores


@dataclass(frozen=True)
class Ridge:
    names: tuple[str, ...]
    families: tuple[str, ...]
    r2: Grid  # by state and name
    note: str


@dataclass(frozen=True)
class Cut:
    """The model cut off after each state."""

    WA: tuple[float, ...]
    UA: tuple[float, ...]
    macro_f1: tuple[float, ...]
    predictions: np.ndarray  # (L, N)
    strengths: tuple[float, ...] | None = None  # of the refitted classifiers

    def score(self, name: str) -> tuple[float, ...]:
        return {"WA": self.WA, "UA": self.UA, "macro_f1": self.macro_f1}[name]


@dataclass(frozen=True)
class Cuts:
    own: Cut  # with the head that was trained on the last state
    refitted: Cut | None = None  # at step 0 and the last


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """See `analysis.analyse`."""

    step: int
    utterances: int
    states: int
    settings: AnalysisSettings
    seed: int
    targets: tuple[int, ...]
    speakers: tuple[str, ...]
    missing: Mapping[str, int]
    clipped: int
    cka: Mapping[str, Cka | Refused]
    svcca: Mapping[str, tuple[Svcca, ...]]
    probes: Mapping[str, Mapping[str, Probes | Refused]]
    ridge: Ridge | Refused
    ids: tuple[str, ...]
    cut: Cuts


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation of a fine-tuning on the valid part."""

    step: int
    epoch: float
    loss: float | None  # of training, since the one before; None at step 0
    valid: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """See `finetune.finetune`."""

    steps: tuple[int, ...]  # those with a checkpoint
    stopped: str  # why
    epochs: float
    seconds: float
    parameters: int  # that moved
    outputs: tuple[str, ...]
    records: tuple[Evaluation, ...]


@dataclass(frozen=True)
class Rotation:
    """One fold: fine-tuned, and every checkpoint measured."""

    rotation: int
    finetune: FineTuned
    checkpoints: tuple[Checkpoint, ...]


# --- of the report ---


@dataclass(frozen=True)
class StepRow:
    step: int | str  # a number, or "last"
    rotations: int  # that have it


@dataclass(frozen=True, kw_only=True)
class RotationRow:
    rotation: int
    utterances: int
    speakers: int
    steps: tuple[int, ...]
    epochs: float
    stopped: str
    valid_loss: tuple[float, float]  # at first, at best


@dataclass(frozen=True)
class Change:
    """The last checkpoint minus step 0, by state."""

    mean: ByState
    sd: ByState
    fell: tuple[int, ...]  # in how many rotations


@dataclass(frozen=True)
class Likeness:
    mean: Grid
    sd: Grid
    change: Change
    chance: Grid | None = None  # the mean 95th percentile of the permuted; None: not permuted
    by_chance: tuple[tuple[bool, ...], ...] | None = None  # the mean is not above it


@dataclass(frozen=True, kw_only=True)
class CkaRows:
    rotations: int  # that have it
    others: str  # why the others do not have it
    debiased: Likeness
    plain: Likeness


@dataclass(frozen=True)
class SvccaRows:
    mean: Grid  # None where it is refused in some rotation
    refused: str  # why


@dataclass(frozen=True)
class Spreads:
    mean: Grid
    sd: Grid


@dataclass(frozen=True)
class StateScores:
    """Of probes, each a mean over rotations."""

    initialisations: Spreads  # on the first split
    splits: Spreads  # each with the first initialisation
    sd_rotations: Grid  # each a mean over splits


@dataclass(frozen=True)
class EgemapsScores:
    """The same of probes on eGeMAPS."""

    initialisations: Spread
    splits: Spread


@dataclass(frozen=True, kw_only=True)
class ProbeRows:
    rotations: int
    others: str
    notes: tuple[str, ...]
    states: StateScores
    egemaps: EgemapsScores
    against_start: tuple[Paired, ...] | None  # the last minus step 0, by state, mean over splits; None: published


@dataclass(frozen=True, kw_only=True)
class RidgeRows:
    rotations: int
    others: str
    notes: tuple[str, ...]
    names: tuple[str, ...]
    families: tuple[str, ...]
    r2: tuple[Grid, ...]  # by row, state and name


@dataclass(frozen=True)
class CutRow:
    mean: ByState
    sd: ByState


@dataclass(frozen=True)
class CutOff:
    own: Mapping[str, Spreads]  # by metric, over rotations
    refitted: Mapping[str, Mapping[str, CutRow]]  # at "0" and "last", by metric
    against_whole: Mapping[str, tuple[Paired | None, ...]]
    """By head and state, the WA of the last cut after it minus the whole's; None: the whole itself."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Every number of the page."""

    rows: tuple[StepRow, ...]
    states: int
    classes: int  # of emotion
    rotations: tuple[RotationRow, ...]
    analysis: AnalysisSettings
    missing: Mapping[str, int]
    clipped: int
    cka: Mapping[str, CkaRows | Refused]
    svcca: Mapping[str, SvccaRows]
    probes: Mapping[str, Mapping[str, ProbeRows | Refused]]
    ridge: RidgeRows | Refused
    cut: CutOff

    @property
    def likeness(self) -> dict[str, CkaRows]:
        """By description, those that some rotation has."""
        return {name: of for name, of in self.cka.items() if isinstance(of, CkaRows)}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The corpus, encoder and choices behind the numbers."""

    corpus: str
    note: str
    encoder: EncoderInfo
    protocol: Split
    folds: int  # of the protocol, each a rotation
    preset: str
    finetuning: Tuning
    loudness: float | None
    text_encoder: str | None
    seed: int
    device: str
    skipped: Mapping[str, str]
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Dynamics(Results, Setting, Measured):
    study: ClassVar = "dynamics"

    finetuned: tuple[FineTuned, ...]  # by rotation

    @property
    def table(self) -> Sequence[object]:
        """Emotion in each state, at step 0 and at the last, mean over splits."""
        return [
            {
                **{"probe": kind, "split": split, "step": self.rows[row].step, "state": state, "macro_f1": score},
                **{
                    "sd_initialisations": of_split.states.initialisations.sd[row][state],
                    "sd_splits": of_split.states.splits.sd[row][state],
                },
            }
            for kind, of_kind in self.probes.items()
            for split, of_split in of_kind.items()
            if isinstance(of_split, ProbeRows)
            for row in (0, -1)
            for state, score in enumerate(of_split.states.splits.mean[row])
        ]
