"""Bytes of a file changed at random, as a disk, a cable or a copy may change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

BLOCK = 4096


def flip_byte(raw: bytearray, rng: np.random.Generator) -> None:
    raw[rng.integers(len(raw))] ^= int(rng.integers(1, 256))


def zero_block(raw: bytearray, rng: np.random.Generator) -> None:
    size = min(BLOCK, max(1, len(raw) // 4))
    start = int(rng.integers(len(raw) - size + 1))
    raw[start : start + size] = bytes(size)


def move_block(raw: bytearray, rng: np.random.Generator) -> None:
    size = min(BLOCK, max(1, len(raw) // 4))
    start, to = (int(rng.integers(len(raw) - size + 1)) for _ in range(2))
    raw[to : to + size] = raw[start : start + size]


SORTS: dict[str, list[Callable[[bytearray, np.random.Generator], None]]] = {
    "bytes": [flip_byte],
    "blocks": [zero_block, move_block],
}


def damaged(whole: bytes, sort: str, count: int) -> Iterator[bytes]:
    """`count` copies of a file, each with one fault of this sort."""
    rng = np.random.default_rng([len(whole), len(sort)])
    for number in range(count):
        raw = bytearray(whole)
        SORTS[sort][number % len(SORTS[sort])](raw, rng)
        yield bytes(raw)
