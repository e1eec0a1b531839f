"""Runs begun and jobs done as a verb does, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bas.runs.plan import Job, Plan
from bas.runs.run import Inputs, Run
from bas.runs.start import split, start
from bas.runs.workers import Source, Workers
from bas.training.placement import Placement


def begin(folder: Path, plan: Plan, rule: str | None = None, seed: int = 0) -> Run:
    inputs = Inputs.open(plan)
    return start(folder, inputs, split(inputs, rule, seed))


def run_jobs(
    source: Source,
    jobs: Sequence[Job],
    epochs: int,
    workers: int,
    console: Console,
    what: str,
    placement: Placement | None = None,
    stacked: bool | None = None,
    **more: Any,
) -> None:
    with Workers(workers, console, stacked) as pool:
        pool.run(source, jobs, epochs, what, placement, **more)
