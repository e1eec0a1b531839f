"""wav2vec 2.0 (and XLS-R), HuBERT, WavLM, UniSpeech(-SAT), data2vec-audio, SEW(-D): raw waveform in."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
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
    save_as,
    spans,
)
from bas.speech.audio import SAMPLE_RATE, Wave

# After their convolutional front these models never see padding: they have one convolution, over frames in which
# padding is zeroed, and then masked attention. In the others padding leaks: data2vec-audio stacks five convolutions,
# and from the second on each sees what the one before made of the zeros; SEW(-D) averages frames in pairs, and a pair
# may be half padding. In those models only waves with equally many frames share a batch.
PADDABLE = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
WAVEFORM_MODELS = (*PADDABLE, "data2vec-audio", "sew", "sew-d")


class Waveform:
    """The model of `transformers`, with its convolutional front run on each wave alone.

    A front with GroupNorm (wav2vec 2.0 and HuBERT base) would include padding in its statistics.

    A recording of more than LONGEST is encoded in pieces of one length, cut so that frames are as many, and as evenly
    spaced, as in one piece.
    """

    window: int | None = LONGEST
    longest: int | None = LONGEST

    def __init__(self, name: str, config: Any, device: torch.device, revision: str | None, precision: str) -> None:
        from transformers import Wav2Vec2FeatureExtractor

        self.device = device
        self._dtype = getattr(torch, precision)
        model = load_weights(name, revision, self._dtype)
        # The front's output is given to the model in place of the waveform.
        self._front, model.feature_extractor = freeze(model.feature_extractor, device), nn.Identity()
        self._model = freeze(model, device)
        self.trunk: nn.Module = self._model
        if config.model_type == "wavlm":  # about a mask that transformers makes; a user can do nothing about it
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        self._extractor = load_extractor(name, revision, Wav2Vec2FeatureExtractor, Wav2Vec2FeatureExtractor)
        self._norm_last = getattr(config, "do_stable_layer_norm", False)
        # A BatchNorm before the positional convolution (some HuBERT models) changes zeroed frames.
        self._pads = config.model_type in PADDABLE and not getattr(config, "conv_pos_batch_norm", False)
        self._convolutions = list(zip(config.conv_kernel, config.conv_stride, strict=True))
        # SEW's transformer runs on frames averaged in pairs.
        stride = self.min_samples = self._squeeze = getattr(config, "squeeze_factor", 1)
        for kernel, step in reversed(self._convolutions):
            self.min_samples = (self.min_samples - 1) * step + kernel
            stride *= step
        self.info = EncoderInfo(
            name,
            revision_of(name, revision),
            config.model_type,
            config.num_hidden_layers + 1,
            config.hidden_size,
            SAMPLE_RATE / stride,
            input="zero mean, unit variance" if self._extractor.do_normalize else "as recorded",
            precision=precision,
        )

    def batch_key(self, num_samples: int) -> Hashable:
        return None if self._pads else self._frames(num_samples)

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: Wave) -> Tensor:
        """`(samples,)` float32, with zero mean and unit variance where the model's preprocessor says so."""
        if self._extractor.do_normalize:  # the extractor's own arithmetic; calling it would take milliseconds
            (wave,) = self._extractor.zero_mean_unit_var_norm([wave], None)
        return torch.from_numpy(np.asarray(wave, np.float32))

    @torch.inference_mode()
    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        cut = [self._pieces(x) for x in inputs]
        if all(len(parts) == 1 for parts in cut):
            return self._together(inputs)
        return [joined(self._together([part])[0] for part in parts) for parts in cut]

    def _together(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        frames, output = self._forward(inputs, states=True)
        # Cut each wave out before the states are stacked: padding is never copied.
        return [torch.stack([x_BTD[i, :n] for x_BTD in output.hidden_states]) for i, n in enumerate(frames)]

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        frames, output = self._forward(inputs, states=False)
        return [x_TD[:n] for x_TD, n in zip(output.last_hidden_state, frames, strict=True)]

    def cut(self, states_LTD: Tensor) -> Tensor:
        if not self._norm_last:
            return states_LTD
        normed_LTD: Tensor = self._model.encoder.layer_norm(states_LTD)
        return normed_LTD

    def save(self, folder: Path) -> None:
        front = {f"feature_extractor.{name}": value for name, value in self._front.state_dict().items()}
        save_as(folder, self._model, {**self._model.state_dict(), **front}, self._extractor)

    def graph(self, layers: Sequence[int]) -> nn.Module:
        return Graph(self._front, self._model, self._extractor.do_normalize, layers)

    def _forward(self, inputs: Sequence[Tensor], states: bool) -> tuple[list[int], Any]:
        """The number of frames of each wave, and the model's output for all of them, padded."""
        with torch.no_grad():
            fronts = [self._front(x.to(self.device, self._dtype)[None])[0].T for x in inputs]
        frames = [len(front_TC) for front_TC in fronts]
        mask_BN = None
        if len(set(frames)) > 1:
            assert self._pads, "all waves have the same batch key"
            samples_B = torch.tensor([len(x) for x in inputs], device=self.device)
            mask_BN = torch.arange(max(map(len, inputs)), device=self.device) < samples_B[:, None]
        x_BCT = pad_sequence(fronts, batch_first=True).mT
        dropped_BT = self._spans(frames) if self._model.training else None
        given = {"attention_mask": mask_BN, "mask_time_indices": dropped_BT, "output_hidden_states": states}
        return frames, self._model(x_BCT, **given)

    def _spans(self, frames: Sequence[int]) -> Tensor | None:
        """The SpecAugment mask; that of `transformers` counts padding and refuses waves shorter than a span."""
        config = self._model.config
        if not (getattr(config, "apply_spec_augment", True) and config.mask_time_prob > 0):
            return None
        how = config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
        return pad_sequence([spans(n, *how) for n in frames], batch_first=True).to(self.device)

    def _pieces(self, wave: Tensor) -> list[Tensor]:
        """A piece ends with the samples that its last frame sees, the last with the wave; the next begins where its
        first frame begins."""
        step, frames = round(SAMPLE_RATE / self.info.frame_rate), self._frames(len(wave)) // self._squeeze
        cut = pieces(frames, LONGEST // step)
        return [wave[a * step : None if b == frames else (b - 1) * step + self.min_samples] for a, b in cut]

    def _frames(self, num_samples: int) -> int:
        """The number of frames that the front makes of so many samples."""
        for kernel, step in self._convolutions:
            num_samples = (num_samples - kernel) // step + 1
        return num_samples


class Graph(nn.Module):
    """See `bas.encoders.base.Graphed`."""

    def __init__(self, front: nn.Module, model: nn.Module, normalise: bool, layers: Sequence[int]) -> None:
        super().__init__()
        self.front, self.model, self.normalise, self.layers = front, model, normalise, tuple(layers)

    def forward(self, wave_1N: Tensor) -> Tensor:
        if self.normalise:  # as the extractor of `transformers`
            wave_1N = (wave_1N - wave_1N.mean()) / (wave_1N.var(correction=0) + 1e-7).sqrt()
        states = self.model(self.front(wave_1N), output_hidden_states=True).hidden_states
        return torch.cat([states[layer] for layer in self.layers])
