"""Dataclasses to JSON and back: `to_plain` writes every field by its name, `from_plain` accepts nothing else.

A class attribute DERIVED names properties that are written too, for other programs, and ignored when read.

This is not a library (cattrs, dacite), because those would need a hook for each of our needs (arrays, NaN, fields
that are written but never read, one-line errors), and the hooks would be as long as this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from bas.errors import UserError

T = TypeVar("T")

NAMES = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", NoneType: "null"}


def to_plain(value: Any) -> Any:
    """The value in JSON's own types: a dataclass becomes an object of its fields, an array lists, a key text."""
    if is_dataclass(value) and not isinstance(value, type):
        names = (*(f.name for f in fields(value)), *getattr(value, "DERIVED", ()))
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def from_plain(kind: type[T], value: Any, file: Path | str, remedy: str = "") -> T:
    """The value as a `kind`, a dataclass of such types as `to_plain` writes. A null where a float belongs is NaN.

    Raises UserError naming the file and the field that is missing, unknown or of another type; remedy: what a user may
    do then.
    """
    try:
        result: T = _read(kind, value)
    except _MismatchError as error:
        where = f"{error.field.removeprefix('.')}: " if error.field else ""
        raise UserError(f"{file}: {where}{error.why}" + (f"; {remedy}" if remedy else "")) from None
    return result


class _MismatchError(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why, self.field = why, ""


def _read(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    if kind is float and (value is None or type(value) is int):
        try:
            return np.nan if value is None else float(value)
        except OverflowError:
            _refuse("a number", value)
    if kind in NAMES:
        return value if type(value) is kind else _refuse(NAMES[kind], value)
    if kind is np.ndarray:
        return _read_array(value)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _read_union(arguments, value)
    if origin is Literal:
        return value if value in arguments else _refuse(f"one of {', '.join(map(str, arguments))}", value)
    if origin is None and issubclass(kind, Enum):
        return kind(value) if value in list(kind) else _refuse(f"one of {', '.join(kind)}", value)
    if origin is None:
        return _read_dataclass(kind, value)
    if issubclass(origin, Mapping):
        return _read_mapping(arguments[0], arguments[1], value)
    assert issubclass(origin, Sequence), kind
    if not isinstance(value, list):
        _refuse("a list", value)
    if origin is tuple and arguments[1:] != (...,):
        if len(value) != len(arguments):
            _refuse(f"a list of {len(arguments)}", value)
        return tuple(_each(arguments, value))
    made = _each([arguments[0]] * len(value), value)
    return list(made) if origin is list else tuple(made)


def _refuse(expected: str, value: Any) -> Any:
    raise _MismatchError(f"must be {expected}, not {str(value)[:40]!r}")


def _read_array(value: Any) -> np.ndarray:
    if not isinstance(value, list):
        _refuse("a list", value)
    try:
        array = np.array(value)
        return array.astype(np.float64) if array.dtype == object else array  # a null in it is NaN
    except (ValueError, TypeError):
        raise _MismatchError("must be a list of numbers, or of lists of one length") from None


def _each(kinds: Iterable[Any], values: Iterable[Any]) -> Iterable[Any]:
    for index, (kind, value) in enumerate(zip(kinds, values, strict=True)):
        yield _inside(f"[{index}]", kind, value)


def _inside(field: str, kind: Any, value: Any) -> Any:
    try:
        return _read(kind, value)
    except _MismatchError as error:
        error.field = field + error.field
        raise


def _read_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if type(value) in kinds:  # a whole number is a float where nothing else takes it
        return value
    others = [kind for kind in kinds if kind is not NoneType]
    for kind in others[:-1]:
        try:
            return _read(kind, value)
        except _MismatchError:
            continue
    return _read(others[-1], value)


def _read_mapping(key: Any, kind: Any, value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict):
        _refuse("an object", value)
    made = {}
    for name, one in value.items():
        if key is int and not name.lstrip("-").isdecimal():
            raise _MismatchError(f"its keys must be whole numbers, not {name!r}")
        made[int(name) if key is int else name] = _inside(f".{name}", kind, one)
    return made


@cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str], frozenset[str]]:
    """The types of a dataclass's fields by name, the names that must be given, and the names that are ignored."""
    assert is_dataclass(kind), kind
    hints = get_type_hints(kind)
    own = [f for f in fields(kind) if f.init]
    needed = frozenset(f.name for f in own if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: hints[f.name] for f in own}, needed, frozenset(getattr(kind, "DERIVED", ()))


def _read_dataclass(kind: type, value: Any) -> Any:
    if not isinstance(value, dict):
        _refuse("an object", value)
    kinds, needed, derived = _fields(kind)
    if missing := sorted(needed - value.keys()):
        raise _MismatchError(f"{missing[0]} is missing")
    if unknown := sorted(value.keys() - kinds.keys() - derived):
        raise _MismatchError(f"{unknown[0]} is unknown; its fields are {', '.join(kinds)}")
    given = {name: _inside(f".{name}", kinds[name], one) for name, one in value.items() if name in kinds}
    try:
        return kind(**given)
    except UserError as error:  # of a class that looks at its values
        raise _MismatchError(str(error)) from error
