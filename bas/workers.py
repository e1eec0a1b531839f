"""Many small trainings over a few processes: resumable, each on one thread, so their number changes no result."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from rich.console import Console

from bas.progress import bar
from bas.train import Bench, Job, run_job

_bench: Bench | None = None


def run_jobs(folder: Path, jobs: Sequence[Job], workers: int, console: Console, what: str) -> None:
    """Run the jobs that have no result yet, in this order. A failed job ends the rest; finished ones keep theirs."""
    todo = [job for job in jobs if not (folder / "jobs" / f"{job.name}.json").exists()]
    with bar(console, "jobs") as progress:
        task = progress.add_task(what, total=len(jobs), completed=len(jobs) - len(todo))
        if not todo:
            return
        if workers == 1:
            bench = Bench(folder)
            for job in todo:
                run_job(bench, job)
                progress.advance(task)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _open, (folder, os.getpid())) as pool:
            futures = [pool.submit(_work, job) for job in todo]
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.advance(task)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _open(folder: Path, parent: int) -> None:
    global _bench
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _bench = Bench(folder)


def _work(job: Job) -> None:
    assert _bench is not None
    run_job(_bench, job)


def _die_with(parent: int) -> None:
    # A parent that was killed cannot stop its workers: two of them must never write one job.
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
