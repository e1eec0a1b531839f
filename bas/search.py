"""Differentiable search: the paper's single-level Gumbel-softmax over a supernet (Fang et al. 2023, section 2.2).

A strategy is how the gates of a training step are drawn from the architecture parameters; the loop is `bas.loop`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bas.batches import Data
from bas.loop import Epoch, Record, optimise
from bas.settings import Settings
from bas.space import Architecture
from bas.supernet import Supernet

Strategy = Callable[[Tensor, float], Tensor]
"""`(theta, temperature) -> gates`, drawn once per part and batch."""


def gumbel_softmax(theta: Tensor, temperature: float) -> Tensor:
    """softmax((theta + g) / temperature) with g ~ Gumbel(0, 1): eq. 4, one draw for the whole batch."""
    # Exponential draws cannot give log(0) here: float32's smallest positive number has a finite logarithm.
    gumbel = -torch.empty_like(theta).exponential_().clamp_min(torch.finfo(theta.dtype).tiny).log()
    return ((theta + gumbel) / temperature).softmax(0)


@dataclass(frozen=True)
class Found:
    """The end of a search."""

    architecture: Architecture
    records: list[Record]
    seconds: float


def search(
    supernet: Supernet,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Data,
    members: Tensor,
    settings: Settings,
    seed: int,
    after_epoch: Callable[[Record], Record],
    strategy: Strategy = gumbel_softmax,
    checkpoint: Path | None = None,
) -> Found:
    """Train weights and architecture parameters together on `members`, then take each part's argmax.

    Nothing but the utterances `members` reaches the supernet. The record of an epoch holds loss, rate, temperature,
    probabilities, entropy (nats) and architecture; `after_epoch` is given it, may score the current argmax on other
    utterances, and what it returns is added.
    """

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        gates = {name: strategy(part.theta, temperature) for name, part in supernet.mixed().items()}
        out: Tensor = supernet(x_BTD, mask_BT, gates)
        return out

    def record(epoch: Epoch) -> Record:
        probabilities = {name: p.double() for name, p in supernet.probabilities().items()}
        mixed = supernet.mixed()
        known = {
            "epoch": epoch.index,
            "loss": epoch.loss,
            "rate": epoch.rate,
            "temperature": epoch.temperature,
            "probabilities": {n: dict(zip(mixed[n].names, p.tolist(), strict=True)) for n, p in probabilities.items()},
            "entropy": {n: float(-(p * p.clamp_min(1e-30).log()).sum()) for n, p in probabilities.items()},
            "architecture": supernet.argmax().as_dict(),
        }
        return {**known, **after_epoch(known)}

    records, seconds = optimise(supernet, forward, loss, data, members, settings, seed, record, checkpoint=checkpoint)
    return Found(supernet.argmax(), records, seconds)
