"""Values of an annotated kind, read from the text of a command line or from a TOML file.

Kinds: str, bool, int, float, None, `Literal[...]`, `tuple[kind, ...]`, `Mapping[str, str]`, and unions of these.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

WORDS = {str: "a text", bool: "true or false", int: "a whole number", float: "a number", NoneType: "none"}


def describe(kind: Any) -> str:
    """The kind in words, such as "a whole number or none"."""
    if _is_union(kind):
        return " or ".join(describe(member) for member in get_args(kind))
    if get_origin(kind) is Literal:
        words = ", ".join(get_args(kind))
        return f"one of {words}" if len(get_args(kind)) > 1 else words
    if get_origin(kind) is tuple:
        return f"a list, each {describe(get_args(kind)[0])}"
    if get_origin(kind) is Mapping:
        return "a table of texts, on the command line NAME=TEXT,..."
    return WORDS[kind]


def read_value(kind: Any, value: object) -> Any:
    """`value` as a value of the kind: a list becomes a tuple, "none" None, a path text, a single value a list of one.

    Raises ValueError naming what is allowed.
    """
    if _is_union(kind):
        for member in get_args(kind):
            try:
                return read_value(member, value)
            except ValueError:
                continue
    elif get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
    elif get_origin(kind) is tuple:
        try:
            return tuple(
                read_value(get_args(kind)[0], one) for one in (value if isinstance(value, list | tuple) else [value])
            )
        except ValueError:
            pass
    elif get_origin(kind) is Mapping:
        if isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair):
            return dict(value)
    elif kind is NoneType:
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            return None
    elif kind is str:
        if isinstance(value, str | os.PathLike):
            return str(value)
    elif kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise ValueError(f"must be {describe(kind)}")


def parse_text(kind: Any, text: str) -> Any:
    """Parse the text of a command line as a value of this kind.

    A list is written as in TOML, or as items separated by commas; a text may be in quotes.
    Raises ValueError naming what is allowed.
    """
    if _is_union(kind):
        # Try text last: it accepts everything.
        for member in sorted(get_args(kind), key=lambda member: member is str):
            try:
                return parse_text(member, text)
            except ValueError:
                continue
    elif get_origin(kind) is tuple:
        try:
            if text.startswith("["):
                return read_value(kind, tomllib.loads(f"value = {text}")["value"])
            return tuple(parse_text(get_args(kind)[0], one.strip()) for one in text.split(",") if one.strip())
        except ValueError:
            pass
    elif get_origin(kind) is Mapping:
        pairs = [pair.partition("=") for pair in text.split(",")]
        names = [name.strip() for name, _, _ in pairs]
        texts = [one.strip() for _, _, one in pairs]
        if all((*names, *texts)) and len(set(names)) == len(names):
            return dict(zip(names, texts, strict=True))
    elif kind is bool:
        if text in ("true", "false"):
            return text == "true"
    elif kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    elif kind is str and text[:1] in ('"', "'") and text[:1] == text[-1:]:
        return text[1:-1]
    else:
        return read_value(kind, text)
    raise ValueError(f"must be {describe(kind)}")


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)
