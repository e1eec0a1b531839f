"""The plan of a run, and its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import torch

from bas.training.settings import Settings
from bas.util.device import products_of

BEST, MIX, SEARCH = "best", "mix", "search"

ALL = (MIX, SEARCH)
"""Layers that are all stored states side by side."""


@dataclass(frozen=True)
class Plan:
    """The choices of a user.

    layer: the number of a stored state; "best": chosen in each fold by its training utterances; "mix": all stored
        states, summed with learned weights; "search": the state is a part of each space, and rows without a search read
        the mix.
    """

    features: str
    spaces: tuple[str, ...]  # paths of the space files
    layer: int | str
    settings: Settings
    seeds: tuple[int, ...]
    device: str  # cpu | cuda
    labels: str | None = None  # a scheme of bas.corpora.labels, or a table's path; None: the corpus's own words
    keep: tuple[str, ...] = ()  # own columns of the corpus's table, or of that of labels
    where: tuple[str, ...] = ()  # a selection of the corpus, see `bas.corpora.selection`
    headline: str | None = None  # one of the task's metrics; None: the corpus's own, see `Run.headline`

    def __post_init__(self) -> None:
        if self.settings.precision == "auto":
            precision = products_of(torch.device(self.device))
            object.__setattr__(self, "settings", replace(self.settings, precision=precision))

    def with_seeds(self, seeds: tuple[int, ...]) -> Plan:
        """The same plan with other seeds."""
        return replace(self, seeds=seeds)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Plan:
        # Before 0.12: bfloat16 on a GPU alone.
        before = {"precision": "bfloat16" if raw["device"] == "cuda" else "float32"}
        settings = Settings(**before | raw["settings"])
        names = {"spaces": tuple(raw["spaces"]), "seeds": tuple(raw["seeds"]), "settings": settings}
        return cls(**{**raw, **names, "keep": tuple(raw.get("keep", ())), "where": tuple(raw.get("where", ()))})


class Kind(StrEnum):
    """What a job does; it begins the job's name."""

    LAYER = "layer"  # choose the state that a fold reads
    LINEAR = "linear"
    BASELINE = "baseline"
    SEARCH = "search"
    RETRAIN = "retrain"  # the row of what a search found: an ensemble, or its choice trained from scratch
    ALONE = "alone"  # one architecture of a space, by its number
    STUDY = "study"  # an Optuna study of a space, of so many trials as its number says
    TUNED = "tuned"  # the best trial of a study, by its number
    PROBE = "probe"
    FEW = "few"  # estimate a layer from few labels
    TRANSFER = "transfer"
    WORDS = "words"

    @property
    def stackable(self) -> bool:
        """Whether several may be trained as one; see `stacked`."""
        return self in (Kind.RETRAIN, Kind.BASELINE, Kind.ALONE)

    @property
    def keeps_logits(self) -> bool:
        """Whether the result of a training has the logits of its test part; the thousands of an audit have none."""
        return self in (Kind.BASELINE, Kind.RETRAIN)

    @property
    def keeps_weights(self) -> bool:
        """Whether a training's weights stay beside its result."""
        return self in (Kind.RETRAIN, Kind.TUNED)


def name_of(raw: Mapping[str, Any]) -> str:
    """The name of the job that a result says it is of; "?" where it says none."""
    try:
        return Job(**{**raw, "kind": Kind(raw["kind"])}).name
    except (TypeError, KeyError, ValueError, AttributeError):
        return "?"


@dataclass(frozen=True)
class Job:
    """row: BEST, the linear row, a baseline, or a search space by name; of a study's own kinds what it says.

    number: of an architecture, in the order of `SearchSpace.architectures`; of a tuned row, its trial's; of a study,
    how many trials.
    """

    kind: Kind
    row: str
    fold: int
    seed: int
    number: int | None = None
    searcher: str = ""  # of a search: what `settings.search_settings` reads; "": the run's settings

    @property
    def name(self) -> str:
        number = "" if self.number is None else f"-{self.number:03}"
        how = f"+{self.searcher}" if self.searcher else ""
        return f"{self.kind}-{self.row.replace(' ', '-')}{number}{how}-fold{self.fold}-seed{self.seed}"
