"""Every number of a tuning's page, and of every study what it took."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState

from bas.runs.plan import Job
from bas.runs.results import ceiling, context, interval_of, pooled, results_of, tested
from bas.runs.run import Run
from bas.stats import paired, spread, verdict_sentence
from bas.studies.tune.trials import FINISHED, best_of, drawn_from, study_of

FEW = 10  # complete trials say nothing about what mattered


def tabulate(run: Run, journal: JournalStorage, mode: str) -> dict[str, Any]:
    """Every number of the page as plain data, in the form of `comparison.tabulate`; and of every study what it took."""
    folds, seeds, headline = range(len(run.protocol.folds)), run.plan.seeds, run.headline
    targets_N, units_N = tested(run)
    tuning = {space: _tuning(run, journal, space) for space in run.spaces}
    jobs = {
        f"tuned {space}": [
            [run.result(Job("tuned", space, f, s, tuning[space]["folds"][f]["best"]).name) for f in folds]
            for s in seeds
        ]
        for space in run.spaces
    }
    jobs |= {row: results_of(run, row) for row in (*baselines_of(run), *run.task.linears)}
    predictions = {row: pooled(of_row) for row, of_row in jobs.items()}
    rows, verdicts = [], []
    where = f"{run.corpus.name} under {run.protocol.told}"
    for row, of_row in jobs.items():
        every = [result for of_seed in of_row for result in of_seed]
        metrics = {n: spread([m(targets_N, p_N) for p_N in predictions[row]]) for n, m in run.metrics.items()}
        tuned = tuning.get(row.removeprefix("tuned "))
        entry: dict[str, Any] = {
            "row": row,
            "seeds": len(of_row),
            "interval": interval_of(run, predictions[row]),
            "remarks": list(run.task.remarks(run.outputs, targets_N, predictions[row])),
            "metrics": {name: {"mean": mean, "sd": sd} for name, (mean, sd) in metrics.items()},
            "fold_mean": {name: float(np.mean([r["test"]["metrics"][name] for r in every])) for name in metrics},
            "parameters": float(np.median([r["parameters"] for r in every])),
            "train_seconds": float(np.mean([r["seconds"] for r in every])),
            "search_seconds": float(np.mean([fold["seconds"] for fold in tuned["folds"]])) if tuned else None,
        }
        for key, reference in (("against_reference", run.reference), ("against_linear", run.linear)):
            entry[key] = {}
            if row != reference:
                found = paired(targets_N, predictions[row], predictions[reference], units_N, run.metrics[headline])
                entry[key][headline] = asdict(found) | {"verdict": found.verdict}
                if tuned:
                    verdicts.append(verdict_sentence(row, f"the {reference}", where, headline, found, run.unit))
        rows.append(entry)
    searched: dict[str, Any] = {"decisions": {}, "sequences": {}}  # of the table's searches; here are none
    told = {"tuning": tuning, "rows": rows, "ceiling": ceiling(run), "verdicts": verdicts, "mix": _mixes(jobs)}
    return {**context(run), "mode": mode, **told, **searched}


def baselines_of(run: Run) -> tuple[str, ...]:
    """The reference and the last, of theirs the simple FFN."""
    first, *others = run.baselines
    return (first, *others[-1:])


def _mixes(jobs: Mapping[str, list[list[dict[str, Any]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """By row, each state's weight in the layer mix, if there is one, over folds and seeds; as `comparison.tabulate`."""
    found = {row: [r["mix"] for of_seed in of_row for r in of_seed if "mix" in r] for row, of_row in jobs.items()}
    return {
        row: {n: dict(zip(("mean", "sd"), spread([mix[n] for mix in mixes]), strict=True)) for n in mixes[0]}
        for row, mixes in found.items()
        if mixes
    }


def _tuning(run: Run, journal: JournalStorage, space: str) -> dict[str, Any]:
    """Of one space: the ranges, and of every fold's study its trials, their seconds, and the best of them."""
    folds = []
    importances: list[Mapping[str, float]] = []
    for fold in range(len(run.protocol.folds)):
        study = study_of(journal, space, fold)
        best, trials = best_of(journal, space, fold), study.get_trials(deepcopy=False)
        complete = [t for t in trials if t.state == TrialState.COMPLETE]
        made = [t for t in trials if t.state in FINISHED]
        jobs = (run.folder / "jobs").glob(f"tuned-{space}-*-fold{fold}-seed*.json")
        others = {path.name for path in jobs if f"-{best.number:03}-fold" not in path.name}
        folds.append(
            {
                "trials": len(made),
                "complete": len(complete),
                "broken": sum("broken" in t.user_attrs for t in made),
                "cut_off": sum(t.state == TrialState.FAIL for t in trials),
                "side_by_side": _overlap(made),
                "seconds": sum(t.user_attrs["seconds"] for t in made),
                "best": best.number,
                "value": best.value,
                "valid": best.user_attrs["valid"],
                "preset": next((t.value for t in complete if t.params == trials[0].params), None),
                "params": best.params,
                "architecture": best.user_attrs["architecture"],
                "scored_before": bool(others),
            }
        )
        if len(complete) >= FEW:
            with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
                evaluator = optuna.importance.PedAnovaImportanceEvaluator()
                importances.append(optuna.importance.get_param_importances(study, evaluator=evaluator))
    drawn = drawn_from(study_of(journal, space, 0))
    return {
        "ranges": {name: _told(distribution) for name, distribution in drawn.items()},
        "folds": folds,
        "importances": {n: statistics.fmean(i.get(n, 0.0) for i in importances) for n in drawn if importances},
    }


def _overlap(trials: Sequence[FrozenTrial]) -> bool:
    """Whether any two ran at a time."""
    spans = sorted((t.datetime_start, t.datetime_complete) for t in trials if t.datetime_start and t.datetime_complete)
    return any(later[0] < earlier[1] for earlier, later in pairwise(spans))


def _told(drawn: BaseDistribution) -> str:
    if isinstance(drawn, FloatDistribution):
        return f"{drawn.low:.3g} to {drawn.high:.3g}" + " (log)" * drawn.log
    assert isinstance(drawn, CategoricalDistribution)
    return ", ".join(map(str, drawn.choices))
