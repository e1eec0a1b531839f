"""Threads keep the order, tell of each item, and share few items as well as many."""

from __future__ import annotations

import threading

import pytest
from places import PATIENCE

from bas.util.threads import in_threads


@pytest.mark.parametrize("count", [0, 1, 7, 8, 4097, 20_000])
def test_items_come_in_order_and_each_ticks(count: int) -> None:
    ticks: list[None] = []
    made = in_threads(lambda item: item + 1, range(count), lambda: ticks.append(None))
    assert list(made) == list(range(1, count + 1))
    assert len(ticks) == count


def test_few_items_are_done_at_a_time_by_all_threads() -> None:
    meet = threading.Barrier(4, timeout=PATIENCE)
    assert len(list(in_threads(lambda _: meet.wait(), range(4), threads=4))) == 4


def test_what_one_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda item: 1 / (item - 500), range(1000)))
