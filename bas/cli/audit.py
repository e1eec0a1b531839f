"""The verb that audits a search. Thin."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bas.cli.options import RUNS, add_protocol_arguments, add_run_arguments, asked, tell_next


def run_audit(arguments: argparse.Namespace, console: Console) -> int:
    from bas.runs.start import split
    from bas.studies.audit.study import measure

    inputs, workers = asked(arguments)
    plan, task = inputs.plan, inputs.task.name
    suffix = "" if task == "emotion" else f"-{task}"
    name = arguments.name or f"audit-{Path(plan.features).name}-layer{plan.layer}-{arguments.preset}{suffix}"
    protocol = split(inputs, arguments.protocol, arguments.protocol_seed, arguments.allow_overlap)
    measure(RUNS / name, inputs, protocol, arguments.strategy, arguments.variant, workers, console, arguments.memory)
    console.print(f"report: {RUNS / name}/audit.md, as data: {RUNS / name}/audit.json", highlight=False, soft_wrap=True)
    for space in plan.spaces:
        told = f"every architecture, fold and seed: {RUNS / name}/{Path(space).stem}.parquet and .csv"
        console.print(told, highlight=False, soft_wrap=True)
    tell_next(console, "make board")
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("audit", "train every architecture of a space: did the search work, and did the choice matter?")
    add_run_arguments(p, seeds=4, spaces=("ser_bas3",))
    add_protocol_arguments(p)
    told = "a strategy to audit, with settings of its own, such as gumbel or gumbel+warmup=5; repeatable; default: all"
    p.add_argument("--strategy", action="append", metavar="SPEC", help=told)
    told = (
        "other settings under which every architecture is trained again, such as residual=every, or none; repeatable; "
    )
    told += "default: residual=every, and the other optimiser"
    p.add_argument("--variant", action="append", metavar="SPEC", help=told)
    p.set_defaults(verb=run_audit)
