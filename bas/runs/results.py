"""What the jobs of a run came to, as tables and studies ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bas.protocols import field_of
from bas.runs.plan import BEST, MIX, Job
from bas.runs.run import Run
from bas.stats import Paired, interval
from bas.tasks import together

UNKNOWN = "unknown"


def searched(run: Run, space: str) -> dict[tuple[int, int], dict[str, str]]:
    """By fold and seed, the architecture that a search of this space found."""
    keys = [(f, s) for s in run.plan.seeds for f in range(len(run.protocol.folds))]
    return {(f, s): run.result(Job("search", space, f, s).name)["architecture"] for f, s in keys}


def tested(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Targets, as the metrics take them, and units of the N test utterances, fold after fold."""
    where = [run.position[i] for i in run.protocol.tested]
    folds_N = np.repeat(np.arange(len(run.protocol.folds)), [len(fold.test) for fold in run.protocol.folds])
    units_N = np.array([field_of(run.utterances[i], run.unit) or UNKNOWN for i in where])
    return together(run.task, run.targets[where], folds_N), units_N


def context(run: Run) -> dict[str, Any]:
    """What a table must say of its run, as plain data."""
    layers = [
        run.result(Job("layer", BEST, f, 0).name)["layer"] if run.plan.layer == BEST else run.plan.layer
        for f in range(len(run.protocol.folds))
    ]
    if run.plan.layer == MIX:
        layers = list(run.store.info.layers)
    _, units_N = tested(run)
    return {
        "run": run.folder.name,
        "corpus": run.corpus.name,
        "note": run.corpus.note,
        "encoder": run.store.info.encoder,
        "layer": run.plan.layer,
        "layers": layers,  # by fold; of a mix, those that are mixed
        "protocol": {k: v for k, v in run.protocol.as_dict().items() if k != "folds"} | {"told": run.protocol.told},
        "settings": run.plan.settings.as_dict(),
        "device": run.plan.device,
        "folds": len(run.protocol.folds),
        "seeds": list(run.plan.seeds),
        "tested": len(units_N),
        "unit": run.unit,
        "units": len(set(units_N)),
        "without_unit": int((units_N == UNKNOWN).sum()),
        "headline": run.headline,
        "pooled": run.task.pooled,
        "reference": run.reference,
        "linear": run.linear,
    }


def ceiling(run: Run) -> dict[str, Any] | None:
    """What the tested utterances' targets leave to reach, see `Task.ceiling`; as plain data."""
    utterances = [run.utterances[run.position[i]] for i in run.protocol.tested]
    found = run.task.ceiling(utterances, run.outputs, tested(run)[0], run.corpus.chosen_by)
    return asdict(found) if found else None


def results_of(run: Run, row: str) -> list[list[dict[str, Any]]]:
    """By seed and fold, the jobs of a row: a linear one, a baseline, or what the searches of a space found."""
    linear = row in run.task.linears
    seeds = run.plan.seeds[:1] if linear else run.plan.seeds
    kind = "linear" if linear else "baseline" if row in run.baselines else "retrain"
    return [[run.result(Job(kind, row, f, s).name) for f in range(len(run.protocol.folds))] for s in seeds]


def pooled(jobs: Sequence[Sequence[Mapping[str, Any]]]) -> np.ndarray:
    """`(S, N)` test predictions, of several outputs `(S, N, O)`, fold after fold, of results by seed and fold."""
    return np.array([np.concatenate([r["test"]["predictions"] for r in of_seed]) for of_seed in jobs])


def interval_of(run: Run, pooled_SN: np.ndarray) -> list[float]:
    """Ends of the interval of a row's headline, the mean over seeds; see `stats.interval`."""
    (targets_N, units_N), metric = tested(run), run.metrics[run.headline]

    def mean(kept_N: np.ndarray) -> float:
        return float(np.mean([metric(targets_N[kept_N], p_N[kept_N]) for p_N in pooled_SN]))

    return list(interval(mean, units_N)[1:])


def plain(value: Paired) -> dict[str, Any]:
    return {**asdict(value), "verdict": value.verdict}
