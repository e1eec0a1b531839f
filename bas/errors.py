"""The one exception a user's mistake raises; `bas` prints it as one line and exits with code 2."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input from outside: a file, a setting, a corpus.

    The message is one line that names the file, the field and the allowed values.
    A mistake of our own is an assertion instead, and keeps its traceback.
    """


class Diverged(UserError):
    """A training whose loss, score or weights are not finite: with these settings it cannot be had."""


class EndedError(UserError):
    """A process was ended from outside, such as by the system where memory is short: the same command goes on."""


def first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
