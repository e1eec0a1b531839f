"""What `model.json` says of a model: what it needs to predict, and what a reader needs to judge it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from torch import Tensor

from bas.encoders import EncoderInfo
from bas.errors import UserError
from bas.features.store import DTYPES
from bas.models.layout import Layout
from bas.runs.results import Split
from bas.search.ensemble import Member
from bas.stats import Interval, Spread
from bas.stats.calibration import Calibrated

FORMAT = 1
"""The version of model.json; it rises when a field changes its name or its meaning."""

LEAST, MOST = 0.001, 86_400.0  # seconds
WIDEST = 100_000  # numbers of a frame
FARTHEST = 1e30  # from 0, of a range: float32 holds its width

Activation = Literal["softmax", "sigmoid", "range", "none"]
"""none: outputs are values already, as of a linear model that predicts numbers."""


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
    """The row's score in the comparison: of models of the same procedure, on units that they were not trained on.

    The exported model itself, which was trained on them where there are several folds, has no score.
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
class Size:
    """What a model's network is and costs, without its encoder. multiply_adds: of `seconds` of speech in one window."""

    parameters: int
    multiply_adds: int  # see `bas.networks.costs`
    seconds: float

    @property
    def sound(self) -> bool:
        return self.parameters >= 0 and self.multiply_adds >= 0 and 0 < self.seconds < math.inf

    def __str__(self) -> str:
        cost = f"{self.multiply_adds:,} multiply-adds for {self.seconds:g} s of speech"
        return f"{self.parameters:,} parameters, {cost}"


@dataclass(frozen=True, kw_only=True)
class Description:
    """A model. Its values are `activation(outputs / temperature)`; range: an output of 0 is the middle of the range, 1
    as far above that as the range is wide. Raises UserError for values that cannot be.
    """

    format: int
    name: str
    task: str
    outputs: tuple[str, ...]
    activation: Activation
    temperature: float
    calibration: Calibration | None  # None: the task has no classes
    device: str  # on which it was trained: cpu | cuda, where networks compute in bfloat16
    encoder: EncoderInfo
    layers: tuple[int, ...]  # the states that it reads, side by side
    dtype: str  # in which states were stored for the training: they are rounded to it
    stride: int  # frames averaged into one
    network: Layout
    members: tuple[Member, ...]  # architectures and weights of an ensemble; empty: a linear model
    spaces: Mapping[str, str]  # files with blocks of the user's own, by name: a hash of each
    shortest: float  # seconds of the shortest utterance of the training
    longest: float  # seconds of the longest utterance of the training: longer speech is cut into windows
    honest: Honest
    trained: Mapping[str, Any]  # corpus, its note, utterances and units, seed, settings, versions, date
    license: Mapping[str, str]  # by part (encoder, corpus), what is known of its licence
    size: Size | None = None  # None: of a model of bas 0.8
    ranges: tuple[tuple[float, float], ...] = ()  # of numbers: what each output was trained on, in the corpus's units

    def __post_init__(self) -> None:
        encoder, layers = self.encoder, self.layers
        ranges = {"range": (len(self.outputs),), "none": (0, len(self.outputs))}.get(self.activation, (0,))
        for field, sound, allowed in (
            ("outputs", len(set(self.outputs)) == len(self.outputs) > 0, "names, each once"),
            ("temperature", 0 < self.temperature < math.inf, "a number above 0"),
            ("ranges", len(self.ranges) in ranges, "one an output, of numbers alone"),
            ("ranges", all(-FARTHEST < low < high < FARTHEST for low, high in self.ranges), "numbers, the lower first"),
            ("size", self.size is None or self.size.sound, "numbers of at least 0, and seconds above 0"),
            ("stride", self.stride >= 1, "1 or more"),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            ("longest", LEAST <= self.longest <= MOST, f"seconds from {LEAST} to {MOST:,}"),
            ("encoder.dim", 1 <= encoder.dim <= WIDEST, f"1 to {WIDEST:,}"),
            ("network.widest", self.network.widest <= WIDEST, f"0 to {WIDEST:,}"),
            ("layers", bool(layers) and {*layers} <= {*range(encoder.num_states)}, "states of the encoder"),
            ("layers", len(set(layers)) == len(layers), "each state once"),
        ):
            if not sound:
                raise UserError(f"{field}: must be {allowed}, not {str(attrgetter(field)(self))[:40]}")

    @property
    def values(self) -> str:
        """What the values are: probabilities, shares or numbers."""
        return "probabilities" if self.activation == "softmax" else "numbers" if self.ranges else "shares"

    def activate(self, outputs_BO: Tensor) -> Tensor:
        """The values of a network's outputs."""
        scaled_BO = outputs_BO / self.temperature
        if self.activation == "softmax":
            return scaled_BO.softmax(-1)
        if self.activation == "sigmoid":
            return scaled_BO.sigmoid()
        if self.activation == "range":
            low_O, high_O = (outputs_BO.new_tensor(ends) for ends in zip(*self.ranges, strict=True))
            return low_O + (high_O - low_O) * (scaled_BO + 0.5)
        return scaled_BO
