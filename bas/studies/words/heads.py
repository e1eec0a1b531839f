"""The classifier of *Layer-Wise Analysis of Self-Supervised Acoustic Word Embeddings* (arXiv 2402.02617), fused or not.

Each unit (a frame or a word) goes through a dense layer of width 128 and one of 16, each with ReLU; then come the mean
over the utterance's units and a linear layer to the classes. The paper gives the two layers but not the pooling: the
mean after them is our choice. It names the fusions with text but does not define them; the definitions are ours too.
Each adds to the output of the first layer, before its ReLU:

    alone         relu(A x)
    concatenated  relu(A x + W t), t the lexical vector of the word that holds the unit: one layer on [x, t]
    speech asks   relu(q + softmax(q k^T / sqrt 128) k), query q = A x of each unit, k = W t of the utterance's words
    text asks     the same with query q = W t of each word and k = A x of the utterance's units; the mean is over words
    text alone    relu(W t) of each word

Attention has one head; its keys are also its values; its output is added to the query (residual). Every state has such
a classifier. They train side by side, each as it would alone.

Axes: B utterances, T units and W words of the longest, L states, D width of one, E of a lexical vector, N words of all
utterances end to end, U utterances, F hidden width, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bas.networks.network import Standardise
from bas.training.heads import SideBySide, Stacked, adopt_stacked, state_name

FIRST, SECOND = 128, 16
"""Widths of the two dense layers, as in the paper."""

ALONE, CONCATENATED, SPEECH_ASKS, TEXT_ASKS, TEXT = "alone", "concatenated", "speech asks", "text asks", "text"
FUSIONS = (CONCATENATED, SPEECH_ASKS, TEXT_ASKS)

PLACES = 2
"""The number of columns after a unit's dimensions: see `WordHeads`."""


@dataclass(frozen=True)
class Texts:
    """The lexical vectors of every utterance's words."""

    vectors_NE: Tensor
    starts_U: Tensor  # the row of an utterance's first word
    counts_U: Tensor  # the number of its words

    def __deepcopy__(self, memo: Any) -> Texts:
        return self  # it holds nothing that is learnt

    def of(self, utterance_B: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, W, E)` with zeros after the last word, and the mask of real words, `(B, W)`."""
        counts_B = self.counts_U[utterance_B]
        within_W = torch.arange(int(counts_B.max()), device=counts_B.device)
        mask_BW = within_W < counts_B[:, None]
        rows_BW = (self.starts_U[utterance_B][:, None] + within_W).where(mask_BW, 0)
        return self.vectors_NE[rows_BW] * mask_BW[..., None], mask_BW


class WordHeads(SideBySide):
    """A classifier on each state, or on text alone: `(B, T, L * D + 2)` units to `(B, L, O)`.

    Two columns follow a unit's dimensions: 1 + the index of the word that holds it within its utterance, 0 where no
    word does; and the index of the utterance in `texts`. Units are standardised by dimension.
    """

    def __init__(
        self, states: Sequence[int], dim: int, outputs: int, fusion: str, texts: Texts | None, attention: bool = False
    ) -> None:
        """states: their numbers; empty: text alone. fusion: ALONE, one of FUSIONS, or TEXT. texts: for all but ALONE.

        attention: the units are frames. First the frames of each word are summed, with the softmax of their product
        with a query as weights. Every state learns a query; it begins at zero, which is the mean.
        """
        super().__init__()
        assert (texts is None) == (fusion == ALONE)
        assert bool(states) == (fusion != TEXT)
        self.names = [state_name(s) for s in states] or [TEXT]
        self.fusion, self.texts = fusion, texts
        heads = len(self.names)
        if states:
            self.standardise = Standardise(len(states) * dim)
            self.acoustic = Stacked(heads, dim, FIRST)
        if texts is not None:
            self.lexical = Stacked(heads, texts.vectors_NE.shape[1], FIRST)
        self.second = Stacked(heads, FIRST, SECOND)
        self.last = Stacked(heads, SECOND, outputs)
        self.query_LD1 = nn.Parameter(torch.zeros(heads, dim, 1)) if attention else None

    def adopt(self, others: Self, which_H: Tensor) -> None:
        adopt_stacked(list(self.parameters()), list(others.parameters()), which_H)

    def forward(self, x_BTC: Tensor, mask_BT: Tensor) -> Tensor:
        holder_BT, utterance_B = x_BTC[..., -PLACES].long(), x_BTC[:, 0, -1].long()
        x_BTD = x_BTC[..., :-PLACES]
        if self.fusion == TEXT:
            assert self.texts is not None
            text_BWE, mask_BW = self.texts.of(utterance_B)
            return self._classify(self._first(self.lexical, text_BWE), mask_BW)
        x_LBTD = self.standardise(x_BTD).unflatten(2, (len(self.names), -1)).permute(2, 0, 1, 3)
        if self.query_LD1 is not None:
            x_LBTD, mask_BT = _pool_words(x_LBTD, holder_BT, self.query_LD1)
        speech_LBTF = self._first(self.acoustic, x_LBTD)
        if self.texts is None:
            return self._classify(speech_LBTF, mask_BT)
        text_BWE, mask_BW = self.texts.of(utterance_B)
        if self.fusion == CONCATENATED:
            # Zeros after the last word stand for the text of units that no word holds.
            text_LBWF = self._first(self.lexical, F.pad(text_BWE, (0, 0, 0, 1)))
            place_BT = torch.where(holder_BT > 0, holder_BT - 1, text_BWE.shape[1])
            own_LBTF = text_LBWF[:, torch.arange(len(place_BT), device=place_BT.device)[:, None], place_BT]
            return self._classify(speech_LBTF + own_LBTF, mask_BT)
        text_LBWF = self._first(self.lexical, text_BWE)
        if self.fusion == SPEECH_ASKS:
            return self._classify(speech_LBTF + _attend(speech_LBTF, text_LBWF, mask_BW), mask_BT)
        return self._classify(text_LBWF + _attend(text_LBWF, speech_LBTF, mask_BT), mask_BW)

    def _first(self, layer: Stacked, x_XBTD: Tensor) -> Tensor:
        """The first dense layer without its ReLU, `(L, B, T, F)`; x: `(L, B, T, D)`, or `(B, W, E)` for all heads."""
        x_LBTD = x_XBTD if x_XBTD.dim() == 4 else x_XBTD.expand(len(self.names), *x_XBTD.shape)
        out: Tensor = layer(x_LBTD.flatten(1, 2)).unflatten(1, x_LBTD.shape[1:3])
        return out

    def _classify(self, x_LBTF: Tensor, mask_BT: Tensor) -> Tensor:
        """From the first layer's output before its ReLU to logits `(B, L, O)`."""
        hidden_LNF = self.second(x_LBTF.relu().flatten(1, 2)).relu()
        share_BT = mask_BT / mask_BT.sum(1, keepdim=True)
        mean_LBF = torch.einsum("bt,lbtf->lbf", share_BT, hidden_LNF.unflatten(1, mask_BT.shape))
        out: Tensor = self.last(mean_LBF)
        return out.transpose(0, 1)


def _attend(query_LBTF: Tensor, key_LBWF: Tensor, mask_BW: Tensor) -> Tensor:
    """Attention of each query over the real keys, which are also the values: `(L, B, T, F)`."""
    return F.scaled_dot_product_attention(query_LBTF, key_LBWF, key_LBWF, mask_BW[:, None])


def _pool_words(x_LBTD: Tensor, holder_BT: Tensor, query_LD1: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted sum of each word's frames, `(L, B, W, D)`, and which words hold any frame, `(B, W)`."""
    within_W = torch.arange(1, int(holder_BT.max()) + 1, device=holder_BT.device)
    own_BWT = holder_BT[:, None] == within_W[:, None]
    score_LBT = (x_LBTD @ query_LD1[:, None]).squeeze(3) / math.sqrt(x_LBTD.shape[3])
    weight_LBWT = score_LBT[:, :, None].masked_fill(~own_BWT, -math.inf).softmax(3)
    holds_BW = own_BWT.any(2)
    return weight_LBWT.where(holds_BW[..., None], 0.0) @ x_LBTD, holds_BW
