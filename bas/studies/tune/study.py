"""Tune, train what was chosen, compare. `trials` defines a trial."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from rich.console import Console

from bas.errors import UserError
from bas.report.notes import announce
from bas.report.results import write_results
from bas.runs.plan import BEST, Job, Kind
from bas.runs.run import Run
from bas.runs.workers import Workers
from bas.search.search import STRATEGIES
from bas.studies.tune.numbers import baselines_of, tabulate
from bas.studies.tune.page import MODES, markdown, show
from bas.studies.tune.results import Mode, Tuning
from bas.studies.tune.trials import (
    FINISHED,
    Attempt,
    TuneSession,
    begin,
    best_of,
    recorded_ranges,
    run_attempt,
    score,
    study_of,
)
from bas.training.batches import sizes
from bas.training.placement import Placement, place
from bas.training.settings import RACES, Settings
from bas.util.files import write_text


def check_mode(mode: Mode, settings: Settings) -> None:
    """Raise UserError where the search that every trial would run trains a network of its own for each training."""
    if mode == "search" and settings.strategy in RACES:
        wanted = f"must be one of {', '.join(STRATEGIES)}"
        raise UserError(f"setting strategy={settings.strategy}: tune.choose=search tunes a supernet's search; {wanted}")


def carry_out(run: Run, mode: Mode, trials: int, workers: int, console: Console, memory: float | None = None) -> Tuning:
    """Make the missing trials, score the best of each study and the baselines; write and show the page.

    trials: how many in every fold, for every space. memory: see the study `compare`. The caller holds the folder's
    lock.
    """
    announce(run, workers, console)
    journal = begin(run, mode)
    placement, line = _place(run, journal, workers, memory)
    console.print(line)
    folds, seeds, epochs = range(len(run.protocol.folds)), run.plan.seeds, run.plan.settings.epochs
    committee = run.plan.settings.committee
    studies = [(space, fold) for space in run.spaces for fold in folds]
    linear = [Job(Kind.LINEAR, row, f, seeds[0]) for row in run.task.linears for f in folds]
    baselines = [Job(Kind.BASELINE, row, f, s) for row in baselines_of(run) for s in seeds for f in folds]
    with Workers(workers, console) as pool:
        if run.plan.layer == BEST:
            pool.run(run, [Job(Kind.LAYER, BEST, f, 0) for f in folds], 1, "layers", placement, open=TuneSession)
        console.print(f"tuned: {MODES[mode]}; {trials} trials in each of {len(studies)} studies", highlight=False)
        chains: list[Sequence[Attempt]] = []
        beside = -(-workers // len(studies))  # trials of one study at a time
        for space, fold in studies:
            made = len(study_of(journal, space, fold).get_trials(deepcopy=False, states=FINISHED))
            left = [Attempt(space, fold, ordinal) for ordinal in range(made, trials)]
            chains += [left[i::beside] for i in range(beside)]
        pool.run_chains(run, chains, trials * len(studies), "trials", placement, run_attempt, TuneSession)
        best = {study: best_of(journal, *study).number for study in studies}
        scores = [Job(Kind.TUNED, space, f, seed, best[space, f]) for seed in seeds for space, f in studies]
        pool.run(run, scores, epochs * committee, "trainings", placement, score, TuneSession)
        pool.run(run, linear, 1, "linear rows", placement, open=TuneSession)
        pool.run(run, baselines, epochs * committee, "baselines", placement, open=TuneSession)
    results = tabulate(run, journal, mode)
    write_results(run.folder, results)
    write_text(run.folder / "table.md", markdown(results))
    show(results, console)
    return results


def _place(run: Run, journal: JournalStorage, workers: int, memory: float | None) -> tuple[Placement, str]:
    """As `session.place_features`, for the smallest stride that a trial may draw."""
    strides = [run.plan.settings.stride]
    for space in run.spaces:
        drawn = recorded_ranges(study_of(journal, space, 0))["stride"]
        assert isinstance(drawn, CategoricalDistribution)
        strides += [s for s in drawn.choices if isinstance(s, int)]
    ids = [u.id for u in run.utterances]
    whole, least = sizes(run.store, ids, min(strides), run.plan.settings.batch_size, run.states)
    return place(whole, least, torch.device(run.plan.device), workers, memory)
