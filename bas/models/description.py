"""What `model.json` says of a model: what it needs to predict, and what a reader needs to judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bas.encoders import EncoderInfo
from bas.models.layout import Layout
from bas.runs.results import Split
from bas.search.ensemble import Member
from bas.stats import Interval, Spread
from bas.stats.calibration import Calibrated

FORMAT = 1
"""The version of model.json; it rises when a field changes its name or its meaning."""

Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the row's probabilities are worth on the test parts of its run.

    uncalibrated: without a temperature. calibrated: with temperatures, that of each fold fitted on the other folds;
    None with a single fold.
    """

    utterances: int
    uncalibrated: Calibrated
    calibrated: Calibrated | None


@dataclass(frozen=True, kw_only=True)
class Honest:
    """The row's score in the comparison: of models of the same procedure, each on speakers that it had not heard.

    The exported model itself has no score: it has heard all of them.
    """

    run: str
    row: str
    metrics: Mapping[str, Spread]
    headline: str
    interval: Interval  # of the headline, over units
    folds: int
    seeds: int
    utterances: int
    unit: str
    units: int
    protocol: Split


@dataclass(frozen=True, kw_only=True)
class Description:
    """A model. Probabilities are `activation(outputs / temperature)`."""

    format: int
    name: str
    task: str
    outputs: tuple[str, ...]
    activation: Activation
    temperature: float
    calibration: Calibration | None  # None: the task has no classes
    encoder: EncoderInfo
    layers: tuple[int, ...]  # the states that it reads, side by side
    dtype: str  # in which states were stored for the training: they are rounded to it
    stride: int  # frames averaged into one
    network: Layout
    members: tuple[Member, ...]  # architectures and weights of an ensemble; empty: a linear model
    spaces: Mapping[str, str]  # files with blocks of the user's own, by name: a hash of each
    longest: float  # seconds of the longest utterance of the training: longer speech is cut into windows
    honest: Honest
    trained: Mapping[str, Any]  # corpus, its utterances and units, seed, settings, versions, commit, date
    license: Mapping[str, str]  # by part (encoder, corpus), what is known of its licence
