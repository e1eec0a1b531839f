"""The data of an audit: architectures trained alone, and how each search scored and chose.

Axes: A architectures as `Taken` has them, those of the reference before the picks beside it, F folds, S seeds, E
epochs, N test utterances pooled over the folds, D draws of picks. A search is one fold and seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bas.networks.costs import multiply_adds
from bas.networks.network import build
from bas.report.comparison import decided
from bas.runs.plan import Job, Kind
from bas.runs.results import TrainingEpoch, TrainingResult, read_result, search_of
from bas.runs.run import Run
from bas.space import Architecture, SearchSpace
from bas.stats import Metric, Predictions
from bas.stats.decisions import Selection
from bas.studies.audit.taken import Taken
from bas.util.files import replacing
from bas.util.spreadsheet import defuse


@dataclass(frozen=True)
class Truth:
    """Architectures of one space, trained alone in every fold: those that stand for it with every seed.

    What is of a pick with a seed that does not judge it is not a number, and its predictions are no predictions.
    """

    space: str
    taken: Taken
    predictions_ASN: np.ndarray
    trained_AS: np.ndarray
    folds_N: np.ndarray  # which fold tested each utterance
    scores_AFS: np.ndarray  # validation loss of the kept epoch, negated
    training_AE: np.ndarray  # loss in each epoch, mean over folds and seeds
    validation_AE: np.ndarray
    parameters_A: np.ndarray
    cost_AF: np.ndarray  # multiply-adds of one training

    @cached_property
    def architectures(self) -> tuple[Architecture, ...]:
        return self.taken.architectures

    @property
    def drawn(self) -> int:
        """How many architectures stand for the space: the first of each axis A."""
        return self.taken.reference.drawn

    @cached_property
    def designs(self) -> tuple[dict[str, str], ...]:
        """Of every architecture that one of the reference stands for, the block of each searched part."""
        return tuple(a.to_dict() for of_model in self._alike for a in of_model)

    @property
    def models_D(self) -> np.ndarray:
        """For each of the designs, which architecture of the reference stands for it."""
        return np.repeat(np.arange(self.drawn), [len(of_model) for of_model in self._alike])

    @cached_property
    def _alike(self) -> tuple[tuple[Architecture, ...], ...]:
        return tuple(self.taken.alike(a) for a in self.architectures[: self.drawn])

    def accuracy(self, targets_N: np.ndarray, metric: Metric, without: int | None = None) -> np.ndarray:
        """`(A, S)`: the metric pooled over the folds. without: a fold whose test utterances are left out."""
        kept_N = self.folds_N != (-1 if without is None else without)
        values_AS = np.full(self.trained_AS.shape, np.nan)
        for a, s in np.argwhere(self.trained_AS):
            values_AS[a, s] = metric(targets_N[kept_N], self.predictions_ASN[a, s, kept_N])
        return values_AS

    def compose(self, picks_DFS: np.ndarray) -> Predictions:
        """What systems predict that pick an architecture in each fold and with each seed: `(S, N, D)`, D systems.

        A pick of seed s is judged by the training of the next seed, and of the last seed by that of the first: one that
        no search has seen, as a search that chooses between trainings would keep the luckiest. With one seed there is
        no other.
        """
        seeds, n = picks_DFS.shape[2], np.arange(len(self.folds_N))
        assert all(self.trained_AS[picks_DFS[:, :, s], (s + 1) % seeds].all() for s in range(seeds)), "not trained"
        rows = [
            [self.predictions_ASN[picks_FS[self.folds_N, s], (s + 1) % seeds, n] for picks_FS in picks_DFS]
            for s in range(seeds)
        ]
        return Predictions(np.moveaxis(np.array(rows), 1, 2), self.folds_N)

    def row(self, architecture: int) -> Predictions:
        """What one architecture predicts."""
        return Predictions(self.predictions_ASN[architecture], self.folds_N)


@dataclass(frozen=True)
class Searches:
    """The searches of one strategy, in every fold with every seed."""

    strategy: str
    picks_FS: np.ndarray  # the places of the chosen architectures on axis A
    decided: Selection
    beliefs_FSA: np.ndarray | None  # log of softmax(theta) of each architecture, summed over parts; None: no theta
    paths_FSA: np.ndarray | None  # validation loss of its path in the trained supernet, negated; None: too many paths
    cost: float  # multiply-adds of one search and selection, mean over folds and seeds
    seconds: float  # the same


def alone(run: Run, space: str, fold: int, seed: int, number: int) -> TrainingResult:
    """The training of one architecture."""
    return read_result(run, Job(Kind.ALONE, space, fold, seed, number), TrainingResult)


def load_truth(run: Run, name: str, taken: Taken) -> Truth:
    """Read the trainings of a space's architectures. All their jobs must be done."""
    space, folds, seeds = run.spaces[name].space, range(len(run.protocol.folds)), run.plan.seeds
    every = {number: tuple(range(len(seeds))) for number in taken.numbers}
    predictions, scores, training, validation, parameters, trained = [], [], [], [], [], []
    for number, places in {**every, **taken.picks}.items():
        jobs = [{i: alone(run, name, f, seeds[i], number) for i in places} for f in folds]
        of_seed = {i: np.concatenate([of[i].test.predictions for of in jobs]) for i in places}
        none = np.zeros_like(of_seed[places[0]])
        predictions.append([of_seed.get(i, none) for i in range(len(seeds))])
        best = [{i: max(e.score for e in result.curve.epochs) for i, result in of.items()} for of in jobs]
        scores.append([[of.get(i, np.nan) for i in range(len(seeds))] for of in best])
        curves = [_full(result.curve.epochs, run.plan.settings.epochs) for of in jobs for result in of.values()]
        training.append(np.mean([[e.loss for e in curve] for curve in curves], axis=0))
        validation.append(np.mean([[e.valid["loss"] for e in curve] for curve in curves], axis=0))
        parameters.append(jobs[0][places[0]].parameters)
        trained.append([i in places for i in range(len(seeds))])
    costs = [[training_cost(run, space, a, f) for f in folds] for a in taken.architectures]
    sizes = [len(fold.test) for fold in run.protocol.folds]
    arrays = (predictions, trained, np.repeat(folds, sizes), scores, training, validation, parameters, costs)
    return Truth(name, taken, *map(np.array, arrays))


def _full(curve: Sequence[TrainingEpoch], epochs: int) -> list[TrainingEpoch]:
    """A curve of that many epochs: a linear model, which is solved, has one, and stays there."""
    return [*curve, *[curve[-1]] * (epochs - len(curve))]


def load_searches(run: Run, name: str, strategy: str, taken: Taken) -> Searches:
    """Read the searches of one strategy. strategy: its spec, as in the jobs. All jobs must be done.

    An architecture of a sample stands for others, as the same network: their probabilities are added, and the best of
    their paths counts.
    """
    space, architectures = taken.space, taken.architectures
    index = {taken.number(a): i for i, a in enumerate(architectures)}
    keys = [(f, s) for f in range(len(run.protocol.folds)) for s in run.plan.seeds]
    results = [search_of(run, name, f, s, strategy) for f, s in keys]
    picks = [index[taken.number(Architecture.of(result.architecture))] for result in results]
    beliefs = [result.probabilities for result in results if result.probabilities]
    paths = [result.paths for result in results if result.paths]
    by_search = (len(run.protocol.folds), len(run.plan.seeds), -1)
    alike = [[(same, space.number(same)) for same in taken.alike(a)] for a in architectures]

    def believed(of_search: Mapping[str, Mapping[str, float]], same: Architecture) -> float:
        return float(sum(np.log(of_search[part][block]) for part, block in same.blocks))

    belief = [[np.logaddexp.reduce([believed(b, same) for same, _ in group]) for group in alike] for b in beliefs]
    scores = [[-min(of_search[number]["loss"] for _, number in group) for group in alike] for of_search in paths]
    return Searches(
        strategy,
        np.array(picks).reshape(by_search[:2]),
        decided(results, space),
        np.array(belief).reshape(by_search) if beliefs else None,
        np.array(scores).reshape(by_search) if paths else None,
        float(np.mean([result.multiply_adds for result in results])),
        float(np.mean([result.seconds for result in results])),
    )


def training_cost(run: Run, space: SearchSpace, architecture: Architecture, fold: int) -> float:
    """Multiply-adds of one training: forward and backward (three forwards) over fit, forward over valid, each epoch."""
    settings, parts, dim = run.plan.settings, run.protocol.folds[fold], run.store.info.dim
    outputs, around = len(run.outputs), settings.residual == "every"
    network = build(space, architecture, dim, settings.width or dim, outputs, settings.dropout, around, run.states)
    frames = sorted(-(-run.store.num_frames(i) // settings.stride) for i in parts.fit)[(len(parts.fit) - 1) // 2]
    return multiply_adds(network, run.states * dim, frames) * settings.epochs * (3 * len(parts.fit) + len(parts.valid))


def write_table(run: Run, truth: Truth, searches: Sequence[Searches], folder: Path) -> None:
    """Write one row for each architecture, fold and seed, as Parquet and CSV.

    A row has blocks, whether the architecture was drawn or only picked, valid and test metrics, costs, and how each
    strategy's search of that fold and seed scored it.
    """
    rows: list[dict[str, Any]] = []
    taken = truth.taken
    for index, (number, architecture) in enumerate(zip(taken.every, truth.architectures, strict=True)):
        for fold, parts in enumerate(run.protocol.folds):
            for place in np.flatnonzero(truth.trained_AS[index]):
                seed = run.plan.seeds[place]
                result = alone(run, truth.space, fold, seed, number)
                kept = result.curve.kept
                row = {
                    "number": number,
                    "architecture": str(architecture),
                    "taken": "picked" if number in taken.picks else "drawn" if taken.sampled else "all",
                    **{f"block_{part}": block for part, block in architecture.blocks},
                    "fold": fold,
                    "seed": seed,
                    **{f"test_{metric}": value for metric, value in result.test.metrics.items()},
                    **{f"valid_{metric}": value for metric, value in kept.valid.items()},
                    "tested": len(parts.test),
                    "train_loss": kept.loss,
                    "kept_epoch": result.curve.kept_epoch,
                    "parameters": result.parameters,
                    "multiply_adds": truth.cost_AF[index, fold],
                    "seconds": result.seconds,
                }
                for search in searches:
                    if search.beliefs_FSA is not None:
                        row[f"{search.strategy}_probability"] = float(np.exp(search.beliefs_FSA[fold, place, index]))
                    if search.paths_FSA is not None:
                        row[f"{search.strategy}_valid_loss"] = -search.paths_FSA[fold, place, index]
                rows.append(row)
    write_frame(pd.DataFrame(rows), folder, truth.space)


def write_frame(frame: pd.DataFrame, folder: Path, name: str) -> None:
    """Write it as .parquet, and as .csv for people, where no spreadsheet takes a text for a formula."""
    texts = {c: frame[c].map(defuse) for c in frame if not pd.api.types.is_numeric_dtype(frame[c])}
    for_people = frame.assign(**texts).rename(columns=defuse)
    for suffix, write in ((".parquet", frame.to_parquet), (".csv", for_people.to_csv)):
        with replacing(folder / f"{name}{suffix}") as temporary:
            write(temporary, index=False)
