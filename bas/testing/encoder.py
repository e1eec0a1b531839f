"""The contracts of an encoder in a Python file: each returns, or raises BrokenContractError with what was seen.

Axes: L states, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bas.encoders.own import Own, is_own
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave
from bas.testing.subject import BrokenContractError, broken_by_any_error, close

SECONDS = (0.7, 1.0, 1.2345, 3.1)
"""Of the waves that are tried; a longer one where the encoder's least is longer."""


@dataclass(frozen=True)
class EncoderSubject:
    """An encoder under test, on the CPU."""

    encoder: Own

    @classmethod
    def load(cls, file: str) -> EncoderSubject:
        """Raises UserError for a file that cannot be read or run, and a class that lacks what it must have."""
        if not is_own(file):
            raise UserError(f"encoder {file!r}: must be a Python file, my_encoder.py or my_encoder.py:Class")
        return cls(Own(file, torch.device("cpu")))

    def hold_to(self, contract: Callable[[EncoderSubject], None]) -> None:
        """Raises BrokenContractError; whatever else a user's code raises becomes one."""
        with broken_by_any_error():
            contract(self)

    def states(self, wave: Wave) -> Tensor:
        """`(L, T, D)` float32. What `Own` refuses, such as another shape, is a broken contract."""
        (states_LTD,) = self.encoder.encode([self.encoder.prepare(wave)])
        return states_LTD.float().cpu().clone()

    def waves(self) -> list[Wave]:
        """Noise of several lengths, none below the encoder's least."""
        draw = np.random.default_rng(0)
        lengths = [max(round(seconds * SAMPLE_RATE), self.encoder.min_samples) for seconds in SECONDS]
        return [0.1 * draw.standard_normal(n).astype(np.float32) for n in lengths]


def every_wave_gives_the_shape_due(subject: EncoderSubject) -> None:
    """Every wave gives floats of the shape (num_states, frames, dim), finite, and not the same for all waves."""
    seen = []
    for wave in subject.waves():
        states_LTD = subject.states(wave)
        if not states_LTD.isfinite().all():
            raise BrokenContractError(f"a wave of {len(wave)} samples gives NaN or infinite values")
        seen.append(states_LTD.mean((0, 1)))
    if all(torch.equal(seen[0], other) for other in seen[1:]):
        raise BrokenContractError("all waves give the same: nothing depends on the sound")


def frames_are_as_many_as_the_rate_says(subject: EncoderSubject) -> None:
    """A wave gives seconds x frame_rate frames, give or take two, whatever its length."""
    encoder = subject.encoder
    hop = SAMPLE_RATE / encoder.info.frame_rate
    for frames in (10, 10.5, 33):
        length = max(round(frames * hop), encoder.min_samples)
        subject.states(np.full(length, 0.01, np.float32))


def the_shortest_wave_gives_a_frame(subject: EncoderSubject) -> None:
    """A wave of min_samples samples gives a frame at least."""
    least = subject.encoder.min_samples
    for length in (least, least + 1):
        subject.states(0.1 * np.random.default_rng(1).standard_normal(length).astype(np.float32))


def silence_and_full_scale_give_numbers(subject: EncoderSubject) -> None:
    """Silence, and a wave at full scale, give finite values: neither log of 0 nor division by a deviation of 0."""
    length = max(SAMPLE_RATE, subject.encoder.min_samples)
    square = np.sign(np.sin(np.arange(length) / 20)).astype(np.float32)
    for what, wave in (("silence", np.zeros(length, np.float32)), ("a wave at full scale", square)):
        if not subject.states(wave).isfinite().all():
            raise BrokenContractError(f"{what} gives NaN or infinite values")


def the_same_wave_gives_the_same_again(subject: EncoderSubject) -> None:
    """A wave gives the same whenever it is encoded: no dropout, no noise, nothing kept of other waves."""
    waves = subject.waves()
    first = [subject.states(wave) for wave in waves]
    for wave, before in zip(reversed(waves), reversed(first), strict=True):
        for when in ("again after other waves", "twice in a row"):
            now = subject.states(wave)
            if now.shape != before.shape or not close(now, before):
                raise BrokenContractError(f"a wave of {len(wave)} samples that is encoded {when} gives other values")


def made_again_it_gives_the_same(subject: EncoderSubject) -> None:
    """Made once more, the class gives the same: no weight is left as it was drawn."""
    again = EncoderSubject.load(subject.encoder.info.name)
    for wave in subject.waves():
        if not close(again.states(wave), subject.states(wave)):
            raise BrokenContractError("made once more, it gives other values; load its weights, or draw them by a seed")
