"""The verb about layers: probe. Thin."""

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
from bas.training.settings import PROBED

PERCENTS = (10, 30)


def probe(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.store import StoreInfo
    from bas.runs.start import split
    from bas.studies.probe.study import Asked, carry_out
    from bas.util.files import locked

    if wrong := [p for p in arguments.percent if not 0 < p < 100]:
        raise UserError(f"--percent {wrong[0]}: must be above 0 and below 100; the whole is always probed")
    if arguments.layer:
        raise UserError(
            f"--layer {arguments.layer}: a probe reads every stored state; extract with --layers to have fewer"
        )
    for text in arguments.set:
        if text.partition("=")[0] not in PROBED:
            raise UserError(f"--set {text}: a probe reads {', '.join(PROBED)}")
    given = study_stores(arguments)
    first = next(iter(given.values()))
    stores = []
    for name, folder in given.items():
        layers = StoreInfo.read(folder).layers
        layer = "mix" if len(layers) > 1 else str(layers[0])
        inputs, workers = asked(argparse.Namespace(**{**vars(arguments), "features": folder, "layer": layer}))
        protocol = split(inputs, arguments.protocol, arguments.protocol_seed, arguments.allow_overlap)
        stores.append(Asked(name, inputs, protocol))
    folder = study_folder(arguments, list(given))
    with locked(folder, "probing"):
        carry_out(folder, stores, arguments.percent, workers, console, arguments.memory)
    tell_report(folder, console)
    tell_next(console, f"make search FEATURES={shlex.quote(str(first))} LAYER=best")
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("probe", "which layer: every hidden state and their mixes, probed by linear and dense heads")
    add_run_arguments(p, seeds=3, spaces=("ser_bas3",))
    several, layer, change = (next(a for a in p._actions if a.dest == name) for name in ("features", "layer", "set"))
    several.nargs, several.help = "+", "stores made by extract: of several encoders, several corpora"
    layer.help = argparse.SUPPRESS  # all are read
    change.help = f"change one setting; repeatable; one of {', '.join(PROBED)}"
    add_protocol_arguments(p)
    told = "of the training part, for the learning curves; default: 10 30; without a number: none"
    p.add_argument("--percent", type=int, nargs="*", default=list(PERCENTS), help=told)
    p.set_defaults(verb=probe)
