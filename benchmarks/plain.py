"""The supernet of Fang et al. 2023 as one writes it with PyTorch's own modules: what `steps.py` times `bas` against.

Axes: B utterances, T frames, D width, O outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEADS = 8


class Attention(nn.Module):
    """MSA alone."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention, self.norm = nn.MultiheadAttention(dim, HEADS, batch_first=True), nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, padded_BT: Tensor) -> Tensor:
        out: Tensor = self.norm(self.attention(x_BTD, x_BTD, x_BTD, key_padding_mask=padded_BT, need_weights=False)[0])
        return out


class FeedForward(nn.Module):
    """FFN alone."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim), nn.LayerNorm(dim))

    def forward(self, x_BTD: Tensor, padded_BT: Tensor) -> Tensor:
        out: Tensor = self.layers(x_BTD)
        return out


class Transformer(nn.TransformerEncoderLayer):
    """MSA+FFN."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, HEADS, 4 * dim, dropout=0.0, batch_first=True)

    def forward(self, x_BTD: Tensor, padded_BT: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x_BTD, src_key_padding_mask=padded_BT)


class PlainSupernet(nn.Module):
    """Layers of three candidates each, weighted by a Gumbel-softmax, then the mean frame and a linear head."""

    def __init__(self, dim: int, layers: int, outputs: int) -> None:
        super().__init__()
        made = [nn.ModuleList([Transformer(dim), Attention(dim), FeedForward(dim)]) for _ in range(layers)]
        self.layers = nn.ModuleList(made)
        self.theta = nn.Parameter(torch.zeros(layers, 3))
        self.head = nn.Linear(dim, outputs)

    def forward(self, x_BTD: Tensor, padded_BT: Tensor) -> Tensor:
        """Outputs `(B, O)`."""
        for candidates, theta in zip(self.layers, self.theta, strict=True):
            weights = F.gumbel_softmax(theta, tau=5.0, dim=-1)
            assert isinstance(candidates, nn.ModuleList)
            outs = [w * candidate(x_BTD, padded_BT) for w, candidate in zip(weights, candidates, strict=True)]
            x_BTD = torch.stack(outs).sum(0)
        real_BT1 = (~padded_BT)[..., None]
        out: Tensor = self.head((x_BTD * real_BT1).sum(1) / real_BT1.sum(1))
        return out
