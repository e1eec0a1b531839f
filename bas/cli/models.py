"""The verbs on models that are taken away: export, predict, onnx."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bas import api
from bas.cli.options import path, positive, tell_next, whole_number
from bas.errors import UserError
from bas.util.device import DEVICES
from bas.util.progress import list_lines
from bas.util.terminal import Terminal

EXPORT = "a row of a comparison, fitted on all that its folds train on, as a folder that predicts"
PREDICT = "what an exported model says of recordings: probabilities or shares, as CSV or JSON Lines"
ONNX = "an exported model as an ONNX graph, for runtimes without Python: its network, or encoder and network in one"


def export(arguments: argparse.Namespace, console: Console) -> int:
    place = api.export(arguments.run, row=arguments.row, into=arguments.into, seed=arguments.seed, console=console)
    from bas.encoders import is_own
    from bas.models.folder import JSON

    name = json.loads((place / JSON).read_text(encoding="utf-8"))["encoder"]["name"]
    own = ["--encoder", name] if is_own(name) else []
    tell_next(console, ["predict", str(place), "recording.wav", *own])
    return 0


def predict(arguments: argparse.Namespace, console: Console) -> int:
    from bas.models import table
    from bas.models.folder import identity
    from bas.runs.choose import workers_of

    out: Path | None = arguments.out
    if out is not None and arguments.json:
        raise UserError("--json: is for what is printed; the name of --out says what the file is, .csv or .jsonl")
    if out is not None:
        table.check(out)
    model = api.load(arguments.model, encoder=arguments.encoder, device=arguments.device, spaces=arguments.space)
    found = table.sources(arguments.sources)
    crew = workers_of(arguments.workers, model.device.type)
    aside = Terminal(stderr=True, soft_wrap=True)  # the table has the standard output to itself
    model.encoder  # noqa: B018  one that cannot be loaded is refused before anything is printed
    if out is None:
        outcome = table.show(model, found, sys.stdout, arguments.json, crew, aside)
    else:
        outcome = table.write(model, found, out, identity(arguments.model), crew, aside)
        console.print(f"predictions: {out}", highlight=False, markup=False, soft_wrap=True)
    if outcome.pace:
        aside.print(outcome.pace, highlight=False)
    if outcome.short:
        shortest = f"the shortest utterance of the training ({model.description.shortest:.2f} s)"
        note = f"note: {outcome.short} lines are of speech shorter than {shortest}: the model knows nothing of such"
        aside.print(note, style="bold yellow", highlight=False)
    if failures := outcome.failures:
        list_lines([failure.why for failure in failures[1:]], aside)
        raise UserError(
            f"{len(failures)} of {len(found)} recordings could not be predicted; the first: {failures[0].why}"
        )
    return 0


def onnx(arguments: argparse.Namespace, console: Console) -> int:
    of = arguments
    how = {"out": of.out, "with_encoder": of.with_encoder, "encoder": of.encoder, "spaces": of.space}
    api.to_onnx(of.model, **how, console=console)
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("export", EXPORT)
    p.add_argument("run", type=path, metavar="RUN", help="the folder of a run of compare")
    p.add_argument("--row", help="as the table names it; default: the one that the table says to take")
    p.add_argument("--into", type=path, metavar="FOLDER", help="of the model; default: models/ROW-seedN in the run's")
    p.add_argument("--seed", type=whole_number, default=0, help="one of the run's; default: %(default)s")
    p.set_defaults(verb=export)

    p = add("predict", PREDICT)
    _add_model(p)
    p.add_argument(
        "sources", type=path, nargs="+", metavar="SOURCE", help="a recording, a folder of them, or a manifest"
    )
    p.add_argument("--out", type=path, metavar="FILE", help="a .csv or .jsonl to write; default: print a CSV")
    p.add_argument("--json", action="store_true", help="print JSON Lines in place of a CSV")
    p.add_argument("--device", choices=DEVICES, default="auto", help="default: %(default)s")
    p.add_argument("--workers", type=positive, help="threads; default: one a core, and one on a GPU")
    p.set_defaults(verb=predict)

    p = add("onnx", ONNX)
    _add_model(p)
    p.add_argument("--out", type=path, metavar="FILE.onnx", help="default: model.onnx, with-encoder.onnx in MODEL")
    p.add_argument("--with-encoder", action="store_true", help="take a wave, in place of the encoder's states")
    p.set_defaults(verb=onnx)


def _add_model(p: argparse.ArgumentParser) -> None:
    """A model, where its encoder lies, and what else it is made of."""
    p.add_argument("model", type=path, metavar="MODEL", help="the folder of an exported model")
    p.add_argument(
        "--encoder",
        metavar="NAME",
        help="where the encoder lies today; default: where it lay; Python is run only if named",
    )
    p.add_argument(
        "--space",
        type=path,
        action="append",
        default=[],
        metavar="FILE.py",
        help="a space file with blocks of your own that the model names; its code is run",
    )
