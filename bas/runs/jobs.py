"""Jobs: one search, or one training scored on its test part. A result depends only on the run folder and the job.

A job's numbers do not depend on what else runs: each job has one CPU thread, so the number of workers changes nothing.
A job uses its test part once, in `_score`, after every choice is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from glob import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from bas.networks.linear import LinearModel
from bas.networks.network import build, count_parameters
from bas.protocols import Fold, field_of
from bas.runs import tensorboard
from bas.runs.fit import Fitted, fit_ensemble, member_path, search_fold
from bas.runs.layers import best, cross_validate
from bas.runs.linear import LinearRow, as_network, fit_linear_row, make, refit
from bas.runs.plan import Job, Kind
from bas.runs.raced import of_architecture, race_fold
from bas.runs.results import (
    DIGITS,
    UNKNOWN,
    Curve,
    LayerResult,
    LinearResult,
    Scored,
    SearchEpoch,
    SearchResult,
    StudyResult,
    Tested,
    TrainingEpoch,
    TrainingResult,
    search_of,
)
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.solved import solvable
from bas.search.ensemble import Member, made_of
from bas.search.race import Trial
from bas.search.search import epochs_of
from bas.space import Architecture, SearchSpace, told
from bas.tasks import has_logits
from bas.training.loop import Record, outputs, seed_of
from bas.training.settings import RACES, SEARCH_ONLY, Settings, search_settings
from bas.util.device import model_of
from bas.util.files import replacing, write_json
from bas.util.typed import from_plain, to_plain


def run_job(session: Session, job: Job) -> None:
    """Do one job and write its result. Resumes from the checkpoint of a killed job."""
    others = {Kind.LAYER: _choose_layer, Kind.LINEAR: _linear, Kind.SEARCH: _search}
    keep(session, job, others.get(job.kind, train)(session, job, session.run.protocol.folds[job.fold]))


def keep(session: Session, job: Job, result: object) -> None:
    """Write a job's result and delete its checkpoints, but the trainings of a search that its retrained row needs."""
    if isinstance(result, Scored | SearchResult | StudyResult):
        result = replace(result, device=model_of(session.device))
    head = {"job": asdict(job), "protocol": session.run.protocol.hash}
    write_json(session.run.job_path(job.name), {**head, **to_plain(result)})
    checkpoint(session, job).unlink(missing_ok=True)
    needed: set[Path] = set()
    if isinstance(result, SearchResult) and not job.searcher:
        count = session.run.plan.settings.committee
        paths = [of_architecture(checkpoint(session, job), Architecture.of(m.architecture)) for m in result.members]
        needed = {member_path(path, number) for path in paths for number in range(count if count > 1 else 0)}
    drop_checkpoints(session.run, job, needed)
    if job.kind == Kind.RETRAIN:
        drop_checkpoints(session.run, search_job(job))


def drop_checkpoints(run: Run, job: Job, needed: Collection[Path] = ()) -> None:
    """Delete the checkpoints of a job's networks, but those that are needed."""
    for path in run.job_path(job.name).parent.glob(f"{escape(job.name)}.*.checkpoint"):
        if path not in needed:
            path.unlink(missing_ok=True)


def search_job(job: Job) -> Job:
    """The search whose choice a job retrains."""
    return replace(job, kind=Kind.SEARCH)


def checkpoint(session: Session, job: Job) -> Path:
    return session.run.folder / "jobs" / f"{job.name}.checkpoint"


def checkpoints(session: Session, job: Job) -> Callable[[Architecture], Path]:
    """Where the networks of a training's row have their checkpoints, by architecture."""
    if job.kind == Kind.RETRAIN and session.run.plan.settings.committee > 1:  # where a race has left its trainings
        return partial(of_architecture, checkpoint(session, search_job(job)))
    return lambda architecture: checkpoint(session, job)


def _choose_layer(session: Session, job: Job, fold: Fold) -> LayerResult:
    """The layer with the best linear model in cross-validation over the fold's training speakers; see `layers`."""
    run = session.run
    x_ULD, targets_U, units_U = session.training_means(job.fold)
    metric = run.metrics[run.headline]
    weights = run.plan.settings.class_weights
    scores = cross_validate(x_ULD, targets_U, units_U, run.store.info.layers, run.task, metric, weights)
    return LayerResult(best(scores), scores)


def _linear(session: Session, job: Job, fold: Fold) -> LinearResult:
    return score_linear(session, job, fit_linear_row(session, job.row, job.fold))


def score_linear(session: Session, job: Job, row: LinearRow) -> LinearResult:
    """Score a linear row on its test part, once; return the job's result."""
    run, fold = session.run, session.run.protocol.folds[job.fold]
    held = [session.score(make(row.linear, row.strength).fit(*fit).predict(x), y) for fit, (x, y) in row.splits]
    units = np.array([field_of(run.utterances[run.position[i]], run.unit) or UNKNOWN for i in row.parts.fit])
    again = refit(row.linear, row.strength, row.training, units, seed_of(job.fold, job.seed))
    on_test, _ = row.sees(row.parts, fold.test)
    predictions = row.model.predict(on_test)
    network = as_network(row.model, len(run.outputs)) if has_logits(run.task) else None
    logits_NO = None if network is None else network.of_summary(torch.from_numpy(on_test)).detach()
    parameters = int(sum(np.size(getattr(row.model[-1], name, ())) for name in ("coef_", "intercept_")))
    return LinearResult(
        strength=row.strength,
        valid={name: float(np.mean([of[name] for of in held])) for name in run.metrics},
        parameters=parameters,
        seconds=row.seconds,
        test=_score(session, predictions, fold, logits_NO),
        again=np.array([other.predict(on_test) for other in again]),
    )


def _search(session: Session, job: Job, fold: Fold) -> SearchResult:
    run = session.run
    settings, space = search_settings(run.plan.settings, job.searcher), run.spaces[job.row].space
    if settings.strategy in RACES:
        return _race(session, job, settings, space)
    with tensorboard.writer(run.folder, job.name, run.protocol.description, run.protocol.marks) as board:

        def after_epoch(record: Record) -> None:
            tensorboard.search_epoch(board, record, epochs_of(settings, space))
            session.tick()

        supernet, outcome = search_fold(
            session, space, settings, job.fold, job.seed, after_epoch, checkpoint(session, job)
        )
        losses = [path["loss"] for path in outcome.paths or ()]
        paths = list(zip(space.architectures(), losses, strict=False))
        tensorboard.write_choice(board, outcome.architecture, paths, len(outcome.records))
        mix = session.mix(supernet) if outcome.records else {}  # a random choice trains nothing
        tensorboard.write_mix(board, mix)
    save(session, job, supernet)
    kept = ("loss", run.headline)
    return SearchResult(
        architecture=outcome.architecture.to_dict(),
        members=(Member(outcome.architecture.to_dict(), 1.0),),
        layer=session.layer(job.fold),
        settings={name: getattr(settings, name) for name in SEARCH_ONLY},
        parameters=count_parameters(supernet),
        multiply_adds=outcome.multiply_adds,
        seconds=outcome.seconds,
        probabilities=outcome.probabilities,
        paths=tuple({name: path[name] for name in kept} for path in outcome.paths) if outcome.paths else None,
        epochs=tuple(from_plain(SearchEpoch, record, job.name) for record in outcome.records),
        **mix,
    )


def _race(session: Session, job: Job, settings: Settings, space: SearchSpace) -> SearchResult:
    run = session.run
    with tensorboard.writer(run.folder, job.name, run.protocol.description, run.protocol.marks) as board:

        def after_training(number: int, trial: Trial) -> None:
            tensorboard.write_trial(board, number, trial, run.headline)

        path = checkpoint(session, job)
        raced = race_fold(session, space, settings, job.fold, job.seed, session.tick, after_training, path)
        tensorboard.write_choice(board, raced.architecture, [], len(raced.trials))
    dim, made = run.store.info.dim, raced.architecture
    dims = dim, settings.width or dim, len(run.outputs), settings.dropout, settings.residual == "every"
    if summary := solvable(session, space, made):
        network: nn.Module = LinearModel(summary, run.states * dim, len(run.outputs))
    else:
        network = build(space, made, *dims, run.states)
    return SearchResult(
        architecture=raced.architecture.to_dict(),
        members=raced.members,
        layer=session.layer(job.fold),
        settings={name: getattr(settings, name) for name in SEARCH_ONLY},
        parameters=count_parameters(network),
        multiply_adds=raced.multiply_adds,
        seconds=raced.seconds,
        probabilities=None,
        paths=None,
        epochs=(),
        trials=raced.trials,
        choice=raced.choice,
    )


def train(session: Session, job: Job, fold: Fold) -> TrainingResult:
    """Train a job's architecture and score it on the test part; return the job's result."""
    space, architecture = training_of(session.run, job)
    settings, seen = session.run.plan.settings, set[int]()
    with board_of(session, job) as board:

        def after_epoch(record: Record) -> None:
            seen.add(record.get("member", 0))
            if board:
                tensorboard.train_epoch(board, record)
            session.tick()

        search = search_of(session.run, job.row, job.fold, job.seed) if job.kind == Kind.RETRAIN else None
        members = search.members if search else (Member(architecture.to_dict(), 1.0),)
        begun, spared = time.monotonic(), session.spared
        paths = checkpoints(session, job)
        fitted = fit_ensemble(session, space, members, settings, job.fold, job.seed, after_epoch, paths)
        if search and search.trials:
            # The race's trainings are in its own; what another seed has solved counts as if it were solved here.
            fitted = replace(fitted, seconds=time.monotonic() - begun + session.spared - spared)
        for number, records in enumerate(fitted.curves):
            if board and number not in seen:  # trained by the race
                for record in records:
                    tensorboard.train_epoch(board, {**record, "member": number})
        return finish(session, job, architecture, fitted, board, members)


def board_of(session: Session, job: Job) -> AbstractContextManager[SummaryWriter | None]:
    """The TensorBoard writer of a training; None for the thousands of an audit, which only its report shows."""
    if job.kind == Kind.ALONE:
        return nullcontext()
    return tensorboard.writer(
        session.run.folder, job.name, session.run.protocol.description, session.run.protocol.marks
    )


def finish(
    session: Session,
    job: Job,
    architecture: Architecture,
    fitted: Fitted,
    board: SummaryWriter | None,
    members: Sequence[Member] = (),
) -> TrainingResult:
    """Score a training on its test part, once, save the weights that are kept, and return the job's result."""
    session.keep_beside(job, fitted)
    fold = session.run.protocol.folds[job.fold]
    outputs_NO = outputs(fitted.network, fitted.data, session.members(fold.test))
    test = _score(session, session.run.task.predict(outputs_NO), fold, outputs_NO if job.kind.keeps_logits else None)
    mix = session.mix(fitted.network)
    if board:
        tensorboard.write_training(board, made_of(members) if members else told(architecture.to_dict()), test.metrics)
        tensorboard.write_mix(board, mix)
    if job.kind.keeps_weights:
        save(session, job, fitted.network)
    return TrainingResult(
        architecture=architecture.to_dict(),
        members=tuple(members) or (Member(architecture.to_dict(), 1.0),),
        layer=session.layer(job.fold),
        parameters=count_parameters(fitted.network),
        seconds=fitted.seconds,
        networks=tuple(
            Curve(kept_epoch=kept["epoch"], epochs=tuple(from_plain(TrainingEpoch, r, job.name) for r in records))
            for kept, records in zip(fitted.kept, fitted.curves, strict=True)
        ),
        test=test,
        **mix,
    )


def training_of(run: Run, job: Job) -> tuple[SearchSpace, Architecture]:
    """The space and the architecture that a job trains."""
    if job.kind == Kind.BASELINE:
        return run.baselines[job.row], run.baselines[job.row].only()
    space = run.spaces[job.row].space
    if job.kind == Kind.ALONE:
        assert job.number is not None
        return space, space.at(job.number)
    return space, Architecture.of(search_of(run, job.row, job.fold, job.seed).architecture)


def save(session: Session, job: Job, network: nn.Module) -> None:
    path = session.run.folder / "jobs" / f"{job.name}.pt"
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(network.state_dict(), stream)


def _score(session: Session, predictions: np.ndarray, fold: Fold, outputs_NO: Tensor | None) -> Tested:
    """The part of a result about the test part: its predictions, in the fold's order, its metrics, and logits."""
    logits = None
    if outputs_NO is not None and has_logits(session.run.task):
        logits = outputs_NO.double().cpu().numpy().round(DIGITS)
    return Tested(predictions, session.metrics(predictions, session.members(fold.test)), logits)
