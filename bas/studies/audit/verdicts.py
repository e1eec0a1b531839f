"""Did the search work, and did the choice matter? Every number of an audit's report.

Axes as in `bas.studies.audit.trained`. The score of a strategy is what its user gets: the picks of every fold and seed,
trained with that seed, pooled over the folds. Percentile and regret compare architectures by their means over the other
seeds, because a pick on valid may be lucky in the trainings of its own seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bas.runs.baselines import SIMPLE
from bas.runs.results import pooled, results_of, tested
from bas.runs.run import Run
from bas.stats import (
    ANY,
    Limits,
    Predictions,
    Sampled,
    Spread,
    a_against_a,
    limits_of_difference,
    paired,
    ranking,
)
from bas.stats.ranking import Agreement
from bas.studies.audit.results import (
    ArchitectureRow,
    Claim,
    Conclusion,
    RandomSearch,
    Searched,
    SpaceAudit,
    StrategyRow,
    Summary,
    Variant,
)
from bas.studies.audit.trained import Searches, Truth

DRAWS = 10  # random searches, each over all folds and seeds
GOOD_ENOUGH = 0.02  # "a simple FFN is good enough": at most this far below the reference


def judge(run: Run, truth: Truth, searches: Sequence[Searches], variants: Mapping[str, Variant]) -> SpaceAudit:
    """The audit of one space: its architectures, the strategies, the marginal effects, how often verdicts are false.

    searches: one for each strategy. variants: the results under other settings, by spec. All jobs must be done, those
    of the baselines too.
    """
    targets_N, units_N = tested(run)
    metric = run.metrics[run.headline]
    accuracy_AS = truth.accuracy(targets_N, metric)
    sampled = ranking.sample_all(targets_N, truth.predictions_ASN, truth.folds_N, units_N, metric)
    every = [truth.row(number) for number in range(len(truth.architectures))]
    return SpaceAudit(
        space=truth.space,
        size=len(truth.architectures),
        architectures=_architectures(truth, accuracy_AS),
        summary=_summary(accuracy_AS),
        baselines=baselines(run),
        learning=_learning(truth, accuracy_AS.mean(1)),
        strategies=strategies(run, truth, searches),
        effects=ranking.marginal_effects(sampled, truth.designs, limits_of_difference(metric)),
        claims=claims(run, sampled, truth.designs),
        decisions={s.strategy: s.decided for s in searches},
        false_verdicts=a_against_a(targets_N, every, units_N, metric),
        variants=variants,
    )


def _architectures(truth: Truth, accuracy_AS: np.ndarray) -> tuple[ArchitectureRow, ...]:
    """A row for each architecture, best first."""
    return tuple(
        ArchitectureRow(
            number=number,
            architecture=str(truth.architectures[number]),
            score=Spread.of(accuracy_AS[number].tolist()),
            valid_score=float(truth.scores_AFS[number].mean()),
            cost=float(truth.cost_AF[number].mean()),
            parameters=int(truth.parameters_A[number]),
        )
        for number in np.argsort(-accuracy_AS.mean(1), kind="stable").tolist()
    )


def _summary(accuracy_AS: np.ndarray) -> Summary:
    mean_A = accuracy_AS.mean(1)
    return Summary(
        mean=float(mean_A.mean()),
        best=float(mean_A.max()),
        worst=float(mean_A.min()),
        split_half=ranking.split_half(accuracy_AS),
        ceiling=ranking.ceiling(accuracy_AS),
    )


def baselines(run: Run) -> dict[str, Spread]:
    """The headline metric of each baseline and linear row, over seeds."""
    targets_N, _ = tested(run)
    metric = run.metrics[run.headline]
    return {
        name: Spread.of([metric(targets_N, p_N) for p_N in pooled(results_of(run, name)).rows_SN])
        for name in (*run.baselines, *run.task.linears)
    }


def _learning(truth: Truth, truth_A: np.ndarray) -> dict[str, tuple[float, ...]]:
    """For each epoch, Kendall's tau between the architectures' negated losses and their final accuracy.

    Where it is negative, the fastest learners end worst, and a search that trusts that loss is misled.
    """
    losses = {"training": truth.training_AE, "validation": truth.validation_AE}
    return {name: ranking.agreement(-loss_AE.T, truth_A).taus for name, loss_AE in losses.items()}


def strategies(run: Run, truth: Truth, searches: Sequence[Searches]) -> tuple[StrategyRow, ...]:
    """A row for every strategy, one for exhaustive search, and one for an architecture drawn at random."""
    targets_N, units_N = tested(run)
    metric = run.metrics[run.headline]
    accuracy_AS = truth.accuracy(targets_N, metric)
    truth_A = accuracy_AS.mean(1)
    reference = pooled(results_of(run, run.reference))

    def row(name: str, picks_FS: np.ndarray, cost: float, searched: Searched | None = None) -> StrategyRow:
        system = truth.compose(picks_FS)
        percentile, regret = value_picks(accuracy_AS, picks_FS)
        return StrategyRow(
            strategy=name,
            score=Spread.of([metric(targets_N, p_N) for p_N in system.rows_SN]),
            percentile=percentile,
            regret=regret,
            cost=cost,
            against_reference=paired(targets_N, system, reference, units_N, metric),
            searched=searched,
        )

    def agreement(scores_PA: np.ndarray | None) -> Agreement | None:
        return None if scores_PA is None else ranking.agreement(scores_PA, truth_A)

    rows = []
    for search in searches:
        fold_FS = np.indices(search.picks_FS.shape)[0]
        cost = search.cost + float(truth.cost_AF[search.picks_FS, fold_FS].mean())
        draws, tried = random_search(truth, cost)
        random = Predictions(np.concatenate([truth.compose(picks_FS).rows_SN for picks_FS in draws]), truth.folds_N)
        mean = float(np.mean([metric(targets_N, p_N) for p_N in random.rows_SN]))
        percentiles = [p for picks_FS in draws if (p := value_picks(accuracy_AS, picks_FS)[0]) is not None]
        percentile = float(np.mean(percentiles)) if percentiles else None
        searched = Searched(
            seconds=search.seconds,
            random=RandomSearch(mean, percentile, tried, DRAWS),
            against_random=paired(targets_N, truth.compose(search.picks_FS), random, units_N, metric),
            paths=agreement(search.paths_PA),
            beliefs=agreement(search.beliefs_PA),
        )
        rows.append(row(search.strategy, search.picks_FS, cost, searched))
    rows.append(row("exhaustive", truth.scores_AFS.argmax(0), float(truth.cost_AF.mean(1).sum())))
    blind = StrategyRow(
        strategy="one drawn blindly",
        score=Spread.of(accuracy_AS.ravel().tolist()),
        percentile=0.5,
        regret=None,
        cost=float(truth.cost_AF.mean()),
        against_reference=None,
        searched=None,
    )
    return (*rows, blind)


def value_picks(accuracy_AS: np.ndarray, picks_FS: np.ndarray) -> tuple[float | None, float | None]:
    """Percentile and cross-fitted regret, mean over the picks; None where there are too few other seeds."""
    seeds = accuracy_AS.shape[1]
    percentiles, regrets = [], []
    for s in range(seeds):
        others_AS = np.delete(accuracy_AS, s, axis=1)
        if seeds > 1:
            percentiles += [ranking.percentile(others_AS.mean(1), int(pick)) for pick in picks_FS[:, s]]
        if seeds > 2:
            regret = ranking.regret(others_AS, picks_FS[:, s].tolist()).cross_fitted
            assert regret is not None, "two seeds or more give a number"
            regrets.append(regret)
    return float(np.mean(percentiles)) if percentiles else None, float(np.mean(regrets)) if regrets else None


def random_search(truth: Truth, budget: float) -> tuple[list[np.ndarray], float]:
    """DRAWS random searches as `(F, S)` picks, and how many architectures they tried on average.

    budget: multiply-adds for each fold and seed. A search trains architectures in random order until the budget is
    spent, at least one, and picks the best on valid.
    """
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


FIRST = "an FFN comes first"
LATER = "attention comes later"
ENOUGH = "a simple FFN is good enough"


def claims(run: Run, sampled: Sampled, designs: Sequence[Mapping[str, str]]) -> dict[str, Claim]:
    """Test the conclusions of Fang et al. 2023 on this corpus.

    FIRST: an FFN in the first slot minus the other blocks there. LATER: blocks with attention in the later slots minus
    an FFN there, mean over those slots. Both need a space with the paper's blocks. ENOUGH: the simple FFN minus the
    reference, where both are baselines; confirmed when the interval lies above -GOOD_ENOUGH, rejected when it lies
    below. The interval alone decides every claim.
    """
    limits = limits_of_difference(run.metrics[run.headline])
    if SIMPLE not in run.baselines:
        return block_claims(sampled, designs, limits)
    targets_N, units_N = tested(run)
    simple_row, reference = (pooled(results_of(run, name)) for name in (SIMPLE, run.reference))
    simple = paired(targets_N, simple_row, reference, units_N, run.metrics[run.headline])
    conclusion: Conclusion
    if simple.significant is None:
        conclusion = "no claim"
    elif simple.low > -GOOD_ENOUGH:
        conclusion = "confirmed"
    else:
        conclusion = "rejected" if simple.high < -GOOD_ENOUGH else "undecided"
    enough = Claim(simple.difference, simple.low, simple.high, simple.units, conclusion)
    return {**block_claims(sampled, designs, limits), ENOUGH: enough}


def block_claims(sampled: Sampled, designs: Sequence[Mapping[str, str]], limits: Limits = ANY) -> dict[str, Claim]:
    """The claims FIRST and LATER; empty where the space lacks the paper's blocks. limits: of a difference."""
    slots = [part for part in designs[0] if {d[part] for d in designs} == {"MSA+FFN", "MSA", "FFN"}]
    if len(slots) < 2:
        return {}

    def contrast(slot: str, block: str) -> np.ndarray:
        """Weights of the mean with the block minus the mean without it."""
        has_A = np.array([d[slot] == block for d in designs])
        weights_A: np.ndarray = np.where(has_A, 1 / has_A.sum(), -1 / (~has_A).sum())
        return weights_A

    first, later = slots[0], slots[1:]
    weights = {FIRST: contrast(first, "FFN"), LATER: np.mean([-contrast(slot, "FFN") for slot in later], axis=0)}
    conclusions: dict[str, Conclusion] = {
        "higher": "confirmed",
        "lower": "rejected",
        "undecided": "undecided",
        "no claim": "no claim",
    }
    estimates = {name: ranking.contrast(sampled, weights_A, limits=limits) for name, weights_A in weights.items()}
    return {name: Claim(e.value, e.low, e.high, e.units, conclusions[e.verdict]) for name, e in estimates.items()}
