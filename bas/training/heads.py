"""Heads trained side by side: they share only the batches, and each ends with the weights of its own best epoch.

Axes: B utterances, T frames, N rows of an input, D its width, I inputs, H heads, F hidden width, O outputs.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from bas.errors import Diverged
from bas.training.batches import Batched
from bas.training.loop import Epoch, Record, optimise, outputs, seed_of
from bas.training.settings import Settings
from bas.training.stack import Loss


def state_name(state: int) -> str:
    return f"state {state}"


class Stacked(nn.Module):
    """I separate linear layers side by side: `(I, N, D)` to `(I, N, F)`. Initialised as `nn.Linear`."""

    def __init__(self, inputs: int, dim: int, out: int, learning_rate_factor: float = 1.0) -> None:
        super().__init__()
        self.learning_rate_factor = learning_rate_factor
        bound = 1 / math.sqrt(dim)
        self.weight_IDF = nn.Parameter(torch.empty(inputs, dim, out).uniform_(-bound, bound))
        self.bias_I1F = nn.Parameter(torch.empty(inputs, 1, out).uniform_(-bound, bound))

    def forward(self, x_IND: Tensor) -> Tensor:
        return torch.baddbmm(self.bias_I1F, x_IND, self.weight_IDF)


class SideBySide(nn.Module, ABC):
    """Heads that share only the batches: frames and their mask to `(B, H, O)`."""

    names: list[str]  # of the H heads

    @abstractmethod
    def adopt(self, others: Self, which_H: Tensor) -> None:
        """Take the weights of the heads `which_H` from `others`; the other heads keep theirs."""


Kind = TypeVar("Kind", bound=SideBySide)


class Watched(nn.Module, Generic[Kind]):
    """Heads that learn, and a copy of each head at its best score: early stopping for each head separately."""

    score_H: Tensor

    def __init__(self, heads: Kind) -> None:
        super().__init__()
        self.heads: Kind = heads
        self.best: Kind = copy.deepcopy(heads).requires_grad_(False)
        self.register_buffer("score_H", torch.full((len(heads.names),), -math.inf))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.heads(x_BTD, mask_BT)
        return out

    @torch.no_grad()
    def keep(self, score_H: Tensor) -> None:
        """Copy the heads whose score is higher than ever before."""
        better_H = score_H > self.score_H
        self.score_H.copy_(torch.where(better_H, score_H, self.score_H))
        self.best.adopt(self.heads, better_H)


@torch.no_grad()
def adopt_stacked(own: Sequence[nn.Parameter], others: Sequence[nn.Parameter], which_I: Tensor) -> None:
    """Copy parameters `(I, ., .)` from `others` for the inputs `which_I`."""
    for mine, theirs in zip(own, others, strict=True):
        mine.copy_(torch.where(which_I[:, None, None], theirs, mine))


@dataclass(frozen=True)
class Trained(Generic[Kind]):
    """The heads, each with the weights of its best epoch, and their loss on the valid part there."""

    heads: Kind
    valid_loss: dict[str, float]
    seconds: float


def train(
    heads: Kind,
    loss: Loss,
    valid_loss: Loss,
    data: Batched,
    fit: Tensor,
    valid: Tensor,
    targets_B: Tensor,
    settings: Settings,
    seed: tuple[int, int],
    tick: Callable[[], None],
    path: Path | None = None,
    every: int = 1,
) -> Trained[Kind]:
    """Train heads side by side on the utterances `fit` of `data`; each ends with the weights of its own best epoch.

    loss: of batches that train. valid_loss: of `valid`. targets_B: of `valid`, on the data's device. seed: fold and
    seed. tick: called after every epoch. path: of the checkpoint. every: epochs between validations; the last epoch
    always has one.
    Raises Diverged when a training diverges.
    """
    watched = Watched(heads).to(data.device)

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        out: Tensor = watched(x_BTD, mask_BT)
        return out

    def summed(out_BHO: Tensor, targets_B: Tensor) -> Tensor:
        return torch.stack([loss(out_BO, targets_B) for out_BO in out_BHO.unbind(1)]).sum()

    def record(epoch: Epoch) -> Record:
        if (settings.epochs - 1 - epoch.index) % every == 0:
            out_BHO = outputs(watched, data, valid)
            loss_H = torch.stack([valid_loss(out_BO, targets_B) for out_BO in out_BHO.unbind(1)])
            watched.keep(-loss_H)
        tick()
        return {"epoch": epoch.index, "loss": epoch.loss}

    _, seconds = optimise(watched, forward, summed, data, fit, settings, seed_of(*seed), record, path)
    if not watched.score_H.isfinite().all():
        raise Diverged(f"probing diverged: no validation loss is finite; lower the setting lr={settings.lr}")
    kept = dict(zip(heads.names, (-watched.score_H).tolist(), strict=True))
    return Trained(watched.best.eval(), kept, seconds)
