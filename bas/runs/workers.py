"""Many small trainings, resumable: over processes of one thread each, whose number changes no result, or stacked.

On a GPU, those of one shape train together (`bas.runs.stacked`). A CPU is bound by arithmetic, to which stacking only
adds: there, processes share the jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import c_byte
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bas.errors import UserError
from bas.runs.jobs import run_job
from bas.runs.plan import Job
from bas.runs.session import Bench
from bas.runs.stacked import run_stack, stacks
from bas.training.placement import Placement
from bas.training.stack import NotStackableError
from bas.util.files import read_json
from bas.util.progress import bar

REFRESH_SECONDS = 0.5
STACK = 32  # members that train together at most; half as many wherever the GPU's memory is too small for that

Show = Callable[[int, int], None]
"""Shows the progress: jobs that are finished, epochs that are trained, those of finished jobs among them."""

Open = Callable[[Path, Callable[[], None], Placement | None], Any]
"""Opens a folder to work in: the folder, what to call after every epoch, where the features go."""
Work = Callable[[Any, Job], None]
"""Does one job in what `Open` made, and writes its result."""

_bench: Any = None


def run_jobs(
    folder: Path,
    jobs: Sequence[Job],
    epochs: int,
    workers: int,
    console: Console,
    what: str,
    placement: Placement | None = None,
    stacked: bool | None = None,
    work: Work = run_job,
    opened: Open = Bench,
) -> None:
    """Run the jobs that have no result yet, in this order. A failed job ends the rest; finished ones keep theirs.

    A table before and after says what is done. epochs: of one job, for the progress bar. placement: see `Bench`.
    stacked: with one worker, train jobs of one shape together, shape after shape; None: on a GPU.
    work, opened: functions of a module, so that a worker process finds them. Only `run_job`'s own jobs are stacked.
    """
    todo = [job for job in jobs if not _path(folder, job).exists()]
    if 0 < len(todo) < len(jobs):
        console.print(table_of_done(folder, jobs))
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
            _run_here(folder, todo, epochs, placement, stacked, console, show, work, opened)
        else:
            _run_over(folder, todo, workers, placement, show, work, opened)
    console.print(table_of_done(folder, jobs))


def _path(folder: Path, job: Job) -> Path:
    return folder / "jobs" / f"{job.name}.json"


def table_of_done(folder: Path, jobs: Sequence[Job]) -> Table:
    """By kind and row: how many of the jobs have a result, and the seconds of one, as their results tell them."""
    table = Table("jobs", "row", "done", "of", "s each")
    for kind, row in dict.fromkeys((job.kind, job.row) for job in jobs):
        paths = [_path(folder, job) for job in jobs if (job.kind, job.row) == (kind, row)]
        found = [read_json(path) for path in paths if path.exists()]
        seconds = [result["seconds"] for result in found if "seconds" in result]
        each = f"{sum(seconds) / len(seconds):.1f}" if seconds else "–"
        table.add_row(kind, row, f"{len(found):,}", f"{len(paths):,}", each)
    return table


def _run_here(
    folder: Path,
    todo: Sequence[Job],
    epochs: int,
    placement: Placement | None,
    stacked: bool | None,
    console: Console,
    show: Show,
    work: Work,
    opened: Open,
) -> None:
    finished = count = 0

    def tick() -> None:
        nonlocal count
        count += 1
        show(finished, count)

    bench = opened(folder, tick, placement)
    together = work is run_job and (bench.device.type == "cuda" if stacked is None else stacked)
    queue = deque(stacks(bench, todo, STACK) if together else [[job] for job in todo])
    told = {""}
    while queue:
        jobs = queue.popleft()
        why, smaller = "", False
        if len(jobs) > 1:
            try:
                run_stack(bench, jobs)
            except NotStackableError as error:
                why = f"{jobs[0].row}: trained one by one ({error})"
            except torch.OutOfMemoryError:
                smaller = True  # after this clause, which holds on to the memory
                why = f"{len(jobs)} trainings together do not fit into the GPU's memory: half as many"
        if why not in told:
            told.add(why)
            console.print(why, markup=False)
        if smaller:
            queue = deque(stacks(bench, [*jobs, *(job for left in queue for job in left)], (len(jobs) + 1) // 2))
            count = finished * epochs
            continue
        for job in jobs:
            work(bench, job)  # no more than a look at those that the stack has done
            finished += 1
            count = max(count, finished * epochs)
            show(finished, count)


def _run_over(
    folder: Path,
    todo: Sequence[Job],
    workers: int,
    placement: Placement | None,
    show: Show,
    work: Work,
    opened: Open,
) -> None:
    context = multiprocessing.get_context("spawn")
    ticks: Synchronized[int] = context.Value("q", 0)
    # A bare byte, no Event: setting one waits for its sleepers, and a killed worker never wakes.
    stop = context.RawValue("b", 0)
    arguments = (opened, folder, placement, os.getpid(), stop, ticks)
    with ProcessPoolExecutor(workers, context, _open, arguments) as pool:
        with _deaf_to_interrupts():  # so that a worker, which inherits it, says nothing while it still imports
            waiting: set[Future[None]] = {pool.submit(_work, work, job) for job in todo}
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


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Ctrl-C is not heard for a moment. Nothing but the main thread may ask for that, or hears one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _open(
    opened: Open, folder: Path, placement: Placement | None, parent: int, stop: c_byte, ticks: Synchronized[int]
) -> None:
    global _bench
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and stops its workers
    threading.Thread(target=_die_with, args=(parent, stop), daemon=True).start()

    def tick() -> None:
        with ticks.get_lock():
            ticks.value += 1

    _bench = opened(folder, tick, placement)


def _work(work: Work, job: Job) -> None:
    assert _bench is not None
    work(_bench, job)


def _die_with(parent: int, stop: c_byte) -> None:
    # A parent that was killed cannot stop its workers, and they must not go on beside those of its successor.
    while os.getppid() == parent and not stop.value:
        time.sleep(REFRESH_SECONDS)
    os._exit(1)
