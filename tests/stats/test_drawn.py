"""A sample that stands for a space, against spaces of which everything is known: nothing is biased, intervals cover."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from bas.blocks import FFN, MSA, MeanPool, Skip, StatisticsPool
from bas.space import SearchSpace
from bas.stats import Estimate
from bas.stats.metrics import CORRELATION, FRACTION, Limits
from bas.stats.ranking import marginal_effects, over_searches, percentiles, regrets, taus
from bas.stats.reference import Drawn, Reference, beaten
from bas.stats.sampling import Sampled

SIZE, DRAWN, FOLDS, SEEDS = 300, 20, 5, 3


def audited(rng: np.random.Generator, true_A: np.ndarray, same: bool) -> dict[str, tuple[Estimate, float]]:
    """By number, what an audit of a sample says with its interval, and what an audit of all says of the same."""
    each_AFS = true_A[:, None, None] + rng.normal(0, 0.7, (SIZE, FOLDS, 1)) + rng.normal(0, 2, (SIZE, FOLDS, SEEDS))
    scores_FSA = 0.5 * true_A + rng.normal(0, 1, (FOLDS, 1, SIZE)) + rng.normal(0, 0.5, (FOLDS, SEEDS, SIZE))
    if same:  # every search scores by one wrong idea
        scores_FSA = np.zeros((FOLDS, SEEDS, 1)) + np.sin(np.arange(SIZE))
    drawn = rng.permutation(SIZE)[:DRAWN]
    picks_FS = scores_FSA.argmax(2)
    beside = [a for a in np.unique(picks_FS) if a not in drawn]
    taken = np.array([*drawn, *beside])
    place_FS = np.array([[int(np.flatnonzero(taken == a)[0]) for a in row] for row in picks_FS])
    chosen_FS = (each_AFS[drawn] + rng.normal(0, 2, (DRAWN, FOLDS, SEEDS))).argmax(0)  # the best of the sample on valid
    of = Reference(DRAWN, SIZE)

    def means(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        every = each_AFS[which]
        return every.mean(1), np.array([np.delete(every, f, axis=1).mean(1) for f in range(FOLDS)])

    (ours_AS, without_FAS), (all_AS, _) = means(taken), means(np.arange(SIZE))
    ours, theirs = place_FS[None], chosen_FS[None]
    of_sample_FSA = scores_FSA[:, :, drawn]

    def difference(of_AS: np.ndarray) -> np.ndarray:
        ahead_FS: np.ndarray = percentiles(of_AS, ours, of) - percentiles(of_AS, theirs, of, chosen=True)
        return ahead_FS

    pick = percentiles(all_AS, picks_FS[None]).mean()
    best = percentiles(all_AS, drawn[theirs]).mean()
    told: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Limits, Drawn, float]] = {
        "percentile": (partial(percentiles, picks_DFS=ours, of=of), FRACTION, of.of_percentile(ours_AS, ours), pick),
        "of the sample": (
            partial(percentiles, picks_DFS=theirs, of=of, chosen=True),
            FRACTION,
            of.of_percentile(ours_AS, theirs),
            best,
        ),
        "ahead": (difference, CORRELATION, of.of_difference(ours_AS, ours, theirs), pick - best),
        "tau": (
            partial(taus, scores_FSA=of_sample_FSA),
            CORRELATION,
            of.of_tau(ours_AS, of_sample_FSA),
            taus(all_AS, scores_FSA).mean(),
        ),
    }
    found = {
        name: (over_searches(values, ours_AS, without_FAS, limits, drawn=drawn), float(known))
        for name, (values, limits, drawn, known) in told.items()
    }
    return {**found, "mean": (of.mean(ours_AS), float(all_AS.mean()))}


@pytest.mark.slow
@pytest.mark.parametrize("same", [False, True])
def test_a_sample_says_what_the_whole_would_and_its_intervals_cover(same: bool) -> None:
    rng, true_A = np.random.default_rng(0), np.random.default_rng(1).normal(0, 1, SIZE)
    found: dict[str, list[tuple[Estimate, float]]] = defaultdict(list)
    for _ in range(120):
        for name, each in audited(rng, true_A, same).items():
            found[name].append(each)
    for name, pairs in found.items():
        values, known = np.array([e.value for e, _ in pairs]), np.array([of_all for _, of_all in pairs])
        assert values.mean() == pytest.approx(known.mean(), abs=3 * np.std(values - known) / len(pairs) ** 0.5), name
        covered = np.mean([e.low <= known.mean() <= e.high for e, _ in pairs])
        assert covered >= 0.9, (name, covered)


def test_without_the_draw_the_intervals_do_not_cover() -> None:
    """Where every search picks the same, only the sample varies much."""
    rng, true_A = np.random.default_rng(0), np.random.default_rng(1).normal(0, 1, SIZE)
    inside: list[bool] = []
    for _ in range(100):
        drawn = rng.permutation(SIZE)[:DRAWN]
        taken = np.array([*drawn, 7])
        each_AFS = true_A[taken, None, None] + rng.normal(0, 0.3, (len(taken), FOLDS, SEEDS))
        without_FAS = np.array([np.delete(each_AFS, f, axis=1).mean(1) for f in range(FOLDS)])
        picks_DFS = np.full((1, FOLDS, SEEDS), DRAWN)
        values = partial(percentiles, picks_DFS=picks_DFS, of=Reference(DRAWN, SIZE))
        of = over_searches(values, each_AFS.mean(1), without_FAS, FRACTION)
        inside.append(of.low <= (true_A[7] > true_A).mean() <= of.high)
    assert np.mean(inside) < 0.8


def test_the_regret_is_that_against_the_best_of_the_sample_that_can_be_known() -> None:
    """And below 0 for a pick that is better than all that were drawn."""
    rng = np.random.default_rng(0)
    for rank in (0.5, 1.0):
        ours, known = [], []
        for _ in range(400):
            true_A = np.sort(rng.normal(0, 1, SIZE))
            drawn = rng.permutation(SIZE - 1)[:27]
            taken = np.array([*drawn, int(rank * (SIZE - 1))])
            accuracy_AS = true_A[taken, None] + rng.normal(0, 1, (28, SEEDS))
            ours.append(regrets(accuracy_AS, np.full((1, FOLDS, SEEDS), 27), Reference(27, SIZE)).mean())
            others = [np.delete(accuracy_AS[:27], s, axis=1).mean(1) for s in range(SEEDS)]
            known.append(np.mean([true_A[drawn[other_A.argmax()]] for other_A in others]) - true_A[taken[-1]])
        assert np.mean(ours) == pytest.approx(np.mean(known), abs=0.15)
        assert np.mean(ours) < -0.5 if rank == 1 else np.mean(ours) > 1


def test_percentile_in_a_sample_by_hand() -> None:
    accuracy_AS = np.array([0.1, 0.2, 0.3, 0.4, 0.35, 0.9])[:, None] + np.zeros(2)  # four were drawn, two picked
    of = Reference(4, 99)
    picks_DFS = np.array([[[0, 0], [2, 2], [4, 4], [5, 5]]])
    assert percentiles(accuracy_AS, picks_DFS, of)[:, 0] == pytest.approx([0, 2 / 3, 3 / 4, 1])
    best_DFS = np.full((1, 1, 2), 3)
    assert percentiles(accuracy_AS, best_DFS, of, chosen=True) == pytest.approx((4 * 100 / 5 - 1) / 98)
    assert percentiles(accuracy_AS[:4], best_DFS, Reference.all_of(4), chosen=True) == pytest.approx(1)
    assert beaten(accuracy_AS, np.array([[3, 3]]), 4)[0, 0].tolist() == [1, 1, 1, 0]
    # Other picks change nothing for a pick, and nothing about the sample.
    changed_AS = np.vstack([accuracy_AS[:5], accuracy_AS[5:] + 5])
    assert (percentiles(changed_AS, picks_DFS[:, :3], of) == percentiles(accuracy_AS, picks_DFS[:, :3], of)).all()
    assert (regrets(changed_AS, picks_DFS[:, :3], of) == regrets(accuracy_AS, picks_DFS[:, :3], of)).all()
    assert of.mean(changed_AS) == of.mean(accuracy_AS)
    assert of.mean(accuracy_AS).value == pytest.approx(0.25)


def test_a_whole_space_adds_nothing() -> None:
    accuracy_AS = np.random.default_rng(0).normal(size=(9, 2))
    of, picks_DFS = Reference.all_of(9), np.zeros((1, 5, 2), int)
    assert of.of_percentile(accuracy_AS, picks_DFS)[0] == of.of_tau(accuracy_AS, accuracy_AS.T[None])[0] == 0
    assert of.mean(accuracy_AS).low == of.mean(accuracy_AS).high
    assert Reference(9, 10).mean(accuracy_AS).low < of.mean(accuracy_AS).low


def test_the_best_of_a_sample_is_as_far_up_as_it_says() -> None:
    rng, of = np.random.default_rng(0), Reference(20, 1000)
    best = [rng.permutation(1000)[:20].max() for _ in range(2000)]
    assert np.mean([1 - b / 1000 <= of.best for b in best]) == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_a_block_covers_its_effect_in_the_space() -> None:
    """The others of its slot differ, and so do the architectures with it; units show nothing of either."""
    rng = np.random.default_rng(0)
    designs = [{"a": a, "b": b, "c": c} for a in "xyz" for b in "xyzuv" for c in "xyzuvw"]
    worth_A = np.array([0.02 * (d["a"] == "x") for d in designs]) + rng.normal(0, 0.02, len(designs))
    has_A = np.array([d["a"] == "x" for d in designs])
    true, covered, alone = worth_A[has_A].mean() - worth_A.mean(), [], []
    for _ in range(300):
        drawn = rng.permutation(len(designs))[:25]
        without_UA = worth_A[drawn] + rng.normal(0, 1e-3, (8, 25))
        sampled = Sampled(worth_A[drawn], without_UA, np.full(8, 1 / 8), (), by_fold=False)
        ours = [designs[i] for i in drawn]
        effect = marginal_effects(sampled, ours, of=Reference(25, len(designs)))["a"].effects["x"]
        covered.append(effect.low <= true <= effect.high)
        narrow = marginal_effects(sampled, ours, of=Reference(25, 10**12))["a"].effects["x"]
        assert narrow.high - narrow.low > effect.high - effect.low, "less is left to draw"
        alone.append(effect.high - effect.low)
    assert 0.92 <= np.mean(covered) <= 0.995
    assert np.mean(alone) < 0.06


def test_an_empty_slot_counts_before_a_block_as_behind_it() -> None:
    """By one model for all that are the same network, effects are those of the grid of all architectures."""
    layer = {"none": Skip, "FFN": FFN, "MSA": MSA}
    space = SearchSpace({"one": layer, "two": layer, "three": layer}, {"mean": MeanPool, "statistics": StatisticsPool})
    grid = list(space.architectures())
    worth = {a: i**1.5 for i, a in enumerate(sorted({space.distinct(a) for a in grid}, key=str))}

    def of(worth_A: list[float]) -> Sampled:
        whole_A = np.array(worth_A)
        return Sampled(whole_A, whole_A + np.linspace(-1, 1, 8)[:, None], np.full(8, 1 / 8), (), by_fold=False)

    expected = marginal_effects(of([worth[space.distinct(a)] for a in grid]), [a.to_dict() for a in grid])
    alike = [list(space.same(a)) for a in worth]
    assert sum(map(len, alike)) == len(grid) > len(worth)
    models_D = np.repeat(np.arange(len(worth)), [len(of_model) for of_model in alike])
    designs = [a.to_dict() for of_model in alike for a in of_model]
    effects = marginal_effects(of(list(worth.values())), designs, of=Reference(len(worth), 10**6), models_D=models_D)
    for slot, there in expected.items():
        assert effects[slot].means == pytest.approx(there.means)
        assert {b: e.value for b, e in effects[slot].effects.items()} == pytest.approx(
            {b: e.value for b, e in there.effects.items()}
        )


def test_the_mean_of_a_space_is_held_within_the_metric() -> None:
    accuracy_AS = np.array([[1.0, 1.0], [1.0, 1.0], [0.8, 0.8]])
    assert Reference(3, 100).mean(accuracy_AS).high > 1
    assert Reference(3, 100).mean(accuracy_AS, FRACTION).high == 1
