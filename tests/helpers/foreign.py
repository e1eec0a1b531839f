"""A model that is not all of bas: a space with a block of one's own, a folder that is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from records import record, rewrite

OWN = """
from functools import partial

import torch
from torch import nn

from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace

OPENED = open("opened", "a").write("x")


class Own:
    class Doubled(nn.Module):
        # Nested, given a tuple, with a buffer that is not saved and a value that is read when it is made.
        def __init__(self, dim, factors=(1.0, 1.0)):
            super().__init__()
            self.register_buffer("factor_D", torch.full((dim,), sum(factors)), persistent=False)
            assert self.factor_D[0].item() == sum(factors)

        def forward(self, x_BTD, mask_BT):
            return self.factor_D * x_BTD


space = SearchSpace({"layer1": {"doubled": partial(Own.Doubled, factors=(0.5, 1.5))}}, MeanPool)
baselines = {"plain": SearchSpace({"layer1": {"FFN": FFN}}, MeanPool)}
"""
"""A search space with a block of the user's own."""


def damaged(copy: Path, **changes: Any) -> None:
    rewrite(copy / "model.json", record(copy / "model.json") | changes)
