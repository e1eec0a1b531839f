"""What a user named, on a terminal: shown as it is, never taken for markup or for a command to the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

COMMANDS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but for tab and newline, those that break a line or turn its direction, and bytes of a file name
that are no text."""


def printable(text: str) -> str:
    r"""The text with COMMANDS written out, ESC as \x1b."""
    return COMMANDS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Terminal(Console):
    """A console whose texts are plain: brackets and `:names:` stay, what would command the terminal is written out.

    A style is an argument of `print`, or of a `Text`.
    """

    @classmethod
    def of(cls, console: Console) -> Terminal:
        """Another console as one of these: its state is shared, so that it still records what it records."""
        if isinstance(console, cls):
            return console
        terminal = cls.__new__(cls)
        terminal.__dict__ = console.__dict__
        return terminal

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options | {"markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def console_of(console: Console | None) -> Console:
    """Where a function shows what it does; None: nowhere."""
    return Terminal(quiet=True) if console is None else Terminal.of(console)


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
