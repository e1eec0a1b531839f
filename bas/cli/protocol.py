"""The verbs on splits, under `bas protocol`: make, show, check, diff."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bas.cli.experiments import add_cost
from bas.cli.options import Work, add_experiment, path, read_command, tell_next
from bas.corpora import Corpus, open_corpus
from bas.corpora.labels import relabel
from bas.corpora.selection import select
from bas.errors import UserError
from bas.experiment import SPACES, Experiment, require

FEW = 4  # a part with more units than this shows their number only

if TYPE_CHECKING:
    from bas.protocols import Protocol
    from bas.tasks import Task


def make(arguments: argparse.Namespace, console: Console) -> int:
    from bas.protocols import make as make_protocol
    from bas.protocols import read

    command = read_command(arguments, "protocol")
    split = command.experiment.protocol
    corpus, task = _open(command.experiment, "protocol")
    _tell_reading(corpus, console)
    protocol = make_protocol(corpus, task, split.rule, split.seed, allowed=split.allow_overlap)
    path: Path = arguments.to or Path("runs") / "protocols" / f"{protocol.name}.json"
    if path.suffix != ".json":
        raise UserError(f"--to {path}: must end in .json")
    if path.exists() or path.is_symlink():
        try:
            there = read(path).hash
        except UserError:
            there = "damaged, or no protocol"
        if there != protocol.hash:
            raise UserError(f"{path}: another split is there ({there}); name another file with --to")
    protocol.write(path)
    _show(protocol, corpus, console)
    console.print(f"protocol: {path}", highlight=False, markup=False, soft_wrap=True)
    kept = ("labels", "spaces", *(["protocol.allow_overlap"] if protocol.marks else []))
    features = {} if command.file else {"features": ["..."]}
    tell_next(console, command.words("compare", kept, **features, **{"protocol.rule": [str(path)]}))
    return 0


def show(arguments: argparse.Namespace, console: Console) -> int:
    from bas.protocols import read

    _show(read(arguments.file), None, console)
    console.print("all of it as written; `bas protocol check` holds it against the corpus", style="dim")
    return 0


def check(arguments: argparse.Namespace, console: Console) -> int:
    from bas.protocols import make as make_protocol
    from bas.protocols import read

    choice = read_command(arguments, "check").experiment
    corpus, task = _open(choice, "check")
    _tell_reading(corpus, console)
    there = read(arguments.file)
    protocol = make_protocol(corpus, task, str(arguments.file), allowed=choice.protocol.allow_overlap)
    _show(protocol, corpus, console)
    if protocol.hash != there.hash:
        drawn = not all(fold.valid for fold in there.folds)
        why = "with valid drawn from fit" if drawn else "without what is left out"
        message = f"{why} its hash is {protocol.hash}, which results name; as written {there.hash}"
        console.print(f"note: {message}", highlight=False, markup=False)
    leaks = "forbidden overlap, marked" if protocol.marks else "no forbidden overlap"
    unread = [note for note in protocol.notes if "cannot be read" in note]
    alike = "the recordings were not all compared" if unread else "no recording under two names in two parts"
    console.print(f"ok: {leaks}; {alike}", highlight=False, markup=False)
    return 0


def diff(arguments: argparse.Namespace, console: Console) -> int:
    from bas.protocols import read
    from bas.protocols.diff import differences

    one, other = read(arguments.file), read(arguments.other)
    lines = differences(one, other)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if one.hash != other.hash else 0


def _open(choice: Experiment, verb: str) -> tuple[Corpus, Task]:
    from bas.runs.run import common_task
    from bas.runs.spaces import load_space

    require(choice, verb, "corpus.reader", "corpus.root")
    spaces = [load_space(name) for name in choice.spaces or SPACES[verb]]
    root = Path(str(choice.corpus.root)).expanduser()
    corpus = open_corpus(str(choice.corpus.reader), root, choice.corpus.accept_truncated, choice.columns)
    corpus = relabel(corpus, choice.labels, choice.corpus.keep) if choice.labels else corpus
    return select(corpus, choice.corpus.where), common_task(spaces)


def _tell_reading(corpus: Corpus, console: Console) -> None:
    for line in filter(None, (corpus.note, *corpus.remarks)):
        console.print(f"{corpus.name}: {line}", highlight=False, markup=False, soft_wrap=True)


def _show(protocol: Protocol, corpus: Corpus | None, console: Console) -> None:
    """Print name, hash and rule, and a row for each part; with a corpus, also its units, sexes and rarest class."""
    from bas.protocols import field_of
    from bas.report.notes import tell_protocol
    from bas.report.table import rich_table

    utterance_of = {u.id: u for u in corpus.utterances} if corpus else {}
    labels = {u.label for u in utterance_of.values() if u.label is not None}
    rows = []
    for index, fold in enumerate(protocol.folds):
        for part, ids in fold.parts().items():
            row = [str(index), part, str(len(ids))]
            if utterance_of:
                of_part = [utterance_of[i] for i in ids]
                units = {value for u in of_part if (value := field_of(u, protocol.unit)) is not None}
                sexes, classes = Counter(u.sex or "unknown" for u in of_part), Counter(u.label for u in of_part)
                rarest = min(sorted(labels), key=lambda name: classes[name]) if labels else ""
                row += [
                    ", ".join(sorted(units)) if len(units) <= FEW else str(len(units)),
                    ", ".join(f"{name} {count}" for name, count in sorted(sexes.items())),
                    f"{rarest} {classes[rarest]}",
                ]
            rows.append(row)
    heading = ["fold", "part", "utterances", *([protocol.unit, "sex", "rarest label"] if utterance_of else [])]
    console.print(rich_table(f"{protocol.description}, seed {protocol.seed}", heading, rows))
    tell_protocol(protocol, console)


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("protocol", "make splits, look into them, check them, compare them; what a leak is worth")
    kinds = p.add_subparsers(dest="kind", required=True, metavar="VERB")

    def kind(verb: str, text: str, function: Work) -> argparse.ArgumentParser:
        p = kinds.add_parser(verb, help=text, description=text, allow_abbrev=False)
        p.set_defaults(verb=function)
        return p

    p = kind("make", "split a corpus by a rule and write the split down", make)
    add_experiment(p, "protocol")
    p.add_argument("--to", type=path, metavar="FILE.json", help="default: runs/protocols/NAME.json")

    p = kind("show", "what a protocol's file holds", show)
    p.add_argument("file", type=path, metavar="FILE.json")

    p = kind("check", "hold a protocol's file against its corpus; exit code 2 where it leaks or does not fit", check)
    p.add_argument("file", type=path, metavar="FILE.json")
    add_experiment(p, "check")

    p = kind("diff", "which utterances are in other parts in another file; exit code 1 if any is", diff)
    p.add_argument("file", type=path, metavar="FILE.json")
    p.add_argument("other", type=path, metavar="OTHER.json")

    add_cost(kind)
