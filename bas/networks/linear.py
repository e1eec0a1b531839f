"""A linear model of a summary over time, with the interface of a network.

Axes: B utterances, T frames, I the features' width, K values of the summary, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bas.networks.network import Standardise, State

Summary = Callable[[Tensor, Tensor], Tensor]
"""Frames `(B, T, I)` and mask `(B, T)` to `(B, K)`, without parameters: the `summary` of a pool of `bas.blocks`."""


@dataclass(frozen=True)
class OfState:
    """A summary of one of several states that are side by side. index: its place among `states` of them."""

    summary: Summary
    index: int
    states: int

    def __call__(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """`(B, T, L * I)` and mask to `(B, K)`."""
        return self.summary(State(self.index, self.states)(x_BTI), mask_BT)


class LinearModel(nn.Module):
    """Summary over time, standardisation and linear map, in place of an architecture without a block.

    See `bas.runs.solved`. It computes in float32 under autocast too, as it was solved.
    """

    def __init__(self, summary: Summary, in_dim: int, outputs: int) -> None:
        super().__init__()
        self.summary = summary
        one = torch.zeros(1, 1, in_dim, device="cpu"), torch.ones(1, 1, dtype=torch.bool, device="cpu")
        values = summary(*one).shape[1]  # on the CPU also where the model is made on the device meta
        self.standardise = Standardise(values)
        self.head = nn.Linear(values, outputs)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        """Features `(B, T, I)`, those of several states side by side, and mask `(B, T)` to outputs `(B, O)`."""
        with torch.autocast(x_BTI.device.type, enabled=False):
            return self.of_summary(self.summary(x_BTI.float(), mask_BT))

    def of_summary(self, summary_BK: Tensor) -> Tensor:
        """The outputs for utterances whose summary is known, `(B, O)`."""
        out: Tensor = self.head(self.standardise(summary_BK))
        return out

    def mix_weights(self) -> None:
        """A linear model has a weight for each value of each state; it mixes none."""
