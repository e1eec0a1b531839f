"""Every number of a shares study: with attention against without, one network an emotion against one for all, each
store against the first, with metadata against without. All differences are of the headline, paired by utterance.

Axes: N test utterances pooled over the folds, S seeds, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bas.blocks import MeanPool
from bas.runs.results import Scored, context, interval_of, metrics_of, pooled, remarks_of, results_of, tested
from bas.runs.run import Run
from bas.space import SearchSpace
from bas.stats import FalseVerdicts, Paired, Predictions, a_against_a, paired
from bas.studies.shares.attention import attends
from bas.studies.shares.results import Example, ModelAttention, PairRow, Pairs, ShareRow, StoreShares

Looked = tuple[Mapping[str, ModelAttention], Mapping[str, tuple[Example, ...]]]
"""By model, what its attention goes with, and some utterances to look at."""


def pairs_of(baselines: Mapping[str, SearchSpace], dim: int) -> Pairs:
    """The pairs to compare, by what the baselines are made of, not by name. dim: a width that their pools take."""

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
    """What every row of a run predicted, by its name, in the order of `run.protocol.test_ids`."""

    run: Run
    of: Mapping[str, Predictions]

    @classmethod
    def by(cls, run: Run) -> Predicted:
        return cls(run, {row: pooled(results_of(run, row)) for row in (*run.baselines, *run.task.linears)})

    def against(self, row: str, other: Predicted, reference: str) -> Paired:
        """A row here minus one there, by the headline."""
        return self.minus(row, other.of[reference])

    def minus(self, row: str, other: Predictions) -> Paired:
        """A row here minus any other, by the headline."""
        (targets, units_N), metric = tested(self.run), self.run.metrics[self.run.headline]
        return paired(targets, self.of[row], other, units_N, metric)

    def told_from_itself(self) -> FalseVerdicts | None:
        """How often a row is told apart from itself; see `a_against_a`."""
        targets, units_N = tested(self.run)
        return a_against_a(targets, list(self.of.values()), units_N, self.run.metrics[self.run.headline])

    def like(self, other: Predicted) -> dict[str, Paired]:
        """Every network and the first linear row here against the same there."""
        return {row: self.against(row, other, row) for row in (*self.run.baselines, self.run.linear)}


def tabulate(
    predicted: Predicted, first: Predicted, acoustic: Predictions, pairs: Pairs, looked: Looked
) -> StoreShares:
    """Every number of one store's report. first: what the first store predicts; acoustic: what recordings do; looked:
    see `contours`."""
    run = predicted.run
    models, examples = looked
    return StoreShares(
        **context(run),
        store=run.folder.name,
        outputs=tuple(run.outputs),
        rows=rows_of(predicted),
        attention=tuple(PairRow(a, b, predicted.against(a, predicted, b)) for a, b in pairs.attention),
        each=tuple(PairRow(a, b, predicted.against(a, predicted, b)) for a, b in pairs.each),
        against_linear={row: predicted.against(row, predicted, run.linear) for row in run.baselines},
        against_first={} if predicted is first else predicted.like(first),
        against_acoustic={row: predicted.minus(row, acoustic) for row in run.baselines},
        false_verdicts=predicted.told_from_itself(),
        models=models,
        examples=examples,
    )


def rows_of(predicted: Predicted) -> dict[str, ShareRow]:
    """Every row's own numbers."""
    return {row: row_of(predicted.run, results_of(predicted.run, row), of) for row, of in predicted.of.items()}


def row_of(run: Run, results: Sequence[Sequence[Scored]], of: Predictions) -> ShareRow:
    """A row's own numbers. results: of its jobs, by seed and fold; of: what they predict, `pooled`."""
    jobs = [job for of_seed in results for job in of_seed]
    return ShareRow(
        metrics=metrics_of(run, of),
        interval=interval_of(run, of),
        seeds=of.seeds,
        remarks=remarks_of(run, of),
        parameters=float(np.median([job.parameters for job in jobs])),
        seconds=float(np.mean([job.seconds for job in jobs])),
    )
