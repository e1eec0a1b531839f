"""Every number that a training depends on, in one place. A preset names a set of them; a run records all.

`paper` follows Fang et al. 2023, and each of the last three the paper of a study; what a paper leaves open is marked
"ours". Also ours, in every preset:
LayerNorm after each sub-module and ReLU (`blocks`); batches of like length (`batches`); about a fifth of the training
utterances held out, in whole units, as the valid part (`protocols`), and the weights of the epoch with the lowest loss
there kept (`train`).

`cpu` is for two cores: a narrower network on fewer frames, and a schedule that converges in few epochs. Its width,
stride, optimiser and epochs were chosen by the mean accuracy of the 4-layer transformer and the simple FFN on the valid
parts of five folds of EmoDB (not today's; Whisper tiny.en, state 2, two seeds), seven combinations tried. Those
speakers are test speakers of other folds, so a table on EmoDB under this preset is not free of that choice. `theta_lr`
is the smaller of two tried, by how decided the searches of two folds became on their training parts. `strategy` was
gumbel, the paper's, until an audit of EmoDB showed that it takes what learns fastest, and that this ends worst there; a
figure of the search on EmoDB is not free of that choice either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bas.errors import UserError
from bas.util.values import describe, parse_text

Normalisation = Literal["none", "corpus", "speaker"]
Optimiser = Literal["sgd", "adamw"]
Schedule = Literal["constant", "one-cycle"]
Residual = Literal["block", "every"]
Strategy = Literal["race", "gumbel", "bilevel", "hard", "single-path", "darts", "random-search", "random"]
Noise = Literal["batch", "utterance"]
Cost = Literal["multiply-adds", "parameters"]
ClassWeights = Literal["none", "balanced"]
Precision = Literal["auto", "float32", "bfloat16"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
RACES: tuple[Strategy, ...] = ("race", "random-search")
"""Those that train architectures alone, without a supernet."""

LARGEST = 10**6
"""Of the settings that count something."""

PROBED = (
    *("stride", "normalise", "epochs", "batch_size"),
    *("optimiser", "lr", "theta_lr", "momentum", "weight_decay", "schedule"),
    *("class_weights", "label_smoothing", "precision"),
)
"""The settings that a probe of layers reads."""

SEARCH_ONLY = (
    *("strategy", "budget", "ensemble", "warmup", "noise", "cost", "cost_weight"),
    *("theta_lr", "tau_start", "tau_rate", "tau_end"),
)
"""The settings that change a search and no other training."""

OF_ROWS: Mapping[str, Any] = {"committee": 1, "refit": False}
"""What makes a row of one training more than that training, and what it is where a verb does not read it."""

OF_CLASSES = ("class_weights", "label_smoothing")
"""The settings that a task without classes cannot have."""


@dataclass(frozen=True)
class Settings:
    """One row per number; units are in the comments."""

    preset: str
    width: int | None  # D of the network; None: the encoder's own, without a projection
    stride: int  # frames averaged into one before anything else
    normalise: (
        Normalisation  # none | each dimension by mean and deviation: of the fold's training frames (corpus), or of each
    )
    #   training speaker's own, anyone else by the mean of theirs (speaker)
    epochs: int  # of a training, and of a search
    batch_size: int  # utterances
    optimiser: Optimiser  # sgd | adamw
    lr: float  # of the weights
    theta_lr: float  # of the architecture parameters, on the same schedule
    momentum: float  # of sgd
    weight_decay: float  # of the weights
    schedule: Schedule  # constant | one-cycle (linear rise over the first 30 %, cosine to zero)
    committee: int  # networks of a row: 1, kept by the valid part | more: by another part of the training units each
    dropout: float  # after the stem and before the classifier, the same for every architecture
    residual: (
        Residual  # block: a skip connection only where a block brings one | every: LayerNorm(x + block(x)) around all
    )
    tau_start: float  # temperature of the Gumbel-softmax at the first step
    tau_rate: float | None  # tau = tau_start exp(-tau_rate * epoch), as in FBNet; or
    tau_end: float | None  # exponential from tau_start to tau_end over the run's steps, whatever their number
    strategy: Strategy  # how a search learns and chooses: one of STRATEGIES, see `search`
    warmup: int  # epochs of a search, its first, in which the weights alone move
    noise: Noise  # batch: gates are drawn once a batch, as in the paper | utterance: for each of its utterances
    cost: Cost  # how the cost of a candidate is measured: multiply-adds (of a forward pass) | parameters
    budget: int  # trainings of a race or random-search
    ensemble: (
        int  # 1: the row of a race or random-search is what it chose | more: so many of its architectures at most,
    )
    #   and the linear models, weighted
    cost_weight: float  # added to the loss of a search for the most expensive architecture; 0: cost is ignored
    # Of a task with classes, see `bas.runs.losses`; their defaults are also those of runs that were made without them.
    class_weights: ClassWeights = "none"  # balanced: an utterance counts as n / (classes x utterances of its class)
    label_smoothing: float = 0.0  # the share of a label that all classes have alike, in training; not of linear models
    # In float32 or bfloat16; weights, sums and a CPU's scores are float32. A run has one of the two from its beginning
    # on; without a run, as in tests of the engine, auto is float32.
    precision: Precision = "auto"  # of the products in a training; auto: bfloat16 where the processor multiplies it
    refit: bool = False  # a row's network once more, on fit and valid part, for as many epochs as the valid part chose

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"setting {name}={value}: must be a finite number")
        positive = ("stride", "epochs", "batch_size", "committee", "budget", "ensemble", "lr", "theta_lr", "tau_start")
        for name in positive:
            if not getattr(self, name) > 0:
                raise UserError(f"setting {name}={getattr(self, name)}: must be above 0")
        if self.width is not None and self.width < 1:
            raise UserError(f"setting width={self.width}: must be above 0")
        for name in ("width", "stride", "epochs", "batch_size", "committee", "budget", "ensemble"):
            if (getattr(self, name) or 0) > LARGEST:
                raise UserError(f"setting {name}={getattr(self, name)}: must be at most {LARGEST:,}")
        for name in ("momentum", "dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"setting {name}={getattr(self, name)}: must be from 0 to below 1")
        for name in ("weight_decay", "cost_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"setting {name}={getattr(self, name)}: must not be negative")
        if not 0 <= self.warmup < self.epochs:
            raise UserError(f"setting warmup={self.warmup}: must be from 0 to below epochs={self.epochs}")
        for name, kind in KINDS.items():
            if get_origin(kind) is Literal and getattr(self, name) not in get_args(kind):
                raise UserError(f"setting {name}={getattr(self, name)!r}: must be {describe(kind)}")
        if self.strategy == "single-path" and self.noise == "utterance":
            raise UserError("setting noise='utterance': strategy single-path draws one path for a whole batch")
        if self.refit and self.committee > 1:
            reason = "the networks of a committee train on every training unit already"
            raise UserError(f"setting committee={self.committee}: needs refit=false; {reason}")
        if self.averages:
            if self.committee == 1:
                raise UserError(f"setting ensemble={self.ensemble}: needs committee above 1, or ensemble=1")
            if self.budget < self.ensemble * self.committee:
                least = self.ensemble * self.committee
                who = f"an ensemble of {self.ensemble} committees of {self.committee}"
                raise UserError(f"setting budget={self.budget}: must be at least {least} for {who}")
        if (self.tau_rate is None) == (self.tau_end is None):
            raise UserError("settings tau_rate and tau_end: give one of them, the other as none")
        if (self.tau_rate or self.tau_end or 0) <= 0:
            raise UserError("settings tau_rate and tau_end: must be above 0")

    @property
    def averages(self) -> bool:
        """Whether the row of a search is an ensemble, not its choice alone."""
        return self.strategy in RACES and self.ensemble > 1

    @property
    def row_epochs(self) -> int:
        """Epochs that a row's training takes, at most."""
        return self.epochs * (self.committee + self.refit)

    def temperature(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """The temperature of the Gumbel-softmax at step `step` of epoch `epoch`, both from 0."""
        if self.tau_rate is not None:
            return self.tau_start * math.exp(-self.tau_rate * epoch)
        assert self.tau_end is not None
        done = (epoch * steps_per_epoch + step) / max(1, self.epochs * steps_per_epoch - 1)
        return float(self.tau_start * (self.tau_end / self.tau_start) ** done)

    def rate(self, epoch: int, step: int, steps_per_epoch: int) -> float:
        """The factor on lr and theta_lr at step `step` of epoch `epoch`, both from 0."""
        if self.schedule == "constant":
            return 1.0
        total = self.epochs * steps_per_epoch
        done = (epoch * steps_per_epoch + step + 0.5) / total
        rise = 0.3
        return done / rise if done < rise else 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


KINDS: Mapping[str, Any] = {name: kind for name, kind in get_type_hints(Settings).items() if name != "preset"}
"""The kind of each setting's value, see `bas.util.values`."""

PAPER = Settings(
    preset="paper",
    width=None,
    stride=1,
    normalise="none",  # ours
    epochs=100,
    batch_size=32,
    optimiser="sgd",
    lr=0.005,
    theta_lr=0.005,  # one optimiser for both
    momentum=0.9,  # ours
    weight_decay=0.0,  # ours
    schedule="constant",  # ours
    committee=1,
    dropout=0.0,  # ours
    residual="block",
    tau_start=5.0,  # FBNet (Wu et al. 2019)
    tau_rate=0.045,  # FBNet
    tau_end=None,
    strategy="gumbel",
    warmup=0,
    noise="batch",
    cost="multiply-adds",
    budget=40,
    ensemble=1,
    cost_weight=0.0,
    refit=True,  # ours: the paper's training part is all but the session left out, and it names no other
)

ADAM: Mapping[str, Any] = {"optimiser": "adamw", "weight_decay": 0.0, "momentum": 0.0, "refit": False}
"""Adam: AdamW without decay. A mix of layers learns at the rate of the weights, by the same optimiser."""

PRESETS: Mapping[str, Settings] = {
    "paper": PAPER,
    "cpu": Settings(
        preset="cpu",
        width=128,
        stride=8,
        normalise="corpus",
        epochs=20,
        batch_size=32,
        optimiser="adamw",
        lr=1e-3,
        theta_lr=0.02,
        momentum=0.0,
        weight_decay=0.01,
        schedule="one-cycle",
        committee=1,
        dropout=0.0,
        residual="block",
        tau_start=5.0,
        tau_rate=None,
        tau_end=0.1,
        strategy="single-path",
        warmup=0,
        noise="batch",
        cost="multiply-adds",
        budget=40,
        ensemble=1,
        cost_weight=0.0,
    ),
    # Singh and Gupta 2023 (arXiv 2308.08713), for `probe`. The text at hand names no optimiser, rate, batch or epochs:
    # these are the defaults of their code (95anantsingh/Decoding-Emotions). Ours: the epoch of the lowest valid loss is
    # kept, theirs has the best valid accuracy; linear heads learn at ten times the rate (`probe.heads`).
    "decoding-emotions": replace(
        PAPER, preset="decoding-emotions", lr=1e-3, theta_lr=1e-3, batch_size=32, epochs=20, **ADAM
    ),
    # Saliba et al. 2024 (arXiv 2402.02617), for `words`. The text at hand names none of them: all ours.
    "word-embeddings": replace(
        PAPER, preset="word-embeddings", lr=1e-3, theta_lr=1e-3, batch_size=32, epochs=50, **ADAM
    ),
    # Mohapatra et al. 2023 (arXiv 2308.14359), for `shares`. Adam and early stopping are the paper's; rate, batch and
    # epochs those of their code (payalmohapatra/EmotionShare_ACMMM23), which writes every epoch's weights and the valid
    # part's Spearman. Ours: the epoch of the lowest valid loss is kept.
    "emotion-shares": replace(
        PAPER, preset="emotion-shares", lr=1e-4, theta_lr=1e-4, batch_size=128, epochs=150, **ADAM
    ),
}


LAYERS: Mapping[str, str] = {
    "paper": "last",
    "cpu": "middle",
    "decoding-emotions": "best",
    "word-embeddings": "middle",  # ours: the paper reads every state
    "emotion-shares": "last",
}
"""The hidden state that a preset's run reads unless it names another."""


def settings(preset: str, changes: Mapping[str, str] | None = None) -> Settings:
    """A preset with single values changed, each given as text (`{"epochs": "5", "width": "none"}`).

    Raises UserError for an unknown preset or setting and a value of the wrong kind.
    """
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r}: must be one of {', '.join(PRESETS)}")
    return change_settings(PRESETS[preset], changes or {})


def search_settings(settings: Settings, spec: str) -> Settings:
    """The settings with those of a search changed: a strategy, then SEARCH_ONLY settings, joined by a plus.

    spec: such as "gumbel" or "bilevel+warmup=5+theta_lr=0.05"; "" changes nothing.
    Raises UserError, naming the spec, for an unknown strategy, any other setting, or a value that is not allowed.
    """
    if not spec:
        return settings
    strategy, *rest = spec.split("+")
    try:
        if strategy not in STRATEGIES:
            raise UserError(f"a strategy comes first, one of {', '.join(STRATEGIES)}")
        return change_settings(settings, _pairs([f"strategy={strategy}", *rest]), SEARCH_ONLY)
    except UserError as error:
        raise UserError(f"strategy {spec!r}: {error}") from error


def variant(settings: Settings, spec: str) -> Settings:
    """The settings with some that change a training: `optimiser=sgd+lr=0.005`.

    Raises UserError, naming the spec, for another setting, a value that cannot be, and where nothing changes.
    """
    names = [name for name in KINDS if name not in SEARCH_ONLY]
    try:
        result = change_settings(settings, _pairs(spec.split("+")), names)
        if result == settings:
            raise UserError("changes nothing; leave it out, or give another value")
        return result
    except UserError as error:
        raise UserError(f"variant {spec!r}: {error}") from error


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE each."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UserError(f"{text!r} must be NAME=VALUE, such as residual=every")
        if name in pairs:
            raise UserError(f"{name} is given twice")
        pairs[name] = value
    return pairs


def change_settings(settings: Settings, changes: Mapping[str, str], allowed: Sequence[str] = tuple(KINDS)) -> Settings:
    """These settings with some of them changed, each given as text; allowed: their names.

    Raises UserError for another name and a value of the wrong kind.
    """
    return replace(settings, **parse_settings(KINDS, changes, allowed))


def parse_settings(kinds: Mapping[str, Any], changes: Mapping[str, str], allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Parse settings given as text; allowed: the names that may be given, empty: all.

    Raises UserError for another name and a value of the wrong kind.
    """
    values = {}
    for name, text in changes.items():
        if name not in (allowed or kinds):
            raise UserError(f"setting {name!r}: must be one of {', '.join(allowed or kinds)}")
        try:
            values[name] = parse_text(kinds[name], text)
        except ValueError as error:
            raise UserError(f"setting {name}={text!r}: {error}") from error
    return values
