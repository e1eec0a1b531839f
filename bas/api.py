"""Every verb as a function of an experiment: `bas.compare("emodb.toml", layer="mix", settings={"epochs": 5})`.

An experiment is a file's path, a mapping of the same shape, or an `Experiment`. Keyword arguments change single keys of
it, those of a table as a mapping: `protocol={"rule": "speaker:5"}`. console: where progress and tables are shown; None:
nowhere. Folders are those of the command line, under `runs/` in the working directory; every run's holds the
experiment that repeats it, experiment.toml.

Each raises UserError, in one line, for whatever is refused, before anything is trained; earlier results stay.
Imports nothing heavy: each function does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bas.begin import begin_audit, begin_run, begin_tuning, choice_of, open_one, prepare
from bas.begun import work
from bas.errors import UserError
from bas.experiment import (
    SPACES,
    Experiment,
    Source,
    load_experiment,
    require,
    tuning_of,
)
from bas.finished import between, export, load, load_results, to_onnx
from bas.util.places import short_name, short_place
from bas.util.terminal import console_of, say

if TYPE_CHECKING:
    from bas.corpora import Corpus
    from bas.report.results import Comparison
    from bas.runs.results import SearchResult, TrainingResult
    from bas.studies.audit.results import Audit
    from bas.studies.dynamics.results import Dynamics
    from bas.studies.leak.results import Leak
    from bas.studies.probe.results import Probe
    from bas.studies.shares.results import ShareStudy
    from bas.studies.tune.results import Tuning
    from bas.studies.words.results import Words

__all__ = [
    "Experiment",
    "audit",
    "between",
    "compare",
    "cost",
    "dynamics",
    "export",
    "extract",
    "import_features",
    "load",
    "load_experiment",
    "load_results",
    "prepare",
    "probe",
    "retrain",
    "search",
    "shares",
    "to_onnx",
    "tune",
    "words",
    "work",
]


def extract(experiment: Source, *, part: str | None = None, console: Console | None = None, **changes: Any) -> Path:
    """A frozen encoder over a corpus, into the shards of a feature store; its folder. What is there stays.

    part: "i/N": the i-th of N fixed shares of the shards alone, i from 0, on any host that sees the folder; the last
    part, or a call without one, completes the store.
    """
    from bas.corpora import open_corpus
    from bas.encoders import Encoder, Padded, load_encoder
    from bas.features.extract import Group, fill
    from bas.features.plan import Request
    from bas.features.store import FeatureStore
    from bas.runs import choose
    from bas.util.device import choose_device
    from bas.util.part import Part

    choice, console = choice_of("extract", experiment, changes), console_of(console)
    share = None if part is None else Part.of_text(part)
    require(choice, "extract", "corpus.reader", "corpus.root", "encoder.name")
    if choice.encoder.source is not None:
        raise UserError("extract: encoder.source names features that are there already: use `bas features import`")
    if len(choice.features) > 1:
        raise UserError(f"extract: fills one store of {', '.join(choice.features)}; name it with --features")
    of, reader, root = choice.encoder, str(choice.corpus.reader), Path(str(choice.corpus.root)).expanduser()
    whole = open_corpus(reader, root, choice.corpus.accept_truncated, choice.columns)
    corpus, left_out = _selected(whole, choice)
    group = Group.of_torchrun() if share is None else Group.of_torchrun().of_part(share)
    if group.rank:  # the first process speaks for all
        console = console_of(None)
    for line in filter(None, (corpus.note, *corpus.remarks, *corpus.gaps)):
        say(console, f"{corpus.name}: {line}")
    encoder: Encoder = load_encoder(
        str(of.name),
        choose_device(choice.device, group.local_rank),
        of.revision,
        precision=of.precision,
        real_length=of.real_length,
    )
    if of.pad_audio is not None:
        encoder = Padded(encoder, of.pad_audio)
    folder = Path(choice.features[0]).expanduser() if choice.features else choose.store_folder(corpus, str(of.name))
    layers = None if of.layers == "all" else list(of.layers)
    truncated = choice.corpus.accept_truncated
    request = Request(
        reader,
        root,
        layers,
        of.dtype,
        longest=of.longest,
        truncated=truncated,
        columns=choice.columns,
        left_out=left_out,
    )
    if not fill(whole, encoder, folder, request, console, group, of.batch_seconds):
        say(console, f"features: {folder}, part {part} is done; the last part, or the command without it, completes it")
        return folder
    _say_skipped(FeatureStore(folder).info.skipped, console, "; the same command tries them again")
    say(console, f"features: {folder}, complete")
    return folder


def import_features(experiment: Source, *, console: Console | None = None, **changes: Any) -> Path:
    """Arrays that another program made of a corpus, as a feature store; its folder. The verb `features import`."""
    from bas.corpora import open_corpus
    from bas.features.importing import import_features as import_into
    from bas.features.plan import Request
    from bas.features.sources import open_source
    from bas.runs import choose

    choice, console = choice_of("import", experiment, changes), console_of(console)
    needed = ("corpus.reader", "corpus.root", "encoder.name", "encoder.source", "encoder.frame_rate")
    require(choice, "import", *needed)
    if len(choice.features) > 1:
        raise UserError(f"import: fills one store of {', '.join(choice.features)}; name it with --features")
    of, reader, root = choice.encoder, str(choice.corpus.reader), Path(str(choice.corpus.root)).expanduser()
    whole = open_corpus(reader, root, choice.corpus.accept_truncated, choice.columns)
    corpus, left_out = _selected(whole, choice)
    for line in filter(None, (corpus.note, *corpus.remarks, *corpus.gaps)):
        say(console, f"{corpus.name}: {line}")
    folder = Path(choice.features[0]).expanduser() if choice.features else choose.store_folder(corpus, str(of.name))
    truncated, columns = choice.corpus.accept_truncated, choice.columns
    request = Request(reader, root, dtype=of.dtype, truncated=truncated, columns=columns, left_out=left_out)
    with open_source(Path(str(of.source)).expanduser()) as source:
        store = import_into(whole, source, folder, request, str(of.name), float(of.frame_rate or 0), console)
    _say_skipped(store.info.skipped, console)
    say(console, f"features: {folder}, complete")
    return folder


def search(
    experiment: Source, *, console: Console | None = None, **changes: Any
) -> dict[str, dict[tuple[int, int], SearchResult]]:
    """Search each space in every fold: by space, then by fold and seed, the blocks that were chosen."""
    from bas.runs.results import searched
    from bas.studies.compare import study

    with begin_run("search", experiment, console, changes) as (run, do, _):
        do(lambda pool, memory: study.train(run, "search", pool, memory))
        return {space: searched(run, space) for space in run.spaces}


def retrain(
    experiment: Source, *, console: Console | None = None, **changes: Any
) -> dict[str, dict[tuple[int, int], TrainingResult]]:
    """Search, then make the row of what was found and score it: by space, then by fold and seed, the trainings."""
    from bas.runs.results import retrained
    from bas.studies.compare import study
    from bas.studies.compare.page import show_retrained

    with begin_run("retrain", experiment, console, changes) as (run, do, console):
        do(lambda pool, memory: study.train(run, "retrain", pool, memory))
        show_retrained(run, console)
        return {space: retrained(run, space) for space in run.spaces}


def compare(experiment: Source, *, console: Console | None = None, **changes: Any) -> Comparison:
    """Search, retrain, train the baselines; the table with its statistics."""
    from bas.report.webpage import FILE
    from bas.studies.compare import study

    with begin_run("compare", experiment, console, changes) as (run, do, console):
        do(lambda pool, memory: study.train(run, "compare", pool, memory))
        results = study.conclude(run, console)
    say(console, f"report: {run.folder}/{FILE}, which a browser opens; its numbers: results.json beside it")
    return results


def audit(experiment: Source, *, console: Console | None = None, **changes: Any) -> Audit:
    """Train every architecture of a space: did the search work, and did the choice matter?"""
    from bas.studies.audit import study

    with begin_audit(experiment, console, changes) as (begun, do, console):
        do(lambda pool, memory: study.train(begun, pool, memory))
        result = study.conclude(begun, console)
    folder = begun.run.folder
    say(console, f"report: {folder}/table.md, as data: {folder}/results.json")
    for name in begun.run.spaces:
        say(console, f"every architecture, fold and seed: {folder}/{name}.parquet and .csv")
    return result


def tune(experiment: Source, *, console: Console | None = None, **changes: Any) -> Tuning:
    """Optuna over blocks and settings, chosen on valid in every fold: a baseline for the search."""
    from bas.studies.tune import study

    with begin_tuning(experiment, console, changes) as (run, of, do, console):
        do(lambda pool, memory: study.train(run, of.choose, of.trials, pool, memory))
        result = study.conclude(run, of.choose, of.trials, console)
    say(console, f"table: {run.folder}/table.md, as data: {run.folder}/results.json")
    return result


def cost(experiment: Source, *, console: Console | None = None, **changes: Any) -> Leak:
    """Train the same models under a leaky and a clean split: what was the leak worth?"""
    from bas.runs import choose
    from bas.studies.leak.study import measure

    choice, inputs, console = open_one("cost", experiment, console, changes)
    folder, workers = choose.run_folder(choice, "leak-", inputs), choose.workers_of(choice.workers, inputs.plan.device)
    with choose.work_in(folder, "cost", choose.resolve(choice, "cost", folder, [inputs])):
        result = measure(folder, inputs, choice.cost.clean, choice.cost.leaky, workers, console, choice.memory)
    say(console, f"table: {folder}/table.md, as data: {folder}/results.json")
    return result


def probe(experiment: Source, *, console: Console | None = None, **changes: Any) -> Probe:
    """Which layer: every hidden state and their mixes, probed by linear and dense heads."""
    from bas.runs import choose
    from bas.studies.probe.study import StoreChoice, carry_out

    choice, console = choice_of("probe", experiment, changes), console_of(console)
    stores = []
    for name, features in choose.stores_of(choice, "probe").items():
        opened = choose.open_store(choice, "probe", features)
        inputs = choose.inputs_of(choice, "probe", opened, layer=choose.every_state(opened))
        stores.append(StoreChoice(name, inputs, choose.split_of(choice, inputs)))
    folder = choose.study_folder(choice, "probe", [one.name for one in stores])
    resolved = choose.resolve(choice, "probe", folder, [one.inputs for one in stores])
    workers = choose.workers_of(choice.workers, resolved.device)
    with choose.work_in(folder, "probe", resolved):
        result = carry_out(folder, stores, choice.probe.percents, workers, console, choice.memory)
    _say_report(folder, console)
    return result


def words(experiment: Source, *, console: Console | None = None, **changes: Any) -> Words:
    """Acoustic word embeddings against raw frames and controls, alone and with text, state by state."""
    from bas.runs import choose
    from bas.studies.words.study import StoreChoice, carry_out
    from bas.studies.words.tasks import tasks_of

    choice, console = choice_of("words", experiment, changes), console_of(console)
    require(choice, "words", "words.text_encoder")
    text_encoder = short_name(str(choice.words.text_encoder))
    stores, left_out = [], []
    for name, features in choose.stores_of(choice, "words").items():
        opened = choose.open_store(choice, "words", features)
        if opened.store.info.derived:
            raise UserError(f"--features {features}: is itself derived; name the store of frames that it was made of")
        tasks, missing = tasks_of(choice, opened)
        stores.append(StoreChoice(name, tasks))
        left_out += [f"{name}: {line}" for line in missing]
    for line in left_out:
        console.print(f"left out of {line}", style="bold yellow", highlight=False, markup=False)
    folder = choose.study_folder(choice, "words", [one.name for one in stores])
    resolved = choose.resolve(choice, "words", folder, [one.tasks[0][1] for one in stores])
    resolved = replace(resolved, spaces=choice.spaces or SPACES["words"])
    resolved = replace(resolved, words=replace(choice.words, text_encoder=text_encoder))
    workers, aligner, shown = (
        choose.workers_of(choice.workers, resolved.device),
        choice.words.aligner,
        choice.words.shown,
    )
    with choose.work_in(folder, "words", resolved):
        result = carry_out(folder, stores, text_encoder, aligner, shown, left_out, workers, console, choice.memory)
    _say_report(folder, console)
    return result


def shares(experiment: Source, *, console: Console | None = None, **changes: Any) -> ShareStudy:
    """How many listeners heard each emotion: encoder x attention, and what attention looks at."""
    from bas.runs import choose
    from bas.studies.shares.study import StoreChoice, carry_out

    choice, console = choice_of("shares", experiment, changes), console_of(console)
    of_name = choose.stores_of(choice, "shares")
    layers = choice.layer or (None,)
    if len(layers) not in (1, len(of_name)):
        named = " ".join(map(str, layers))
        raise UserError(f"--layer {named}: one for all of {len(of_name)} stores, or one for each")
    stores = []
    for (name, features), layer in zip(of_name.items(), layers * (len(of_name) // len(layers)), strict=True):
        opened = choose.open_store(choice, "shares", features)
        if derived := opened.store.info.derived:
            raise UserError(f"--features {features}: is derived ({derived}); name the store that it was made of")
        inputs = choose.inputs_of(replace(choice, layer=()), "shares", opened, layer=layer)
        stores.append(StoreChoice(name, inputs, choose.split_of(choice, inputs)))
    folder = choose.study_folder(choice, "shares", list(of_name))
    resolved = choose.resolve(choice, "shares", folder, [one.inputs for one in stores])
    fields, workers = list(dict.fromkeys(choice.shares.metadata)), choose.workers_of(choice.workers, resolved.device)
    with choose.work_in(folder, "shares", resolved):
        result = carry_out(folder, stores, fields, workers, console, choice.memory)
    _say_report(folder, console)
    return result


def dynamics(experiment: Source, *, console: Console | None = None, **changes: Any) -> Dynamics:
    """Fine-tune an encoder and tell what becomes of its embeddings, checkpoint by checkpoint."""
    from bas.corpora.labels import is_table, place_of
    from bas.runs import choose
    from bas.studies.dynamics.study import LOUDNESS, Plan, carry_out
    from bas.util.device import choose_device

    choice, console = choice_of("dynamics", experiment, changes), console_of(console)
    require(choice, "dynamics", "corpus.reader", "corpus.root", "encoder.name")
    of, reader, encoder = choice.dynamics, str(choice.corpus.reader), str(choice.encoder.name)
    root = Path(str(choice.corpus.root)).expanduser().resolve()
    settings = tuning_of(choice)
    device = choose_device(choice.device).type
    plan = Plan(
        corpus=reader,
        root=str(root),
        truncated=choice.corpus.accept_truncated,
        encoder=encoder,
        revision=choice.encoder.revision,
        real_length=choice.encoder.real_length,
        labels=place_of(choice.labels),
        protocol=choice.protocol.rule,
        protocol_seed=choice.protocol.seed,
        loudness=None if of.as_recorded else LOUDNESS,
        text_encoder=of.text_encoder and short_name(of.text_encoder),
        preset=choice.preset,
        settings=settings,
        seed=of.seed,
        device=device,
        columns=choice.columns,
        keep=choice.corpus.keep if is_table(choice.labels) else (),
        where=choice.corpus.where,
    )
    folder = choose.tuning_folder(choice)
    values: dict[str, Any] = {
        "name": folder.name,
        "device": device,
        "corpus": replace(choice.corpus, root=short_place(root)),
        "dynamics": replace(of, settings=vars(settings)),
    }
    with choose.work_in(folder, "dynamics", replace(choice, **values)):
        result = carry_out(folder, plan, console, rotations=of.rotations, keep_weights=of.keep_weights)
    say(console, f"table: {folder}/table.md, figures: {folder}/figures/, as data: {folder}/results.json")
    return result


def _selected(corpus: Corpus, choice: Experiment) -> tuple[Corpus, dict[str, str]]:
    """What the experiment selects of the corpus; by id, why the rest is not in a store."""
    from bas.corpora.selection import NOT_SELECTED, select

    selected = select(corpus, choice.corpus.where)
    left = {u.id for u in corpus.utterances} - {u.id for u in selected.utterances}
    return selected, dict.fromkeys(sorted(left), f"{NOT_SELECTED}: --where {' '.join(choice.corpus.where)}")


def _say_skipped(skipped: Mapping[str, str], console: Console, remedy: str = "") -> None:
    from bas.corpora.selection import NOT_SELECTED
    from bas.util.progress import list_lines

    if skipped := {id_: why for id_, why in skipped.items() if not why.startswith(NOT_SELECTED)}:
        console.print(f"skipped: {len(skipped)} utterances{remedy}", style="yellow")
        list_lines([f"{id_}: {why}" for id_, why in skipped.items()], console, ": store.json")


def _say_report(folder: Path, console: Console) -> None:
    say(console, f"report: {folder}/table.md, as data: {folder}/results.json, figures: {folder}/figures")
