"""Audio-level padding: every recording is padded with zeros to one length, and the padding's frames are kept."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bas.encoders.base import Encoder, EncoderInfo, Graphed, filled
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave

DESCRIPTION = "padded with zeros to {:.10g} s"
"""The end of `EncoderInfo.input`, which makes the padding part of a store's identity."""


class Padded:
    """An encoder whose waves are all padded with zeros at the end to `samples`, without a mask; all frames are kept.

    Mohapatra et al. 2023 (arXiv 2308.14359, section 2.1) gave this up for padded features with masks, and leave its
    effect open. The zeros count as audio: a model that normalises its input includes them.
    UserError: a length below the encoder's minimum.
    """

    def __init__(self, encoder: Encoder, seconds: float) -> None:
        self.samples = self.window = round(seconds * SAMPLE_RATE)
        if self.samples < encoder.min_samples:
            least = encoder.min_samples / SAMPLE_RATE
            raise UserError(f"padding to {seconds:g} s: encoder {encoder.info.name!r} needs {least:g} s at least")
        self.inner = encoder
        inputs = filter(None, (encoder.info.input, DESCRIPTION.format(self.samples / SAMPLE_RATE)))
        self.info: EncoderInfo = replace(encoder.info, input=", ".join(inputs))
        self.device: torch.device = encoder.device
        self.min_samples = 1

    def batch_key(self, num_samples: int) -> Hashable:
        return self.inner.batch_key(self.samples)

    def cost(self, num_samples: int) -> int:
        return self.inner.cost(self.samples)

    def prepare(self, wave: Wave) -> Tensor:
        assert len(wave) <= self.samples + 1, "a plan refuses what is longer"
        wave = wave[: self.samples]  # the resampler's rounding may give one sample more
        return self.inner.prepare(np.pad(wave, (0, self.samples - len(wave))))

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self.inner.encode(inputs)

    def graph(self, layers: Sequence[int]) -> nn.Module:
        assert isinstance(self.inner, Graphed), self.info
        return Graph(self.inner.graph(layers), self.samples)


class Graph(nn.Module):
    """See `bas.encoders.base.Graphed`."""

    def __init__(self, plain: nn.Module, samples: int) -> None:
        super().__init__()
        self.plain, self.samples = plain, samples

    def forward(self, wave_1N: Tensor) -> Tensor:
        states_LTD: Tensor = self.plain(filled(wave_1N, self.samples))
        return states_LTD


def padded_as(encoder: Encoder, input_: str) -> Encoder:
    """The encoder with the padding that an `EncoderInfo.input` describes, if any."""
    match = re.search(r"padded with zeros to ([0-9.]+(?:e[+-]?[0-9]+)?) s$", input_)
    return Padded(encoder, float(match[1])) if match else encoder
