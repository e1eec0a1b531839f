"""A comparison in TensorBoard: one of its runs is a row of the table, and one is the table.

The searches and trainings have runs of their own beside these, which `bas board --all` shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from bas.report import drawn, pictures
from bas.report.closely import Jobs, looked_at
from bas.report.comparison_page import markdown, shown
from bas.report.format import encoder_name
from bas.report.results import Comparison, Row
from bas.runs import tensorboard
from bas.runs.results import Scored, TrainingResult
from bas.runs.run import Run
from bas.tasks import has_logits
from bas.util.pages import Picture


def write(run: Run, results: Comparison, jobs: Jobs, taken: str | None) -> None:
    """Write what TensorBoard shows of the table, in place of what an earlier table left.

    Of each row its pooled metrics with all that they depend on (HParams), its losses by epoch (means over folds, seeds
    and networks), and its pictures. taken: the row of the answer.
    """
    protocol, rows = results.protocol, run.folder / "tb" / ("MARKED" if results.protocol.marks else "") / "rows"
    for old in rows.glob("*/events.*"):
        old.unlink()
    confusions = drawn.of_rows(run, jobs, looked_at(jobs, taken))[0] if has_logits(run.task) else {}
    with tensorboard.writer(run.folder, "rows/table", protocol.description, protocol.marks) as board:
        board.add_text("answer and table", markdown(results), 0)
    for row in results.rows:
        name = f"rows/{row.row.replace(' ', '-')}"
        with pictures.letters(), tensorboard.writer(run.folder, name, protocol.description, protocol.marks) as board:
            metrics = {f"pooled/{metric}": value.mean for metric, value in row.metrics.items()}
            tensorboard.write_hparams(board, _facts(results, row), results.settings, metrics, [*row.metrics])
            for epoch, values in enumerate(_epochs(jobs[row.row])):
                tensorboard.write_scalars(board, values, epoch)
            for picture in _pictures(run, row, confusions):
                tensorboard.add_figure(board, picture.name.split(" ")[0], picture.figure, 0)


def _facts(results: Comparison, row: Row) -> dict[str, str]:
    """What a row is, apart from settings."""
    architecture, space = "", row.row.removeprefix("BAS ")
    if row.row != space:
        sequences = results.sequences[space]
        ((often, count),) = Counter(sequences).most_common(1)
        architecture = f"{shown(results, space, often)} ({count} of {len(sequences)} searches)"
    return {
        "row": row.row,
        "architecture": architecture,
        "run": results.run,
        "encoder": encoder_name(results.encoder.name),
        "layer": str(results.layer),
        "corpus": results.corpus,
        "protocol": results.protocol.description,
    }


def _epochs(of_row: Sequence[Sequence[Scored]]) -> list[dict[str, float]]:
    """By epoch, losses and validation metrics, means over all networks that have the epoch; none of a linear row."""
    curves = [curve.epochs for of in of_row for one in of if isinstance(one, TrainingResult) for curve in one.networks]
    means = []
    for epoch in range(max(map(len, curves), default=0)):
        every = [curve[epoch] for curve in curves if epoch < len(curve)]
        valid = {name: float(np.mean([of.valid[name] for of in every])) for name in every[0].valid}
        means.append(tensorboard.scalars_of(float(np.mean([of.loss for of in every])), valid))
    return means


def _pictures(run: Run, row: Row, confusions: dict[str, Picture]) -> list[Picture]:
    space = row.row.removeprefix("BAS ")
    of_space = drawn.of_space(run, space) if space in run.spaces and row.row != space else []
    return [*of_space, *([confusions[row.row]] if row.row in confusions else [])]
