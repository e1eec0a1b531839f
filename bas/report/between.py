"""Two runs on the same folds, row by row: another encoder, another state, other settings.

Axes: N test utterances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from bas.errors import UserError
from bas.report.comparison import own_name
from bas.report.format import spread, verdict
from bas.report.notes import corrected, intervals_line, many_line, power_lines, tell_protocol, uncorrected_line
from bas.report.results import Comparison
from bas.report.table import rich_table
from bas.runs.results import metrics_of, pooled, results_of, tested
from bas.runs.run import Run
from bas.runs.start import recorded
from bas.stats import Paired, Spread, paired

ABSENT = "–"
"""In place of what only the other run has."""


@dataclass(frozen=True, kw_only=True)
class Between:
    """One row of both runs. second_against_first: positive: the second is higher."""

    row: str
    first: Spread
    second: Spread
    second_against_first: Paired


def between(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> tuple[Between, ...]:
    """The rows that two comparisons share, by the headline of the first; both paired over the same test utterances.

    Raises UserError unless both tested the same utterances in the same folds, with the same labels.
    """
    first, second = runs
    if first.protocol.hash != second.protocol.hash:
        hashes = " and ".join(run.protocol.hash for run in runs)
        raise UserError(
            f"{first.folder} and {second.folder}: have other folds ({hashes}); only equal ones can be paired"
        )
    (targets_N, units_N), (others_N, _) = tested(first), tested(second)
    if first.outputs != second.outputs or not np.array_equal(targets_N, others_N):
        raise UserError(f"{first.folder} and {second.folder}: have other labels; only equal ones can be paired")
    for run, of in zip(runs, comparisons, strict=True):
        run.plan = run.plan.with_seeds(of.seeds)  # of the table: a search may have added some
    metric, rows = first.metrics[first.headline], []
    shared = [row.row for row in comparisons[0].rows if row.row in {other.row for other in comparisons[1].rows}]
    for label in shared:
        a, b = (pooled(results_of(run, own_name(run, label))) for run in runs)
        means = [metrics_of(run, predictions)[first.headline] for run, predictions in zip(runs, (a, b), strict=True)]
        gap = paired(targets_N, b, a, units_N, metric)
        rows.append(Between(row=label, first=means[0], second=means[1], second_against_first=gap))
    return tuple(rows)


def differences(runs: Sequence[Run]) -> list[str]:
    """What two runs were made of that is not the same, as "setting epochs: 20, 10"; of code and data, that it differs.

    Folds, labels and tasks are the same, or the runs are not compared.
    """
    first, second = map(recorded, runs)
    told = []
    for name in dict.fromkeys((*first, *second)):
        values = [str(one.get(name, ABSENT)) for one in (first, second)]
        if values[0] == values[1] or name in ("protocol", "labels"):
            continue
        if name == "features":
            stores = [f"{run.store.info.encoder['name']} in {Path(run.plan.features).name}" for run in runs]
            told.append(f"{name}: {', '.join(stores)}")
        elif name.startswith(("space ", "baseline ")):  # of which there are hashes
            told.append(name + (" (in one of them)" if ABSENT in values else " (two versions)"))
        else:
            told.append(f"{name}: {', '.join(values)}")
    return told


def show(runs: Sequence[Run], comparisons: Sequence[Comparison], rows: Sequence[Between], console: Console) -> None:
    """The table on the terminal, and what its verdicts mean."""
    names, headline = [run.folder.name for run in runs], runs[0].headline
    gaps = {one.row: one.second_against_first for one in rows}
    stay = corrected(gaps.values())
    heading = [headline, *names, f"{names[1]} against {names[0]}"]
    lines = [[one.row, spread(one.first), spread(one.second), verdict(one.second_against_first, stay)] for one in rows]
    tell_protocol(runs[0].protocol, console)
    console.print(rich_table(f"protocol {runs[0].protocol.description}", heading, lines))
    told = differences(runs)
    made = f"{names[0]} and {names[1]} were made with: {'; '.join(told)}." if told else ""
    console.print(made or "Nothing that changes a number differs between the two but their seeds.", highlight=False)
    fewest = min(comparisons, key=lambda one: len(one.seeds))
    meant = (
        intervals_line(fewest),
        *power_lines(fewest, gaps.values()),
        *many_line(gaps),
        *uncorrected_line(gaps.values()),
    )
    for line in meant:
        console.print(line, highlight=False)
