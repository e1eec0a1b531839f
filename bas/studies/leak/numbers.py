"""The numbers of a leak study: both splits scored on the utterances that both of them test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bas.encoders import EncoderInfo
from bas.protocols import field_of
from bas.runs.plan import Job, Kind
from bas.runs.results import UNKNOWN, LinearResult, TrainingResult, read_result
from bas.runs.run import Run
from bas.stats import Metric, Predictions, Spread, a_against_a, paired
from bas.studies.leak.results import Leak, LeakRow, LeakScore, Side

SIDES = ("clean", "leaky")


def kinds(run: Run) -> dict[str, Kind]:
    """The kind of job of each row."""
    return {run.linear: Kind.LINEAR, **dict.fromkeys(run.baselines, Kind.BASELINE)}


def tabulate(folder: Path, runs: dict[str, list[Run]]) -> Leak:
    """Every number of the table. runs: by side, one run for each seed."""
    first = runs["clean"][0]
    tested = [set(run.protocol.test_ids) for side in SIDES for run in runs[side]]
    ids = sorted(set.intersection(*tested))
    targets_N = first.targets[[first.position[i] for i in ids]]
    units_N = np.array([field_of(first.utterances[first.position[i]], first.unit) or UNKNOWN for i in ids])

    def score(clean: Predictions, leaky: Predictions, metric: Metric) -> LeakScore:
        clean_S, leaky_S = ([metric(targets_N, p_N) for p_N in side.rows_SN] for side in (clean, leaky))
        return LeakScore(
            clean=Spread.of(clean_S),
            leaky=Spread.of(leaky_S),
            leak=paired(targets_N, leaky, clean, units_N, metric),
            sd=Spread.of([leaky - clean for clean, leaky in zip(clean_S, leaky_S, strict=True)]).sd,
        )

    predicted = {row: {side: _predictions(runs[side], row, ids) for side in SIDES} for row in kinds(first)}
    rows = [
        LeakRow(row=row, metrics={name: score(**sides, metric=metric) for name, metric in first.metrics.items()})
        for row, sides in predicted.items()
    ]
    return Leak(
        run=folder.name,
        corpus=first.corpus.name,
        note=first.corpus.note,
        encoder=EncoderInfo(**first.store.info.encoder),
        layer=first.plan.layer,
        settings=first.plan.settings,
        headline=first.headline,
        seeds=tuple(seed for run in runs["clean"] for seed in run.plan.seeds),
        tested=len(ids),
        of=len(first.utterances),
        unit=first.unit,
        units=len(set(units_N)),
        clean=_side(runs["clean"]),
        leaky=_side(runs["leaky"]),
        rows=tuple(rows),
        false_verdicts=a_against_a(
            targets_N,
            [side for sides in predicted.values() for side in sides.values()],
            units_N,
            first.metrics[first.headline],
        ),
    )


def _side(runs: list[Run]) -> Side:
    first = runs[0].protocol
    return Side(
        rule=first.rule,
        descriptions=tuple(run.protocol.description for run in runs),
        hashes=tuple(run.protocol.hash for run in runs),
        marks=first.marks,
        notes=first.notes,
        fit=float(np.mean([len(fold.fit) for run in runs for fold in run.protocol.folds])),
    )


def _predictions(runs: list[Run], row: str, ids: list[str]) -> Predictions:
    """Of one side, the predictions for these utterances, in their order.

    Each seed draws folds of its own, so that no two seeds train a model for the same test part: a seed counts as one
    training of all utterances.
    """
    return Predictions(np.array([_of_seed(run, row, ids) for run in runs]), np.zeros(len(ids), int))


def _of_seed(run: Run, row: str, ids: list[str]) -> np.ndarray:
    """`(N,)`; where several folds test an utterance, the last fold counts."""
    kind, (seed,) = kinds(run)[row], run.plan.seeds
    predicted: dict[str, int] = {}
    for index, fold in enumerate(run.protocol.folds):
        result = read_result(run, Job(kind, row, index, seed), LinearResult if kind == Kind.LINEAR else TrainingResult)
        predicted |= dict(zip(fold.test, result.test.predictions.tolist(), strict=True))
    return np.array([predicted[i] for i in ids])
