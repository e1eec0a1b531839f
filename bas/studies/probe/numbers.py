"""Every number of a probe: the layers' accuracies, the honest choice, the two biases, error reduction, few labels.

Axes: N test utterances pooled over the folds, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import sub

import numpy as np

from bas.runs.layers import middle
from bas.runs.results import ceiling, context, metrics_of, read_result, remarks_of, tested
from bas.runs.run import Run
from bas.stats import (
    Estimate,
    FalseVerdicts,
    Interval,
    Metric,
    Paired,
    Predictions,
    Spread,
    a_against_a,
    conclude,
    limits_of,
    limits_of_difference,
    mean_metric,
    sample,
)
from bas.studies.probe.few import ALL, few_job
from bas.studies.probe.heads import FREE, KINDS, MEAN, SOFTMAX, input_names
from bas.studies.probe.jobs import WHOLE, probe_job
from bas.studies.probe.results import (
    Biases,
    Choice,
    FewLabels,
    FewResult,
    FewRow,
    HeadRow,
    LayerClaim,
    ProbeResult,
    RandomSplit,
    Reductions,
    StoreProbe,
)
from bas.tasks import join_parts
from bas.training.heads import state_name

AGGREGATES = (MEAN, SOFTMAX, FREE)
WHOSE = ("ours", "paper")
CHOSEN, ON_VALID = "LAYER=best", "best on valid"


@dataclass(frozen=True)
class Probed:
    """What the jobs of one run and one share predicted, by head."""

    test_SN: Mapping[str, np.ndarray]  # in the order asked for
    valid: Sequence[Mapping[str, tuple[float, float]]]  # by fold: mean over seeds of the headline and of the loss
    fold_N: np.ndarray  # which fold tested each utterance
    seconds: float  # of one job, the mean
    mixes: Mapping[str, tuple[float, ...]]  # the weight of each state, the mean over folds and seeds

    def row(self, row_SN: np.ndarray) -> Predictions:
        return Predictions(row_SN, self.fold_N)


def probed(run: Run, percent: int, ids: Sequence[str]) -> Probed:
    """The predictions on these utterances: those that the folds test, in their order, or some of them."""
    folds, seeds = run.protocol.folds, run.plan.seeds
    results = [[read_result(run, probe_job(f, s, percent), ProbeResult) for f in range(len(folds))] for s in seeds]
    heads = list(results[0][0].heads)
    places = [(f, n) for f, fold in enumerate(folds) for n in range(len(fold.test))]
    if tuple(ids) != run.protocol.test_ids:  # which lists an utterance twice where two folds test it
        place_of = dict(zip(run.protocol.test_ids, places, strict=True))
        places = [place_of[i] for i in ids]
    fold_N, row_N = (np.array(column) for column in zip(*places, strict=True))
    test = {}
    for head in heads:
        of_seed = [[r.heads[head].test.predictions for r in row] for row in results]
        test[head] = np.array([[row[f][n] for f, n in zip(fold_N, row_N, strict=True)] for row in of_seed])
    valid = []
    for f in range(len(folds)):
        means: dict[str, tuple[float, float]] = {}
        for head in heads:
            scores = [row[f].heads[head].valid for row in results]
            means[head] = float(np.mean([s[run.headline] for s in scores])), float(np.mean([s["loss"] for s in scores]))
        valid.append(means)
    seconds = float(np.mean([r.seconds for row in results for r in row]))
    every = [result.heads for row in results for result in row]
    mixes = {head: tuple(np.mean([of[head].mix for of in every], axis=0).tolist()) for head in heads}
    return Probed(test, valid, fold_N, seconds, mixes)


def chosen_states(predictions: Probed, kind: str, states: Sequence[int]) -> list[int]:
    """By fold, the state whose head is best on the valid part: the headline over seeds, of equals the lower loss."""

    def rank(valid: Mapping[str, tuple[float, float]], state: int) -> tuple[float, float, int]:
        headline, loss = valid[f"{kind} {state_name(state)}"]
        return headline, -loss, -state

    return [max(states, key=lambda state: rank(valid, state)) for valid in predictions.valid]


def by_training(run: Run) -> list[int]:
    """By fold, the state that its training speakers name in cross-validation: what `LAYER=best` takes."""
    return [read_result(run, few_job(f), FewResult).layers[ALL][0] for f in range(len(run.protocol.folds))]


def take(predictions: Probed, kind: str, by_fold: Sequence[int]) -> np.ndarray:
    """`(S, N)` predictions where each fold reads a state of its own."""
    out_SN = np.empty_like(next(iter(predictions.test_SN.values())))
    for fold, state in enumerate(by_fold):
        here_N = predictions.fold_N == fold
        out_SN[:, here_N] = predictions.test_SN[f"{kind} {state_name(state)}"][:, here_N]
    return out_SN


def tabulate(run: Run, random: Run, percents: Sequence[int]) -> StoreProbe:
    """Every number of one store's report."""
    states, everyone = run.store.info.layers, tested(run)
    whole = probed(run, WHOLE, run.protocol.test_ids)
    rows = {kind: {name: whole.test_SN[f"{kind} {name}"] for name in input_names(states)} for kind in KINDS}
    if len(states) > 1:
        searched = by_training(run)
        on_valid = {kind: chosen_states(whole, kind, states) for kind in KINDS}
        for kind in KINDS:
            rows[kind] |= {CHOSEN: take(whole, kind, searched), ON_VALID: take(whole, kind, on_valid[kind])}
        both = _both(run, random)
        judged = {kind: _judge_choice(run, both, kind, searched) for kind in KINDS}
        saved = {kind: of[1] for kind, of in judged.items()}
        choice = Choice(
            chosen={CHOSEN: tuple(searched), **{kind: tuple(of) for kind, of in on_valid.items()}},
            biases={kind: of[0] for kind, of in judged.items()},
            reduction=saved if run.task.classes else {},
            gain={} if run.task.classes else saved,
            mixes={kind: {name: whole.mixes[f"{kind} {name}"] for name in (SOFTMAX, FREE)} for kind in KINDS},
            few={kind: _few(run, whole, kind) for kind in KINDS},
        )
    return StoreProbe(
        **context(run) | {"layer": "every"},
        store=run.folder.parent.name,
        states=tuple(states),
        languages=tuple(sorted({u.language for u in run.utterances if u.language})),
        classes=tuple(run.outputs) if run.task.classes else (),
        fit=_fit(run),
        seconds=whole.seconds,
        heads={kind: _rows(run, everyone, whole, of_kind) for kind, of_kind in rows.items()},
        false_verdicts=_told_from_itself(run, everyone, whole),
        random=RandomSplit(random.protocol.description, random.protocol.marks, random.protocol.rule, _fit(random)),
        curves={
            percent: _curve(run, whole if percent == WHOLE else probed(run, percent, run.protocol.test_ids))
            for percent in sorted({*percents, WHOLE})
        },
        choice=choice if len(states) > 1 else None,
        ceiling=ceiling(run),
    )


def _fit(run: Run) -> float:
    return float(np.mean([len(fold.fit) for fold in run.protocol.folds]))


def _rows(
    run: Run, everyone: tuple[np.ndarray, np.ndarray], predictions: Probed, of_kind: Mapping[str, np.ndarray]
) -> dict[str, HeadRow]:
    """Each row's metrics, the interval of its headline, and what it has over the last state and the softmax mix.

    everyone: targets and units of the utterances. One training makes all rows, so a difference has only the noise that
    two of them do not share; where folds read the same state, it has none.
    """
    (targets_N, units_N), metric, names = everyone, run.metrics[run.headline], list(of_kind)
    beside = predictions.row(np.stack(list(of_kind.values()), axis=2))
    sampled = sample(partial(scores, metric, targets_N), units_N, (beside,))
    only = dict(zip(names, np.eye(len(names)), strict=True))

    def against(name: str, other: str) -> Paired | None:
        if other not in of_kind or np.array_equal(of_kind[name], of_kind[other]):
            return None
        gap = conclude(sampled.at(only[name] - only[other]), limits=limits_of_difference(metric))
        return Paired.of(gap, (beside.seeds, beside.seeds))

    def row_of(name: str) -> HeadRow:
        row, alone = predictions.row(of_kind[name]), conclude(sampled.at(only[name]), limits=limits_of(metric))
        return HeadRow(
            metrics=metrics_of(run, row),
            interval=Interval(alone.low, alone.high),
            remarks=remarks_of(run, row),
            against_last=against(name, state_name(run.store.info.layers[-1])),
            against_softmax=against(name, SOFTMAX),
        )

    return {name: row_of(name) for name in names}


def _told_from_itself(run: Run, everyone: tuple[np.ndarray, np.ndarray], predictions: Probed) -> FalseVerdicts | None:
    """How often a state's or an aggregate's head is told apart from itself; see `a_against_a`."""
    names = [*map(state_name, run.store.info.layers), *(AGGREGATES if len(run.store.info.layers) > 1 else ())]
    rows = [predictions.row(predictions.test_SN[f"{kind} {name}"]) for kind in KINDS for name in names]
    return a_against_a(everyone[0], rows, everyone[1], run.metrics[run.headline])


def scores(metric: Metric, targets_N: np.ndarray, kept_N: np.ndarray, rows_SNH: np.ndarray) -> np.ndarray:
    """The metric of each of H heads beside each other, mean over seeds."""
    heads = np.moveaxis(rows_SNH, 2, 0)
    return np.array([mean_metric(metric, targets_N, kept_N, row_SN) for row_SN in heads])


@dataclass(frozen=True)
class Both:
    """What both splits predict of the utterances that both test, in the disjoint one's order.

    The targets are those of each split, as the metrics take them: a metric within folds is told which fold tested what.
    """

    units_N: np.ndarray
    disjoint: Probed
    disjoint_targets_N: np.ndarray
    random: Probed
    random_targets_N: np.ndarray


def _both(run: Run, random: Run) -> Both:
    unit, also = dict(zip(run.protocol.test_ids, tested(run)[1], strict=True)), set(random.protocol.test_ids)
    ids = [i for i in dict.fromkeys(run.protocol.test_ids) if i in also]
    targets_N = run.targets[[run.position[i] for i in ids]]
    ours, theirs = (probed(one, WHOLE, ids) for one in (run, random))
    of_each = [join_parts(run.task, targets_N, one.fold_N) for one in (ours, theirs)]
    return Both(np.array([unit[i] for i in ids]), ours, of_each[0], theirs, of_each[1])


CLAIMS = ("disjoint, training", "disjoint, valid", "disjoint, test", "random, valid", "random, test")
"""Five ways to find the best layer. The first, by the training speakers of disjoint folds, is what the others are
compared with. By test: the best layer there, chosen again without each unit and with other trainings."""


def _judge_choice(run: Run, both: Both, kind: str, searched: Sequence[int]) -> tuple[Biases, Reductions]:
    """What five ways to find the best layer claim for it, and what share of an aggregate's errors one layer avoids.

    On the utterances that both splits test; intervals over the disjoint split's units. searched: by fold, the layer
    that the training speakers name. Reductions, ours: that layer, on the disjoint split; paper: the best on test, on
    the random split. Without classes there are no errors to count: there they are gains, differences of the headline.
    """
    metric, states = run.metrics[run.headline], run.store.info.layers
    classes = run.task.classes is not None
    saves, most = (error_reduction, (-math.inf, 1.0)) if classes else (sub, limits_of_difference(metric))

    def beside(probes: Probed, *chosen: Sequence[int]) -> Predictions:
        """What is predicted by these choices, by the states, by the aggregates: one training made them all."""
        heads = [take(probes, kind, by_fold) for by_fold in (*chosen, chosen_states(probes, kind, states))]
        heads += [probes.test_SN[f"{kind} {name}"] for name in (*map(state_name, states), *AGGREGATES)]
        return probes.row(np.stack(heads, axis=2))

    def claim(kept_N: np.ndarray, disjoint_SNH: np.ndarray, random_SNH: np.ndarray) -> np.ndarray:
        """The numbers of CLAIMS, then the reductions: ours over each aggregate, the paper's over each."""
        training, valid, *ours = scores(metric, both.disjoint_targets_N, kept_N, disjoint_SNH)
        marked_valid, *theirs = scores(metric, both.random_targets_N, kept_N, random_SNH)
        count = len(states)
        best, marked_best = max(ours[:count]), max(theirs[:count])
        saved = [saves(training, x) for x in ours[count:]]
        marked_saved = [saves(marked_best, x) for x in theirs[count:]]
        return np.array([training, valid, best, marked_valid, marked_best, *saved, *marked_saved])

    disjoint, random = beside(both.disjoint, searched), beside(both.random)
    sampled = sample(claim, both.units_N, (disjoint, random))
    only = np.eye(len(sampled.whole))
    claims = {}
    for index, name in enumerate(CLAIMS):
        of = conclude(sampled.at(only[index] - only[0]), limits=limits_of_difference(metric))
        claims[name] = LayerClaim(float(sampled.whole[index]), of.value, of.low, of.high)
    reductions: dict[str, dict[str, Estimate]] = {whose: {} for whose in WHOSE}
    for index, (whose, name) in enumerate(((w, n) for w in WHOSE for n in AGGREGATES), len(CLAIMS)):
        of = conclude(sampled.at(only[index]), limits=most)
        reductions[whose][name] = Estimate(of.value, of.low, of.high)

    def best_on_test(targets_N: np.ndarray, probes: Probed) -> int:
        reached = [
            np.mean([metric(targets_N, p_N) for p_N in probes.test_SN[f"{kind} {state_name(s)}"]]) for s in states
        ]
        return states[int(np.argmax(reached))]

    best = {
        "disjoint": best_on_test(both.disjoint_targets_N, both.disjoint),
        "random": best_on_test(both.random_targets_N, both.random),
    }
    return Biases(len(both.units_N), claims, best), reductions


def error_reduction(single: float, aggregate: float) -> float:
    """(error of the aggregate - error of the one) / error of the aggregate; NaN where that makes none."""
    if aggregate >= 1:
        return math.nan
    return 1 - (1 - single) / (1 - aggregate)


def _few(run: Run, predictions: Probed, kind: str) -> FewLabels:
    """What the layers that few labels name reach, each probe trained on all; by how many were labelled.

    Beside them, with no label at all, the middle state; and what knowing the test part would have taken.
    """
    metric, states, (targets_N, _) = run.metrics[run.headline], run.store.info.layers, tested(run)
    results = [read_result(run, few_job(f), FewResult).layers for f in range(len(run.protocol.folds))]
    everyone = np.ones(len(targets_N), bool)

    def reaches(by_fold: Sequence[int]) -> float:
        return mean_metric(metric, targets_N, everyone, take(predictions, kind, by_fold))

    every = {s: reaches([s] * len(results)) for s in states}
    best = max(states, key=lambda s: (every[s], -s))
    rows = {"0": FewRow(Spread(every[middle(states)], 0.0), 1, {middle(states): len(results)})}
    for count in (count for count in results[0] if all(count in of_fold for of_fold in results)):
        draws = [[r[count][draw] for r in results] for draw in range(len(results[0][count]))]
        picks = [layer for by_fold in draws for layer in by_fold]
        score = Spread.of([reaches(by_fold) for by_fold in draws])
        rows[count] = FewRow(score, len(draws), {s: picks.count(s) for s in states})
    return FewLabels(rows, rows[ALL].score.mean, every[best], best)


def _curve(run: Run, predictions: Probed) -> dict[str, Spread]:
    """By head, the headline's mean and deviation over seeds."""
    metric, (targets_N, _) = run.metrics[run.headline], tested(run)
    return {head: Spread.of([metric(targets_N, p_N) for p_N in of_SN]) for head, of_SN in predictions.test_SN.items()}


def averaged(reductions: Iterable[tuple[str, Mapping[str, Reductions]]]) -> dict[str, dict[str, dict[str, Spread]]]:
    """Error reductions or gains over several corpora, as the paper averages: each counts once, its encoders' mean.

    reductions: of every store, its corpus and what it has by kind of head. Of one corpus: empty.
    """
    by_corpus: dict[str, list[Mapping[str, Reductions]]] = {}
    for corpus, of_store in reductions:
        by_corpus.setdefault(corpus, []).append(of_store)
    if len(by_corpus) < 2:
        return {}

    def mean(kind: str, whose: str, name: str) -> Spread:
        each = [[one[kind][whose][name].value for one in of_corpus] for of_corpus in by_corpus.values()]
        finite = [[value for value in values if math.isfinite(value)] for values in each]
        means = [float(np.mean(values)) for values in finite if values]
        return Spread.of(means) if means else Spread(math.nan, 0.0)

    return {kind: {whose: {n: mean(kind, whose, n) for n in AGGREGATES} for whose in WHOSE} for kind in KINDS}
