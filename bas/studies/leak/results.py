"""The results of a leak study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bas.encoders import EncoderInfo
from bas.report.results import Results
from bas.stats import FalseVerdicts, Paired, Spread
from bas.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Side:
    """The clean or the leaky splits, one for each seed; marks and notes are those of the first."""

    rule: str
    descriptions: tuple[str, ...]  # of each split
    hashes: tuple[str, ...]
    marks: tuple[str, ...]
    notes: tuple[str, ...]
    fit: float  # training utterances of a fold, mean over folds and seeds


@dataclass(frozen=True, kw_only=True)
class LeakScore:
    """One metric under both splits, on the utterances that both of them test."""

    clean: Spread
    leaky: Spread
    leak: Paired  # leaky minus clean
    sd: float  # of the difference, over seeds


@dataclass(frozen=True, kw_only=True)
class LeakRow:
    row: str
    metrics: Mapping[str, LeakScore]


@dataclass(frozen=True, kw_only=True)
class Leak(Results):
    study: ClassVar = "leak"

    run: str
    corpus: str
    note: str
    encoder: EncoderInfo
    layer: int | str
    settings: Settings
    headline: str
    seeds: tuple[int, ...]
    tested: int  # utterances that both splits test with every seed
    of: int  # all utterances
    unit: str
    units: int
    clean: Side
    leaky: Side
    rows: tuple[LeakRow, ...]
    false_verdicts: FalseVerdicts | None  # of models against themselves; None: too few seeds or units

    @property
    def compared(self) -> dict[str, Paired]:
        """The differences that verdicts go by, those of the headline."""
        return {f"leaky against clean, {row.row}": row.metrics[self.headline].leak for row in self.rows}

    @property
    def table(self) -> Sequence[LeakRow]:
        return self.rows
