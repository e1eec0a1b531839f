"""The search and the one training loop: eq. 4, what a search finds, what it may see, how it goes on after a kill."""

# mypy: disable-error-code="index,union-attr"

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.nn import functional as F

import bas.training.loop
from bas.blocks import FFN, MSA, MeanPool
from bas.errors import UserError
from bas.networks.network import build, count_parameters
from bas.networks.supernet import Supernet
from bas.runs.spaces import load_space
from bas.search.gates import gumbel_softmax
from bas.search.search import STRATEGIES, SearchOutcome, Strategy, search
from bas.space import Architecture, SearchSpace
from bas.training.batches import Data, training_batches
from bas.training.loop import Epoch, Record, optimise, outputs, seed_everything, seed_of
from bas.training.settings import PRESETS, Settings, settings

DIM = 8
SMALL = replace(PRESETS["cpu"], strategy="gumbel", width=DIM, epochs=6, batch_size=8, theta_lr=0.05)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_data(seed: int, utterances: int = 48, dim: int = DIM) -> Data:
    """Two classes told apart by the sign of the first dimension's mean; 2 to 9 frames each."""
    generator = torch.Generator().manual_seed(seed)
    lengths_U = torch.randint(2, 10, (utterances,), generator=generator)
    targets_U = torch.randint(0, 2, (utterances,), generator=generator)
    frames_ND = torch.randn(int(lengths_U.sum()), dim, generator=generator)
    frames_ND[:, 0] += (2.0 * targets_U - 1).repeat_interleave(lengths_U)
    return Data(
        frames_ND.half(),
        lengths_U.cumsum(0) - lengths_U,
        lengths_U,
        targets_U,
        torch.zeros(utterances, dim),
    )


class Keep(nn.Module):
    """Lets every frame through."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.map(x_BTD)
        return out


class Destroy(Keep):
    """Lets nothing through but a bias: whatever it is trained to, no class can be told from it."""

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.map(x_BTD * 0.0)
        return out


SPACE = SearchSpace({"layer1": {"MSA": MSA, "FFN": FFN}, "layer2": {"MSA": MSA, "FFN": FFN}}, MeanPool)


def run_search(
    data: Data,
    setting: Settings = SMALL,
    seed: int = 0,
    space: SearchSpace = SPACE,
    members: Tensor | None = None,
    after_epoch: Callable[[Record], Record] = lambda record: {},
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    **more: Any,
) -> tuple[Supernet, SearchOutcome]:
    seed_everything(seed, "initial weights")
    supernet = Supernet(space, data.dim, setting.width or data.dim, 2, setting.dropout)
    members = torch.arange(len(data.lengths_U)) if members is None else members
    return supernet, search(supernet, loss, data, members, setting, seed, after_epoch, **more)


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    left, right = one.state_dict(), other.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


# --- eq. 4 ---


def test_gates_are_a_distribution_that_sharpens_with_the_temperature() -> None:
    theta = torch.tensor([0.3, -1.0, 0.5])
    largest = []
    for temperature in (100.0, 5.0, 1.0, 0.1, 1e-4):
        torch.manual_seed(0)
        gates_KN = gumbel_softmax(theta[:, None].repeat(1, 500), temperature)
        torch.testing.assert_close(gates_KN.sum(0), torch.ones(500))
        assert (gates_KN >= 0).all()
        largest.append(float(gates_KN.amax(0).mean()))
    assert largest == sorted(largest)
    assert largest[0] == pytest.approx(1 / 3, abs=0.02)
    assert largest[-1] == pytest.approx(1.0, abs=1e-3)


def test_at_low_temperature_a_block_is_drawn_as_often_as_softmax_says() -> None:
    torch.manual_seed(0)
    theta, draws = torch.tensor([0.7, -0.9, 0.0, 0.2]), 40_000
    drawn_N = gumbel_softmax(theta[:, None].repeat(1, draws), 1e-3).argmax(0)
    expected = theta.double().softmax(0).numpy() * draws
    assert chisquare(np.bincount(drawn_N, minlength=4), expected).pvalue > 0.01


def test_the_gradient_reaches_theta() -> None:
    theta = torch.tensor([0.7, -0.9, 0.0], dtype=torch.float64, requires_grad=True)

    def same_draw(theta: Tensor) -> Tensor:
        torch.manual_seed(0)
        return gumbel_softmax(theta, 0.7)

    assert torch.autograd.gradcheck(same_draw, (theta,))
    same_draw(theta)[0].backward()
    assert theta.grad is not None
    assert theta.grad[0] > 0
    assert (theta.grad[1:] < 0).all()


def test_one_draw_a_part_and_batch_at_the_schedules_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    data, temperatures = make_data(0), []

    def draw(theta: Tensor, temperature: float) -> Tensor:
        gates = gumbel_softmax(theta, temperature)
        assert gates.shape == (2,)  # one for the whole batch
        temperatures.append((temperature, tuple(gates.tolist())))
        return gates

    monkeypatch.setitem(STRATEGIES, "gumbel", Strategy(draw))
    run_search(data)
    batches = 6  # of 8, in 48 utterances
    assert len(temperatures) == SMALL.epochs * batches * 2
    assert len({gates for _, gates in temperatures}) == len(temperatures)
    expected = [SMALL.temperature(epoch, step, batches) for epoch in range(SMALL.epochs) for step in range(batches)]
    assert [t for t, _ in temperatures[::2]] == [t for t, _ in temperatures[1::2]] == expected
    assert expected[0] == SMALL.tau_start
    assert expected[-1] == pytest.approx(SMALL.tau_end)


# --- what a search finds ---


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("names", [("destroy", "keep"), ("keep", "destroy")])
def test_a_search_finds_the_block_that_keeps_the_information(seed: int, names: tuple[str, str]) -> None:
    blocks = {name: {"keep": Keep, "destroy": Destroy}[name] for name in names}
    space = SearchSpace({"first": blocks, "second": blocks}, MeanPool)
    _, outcome = run_search(make_data(seed), replace(SMALL, epochs=12, lr=0.01), seed, space)
    assert str(outcome.architecture) == "keep > keep"
    assert min(p["keep"] for p in outcome.records[-1]["probabilities"].values()) > 0.6


def test_nothing_but_the_members_reaches_the_supernet() -> None:
    data = make_data(0)
    members = torch.arange(0, 48, 2)
    spoilt = replace(data, frames_ND=data.frames_ND.clone(), targets_U=data.targets_U.clone())
    for u in range(1, 48, 2):
        spoilt.frames_ND[spoilt.starts_U[u] : spoilt.starts_U[u] + spoilt.lengths_U[u]] = torch.nan
        spoilt.targets_U[u] = 10**6
    spoilt.means_UD.fill_(torch.nan)
    clean, spoiled = run_search(data, members=members), run_search(spoilt, members=members)
    assert clean[1].records == spoiled[1].records
    assert_same_weights(clean[0], spoiled[0])
    assert all(p.isfinite().all() for p in spoiled[0].state_dict().values())


def test_records_tell_each_epoch() -> None:
    data, seen = make_data(0), []

    def after_epoch(record: Record) -> Record:
        seen.append(record["architecture"])
        return {"valid": {"WA": np.float64(0.5)}}

    supernet, outcome = run_search(data, after_epoch=after_epoch)
    assert [r["epoch"] for r in outcome.records] == list(range(SMALL.epochs))
    for r, architecture in zip(outcome.records, seen, strict=True):
        assert set(r) == {
            *("epoch", "loss", "rate", "temperature", "probabilities", "entropy", "architecture", "multiply_adds"),
            "valid",
        }
        assert math.isfinite(r["loss"])
        assert r["temperature"] == SMALL.temperature(r["epoch"], 5, 6)
        assert r["rate"] == SMALL.rate(r["epoch"], 5, 6)
        assert r["architecture"] == architecture
        for slot, p in r["probabilities"].items():
            assert list(p) == ["MSA", "FFN"]
            assert sum(p.values()) == pytest.approx(1)
            assert r["entropy"][slot] == pytest.approx(-sum(v * math.log(v) for v in p.values()))
            assert p[architecture[slot]] == max(p.values())
    assert outcome.architecture == supernet.argmax()
    assert outcome.architecture.to_dict() == seen[-1]
    assert outcome.seconds > 0


def test_the_loss_of_a_record_is_the_mean_over_utterances() -> None:
    data = make_data(0, utterances=11)  # two batches
    seen: list[tuple[float, int]] = []

    def loss(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        value = F.cross_entropy(outputs_BO, targets_B)
        seen.append((value.item(), len(targets_B)))
        return value

    _, outcome = run_search(data, replace(SMALL, epochs=1), loss=loss)
    assert [len(seen), sum(n for _, n in seen)] == [2, 11]
    assert outcome.records[0]["loss"] == pytest.approx(sum(v * n for v, n in seen) / 11)


def test_an_epoch_visits_every_member_once() -> None:
    data = make_data(0)
    members = torch.arange(5, 40)
    seed_everything("any")
    batches = training_batches(data, members, 8, torch.default_generator)
    assert torch.equal(torch.cat(batches).sort().values, members)


def test_the_seed_decides_every_number() -> None:
    data, setting = make_data(0), replace(SMALL, dropout=0.2)
    one, again, other = (run_search(data, setting, seed) for seed in (0, 0, 1))
    assert one[1].records == again[1].records
    assert_same_weights(one[0], again[0])
    assert [r["loss"] for r in one[1].records] != [r["loss"] for r in other[1].records]
    assert one[1].records[-1]["probabilities"] != other[1].records[-1]["probabilities"]


def test_a_search_that_diverges_finds_nothing() -> None:
    with pytest.raises(UserError, match=r"loss nan in epoch 0; lower the setting lr=0.001"):
        run_search(make_data(0), loss=lambda outputs_BO, targets_B: F.cross_entropy(outputs_BO, targets_B) * torch.nan)


def test_what_ran_before_does_not_matter() -> None:
    data = make_data(0)

    def draws(record: Record) -> Record:
        torch.rand(record["epoch"] + 1)  # scoring may draw as it likes
        return {}

    assert run_search(data)[1].records == run_search(data, after_epoch=draws)[1].records


# --- the loop ---


def train(
    data: Data,
    setting: Settings,
    after_epoch: Callable[[Epoch], Record],
    seed: int = 0,
    fewer: int = 0,
    **more: Any,
) -> tuple[nn.Module, list[Record]]:
    seed_everything("initial weights")
    network = build(SPACE, Architecture((("layer1", "FFN"), ("layer2", "MSA"))), DIM, DIM, 2, setting.dropout)

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        assert network.training
        out: Tensor = network(x_BTD, mask_BT)
        return out

    members = torch.arange(len(data.lengths_U) - fewer)
    records, _ = optimise(network, forward, F.cross_entropy, data, members, setting, seed, after_epoch, **more)
    assert not network.training
    return network, records


def test_from_the_same_weights_another_seed_goes_another_way() -> None:
    one, other = (train(make_data(0), SMALL, lambda e: {"loss": e.loss}, seed=seed) for seed in (0, 1))
    assert one[1] != other[1]


def test_every_fold_and_seed_has_a_seed_of_its_own() -> None:
    assert len({seed_of(fold, seed) for fold in range(20) for seed in range(20)}) == 400


def test_every_epoch_has_an_order_and_a_noise_of_its_own() -> None:
    data = make_data(0)
    batches: list[Tensor] = []
    drawn: list[float] = []

    def loss(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        batches.append(targets_B.clone())
        drawn.append(float(torch.rand(())))
        return F.cross_entropy(outputs_BO, targets_B)

    run_search(data, replace(SMALL, epochs=3, dropout=0.3), loss=loss)
    steps = len(batches) // 3
    orders = {tuple(torch.cat(batches[e * steps : (e + 1) * steps]).tolist()) for e in range(3)}
    assert len(orders) == 3
    assert len(set(drawn)) == len(drawn)


class Killed(Exception):
    pass


@pytest.fixture
def _checkpoint_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bas.training.loop, "CHECKPOINT_SECONDS", -1.0)


DROPOUT = {"adamw": replace(SMALL, dropout=0.3), "sgd": replace(SMALL, dropout=0.3, optimiser="sgd", momentum=0.9)}


@pytest.mark.usefixtures("_checkpoint_always")
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("where", ["after an epoch", "within an epoch"])
def test_a_killed_search_ends_with_the_same_bits(optimiser: str, where: str, tmp_path: Path) -> None:
    data, setting, path = make_data(0), DROPOUT[optimiser], tmp_path / "jobs" / "search.checkpoint"
    undisturbed, expected = run_search(data, setting)

    for fatal in (1, 3):  # killed twice

        def after_epoch(record: Record, fatal: int = fatal) -> Record:
            if where == "after an epoch" and record["epoch"] == fatal:
                raise Killed
            return {}

        steps = 0

        def loss(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            if where == "within an epoch" and steps == 10:  # in the second epoch of each try
                raise Killed
            return F.cross_entropy(outputs_BO, targets_B)

        with pytest.raises(Killed):
            run_search(data, setting, after_epoch=after_epoch, loss=loss, checkpoint=path)
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    done: list[int] = []
    resumed, outcome = run_search(
        data, setting, after_epoch=lambda record: done.append(record["epoch"]) or {}, checkpoint=path
    )
    assert done == list(range(2 if where == "within an epoch" else 3, setting.epochs))
    assert outcome.records == expected.records
    assert outcome.architecture == expected.architecture
    assert_same_weights(resumed, undisturbed)


@pytest.mark.usefixtures("_checkpoint_always")
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("best", [0, 2, 5])
def test_a_killed_training_keeps_the_same_best_epoch(optimiser: str, best: int, tmp_path: Path) -> None:
    data, setting, path = make_data(0), DROPOUT[optimiser], tmp_path / "train.checkpoint"

    def after_epoch(epoch: Epoch) -> Record:
        return {"loss": epoch.loss, "score": -abs(epoch.index - best)}

    def fatal(epoch: Epoch) -> Record:
        if epoch.index == 3:
            raise Killed
        return after_epoch(epoch)

    undisturbed = train(data, setting, after_epoch, keep_best="score")
    with pytest.raises(Killed):
        train(data, setting, fatal, keep_best="score", checkpoint=path)
    for other in ({"seed": 1}, {"fewer": 1}):  # it may have seen what is tested here
        with pytest.raises(UserError, match="not of this job"):
            train(data, setting, after_epoch, keep_best="score", checkpoint=path, **other)
    resumed = train(data, setting, after_epoch, keep_best="score", checkpoint=path)
    assert resumed[1] == undisturbed[1]
    assert_same_weights(resumed[0], undisturbed[0])


@pytest.mark.usefixtures("_checkpoint_always")
def test_a_checkpoint_is_complete_and_safe_to_load(tmp_path: Path) -> None:
    path = tmp_path / "search.checkpoint"
    # A metric's own NumPy float must not make the file unreadable.
    _, outcome = run_search(
        make_data(0), after_epoch=lambda record: {"valid": {"WA": np.float64(0.5)}}, checkpoint=path
    )
    state = torch.load(path, weights_only=True)
    assert state["records"] == outcome.records[:-1]  # none after the last epoch: the result is written at once
    assert {name for name in state["model"] if name.endswith("theta")} == {f"parts.layer{i}.theta" for i in (1, 2)}
    assert [group["full_lr"] for group in state["optimiser"]["param_groups"]] == [SMALL.lr, SMALL.theta_lr]
    assert state["seconds"] > 0


@pytest.mark.usefixtures("_checkpoint_always")
def test_a_kill_while_writing_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, path, save = make_data(0), tmp_path / "search.checkpoint", torch.save
    undisturbed, expected = run_search(data)

    def half(state: dict[str, Any], stream: IO[bytes]) -> None:
        if len(state["records"]) == 3:
            stream.write(b"half")
            raise Killed
        save(state, stream)

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        run_search(data, checkpoint=path)
    assert len(torch.load(path, weights_only=True)["records"]) == 2
    monkeypatch.setattr(torch, "save", save)
    resumed, outcome = run_search(data, checkpoint=path)
    assert outcome.records == expected.records
    assert_same_weights(resumed, undisturbed)


def test_checkpoints_are_some_seconds_apart(tmp_path: Path) -> None:
    path = tmp_path / "search.checkpoint"
    run_search(make_data(0), checkpoint=path)
    assert not path.exists()  # it took less than that


@pytest.mark.parametrize("scores", [[1, 3, 2, 3, 0, 1], [5, 5, 5, 5, 5, 5], [0, 1, 2, 3, 4, 5]])
def test_keep_best_ends_with_the_first_best_epoch(scores: list[int]) -> None:
    data, seen = make_data(0), []

    def after_epoch(epoch: Epoch) -> Record:
        network = looked[0]
        assert not network.training
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return {"score": scores[epoch.index]}

    looked: list[nn.Module] = []
    seed_everything("initial weights")
    looked.append(build(SPACE, next(SPACE.architectures()), DIM, DIM, 2))
    optimise(
        looked[0],
        lambda x, mask, tau: looked[0](x, mask),
        F.cross_entropy,
        data,
        torch.arange(48),
        SMALL,
        0,
        after_epoch,
        keep_best="score",
    )
    kept = scores.index(max(scores))
    assert all(torch.equal(value, seen[kept][name]) for name, value in looked[0].state_dict().items())


class OwnTheta(Keep):
    """A user's block with a weight that happens to be called theta."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.theta = nn.Parameter(torch.ones(dim))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.map(x_BTD) * self.theta
        return out


def test_architecture_parameters_have_their_own_rate_and_no_decay() -> None:
    space = SearchSpace({"layer1": {"own": OwnTheta, "keep": Keep}}, MeanPool)
    still = replace(SMALL, lr=1e-12, theta_lr=0.1, weight_decay=1.0, schedule="constant")
    supernet, _ = run_search(make_data(0), still, space=space)
    assert (supernet.mixed_parts()["layer1"].theta.abs() > 0.05).all()
    torch.testing.assert_close(supernet.parts["layer1"].candidates["own"].theta, torch.ones(DIM))

    def no_gradient(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        return outputs_BO.sum() * 0.0

    decaying = replace(still, lr=0.1, optimiser="sgd", weight_decay=0.5)
    seed_everything("initial weights")
    supernet = Supernet(space, DIM, DIM, 2)
    with torch.no_grad():
        supernet.mixed_parts()["layer1"].theta.copy_(torch.tensor([1.0, -1.0]))
    search(supernet, no_gradient, make_data(0), torch.arange(48), decaying, 0, lambda record: {})
    assert supernet.mixed_parts()["layer1"].theta.tolist() == [1.0, -1.0]
    assert (supernet.parts["layer1"].candidates["own"].theta < 0.9).all()


def test_outputs_are_in_the_order_of_the_members_whatever_the_batch() -> None:
    data = make_data(0)
    network = build(SPACE, next(SPACE.architectures()), DIM, DIM, 2, dropout=0.5).eval()
    members = torch.randperm(48, generator=torch.Generator().manual_seed(0))[:20]
    found_UO = outputs(network, data, members, size=7)
    with torch.no_grad():
        alone_UO = torch.cat([network(*data.batch(member[None])[:2]) for member in members])
    torch.testing.assert_close(found_UO, alone_UO)
    torch.testing.assert_close(outputs(network, data, members, size=64), alone_UO)


# --- the paper's size ---


def test_a_step_of_the_papers_preset_at_its_size() -> None:
    dim, layers = 1024, 4
    data = make_data(0, utterances=2, dim=dim)
    space = load_space("ser_bas4").space
    setting = settings("paper", {"epochs": "1"})
    supernet, outcome = run_search(data, setting, space=space)
    assert math.isfinite(outcome.records[0]["loss"])
    assert outcome.records[0]["temperature"] == 5.0
    assert all(part.theta.detach().any() for part in supernet.mixed_parts().values())
    # MSA+FFN, MSA and FFN in each layer; a theta for each; no projection; two classes.
    layer = (12 * dim**2 + 13 * dim) + (4 * dim**2 + 6 * dim) + (8 * dim**2 + 7 * dim)
    assert count_parameters(supernet) == layers * (layer + 3) + 2 * dim + 2
