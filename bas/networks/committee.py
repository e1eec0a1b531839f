"""Several networks of one architecture whose outputs are averaged."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bas.networks.network import Network


class Committee(nn.Module):
    """The mean of the outputs of its networks, logits for classes.

    Each was trained without another part of the training units, by which it was stopped: a cross-validation committee
    (Parmanto, Munro and Doyle, NIPS 1995; Krogh and Vedelsby, NIPS 1994).
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """As `Network`."""
        return torch.stack([network(x_BTI, mask_BT) for network in self.networks]).mean(0)

    def mix_weights(self) -> Tensor | None:
        """The mean over the networks of the weights of their layer mixes, `(L,)` float64; None without a mix."""
        weights = [network.mix_weights() for network in self.networks]  # type: ignore[operator]
        return None if weights[0] is None else torch.stack(weights).mean(0)
