"""The results of a run's jobs: a type for each kind of job, and what tables and studies read from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from bas.encoders import EncoderInfo
from bas.protocols import Protocol, field_of
from bas.runs.plan import ALL, BEST, Job, Kind
from bas.runs.run import AGAIN, Run
from bas.search.ensemble import Member
from bas.search.race import Choice, Trial
from bas.stats import Interval, Predictions, Spread, interval_of_mean, mean_metric, ua
from bas.stats.shares import Ceiling
from bas.tasks import has_logits, join_parts
from bas.training.settings import Settings
from bas.util.typed import from_plain

UNKNOWN = "unknown"
NOT_ABOVE_CHANCE = "not shown to be above chance"
LAST_EPOCH = "networks were best in their last epoch"
DIGITS = 6  # after the point: a probability is then right to 1e-6
HEAD = ("job", "protocol")
"""What every job's file says of the job itself, before its result."""

R = TypeVar("R")


@dataclass(frozen=True)
class LayerResult:
    """The state that a fold's training speakers name, and the cross-validated score of each."""

    layer: int
    cross_validated: Mapping[int, float]


@dataclass(frozen=True)
class Tested:
    """A test part: predictions in the fold's order, `(N,)`, of several outputs `(N, O)`, and the metrics.

    logits: `(N, O)`, to DIGITS digits, of a row of a comparison that predicts classes; of others None.
    """

    predictions: np.ndarray
    metrics: Mapping[str, float]
    logits: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The result of any training that is scored on its test part."""

    parameters: int
    seconds: float
    test: Tested
    mix: Mapping[str, float] | None = None  # the weight of each state, where a layer mix is trained
    device: str = ""  # the model of the processor, see `bas.util.device.model_of`


@dataclass(frozen=True, kw_only=True)
class LinearResult(Scored):
    strength: float  # inverse regularisation, the best on the valid part, or on inner folds
    valid: Mapping[str, float]  # there, mean over the inner folds
    again: np.ndarray  # `(R, N)`: test predictions after other draws of the training units, see `linear.refit`


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training or a search."""

    epoch: int
    loss: float
    valid: Mapping[str, float] | None = None  # loss and metrics; of a search, of the architecture that leads
    mix: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingEpoch(Epoch):
    score: float  # validation loss, negated
    valid: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The epochs of one network."""

    kept_epoch: int
    epochs: tuple[TrainingEpoch, ...]

    @property
    def kept(self) -> TrainingEpoch:
        """The epoch whose weights were scored."""
        return next(epoch for epoch in self.epochs if epoch.epoch == self.kept_epoch)


@dataclass(frozen=True, kw_only=True)
class TrainingResult(Scored):
    """Of one architecture: retrained, a baseline, or one of an audit."""

    architecture: Mapping[str, str]  # block by slot
    members: tuple[Member, ...]  # of an ensemble; else the architecture alone
    layer: int | str
    networks: tuple[Curve, ...]  # several: a committee

    @property
    def curve(self) -> Curve:
        """Of a training of one network."""
        (only,) = self.networks
        return only


@dataclass(frozen=True, kw_only=True)
class TunedResult(TrainingResult):
    params: Mapping[str, float | int | str]  # as the trial drew them
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Of an Optuna study; its trials are in studies/."""

    best: int  # the trial's number
    seconds: float  # of all trials
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class SearchEpoch(Epoch):
    rate: float
    temperature: float
    probabilities: Mapping[str, Mapping[str, float]]  # by slot and block
    entropy: Mapping[str, float]  # nats, by slot
    architecture: Mapping[str, str] | None  # None: the strategy knows none before the end
    multiply_adds: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    architecture: Mapping[str, str]
    members: tuple[Member, ...]  # what the row is made of: an ensemble, or the architecture alone
    layer: int | str
    settings: Mapping[str, float | int | str | None]  # those of the search alone
    parameters: int  # of the supernet; of a race, of what it chose
    multiply_adds: float
    seconds: float
    probabilities: Mapping[str, Mapping[str, float]] | None  # None: chosen without architecture parameters
    paths: tuple[Mapping[str, float], ...] | None  # loss and headline of every architecture; None: too many
    epochs: tuple[SearchEpoch, ...]
    mix: Mapping[str, float] | None = None
    trials: tuple[Trial, ...] | None = None  # of a race: its trainings in order; of random-search too
    choice: Choice | None = None  # of a race: how sure it is
    device: str = ""


def read_result(run: Run, job: Job, kind: type[R]) -> R:
    """A finished job's result. UserError naming its file and field where that is of another version of bas."""
    raw = run.result(job.name)
    body = {name: value for name, value in raw.items() if name not in HEAD}
    return from_plain(kind, body, run.job_path(job.name), AGAIN)


def search_of(run: Run, space: str, fold: int, seed: int, searcher: str = "") -> SearchResult:
    return read_result(run, Job(Kind.SEARCH, space, fold, seed, searcher=searcher), SearchResult)


def searched(run: Run, space: str) -> dict[tuple[int, int], SearchResult]:
    """By fold and seed, the result of a search of this space."""
    return {(f, s): search_of(run, space, f, s) for f, s in _pairs(run)}


def retrained(run: Run, space: str) -> dict[tuple[int, int], TrainingResult]:
    """By fold and seed, the training of what a search of this space chose."""
    return {(f, s): read_result(run, Job(Kind.RETRAIN, space, f, s), TrainingResult) for f, s in _pairs(run)}


def _pairs(run: Run) -> list[tuple[int, int]]:
    return [(f, s) for s in run.plan.seeds for f in range(len(run.protocol.folds))]


def results_of(run: Run, row: str) -> list[list[Scored]]:
    """By seed and fold, the jobs of a row: a linear one, a baseline, or the retrained choices of a space's searches."""
    linear = row in run.task.linears
    seeds = run.plan.seeds[:1] if linear else run.plan.seeds
    kind = Kind.LINEAR if linear else Kind.BASELINE if row in run.baselines else Kind.RETRAIN
    result: type[Scored] = LinearResult if linear else TrainingResult
    return [[read_result(run, Job(kind, row, f, s), result) for f in range(len(run.protocol.folds))] for s in seeds]


def pooled(jobs: Sequence[Sequence[Scored]]) -> Predictions:
    """`(S, N)` test predictions, of several outputs `(S, N, O)`, fold after fold, of results by seed and fold.

    A tuned row trains one choice with every seed: only its folds, with a choice each, show the noise of choosing.
    """
    rows_SN = np.array([np.concatenate([result.test.predictions for result in of_seed]) for of_seed in jobs])
    again = [result.again for result in jobs[0] if isinstance(result, LinearResult)]
    again_RN = np.concatenate(again, axis=1) if again else None
    return Predictions(rows_SN, folds_of(jobs[0]), again_RN, retrained=not isinstance(jobs[0][0], TunedResult))


def folds_of(jobs: Sequence[Scored]) -> np.ndarray:
    """Which of the jobs of one seed, by fold, tested each utterance, `(N,)`."""
    return np.repeat(np.arange(len(jobs)), [len(result.test.predictions) for result in jobs])


def tested(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Targets, as the metrics take them, and units of the N test utterances, fold after fold."""
    where = [run.position[i] for i in run.protocol.test_ids]
    folds_N = np.repeat(np.arange(len(run.protocol.folds)), [len(fold.test) for fold in run.protocol.folds])
    units_N = np.array([field_of(run.utterances[i], run.unit) or UNKNOWN for i in where])
    return join_parts(run.task, run.targets[where], folds_N), units_N


@dataclass(frozen=True)
class Split:
    """The protocol of a run, without its folds."""

    name: str
    corpus: str
    task: str
    rule: str
    seed: int
    unit: str
    labels: str
    published: bool
    marks: tuple[str, ...]
    notes: tuple[str, ...]
    hash: str
    description: str  # all of it in a line

    @classmethod
    def of(cls, protocol: Protocol) -> Split:
        return cls(**{field.name: getattr(protocol, field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a table must say of its run."""

    run: str  # the folder's name
    corpus: str
    note: str
    encoder: EncoderInfo
    layer: int | str
    layers: tuple[int | str, ...]  # by fold; of a mix, those that are mixed
    protocol: Split
    settings: Settings
    device: str
    folds: int
    seeds: tuple[int, ...]
    tested: int  # utterances
    unit: str  # of paired comparisons
    units: int
    without_unit: int  # utterances whose unit is not known: they count as one
    headline: str  # the metric that choices and verdicts go by
    pooled: bool  # over the folds, or within each
    reference: str  # the baseline that differences are against
    linear: str  # the task's linear row
    from_recordings: bool = True  # whether a recording alone gives the features, as a model needs


def context(run: Run) -> dict[str, Any]:
    """The fields of `Context`, for a class that adds to them."""
    layers = [
        read_result(run, Job(Kind.LAYER, BEST, f, 0), LayerResult).layer if run.plan.layer == BEST else run.plan.layer
        for f in range(len(run.protocol.folds))
    ]
    _, units_N = tested(run)
    return vars(
        Context(
            run=run.folder.name,
            corpus=run.corpus.name,
            note=run.corpus.note,
            encoder=EncoderInfo(**run.store.info.encoder),
            layer=run.plan.layer,
            layers=tuple(run.store.info.layers if run.plan.layer in ALL else layers),
            protocol=Split.of(run.protocol),
            settings=run.plan.settings,
            device=run.plan.device,
            folds=len(run.protocol.folds),
            seeds=run.plan.seeds,
            tested=len(units_N),
            unit=run.unit,
            units=len(set(units_N)),
            without_unit=int((units_N == UNKNOWN).sum()),
            headline=run.headline,
            pooled=run.task.pooled,
            reference=run.reference,
            linear=run.linear,
            from_recordings=run.store.info.from_recordings,
        )
    )


def ceiling(run: Run) -> Ceiling | None:
    """What the tested utterances' targets leave to reach, see `Task.ceiling`."""
    utterances = [run.utterances[run.position[i]] for i in run.protocol.test_ids]
    return run.task.ceiling(utterances, run.outputs, tested(run)[0], run.corpus.chosen_by)


def majority_of(run: Run) -> dict[str, float] | None:
    """The metrics of always saying the class that is most frequent in a fold's training part; None without classes."""
    if not has_logits(run.task):
        return None
    said = []
    for fold in run.protocol.folds:
        training = run.targets[[run.position[i] for i in (*fold.fit, *fold.valid)]]
        said.append(np.full(len(fold.test), np.bincount(training).argmax()))
    targets_N, _ = tested(run)
    return {name: float(metric(targets_N, np.concatenate(said))) for name, metric in run.metrics.items()}


def metrics_of(run: Run, row: Predictions) -> dict[str, Spread]:
    """Every metric of a row on all tested utterances, over its seeds."""
    targets_N, _ = tested(run)
    return {name: Spread.of([m(targets_N, p_N) for p_N in row.rows_SN]) for name, m in run.metrics.items()}


def remarks_of(run: Run, row: Predictions) -> tuple[str, ...]:
    """What a table must say of a row's predictions: the task's own remarks, where they are one class, or chance."""
    targets_N, units_N = tested(run)
    of_task = run.task.remarks(run.outputs, targets_N, row.rows_SN)
    return (*of_task, *_find_one_class(run, targets_N, row.rows_SN), *_find_chance(run, targets_N, units_N, row))


def _find_one_class(run: Run, targets_N: np.ndarray, pooled_SN: np.ndarray) -> tuple[str, ...]:
    """A remark where all predictions for a test part of several classes are of one class; none without classes."""
    if run.task.classes is None:
        return ()
    ends = np.cumsum([len(fold.test) for fold in run.protocol.folds])[:-1]
    parts = [np.split(np.column_stack([targets_N, of_seed]), ends) for of_seed in pooled_SN]
    several = [
        predicted for of_seed in parts for truth, predicted in (part.T for part in of_seed) if len(set(truth)) > 1
    ]
    alone = Counter(run.outputs[int(predicted[0])] for predicted in several if len(set(predicted)) == 1)
    if not alone:
        return ()
    counted = ", ".join(f"{name} {count}" for name, count in sorted(alone.items()))
    return (f"predicts one class alone in {sum(alone.values())} of {len(several)} test parts ({counted})",)


def _find_chance(run: Run, targets_N: np.ndarray, units_N: np.ndarray, row: Predictions) -> tuple[str, ...]:
    """A remark where the interval of a row's UA is not wholly above chance; none without classes.

    Chance is that of UA, whatever the metric of verdicts: answers that know nothing of the recordings have, in each
    fold, a UA of 1 over its classes, however often each class comes. Pooled, they have less: all folds together hold a
    fixed number of each class, so a fold that tests more of one trained on less of it. Without an interval, the value
    decides.
    """
    if run.task.classes is None:
        return ()
    chance, low = 1 / len(np.unique(targets_N)), interval_of_mean(targets_N, row, units_N, ua).low
    if not np.isfinite(low):
        low = mean_metric(ua, targets_N, np.ones(len(targets_N), bool), row.rows_SN)
    if low > chance:
        return ()
    pooled_below = "; pooled over the folds, a row that has learned nothing comes out below that"
    line = f"{NOT_ABOVE_CHANCE}: its interval of UA reaches down to {100 * chance:.1f} or less"
    return (line + (pooled_below if len(run.protocol.folds) > 1 else ""),)


def interval_of(run: Run, row: Predictions) -> Interval:
    """The interval of a row's headline, the mean over seeds."""
    targets_N, units_N = tested(run)
    return interval_of_mean(targets_N, row, units_N, run.metrics[run.headline])
