"""The declaration of a key, beside its kind and default, which the class that it is a field of gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin

from bas.util.values import parse_text, read_value


@dataclass(frozen=True)
class Key:
    """The declaration of a key.

    flag: "" where `--set` alone gives it. least, below, above_0: the range of a number, or of each in a list. choices:
    of a text. kind: see `bas.util.values`; it and the default are read off the class.
    """

    help: str
    verbs: tuple[str, ...]
    flag: str = ""
    metavar: str = ""
    least: float | None = None
    below: float | None = None
    above_0: bool = False
    choices: tuple[str, ...] = ()
    kind: Any = None
    default: Any = None

    @property
    def several(self) -> bool:
        return get_origin(self.kind) is tuple

    def read(self, value: object) -> Any:
        """Read a file's value for this key; raises ValueError saying what is allowed."""
        result = read_value(self.kind, value)
        self.check(result)
        return result

    def parse(self, text: str | Sequence[str]) -> Any:
        """Parse the text of a command line, or the texts of a list; raises ValueError saying what is allowed."""
        if isinstance(text, str):
            result = parse_text(self.kind, text)
        else:
            result = tuple(parse_text(get_args(self.kind)[0], one) for one in text)
        self.check(result)
        return result

    def check(self, value: Any) -> None:
        """Raises ValueError, saying what is allowed, where a value of the right kind is out of range."""
        if self.choices and value is not None and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}")
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, str) and (not one or "\0" in one):
                raise ValueError("must not be empty" if not one else "must be without NUL characters")
            if isinstance(one, bool) or not isinstance(one, int | float):
                continue
            low = self.above_0 and not 0 < one < float("inf")
            if low or (self.below is not None and not one < self.below):
                raise ValueError("must be above 0" + (f" and below {self.below:g}" if self.below else ""))
            if self.least is not None and one < self.least:
                raise ValueError(f"must be {self.least:g} or more")


def key(help: str, verbs: tuple[str, ...], flag: str = "", *, default: Any = None, **more: Any) -> Any:
    """A field of a table; more: see `Key`."""
    return field(default=default, metadata={"key": Key(help, verbs, flag, **more)})
