"""Many small resumable trainings: in single-threaded processes, whose number changes no result, or stacked.

A verb has one `Workers`: its processes start with the first job and stay until the last, and each keeps what it opened.
On a GPU, trainings of one shape train together (`bas.runs.stacked`). On a CPU, processes share the jobs: arithmetic is
the limit there, and stacking would only add to it.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import c_byte
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.table import Table

from bas.errors import UserError, first_line
from bas.runs.jobs import run_job
from bas.runs.plan import Job
from bas.runs.run import AGAIN
from bas.runs.session import Session
from bas.runs.stacked import run_stack, stacks
from bas.runs.worker import REFRESH_SECONDS, begin, carry_out, in_one_thread
from bas.training.placement import Placement
from bas.training.stack import NotStackableError
from bas.util.files import read_record
from bas.util.progress import bar

AFTER = "the same command goes on from here"
EXIT_SECONDS = 10.0  # at most, until all workers of a broken pool have exit codes
STACK = 32  # the most members that train together; halved as often as the GPU's memory is too small


class Source(Protocol):
    """What jobs work on, open in the parent: a run, or several as one. A worker process opens its folder again."""

    @property
    def folder(self) -> Path: ...


Open = Callable[[Any, Callable[[], None], Placement | None], Any]
"""Opens a session. Takes a source or its folder, a function to call after every epoch, and the features' placement."""

Work = Callable[[Any, Any], None]
"""Does one job in a session and writes its result. A function at module level, so that a process can import it."""


@dataclass(frozen=True)
class Place:
    """Where jobs are done: everything that the contents of a session depend on."""

    folder: Path
    open: Open
    placement: Placement | None


@dataclass(frozen=True)
class _Crew:
    """The processes of a `Workers`, and the memory that they share with it."""

    pool: ProcessPoolExecutor
    ticks: Synchronized[int]
    stop: c_byte

    @classmethod
    def start(cls, count: int) -> _Crew:
        """Raises UserError where the system has no shared memory for them."""
        context = multiprocessing.get_context("spawn")
        try:
            ticks: Synchronized[int] = context.Value("q", 0)
            # A bare byte instead of an Event: setting an Event waits for its sleepers, and a killed worker never wakes.
            stop = context.RawValue("b", 0)
            pool = ProcessPoolExecutor(count, context, begin, (os.getpid(), stop, ticks))
        except (OSError, ImportError) as error:  # ImportError: Python was built without semaphores
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            reason = getattr(error, "strerror", None) or first_line(error)
            message = f"processes share it and cannot ({reason}); mount or free it, or give --workers 1"
            raise UserError(f"/dev/shm: {message}") from error
        return cls(pool, ticks, stop)


class Workers:
    """The processes of one verb; with one worker, this process.

    stacked: with one worker, train jobs of one shape together, shape after shape; None: on a GPU.
    """

    def __init__(self, count: int, console: Console, stacked: bool | None = None) -> None:
        self.count, self.console, self.stacked = count, console, stacked
        self._here: tuple[Place, Any] | None = None
        self._ticks_here = 0
        self._show: Callable[[], None] = lambda: None
        self._crew: _Crew | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._here = None
        if self._crew:
            self._crew.stop.value = kind is not None  # after an error, running jobs end too; their checkpoints stay
            self._crew.pool.shutdown(cancel_futures=True)
            self._crew = None

    def run(
        self,
        source: Source,
        jobs: Sequence[Job],
        epochs: int,
        what: str,
        placement: Placement | None = None,
        work: Work = run_job,
        open: Open = Session,
    ) -> None:
        """Run the jobs that have no result yet, in this order. A failed job ends the rest; finished jobs keep results.

        A table before and after shows what is done. epochs: of one job, for the progress bar. placement, open: of the
        session of the jobs, which stays open for further jobs in the same place.
        """
        folder = source.folder
        todo = [job for job in jobs if not _path(folder, job).exists()]
        if 0 < len(todo) < len(jobs):
            self.console.print(table_of_done(folder, jobs))
        self._do(source, Place(folder, open, placement), [[job] for job in todo], work, what, len(jobs), epochs)
        if todo:
            self.console.print(table_of_done(folder, jobs))

    def run_chains(
        self,
        source: Source,
        chains: Sequence[Sequence[Any]],
        total: int,
        what: str,
        placement: Placement,
        work: Work,
        open: Open,
    ) -> None:
        """Do pieces of work other than jobs: one after another within a chain, chains in parallel.

        total: the number of all pieces, including those done before.
        """
        self._do(source, Place(source.folder, open, placement), chains, work, what, total, None)

    def _do(
        self,
        source: Source,
        place: Place,
        chains: Sequence[Sequence[Any]],
        work: Work,
        what: str,
        total: int,
        epochs: int | None,
    ) -> None:
        """Do the chains. epochs: of one piece, for a bar that counts epochs; None: it counts pieces."""
        todo = sum(map(len, chains))
        with bar(self.console, "epochs" if epochs else what) as progress:
            each, before = epochs or 1, total - todo
            task = progress.add_task(what, total=total * each, completed=before * each)

            def show(finished: int, ticks: int) -> None:
                # A resumed job ticks fewer times than it has epochs, so a finished job counts all its epochs.
                running = max(0, ticks - finished * each) if epochs else 0
                progress.update(task, completed=(before + finished) * each + running)

            if not todo:
                return
            if self.count == 1:
                stackable = epochs is not None  # jobs, not the pieces of chains, which wait for one another
                pieces = [piece for chain in chains for piece in chain]
                self._run_here(source, place, pieces, work, each, stackable, show)
            else:
                self._run_over(place, chains, work, show)

    def _run_here(
        self,
        source: Source,
        place: Place,
        pieces: Sequence[Any],
        work: Work,
        epochs: int,
        stackable: bool,
        show: Callable[[int, int], None],
    ) -> None:
        finished = self._ticks_here = 0
        self._show = lambda: show(finished, self._ticks_here)
        session = self._session(source, place)
        stacked = self.stacked if self.stacked is not None else session.device.type == "cuda"
        if stackable and stacked and isinstance(session, Session):  # several runs as one have no stacks
            queue = deque(stacks(session, pieces, STACK))
        else:
            queue = deque([piece] for piece in pieces)
        printed = {""}
        while queue:
            stack = queue.popleft()
            message, smaller = "", False
            if len(stack) > 1:
                try:
                    in_one_thread(run_stack, session, stack)
                except NotStackableError as error:
                    message = f"{stack[0].row}: trained one by one ({error})"
                except torch.OutOfMemoryError:
                    smaller = True  # act after this clause, which keeps the memory alive
                    message = f"{len(stack)} trainings together do not fit into the GPU's memory: half as many"
            if message not in printed:
                printed.add(message)
                self.console.print(message, markup=False)
            if smaller:
                left = [*stack, *(job for later in queue for job in later)]
                queue = deque(stacks(session, left, (len(stack) + 1) // 2))
                self._ticks_here = finished * epochs
                continue
            for piece in stack:
                if not (len(stack) > 1 and _path(place.folder, piece).exists()):  # the stack has done it
                    in_one_thread(work, session, piece)
                finished += 1
                self._ticks_here = max(self._ticks_here, finished * epochs)
                self._show()

    def _session(self, source: Source, place: Place) -> Any:
        """The session of this place: the open one, or a new one after the old one is freed."""
        if self._here is None or self._here[0] != place:
            self._here = None
            self._here = place, place.open(source, self._tick, place.placement)
        return self._here[1]

    def _tick(self) -> None:
        self._ticks_here += 1
        self._show()

    def _run_over(
        self, place: Place, chains: Sequence[Sequence[Any]], work: Work, show: Callable[[int, int], None]
    ) -> None:
        self._crew = self._crew or _Crew.start(self.count)
        pool, ticks, finished = self._crew.pool, self._crew.ticks.get_obj(), 0
        before = ticks.value
        running: dict[Future[None], Iterator[Any]] = {}

        def submit(chain: Iterator[Any]) -> None:
            for piece in chain:
                with _hide_main():
                    running[pool.submit(carry_out, pickle.dumps((place, work, piece)))] = chain
                return

        with _ignore_interrupts():  # workers inherit this, so Ctrl-C prints no traceback while they still import
            for chain in chains:
                submit(iter(chain))
        processes = multiprocessing.active_children()
        try:
            while running:
                done, _ = wait(running, REFRESH_SECONDS, FIRST_COMPLETED)
                for future in done:
                    future.result()
                    finished += 1
                    submit(running.pop(future))
                show(finished, ticks.value - before)
        except BrokenProcessPool as error:
            raise UserError(f"{place.folder}: {_why_broken(processes)}; {AFTER}") from error


def _path(folder: Path, job: Job) -> Path:
    return folder / "jobs" / f"{job.name}.json"


def _why_broken(processes: Sequence[BaseProcess]) -> str:
    """What ended a worker, from the exit codes. The pool itself ends the others by SIGTERM."""
    end = time.monotonic() + EXIT_SECONDS
    # Not `join`: the pool's own thread joins them too, and who comes second is told nothing and returns at once.
    while any(process.exitcode is None for process in processes) and time.monotonic() < end:
        time.sleep(0.01)
    codes = [process.exitcode for process in processes if process.exitcode not in (None, 0, -signal.SIGTERM)]
    if not codes:
        return "a worker was ended (SIGTERM)"
    code = codes[0] or 0
    if code == -signal.SIGKILL:
        reason = "as the system does where memory is short: use fewer --workers, or allow more memory"
        return f"a worker was killed (SIGKILL), {reason}"
    if code == -signal.SIGBUS:
        reason = "a file that it read was cut off, or its disk failed: see `bas features verify`"
        return f"a worker ended by SIGBUS: {reason}"
    return f"a worker ended by {signal.Signals(-code).name}" if code < 0 else f"a worker ended with exit code {code}"


def table_of_done(folder: Path, jobs: Iterable[Job]) -> Table:
    """The number of jobs with a result by kind and row, and the mean seconds of one, from their results."""
    jobs = list(jobs)
    table = Table("jobs", "row", "done", "of", "s each")
    for kind, row in dict.fromkeys((job.kind, job.row) for job in jobs):
        paths = [_path(folder, job) for job in jobs if (job.kind, job.row) == (kind, row)]
        results = [read_record(path, AGAIN) for path in paths if path.exists()]
        seconds = [result["seconds"] for result in results if "seconds" in result]
        each = f"{sum(seconds) / len(seconds):.1f}" if seconds else "–"
        table.add_row(kind, row, f"{len(results):,}", f"{len(paths):,}", each)
    return table


@contextmanager
def _ignore_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C in the block. Only the main thread can set this; in any other thread it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def _hide_main() -> Iterator[None]:
    """Start processes in the block that do not import the user's script again: they need `bas` alone.

    A script that calls `bas.compare` without `if __name__ == "__main__"` would begin once more in each of them.
    """
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__spec__", "__file__") if hasattr(main, name)}
    for name in hidden:
        setattr(main, name, None)  # where `multiprocessing.spawn` looks
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)
