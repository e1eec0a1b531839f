"""Did the search work, and did the choice matter? Every number of an audit's report.

Axes as in `bas.studies.audit.trained`. A strategy is judged in two ways:

- by what its picks reach, pooled over the folds. Random and exhaustive search choose between trainings by validation
  loss; if they kept the training that they chose, its luck on valid would count for them, while a strategy's pick is
  trained once. So every pick, of whatever search, is judged by a training that no search has seen (`Truth.compose`),
  and its cost is counted for all. With one seed there is none: random and exhaustive search are not judged then.
- by how it ranks: percentile, regret and tau compare architectures by their means over seeds. Where these means may be
  noise alone (`Ceiling.ranks`), there is nothing to compare with, and no number.

Where a sample stands for the space (`Taken`), every number about the space rests on it alone, random and exhaustive
search choose in it, and what a strategy picked outside it is judged by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from bas.runs.baselines import SIMPLE
from bas.runs.results import pooled, results_of, tested
from bas.runs.run import Run
from bas.space import told
from bas.stats import (
    ANY,
    CORRELATION,
    FRACTION,
    Estimate,
    Limits,
    Paired,
    Predictions,
    Sampled,
    Spread,
    a_against_a,
    limits_of,
    limits_of_difference,
    over_models,
    paired,
    ranking,
)
from bas.stats.reference import NOTHING_DRAWN, Drawn, Reference
from bas.studies.audit.results import (
    ArchitectureRow,
    Claim,
    Conclusion,
    RandomSearch,
    Sample,
    Searched,
    SpaceAudit,
    StrategyRow,
    Summary,
    Variant,
)
from bas.studies.audit.taken import SEED
from bas.studies.audit.trained import Searches, Truth

DRAWS = 10  # random searches, each over all folds and seeds
GOOD_ENOUGH = 0.02  # "a simple FFN is good enough": at most this far below the reference


def judge(run: Run, truth: Truth, searches: Sequence[Searches], variants: Mapping[str, Variant]) -> SpaceAudit:
    """The audit of one space: its architectures, the strategies, the marginal effects, how often verdicts are false.

    searches: one for each strategy. variants: the results under other settings, by spec. All jobs must be done, those
    of the baselines too.
    """
    targets_N, units_N = tested(run)
    metric, of = run.metrics[run.headline], truth.taken.reference
    accuracy_AS = truth.accuracy(targets_N, metric)
    every = [truth.row(index) for index in range(of.drawn)]
    summary = summarise(accuracy_AS[: of.drawn])
    rows = _architectures(truth, accuracy_AS, summary)
    best_first = sorted(rows[: of.drawn], key=lambda row: -row.score.mean)
    sample = None
    if truth.taken.sampled:
        mean = of.mean(accuracy_AS, limits_of(metric))
        sample = Sample(drawn=of.drawn, seed=SEED, mean=mean, best=of.best, picked=rows[of.drawn :])
    return SpaceAudit(
        space=truth.space,
        size=of.size,
        sample=sample,
        architectures=tuple(best_first),
        summary=summary,
        baselines=baselines(run),
        learning=_learning(truth, accuracy_AS[: of.drawn].mean(1)) if summary.ranks else {},
        strategies=strategies(run, truth, searches, summary.ranks),
        **blocks(run, truth),
        decisions={s.strategy: s.decided for s in searches},
        false_verdicts=a_against_a(targets_N, every, units_N, metric),
        variants=variants,
    )


def blocks(run: Run, truth: Truth) -> dict[str, Any]:
    """The fields `effects` and `claims` of an audit: what each block is worth, and the paper's claims."""
    (targets_N, units_N), metric, of = tested(run), run.metrics[run.headline], truth.taken.reference
    predictions_ASN = truth.predictions_ASN[: of.drawn]
    sampled = ranking.sample_all(targets_N, predictions_ASN, truth.folds_N, units_N, metric)
    designs, models_D = truth.designs, truth.models_D
    effects = ranking.marginal_effects(sampled, designs, limits_of_difference(metric), of, models_D)
    everywhere = all(len(effects[part].means) == len(row) for part, row in truth.taken.space.searched.items())
    return {"effects": effects, "claims": claims(run, sampled, designs if everywhere else [], of, models_D)}


def _architectures(truth: Truth, accuracy_AS: np.ndarray, summary: Summary) -> tuple[ArchitectureRow, ...]:
    """A row for each architecture that was trained, the picks beside a sample last."""
    of = summary.ceiling
    shrunken_A = ranking.shrink(accuracy_AS[: truth.drawn].mean(1), of.reliability) if of else None
    return tuple(
        ArchitectureRow(
            number=number,
            architecture=told(architecture.to_dict()),
            score=Spread.of(accuracy_AS[index, truth.trained_AS[index]].tolist()),
            shrunken=None if shrunken_A is None or index >= truth.drawn else float(shrunken_A[index]),
            valid_score=float(np.nanmean(truth.scores_AFS[index])),
            cost=float(truth.cost_AF[index].mean()),
            parameters=int(truth.parameters_A[index]),
        )
        for index, (number, architecture) in enumerate(zip(truth.taken.every, truth.architectures, strict=True))
    )


def summarise(accuracy_AS: np.ndarray) -> Summary:
    """The space's mean, its range without the part that is noise, and whether its architectures can be ranked."""
    mean_A, of = accuracy_AS.mean(1), ranking.ceiling(accuracy_AS)
    shrunken_A = ranking.shrink(mean_A, of.reliability) if of else None
    return Summary(
        mean=float(mean_A.mean()),
        best=None if shrunken_A is None else float(shrunken_A.max()),
        worst=None if shrunken_A is None else float(shrunken_A.min()),
        split_half=ranking.split_half(accuracy_AS),
        ceiling=of,
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
    losses = {"training": truth.training_AE[: truth.drawn], "validation": truth.validation_AE[: truth.drawn]}
    return {name: tuple(ranking.tau(-loss_A, truth_A) for loss_A in loss_AE.T) for name, loss_AE in losses.items()}


def strategies(run: Run, truth: Truth, searches: Sequence[Searches], ranks: bool) -> tuple[StrategyRow, ...]:
    """A row for every strategy, one for exhaustive search, and one for an architecture drawn at random.

    ranks: whether the trainings rank the architectures.
    """
    targets_N, units_N = tested(run)
    metric = run.metrics[run.headline]
    accuracy_AS = truth.accuracy(targets_N, metric)
    (_, folds, seeds), of = truth.scores_AFS.shape, truth.taken.reference
    several = [truth.accuracy(targets_N, metric, f) for f in range(folds)] if ranks and folds > 1 else [accuracy_AS]
    without_FAS = np.array(several)
    fresh = seeds > 1  # a training that no search has seen
    mean_metric = over_models(metric)
    reference = pooled(results_of(run, run.reference))
    reference = Predictions(reference.rows_SN[:, :, None], reference.folds_N)

    def mean(
        values: Callable[[np.ndarray], np.ndarray], limits: Limits, drawn: Drawn = NOTHING_DRAWN
    ) -> Estimate | None:
        return ranking.over_searches(values, accuracy_AS, without_FAS, limits, drawn=drawn) if ranks else None

    def percentile(picks_DFS: np.ndarray, chosen: bool) -> Estimate | None:
        values = partial(ranking.percentiles, picks_DFS=picks_DFS, of=of, chosen=chosen)
        return mean(values, FRACTION, of.of_percentile(accuracy_AS, picks_DFS)) if ranks else None

    def ahead(ours_DFS: np.ndarray, theirs_DFS: np.ndarray) -> Estimate | None:
        def values(of_AS: np.ndarray) -> np.ndarray:
            theirs_FS = ranking.percentiles(of_AS, theirs_DFS, of, chosen=True)
            ahead_FS: np.ndarray = ranking.percentiles(of_AS, ours_DFS, of) - theirs_FS
            return ahead_FS

        return mean(values, CORRELATION, of.of_difference(accuracy_AS, ours_DFS, theirs_DFS)) if ranks else None

    def regret(picks_DFS: np.ndarray) -> Estimate | None:
        return mean(partial(ranking.regrets, picks_DFS=picks_DFS, of=of), ANY)

    def tau(scores_FSA: np.ndarray | None) -> Estimate | None:
        if scores_FSA is None or not ranks:
            return None
        scores_FSA = scores_FSA[:, :, : of.drawn]
        return mean(partial(ranking.taus, scores_FSA=scores_FSA), CORRELATION, of.of_tau(accuracy_AS, scores_FSA))

    def against(picks_DFS: np.ndarray, other: Predictions) -> Paired:
        return paired(targets_N, truth.compose(picks_DFS), other, units_N, mean_metric)

    def row(name: str, picks_DFS: np.ndarray, cost: float, scored: bool, searched: Searched | None) -> StrategyRow:
        rows_SND = truth.compose(picks_DFS).rows_SN
        return StrategyRow(
            strategy=name,
            score=Spread.of([mean_metric(targets_N, p_ND) for p_ND in rows_SND]) if scored else None,
            percentile=percentile(picks_DFS, chosen=searched is None),
            regret=regret(picks_DFS),
            cost=cost,
            against_reference=against(picks_DFS, reference) if scored else None,
            searched=searched,
        )

    rows = []
    for search in searches:
        picks_DFS, cost = search.picks_FS[None], search.cost + _training(truth, search.picks_FS)
        drawn_DFS, tried = random_search(truth, cost)
        paid = max(1.0, cost / float(truth.cost_AF[: of.drawn].mean()) - 1)
        drawn = truth.compose(drawn_DFS)
        score = float(np.mean([mean_metric(targets_N, p_ND) for p_ND in drawn.rows_SN]))
        searched = Searched(
            seconds=search.seconds,
            random=RandomSearch(score, percentile(drawn_DFS, chosen=True), tried, paid, DRAWS) if fresh else None,
            against_random=against(picks_DFS, drawn) if fresh else None,
            ahead=ahead(picks_DFS, drawn_DFS),
            paths=tau(search.paths_FSA),
            beliefs=tau(search.beliefs_FSA),
        )
        rows.append(row(search.strategy, picks_DFS, cost, True, searched))
    exhaustive_FS = truth.scores_AFS[: of.drawn].argmax(0)
    whole = float(truth.cost_AF[: of.drawn].mean(1).sum()) + _training(truth, exhaustive_FS)
    rows.append(row("exhaustive", exhaustive_FS[None], whole, fresh, None))
    every_DFS = np.arange(of.drawn)[:, None, None] + np.zeros((of.drawn, folds, seeds), int)
    blind = StrategyRow(
        strategy="one drawn blindly",
        score=Spread.of(accuracy_AS[: of.drawn].ravel().tolist()),
        percentile=Estimate(0.5, 0.5, 0.5) if ranks else None,
        regret=regret(every_DFS),
        cost=float(truth.cost_AF[: of.drawn].mean()),
        against_reference=None,
        searched=None,
    )
    return (*rows, blind)


def _training(truth: Truth, picks_FS: np.ndarray) -> float:
    """Multiply-adds of training a pick, mean over folds and seeds."""
    return float(truth.cost_AF[picks_FS, np.indices(picks_FS.shape)[0]].mean())


def random_search(truth: Truth, budget: float) -> tuple[np.ndarray, float]:
    """DRAWS random searches as picks `(D, F, S)`, and how many architectures they tried on average.

    budget: multiply-adds for each fold and seed. A search trains architectures in random order, picks the best on valid
    and trains it once more; it tries as many as leave enough for that. It tries at least one, and trains it once: there
    was nothing to choose.
    """
    _, folds, seeds = truth.scores_AFS.shape
    rng = np.random.default_rng(0)
    picks_DFS = np.empty((DRAWS, folds, seeds), int)
    tried = []
    for d, f, s in np.ndindex(picks_DFS.shape):
        order = rng.permutation(truth.drawn)
        costs = truth.cost_AF[order, f]
        spent = costs.cumsum() + np.maximum.accumulate(costs)
        afforded = max(1, int((spent <= budget).sum()))
        within = order[:afforded]
        picks_DFS[d, f, s] = within[truth.scores_AFS[within, f, s].argmax()]
        tried.append(afforded)
    return picks_DFS, float(np.mean(tried))


FIRST = "an FFN comes first"
LATER = "attention comes later"
ENOUGH = "a simple FFN is good enough"


def claims(
    run: Run, sampled: Sampled, designs: Sequence[Mapping[str, str]], of: Reference, models_D: np.ndarray
) -> dict[str, Claim]:
    """Test the conclusions of Fang et al. 2023 on this corpus.

    FIRST: an FFN in the first slot minus the other blocks there. LATER: blocks with attention in the later slots minus
    an FFN there, mean over those slots. Both need a space with the paper's blocks. ENOUGH: the simple FFN minus the
    reference, where both are baselines; confirmed when the interval lies above -GOOD_ENOUGH, rejected when it lies
    below. The interval alone decides every claim.
    """
    limits = limits_of_difference(run.metrics[run.headline])
    if SIMPLE not in run.baselines:
        return block_claims(sampled, designs, limits, of, models_D)
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
    enough = Claim(simple.difference, simple.low, simple.high, _p_of(simple), simple.units, simple.by_fold, conclusion)
    return {**block_claims(sampled, designs, limits, of, models_D), ENOUGH: enough}


def _p_of(simple: Paired) -> float:
    """Of a difference of exactly -GOOD_ENOUGH."""
    if simple.se in (0.0, math.inf):
        return simple.p
    return float(2 * student_t.sf(abs(simple.difference + GOOD_ENOUGH) / simple.se, simple.degrees))


def block_claims(
    sampled: Sampled,
    designs: Sequence[Mapping[str, str]],
    limits: Limits = ANY,
    of: Reference | None = None,
    models_D: np.ndarray | None = None,
) -> dict[str, Claim]:
    """The claims FIRST and LATER; empty where the space, or a sample of it, lacks one of the paper's blocks in a slot.

    designs: empty where some block of the space is not in the sample. limits, of: see `ranking.contrast`. models_D:
    see `ranking.marginal_effects`.
    """
    models_D = np.arange(len(designs)) if models_D is None else models_D
    parts = designs[0] if designs else ()
    slots = [part for part in parts if {d[part] for d in designs} == {"MSA+FFN", "MSA", "FFN"}]
    if len(slots) < 2:
        return {}

    def contrast(slot: str, block: str) -> np.ndarray:
        """Weights of the mean with the block minus the mean without it."""
        has_D = np.array([d[slot] == block for d in designs])
        return ranking.by_model(np.where(has_D, 1 / has_D.sum(), -1 / (~has_D).sum()), models_D)

    first, later = slots[0], slots[1:]
    weights = {FIRST: contrast(first, "FFN"), LATER: np.mean([-contrast(slot, "FFN") for slot in later], axis=0)}
    conclusions: dict[str, Conclusion] = {
        "higher": "confirmed",
        "lower": "rejected",
        "undecided": "undecided",
        "no claim": "no claim",
    }
    claims = {}
    for name, weights_A in weights.items():
        it = ranking.contrast(sampled, weights_A, limits=limits, of=of)
        claims[name] = Claim(it.value, it.low, it.high, it.p, it.units, it.by_fold, conclusions[it.verdict])
    return claims
