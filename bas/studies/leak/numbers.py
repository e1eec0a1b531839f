"""What a leak is worth, in numbers: both splits on the utterances that both test."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bas.protocols import field_of
from bas.runs.plan import Job
from bas.runs.results import UNKNOWN
from bas.runs.run import Run
from bas.stats import paired, spread

SIDES = ("clean", "leaky")


def kinds(run: Run) -> dict[str, str]:
    """What is trained, and the kind of its jobs."""
    return {run.linear: "linear", **dict.fromkeys(run.baselines, "baseline")}


def tabulate(folder: Path, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Every number of the table, as plain data; the difference is the leaky split's metric less the clean one's."""
    first = runs["clean"][0]
    everywhere = [set(run.protocol.tested) for side in SIDES for run in runs[side]]
    ids = sorted(set.intersection(*everywhere))
    targets_N = first.targets[[first.position[i] for i in ids]]
    units_N = np.array([field_of(first.utterances[first.position[i]], first.unit) or UNKNOWN for i in ids])
    rows = []
    for row in kinds(first):
        predictions = {side: np.array([_predictions(run, row, ids) for run in runs[side]]) for side in SIDES}
        metrics = {}
        for name, metric in first.metrics.items():
            scores = {side: [metric(targets_N, p_N) for p_N in predictions[side]] for side in SIDES}
            difference = paired(targets_N, predictions["leaky"], predictions["clean"], units_N, metric)
            each = [a - b for a, b in zip(scores["leaky"], scores["clean"], strict=True)]
            metrics[name] = {
                **{side: dict(zip(("mean", "sd"), spread(scores[side]), strict=True)) for side in SIDES},
                "leak": asdict(difference) | {"verdict": difference.verdict, "sd": spread(each)[1]},
            }
        rows.append({"row": row, "metrics": metrics})
    return {
        "run": folder.name,
        "corpus": first.corpus.name,
        "note": first.corpus.note,
        "encoder": first.store.info.encoder,
        "layer": first.plan.layer,
        "settings": first.plan.settings.as_dict(),
        "headline": first.headline,
        "seeds": [seed for run in runs["clean"] for seed in run.plan.seeds],
        "tested": len(ids),
        "of": len(first.utterances),
        "unit": first.unit,
        "units": len(set(units_N)),
        **{
            side: {
                "rule": runs[side][0].protocol.rule,
                "told": [run.protocol.told for run in runs[side]],
                "hashes": [run.protocol.hash for run in runs[side]],
                "marks": runs[side][0].protocol.marks,
                "notes": runs[side][0].protocol.notes,
                "fit": float(np.mean([len(fold.fit) for run in runs[side] for fold in run.protocol.folds])),
            }
            for side in SIDES
        },
        "rows": rows,
    }


def _predictions(run: Run, row: str, ids: list[str]) -> np.ndarray:
    """Of these utterances, in their order; of one that several folds test, the last fold's."""
    kind, (seed,) = kinds(run)[row], run.plan.seeds
    found: dict[str, int] = {}
    for index, fold in enumerate(run.protocol.folds):
        predictions = run.result(Job(kind, row, index, seed).name)["test"]["predictions"]
        found |= dict(zip(fold.test, predictions, strict=True))
    return np.array([found[i] for i in ids])
