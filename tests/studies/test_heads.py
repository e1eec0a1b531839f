"""The probes' heads: the same as plain layers on one state or mix each, blind to padding, and to each other."""

# mypy: disable-error-code="arg-type,operator"

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bas.studies.probe.heads import FREE, HIDDEN, KINDS, LINEAR_RATE, MEAN, SOFTMAX, Heads, input_names
from bas.training.batches import Data
from bas.training.heads import Watched
from bas.training.loop import optimise
from bas.training.settings import PRESETS

STORED, DIM, CLASSES = (0, 2, 5, 9), 5, 3
L = len(STORED)
INPUTS = ("state 0", "state 2", "state 5", "state 9", MEAN, SOFTMAX, FREE, "first 2", "first 3")


def heads(seed: int = 0, states: tuple[int, ...] = STORED) -> Heads:
    """No weight and no statistic is what it begins as."""
    torch.manual_seed(seed)
    made = Heads(states, DIM, CLASSES)
    for p in made.parameters():
        nn.init.normal_(p, std=0.5)
    for standardise in (made.standardise, made.standardise_mean):
        standardise.set(torch.randn(len(states) * DIM), torch.rand(len(states) * DIM) + 0.5)
    return made.eval()


def batch(lengths: tuple[int, ...] = (4, 7, 1, 6), states: int = L) -> tuple[Tensor, Tensor]:
    x_BTD = torch.randn(len(lengths), max(lengths), states * DIM, generator=torch.Generator().manual_seed(1))
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return x_BTD * mask_BT[..., None], mask_BT


def weights(made: Heads, kind: str) -> dict[str, Tensor]:
    """The weights over the states by input, written out."""
    mixes = made.linear_mixes if kind == "linear" else made.dense_mixes
    free, every, *firsts = [mix.theta for mix in mixes.learnt]
    weights_of = dict(zip(INPUTS, torch.eye(L), strict=False))
    weights_of |= {MEAN: torch.full((L,), 1 / L), SOFTMAX: every.exp() / every.exp().sum(), FREE: free}
    for k, theta_K in enumerate(firsts, 2):
        weights_of[f"first {k}"] = torch.cat([theta_K.exp() / theta_K.exp().sum(), torch.zeros(L - k)])
    return weights_of


def plain(weight_DF: Tensor, bias_1F: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight_DF.shape)
    with torch.no_grad():
        layer.weight.copy_(weight_DF.T)
        layer.bias.copy_(bias_1F[0])
    return layer


def test_what_is_read() -> None:
    assert input_names(STORED) == INPUTS
    assert input_names((3, 7)) == ("state 3", "state 7", MEAN, SOFTMAX, FREE)
    assert Heads(STORED, DIM, CLASSES).names == [f"{kind} {name}" for kind in KINDS for name in INPUTS]


@torch.no_grad()
def test_each_head_is_plain_layers_on_its_own_input() -> None:
    made = heads()
    x_BTD, mask_BT = batch()
    out_BHO = made(x_BTD, mask_BT)
    assert out_BHO.shape == (len(x_BTD), 2 * len(INPUTS), CLASSES)
    mean, scale = made.standardise.mean_I, made.standardise.scale_I
    of_means, by_means = made.standardise_mean.mean_I, made.standardise_mean.scale_I
    for i, name in enumerate(INPUTS):
        linear = plain(made.linear.weight_IDF[i], made.linear.bias_I1F[i])
        first, second, last = (plain(p.weight_IDF[i], p.bias_I1F[i]) for p in (made.first, made.second, made.last))
        assert first.out_features == second.out_features == HIDDEN
        for b in range(len(x_BTD)):
            x_TD = x_BTD[b, mask_BT[b]]
            mean_LD = ((x_TD.mean(0) - of_means) * by_means).reshape(L, DIM)
            expected_O = linear(weights(made, "linear")[name] @ mean_LD)
            torch.testing.assert_close(out_BHO[b, made.names.index(f"linear {name}")], expected_O)
            x_TLD = ((x_TD - mean) * scale).reshape(-1, L, DIM)
            mixed_TD = torch.einsum("l,tld->td", weights(made, "dense")[name], x_TLD)
            expected_O = last(second(first(mixed_TD).relu()).relu().mean(0))
            found_O = out_BHO[b, made.names.index(f"dense {name}")]
            torch.testing.assert_close(found_O, expected_O, rtol=1e-4, atol=1e-3)  # sums over 256 of size 100


@torch.no_grad()
def test_padding_and_company_change_nothing() -> None:
    made = heads()
    x_BTD, mask_BT = batch()
    expected = made(x_BTD, mask_BT)
    garbage = torch.where(mask_BT[..., None], x_BTD, torch.tensor(float("nan")))
    assert torch.equal(made(garbage, mask_BT), expected)
    longer = F.pad(x_BTD, (0, 0, 0, 5), value=1e6), F.pad(mask_BT, (0, 5))
    assert torch.equal(made(*longer), expected)
    for b in range(len(x_BTD)):
        alone = made(x_BTD[b : b + 1, mask_BT[b]], mask_BT[b : b + 1, mask_BT[b]])
        torch.testing.assert_close(alone[0], expected[b], rtol=1e-4, atol=1e-3)


# --- the mixes ---


def test_a_mix_sums_the_states_with_its_own_weights() -> None:
    made = heads()
    for kind in KINDS:
        weights_of = {name: torch.tensor(made.mix(f"{kind} {name}")) for name in INPUTS}
        for name, expected_L in weights(made, kind).items():
            torch.testing.assert_close(weights_of[name], expected_L)
        for name in (SOFTMAX, "first 2", "first 3"):
            assert float(weights_of[name].sum()) == pytest.approx(1, abs=1e-6)
            assert float(weights_of[name].std()) > 0.01, "no longer uniform"
        assert weights_of["first 2"][2:].tolist() == [0, 0]
        assert weights_of["first 3"][3:].tolist() == [0]
        assert float(weights_of[FREE].sum()) != pytest.approx(1, abs=0.01)
    assert made.mix(f"linear {FREE}") != made.mix(f"dense {FREE}"), "each kind learns its own"


def test_a_mix_begins_uniform() -> None:
    made = Heads(STORED, DIM, CLASSES)
    for name in (MEAN, SOFTMAX, FREE):
        assert made.mix(f"dense {name}") == [1 / L] * L
    assert made.mix("linear first 3") == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


@torch.no_grad()
def test_without_the_cumulative_mixes_the_others_are_the_same() -> None:
    every, fewer = heads(), Heads(STORED, DIM, CLASSES, cumulative=False)
    assert fewer.names == [name for name in every.names if " first " not in name]
    held = every.state_dict()
    fewer.load_state_dict({name: held[name][: len(value)] for name, value in fewer.state_dict().items()})
    x_BTD, mask_BT = batch()
    kept = [every.names.index(name) for name in fewer.names]
    torch.testing.assert_close(fewer.eval()(x_BTD, mask_BT), every(x_BTD, mask_BT)[:, kept])


@torch.no_grad()
def test_one_state_has_no_mix() -> None:
    made = heads(states=(7,))
    assert made.names == ["linear state 7", "dense state 7"]
    assert made.mix("dense state 7") == [1.0]
    assert not [name for name, _ in made.named_parameters() if "mix" in name]
    x_BTD, mask_BT = batch(states=1)
    assert made(x_BTD, mask_BT).shape == (len(x_BTD), 2, CLASSES)


# --- the heads beside each other ---


def gradients(made: Heads, losses: Tensor) -> dict[str, Tensor]:
    """By head and parameter; nothing of a head that the losses do not touch but zeros."""
    made.zero_grad()
    losses.sum().backward(retain_graph=True)
    gradient_of = {}
    for kind in KINDS:
        for i, name in enumerate(INPUTS):
            for n, p in enumerate(made.of_kind(kind)):
                gradient_of[f"{kind} {name}/{n}"] = torch.zeros_like(p[i]) if p.grad is None else p.grad[i].clone()
        for i, p in made.mixes_of(kind).of_inputs():
            gradient_of[f"{kind} {INPUTS[i]}/mix"] = torch.zeros_like(p) if p.grad is None else p.grad.clone()
    return gradient_of


def test_a_head_learns_what_it_would_alone() -> None:
    made = heads()
    x_BTD, mask_BT = batch()
    out_BHO = made(x_BTD, mask_BT)
    losses_H = torch.stack([F.cross_entropy(out_BO, torch.tensor([0, 2, 1, 1])) for out_BO in out_BHO.unbind(1)])
    together = gradients(made, losses_H)
    assert sum(p.numel() for p in made.parameters()) == sum(g.numel() for g in together.values()), "nothing is shared"
    for h, head in enumerate(made.names):
        alone = gradients(made, losses_H[h])
        for where, gradient in alone.items():
            if where.startswith(f"{head}/"):
                torch.testing.assert_close(gradient, together[where])
                assert gradient.any(), where
            else:
                assert not gradient.any(), (head, where)


def data(utterances: int = 12) -> Data:
    generator = torch.Generator().manual_seed(2)
    lengths_U = torch.randint(1, 5, (utterances,), generator=generator)
    frames_ND = torch.randn(int(lengths_U.sum()), L * DIM, generator=generator)
    means_UD = torch.stack([x_TD.mean(0) for x_TD in frames_ND.split(lengths_U.tolist())])
    return Data(frames_ND, lengths_U.cumsum(0) - lengths_U, lengths_U, torch.arange(utterances) % 3, means_UD, None, L)


def test_linear_heads_learn_faster_and_mixes_at_the_rate_of_mixes() -> None:
    """One step of plain gradient descent."""
    made, of = heads(), data()
    sgd = {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "epochs": 1}
    settings = replace(PRESETS["cpu"], **sgd, batch_size=12, lr=0.01, theta_lr=0.3)
    x_BTD, mask_BT, targets_B = of.batch(torch.arange(12))

    def loss(out_BHO: Tensor, targets_B: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(out_BO, targets_B) for out_BO in out_BHO.unbind(1)]).sum()

    gradient = torch.autograd.grad(loss(made(x_BTD, mask_BT), targets_B), list(made.parameters()))
    before = [p.detach().clone() for p in made.parameters()]
    optimise(made, lambda x, mask, _: made(x, mask), loss, of, torch.arange(12), settings, 0, lambda epoch: {})
    rates = {"linear.": LINEAR_RATE * 0.01, "linear_mixes.learnt": 0.3, "dense_mixes.learnt": 0.3}
    for (name, now), old, grad in zip(made.named_parameters(), before, gradient, strict=True):
        rate = next((rate for start, rate in rates.items() if name.startswith(start)), 0.01)
        assert grad.any(), name
        torch.testing.assert_close(now.detach(), old - rate * grad, rtol=1e-4, atol=1e-5, msg=name)


# --- each head as it was at its best ---


@torch.no_grad()
def test_each_head_keeps_its_own_best() -> None:
    watched = Watched(heads())
    x_BTD, mask_BT = batch()
    count = len(watched.heads.names)
    generator = torch.Generator().manual_seed(3)
    scores_EH = torch.randint(0, 4, (6, count), generator=generator).float() - 10  # of equals there are many
    scores_EH[2, 0], scores_EH[5, 1] = torch.nan, torch.nan
    scores_EH[1, -1] = 5.0
    outs, mixes = [], []
    for score_H in scores_EH:
        for p in watched.heads.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
        outs.append(watched(x_BTD, mask_BT))
        mixes.append([watched.heads.mix(name) for name in watched.heads.names])
        watched.keep(score_H)
    known_EH = scores_EH.nan_to_num(-torch.inf)
    first_best = [known_EH[:, h].tolist().index(float(known_EH[:, h].max())) for h in range(count)]
    assert len(set(first_best)) > 3
    assert torch.equal(watched.score_H, known_EH.max(0).values)
    kept = watched.best(x_BTD, mask_BT)
    for h, (name, epoch) in enumerate(zip(watched.heads.names, first_best, strict=True)):
        torch.testing.assert_close(kept[:, h], outs[epoch][:, h], rtol=1e-4, atol=1e-2, msg=name)
        assert watched.best.mix(name) == mixes[epoch][h], name
    assert not any(p.requires_grad for p in watched.best.parameters())


def test_bf16_keeps_what_differs_beside_a_large_mean() -> None:
    torch.manual_seed(0)
    x_BTD, mask_BT = 20 + 0.3 * torch.randn(64, 1, 8) + torch.randn(64, 40, 8), torch.ones(64, 40, dtype=torch.bool)
    made, mean_BD = Heads((0,), 8, 2).eval(), x_BTD.mean(1)
    made.standardise_mean.set(mean_BD.mean(0), mean_BD.std(0))
    made.standardise.set(x_BTD.mean((0, 1)), x_BTD.std((0, 1)))
    with torch.no_grad():
        exact = made(x_BTD, mask_BT)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = made(x_BTD, mask_BT).float()
    for head in (0, 1):
        assert (outputs - exact)[:, head].std() < 0.02 * exact[:, head].std()
