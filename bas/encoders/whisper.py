"""Whisper's encoder: windows of 30 s, or the recording's own length."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, pad
from torch.nn.utils.rnn import pad_sequence

from bas.audio import SAMPLE_RATE, Wave
from bas.encoders.base import EncoderInfo, freeze, load_extractor, load_weights, revision_of
from bas.errors import UserError

# Windows that go through the model at once, however long a recording is: enough to fill a GPU.
WINDOWS = 8


class Whisper:
    """In its exact form every window is 30 s, padded with silence, and only the real frames are kept.

    `real_length` leaves the padding out: many times faster on short recordings, and other features.
    A recording of more than 30 s is encoded in windows of 30 s, one after the other.

    Axes: M mel bands, F mel frames (100 a second), T states (50 a second).
    """

    min_samples = 1
    max_samples: int | None = None

    def __init__(
        self,
        name: str,
        config: Any,
        device: torch.device,
        revision: str | None,
        precision: str,
        real_length: bool,
    ) -> None:
        from transformers import WhisperFeatureExtractor

        self.device = device
        self._real_length = real_length
        self._dtype = getattr(torch, precision)
        self._model = freeze(load_weights(name, revision, self._dtype).get_encoder(), device)
        default = partial(WhisperFeatureExtractor, feature_size=config.num_mel_bins)
        extractor = load_extractor(name, revision, WhisperFeatureExtractor, default)
        told = (extractor.feature_size, extractor.nb_max_frames)
        if told != (config.num_mel_bins, 2 * config.max_source_positions):
            raise UserError(f"encoder {name!r}: its preprocessor makes (bands, frames) {told}, which the model refuses")
        self._samples, self._frames = extractor.n_samples, extractor.nb_max_frames  # of a window
        self._fft, self._hop = extractor.n_fft, extractor.hop_length
        self._hann = torch.hann_window(self._fft)
        self._filters_MK = torch.from_numpy(extractor.mel_filters.T).float().contiguous()
        # Mel frames after a recording's own: those that reach back into it by half a transform, and one of silence.
        self._tail = -(-self._fft // (2 * self._hop)) + 1
        self.info = EncoderInfo(
            name,
            revision_of(name, revision),
            config.model_type,
            config.encoder_layers + 1,
            config.d_model,
            SAMPLE_RATE / (2 * self._hop),  # the second convolution has stride 2
            input="log-mel of the real length" if real_length else "log-mel padded to 30 s",
            precision=precision,
        )

    def batch_key(self, num_samples: int) -> Hashable:
        return None

    def cost(self, num_samples: int) -> int:
        """In the exact form whole windows."""
        return num_samples if self._real_length else -(-num_samples // self._samples) * self._samples

    def prepare(self, wave: Wave) -> Tensor:
        """The log-mel `(M, F)`, window after window, and then the tail (`self._tail` more frames) of the last."""
        mels = [self._log_mel(wave[i : i + self._samples]) for i in range(0, len(wave), self._samples)]
        return torch.cat([*(mel_MF[:, : self._frames] for mel_MF in mels[:-1]), mels[-1]], dim=1)

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        states: list[Tensor] = []
        windows: list[tuple[Tensor, Tensor]] = []  # what goes in, and where the real frames of what comes out go
        for mel_MF in inputs:
            frames = mel_MF.shape[1] - self._tail
            shape = (self.info.num_states, -(-frames // 2), self.info.dim)
            states.append(torch.empty(shape, dtype=self._dtype, device=self.device))
            for start in range(0, frames, self._frames):
                stop = start + self._frames
                if self._real_length:
                    window_MF = mel_MF[:, start : min(stop, frames)]
                else:  # the last frame is silence: it stands for all that follow
                    window_MF = mel_MF[:, start:stop]
                    window_MF = pad(window_MF, (0, self._frames - window_MF.shape[1]), mode="replicate")
                windows.append((window_MF, states[-1][:, start // 2 : stop // 2]))
        for i in range(0, len(windows), WINDOWS):
            some = windows[i : i + WINDOWS]
            for layer, x_BTD in enumerate(self._layers([window_MF for window_MF, _ in some])):
                for x_TD, (_, out_LTD) in zip(x_BTD, some, strict=True):
                    out_LTD[layer] = x_TD[: out_LTD.shape[1]]
        return states

    def _log_mel(self, wave: Wave) -> Tensor:
        """What `WhisperFeatureExtractor` makes of one window, less most of the silence up to 30 s: `(M, F + tail)`."""
        frames = -(-len(wave) // self._hop) + self._tail
        # Zeros enough that no frame wanted sees the end, where the transform reflects the wave; at 30 s, one does,
        # as in the extractor.
        samples = min(frames * self._hop + self._fft // 2, self._samples)
        padded = pad(torch.from_numpy(wave), (0, samples - len(wave)))
        spectrum_KF = torch.stft(padded, self._fft, self._hop, window=self._hann, return_complex=True)
        power_KF = spectrum_KF[:, : min(frames, self._frames)].abs().square()
        mel_MF = (self._filters_MK @ power_KF).clamp_min(1e-10).log10()
        mel_MF = (mel_MF.maximum(mel_MF.max() - 8.0) + 4.0) / 4.0
        return pad(mel_MF, (0, frames - mel_MF.shape[1]), mode="replicate")  # none is there beyond 30 s, none is used

    def _layers(self, mels: Sequence[Tensor]) -> Iterator[Tensor]:
        """The hidden states `(B, T, D)`, one after the other, as `transformers` has them: the last is normalised.

        Its own forward takes 30 s only. Padding, where lengths differ, is zero wherever a convolution looks at it, as
        beyond the end of a window that goes alone, and no frame attends to it.
        """
        model = self._model
        x_BMF = pad_sequence([mel_MF.T for mel_MF in mels], batch_first=True).mT.to(self.device, self._dtype)
        x_BDF = gelu(model.conv1(x_BMF))
        mask_B11T = None
        if len({mel_MF.shape[1] for mel_MF in mels}) > 1:
            frames_B = torch.tensor([mel_MF.shape[1] for mel_MF in mels], device=self.device)
            padding_B11F = torch.arange(x_BMF.shape[2], device=self.device) >= frames_B[:, None, None, None]
            x_BDF = x_BDF.masked_fill(padding_B11F[:, 0], 0.0)
            # Added to the scores: as numbers and not true or false, it means the same to every attention there is.
            lowest = torch.finfo(self._dtype).min
            mask_B11T = torch.where(padding_B11F[..., ::2], lowest, 0.0).to(self._dtype)
        x_BTD = gelu(model.conv2(x_BDF)).mT
        x_BTD = x_BTD + model.embed_positions.weight[: x_BTD.shape[1]]
        for layer in model.layers:
            yield x_BTD
            output = layer(x_BTD, mask_B11T)
            x_BTD = output[0] if isinstance(output, tuple) else output  # a tuple in transformers 5.0
        yield model.layer_norm(x_BTD)
