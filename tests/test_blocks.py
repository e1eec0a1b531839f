"""Blocks that see neighbours in time: padding, gradients, by hand, autocast, together in a stack."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from running import run_jobs
from stacking import alone, compare, eight_speakers, new_run, results
from stores import quiet
from torch import Tensor, nn
from torch.nn import functional as F

from bas.blocks import (
    LSTM,
    QUANTILES,
    AttentiveStatisticsPool,
    Convolution,
    ConvStem,
    LastState,
    LastStateAttention,
    MeanPool,
    QuantilePool,
    Skip,
    StatisticsPool,
    quantiles,
)
from bas.networks.costs import multiply_adds
from bas.networks.network import build
from bas.runs.spaces import load_space

DIM = 8
LENGTHS = (6, 1, 11, 4)
FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "convolution": partial(Convolution, DIM, kernel=5),
    "LSTM": partial(LSTM, DIM),
    "LSTM of two layers": partial(LSTM, DIM, layers=2),
    "stem": partial(ConvStem, DIM, 5, kernel=3, layers=3),
    "mean": partial(MeanPool, DIM, hidden=True),
    "last": partial(LastState, DIM),
    "attention": partial(LastStateAttention, DIM),
    "attention, hidden": partial(LastStateAttention, DIM, hidden=True),
    "statistics": partial(StatisticsPool, DIM),
    "quantiles": partial(QuantilePool, DIM),
    "attentive statistics": partial(AttentiveStatisticsPool, DIM, inner=4),
    "skip": partial(Skip, DIM),
}
BASELINES = load_space("emotion_share").baselines or {}


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return FACTORIES[name]()


def utterances() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, DIM, generator=generator) for n in LENGTHS]


def padded(frames: list[Tensor], length: int, garbage: float = 0.0) -> tuple[Tensor, Tensor]:
    x_BTD = torch.randn(len(frames), length, DIM, generator=torch.Generator().manual_seed(2)) * garbage
    for row, x_TD in zip(x_BTD, frames, strict=True):
        row[: len(x_TD)] = x_TD
    return x_BTD, torch.arange(length) < torch.tensor([len(x_TD) for x_TD in frames])[:, None]


def batch() -> tuple[Tensor, Tensor]:
    return padded(utterances(), max(LENGTHS) + 3, 1e4)


# Every block


@pytest.mark.parametrize("garbage", [0.0, 1e4])
@pytest.mark.parametrize("length", [max(LENGTHS), 29])
@pytest.mark.parametrize("name", FACTORIES)
def test_an_utterance_notices_neither_padding_nor_its_mates(name: str, length: int, garbage: float) -> None:
    module = made(name)
    out = module(*padded(utterances(), length, garbage))
    assert out.isfinite().all()
    assert out.dim() == 2 or out.shape[:2] == (len(LENGTHS), length)
    for row, x_TD in zip(out, utterances(), strict=True):
        (alone_,) = module(x_TD[None], torch.ones(1, len(x_TD), dtype=torch.bool))
        real = row if out.dim() == 2 else row[: len(x_TD)]
        torch.testing.assert_close(real, alone_, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FACTORIES)
def test_gradients_reach_every_parameter_and_no_padding(name: str) -> None:
    module, (x_BTD, mask_BT) = made(name), batch()
    out = module(x_BTD.requires_grad_(), mask_BT)
    (out if out.dim() == 2 else out[mask_BT]).square().sum().backward()
    for parameter, p in module.named_parameters():
        assert p.grad is not None, parameter
        assert p.grad.isfinite().all(), parameter
        assert p.grad.any(), parameter
    assert x_BTD.grad is not None
    assert not x_BTD.grad[~mask_BT].any()
    assert x_BTD.grad[mask_BT].any()


@pytest.mark.parametrize("name", BASELINES)
def test_whole_baselines_of_the_shipped_file(name: str) -> None:
    torch.manual_seed(0)
    space = BASELINES[name]
    network = build(space, space.only(), DIM, 5, 3).eval()
    together_BO = network(*batch())
    alone_BO = torch.cat([network(*padded([x_TD], len(x_TD))) for x_TD in utterances()])
    torch.testing.assert_close(together_BO, alone_BO, atol=1e-5, rtol=1e-5)
    together_BO[:, 0].sum().backward()
    learning = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
    every = {n for n, _ in network.named_parameters()}
    mine = {n for n in every if not space.each_output or n.startswith("networks.0.")}
    assert learning == mine
    assert (len(mine) < len(every)) == space.each_output


def test_the_shipped_baselines_are_the_papers_two_each_shared_and_apart() -> None:
    assert next(iter(BASELINES)) == "CNN+LSTM+attention"
    assert [b.each_output for b in BASELINES.values()] == [False, False, True, True]
    assert len({b.signature for b in BASELINES.values()}) == 4


@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_is_the_same_in_an_exported_graph(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is not packed: it computes padding too, behind the real frames."""
    torch.manual_seed(0)
    module, (x_BTD, mask_BT) = LSTM(DIM, layers), batch()
    packed_BTD = module(x_BTD, mask_BT)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr("bas.blocks.pack_padded_sequence", None)
    plain_BTD = module(x_BTD, mask_BT)
    assert plain_BTD.isfinite().all()
    torch.testing.assert_close(plain_BTD[mask_BT], packed_BTD[mask_BT], atol=1e-6, rtol=1e-6)


# By hand


def test_statistics_are_mean_and_deviation_over_real_frames() -> None:
    pool = StatisticsPool(DIM)
    with torch.no_grad():
        pool.project.weight.copy_(torch.cat([torch.eye(DIM), 2 * torch.eye(DIM)], 1))
        pool.project.bias.zero_()
    for out_D, x_TD in zip(pool(*batch()), utterances(), strict=True):
        deviation_D = x_TD.var(0, unbiased=False).clamp_min(1e-5).sqrt()
        torch.testing.assert_close(out_D, x_TD.mean(0) + 2 * deviation_D, atol=1e-5, rtol=1e-5)


def test_quantiles_are_those_of_the_real_frames() -> None:
    for out_K, x_TD in zip(quantiles(*batch()), utterances(), strict=True):
        expected_QD = torch.quantile(x_TD, torch.tensor(QUANTILES), dim=0)
        torch.testing.assert_close(out_K, expected_QD.flatten(), atol=1e-6, rtol=1e-6)
    pool = QuantilePool(DIM)
    torch.testing.assert_close(pool(*batch()), pool.project(quantiles(*batch())))


@pytest.mark.parametrize("pool", [MeanPool, StatisticsPool, QuantilePool])
def test_a_pool_with_a_summary_is_a_linear_map_of_it(pool: Any) -> None:
    """By which a network without a block is solved as a linear model."""
    made = pool(DIM)
    x_BTD, mask_BT = batch()
    summary_BK = pool.summary(x_BTD, mask_BT)
    expected_BD = made.project(summary_BK) if hasattr(made, "project") else summary_BK
    torch.testing.assert_close(made(x_BTD, mask_BT), expected_BD)


def test_attention_weighs_each_channel_of_each_frame() -> None:
    torch.manual_seed(0)
    pool = AttentiveStatisticsPool(DIM, inner=4)
    for out_D, x_TD in zip(pool(*batch()), utterances(), strict=True):
        weight_TD = cast(Tensor, pool.score(x_TD)).softmax(0)
        mean_D = (weight_TD * x_TD).sum(0)
        deviation_D = ((weight_TD * x_TD**2).sum(0) - mean_D**2).clamp_min(1e-5).sqrt()
        torch.testing.assert_close(out_D, pool.project(torch.cat([mean_D, deviation_D])), atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        next(pool.score[2].parameters()).zero_()
    plain = StatisticsPool(DIM)
    plain.project = pool.project
    torch.testing.assert_close(pool(*batch()), plain(*batch()), atol=1e-5, rtol=1e-5)


def test_skip_is_nothing() -> None:
    x_BTD, mask_BT = batch()
    assert Skip(DIM)(x_BTD, mask_BT) is x_BTD
    assert multiply_adds(Skip(DIM), DIM, 9) == 0


def test_a_convolution_is_a_sum_over_neighbouring_frames() -> None:
    block = Convolution(DIM, 5)
    (x_TD, *_) = utterances()
    weight_DEK, bias_D = block.over_time.weight, block.over_time.bias
    assert bias_D is not None
    around_TD = torch.cat([torch.zeros(2, DIM), x_TD, torch.zeros(2, DIM)])
    by_hand_TD = torch.stack(
        [sum((around_TD[t + k] @ weight_DEK[:, :, k].T for k in range(5)), bias_D).relu() for t in range(len(x_TD))]
    )
    expected_TD = F.layer_norm(by_hand_TD, (DIM,))
    torch.testing.assert_close(block(*padded([x_TD], len(x_TD)))[0], expected_TD, atol=1e-5, rtol=1e-5)


def test_a_stem_goes_to_the_networks_width_in_equal_steps() -> None:
    stem = ConvStem(1024, 128, kernel=3, layers=3)
    shapes = [tuple(p.shape) for p in stem.parameters() if p.dim() == 3]
    assert shapes == [(725, 1024, 3), (426, 725, 3), (128, 426, 3)]


@pytest.mark.parametrize("layers", [1, 2])
def test_an_lstm_is_its_equations_step_by_step(layers: int) -> None:
    block = LSTM(DIM, layers)
    (_, _, x_TD, _) = utterances()
    expected_TD = x_TD
    for layer in range(layers):
        w_ih, w_hh, b_ih, b_hh = (
            getattr(block.lstm, f"{what}_l{layer}") for what in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h_D, c_D, states = torch.zeros(DIM), torch.zeros(DIM), []
        for x_D in expected_TD:
            i_D, f_D, g_D, o_D = (w_ih @ x_D + b_ih + w_hh @ h_D + b_hh).chunk(4)
            c_D = f_D.sigmoid() * c_D + i_D.sigmoid() * g_D.tanh()
            h_D = o_D.sigmoid() * c_D.tanh()
            states.append(h_D)
        expected_TD = torch.stack(states)
    found_BTD = block(*batch())
    torch.testing.assert_close(found_BTD[2, : len(x_TD)], F.layer_norm(expected_TD, (DIM,)), atol=1e-4, rtol=1e-4)


def test_an_lstm_hears_nothing_ahead() -> None:
    block, (x_BTD, mask_BT) = LSTM(DIM), batch()
    before_BTD = block(x_BTD, mask_BT)
    x_BTD[2, 7] += 1
    after_BTD = block(x_BTD, mask_BT)
    assert torch.equal(before_BTD[2, :7], after_BTD[2, :7])
    assert not torch.isclose(before_BTD[2, 7:11], after_BTD[2, 7:11]).all(-1).any()


def test_the_last_state_is_the_last_real_frame() -> None:
    x_BTD, mask_BT = batch()
    assert torch.equal(LastState(DIM)(x_BTD, mask_BT), torch.stack([x_TD[-1] for x_TD in utterances()]))


@torch.no_grad()
def test_attention_of_the_last_state_is_scaled_dot_product_attention() -> None:
    pool, (x_BTD, mask_BT) = LastStateAttention(DIM), batch()
    for pooled_D, weights_T, x_TD in zip(pool(x_BTD, mask_BT), pool.weights(x_BTD, mask_BT), utterances(), strict=True):
        query_D = pool.query.weight @ x_TD[-1] + pool.query.bias
        expected_T = torch.tensor([math.exp(float(x_D @ query_D) / math.sqrt(DIM)) for x_D in x_TD])
        torch.testing.assert_close(weights_T[: len(x_TD)], expected_T / expected_T.sum())
        assert not weights_T[len(x_TD) :].any()
        attended_1D = F.scaled_dot_product_attention(query_D[None, None], x_TD[None], x_TD[None])[0]
        torch.testing.assert_close(pooled_D[None], attended_1D)


def test_what_attention_tells_is_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    x_BTD, mask_BT = batch()
    monkeypatch.setattr(LastStateAttention, "weights", lambda self, x, mask: mask / mask.sum(1, keepdim=True))
    torch.testing.assert_close(LastStateAttention(DIM)(x_BTD, mask_BT), MeanPool(DIM)(x_BTD, mask_BT))


@pytest.mark.parametrize("kind", [MeanPool, LastStateAttention])
def test_a_hidden_layer_behind_a_pool(kind: type[MeanPool] | type[LastStateAttention]) -> None:
    torch.manual_seed(0)
    plain, hidden = kind(DIM), kind(DIM, hidden=True)
    weight, bias = hidden.behind.parameters()
    assert not list(plain.behind.parameters())
    plain.load_state_dict(hidden.state_dict(), strict=False)
    expected_BD = F.linear(plain(*batch()), weight, bias).clamp_min(0)
    assert torch.equal(hidden(*batch()), expected_BD)


# In the engine


@pytest.mark.parametrize("name", FACTORIES)
def test_under_autocast(name: str) -> None:
    module, (x_BTD, mask_BT) = made(name), batch()
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x_BTD, mask_BT)
        again = module(x_BTD.bfloat16(), mask_BT)
    if out.requires_grad:
        out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    full = module(x_BTD, mask_BT)
    real = slice(None) if full.dim() == 2 else mask_BT
    torch.testing.assert_close(out[real].float(), full[real], atol=0.1, rtol=0.1)
    torch.testing.assert_close(again[real].float(), full[real], atol=0.1, rtol=0.1)
    if name.startswith("LSTM"):
        assert torch.equal(out, full)


def test_an_utterance_without_a_frame_is_a_mistake_of_ours() -> None:
    x_BTD, mask_BT = batch()
    mask_BT[1] = False
    with pytest.raises(AssertionError, match="without a frame"):
        LSTM(DIM)(x_BTD, mask_BT)


def test_the_cost_of_an_lstm_counts_its_products() -> None:
    assert multiply_adds(LSTM(DIM, layers=2), DIM, 50) == 2 * 50 * 8 * DIM * DIM


OWN = """
from functools import partial
from bas.blocks import FFN, LSTM, Convolution, ConvStem, LastState, LastStateAttention
from bas.space import SearchSpace

blocks = {"Conv": partial(Convolution, kernel=5), "LSTM": LSTM}
pools = {"last": LastState, "attention": partial(LastStateAttention, hidden=True)}
space = SearchSpace(slots={"a": blocks}, pool=pools, stem=partial(ConvStem, kernel=3, layers=2))
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # as a job has it
    return eight_speakers(tmp_path_factory.mktemp("stacked"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 3], ids=["Conv > last", "Conv > attention", "LSTM > attention"])
def test_trainings_in_a_stack(features: Path, tmp_path: Path, number: int) -> None:
    (tmp_path / "own.py").write_text(OWN)
    of_runs = []
    for stacked in (False, True):
        run, console = new_run(tmp_path / f"{stacked}", features, tmp_path / "own.py", epochs="2"), quiet()
        run_jobs(run, alone(run, number), 2, 1, console, "audit", stacked=stacked)
        of_runs.append(results(run))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.count("one by one") == (number == 3), shown
    compare(of_runs[1], of_runs[0])
