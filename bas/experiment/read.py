"""Read an experiment from a file, a mapping, or the texts of a command line; refuse unknown keys and wrong values."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_type_hints

from bas.errors import UserError
from bas.experiment.keys import KEYS, Experiment, keys_of, settings_table
from bas.util.reading import read_text

Source: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | Experiment
"""A file's path, a mapping of the same shape, or an experiment."""

Table = TypeVar("Table")


@dataclass(frozen=True)
class Text:
    """A key and its value on the command line: one text, or several for a list. origin: how it was written there."""

    name: str
    value: str | Sequence[str]
    origin: str


def load_experiment(path: str | os.PathLike[str]) -> Experiment:
    """Read an experiment's file (TOML).

    Raises UserError, naming the file and the key, for what cannot be read, an unknown key (with the nearest that there
    is) and a value of the wrong kind.
    """
    try:
        raw = tomllib.loads(read_text(Path(path).expanduser()))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; an experiment's file is TOML, such as emodb.toml") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UserError:  # a ValueError too
        raise
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML
        raise UserError(f"{path}: not readable as TOML ({error})") from error
    return _build(Experiment, _values(raw, f"{path}: "))


def read_experiment(source: Source) -> Experiment:
    """The experiment of a file, of a mapping of the same shape, or a given one after a check of its values."""
    if isinstance(source, Experiment):
        return _build(Experiment, _checked(values_of(source), "experiment: "))
    if isinstance(source, Mapping):
        return _build(Experiment, _values(source, "experiment: "))
    return load_experiment(source)


def change(experiment: Experiment, verb: str, changes: Mapping[str, Any]) -> Experiment:
    """The experiment with other values, a mapping of its shape; a key that the verb does not read is refused."""
    values = _values(changes, f"{verb}: ")
    for name in values:
        _check_read(name, verb, f"{verb}: {name}")
    return _build(Experiment, {**values_of(experiment), **values})


def read_texts(experiment: Experiment, verb: str, texts: Iterable[Text]) -> Experiment:
    """The experiment changed by a command line; the last value of a key counts, and a key that is not read is refused.

    A setting of the verb's own table may be named by itself.
    """
    values = values_of(experiment)
    for text in texts:
        name = text.name
        if name not in KEYS and f"{settings_table(verb)}.{name}" in KEYS:
            name = f"{settings_table(verb)}.{name}"
        _check_read(name, verb, text.origin)
        try:
            values[name] = KEYS[name].parse(text.value)
        except ValueError as error:
            raise UserError(f"{text.origin}: {error}") from error
    return _build(Experiment, values)


def require(experiment: Experiment, verb: str, *names: str) -> None:
    """Raises UserError, naming them, where one of these keys has no value."""
    values = values_of(experiment)
    if missing := [name for name in names if values[name] in (None, ())]:
        needs = ", ".join(f"{name} ({KEYS[name].flag})" for name in missing)
        raise UserError(f"{verb}: needs {needs}; in the experiment's file, or as a flag")


def values_of(experiment: Experiment) -> dict[str, Any]:
    """The values of an experiment by dotted name; of settings, those that change a preset."""
    return dict(_walk(experiment, ""))


def _walk(table: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for one in fields(table):
        value, name = getattr(table, one.name), f"{prefix}{one.name}"
        if is_dataclass(value):
            yield from _walk(value, f"{name}.")
        elif "settings" in one.metadata:
            yield from ((f"{name}.{setting}", of) for setting, of in value.items())
        else:
            yield name, value


def _build(table: type[Table], values: Mapping[str, Any], prefix: str = "") -> Table:
    """A table made of these values by dotted name; a missing key gets its default."""
    kinds = get_type_hints(table)
    made: dict[str, Any] = {}
    for one in fields(table):  # type: ignore[arg-type]
        name, kind = f"{prefix}{one.name}", kinds[one.name]
        if is_dataclass(kind):
            made[one.name] = _build(kind, values, f"{name}.")  # type: ignore[arg-type]
        elif "settings" in one.metadata:
            changes = {key.removeprefix(f"{name}."): of for key, of in values.items() if key.startswith(f"{name}.")}
            made[one.name] = changes
        elif name in values:
            made[one.name] = values[name]
    return table(**made)


def _values(raw: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """The values of a mapping of tables by dotted name, each of its key's kind. where: what a message begins with."""
    values: dict[str, Any] = {}
    for part, value in raw.items():
        name = f"{prefix}{part}"
        if name in KEYS:
            values |= _checked({name: value}, where)
        elif not any(key.startswith(f"{name}.") for key in KEYS):
            names = dict.fromkeys(key.removeprefix(prefix).split(".")[0] for key in KEYS if key.startswith(prefix))
            raise UserError(f"{where}{name}: no such key{_nearest(part, names)}; allowed: {', '.join(names)}")
        elif not isinstance(value, Mapping):
            raise UserError(f"{where}{name} = {value!r}: is a table, [{name}]")
        else:
            values |= _values(value, where, f"{name}.")
    return values


def _checked(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    checked = {}
    for name, value in values.items():
        try:
            checked[name] = KEYS[name].read(value)
        except ValueError as error:
            raise UserError(f"{where}{name} = {value!r}: {error}") from error
    return checked


def _check_read(name: str, verb: str, origin: str) -> None:
    keys, table = keys_of(verb), f"{settings_table(verb)}."
    if name in keys:
        return
    settings = [key.removeprefix(table) for key in keys if key.startswith(table)]
    others = [key for key in keys if not key.startswith(table)]
    why = f"{verb} does not read it" if name in KEYS else f"no such key{_nearest(name, [*settings, *others])}"
    allowed = f"{verb} reads {', '.join(others)}" + (f" and the settings {', '.join(settings)}" if settings else "")
    raise UserError(f"{origin}: {why}; {allowed}")


def _nearest(name: str, names: Iterable[str]) -> str:
    nearest = get_close_matches(name, [*names], 1)
    return f", the nearest is {nearest[0]}" if nearest else ""
