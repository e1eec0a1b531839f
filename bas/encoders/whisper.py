"""Whisper's encoder: windows of 30 s, or the recording's own length."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, gelu, pad
from torch.nn.utils.rnn import pad_sequence

from bas.encoders.base import EncoderInfo, filled, freeze, load_extractor, load_weights, revision_of, save_as, spans
from bas.encoders.spectrum import Spectrum
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave

WINDOWS = 8  # encoded at once, however long a recording is: enough to fill a GPU


class Whisper:
    """Whisper's encoder. In its exact form every window is 30 s, padded with silence; only the real frames are kept.

    `real_length` leaves the padding out: many times faster on short recordings, but the features differ.
    A recording of more than 30 s is encoded in consecutive windows of 30 s.

    Axes: M mel bands, F mel frames (100 a second), T states (50 a second).
    """

    min_samples = 1
    longest: int | None = None

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
        # Without the two convolutions, and without the positions, which OpenAI did not train either.
        trunk = {"layers": self._model.layers, "layer_norm": self._model.layer_norm}
        self.trunk: nn.Module = nn.ModuleDict(trunk).eval()  # a new module is in `train` mode, whatever is in it
        default = partial(WhisperFeatureExtractor, feature_size=config.num_mel_bins)
        self._extractor = extractor = load_extractor(name, revision, WhisperFeatureExtractor, default)
        shape = (extractor.feature_size, extractor.nb_max_frames)
        if shape != (config.num_mel_bins, 2 * config.max_source_positions):
            raise UserError(
                f"encoder {name!r}: its preprocessor makes (bands, frames) {shape}, which the model refuses"
            )
        self._samples, self._frames = extractor.n_samples, extractor.nb_max_frames  # of a window
        self._fft, self._hop = extractor.n_fft, extractor.hop_length
        self.window: int | None = self._samples
        self._hann = torch.hann_window(self._fft)
        self._filters_MK = torch.from_numpy(extractor.mel_filters.T).float().contiguous()
        # Mel frames after the recording's own: those whose window overlaps its end, and one of silence.
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
        """The wave's samples; in the exact form those of whole windows."""
        return num_samples if self._real_length else -(-num_samples // self._samples) * self._samples

    def prepare(self, wave: Wave) -> Tensor:
        """The log-mel `(M, F)` of all windows end to end, then the tail (`self._tail` more frames) of the last."""
        mels = [self._log_mel(wave[i : i + self._samples]) for i in range(0, len(wave), self._samples)]
        return torch.cat([*(mel_MF[:, : self._frames] for mel_MF in mels[:-1]), mels[-1]], dim=1)

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        states: list[Tensor] = []
        windows: list[tuple[Tensor, Tensor]] = []  # each input, and the view of the states that its output fills
        for mel_MF in inputs:
            shape = (self.info.num_states, self._length(mel_MF), self.info.dim)
            states.append(torch.empty(shape, dtype=self._dtype, device=self.device))
            windows += [(window_MF, states[-1][:, place]) for window_MF, place in self._windows(mel_MF)]
        for i in range(0, len(windows), WINDOWS):
            some = windows[i : i + WINDOWS]
            for layer, x_BTD in enumerate(self._layers([window_MF for window_MF, _ in some])):
                for x_TD, (_, out_LTD) in zip(x_BTD, some, strict=True):
                    out_LTD[layer] = x_TD[: out_LTD.shape[1]]
        return states

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if self.trunk.training:
            inputs = [self._augmented(mel_MF) for mel_MF in inputs]
        windows = [window for mel_MF in inputs for window in self._windows(mel_MF)]
        frames: list[Tensor] = []
        for i in range(0, len(windows), WINDOWS):
            some = windows[i : i + WINDOWS]
            *_, last_BTD = self._layers([window_MF for window_MF, _ in some])
            frames += [x_TD[: place.stop - place.start] for x_TD, (_, place) in zip(last_BTD, some, strict=True)]
        return list(torch.split(torch.cat(frames), [self._length(mel_MF) for mel_MF in inputs]))

    def cut(self, states_LTD: Tensor) -> Tensor:
        return torch.cat([self._model.layer_norm(states_LTD[:-1]), states_LTD[-1:]])

    def save(self, folder: Path) -> None:
        # Without the decoder, which plays no part and is not kept in memory.
        state = {f"encoder.{name}": value for name, value in self._model.state_dict().items()}
        save_as(folder, self._model, state, self._extractor)

    def graph(self, layers: Sequence[int]) -> nn.Module:
        return Graph(self, layers)

    def _length(self, mel_MF: Tensor) -> int:
        """The number of frames of the states."""
        frames: int = mel_MF.shape[1] - self._tail
        return -(-frames // 2)

    def _windows(self, mel_MF: Tensor) -> Iterator[tuple[Tensor, slice]]:
        """The model's input of each window, and which frames of the states it makes."""
        frames = mel_MF.shape[1] - self._tail
        for start in range(0, frames, self._frames):
            stop = min(start + self._frames, frames)
            if self._real_length:
                window_MF = mel_MF[:, start:stop]
            else:  # the last frame is silence and is repeated for the frames that follow
                window_MF = mel_MF[:, start : start + self._frames]
                window_MF = pad(window_MF, (0, self._frames - window_MF.shape[1]), mode="replicate")
            yield window_MF, slice(start // 2, -(-stop // 2))

    def _augmented(self, mel_MF: Tensor) -> Tensor:
        """SpecAugment over time and bands, as `WhisperModel` does, on the recording's own frames alone."""
        config, frames = self._model.config, mel_MF.shape[1] - self._tail
        if not config.apply_spec_augment:
            return mel_MF
        mask_MF = torch.zeros(mel_MF.shape, dtype=torch.bool)
        if config.mask_time_prob > 0:
            how = config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
            mask_MF[:, :frames] |= spans(frames, *how)
        if config.mask_feature_prob > 0:
            how = config.mask_feature_prob, config.mask_feature_length, config.mask_feature_min_masks
            mask_MF |= spans(len(mel_MF), *how)[:, None]
        return mel_MF.masked_fill(mask_MF, 0.0)

    def _log_mel(self, wave: Wave) -> Tensor:
        """`(M, F + tail)`: what `WhisperFeatureExtractor` makes of one window, less most of the silence up to 30 s."""
        frames = -(-len(wave) // self._hop) + self._tail
        # Enough zeros that no kept frame sees the end, where the transform reflects the wave. At 30 s one does, as in
        # the extractor.
        samples = min(frames * self._hop + self._fft // 2, self._samples)
        padded = pad(torch.from_numpy(wave), (0, samples - len(wave)))
        spectrum_KF = torch.stft(padded, self._fft, self._hop, window=self._hann, return_complex=True)
        power_KF = spectrum_KF[:, : min(frames, self._frames)].abs().square()
        mel_MF = self._energies(power_KF)
        return pad(mel_MF, (0, frames - mel_MF.shape[1]), mode="replicate")  # frames beyond 30 s are never used

    def _energies(self, power_KF: Tensor) -> Tensor:
        """The log-mel `(M, F)` of a power spectrum."""
        mel_MF = (self._filters_MK @ power_KF).clamp_min(1e-10).log10()
        return (mel_MF.maximum(mel_MF.max() - 8.0) + 4.0) / 4.0

    def _layers(self, mels: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yields the hidden states `(B, T, D)`, layer by layer, as `transformers` gives them: the last is normalised.

        The model's own forward takes only 30 s. Where lengths differ, padding is zero for every convolution, as beyond
        the end of a window encoded alone, and no frame attends to it.
        """
        model = self._model
        x_BMF = pad_sequence([mel_MF.T for mel_MF in mels], batch_first=True).mT.to(self.device, self._dtype)
        x_BDF = gelu(model.conv1(x_BMF))
        mask_B11T = None
        if len({mel_MF.shape[1] for mel_MF in mels}) > 1:
            frames_B = torch.tensor([mel_MF.shape[1] for mel_MF in mels], device=self.device)
            padding_B11F = torch.arange(x_BMF.shape[2], device=self.device) >= frames_B[:, None, None, None]
            x_BDF = x_BDF.masked_fill(padding_B11F[:, 0], 0.0)
            # Added to the scores: numbers, unlike booleans, mean the same in every attention implementation.
            lowest = torch.finfo(self._dtype).min
            mask_B11T = torch.where(padding_B11F[..., ::2], lowest, 0.0).to(self._dtype)
        yield from self._states(x_BDF, mask_B11T)

    def _states(self, x_BDF: Tensor, mask_B11T: Tensor | None) -> Iterator[Tensor]:
        """What `_layers` yields, from behind the first convolution on."""
        model = self._model
        x_BTD = gelu(model.conv2(x_BDF)).mT
        training = self.trunk.training
        x_BTD = x_BTD + model.embed_positions.weight[: x_BTD.shape[1]]
        x_BTD = dropout(x_BTD, model.dropout, training)
        for layer in model.layers:
            yield x_BTD
            if training and float(torch.rand(())) < model.layerdrop:
                continue
            output = layer(x_BTD, mask_B11T)
            x_BTD = output[0] if isinstance(output, tuple) else output  # a tuple in transformers 5.0
        yield model.layer_norm(x_BTD)


class Graph(nn.Module):
    """See `bas.encoders.base.Graphed`. One window: what is longer is cut off."""

    def __init__(self, encoder: Whisper, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.layers, self._encoder = encoder._model, tuple(layers), encoder
        self.spectrum = Spectrum(encoder._hann, encoder._hop)

    def forward(self, wave_1N: Tensor) -> Tensor:
        of, half = self._encoder, self._encoder._fft // 2
        # Rounded up with no number below zero: a graph's division rounds to zero, Python's down.
        frames = (wave_1N.shape[1] + of._hop - 1) // of._hop
        wave_1N = filled(wave_1N, of._samples)
        power_KF = self.spectrum(pad(wave_1N, (half, half), mode="reflect"))[:, : of._frames]
        mel_MF = of._energies(power_KF)
        if of._real_length:
            mel_MF = mel_MF[:, :frames]
        states = list(of._states(gelu(self.model.conv1(mel_MF[None])), None))
        return torch.cat([states[layer] for layer in self.layers])[:, : (frames + 1) // 2]
