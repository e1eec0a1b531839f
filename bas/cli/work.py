"""The verb on a run that is begun: do its jobs, beside whoever else does."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console

from bas import api
from bas.cli.options import path, positive, tell_next

WORK = "do the jobs of a run that is begun, on any host that sees its folder, beside all others who do"


def work(arguments: argparse.Namespace, console: Console) -> int:
    from bas.experiment import FILE
    from bas.runs.choose import STUDY
    from bas.runs.run import OTHER
    from bas.util.files import read_record

    of = arguments
    folder = api.work(of.run, part=of.part, workers=of.workers, memory=of.memory, console=console)
    tell_next(console, [read_record(folder / STUDY, OTHER)["verb"], str(folder / FILE)])
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("work", WORK)
    p.add_argument("run", type=path, metavar="RUN", help="the folder that --prepare, or the verb itself, has begun")
    part = "the i-th of N fixed shares, i from 0, and nothing else; default: whatever nobody else does, to the end"
    p.add_argument("--part", metavar="i/N", help=part)
    p.add_argument("--workers", type=positive, metavar="N", help="processes of one thread each; default: one a core")
    memory = "that features may take in all processes; default: half of what is free"
    p.add_argument("--memory", type=_gib, metavar="GIB", help=memory)
    p.set_defaults(verb=work)


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number above 0")
    return value
