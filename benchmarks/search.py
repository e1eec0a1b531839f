"""Does the race pay? Against the linear row and random search, of as many trainings or of as much work; writes a page.

Each store is searched as `bas compare` does: for every fold its training speakers alone, and the test part is scored
once. The same command with the same --runs goes on where it was stopped.

Axes: S seeds, N test utterances, M stores of one corpus.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from features import commit, machine
from rich.console import Console
from scipy.stats import t as student_t

from bas.errors import UserError
from bas.features.store import FeatureStore
from bas.report.format import verdict
from bas.runs.plan import SEARCH, Job, Kind, Plan
from bas.runs.results import pooled, results_of, searched, tested
from bas.runs.run import Inputs, Run
from bas.runs.session import place_features
from bas.runs.spaces import load_space
from bas.runs.start import split, start
from bas.runs.workers import Workers
from bas.stats import Metric, Paired, Predictions, over_models, paired
from bas.training.settings import settings
from bas.util.files import write_text
from bas.util.markdown import bullets, markdown_table, section

PAGE = Path(__file__).with_suffix(".md")
SPACE, COMMITTEE = "ser_wide", 4
TOLD = {"race": "the race", "random-search": "random search"}
RANDOM = (
    f"; that of random search is its best architecture, trained as a committee: {COMMITTEE - 1} more, which "
    "its work below leaves out. It draws large architectures as well as small ones, where a race tries small ones first"
)
MIDDLE = "middle"
READ = {
    MIDDLE: "the middle state",
    SEARCH: "`layer = search`, where each network of a row has its own state (and the linear row all, side by side)",
}
STRATEGIES = {"race": 2, "random-search": 1}
"""How many trained architectures the row of each averages; random search is that of Li and Talwalkar, one alone."""


@dataclass(frozen=True)
class Measured:
    """One store: what each row predicted of its test utterances, fold after fold."""

    store: str
    run: Run  # of the first strategy
    rows: Mapping[str, Predictions]
    choices: Mapping[str, Mapping[str, float]]  # by arm, the mean weight of each architecture in its rows
    seconds: Mapping[str, float]  # by arm, of one search
    work: Mapping[str, float]  # by arm, multiply-adds of the trainings of one search


@dataclass(frozen=True)
class Arm:
    """A strategy, and the states that it reads: the middle one, or each network's own, which is searched too."""

    strategy: str
    budget: int  # trainings of a search
    layer: str
    alone: bool  # no other arm has this strategy

    @property
    def of(self) -> str:
        return self.strategy if self.alone else f"{self.strategy} of {self.budget}"

    def __str__(self) -> str:
        return self.of + (", any state" if self.layer == SEARCH else "")

    def linear(self, row: str) -> str:
        """The name of the linear row of the same states."""
        return row + (", all states" if self.layer == SEARCH else "")

    @property
    def folder(self) -> str:
        return f"{self.strategy}-{self.budget}" + ("-states" if self.layer == SEARCH else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", action="append", required=True, metavar="FOLDER", help="a store; may be repeated")
    parser.add_argument("--runs", required=True, type=Path, help="a folder for runs, which are kept")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--strategy",
        action="append",
        type=with_budget,
        metavar="NAME:TRAININGS",
        help="may be repeated; default: race:16",
    )
    parser.add_argument(
        "--layer", action="append", choices=(MIDDLE, SEARCH), help=f"may be repeated; default: {MIDDLE}"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    arguments = parser.parse_args()
    asked = arguments.strategy or [("race", 16)]
    names = [name for name, _ in asked]
    arms = [Arm(s, b, layer, names.count(s) == 1) for s, b in asked for layer in arguments.layer or [MIDDLE]]
    try:
        every = [measure(Path(folder), arms, arguments) for folder in arguments.features]
    except UserError as error:
        sys.exit(f"benchmarks/search.py: {error}")
    page = write(every, arms, arguments)
    write_text(arguments.page, page)
    print(page, f"\nwritten: {arguments.page}", sep="")


def with_budget(text: str) -> tuple[str, int]:
    """A strategy and the trainings of one search, as "race:16"."""
    name, _, budget = text.partition(":")
    if name not in STRATEGIES or not budget.isdigit():
        raise argparse.ArgumentTypeError(f"{text}: must be one of {', '.join(STRATEGIES)}, a colon and trainings")
    return name, int(budget)


def measure(features: Path, arms: Sequence[Arm], arguments: argparse.Namespace) -> Measured:
    """Search, retrain and score one store by each arm; what is done already stays."""
    store = FeatureStore(features.resolve())
    layers = store.info.layers
    runs, rows, choices = [], dict[str, Predictions](), dict[str, dict[str, float]]()
    seconds, work = dict[str, float](), dict[str, float]()
    for arm in arms:
        name = str(arm)
        changes = {"strategy": arm.strategy, "budget": str(arm.budget), "committee": str(COMMITTEE)}
        changes |= {"ensemble": str(STRATEGIES[arm.strategy])}
        seeds = tuple(range(arguments.seeds))
        space = (str(load_space(SPACE).path),)
        layer = SEARCH if arm.layer == SEARCH else layers[len(layers) // 2]
        plan = Plan(str(features.resolve()), space, layer, settings("cpu", changes), seeds, "cpu")
        inputs = Inputs.open(plan)
        run = start(arguments.runs / f"{features.name}-{arm.folder}", inputs, split(inputs, None, 0))
        train(run, arguments.workers)
        rows[name] = pooled(results_of(run, SPACE))
        rows[arm.linear(run.linear)] = pooled(results_of(run, run.linear))
        found = searched(run, SPACE).values()
        choices[name] = defaultdict(float)
        for member in (member for one in found for member in one.members):
            blocks = " > ".join(block for block in member.architecture.values() if block != "none")
            choices[name][blocks] += member.weight / len(found)
        seconds[name] = float(np.mean([s.seconds for s in found]))
        work[name] = float(np.mean([s.multiply_adds for s in found]))
        runs.append(run)
    return Measured(features.name, runs[0], rows, choices, seconds, work)


def train(run: Run, workers: int) -> None:
    folds, settings_ = range(len(run.protocol.folds)), run.plan.settings
    pairs = [(f, s) for s in run.plan.seeds for f in folds]
    with Workers(workers, Console(stderr=True)) as pool:
        placement, _ = place_features(run, workers)
        searches = [Job(Kind.SEARCH, SPACE, f, s) for f, s in pairs]
        retrains = [Job(Kind.RETRAIN, SPACE, f, s) for f, s in pairs]
        pool.run(run, searches, settings_.epochs * settings_.budget, "searches", placement)
        pool.run(run, retrains, settings_.epochs * COMMITTEE, "retrains", placement)
        pool.run(run, [Job(Kind.LINEAR, run.linear, f, 0) for f in folds], 1, "linear rows", placement)


def beside(rows: Sequence[Predictions]) -> Predictions:
    """The predictions of M stores on the same utterances as those of one row with M models, `(S, N, M)`."""
    first, again = rows[0], [row.again_RN for row in rows if row.again_RN is not None]
    return replace(
        first, rows_SN=np.stack([row.rows_SN for row in rows], -1), again_RN=np.stack(again, -1) if again else None
    )


def by_corpus(every: Sequence[Measured], a: str, b: str) -> list[Paired]:
    """Of each corpus, the mean difference over its stores."""
    groups: defaultdict[str, list[Measured]] = defaultdict(list)
    for one in every:
        groups[one.run.corpus.name].append(one)
    gaps = []
    for group in groups.values():
        (targets_N, units_N), metric = tested(group[0].run), group[0].run.metrics[group[0].run.headline]
        assert all(one.run.protocol.hash == group[0].run.protocol.hash for one in group), "one split a corpus"
        mean: Metric = over_models(metric)
        left, right = (beside([one.rows[row] for one in group]) for row in (a, b))
        gaps.append(paired(targets_N, left, right, units_N, mean))
    return gaps


def over_corpora(gaps: Sequence[Paired]) -> str:
    """The mean of independent differences with its interval: Student's t, Welch and Satterthwaite's degrees."""
    variances = [(gap.se / len(gaps)) ** 2 for gap in gaps]
    value, se = float(np.mean([gap.difference for gap in gaps])), math.sqrt(sum(variances))
    degrees = sum(variances) ** 2 / sum(v**2 / gap.degrees for v, gap in zip(variances, gaps, strict=True))
    half = se * float(student_t.ppf(0.975, degrees))
    p = 2 * float(student_t.sf(abs(value) / se, degrees))
    return f"{100 * value:+.1f} ({100 * (value - half):+.1f} to {100 * (value + half):+.1f}), p {p:.2g}"


def write(every: Sequence[Measured], arms: Sequence[Arm], arguments: argparse.Namespace) -> str:
    strategies, linear = [str(arm) for arm in arms], every[0].run.linear
    linears = [*dict.fromkeys(arm.linear(linear) for arm in arms)]
    lead = str(max(arms, key=lambda arm: (arm.strategy == "race", arm.layer == SEARCH)))
    most = " or ".join(dict.fromkeys(str(arm.budget) for arm in arms))
    read = " or ".join(dict.fromkeys(READ[arm.layer] for arm in arms))
    others = [row for row in (*linears, *strategies) if row != lead]
    heading = ["store", "metric", *strategies, *linears, *(f"{lead} against {other}" for other in others)]
    body = []
    for one in every:
        (targets_N, units_N), name = tested(one.run), one.run.headline
        metric = one.run.metrics[name]
        scores = [f"{100 * np.mean([metric(targets_N, p) for p in row.rows_SN]):.1f}" for row in one.rows.values()]
        gaps = [paired(targets_N, one.rows[lead], one.rows[other], units_N, metric) for other in others]
        order = dict(zip(one.rows, scores, strict=True))
        body.append(
            [one.store, name, *(order[row] for row in (*strategies, *linears)), *(verdict(g, set()) for g in gaps)]
        )
    command = " ".join(["python benchmarks/search.py", *(f"--features {one.store}" for one in every)])
    lines = [
        section(1, title_of(arms)),
        "",
        f"`{command} --runs FOLDER --seeds {arguments.seeds}"
        f"{''.join(f' --strategy {name}:{budget}' for name, budget in arguments.strategy or ())}"
        f"{''.join(f' --layer {name}' for name in arguments.layer or ())}"
        f"{'' if arguments.page == PAGE else f' --page {arguments.page.name}'}`, {date.today().isoformat()}, commit "
        f"{commit()}, on {machine(torch.device('cpu'))}.",
        "",
        f"Preset `cpu`, space `{SPACE}`, {read}, committees "
        f"of {COMMITTEE} (also the linear row chooses on inner folds and is fitted on all "
        f"training speakers), {arguments.seeds} seed(s), at most {most} "
        f"trainings a search. The row of the race averages at most {STRATEGIES['race']} trained architectures and the "
        f"linear models{RANDOM if 'random-search' in {arm.strategy for arm in arms} else ''}. Points of the metric; "
        "differences with 95 % intervals, uncorrected. Linear models and ensemble were chosen by losses out of fold on "
        "training speakers; but these are the corpora that everything here was developed on, and their figures were "
        "seen on the way.",
        "",
        *markdown_table(heading, body),
        "",
        *bullets(
            [
                *(
                    f"Pooled, {lead} against {other}: {over_corpora(by_corpus(every, lead, other))}."
                    for other in others
                ),
                *(chosen(one, name) for one in every for name in strategies),
            ]
        ),
    ]
    return "\n".join(lines) + "\n"


def title_of(arms: Sequence[Arm]) -> str:
    if any(arm.layer == SEARCH for arm in arms):
        return "Does it pay to search the state?"
    names = [*dict.fromkeys(arm.strategy for arm in arms)]
    return "The race against random search" if len(names) > 1 else f"Does {TOLD[names[0]]} pay?"


def chosen(one: Measured, name: str) -> str:
    shares = sorted(one.choices[name].items(), key=lambda pair: -pair[1])[:6]
    top = ", ".join(f"{blocks} {100 * share:.0f} %" for blocks, share in shares)
    spent = f"{one.seconds[name]:.0f} s and {one.work[name]:.2g} multiply-adds a search, on one thread"
    return f"{one.store}, {name}: {spent}; made of {top}."


if __name__ == "__main__":
    main()
