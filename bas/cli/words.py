"""The verb about words: words. Thin."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from bas.protocols import Protocol  # seconds to import: --help does without
    from bas.runs.run import Inputs

SPACES = ("ser_bas3", "speaker_id")
STRIDE = 4
"""Frames averaged into one under the preset cpu, whose own 8 would be half a word."""

READ = tuple(name for name in PROBED if name != "theta_lr")


def words(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.store import StoreInfo
    from bas.studies.words.study import Asked, carry_out
    from bas.util.files import locked

    if arguments.layer:
        raise UserError(f"--layer {arguments.layer}: every stored state is read; extract with --layers to have fewer")
    for text in arguments.set:
        if text.partition("=")[0] not in READ:
            raise UserError(f"--set {text}: the words study reads {', '.join(READ)}")
    given = study_stores(arguments)
    first = next(iter(given.values()))
    for folder in given.values():
        if StoreInfo.read(folder).derived:
            raise UserError(f"--features {folder}: is itself derived; name the store of frames that it was made of")
    if arguments.preset == "cpu":
        arguments.set = [f"stride={STRIDE}", *arguments.set]  # the last one counts
    encoder = Path(arguments.text_encoder).expanduser()
    text_encoder = str(encoder.resolve()) if encoder.is_dir() else arguments.text_encoder
    stores, left_out = [], []
    for name, folder in given.items():
        tasks, workers, missing = _tasks(arguments, folder)
        stores.append(Asked(name, tasks))
        left_out += [f"{name}: {line}" for line in missing]
    for line in left_out:
        console.print(f"left out of {line}", style="bold yellow", highlight=False, markup=False)
    folder = study_folder(arguments, list(given))
    shown, memory = arguments.word, arguments.memory
    with locked(folder, "studying words"):
        carry_out(folder, stores, text_encoder, arguments.aligner, shown, left_out, workers, console, memory)
    tell_report(folder, console)
    awe = first.with_name(f"{first.name}-words-mean")
    tell_next(console, f"make compare FEATURES={shlex.quote(str(awe))} LAYER=best")
    return 0


def _tasks(
    arguments: argparse.Namespace, folder: Path
) -> tuple[tuple[tuple[str, Inputs, Protocol], ...], int, list[str]]:
    """What is predicted from a store; the number of workers; and what of it the corpus does not allow, with the reason.

    Only a task that the user did not name may be left out, and never the first.
    """
    from bas.features.store import StoreInfo
    from bas.runs.start import split

    layers = StoreInfo.read(folder).layers
    layer = "mix" if len(layers) > 1 else str(layers[0])
    tasks: dict[str, tuple[str, Inputs, Protocol]] = {}
    missing: list[str] = []
    for index, space in enumerate(arguments.space or SPACES):
        given = {"features": folder, "layer": layer, "space": [space]}
        inputs, workers = asked(argparse.Namespace(**{**vars(arguments), **given}))
        task = inputs.task.name
        if task in tasks:
            raise UserError(f"--space {space}: task {task} is named twice; name one space for each")
        rule, allowed = (arguments.protocol, arguments.allow_overlap) if index == 0 else (None, ())
        try:
            tasks[task] = task, inputs, split(inputs, rule, arguments.protocol_seed, allowed)
        except UserError as error:
            if index == 0 or arguments.space:
                raise
            missing.append(f"task {task}: {error}")
    return tuple(tasks.values()), workers, missing


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("words", "acoustic word embeddings against raw frames and controls, alone and with text, state by state")
    add_run_arguments(p, seeds=3, spaces=SPACES)
    several, layer, space, change = (
        next(a for a in p._actions if a.dest == name) for name in ("features", "layer", "space", "set")
    )
    several.nargs, several.help = "+", "stores made by extract: of several encoders (log-mel too), several corpora"
    layer.help = argparse.SUPPRESS  # all are read
    space.help = (
        "a space file whose task is predicted: shipped name or .py path; repeatable; text is fused for the first "
        f"alone; default: {' '.join(SPACES)}, the second where the corpus allows it"
    )
    change.help = (
        f"change one setting; repeatable; one of {', '.join(READ)}; stride, {STRIDE} under the preset cpu, is of "
        "frames: words are never averaged"
    )
    add_protocol_arguments(p)
    protocol, overlap = (next(a for a in p._actions if a.dest == name) for name in ("protocol", "allow_overlap"))
    protocol.help, overlap.help = f"of the first task: {protocol.help}", f"of the first task: {overlap.help}"
    told = (
        "of the BERT family in transformers, a hub name or a folder, which is taken as trained; or random: untrained, "
        "which every row says"
    )
    p.add_argument("--text-encoder", required=True, metavar="NAME", help=told)
    told = "a CTC model, by hub name or folder, for utterances with a text and no word times; default: pseudo-segments"
    p.add_argument("--aligner", metavar="MODEL", help=told)
    told = "show its neighbours; repeatable; default: frequent ones"
    p.add_argument("--word", action="append", default=[], help=told)
    p.set_defaults(verb=words)
