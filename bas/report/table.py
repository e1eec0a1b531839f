"""A table, and how a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence

import rich.table
from rich.text import Text

Table = tuple[list[str], list[list[str]]]
"""Heading and rows."""


def rich_table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> rich.table.Table:
    """For the terminal; the first column is never broken."""
    table = rich.table.Table(title=Text(title, style="table.title") if title else None, title_justify="left")
    for index, column in enumerate(heading):
        table.add_column(Text(column), no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
