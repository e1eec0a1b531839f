"""Optuna over what a search leaves fixed, and over the blocks themselves: an independent baseline of the search.

Every space has one Optuna study in every fold. A trial is one training on the fold's fit part. Its value is the lowest
validation loss over its epochs, which also decides early stopping: a metric on so few utterances takes few values and
ties. The first trial is the preset with the first candidate in every slot (in `ser_bas4` the 4L transformer), so the
chosen trial is never worse than that on valid. No trial sees a test part: the best trial of each study is trained again
with every seed of the plan, and scored on the test part once.

Each study is a job, which makes one trial after another; each trial leaves a record, and the study is built of these
anew. What a trial draws depends only on the trials before it, so that on equal processors numbers repeat exactly,
whatever processes and hosts share the run: an heir of a process that was only slow writes the same records. Of a larger
number of trials than asked for, as after another command, the first ones count.

References
    Akiba et al., *Optuna*, KDD 2019. Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, NeurIPS 2011: TPE.
    Golovin et al., *Google Vizier*, KDD 2017, section 3.2.2: the median rule by which trials are pruned.
    Cawley and Talbot, *JMLR* 11, 2010: why the choice is made again inside every fold.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import TrialState

from bas.errors import Diverged, UserError
from bas.report.format import encoder_name
from bas.runs import tensorboard
from bas.runs.fit import fit, fit_row, search_fold
from bas.runs.jobs import checkpoint, finish, keep
from bas.runs.plan import Job, Kind
from bas.runs.results import StudyResult, TunedResult
from bas.runs.run import Run
from bas.runs.session import Session
from bas.space import Architecture, told
from bas.studies.tune.ranges import BLOCK, apply_params, preset_params, ranges
from bas.training.loop import Record
from bas.util.claims import HEART
from bas.util.files import read_record, write_json
from bas.util.typed import from_plain, to_plain

STARTUP = 5  # complete trials before any is pruned; TPE draws its first ten at random
GRACE = 0.25  # share of the epochs before a trial may be pruned: under one-cycle the rates still rise

STUDIES = "studies"
MADE_AGAIN = "delete it, and what depends on it in jobs/: it is made again"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial."""

    made_of: Mapping[str, str]  # the mode, and what each parameter was drawn from
    params: Mapping[str, float | int | str]
    losses: Mapping[str, float]  # by epoch, of the validation part
    value: float | None  # None: pruned
    seconds: float
    architecture: Mapping[str, str] | None = None  # None: it was pruned in its search
    valid: Mapping[str, float] | None = None  # loss and metrics of the kept epoch
    kept_epoch: int | None = None
    broken: str = ""  # why it diverged, or was too large


def record_path(folder: Path, space: str, fold: int, number: int) -> Path:
    return folder / STUDIES / space / f"fold{fold}" / f"{number:03}.json"


def records_of(folder: Path, space: str, fold: int, count: int | None = None) -> list[TrialRecord]:
    """The trials of a study that are made, in their order, at most `count`. Raises UserError where one is damaged."""
    paths = (record_path(folder, space, fold, number) for number in itertools.count())
    there = itertools.takewhile(Path.exists, itertools.islice(paths, count))
    return [_read(path) for path in there]


def _read(path: Path) -> TrialRecord:
    return from_plain(TrialRecord, read_record(path, MADE_AGAIN), path, MADE_AGAIN)


def check_studies(run: Run, mode: str) -> None:
    """Raise UserError where studies that were begun were made with another mode or other ranges, or trials are gone
    that results depend on."""
    for space in run.spaces:
        made_of = _made_of(run, mode, space)
        for fold in range(len(run.protocol.folds)):
            # Results first: others may be at work, and write a trial before what depends on it.
            depend = list(_numbers(run.folder / "jobs", space, fold))
            there = {path.name: _read(path) for path in record_path(run.folder, space, fold, 0).parent.glob("*.json")}
            for record in there.values():
                for name in {**made_of, **record.made_of}:
                    if record.made_of.get(name) != made_of.get(name):
                        reason = f"made with {name} {record.made_of.get(name)}, now {made_of.get(name)}"
                        raise UserError(f"{run.folder}: {reason}; give another --name")
            needed = max((number for _, number in depend), default=0)
            paths = (record_path(run.folder, space, fold, number) for number in range(needed))
            if gone := [path for path in paths if path.name not in there]:
                names = ", ".join(path.name for path, number in depend if number > int(gone[0].stem))
                raise UserError(f"{gone[0]}: gone; put it back, or delete what depends on it in jobs/: {names}")


def _numbers(jobs: Path, space: str, fold: int) -> Iterator[tuple[Path, int]]:
    """The results of a study, and of what was chosen in it, and the number of trials that each was made of."""
    pattern = re.compile(rf"({Kind.STUDY}|{Kind.TUNED})-{re.escape(space)}-(\d+)-fold{fold}-seed\d+\.json")
    for path in sorted(jobs.glob("*.json")):
        if match := pattern.fullmatch(path.name):
            yield path, int(match[2]) + (match[1] == Kind.TUNED)


def scored(folder: Path, space: str, fold: int) -> list[int]:
    """The numbers of the trials whose best was scored on the test part, for this number of trials or another."""
    return [count - 1 for path, count in _numbers(folder / "jobs", space, fold) if path.name.startswith(Kind.TUNED)]


def _made_of(run: Run, mode: str, space: str) -> dict[str, str]:
    drawn = ranges(run.plan.settings, run.spaces[space].space, run.store.info.dim, mode)
    return {
        "tune": mode,
        "optuna": optuna.__version__,
        **{f"range of {n}": distribution_to_json(d) for n, d in drawn.items()},
    }


def study_of(records: Sequence[TrialRecord], **how: Any) -> optuna.Study:
    """The study of these trials, in memory. how: its sampler and its pruner."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a progress bar shows the trials
    study = optuna.create_study(direction="minimize", **how)
    for record in records:
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.PRUNED if record.value is None else TrialState.COMPLETE,
                value=record.value,
                params=dict(record.params),
                distributions=recorded_ranges(record),
                intermediate_values={int(epoch): loss for epoch, loss in record.losses.items()},
            )
        )
    return study


def recorded_ranges(record: TrialRecord) -> dict[str, BaseDistribution]:
    """The ranges that the trial was made with."""
    made_of = record.made_of.items()
    return {n.removeprefix("range of "): json_to_distribution(v) for n, v in made_of if n.startswith("range of ")}


def best_of(records: Sequence[TrialRecord], where: str) -> int:
    """The number of the trial with the lowest validation loss. Raises UserError where none is complete, as where all
    diverge; where: the study, for the message."""
    values = {number: record.value for number, record in enumerate(records) if record.value is not None}
    if not values:
        reason = next((record.broken for record in records if record.broken), "pruned")
        raise UserError(f"{where}: no trial was completed ({reason}); lower lr or batch_size, under another --name")
    return min(values, key=lambda number: (values[number], number))


def run_study(mode: str, session: Session, job: Job) -> None:
    """Make the trials of a study that are missing of the first `job.number`. The result says which is the best."""
    folder, space, fold, count = session.run.folder, job.row, job.fold, job.number
    assert count is not None
    while len(records := records_of(folder, space, fold, count)) < count:
        path = record_path(folder, space, fold, len(records))
        made = make_trial(session, mode, space, fold, records)
        session.tick()
        if not path.exists():  # where processors differ, an heir's may be another, on which later ones depend
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, to_plain(made))
    best = best_of(records, f"{space}, fold {fold}")
    keep(session, job, StudyResult(best=best, seconds=sum(record.seconds for record in records)))


def make_trial(session: Session, mode: str, space: str, fold: int, before: Sequence[TrialRecord]) -> TrialRecord:
    """Draw the parameters of the trial that follows these, and train it. The test part is not touched."""
    run, begun, seed, number = session.run, time.monotonic(), session.run.plan.seeds[0], len(before)
    given, plain = run.spaces[space].space, run.plan.settings
    drawn = ranges(plain, given, run.store.info.dim, mode)
    pruner = optuna.pruners.MedianPruner(STARTUP, math.ceil(GRACE * plain.epochs))
    study = study_of(before, sampler=_sampler(space, fold, number), pruner=pruner)
    if not before:
        study.enqueue_trial(preset_params(plain, given, run.store.info.dim, drawn))
    trial = study.ask(drawn)
    settings, searched = apply_params(plain, given, trial.params)
    losses: dict[str, float] = {}

    def after_epoch(record: Record) -> None:
        HEART.check()
        loss = float(record["valid"]["loss"])
        if not math.isfinite(loss):
            raise Diverged(f"training diverged: validation loss {loss} in epoch {record['epoch']}")
        losses[str(record["epoch"])] = loss
        trial.report(loss, record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    outcome: dict[str, Any] = {"value": None}
    try:
        if any(name.startswith(BLOCK) for name in trial.params):
            architecture = Architecture.of({slot: trial.params[BLOCK + slot] for slot in searched.searched})
        else:
            # Epochs of the search are not reported: only the training that follows may be pruned.
            _, found = search_fold(session, searched, settings, fold, seed, lambda record: None, paths=False)
            architecture = found.architecture
        outcome["architecture"] = architecture.to_dict()
        fitted = fit(session, searched, architecture, settings, fold, seed, after_epoch)
        (kept,) = fitted.kept
        outcome |= {"value": kept["valid"]["loss"], "valid": kept["valid"], "kept_epoch": kept["epoch"]}
    except optuna.TrialPruned:
        pass
    except (Diverged, torch.OutOfMemoryError) as error:
        # Recorded as pruned: TPE learns from a pruned trial to avoid such parameters; it ignores a failed one.
        outcome["broken"] = " ".join(str(error).split())
    seconds = time.monotonic() - begun
    made_of = _made_of(run, mode, space)
    made = TrialRecord(made_of=made_of, params=trial.params, losses=losses, seconds=seconds, **outcome)
    _show_trial(run, space, fold, number, made)
    return made


def _sampler(space: str, fold: int, number: int) -> optuna.samplers.TPESampler:
    seed = hashlib.sha256(repr((space, fold, number)).encode()).digest()[:4]
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):  # before Optuna 5
        return optuna.samplers.TPESampler(seed=int.from_bytes(seed, "big"), multivariate=True)


def _show_trial(run: Run, space: str, fold: int, number: int, trial: TrialRecord) -> None:
    """Write one HParams entry to TensorBoard, with validation figures only."""
    protocol = run.protocol
    settings, _ = apply_params(run.plan.settings, run.spaces[space].space, trial.params)
    facts = {
        "row": f"trial {number}",
        "architecture": told(trial.architecture or {}),
        "run": run.folder.name,
        "encoder": encoder_name(run.store.info.encoder["name"]),
        "layer": str(run.plan.layer),
        "corpus": run.corpus.name,
        "protocol": protocol.description,
        "space": space,
        "fold": str(fold),
        "num_heads": str(trial.params.get("num_heads", "")),
        "state": "pruned" if trial.value is None else "complete",
    }
    losses = list(filter(math.isfinite, trial.losses.values()))
    values = trial.valid or ({"loss": min(losses)} if losses else {})
    name = f"trials/{space}-fold{fold}-{number:03}"
    with tensorboard.writer(run.folder, name, protocol.description, protocol.marks) as board:
        metrics = {f"valid/{metric}": value for metric, value in values.items()}
        tensorboard.write_hparams(board, facts, settings, metrics, run.metrics)


def score(session: Session, job: Job) -> None:
    """Train a study's best trial with this seed and score it once on the test part. The result is like `run_job`'s."""
    run = session.run
    assert job.number is not None
    trial = records_of(run.folder, job.row, job.fold, job.number + 1)[job.number]
    assert trial.architecture is not None, "complete"
    settings, space = apply_params(run.plan.settings, run.spaces[job.row].space, trial.params)
    architecture = Architecture.of(trial.architecture)
    with tensorboard.writer(run.folder, job.name, run.protocol.description, run.protocol.marks) as board:

        def after_epoch(record: Record) -> None:
            tensorboard.train_epoch(board, record)
            session.tick()

        path = checkpoint(session, job)
        fitted = fit_row(session, space, architecture, settings, job.fold, job.seed, after_epoch, path)
        result = finish(session, job, architecture, fitted, board)
    keep(session, job, TunedResult(**vars(result), params=trial.params, settings=settings))
