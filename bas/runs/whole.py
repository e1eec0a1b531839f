"""A row of a table once more, on all that the folds of its run train on: the model that is taken away.

It is the row's own procedure, the search and the choice of the state included, on all utterances that the folds of the
run train on. Nothing of it is scored: what it is worth is the row's score in the table, that of models of the same
procedure on units that they were not trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bas.errors import UserError
from bas.protocols import Fold, add_valid, slug
from bas.runs.fit import fit_ensemble
from bas.runs.jobs import checkpoints, run_job, search_job
from bas.runs.linear import as_network, fit_linear_row
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import search_of
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.worker import in_one_thread
from bas.search.ensemble import Member
from bas.search.search import epochs_of
from bas.space import SearchSpace
from bas.training.loop import Record
from bas.training.settings import RACES


@dataclass(frozen=True)
class Whole:
    """A row fitted on all that the folds of a run train on.

    space, members: of what it is made; of the linear row None and none.
    layer: the number of the state that it reads, or one of ALL. stride: frames that are averaged into one before it.
    """

    network: nn.Module
    space: SearchSpace | None
    members: tuple[Member, ...]
    layer: int | str
    stride: int


def whole(run: Run, folder: Path) -> Run:
    """The run, in another folder, with one fold: all that its folds train on, and no test part."""
    if len(run.protocol.folds) == 1:  # its valid part stays
        folds: tuple[Fold, ...] = (replace(run.protocol.folds[0], test=()),)
    else:
        ids = sorted({i for fold in run.protocol.folds for i in (*fold.fit, *fold.valid)})
        folds = add_valid(run.corpus, run.task, [Fold(tuple(ids), (), ())], run.protocol.seed)
    made = copy(run)
    made.folder = folder
    made.protocol = replace(run.protocol, name=slug(run.protocol.name, "whole"), folds=folds)
    return made


def fit_whole(run: Run, row: str, seed: int, tick: Callable[[], None]) -> Whole:
    """The row of this name (a space, a baseline or a linear row) of a run that `whole` made.

    What is done already stays in the run's folder, so that a killed call goes on. tick: is called after each epoch.
    Raises UserError for a linear row of the user's own kind, whose weights are not known here.
    """
    done: list[Whole] = []
    before = torch.get_num_threads()
    try:
        in_one_thread(lambda session, name: done.append(_fit(session, name, seed)), Session(run, tick), row)
    finally:
        torch.set_num_threads(before)
    return done[0]


def epochs(run: Run, row: str) -> int:
    """How often `fit_whole` ticks at most, about: what a race has trained is not trained again."""
    settings = run.plan.settings
    if row in run.task.linears:
        return 1
    search = epochs_of(settings, run.spaces[row].space) if row in run.spaces else 0
    return search + (0 if settings.strategy in RACES and search else settings.row_epochs)


def _fit(session: Session, row: str, seed: int) -> Whole:
    run, settings = session.run, session.run.plan.settings
    if run.plan.layer == BEST:
        _once(session, Job(Kind.LAYER, BEST, 0, 0))
    if row in run.task.linears:
        network = as_network(fit_linear_row(session, row, 0).model, len(run.outputs))
        if network is None:
            raise UserError(f"row {row}: a model of the task's own kind, of which bas cannot read the weights")
        session.tick()
        return Whole(network, None, (), session.layer(0), 1)
    job = Job(Kind.RETRAIN if row in run.spaces else Kind.BASELINE, row, 0, seed)
    space = run.baselines[row] if row in run.baselines else run.spaces[row].space
    members: tuple[Member, ...]
    if row in run.spaces:
        _once(session, search_job(job))
        members = search_of(run, row, 0, seed).members
    else:
        members = (Member(space.only().to_dict(), 1.0),)

    def after_epoch(record: Record) -> None:
        session.tick()

    fitted = fit_ensemble(session, space, members, settings, 0, seed, after_epoch, checkpoints(session, job))
    return Whole(fitted.network, space, members, session.layer(0), settings.stride)


def _once(session: Session, job: Job) -> None:
    if not session.run.done(job.name):
        run_job(session, job)
