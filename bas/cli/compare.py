"""The verbs that search and train: search, retrain, compare. Thin."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bas.cli.options import RUNS, add_protocol_arguments, add_run_arguments, asked, tell_next


def run_verb(arguments: argparse.Namespace, console: Console) -> int:
    from bas.runs.start import split, start
    from bas.studies.compare.study import carry_out
    from bas.util.files import locked

    inputs, workers = asked(arguments)
    plan, task = inputs.plan, inputs.task.name
    suffix = "" if task == "emotion" else f"-{task}"
    name = arguments.name or f"{Path(plan.features).name}-layer{plan.layer}-{arguments.preset}{suffix}"
    folder = RUNS / name
    with locked(folder, "searching or training"):
        protocol = split(inputs, arguments.protocol, arguments.protocol_seed, arguments.allow_overlap)
        run = start(folder, inputs, protocol)
        carry_out(run, arguments.command, workers, console, arguments.memory)
    following = {"search": "retrain", "retrain": "compare"}.get(arguments.command)
    if following:
        program = sys.argv[0] if Path(sys.argv[0]).name == "bas" else "bas"
        tell_next(console, shlex.join([program, following, *arguments.words[1:]]))
    else:
        console.print(f"table: {folder}/table.md, as data: {folder}/results.json", highlight=False, soft_wrap=True)
        tell_next(console, "make board")
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    told = {
        "search": "search each space in every fold; print the chosen blocks",
        "retrain": "search, then train what was found from scratch and score it",
        "compare": "search, retrain, train the baselines; the table with its statistics",
    }
    for verb, text in told.items():
        p = add(verb, text)
        add_run_arguments(p, seeds=3)
        add_protocol_arguments(p)
        p.set_defaults(verb=run_verb)
