"""The verbs on feature stores, under `bas features`: info, verify, and those that make new ones."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bas import api
from bas.cli.options import add_experiment, path, read_command, tell_next, whole_number
from bas.corpora import READERS
from bas.corpora.columns import kept
from bas.errors import UserError
from bas.experiment import KEYS, load_experiment
from bas.util.device import DEVICES, choose_device
from bas.util.reading import read_lines


def info(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.info import describe

    table = Table.grid(padding=(0, 2))
    for name, text in describe(_store(arguments.folder), console).items():
        table.add_row(Text(name, style="bold"), Text(text, overflow="fold"))
    console.print(table)
    return 0


def verify(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.verify import verify as check
    from bas.util.progress import list_lines

    folder, device = _store(arguments.folder), choose_device(arguments.device)
    encoder = arguments.encoder or _own_encoder(arguments.folder)
    wrong: list[str] = []
    for finding in check(folder, console, device, arguments.sample, arguments.seed, encoder):
        verdict, style = ("WRONG", "red") if finding.problems else ("ok", "green")
        if not finding.checked:
            verdict, style = "not checked", "yellow"
        console.print(Text.assemble((f"{verdict:5}  ", style), f"{finding.check}: {finding.summary}"), soft_wrap=True)
        list_lines(finding.problems, console)
        if finding.advice:
            console.print(f"  -> {finding.advice}", highlight=False, markup=False, soft_wrap=True)
        wrong += [f"{finding.check}: {line}" for line in finding.problems]
    if wrong:
        count = "1 problem" if len(wrong) == 1 else f"{len(wrong)} problems, the first"
        raise UserError(f"{folder}: {count}: {wrong[0]}")
    return 0


def subset(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.assemble import subset as make

    layers = _layers(arguments.layers)
    if layers is None and arguments.ids is None:
        raise UserError("--layers or --ids: say what to keep")
    ids = None if arguments.ids is None else _ids(arguments.ids)
    make(arguments.folder, arguments.into, console, layers=layers, ids=ids)
    console.print(f"features: {arguments.into}, complete", highlight=False, markup=False, soft_wrap=True)
    return 0


def merge(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.assemble import merge as make

    root = arguments.root and arguments.root.expanduser()
    folders = [arguments.folder, *arguments.others]
    columns = {**(KEYS["corpus.map"].parse(arguments.map) if arguments.map else {}), **kept(arguments.keep)}
    make(folders, arguments.into, console, corpus=arguments.corpus, root=root, columns=columns)
    console.print(f"features: {arguments.into}, complete", highlight=False, markup=False, soft_wrap=True)
    return 0


def derive(arguments: argparse.Namespace, console: Console) -> int:
    from bas.encoders.aligner import Aligner
    from bas.features.corpus import corpus_of
    from bas.features.derive import beside
    from bas.features.derive import derive as make
    from bas.features.store import FeatureStore
    from bas.speech import audio
    from bas.speech.words import describe_unaligned, random_like, word_segments
    from bas.util.progress import bar

    folder: Path = arguments.folder
    store = FeatureStore(folder)
    corpus = corpus_of(store.info)
    utterances = [u for u in corpus.utterances if u.id in store]
    aligner = arguments.aligner and Aligner(arguments.aligner, choose_device(arguments.device))
    with bar(console, "utterances") as progress:
        task = progress.add_task("words", total=len(utterances))
        segments = word_segments(utterances, aligner, lambda: progress.advance(task))
    sources = ", ".join(f"{count} {source}" for source, count in segments.counts.items())
    console.print(f"{corpus.name}: words of {len(utterances)} utterances: {sources}", highlight=False, markup=False)
    for remark in describe_unaligned(segments.unaligned):
        console.print(f"{corpus.name}: {remark}", style="bold yellow", highlight=False, markup=False)
    if arguments.segments == "random":
        segments = random_like(segments, {u.id: audio.duration(u) for u in utterances})
    into: Path = arguments.into or beside(folder, segments.name, arguments.pooling)
    make(folder, into, segments, arguments.pooling, console)
    console.print(f"features: {into}, complete", highlight=False, markup=False, soft_wrap=True)
    tell_next(console, ["compare", "--features", str(into)])
    return 0


def append(arguments: argparse.Namespace, console: Console) -> int:
    from bas.features.metadata import append as make
    from bas.features.metadata import beside

    layers = _layers(arguments.layers)
    into: Path = arguments.into or beside(arguments.folder, arguments.fields, layers)
    make(arguments.folder, into, arguments.fields, console, layers)
    console.print(f"features: {into}, complete", highlight=False, markup=False, soft_wrap=True)
    tell_next(console, ["compare", "--features", str(into)])
    return 0


def import_(arguments: argparse.Namespace, console: Console) -> int:
    command = read_command(arguments, "import")
    folder = api.import_features(command.experiment, console=console)
    tell_next(console, command.words("compare") if command.file else ["compare", "--features", str(folder)])
    return 0


def _store(place: Path) -> Path:
    """A store's folder, which an experiment's file may name."""
    if place.suffix.lower() != ".toml":
        return place
    from bas.runs.choose import stores_of

    of_name = stores_of(load_experiment(place), str(place))
    if len(of_name) > 1:
        raise UserError(f"{place}: has several stores; name one of {', '.join(map(str, of_name.values()))}")
    return next(iter(of_name.values()))


def _own_encoder(place: Path) -> str | None:
    """The Python file that an experiment's file names as its encoder: not the store but the user names it there."""
    from bas.encoders import is_own

    name = load_experiment(place).encoder.name if place.suffix.lower() == ".toml" else None
    return name if name is not None and is_own(name) else None


def _layers(text: str) -> list[int] | None:
    if text == "all":
        return None
    parts = text.split(",")
    if not all(p.isdecimal() for p in parts):
        raise UserError(f"--layers {text!r}: must be all, or numbers such as 0,6,12")
    return [int(p) for p in parts]


def _ids(path: Path) -> list[str]:
    """Utterance ids, one a line."""
    try:
        return [id_ for _, line in read_lines(path) if (id_ := line.rstrip("\r\n"))]
    except UserError as error:
        raise UserError(f"--ids {error}") from error


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("features", "look into feature stores, verify them, make new ones of them")
    kinds = p.add_subparsers(dest="kind", required=True, metavar="VERB")

    def kind(verb: str, text: str) -> argparse.ArgumentParser:
        p = kinds.add_parser(verb, help=text, description=text, allow_abbrev=False)
        p.add_argument(
            "folder", type=path, metavar="FOLDER", help="a feature store; for info and verify also EXPERIMENT.toml"
        )
        return p

    p = kind("info", "what a store holds and what made it")
    p.set_defaults(verb=info)

    p = kind("verify", "hold a store against its checksums, its corpus and its encoder; exit code 2 where one differs")
    p.add_argument("--sample", type=whole_number, default=3, help="utterances to encode again; default: %(default)s")
    p.add_argument("--seed", type=int, default=0, help="which ones; default: %(default)s")
    p.add_argument(
        "--encoder",
        help="where the same encoder is now; default: as the store names it; Python is run only if named",
    )
    p.add_argument("--device", default="auto", choices=DEVICES, help="default: cuda where there is one")
    p.set_defaults(verb=verify)

    text = "features that another program made, as a store; the same command goes on after a kill"
    p = kinds.add_parser("import", help=text, description=text, allow_abbrev=False)
    add_experiment(p, "import")
    p.set_defaults(verb=import_)

    p = kind("subset", "a new store of some layers or utterances; the same command goes on after a kill")
    p.add_argument("--into", required=True, type=path, metavar="OUT", help="the new store's folder")
    p.add_argument("--layers", default="all", help="all (default), or numbers such as 0,6,12")
    p.add_argument("--ids", type=path, metavar="FILE", help="the utterances to keep, one id a line; default: all")
    p.set_defaults(verb=subset)

    p = kind("merge", "a new store of all utterances of several; the same command goes on after a kill")
    p.add_argument("others", nargs="+", type=path, metavar="FOLDER", help="others of the same encoder and layers")
    p.add_argument("--into", required=True, type=path, metavar="OUT", help="the new store's folder")
    p.add_argument("--corpus", choices=READERS, help="the reader that knows all; default: that of the stores")
    p.add_argument("--root", type=path, help="what it reads; default: that of the stores")
    p.add_argument("--map", metavar="FIELD=COLUMN,...", help="its columns of other names; default: that of the stores")
    keep_help = "columns of your own in its table to keep; default: those of the stores"
    p.add_argument("--keep", metavar="COLUMN", nargs="+", action="extend", default=[], help=keep_help)
    p.set_defaults(verb=merge)

    p = kind("append", "a new store with metadata beside each frame, one-hot; the same command goes on after a kill")
    p.add_argument("--fields", required=True, nargs="+", metavar="FIELD", help="some of sex, language, speaker")
    p.add_argument("--into", type=path, metavar="OUT", help="the new store's folder; default: FOLDER-with-FIELDS")
    p.add_argument("--layers", default="all", help="all (default), or numbers such as 0,6,12")
    p.set_defaults(verb=append)

    p = kind(
        "derive", "a new store of one row a word, or of the frames inside words; the same command goes on after a kill"
    )
    p.add_argument(
        "--pooling",
        required=True,
        choices=("mean", "centre", "inside"),
        help="of a word's frames: their mean (acoustic word embeddings), the centre frame, or each frame as it is",
    )
    p.add_argument(
        "--segments",
        default="words",
        choices=("words", "random"),
        help="words, or a control: random stretches of the same lengths; default: %(default)s",
    )
    p.add_argument(
        "--aligner",
        metavar="MODEL",
        help="a CTC model, by hub name or folder, for utterances with a text and no word times; default: those are cut "
        "into equal pseudo-segments",
    )
    p.add_argument("--into", type=path, metavar="OUT", help="the new store's folder; default: FOLDER-SEGMENTS-POOLING")
    p.add_argument("--device", default="auto", choices=DEVICES, help="the aligner's; default: cuda where there is one")
    p.set_defaults(verb=derive)
