"""The console command. Board and demo are here, the other verbs in files of their own."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bas import __version__, api
from bas.cli import checks, corpus, experiments, features, models, protocol, runs, work
from bas.cli.options import Parser, path, tell_next
from bas.cli.streams import close_output, complain, settle
from bas.errors import UserError
from bas.util.faults import describe
from bas.util.reading import check_name
from bas.util.terminal import Terminal


def main(argv: Sequence[str] | None = None) -> int:
    """The console command. 0: done; 130: interrupted.

    2: the user's input was refused, or the machine lacks something (disk, memory, rights); one line says what.
    """
    try:
        settle()
        code = _run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        complain(str(error))
        code = 2
    except KeyboardInterrupt:
        complain("interrupted; the same command goes on from here")
        code = 130
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
        complain(line)
        code = 2
    if (unwritten := close_output()) and code == 0:
        complain(str(describe(unwritten)))
        return 2
    return code


def _run(words: Sequence[str]) -> int:
    try:
        for name in (*words, os.getcwd()):
            check_name(name)
        arguments = parser().parse_args(words)
        # In a log file a sentence is one line.
        result: int = arguments.verb(arguments, Terminal(soft_wrap=not sys.stdout.isatty()))
        return result
    except SystemExit as stop:
        if stop.code == 1:  # so rich ends where nobody reads what it prints
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE), "standard output") from stop
        if (unwritten := close_output()) and unwritten.errno != errno.EPIPE:  # of argparse: nobody need read a help
            raise unwritten from stop
        return int(stop.code or 0)


def board(arguments: argparse.Namespace, console: Console) -> int:
    from bas.cli.board import show

    if not arguments.runs.is_dir():
        raise UserError(f"{arguments.runs}: no such folder; `bas demo` makes a first run")
    return show(arguments.runs, arguments.port, arguments.all)


def demo(arguments: argparse.Namespace, console: Console) -> int:
    from bas.corpora.readers.synthetic import synthesise
    from bas.encoders import NANO
    from bas.runs.choose import RUNS
    from bas.util.progress import bar

    root = RUNS / "corpora" / "demo"
    console.print(
        "This demo's speech is synthetic (espeak-ng): its figures say nothing about real emotion.", style="bold"
    )
    with bar(console, "utterances") as progress:
        task = progress.add_task("synthesise", total=None)
        synthesise(root, on_progress=lambda done, total: progress.update(task, completed=done, total=total))
    corpus = {"reader": "demo", "root": str(root)}
    # Narrower, shorter and with less to try than by default: the demo is to end within minutes on two cores.
    settings = {"width": 32, "epochs": 8, "committee": 2, "budget": 8}
    experiment = {"corpus": corpus, "encoder": {"name": NANO}, "settings": settings, "name": "demo"}
    store = api.extract(experiment, console=console)
    result = api.compare(experiment, console=console, features=store, workers=arguments.workers)
    tell_next(console, experiments.take(result))
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    about = "Which downstream model should sit on frozen speech features?"
    whole = Parser("bas", description=about, allow_abbrev=False)
    whole.add_argument("--version", action="version", version=__version__)
    verbs = whole.add_subparsers(dest="command", required=True, metavar="VERB")

    def add(verb: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(verb, help=text, description=text, allow_abbrev=False)

    for room in (corpus, features, protocol, experiments, work, models, runs, checks):
        room.add_verbs(add)
    p = add("board", "TensorBoard over all runs")
    p.add_argument("--runs", type=path, default=Path("runs"), help="default: %(default)s")
    p.add_argument("--port", type=int, default=6006, help="default: %(default)s")
    p.add_argument("--all", action="store_true", help="every search and training, not only the rows of tables")
    p.set_defaults(verb=board)

    p = add("demo", "the main job on synthetic speech: no data, no network")
    p.add_argument("--workers", type=int, help="processes of one thread each; default: one a core")
    p.set_defaults(verb=demo)
    return whole
