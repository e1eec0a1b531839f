"""The verb about shares of listeners: shares. Thin."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable

from rich.console import Console

from bas.cli.options import (
    add_protocol_arguments,
    add_run_arguments,
    asked,
    study_folder,
    study_stores,
    tell_next,
    tell_report,
)
from bas.errors import UserError
from bas.training.settings import PRESETS, SEARCH_ONLY

SPACE = "emotion_share"
READ = tuple(n for n in PRESETS["cpu"].as_dict() if n == "theta_lr" or n not in ("preset", *SEARCH_ONLY))
"""The settings of a training; a layer mix learns at `theta_lr`."""


def shares(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.store import StoreInfo
    from bas.runs.start import split
    from bas.studies.shares.study import Asked, carry_out
    from bas.util.files import locked

    for text in arguments.set:
        if text.partition("=")[0] not in READ:
            raise UserError(f"--set {text}: nothing is searched here; this reads {', '.join(READ)}")
    given = study_stores(arguments)
    first = next(iter(given.values()))
    layers = arguments.layer or [None]
    if len(layers) not in (1, len(given)):
        raise UserError(f"--layer {' '.join(layers)}: one for all of {len(given)} stores, or one for each")
    layers = layers * len(given) if len(layers) == 1 else layers
    fields = list(dict.fromkeys(arguments.metadata))
    stores = []
    for name, folder, layer in zip(given, given.values(), layers, strict=True):
        derived = StoreInfo.read(folder).derived
        if derived:
            raise UserError(f"--features {folder}: is derived ({derived}); name the store that it was made of")
        inputs, workers = asked(argparse.Namespace(**{**vars(arguments), "features": folder, "layer": layer}))
        protocol = split(inputs, arguments.protocol, arguments.protocol_seed, arguments.allow_overlap)
        stores.append(Asked(name, inputs, protocol))
    folder = study_folder(arguments, list(given))
    with locked(folder, "studying shares"):
        carry_out(folder, stores, fields, workers, console, arguments.memory)
    tell_report(folder, console)
    spaces = " ".join(arguments.space or [SPACE])
    layer = f" LAYER={layers[0]}" if layers[0] else ""
    tell_next(console, f"make compare FEATURES={shlex.quote(str(first))}{layer} SPACES={shlex.quote(spaces)}")
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("shares", "how many listeners heard each emotion: encoder x attention, and what attention looks at")
    add_run_arguments(p, seeds=3, spaces=(SPACE,))
    several, layer, space, change = (
        next(a for a in p._actions if a.dest == name) for name in ("features", "layer", "space", "set")
    )
    several.nargs, several.help = "+", "stores made by extract, all of the same utterances; each against the first"
    layer.nargs, layer.help = "+", f"one for all stores, or one for each: {layer.help}"
    space.help = f"whose baselines are trained: shipped name or .py path; default: {SPACE}"
    change.help = f"change one setting; repeatable; one of {', '.join(READ)}"
    add_protocol_arguments(p)
    told = "the first store also with this beside its frames, one-hot: some of sex, language, speaker"
    p.add_argument("--metadata", nargs="+", default=[], metavar="FIELD", help=told)
    p.set_defaults(verb=shares)
