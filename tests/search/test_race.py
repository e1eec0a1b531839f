"""The race, on losses that are known; and on trainings where the right architecture is known."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from planted import CLASSES, DIM, RIGHT, SETTINGS, planted
from planted import SPACE as PLANTED
from torch import Tensor
from torch.nn import functional as F

from bas.blocks import FFN, MSA, MeanPool, Skip, StatisticsPool
from bas.errors import Diverged
from bas.networks.costs import Costs, count
from bas.networks.network import Network, build
from bas.networks.supernet import Supernet
from bas.runs.spaces import load_space
from bas.search import race as racing
from bas.search.race import BEST, NEW, Choice, Race, drawn, random_search
from bas.space import Architecture, SearchSpace
from bas.training.batches import Data
from bas.training.loop import Epoch, Record, optimise, outputs, seed_everything
from bas.training.settings import Settings

WIDE = load_space(str(ROOT / "search_spaces" / "ser_wide.py")).space
COSTS = Costs(
    100,
    {
        part: {name: 10 * i for i, name in enumerate(choices)}  # "none" and "mean" cost nothing
        for part, choices in WIDE.searched.items()
    },
)
INNER, NOISE = 5, 0.05

Truth = Callable[[Architecture], float | None]
"""A loss without noise; None: the training diverges."""


def blocks(architecture: Architecture | Mapping[str, str]) -> list[str]:
    names = architecture if isinstance(architecture, Mapping) else architecture.to_dict()
    return [name for name in names.values() if name not in ("none", "mean")]


def run(truth: Truth, seed: int, budget: int = 40, noise: float = NOISE, **more: Any) -> tuple[Race, Choice]:
    """A race on these losses, each with a shift of its replication that is larger than all differences."""
    race, rng = Race(WIDE, COSTS, INNER, budget, seed, **more), np.random.default_rng(seed)
    shifts = rng.normal(0, 1, 1000)
    while (following := race.next()) is not None:
        architecture, replication = following
        of, shift = truth(architecture), 1 + shifts[replication] + rng.normal(0, noise)
        race.add(architecture, replication, None if of is None else of + shift)
    return race, race.choice()


# The race


def test_what_one_part_must_be_is_found_in_nine_of_ten_seeds() -> None:
    def truth(architecture: Architecture) -> float:
        return 0.0 if architecture["pool"] == "statistics" else 0.15

    found = [run(truth, seed)[1].architecture for seed in range(10)]
    assert sum(of["pool"] == "statistics" for of in found) >= 9, found


def test_a_block_and_a_pool_together_are_found_in_nine_of_ten_seeds() -> None:
    def truth(architecture: Architecture) -> float:
        return 0.3 - 0.15 * ("MSA" in blocks(architecture)) - 0.15 * (architecture["pool"] == "attention")

    found = [run(truth, seed)[1].architecture for seed in range(10)]
    assert sum({"MSA", "attention"} <= set(blocks(of)) for of in found) >= 9, found


def test_where_nothing_is_needed_the_simplest_is_taken_and_the_race_ends_early() -> None:
    races = [run(lambda architecture: 0.0, seed, budget=80) for seed in range(10)]
    cost = [COSTS.of(choice.architecture.items()) - COSTS.fixed for _, choice in races]
    assert np.median(cost) == 0, "the cheapest architecture"
    assert sum(c <= 40 for c in cost) >= 9, "or one with a single cheap block"
    assert np.median([len(race.loss) for race, _ in races]) < 80, "it ended before the budget was spent"


def test_a_race_is_a_function_of_its_seed_and_keeps_its_budget() -> None:
    def truth(architecture: Architecture) -> float:
        return 0.05 * len(blocks(architecture))

    one, other = run(truth, 3, budget=33), run(truth, 3, budget=33)
    assert (one[0].which, one[0].replication, one[1]) == (other[0].which, other[0].replication, other[1])
    assert len(one[0].loss) == 33
    pairs = list(zip(one[0].which, one[0].replication, strict=True))
    assert len(set(pairs)) == len(pairs), "no training twice"
    first = [race_blocks(one[0], i) for i, (_, r) in enumerate(pairs) if r == 0]
    assert all(len(names) <= 1 for names in first), "the cheapest, and what differs from it in one part"
    assert len(first) == 1 + 5 + 4
    rounds = np.bincount(one[0].replication)
    assert set(rounds[1:-1]) == {1 + BEST + NEW}, "every other round compares so many in one replication"


def test_the_cheapest_is_asked_in_every_round_however_bad() -> None:
    race, _ = run(lambda architecture: 0.5 * (not blocks(architecture)), 0, budget=10 + 4 * 5)
    asked = [r for which, r in zip(race.which, race.replication, strict=True) if which == 0]
    assert asked == list(range(1 + 4))


# Linear models, and the finalists of an ensemble

SOLVED = [a for a in WIDE.blockless() if WIDE.summary(a)]


def of_trainings(race: Race) -> list[tuple[Architecture, int]]:
    pairs = zip(race.which, race.replication, strict=True)
    return [(race.candidates[a], r) for a, r in pairs if race.candidates[a] not in SOLVED]


def test_linear_models_come_first_in_every_inner_fold_and_cost_no_budget() -> None:
    race, _ = run(lambda architecture: 0.0, 0, budget=12, solved=SOLVED)
    assert [a["pool"] for a in SOLVED] == ["mean", "statistics", "quantiles"]
    first = [(race.candidates[a], r) for a, r in zip(race.which[:15], race.replication, strict=False)]
    assert first == [(a, r) for a in SOLVED for r in range(INNER)]
    assert race.spent == len(of_trainings(race)) == 12
    assert {r for a, r in of_trainings(race)[:7]} == {0}
    assert all(len(blocks(a)) == 1 for a, _ in of_trainings(race)[:7]), "what differs from the cheapest in one part"
    assert race.finalists == []


@pytest.mark.parametrize("solved", [[], SOLVED])
@pytest.mark.parametrize("budget", [10, 11, 14, 16, 20, 30, 41])
@pytest.mark.parametrize("ensemble", [2, 3])
def test_finalists_are_trained_in_every_inner_fold_within_the_budget(
    solved: list[Architecture], budget: int, ensemble: int
) -> None:
    if budget < ensemble * INNER:
        return
    race, _ = run(lambda a: 0.1 * len(blocks(a)), budget, budget, solved=solved, ensemble=ensemble)
    assert race.spent <= budget
    assert len(race.finalists) == ensemble == len(set(race.finalists))
    pairs = set(zip(race.which, race.replication, strict=True))
    for finalist in race.finalists:
        assert {(race.number[finalist], r) for r in range(INNER)} <= pairs
    assert not set(race.finalists) & set(solved)


@pytest.mark.parametrize("seed", range(12))
def test_as_many_finalists_as_asked_for_whichever_came_last(seed: int) -> None:
    """The best may be new, and lack nearly all inner folds, when little of the budget is left."""
    rng = np.random.default_rng(seed)
    truths = {a: rng.normal(0, 3 * NOISE) for a in map(WIDE.distinct, WIDE.architectures())}
    race, _ = run(lambda a: truths[a], seed, budget=24, solved=SOLVED, ensemble=3)
    assert len(race.finalists) == 3
    assert race.spent <= 24


def test_the_finalists_are_the_best_that_were_trained() -> None:
    def truth(architecture: Architecture) -> float:
        return 0.0 if architecture["pool"] == "attentive statistics" else 0.3

    for seed in range(5):
        race, _ = run(truth, seed, budget=24, solved=SOLVED, ensemble=2)
        assert all(a["pool"] == "attentive statistics" for a in race.finalists), (seed, race.finalists)


def test_a_linear_model_that_is_best_is_the_choice_and_no_finalist() -> None:
    def truth(architecture: Architecture) -> float:
        return 0.3 * (blocks(architecture) != ["statistics"])

    for seed in range(5):
        race, choice = run(truth, seed, budget=20, solved=SOLVED, ensemble=2)
        assert blocks(choice.architecture) == ["statistics"]
        assert not set(race.finalists) & set(SOLVED)


@pytest.mark.parametrize("ensemble", [0, 2])
@pytest.mark.parametrize("solved", [[], SOLVED])
def test_what_diverges_is_no_choice_and_no_finalist_and_the_race_goes_on(
    solved: list[Architecture], ensemble: int
) -> None:
    """The cheapest, too, which nobody may divide by; and all pools of attention would be the best."""

    def truth(architecture: Architecture) -> float | None:
        if "LSTM" in blocks(architecture) or (not blocks(architecture) and not solved):
            return None
        return 0.1 * ("attention" not in blocks(architecture))

    for seed in range(5):
        race, choice = run(truth, seed, budget=24, solved=solved, ensemble=ensemble)
        tried = [race.candidates[a] for a in race.which]
        assert race.spent > 12
        assert any(truth(a) is None for a in tried)
        assert all(truth(a) is not None for a in (*race.finalists, Architecture.of(choice.architecture)))
        assert len(race.finalists) == ensemble
        assert np.isfinite([choice.probability, choice.regret, choice.gain, choice.noise]).all()
        again = [a for i, a in enumerate(tried) if a in tried[:i]]
        assert all(truth(a) is not None for a in again), "it is not trained again"


@pytest.mark.parametrize("seed", range(3))
def test_what_diverges_in_an_easy_replication_is_no_noise(seed: int) -> None:
    """It counts as the worst there, not as the worst of a replication in which all losses are higher."""
    noises = []
    for diverged in (False, True):

        def truth(architecture: Architecture, diverged: bool = diverged) -> float | None:
            return None if diverged and "LSTM" in blocks(architecture) else 0.0

        noises.append(run(truth, seed, budget=20, solved=SOLVED)[1].noise)
    assert noises[1] < 1.5 * noises[0]


def test_a_finalist_that_diverges_at_last_is_none() -> None:
    race = Race(WIDE, COSTS, INNER, 16, 0, SOLVED, 2)
    fallen: list[Architecture] = []
    while (following := race.next()) is not None:
        architecture, replication = following
        if race.finalists and not fallen:
            fallen.append(architecture)
            assert architecture in race.finalists
        race.add(architecture, replication, None if architecture in fallen else 1 + 0.1 * len(blocks(architecture)))
    assert len(race.finalists) == 1
    assert fallen[0] not in race.finalists
    assert race.which.count(race.number[fallen[0]]) < INNER
    assert Architecture.of(race.choice().architecture) not in fallen


@pytest.mark.parametrize("solved", [[], SOLVED])
def test_where_all_trainings_diverge_the_user_hears_of_it(solved: list[Architecture]) -> None:
    for budget in (7, 24):
        with pytest.raises(Diverged) as error:
            run(lambda a: 0.5 if a in solved else None, 0, budget=budget, solved=solved)
        assert re.fullmatch(r"search: all (7|10) trainings diverged; lower the setting lr", str(error.value))
    with pytest.raises(Diverged, match="all 20 trainings"):
        random_search(WIDE, 20, 0, lambda a: None)


def race_blocks(race: Race, number: int) -> list[str]:
    return blocks(race.candidates[race.which[number]])


def test_budgets_smaller_than_the_first_round() -> None:
    for budget in (1, 2, 5):
        race, choice = run(lambda architecture: 0.0, 0, budget=budget)
        assert len(race.loss) == budget
        assert choice.probability > 0
        assert choice.gain == 0


def test_a_space_too_large_to_list_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(racing, "LARGEST", 50)
    race = Race(WIDE, COSTS, INNER, 20, 0)
    assert len(race.candidates) <= 50 + 10
    assert race.candidates[0] == Architecture.of(dict.fromkeys(list(WIDE.slots), "none") | {"pool": "mean"})


def test_random_search_keeps_the_lowest_of_as_many_as_the_budget_has() -> None:
    seen: list[Architecture] = []

    def train(architecture: Architecture) -> float:
        seen.append(architecture)
        return abs(len(seen) - 7)

    order = random_search(WIDE, 20, 5, train)
    assert order[0] == seen[6]
    assert len(seen) == 20
    assert seen == list(map(WIDE.distinct, drawn(WIDE, 20, 5)))
    assert drawn(WIDE, 20, 5) != drawn(WIDE, 20, 6)
    assert order[1:] == random_search(WIDE, 20, 5, lambda a: None if a == seen[6] else order.index(a))
    assert sorted(map(str, order)) == sorted(set(map(str, seen))), "each once"
    assert set(order[:3]) == {seen[5], seen[6], seen[7]}
    shares = np.mean([[a["pool"] == name for name in WIDE.searched["pool"]] for a in drawn(WIDE, 4000, 0)], axis=0)
    assert shares == pytest.approx([0.2] * 5, abs=0.03)


# Trainings

SEEDS = int(os.environ.get("BAS_SEEDS", "3"))
"""Of each planted task; with BAS_SEEDS=10 they take a quarter of an hour."""


def trained(space: SearchSpace, task: tuple[Data, Tensor], seed: int, setting: Settings = SETTINGS) -> Choice:
    """A race whose losses are those of trainings, as in a run: three inner folds, the best epoch of each."""
    data, members = task
    inner = members[torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))].chunk(3)
    supernet = Supernet(space, DIM, DIM, CLASSES)
    race = Race(space, count(supernet, "multiply-adds", 4), 3, 14, seed)
    while (following := race.next()) is not None:
        architecture, replication = following
        held_out = inner[replication % 3]
        fit = torch.cat([part for part in inner if part is not held_out])
        seed_everything(seed, replication, "initial weights")
        network = build(space, architecture, DIM, DIM, CLASSES)

        def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float, network: Network = network) -> Tensor:
            out: Tensor = network(x_BTD, mask_BT)
            return out

        def record(epoch: Epoch, network: Network = network, held_out: Tensor = held_out) -> Record:
            return {"loss": float(F.cross_entropy(outputs(network, data, held_out), data.targets_U[held_out]))}

        records, _ = optimise(network, forward, F.cross_entropy, data, fit, setting, seed + 100 * replication, record)
        race.add(architecture, replication, min(of["loss"] for of in records))
    return race.choice()


@pytest.mark.slow
def test_attention_in_the_one_slot_that_needs_it_is_found_by_training() -> None:
    found = [" > ".join(trained(PLANTED, planted(seed)[:2], seed).architecture.values()) for seed in range(SEEDS)]
    assert found.count(RIGHT) >= 0.9 * SEEDS, found


LONG = replace(SETTINGS, epochs=30, lr=0.1)  # a linear model has to converge, too
TEN = max(SEEDS, 10)
"""Of the tasks without attention, which take seconds: of three seeds, nine in ten would allow no miss."""
POOLS = SearchSpace({"layer": {"none": Skip, "FFN": FFN}}, {"mean": MeanPool, "statistics": StatisticsPool})


def noisy(seed: int, spread: bool) -> tuple[Data, Tensor]:
    """Classes that differ in how far frames spread about a mean of zero; or in the mean itself."""
    generator = torch.Generator().manual_seed(seed)
    targets_U = torch.randint(0, CLASSES, (240,), generator=generator)
    lengths_U = torch.full((240,), 12)
    each_N = targets_U.repeat_interleave(12)
    frames_ND = torch.randn(len(each_N), DIM, generator=generator)
    if spread:
        frames_ND[torch.arange(len(each_N)), each_N] *= 3
    else:
        frames_ND[torch.arange(len(each_N)), each_N] += 1
        frames_ND *= 3
    data = Data(frames_ND, lengths_U.cumsum(0) - lengths_U, lengths_U, targets_U, torch.zeros(240, DIM))
    return data, torch.arange(240)


@pytest.mark.slow
def test_statistics_are_found_by_training_where_the_mean_says_nothing() -> None:
    found = [trained(POOLS, noisy(seed, spread=True), seed, LONG).architecture for seed in range(TEN)]
    assert sum(of["pool"] == "statistics" for of in found) >= 0.9 * TEN, found


@pytest.mark.slow
def test_no_block_is_taken_by_training_where_the_mean_says_all() -> None:
    found = [blocks(trained(POOLS, noisy(seed, spread=False), seed, LONG).architecture) for seed in range(TEN)]
    assert found.count([]) >= 0.9 * TEN, found


# Architectures that are the same network


def test_empty_slots_come_last_and_count_once() -> None:
    made = Architecture.of({"layer1": "none", "layer2": "FFN", "layer3": "none", "layer4": "MSA", "pool": "mean"})
    assert str(WIDE.distinct(made)) == "FFN > MSA > none > none > mean"
    assert len({WIDE.distinct(a) for a in WIDE.architectures()}) == 5 * sum(5**depth for depth in range(5))
    plain = load_space(str(ROOT / "search_spaces" / "ser_bas3.py")).space
    assert all(plain.distinct(a) == a for a in plain.architectures())


def test_blocks_do_not_pass_a_slot_of_other_candidates() -> None:
    either = {"none": Skip, "FFN": FFN}
    space = SearchSpace({"a": either, "b": {"none": Skip, "MSA": partial(MSA, num_heads=1)}, "c": either}, MeanPool)
    made = Architecture.of({"a": "none", "b": "MSA", "c": "FFN"})
    assert space.distinct(made) == made, "a perceptron behind attention is not one before it"


def test_equal_blocks_under_other_names_stay_in_their_slots() -> None:
    space = SearchSpace({"a": {"none": Skip, "FFN": FFN}, "b": {"empty": Skip, "perceptron": FFN}}, MeanPool)
    made = Architecture.of({"a": "none", "b": "perceptron"})
    assert space.distinct(made) == made
    for architecture in space.architectures():
        space.check(space.distinct(architecture))
