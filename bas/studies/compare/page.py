"""Searches and retrainings on the terminal, before there is a table."""

from __future__ import annotations

from rich.console import Console

from bas.report.format import points
from bas.report.table import rich_table
from bas.runs.results import retrained, searched
from bas.runs.run import Run
from bas.search.ensemble import made_of
from bas.space import told


def show_choices(run: Run, console: Console) -> None:
    """The sequence that each search chose, and of what an ensemble is made."""
    for name in run.spaces:
        searches = searched(run, name).items()
        rows = [[str(f), str(s), told(result.architecture)] for (f, s), result in searches]
        heading = ["fold", "seed", "architecture"]
        if any(result.choice for _, result in searches):
            heading += ["best of those tried", "trainings"]
            for row, (_, result) in zip(rows, searches, strict=True):
                assert result.choice
                assert result.trials
                row += [f"p {result.choice.probability:.2f}", str(sum(not trial.solved for trial in result.trials))]
        if run.plan.settings.averages:
            heading.append("the row averages")
            for row, (_, result) in zip(rows, searches, strict=True):
                row.append(made_of(result.members))
        console.print(rich_table(f"{name}: chosen blocks (protocol {run.protocol.description})", heading, rows))


def show_retrained(run: Run, console: Console) -> None:
    """Each retrained architecture's metrics on its fold's test part."""
    for name in run.spaces:
        rows = []
        for (fold, seed), result in retrained(run, name).items():
            values = [points(result.test.metrics[m]) for m in run.metrics]
            rows.append([str(fold), str(seed), made_of(result.members), *values])
        heading = ("fold", "seed", "made of", *run.metrics)
        console.print(
            rich_table(
                f"{name}: retrained, on each fold's test part (protocol {run.protocol.description})", heading, rows
            )
        )
