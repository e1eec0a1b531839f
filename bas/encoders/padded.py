"""Audio-level padding: every recording is brought to one length with silence, and the frames of that count too."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bas.encoders.base import Encoder, EncoderInfo
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave

TOLD = "padded with zeros to {:.10g} s"
"""At the end of `EncoderInfo.input`, so that it is part of a store's identity."""


class Padded:
    """An encoder whose waves are all padded with zeros at their end to `samples`; none is masked, all frames are kept.

    What Mohapatra et al. 2023 (arXiv 2308.14359, section 2.1) leave for padded features and masks, and whose effect
    they leave open. The zeros are audio like any other: a model that normalises its input does so over them too.
    UserError: a length that is shorter than the encoder takes.
    """

    def __init__(self, encoder: Encoder, seconds: float) -> None:
        self.samples = round(seconds * SAMPLE_RATE)
        if self.samples < encoder.min_samples:
            least = encoder.min_samples / SAMPLE_RATE
            raise UserError(f"padding to {seconds:g} s: encoder {encoder.info.name!r} needs {least:g} s at least")
        self._encoder = encoder
        told = TOLD.format(self.samples / SAMPLE_RATE)
        self.info: EncoderInfo = replace(encoder.info, input=", ".join(filter(None, (encoder.info.input, told))))
        self.device: torch.device = encoder.device
        self.min_samples = 1
        self.max_samples = encoder.max_samples

    def batch_key(self, num_samples: int) -> Hashable:
        return self._encoder.batch_key(self.samples)

    def cost(self, num_samples: int) -> int:
        return self._encoder.cost(self.samples)

    def prepare(self, wave: Wave) -> Tensor:
        assert len(wave) <= self.samples + 1, "a plan refuses what is longer"
        wave = wave[: self.samples]  # one sample more by the resampler's rounding
        return self._encoder.prepare(np.pad(wave, (0, self.samples - len(wave))))

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return self._encoder.encode(inputs)


def padded_as(encoder: Encoder, told: str) -> Encoder:
    """The encoder with the padding that an `EncoderInfo.input` tells of, or as it is."""
    found = re.search(r"padded with zeros to (\S+) s$", told)
    return Padded(encoder, float(found[1])) if found else encoder
