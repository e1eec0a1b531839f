"""The console command: every verb hands over to its room. Board and demo are here, the others in files of their own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bas import __version__
from bas.cli import audit, check_space, compare, corpus, dynamics, features, probe, protocol, shares, tune, words
from bas.cli.features import fill
from bas.cli.options import RUNS
from bas.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The console command. 0: done; 2: the user's input was refused, one line says why; 130: interrupted."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_args(given, argparse.Namespace(words=given))
        # In a log file a sentence is one line.
        result: int = arguments.verb(arguments, Console(soft_wrap=not sys.stdout.isatty()))
        return result
    except UserError as error:
        print(f"bas: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written: what is finished stays
        print(f"bas: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bas: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def board(arguments: argparse.Namespace, console: Console) -> int:
    if not arguments.runs.is_dir():
        raise UserError(f"{arguments.runs}: no such folder; `make demo` makes a first run")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(arguments.runs), "--port", str(arguments.port)]
    os.execv(sys.executable, command)  # TensorBoard takes this process's place, and its signals


def demo(arguments: argparse.Namespace, console: Console) -> int:
    from bas.corpora.readers.synthetic import synthesise
    from bas.encoders import NANO
    from bas.util.progress import bar

    root = RUNS / "corpora" / "demo"
    console.print("[bold]This demo's speech is synthetic (espeak-ng): its figures say nothing about real emotion.")
    with bar(console, "utterances") as progress:
        task = progress.add_task("synthesise", total=None)
        synthesise(root, on_progress=lambda done, total: progress.update(task, completed=done, total=total))
    workers = ["--workers", str(arguments.workers)] if arguments.workers else []
    store = fill(_parser().parse_args(["extract", "--corpus=demo", f"--root={root}", f"--encoder={NANO}"]), console)
    # Narrower and shorter than the preset: the demo is to end within minutes on two cores.
    changes = ["--set", "width=64", "--set", "epochs=12", "--name", "demo"]
    return main(["compare", "--features", str(store), *changes, *workers])


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other refusal."""
        raise UserError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("bas", description="Which downstream model should sit on frozen speech features?")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="command", required=True, metavar="VERB")

    def add(verb: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(verb, help=text, description=text)

    studies = (audit, tune, probe, dynamics, words, shares)
    for room in (corpus, features, protocol, compare, *studies, check_space):
        room.add_verbs(add)
    p = add("board", "TensorBoard over all runs")
    p.add_argument("--runs", type=Path, default=RUNS, help="default: %(default)s")
    p.add_argument("--port", type=int, default=6006, help="default: %(default)s")
    p.set_defaults(verb=board)

    p = add("demo", "the main job on synthetic speech: no data, no network")
    p.add_argument("--workers", type=int, help="processes of one thread each; default: one a core")
    p.set_defaults(verb=demo)
    return parser
