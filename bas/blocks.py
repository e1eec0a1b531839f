"""Candidate blocks and pools. Every block is `(x_BTD, mask_BT) -> x_BTD`, every pool `(x_BTD, mask_BT) -> x_BD`.

Axes: B utterances of a batch, T frames, D width, H heads, K width of one head.
`mask_BT` is true on real frames. What stands on padding is nobody's business: a block must not let it reach a real
frame, and may leave any finite number there; a pool must not look at it.

What Fang et al. 2023 leave open is set here, once: LayerNorm after each sub-module (the vanilla transformer's, which
their eq. 3 abbreviates), ReLU, an output projection after the heads.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bas.errors import UserError


class Attention(nn.Module):
    """Multi-head self-attention (Fang et al. eq. 1 and 2) with an output projection."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise UserError(f"attention: num_heads={num_heads} does not divide the width {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        q_BHTK, k_BHTK, v_BHTK = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x_BTD).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, attn_mask=mask_BT[:, None, None, :])
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


def feed_forward(dim: int) -> nn.Sequential:
    """Two layers with an inner width of 4D (Vaswani et al. 2017)."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))


class TransformerBlock(nn.Module):
    """MSA+FFN: the vanilla transformer's layer with its two skip connections (Fang et al. eq. 3)."""

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.ffn = feed_forward(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = self.norm1(x_BTD + self.attention(x_BTD, mask_BT))
        out: Tensor = self.norm2(x_BTD + self.ffn(x_BTD))
        return out


class MSA(nn.Module):
    """Self-attention alone, no skip connection (Fang et al. section 2.2)."""

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.norm(self.attention(x_BTD, mask_BT))
        return out


class FFN(nn.Module):
    """The feed-forward network alone, frame by frame, no skip connection (Fang et al. section 2.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ffn = feed_forward(dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.norm(self.ffn(x_BTD))
        return out


class SimpleFFN(nn.Module):
    """The paper's simple-FFN baseline: a per-frame two-layer perceptron D-D-D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.ffn(x_BTD)
        return out


class MeanPool(nn.Module):
    """Mean over the real frames of each utterance."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = x_BTD.masked_fill(~mask_BT[..., None], 0.0)
        return x_BTD.sum(1) / mask_BT.sum(1, keepdim=True)
