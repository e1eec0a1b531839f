"""Jobs are claimed before they are done, so that processes of any host share those of a run; see `bas.util.claims`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from bas.runs.plan import Job
from bas.runs.session import Session
from bas.runs.stacked import run_stack
from bas.util.claims import LostError, claims_on


def result_path(folder: Path, job: Job) -> Path:
    return folder / "jobs" / f"{job.name}.json"


@contextmanager
def claiming(folder: Path, jobs: Sequence[Job]) -> Iterator[tuple[list[Job], list[Job]]]:
    """For the block: the jobs without a result that this process has claimed, and those that others have."""
    mine, others, claims = list[Job](), list[Job](), claims_on(folder)
    with ExitStack() as held:
        for job in jobs:
            if result_path(folder, job).exists():
                continue
            if held.enter_context(claims.taking(job.name)) is None:
                others.append(job)
            elif not result_path(folder, job).exists():  # it may have been done just before the claim was made
                mine.append(job)
        yield mine, others


def do_claimed(folder: Path, work: Callable[[Any, Any], None], session: Any, job: Job) -> bool:
    """Do a job that has no result, unless another process has claimed it. Returns whether it has a result now."""
    with claiming(folder, [job]) as (mine, others):
        try:
            for one in mine:
                work(session, one)
        except LostError:
            return False
    return not others


def stack_claimed(folder: Path, session: Session, jobs: Sequence[Job]) -> None:
    """Train those jobs of a stack together that no other process has claimed; see `stacked.run_stack`."""
    with claiming(folder, jobs) as (mine, _), suppress(LostError):
        if len(mine) > 1:
            run_stack(session, mine)
