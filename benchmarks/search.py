"""Does the race pay? Against the linear row and random search of as many trainings, nested, pooled; writes a page.

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
from bas.runs.plan import Job, Kind, Plan
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
STRATEGIES = {"race": 2, "random-search": 1}
"""How many trained architectures the row of each averages; random search is that of Li and Talwalkar, one alone."""


@dataclass(frozen=True)
class Measured:
    """One store: what each row predicted of its test utterances, fold after fold."""

    store: str
    run: Run  # of the first strategy
    rows: Mapping[str, Predictions]
    choices: Mapping[str, Mapping[str, float]]  # by strategy, the mean weight of each architecture in its rows
    seconds: Mapping[str, float]  # by strategy, of one search
    work: Mapping[str, float]  # by strategy, multiply-adds of the trainings of one search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", action="append", required=True, metavar="FOLDER", help="a store; may be repeated")
    parser.add_argument("--runs", required=True, type=Path, help="a folder for runs, which are kept")
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--budget", type=int, default=16, help="trainings of a search; default: %(default)s")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--strategy", action="append", choices=STRATEGIES, help="default: all")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    arguments = parser.parse_args()
    strategies = arguments.strategy or [*STRATEGIES]
    try:
        every = [measure(Path(folder), strategies, arguments) for folder in arguments.features]
    except UserError as error:
        sys.exit(f"benchmarks/search.py: {error}")
    page = write(every, strategies, arguments)
    write_text(arguments.page, page)
    print(page, f"\nwritten: {arguments.page}", sep="")


def measure(features: Path, strategies: Sequence[str], arguments: argparse.Namespace) -> Measured:
    """Search, retrain and score one store by each strategy; what is done already stays."""
    store = FeatureStore(features.resolve())
    layers = store.info.layers
    runs, rows, choices = [], dict[str, Predictions](), dict[str, dict[str, float]]()
    seconds, work = dict[str, float](), dict[str, float]()
    for strategy in strategies:
        changes = {"strategy": strategy, "budget": str(arguments.budget), "committee": str(COMMITTEE)}
        changes |= {"ensemble": str(STRATEGIES[strategy])}
        seeds = tuple(range(arguments.seeds))
        space = (str(load_space(SPACE).path),)
        plan = Plan(str(features.resolve()), space, layers[len(layers) // 2], settings("cpu", changes), seeds, "cpu")
        inputs = Inputs.open(plan)
        run = start(arguments.runs / f"{features.name}-{strategy}", inputs, split(inputs, None, 0))
        train(run, arguments.workers)
        rows[strategy] = pooled(results_of(run, SPACE))
        rows[run.linear] = pooled(results_of(run, run.linear))
        found = searched(run, SPACE).values()
        choices[strategy] = defaultdict(float)
        for member in (member for one in found for member in one.members):
            name = " > ".join(block for block in member.architecture.values() if block != "none")
            choices[strategy][name] += member.weight / len(found)
        seconds[strategy] = float(np.mean([s.seconds for s in found]))
        work[strategy] = float(np.mean([s.multiply_adds for s in found]))
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


def write(every: Sequence[Measured], strategies: Sequence[str], arguments: argparse.Namespace) -> str:
    linear = every[0].run.linear
    others = [row for row in (linear, "random-search") if row == linear or row in strategies]
    heading = ["store", "metric", *strategies, linear, *(f"race against {other}" for other in others)]
    body = []
    for one in every:
        (targets_N, units_N), name = tested(one.run), one.run.headline
        metric = one.run.metrics[name]
        scores = [f"{100 * np.mean([metric(targets_N, p) for p in row.rows_SN]):.1f}" for row in one.rows.values()]
        gaps = [paired(targets_N, one.rows["race"], one.rows[other], units_N, metric) for other in others]
        order = dict(zip(one.rows, scores, strict=True))
        body.append(
            [one.store, name, *(order[row] for row in (*strategies, linear)), *(verdict(g, set()) for g in gaps)]
        )
    command = " ".join(["python benchmarks/search.py", *(f"--features {one.store}" for one in every)])
    lines = [
        section(1, "Does the race pay?" if strategies == ["race"] else "The race against random search"),
        "",
        f"`{command} --runs FOLDER --seeds {arguments.seeds} --budget {arguments.budget}"
        f"{''.join(f' --strategy {name}' for name in arguments.strategy or ())}"
        f"{'' if arguments.page == PAGE else f' --page {arguments.page.name}'}`, {date.today().isoformat()}, commit "
        f"{commit()}, on {machine(torch.device('cpu'))}.",
        "",
        f"Preset `cpu`, space `{SPACE}`, the middle state, committees of {COMMITTEE} (also the linear row chooses on "
        f"inner folds and is fitted on all training speakers), {arguments.seeds} seed(s), at most {arguments.budget} "
        f"trainings a search. The row of the race averages at most {STRATEGIES['race']} trained architectures and the "
        f"linear models; that of random search is its best architecture, trained as a committee: {COMMITTEE - 1} more, "
        "and larger ones, for a race tries small ones first. Points of the metric; differences with 95 % intervals, "
        "uncorrected. Linear models and ensemble were chosen by losses out of fold on "
        "training speakers; but these are the corpora that everything here was developed on, and their figures were "
        "seen on the way.",
        "",
        *markdown_table(heading, body),
        "",
        *bullets(
            [
                *(
                    f"Pooled, race against {other}: {over_corpora(by_corpus(every, 'race', other))}."
                    for other in others
                ),
                *(chosen(one, strategy) for one in every for strategy in strategies),
            ]
        ),
    ]
    return "\n".join(lines) + "\n"


def chosen(one: Measured, strategy: str) -> str:
    shares = sorted(one.choices[strategy].items(), key=lambda pair: -pair[1])[:6]
    top = ", ".join(f"{blocks} {100 * share:.0f} %" for blocks, share in shares)
    spent = f"{one.seconds[strategy]:.0f} s and {one.work[strategy]:.2g} multiply-adds a search, on one thread"
    return f"{one.store}, {strategy}: {spent}; made of {top}."


if __name__ == "__main__":
    main()
