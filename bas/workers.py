"""Many small trainings over a few processes: resumable, each on one thread, so their number changes no result."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_byte
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from rich.console import Console

from bas.errors import UserError
from bas.placement import Placement
from bas.progress import bar
from bas.train import Bench, Job, run_job

REFRESH_SECONDS = 0.5

_bench: Bench | None = None


def run_jobs(
    folder: Path,
    jobs: Sequence[Job],
    epochs: int,
    workers: int,
    console: Console,
    what: str,
    placement: Placement | None = None,
) -> None:
    """Run the jobs that have no result yet, in this order. A failed job ends the rest; finished ones keep theirs.

    epochs: of one job, for the progress bar. placement: see `Bench`.
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

            bench = Bench(folder, tick, placement)
            for finished, job in enumerate(todo, 1):
                run_job(bench, job)
                count = finished * epochs
                show(finished, count)
            return
        context = multiprocessing.get_context("spawn")
        ticks: Synchronized[int] = context.Value("q", 0)
        # A bare byte, no Event: setting one waits for its sleepers, and a killed worker never wakes.
        stop = context.RawValue("b", 0)
        arguments = (folder, placement, os.getpid(), stop, ticks)
        with ProcessPoolExecutor(workers, context, _open, arguments) as pool:
            waiting: set[Future[None]] = {pool.submit(_work, job) for job in todo}
            try:
                while waiting:
                    done, waiting = wait(waiting, REFRESH_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    show(len(todo) - len(waiting), ticks.get_obj().value)
            except BaseException as error:
                stop.value = 1  # the running jobs end too: their checkpoints stay
                pool.shutdown(cancel_futures=True)
                if isinstance(error, BrokenProcessPool):
                    told = "a worker was killed; if memory is short, use fewer --workers"
                    raise UserError(f"{folder}: {told}") from error
                raise


def _open(folder: Path, placement: Placement | None, parent: int, stop: c_byte, ticks: Synchronized[int]) -> None:
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and stops its workers
    threading.Thread(target=_die_with, args=(parent, stop), daemon=True).start()

    def tick() -> None:
        with ticks.get_lock():
            ticks.value += 1

    _bench = Bench(folder, tick, placement)


def _work(job: Job) -> None:
    assert _bench is not None
    run_job(_bench, job)


def _die_with(parent: int, stop: c_byte) -> None:
    # A parent that was killed cannot stop its workers, and they must not go on beside those of its successor.
    while os.getppid() == parent and not stop.value:
        time.sleep(REFRESH_SECONDS)
    os._exit(1)
