"""Candidate blocks and pools. Every block is `(x_BTD, mask_BT) -> x_BTD`, every pool `(x_BTD, mask_BT) -> x_BD`.

Axes: B utterances of a batch, T frames, D width, H heads, K width of one head.
`mask_BT` is true on real frames. Values on padding must never reach a real frame. A block may leave any finite number
on padding; a pool ignores padding.

A stem is `(x_BTI, mask_BT) -> x_BTD`, I the features' width. Each utterance has at least one real frame, and its real
frames come before its padding.

`summary` of a pool's class: a function of frames and mask without parameters, of which the pool is a linear map. In
place of a network without a block, a linear model of the summary of its input is solved (`bas.runs.solved`).

Three choices that Fang et al. 2023 leave open are made here, once: LayerNorm after each sub-module (as in the vanilla
transformer, which their eq. 3 abbreviates), ReLU, and an output projection after the heads.

References
    Fang et al., 2023: MSA, FFN and the transformer layer as candidates, and their baselines.
    Mohapatra et al., ACM Multimedia 2023 (arXiv 2308.14359): convolution, LSTM, attention of the last state.
    Snyder et al., *X-Vectors*, ICASSP 2018: mean and deviation over time.
    Desplanques et al., *ECAPA-TDNN*, Interspeech 2020: the same, weighted by attention for each channel.
    Eyben et al., *GeMAPS*, IEEE Transactions on Affective Computing 7, 2016: percentiles over time.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from bas.errors import UserError


def zero_padding(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """x with zeros on padding, `(B, T, D)`: real frames nearby must not see what was there."""
    return x_BTD.masked_fill(~mask_BT[..., None], 0.0)


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
        attended = attend(q_BHTK, k_BHTK, v_BHTK, mask_BT[:, None, None, :])
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


def attend(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, mask_B11T: Tensor) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) over the frames of the mask, `(B, H, T, K)`.

    A mask of one row, which PyTorch expands without memory, leaves it the kernels that never write the scores
    `(B, H, T, T)`: on a GPU memory does not grow with the square of an utterance's length.
    """
    if q_BHTK.is_cuda:
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, mask_B11T)
    # In float32 under autocast too: backwards, the CPU's kernel is eight times as slow in bfloat16.
    if q_BHTK.dtype == torch.bfloat16:
        q_BHTK, k_BHTK, v_BHTK = q_BHTK.float(), k_BHTK.float(), v_BHTK.float()
    with torch.autocast(q_BHTK.device.type, enabled=False):
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, mask_B11T)


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


class Convolution(nn.Module):
    """A convolution over time (padding "same", then ReLU); it sees zeros beyond either end of an utterance."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.over_time = nn.Conv1d(dim, dim, kernel, padding="same")
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.norm(self.over_time(zero_padding(x_BTD, mask_BT).mT).relu().mT)
        return out


class Skip(nn.Module):
    """No block: the output is the input. So a slot may stay empty, and the depth is searched too."""

    identity = True  # `SearchSpace.distinct` takes it out

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return x_BTD


class LSTM(nn.Module):
    """A long short-term memory, forward in time; the output at a frame is the state after that frame.

    A LayerNorm follows it, unlike in Mohapatra et al.: without it, the small states of an LSTM would hardly count in a
    mix of blocks, and a model trained for a few hundred steps would predict the mean. It computes in float32 under
    autocast too, because a state sums over all frames.
    """

    def __init__(self, dim: int, layers: int = 1) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers, batch_first=True)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        with torch.autocast(x_BTD.device.type, enabled=False):
            # Without packing, padding is computed too, after all real frames. A graph has no packed sequences, and a
            # GPU would wait for their lengths, which must be on the CPU.
            whole = x_BTD.is_cuda or torch.compiler.is_exporting()
            states_BTD = self.lstm(x_BTD.float())[0] if whole else self._packed(x_BTD.float(), mask_BT)
        out: Tensor = self.norm(states_BTD)
        return out

    def _packed(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The states, 0 on padding, `(B, T, D)`: no time is spent on padding."""
        frames_B = mask_BT.sum(1).cpu()  # pack_padded_sequence takes lengths on the CPU only
        assert int(frames_B.min()) > 0, "an utterance without a frame"
        packed = pack_padded_sequence(x_BTD, frames_B, batch_first=True, enforce_sorted=False)
        states_BTD, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x_BTD.shape[1])
        return states_BTD


class ConvStem(nn.Module):
    """Convolutions over time, each with ReLU, that shrink the features' width to the network's in equal steps.

    Mohapatra et al. use three with kernel 3 (1024 to 768, 384 and 192), then max-pool every two frames; here a stem
    keeps all frames.
    """

    def __init__(self, in_dim: int, dim: int, kernel: int, layers: int) -> None:
        super().__init__()
        widths = [in_dim + (dim - in_dim) * i // layers for i in range(layers + 1)]
        self.over_time = nn.ModuleList(nn.Conv1d(a, b, kernel, padding="same") for a, b in pairwise(widths))

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        for convolution in self.over_time:
            x_BTI = convolution(zero_padding(x_BTI, mask_BT).mT).relu().mT
        return x_BTI


def _frames(x_BTD: Tensor, place_BQ: Tensor) -> Tensor:
    """The frames of each utterance at its places, `(B, Q, D)`."""
    # Not `take_along_dim`, which does the same but for an exported graph, where it keeps the shapes of the example.
    return x_BTD.gather(1, place_BQ[..., None].expand(-1, -1, x_BTD.shape[-1]))


def _dense(dim: int, hidden: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU()) if hidden else nn.Identity()


def mean_frame(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over the real frames of each utterance, `(B, D)`."""
    return zero_padding(x_BTD, mask_BT).sum(1) / mask_BT.sum(1, keepdim=True)


def moments(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean and standard deviation over the real frames, side by side, `(B, 2D)`."""
    weight_BTD = (mask_BT / mask_BT.sum(1, keepdim=True))[..., None].expand_as(x_BTD)
    return _statistics(zero_padding(x_BTD, mask_BT), weight_BTD)


QUANTILES = (0.1, 0.5, 0.9)


def quantiles(x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """QUANTILES over the real frames of each dimension, side by side, `(B, 3D)`; linear between two frames."""
    sorted_BTD = x_BTD.masked_fill(~mask_BT[..., None], torch.inf).sort(1).values
    place_BQ = (mask_BT.sum(1, keepdim=True) - 1) * torch.tensor(QUANTILES, device=x_BTD.device)
    below_BQD, above_BQD = (_frames(sorted_BTD, frame_BQ.long()) for frame_BQ in (place_BQ.floor(), place_BQ.ceil()))
    return below_BQD.lerp(above_BQD, (place_BQ - place_BQ.floor())[..., None].to(x_BTD.dtype)).flatten(1)


class MeanPool(nn.Module):
    """Mean over the real frames of each utterance.

    hidden: add a dense layer with ReLU after the mean. Together with the network's linear head, it is a feed-forward
    network.
    """

    summary = staticmethod(mean_frame)

    def __init__(self, dim: int, hidden: bool = False) -> None:
        super().__init__()
        self.behind = _dense(dim, hidden)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.behind(mean_frame(x_BTD, mask_BT))
        return out


class LastState(nn.Module):
    """The last real frame of each utterance: after an LSTM, its state at the end of the utterance."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        return _frames(x_BTD, mask_BT.sum(1, keepdim=True) - 1)[:, 0]


class LastStateAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, eq. 1) whose query is a linear map of the last real frame.

    Keys and values are the real frames themselves, as in the code of Mohapatra et al. hidden: as in `MeanPool`.
    """

    def __init__(self, dim: int, hidden: bool = False) -> None:
        super().__init__()
        self.last = LastState(dim)
        self.query = nn.Linear(dim, dim)
        self.behind = _dense(dim, hidden)

    def weights(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The attention weight of each frame, `(B, T)`: 0 on padding, summing to 1."""
        query_BD = self.query(self.last(x_BTD, mask_BT))
        scores_BT = torch.einsum("btd,bd->bt", x_BTD, query_BD) / x_BTD.shape[-1] ** 0.5
        weights_BT: Tensor = scores_BT.masked_fill(~mask_BT, -torch.inf).softmax(-1)
        return weights_BT

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        pooled_BD = torch.einsum("bt,btd->bd", self.weights(x_BTD, mask_BT), zero_padding(x_BTD, mask_BT))
        out: Tensor = self.behind(pooled_BD)
        return out


LEAST_VARIANCE = 1e-5  # the root of zero has no gradient: one frame, or a dimension that stands still


def _statistics(x_BTD: Tensor, weight_BTD: Tensor) -> Tensor:
    """Weighted mean and deviation over time, side by side, `(B, 2D)`; weights sum to 1 and are 0 on padding.

    In float32 under autocast too: a variance is the small difference of large sums.
    """
    with torch.autocast(x_BTD.device.type, enabled=False):
        x_BTD, weight_BTD = x_BTD.float(), weight_BTD.float()
        mean_BD = (weight_BTD * x_BTD).sum(1)
        variance_BD = (weight_BTD * (x_BTD - mean_BD[:, None]).square()).sum(1)
        return torch.cat([mean_BD, variance_BD.clamp_min(LEAST_VARIANCE).sqrt()], -1)


class StatisticsPool(nn.Module):
    """Mean and standard deviation over the real frames, and a linear map of both to the width (Snyder et al. 2018)."""

    summary = staticmethod(moments)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.project(moments(x_BTD, mask_BT))
        return out


class QuantilePool(nn.Module):
    """QUANTILES of each dimension over the real frames, and a linear map of them to the width.

    Percentiles are the functionals of openSMILE's eGeMAPS (Eyben et al. 2016): one loud frame does not move them.
    """

    summary = staticmethod(quantiles)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(len(QUANTILES) * dim, dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.project(quantiles(x_BTD, mask_BT))
        return out


class AttentiveStatisticsPool(nn.Module):
    """As `StatisticsPool`, with a weight for each frame and channel, from a tanh network over the frame.

    Desplanques et al. 2020, eq. 1 to 4, without the context of the whole utterance. inner: width of the tanh layer.
    """

    def __init__(self, dim: int, inner: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(dim, inner), nn.Tanh(), nn.Linear(inner, dim, bias=False))
        self.project = nn.Linear(2 * dim, dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = zero_padding(x_BTD, mask_BT)
        weight_BTD = self.score(x_BTD).float().masked_fill(~mask_BT[..., None], -torch.inf).softmax(1)
        out: Tensor = self.project(_statistics(x_BTD, weight_BTD))
        return out
