"""Probes of every hidden state and of mixes of states, trained side by side in one pass over the data.

The heads of *Decoding Emotions* (arXiv 2308.08713). An input is what one head reads: a state, or a mix of states. Heads
share only the batches, and the loss is the sum over heads, so each head learns what it would learn alone.

Axes: B utterances, T frames, N real frames of a batch end to end, L states, D width of a state, I inputs, H heads,
F hidden width, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from bas.networks.network import LayerMix, Standardise
from bas.training.heads import SideBySide, Stacked, adopt_stacked, state_name

HIDDEN = 256
"""Width of the dense head's two pointwise layers, as in the paper."""

LINEAR_RATE = 10.0
"""Factor on the learning rate of a linear head: at the rate of a deep head it would end half trained."""

KINDS = ("linear", "dense")
MEAN, SOFTMAX, FREE = "uniform mean", "softmax mix", "1x1 mix"


def input_names(states: Sequence[int], cumulative: bool = True) -> tuple[str, ...]:
    """The inputs of the heads of either kind, in order. states: the numbers of the stored states.

    Every state. With several states also their uniform mean, SUPERB's softmax mix, the paper's mix with free weights (a
    1x1 convolution over states) and, if cumulative, the softmax mix of the first k states for each 1 < k < L.
    """
    alone = [state_name(s) for s in states]
    if len(states) == 1:
        return tuple(alone)
    return (*alone, MEAN, SOFTMAX, FREE, *(f"first {k}" for k in _cumulated(len(states), cumulative)))


def _cumulated(states: int, cumulative: bool) -> range:
    return range(2, states if cumulative else 2)


class Mixes(nn.Module):
    """The weights of every input over the states, `(I, L)`: one-hot for a single state, learnt for a mix."""

    alone_IL: Tensor

    def __init__(self, states: int, cumulative: bool) -> None:
        super().__init__()
        fixed_IL = torch.eye(states)
        if states > 1:
            fixed_IL = torch.cat([fixed_IL, torch.full((1, states), 1 / states)])
        self.register_buffer("alone_IL", fixed_IL)
        # The first is the 1x1 mix: its theta is the weights themselves, and trains at the same rate as the others.
        sizes = (states, states, *_cumulated(states, cumulative)) if states > 1 else ()
        self.learnt = nn.ModuleList(map(LayerMix, sizes))
        if states > 1:
            nn.init.constant_(self._mixes()[0].theta, 1 / states)

    def forward(self) -> Tensor:
        if not self.learnt:
            return self.alone_IL
        states = self.alone_IL.shape[1]
        free, *soft = [mix.theta for mix in self._mixes()]
        whole, *rest = [nn.functional.pad(theta.softmax(0), (0, states - len(theta))) for theta in soft]
        return torch.cat([self.alone_IL, torch.stack([whole, free, *rest])])

    def of_inputs(self) -> list[tuple[int, nn.Parameter]]:
        """The index of its input, and each parameter."""
        if not self.learnt:
            return []
        free, whole, *rest = [mix.theta for mix in self._mixes()]
        return list(enumerate([whole, free, *rest], len(self.alone_IL)))

    def _mixes(self) -> list[LayerMix]:
        return [mix for mix in self.learnt if isinstance(mix, LayerMix)]


class Heads(SideBySide):
    """A linear and a dense head on each input, `(B, T, L * D)` frames to `(B, H, O)`: all linear ones first, then all
    dense.

    Linear: the mean over the real frames, then a linear layer. Dense: two pointwise layers of width HIDDEN with ReLU on
    every frame, the mean over the real frames, a linear layer. Before a mix each dimension of each state is
    standardised: over frames for the dense heads; over means for the linear ones, because means deviate much less.
    """

    def __init__(self, states: Sequence[int], dim: int, outputs: int, cumulative: bool = True) -> None:
        """states: the numbers of the states; dim: the width of one; cumulative: see `input_names`."""
        super().__init__()
        inputs = input_names(states, cumulative)
        self.names = [f"{kind} {name}" for kind in KINDS for name in inputs]
        self.states = len(states)
        self.standardise = Standardise(len(states) * dim)
        self.standardise_mean = Standardise(len(states) * dim)
        self.linear_mixes, self.dense_mixes = (Mixes(len(states), cumulative) for _ in KINDS)
        self.linear = Stacked(len(inputs), dim, outputs, LINEAR_RATE)
        self.first = Stacked(len(inputs), dim, HIDDEN)
        self.second = Stacked(len(inputs), HIDDEN, HIDDEN)
        self.last = Stacked(len(inputs), HIDDEN, outputs)

    def mixes_of(self, kind: str) -> Mixes:
        return self.linear_mixes if kind == "linear" else self.dense_mixes

    def of_kind(self, kind: str) -> list[nn.Parameter]:
        """The parameters of the heads of one kind without its mixes; inputs are the first axis."""
        layers = [self.linear] if kind == "linear" else [self.first, self.second, self.last]
        return [p for layer in layers for p in layer.parameters()]

    def mix(self, name: str) -> list[float]:
        """The weights over the states with which a head reads."""
        kind, _, _ = name.partition(" ")
        index = self.names.index(name) % (len(self.names) // len(KINDS))
        weights: list[float] = self.mixes_of(kind)()[index].tolist()
        return weights

    @torch.no_grad()
    def begin_at(self, outputs_O: Tensor) -> None:
        """Let every head's last bias be these outputs: means are standardised, so a bias alone learns the level."""
        for layer in (self.linear, self.last):
            layer.bias_I1F.copy_(outputs_O.expand_as(layer.bias_I1F))

    @torch.no_grad()
    def adopt(self, others: Self, which_H: Tensor) -> None:
        for kind, which_I in zip(KINDS, which_H.chunk(len(KINDS)), strict=True):
            adopt_stacked(self.of_kind(kind), others.of_kind(kind), which_I)
            mixes = zip(self.mixes_of(kind).of_inputs(), others.mixes_of(kind).of_inputs(), strict=True)
            for (index, own), (_, other) in mixes:
                if which_I[index]:
                    own.copy_(other)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_ND = x_BTD[mask_BT]
        # Means of utterances differ little from each other, which bfloat16 would lose.
        with torch.autocast(x_ND.device.type, enabled=False):
            mean_LBD = self._by_state(self.standardise_mean(_means(x_ND, mask_BT)))
        linear_IBO = self.linear(_mixed(self.linear_mixes(), mean_LBD))
        x_LND = self._by_state(self.standardise(x_ND))
        hidden_INF = self.second(self.first(_mixed(self.dense_mixes(), x_LND)).relu()).relu()
        dense_IBO = self.last(_means(hidden_INF, mask_BT))
        return torch.cat([linear_IBO, dense_IBO]).transpose(0, 1)

    def _by_state(self, x_ND: Tensor) -> Tensor:
        return x_ND.reshape(len(x_ND), self.states, -1).transpose(0, 1)


def _mixed(weights_IL: Tensor, x_LND: Tensor) -> Tensor:
    """The frames of each input, `(I, N, D)`; those of a single state are taken as they are."""
    states = len(x_LND)
    if len(weights_IL) == states:
        return x_LND
    mixed = torch.einsum("il,lnd->ind", weights_IL[states:], x_LND)
    return torch.cat([x_LND, mixed])


def _means(x_ND: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over each utterance's real frames, `(..., N, D)` to `(..., B, D)`."""
    of_N = torch.arange(len(mask_BT), device=mask_BT.device)[:, None].expand_as(mask_BT)[mask_BT]
    # A matrix product, because a scatter would take longer than all layers together.
    share_BN = (torch.arange(len(mask_BT), device=of_N.device)[:, None] == of_N) / mask_BT.sum(1)[:, None]
    return share_BN.to(x_ND.dtype) @ x_ND
