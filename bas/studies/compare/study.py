"""Search, retrain, compare: which jobs a verb needs, in which order."""

from __future__ import annotations

from rich.console import Console

from bas.report.comparison import tabulate
from bas.report.comparison_page import board, markdown, show
from bas.report.notes import announce
from bas.report.results import write_results
from bas.runs.plan import BEST, Job, Kind
from bas.runs.run import Run
from bas.runs.session import place_features
from bas.runs.workers import Workers
from bas.search.search import epochs_of
from bas.studies.compare.page import show_choices, show_retrained
from bas.util.files import write_text


def carry_out(run: Run, verb: str, workers: int, console: Console, memory: float | None = None) -> None:
    """Do what is not done yet for a verb: search, retrain the chosen architectures, compare with the baselines.

    Each verb includes the one before. Every job is of one fold and seed. The caller holds the folder's lock.

    memory: GiB that features may take in all processes together; None: half of what is free. It changes no number.
    Raises UserError when that is too little.
    """
    announce(run, workers, console)
    placement, line = place_features(run, workers, memory)
    console.print(line)
    plan, folds = run.plan, range(len(run.protocol.folds))
    pairs = [(f, s) for s in plan.seeds for f in folds]
    searches = [Job(Kind.SEARCH, name, f, s) for name in run.spaces for f, s in pairs]
    retrains = [Job(Kind.RETRAIN, name, f, s) for name in run.spaces for f, s in pairs]
    baselines = [Job(Kind.BASELINE, row, f, s) for row in run.baselines for f, s in pairs]
    linear = [Job(Kind.LINEAR, row, f, plan.seeds[0]) for row in run.task.linears for f in folds]
    epochs = plan.settings.epochs
    longest = max(epochs_of(plan.settings, file.space) for file in run.spaces.values())
    with Workers(workers, console) as pool:
        if plan.layer == BEST:
            pool.run(run, [Job(Kind.LAYER, BEST, f, 0) for f in folds], 1, "layers", placement)
        pool.run(run, searches, longest, "searches", placement)
        show_choices(run, console)
        if verb == "search":
            return
        pool.run(run, retrains, epochs, "retrains", placement)
        if verb == "retrain":
            show_retrained(run, console)
            return
        pool.run(run, linear, 1, "linear rows", placement)
        pool.run(run, baselines, epochs, "baselines", placement)
    results = tabulate(run)
    write_results(run.folder, results)
    write_text(run.folder / "table.md", markdown(results))
    board(run.folder, results)
    show(results, console)
