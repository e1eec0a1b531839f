"""Tune, train what was chosen, compare: the verb `tune`, its processes and its page. What a trial is: `trials`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_byte
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from threadpoolctl import threadpool_limits

from bas.errors import UserError
from bas.report.comparison import ceiling, context, interval_of, pooled, results_of, tested
from bas.report.comparison_page import announce, markdown, markdown_table, rich_table, show
from bas.runs.fit import Bench
from bas.runs.run import BEST, Job, Run
from bas.runs.workers import REFRESH_SECONDS, run_jobs
from bas.stats import paired, spread, verdict_sentence
from bas.studies.tune.trials import (
    BLOCK,
    FINISHED,
    Attempt,
    attempt,
    begin,
    best_of,
    drawn_from,
    open_journal,
    score,
    study_of,
)
from bas.training.batches import sizes
from bas.training.placement import Placement, place
from bas.util.files import write_results, write_text
from bas.util.progress import bar

FEW = 10  # complete trials say nothing about what mattered
TOLD = {
    "blocks": "blocks and settings by Optuna (TPE)",
    "search": "settings by Optuna (TPE), blocks by the search in each trial",
}

Work = Attempt | Job
"""A trial to make, or the training that a study's best one is scored by."""


def carry_out(
    run: Run, mode: str, trials: int, workers: int, console: Console, memory: float | None = None
) -> dict[str, Any]:
    """Make the trials that are not made yet, score the best of each study, and the baselines; write and show the page.

    trials: in every fold, for every space. memory: as of `compare.carry_out`. The caller holds the folder's lock.
    """
    announce(run, workers, console)
    journal = begin(run, mode)
    placement, told = _place(run, journal, workers, memory)
    console.print(told)
    folds, seeds = range(len(run.protocol.folds)), run.plan.seeds
    if run.plan.layer == BEST:
        run_jobs(run.folder, [Job("layer", BEST, f, 0) for f in folds], 1, workers, console, "layers", placement)
    studies = [(space, fold) for space in run.spaces for fold in folds]
    console.print(f"tuned: {TOLD[mode]}; {trials} trials in each of {len(studies)} studies", highlight=False)
    chains: list[Sequence[Work]] = []
    beside = -(-workers // len(studies))  # trials of one study at a time: one, unless there are more workers
    for space, fold in studies:
        made = len(study_of(journal, space, fold).get_trials(deepcopy=False, states=FINISHED))
        left = [Attempt(space, fold, ordinal) for ordinal in range(made, trials)]
        chains += [left[i::beside] for i in range(beside)]
    _side_by_side(run.folder, chains, trials * len(studies), workers, placement, console, "trials")
    journal = open_journal(run.folder)
    scores = [
        [Job("tuned", space, fold, seed, best_of(journal, space, fold).number)]
        for seed in seeds
        for space, fold in studies
    ]
    left_over = [chain for chain in scores if not run.done(chain[0].name)]
    _side_by_side(run.folder, left_over, len(scores), workers, placement, console, "trainings")
    linear = [Job("linear", row, f, seeds[0]) for row in run.task.linears for f in folds]
    baselines = [Job("baseline", row, f, s) for row in _baselines(run) for s in seeds for f in folds]
    run_jobs(run.folder, linear, 1, workers, console, "linear rows", placement)
    run_jobs(run.folder, baselines, run.plan.settings.epochs, workers, console, "baselines", placement)
    results = tabulate(run, journal, mode)
    write_results(run.folder / "tune.json", results)
    write_text(run.folder / "tune.md", page(results))
    show(results, console)
    for space in results["tuning"]:
        heading, rows = _chosen(results, space)
        narrow = [[*r[:4], ", ".join(map(" ".join, zip(heading[4:], r[4:], strict=True)))] for r in rows]
        title = f"{space}: the best trial of each fold (protocol {run.protocol.told})"
        console.print(rich_table(title, [*heading[:4], "drawn"], narrow))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
    return results


def _place(run: Run, journal: JournalStorage, workers: int, memory: float | None) -> tuple[Placement, str]:
    """As `train.place_features`, for the smallest stride that a trial may draw."""
    strides = [run.plan.settings.stride]
    for space in run.spaces:
        drawn = drawn_from(study_of(journal, space, 0))["stride"]
        assert isinstance(drawn, CategoricalDistribution)
        strides += [s for s in drawn.choices if isinstance(s, int)]
    ids = [u.id for u in run.utterances]
    whole, least = sizes(run.store, ids, min(strides), run.plan.settings.batch_size, run.states)
    return place(whole, least, torch.device(run.plan.device), workers, memory)


_desk: tuple[Bench, JournalStorage] | None = None


def _side_by_side(
    folder: Path,
    chains: Sequence[Sequence[Work]],
    total: int,
    workers: int,
    placement: Placement,
    console: Console,
    what: str,
) -> None:
    """The works of a chain one after another, the chains over the processes; as `workers.run_jobs` otherwise."""
    todo = sum(map(len, chains))
    if not todo:
        return
    with bar(console, what) as progress:
        task = progress.add_task(what, total=total, completed=total - todo)
        if workers == 1:
            _sit_down(folder, placement)
            for chain in chains:
                for work in chain:
                    _do(work)
                    progress.advance(task)
            return
        context_ = multiprocessing.get_context("spawn")
        stop = context_.RawValue("b", 0)
        with ProcessPoolExecutor(workers, context_, _open, (folder, placement, os.getpid(), stop)) as pool:
            running: dict[Future[None], Iterator[Work]] = {}

            def next_of(chain: Iterator[Work]) -> None:
                for work in chain:
                    running[pool.submit(_do, work)] = chain
                    return

            try:
                for chain in chains:
                    next_of(iter(chain))
                while running:
                    done, _ = wait(running, REFRESH_SECONDS, FIRST_COMPLETED)
                    for future in done:
                        future.result()
                        progress.advance(task)
                        next_of(running.pop(future))
            except BaseException as error:
                stop.value = 1  # a trial that is cut off is made again by the next run
                pool.shutdown(cancel_futures=True)
                if isinstance(error, BrokenProcessPool):
                    told = "a worker was killed; if memory is short, use fewer --workers"
                    raise UserError(f"{folder}: {told}") from error
                raise


def _open(folder: Path, placement: Placement, parent: int, stop: c_byte) -> None:
    def watch() -> None:  # as `workers.run_jobs` has it
        while os.getppid() == parent and not stop.value:
            time.sleep(REFRESH_SECONDS)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()
    _sit_down(folder, placement)


def _sit_down(folder: Path, placement: Placement) -> None:
    global _desk
    torch.set_num_threads(1)
    _desk = Bench(folder, placement=placement), open_journal(folder)


def _do(work: Work) -> None:
    assert _desk is not None
    with threadpool_limits(1):
        if isinstance(work, Attempt):
            attempt(*_desk, work)
        else:
            score(*_desk, work)


def tabulate(run: Run, journal: JournalStorage, mode: str) -> dict[str, Any]:
    """Every number of the page as plain data, in the form of `tables.tabulate`; and of every study what it took."""
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
    jobs |= {row: results_of(run, row) for row in (*_baselines(run), *run.task.linears)}
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


def _baselines(run: Run) -> tuple[str, ...]:
    """The reference and the last, of theirs the simple FFN."""
    first, *others = run.baselines
    return (first, *others[-1:])


def _mixes(jobs: Mapping[str, list[list[dict[str, Any]]]]) -> dict[str, dict[str, dict[str, float]]]:
    """By row, each state's weight in the layer mix, where there is one, over folds and seeds; as `tables.tabulate`."""
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


def _chosen(results: dict[str, Any], space: str) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: the best trial of each fold, beside the preset's."""
    tuned = results["tuning"][space]
    names = [name for name in tuned["ranges"] if not name.startswith(BLOCK)]
    rows = []
    for fold, found in enumerate(tuned["folds"]):
        values = [found["params"][name] for name in names]
        shown = [f"{value:.2g}" if isinstance(value, float) else str(value) for value in values]
        losses = [f"{found['value']:.3f}", "–" if found["preset"] is None else f"{found['preset']:.3f}"]
        rows.append([str(fold), str(found["best"]), *losses, *shown, " > ".join(found["architecture"].values())])
    return ["fold", "trial", "valid loss", "preset's", *names, "blocks"], rows


def _legend(results: dict[str, Any]) -> list[str]:
    seed = results["seeds"][0]
    lines = [
        f"Tuned: {TOLD[results['mode']]}. A study of its own in every fold, all trials with seed {seed}; a trial's "
        "value is its lowest validation loss over the epochs, and none saw a test part. Trial 0 is the preset, in mode "
        "blocks with the first candidate of every slot. Deviations of a tuned row are over trainings of the one trial "
        "that was chosen in a fold, not over studies.",
        "s of a tuned row: one training of what was chosen, and the trials of one fold.",
    ]
    for space, tuned in results["tuning"].items():
        folds = tuned["folds"]
        total = {name: sum(fold[name] for fold in folds) for name in ("trials", "complete", "broken", "cut_off")}
        pruned = total["trials"] - total["complete"] - total["broken"]
        lines.append(
            f"{space}: {total['trials']} trials over {len(folds)} folds in {sum(f['seconds'] for f in folds):,.0f} s: "
            f"{total['complete']} complete, {pruned} pruned, {total['broken']} diverged or too large"
            + (f"; {total['cut_off']} more were cut off and made again" if total["cut_off"] else "")
            + "."
        )
        lines.append(f"{space}, drawn from: {'; '.join(f'{n} {told}' for n, told in tuned['ranges'].items())}.")
        if any(fold["side_by_side"] for fold in folds):
            told = "more workers than studies: trials of one study ran side by side, and another run may draw others"
            lines.append(f"{space}: {told}.")
        if tuned["importances"]:
            order = sorted(tuned["importances"].items(), key=lambda item: -item[1])
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in order)
            lines.append(f"{space}, what mattered (PED-ANOVA over the complete trials, mean over folds): {shares}.")
        before = [str(index) for index, fold in enumerate(folds) if fold["scored_before"]]
        if before:
            told = f"trials were added after the test parts of folds {', '.join(before)} had been scored"
            lines.append(f"Note: {space}: {told}; the earlier scores are in jobs/.")
    return lines


def page(results: dict[str, Any]) -> str:
    """The table of `page.markdown`, and how its tuned rows came about."""
    lines = [markdown(results).rstrip("\n")]
    for space in results["tuning"]:
        lines += ["", f"## {space}: the best trial of each fold", "", *markdown_table(*_chosen(results, space))]
    return "\n".join([*lines, "", *(f"- {line}" for line in _legend(results))]) + "\n"
