"""Every strategy behind the one call: what it finds, what it may see, what it computes, what it costs."""

# mypy: disable-error-code="arg-type,dict-item,index,operator,union-attr"

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from planted import CLASSES, DIM, HARD, RIGHT, SETTINGS, SPACE, accuracy, find, planted
from torch import Tensor, nn
from torch.nn import functional as F

import bas.search.search
import bas.training.loop
from bas.blocks import FFN, MSA, MeanPool, TransformerBlock
from bas.errors import UserError
from bas.networks.costs import count
from bas.networks.network import build
from bas.networks.supernet import Supernet
from bas.search.gates import gumbel_softmax, softmax, straight_through, uniform_path
from bas.search.search import STRATEGIES, SearchOutcome, Strategy
from bas.space import SearchSpace
from bas.training import settings as all_settings
from bas.training.loop import optimise, seed_everything
from bas.training.settings import RACES

SHORT = replace(SETTINGS, epochs=3)
THETA = [name for name, strategy in STRATEGIES.items() if strategy.theta]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_settings_name_the_strategies() -> None:
    assert {*STRATEGIES, *RACES, "random"} == set(all_settings.STRATEGIES)


# --- what they find ---


@pytest.mark.parametrize("seed", range(2))
def test_the_planted_architecture_alone_solves_the_task(seed: int) -> None:
    data, members, held_out = planted(seed)
    reached = {}
    for architecture in SPACE.architectures():
        seed_everything(seed, "initial weights")
        network = build(SPACE, architecture, DIM, DIM, CLASSES)
        forward = partial(lambda model, x_BTD, mask_BT, temperature: model(x_BTD, mask_BT), network)
        optimise(network, forward, F.cross_entropy, data, members, SETTINGS, seed, lambda epoch: {})
        reached[str(architecture)] = accuracy(network, data, held_out)
    assert reached.pop(RIGHT) > 0.95
    assert len(reached) == 3
    assert max(reached.values()) < 0.8  # 0.25 by chance


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_finds_the_planted_architecture(strategy: str) -> None:
    setting = HARD if strategy == "hard" else replace(SETTINGS, strategy=strategy)
    counts = Counter(str(find(setting, seed)[1].architecture) for seed in range(10))
    assert counts[RIGHT] >= 9, counts


def test_random_draws_evenly_and_trains_nothing() -> None:
    setting, task = replace(SETTINGS, strategy="random"), planted(0)
    drawn = []
    for seed in range(80):
        supernet, outcome = find(setting, seed, task)
        drawn.append(str(outcome.architecture))
        assert replace(outcome, architecture=None) == SearchOutcome(None, [], 0.0, 0, None, None)
    assert drawn[3] == str(find(setting, 3, task)[1].architecture)
    assert set(drawn) == {str(a) for a in SPACE.architectures()}
    assert max(Counter(drawn).values()) < 35
    seed_everything(79, "initial weights")
    assert_same_weights(supernet, Supernet(SPACE, DIM, DIM, CLASSES))


def test_single_path_takes_the_lowest_loss_of_all_paths() -> None:
    wanted, chosen = "FFN > first > MSA", replace(SHORT, strategy="single-path")

    def score(network: nn.Module) -> dict[str, float]:
        assert not network.training
        names = [type(block).__name__ for block in network.parts.values()]
        return {"loss": 0.0 if names[1:4] == ["FFN", "First", "MSA"] else 1.0, "WA": 0.5}

    _, outcome = find(chosen, 0, score=score)
    assert str(outcome.architecture) == wanted
    assert outcome.paths is not None
    assert [p["WA"] for p in outcome.paths] == [0.5] * SPACE.size
    assert [str(a) for a, p in zip(SPACE.architectures(), outcome.paths, strict=True) if p["loss"] == 0] == [wanted]
    # None is known before the end; each of two blocks learns as long as alone.
    assert [r["architecture"] for r in outcome.records] == [None] * 2 * 3
    assert outcome.probabilities is None


def test_single_path_refuses_more_paths_than_it_can_score(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bas.search.search, "PATHS", 3)
    with pytest.raises(UserError, match=r"setting strategy=single-path: .* at most 3; this space has 4"):
        find(replace(SHORT, strategy="single-path"), 0)
    assert find(SHORT, 0)[1].paths is None


def test_paths_are_the_scores_of_every_architecture() -> None:
    data, _, held_out = planted(0)
    supernet, outcome = find(SHORT, 0)
    assert outcome.probabilities == outcome.records[-1]["probabilities"]
    for architecture, scored in zip(SPACE.architectures(), outcome.paths or [], strict=True):
        logits = bas.training.loop.outputs(supernet.discrete(architecture), data, held_out)
        assert scored == {"loss": float(F.cross_entropy(logits, data.targets_U[held_out]))}


# --- what they see ---


@pytest.mark.parametrize("strategy", ["gumbel", "hard", "darts"])
def test_the_held_out_reach_no_single_level_search(strategy: str) -> None:
    setting, (data, members, held_out) = replace(SHORT, strategy=strategy), planted(0)
    spoilt = replace(data, frames_ND=data.frames_ND.clone(), targets_U=data.targets_U.clone())
    spoilt.frames_ND[data.starts_U[held_out[0]] :] = torch.nan
    spoilt.targets_U[held_out] = 10**6
    one, other = (find(setting, 0, (d, members, held_out), score=None) for d in (data, spoilt))
    assert one[1].records == other[1].records
    assert_same_weights(one[0], other[0])


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_bilevel_moves_theta_on_the_held_out_and_weights_on_the_members(optimiser: str) -> None:
    momentum = 0.9 if optimiser == "sgd" else 0.0
    setting = replace(SHORT, strategy="bilevel", warmup=1, optimiser=optimiser, momentum=momentum, weight_decay=0.1)
    data, members, held_out = planted(0)
    numbered = replace(data, targets_U=torch.arange(len(data.lengths_U)))  # a batch can be told by its targets
    seen: list[tuple[bool, list[Tensor], list[Tensor]]] = []
    looked: list[Supernet] = []
    seed_everything(0, "initial weights")
    looked.append(Supernet(SPACE, DIM, DIM, CLASSES))

    def loss(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        where = targets_B >= held_out[0]
        assert where.all() or not where.any()
        theta = [part.theta.detach().clone() for part in looked[0].mixed_parts().values()]
        weights = [p.detach().clone() for n, p in looked[0].named_parameters() if not n.endswith("theta")]
        seen.append((bool(where.all()), theta, weights))
        return F.cross_entropy(outputs_BO, data.targets_U[targets_B])

    bas.search.search.search(looked[0], loss, numbered, members, setting, 0, lambda record: {}, held_out)
    batches = 8
    assert [on for on, *_ in seen] == [False] * batches + [True, False] * 2 * batches  # the first epoch is warm-up
    for (on_held_out, *before), (_, *after) in pairwise(seen):
        moved = [
            any(not torch.equal(a, b) for a, b in zip(*group, strict=True)) for group in zip(before, after, strict=True)
        ]
        assert moved == [on_held_out, not on_held_out]


@pytest.mark.parametrize("strategy", THETA)
def test_theta_rests_while_the_weights_warm_up(strategy: str) -> None:
    _, outcome = find(replace(SHORT, strategy=strategy, warmup=2), 0, score=None)
    entropies = [r["entropy"]["layer1"] for r in outcome.records]
    assert entropies[:2] == pytest.approx([math.log(2)] * 2, abs=1e-12)
    assert entropies[2] < math.log(2) - 1e-6
    assert outcome.records[1]["loss"] != outcome.records[0]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "noise"), [*((name, "batch") for name in STRATEGIES), ("hard", "utterance")])
def test_a_killed_search_of_any_strategy_ends_with_the_same_bits(
    strategy: str, noise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bas.training.loop, "CHECKPOINT_SECONDS", -1.0)
    setting, task = replace(SHORT, strategy=strategy, noise=noise, dropout=0.2, warmup=1), planted(0)
    undisturbed, expected = find(setting, 0, task)
    path = tmp_path / "search.checkpoint"

    def killed(record: dict[str, object]) -> dict[str, object]:
        if record["epoch"] == 2:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        find(setting, 0, task, after_epoch=killed, checkpoint=path)
    if strategy == "bilevel":  # theta has learned on these
        with pytest.raises(UserError, match="not of this job"):
            find(setting, 0, (task[0], task[1], task[2][1:]), checkpoint=path)
    resumed, outcome = find(setting, 0, task, checkpoint=path)
    assert replace(outcome, seconds=0) == replace(expected, seconds=0)
    assert_same_weights(resumed, undisturbed)


# --- what they compute ---


def test_straight_through_is_the_first_drawn_with_the_gradient_between_two() -> None:
    theta = torch.tensor([0.5, -0.5, 0.0, 1.0], requires_grad=True)
    torch.manual_seed(0)
    first: Counter[int] = Counter()
    for _ in range(400):
        gates = straight_through(theta, 1.0)
        drawn = [c for c, gate in enumerate(gates) if gate is not None]
        assert len(drawn) == 2
        values = [gates[c].item() for c in drawn]
        assert sorted(values) == [0.0, 1.0]
        one = drawn[values.index(1.0)]
        first[one] += 1
        (gradient,) = torch.autograd.grad(gates[one], theta)
        assert gradient[one] > 0
        assert gradient.sum() == pytest.approx(0, abs=1e-6)
        assert (gradient != 0).nonzero().flatten().tolist() == drawn
    for c, p in enumerate(theta.softmax(0).tolist()):
        assert first[c] / 400 == pytest.approx(p, abs=0.08)
    assert float(straight_through(torch.zeros(1), 1.0)[0]) == 1


def test_softmax_has_no_noise_and_uniform_path_no_theta() -> None:
    theta = torch.tensor([3.0, 0.0, -3.0])
    assert torch.equal(softmax(theta, 0.1), theta.softmax(0))
    torch.manual_seed(0)
    paths = [uniform_path(theta, 1.0) for _ in range(300)]
    drawn = [[c for c, gate in enumerate(gates) if gate is not None] for gates in paths]
    assert {len(row) for row in drawn} == {1}
    assert min(Counter(row[0] for row in drawn).values()) > 70


@pytest.mark.parametrize(("strategy", "computed"), [("gumbel", 3), ("darts", 3), ("hard", 2), ("single-path", 1)])
def test_only_drawn_blocks_are_computed_and_counted(strategy: str, computed: int) -> None:
    blocks = {"MSA+FFN": partial(TransformerBlock, num_heads=1), "MSA": partial(MSA, num_heads=1), "FFN": FFN}
    space, (data, members, held_out) = SearchSpace({"layer1": blocks}, MeanPool), planted(0)
    setting = replace(SHORT, strategy=strategy)
    seed_everything(0, "initial weights")
    supernet = Supernet(space, DIM, DIM, CLASSES)
    calls: list[tuple[str, int]] = []
    for name, block in supernet.mixed_parts()["layer1"].candidates.items():
        block.register_forward_hook(lambda _, args, out, name=name: calls.append((name, len(args[0]))))
    frames = int(data.lengths_U[members].median())
    work = count(supernet, "multiply-adds", frames)
    calls.clear()
    steps: list[int] = []

    def loss(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        steps.append(len(calls))
        return F.cross_entropy(outputs_BO, targets_B)

    outcome = bas.search.search.search(
        supernet, loss, data, members, setting, 0, lambda record: {}, held_out, lambda network: {"loss": 0.0}
    )
    calls = calls[-steps[-1] + steps[0] - computed :]  # without those of counting
    assert [b - a for a, b in pairwise(steps)] == [computed] * (len(steps) - 1)
    epochs = 3 * 3 if strategy == "single-path" else 3
    assert len(steps) == epochs * 8
    trained = 3 * (sum(n * work.searched["layer1"][name] for name, n in calls) + epochs * len(members) * work.fixed)
    scored = sum(work.of(a.blocks) for a in space.architectures()) * len(held_out) if strategy == "single-path" else 0
    assert outcome.multiply_adds == trained + scored


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_a_candidate_may_have_no_gradient_until_it_is_drawn(strategy: str, optimiser: str) -> None:
    """Of momentum, some parameters then have none: an optimiser has to take that."""
    given = {"strategy": strategy, "optimiser": optimiser, "momentum": 0.9, "lr": 0.01}
    _, outcome = find(replace(SHORT, **given), 0)
    assert all(math.isfinite(record["loss"]) for record in outcome.records)


def test_noise_is_drawn_once_a_batch_or_for_each_utterance(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: set[tuple[int, ...]] = set()
    distinct: list[int] = []

    def draw(theta: Tensor, temperature: float) -> Tensor:
        gates = gumbel_softmax(theta, temperature)
        shapes.add(tuple(gates.shape))
        distinct.append(len(gates.flatten(1).unique()) if gates.dim() > 1 else 1)
        return gates

    monkeypatch.setitem(STRATEGIES, "gumbel", Strategy(draw))
    find(replace(SHORT, noise="batch"), 0, score=None)
    assert shapes == {(2,), (1,)}
    shapes.clear()
    distinct.clear()
    find(replace(SHORT, noise="utterance"), 0, score=None)
    assert {len(shape) for shape in shapes} == {2}
    assert {shape[0] for shape in shapes} == {1, 2}
    assert min(shape[1] for shape in shapes) > 2, "as many as utterances"
    assert max(distinct) > 100


# --- what they cost ---


class Dear(FFN):
    """An FFN with a branch that adds nothing."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.dead = nn.Sequential(nn.Linear(dim, 16 * dim), nn.Linear(16 * dim, dim))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return super().forward(x_BTD, mask_BT) + 0.0 * self.dead(x_BTD)


@pytest.mark.slow
@pytest.mark.parametrize("cost", ["multiply-adds", "parameters"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_equals_the_cheaper_is_chosen(strategy: str, cost: str) -> None:
    space = SearchSpace({"layer1": {"dear": Dear, "cheap": FFN}}, MeanPool)
    setting, task = replace(SHORT, strategy=strategy, cost=cost, cost_weight=0.5), planted(0)
    for seed in range(2):
        _, outcome = find(setting, seed, task, space)
        assert str(outcome.architecture) == "cheap"


def test_the_cost_term_is_the_expected_share_of_the_dearest() -> None:
    space = SearchSpace({"layer1": {"dear": Dear, "cheap": FFN}}, MeanPool)
    still = replace(SHORT, epochs=1, lr=1e-12, theta_lr=1e-12)
    plain, costly = (find(replace(still, cost="parameters", cost_weight=w), 0, space=space)[1] for w in (0.0, 2.0))
    costs = count(Supernet(space, DIM, DIM, CLASSES), "parameters", 4)
    share = sum(costs.searched["layer1"].values()) / 2 / costs.largest
    assert costly.records[0]["loss"] - plain.records[0]["loss"] == pytest.approx(2 * share, rel=1e-4)
