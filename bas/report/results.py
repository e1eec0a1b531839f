"""The results of a study, typed: what `results.json` holds, written by one function and read by one.

Each study has its own in `bas.studies.<study>.results`, a subclass of `Results`; what several share is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bas.errors import UserError
from bas.runs.results import Context
from bas.stats import Interval, Paired, Spread
from bas.stats.decisions import Selection
from bas.stats.shares import Ceiling
from bas.util.files import read_json, write_json
from bas.util.typed import from_plain, to_plain

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 2
"""Of results.json: rises when a field changes its name or its meaning."""

FILE = "results.json"
REMEDY = "give the same command again: what is trained is kept, and the file is written anew"


@dataclass(frozen=True, kw_only=True)
class Results(ABC):
    """What a study came to. Metrics and differences in 0..1."""

    study: ClassVar[str]

    @property
    @abstractmethod
    def table(self) -> Sequence[object]:
        """The rows of the main table: dataclasses, or mappings by column."""

    def frame(self) -> DataFrame:
        """The main table; a column for each number, named by the fields that lead to it: `metrics.WA.mean`."""
        import pandas as pd  # half a second to import, needed here only

        return pd.json_normalize([to_plain(row) for row in self.table])


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a row reaches, over its seeds, and the interval of its headline over units."""

    metrics: Mapping[str, Spread]
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class Row(Score):
    """One model of a comparison."""

    row: str
    seeds: int
    remarks: tuple[str, ...]
    fold_mean: Mapping[str, float]  # the metrics within each fold, averaged
    parameters: float  # median over folds and seeds
    train_seconds: float  # of one training of one fold
    search_seconds: float | None  # of one search, or the trials, of one fold
    against_reference: Paired | None  # None: it is the reference
    against_linear: Paired | None


@dataclass(frozen=True, kw_only=True)
class Comparison(Results, Context):
    """The rows of a table, the differences between them, and what the searches chose; `bas compare`."""

    study: ClassVar = "compare"

    rows: tuple[Row, ...]
    ceiling: Ceiling | None  # what the targets' own noise leaves to reach
    verdicts: tuple[str, ...]  # sentences
    decisions: Mapping[str, Selection]  # by space
    sequences: Mapping[str, tuple[str, ...]]  # by space, the blocks that each search chose
    mix: Mapping[str, Mapping[str, Spread]]  # by row or searches, the weight of each state

    @property
    def table(self) -> Sequence[Row]:
        return self.rows


def write_results(folder: Path, results: Results) -> None:
    """`results.json` in the folder of a run."""
    write_json(folder / FILE, {"format": FORMAT, "study": results.study, **to_plain(results)})


def load_results(folder: Path | str) -> Results:
    """The typed results of a finished study in its run's folder: a `Comparison`, or the class of another study.

    Raises UserError naming the file, and the field that is missing, unknown or of another type.
    """
    path = Path(folder) / FILE
    raw = read_json(path, REMEDY)
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        there = raw.get("format") if isinstance(raw, dict) else None
        raise UserError(f"{path}: format: must be {FORMAT}, not {there!r}; {REMEDY}")
    fields = {name: value for name, value in raw.items() if name not in ("format", "study")}
    return from_plain(_class_of(raw.get("study"), path), fields, path, REMEDY)


def _class_of(study: Any, path: Path) -> type[Results]:
    """A study's class, found by the study's name: the studies lie above this room, and none is listed here."""
    name = f"bas.studies.{study}.results"
    if not isinstance(study, str) or not study.isidentifier() or find_spec(f"bas.studies.{study}") is None:
        raise UserError(f"{path}: study: {study!r} is no study of this version of bas; {REMEDY}")
    classes = [one for one in vars(import_module(name)).values() if getattr(one, "study", None) == study]
    assert len(classes) == 1, (name, classes)
    kind: type[Results] = classes[0]
    return kind
