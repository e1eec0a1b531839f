"""An experiment on the stores on disk: folders, opened inputs, and the experiment with its defaults filled in."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from bas import __version__
from bas.corpora import Corpus, open_corpus
from bas.corpora.columns import COLUMNS
from bas.corpora.labels import is_table, place_of
from bas.errors import Diverged, UserError
from bas.experiment import FILE, SEEDS, Experiment, settings_of, write_experiment
from bas.experiment.keys import READ_SETTINGS, spaces_of
from bas.features.store import FeatureStore, StoreInfo
from bas.protocols import Protocol, default_rule
from bas.protocols.rules import LISTS
from bas.runs.plan import ALL, BEST, MIX, SEARCH, Plan
from bas.runs.run import OTHER, Inputs, open_labelled
from bas.runs.run import spaces_of as run_spaces
from bas.runs.spaces import shipped
from bas.runs.start import check_networks, check_paths, split
from bas.training.settings import LAYERS, Precision
from bas.util.claims import forget
from bas.util.device import choose_device
from bas.util.files import locked, read_record, replacing, write_json
from bas.util.places import short_place
from bas.util.reading import check_own
from bas.util.temporary import sweep
from bas.util.terminal import printable

RUNS = Path("runs")
OTHERS = ("corpora", "features", "protocols")
"""What else lies under RUNS."""
LONGEST = 200  # bytes of a folder's name; file systems take 255
TASKS = "cluster"
"""In the folder of a run: what submitit writes, and the logs of tasks, a folder a call."""
STUDY = "study.json"
"""In the folder of a study: the verb that made it."""
SEARCHING_NOTHING = ("cost", "shares")
"""Verbs that take a layer, but whose spaces have one architecture each."""
NESTED = ("search", "retrain", "compare")
"""Verbs that share a folder: each includes the one before."""


@dataclass(frozen=True)
class OpenStore:
    """A store and its labelled corpus, opened once for every run on them."""

    features: Path
    store: FeatureStore
    corpus: Corpus


def folder_named(name: str, origin: str, within: Path = RUNS) -> Path:
    """The folder of this name directly within another. origin: what a message begins with, and who can change it.

    Raises UserError for a name that is no folder's of its own there.
    """
    why = None
    if not name.strip() or name != name.strip():
        why = "has blanks around it" if name.strip() else "is empty"
    elif name.startswith("."):
        why = "begins with a dot"
    elif "/" in name:
        why = "has a slash"
    elif name != printable(name) or "\n" in name or "\t" in name:
        why = "has a character that cannot be printed"
    elif len(name.encode()) > LONGEST:
        why = f"has {len(name.encode())} bytes, more than {LONGEST}"
    elif within == RUNS and name.casefold() in OTHERS:
        why = f"holds something else ({', '.join(OTHERS)} do)"
    if why:
        shown = name if len(name) <= LONGEST else f"{name[:20]}…"
        rule = f"must be the name of one folder in {within}/, without slashes, controls, or a dot or blank at its ends"
        raise UserError(f"{origin} {shown!r}: {why}; {rule}")
    return within / name


def store_folder(corpus: Corpus, encoder: str) -> Path:
    """The default folder of a store that `extract` makes."""
    own = encoder.rstrip("/").rpartition("/")[2]
    name = f"{corpus.name}-{re.sub(r'[.]py(:|$)', lambda of: '-' if of[1] else '', own)}"
    return folder_named(name, "give --features, as no folder can be named by corpus and encoder:", RUNS / "features")


def stores_of(choice: Experiment, verb: str) -> dict[str, Path]:
    """The stores of an experiment by folder name: those that it names, or that of its corpus and encoder.

    Raises UserError if it has none, or two with the same folder name.
    """
    if choice.features:
        folders = [Path(folder).expanduser() for folder in dict.fromkeys(choice.features)]
    elif choice.corpus.reader is None or choice.corpus.root is None or choice.encoder.name is None:
        needs = "needs features (--features), a store made by extract, or corpus.reader, corpus.root and encoder.name"
        raise UserError(f"{verb}: {needs}; in the experiment's file, or as flags")
    else:
        corpus = open_corpus(choice.corpus.reader, Path(choice.corpus.root).expanduser(), columns=choice.columns)
        folders = [store_folder(corpus, choice.encoder.name)]
    names = [folder.resolve().name for folder in folders]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--features: two stores are named {doubled[0]}; rename a folder")
    return dict(zip(names, folders, strict=True))


def open_store(choice: Experiment, verb: str, features: Path | None = None) -> OpenStore:
    """Open a store and its corpus. features: None: the experiment's store; UserError if it has several."""
    if features is None:
        of_name = stores_of(choice, verb)
        if len(of_name) > 1:
            raise UserError(f"{verb}: takes one store of {', '.join(of_name)}; name it with --features")
        (features,) = of_name.values()
    features = features.resolve()
    store = FeatureStore(features)
    _check_source(choice, features, store.info)
    return OpenStore(features, store, open_labelled(store.info, choice.labels, choice.corpus.keep, choice.corpus.where))


def _check_source(choice: Experiment, features: Path, info: StoreInfo) -> None:
    """UserError where the experiment names another corpus or encoder than the store was made of."""
    pairs = {
        "corpus.reader": (choice.corpus.reader, info.corpus),
        "corpus.root": (choice.corpus.root, info.root),
        "encoder.name": (choice.encoder.name, info.encoder["name"]),
    }
    for name, (given, stored) in pairs.items():
        if given is not None and given != stored and Path(given).expanduser().resolve() != Path(stored).resolve():
            raise UserError(f"{name}={given}: but {features} was made of {stored}; leave it out, or name another store")
    mapped = {field: column for field, column in info.columns.items() if field in COLUMNS}
    if choice.corpus.map is not None and dict(choice.corpus.map) != mapped:
        asked, there = (",".join(f"{f}={c}" for f, c in of.items()) or "none" for of in (choice.corpus.map, mapped))
        remedy = f"the same `{info.first_command}` with it keeps the features and reads the corpus by it"
        raise UserError(f"--map {asked}: but {features} was made with {there}; {remedy}")


def inputs_of(
    choice: Experiment,
    verb: str,
    opened: OpenStore,
    *,
    layer: int | str | None = None,
    spaces: Sequence[str] | None = None,
) -> Inputs:
    """The inputs of a run on a store. layer, spaces: None: those of the experiment, else the defaults.

    Raises UserError for settings that do not go together, a layer that is not stored, a space that cannot be read or
    built at this width, and a device that is not available.
    """
    settings, info = settings_of(choice, verb), opened.store.info
    if layer is None:
        if len(choice.layer) > 1:
            raise UserError(f"{verb}: takes one layer of {', '.join(map(str, choice.layer))}; name it with --layer")
        layer = choice.layer[0] if choice.layer else LAYERS[choice.preset]
    if layer == SEARCH and verb in SEARCHING_NOTHING:
        raise UserError(f"--layer {SEARCH}: {words_of(verb)} searches nothing; name {MIX}, {BEST} or a state")
    layer = _state(layer, info.layers, info.encoder["num_states"])
    files = run_spaces(spaces or choice.spaces or spaces_of(verb, choice.preset), layer, info)
    check_networks(files, info.dim, settings)
    if "strategy" in READ_SETTINGS[verb]:
        check_paths(files, settings, "name another, such as --set strategy=gumbel")
    device, paths = _device(choice), tuple(str(file.path) for file in files)
    seeds = tuple(range(choice.seeds or SEEDS[verb]))
    labels = place_of(choice.labels)
    of, headline = choice.corpus, choice.headline
    plan = Plan(str(opened.features), paths, layer, settings, seeds, device, labels, of.keep, of.where, headline)
    return Inputs(plan, opened.store, opened.corpus, files)


def gone_on(choice: Experiment, folder: Path, inputs: Inputs) -> Inputs:
    """The inputs with the precision of the run that is there: "auto" was settled when it began, on whatever machine."""
    path = folder / "run.json"
    ours = path.is_file() and not path.is_symlink()  # of anything else `work_in` tells
    if choice.settings.get("precision", "auto") != "auto" or not ours:
        return inputs
    try:
        there = read_record(path, OTHER)["plan"]["settings"]["precision"]
    except (KeyError, TypeError):  # of before 0.12, or damaged: who goes on with it says so
        return inputs
    if there not in get_args(Precision):
        return inputs
    return replace(inputs, plan=replace(inputs.plan, settings=replace(inputs.plan.settings, precision=there)))


def _device(choice: Experiment) -> str:
    """Where to train: what tasks of a cluster have is no question to this machine.

    Raises UserError for a device that is not there.
    """
    if choice.cluster.kind is None:
        return choose_device(choice.device).type
    if choice.device == "cuda" and not choice.cluster.gpus:
        raise UserError("device=cuda: the tasks have no GPU; give cluster.gpus=1")
    return "cuda" if choice.cluster.gpus and choice.device != "cpu" else "cpu"


def split_of(choice: Experiment, inputs: Inputs) -> Protocol:
    """The protocol of an experiment's run."""
    return split(inputs, choice.protocol.rule, choice.protocol.seed, choice.protocol.allow_overlap)


def every_state(opened: OpenStore) -> int | str:
    """What a study of all stored states reads: their mix, or the one."""
    layers = opened.store.info.layers
    return MIX if len(layers) > 1 else layers[0]


def workers_of(asked: int | None, device: str) -> int:
    """The number of training processes: as many as are asked for; else one on a GPU, or one for each core."""
    if asked or device == "cuda":
        return asked or 1
    # The cores this process may use, where the system says: in a container there may be fewer than in the machine.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_folder(choice: Experiment, prefix: str, inputs: Inputs) -> Path:
    """The folder of a run on one store."""
    suffix = "" if inputs.task.name == "emotion" else f"-{inputs.task.name}"
    name = f"{prefix}{Path(inputs.plan.features).name}-layer{inputs.plan.layer}-{choice.preset}{suffix}"
    return _run_named(choice, name)


def study_folder(choice: Experiment, verb: str, names: Sequence[str]) -> Path:
    """The folder of a study of stores with these names."""
    others = hashlib.sha256("/".join(names).encode()).hexdigest()[:6]
    more = f"-and-{len(names) - 1}-more-{others}" if len(names) > 1 else ""
    return _run_named(choice, f"{verb}-{names[0]}{more}-{choice.preset}")


def tuning_folder(choice: Experiment) -> Path:
    """The folder of a fine-tuning of an encoder."""
    root = Path(str(choice.corpus.root)).expanduser().resolve()
    corpus = root.stem if choice.corpus.reader == "manifest" else choice.corpus.reader
    encoder = str(choice.encoder.name).rstrip("/").rpartition("/")[2]
    return _run_named(choice, f"dynamics-{corpus}-{encoder}-{choice.preset}")


def _run_named(choice: Experiment, usual: str) -> Path:
    if choice.name is None:
        return folder_named(usual, "give --name, as no folder can have the usual name")
    return folder_named(choice.name, "--name")


def resolve(choice: Experiment, verb: str, folder: Path, runs: Sequence[Inputs]) -> Experiment:
    """The experiment with every default filled in, from the inputs of its runs (one for each store)."""
    first, shipped_names = runs[0], {str(path): name for name, path in shipped().items()}
    plan, settings = first.plan, first.plan.settings.to_dict()
    rule = choice.protocol.rule or default_rule(first.corpus, first.task, first.store.info.skipped)
    values: dict[str, Any] = {
        "features": tuple(short_place(run.plan.features) for run in runs),
        "spaces": tuple(shipped_names.get(str(path), short_place(path)) for path in plan.spaces),
        "layer": tuple(run.plan.layer for run in runs),
        "seeds": len(plan.seeds),
        "device": plan.device,
        "labels": short_place(choice.labels) if is_table(choice.labels) else choice.labels,
        "name": folder.name,
        "protocol": replace(choice.protocol, rule=_with_short_path(rule)),
        "settings": {name: settings[name] for name in READ_SETTINGS[verb]},
    }
    return replace(choice, **values)


@contextmanager
def work_in(folder: Path, verb: str, experiment: Experiment) -> Iterator[None]:
    """Lock a verb's folder while the block runs, and record there the experiment that repeats it.

    A folder is of one study. That of search, retrain and compare, each of which includes the one before, holds the
    experiment of the last of them. If the block refuses its input (UserError) before a run there was begun or changed,
    the folder is restored as it was.

    Raises UserError while another process works in the folder, and for the folder of another study.
    """
    with locked(folder, "at work"):
        check_own(folder, "move it away, or give another --name", [TASKS])
        sweep(folder, beneath=True)
        earlier = read_record(folder / STUDY, OTHER)["verb"] if (folder / STUDY).exists() else verb
        if earlier != verb and not {earlier, verb} <= set(NESTED):
            raise UserError(f"{folder}: holds what `bas {words_of(earlier)}` made; give another --name")
        before = {path: path.read_bytes() for path in (folder / FILE, folder / STUDY) if path.exists()}
        runs = _runs_in(folder)
        if earlier == verb or NESTED.index(verb) > NESTED.index(earlier):
            write_experiment(folder, verb, experiment)
            write_json(folder / STUDY, {"verb": verb, "version": __version__})
        try:
            yield
            sweep(folder, beneath=True)  # a worker may outlive its killed parent by half a second
            forget(folder, lambda run, name: (run / "jobs" / f"{name}.json").exists())
        except Diverged:
            raise
        except UserError:
            if _runs_in(folder) == runs:
                _restore(folder, before)
            raise


def words_of(verb: str) -> str:
    """The words of the command line that a verb is called by."""
    return "protocol cost" if verb == "cost" else verb


def _runs_in(folder: Path) -> dict[Path, bytes]:
    """The runs of a folder, and what each is made of."""
    return {path: path.read_bytes() for pattern in ("", "*/", "*/*/") for path in folder.glob(f"{pattern}run.json")}


def _restore(folder: Path, before: Mapping[Path, bytes]) -> None:
    for path in (folder / FILE, folder / STUDY):
        if path in before:
            with replacing(path) as temporary:
                temporary.write_bytes(before[path])
        else:
            path.unlink(missing_ok=True)


def _state(layer: int | str, stored: Sequence[int], states: int) -> int | str:
    """The layer by its number among the encoder's states (not among those stored); "best", "mix" and "search" stay."""
    if layer in ALL and len(stored) == 1:
        raise UserError(
            f"--layer {layer}: only state {stored[0]} is stored, nothing to {layer}; extract more, or name it"
        )
    named = {"last": states - 1, "middle": states // 2}
    if layer in named and named[str(layer)] not in stored:
        held = ", ".join(map(str, stored))
        raise UserError(f"--layer {layer}: state {named[str(layer)]} is not stored; there is {held}")
    return layer if layer in (BEST, *ALL) else named.get(str(layer), layer)


def _with_short_path(rule: str) -> str:
    """The rule with the file that it reads, if any, as the experiment's other paths."""
    name, colon, rest = rule.partition(":")
    if rule.lower().endswith(".json"):
        return short_place(rule)
    return f"{name}:{short_place(rest)}" if colon and name in LISTS else rule
