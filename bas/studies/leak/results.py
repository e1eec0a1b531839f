"""What a leak is worth: the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bas.encoders import EncoderInfo
from bas.report.results import Results
from bas.stats import Paired, Spread
from bas.training.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Side:
    """The splits of one kind, one a seed; marks and notes are the first's."""

    rule: str
    told: tuple[str, ...]  # each in a line
    hashes: tuple[str, ...]
    marks: tuple[str, ...]
    notes: tuple[str, ...]
    fit: float  # training utterances of a fold, the mean


@dataclass(frozen=True, kw_only=True)
class LeakScore:
    """One metric under both splits, on the utterances that both test."""

    clean: Spread
    leaky: Spread
    leak: Paired  # the leaky split's less the clean one's
    sd: float  # of that difference over seeds


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
    of: int  # utterances in all
    unit: str
    units: int
    clean: Side
    leaky: Side
    rows: tuple[LeakRow, ...]

    @property
    def table(self) -> Sequence[LeakRow]:
        return self.rows
