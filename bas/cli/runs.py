"""The verbs on runs, under `bas runs`: list them, show one again, set two side by side."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from bas import api
from bas.cli.options import path
from bas.errors import UserError


def listing(arguments: argparse.Namespace, console: Console) -> int:
    from bas.report.table import rich_table
    from bas.runs.choose import STUDY

    if not arguments.runs.is_dir():
        raise UserError(f"{arguments.runs}: no such folder; `bas demo` makes a first run")
    folders = [study.parent for study in sorted(arguments.runs.glob(f"*/{STUDY}"))]
    if not folders:
        raise UserError(f"{arguments.runs}: no run in it; `bas demo` makes a first one")
    rows, faults = [], []
    for folder in folders:
        try:
            rows.append([folder.name, *_described(folder)])
        except UserError as error:
            rows.append([folder.name, *["–"] * 3, "not readable, see below"])
            faults.append(str(error))
    console.print(rich_table("", ["run", "made by", "corpus", "encoder, layer", "result"], rows))
    for fault in faults:
        console.print(fault, style="bold yellow", highlight=False)
    return 0


def _described(folder: Path) -> list[str]:
    """What made a run, on what, and the headline of each row of a comparison."""
    from bas.report.format import encoder_name, spread
    from bas.report.results import FILE, Comparison
    from bas.runs.choose import STUDY, words_of
    from bas.runs.run import OTHER
    from bas.util.files import read_record

    verb = f"bas {words_of(read_record(folder / STUDY, OTHER)['verb'])}"
    if not (folder / FILE).exists():
        return [verb, *["–"] * 2, "not complete"]
    results = api.load_results(folder)
    if not isinstance(results, Comparison):
        return [verb, *["–"] * 2, "complete"]
    scores = ", ".join(f"{row.row} {spread(row.metrics[results.headline])}" for row in results.rows)
    marked = ", MARKED" if results.protocol.marks else ""
    where = f"{encoder_name(results.encoder.name)}, {results.layer}"
    return [verb, results.corpus, where, f"{results.headline}: {scores}{marked}"]


def show(arguments: argparse.Namespace, console: Console) -> int:
    from bas.report.comparison_page import show as show_comparison
    from bas.report.results import FILE, Comparison
    from bas.util.reading import read_text

    if not (arguments.run / FILE).exists():
        raise UserError(f"{arguments.run}: no {FILE}: not a run, or not complete; give its command again")
    results = api.load_results(arguments.run)
    if isinstance(results, Comparison) and results.study == "compare":
        show_comparison(results, console)
    else:
        console.print(read_text(arguments.run / "table.md"), highlight=False, markup=False, soft_wrap=True)
    return 0


def compare(arguments: argparse.Namespace, console: Console) -> int:
    api.between(arguments.first, arguments.second, console=console)
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("runs", "list runs, show the table of one again, set two side by side")
    kinds = p.add_subparsers(dest="kind", required=True, metavar="VERB")

    def kind(verb: str, text: str) -> argparse.ArgumentParser:
        return kinds.add_parser(verb, help=text, description=text, allow_abbrev=False)

    p = kind("list", "every run, what made it, and the metrics of a comparison's rows")
    p.add_argument("--runs", type=path, default=Path("runs"), help="default: %(default)s")
    p.set_defaults(verb=listing)

    p = kind("show", "the table of a finished run, again")
    p.add_argument("run", type=path, metavar="RUN", help="the folder of a run")
    p.set_defaults(verb=show)

    p = kind("compare", "the rows of two comparisons on the same folds, paired: another encoder, state or setting")
    p.add_argument("first", type=path, metavar="RUN", help="the folder of a run of compare")
    p.add_argument("second", type=path, metavar="RUN", help="that of another one on the same folds")
    p.set_defaults(verb=compare)
