"""A run open in this process: its features, and what is trained on them. Jobs and trials are made of this.

Nothing here scores a test part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bas.networks.network import Network, Supernet, build
from bas.protocols import Fold, field_of
from bas.runs.run import BEST, MIX, Job, Run
from bas.search.search import Found, search
from bas.space import Architecture, SearchSpace
from bas.training.batches import Data, by_speaker, load, sizes
from bas.training.loop import Epoch, Record, optimise, outputs, seed_everything
from bas.training.placement import Placement, place
from bas.training.settings import Settings


class Bench:
    """A run open in this process, with the features of one layer, or of a mix: they are read again for another layer.

    placement: where the features are; None: as for a run with one process.
    """

    def __init__(
        self, folder: Path, tick: Callable[[], None] = lambda: None, placement: Placement | None = None
    ) -> None:
        self.run = Run(folder)
        self.tick = tick  # called after every epoch, for a progress bar
        self.device = torch.device(self.run.plan.device)
        self.placement = placement or place_features(self.run, 1)[0]
        self.run.store.mapped_bytes = self.placement.mapped
        self._data: dict[tuple[int | str, int], Data] = {}

    def data(self, layer: int | str, stride: int) -> Data:
        """The features as extracted, averaged by the stride."""
        key = layer, stride
        if key not in self._data:
            ids = [u.id for u in self.run.utterances]
            self._data = {}  # the old layer goes before the new one comes
            where = self.placement.where
            layers = self.run.store.info.layers if layer == MIX else [int(layer)]
            self._data = {key: load(self.run.store, ids, layers, stride, self.run.targets, where, self.device)}
        return self._data[key]

    def derived(self, layer: int | str, fold: Fold, settings: Settings) -> Data:
        """The features as every row of this fold is given them."""
        data = self.data(layer, settings.stride)
        if settings.normalise == "speaker":
            return by_speaker(data, self.members(fold.fit), [u.speaker for u in self.run.utterances])
        return data

    def training_means(self, fold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of a fold's fit and valid parts: each utterance's mean frame of every stored state `(U, L, D)`, as the fold's
        rows are given it, its target, and its unit of what the task keeps disjoint."""
        run, parts = self.run, self.run.protocol.folds[fold]
        members = self.members((*parts.fit, *parts.valid))
        # One layer after the other, unless all are there: of many, one may be all that memory holds.
        layers: Sequence[int | str] = [MIX] if run.plan.layer == MIX else run.store.info.layers
        means = [self.derived(layer, parts, run.plan.settings).mean_frames(members) for layer in layers]
        x_ULD = torch.cat(means, 1).reshape(len(members), len(run.store.info.layers), -1).numpy()
        utterances = [run.utterances[int(u)] for u in members]
        disjoint = run.task.disjoint[0] if run.task.disjoint else "id"
        units = [field_of(u, disjoint) or u.id for u in utterances]
        return x_ULD, run.targets[members.numpy()], np.array(units)

    def members(self, ids: tuple[str, ...]) -> Tensor:
        return torch.tensor([self.run.position[i] for i in ids])

    def layer(self, fold: int) -> int | str:
        """The state that this fold's rows see; MIX: all that are stored."""
        layer = self.run.plan.layer
        return int(self.run.result(Job("layer", BEST, fold, 0).name)["layer"]) if layer == BEST else layer

    def mix(self, network: Network) -> dict[str, Any]:
        """For a record: the weight of each state in the network's layer mix, by its number; nothing without one."""
        if network.mix is None:
            return {}
        return {"mix": dict(zip(map(str, self.run.store.info.layers), network.mix.weights().tolist(), strict=True))}

    def metrics(self, predictions: np.ndarray, members: Tensor) -> dict[str, float]:
        targets = self.run.targets[members.numpy()]
        return {name: metric(targets, predictions) for name, metric in self.run.metrics.items()}


def place_features(run: Run, processes: int, memory: float | None = None) -> tuple[Placement, str]:
    """Where a layer of the run's features goes while `processes` train, and a line about it; see `placement.place`."""
    settings = run.plan.settings
    ids = [u.id for u in run.utterances]
    whole, least = sizes(run.store, ids, settings.stride, settings.batch_size, run.states)
    return place(whole, least, torch.device(run.plan.device), processes, memory)


@dataclass(frozen=True)
class Fitted:
    """A trained network with the weights of its best epoch, and what it was trained on."""

    network: Network
    data: Data
    records: list[Record]
    seconds: float

    @property
    def kept(self) -> Record:
        """The record of the epoch whose weights the network has."""
        return max(self.records, key=lambda r: (r["score"], -r["epoch"]))


def fit(
    bench: Bench,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Path | None = None,
) -> Fitted:
    """Train one architecture on a fold's fit part; the epoch of the lowest validation loss is kept (early stopping).

    settings: the run's, or others (`tune`). after_epoch: is given each epoch's record: epoch, loss (training), valid
    (loss and metrics), score (validation loss, negated); what it raises ends the training. The test part is not seen.
    """
    parts = bench.run.protocol.folds[fold]
    data, valid = bench.derived(bench.layer(fold), parts, settings), bench.members(parts.valid)
    seed_everything(seed, fold, "initial weights")
    dims = data.dim, settings.width or data.dim, len(bench.run.outputs)
    made = build(space, architecture, *dims, settings.dropout, settings.residual == "every", data.states)
    network = made.to(bench.device)
    if settings.normalise != "none":
        network.standardise.set(*data.moments(bench.members(parts.fit)))

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        out: Tensor = network(x_BTD, mask_BT)
        return out

    def record(epoch: Epoch) -> Record:
        checked = valid_scores(bench, network, data, valid)
        known = {"epoch": epoch.index, "loss": epoch.loss, "valid": checked, "score": -checked["loss"]}
        known |= bench.mix(network)
        after_epoch(known)
        return known

    records, seconds = optimise(
        network,
        forward,
        bench.run.task.loss,
        data,
        bench.members(parts.fit),
        replace(settings, warmup=0),  # that of a search: here a layer mix moves from the first step
        seed_of(fold, seed),
        record,
        checkpoint,
        keep_best="score",
    )
    return Fitted(network, data, records, seconds)


def find(
    bench: Bench,
    space: SearchSpace,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[Record], None],
    checkpoint: Path | None = None,
    paths: bool = True,
) -> tuple[Supernet, Found]:
    """Search a space in a fold; see `search.search`. The test part is not seen.

    settings: the run's, or others. after_epoch: is given each epoch's record, with the scores of the architecture that
    leads on the valid part, and the layer mix. paths: score every architecture at the end, needed or not.
    """
    parts = bench.run.protocol.folds[fold]
    data, valid = bench.derived(bench.layer(fold), parts, settings), bench.members(parts.valid)
    fit_part = bench.members(parts.fit)
    seed_everything(seed, fold, "initial weights")
    dims = data.dim, settings.width or data.dim, len(bench.run.outputs)
    made = Supernet(space, *dims, settings.dropout, settings.residual == "every", data.states)
    supernet = made.to(bench.device)
    if settings.normalise != "none":
        supernet.standardise.set(*data.moments(fit_part))

    def score(network: Network) -> dict[str, float]:
        return valid_scores(bench, network, data, valid)

    def record(known: Record) -> Record:
        leader = known["architecture"]
        more = {"valid": score(supernet.discrete(Architecture.of(leader)))} if leader else {}
        more |= bench.mix(supernet)
        after_epoch(known | more)
        return more

    found = search(
        supernet,
        bench.run.task.loss,
        data,
        fit_part,
        settings,
        seed_of(fold, seed),
        record,
        valid,
        score if paths or settings.strategy == "single-path" else None,
        checkpoint,
    )
    return supernet, found


def valid_scores(bench: Bench, network: Network, data: Data, valid: Tensor) -> dict[str, float]:
    """Loss and metrics on the valid part; `network` is in eval mode."""
    found = outputs(network, data, valid)
    loss = float(bench.run.task.loss(found, data.targets_U[valid]))
    return {"loss": loss, **bench.metrics(bench.run.task.predict(found), valid)}


def seed_of(fold: int, seed: int) -> int:
    """Of a training's batches and noise."""
    return seed * 1000 + fold
