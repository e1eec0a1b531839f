"""Several networks whose outputs are averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Committee(nn.Module):
    """The mean of the outputs of its networks, logits for classes.

    Networks of one architecture: each was trained without another part of the training units, by which it was stopped,
    a cross-validation committee (Parmanto, Munro and Doyle, NIPS 1995; Krogh and Vedelsby, NIPS 1994). Or models of
    several architectures, such as committees: an ensemble.

    weights: of each in the mean; None: all the same.
    """

    def __init__(self, networks: Sequence[nn.Module], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.weights = weights or [1 / len(networks)] * len(networks)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """As `Network`."""
        pairs = zip(self.networks, self.weights, strict=True)
        return torch.stack([weight * network(x_BTI, mask_BT) for network, weight in pairs]).sum(0)

    def mix_weights(self) -> Tensor | None:
        """The mean over the networks that have a layer mix of its weights, `(L,)` float64; None without a mix."""
        every = [network.mix_weights() for network in self.networks]  # type: ignore[operator]
        mixes = [(mix, weight) for mix, weight in zip(every, self.weights, strict=True) if mix is not None]
        if not mixes:
            return None
        return torch.stack([weight * mix for mix, weight in mixes]).sum(0) / sum(weight for _, weight in mixes)
