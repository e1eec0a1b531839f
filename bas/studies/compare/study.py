"""Search, retrain, compare: which jobs a verb needs, in which order."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bas.report import board, closely, paper, webpage
from bas.report.answer import answer
from bas.report.comparison import jobs_of, tabulate
from bas.report.comparison_page import markdown, show
from bas.report.notes import announce
from bas.report.results import Comparison, write_results
from bas.runs.jobs import drop_checkpoints, search_job
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import TrainingResult, read_result, search_of
from bas.runs.run import Run
from bas.runs.session import place_features
from bas.runs.workers import Workers
from bas.search.search import epochs_of
from bas.studies.compare.page import show_choices
from bas.training.placement import Placement
from bas.training.settings import RACES
from bas.util.files import write_text


def compare(run: Run, workers: int, console: Console, memory: float | None = None) -> Comparison:
    """Search, retrain, train the baselines; the table with its statistics, written and shown. What is done stays.

    memory: GiB that features may take in all processes together; None: half of what is free. It changes no number.
    The caller holds the folder's lock. Raises UserError where the memory is too little.
    """
    with Workers(workers, console) as pool:
        train(run, "compare", pool, memory)
    return conclude(run, console)


def conclude(run: Run, console: Console) -> Comparison:
    """The table with its statistics, written and shown. All jobs must be done."""
    results = tabulate(run)
    write_results(run.folder, results)
    write_text(run.folder / "table.md", markdown(results))
    paper.write(run.folder, results)
    jobs = jobs_of(run)
    closely.write(run, jobs, answer(results).row)
    webpage.write(run, results, jobs)
    board.write(run, results, jobs, answer(results).row)
    show(results, console)
    return results


def train(run: Run, verb: str, pool: Workers, memory: float | None) -> None:
    """Do the jobs of search, retrain or compare that are missing, or the pool's part of them; each includes those of
    the verb before. Every job is of one fold and seed. memory: see `compare`.

    Any number of processes may do so at a time, on any hosts: each job is claimed. Needs no lock.
    """
    placement = _search(run, pool, memory)
    if verb == "search":
        return
    _retrain(run, pool, placement)
    if verb == "retrain":
        return
    plan, folds = run.plan, range(len(run.protocol.folds))
    linear = [Job(Kind.LINEAR, row, f, plan.seeds[0]) for row in run.task.linears for f in folds]
    baselines = [Job(Kind.BASELINE, row, f, s) for row in run.baselines for s in plan.seeds for f in folds]
    pool.run(run, linear, 1, "linear rows", placement)
    pool.run(run, baselines, plan.settings.row_epochs, "baselines", placement)


def expected(run: Run, verb: str) -> list[Path]:
    """The results of a verb's jobs."""
    kinds = [Kind.SEARCH] if verb == "search" else [Kind.SEARCH, Kind.RETRAIN]
    rows = [(kind, name) for kind in kinds for name in run.spaces]
    rows += [(Kind.BASELINE, row) for row in run.baselines] if verb == "compare" else []
    once = [(Kind.LINEAR, row) for row in run.task.linears] if verb == "compare" else []
    jobs = [Job(Kind.LAYER, BEST, f, 0) for f in range(len(run.protocol.folds)) if run.plan.layer == BEST]
    for fold in range(len(run.protocol.folds)):
        jobs += [Job(kind, row, fold, seed) for kind, row in rows for seed in run.plan.seeds]
        jobs += [Job(kind, row, fold, run.plan.seeds[0]) for kind, row in once]
    return [run.job_path(job.name) for job in jobs]


def _search(run: Run, pool: Workers, memory: float | None) -> Placement:
    """Choose layers where the plan asks for it, and search; where the features lie, for the jobs that follow."""
    announce(run, pool.count, pool.console)
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(line)
    plan, folds = run.plan, range(len(run.protocol.folds))
    jobs = [Job(Kind.SEARCH, name, f, s) for name in run.spaces for s in plan.seeds for f in folds]
    longest = max(epochs_of(plan.settings, file.space) for file in run.spaces.values())
    if plan.settings.strategy in RACES:
        budget = plan.settings.budget
        line = f"at most {budget} trainings in each of {len(jobs)} searches, {budget * len(jobs):,} in all"
        pool.console.print(f"{plan.settings.strategy}: {line} (setting budget)", highlight=False)
    if plan.layer == BEST:
        pool.run(run, [Job(Kind.LAYER, BEST, f, 0) for f in folds], 1, "layers", placement, shared=True)
    pool.run(run, jobs, longest, "searches", placement)
    if pool.part is None:
        show_choices(run, pool.console)
    return placement


def _retrain(run: Run, pool: Workers, placement: Placement) -> None:
    plan, folds = run.plan, range(len(run.protocol.folds))
    jobs = [Job(Kind.RETRAIN, name, f, s) for name in run.spaces for s in plan.seeds for f in folds]
    mine = jobs if pool.part is None else pool.part.of(jobs)
    for job in mine:
        chosen = search_of(run, job.row, job.fold, job.seed)
        done = read_result(run, job, TrainingResult) if run.done(job.name) else None
        if done and (done.architecture, done.members) != (chosen.architecture, chosen.members):
            run.job_path(job.name).unlink(missing_ok=True)  # of a search that was done again since, and chose otherwise
            pool.console.print(f"{job.name}: its search was done again and chose other blocks: trained again")
    pool.run(run, jobs, plan.settings.row_epochs, "retrains", placement)
    for job in mine:
        drop_checkpoints(run, search_job(job))  # of a search that was done again, while its row stayed
