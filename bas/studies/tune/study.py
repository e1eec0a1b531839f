"""Tune, train what was chosen, compare. `trials` defines a trial."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from optuna.distributions import CategoricalDistribution
from rich.console import Console

from bas.errors import UserError
from bas.protocols import Protocol
from bas.report.notes import announce
from bas.report.results import write_results
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import StudyResult, read_result
from bas.runs.run import Inputs, Run
from bas.runs.start import reopen, start
from bas.runs.workers import Workers
from bas.search.search import STRATEGIES
from bas.studies.tune.numbers import baselines_of, tabulate
from bas.studies.tune.page import MODES, markdown, show
from bas.studies.tune.ranges import ranges
from bas.studies.tune.results import Mode, Tuning
from bas.studies.tune.trials import check_studies, record_path, run_study, score
from bas.training.batches import sizes
from bas.training.placement import Placement, place
from bas.training.settings import RACES, Settings
from bas.util.files import write_text


def check_mode(mode: Mode, settings: Settings) -> None:
    """Raise UserError where the search that every trial would run trains a network of its own for each training."""
    if mode == "search" and settings.strategy in RACES:
        wanted = f"must be one of {', '.join(STRATEGIES)}"
        raise UserError(f"setting strategy={settings.strategy}: tune.choose=search tunes a supernet's search; {wanted}")


def begin(folder: Path, inputs: Inputs, protocol: Protocol, mode: Mode) -> Run:
    """Begin a tuning in the folder, or go on with it. The caller holds the folder's lock.

    Raises UserError for what `start.start` refuses, and where studies there were made with another mode.
    """
    run = start(folder, inputs, protocol)
    check_studies(run, mode)
    return run


def join(folder: Path, mode: Mode) -> Run:
    """Open a tuning that is begun, to do some of its jobs."""
    run = reopen(folder, beside=True)
    check_studies(run, mode)
    return run


def train(run: Run, mode: Mode, trials: int, pool: Workers, memory: float | None) -> None:
    """Make the missing trials, train the best of each study with every seed, and the baselines; or the pool's part of
    them. memory: see the study `compare`.

    trials: how many in every fold, for every space. Any number of processes may do so at a time, on any hosts: each
    study and each training is claimed. Needs no lock.
    """
    announce(run, pool.count, pool.console)
    placement, line = _place(run, mode, pool.count, memory)
    pool.console.print(line)
    studies, once, baselines = _studies(run, trials), _once(run), _baselines(run)
    layers = [job for job in once if job.kind == Kind.LAYER]
    pool.run(run, layers, 1, "layers", placement, shared=True)
    pool.console.print(f"tuned: {MODES[mode]}; {trials} trials in each of {len(studies)} studies", highlight=False)
    # Every part trains the best of any study.
    pool.run(run, studies, trials, "studies", placement, partial(run_study, mode), shared=True)
    epochs = run.plan.settings.row_epochs
    pool.run(run, _trainings(run, studies), epochs, "trainings", placement, score)
    pool.run(run, [job for job in once if job not in layers], 1, "linear rows", placement)
    pool.run(run, baselines, epochs, "baselines", placement)


def expected(run: Run, trials: int) -> tuple[list[Path], bool]:
    """Trials and results of jobs, and whether these are all: what a study chooses is known once it is made."""
    studies = _studies(run, trials)
    paths = [record_path(run.folder, job.row, job.fold, n) for job in studies for n in range(trials)]
    made = [job for job in studies if run.done(job.name)]
    jobs = [*studies, *_once(run), *_baselines(run), *_trainings(run, made)]
    return [*paths, *(run.job_path(job.name) for job in jobs)], len(made) == len(studies)


def conclude(run: Run, mode: Mode, trials: int, console: Console) -> Tuning:
    """Write and show the page. All jobs must be done."""
    results = tabulate(run, mode, trials)
    write_results(run.folder, results)
    write_text(run.folder / "table.md", markdown(results))
    show(results, console)
    return results


def _studies(run: Run, trials: int) -> list[Job]:
    folds = range(len(run.protocol.folds))
    return [Job(Kind.STUDY, space, f, run.plan.seeds[0], trials) for space in run.spaces for f in folds]


def _trainings(run: Run, studies: Sequence[Job]) -> list[Job]:
    """Of the best of each of these studies, which are made."""
    best = [(job, read_result(run, job, StudyResult).best) for job in studies]
    return [Job(Kind.TUNED, job.row, job.fold, seed, number) for seed in run.plan.seeds for job, number in best]


def _once(run: Run) -> list[Job]:
    """Jobs of one seed."""
    folds = range(len(run.protocol.folds))
    layers = [Job(Kind.LAYER, BEST, f, 0) for f in folds if run.plan.layer == BEST]
    return [*layers, *(Job(Kind.LINEAR, row, f, run.plan.seeds[0]) for row in run.task.linears for f in folds)]


def _baselines(run: Run) -> list[Job]:
    folds = range(len(run.protocol.folds))
    return [Job(Kind.BASELINE, row, f, s) for row in baselines_of(run) for s in run.plan.seeds for f in folds]


def _place(run: Run, mode: Mode, workers: int, memory: float | None) -> tuple[Placement, str]:
    """As `session.place_features`, for the smallest stride that a trial may draw."""
    strides = [run.plan.settings.stride]
    for file in run.spaces.values():
        drawn = ranges(run.plan.settings, file.space, run.store.info.dim, mode)["stride"]
        assert isinstance(drawn, CategoricalDistribution)
        strides += [s for s in drawn.choices if isinstance(s, int)]
    ids = [u.id for u in run.utterances]
    whole, least = sizes(run.store, ids, min(strides), run.plan.settings.batch_size, run.states)
    return place(whole, least, torch.device(run.plan.device), workers, memory)
