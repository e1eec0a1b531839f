"""Work that waits for a disk, by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

READERS = 8
TOGETHER = 64  # items that a thread takes at a time, of many: to hand one over costs more than to look up a file
AHEAD = 8  # such handfuls a thread that wait to be done: each costs memory

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    work: Callable[[T], R], items: Sequence[T], tick: Callable[[], None] = lambda: None, threads: int = READERS
) -> Iterator[R]:
    """`work` of each item, in their order; `tick` is called after each."""
    size = max(1, min(TOGETHER, len(items) // (AHEAD * threads)))
    handfuls = (items[i : i + size] for i in range(0, len(items), size))
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(handfuls, AHEAD * threads)):
            for done in pool.map(lambda handful: [work(item) for item in handful], some):
                for one in done:
                    tick()
                    yield one
