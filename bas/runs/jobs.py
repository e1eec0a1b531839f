"""Jobs: one search, or one training scored on its test part. A result depends only on the run folder and the job.

A job's numbers do not depend on what else runs: each job has one CPU thread, so the number of workers changes nothing.
A job uses its test part once, in `_score`, after every choice is made.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard.writer import SummaryWriter

from bas.networks.network import Network, count_parameters
from bas.protocols import Fold, field_of
from bas.runs import tensorboard
from bas.runs.fit import Fitted, fit, search_fold
from bas.runs.layers import best, cross_validate
from bas.runs.linear import fit_linear, refit
from bas.runs.plan import Job, Kind
from bas.runs.results import (
    UNKNOWN,
    LayerResult,
    LinearResult,
    SearchEpoch,
    SearchResult,
    Tested,
    TrainingEpoch,
    TrainingResult,
    search_of,
)
from bas.runs.run import Run
from bas.runs.session import Session
from bas.search.search import epochs_of
from bas.space import Architecture, SearchSpace
from bas.training.loop import Record, outputs, seed_of
from bas.training.settings import SEARCH_ONLY, search_settings
from bas.util.files import replacing, write_json
from bas.util.typed import from_plain, to_plain


def run_job(session: Session, job: Job) -> None:
    """Do one job and write its result. Resumes from the checkpoint of a killed job."""
    others = {Kind.LAYER: _choose_layer, Kind.LINEAR: _linear, Kind.SEARCH: _search}
    keep(session, job, others.get(job.kind, train)(session, job, session.run.protocol.folds[job.fold]))


def keep(session: Session, job: Job, result: object) -> None:
    """Write a job's result and delete its checkpoint."""
    head = {"job": asdict(job), "protocol": session.run.protocol.hash}
    write_json(session.run.job_path(job.name), {**head, **to_plain(result)})
    checkpoint(session, job).unlink(missing_ok=True)


def checkpoint(session: Session, job: Job) -> Path:
    return session.run.folder / "jobs" / f"{job.name}.checkpoint"


def _choose_layer(session: Session, job: Job, fold: Fold) -> LayerResult:
    """The layer with the best linear model in cross-validation over the fold's training speakers; see `layers`."""
    run = session.run
    x_ULD, targets_U, units_U = session.training_means(job.fold)
    metric = run.metrics[run.headline]
    scores = cross_validate(x_ULD, targets_U, units_U, run.store.info.layers, run.task, metric)
    return LayerResult(best(scores), scores)


def _linear(session: Session, job: Job, fold: Fold) -> LinearResult:
    data = session.derived(session.layer(job.fold), fold, session.run.plan.settings)
    begun = time.monotonic()
    fit_part, valid = session.members(fold.fit), session.members(fold.valid)
    on_fit, on_valid = ((data.mean_frames(of).numpy(), session.run.targets[of.numpy()]) for of in (fit_part, valid))
    metric = session.run.metrics[session.run.headline]
    model, strength = fit_linear(session.run.task.linears[job.row], metric, on_fit, on_valid)
    seconds = time.monotonic() - begun
    units = np.array([field_of(session.run.utterances[int(u)], session.run.unit) or UNKNOWN for u in fit_part])
    again = refit(session.run.task.linears[job.row], strength, on_fit, units, seed_of(job.fold, job.seed))
    on_test = data.mean_frames(session.members(fold.test)).numpy()
    predictions = model.predict(on_test)
    parameters = int(sum(np.size(getattr(model[-1], name, ())) for name in ("coef_", "intercept_")))
    return LinearResult(
        strength=strength,
        valid=session.metrics(model.predict(on_valid[0]), valid),
        parameters=parameters,
        seconds=seconds,
        test=_score(session, predictions, fold),
        again=np.array([other.predict(on_test) for other in again]),
    )


def _search(session: Session, job: Job, fold: Fold) -> SearchResult:
    run = session.run
    settings, space = search_settings(run.plan.settings, job.searcher), run.spaces[job.row].space
    with tensorboard.writer(run.folder, job.name, run.protocol.description, run.protocol.marks) as board:

        def after_epoch(record: Record) -> None:
            tensorboard.search_epoch(board, record, epochs_of(settings, space))
            session.tick()

        supernet, outcome = search_fold(
            session, space, settings, job.fold, job.seed, after_epoch, checkpoint(session, job)
        )
        values = [path[run.headline] for path in outcome.paths or ()]
        scored = list(zip(space.architectures(), values, strict=False))
        tensorboard.write_choice(board, outcome.architecture, scored, run.headline, len(outcome.records))
        mix = session.mix(supernet) if outcome.records else {}  # a random choice trains nothing
        tensorboard.write_mix(board, mix)
    save(session, job, supernet)
    kept = ("loss", run.headline)
    return SearchResult(
        architecture=outcome.architecture.to_dict(),
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


def train(session: Session, job: Job, fold: Fold) -> TrainingResult:
    """Train a job's architecture and score it on the test part; return the job's result."""
    space, architecture = training_of(session.run, job)
    with board_of(session, job) as board:

        def after_epoch(record: Record) -> None:
            if board:
                tensorboard.train_epoch(board, record)
            session.tick()

        settings, path = session.run.plan.settings, checkpoint(session, job)
        fitted = fit(session, space, architecture, settings, job.fold, job.seed, after_epoch, path)
        return finish(session, job, architecture, fitted, board)


def board_of(session: Session, job: Job) -> AbstractContextManager[SummaryWriter | None]:
    """The TensorBoard writer of a training; None for the thousands of an audit, which only its report shows."""
    if job.kind == Kind.ALONE:
        return nullcontext()
    return tensorboard.writer(
        session.run.folder, job.name, session.run.protocol.description, session.run.protocol.marks
    )


def finish(
    session: Session, job: Job, architecture: Architecture, fitted: Fitted, board: SummaryWriter | None
) -> TrainingResult:
    """Score a training on its test part, once, save the weights that are kept, and return the job's result."""
    session.keep_beside(job, fitted)
    fold = session.run.protocol.folds[job.fold]
    predictions = session.run.task.predict(outputs(fitted.network, fitted.data, session.members(fold.test)))
    test, mix = _score(session, predictions, fold), session.mix(fitted.network)
    if board:
        tensorboard.write_training(board, str(architecture), test.metrics)
        tensorboard.write_mix(board, mix)
    if job.kind.keeps_weights:
        save(session, job, fitted.network)
    return TrainingResult(
        architecture=architecture.to_dict(),
        layer=session.layer(job.fold),
        parameters=count_parameters(fitted.network),
        seconds=fitted.seconds,
        kept_epoch=fitted.kept["epoch"],
        epochs=tuple(from_plain(TrainingEpoch, record, job.name) for record in fitted.records),
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
        return space, list(space.architectures())[job.number]
    return space, Architecture.of(search_of(run, job.row, job.fold, job.seed).architecture)


def save(session: Session, job: Job, network: Network) -> None:
    path = session.run.folder / "jobs" / f"{job.name}.pt"
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(network.state_dict(), stream)


def _score(session: Session, predictions: np.ndarray, fold: Fold) -> Tested:
    """The part of a result about the test part: its predictions, in the fold's order, and its metrics."""
    return Tested(predictions, session.metrics(predictions, session.members(fold.test)))
