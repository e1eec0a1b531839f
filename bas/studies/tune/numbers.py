"""Every number of a tuning's page: its comparison, and the cost and outcome of every Optuna study."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from bas.report.comparison import mixes_of, rows_of, told_from_itself, verdicts_on
from bas.runs.baselines import SIMPLE
from bas.runs.plan import Job, Kind
from bas.runs.results import Scored, StudyResult, TunedResult, ceiling, context, majority_of, read_result, results_of
from bas.runs.run import Run
from bas.studies.tune.results import FoldTuning, Mode, SpaceTuning, Tuning
from bas.studies.tune.trials import recorded_ranges, records_of, scored, study_of

FEW = 10  # complete trials: with fewer, importances are not computed


def tabulate(run: Run, mode: Mode, trials: int) -> Tuning:
    """Every number of the page: a comparison of the tuned rows, and the cost and outcome of every study.

    trials: of each study, the first that count.
    """
    tuning = {space: _tuning(run, space, trials) for space in run.spaces}
    labels = {space: f"tuned {space}" for space in run.spaces}
    jobs: dict[str, list[list[Scored]]] = {
        labels[space]: [
            [
                read_result(run, Job(Kind.TUNED, space, f, seed, fold.best), TunedResult)
                for f, fold in enumerate(tuned.folds)
            ]
            for seed in run.plan.seeds
        ]
        for space, tuned in tuning.items()
    }
    jobs |= {row: results_of(run, row) for row in (*baselines_of(run), *run.task.linears)}
    seconds = {labels[space]: float(np.mean([f.seconds for f in tuned.folds])) for space, tuned in tuning.items()}
    rows = rows_of(run, jobs, seconds)
    return Tuning(
        **context(run),
        rows=rows,
        majority=majority_of(run),
        ceiling=ceiling(run),
        false_verdicts=told_from_itself(run, jobs),
        verdicts=verdicts_on(run, rows, tuple(labels.values())),
        decisions={},  # no row of the table is a search
        sequences={},
        mix=mixes_of(jobs),
        races={},
        ensembles={},
        mode=mode,
        tuning=tuning,
    )


def baselines_of(run: Run) -> tuple[str, ...]:
    """The reference, and the simple FFN or else the last baseline."""
    first, *others = run.baselines
    return (first, *([SIMPLE] if SIMPLE in others else others[-1:]))


def _tuning(run: Run, space: str, trials: int) -> SpaceTuning:
    """The ranges of one space, and for every fold the counts, seconds and best trial of its study."""
    folds = []
    importances: list[Mapping[str, float]] = []
    for fold in range(len(run.protocol.folds)):
        records = records_of(run.folder, space, fold, trials)
        number = read_result(run, Job(Kind.STUDY, space, fold, run.plan.seeds[0], trials), StudyResult).best
        best, complete = records[number], sum(record.value is not None for record in records)
        assert best.value is not None, "complete"
        folds.append(
            FoldTuning(
                trials=len(records),
                complete=complete,
                broken=sum(bool(record.broken) for record in records),
                seconds=sum(record.seconds for record in records),
                best=number,
                value=best.value,
                valid=best.valid or {},
                preset=records[0].value,
                params=best.params,
                architecture=best.architecture or {},
                scored_before=any(other != number for other in scored(run.folder, space, fold)),
            )
        )
        if complete >= FEW:
            with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                importances.append(optuna.importance.get_param_importances(study_of(records), evaluator=evaluator))
    drawn = recorded_ranges(records[0])
    return SpaceTuning(
        ranges={name: _in_words(distribution) for name, distribution in drawn.items()},
        folds=tuple(folds),
        importances={n: statistics.fmean(i.get(n, 0.0) for i in importances) for n in drawn if importances},
    )


def _in_words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, FloatDistribution):
        return f"{distribution.low:.3g} to {distribution.high:.3g}" + (" (log)" if distribution.log else "")
    assert isinstance(distribution, CategoricalDistribution)
    return ", ".join(map(str, distribution.choices))
