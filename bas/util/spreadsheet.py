"""Texts that a spreadsheet computes when it opens a table, such as a label `=HYPERLINK(...)` of somebody's manifest.

A table for people has an apostrophe before such a text (`defuse`). A table that `bas` reads again keeps it as it is,
and whoever exports one is told of it.
"""

from __future__ import annotations

STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with; the last four are the full-width forms."""


def is_formula(value: object) -> bool:
    """Whether it is a text that a spreadsheet may compute."""
    return isinstance(value, str) and value.startswith(STARTS)


def defuse(value: object) -> object:
    """The value, with an apostrophe before it where it is such a text."""
    return f"'{value}" if is_formula(value) else value
