"""Jobs: one search, or one training scored on its test part. Each is a function of the run folder and its name.

A job's numbers depend on the run, the fold and the seed, never on what else runs: each has one CPU thread, so that the
number of workers changes nothing. A job sees its test part once, in `_score`, when everything is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from bas import report
from bas.batches import Data, by_speaker, load, sizes
from bas.blocks import MeanPool, SimpleFFN, TransformerBlock
from bas.errors import UserError
from bas.files import replacing, write_json
from bas.loop import Epoch, Record, optimise, outputs, seed_everything
from bas.placement import Placement, place
from bas.protocols import Fold
from bas.run import BEST, MIX, Run
from bas.search import PATHS, epochs_of, search
from bas.settings import SEARCH_ONLY, Settings, searcher
from bas.space import Architecture, SearchSpace, SpaceFile
from bas.supernet import Network, Supernet, build, check, count_parameters

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Inverse regularisation of the linear row: the best on the valid part is taken."""

LINEAR = "logistic regression"


def _transformer(layers: int) -> SearchSpace:
    block = partial(TransformerBlock, num_heads=8)
    return SearchSpace({f"layer{i}": {"MSA+FFN": block} for i in range(1, layers + 1)}, MeanPool)


BASELINES: dict[str, SearchSpace] = {
    "3L transformer": _transformer(3),
    "4L transformer": _transformer(4),
    "simple FFN": SearchSpace({"layer1": {"MLP": SimpleFFN}}, MeanPool),
}
"""The paper's Table 1 beside what a search finds; each a space of one architecture."""


def check_networks(spaces: Iterable[SpaceFile], in_dim: int, settings: Settings) -> None:
    """Try every candidate of every space once: what cannot be is refused before a run writes anything."""
    for name, space in {**BASELINES, **{str(s.path): s.space for s in spaces}}.items():
        if settings.strategy == "single-path" and space.size > PATHS:
            told = f"{space.size} architectures; strategy single-path scores every one, at most {PATHS}"
            raise UserError(f"{name}: {told}: name another, such as --set strategy=gumbel")
        try:
            check(space, in_dim, settings.width or in_dim)
        except UserError as error:
            raise UserError(f"{name}: {error} (setting width={settings.width})") from error


@dataclass(frozen=True)
class Job:
    """kind: layer, linear, baseline, search, retrain or alone (one architecture of a space, by its number).

    row: BEST, LINEAR, a baseline, or a search space by name.
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
        return {name: metric(targets, predictions) for name, metric in self.run.task.metrics.items()}


def place_features(run: Run, processes: int, memory: float | None = None) -> tuple[Placement, str]:
    """Where a layer of the run's features goes while `processes` train, and a line about it; see `placement.place`."""
    settings = run.plan.settings
    ids = [u.id for u in run.utterances]
    whole, least = sizes(run.store, ids, settings.stride, settings.batch_size, run.states)
    return place(whole, least, torch.device(run.plan.device), processes, memory)


def run_job(bench: Bench, job: Job) -> None:
    """Do one job and write its result, unless that is there already. Resumes a checkpoint that a kill left."""
    if bench.run.done(job.name):
        return
    torch.set_num_threads(1)
    trainings = dict.fromkeys(("retrain", "baseline", "alone"), _train)
    kinds = {"layer": _choose_layer, "linear": _linear, "search": _search, **trainings}
    with threadpool_limits(1):  # BLAS under scikit-learn
        result = kinds[job.kind](bench, job, bench.run.protocol.folds[job.fold])
    write_json(bench.run.job_path(job.name), {"job": asdict(job), "protocol": bench.run.protocol.hash, **result})
    _checkpoint(bench, job).unlink(missing_ok=True)


def _checkpoint(bench: Bench, job: Job) -> Path:
    return bench.run.folder / "jobs" / f"{job.name}.checkpoint"


def _linear_fit(bench: Bench, fold: Fold, data: Data) -> tuple[Any, float, dict[str, float]]:
    """Standardised mean frames into the task's linear model: fitted on fit, its strength chosen on valid."""
    headline, fit, valid = bench.run.headline, bench.members(fold.fit), bench.members(fold.valid)
    fit_UD, valid_UD = data.mean_frames(fit).numpy(), data.mean_frames(valid).numpy()
    best: tuple[Any, float, dict[str, float]] | None = None
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), bench.run.task.linear(strength))
        model.fit(fit_UD, bench.run.targets[fit.numpy()])
        metrics = bench.metrics(model.predict(valid_UD), valid)
        if best is None or metrics[headline] > best[2][headline]:
            best = model, strength, metrics
    assert best is not None
    return best


def _choose_layer(bench: Bench, job: Job, fold: Fold) -> dict[str, Any]:
    """The layer whose linear model is best on the valid part; the lower one of equals."""
    scores: dict[int, float] = {}
    for layer in bench.run.store.info.layers:
        data = bench.derived(layer, fold, bench.run.plan.settings)
        scores[layer] = _linear_fit(bench, fold, data)[2][bench.run.headline]
    return {"layer": max(scores, key=lambda layer: (scores[layer], -layer)), "valid": scores}


def _linear(bench: Bench, job: Job, fold: Fold) -> dict[str, Any]:
    data = bench.derived(bench.layer(job.fold), fold, bench.run.plan.settings)
    begun = time.monotonic()
    model, strength, valid = _linear_fit(bench, fold, data)
    seconds = time.monotonic() - begun
    predictions = model.predict(data.mean_frames(bench.members(fold.test)).numpy())
    parameters = int(sum(getattr(model[-1], name).size for name in ("coef_", "intercept_")))
    found = {"strength": strength, "valid": valid, "parameters": parameters, "seconds": seconds}
    return {**found, **_score(bench, predictions, fold)}


def _search(bench: Bench, job: Job, fold: Fold) -> dict[str, Any]:
    settings, space = searcher(bench.run.plan.settings, job.searcher), bench.run.spaces[job.row].space
    data = bench.derived(bench.layer(job.fold), fold, settings)
    fit, valid = bench.members(fold.fit), bench.members(fold.valid)
    seed_everything(job.seed, job.fold, "initial weights")
    dims = data.dim, settings.width or data.dim, len(bench.run.outputs)
    made = Supernet(space, *dims, settings.dropout, settings.residual == "every", data.states)
    supernet = made.to(bench.device)
    if settings.normalise != "none":
        supernet.standardise.set(*data.moments(fit))
    with report.writer(bench.run.folder, job.name, bench.run.protocol.told, bench.run.protocol.marks) as board:

        def score(network: Network) -> dict[str, float]:
            return valid_scores(bench, network, data, valid)

        def after_epoch(record: Record) -> Record:
            known = record["architecture"]
            checked = {"valid": score(supernet.discrete(Architecture.of(known)))} if known else {}
            checked |= bench.mix(supernet)
            report.search_epoch(board, record | checked, epochs_of(settings, space))
            bench.tick()
            return checked

        found = search(
            supernet,
            bench.run.task.loss,
            data,
            fit,
            settings,
            _seed(job.fold, job.seed),
            after_epoch,
            valid,
            score,
            _checkpoint(bench, job),
        )
        values = [path[bench.run.headline] for path in found.paths or ()]
        scored = list(zip(space.architectures(), values, strict=False))
        report.found(board, found.architecture, scored, bench.run.headline, len(found.records))
        mix = bench.mix(supernet) if found.records else {}  # a random choice trains nothing
        report.mixed(board, mix)
    _save(bench, job, supernet)
    kept = ("loss", bench.run.headline)
    return {
        "architecture": found.architecture.as_dict(),
        "layer": bench.layer(job.fold),
        "settings": {name: getattr(settings, name) for name in SEARCH_ONLY},
        "parameters": count_parameters(supernet),
        "multiply_adds": found.multiply_adds,
        "seconds": found.seconds,
        "probabilities": found.probabilities,
        **mix,
        "paths": found.paths and [{name: scored[name] for name in kept} for scored in found.paths],
        "epochs": found.records,
    }


def _train(bench: Bench, job: Job, fold: Fold) -> dict[str, Any]:
    space, architecture = _asked(bench.run, job)
    # An audit's thousands of trainings would bury all else in TensorBoard: its report shows them.
    told = bench.run.protocol.told, bench.run.protocol.marks
    with nullcontext() if job.kind == "alone" else report.writer(bench.run.folder, job.name, *told) as board:

        def after_epoch(record: Record) -> None:
            if board:
                report.train_epoch(board, record)
            bench.tick()

        fitted = fit(
            bench,
            space,
            architecture,
            bench.run.plan.settings,
            job.fold,
            job.seed,
            after_epoch,
            _checkpoint(bench, job),
        )
        predictions = bench.run.task.predict(outputs(fitted.network, fitted.data, bench.members(fold.test)))
        scored = _score(bench, predictions, fold)
        mix = bench.mix(fitted.network)
        if board:
            report.trained(board, str(architecture), scored["test"]["metrics"])
            report.mixed(board, mix)
    if job.kind == "retrain":
        _save(bench, job, fitted.network)
    return {
        "architecture": architecture.as_dict(),
        "layer": bench.layer(job.fold),
        "parameters": count_parameters(fitted.network),
        "seconds": fitted.seconds,
        "kept_epoch": fitted.kept["epoch"],
        **mix,
        "epochs": fitted.records,
        **scored,
    }


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
        _seed(fold, seed),
        record,
        checkpoint,
        keep_best="score",
    )
    return Fitted(network, data, records, seconds)


def _asked(run: Run, job: Job) -> tuple[SearchSpace, Architecture]:
    """What a training is of."""
    if job.kind == "baseline":
        return BASELINES[job.row], BASELINES[job.row].only()
    space = run.spaces[job.row].space
    if job.kind == "alone":
        assert job.number is not None
        return space, list(space.architectures())[job.number]
    return space, Architecture.of(run.result(Job("search", job.row, job.fold, job.seed).name)["architecture"])


def _save(bench: Bench, job: Job, network: Network) -> None:
    with replacing(bench.run.folder / "jobs" / f"{job.name}.pt") as temporary:
        torch.save(network.state_dict(), temporary)


def valid_scores(bench: Bench, network: Network, data: Data, valid: Tensor) -> dict[str, float]:
    """Loss and metrics on the valid part; `network` is in eval mode."""
    found = outputs(network, data, valid)
    loss = float(bench.run.task.loss(found, data.targets_U[valid]))
    return {"loss": loss, **bench.metrics(bench.run.task.predict(found), valid)}


def _score(bench: Bench, predictions: np.ndarray, fold: Fold) -> dict[str, Any]:
    """What is kept of the test part: predictions in the fold's order, and its metrics."""
    return {
        "test": {"predictions": predictions.tolist(), "metrics": bench.metrics(predictions, bench.members(fold.test))}
    }


def _seed(fold: int, seed: int) -> int:
    return seed * 1000 + fold
