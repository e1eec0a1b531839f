"""Work that waits for a disk, by several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

READERS = 8
AT_ONCE = 4096  # handed to the threads: each costs a kilobyte until it is done, a gigabyte for a million

T = TypeVar("T")
R = TypeVar("R")


def in_threads(
    work: Callable[[T], R], items: Iterable[T], tick: Callable[[], None] = lambda: None, threads: int = READERS
) -> Iterator[R]:
    """`work` of each item, in their order; `tick` is called after each."""
    rest = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(rest, AT_ONCE)):
            for done in pool.map(work, some):
                tick()
                yield done
