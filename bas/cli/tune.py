"""The verb that tunes. Thin."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bas.cli.options import RUNS, add_protocol_arguments, add_run_arguments, asked, tell_next
from bas.errors import UserError

MODES = ("blocks", "search")


def run_tune(arguments: argparse.Namespace, console: Console) -> int:
    from bas.runs.start import split, start
    from bas.studies.tune.study import carry_out
    from bas.util.files import locked

    if arguments.trials < 1:
        raise UserError(f"--trials {arguments.trials}: must be 1 or more")
    inputs, workers = asked(arguments)
    plan, task = inputs.plan, inputs.task.name
    prefix = "tune" if arguments.tune == "blocks" else f"tune-{arguments.tune}"
    suffix = "" if task == "emotion" else f"-{task}"
    name = arguments.name or f"{prefix}-{Path(plan.features).name}-layer{plan.layer}-{arguments.preset}{suffix}"
    folder = RUNS / name
    with locked(folder, "searching or training"):
        protocol = split(inputs, arguments.protocol, arguments.protocol_seed, arguments.allow_overlap)
        run = start(folder, inputs, protocol)
        carry_out(run, arguments.tune, arguments.trials, workers, console, arguments.memory)
    console.print(f"table: {folder}/tune.md, as data: {folder}/tune.json", highlight=False, soft_wrap=True)
    tell_next(console, "make board")
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("tune", "Optuna over blocks and settings, chosen on valid in every fold: a baseline for the search")
    add_run_arguments(p, seeds=3)
    add_protocol_arguments(p)
    p.add_argument("--trials", type=int, default=40, help="in every fold, for every space; default: %(default)s")
    who = "who chooses the blocks: blocks (Optuna, beside the settings) or search (the search in every trial, tuned)"
    p.add_argument("--tune", choices=MODES, default="blocks", help=f"{who}; default: %(default)s")
    p.set_defaults(verb=run_tune)
