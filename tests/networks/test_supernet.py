"""Blocks and supernet against the paper's formulas written by hand and against PyTorch's own modules."""

# mypy: disable-error-code="operator"

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn

from bas.blocks import FFN, MSA, Attention, MeanPool, SimpleFFN, TransformerBlock
from bas.errors import UserError
from bas.networks.network import FrameLinear, Mixed, Network, Standardise, build, count_parameters
from bas.networks.supernet import Supernet
from bas.space import Architecture, SearchSpace

DIM = 16
HEADS = 4


def batch(seed: int = 0, dim: int = DIM) -> tuple[Tensor, Tensor]:
    """Three utterances of 7, 4 and 1 frames; noise on the padding too."""
    x_BTD = torch.randn(3, 7, dim, generator=torch.Generator().manual_seed(seed))
    return x_BTD, torch.arange(7) < torch.tensor([7, 4, 1])[:, None]


M = TypeVar("M", bound=nn.Module)


def randomised(module: M, seed: int = 1) -> M:
    """With every parameter drawn at random, LayerNorm's and the biases too: a default of 1 or 0 hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(DIM))
    return module.eval()


def on_real(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    return x_BTD[mask_BT]


# --- blocks ---


def test_attention_is_equations_1_and_2_with_an_output_projection() -> None:
    x_BTD, mask_BT = batch()
    attention = randomised(Attention(DIM, HEADS))
    q_BTD, k_BTD, v_BTD = attention.qkv(x_BTD).chunk(3, dim=-1)
    for b, length in enumerate(mask_BT.sum(1).tolist()):
        heads = []
        for h in range(HEADS):
            columns = slice(h * DIM // HEADS, (h + 1) * DIM // HEADS)
            q_TK, k_TK, v_TK = (part[b, :length, columns] for part in (q_BTD, k_BTD, v_BTD))
            heads.append((q_TK @ k_TK.T / math.sqrt(DIM // HEADS)).softmax(-1) @ v_TK)
        expected_TD = torch.cat(heads, dim=-1) @ attention.out.weight.T + attention.out.bias
        torch.testing.assert_close(attention(x_BTD, mask_BT)[b, :length], expected_TD)


def test_attention_equals_pytorchs() -> None:
    x_BTD, mask_BT = batch()
    ours = randomised(Attention(DIM, HEADS))
    theirs = nn.MultiheadAttention(DIM, HEADS, batch_first=True)
    load_attention(theirs, ours)
    expected_BTD, _ = theirs(x_BTD, x_BTD, x_BTD, key_padding_mask=~mask_BT)
    torch.testing.assert_close(on_real(ours(x_BTD, mask_BT), mask_BT), on_real(expected_BTD, mask_BT))


def load_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )


def layer_norm(x_BTD: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred_BTD = x_BTD - x_BTD.mean(-1, keepdim=True)
    return centred_BTD / (centred_BTD.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def perceptron(x_BTD: Tensor, ffn: nn.Sequential) -> Tensor:
    inner, _, outer = ffn
    return (x_BTD @ inner.weight.T + inner.bias).clamp_min(0) @ outer.weight.T + outer.bias


def test_transformer_block_is_equation_3_with_the_vanilla_transformers_norms() -> None:
    x_BTD, mask_BT = batch()
    block = randomised(TransformerBlock(DIM, HEADS))
    inner_BTD = layer_norm(block.attention(x_BTD, mask_BT) + x_BTD, block.norm1)
    expected_BTD = layer_norm(perceptron(inner_BTD, block.ffn) + inner_BTD, block.norm2)
    torch.testing.assert_close(block(x_BTD, mask_BT), expected_BTD)


def test_transformer_block_equals_pytorchs() -> None:
    x_BTD, mask_BT = batch()
    ours = randomised(TransformerBlock(DIM, HEADS))
    theirs = nn.TransformerEncoderLayer(
        DIM, HEADS, 4 * DIM, dropout=0.0, activation="relu", batch_first=True, norm_first=False
    )
    load_attention(theirs.self_attn, ours.attention)
    for mine, other in (
        (ours.ffn[0], theirs.linear1),
        (ours.ffn[2], theirs.linear2),
        (ours.norm1, theirs.norm1),
        (ours.norm2, theirs.norm2),
    ):
        other.load_state_dict(mine.state_dict())
    expected_BTD = theirs(x_BTD, src_key_padding_mask=~mask_BT)
    torch.testing.assert_close(on_real(ours(x_BTD, mask_BT), mask_BT), on_real(expected_BTD, mask_BT))


def test_msa_and_ffn_are_their_sub_module_and_a_norm() -> None:
    x_BTD, mask_BT = batch()
    msa, ffn, simple = randomised(MSA(DIM, HEADS)), randomised(FFN(DIM)), randomised(SimpleFFN(DIM))
    torch.testing.assert_close(msa(x_BTD, mask_BT), layer_norm(msa.attention(x_BTD, mask_BT), msa.norm))
    torch.testing.assert_close(ffn(x_BTD, mask_BT), layer_norm(perceptron(x_BTD, ffn.ffn), ffn.norm))
    torch.testing.assert_close(simple(x_BTD, mask_BT), perceptron(x_BTD, simple.ffn))


@pytest.mark.parametrize(("block", "last"), [(MSA, "attention.out"), (FFN, "ffn.2")])
def test_msa_and_ffn_have_no_skip_connection(block: type[MSA | FFN], last: str) -> None:
    x_BTD, mask_BT = batch()
    module = randomised(block(DIM))
    with torch.no_grad():
        for p in module.get_submodule(last).parameters():
            p.zero_()
    # With the sub-module silenced nothing of the input is left.
    torch.testing.assert_close(module(x_BTD, mask_BT), module.norm.bias.expand_as(x_BTD))


def test_ffn_mixes_no_frames_and_attention_does() -> None:
    x_BTD, mask_BT = batch()
    other_BTD = x_BTD.clone()
    other_BTD[0, 3] += 1.0
    frames = torch.arange(7) != 3
    for block, mixes in ((FFN(DIM), False), (MSA(DIM), True), (TransformerBlock(DIM), True)):
        moved = (block(x_BTD, mask_BT) - block(other_BTD, mask_BT))[0, frames].abs().max() > 1e-4
        assert bool(moved) == mixes


@pytest.mark.parametrize("block", [TransformerBlock, MSA])
def test_heads_that_do_not_divide_the_width_are_refused(block: type[TransformerBlock | MSA]) -> None:
    with pytest.raises(UserError, match="num_heads=8 does not divide the width 12"):
        block(12, num_heads=8)


def test_mean_pool_ignores_padding() -> None:
    x_BTD, mask_BT = batch()
    pool = MeanPool(DIM)
    expected_BD = torch.stack([x_TD[m].mean(0) for x_TD, m in zip(x_BTD, mask_BT, strict=True)])
    torch.testing.assert_close(pool(x_BTD, mask_BT), expected_BD)
    x_BTD[~mask_BT] = torch.nan
    torch.testing.assert_close(pool(x_BTD, mask_BT), expected_BD)


@pytest.mark.parametrize(
    ("block", "count"),
    [
        (TransformerBlock, lambda d: 12 * d**2 + 13 * d),  # 4 D^2 + 4 D attention, 8 D^2 + 5 D perceptron, 4 D norms
        (MSA, lambda d: 4 * d**2 + 6 * d),
        (FFN, lambda d: 8 * d**2 + 7 * d),
        (SimpleFFN, lambda d: 2 * d**2 + 2 * d),
        (MeanPool, lambda d: 0),
    ],
)
@pytest.mark.parametrize("dim", [16, 1024])
def test_parameters_against_a_count_by_hand(block: type[nn.Module], count: Callable[[int], int], dim: int) -> None:
    with torch.device("meta"):
        assert count_parameters(block(dim)) == count(dim)


# --- supernet ---

SPACE = SearchSpace({"a": {"MSA": MSA, "FFN": FFN}, "b": {"FFN": FFN}}, MeanPool)


def test_mixed_is_the_gate_weighted_sum() -> None:
    x_BTD, mask_BT = batch()
    candidates = {"MSA+FFN": TransformerBlock(DIM), "MSA": MSA(DIM), "FFN": FFN(DIM)}
    gates = torch.tensor([0.5, 0.2, 0.3])
    expected_BTD = sum(g * m(x_BTD, mask_BT) for g, m in zip(gates, candidates.values(), strict=True))
    torch.testing.assert_close(Mixed(candidates)(x_BTD, mask_BT, gates), expected_BTD)


def test_each_utterance_may_have_its_own_gate() -> None:
    x_BTD, mask_BT = batch()
    candidates = {"MSA": MSA(DIM), "FFN": FFN(DIM)}
    gates_CB = torch.tensor([[0.5, 1.0, 0.0], [0.5, 0.0, 1.0]])
    expected_BTD = sum(g[:, None, None] * m(x_BTD, mask_BT) for g, m in zip(gates_CB, candidates.values(), strict=True))
    torch.testing.assert_close(Mixed(candidates)(x_BTD, mask_BT, gates_CB), expected_BTD)
    pools = {"one": MeanPool(DIM), "other": MeanPool(DIM)}
    expected_BD = gates_CB.sum(0)[:, None] * pools["one"](x_BTD, mask_BT)
    torch.testing.assert_close(Mixed(pools)(x_BTD, mask_BT, gates_CB), expected_BD)


def test_a_candidate_that_is_not_drawn_is_not_computed() -> None:
    class Never(nn.Module):
        def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
            raise AssertionError

    x_BTD, mask_BT = batch()
    block = FFN(DIM)
    mixed = Mixed({"never": Never(), "FFN": block})
    assert torch.equal(mixed(x_BTD, mask_BT, [None, torch.ones(())]), block(x_BTD, mask_BT))


def test_a_search_starts_undecided() -> None:
    for p in Supernet(SPACE, DIM, DIM, 4).probabilities().values():
        torch.testing.assert_close(p, torch.full_like(p, 1 / len(p)))


def test_argmax_takes_the_largest_theta_of_each_part() -> None:
    space = SearchSpace({"a": {"MSA": MSA, "FFN": FFN}, "b": {"MSA": MSA, "FFN": FFN}}, MeanPool)
    supernet = Supernet(space, DIM, DIM, 4)
    with torch.no_grad():
        supernet.mixed_parts()["a"].theta.copy_(torch.tensor([-0.2, 0.1]))
        supernet.mixed_parts()["b"].theta.copy_(torch.tensor([-1.0, -1.1]))
    assert supernet.argmax() == Architecture((("a", "FFN"), ("b", "MSA")))
    assert supernet.probabilities()["a"].tolist() == pytest.approx([1 / (1 + math.exp(0.3)), 1 / (1 + math.exp(-0.3))])


def test_a_network_is_standardise_stem_slots_pool_head() -> None:
    x_BTI, mask_BT = batch(dim=5)
    network = randomised(build(SPACE, Architecture((("a", "MSA"), ("b", "FFN"))), 5, DIM, 4, dropout=0.5))
    network.standardise.set(torch.arange(5.0), torch.full((5,), 2.0))
    assert list(network.parts) == ["stem", "a", "b", "pool"]
    x = network.parts["stem"].project((x_BTI - torch.arange(5.0)) / 2)
    x = network.parts["b"](network.parts["a"](x, mask_BT), mask_BT)
    torch.testing.assert_close(network(x_BTI, mask_BT), network.head(network.parts["pool"](x, mask_BT)))


def test_dropout_is_in_training_only_after_the_stem_and_before_the_head() -> None:
    seen: dict[str, Tensor] = {}

    class Look(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor, mask_BT: Tensor) -> Tensor:
            seen[self.name] = x
            return x.mean(1) if self.name == "pool" else x

    parts = {name: Look(name) for name in ("stem", "slot", "pool")}
    network = Network(parts, 64, 64, 2, dropout=0.5)
    network.head.register_forward_pre_hook(lambda _, args: seen.update(head=args[0]))
    network(torch.ones(4, 9, 64), torch.ones(4, 9, dtype=torch.bool))
    dropped = {name: float((x == 0).float().mean()) for name, x in seen.items()}
    assert dropped["stem"] == 0
    assert dropped["slot"] == dropped["pool"] == pytest.approx(0.5, abs=0.1)
    assert dropped["head"] == pytest.approx(0.5, abs=0.1)
    network.eval()(torch.ones(4, 9, 64), torch.ones(4, 9, dtype=torch.bool))
    assert all((x == 1).all() for x in seen.values())


@pytest.mark.parametrize(("in_dim", "count"), [(DIM, 0), (12, 12 * DIM + DIM)])
def test_frames_are_projected_only_to_another_width(in_dim: int, count: int) -> None:
    x_BTI, mask_BT = batch(dim=in_dim)
    stem = FrameLinear(in_dim, DIM)
    assert count_parameters(stem) == count
    assert torch.equal(stem(x_BTI, mask_BT), x_BTI) == (count == 0)


def test_network_and_supernet_parameters_against_a_count_by_hand() -> None:
    msa, ffn = 4 * DIM**2 + 6 * DIM, 8 * DIM**2 + 7 * DIM
    stem, head = 12 * DIM + DIM, DIM * 4 + 4
    thetas = 2 + 1
    assert count_parameters(Supernet(SPACE, 12, DIM, 4)) == stem + msa + 2 * ffn + head + thetas
    assert count_parameters(build(SPACE, Architecture((("a", "MSA"), ("b", "FFN"))), 12, DIM, 4)) == (
        stem + msa + ffn + head
    )


def test_standardise() -> None:
    x_BTI = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 0, 1e-3]) + 7
    standardise = Standardise(4)
    assert torch.equal(standardise(x_BTI), x_BTI)
    standardise.set(x_BTI.mean((0, 1)), x_BTI.std((0, 1), correction=0))
    out_BTI = standardise(x_BTI)
    torch.testing.assert_close(out_BTI.mean((0, 1)), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(out_BTI.std((0, 1), correction=0), torch.tensor([1.0, 1, 0, 1]), atol=1e-3, rtol=0)
    # What never moved in training is not blown up when it first does.
    assert standardise(torch.full((1, 1, 4), 7.5))[0, 0, 2].item() == pytest.approx(0.5, abs=1e-4)
    other = Standardise(4)
    other.load_state_dict(standardise.state_dict())
    assert torch.equal(other(x_BTI), out_BTI)


@pytest.mark.parametrize("name", ["keys", "train", "forward"])
def test_names_that_module_dict_keeps_are_refused(name: str) -> None:
    for slots in ({name: {"FFN": FFN}}, {"a": {name: FFN}}):
        with pytest.raises(UserError, match=f"'{name}'.*another name"):
            Supernet(SearchSpace(slots, MeanPool), DIM, DIM, 2)
