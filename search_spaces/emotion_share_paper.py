"""How many listeners heard each emotion? The two networks of arXiv 2308.14359, one an emotion, as their code has them.

Mohapatra et al., ACM Multimedia 2023, and payalmohapatra/EmotionShare_ACMMM23: three convolutions of kernel 3 that
shrink the encoder's width (1,024 to 768, 384 and 192), each with ReLU; the maximum of every two frames; two layers of
LSTM (512); then the mean of the states, or the last states' attention over them; four dense layers. Each network learns
one emotion and keeps the epoch that is best for it. Their optimiser, rate, batch and epochs: preset `emotion-shares`.

For an encoder of another width all widths keep their ratio to it. Where the code would let padding, the batch or the
corpus's longest recording change an output, it is changed here: convolutions see zeros beyond the last frame; an
utterance of one frame keeps it; the LayerNorm before the LSTM is over the width, theirs over width and time; theirs of
the attention weights, over time, is left out. The last ReLU is the task's sigmoid: a share that starts below 0 would
stay there. The space that may be searched is that of `emotion_share`.

Axes: B utterances, T frames, S pairs of frames, D width of the encoder, C of the convolutions, H of the LSTM.
"""

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from bas.blocks import LastState, Skip, zero_padding
from bas.space import SearchSpace
from bas.tasks import Shares
from search_spaces.emotion_share import space

__all__ = ["baselines", "space", "task"]

task = Shares()


class Published(nn.Module):
    """All of a network but its last dense layer, from `(B, T, D)` to `(B, width)`; see above.

    attention: by the last states of both layers of the LSTM, which then has a LayerNorm before it, and each dense layer
    one behind it; without: the mean of the states.
    """

    def __init__(self, dim: int, attention: bool) -> None:
        super().__init__()
        first, second, last = (max(1, dim * share // 16) for share in (12, 6, 3))
        hidden = max(8, dim // 2)
        self.over_time = nn.ModuleList(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise((dim, first, second, last)))
        self.norm = nn.LayerNorm(last) if attention else nn.Identity()
        self.lower, self.upper = nn.LSTM(last, hidden, batch_first=True), nn.LSTM(hidden, hidden, batch_first=True)
        self.last = LastState(hidden)
        half, quarter, eighth = (hidden // share for share in (2, 4, 8))
        widths = (hidden, half, quarter, eighth) if attention else (hidden, half, eighth, 8)
        self.width = widths[-1]
        self.dense = nn.Sequential(*(_dense(a, b, attention) for a, b in pairwise(widths)))
        self.query = nn.Linear(2 * hidden, hidden) if attention else None

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        lower_BSH, upper_BSH, mask_BS = self._states(x_BTD, mask_BT)
        weights_BS = self._weights(lower_BSH, upper_BSH, mask_BS)
        out: Tensor = self.dense(torch.einsum("bs,bsh->bh", weights_BS, zero_padding(upper_BSH, mask_BS)))
        return out

    def _states(self, x_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states of both layers, `(B, S, H)`, and which are real."""
        for convolution in self.over_time:
            x_BTD = convolution(zero_padding(x_BTD, mask_BT).mT).relu().mT
        x_BTC = zero_padding(x_BTD, mask_BT)  # at least 0 after ReLU: a zero is no maximum of a real frame's
        x_BTC = nn.functional.pad(x_BTC, (0, 0, 0, x_BTC.shape[1] % 2))
        x_BSC = torch.maximum(x_BTC[:, ::2], x_BTC[:, 1::2])
        pairs_B1 = (mask_BT.sum(1, keepdim=True) // 2).clamp_min(1)
        mask_BS = torch.arange(x_BSC.shape[1], device=x_BSC.device) < pairs_B1
        with torch.autocast(x_BSC.device.type, enabled=False):  # a state sums over all frames
            lower_BSH, _ = self.lower(self.norm(x_BSC.float()))  # forward in time: padding comes after all real frames
            upper_BSH, _ = self.upper(lower_BSH)
        return lower_BSH, upper_BSH, mask_BS

    def _weights(self, lower_BSH: Tensor, upper_BSH: Tensor, mask_BS: Tensor) -> Tensor:
        """`(B, S)`: 0 on padding, summing to 1; without attention the same for all real states."""
        if self.query is None:
            return mask_BS / mask_BS.sum(1, keepdim=True)
        ends_BQ = torch.cat([self.last(lower_BSH, mask_BS), self.last(upper_BSH, mask_BS)], -1)
        scores_BS = torch.einsum("bsh,bh->bs", upper_BSH, self.query(ends_BQ)) / upper_BSH.shape[-1] ** 0.5
        weights_BS: Tensor = scores_BS.masked_fill(~mask_BS, -torch.inf).softmax(-1)
        return weights_BS


def _dense(a: int, b: int, norm: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.LayerNorm(b) if norm else nn.Identity())


class Attentive(Published):
    """With attention, whose weights the study of shares exports."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, attention=True)

    def weights(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The weight of each frame, `(B, T)`: half of its pair's, 0 for a last frame without another, summing to 1."""
        weights_BS = self._weights(*self._states(x_BTD, mask_BT))
        frames_B1 = mask_BT.sum(1, keepdim=True)
        halves_BT = (weights_BS / 2).repeat_interleave(2, 1)[:, : mask_BT.shape[1]]
        halves_BT = halves_BT.where(frames_B1 > 1, 2 * halves_BT)
        paired_BT = torch.arange(mask_BT.shape[1], device=mask_BT.device) < frames_B1 // 2 * 2
        return halves_BT.where(paired_BT | (mask_BT & (frames_B1 == 1)), 0.0)


def published(pool: partial[Published] | type[Published]) -> SearchSpace:
    return SearchSpace({"layer1": {"none": Skip}}, pool, each_output=True)


baselines = {
    "CNN+LSTM+attention, published": published(Attentive),
    "CNN+LSTM, published": published(partial(Published, attention=False)),
}
