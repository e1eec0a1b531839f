"""A fixed share of the jobs of a run, or of the shards of a store, for schedulers that number their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from bas.errors import UserError

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Part:
    """Part `index`, from 0, of `count`."""

    index: int
    count: int

    @classmethod
    def of_text(cls, text: str) -> Part:
        """The part that "i/N" names. Raises UserError for anything else."""
        index, slash, count = str(text).partition("/")
        ascii_digits = slash and (index + count).isascii() and index.isdecimal() and count.isdecimal()
        if not ascii_digits or not int(index) < int(count):
            raise UserError(f"--part {text}: must be i/N, with i from 0 to N - 1, such as 0/4")
        return cls(int(index), int(count))

    def of(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Every `count`-th piece: of searches and of what is retrained, in one order, those that belong together."""
        return pieces[self.index :: self.count]
