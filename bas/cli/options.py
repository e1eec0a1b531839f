"""Make flags from the declared keys of an experiment, and the experiment from a command line."""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias, get_args, get_origin

from rich.console import Console

from bas.errors import UserError
from bas.experiment import KEYS, Experiment, Text, keys_of, load_experiment, read_texts
from bas.experiment.key import Key
from bas.experiment.keys import COMPARED, PAPERS, SEEDS, SEVERAL, SPACES, settings_table

Work: TypeAlias = Callable[[argparse.Namespace, Console], int]
"""Carries out a verb and returns the exit code."""


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line, like every other refusal."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


@dataclass(frozen=True)
class Command:
    """An experiment as given on the command line: the file, if any, and the changes to it."""

    file: str | None
    texts: tuple[Text, ...]
    experiment: Experiment

    def words(self, verb: str, kept: Iterable[str] | None = None, **changes: Sequence[str]) -> list[str]:
        """The command line of another verb on the same file, with other values for some keys.

        kept: of the keys that this command line changes, those to keep; None: all that the other verb reads.
        """
        kept, words = keys_of(verb) if kept is None else kept, [verb, *([self.file] if self.file else [])]
        for text in self.texts:
            name = text.name if text.name in KEYS else f"{settings_table(verb)}.{text.name}"
            if name in kept and name not in changes:
                words += shlex.split(text.origin)
        for name, values in changes.items():
            words += [KEYS[name].flag, *values]
        return words


def add_experiment(p: argparse.ArgumentParser, verb: str) -> None:
    """Add the file, a flag for each key that the verb reads, and --set."""
    file_help = "an experiment's file; flags and --set override it"
    p.add_argument("experiment", nargs="?", metavar="EXPERIMENT.toml", help=file_help)
    keys = keys_of(verb)
    for name, key in keys.items():
        if key.flag:
            p.add_argument(key.flag, dest=name, help=_help(name, key, verb), **_kind(name, key, verb))
    table = f"{settings_table(verb)}."
    settings = [name.removeprefix(table) for name in keys if name.startswith(table)]
    set_help = "change a key by its dotted name" + (f", or a setting: {', '.join(settings)}" if settings else "")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=f"{set_help}; repeatable")


def read_command(arguments: argparse.Namespace, verb: str) -> Command:
    """Read the experiment from the arguments of `add_experiment`."""
    experiment = load_experiment(arguments.experiment) if arguments.experiment else Experiment()
    texts = []
    for name, key in keys_of(verb).items():
        value = getattr(arguments, name, None) if key.flag else None
        if value is not None:
            if key.several and isinstance(value, str):
                value = [value]  # as it is: brackets and commas in a folder's name make no list of it
            words = [] if key.kind is bool else [value] if isinstance(value, str) else value
            texts.append(Text(name, value, shlex.join([key.flag, *words])))
    for text in arguments.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text!r}: must be NAME=VALUE, such as epochs=30")
        texts.append(Text(name, value, shlex.join(["--set", text])))
    return Command(arguments.experiment, tuple(texts), read_texts(experiment, verb, texts))


def tell_next(console: Console, words: Sequence[str]) -> None:
    """Print the command to run next, by the program's path where its name alone would not be this one's."""
    given = sys.argv[0]
    program = given if Path(given).name == "bas" and shutil.which("bas") != given else "bas"
    console.print(f"next: {shlex.join([program, *words])}", highlight=False, markup=False, soft_wrap=True)


def path(text: str) -> Path:
    """An argument's kind."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def whole_number(text: str) -> int:
    """An argument that is a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number, 0 or more")
    return int(text)


def positive(text: str) -> int:
    """An argument that is a whole number, 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number, 1 or more")
    return int(text)


def _help(name: str, key: Key, verb: str) -> str:
    spaces = " ".join(SPACES.get(verb, ()))
    if verb in COMPARED:
        spaces += f" (cpu), {' '.join(PAPERS)} (paper)"
    of_verb: Mapping[str, Any] = {"seeds": SEEDS.get(verb), "spaces": spaces}
    text = key.help.replace("the verb's own", str(of_verb[name])) if name in of_verb else key.help
    if "default:" not in text and key.default is not None and key.default is not False and key.default != ():
        shown = " ".join(map(str, key.default)) if isinstance(key.default, tuple) else key.default
        text += f"; default: {shown}"
    return text.replace("%", "%%")


def _kind(name: str, key: Key, verb: str) -> dict[str, Any]:
    """The options of `add_argument`: argparse takes the flag as text, which the key then reads."""
    if key.kind is bool:
        return {"action": "store_const", "const": "true"}
    kinds = [kind for kind in get_args(key.kind) if kind is not type(None)]
    kind = kinds[0] if len(kinds) == 1 else key.kind  # without the None of what may be left out
    words = get_args(kind) if get_origin(kind) is Literal else key.choices
    metavar = key.metavar or (f"{{{','.join(words)}}}" if words else key.flag.strip("-").upper())
    if not key.several or verb not in SEVERAL.get(name, (verb,)):
        return {"metavar": metavar}
    if name in SEVERAL or key.default:  # given again, it replaces the first
        return {"nargs": "*" if key.default else "+", "metavar": metavar}
    return {"action": "extend", "nargs": "+", "metavar": metavar}
