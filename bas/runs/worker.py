"""The inside of a worker process: what `bas.runs.workers` sends is done here.

Imports nothing heavy: what fails while torch loads, as where memory is short, is then the failure of a piece of work,
and reaches the parent as one.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from ctypes import c_byte
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from bas.util.claims import HEART
from bas.util.faults import os_error, raise_memory

REFRESH_SECONDS = 0.5
_ticks: Synchronized[int] | None = None  # the epochs counted for the parent
_open: tuple[Any, Any] | None = None  # the open session, with its place


def begin(parent: int, stop: c_byte, ticks: Synchronized[int]) -> None:
    """Prepare this process. stop: not 0 when all workers are to end at once."""
    global _ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and stops its workers
    threading.Thread(target=_die_with, args=(parent, stop), daemon=True).start()
    _ticks = ticks


def carry_out(task: bytes) -> bool:
    """Do one piece of work: a pickle of its place, the function and the piece. False: another process has it."""
    global _open
    try:
        place, work, piece = pickle.loads(task)
        if _open is None or _open[0] != place:
            _open = None  # free the old session before opening the new one
            _open = place, place.open(place.folder, _tick, place.placement)
        return in_one_thread(work, _open[1], piece) is not False
    except Exception as error:
        raise_memory(error)
        fault = os_error(error)
        if fault is None or fault is error:
            raise
        raise fault from error  # the parent sees an error without those that led to it


def in_one_thread(work: Callable[[Any, Any], Any], session: Any, piece: Any) -> Any:
    """Work with one thread, in BLAS too: numbers must not depend on what else runs, or on how many cores."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        return work(session, piece)


def _tick() -> None:
    HEART.check()
    assert _ticks is not None
    with _ticks.get_lock():
        _ticks.value += 1


def _die_with(parent: int, stop: c_byte) -> None:
    # A killed parent cannot stop its workers, and they must not run beside those of a restarted parent.
    while os.getppid() == parent and not stop.value:
        time.sleep(REFRESH_SECONDS)
    os._exit(1)
