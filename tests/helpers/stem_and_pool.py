"""A space whose stem and pool are searched too."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from bas.blocks import FFN, MSA, MeanPool
from bas.networks.network import FrameLinear
from bas.space import Choices, SearchSpace


class TanhStem(nn.Module):
    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(in_dim, dim)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.project(x_BTI).tanh()
        return out


class MaxPool(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return x_BTD.masked_fill(~mask_BT[..., None], -torch.inf).amax(1)


LAYER: Choices = {"MSA": partial(MSA, num_heads=4), "FFN": FFN}
space = SearchSpace(
    slots={"layer1": LAYER},
    stem={"linear": FrameLinear, "tanh": TanhStem},
    pool={"mean": MeanPool, "max": MaxPool},
)
