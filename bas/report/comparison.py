"""The paper's Table 1 for any features, with seeds, spread and a paired comparison; and what the search chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from bas.errors import UserError
from bas.report.results import Comparison, Ensembles, Races, Row
from bas.runs.plan import ALL
from bas.runs.results import (
    LAST_EPOCH,
    Scored,
    SearchResult,
    TrainingResult,
    ceiling,
    context,
    interval_of,
    majority_of,
    metrics_of,
    pooled,
    remarks_of,
    results_of,
    searched,
    tested,
)
from bas.runs.run import Run
from bas.space import SearchSpace
from bas.stats import FalseVerdicts, Predictions, Spread, a_against_a, paired, verdict_sentence
from bas.stats.decisions import Selection, summarise, warnings

Jobs = Mapping[str, list[list[Scored]]]
"""The trainings of each row, by its label; of a row by seed and fold."""


def tabulate(run: Run) -> Comparison:
    """Every number of the table from the jobs' results."""
    searches = {name: searched(run, name) for name in run.spaces}
    labels, jobs = labels_of(run), jobs_of(run)
    of_space = {name: list(results.values()) for name, results in searches.items()}
    seconds = {label: float(np.mean([s.seconds for s in of_space[name]])) for label, name in labels.items()}
    rows = rows_of(run, jobs, seconds)
    mixed = {f"searches of {name}": [s.mix for s in results] for name, results in of_space.items()}
    return Comparison(
        **context(run),
        rows=rows,
        majority=majority_of(run),
        ceiling=ceiling(run),
        false_verdicts=told_from_itself(run, jobs),
        verdicts=verdicts_on(run, rows, tuple(labels)),
        decisions={name: decided(results, run.spaces[name].space) for name, results in of_space.items()},
        sequences={
            name: tuple(" > ".join(s.architecture.values()) for s in results) for name, results in of_space.items()
        },
        mix=mixes_of(jobs) | _means(mixed) if run.plan.layer in ALL else {},
        races={name: races for name, results in of_space.items() if (races := Races.of(results))},
        ensembles={name: Ensembles.of(results) for name, results in of_space.items()}
        if run.plan.settings.averages
        else {},
    )


def labels_of(run: Run) -> dict[str, str]:
    """The space of each searched row, by the row's label."""
    return {f"BAS {name}": name for name in run.spaces}


def own_name(run: Run, label: str) -> str:
    """The name that a row's jobs have, by its label in the table.

    Raises UserError for a row of a table that was made before the run's folder got other spaces.
    """
    name = labels_of(run).get(label, label)
    if name not in (*run.spaces, *run.baselines, *run.task.linears):
        again = f"give `bas compare {run.folder}/experiment.toml` again first"
        raise UserError(f"{run.folder}: its last command had other spaces than the row {label!r}; {again}")
    return name


def jobs_of(run: Run) -> dict[str, list[list[Scored]]]:
    """The jobs of every row of the table: baselines, searched rows, linear rows."""
    names = [*((row, row) for row in run.baselines), *labels_of(run).items(), *((row, row) for row in run.task.linears)]
    return {label: results_of(run, name) for label, name in names}


def rows_of(run: Run, jobs: Jobs, search_seconds: Mapping[str, float]) -> tuple[Row, ...]:
    """The table's rows; the reference and the linear row must be among the jobs.

    search_seconds: by label, of the rows that a search or trials came before.
    """
    predictions = {label: pooled(of_row) for label, of_row in jobs.items()}
    (targets_N, units_N), metric = tested(run), run.metrics[run.headline]

    def row(label: str, of_row: list[list[Scored]]) -> Row:
        every, predicted = [result for of_seed in of_row for result in of_seed], predictions[label]
        differences = [
            None if label == other else paired(targets_N, predicted, predictions[other], units_N, metric)
            for other in (run.reference, run.linear)
        ]
        return Row(
            row=label,
            seeds=len(of_row),
            metrics=metrics_of(run, predicted),
            interval=interval_of(run, predicted),
            remarks=(*remarks_of(run, predicted), *_unfinished(every), *_several_models(every)),
            by_seed=_by_seed(run, predicted),
            fold_mean={name: float(np.mean([r.test.metrics[name] for r in every])) for name in run.metrics},
            parameters=float(np.median([r.parameters for r in every])),
            train_seconds=float(np.mean([r.seconds for r in every])),
            search_seconds=search_seconds.get(label),
            against_reference=differences[0],
            against_linear=differences[1],
        )

    return tuple(row(label, of_row) for label, of_row in jobs.items())


def _by_seed(run: Run, row: Predictions) -> dict[str, dict[str, float]]:
    """Every metric by seed, on all tested utterances; a linear row has the first seed alone."""
    targets_N, _ = tested(run)
    seeds = list(map(str, run.plan.seeds[: len(row.rows_SN)]))
    return {
        name: dict(zip(seeds, (metric(targets_N, p_N) for p_N in row.rows_SN), strict=True))
        for name, metric in run.metrics.items()
    }


def _unfinished(every: Sequence[Scored]) -> tuple[str, ...]:
    """A remark where half of a row's networks or more were best in their last epoch: they had not learnt to an end."""
    curves = [curve for of in every if isinstance(of, TrainingResult) for curve in of.networks if len(curve.epochs) > 1]
    last = sum(curve.kept_epoch == curve.epochs[-1].epoch for curve in curves)
    if not curves or 2 * last < len(curves):
        return ()
    return (f"{last} of {len(curves)} {LAST_EPOCH}; more epochs may change what it is worth",)


def _several_models(every: Sequence[Scored]) -> tuple[str, ...]:
    """A remark where a row's networks are of several kinds of processors."""
    models = sorted({of.device for of in every})
    if len(models) < 2:
        return ()
    return (
        f"trained on several kinds of processors, whose numbers may differ in their last digits: {', '.join(models)}",
    )


def told_from_itself(run: Run, jobs: Jobs) -> FalseVerdicts | None:
    """How often a row is told apart from itself; see `a_against_a`."""
    targets_N, units_N = tested(run)
    return a_against_a(targets_N, [pooled(of_row) for of_row in jobs.values()], units_N, run.metrics[run.headline])


def verdicts_on(run: Run, rows: Sequence[Row], labels: Sequence[str]) -> tuple[str, ...]:
    """Each of these rows against the reference and against the linear row, in one sentence."""
    where = f"{run.corpus.name} under {run.protocol.description}"  # a sentence is quoted without its table
    return tuple(
        verdict_sentence(row.row, f"the {other}", where, run.headline, difference, run.unit)
        for row in rows
        if row.row in labels
        for other, difference in ((run.reference, row.against_reference), (run.linear, row.against_linear))
        if difference
    )


def mixes_of(jobs: Jobs) -> dict[str, dict[str, Spread]]:
    """Each state's weight in the layer mix of a row's trainings, over folds and seeds; of rows that have one."""
    return _means({row: [result.mix for of_seed in of_row for result in of_seed] for row, of_row in jobs.items()})


def _means(mixes: Mapping[str, Sequence[Mapping[str, float] | None]]) -> dict[str, dict[str, Spread]]:
    trained = {label: [mix for mix in of if mix] for label, of in mixes.items()}  # a random choice trains none
    return {
        label: {state: Spread.of([mix[state] for mix in of]) for state in of[0]} for label, of in trained.items() if of
    }


def decided(searches: Sequence[SearchResult], space: SearchSpace) -> Selection:
    """What searches of a space decided, by slot, and what to warn of (`bas.stats.decisions`)."""
    chosen = [search.architecture for search in searches]
    beliefs = [search.probabilities for search in searches if search.probabilities]
    if beliefs:
        selection = summarise(beliefs, chosen)
    else:
        certain = [{s: {n: float(n == a[s]) for n in c} for s, c in space.searched.items()} for a in chosen]
        selection = summarise(certain, chosen)
        slots = {name: replace(slot, margin=None, entropy=None) for name, slot in selection.slots.items()}
        selection = replace(selection, slots=slots)
    if any(search.trials for search in searches):
        return selection  # a race puts empty slots last, so equal blocks are no collapse; it says itself how sure it is
    return replace(selection, warnings=tuple(warnings(selection)))
