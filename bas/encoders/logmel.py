"""Log-mel: the baseline without weights."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from bas.audio import SAMPLE_RATE, Wave
from bas.encoders.base import EncoderInfo

LOG_MEL = "log-mel"


class LogMel:
    """80-band natural-log mel energies, 25 ms windows every 10 ms, always on the CPU. One state."""

    device = torch.device("cpu")
    min_samples = 1
    max_samples: int | None = None

    def __init__(self) -> None:
        self.info = EncoderInfo(LOG_MEL, "1", LOG_MEL, num_states=1, dim=80, frame_rate=100.0)
        self._mel = MelSpectrogram(SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=80, pad_mode="constant")

    def batch_key(self, num_samples: int) -> Hashable:
        return None  # each wave goes by itself

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: Wave) -> Tensor:
        """All there is to do: `(T, D)`."""
        mel_DT: Tensor = self._mel(torch.from_numpy(wave))
        return mel_DT.clamp_min(1e-6).log().T

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [x_TD[None] for x_TD in inputs]
