"""Begin a run or continue one: the checks before anything is written, and the record of what a run is made of."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from bas import NUMBERS
from bas.corpora import Corpus
from bas.corpora.labels import is_table
from bas.errors import UserError
from bas.features.compared import same_samples, unlike
from bas.features.store import StoreInfo
from bas.networks.network import check
from bas.protocols import Protocol, field_of, make, read
from bas.runs.baselines import common_baselines
from bas.runs.plan import ALL, BEST, name_of
from bas.runs.run import AGAIN, OTHER, Inputs, Run, without_skipped
from bas.runs.spaces import SpaceFile, digest_of
from bas.search.search import PATHS
from bas.space import SearchSpace
from bas.tasks import Task, labels_of
from bas.training.loop import find_checkpoint
from bas.training.settings import Settings
from bas.util.files import read_record, write_json, write_text
from bas.util.versions import versions

REMEDY = "delete it: the next run writes it again"


def split(inputs: Inputs, rule: str | None, seed: int, allowed: Sequence[str] = ()) -> Protocol:
    """The protocol of a run, see `protocols.make`; utterances that the store skipped are left out.

    Raises UserError also for what `Inputs.check` refuses.
    """
    inputs.check()
    skipped, compare = inputs.store.info.skipped, partial(same_samples, inputs.store.folder)
    return make(inputs.corpus, inputs.task, rule, seed, allowed=allowed, skipped=skipped, compare=compare)


def start(folder: Path, inputs: Inputs, protocol: Protocol) -> Run:
    """Make the run's folder, or continue in it if it was made of the same things. The caller holds its lock.

    protocol: from `split`. Seeds and spaces may be added to a run. Raises UserError for any other change that affects
    numbers, naming it.
    """
    plan, store, spaces = inputs.plan, inputs.store, inputs.spaces
    info = store.info
    for index, ids in enumerate(info.shards):
        if ids:
            store.shard(index)  # refuse a damaged shard now, before anything is written
    _check_recordings(Path(plan.features), without_skipped(inputs.corpus, info), info)
    if len({s.name for s in spaces}) < len(spaces):
        raise UserError(f"spaces {', '.join(s.name for s in spaces)}: the same name twice; rename a file")
    if plan.layer not in (BEST, *ALL, *info.layers):
        held = ", ".join(map(str, info.layers))
        raise UserError(
            f"--layer {plan.layer}: {plan.features} holds {held}; name one of these, {', '.join((BEST, *ALL))}"
        )
    run = Run(folder, inputs, protocol)  # refuses several tasks or baselines, and too few outputs
    if plan.settings.normalise == "speaker":
        _check_speakers(run.corpus, run.task, protocol)
    made_of = _made_of(run)
    if (folder / "run.json").exists():
        earlier = read_record(folder / "run.json", OTHER)
        if not isinstance(earlier.get("made_of"), dict):
            raise UserError(f"{folder}/run.json: not written by this version of bas; give another --name")
        there = [space for space in spaces if f"space {space.name}" in earlier["made_of"]]
        old_baselines = {f"baseline {name}" for name in common_baselines(there)}
        for name, value in made_of.items():
            added = name.startswith("space ") or (name.startswith("baseline ") and name not in old_baselines)
            if added and name not in earlier["made_of"]:
                continue  # a space that is added, and what it is compared with
            old = earlier["made_of"].get(name, _before(run).get(name))
            if old != value:
                raise UserError(f"{folder}: made with {name} {old}, now {value}; give another --name")
        made_of = {**earlier["made_of"], **made_of}
        _check_copies(folder, protocol, spaces)
        check_jobs(folder / "jobs", protocol)
    elif (folder / "jobs").exists():
        raise UserError(f"{folder}: holds jobs but no run.json; put that back, or give another --name")
    protocol.write(folder / "protocol.json")
    for space in spaces:
        write_text(folder / "spaces" / f"{space.name}.py", space.source)
    record = {
        "plan": asdict(plan),
        "made_of": made_of,
        "signatures": {s.name: s.space.signature for s in spaces},
        "features": _record(info),
        "versions": versions(),
        "commit": _commit(),
    }
    write_json(folder / "run.json", record)
    (folder / "jobs").mkdir(exist_ok=True)
    return run


def reopen(folder: Path, *, trains: bool = True, beside: bool = False) -> Run:
    """Open a run to take it further. Raises UserError, naming it, for whatever has changed since it was made.

    trains: something is to be trained: versions of libraries must be the same, too, and recordings. beside: others work
    on it; the verb that began it has compared recordings and results, which may take hours, and does so at its end.
    """
    run = Run.open(folder)
    earlier = read_record(folder / "run.json", OTHER).get("made_of")
    if not isinstance(earlier, dict):
        raise UserError(f"{folder}/run.json: not written by this version of bas; run it again under another --name")
    for name, value in _made_of(run).items():
        old = earlier.get(name, _before(run).get(name))
        if old != value and (trains or not name.startswith("version of ")):
            raise UserError(f"{folder}: made with {name} {old}, now {value}; put that back, or run it anew")
    if trains and not beside:
        _check_recordings(Path(run.plan.features), run.corpus, run.store.info)
    if not beside:
        check_jobs(folder / "jobs", run.protocol)
    return run


def _check_copies(folder: Path, protocol: Protocol, spaces: Iterable[SpaceFile]) -> None:
    """Raise UserError for a copy of the protocol or a space that was edited since the run wrote it."""
    path = folder / "protocol.json"
    if path.exists():
        try:
            same = read(path).folds == protocol.folds
        except UserError:
            same = False
        if not same:
            raise UserError(f"{path}: damaged, or other folds than the run's; {REMEDY}")
    for space in spaces:
        path = folder / "spaces" / f"{space.name}.py"
        if path.exists() and path.read_bytes() != space.source.encode():
            raise UserError(f"{path}: edited since the run began; {REMEDY}")


def check_jobs(jobs: Path, protocol: Protocol) -> None:
    """Raise UserError for a result or a checkpoint that is damaged, or not of this protocol."""
    for path in sorted(jobs.glob("*.json")):
        result = read_record(path, AGAIN)
        if not isinstance(result.get("job"), dict):
            raise UserError(f"{path}: not the result of a job; {AGAIN}")
        if name_of(result["job"]) != path.stem:
            raise UserError(f"{path}: the result of another job, {name_of(result['job'])}; {AGAIN}")
        if result.get("protocol") != protocol.hash:
            raise UserError(f"{path}: of another protocol than {protocol.hash}; {AGAIN}")
    for path in sorted(jobs.glob("*.checkpoint")):
        find_checkpoint(path)


def _check_recordings(features: Path, corpus: Corpus, info: StoreInfo) -> None:
    """Raise UserError unless the features are of the labelled recordings; recordings not on disk are not checked."""
    missing = [u.id for u in corpus.utterances if u.id not in info.recordings]
    if missing:
        raise UserError(
            f"{features}: {len(missing)} utterances of {corpus.name} are not in the store, {missing[0]} the first; "
            "run the same `bas extract` again: it adds them"
        )
    others = unlike(features, info, corpus.utterances)
    if others:
        raise UserError(
            f"{features}: {len(others)} utterances of {corpus.name} have another recording than was extracted, "
            f"{others[0]} the first; extract into another folder"
        )


def _check_speakers(corpus: Corpus, task: Task, protocol: Protocol) -> None:
    """Raise UserError unless features may be normalised by speaker."""
    if "speaker" in labels_of(task):
        raise UserError(f"setting normalise=speaker: task {task.name} predicts the speaker, which that would reveal")
    trained = {i for fold in protocol.folds for i in fold.fit}
    for utterance in corpus.utterances:
        if utterance.id in trained and utterance.speaker is None:
            raise UserError(f"setting normalise=speaker: utterance {utterance.id} of {corpus.name} has no speaker")


def _made_of(run: Run) -> dict[str, Any]:
    """Everything that changes a number, by name."""
    plan, info, corpus, task, protocol = run.plan, run.store.info, run.corpus, run.task, run.protocol
    by_speaker = ("speaker",) if plan.settings.normalise == "speaker" else ()
    fields = dict.fromkeys((*labels_of(task), *task.disjoint, protocol.unit, *by_speaker))
    labels = [[u.id, *(field_of(u, name) for name in fields)] for u in corpus.labelled(*labels_of(task))]
    return {
        "features": info.identity,
        # A layer added to the store later would be one more to choose from, or to mix.
        "layer": f"{plan.layer} of {', '.join(map(str, info.layers))}" if plan.layer in (BEST, *ALL) else plan.layer,
        "task": repr(task),
        "label scheme": "of a table" if is_table(plan.labels) else plan.labels,
        "headline": run.headline,
        "labels": hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:12],
        "protocol": protocol.hash,
        "device": plan.device,
        "device of the features": info.device,
        "version of bas": NUMBERS,
        **{f"version of {name}": versions()[name] for name in ("torch", "scikit-learn")},
        **{f"setting {name}": value for name, value in plan.settings.to_dict().items() if name != "preset"},
        **{f"baseline {name}": _digest(baseline) for name, baseline in run.baselines.items()},
        **{f"space {space.name}": space.digest for space in run.spaces.values()},
    }


def recorded(run: Run) -> dict[str, Any]:
    """What a run was made of, as it wrote down: everything that changes a number, by name."""
    made: dict[str, Any] = read_record(run.folder / "run.json", OTHER).get("made_of", {})
    return made | {name: value for name, value in _before(run).items() if name not in made}


def _before(run: Run) -> dict[str, Any]:
    """What a run was made with that does not say, being older than the choice."""
    later = {f"setting {one.name}": one.default for one in fields(Settings) if one.default is not MISSING}
    # `Plan` knows in what precision an earlier version computed there.
    return {"headline": run.usual_headline, **later, "setting precision": run.plan.settings.precision}


def _digest(baseline: SearchSpace) -> str:
    """A short hash of a baseline and of the user's code that it is made of."""
    classes = [factory.func if isinstance(factory, partial) else factory for factory in baseline.factories()]
    return digest_of(baseline.signature, [cls.__module__ for cls in classes])


def _record(info: StoreInfo) -> dict[str, Any]:
    """The store's info, without a line for each utterance."""
    counts = {"shards": len(info.shards), "recordings": len(info.recordings), "skipped": len(info.skipped)}
    return info.to_dict() | counts | {"identity": info.identity}


def _commit() -> str | None:
    """The commit of the source tree that `bas` runs from, with a plus if it has changes; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True)
    except OSError:
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") if commit.returncode == 0 else None


def check_networks(files: Sequence[SpaceFile], in_dim: int, settings: Settings) -> None:
    """Try every candidate of every space once. Raises UserError, before a run writes anything."""
    for name, space in {**common_baselines(files), **{str(f.path): f.space for f in files}}.items():
        try:
            check(space, in_dim, settings.width or in_dim)
        except UserError as error:
            raise UserError(f"{name}: {error} (setting width={settings.width})") from error


def check_paths(files: Sequence[SpaceFile], settings: Settings, remedy: str) -> None:
    """Raise UserError, before a run writes anything, where single-path would have too many architectures to score."""
    for file in files if settings.strategy == "single-path" else ():
        if file.space.size > PATHS:
            message = f"{file.space.size} architectures; strategy single-path scores every one, at most {PATHS}"
            raise UserError(f"space {file.name}: {message}; {remedy}")
