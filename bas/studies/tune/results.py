"""The results of a tuning: a comparison, and the cost and outcome of every Optuna study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from bas.report.results import Comparison

Mode = Literal["blocks", "search"]
Drawn = float | int | str
"""A setting's value, or a block's name."""


@dataclass(frozen=True, kw_only=True)
class FoldTuning:
    """One study: its trials, and the best of them."""

    trials: int
    complete: int
    broken: int  # diverged or too large
    seconds: float  # of all trials
    best: int  # the trial's number
    value: float  # its validation loss
    valid: Mapping[str, float]  # loss and metrics of its kept epoch
    preset: float | None  # validation loss of the preset; None: its trial is not complete
    params: Mapping[str, Drawn]  # of the best
    architecture: Mapping[str, str]
    scored_before: bool  # whether the best of another number of trials was scored on the test part


@dataclass(frozen=True, kw_only=True)
class SpaceTuning:
    ranges: Mapping[str, str]  # what each parameter was drawn from, in words
    folds: tuple[FoldTuning, ...]
    importances: Mapping[str, float]  # by PED-ANOVA, mean over folds; empty: too few trials


@dataclass(frozen=True, kw_only=True)
class Tuning(Comparison):
    study: ClassVar = "tune"

    mode: Mode
    tuning: Mapping[str, SpaceTuning]  # by space
