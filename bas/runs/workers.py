"""Many small resumable trainings: in single-threaded processes, whose number changes no result, or stacked.

A verb has one `Workers`: its processes start with the first job and stay until the last, and each keeps what it opened.
On a GPU that one process has, narrow trainings of one shape train together (`bas.runs.stacked`); several processes
share a GPU as they share the cores, whatever they train. On a CPU, arithmetic is the limit, and stacking would only add
to it.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from ctypes import c_byte
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch
from rich.console import Console
from rich.table import Table

from bas.errors import EndedError, UserError, first_line
from bas.runs.claimed import do_claimed, result_path, stack_claimed
from bas.runs.jobs import run_job
from bas.runs.plan import Job
from bas.runs.run import AGAIN
from bas.runs.session import Session
from bas.runs.stacked import stacks
from bas.runs.worker import REFRESH_SECONDS, begin, carry_out, in_one_thread
from bas.training.placement import Placement
from bas.training.stack import NotStackableError
from bas.util.claims import HEART, claims_on
from bas.util.files import read_record
from bas.util.part import Part
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

Work = Callable[[Any, Any], Any]
"""Does one job in a session and writes its result. A function at module level, so that a process can import it. What it
returns is nothing to anyone, unless it is False: another process has the job."""


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

    stacked: with one worker, train jobs of one shape together, shape after shape; None: narrow ones on a GPU. part: of
    the jobs of each `run`, do these alone; None: all.
    """

    def __init__(self, count: int, console: Console, stacked: bool | None = None, part: Part | None = None) -> None:
        self.count, self.console, self.stacked, self.part = count, console, stacked, part
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
        shared: bool = False,
    ) -> None:
        """Run the jobs that have no result yet, in this order; those that another process has claimed, also of another
        host, are its own, unless it dies. A failed job ends the rest; finished jobs keep results.

        A table before and after shows what is done. epochs: of one job, for the progress bar. placement, open: of the
        session of the jobs, which stays open for further jobs in the same place. shared: every part needs their
        results, and does all of them that nobody else does.
        """
        folder = source.folder
        jobs = jobs if shared or self.part is None else self.part.of(jobs)
        todo = [job for job in jobs if not result_path(folder, job).exists()]
        if 0 < len(todo) < len(jobs):
            self.console.print(table_of_done(folder, jobs))
        claimed = partial(do_claimed, folder, work)
        self._do(source, Place(folder, open, placement), [[job] for job in todo], claimed, what, len(jobs), epochs)
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
                pieces = [piece for chain in chains for piece in chain]
                # Jobs may be stacked, not the pieces of chains, which wait for one another.
                (self._run_pieces if epochs is None else self._run_jobs)(source, place, pieces, work, each, show)
            else:
                self._run_over(place, chains, work, show)

    def _run_pieces(
        self,
        source: Source,
        place: Place,
        pieces: Sequence[Any],
        work: Work,
        epochs: int,
        show: Callable[[int, int], None],
    ) -> None:
        session = self._session(source, place)
        for finished, piece in enumerate(pieces, 1):
            in_one_thread(work, session, piece)
            show(finished, 0)

    def _run_jobs(
        self,
        source: Source,
        place: Place,
        jobs: Sequence[Job],
        work: Work,
        epochs: int,
        show: Callable[[int, int], None],
    ) -> None:
        self._ticks_here, total = 0, len(jobs)
        left = held = 0  # jobs without a result, and of these what other processes have
        self._show = lambda: show(total - left, self._ticks_here)
        session = self._session(source, place)
        size = 1  # several runs as one have no stacks
        if isinstance(session, Session):
            usual = session.device.type == "cuda" and session.narrow
            size = STACK if (usual if self.stacked is None else self.stacked) else 1
        printed, waiting = {""}, Waiting(self.console, place.folder)
        while todo := [job for job in jobs if not result_path(place.folder, job).exists()]:
            left, held = len(todo), 0
            for stack in stacks(session, todo, size) if size > 1 else [[job] for job in todo]:
                message, smaller = "", False
                if len(stack) > 1:
                    try:
                        in_one_thread(partial(stack_claimed, place.folder), session, stack)
                    except NotStackableError as error:
                        message = f"{stack[0].row}: trained one by one ({error})"
                    except torch.OutOfMemoryError:
                        smaller = True  # act after this clause, which keeps the memory alive
                        message = f"{len(stack)} trainings together do not fit into the GPU's memory: half as many"
                if message not in printed:
                    printed.add(message)
                    self.console.print(message, markup=False)
                if smaller:
                    size = (len(stack) + 1) // 2
                    break
                for job in stack:
                    done = in_one_thread(work, session, job)
                    left, held = left - done, held + (not done)
                    self._ticks_here = max(self._ticks_here, (total - left) * epochs)
                    self._show()
            else:
                if held:
                    waiting.wait(todo)

    def _session(self, source: Source, place: Place) -> Any:
        """The session of this place: the open one, or a new one after the old one is freed."""
        if self._here is None or self._here[0] != place:
            self._here = None
            self._here = place, place.open(source, self._tick, place.placement)
        return self._here[1]

    def _tick(self) -> None:
        HEART.check()
        self._ticks_here += 1
        self._show()

    def _run_over(
        self, place: Place, chains: Sequence[Sequence[Any]], work: Work, show: Callable[[int, int], None]
    ) -> None:
        self._crew = self._crew or _Crew.start(self.count)
        pool, ticks, finished = self._crew.pool, self._crew.ticks.get_obj(), 0
        before = ticks.value
        running: dict[Future[bool], tuple[Any, Iterator[Any]]] = {}
        held: list[tuple[Any, Iterator[Any]]] = []  # what other processes have
        waiting = Waiting(self.console, place.folder)

        def submit(piece: Any, chain: Iterator[Any]) -> None:
            with _hide_main():
                running[pool.submit(carry_out, pickle.dumps((place, work, piece)))] = piece, chain

        with _ignore_interrupts():  # workers inherit this, so Ctrl-C prints no traceback while they still import
            for chain in map(iter, chains):
                submit(next(chain), chain)
        processes = multiprocessing.active_children()
        try:
            while running or held:
                if held and len(running) < self.count:
                    waiting.wait([piece for piece, _ in held])
                    for one in held:
                        submit(*one)
                    held.clear()
                done, _ = wait(running, REFRESH_SECONDS, FIRST_COMPLETED)
                for future in done:
                    piece, chain = running.pop(future)
                    if future.result():
                        finished += 1
                        for following in chain:
                            submit(following, chain)
                            break
                    else:
                        held.append((piece, chain))
                show(finished, ticks.value - before)
        except BrokenProcessPool as error:
            raise EndedError(f"{place.folder}: {_why_broken(processes)}; {AFTER}") from error


class Waiting:
    """The wait for jobs that other processes have; said once."""

    def __init__(self, console: Console, folder: Path) -> None:
        self.console, self.folder = console, folder
        self.said = False

    def wait(self, jobs: Sequence[Job]) -> None:
        """Wait a moment."""
        if not self.said:
            self.said = True
            of = [(job.name, owner) for job in jobs if (owner := claims_on(self.folder).owner(job.name))]
            for name, owner in of[:1]:
                self.console.print(f"waiting for what other processes have, such as {name}: {owner}", highlight=False)
        time.sleep(REFRESH_SECONDS)


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
        paths = [result_path(folder, job) for job in jobs if (job.kind, job.row) == (kind, row)]
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
