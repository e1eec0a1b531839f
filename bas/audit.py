"""Every architecture of a space, trained alone: what a search should have found, and whether it mattered."""

from __future__ import annotations

from rich.console import Console

from bas.run import BEST, Run
from bas.train import BASELINES, LINEAR, Job, place_features
from bas.workers import run_jobs


def carry_out(run: Run, workers: int, console: Console, memory: float | None = None) -> None:
    """Train every architecture of every space in every fold with every seed. The caller holds the folder's lock."""
    placement, told = place_features(run, workers, memory)
    console.print(told)
    plan, folds = run.plan, range(len(run.protocol.folds))
    if plan.layer == BEST:
        run_jobs(run.folder, [Job("layer", BEST, f, 0) for f in folds], 1, workers, console, "layers", placement)
    epochs = plan.settings.epochs
    alone = [
        Job("alone", name, f, s, number)
        for s in plan.seeds
        for f in folds
        for name, file in run.spaces.items()
        for number in range(file.space.size)
    ]
    run_jobs(run.folder, alone, epochs, workers, console, "architectures", placement)
    linear = [Job("linear", LINEAR, f, plan.seeds[0]) for f in folds]
    baselines = [Job("baseline", row, f, s) for row in BASELINES for s in plan.seeds for f in folds]
    run_jobs(run.folder, linear, 1, workers, console, LINEAR, placement)
    run_jobs(run.folder, baselines, epochs, workers, console, "baselines", placement)
