"""Probes trained on one corpus and tested on another, and trained on all languages but one and tested on that.

Of the stores of one encoder, on the classes that all their corpora have under a common scheme of labels. A source's
folds and valid parts are those of its own protocol; the layer is the one that the source's speakers name, as for
whoever has no labels of the target. A corpus is tested on itself by its own folds.

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
from bas.runs.layers import best, cross_validated
from bas.runs.plan import Job
from bas.runs.results import HEAD, UNKNOWN
from bas.runs.run import Run
from bas.runs.workers import Workers
from bas.stats import interval
from bas.studies.probe.heads import KINDS
from bas.studies.probe.jobs import train_heads
from bas.studies.probe.pretraining import pretraining
from bas.studies.probe.results import TargetPredictions, Transfer, TransferCell, TransferResult
from bas.training.batches import Data, by_speaker, load
from bas.training.heads import state_name
from bas.training.loop import outputs
from bas.training.placement import Placement, place
from bas.util.files import read_json, write_json
from bas.util.typed import from_plain, to_plain

EXCEPT, ALL = "all but ", "all "
UNUSABLE = "want of a class, or of someone to validate on, in some fold"


@dataclass(frozen=True)
class Source:
    """What a probe is trained on: one corpus, or all utterances that are not in one language."""

    name: str
    corpus: str | None = None
    left_out: str | None = None  # a language


class Pool:
    """Several runs as one set of utterances, without those of a class that some corpus lacks."""

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
            # Speakers of two corpora may have one name.
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
        """Every corpus, and all but each language where several are known: those that can be trained and tested."""
        return [source for source in self.asked() if self.usable(source)]

    def usable(self, source: Source) -> bool:
        """Whether every fold has all classes to train on, someone to validate on, and all to test on."""
        for fold in range(self.folds(source)):
            fit, valid = self.training(source, fold)
            tested = self.tests(source, fold).values()
            if len(set(self.targets_U[fit])) < len(self.classes) or not all(map(len, (valid, *tested))):
                return False
        return True

    def asked(self) -> list[Source]:
        corpora = list(dict.fromkeys(self.corpus_U))
        languages = sorted({language for language in self.language_U if language})
        found = [Source(name, corpus=name) for name in corpora]
        if len(languages) > 1:
            found += [Source(f"{EXCEPT}{language}", left_out=language) for language in languages]
        return found

    def holds(self, source: Source, u: int) -> bool:
        if source.corpus is not None:
            return self.corpus_U[u] == source.corpus
        # What language an utterance is in must be known where one is left out, and who else speaks it is left out too.
        speaks = self.speakers_of.get(source.left_out or "", set())
        return self.language_U[u] is not None and self.speaker_U[u] not in speaks

    def training(self, source: Source, fold: int) -> tuple[Tensor, Tensor]:
        """The fit and the valid part of a source in a fold; a corpus with fewer folds begins again."""
        parts: tuple[list[int], list[int]] = ([], [])
        for run, where in zip(self.runs, self.where, strict=True):
            of_fold = run.protocol.folds[fold % len(run.protocol.folds)]
            for ids, members in zip((of_fold.fit, of_fold.valid), parts, strict=True):
                members.extend(where[i] for i in ids if i in where and self.holds(source, where[i]))
        return torch.tensor(parts[0], dtype=torch.long), torch.tensor(parts[1], dtype=torch.long)

    def tests(self, source: Source, fold: int) -> dict[str, Tensor]:
        """What a source's probes are tested on in a fold, by corpus, or by the language that is left out."""
        if source.left_out is not None:
            members = [u for u, language in enumerate(self.language_U) if language == source.left_out]
            return {f"{ALL}{source.left_out}": torch.tensor(members)}
        found = {}
        for run, where in zip(self.runs, self.where, strict=True):
            ids: Sequence[str] = list(where)
            if run.corpus.name == source.corpus:
                ids = [i for i in run.protocol.folds[fold].test if i in where]
            found[run.corpus.name] = torch.tensor([where[i] for i in ids])
        return found

    def folds(self, source: Source) -> int:
        own = [len(run.protocol.folds) for run in self.runs if source.corpus in (None, run.corpus.name)]
        return max(own)


def common_classes(runs: Sequence[Run]) -> tuple[str, ...]:
    """The classes that every corpus has, in order."""
    return tuple(name for name in runs[0].outputs if all(name in run.outputs for run in runs))


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs that share an encoder and a scheme of labels, where those are two or more corpora.

    UserError: two corpora of one name.
    """
    by_encoder: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        info = run.store.info
        key = *(info.encoder[name] for name in ("revision", "input", "precision")), info.layers, run.corpus.labels
        others = by_encoder.setdefault(key, [])
        if run.corpus.labels:
            if run.corpus.name in [other.corpus.name for other in others]:
                raise UserError(
                    f"transfer: two corpora of one encoder are named {run.corpus.name}; rename one, or probe it apart"
                )
            others.append(run)
    return [sorted(found, key=lambda run: run.corpus.name) for found in by_encoder.values() if len(found) > 1]


def check(runs: Sequence[Run], workers: int, memory: float | None) -> None:
    """Raises UserError where fewer than two classes are common, two corpora hold the same file, or the features of all
    of them do not fit into memory."""
    classes = common_classes(runs)
    if len(classes) < 2:
        told = ", ".join(f"{run.corpus.name} ({', '.join(run.outputs)})" for run in runs)
        raise UserError(f"transfer: fewer than two classes are common to {told}; name another scheme of labels")
    _check_apart(runs)
    info = runs[0].store.info
    frames = sum(-(-r.store.num_frames(u.id) // r.plan.settings.stride) for r in runs for u in r.utterances)
    whole = frames * info.frame_bytes * len(info.layers)
    place(2 * whole, 2 * whole, torch.device("cpu"), workers, memory)  # while it is put together, all is there twice


def open_pool(source: Pool | Path, tick: Callable[[], None], placement: Placement | None) -> Pool:
    """A session: the pool, or what `carry_out` wrote of it under its folder. All its data lies on the device."""
    assert placement is None
    if isinstance(source, Path):
        source = Pool(source, [Run.open(Path(path)) for path in read_json(source / "transfer.json")["runs"]])
    source.tick = tick
    return source


def carry_out(folder: Path, runs: Sequence[Run], workers: Workers) -> Transfer:
    """Train and test what is not done yet under `folder`. `check` has been asked."""
    classes = common_classes(runs)
    write_json(folder / "transfer.json", {"runs": [str(run.folder) for run in runs], "classes": classes})
    for left in (folder / "jobs").glob("*.tmp"):  # by a process that was killed while it wrote
        left.unlink()
    pool = Pool(folder, runs)
    for source in set(pool.asked()) - set(pool.sources()):
        told = f"transfer: nothing is trained on {source.name}, for {UNUSABLE}"
        workers.console.print(told, style="yellow", highlight=False, markup=False)
    for source in pool.sources():
        jobs = [Job("transfer", source.name, f, s) for s in runs[0].plan.seeds for f in range(pool.folds(source))]
        epochs = pool.settings.epochs
        workers.run(pool, jobs, epochs, f"transfer from {source.name}", None, run_transfer, open_pool)
    return tabulate(pool)


def name_of(runs: Sequence[Run]) -> str:
    """Of the folder that holds the transfers between just these runs."""
    made_of = [read_json(run.folder / "run.json")["made_of"] for run in runs]
    return "transfer-" + hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:8]


def _check_apart(runs: Sequence[Run]) -> None:
    held: dict[str, str] = {}
    for run in runs:
        for id_, (digest, _) in run.store.info.recordings.items():
            if held.setdefault(digest, run.corpus.name) != run.corpus.name:
                told = f"{id_} of {run.corpus.name} is a recording of {held[digest]} too; leave one of the two out"
                raise UserError(f"transfer: {told}")


def run_transfer(pool: Pool, job: Job) -> None:
    """Train all heads on a source in a fold, predict every target, write the result."""
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
        pool.task.loss,
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
        predicted = {name: pool.task.predict(out_BHO[:, h]) for h, name in enumerate(trained.heads.names)}
        tests[target] = TargetPredictions(members.numpy(), predicted)
    layer = _layer(pool, data, torch.cat([fit, valid]))
    result = TransferResult(len(fit), trained.seconds, layer, tests)
    write_json(path, {"job": asdict(job), **to_plain(result)})
    checkpoint.unlink(missing_ok=True)


def _layer(pool: Pool, data: Data, training: Tensor) -> int:
    """The state that the source's own speakers name, as `layer=best` does."""
    x_ULD = data.mean_frames(training).reshape(len(training), len(pool.states), -1).numpy()
    units_U = np.array([pool.speaker_U[u] for u in training.tolist()])
    metric = pool.runs[0].metrics[pool.runs[0].headline]
    return best(cross_validated(x_ULD, pool.targets_U[training.numpy()], units_U, pool.states, pool.task, metric))


def tabulate(pool: Pool) -> Transfer:
    """By kind of head, source and target: UA of the layer that the source's speakers name, and of each state."""
    first = pool.runs[0]
    metric = "UA" if "UA" in first.metrics else first.headline  # priors differ from corpus to corpus
    matrix: dict[str, dict[str, dict[str, TransferCell]]] = {kind: {} for kind in KINDS}
    for source in pool.sources():
        results = [[_result(pool, source, f, s) for f in range(pool.folds(source))] for s in first.plan.seeds]
        chosen = [result.layer for result in results[0]]  # no seed has a say in it
        for kind in KINDS:
            matrix[kind][source.name] = {
                target: _cell(pool, results, target, kind, chosen, metric) for target in results[0][0].tests
            }
    return Transfer(
        encoder=EncoderInfo(**first.store.info.encoder),
        pretraining=pretraining(first.store.info.encoder["name"]),
        left_out=tuple(sorted(source.name for source in set(pool.asked()) - set(pool.sources()))),
        marks=tuple(sorted({mark for run in pool.runs for mark in run.protocol.marks})),
        languages={run.corpus.name: _languages(pool, run.corpus.name) for run in pool.runs},
        classes=tuple(pool.classes),
        labels=first.corpus.labels,
        metric=metric,
        seeds=len(first.plan.seeds),
        matrix=matrix,
    )


def _result(pool: Pool, source: Source, fold: int, seed: int) -> TransferResult:
    path = pool.folder / "jobs" / f"{Job('transfer', source.name, fold, seed).name}.json"
    body = {name: value for name, value in read_json(path).items() if name not in HEAD}
    return from_plain(TransferResult, body, path, "delete it: the job is done again")


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
    """Mean and interval over the target's units; a row of predictions a seed and, on another corpus, a fold."""
    members = [result.tests[target].members for result in results[0]]
    own = not np.array_equal(members[0], members[-1])

    def rows(states: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        heads = [f"{kind} {state_name(state)}" for state in states]
        found = [[r.tests[target].heads[h] for r, h in zip(row, heads, strict=True)] for row in results]
        if own:
            return np.concatenate(members), np.array([np.concatenate(row) for row in found])
        return members[0], np.array([fold for row in found for fold in row])

    metric = pool.runs[0].metrics[metric_name]

    def mean(states: Sequence[int]) -> tuple[float, float, float]:
        members_N, rows_RN = rows(states)
        targets_N, units_N = pool.targets_U[members_N], np.array([pool.unit_U[u] for u in members_N])
        return interval(lambda k_N: float(np.mean([metric(targets_N[k_N], p_N[k_N]) for p_N in rows_RN])), units_N)

    value, low, high = mean(chosen)
    by_state = {state: mean([state] * len(chosen))[0] for state in pool.states}
    return TransferCell(value, low, high, tuple(chosen), by_state)
