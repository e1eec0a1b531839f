"""How good is what a search takes, by the trainings that it may spend? Regret against budget; writes regret.md.

One arm is no strategy of `bas`: a race whose surrogate also sees how a supernet of single-path scores each architecture
on held-out speakers, as a covariate with a slope of its own that may be negative (`Led`).

Every architecture of a small space is trained on every inner fold of every fold, with two seeds. So a search is played
by looking its trainings up: with those of one seed it chooses, and the committee of the other seed, scored on the
fold's test part, says how good the choice was. Regret is what it loses to the architecture that has the best mean over
all folds in the seed that it chose with: hindsight, which no search has. The same command with the same --folder goes
on where it was stopped.

Axes: F folds, S seeds, A architectures, R replications: inner folds, and again with other initial weights.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import torch
from features import commit, machine
from rich.console import Console
from scipy.stats import t as student_t
from threadpoolctl import threadpool_limits

from bas.blocks import (
    FFN,
    MSA,
    AttentiveStatisticsPool,
    MeanPool,
    Skip,
    StatisticsPool,
)
from bas.errors import UserError
from bas.features.store import FeatureStore
from bas.networks.costs import Costs, count, multiply_adds
from bas.networks.supernet import Supernet
from bas.runs.fit import fit, fit_row, search_fold
from bas.runs.plan import Plan
from bas.runs.run import Inputs, Run
from bas.runs.session import Session
from bas.runs.solved import solvable
from bas.runs.spaces import load_space
from bas.runs.start import split, start
from bas.search.race import Race, random_search
from bas.search.search import PASSES
from bas.search.surrogate import Posterior, similarity
from bas.space import Architecture, Choices, SearchSpace
from bas.training.loop import outputs
from bas.training.settings import Strategy, settings
from bas.util.files import read_json, write_json, write_text
from bas.util.markdown import bullets, markdown_table, paragraph, section
from bas.util.progress import bar

PAGE = Path(__file__).with_suffix(".md")
FIGURE = Path(__file__).parent / "figures" / "regret.png"

LAYER: Choices = {"none": Skip, "FFN": FFN, "MSA": partial(MSA, num_heads=8)}
POOL: Choices = {"mean": MeanPool, "statistics": StatisticsPool, "attentive statistics": AttentiveStatisticsPool}
SPACE = SearchSpace({"layer1": LAYER, "layer2": LAYER}, POOL)
EVERY = list(dict.fromkeys(map(SPACE.distinct, SPACE.architectures())))

INNER, SEEDS, REPLICATIONS = 4, (0, 1), 4
SETTINGS = {"width": "32", "stride": "16", "committee": str(INNER)}
RACED, DRAWN = (4, 8, 12, 16), (4, 8, 12, 16, 24, 32, 48, 64)
"""Budgets of races, which cannot spend more on so few replications, and of random search."""
DRAWS = 200  # random searches that are played for each fold and seed
SUPERNETS: tuple[Strategy, ...] = ("single-path", "gumbel")

Piece = tuple[int, int, str]
"""A fold, a seed, and the number of an architecture or the name of a supernet's strategy."""


@dataclass(frozen=True)
class Trained:
    """The trainings of one store. Of a linear model, which is solved, both seeds are the same."""

    name: str
    metric: str
    costs: Costs
    solved: Sequence[Architecture]
    loss_FSAR: np.ndarray  # of the held-out utterances
    test_FSA: np.ndarray  # the metric of the committee on the test part
    supernets: Mapping[str, tuple[np.ndarray, float]]  # the pick `(F, S)` of each, and its cost in trainings
    path_FSA: np.ndarray  # the loss of each architecture with the weights of single-path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", action="append", required=True, metavar="FOLDER", help="a store; may be repeated")
    parser.add_argument("--folder", required=True, type=Path, help="for what is trained, which is kept")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    try:
        every = [measure(Path(path), arguments.folder, arguments.workers) for path in arguments.features]
    except UserError as error:
        sys.exit(f"benchmarks/regret.py: {error}")
    command = " ".join(["python benchmarks/regret.py", *(f"--features {one.name}" for one in every)])
    played = [play(one) for one in every]
    draw(every, played)
    page = write(f"{command} --folder FOLDER", every, played)
    write_text(PAGE, page)
    print(page, f"\nwritten: {PAGE} and {FIGURE}", sep="")


def opened(features: Path, folder: Path) -> Run:
    store = FeatureStore(features.resolve())
    layers, space = store.info.layers, str(load_space("ser_wide").path)
    plan = Plan(str(features.resolve()), (space,), layers[len(layers) // 2], settings("cpu", SETTINGS), SEEDS, "cpu")
    inputs = Inputs.open(plan)
    return start(folder / features.name, inputs, split(inputs, None, 0))


def measure(features: Path, folder: Path, workers: int) -> Trained:
    """All trainings and supernets of one store; what is done already stays."""
    run = opened(features, folder)
    folds = len(run.protocol.folds)
    names = [*map(str, range(len(EVERY))), *SUPERNETS]
    pieces = list(itertools.product(range(folds), SEEDS, names))
    todo = [piece for piece in pieces if not path_of(run, piece).exists()]
    with ProcessPoolExecutor(workers) as pool, bar(Console(stderr=True), "trainings") as progress:
        task = progress.add_task(features.name, total=len(pieces), completed=len(pieces) - len(todo))
        try:
            for done in as_completed([pool.submit(work, run.folder, piece) for piece in todo]):
                done.result()
                progress.advance(task)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    read = {piece: read_json(path_of(run, piece)) for piece in pieces}
    shape = folds, len(SEEDS), len(EVERY)
    of = [read[piece] for piece in pieces if piece[2].isdigit()]
    every = [EVERY[int(name)].to_dict() for _, _, name in pieces if name.isdigit()]
    assert [one["architecture"] for one in of] == every, "of another space"
    session, number = Session(run), {str(a): i for i, a in enumerate(EVERY)}
    supernets: dict[str, tuple[np.ndarray, float]] = {}
    for name in SUPERNETS:
        found = [read[f, s, name] for f in range(folds) for s in SEEDS]
        picks = [number[str(SPACE.distinct(Architecture.of(one["architecture"])))] for one in found]
        cost = float(np.mean([one["cost"] for one in found]))
        supernets[name] = np.array(picks).reshape(folds, len(SEEDS)), cost
    paths = [read[f, s, SUPERNETS[0]]["paths"] for f in range(folds) for s in SEEDS]
    return Trained(
        features.name,
        run.headline,
        costs_of(session),
        [a for a in SPACE.blockless() if solvable(session, SPACE, a)],
        np.array([one["losses"] for one in of]).reshape(*shape, REPLICATIONS),
        100 * np.array([one["test"] for one in of]).reshape(shape),
        supernets,
        np.array(paths).reshape(shape),
    )


def path_of(run: Run, piece: Piece) -> Path:
    return run.folder / "regret" / "-".join(map(str, piece)).replace("single-path", "single_path")


def costs_of(session: Session) -> Costs:
    data, of = session.data(session.layer(0), session.run.plan.settings.stride), session.run.plan.settings
    supernet = Supernet(SPACE, data.dim, of.width or data.dim, len(session.run.outputs))
    return count(supernet, of.cost, int(data.lengths_U.median()))


SESSIONS: dict[Path, Session] = {}  # of a worker, by the folder of the run


def work(folder: Path, piece: Piece) -> None:
    """Train one architecture on all inner folds of a fold, and score it; or search by a supernet."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    if folder not in SESSIONS:
        SESSIONS[folder] = Session(Run.open(folder))
    session, run, (fold, seed, name) = SESSIONS[folder], SESSIONS[folder].run, piece
    if not name.isdigit():
        write_json(path_of(run, piece), searched(session, fold, seed, name))
        return
    architecture, of = EVERY[int(name)], run.plan.settings
    test = session.members(run.protocol.folds[fold].test)
    losses, outputs_RNO, inner = [], [], session.inner_folds(fold, INNER)
    for r in range(REPLICATIONS):
        one = fit(session, SPACE, architecture, of, fold, seed, lambda record: None, None, inner[r % INNER], r)
        losses.append(float(one.kept[0]["valid"]["loss"]))
        if r < INNER:  # the committee of the table's rows
            outputs_RNO.append(outputs(one.network, one.data, test))
    if solvable(session, SPACE, architecture):  # one model, fitted on all training speakers
        row = fit_row(session, SPACE, architecture, of, fold, seed, lambda record: None)
        outputs_RNO = [outputs(row.network, row.data, test)]
    predictions = run.task.predict(torch.stack(outputs_RNO).mean(0))
    score = float(run.metrics[run.headline](run.targets[test.numpy()], predictions))
    write_json(path_of(run, piece), {"losses": losses, "test": score, "architecture": architecture.to_dict()})


def searched(session: Session, fold: int, seed: int, name: str) -> dict[str, object]:
    """What a supernet takes, and its cost in trainings: multiply-adds over those of the space's mean training."""
    of = settings("cpu", {**SETTINGS, "strategy": name})
    _, outcome = search_fold(session, SPACE, of, fold, seed, lambda record: None, paths=name == "single-path")
    scores: dict[Architecture, list[float]] = {a: [] for a in EVERY}
    for architecture, path in zip(SPACE.architectures(), outcome.paths or (), strict=False):
        scores[SPACE.distinct(architecture)].append(path["loss"])
    data = session.data(session.layer(fold), of.stride)
    frames, supernet = int(data.lengths_U.median()), Supernet(SPACE, data.dim, of.width or data.dim, 2)
    trained = [a for a in EVERY if solvable(session, SPACE, a) is None]
    one = np.mean([multiply_adds(supernet.discrete(a), data.dim, frames) for a in trained])
    parts = session.run.protocol.folds[fold]
    members = len(parts.fit) + len(parts.valid)
    training = one * of.epochs * members * (PASSES * (INNER - 1) + 1) / INNER
    return {"architecture": outcome.architecture.to_dict(), "cost": outcome.multiply_adds / training} | (
        {"paths": [float(np.mean(scores[a])) for a in EVERY]} if outcome.paths else {}
    )


LED = "race, and single-path's scores"


class Led(Race):
    """A race whose surrogate also sees a score of every architecture, as a covariate.

    A linear kernel of the standardised score, with the variance of what is shared: the slope is a part of the Gaussian
    process, without a sign, and the likelihood says how much is shared at all.
    """

    def __init__(self, known: tuple[Any, ...], scores: Mapping[Architecture, float]) -> None:
        super().__init__(*known)
        score_A = np.array([scores[a] for a in self.candidates])
        self.codes_AP = np.column_stack([self.codes_AP, (score_A - score_A.mean()) / score_A.std()])

    def _posterior(self, wanted: np.ndarray, samples: int) -> Posterior:
        with patch("bas.search.surrogate.similarity", self._similarity):
            return super()._posterior(wanted, samples)

    @staticmethod
    def _similarity(left_AP: np.ndarray, right_BP: np.ndarray) -> np.ndarray:
        return np.asarray(similarity(left_AP[:, :-1], right_BP[:, :-1]) + left_AP[:, -1:] * right_BP[:, -1])


Regret = dict[str, dict[float, tuple[float, float]]]
"""By strategy and budget in trainings: mean regret in points, and half of its 95 % interval over folds."""


def play(of: Trained) -> Regret:
    """What each strategy loses to the best architecture in hindsight."""
    number = {a: i for i, a in enumerate(EVERY)}
    solved = {number[a] for a in of.solved}
    folds = len(of.test_FSA)

    def regret(pick: Callable[[int, int], Sequence[int]]) -> tuple[float, float]:
        lost_F = np.zeros(folds)
        for f, s in itertools.product(range(folds), SEEDS):
            best = int(of.test_FSA[:, s].mean(0).argmax())
            other_A = of.test_FSA[f, 1 - s]
            lost_F[f] += (other_A[best] - other_A[list(pick(f, s))].mean()) / len(SEEDS)
        half = float(student_t.ppf(0.975, folds - 1)) * lost_F.std(ddof=1) / np.sqrt(folds)
        return float(lost_F.mean()), float(half)

    def by_race(budget: int, f: int, s: int, led: bool = False) -> list[int]:
        known = (SPACE, of.costs, INNER, budget, s, of.solved)
        race = Led(known, dict(zip(EVERY, of.path_FSA[f, s], strict=True))) if led else Race(*known)
        while (following := race.next()) is not None and following[1] < REPLICATIONS:
            a = number[following[0]]
            race.add(*following, float(of.loss_FSAR[f, s, a, following[1]]))
        return [number[Architecture.of(race.choice().architecture)]]

    def by_random(budget: int, f: int, s: int) -> list[int]:
        def train(a: Architecture) -> float:
            return float(of.loss_FSAR[f, s, number[a], 0])

        return [number[random_search(SPACE, budget, draw, train)[0]] for draw in range(DRAWS)]

    def by_supernet(picks_FS: np.ndarray, f: int, s: int) -> list[int]:
        return [int(picks_FS[f, s])]

    def exhaustive(f: int, s: int) -> list[int]:
        return [int(of.loss_FSAR[f, s].mean(-1).argmin())]

    trained = len(EVERY) - len(solved)
    return {
        "race": {b: regret(partial(by_race, b)) for b in RACED},
        LED: {b: regret(partial(by_race, b, led=True)) for b in RACED},
        "random search": {b: regret(partial(by_random, b)) for b in DRAWN},
        "all, on all inner folds": {trained * INNER: regret(exhaustive)},
        **{name: {cost: regret(partial(by_supernet, picks))} for name, (picks, cost) in of.supernets.items()},
        "a blind draw": {0: regret(lambda f, s: range(len(EVERY)))},
        "the linear model of mean frames": {0: regret(lambda f, s: [number[of.solved[0]]])},
    }


def draw(every: Sequence[Trained], played: Sequence[Regret]) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(every), figsize=(5 * len(every), 4.2), sharey=True, squeeze=False)
    for axis, one, regrets in zip(axes[0], every, played, strict=True):
        for number, (name, of) in enumerate(regrets.items()):
            budgets, (means, halves) = list(of), np.array(list(of.values())).T
            if len(budgets) > 1:
                axis.plot(budgets, means, marker="o", markersize=3, color=f"C{number}", label=name)
                axis.fill_between(budgets, means - halves, means + halves, color=f"C{number}", alpha=0.15, linewidth=0)
            elif budgets[0]:
                axis.errorbar(budgets, means, halves, fmt="s", color=f"C{number}", label=name)
            else:
                axis.axhline(means[0], linestyle=":", color=f"C{number}", label=name)
        axis.set(title=one.name, xscale="log", xlabel="budget, trainings")
        axis.set_xticks(ticks := [1, 2, 4, 8, 16, 32, 64, 128, 256], [str(tick) for tick in ticks])
        axis.minorticks_off()
    axes[0, 0].set_ylabel(f"regret, points of {every[0].metric}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="lower center")
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)
    plt.close(figure)


def write(command: str, every: Sequence[Trained], played: Sequence[Regret]) -> str:
    rows = [(name, budget) for name, of in played[0].items() for budget in of if name not in SUPERNETS]
    body = [
        [name, str(budget or "–"), *("{:.1f} ± {:.1f}".format(*regrets[name][budget]) for regrets in played)]
        for name, budget in rows
    ]
    for name in SUPERNETS:
        costs = [f"{next(iter(regrets[name])):.1f}" for regrets in played]
        values = [next(iter(regrets[name].values())) for regrets in played]
        body.append([name, " / ".join(costs), *("{:.1f} ± {:.1f}".format(*value) for value in values)])
    stated = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    first = every[0]
    return "\n".join(
        [
            section(1, "Regret against budget"),
            "",
            f"`{command}`, {date.today().isoformat()}, commit {commit()}, on {machine(torch.device('cpu'))}.",
            "",
            paragraph(
                f"A space of {len(EVERY)} architectures (up to two blocks of FFN and MSA, three pools; "
                f"{len(first.solved)} of them linear models), preset cpu with {stated}, the middle state, seeds "
                f"{SEEDS}. A search sees the losses on held-out training speakers of one seed; its choice is scored on "
                "the fold's test part as a committee of the other seed. Regret: what it loses to the architecture with "
                "the best mean over all folds in the first seed, which only hindsight knows; in points, with 95 % "
                "intervals over folds. Below 0: the search adapts to a fold better than that. The choice is one "
                f"architecture: no ensemble. Random search: the mean of {DRAWS} draws. A race ends with "
                f"{REPLICATIONS} replications; linear models cost it nothing. With single-path's scores as a "
                "covariate its trainings come beside the supernet's. A supernet's cost is in "
                "multiply-adds, over those of a mean training."
            ),
            "",
            f"![Regret against budget]({FIGURE.relative_to(PAGE.parent)})",
            "",
            *markdown_table(["strategy", "trainings", *(one.name for one in every)], body),
            "",
            *bullets([spread(one) for one in every]),
            "",
        ]
    )


def spread(of: Trained) -> str:
    """How much there is to find: the deviation of architectures in truth, and that of one committee about its mean."""
    between = of.test_FSA.mean(0)  # (S, A)
    truth = float(np.cov(between)[0, 1])
    trained_A = [a not in of.solved for a in EVERY]  # a linear model is the same with every seed
    noise = float(((of.test_FSA[:, 0] - of.test_FSA[:, 1]).var(0, ddof=1) / 2)[trained_A].mean())
    ranked = float(np.corrcoef(of.loss_FSAR.mean((0, 1, 3)), -of.test_FSA.mean((0, 1)))[0, 1])
    return (
        f"{of.name}: over all folds architectures deviate by {np.sqrt(max(truth, 0)):.1f} points in truth "
        f"(covariance of the two seeds' means), a committee on one fold by {np.sqrt(noise):.1f} from its mean; mean "
        f"losses on held-out training speakers and test scores correlate with {ranked:.2f} over architectures."
    )


if __name__ == "__main__":
    main()
