"""The works of a tuning, trials and trainings, over processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_byte
from pathlib import Path

import torch
from optuna.storages import JournalStorage
from rich.console import Console
from threadpoolctl import threadpool_limits

from bas.errors import UserError
from bas.runs.plan import Job
from bas.runs.session import Bench
from bas.runs.workers import REFRESH_SECONDS
from bas.studies.tune.trials import Attempt, attempt, open_journal, score
from bas.training.placement import Placement
from bas.util.progress import bar

Work = Attempt | Job
"""A trial to make, or the training that a study's best one is scored by."""

_desk: tuple[Bench, JournalStorage] | None = None


def side_by_side(
    folder: Path,
    chains: Sequence[Sequence[Work]],
    total: int,
    workers: int,
    placement: Placement,
    console: Console,
    what: str,
) -> None:
    """The works of a chain one after another, the chains over the processes; as `workers.run_jobs` otherwise."""
    todo = sum(map(len, chains))
    if not todo:
        return
    with bar(console, what) as progress:
        task = progress.add_task(what, total=total, completed=total - todo)
        if workers == 1:
            _sit_down(folder, placement)
            for chain in chains:
                for work in chain:
                    _do(work)
                    progress.advance(task)
            return
        context_ = multiprocessing.get_context("spawn")
        stop = context_.RawValue("b", 0)
        with ProcessPoolExecutor(workers, context_, _open, (folder, placement, os.getpid(), stop)) as pool:
            running: dict[Future[None], Iterator[Work]] = {}

            def next_of(chain: Iterator[Work]) -> None:
                for work in chain:
                    running[pool.submit(_do, work)] = chain
                    return

            try:
                for chain in chains:
                    next_of(iter(chain))
                while running:
                    done, _ = wait(running, REFRESH_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                        progress.advance(task)
                        next_of(running.pop(future))
            except BaseException as error:
                stop.value = 1  # a trial that is cut off is made again by the next run
                pool.shutdown(cancel_futures=True)
                if isinstance(error, BrokenProcessPool):
                    told = "a worker was killed; if memory is short, use fewer --workers"
                    raise UserError(f"{folder}: {told}") from error
                raise


def _open(folder: Path, placement: Placement, parent: int, stop: c_byte) -> None:
    def watch() -> None:  # as `workers.run_jobs` has it
        while os.getppid() == parent and not stop.value:
            time.sleep(REFRESH_SECONDS)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
    _sit_down(folder, placement)


def _sit_down(folder: Path, placement: Placement) -> None:
    global _desk
    torch.set_num_threads(1)
    _desk = Bench(folder, placement=placement), open_journal(folder)


def _do(work: Work) -> None:
    assert _desk is not None
    with threadpool_limits(1):
        if isinstance(work, Attempt):
            attempt(*_desk, work)
        else:
            score(*_desk, work)
