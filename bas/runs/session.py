"""A run open in this process, with its features: what jobs and trials work on.

Nothing here scores a test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bas.networks.committee import Committee
from bas.networks.linear import LinearModel
from bas.networks.network import Network
from bas.protocols import Fold, field_of
from bas.runs import inner
from bas.runs.plan import ALL, BEST, Job, Kind
from bas.runs.run import Run
from bas.training.batches import Data, by_speaker, load, sizes
from bas.training.placement import Placement, place
from bas.training.settings import Settings

if TYPE_CHECKING:
    from bas.runs.fit import Fitted  # which is made of a session


NARROW = 256  # the width to which networks are trained together on a GPU; wider ones fill it alone


class Session:
    """A run open in this process, with the features of one layer, or of all; another layer replaces them.

    source: a run, or the folder of one to open. placement: where the features are; None: as for a run with one process.
    """

    def __init__(
        self, source: Run | Path, tick: Callable[[], None] = lambda: None, placement: Placement | None = None
    ) -> None:
        self.run = source if isinstance(source, Run) else Run.open(source)
        self.tick = tick  # called after every epoch, for a progress bar
        self.device = torch.device(self.run.plan.device)
        self.placement = placement or place_features(self.run, 1)[0]
        self.run.store.mapped_bytes = self.placement.mapped
        self._data: dict[tuple[int | str, int], Data] = {}
        self.solved: dict[tuple[Any, ...], tuple[LinearModel, dict[str, Any], float]] = {}  # see `bas.runs.solved`
        self.spared = 0.0  # seconds that taking them from there has spared

    def data(self, layer: int | str, stride: int) -> Data:
        """The features as extracted, averaged by the stride."""
        key = layer, stride
        if key not in self._data:
            ids = [u.id for u in self.run.utterances]
            self._data = {}  # free the old layer before reading the new one
            where = self.placement.where
            layers = self.run.store.info.layers if layer in ALL else [int(layer)]
            self._data = {key: load(self.run.store, ids, layers, stride, self.run.targets, where, self.device)}
        return self._data[key]

    def derived(self, layer: int | str, fold: Fold, settings: Settings) -> Data:
        """The features as the rows of this fold see them."""
        data = self.data(layer, settings.stride)
        if settings.normalise == "speaker":
            return by_speaker(data, self.members(fold.fit), [u.speaker for u in self.run.utterances])
        return data

    def training_means(self, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each utterance of a fold's fit and valid parts: the mean frame of every stored state `(U, L, D)`, as the
        fold's rows see it, the target, and its value of the field that the task keeps disjoint."""
        run, parts = self.run, self.run.protocol.folds[fold]
        members = self.members((*parts.fit, *parts.valid))
        # One layer after another, unless all are loaded: memory may hold only one of many.
        layers: Sequence[int | str] = [run.plan.layer] if run.plan.layer in ALL else run.store.info.layers
        means = [self.derived(layer, parts, run.plan.settings).mean_frames(members) for layer in layers]
        x_ULD = torch.cat(means, 1).reshape(len(members), len(run.store.info.layers), -1).numpy()
        return x_ULD, run.targets[members.numpy()], self._units_of(members)

    def inner_folds(self, fold: int, count: int) -> list[Fold]:
        """A fold's fit and valid parts in `count` other ways: each inner fold is valid once, and the rest is fit.

        Whole units of what the task keeps disjoint; fewer where there are fewer units. The test part is the fold's.
        """
        parts = self.run.protocol.folds[fold]
        ids = np.array([*parts.fit, *parts.valid])
        members = self.members(tuple(ids))
        targets_U, classes = self.run.targets[members.numpy()], self.run.task.classes is not None
        every = inner.split(targets_U, self._units_of(members), count, classes)
        return [Fold(tuple(ids[fit].tolist()), tuple(ids[held].tolist()), parts.test) for fit, held in every]

    def _units_of(self, members: Tensor) -> np.ndarray:
        utterances = [self.run.utterances[int(u)] for u in members]
        disjoint = self.run.task.disjoint[0] if self.run.task.disjoint else "id"
        return np.array([field_of(u, disjoint) or u.id for u in utterances])

    def members(self, ids: tuple[str, ...]) -> Tensor:
        return torch.tensor([self.run.position[i] for i in ids])

    def layer(self, fold: int) -> int | str:
        """The state that this fold's rows read; one of ALL: all that are stored."""
        layer = self.run.plan.layer
        return int(self.run.result(Job(Kind.LAYER, BEST, fold, 0).name)["layer"]) if layer == BEST else layer

    def mix(self, network: Network | LinearModel | Committee) -> dict[str, Any]:
        """The weight of each state in the network's layer mix, by number, for a record; empty without a mix."""
        weights_L = network.mix_weights()
        if weights_L is None:
            return {}
        return {"mix": dict(zip(map(str, self.run.store.info.layers), weights_L.tolist(), strict=True))}

    def metrics(self, predictions: np.ndarray, members: Tensor) -> dict[str, float]:
        return self.score(predictions, self.run.targets[members.numpy()])

    def score(self, predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {name: metric(targets, predictions) for name, metric in self.run.metrics.items()}

    def stackable(self, job: Job) -> bool:
        """Whether the job can train in a stack with others of its shape."""
        settings = self.run.plan.settings
        return job.kind.stackable and (job.kind == Kind.ALONE or (settings.committee == 1 and not settings.refit))

    @property
    def narrow(self) -> bool:
        """Whether one network of this run leaves a GPU waiting for its next kernel."""
        return (self.run.plan.settings.width or self.run.store.info.dim) <= NARROW

    def keep_beside(self, job: Job, fitted: Fitted) -> None:
        """Write what a training keeps beside its result, before the result; here nothing."""


def place_features(run: Run, processes: int, memory: float | None = None) -> tuple[Placement, str]:
    """Where a layer of the run's features is while `processes` train, and a line about it; see `placement.place`."""
    settings = run.plan.settings
    ids = [u.id for u in run.utterances]
    whole, least = sizes(run.store, ids, settings.stride, settings.batch_size, run.states)
    return place(whole, least, torch.device(run.plan.device), processes, memory)
