"""Every number of a words study: each row by state, paired differences, whether word means beat their controls.

Axes: N test utterances pooled over the folds, S seeds, R seeds of every state end to end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bas.errors import UserError
from bas.report.format import difference, points
from bas.report.notes import corrected
from bas.report.results import Score
from bas.runs.results import context, read_result, remarks_of, tested
from bas.runs.run import Run
from bas.stats import Predictions, Spread, a_against_a, interval_of_mean, over_models, paired
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
from bas.studies.words.results import TaskWords, WordsPair, WordsResult, WordsRow

CONTROLS = (RAW, INSIDE, RANDOM, CENTRE, ATTENTION)
"""The rows that word means are compared with."""

VERDICTS = {
    RAW: "raw frames",
    INSIDE: "frames inside words, the control for silence",
    RANDOM: "random segments of the same lengths, the control for where words are",
}
"""The controls that the verdicts over all states name."""

ANSWERS = {"better": "yes", "worse": "no, they are worse", "tie": "not shown, a tie", "no claim": "no claim"}


def pairs(fused: bool) -> list[tuple[str, str]]:
    """The rows that are compared, the first with the second."""
    compared = [(WORDS, other) for other in CONTROLS]
    if fused:
        compared += [(f"{name}+{fusion}", name) for name in FUSED for fusion in FUSIONS]
        compared += [(f"{WORDS}+{fusion}", f"{RAW}+{fusion}") for fusion in FUSIONS]
    return compared


def predictions(results: Sequence[Sequence[WordsResult]]) -> dict[str, Predictions]:
    """By head: what jobs by seed and fold predicted on the test parts."""
    heads = list(results[0][0].heads)
    tests = {head: [[r.heads[head].test for r in of_seed] for of_seed in results] for head in heads}
    folds_N = np.repeat(np.arange(len(results[0])), [len(test.predictions) for test in tests[heads[0]][0]])
    return {
        head: Predictions(np.array([np.concatenate([t.predictions for t in row]) for row in of_head]), folds_N)
        for head, of_head in tests.items()
    }


def together(of: Mapping[str, Predictions]) -> Predictions:
    """All states' predictions beside each other, `(S, N, H, ...)`: one training made them."""
    first = next(iter(of.values()))
    return Predictions(np.stack([one.rows_SN for one in of.values()], axis=2), first.folds_N)


def tabulate(run: Run, fused: bool) -> TaskWords:
    """Every number of one task's report on one store. Metrics and differences in 0..1.

    Over all states a row's metric is their mean, each state read by a classifier of its own; no state is chosen.
    Raises UserError where a job is of other words, or of another text encoder, than the run's folder holds.
    """
    targets_N, units_N = tested(run)
    results = {row: [[_result(run, row, f, s) for f in _folds(run)] for s in run.plan.seeds] for row in rows(fused)}
    every = {row: [result for of_seed in of_row for result in of_seed] for row, of_row in results.items()}
    current = made_of(Record.read(run.folder.parent), read_lexicon(run.folder.parent)[0])
    if others := sum(result.made_of != current for of_row in every.values() for result in of_row):
        message = f"{others} of its jobs are of other words, or of another text encoder"
        raise UserError(f"{run.folder}: {message}; give another --name")
    predicted = {row: predictions(of_row) for row, of_row in results.items()}
    whole = {row: together(of) for row, of in predicted.items() if len(of) > 1}
    headline = run.metrics[run.headline]

    def row_of(row: str) -> WordsRow:
        alone = {head: _score(run, [of]) for head, of in predicted[row].items()}
        return WordsRow(alone, _score(run, list(predicted[row].values())) if row in whole else None)

    def pair_of(a: str, b: str) -> WordsPair:
        alone = {
            head: paired(targets_N, of, predicted[b][head], units_N, headline) for head, of in predicted[a].items()
        }
        if a not in whole:
            return WordsPair(alone, None)
        return WordsPair(alone, paired(targets_N, whole[a], whole[b], units_N, over_models(headline)))

    of_rows = {row: row_of(row) for row in predicted}
    heads = [of for of_row in predicted.values() for of in of_row.values()]
    of_pairs = {f"{a} against {b}": pair_of(a, b) for a, b in pairs(fused)}
    constant = _constant(run, targets_N)
    return TaskWords(
        **context(run),
        task=run.task.name,
        fused=fused,
        classes=tuple(run.outputs),
        fit=float(np.mean([len(fold.fit) for fold in run.protocol.folds])),
        metrics=tuple(run.metrics),
        rows=of_rows,
        pairs=of_pairs,
        false_verdicts=a_against_a(targets_N, heads, units_N, headline),
        constant=constant,
        verdicts=_verdicts(run, of_pairs, of_rows[WORDS].over_states, constant),
        units_of={row: of_row[0].units for row, of_row in every.items()},
        seconds={row: float(np.mean([result.seconds for result in of_row])) for row, of_row in every.items()},
    )


def _result(run: Run, row: str, fold: int, seed: int) -> WordsResult:
    return read_result(run, words_job(row, fold, seed), WordsResult)


def _folds(run: Run) -> range:
    return range(len(run.protocol.folds))


def _score(run: Run, heads: Sequence[Predictions]) -> Score:
    """The metrics of heads, and the interval of their headline; of several, of their mean."""
    targets_N, units_N = tested(run)
    row = together({str(index): head for index, head in enumerate(heads)})
    metrics = {name: over_models(metric) for name, metric in run.metrics.items()}
    everyone_N = np.concatenate([head.rows_SN for head in heads])
    return Score(
        metrics={name: Spread.of([m(targets_N, of_seed) for of_seed in row.rows_SN]) for name, m in metrics.items()},
        interval=interval_of_mean(targets_N, row, units_N, metrics[run.headline]),
        remarks=remarks_of(run, Predictions(everyone_N, row.folds_N)),
    )


def _constant(run: Run, targets_N: np.ndarray) -> float:
    """The headline of the best answer that is the same for all utterances; 0 where answers are ranked."""
    if run.task.classes is None:
        return 0.0
    answers = [np.full(len(targets_N), k) for k in range(len(run.outputs))]
    return max(run.metrics[run.headline](targets_N, answer_N) for answer_N in answers)


def _verdicts(run: Run, compared: Mapping[str, WordsPair], words: Score, constant: float) -> tuple[str, ...]:
    """Whether word means beat each control of VERDICTS, in sentences; and whether they beat a constant answer."""
    lines, states = [], run.store.info.layers
    stay = corrected([pair.over_states for pair in compared.values()])
    beaten = words.interval.low > constant
    useless = "" if beaten else f"; but a constant answer gives {points(constant)}, no less than they"
    over = f"mean over states {', '.join(map(str, states))}" if len(states) > 1 else f"state {states[0]}"
    for other, name in VERDICTS.items():
        pair = compared[f"{WORDS} against {other}"]
        answer = ANSWERS[pair.over_states.verdict]
        if pair.over_states.significant and pair.over_states not in stay:
            answer += ", uncorrected"
        by_state = [of.verdict for of in pair.states.values()]
        counted = ", ".join(f"{by_state.count(v)} {v}" for v in ANSWERS if v in by_state)
        each = f"; by state, uncorrected: {counted}" if len(states) > 1 else ""
        lines.append(
            f"AWE beat {name}, on {run.folder.parent.name}, task {run.task.name}: {answer} "
            f"({over}: {run.headline} {difference(pair.over_states)}{each}){useless}."
        )
    return tuple(lines)
