"""A power spectrum as a convolution: runtimes of graphs have a convolution that is exact, and no good transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from bas.speech.audio import Wave


class Spectrum(nn.Module):
    """Samples `(1, N)`, padded already, to power `(K, F)`: K frequencies of each window, F windows a hop apart.

    As the square of `torch.stft` without its own padding; ONNX Runtime's STFT is a hundred times as far from it.

    size: of the transform, with zeros behind the window. before_NN: a linear map of each frame before the window.
    """

    basis_K1N: Tensor

    def __init__(self, window_N: Tensor, hop: int, size: int | None = None, before_NN: Tensor | None = None) -> None:
        super().__init__()
        size = size or len(window_N)
        turns_KN = torch.arange(size // 2 + 1)[:, None] * torch.arange(len(window_N)) % size
        angle_KN = 2 * torch.pi * turns_KN.double() / size
        basis_KN = torch.cat([angle_KN.cos(), angle_KN.sin()]) * window_N.double()
        if before_NN is not None:
            basis_KN = basis_KN @ before_NN.double()
        self.register_buffer("basis_K1N", basis_KN.to(window_N.dtype)[:, None])
        self.hop = hop

    def forward(self, wave_1N: Tensor) -> Tensor:
        real_KF, imaginary_KF = conv1d(wave_1N[None], self.basis_K1N, stride=self.hop)[0].chunk(2)
        return real_KF.square() + imaginary_KF.square()


class KaldiEnergies(nn.Module):
    """Samples `(1, N)` to the logarithm of mel energies `(F, M)`, as Kaldi's `compute-fbank-feats` without dither.

    25 ms windows every 10 ms, whole ones alone; from each its mean is taken, then 0.97 of the sample before (Povey et
    al., *The Kaldi Speech Recognition Toolkit*, ASRU 2011). Both are linear, so the spectrum's basis holds them.

    window: "povey" or "hann". scale: of the samples; Kaldi's are 16-bit integers.
    """

    WINDOW, HOP, SIZE = 400, 160, 512
    AT_ONCE = 6_000  # frames of `of_wave`
    FLOOR = 1.192092955078125e-07  # float32's epsilon
    PREEMPHASIS = 0.97

    filters_MK: Tensor

    def __init__(self, bands: int, window: str, scale: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        from transformers.audio_utils import mel_filter_bank, window_function

        filters_KM = mel_filter_bank(
            self.SIZE // 2 + 1, bands, 20, 8_000, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True
        )
        self.register_buffer("filters_MK", torch.from_numpy(filters_KM.T.copy()).to(dtype))
        taken_NN = torch.eye(self.WINDOW, dtype=torch.float64) - 1 / self.WINDOW
        before_NN = torch.eye(self.WINDOW, dtype=torch.float64)
        before_NN -= self.PREEMPHASIS * torch.eye(self.WINDOW, dtype=torch.float64).roll(-1, 1).tril()
        before_NN[0, 0] = 1 - self.PREEMPHASIS  # the sample before the first is taken to be as the first
        window_N = torch.from_numpy(window_function(self.WINDOW, window, periodic=False)).to(dtype)
        self.spectrum = Spectrum(window_N, self.HOP, self.SIZE, scale * before_NN @ taken_NN)

    def of_wave(self, wave: Wave) -> Tensor:
        """`(F, M)` of a wave of any length; the spectra of a minute are in memory at a time."""
        wave_1N = torch.from_numpy(wave)[None]
        frames = (len(wave) - self.WINDOW) // self.HOP + 1
        parts = []
        for start in range(0, max(frames, 1), self.AT_ONCE):
            end = min(start + self.AT_ONCE, frames)
            part_1N = wave_1N[:, start * self.HOP : (end - 1) * self.HOP + self.WINDOW]
            parts.append(self(part_1N.to(self.filters_MK.dtype)))
        return torch.cat(parts)

    def forward(self, wave_1N: Tensor) -> Tensor:
        mel_MF: Tensor = (self.filters_MK @ self.spectrum(wave_1N)).clamp_min(self.FLOOR).log()
        return mel_MF.T
