"""What the jobs of a shares study say: with attention against without, one network an emotion against one for all,
each store against the first, with metadata against without. All paired on the same utterances, all of the headline.

Axes: N test utterances pooled over the folds, S seeds, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bas.blocks import MeanPool
from bas.report.old import context, plain
from bas.runs.results import pooled, results_of, tested
from bas.runs.run import Run
from bas.space import SearchSpace
from bas.stats import interval, paired, spread
from bas.studies.shares.attention import attends


@dataclass(frozen=True)
class Pairs:
    """Which baselines of a space are held against each other, the first with the second."""

    attention: tuple[tuple[str, str], ...]  # alike but for the pool, which attends in the first and not in the second
    each: tuple[tuple[str, str], ...]  # alike, but the first has a network of its own for each output

    @property
    def attentive(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(first for first, _ in self.attention))


def pairs_of(baselines: Mapping[str, SearchSpace], dim: int) -> Pairs:
    """Told by what the baselines are made of, whatever they are called. dim: a width that their pools take."""

    def but_for_pool(space: SearchSpace) -> str:
        return replace(space, pool=MeanPool).signature

    def but_for_each(space: SearchSpace) -> str:
        return replace(space, each_output=False).signature

    attentive = {name: attends(space, dim) for name, space in baselines.items()}
    couples = [(a, b) for a in baselines for b in baselines if a != b]
    return Pairs(
        tuple(
            (a, b)
            for a, b in couples
            if attentive[a] and not attentive[b] and but_for_pool(baselines[a]) == but_for_pool(baselines[b])
        ),
        tuple(
            (a, b)
            for a, b in couples
            if baselines[a].each_output > baselines[b].each_output
            and but_for_each(baselines[a]) == but_for_each(baselines[b])
        ),
    )


@dataclass(frozen=True)
class Predicted:
    """What every row of a run predicted, by its name `(S, N, O)`, in the order of `run.protocol.tested`."""

    run: Run
    of: Mapping[str, np.ndarray]

    @classmethod
    def by(cls, run: Run) -> Predicted:
        return cls(run, {row: pooled(results_of(run, row)) for row in (*run.baselines, *run.task.linears)})

    def against(self, row: str, other: Predicted, reference: str) -> dict[str, Any]:
        """A row here less one there, by the headline, as plain data."""
        (targets, units_N), metric = tested(self.run), self.run.metrics[self.run.headline]
        return plain(paired(targets, self.of[row], other.of[reference], units_N, metric))

    def like(self, other: Predicted) -> dict[str, dict[str, Any]]:
        """Every network and the first linear row here against the same there."""
        return {row: self.against(row, other, row) for row in (*self.run.baselines, self.run.linear)}


def tabulate(found: Predicted, pairs: Pairs) -> dict[str, Any]:
    """Every number of one store's report, but for what needs another store, as plain data. Metrics in 0..1."""
    run = found.run
    return {
        **context(run),
        "outputs": list(run.outputs),
        "rows": rows_of(found),
        "attention": [_pair(found, *pair) for pair in pairs.attention],
        "each": [_pair(found, *pair) for pair in pairs.each],
        "against_linear": {row: found.against(row, found, run.linear) for row in run.baselines},
    }


def rows_of(found: Predicted) -> dict[str, dict[str, Any]]:
    """Every row's own numbers."""
    return {row: _row(found, row) for row in found.of}


def _pair(found: Predicted, row: str, other: str) -> dict[str, Any]:
    return {"row": row, "other": other, **found.against(row, found, other)}


def _row(found: Predicted, row: str) -> dict[str, Any]:
    run, of_SN = found.run, found.of[row]
    targets, units_N = tested(run)
    metrics = {name: spread([m(targets, p_N) for p_N in of_SN]) for name, m in run.metrics.items()}
    headline = run.metrics[run.headline]
    _, low, high = interval(lambda kept: float(np.mean([headline(targets[kept], p_N[kept]) for p_N in of_SN])), units_N)
    jobs = [job for of_seed in results_of(run, row) for job in of_seed]
    return {
        "metrics": {name: dict(zip(("mean", "sd"), of, strict=True)) for name, of in metrics.items()},
        "low": low,
        "high": high,
        "seeds": len(of_SN),
        "remarks": list(run.task.remarks(run.outputs, targets, of_SN)),
        "parameters": float(np.median([job.parameters for job in jobs])),
        "seconds": float(np.mean([job.seconds for job in jobs])),
    }
