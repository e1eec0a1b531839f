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

from bas.layers import middle
from bas.run import Run
from bas.stats import Metric, interval, paired, spread
from bas.studies.few import ALL, few_job
from bas.studies.heads import FREE, KINDS, MEAN, SOFTMAX, input_names, state_name
from bas.studies.probing import WHOLE, probe_job
from bas.tables import context, plain, tested

AGGREGATES = (MEAN, SOFTMAX, FREE)
CHOSEN, ON_VALID = "LAYER=best", "best on valid"


@dataclass(frozen=True)
class Probed:
    """What the jobs of one run and one share predicted, by head."""

    test_SN: Mapping[str, np.ndarray]  # in the order asked for
    valid: Sequence[Mapping[str, tuple[float, float]]]  # by fold: mean over seeds of the headline and of the loss
    fold_N: np.ndarray  # which fold tested each utterance
    seconds: float  # of one job, the mean


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
    return Probed(test, valid, fold_N, seconds)


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
    targets_N, units_N = tested(run)
    states = run.store.info.layers
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
        "heads": {kind: {name: _row(run, whole, kind, name, inputs, units_N) for name in inputs} for kind in KINDS},
        "random": {"told": random.protocol.told, "marks": list(random.protocol.marks), "rule": random.protocol.rule},
        "fit": {
            name: float(np.mean([len(f.fit) for f in r.protocol.folds]))
            for name, r in (("ours", run), ("random", random))
        },
    }
    shares = sorted({*percents, WHOLE})
    result["curves"] = {
        str(p): _curve(run, whole if p == WHOLE else probed(run, p, run.protocol.tested), targets_N) for p in shares
    }
    if len(states) == 1:
        return result
    searched = by_training(run)
    on_valid = {kind: chosen_states(whole, kind, states) for kind in KINDS}
    for kind in KINDS:
        for name, by_fold in ((CHOSEN, searched), (ON_VALID, on_valid[kind])):
            result["heads"][kind][name] = _numbers(run, take(whole, kind, by_fold), whole, kind, inputs, units_N)
    result |= {
        "chosen": {CHOSEN: searched, **on_valid},
        "biases": {kind: _biases(run, random, kind) for kind in KINDS},
        "reduction": {
            kind: {name: _reduction(run, whole, kind, searched, name, targets_N, units_N) for name in AGGREGATES}
            for kind in KINDS
        },
        "few": {kind: _few(run, whole, kind, targets_N) for kind in KINDS},
    }
    return result


def _row(run: Run, found: Probed, kind: str, name: str, inputs: Sequence[str], units_N: np.ndarray) -> dict[str, Any]:
    return _numbers(run, found.test_SN[f"{kind} {name}"], found, kind, inputs, units_N)


def _numbers(
    run: Run, row_SN: np.ndarray, found: Probed, kind: str, inputs: Sequence[str], units_N: np.ndarray
) -> dict[str, Any]:
    """A row's metrics, the interval of its headline, and what it has over the last state and the softmax mix."""
    targets_N, metric = tested(run)[0], run.task.metrics[run.headline]
    scores = {name: spread([m(targets_N, p_N) for p_N in row_SN]) for name, m in run.task.metrics.items()}
    _, low, high = interval(_mean(metric, targets_N, row_SN), units_N)
    states = run.store.info.layers
    others = {"last": state_name(states[-1]), "softmax": SOFTMAX}
    against = {
        name: plain(paired(targets_N, row_SN, found.test_SN[f"{kind} {other}"], units_N, metric))
        for name, other in others.items()
        if other in inputs and not np.array_equal(found.test_SN[f"{kind} {other}"], row_SN)
    }
    metrics = {name: {"mean": mean, "sd": sd} for name, (mean, sd) in scores.items()}
    return {"metrics": metrics, "low": low, "high": high, "against": against}


def _mean(metric: Metric, targets_N: np.ndarray, row_SN: np.ndarray) -> Callable[[np.ndarray], float]:
    """The metric's mean over seeds, of the utterances that a mask keeps."""
    return lambda k_N: float(np.mean([metric(targets_N[k_N], p_N[k_N]) for p_N in row_SN]))


def _biases(run: Run, random: Run, kind: str) -> dict[str, Any]:
    """What five ways to find the best layer claim for it, on the utterances that both splits test.

    The first, by the training speakers of disjoint folds, is what the others are held against. Intervals over the
    disjoint split's units; a layer chosen by test accuracy is chosen anew without each unit.
    """
    both = set(random.protocol.tested)
    ids = [i for i in run.protocol.tested if i in both]
    where = [run.position[i] for i in ids]
    unit = dict(zip(run.protocol.tested, tested(run)[1], strict=True))
    targets_N, units_N, metric = run.targets[where], np.array([unit[i] for i in ids]), run.task.metrics[run.headline]
    states = run.store.info.layers
    ours, theirs = probed(run, WHOLE, ids), probed(random, WHOLE, ids)
    honest = _mean(metric, targets_N, take(ours, kind, by_training(run)))
    claims: dict[str, Callable[[np.ndarray], float]] = {"disjoint, training": honest}
    best: dict[str, int] = {}
    for split, found in (("disjoint", ours), ("random", theirs)):
        claims[f"{split}, valid"] = _mean(metric, targets_N, take(found, kind, chosen_states(found, kind, states)))
        of_state = {s: _mean(metric, targets_N, found.test_SN[f"{kind} {state_name(s)}"]) for s in states}
        claims[f"{split}, test"] = lambda k_N, of=of_state: max(claim(k_N) for claim in of.values())  # type: ignore[misc]
        everyone = np.ones(len(ids), bool)
        best[split] = max(states, key=lambda s, of=of_state: (of[s](everyone), -s))  # type: ignore[misc]
    found_claims = {}
    for name, claim in claims.items():
        value, low, high = interval(lambda k_N, c=claim: c(k_N) - honest(k_N), units_N)  # type: ignore[misc]
        found_claims[name] = {"claims": claim(np.ones(len(ids), bool)), "bias": value, "low": low, "high": high}
    return {"tested": len(ids), "claims": found_claims, "best": best}


def _reduction(
    run: Run,
    found: Probed,
    kind: str,
    by_fold: Sequence[int],
    aggregate: str,
    targets_N: np.ndarray,
    units_N: np.ndarray,
) -> dict[str, float]:
    """What share of an aggregate's errors the layers `by_fold` leave out: the paper's error reduction."""
    metric = run.task.metrics[run.headline]
    single = _mean(metric, targets_N, take(found, kind, by_fold))
    whole = _mean(metric, targets_N, found.test_SN[f"{kind} {aggregate}"])

    def reduction(k_N: np.ndarray) -> float:
        return error_reduction(single(k_N), whole(k_N))

    value, low, high = interval(reduction, units_N)
    return {"reduction": value, "low": low, "high": high}


def error_reduction(single: float, aggregate: float) -> float:
    """(error of the aggregate - error of the one) / error of the aggregate; NaN where that makes none."""
    if aggregate >= 1:
        return math.nan
    return 1 - (1 - single) / (1 - aggregate)


def _few(run: Run, found: Probed, kind: str, targets_N: np.ndarray) -> dict[str, Any]:
    """What the layers that few labels name reach, each probe trained on all; by how many were labelled.

    Beside them, with no label at all, the middle state; and what knowing the test part would have taken.
    """
    metric, states = run.task.metrics[run.headline], run.store.info.layers
    results = [run.result(few_job(f).name)["layers"] for f in range(len(run.protocol.folds))]
    everyone = np.ones(len(targets_N), bool)

    def reaches(by_fold: Sequence[int]) -> float:
        return _mean(metric, targets_N, take(found, kind, by_fold))(everyone)

    every = {s: reaches([s] * len(results)) for s in states}
    best = max(states, key=lambda s: (every[s], -s))
    rows = {}
    for count in results[0]:
        draws = [[r[count][draw] for r in results] for draw in range(len(results[0][count]))]
        mean, sd = spread([reaches(by_fold) for by_fold in draws])
        picks = [layer for by_fold in draws for layer in by_fold]
        rows[count] = {"mean": mean, "sd": sd, "draws": len(draws), "picks": {s: picks.count(s) for s in states}}
    middle_row = {"mean": every[middle(states)], "sd": 0.0, "draws": 1, "picks": {middle(states): len(results)}}
    return {"rows": {"0": middle_row, **rows}, "all": rows[ALL]["mean"], "best": every[best], "best_state": best}


def _curve(run: Run, found: Probed, targets_N: np.ndarray) -> dict[str, dict[str, float]]:
    """By head, the headline's mean and deviation over seeds."""
    metric = run.task.metrics[run.headline]
    rows = {head: spread([metric(targets_N, p_N) for p_N in of_SN]) for head, of_SN in found.test_SN.items()}
    return {head: {"mean": mean, "sd": sd} for head, (mean, sd) in rows.items()}


def averaged(stores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over several stores, as the paper does over corpora: the error reductions, each store counting once."""
    several = [store["reduction"] for store in stores if "reduction" in store]
    if len(several) < 2:
        return {}
    mean: dict[str, Any] = {kind: {} for kind in KINDS}
    for kind, name in product(KINDS, AGGREGATES):
        found = [value for value in (one[kind][name]["reduction"] for one in several) if math.isfinite(value)]
        mean[kind][name] = dict(zip(("mean", "sd"), spread(found) if found else (math.nan, 0.0), strict=True))
    return mean
