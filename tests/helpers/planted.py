"""A task whose right architecture is known: attention in the first layer, a perceptron in the second.

Every frame is noise but one, never the first, that carries a marker and four signs. The class is two bits: whether the
first two signs agree, and whether the last two do. Between the layers only the first frame is kept, so what the other
carried must have come there before: by attention, in layer 1 and nowhere else. Whether two signs agree is no linear
function of them, so layer 2 must be a perceptron: one head of attention, which looks at one frame by then, is linear.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bas.blocks import FFN, MSA, MeanPool
from bas.networks.network import Network
from bas.networks.supernet import Supernet
from bas.search.search import SearchOutcome, search
from bas.space import Choices, SearchSpace
from bas.training.batches import Data
from bas.training.loop import Record, outputs, seed_everything
from bas.training.settings import PRESETS, Settings

DIM, CLASSES, FIT, HELD_OUT = 16, 4, 512, 128
SETTINGS = replace(PRESETS["cpu"], strategy="gumbel", width=DIM, epochs=12, batch_size=64, lr=0.02, theta_lr=0.05)
"""For every strategy but one: 96 steps on the training part."""

HARD = replace(SETTINGS, strategy="hard", epochs=18, theta_lr=0.03)
"""One path a batch is a noisier gradient and half of the steps for each block: longer, and slower to decide."""


class First(nn.Module):
    """The first frame in place of all."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return x_BTD[:, :1].expand_as(x_BTD)


LAYER: Choices = {"MSA": partial(MSA, num_heads=1), "FFN": FFN}
SPACE = SearchSpace({"layer1": LAYER, "between": {"first": First}, "layer2": LAYER}, MeanPool)
RIGHT = "MSA > first > FFN"


def planted(seed: int) -> tuple[Data, Tensor, Tensor]:
    """The utterances, 3 to 5 frames each; those to train on, those held out."""
    generator = torch.Generator().manual_seed(seed)
    count = FIT + HELD_OUT
    lengths_U = torch.randint(3, 6, (count,), generator=generator)
    starts_U = lengths_U.cumsum(0) - lengths_U
    signs_U4 = torch.randint(0, 2, (count, 4), generator=generator) * 2.0 - 1
    where_U = 1 + (torch.rand(count, generator=generator) * (lengths_U - 1)).long()
    frames_ND = 0.1 * torch.randn(int(lengths_U.sum()), DIM, generator=generator)
    frames_ND[starts_U + where_U, 0] += 2
    frames_ND[starts_U + where_U, 1:5] += 2 * signs_U4
    agree_U2 = (signs_U4[:, ::2] == signs_U4[:, 1::2]).long()
    targets_U = 2 * agree_U2[:, 0] + agree_U2[:, 1]
    data = Data(frames_ND, starts_U, lengths_U, targets_U, torch.zeros(count, DIM))
    return data, torch.arange(FIT), torch.arange(FIT, count)


def accuracy(network: nn.Module, data: Data, members: Tensor) -> float:
    return float((outputs(network, data, members).argmax(1) == data.targets_U[members]).float().mean())


def find(
    setting: Settings,
    seed: int,
    task: tuple[Data, Tensor, Tensor] | None = None,
    space: SearchSpace = SPACE,
    after_epoch: Callable[[Record], Record] = lambda record: {},
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    **more: Any,
) -> tuple[Supernet, SearchOutcome]:
    """Search as a job does, scored by the loss on the utterances held out."""
    data, members, held_out = planted(seed) if task is None else task
    seed_everything(seed, "initial weights")
    supernet = Supernet(space, data.dim, data.dim, CLASSES, setting.dropout)

    def score(network: Network) -> Mapping[str, float]:
        return {"loss": float(F.cross_entropy(outputs(network, data, held_out), data.targets_U[held_out]))}

    given: dict[str, Any] = {"held_out": held_out, "score": score, **more}
    return supernet, search(supernet, loss, data, members, setting, seed, after_epoch, **given)
