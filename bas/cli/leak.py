"""The verb that measures a leak, `bas protocol cost`. Thin."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bas.cli.options import RUNS, add_run_arguments, asked, tell_next


def cost(arguments: argparse.Namespace, console: Console) -> int:
    from bas.studies.leak.study import measure

    inputs, workers = asked(arguments)
    plan, task = inputs.plan, inputs.task.name
    suffix = "" if task == "emotion" else f"-{task}"
    name = arguments.name or f"leak-{Path(plan.features).name}-layer{plan.layer}-{arguments.preset}{suffix}"
    measure(RUNS / name, inputs, arguments.clean, arguments.leaky, workers, console, arguments.memory)
    console.print(f"table: {RUNS / name}/leak.md, as data: {RUNS / name}/leak.json", highlight=False, soft_wrap=True)
    tell_next(console, "make board")
    return 0


def add_cost(kind: Callable[[str, str, Callable[[argparse.Namespace, Console], int]], argparse.ArgumentParser]) -> None:
    """kind: makes the parser of a verb under `protocol` from its name, what it does and what does it."""
    p = kind("cost", "train the same models under a leaky and a clean split: what was the leak worth?", cost)
    add_run_arguments(p, seeds=5)
    p.add_argument("--clean", metavar="RULE", help="default: the task's rule, else the corpus's")
    p.add_argument("--leaky", metavar="RULE", help="default: as many folds, drawn over utterances (id:5)")
