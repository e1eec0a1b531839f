"""A run folder: everything its numbers depend on, and the files that hold them.

run.json          the plan: features, layer, settings, seeds, spaces; versions, commit, device, identity
protocol.json     the folds by utterance id
spaces/           the search-space files as they were
jobs/             a JSON file for each finished job (search, training), with its weights; checkpoints while it
                  runs, and of a race's trainings until its row is made
tb/               TensorBoard
results.json      the table as data; table.md as text
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bas.corpora import Corpus, Utterance
from bas.corpora.labels import is_table, relabel
from bas.corpora.selection import select
from bas.errors import UserError
from bas.features.corpus import corpus_of
from bas.features.store import FeatureStore, StoreInfo
from bas.protocols import Protocol, read
from bas.runs.baselines import common_baselines
from bas.runs.losses import Losses, check_loss, losses, weighted
from bas.runs.plan import ALL, SEARCH, Plan
from bas.runs.spaces import SpaceFile, load_space, over_states
from bas.space import SearchSpace
from bas.stats import Metric
from bas.tasks import EMOTION, Linear, Task, check_task, labels_of
from bas.training.settings import Settings
from bas.util.files import read_record

AGAIN = "delete it: the job is done again"
OTHER = "restore it, or give another --name"
"""Remedies for a result, and for what a folder was made of."""


@dataclass(frozen=True)
class Inputs:
    """The inputs of a run, each opened once and passed on: the store, its labelled corpus and the space files."""

    plan: Plan
    store: FeatureStore
    corpus: Corpus  # including the utterances that the store skipped
    spaces: tuple[SpaceFile, ...]

    @classmethod
    def open(cls, plan: Plan) -> Inputs:
        """Open what the plan names. Raises UserError for a store, a corpus or a space that cannot be read."""
        store = FeatureStore(Path(plan.features))
        files = spaces_of(plan.spaces, plan.layer, store.info)
        return cls(plan, store, open_labelled(store.info, plan.labels, plan.keep, plan.where), files)

    @property
    def task(self) -> Task:
        """The task of the spaces; UserError if they have several."""
        return common_task(self.spaces)

    def check(self) -> None:
        """Raise UserError for a headline that is no metric of the task, and for class weights without classes."""
        check_loss(self.task, self.plan.settings)
        labelled = self.corpus.labelled(*labels_of(self.task))
        if self.plan.headline is not None and labelled:  # without any, the split is refused
            _check_headline(self.plan.headline, self.task.metrics(self.task.outputs(labelled)))

    def with_plan(self, **changes: Any) -> Inputs:
        """The same store, corpus and spaces, with these fields of the plan changed."""
        return replace(self, plan=replace(self.plan, **changes))


class Run:
    """An open run folder, with everything that a job needs."""

    def __init__(self, folder: Path, inputs: Inputs, protocol: Protocol) -> None:
        self.folder, self.plan, self.protocol, self.store = folder, inputs.plan, protocol, inputs.store
        self.corpus: Corpus = without_skipped(inputs.corpus, self.store.info)
        self.spaces: dict[str, SpaceFile] = {space.name: space for space in inputs.spaces}
        self.task = inputs.task
        self.baselines: Mapping[str, SearchSpace] = common_baselines(inputs.spaces)
        self.utterances: tuple[Utterance, ...] = self.corpus.labelled(*labels_of(self.task))
        self.outputs = self.task.outputs(self.utterances)
        self.targets = self.task.targets(self.utterances, self.outputs)
        self.position = {u.id: i for i, u in enumerate(self.utterances)}
        if self.plan.headline is not None:
            _check_headline(self.plan.headline, self.metrics)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a folder that `start.start` wrote, with its own copies of spaces and protocol, as a worker process does.

        Raises UserError for a folder of another version of bas, and whatever `Inputs.open` raises.
        """
        raw = read_record(folder / "run.json", OTHER)
        try:
            plan = Plan.from_dict(raw["plan"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{folder}: run.json is not of this version of bas ({error})") from error
        copies = tuple(str(folder / "spaces" / f"{Path(path).stem}.py") for path in plan.spaces)
        inputs = Inputs.open(replace(plan, spaces=copies))
        return cls(folder, replace(inputs, plan=plan), read(folder / "protocol.json"))

    @property
    def headline(self) -> str:
        """The metric of choices and verdicts: the plan's, else `usual_headline`."""
        return self.plan.headline or self.usual_headline

    @property
    def usual_headline(self) -> str:
        """The corpus's headline if the task has it, else the task's first metric."""
        return next((name for name in self.corpus.headlines if name in self.metrics), next(iter(self.metrics)))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The task's metrics of these outputs, by name."""
        return self.task.metrics(self.outputs)

    @property
    def reference(self) -> str:
        """The baseline that rows are compared with."""
        return next(iter(self.baselines))

    @property
    def linear(self) -> str:
        """The task's linear row."""
        return next(iter(self.task.linears))

    @property
    def linears(self) -> Mapping[str, Linear]:
        """The task's linear models by row, as the run's settings weigh classes."""
        return {row: weighted(linear, self.plan.settings.class_weights) for row, linear in self.task.linears.items()}

    def losses(self, settings: Settings, fit: Tensor) -> Losses:
        """The losses of a training on the utterances `fit`, by their positions. settings: the run's, or others."""
        return losses(self.task, settings, self.targets[fit.numpy()], len(self.outputs))

    @property
    def unit(self) -> str:
        """The field whose values are the units of a paired comparison: the folds keep each unit whole."""
        return self.protocol.unit

    @property
    def states(self) -> int:
        """The number of encoder states that feed a network."""
        return len(self.store.info.layers) if self.plan.layer in ALL else 1

    def job_path(self, job: str) -> Path:
        return self.folder / "jobs" / f"{job}.json"

    def done(self, job: str) -> bool:
        return self.job_path(job).exists()

    def result(self, job: str) -> dict[str, Any]:
        return read_record(self.job_path(job), AGAIN)


def _check_headline(name: str, metrics: Mapping[str, Metric]) -> None:
    if name not in metrics:
        raise UserError(f"--headline {name}: must be one of {', '.join(metrics)}")


def spaces_of(names: Iterable[str], layer: int | str, info: StoreInfo) -> tuple[SpaceFile, ...]:
    """The space files of these names; of a run that searches the state, with that part."""
    files = map(load_space, names)
    return tuple(over_states(file, info.layers) for file in files) if layer == SEARCH else tuple(files)


def common_task(spaces: Iterable[SpaceFile]) -> Task:
    """The task that these spaces share; emotion recognition if a file defines none. UserError if they have several."""
    tasks: dict[str, Task] = {s.name: s.task or EMOTION for s in spaces}
    first = next(iter(tasks.values()))
    for name, task in tasks.items():
        try:
            check_task(task)
        except UserError as error:
            raise UserError(f"space {name}: {error}") from None
        if repr(task) != repr(first):
            raise UserError(
                f"spaces {', '.join(tasks)}: {name} is for task {task.name}, not {first.name}; run them apart"
            )
    return first


def open_labelled(info: StoreInfo, labels: str | None, keep: Sequence[str] = (), where: Sequence[str] = ()) -> Corpus:
    """The store's corpus. labels: as `bas.corpora.labels.relabel` takes them; None: unchanged.

    keep: own columns of the table of labels, if they are of one, else of the corpus's. where: see `select`; it goes by
    the labels. UserError where the store holds none of what is selected.
    """
    corpus = corpus_of(info, () if is_table(labels) else keep)
    chosen = select(corpus if labels is None else relabel(corpus, labels, keep), where)
    if where and all(u.id in info.skipped for u in chosen.utterances):
        has = f"the feature store has none of these {len(chosen.utterances)} utterances"
        raise UserError(f"--where {' '.join(where)}: {has}; extract them, or select others")
    return chosen


def without_skipped(corpus: Corpus, info: StoreInfo) -> Corpus:
    """The corpus without the utterances that the store skipped; its note, shown with every result, says how many.

    It also says where features were imported.
    """
    kept = tuple(u for u in corpus.utterances if u.id not in info.skipped)
    left_out = len(corpus.utterances) - len(kept)
    notes = [corpus.note]
    if left_out:
        notes.append(f"{left_out} of {len(corpus.utterances)} utterances are not in the feature store")
    if info.imported:
        notes.append("the features were imported; bas does not know what made them")
    return replace(corpus, utterances=kept, note="; ".join(filter(None, notes)))
