"""Log-mel: the baseline without weights."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bas.encoders.base import EncoderInfo
from bas.encoders.spectrum import Spectrum
from bas.speech.audio import SAMPLE_RATE, Wave

LOG_MEL = "log-mel"
WINDOW, HOP, BANDS = 400, 160, 80  # samples: 25 ms every 10 ms


class LogMel:
    """80-band natural-log mel energies, 25 ms windows every 10 ms, always on the CPU. One state."""

    device = torch.device("cpu")
    min_samples = 1
    window: int | None = None

    def __init__(self) -> None:
        from transformers.audio_utils import mel_filter_bank  # a second to import

        self.info = EncoderInfo(LOG_MEL, "1", LOG_MEL, num_states=1, dim=BANDS, frame_rate=SAMPLE_RATE / HOP)
        filters_FD = mel_filter_bank(WINDOW // 2 + 1, BANDS, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, mel_scale="htk")
        self._filters_DF = torch.from_numpy(filters_FD.T).float()
        self._window = torch.hann_window(WINDOW)

    def batch_key(self, num_samples: int) -> Hashable:
        return None  # each wave is encoded alone

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: Wave) -> Tensor:
        """The log-mel energies `(T, D)`."""
        spectrum_FT = torch.stft(
            torch.from_numpy(wave), WINDOW, HOP, window=self._window, pad_mode="constant", return_complex=True
        )
        return energies(self._filters_DF, spectrum_FT.abs().square())

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [x_TD[None] for x_TD in inputs]

    def graph(self, layers: Sequence[int]) -> nn.Module:
        assert list(layers) == [0], layers
        return Graph(self._filters_DF, self._window)


def energies(filters_DF: Tensor, power_FT: Tensor) -> Tensor:
    """The log-mel energies `(T, D)` of a power spectrum."""
    return (filters_DF @ power_FT).clamp_min(1e-6).log().T


class Graph(nn.Module):
    """See `bas.encoders.base.Graphed`."""

    filters_DF: Tensor

    def __init__(self, filters_DF: Tensor, window: Tensor) -> None:
        super().__init__()
        self.register_buffer("filters_DF", filters_DF)
        self.spectrum = Spectrum(window, HOP)

    def forward(self, wave_1N: Tensor) -> Tensor:
        return energies(self.filters_DF, self.spectrum(pad(wave_1N, (WINDOW // 2, WINDOW // 2))))[None]
