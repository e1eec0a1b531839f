"""Many small trainings over a few processes: resumable, each on one thread, so their number changes no result."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from rich.console import Console

from bas.progress import bar
from bas.train import Bench, Job, run_job

REFRESH_SECONDS = 0.5

_bench: Bench | None = None


def run_jobs(folder: Path, jobs: Sequence[Job], epochs: int, workers: int, console: Console, what: str) -> None:
    """Run the jobs that have no result yet, in this order. A failed job ends the rest; finished ones keep theirs.

    epochs: of one job, for the progress bar.
    """
    todo = [job for job in jobs if not (folder / "jobs" / f"{job.name}.json").exists()]
    with bar(console, "epochs") as progress:
        task = progress.add_task(what, total=len(jobs) * epochs, completed=(len(jobs) - len(todo)) * epochs)

        def show(finished: int, ticks: int) -> None:
            # A resumed job ticks fewer times than it has epochs: a finished one counts whole.
            known = (len(jobs) - len(todo) + finished) * epochs
            running = ticks - finished * epochs
            progress.update(task, completed=known + max(0, running))

        if not todo:
            return
        if workers == 1:
            count = 0

            def tick() -> None:
                nonlocal count
                count += 1
                show(0, count)

            bench = Bench(folder, tick)
            for finished, job in enumerate(todo, 1):
                run_job(bench, job)
                count = finished * epochs
                show(finished, count)
            return
        context = multiprocessing.get_context("spawn")
        ticks: Synchronized[int] = context.Value("q", 0)
        with ProcessPoolExecutor(workers, context, _open, (folder, os.getpid(), ticks)) as pool:
            waiting: set[Future[None]] = {pool.submit(_work, job) for job in todo}
            try:
                while waiting:
                    done, waiting = wait(waiting, REFRESH_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    show(len(todo) - len(waiting), ticks.value)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _open(folder: Path, parent: int, ticks: Synchronized[int]) -> None:
    global _bench
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()

    def tick() -> None:
        with ticks.get_lock():
            ticks.value += 1

    _bench = Bench(folder, tick)


def _work(job: Job) -> None:
    assert _bench is not None
    run_job(_bench, job)


def _die_with(parent: int) -> None:
    # A parent that was killed cannot stop its workers: two of them must never write one job.
    while os.getppid() == parent:
        time.sleep(REFRESH_SECONDS)
    os._exit(1)
