"""A run folder: what made its numbers, and where each of them lies.

run.json          the plan: features, layer, settings, seeds, spaces; versions, commit, device, identity
protocol.json     the folds by utterance id
spaces/           the search-space files as they were
jobs/             one JSON a finished job (a search, a training), its weights beside it, its checkpoint while it runs
tb/               TensorBoard
results.json      the table as data; table.md as text
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bas import NUMBERS
from bas.corpora import Corpus, Utterance, open_corpus
from bas.corpora.labels import relabel
from bas.errors import UserError
from bas.features.plan import recording_hashes
from bas.features.shard import versions
from bas.features.store import FeatureStore, StoreInfo
from bas.protocols import Protocol, field_of, make, read
from bas.runs.baselines import common_baselines
from bas.space import SearchSpace, SpaceFile, load_space
from bas.stats import Metric
from bas.tasks import EMOTION, Task
from bas.training.loop import read_checkpoint
from bas.training.settings import Settings
from bas.util.files import read_json, write_json, write_text

BEST, MIX = "best", "mix"
RENEWED = "delete it: the next run writes it anew"


@dataclass(frozen=True)
class Plan:
    """What a user asked for.

    layer: a stored state's number; or "best", chosen in each fold by its training utterances; or "mix": all that are
        stored, summed with learned weights.
    """

    features: str
    spaces: tuple[str, ...]  # paths of the space files
    layer: int | str
    settings: Settings
    seeds: tuple[int, ...]
    device: str  # cpu | cuda
    labels: str | None = None  # a scheme of bas.corpora.labels; None: the corpus's own words

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Plan:
        names = {"spaces": tuple(raw["spaces"]), "seeds": tuple(raw["seeds"]), "settings": Settings(**raw["settings"])}
        return cls(**{**raw, **names})


@dataclass(frozen=True)
class Job:
    """kind: layer, linear, baseline, search, retrain or alone (one architecture of a space, by its number).

    row: BEST, the linear row, a baseline, or a search space by name.
    """

    kind: str
    row: str
    fold: int
    seed: int
    number: int | None = None  # in the order of `SearchSpace.architectures`
    searcher: str = ""  # of a search: what `settings.searcher` reads; "": the run's settings

    @property
    def name(self) -> str:
        number = "" if self.number is None else f"-{self.number:03}"
        how = f"+{self.searcher}" if self.searcher else ""
        return f"{self.kind}-{self.row.replace(' ', '-')}{number}{how}-fold{self.fold}-seed{self.seed}"


class Run:
    """An open run folder with everything a job needs. Opens alike in the parent and in every worker process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = read_json(folder / "run.json")
        try:
            self.plan = Plan.from_dict(raw["plan"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder}: run.json is not of this version of bas ({error})") from error
        self.protocol = read(folder / "protocol.json")
        self.store = FeatureStore(Path(self.plan.features))
        self.corpus: Corpus = _stored(open_labelled(self.store.info, self.plan.labels), self.store.info)
        names = [Path(path).stem for path in self.plan.spaces]
        self.spaces: dict[str, SpaceFile] = {n: load_space(str(folder / "spaces" / f"{n}.py")) for n in names}
        self.task = common_task(self.spaces.values())
        self.baselines: Mapping[str, SearchSpace] = common_baselines(list(self.spaces.values()))
        self.utterances: tuple[Utterance, ...] = self.corpus.labelled(self.task.label)
        self.outputs = self.task.outputs(self.utterances)
        self.targets = self.task.targets(self.utterances, self.outputs)
        self.position = {u.id: i for i, u in enumerate(self.utterances)}

    @property
    def headline(self) -> str:
        """The metric that choices and verdicts go by: the corpus's, where the task has it, else the task's first."""
        return next((name for name in self.corpus.headlines if name in self.metrics), next(iter(self.metrics)))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The task's metrics of these outputs, by name."""
        return self.task.metrics(self.outputs)

    @property
    def reference(self) -> str:
        """The baseline that differences are against."""
        return next(iter(self.baselines))

    @property
    def linear(self) -> str:
        """The task's linear row."""
        return next(iter(self.task.linears))

    @property
    def unit(self) -> str:
        """The field whose values are the units of a paired comparison: what the folds kept whole."""
        return self.protocol.unit

    @property
    def states(self) -> int:
        """How many of the encoder's states feed a network."""
        return len(self.store.info.layers) if self.plan.layer == MIX else 1

    def job_path(self, job: str) -> Path:
        return self.folder / "jobs" / f"{job}.json"

    def done(self, job: str) -> bool:
        return self.job_path(job).exists()

    def result(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.job_path(job))
        return found


def common_task(spaces: Iterable[SpaceFile]) -> Task:
    """The one task of these spaces; emotion recognition where a file defines none."""
    tasks: dict[str, Task] = {s.name: s.task or EMOTION for s in spaces}
    first = next(iter(tasks.values()))
    for name, task in tasks.items():
        lacking = [part for part in dir(Task) if not part.startswith("_") and not hasattr(task, part)]
        if lacking:
            told = f"{task!r} has no {lacking[0]}; it must be a task, such as Classification(...)"
            raise UserError(f"space {name}: task: {told}")
        if repr(task) != repr(first):
            raise UserError(
                f"spaces {', '.join(tasks)}: {name} is for task {task.name}, not {first.name}; run them apart"
            )
    return first


def split(plan: Plan, rule: str | None, seed: int, allowed: Sequence[str] = ()) -> Protocol:
    """The protocol of a run, see `protocols.make`; what the store skipped is left out."""
    info = StoreInfo.read(Path(plan.features))
    task = common_task([load_space(s) for s in plan.spaces])
    return make(open_labelled(info, plan.labels), task, rule, seed, allowed=allowed, skipped=info.skipped)


def start(folder: Path, plan: Plan, protocol: Protocol) -> Run:
    """Make the run's folder, or take it up again when it was made of the same things. The caller holds its lock.

    protocol: of `split`. Seeds and spaces may be added to a run; whatever else changes a number refuses, by name.
    """
    store = FeatureStore(Path(plan.features))
    info = store.info
    for index, ids in enumerate(info.shards):
        if ids:
            store.shard(index)  # refuses what is damaged now, before anything is written
    corpus = _stored(open_labelled(info, plan.labels), info)
    _check_recordings(Path(plan.features), corpus, info)
    spaces = [load_space(s) for s in plan.spaces]
    if len({s.name for s in spaces}) < len(spaces):
        raise UserError(f"spaces {', '.join(s.name for s in spaces)}: the same name twice; rename a file")
    if plan.layer not in (BEST, MIX, *info.layers):
        held = ", ".join(map(str, info.layers))
        raise UserError(f"--layer {plan.layer}: {plan.features} holds {held}; name one of these, or {BEST}")
    task = common_task(spaces)
    common_baselines(spaces)  # refuses several
    task.outputs(corpus.labelled(task.label))  # refuses too few of them
    if plan.settings.normalise == "speaker":
        _check_speakers(corpus, task, protocol)
    made_of = _made_of(plan, info, corpus, task, protocol, spaces)
    if (folder / "run.json").exists():
        there = read_json(folder / "run.json", "give another --name, or delete that folder")
        if not isinstance(there, dict) or not isinstance(there.get("made_of"), dict):
            raise UserError(
                f"{folder}/run.json: not written by this version of bas; give another --name, or delete that folder"
            )
        for name, value in made_of.items():
            old = there["made_of"].get(name, value)
            if old != value:
                raise UserError(
                    f"{folder}: made with {name} {old}, now {value}; give another --name, or delete that folder"
                )
        made_of = {**there["made_of"], **made_of}
        _check_copies(folder, protocol, spaces)
        _check_jobs(folder / "jobs", protocol)
    elif any(folder.glob("clean-seed*")):
        raise UserError(f"{folder}: holds what `bas protocol cost` made; give another --name")
    elif (folder / "jobs").exists():
        raise UserError(f"{folder}: holds jobs but no run.json; give another --name, or delete that folder")
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
    for left in (folder / "jobs").glob("*.tmp"):  # by a process that was killed while it wrote
        left.unlink()
    return Run(folder)


def _check_copies(folder: Path, protocol: Protocol, spaces: Iterable[SpaceFile]) -> None:
    """Refuse what was edited since the run wrote it down."""
    path = folder / "protocol.json"
    if path.exists():
        try:
            same = read(path).folds == protocol.folds
        except UserError:
            same = False
        if not same:
            raise UserError(f"{path}: damaged, or other folds than the run's; {RENEWED}")
    for space in spaces:
        path = folder / "spaces" / f"{space.name}.py"
        if path.exists() and path.read_bytes() != space.source.encode():
            raise UserError(f"{path}: edited since the run began; {RENEWED}")


def _check_jobs(jobs: Path, protocol: Protocol) -> None:
    for path in sorted(jobs.glob("*.json")):
        remedy = "delete it: its job is done again"
        found = read_json(path, remedy)
        if not isinstance(found, dict) or "job" not in found:
            raise UserError(f"{path}: not the result of a job; {remedy}")
        if found.get("protocol") != protocol.hash:
            raise UserError(f"{path}: of another protocol than {protocol.hash}; {remedy}")
    for path in sorted(jobs.glob("*.checkpoint")):
        read_checkpoint(path)


def open_labelled(info: StoreInfo, labels: str | None) -> Corpus:
    """The store's corpus; labels: a scheme of `bas.corpora.labels` to map them to, None: as they are."""
    corpus = open_corpus(info.corpus, Path(info.root))
    return corpus if labels is None else relabel(corpus, labels)


def _stored(corpus: Corpus, info: StoreInfo) -> Corpus:
    """The corpus without the utterances that the store skipped; its note, shown with every result, counts them."""
    kept = tuple(u for u in corpus.utterances if u.id not in info.skipped)
    left_out = len(corpus.utterances) - len(kept)
    if not left_out:
        return corpus
    told = f"{left_out} of {len(corpus.utterances)} utterances are not in the feature store"
    return replace(corpus, utterances=kept, note="; ".join(filter(None, (corpus.note, told))))


def _check_recordings(features: Path, corpus: Corpus, info: StoreInfo) -> None:
    """Whether the features are of the recordings that the labels are of; one that is away cannot tell."""
    missing = [u.id for u in corpus.utterances if u.id not in info.recordings]
    if missing:
        raise UserError(
            f"{features}: {len(missing)} utterances of {corpus.name} are not in the store, {missing[0]} the first; "
            "run the same `bas extract` again: it adds them"
        )
    now = recording_hashes(corpus.utterances, lambda: None)
    others = [id_ for id_, found in now.items() if found != info.recordings[id_][0]]
    if others:
        raise UserError(
            f"{features}: {len(others)} utterances of {corpus.name} have another recording than was extracted, "
            f"{others[0]} the first; extract into another folder"
        )


def _check_speakers(corpus: Corpus, task: Task, protocol: Protocol) -> None:
    """Whether features may be normalised by speaker."""
    if task.label == "speaker":
        raise UserError(f"setting normalise=speaker: task {task.name} asks who speaks, which that would tell")
    trained = {i for fold in protocol.folds for i in fold.fit}
    for utterance in corpus.utterances:
        if utterance.id in trained and utterance.speaker is None:
            raise UserError(f"setting normalise=speaker: utterance {utterance.id} of {corpus.name} has no speaker")


def _made_of(
    plan: Plan, info: StoreInfo, corpus: Corpus, task: Task, protocol: Protocol, spaces: Iterable[SpaceFile]
) -> dict[str, Any]:
    """Whatever changes a number, by name."""
    by_speaker = ("speaker",) if plan.settings.normalise == "speaker" else ()
    fields = dict.fromkeys((task.label, *task.disjoint, protocol.unit, *by_speaker))
    labels = [[u.id, *(field_of(u, name) for name in fields)] for u in corpus.labelled(task.label)]
    return {
        "features": info.identity,
        # A layer that is added later would be one more to choose from, or to mix.
        "layer": f"{plan.layer} of {', '.join(map(str, info.layers))}" if plan.layer in (BEST, MIX) else plan.layer,
        "task": repr(task),
        "label scheme": plan.labels,
        "protocol": protocol.hash,
        "labels": hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:12],
        "device": plan.device,
        "device of the features": info.device,
        "version of bas": NUMBERS,
        **{f"version of {name}": versions()[name] for name in ("torch", "scikit-learn")},
        **{f"setting {name}": value for name, value in plan.settings.as_dict().items() if name != "preset"},
        **{f"space {s.name}": s.digest for s in spaces},
    }


def _record(info: StoreInfo) -> dict[str, Any]:
    """The store, without a line for each utterance."""
    counts = {"shards": len(info.shards), "recordings": len(info.recordings), "skipped": len(info.skipped)}
    return info.as_dict() | counts | {"identity": info.identity}


def _commit() -> str | None:
    """The commit of the source tree `bas` runs from, with a plus where it was changed since; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=here, capture_output=True, text=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True)
    except OSError:
        return None
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "") if commit.returncode == 0 else None
