"""The results of a study, typed: what `results.json` holds, written here and read by `bas.studies.load_results`.

Each study has its own in `bas.studies.<study>.results`, a subclass of `Results`; what several share is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bas.runs.results import Context, SearchResult
from bas.search.race import Trial
from bas.space import Architecture
from bas.stats import FalseVerdicts, Interval, Paired, Spread
from bas.stats.decisions import Selection
from bas.stats.shares import Ceiling
from bas.util.files import write_json
from bas.util.typed import to_plain

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 3
"""The version of results.json; it rises when a field changes its name or its meaning."""

FILE = "results.json"
REMEDY = "give the same command again: what is trained is kept, and the file is written again"


@dataclass(frozen=True, kw_only=True)
class Results(ABC):
    """The results of a study. Metrics and differences in 0..1."""

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
    """A row's metrics over its seeds, and the interval of its headline over units."""

    metrics: Mapping[str, Spread]
    interval: Interval
    remarks: tuple[str, ...] = ()  # what the table must say of its predictions


@dataclass(frozen=True, kw_only=True)
class Row(Score):
    """One model of a comparison."""

    row: str
    seeds: int
    fold_mean: Mapping[str, float]  # the metrics within each fold, averaged
    parameters: float  # median over folds and seeds
    train_seconds: float  # of one training of one fold
    search_seconds: float | None  # of one search, or the trials, of one fold
    against_reference: Paired | None  # None: it is the reference
    against_linear: Paired | None
    by_seed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # metrics of each seed's trainings alone


@dataclass(frozen=True, kw_only=True)
class Ensembles:
    """Of what the rows of a space's searches are made: means over searches."""

    members: float  # architectures that a row averages
    weights: Mapping[str, float]  # of each architecture, the heaviest first

    @classmethod
    def of(cls, searches: Sequence[SearchResult]) -> Ensembles:
        weights: defaultdict[str, float] = defaultdict(float)
        for member in (member for search in searches for member in search.members):
            weights[" > ".join(member.architecture.values())] += member.weight / len(searches)
        return cls(
            members=float(np.mean([len(search.members) for search in searches])),
            weights=dict(sorted(weights.items(), key=lambda pair: -pair[1])),
        )


@dataclass(frozen=True, kw_only=True)
class Races:
    """How sure the races of a space are of what they chose: means over searches; see `bas.search.race.Choice`."""

    searches: int
    trainings: float
    architectures: float  # different ones that were trained
    solved: float  # linear models beside them
    diverged: int  # trainings, of all searches together
    probability: float
    regret: float
    gain: float
    noise: float
    alike: int  # searches that took a cheaper architecture: not to be told from the best, or hardly worse
    early: int  # searches that ended before the budget was spent

    @classmethod
    def of(cls, searches: Sequence[SearchResult]) -> Races | None:
        """None where the searches were no races."""
        races = [(s.choice, s.trials) for s in searches if s.choice and s.trials]
        if not races:
            return None
        return cls(
            searches=len(races),
            trainings=float(np.mean([sum(not t.solved for t in of) for _, of in races])),
            architectures=float(np.mean([_different(of, solved=False) for _, of in races])),
            solved=float(np.mean([_different(of, solved=True) for _, of in races])),
            diverged=sum(trial.loss is None for _, of in races for trial in of),
            probability=float(np.mean([choice.probability for choice, _ in races])),
            regret=float(np.mean([choice.regret for choice, _ in races])),
            gain=float(np.mean([choice.gain for choice, _ in races])),
            noise=float(np.mean([choice.noise for choice, _ in races])),
            alike=sum(choice.best != choice.architecture for choice, _ in races),
            early=sum(choice.early for choice, _ in races),
        )


def _different(trials: Sequence[Trial], solved: bool) -> int:
    return len({Architecture.of(trial.architecture) for trial in trials if trial.solved == solved})


@dataclass(frozen=True, kw_only=True)
class Comparison(Results, Context):
    """The rows of a table, the differences between them, and what the searches chose; `bas compare`."""

    study: ClassVar = "compare"

    rows: tuple[Row, ...]
    majority: Mapping[str, float] | None = None  # metrics of always saying the class that is most frequent in training
    ceiling: Ceiling | None  # what the targets' own noise leaves to reach
    false_verdicts: FalseVerdicts | None  # of rows against themselves; None: too few seeds or units
    verdicts: tuple[str, ...]  # sentences
    decisions: Mapping[str, Selection]  # by space
    sequences: Mapping[str, tuple[str, ...]]  # by space, the blocks that each search chose
    mix: Mapping[str, Mapping[str, Spread]]  # by row or searches, the weight of each state
    races: Mapping[str, Races]  # by space; empty where the strategy is no race
    ensembles: Mapping[str, Ensembles]  # by space; empty where a row is what was chosen

    @property
    def table(self) -> Sequence[Row]:
        return self.rows


def write_results(folder: Path, results: Results) -> None:
    """`results.json` in the folder of a run."""
    write_json(folder / FILE, {"format": FORMAT, "study": results.study, **to_plain(results)})
