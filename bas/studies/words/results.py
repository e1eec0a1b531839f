"""A words study's results: its jobs', and those of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bas.encoders import EncoderInfo
from bas.report.results import Results, Score
from bas.runs.results import Context, Tested
from bas.stats import FalseVerdicts, Paired
from bas.stats.similarity import Chance

MEAN = "mean of states"


@dataclass(frozen=True)
class HeadResult:
    """One state's classifier in a job."""

    valid: Mapping[str, float]  # loss and metrics, at its best epoch
    test: Tested


@dataclass(frozen=True, kw_only=True)
class WordsResult:
    """A job: one input, alone or with text, in one fold."""

    fit: int  # utterances
    units: float  # of a training utterance, the mean
    seconds: float
    made_of: Mapping[str, str] | None = None  # digests of the words and vectors; None: of a version that wrote none
    heads: Mapping[str, HeadResult]


@dataclass(frozen=True)
class WordsRow:
    """What an input reaches, by state, and over all of them."""

    states: Mapping[str, Score]
    mean: Score | None  # of several states, each with a classifier of its own; None: there is one

    @property
    def over_states(self) -> Score:
        return self.mean or next(iter(self.states.values()))

    @property
    def lines(self) -> dict[str, Score]:
        """By name, every state and the mean."""
        return dict(self.states) | ({MEAN: self.mean} if self.mean else {})


@dataclass(frozen=True)
class WordsPair:
    """One row minus another, by state, and over all of them."""

    states: Mapping[str, Paired]
    mean: Paired | None

    @property
    def over_states(self) -> Paired:
        return self.mean or next(iter(self.states.values()))

    @property
    def lines(self) -> dict[str, Paired]:
        return dict(self.states) | ({MEAN: self.mean} if self.mean else {})


@dataclass(frozen=True, kw_only=True)
class TaskWords(Context):
    """One task on one store. No state is chosen."""

    DERIVED: ClassVar = ("comparisons",)

    task: str
    fused: bool  # with text too
    classes: tuple[str, ...]
    fit: float  # training utterances of a fold, the mean
    metrics: tuple[str, ...]
    rows: Mapping[str, WordsRow]
    pairs: Mapping[str, WordsPair]  # "a against b"
    false_verdicts: FalseVerdicts | None  # of classifiers against themselves; None: too few seeds or units
    constant: float  # the headline of the best answer that is the same for all
    verdicts: tuple[str, ...]
    units_of: Mapping[str, float]  # by row, units of a training utterance
    seconds: Mapping[str, float]  # by row, of one job

    @property
    def compared(self) -> Mapping[str, Paired]:
        """The comparisons that verdicts go by: of every pair one, over all states."""
        return {name: pair.over_states for name, pair in self.pairs.items()}

    @property
    def comparisons(self) -> int:
        """All that are shown."""
        return sum(len(pair.lines) for pair in self.pairs.values())


@dataclass(frozen=True)
class Overlap:
    """An LNS (0..1), its interval over units, and what chance gives."""

    value: float
    low: float  # -inf with one unit
    high: float  # inf with one unit
    chance: Chance
    within: Chance | None
    place: Chance | None
    p: float  # the largest of theirs

    @property
    def nulls(self) -> dict[str, Chance | None]:
        return {"chance": self.chance, "within": self.within, "place": self.place}


@dataclass(frozen=True)
class StateOverlap:
    by_k: tuple[Overlap, ...]
    mean: Overlap


@dataclass(frozen=True)
class StateDifference:
    """Of the means of two states, by index."""

    a: int
    b: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Local neighbourhood similarity (LNS) of every state."""

    types: int  # that take part
    tokens: int
    left_out: int  # types with too few tokens
    units: int
    draws: int
    ks: tuple[int, ...]
    took_part: tuple[int, ...]  # types, by k
    states: tuple[StateOverlap, ...]
    differences: tuple[StateDifference, ...]  # of every two states


@dataclass(frozen=True)
class Neighbour:
    word: str
    cosine: float


@dataclass(frozen=True)
class WordNeighbours:
    """A word's nearest types in either space, the nearest first."""

    word: str
    tokens: int
    acoustic: tuple[Neighbour, ...]
    lexical: tuple[Neighbour, ...]
    common: tuple[str, ...]


@dataclass(frozen=True)
class Neighbourhoods:
    """Of the words of one store: nothing is trained."""

    lns: Similarity
    shown: tuple[WordNeighbours, ...]
    shown_state: int


@dataclass(frozen=True, kw_only=True)
class StoreWords:
    store: str
    corpus: str
    encoder: EncoderInfo
    states: tuple[int, ...]
    utterances: int
    words: int
    sources: Mapping[str, int]  # utterances by where the times of their words are from
    unaligned: Mapping[str, str]  # by utterance id, why its text or words do not fit: it is one of the pseudo
    derived: Mapping[str, str]  # by input, the folder of its features
    neighbourhoods: Neighbourhoods | None
    why: str  # there are none
    tasks: tuple[TaskWords, ...]


@dataclass(frozen=True)
class TextEncoder:
    name: str
    untrained: bool  # its weights are random


@dataclass(frozen=True, kw_only=True)
class Words(Results):
    study: ClassVar = "words"

    run: str
    text_encoder: TextEncoder
    aligner: str | None
    left_out: tuple[str, ...]
    stores: tuple[StoreWords, ...]

    @property
    def table(self) -> Sequence[object]:
        return [
            {"store": store.store, "task": task.task, "row": name, "state": state, **vars(score)}
            for store in self.stores
            for task in store.tasks
            for name, row in task.rows.items()
            for state, score in row.lines.items()
        ]
