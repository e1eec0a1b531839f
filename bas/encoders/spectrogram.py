"""w2v-BERT 2.0 and the audio spectrogram transformer: Kaldi's mel energies in.

Axes: B waves, L states, F mel frames (100 a second), M mel bands, T states' frames, D width, P bands of patches,
W windows.

References
    Barrault et al., *Seamless: Multilingual Expressive and Streaming Speech Translation*, 2023: w2v-BERT 2.0.
    Gong, Chung and Glass, *AST: Audio Spectrogram Transformer*, Interspeech 2021.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from bas.encoders.base import (
    LONGEST,
    EncoderInfo,
    freeze,
    joined,
    load_extractor,
    load_weights,
    pieces,
    revision_of,
)
from bas.encoders.spectrum import KaldiEnergies
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE, Wave

SPECTROGRAM_MODELS = ("wav2vec2-bert", "audio-spectrogram-transformer")
WINDOWS = 8  # of AST, encoded at once: enough to fill a GPU
TOKENS = 2  # of AST, before its patches: class and distillation


class W2vBert:
    """w2v-BERT 2.0: two mel frames side by side are a frame of the model, each band standardised over the recording.

    Its convolutions look back alone and its attention is masked, so padding behind a wave changes nothing. A recording
    of more than LONGEST is encoded in pieces of one length.
    """

    window: int | None = LONGEST

    def __init__(self, name: str, config: Any, device: torch.device, revision: str | None, precision: str) -> None:
        from transformers import SeamlessM4TFeatureExtractor

        self.device = device
        self._dtype = getattr(torch, precision)
        self._model = freeze(load_weights(name, revision, self._dtype), device)
        extractor = load_extractor(name, revision, SeamlessM4TFeatureExtractor, SeamlessM4TFeatureExtractor)
        bands, self._stride = extractor.num_mel_bins, extractor.stride
        if bands * self._stride != config.feature_projection_input_dim:
            made, wanted = bands * self._stride, config.feature_projection_input_dim
            raise UserError(f"encoder {name!r}: its preprocessor makes frames {made} wide, the model takes {wanted}")
        # Some positions are kept in the model from one call to the next.
        keeps = config.position_embeddings_type in ("rotary", "relative")
        self._turn: AbstractContextManager[Any] = Lock() if keeps else nullcontext()
        self._energies = partial(KaldiEnergies, bands, "povey", 2.0**15)
        self._exact = self._energies(torch.float64)
        hop = KaldiEnergies.HOP
        self.min_samples = KaldiEnergies.WINDOW + hop * (max(2, self._stride) - 1)  # a deviation needs two mel frames
        self.info = EncoderInfo(
            name,
            revision_of(name, revision),
            config.model_type,
            config.num_hidden_layers + 1,
            config.hidden_size,
            SAMPLE_RATE / (hop * self._stride),
            input="log-mel, each band of zero mean and unit variance",
            precision=precision,
        )

    def batch_key(self, num_samples: int) -> Hashable:
        return None

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: Wave) -> Tensor:
        """`(T, stride * M)` float32, as `SeamlessM4TFeatureExtractor`."""
        return self._frames(self._exact.of_wave(wave)).float()

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        longest = round(LONGEST / SAMPLE_RATE * self.info.frame_rate)
        cut = [[x_TM[a:b] for a, b in pieces(len(x_TM), longest)] for x_TM in inputs]
        if all(len(parts) == 1 for parts in cut):
            return self._together(inputs)
        return [joined(self._together([part])[0] for part in parts) for parts in cut]

    def graph(self, layers: Sequence[int]) -> nn.Module:
        return BertGraph(self, layers)

    def _frames(self, mel_FM: Tensor) -> Tensor:
        """Standardised over the recording, and side by side; mel frames that are left over are left out."""
        mel_FM = (mel_FM - mel_FM.mean(0)) / (mel_FM.var(0) + 1e-7).sqrt()
        whole = mel_FM.shape[0] // self._stride * self._stride
        return mel_FM[:whole].reshape(-1, self._stride * mel_FM.shape[1])

    def _together(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        frames = [len(x_TM) for x_TM in inputs]
        mask_BT = None
        if len(set(frames)) > 1:
            frames_B = torch.tensor(frames, device=self.device)
            mask_BT = torch.arange(max(frames), device=self.device) < frames_B[:, None]
        x_BTM = pad_sequence(list(inputs), batch_first=True).to(self.device, self._dtype)
        with self._turn:
            output = self._model(x_BTM, attention_mask=mask_BT, output_hidden_states=True)
        return [torch.stack([x_BTD[i, :n] for x_BTD in output.hidden_states]) for i, n in enumerate(frames)]


class BertGraph(nn.Module):
    """See `bas.encoders.base.Graphed`."""

    def __init__(self, encoder: W2vBert, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.layers, self._encoder = encoder._model, tuple(layers), encoder
        self.energies = encoder._energies()

    def forward(self, wave_1N: Tensor) -> Tensor:
        x_TM = self._encoder._frames(self.energies(wave_1N))
        output = self.model(x_TM[None], output_hidden_states=True)
        return torch.cat([output.hidden_states[layer] for layer in self.layers])


class Spectrograms:
    """The audio spectrogram transformer. A frame is the mean of the patches of all bands that begin at one time.

    The model sees a window of 10.24 s, padded with zeros as its extractor pads; only frames whose patches hold nothing
    but the recording are kept. A longer recording goes in windows that overlap by less than a patch, so that frames are
    evenly spaced throughout.
    """

    def __init__(self, name: str, config: Any, device: torch.device, revision: str | None, precision: str) -> None:
        from transformers import ASTFeatureExtractor

        self.device = device
        self._dtype = getattr(torch, precision)
        self._model = freeze(load_weights(name, revision, self._dtype), device)
        default = partial(ASTFeatureExtractor, num_mel_bins=config.num_mel_bins, max_length=config.max_length)
        extractor = load_extractor(name, revision, ASTFeatureExtractor, default)
        if (extractor.num_mel_bins, extractor.max_length) != (config.num_mel_bins, config.max_length):
            made = extractor.num_mel_bins, extractor.max_length
            raise UserError(f"encoder {name!r}: its preprocessor makes (bands, frames) {made}, which the model refuses")
        self._length, self._patch, self._step = map(int, (config.max_length, config.patch_size, config.time_stride))
        self._bands = int(config.num_mel_bins - self._patch) // int(config.frequency_stride) + 1
        self._columns = self._frames(self._length)
        self._mean = float(extractor.mean) if extractor.do_normalize else 0.0
        self._scale = 2 * float(extractor.std) if extractor.do_normalize else 1.0
        self._energies = partial(KaldiEnergies, config.num_mel_bins, "hann", 1.0)
        self._exact = self._energies(torch.float64)
        hop = KaldiEnergies.HOP
        self.min_samples = KaldiEnergies.WINDOW + hop * (self._patch - 1)
        self.window: int | None = KaldiEnergies.WINDOW + hop * (self._length - 1)
        self.info = EncoderInfo(
            name,
            revision_of(name, revision),
            config.model_type,
            config.num_hidden_layers + 1,
            config.hidden_size,
            SAMPLE_RATE / (hop * self._step),
            input=f"log-mel padded to {self._length * hop / SAMPLE_RATE:g} s",
            precision=precision,
        )

    def batch_key(self, num_samples: int) -> Hashable:
        return None

    def cost(self, num_samples: int) -> int:
        """The samples of whole windows."""
        step = self._columns * self._step * KaldiEnergies.HOP
        return -(-num_samples // step) * step

    def prepare(self, wave: Wave) -> Tensor:
        """`(F, M)` float32, normalised as by `ASTFeatureExtractor`, without its padding."""
        mel_FM = self._exact.of_wave(wave)
        return ((mel_FM - self._mean) / self._scale).float()

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        cut = [self._windows(mel_FM) for mel_FM in inputs]
        windows = [window_FM for parts in cut for window_FM in parts]
        states: list[Tensor] = []
        for i in range(0, len(windows), WINDOWS):
            some = windows[i : i + WINDOWS]
            x_WFM = torch.stack([self._padded(window_FM) for window_FM in some]).to(self.device, self._dtype)
            output = self._model(x_WFM, output_hidden_states=True)
            states_LWTD = torch.stack([self._of_patches(x_WND) for x_WND in output.hidden_states])
            states += [states_LWTD[:, w, : self._frames(len(window_FM))] for w, window_FM in enumerate(some)]
        each = iter(states)
        return [next(each) if len(parts) == 1 else joined([next(each) for _ in parts]) for parts in cut]

    def graph(self, layers: Sequence[int]) -> nn.Module:
        return PatchGraph(self, layers)

    def _frames(self, mel_frames: int) -> int:
        """The number of times at which a whole patch begins."""
        return (mel_frames - self._patch) // self._step + 1

    def _windows(self, mel_FM: Tensor) -> list[Tensor]:
        """Windows of which each begins where the first patch begins that is not whole in the one before."""
        count, step = -(-self._frames(len(mel_FM)) // self._columns), self._columns * self._step
        return [mel_FM[w * step : w * step + self._length] for w in range(count)]

    def _padded(self, mel_FM: Tensor) -> Tensor:
        """With what the extractor makes of zeros."""
        return pad(mel_FM, (0, 0, 0, self._length - mel_FM.shape[0]), value=-self._mean / self._scale)

    def _of_patches(self, x_WND: Tensor) -> Tensor:
        """The model's `(W, 2 + P * T, D)`, bands before times, to `(W, T, D)`."""
        return x_WND[:, TOKENS:].reshape(len(x_WND), self._bands, self._columns, -1).mean(1)


class PatchGraph(nn.Module):
    """See `bas.encoders.base.Graphed`. One window: what is longer is cut off."""

    def __init__(self, encoder: Spectrograms, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.layers, self._encoder = encoder._model, tuple(layers), encoder
        self.energies = encoder._energies()

    def forward(self, wave_1N: Tensor) -> Tensor:
        of = self._encoder
        mel_FM = (self.energies(wave_1N) - of._mean) / of._scale
        frames = of._frames(mel_FM.shape[0])
        rest_FM = mel_FM.new_full((of._length, mel_FM.shape[1]), -of._mean / of._scale)
        window_FM = torch.cat([mel_FM, rest_FM])[: of._length]
        output = self.model(window_FM[None], output_hidden_states=True)
        return torch.cat([of._of_patches(output.hidden_states[layer]) for layer in self.layers])[:, :frames]
