"""A power spectrum as a convolution, for a graph: runtimes have a convolution that is exact, and no good transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d


class Spectrum(nn.Module):
    """Samples `(1, N)`, padded already, to power `(K, F)`: K frequencies of each window, F windows a hop apart.

    As the square of `torch.stft` without its own padding; ONNX Runtime's STFT is a hundred times as far from it.
    """

    basis_K1N: Tensor

    def __init__(self, window_N: Tensor, hop: int) -> None:
        super().__init__()
        size = len(window_N)
        turns_KN = torch.arange(size // 2 + 1)[:, None] * torch.arange(size) % size
        angle_KN = 2 * torch.pi * turns_KN.double() / size
        basis_KN = torch.cat([angle_KN.cos(), angle_KN.sin()]) * window_N.double()
        self.register_buffer("basis_K1N", basis_KN.to(window_N.dtype)[:, None])
        self.hop = hop

    def forward(self, wave_1N: Tensor) -> Tensor:
        real_KF, imaginary_KF = conv1d(wave_1N[None], self.basis_K1N, stride=self.hop)[0].chunk(2)
        return real_KF.square() + imaginary_KF.square()
