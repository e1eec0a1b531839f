"""What the jobs of a words study say: every row by state, paired differences, whether word means beat their controls.

Axes: N test utterances pooled over the folds, S seeds, R seeds of every state end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bas.errors import UserError
from bas.report.old import context, plain
from bas.runs.results import tested
from bas.runs.run import Run
from bas.stats import Metric, between, interval, paired, spread
from bas.studies.words.heads import FUSIONS
from bas.studies.words.jobs import (
    ATTENTION,
    CENTRE,
    FUSED,
    INSIDE,
    RANDOM,
    RAW,
    WORDS,
    Record,
    made_of,
    read_lexicon,
    rows,
    words_job,
)

MEAN = "mean of states"
CONTROLS = (RAW, INSIDE, RANDOM, CENTRE, ATTENTION)
"""What word means are held against."""

ASKED = {
    RAW: "raw frames",
    INSIDE: "frames inside words, the control for silence",
    RANDOM: "random segments of the same lengths, the control for where words are",
}
"""What the verdict over all states is given on."""

ANSWERS = {"better": "yes", "worse": "no, they are worse", "tie": "not shown, a tie", "no claim": "no claim"}


def pairs(fused: bool) -> list[tuple[str, str]]:
    """The rows that are compared, the first with the second."""
    found = [(WORDS, other) for other in CONTROLS]
    if fused:
        found += [(f"{name}+{fusion}", name) for name in FUSED for fusion in FUSIONS]
        found += [(f"{WORDS}+{fusion}", f"{RAW}+{fusion}") for fusion in FUSIONS]
    return found


def predictions(run: Run, row: str) -> dict[str, np.ndarray]:
    """By head `(S, N)`, of several outputs `(S, N, O)`: what a row's jobs predicted on the test parts."""
    folds, seeds = range(len(run.protocol.folds)), run.plan.seeds
    results = [[run.result(words_job(row, f, s).name)["heads"] for f in folds] for s in seeds]
    return {
        head: np.array([np.concatenate([r[head]["test"]["predictions"] for r in of_seed]) for of_seed in results])
        for head in results[0][0]
    }


def tabulate(run: Run, fused: bool) -> dict[str, Any]:
    """Every number of one task's report on one store, as plain data. Metrics and differences in 0..1.

    Over all states a row's metric is their mean, each state read by a classifier of its own; no state is chosen.
    Raises UserError where a job is of other words, or of another text encoder, than the run's folder holds.
    """
    targets_N, units_N = tested(run)
    known = made_of(Record.read(run.folder.parent), read_lexicon(run.folder.parent)[0])
    jobs = [words_job(row, f, s).name for row in rows(fused) for f, s in _every(run)]
    if others := [job for job in jobs if run.result(job).get("made_of") != known]:
        told = f"{len(others)} of its jobs are of other words, or of another text encoder"
        raise UserError(f"{run.folder}: {told}: delete its jobs, they are done again, or give another --name")
    found = {row: predictions(run, row) for row in rows(fused)}
    for of_head in found.values():
        if len(of_head) > 1:
            of_head[MEAN] = np.concatenate(list(of_head.values()))
    headline, states = run.metrics[run.headline], len(run.store.info.layers)
    numbers = {
        row: {
            head: _numbers(run.metrics, headline, targets_N, units_N, x_SN, states if head == MEAN else 1)
            for head, x_SN in of_head.items()
        }
        for row, of_head in found.items()
    }
    compared = {
        f"{a} against {b}": {
            head: plain(paired(targets_N, found[a][head], found[b][head], units_N, headline)) for head in found[a]
        }
        for a, b in pairs(fused)
    }
    constant = _constant(run, targets_N)
    seconds = {row: [run.result(words_job(row, f, s).name)["seconds"] for f, s in _every(run)] for row in found}
    first = {row: run.result(words_job(row, *next(iter(_every(run)))).name) for row in found}
    return {
        **context(run),
        "task": run.task.name,
        "fused": fused,
        "classes": list(run.outputs),
        "fit": float(np.mean([len(fold.fit) for fold in run.protocol.folds])),
        "metrics": list(run.metrics),
        "rows": numbers,
        "pairs": compared,
        "comparisons": sum(map(len, compared.values())),
        "constant": constant,
        "verdicts": _verdicts(run, compared, numbers[WORDS], constant),
        "units_of": {row: result["units"] for row, result in first.items()},
        "seconds": {row: float(np.mean(of_row)) for row, of_row in seconds.items()},
    }


def _every(run: Run) -> list[tuple[int, int]]:
    return [(f, s) for s in run.plan.seeds for f in range(len(run.protocol.folds))]


def _numbers(
    metrics: Mapping[str, Metric],
    headline: Metric,
    targets_N: np.ndarray,
    units_N: np.ndarray,
    x_RN: np.ndarray,
    states: int,
) -> dict[str, Any]:
    """A head's metrics, and the interval of its headline; of several states, the deviation of their mean over seeds."""

    def by_seed(metric: Metric) -> np.ndarray:
        return np.asarray(np.reshape([metric(targets_N, x_N) for x_N in x_RN], (states, -1)).mean(0))

    def mean(k_N: np.ndarray) -> float:
        return float(np.mean([headline(targets_N[k_N], x_N[k_N]) for x_N in x_RN]))

    told = {name: dict(zip(("mean", "sd"), spread(by_seed(m).tolist()), strict=True)) for name, m in metrics.items()}
    _, low, high = interval(mean, units_N)
    return {"metrics": told, "low": low, "high": high}


def _constant(run: Run, targets_N: np.ndarray) -> float:
    """The headline of the best answer that is the same for all utterances; 0 where answers are ranked."""
    if run.task.classes is None:
        return 0.0
    answers = [np.full(len(targets_N), k) for k in range(len(run.outputs))]
    return max(run.metrics[run.headline](targets_N, answer_N) for answer_N in answers)


def _verdicts(
    run: Run, compared: Mapping[str, Mapping[str, Mapping[str, Any]]], words: Mapping[str, Any], constant: float
) -> list[str]:
    """Whether word means beat what ASKED names, in sentences; and where these are no better than a constant answer."""
    lines, states = [], run.store.info.layers
    low = list(words.values())[-1]["low"]
    useless = "" if low > constant else f"; but one answer for all gives {100 * constant:.1f}, no less than they"
    over = f"mean over states {', '.join(map(str, states))}" if len(states) > 1 else f"state {states[0]}"
    for other, told in ASKED.items():
        of_head = compared[f"{WORDS} against {other}"]
        known = list(of_head.values())[-1]  # the mean, where there are several states
        by_state = [found["verdict"] for head, found in of_head.items() if head != MEAN]
        counted = ", ".join(f"{by_state.count(v)} {v}" for v in ANSWERS if v in by_state)
        each = f"; by state: {counted}" if len(states) > 1 else ""
        lines.append(
            f"AWE beat {told}, on {run.folder.parent.name}, task {run.task.name}: {ANSWERS[known['verdict']]} "
            f"({over}: {run.headline} {told_difference(known)}{each}){useless}."
        )
    return lines


def told_difference(found: Mapping[str, Any]) -> str:
    """Points with the interval and p, such as +1.2 (-0.3 to +2.6), p 0.1."""
    return f"{100 * found['difference']:+.1f} ({between(found['low'], found['high'])}), p {found['p']:.2g}"


def summary(stores: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """By task, a line a store: the headline of every input alone, the mean over its states."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for store in stores:
        for found in store["tasks"]:
            rows_ = {row: list(of_head.values())[-1] for row, of_head in found["rows"].items()}
            headline = found["headline"]
            line = {row: {**numbers["metrics"][headline], **_ends(numbers)} for row, numbers in rows_.items()}
            lines.setdefault(found["task"], []).append({"store": store["store"], "headline": headline, "rows": line})
    return lines


def _ends(numbers: Mapping[str, Any]) -> dict[str, float]:
    return {end: numbers[end] for end in ("low", "high")}
