"""Small runs whose rows are committees or come of races: begun, killed, and compared but for their times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from places import ROOT
from stacking import new_run

from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session

SEARCH, RETRAIN = (Job(kind, "ser_wide", 0, 0) for kind in (Kind.SEARCH, Kind.RETRAIN))


class KilledError(Exception):
    pass


def started(folder: Path, features: Path, **changes: str) -> Run:
    given = {"strategy": "race", "budget": "12", "committee": "3", "epochs": "2", "width": "8", **changes}
    return new_run(folder, features, ROOT / "search_spaces" / "ser_wide.py", **given)


def ticking(run: Run, job: Job, kill: int | None = None) -> int:
    """Do a job; the epochs that it trained. kill: the epoch after which it is killed."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == kill:
            raise KilledError

    run_job(Session(run, tick), job)
    return ticks


def left(run: Run) -> list[str]:
    """The names of the checkpoints in a run."""
    return sorted(path.name for path in (run.folder / "jobs").glob("*.checkpoint"))


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_time(v) for k, v in value.items() if k not in ("seconds", "sha256")}
    return list(map(without_time, value)) if isinstance(value, list) else value
