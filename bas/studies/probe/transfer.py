"""Probes trained on one corpus and tested on another, or trained on all languages but one and tested on that one.

The stores are of one encoder, the classes those that all corpora have under a common scheme of labels. A source uses
the folds and valid parts of its own protocol. Its layer is estimated from its own speakers, since a user may have no
labels of the target. A corpus is tested on itself with its own folds.

Axes: U utterances of all corpora, N of one target, R rows of predictions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bas.encoders import EncoderInfo
from bas.errors import UserError
from bas.protocols import field_of
from bas.runs.layers import best, cross_validate
from bas.runs.losses import losses
from bas.runs.plan import Job, Kind
from bas.runs.results import HEAD, UNKNOWN
from bas.runs.run import AGAIN, OTHER, Run
from bas.runs.workers import Workers
from bas.stats import Predictions, interval_of_mean, over_models
from bas.studies.probe.heads import KINDS
from bas.studies.probe.jobs import train_heads
from bas.studies.probe.pretraining import pretraining
from bas.studies.probe.results import TargetPredictions, Transfer, TransferCell, TransferResult
from bas.training.batches import Data, by_speaker, load
from bas.training.heads import state_name
from bas.training.loop import outputs
from bas.training.placement import Placement, place
from bas.util.files import read_record, write_json
from bas.util.typed import from_plain, to_plain

EXCEPT, ALL = "all but ", "all "
CLASSLESS = "No transfer between corpora: it is tested on the classes that they have in common, and task {} has none."
UNUSABLE = "lack of a class, or of utterances to validate on, in some fold"


@dataclass(frozen=True)
class Source:
    """The training data of a probe: one corpus, or all utterances but those of one language."""

    name: str
    corpus: str | None = None
    left_out: str | None = None  # a language


class Pool:
    """The utterances of several runs as one set, without those of a class that some corpus lacks."""

    def __init__(self, folder: Path, runs: Sequence[Run]) -> None:
        self.folder, self.runs = folder, runs
        first = self.runs[0]
        self.task, self.settings, self.states = first.task, first.plan.settings, first.store.info.layers
        self.classes = common_classes(self.runs)
        self.where: list[dict[str, int]] = []  # by run, the index of each utterance
        self.corpus_U: list[str] = []
        self.language_U: list[str | None] = []
        self.unit_U: list[str] = []
        self.speaker_U: list[str] = []
        self.targets_U = np.empty(0, np.int64)
        for run in self.runs:
            kept = [u for u in run.utterances if run.outputs[int(run.targets[run.position[u.id]])] in self.classes]
            start = len(self.corpus_U)
            self.where.append({u.id: start + i for i, u in enumerate(kept)})
            self.corpus_U += [run.corpus.name] * len(kept)
            self.language_U += [u.language for u in kept]
            # Speakers of two corpora may have the same name.
            self.unit_U += [f"{run.corpus.name}/{field_of(u, run.unit) or UNKNOWN}" for u in kept]
            self.speaker_U += [f"{run.corpus.name}/{u.speaker or u.id}" for u in kept]
            self.targets_U = np.append(self.targets_U, self.task.targets(kept, self.classes))
        self.speakers_of: dict[str, set[str]] = {}  # by language
        for speaker, language in zip(self.speaker_U, self.language_U, strict=True):
            self.speakers_of.setdefault(language or "", set()).add(speaker)
        self.device = torch.device(first.plan.device)
        self.tick: Callable[[], None] = lambda: None  # called after every epoch, for a progress bar
        self._data: Data | None = None

    def data(self) -> Data:
        """All states of all utterances side by side, read once."""
        if self._data is None:
            device = self.device
            parts = []
            for run, where in zip(self.runs, self.where, strict=True):
                targets = self.targets_U[list(where.values())]
                keeper = "gpu" if device.type == "cuda" else "memory"
                parts.append(load(run.store, list(where), self.states, self.settings.stride, targets, keeper, device))
            lengths_U = torch.cat([part.lengths_U for part in parts])
            self._data = replace(
                parts[0],
                frames_ND=torch.cat([part.frames_ND for part in parts if isinstance(part.frames_ND, Tensor)]),
                starts_U=torch.cat([torch.zeros(1, dtype=torch.long), lengths_U.cumsum(0)[:-1]]),
                lengths_U=lengths_U,
                targets_U=torch.cat([part.targets_U for part in parts]),
                means_UD=torch.cat([part.means_UD for part in parts]),
            )
        return self._data

    def sources(self) -> list[Source]:
        """The candidates that can be trained and tested."""
        return [source for source in self.candidates() if self.usable(source)]

    def usable(self, source: Source) -> bool:
        """Whether every fold has all classes to train on, and utterances to validate on and to test every target on."""
        for fold in range(self.folds(source)):
            fit, valid = self.training(source, fold)
            tested = self.tests(source, fold).values()
            if len(set(self.targets_U[fit])) < len(self.classes) or not all(map(len, (valid, *tested))):
                return False
        return True

    def candidates(self) -> list[Source]:
        """Every corpus; with several languages known, also all languages but each one."""
        corpora = list(dict.fromkeys(self.corpus_U))
        languages = sorted({language for language in self.language_U if language})
        sources = [Source(name, corpus=name) for name in corpora]
        if len(languages) > 1:
            sources += [Source(f"{EXCEPT}{language}", left_out=language) for language in languages]
        return sources

    def contains(self, source: Source, u: int) -> bool:
        """Whether utterance `u` belongs to a source."""
        if source.corpus is not None:
            return self.corpus_U[u] == source.corpus
        # Utterances of unknown language are left out too, and so is everything from speakers of the left-out language.
        speaks = self.speakers_of.get(source.left_out or "", set())
        return self.language_U[u] is not None and self.speaker_U[u] not in speaks

    def training(self, source: Source, fold: int) -> tuple[Tensor, Tensor]:
        """The fit and the valid part of a source in a fold; a corpus with fewer folds starts again at its first."""
        parts: tuple[list[int], list[int]] = ([], [])
        for run, where in zip(self.runs, self.where, strict=True):
            of_fold = run.protocol.folds[fold % len(run.protocol.folds)]
            for ids, members in zip((of_fold.fit, of_fold.valid), parts, strict=True):
                members.extend(where[i] for i in ids if i in where and self.contains(source, where[i]))
        return torch.tensor(parts[0], dtype=torch.long), torch.tensor(parts[1], dtype=torch.long)

    def tests(self, source: Source, fold: int) -> dict[str, Tensor]:
        """The test utterances of a source's probes in a fold, by corpus, or by the left-out language."""
        if source.left_out is not None:
            members = [u for u, language in enumerate(self.language_U) if language == source.left_out]
            return {f"{ALL}{source.left_out}": torch.tensor(members)}
        members_of = {}
        for run, where in zip(self.runs, self.where, strict=True):
            ids: Sequence[str] = list(where)
            if run.corpus.name == source.corpus:
                ids = [i for i in run.protocol.folds[fold].test if i in where]
            members_of[run.corpus.name] = torch.tensor([where[i] for i in ids])
        return members_of

    def folds(self, source: Source) -> int:
        """How many folds a source has: those of its corpus, or the most of any run."""
        own = [len(run.protocol.folds) for run in self.runs if source.corpus in (None, run.corpus.name)]
        return max(own)


def common_classes(runs: Sequence[Run]) -> tuple[str, ...]:
    """The classes that every corpus has, in order."""
    return tuple(name for name in runs[0].outputs if all(name in run.outputs for run in runs))


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """The groups of two or more runs that share encoder, states and scheme of labels; none for a task without classes.

    Raises UserError for two corpora with the same name.
    """
    by_encoder: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        info = run.store.info
        key = *(info.encoder[name] for name in ("revision", "input", "precision")), info.layers, run.corpus.labels
        others = by_encoder.setdefault(key, [])
        if run.corpus.labels and run.task.classes:
            if run.corpus.name in [other.corpus.name for other in others]:
                raise UserError(
                    f"transfer: two corpora of one encoder are named {run.corpus.name}; rename one, or probe it alone"
                )
            others.append(run)
    return [sorted(group, key=lambda run: run.corpus.name) for group in by_encoder.values() if len(group) > 1]


def check(runs: Sequence[Run], workers: int, memory: float | None) -> None:
    """Raise UserError where fewer than two classes are common, two corpora hold the same recording, or the features of
    all corpora together do not fit into memory."""
    classes = common_classes(runs)
    if len(classes) < 2:
        corpora = ", ".join(f"{run.corpus.name} ({', '.join(run.outputs)})" for run in runs)
        raise UserError(f"transfer: fewer than two classes are common to {corpora}; name another scheme of labels")
    _check_recordings(runs)
    info = runs[0].store.info
    frames = sum(-(-r.store.num_frames(u.id) // r.plan.settings.stride) for r in runs for u in r.utterances)
    whole = frames * info.frame_bytes * len(info.layers)
    place(2 * whole, 2 * whole, torch.device("cpu"), workers, memory)  # joining holds all twice


def open_pool(source: Pool | Path, tick: Callable[[], None], placement: Placement | None) -> Pool:
    """Open a session: the pool itself, or the one `carry_out` described in a folder. Its data lies on the device."""
    assert placement is None
    if isinstance(source, Path):
        source = Pool(source, [Run.open(Path(path)) for path in read_record(source / "transfer.json", AGAIN)["runs"]])
    source.tick = tick
    return source


def carry_out(folder: Path, runs: Sequence[Run], workers: Workers) -> Transfer:
    """Train and test what is not done yet under `folder`. Call `check` first."""
    classes = common_classes(runs)
    write_json(folder / "transfer.json", {"runs": [str(run.folder) for run in runs], "classes": classes})
    pool = Pool(folder, runs)
    for source in set(pool.candidates()) - set(pool.sources()):
        message = f"transfer: nothing is trained on {source.name}, for {UNUSABLE}"
        workers.console.print(message, style="yellow", highlight=False, markup=False)
    for source in pool.sources():
        jobs = [Job(Kind.TRANSFER, source.name, f, s) for s in runs[0].plan.seeds for f in range(pool.folds(source))]
        epochs = pool.settings.epochs
        workers.run(pool, jobs, epochs, f"transfer from {source.name}", None, run_transfer, open_pool)
    return tabulate(pool)


def name_of(runs: Sequence[Run]) -> str:
    """The name of the folder for transfers between exactly these runs, of these languages and speakers."""
    made_of = [
        (
            read_record(run.folder / "run.json", OTHER)["made_of"],
            [(u.id, u.language, u.speaker) for u in run.utterances],
        )
        for run in runs
    ]
    return "transfer-" + hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:8]


def _check_recordings(runs: Sequence[Run]) -> None:
    """Raise UserError for a recording that two corpora have."""
    corpus_of: dict[str, str] = {}  # by digest
    for run in runs:
        for id_, (digest, _) in run.store.info.recordings.items():
            if corpus_of.setdefault(digest, run.corpus.name) != run.corpus.name:
                reason = f"{id_} of {run.corpus.name} is a recording of {corpus_of[digest]} too"
                raise UserError(f"transfer: {reason}; leave one of the two out")


def run_transfer(pool: Pool, job: Job) -> None:
    """Train all heads on a source in a fold, predict every target, and write the result."""
    path = pool.folder / "jobs" / f"{job.name}.json"
    source = next(source for source in pool.sources() if source.name == job.row)
    fit, valid = pool.training(source, job.fold)
    data = pool.data()
    if pool.settings.normalise == "speaker":
        data = by_speaker(data, fit, pool.speaker_U)
    checkpoint = path.with_suffix(".checkpoint")
    trained = train_heads(
        data,
        pool.states,
        losses(pool.task, pool.settings, pool.targets_U[fit.numpy()], len(pool.classes)),
        len(pool.classes),
        fit,
        valid,
        replace(pool.settings, warmup=0),
        (job.fold, job.seed),
        pool.tick,
        checkpoint,
        cumulative=False,
    )
    tests = {}
    for target, members in pool.tests(source, job.fold).items():
        out_BHO = outputs(trained.heads, data, members)
        predictions = {name: pool.task.predict(out_BHO[:, h]) for h, name in enumerate(trained.heads.names)}
        tests[target] = TargetPredictions(members.numpy(), predictions)
    layer = _layer(pool, data, torch.cat([fit, valid]))
    result = TransferResult(len(fit), trained.seconds, layer, tests)
    write_json(path, {"job": asdict(job), **to_plain(result)})
    checkpoint.unlink(missing_ok=True)


def _layer(pool: Pool, data: Data, training: Tensor) -> int:
    """The state estimated from the source's own speakers, as `layer=best` does."""
    x_ULD = data.mean_frames(training).reshape(len(training), len(pool.states), -1).numpy()
    units_U = np.array([pool.speaker_U[u] for u in training.tolist()])
    metric = pool.runs[0].metrics[pool.runs[0].headline]
    training_of = x_ULD, pool.targets_U[training.numpy()], units_U
    return best(cross_validate(*training_of, pool.states, pool.task, metric, pool.settings.class_weights))


def tabulate(pool: Pool) -> Transfer:
    """By kind of head, source and target: UA of the layer estimated from the source's speakers, and of each state."""
    first = pool.runs[0]
    usual = "UA" if "UA" in first.metrics else first.headline  # priors differ from corpus to corpus
    metric = first.plan.headline or usual
    matrix: dict[str, dict[str, dict[str, TransferCell]]] = {kind: {} for kind in KINDS}
    for source in pool.sources():
        results = [[_result(pool, source, f, s) for f in range(pool.folds(source))] for s in first.plan.seeds]
        chosen = [result.layer for result in results[0]]  # the estimate is the same with every seed
        for kind in KINDS:
            matrix[kind][source.name] = {
                target: _cell(pool, results, target, kind, chosen, metric) for target in results[0][0].tests
            }
    return Transfer(
        encoder=EncoderInfo(**first.store.info.encoder),
        pretraining=pretraining(first.store.info.encoder["name"]),
        left_out=tuple(sorted(source.name for source in set(pool.candidates()) - set(pool.sources()))),
        marks=tuple(sorted({mark for run in pool.runs for mark in run.protocol.marks})),
        languages={run.corpus.name: _languages(pool, run.corpus.name) for run in pool.runs},
        classes=tuple(pool.classes),
        labels=first.corpus.labels,
        metric=metric,
        seeds=len(first.plan.seeds),
        matrix=matrix,
    )


def _result(pool: Pool, source: Source, fold: int, seed: int) -> TransferResult:
    path = pool.folder / "jobs" / f"{Job(Kind.TRANSFER, source.name, fold, seed).name}.json"
    body = {name: value for name, value in read_record(path, AGAIN).items() if name not in HEAD}
    result = from_plain(TransferResult, body, path, AGAIN)
    for target, members in pool.tests(source, fold).items():
        assert np.array_equal(members.numpy(), result.tests[target].members), path
    return result


def _languages(pool: Pool, corpus: str) -> tuple[str, ...]:
    names = zip(pool.corpus_U, pool.language_U, strict=True)
    return tuple(sorted({language for name, language in names if name == corpus and language}))


def _cell(
    pool: Pool,
    results: Sequence[Sequence[TransferResult]],
    target: str,
    kind: str,
    chosen: Sequence[int],
    metric_name: str,
) -> TransferCell:
    """Mean over folds and seeds, and its interval over the target's units and the source's trainings.

    The models of several folds that all test another corpus differ by the speakers that they were trained on, which the
    seeds of a fold share: there a fold counts as one training, its seeds beside each other.
    """
    parts = [result.tests[target].members for result in results[0]]
    each_tests_all = len(parts) > 1 and np.array_equal(parts[0], parts[-1])
    members_N = parts[0] if each_tests_all else np.concatenate(parts)
    metric, targets_N = over_models(pool.runs[0].metrics[metric_name]), pool.targets_U[members_N]

    def row(states: Sequence[int]) -> Predictions:
        heads = [f"{kind} {state_name(state)}" for state in states]
        of_SF = [[r.tests[target].heads[h] for r, h in zip(of_seed, heads, strict=True)] for of_seed in results]
        if each_tests_all:
            return Predictions(np.array(of_SF).transpose(1, 2, 0), np.zeros(len(members_N), int))
        folds_N = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return Predictions(np.array([np.concatenate(of_F) for of_F in of_SF])[..., None], folds_N)

    def mean(of: Predictions) -> float:
        return float(np.mean([metric(targets_N, predictions_NM) for predictions_NM in of.rows_SN]))

    units_N = np.array([pool.unit_U[u] for u in members_N])
    of = interval_of_mean(targets_N, row(chosen), units_N, metric)
    by_state = {state: mean(row([state] * len(chosen))) for state in pool.states}
    return TransferCell(mean(row(chosen)), of.low, of.high, tuple(chosen), by_state)
