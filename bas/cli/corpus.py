"""The verbs on corpora, under `bas corpus`: show, export."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bas.cli.options import Work, add_experiment, path, read_command, tell_next
from bas.corpora import Corpus, audformat, export, open_corpus
from bas.corpora.labels import relabel
from bas.corpora.selection import select
from bas.errors import UserError
from bas.experiment import require

FIELDS = ("label", "speaker", "sex", "session", "script", "split", "language", "text", "shares", "words", "end")
LISTED = 8  # a field with more values than this shows their number only
UNKNOWN = "not known"


def show(arguments: argparse.Namespace, console: Console) -> int:
    corpus = _open(arguments)
    utterances = corpus.utterances
    title = f"{corpus.name}: {len(utterances)} utterances in {len({u.audio for u in utterances})} recordings"
    names = (*FIELDS, *corpus.own)
    console.print(_table(title, ("field", "known for", "values", ""), [_field(corpus, name) for name in names]))
    console.print(_by_sex(corpus))
    for line in _lines(corpus):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def write(arguments: argparse.Namespace, console: Console) -> int:
    out: Path = arguments.to.expanduser()
    if out.exists() or out.is_symlink():
        raise UserError(f"--to {out}: is there already; name another, or move it away")
    if out.suffix not in ("", *export.SUFFIXES):
        raise UserError(f"--to {out}: must end in {' or '.join(export.SUFFIXES)}, or be a folder's name without a dot")
    corpus = _open(arguments)
    remarks: tuple[str, ...] = ()
    if out.suffix:
        remarks = export.write(corpus, out)
    else:
        audformat.write(corpus, out)
    reader = "manifest" if out.suffix else "audformat"
    message = (
        f"{reader}: {out}, {len(corpus.utterances)} utterances of {corpus.name}; the recordings stay where they are"
    )
    console.print(message, highlight=False, markup=False, soft_wrap=True)
    for remark in remarks:
        console.print(f"note: {remark}", highlight=False, markup=False, soft_wrap=True)
    if corpus.note:
        console.print(f"note: {corpus.note}; the table itself does not say so", highlight=False, markup=False)
    tell_next(console, ["corpus", "show", "--corpus", reader, "--root", str(out)])
    return 0


def _open(arguments: argparse.Namespace) -> Corpus:
    choice = read_command(arguments, "corpus").experiment
    require(choice, "corpus", "corpus.reader", "corpus.root")
    corpus = open_corpus(str(choice.corpus.reader), Path(str(choice.corpus.root)).expanduser(), columns=choice.columns)
    corpus = relabel(corpus, choice.labels, choice.corpus.keep) if choice.labels else corpus
    return select(corpus, choice.corpus.where)


def _field(corpus: Corpus, name: str) -> tuple[str, ...]:
    """A row of the table: a field's name, how many utterances have it, how many values it has, and a list of these."""
    given = [value for u in corpus.utterances if (value := u.get(name)) not in (None, ())]
    if name in ("shares", "words", "end"):  # of each utterance alone
        return ("start or end" if name == "end" else name, str(len(given)), "", "")
    counts = Counter(given)
    if name == "speaker":
        sexes = {(u.speaker, u.sex) for u in corpus.utterances if u.speaker is not None}
        values = _listed(Counter(sex or "sex not known" for _, sex in sexes).items())
    else:
        values = _listed(counts.items()) if len(counts) <= LISTED and name != "text" else ""
    return name, str(len(given)), str(len(counts)), values


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{value} {count}" for value, count in sorted(counts))


def _by_sex(corpus: Corpus) -> Table:
    counts = Counter((u.label or UNKNOWN, u.sex or UNKNOWN) for u in corpus.utterances)
    sexes = sorted({sex for _, sex in counts})
    labels = Counter(u.label or UNKNOWN for u in corpus.utterances).most_common()
    rows = [(label, str(count), *(str(counts[label, sex]) for sex in sexes)) for label, count in labels]
    return _table("", ("label", "utterances", *(f"sex {sex}" if sex == UNKNOWN else sex for sex in sexes)), rows)


def _lines(corpus: Corpus) -> list[str]:
    lines = [_scoring(corpus), "duration: not known, no recording was opened"]
    if corpus.note:
        lines.append(f"note: {corpus.note}")
    return [*lines, *(f"note: {remark}" for remark in corpus.remarks), *(f"missing: {gap}" for gap in corpus.gaps)]


def _scoring(corpus: Corpus) -> str:
    """How it will be scored, or why it is not, as `protocol make` says (which compares the recordings as well)."""
    from bas.protocols import make
    from bas.tasks import EMOTION, Shares

    task = Shares() if corpus.labelled("shares") and not corpus.labelled() else EMOTION
    try:
        protocol = make(corpus, task, compare=None)
    except UserError as error:
        return f"not scored yet: {error}"
    field, _, folds = protocol.rule.partition(":")
    rule = f"{folds} folds of whole {field}s" if folds else f"leave one {field} out"
    if field == "own":
        rule = "its own train, valid and test" + ", the published ones" * corpus.published
    return f"scored by: {protocol.rule} ({rule}), {corpus.headlines[0]}, compared over {protocol.unit}s"


def _table(title: str, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title or None, title_justify="left")
    for index, column in enumerate(heading):
        table.add_column(column, justify="right" if column and index else "left")
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    return table


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("corpus", "look into a corpus, write it for other tools")
    kinds = p.add_subparsers(dest="kind", required=True, metavar="VERB")

    def kind(verb: str, text: str, function: Work) -> argparse.ArgumentParser:
        p = kinds.add_parser(verb, help=text, description=text, allow_abbrev=False)
        add_experiment(p, "corpus")
        p.set_defaults(verb=function)
        return p

    kind("show", "what a corpus holds, what is not known, and how it will be scored", show)
    p = kind("export", "write a corpus as a manifest (.csv, .jsonl) or as an audformat database (a folder)", write)
    p.add_argument("--to", required=True, type=path, metavar="OUT", help="a new .csv or .jsonl file, or a new folder")
