"""The progress bar: what is done, the rate and the time left; and lists that may be long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

SHOWN = 20
"""The most lines shown of a list that may be long, such as skipped files or the faults of a check."""


class _Rate(ProgressColumn):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:.1f} {self.what}/s" if speed >= 0.5 else f"{1 / speed:.0f} s a {self.what.rstrip('s')}")


class _Lines(Progress):
    """For a log file: a plain line after each tenth."""

    _tenths = -1

    def update(self, *arguments: Any, **more: Any) -> None:
        super().update(*arguments, **more)
        self._print_tenth()

    def advance(self, *arguments: Any, **more: Any) -> None:
        super().advance(*arguments, **more)
        self._print_tenth()

    def _print_tenth(self) -> None:
        task = self.tasks[0]
        if task.visible and task.total and int(10 * task.completed / task.total) > self._tenths:
            self._tenths = int(10 * task.completed / task.total)
            self.console.print(f"{task.description} {task.completed:.0f}/{task.total:.0f}", highlight=False)


def bar(console: Console, what: str) -> Progress:
    """A progress bar that counts `what` (a plural: "utterances"); plain lines if the output is not a terminal."""
    if not console.is_terminal:
        return _Lines(console=console, disable=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(what),
        TimeRemainingColumn(),
        console=console,
    )


def list_lines(lines: Sequence[str], console: Console, rest: str = "") -> None:
    """Print at most SHOWN of the lines. rest: where to find the others."""
    for line in lines[:SHOWN]:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if len(lines) > SHOWN:
        console.print(f"  and {len(lines) - SHOWN} more{rest}", highlight=False, markup=False)
