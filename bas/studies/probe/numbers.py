"""What a probe's jobs say: the layers' accuracies, the honest choice, the two biases, the error reduction, few labels.

Axes: N test utterances pooled over the folds, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bas.report.old import context, plain
from bas.runs.layers import middle
from bas.runs.results import tested
from bas.runs.run import Run
from bas.stats import Metric, interval, paired, spread
from bas.studies.probe.few import ALL, few_job
from bas.studies.probe.heads import FREE, KINDS, MEAN, SOFTMAX, input_names
from bas.studies.probe.jobs import WHOLE, probe_job
from bas.training.heads import state_name

AGGREGATES = (MEAN, SOFTMAX, FREE)
WHOSE = ("ours", "paper")
CHOSEN, ON_VALID = "LAYER=best", "best on valid"


Estimate = Callable[[np.ndarray], float]
"""A number, of the utterances that a boolean mask `(N,)` keeps."""


@dataclass(frozen=True)
class Probed:
    """What the jobs of one run and one share predicted, by head."""

    test_SN: Mapping[str, np.ndarray]  # in the order asked for
    valid: Sequence[Mapping[str, tuple[float, float]]]  # by fold: mean over seeds of the headline and of the loss
    fold_N: np.ndarray  # which fold tested each utterance
    seconds: float  # of one job, the mean
    mixes: Mapping[str, list[float]]  # the weight of each state, the mean over folds and seeds


def probed(run: Run, percent: int, ids: Sequence[str]) -> Probed:
    """The predictions on these utterances: those that the folds test, in their order, or some of them."""
    folds, seeds = run.protocol.folds, run.plan.seeds
    results = [[run.result(probe_job(f, s, percent).name) for f in range(len(folds))] for s in seeds]
    heads = list(results[0][0]["heads"])
    places = [(f, n) for f, fold in enumerate(folds) for n in range(len(fold.test))]
    if tuple(ids) != run.protocol.tested:  # which lists an utterance twice where two folds test it
        found = dict(zip(run.protocol.tested, places, strict=True))
        places = [found[i] for i in ids]
    fold_N, row_N = (np.array(column) for column in zip(*places, strict=True))
    test = {}
    for head in heads:
        of_seed = [[np.array(r["heads"][head]["test"]["predictions"]) for r in row] for row in results]
        test[head] = np.array([[row[f][n] for f, n in zip(fold_N, row_N, strict=True)] for row in of_seed])
    valid = []
    for f in range(len(folds)):
        means: dict[str, tuple[float, float]] = {}
        for head in heads:
            scores = [row[f]["heads"][head]["valid"] for row in results]
            means[head] = float(np.mean([s[run.headline] for s in scores])), float(np.mean([s["loss"] for s in scores]))
        valid.append(means)
    seconds = float(np.mean([r["seconds"] for row in results for r in row]))
    every = [result["heads"] for row in results for result in row]
    mixes = {head: np.mean([found[head]["mix"] for found in every], axis=0).tolist() for head in heads}
    return Probed(test, valid, fold_N, seconds, mixes)


def chosen_states(found: Probed, kind: str, states: Sequence[int]) -> list[int]:
    """By fold, the state whose head is best on the valid part: the headline over seeds, of equals the lower loss."""

    def rank(valid: Mapping[str, tuple[float, float]], state: int) -> tuple[float, float, int]:
        headline, loss = valid[f"{kind} {state_name(state)}"]
        return headline, -loss, -state

    return [max(states, key=lambda state: rank(valid, state)) for valid in found.valid]


def by_training(run: Run) -> list[int]:
    """By fold, the state that its training speakers name in cross-validation: what `LAYER=best` takes."""
    return [int(run.result(few_job(f).name)["layers"][ALL][0]) for f in range(len(run.protocol.folds))]


def take(found: Probed, kind: str, by_fold: Sequence[int]) -> np.ndarray:
    """`(S, N)` predictions where each fold reads a state of its own."""
    out_SN = np.empty_like(next(iter(found.test_SN.values())))
    for fold, state in enumerate(by_fold):
        here_N = found.fold_N == fold
        out_SN[:, here_N] = found.test_SN[f"{kind} {state_name(state)}"][:, here_N]
    return out_SN


def tabulate(run: Run, random: Run, percents: Sequence[int]) -> dict[str, Any]:
    """Every number of one store's report, as plain data. Metrics and differences in 0..1."""
    states, everyone = run.store.info.layers, tested(run)
    whole = probed(run, WHOLE, run.protocol.tested)
    inputs = input_names(states)
    result: dict[str, Any] = {
        **context(run),
        "store": run.folder.parent.name,
        "layer": "every",
        "states": list(states),
        "languages": sorted({u.language for u in run.utterances if u.language}),
        "classes": list(run.outputs),
        "seconds": whole.seconds,
        "heads": {
            kind: {name: _numbers(run, everyone, whole, kind, whole.test_SN[f"{kind} {name}"]) for name in inputs}
            for kind in KINDS
        },
        "random": {"told": random.protocol.told, "marks": list(random.protocol.marks), "rule": random.protocol.rule},
        "fit": {
            name: float(np.mean([len(f.fit) for f in r.protocol.folds]))
            for name, r in (("ours", run), ("random", random))
        },
    }
    shares = sorted({*percents, WHOLE})
    result["curves"] = {
        str(p): _curve(run, whole if p == WHOLE else probed(run, p, run.protocol.tested)) for p in shares
    }
    if len(states) == 1:
        return result
    searched, both = by_training(run), _both(run, random)
    on_valid = {kind: chosen_states(whole, kind, states) for kind in KINDS}
    for kind in KINDS:
        for name, by_fold in ((CHOSEN, searched), (ON_VALID, on_valid[kind])):
            result["heads"][kind][name] = _numbers(run, everyone, whole, kind, take(whole, kind, by_fold))
    result |= {
        "chosen": {CHOSEN: searched, **on_valid},
        "biases": {kind: _biases(run, both, kind) for kind in KINDS},
        "reduction": {kind: _reductions(run, both, kind) for kind in KINDS},
        "mixes": _weights(whole),
        "few": {kind: _few(run, whole, kind) for kind in KINDS},
    }
    return result


def _numbers(
    run: Run, everyone: tuple[np.ndarray, np.ndarray], found: Probed, kind: str, row_SN: np.ndarray
) -> dict[str, Any]:
    """A row's metrics, the interval of its headline, and what it has over the last state and the softmax mix.

    everyone: targets and units of the utterances.
    """
    (targets_N, units_N), metric = everyone, run.metrics[run.headline]
    scores = {name: spread([m(targets_N, p_N) for p_N in row_SN]) for name, m in run.metrics.items()}
    _, low, high = interval(_mean(metric, targets_N, row_SN), units_N)
    states = run.store.info.layers
    others = {"last": state_name(states[-1]), "softmax": SOFTMAX}
    against = {
        name: plain(paired(targets_N, row_SN, other_SN, units_N, metric))
        for name, other in others.items()
        if (other_SN := found.test_SN.get(f"{kind} {other}")) is not None and not np.array_equal(other_SN, row_SN)
    }
    metrics = {name: {"mean": mean, "sd": sd} for name, (mean, sd) in scores.items()}
    return {"metrics": metrics, "low": low, "high": high, "against": against}


def _weights(found: Probed) -> dict[str, dict[str, list[float]]]:
    """Of the two learnt mixes of all states."""
    return {kind: {name: found.mixes[f"{kind} {name}"] for name in (SOFTMAX, FREE)} for kind in KINDS}


def _mean(metric: Metric, targets_N: np.ndarray, row_SN: np.ndarray) -> Estimate:
    """The metric's mean over seeds, of the utterances that a mask keeps."""
    return lambda k_N: float(np.mean([metric(targets_N[k_N], p_N[k_N]) for p_N in row_SN]))


@dataclass(frozen=True)
class Both:
    """What both splits predict of the utterances that both test, in the disjoint one's order."""

    targets_N: np.ndarray
    units_N: np.ndarray
    disjoint: Probed
    random: Probed


def _both(run: Run, random: Run) -> Both:
    unit, also = dict(zip(run.protocol.tested, tested(run)[1], strict=True)), set(random.protocol.tested)
    ids = [i for i in dict.fromkeys(run.protocol.tested) if i in also]
    targets_N = run.targets[[run.position[i] for i in ids]]
    found = (probed(one, WHOLE, ids) for one in (run, random))
    return Both(targets_N, np.array([unit[i] for i in ids]), *found)


def _of_states(run: Run, found: Probed, kind: str, targets_N: np.ndarray) -> dict[int, Estimate]:
    metric = run.metrics[run.headline]
    return {s: _mean(metric, targets_N, found.test_SN[f"{kind} {state_name(s)}"]) for s in run.store.info.layers}


def _best(of_state: Mapping[int, Estimate]) -> Estimate:
    """The best state's, chosen on just the utterances that are kept."""
    return lambda k_N: max(estimate(k_N) for estimate in of_state.values())


def _biases(run: Run, both: Both, kind: str) -> dict[str, Any]:
    """What five ways to find the best layer claim for it, on the utterances that both splits test.

    The first, by the training speakers of disjoint folds, is what the others are held against. Intervals over the
    disjoint split's units; a layer chosen by test accuracy is chosen anew without each unit.
    """
    metric, states = run.metrics[run.headline], run.store.info.layers
    honest = _mean(metric, both.targets_N, take(both.disjoint, kind, by_training(run)))
    claims: dict[str, Estimate] = {"disjoint, training": honest}
    best: dict[str, int] = {}
    everyone = np.ones(len(both.targets_N), bool)
    for split, found in (("disjoint", both.disjoint), ("random", both.random)):
        on_valid = take(found, kind, chosen_states(found, kind, states))
        of_state = _of_states(run, found, kind, both.targets_N)
        claims[f"{split}, valid"], claims[f"{split}, test"] = _mean(metric, both.targets_N, on_valid), _best(of_state)
        reached = {state: estimate(everyone) for state, estimate in of_state.items()}
        best[split] = max(states, key=lambda s, of=reached: (of[s], -s))  # type: ignore[misc]
    found_claims = {}
    for name, claim in claims.items():
        value, low, high = interval(lambda k_N, c=claim: c(k_N) - honest(k_N), both.units_N)  # type: ignore[misc]
        found_claims[name] = {"claims": claim(everyone), "bias": value, "low": low, "high": high}
    return {"tested": len(everyone), "claims": found_claims, "best": best}


def _reductions(run: Run, both: Both, kind: str) -> dict[str, dict[str, dict[str, float]]]:
    """What share of an aggregate's errors one layer leaves out: here, and as the paper finds it.

    ours: that of the training speakers, on the disjoint split. paper: the best on test, on the random split.
    """
    metric = run.metrics[run.headline]
    singles: dict[str, tuple[Probed, Estimate]] = {
        "ours": (both.disjoint, _mean(metric, both.targets_N, take(both.disjoint, kind, by_training(run)))),
        "paper": (both.random, _best(_of_states(run, both.random, kind, both.targets_N))),
    }
    found: dict[str, dict[str, dict[str, float]]] = {}
    for whose, (probes, single) in singles.items():
        found[whose] = {}
        for name in AGGREGATES:
            whole = _mean(metric, both.targets_N, probes.test_SN[f"{kind} {name}"])
            value, low, high = interval(
                lambda k_N, one=single, all_=whole: error_reduction(one(k_N), all_(k_N)),  # type: ignore[misc]
                both.units_N,
            )
            found[whose][name] = {"reduction": value, "low": low, "high": high}
    return found


def error_reduction(single: float, aggregate: float) -> float:
    """(error of the aggregate - error of the one) / error of the aggregate; NaN where that makes none."""
    if aggregate >= 1:
        return math.nan
    return 1 - (1 - single) / (1 - aggregate)


def _few(run: Run, found: Probed, kind: str) -> dict[str, Any]:
    """What the layers that few labels name reach, each probe trained on all; by how many were labelled.

    Beside them, with no label at all, the middle state; and what knowing the test part would have taken.
    """
    metric, states, (targets_N, _) = run.metrics[run.headline], run.store.info.layers, tested(run)
    results = [run.result(few_job(f).name)["layers"] for f in range(len(run.protocol.folds))]
    everyone = np.ones(len(targets_N), bool)

    def reaches(by_fold: Sequence[int]) -> float:
        return _mean(metric, targets_N, take(found, kind, by_fold))(everyone)

    every = {s: reaches([s] * len(results)) for s in states}
    best = max(states, key=lambda s: (every[s], -s))
    rows = {}
    for count in (count for count in results[0] if all(count in found for found in results)):
        draws = [[r[count][draw] for r in results] for draw in range(len(results[0][count]))]
        mean, sd = spread([reaches(by_fold) for by_fold in draws])
        picks = [layer for by_fold in draws for layer in by_fold]
        rows[count] = {"mean": mean, "sd": sd, "draws": len(draws), "picks": {s: picks.count(s) for s in states}}
    middle_row = {"mean": every[middle(states)], "sd": 0.0, "draws": 1, "picks": {middle(states): len(results)}}
    return {"rows": {"0": middle_row, **rows}, "all": rows[ALL]["mean"], "best": every[best], "best_state": best}


def _curve(run: Run, found: Probed) -> dict[str, dict[str, float]]:
    """By head, the headline's mean and deviation over seeds."""
    metric, (targets_N, _) = run.metrics[run.headline], tested(run)
    rows = {head: spread([metric(targets_N, p_N) for p_N in of_SN]) for head, of_SN in found.test_SN.items()}
    return {head: {"mean": mean, "sd": sd} for head, (mean, sd) in rows.items()}


def averaged(stores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The error reductions over several corpora, as the paper averages: each counts once, its encoders' mean."""
    by_corpus: dict[str, list[Mapping[str, Any]]] = {}
    for store in stores:
        if "reduction" in store:
            by_corpus.setdefault(store["corpus"], []).append(store["reduction"])
    if len(by_corpus) < 2:
        return {}
    mean: dict[str, Any] = {kind: {whose: {} for whose in WHOSE} for kind in KINDS}
    for kind, whose, name in product(KINDS, WHOSE, AGGREGATES):
        each = [[one[kind][whose][name]["reduction"] for one in of_corpus] for of_corpus in by_corpus.values()]
        known = [[value for value in values if math.isfinite(value)] for values in each]
        found = [float(np.mean(values)) for values in known if values]
        mean[kind][whose][name] = dict(zip(("mean", "sd"), spread(found) if found else (math.nan, 0.0), strict=True))
    return mean
