"""A page in Markdown: headings, paragraphs, lists and tables of plain text, in which no name is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bas.util.terminal import printable

_MARKS = re.compile(
    r"[\\`*|$]"  # code, emphasis, a cell's end, mathematics
    r"|~(?=~)|(?<![^\W_])_|_(?![^\W_])"  # crossed out; emphasis, which an underscore inside a word is not
    r"|!(?=\[)|\](?=[(\[:])"  # a picture, a link
)
_BEGINNINGS = re.compile(r"[#>+=-]|\[(?=.\])|\d+(?=[.)]\s)")
"""What makes a line something else where it begins one; a number's point is what is escaped."""


def plain(text: str) -> str:
    """The text on one line, as Markdown that shows just this."""
    text = _MARKS.sub(r"\\\g<0>", printable(" ".join(text.split("\n"))))
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")


def section(level: int, text: str) -> str:
    return f"{'#' * level} {plain(text)}"


def paragraph(text: str) -> str:
    return _BEGINNINGS.sub(_escaped, plain(text), count=1) if _BEGINNINGS.match(text) else plain(text)


def _escaped(mark: re.Match[str]) -> str:
    return f"{mark[0]}\\" if mark[0].isdigit() else f"\\{mark[0]}"


def bullets(lines: Iterable[str]) -> list[str]:
    """An item for each line."""
    return [f"- {paragraph(line)}" for line in lines]


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Its lines."""
    cells = [heads, *rows]
    first, *rest = [f"| {' | '.join(map(plain, row))} |" for row in cells]
    return [first, f"| {' | '.join(['---'] * len(heads))} |", *rest]
