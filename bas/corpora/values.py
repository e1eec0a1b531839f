"""What a cell of a table means: blanks around it, a missing value, a value that stands there in two spellings.

Missing is what pandas writes for it: nan, null, n/a, <na>, nat and their like in any case; NA and None in this spelling
alone. So `none` and `na` are values: a class of that name is written in small letters. In a text, which somebody spoke,
None, NA and null are words.

Two spellings of one value are those that differ in case, in blanks (inside as well, and against `_` and `-`), in the
form of a character (accents in one piece or two, full-width letters, characters that nobody sees) or in how a whole
number is written (3, 3.0, 03; spk3, spk03). `Corpus` joins them, and its note names them with their counts: taken for
different people they could stand on both sides of a split, which a wrong join never does; and for labels they would be
one class twice. Whoever means two different values gives them names that differ in more.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

NAMED = 3  # joined values that a note names
SPOKEN = ("none", "na", "null")
COMPARED = ("id", "label", "speaker", "session", "split", "language", "script", "sex")
"""Columns whose values are compared."""

_MISSING = {
    *("", "nan", "-nan", "null", "n/a", "<na>", "nat", "#n/a", "#na", "#n/a n/a", "<nan>", "<null>", "<none>"),
    *("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
}
_LONGEST = max(map(len, _MISSING))
_EXACT = ("NA", "None")
_NUMBER = re.compile(r"(-?)0*(\d+)(?:\.0*)?")
_ZEROS = re.compile(r"(?<![0-9.,])0+(?=[0-9])")  # in front of a whole number within a name
_SEPARATORS = re.compile(r"[\s_-]+")


def is_missing(text: str, *, spoken: bool = False) -> bool:
    """Whether a cell says that nothing is known. spoken: its text is what somebody said."""
    if spoken and text.casefold() in SPOKEN:
        return False
    return text in _EXACT or (len(text) <= _LONGEST and text.casefold() in _MISSING)


class Cells:
    """The cells of a table as they are read; counts what was trimmed and what was taken for missing."""

    def __init__(self) -> None:
        self._trimmed: Counter[str] = Counter()
        self._missing: Counter[tuple[str, str]] = Counter()
        self._composed: Counter[str] = Counter()

    def read(self, column: str, value: Any) -> Any:
        """The value without blanks around it, unless it is a text that was spoken; None where it is missing.

        An accent in two pieces, as macOS writes it, becomes one in what is compared ("é" has two spellings).
        """
        if isinstance(value, float) and value != value:
            self._missing[column, "NaN"] += 1
            return None
        if not isinstance(value, str):
            return value
        spoken = column == "text"
        if not spoken and (trimmed := value.strip()) != value:
            self._trimmed[column] += 1
            value = trimmed
        if not value:
            return None
        if is_missing(value, spoken=spoken):
            self._missing[column, value] += 1
            return None
        if column in COMPARED and not value.isascii() and (composed := unicodedata.normalize("NFC", value)) != value:
            self._composed[column] += 1
            return composed
        return value

    @property
    def note(self) -> str:
        """What was taken for missing, which changes what is scored; empty for nothing."""
        lines = [f"{column} {value!r} ({count})" for (column, value), count in sorted(self._missing.items())]
        return f"taken for missing: {', '.join(lines)}" if lines else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was trimmed or spelt anew."""
        counts = {"blanks trimmed around cells": self._trimmed, "accents in two pieces made one": self._composed}
        lines = {what: ", ".join(f"{column} {n}" for column, n in sorted(of.items())) for what, of in counts.items()}
        return tuple(f"{what}: {columns}" for what, columns in lines.items() if columns)


def find_spellings(values: Iterable[str], count: Callable[[], Mapping[str, int]]) -> dict[str, str]:
    """Each value that is another spelling of one, and that one: the most frequent, of equals the shorter.

    values: each once. count: how often each is there, which is asked only if two are alike.
    """
    pairs = list(_find_pairs(values))
    if not pairs:
        return {}
    group: dict[str, list[str]] = {}
    for one, other in pairs:
        joined = list(dict.fromkeys([*group.get(one, [one]), *group.get(other, [other])]))
        group.update(dict.fromkeys(joined, joined))
    counts = count()
    taken = {
        value: min(alike, key=lambda v: (-counts[v], len(v), not v.islower(), v)) for value, alike in group.items()
    }
    return {value: one for value, one in taken.items() if value != one}


def describe_spellings(field: str, spellings: Mapping[str, str], counts: Mapping[str, int]) -> str:
    """A note on values that were joined."""
    pairs = sorted((one, value) for value, one in spellings.items())
    lines = [f"{value!r} ({counts[value]}) is taken as {one!r} ({counts[one]})" for one, value in pairs[:NAMED]]
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return f"{field} {', '.join(lines)}{more}"


def _find_pairs(values: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of values that are alike."""
    firsts: tuple[dict[str, str], dict[str, str]] = {}, {}
    for value in sorted(values):
        plain = value if value.isascii() else "".join(c for c in unicodedata.normalize("NFKC", value) if _is_seen(c))
        plain = plain.casefold()
        if not plain.isascii():
            plain = unicodedata.normalize("NFKC", plain)
        plain = _ZEROS.sub("", plain)
        number = _NUMBER.fullmatch(plain.strip())
        folds = "".join(number.groups() if number else plain.split()), _SEPARATORS.sub("_", plain.strip())
        for first, fold in zip(firsts, folds, strict=True):
            if fold and (one := first.setdefault(fold, value)) != value:
                yield one, value


def _is_seen(character: str) -> bool:
    return unicodedata.category(character) != "Cf"


def fold_name(name: str) -> str:
    """A column's name as it is compared: `Speaker_ID`, ` speaker-id` and `speaker id` are one."""
    plain = "".join(c for c in unicodedata.normalize("NFKC", name) if _is_seen(c))
    return _SEPARATORS.sub("", plain.casefold())
