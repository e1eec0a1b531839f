"""Did the search work, and did the choice matter? Every number of an audit's report, as plain data.

Axes as in `bas.truth`. A strategy is valued by what its user gets: the picks of every fold and seed, trained with that
seed, pooled over the folds. Percentile, regret and rank agreement speak of architectures: of their mean over the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bas import ranking
from bas.ranking import Effect
from bas.run import Run
from bas.stats import Metric, Paired, paired, spread
from bas.tables import REFERENCE, pooled, results_of, tested
from bas.truth import Searches, Truth

DRAWS = 20  # of random search, each over all folds and seeds
GOOD_ENOUGH = 0.02  # "a simple FFN is good enough": at most this far under the best baseline transformer


def judge(run: Run, truth: Truth, searches: Sequence[Searches]) -> dict[str, Any]:
    """One space under the run's own settings: the space, the strategies, the marginal effects, the verdicts' own error.

    searches: one a strategy. All jobs must be done, the baselines too.
    """
    targets_N, units_N = tested(run)
    metric = run.task.metrics[run.headline]
    accuracy_AS = truth.accuracy(targets_N, metric)
    values_VA = ranking.deleted(targets_N, truth.predictions_ASN, units_N, metric)
    false = {
        "a_a": ranking.a_against_a(targets_N, truth.predictions_ASN, units_N, metric),
        "null": ranking.simulated_null(targets_N, truth.predictions_ASN, units_N, metric),
    }
    return {
        "space": truth.space,
        "size": len(truth.architectures),
        "architectures": _architectures(truth, accuracy_AS),
        "summary": _summary(accuracy_AS),
        "learning": _learning(truth, accuracy_AS.mean(1)),
        "strategies": strategies(run, truth, searches),
        "effects": effects(values_VA, truth.designs),
        "claims": claims(values_VA, truth.designs) | _simple(run, targets_N, units_N, metric),
        "decisions": {s.strategy: s.decided for s in searches},
        "false_verdicts": {name: asdict(value) if value else None for name, value in false.items()},
    }


def _architectures(truth: Truth, accuracy_AS: np.ndarray) -> list[dict[str, Any]]:
    """Best first."""
    rows = []
    for number in np.argsort(-accuracy_AS.mean(1), kind="stable").tolist():
        mean, sd = spread(accuracy_AS[number].tolist())
        cost, parameters = float(truth.cost_AF[number].mean()), int(truth.parameters_A[number])
        row = {"number": number, "architecture": str(truth.architectures[number]), "mean": mean, "sd": sd}
        rows.append({**row, "valid_score": float(truth.scores_AFS[number].mean()), "cost": cost, "params": parameters})
    return rows


def _summary(accuracy_AS: np.ndarray) -> dict[str, Any]:
    ceiling, mean_A = ranking.ceiling(accuracy_AS), accuracy_AS.mean(1)
    return {
        "mean": float(mean_A.mean()),
        "best": float(mean_A.max()),
        "worst": float(mean_A.min()),
        "split_half": ranking.split_half(accuracy_AS),
        "ceiling": asdict(ceiling) if ceiling else None,
    }


def _learning(truth: Truth, truth_A: np.ndarray) -> dict[str, list[float]]:
    """By epoch, Kendall's tau of the architectures' losses so far (negated) with their accuracy in the end.

    Where it is negative, what learns fastest ends worst, and a search that goes by that loss is led astray.
    """
    losses = {"training": truth.training_AE, "validation": truth.validation_AE}
    return {name: list(ranking.agreement(-loss_AE.T, truth_A).taus) for name, loss_AE in losses.items()}


def strategies(run: Run, truth: Truth, searches: Sequence[Searches]) -> list[dict[str, Any]]:
    """A row for every strategy, one for exhaustive search and one for an architecture drawn blindly."""
    targets_N, units_N = tested(run)
    metric = run.task.metrics[run.headline]
    accuracy_AS = truth.accuracy(targets_N, metric)
    sizes_F = [len(fold.test) for fold in run.protocol.folds]
    reference_SN = pooled(results_of(run, REFERENCE))
    everything = np.arange(len(truth.architectures))

    def row(name: str, picks: Sequence[np.ndarray], cost: float, tried: float, against: np.ndarray | None) -> Any:
        systems_RN = np.concatenate([truth.composed(picks_FS, sizes_F) for picks_FS in picks])
        by_seed = np.array([metric(targets_N, p_N) for p_N in systems_RN]).reshape(len(picks), -1).mean(0)
        mean, sd = spread(by_seed.tolist())
        known = np.concatenate([picks_FS.ravel() for picks_FS in picks])
        return {
            "strategy": name,
            "mean": mean,
            "sd": sd,
            "percentile": _percentile(accuracy_AS, picks),
            "regret": asdict(ranking.regret(accuracy_AS, known.tolist())),
            "cost": cost,
            "tried": tried,
            "against_random": None if against is None else _told(targets_N, systems_RN, against, units_N, metric),
            "against_reference": _told(targets_N, systems_RN, reference_SN, units_N, metric),
        }

    rows = []
    truth_A = accuracy_AS.mean(1)
    for found in searches:
        fold_FS = np.indices(found.picks_FS.shape)[0]
        retraining = float(truth.cost_AF[found.picks_FS, fold_FS].mean())
        cost = found.cost + retraining
        draws, tried = random_search(truth, cost)
        random_RN = np.concatenate([truth.composed(picks_FS, sizes_F) for picks_FS in draws])
        random_by_draw = [metric(targets_N, p_N) for p_N in random_RN]
        scores = {"probabilities": found.probabilities_PA, "paths": found.paths_PA}
        rows.append(
            row(found.strategy, [found.picks_FS], cost, 1.0, random_RN)
            | {
                "seconds": found.seconds,
                "random": {"mean": float(np.mean(random_by_draw)), "tried": tried},
                "agreement": {
                    name: None if scores_PA is None else asdict(ranking.agreement(scores_PA, truth_A))
                    for name, scores_PA in scores.items()
                },
            }
        )
    exhaustive_FS = truth.scores_AFS.argmax(0)
    whole = float(truth.cost_AF.mean(1).sum())
    rows.append(row("exhaustive", [exhaustive_FS], whole, float(len(everything)), None))
    blind = [np.full(exhaustive_FS.shape, number) for number in everything]
    rows.append(row("one drawn blindly", blind, float(truth.cost_AF.mean()), 1.0, None))
    return rows


def random_search(truth: Truth, budget: float) -> tuple[list[np.ndarray], float]:
    """DRAWS random searches, each `(F, S)` picks: trainings in random order while multiply-adds last, at least one; the
    best on valid is taken. And how many were tried, on average."""
    size, folds, seeds = truth.scores_AFS.shape
    rng = np.random.default_rng(0)
    draws, tried = [], []
    for _ in range(DRAWS):
        picks_FS = np.empty((folds, seeds), int)
        for f in range(folds):
            for s in range(seeds):
                order = rng.permutation(size)
                afforded = max(1, int((truth.cost_AF[order, f].cumsum() <= budget).sum()))
                within = order[:afforded]
                picks_FS[f, s] = within[truth.scores_AFS[within, f, s].argmax()]
                tried.append(afforded)
        draws.append(picks_FS)
    return draws, float(np.mean(tried))


def _percentile(accuracy_AS: np.ndarray, picks: Sequence[np.ndarray]) -> float:
    """Mean over picks, each among means over the other seeds: a pick on valid may have its own seed's luck."""
    seeds = accuracy_AS.shape[1]
    found = []
    for s in range(seeds):
        others = [i for i in range(seeds) if i != s] or [s]
        truth_A = accuracy_AS[:, others].mean(1)
        found += [ranking.percentile(truth_A, int(pick)) for picks_FS in picks for pick in picks_FS[:, s]]
    return float(np.mean(found))


def _told(
    targets_N: np.ndarray, a_RN: np.ndarray, b_RN: np.ndarray, units_N: np.ndarray, metric: Metric
) -> dict[str, Any]:
    value = paired(targets_N, a_RN, b_RN, units_N, metric)
    return asdict(value) | {"verdict": value.verdict}


def _effect(value: Effect) -> dict[str, Any]:
    return asdict(value) | {"verdict": value.verdict}


def effects(values_VA: np.ndarray, designs: Sequence[Mapping[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """By part and block: the mean of the architectures with it less the mean of all."""
    found = ranking.marginal_effects(values_VA, designs)
    return {part: {block: _effect(e) for block, e in of.effects.items()} for part, of in found.items()}


FIRST = "an FFN comes first"
LATER = "attention comes later"
ENOUGH = "a simple FFN is good enough"


def claims(values_VA: np.ndarray, designs: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """What Fang et al. 2023 conclude of their space, put to this corpus; nothing of a space with other blocks.

    FIRST: an FFN in the first slot less the other blocks there. LATER: blocks with attention in the later slots less an
    FFN there, mean over those slots.
    """
    slots = [part for part in designs[0] if {d[part] for d in designs} == {"MSA+FFN", "MSA", "FFN"}]
    if len(slots) < 2:
        return {}

    def less(slot: str, block: str) -> np.ndarray:
        """With the block less without it."""
        has_A = np.array([d[slot] == block for d in designs])
        weights_A: np.ndarray = np.where(has_A, 1 / has_A.sum(), -1 / (~has_A).sum())
        return weights_A

    first, later = slots[0], slots[1:]
    weights = {FIRST: less(first, "FFN"), LATER: np.mean([-less(slot, "FFN") for slot in later], axis=0)}
    told = {"higher": "confirmed", "lower": "rejected", "undecided": "undecided", "no claim": "no claim"}
    found = {name: ranking.contrast(values_VA, weights_A) for name, weights_A in weights.items()}
    return {name: _effect(e) | {"conclusion": told[e.verdict]} for name, e in found.items()}


def _simple(run: Run, targets_N: np.ndarray, units_N: np.ndarray, metric: Metric) -> dict[str, dict[str, Any]]:
    """The simple FFN against the better of the two baseline transformers: confirmed when it is surely less than
    GOOD_ENOUGH behind, rejected when it is surely more; of a corpus with too few units, no claim."""
    simple_SN = pooled(results_of(run, "simple FFN"))
    others = [pooled(results_of(run, name)) for name in ("3L transformer", REFERENCE)]
    best_SN = max(others, key=lambda p_SN: float(np.mean([metric(targets_N, p_N) for p_N in p_SN])))
    value: Paired = paired(targets_N, simple_SN, best_SN, units_N, metric)
    if value.significant is None:
        conclusion = "no claim"
    elif value.low > -GOOD_ENOUGH:
        conclusion = "confirmed"
    else:
        conclusion = "rejected" if value.high < -GOOD_ENOUGH else "undecided"
    kept = {"value": value.difference, "low": value.low, "high": value.high, "units": value.units}
    return {ENOUGH: kept | {"conclusion": conclusion}}
