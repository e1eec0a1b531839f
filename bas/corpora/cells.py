"""The cells of a manifest: what each column's value must be, and what it becomes."""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from bas.corpora.base import Word
from bas.util.reading import distinct

SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "validation": "valid", "test": "test"}
SEXES = {"female": "female", "male": "male", "f": "female", "m": "male"}


OBJECTS = json.JSONDecoder(object_pairs_hook=distinct)


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():  # pandas makes whole numbers such where one is missing
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a text")
    return str(value)


def _key(value: object) -> str:
    """A text that is compared."""
    text = _text(value)
    return text if text.isascii() else unicodedata.normalize("NFC", text)  # "é" has two spellings; macOS uses the other


@lru_cache(maxsize=2**14, typed=True)
def own(name: str, value: object) -> tuple[str, str]:
    """The name and the text of an own column's value, a text or a number; ValueError for another."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is neither a text nor a number")
    return name, str(value) if isinstance(value, float) and not value.is_integer() else _key(value)


def _sentence(value: object) -> str:
    return sys.intern(_text(value))


def _split(value: object) -> str:
    return _choose("split", value, SPLITS)


def _sex(value: object) -> str:
    return _choose("sex", value, SEXES)


def _choose(field: str, value: object, choices: Mapping[str, str]) -> str:
    """What the value means, in any case."""
    text = _key(value)
    if text.casefold() not in choices:
        raise ValueError(f"unknown {field} {text!r}; allowed: {', '.join(choices)}")
    return choices[text.casefold()]


def _number(value: object) -> float:
    """The value as a float; NaN where it is no number, negative or infinite."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    return number if 0 <= number < math.inf else math.nan


def _seconds(value: object) -> float:
    time = _number(value)
    if math.isnan(time):
        raise ValueError(f"{value!r} is not a time; expected seconds from 0 on, such as 1.5")
    return time


def _json(value: object, expected: str) -> Any:
    """The value, parsed where it is the text of a CSV cell."""
    try:
        return OBJECTS.decode(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed JSON ({error}); expected {expected}") from None


def _shares(value: object) -> tuple[tuple[str, float], ...]:
    expected = 'an object such as {"anger": 0.75, "fear": 0.25}'
    shares = _json(value, expected)
    if not isinstance(shares, dict):
        raise ValueError(f"{shares!r} is not {expected}")
    for emotion, share in shares.items():
        if not _number(share) <= 1 or isinstance(share, str):
            raise ValueError(f"{emotion!r}: {share!r} is not a share; expected a number from 0 to 1")
        if emotion != emotion.strip():
            raise ValueError(f"{emotion!r} begins or ends with a blank; remove it")
    return tuple((_key(emotion), float(share)) for emotion, share in shares.items())


def _raters(value: object) -> int:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ValueError(f"{value!r} is not a number of listeners; expected a whole number from 1 on")
    return int(text)


def _words(value: object) -> tuple[Word, ...]:
    items = _json(value, expected := '[[start, end, "text"]], or in a manifest the name of a .TextGrid or .ctm file')
    if not isinstance(items, list):
        raise ValueError(f"{items!r} is not {expected}")
    words = []
    for item in items:
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)):
            raise ValueError(f'{item!r} is not [start, end, "text"]')
        start, end = _number(item[0]), _number(item[1])
        if not start <= end:  # NaN, which is no time, is refused as well; a word without a duration is left out later
            raise ValueError(f"{item!r}: expected seconds with 0 <= start < end")
        words.append(Word(start, end, item[2]))
    return tuple(words)


def _cached(parser: Callable[[Any], str]) -> Callable[[Any], str]:
    """The parser with a cache: a million rows share a few labels and speakers, each checked once and one object."""
    return lru_cache(maxsize=2**14, typed=True)(parser)


PARSERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("label", "speaker", "session", "language", "script"), _cached(_key)),
    **{"id": _key, "audio": _text, "text": _sentence, "type": _text, "split": _cached(_split), "sex": _cached(_sex)},
    **{"shares": _shares, "raters": _raters, "start": _seconds, "end": _seconds, "words": _words},
}
