"""The verbs that carry out an experiment: each passes the command line's experiment to its function in `bas.api`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bas import api
from bas.cli.options import Command, Work, add_experiment, read_command, tell_next
from bas.experiment import SHARED, SPACES

if TYPE_CHECKING:
    from bas.report.results import Comparison

VERBS = {
    "extract": "a frozen encoder over a corpus, into HDF5 shards",
    "search": "search each space in every fold; print the chosen blocks",
    "retrain": "search, then make and score the rows of what was found",
    "compare": "search, retrain, train the baselines; the table with its statistics",
    "audit": "train every architecture of a space: did the search work, and did the choice matter?",
    "tune": "Optuna over blocks and settings, chosen on valid in every fold: a baseline for the search",
    "probe": "which layer: every hidden state and their mixes, probed by linear and dense heads",
    "dynamics": "fine-tune an encoder and measure how its embeddings change, checkpoint by checkpoint",
    "words": "acoustic word embeddings against raw frames and controls, alone and with text, state by state",
    "shares": "how many listeners heard each emotion: encoder x attention, and what attention looks at",
}
COST = "train the same models under a leaky and a clean split: what was the leak worth?"


def carry_out(verb: str, arguments: argparse.Namespace, console: Console) -> int:
    command = read_command(arguments, verb)
    if getattr(arguments, "prepare", False):
        folder = api.prepare(verb, command.experiment, console=console)
        tell_next(console, ["work", str(folder)])
        return 0
    more = {"part": arguments.part} if verb == "extract" else {}
    result = getattr(api, verb)(command.experiment, console=console, **more)
    tell_next(console, _next(verb, command, result))
    return 0


def _next(verb: str, command: Command, result: Any) -> list[str]:
    """The command to run next."""
    if verb == "extract" and not (result / "store.json").exists():
        return command.words("extract")
    if verb == "extract":
        return command.words("compare") if command.file else ["compare", "--features", str(result)]
    if verb in ("search", "retrain"):
        return command.words({"search": "retrain", "retrain": "compare"}[verb])
    if verb in ("probe", "words", "shares"):
        from bas.features.derive import beside
        from bas.runs.choose import stores_of

        choice = command.experiment
        first = next(iter(stores_of(choice, verb).values()))
        of = ("labels", "corpus.keep", "corpus.where")  # whose labels, and which utterances
        if verb == "probe":
            return command.words("search", ("spaces", *of), features=[str(first)], layer=["best"])
        if verb == "words":
            means = beside(first, "words", "mean")
            return command.words("compare", of, features=[str(means)], layer=["best"])
        layer = {"layer": [str(choice.layer[0])]} if choice.layer else {}
        spaces = choice.spaces or SPACES["shares"]  # another preset's has no search of its own
        return command.words("compare", ("preset", *of), features=[str(first)], spaces=spaces, **layer)
    if verb == "compare":
        return take(result)
    return ["board"]


def take(result: Comparison) -> list[str]:
    """The command that makes a model of the row to take; the board where there is none, or recordings do not do."""
    from bas.report.answer import answer
    from bas.runs.choose import RUNS

    row = answer(result).row
    if row is None or not result.from_recordings:
        return ["board"]
    return ["export", str(RUNS / result.run), "--row", row]


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    for verb, text in VERBS.items():
        p = add(verb, text)
        add_experiment(p, verb)
        if verb == "extract":
            part = "the i-th of N fixed shares of the shards, i from 0, on any host; the last one completes the store"
            p.add_argument("--part", metavar="i/N", help=part)
        if verb in SHARED:
            p.add_argument("--prepare", action="store_true", help="begin the run and train nothing: `bas work` does it")
        p.set_defaults(verb=partial(carry_out, verb))


def add_cost(kind: Callable[[str, str, Work], argparse.ArgumentParser]) -> None:
    """kind: makes the parser of a verb under `protocol` from its name, what it does and what does it."""
    add_experiment(kind("cost", COST, partial(carry_out, "cost")), "cost")
