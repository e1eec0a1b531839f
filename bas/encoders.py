"""Frozen encoders behind one protocol: speech encoders of `transformers`, by hub name or local folder, and log-mel.

Axes: L hidden states (state 0 is what enters the first transformer layer), T frames, D width.
Frozen means: `eval`, no gradient, no dropout, float32.
Padding never reaches a feature: waveform encoders see only batches of equal length, because a GroupNorm front
(wav2vec 2.0 and HuBERT base) takes its statistics over padding too; Whisper always sees its own 30 s window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor
from torchaudio.transforms import MelSpectrogram

from bas.audio import SAMPLE_RATE, Wave
from bas.errors import UserError

WAVEFORM_MODELS = ("wav2vec2", "hubert", "wavlm", "unispeech-sat", "unispeech", "data2vec-audio", "sew", "sew-d")
LOG_MEL = "log-mel"


@dataclass(frozen=True)
class EncoderInfo:
    """What a shard records about the encoder that filled it."""

    name: str
    revision: str  # the hub's commit, or a hash of the local files
    model_type: str
    num_states: int
    dim: int
    frame_rate: float  # frames per second
    sample_rate: int = SAMPLE_RATE
    input: str = ""  # how the waveform is prepared

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Encoder(Protocol):
    """Waves in, hidden states out."""

    info: EncoderInfo
    min_samples: int
    device: torch.device  # where it computes, whatever was asked for

    def batch_key(self, num_samples: int) -> Hashable:
        """Utterances with equal keys may be encoded together without any of them noticing."""

    def encode(self, waves: Sequence[Wave]) -> list[Tensor]:
        """Each wave's states `(L, T, D)`, float32, on the CPU. All waves have the same batch key."""


def load_encoder(name: str, device: torch.device, revision: str | None = None) -> Encoder:
    """`log-mel`, a local folder in the `transformers` layout, or a hub name.

    Raises UserError when nothing of that name can be loaded, or it is no speech encoder `bas` knows, or a revision
    is asked of what has no history.
    """
    if revision is not None and (name == LOG_MEL or Path(name).is_dir()):
        raise UserError(f"encoder {name!r}: revision {revision!r} asked, but only a hub name has revisions")
    if name == LOG_MEL:
        return LogMel()
    from huggingface_hub.errors import StrictDataclassError  # seconds to import, needed here only
    from transformers import AutoConfig
    from transformers.utils import logging
    from transformers.utils.hub import cached_file

    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise UserError(f"encoder {name!r}: not {LOG_MEL}, no model folder there")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        if not Path(name).is_dir():
            # The cache keeps files under their commit, snapshots/COMMIT/config.json; all else is loaded from that one.
            revision = Path(str(cached_file(name, "config.json", revision=revision))).parent.name
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UserError(
            f"encoder {name!r}: not {LOG_MEL}, no model folder and not to be had from the hub: {_first_line(error)}"
        ) from error
    if config.model_type == "whisper":
        return Whisper(name, config, device, revision)
    if config.model_type in WAVEFORM_MODELS:
        return Waveform(name, config, device, revision)
    allowed = ", ".join(("whisper", *WAVEFORM_MODELS))
    raise UserError(f"encoder {name!r}: model_type {config.model_type!r} is not one of {allowed}, or {LOG_MEL}")


class LogMel:
    """80-band natural-log mel energies, 25 ms windows every 10 ms: the baseline without weights. One state."""

    min_samples = 1
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.info = EncoderInfo(LOG_MEL, "1", LOG_MEL, num_states=1, dim=80, frame_rate=100.0)
        self._mel = MelSpectrogram(SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=80, pad_mode="constant")

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples

    @torch.inference_mode()
    def encode(self, waves: Sequence[Wave]) -> list[Tensor]:
        mel_BDT = self._mel(torch.stack([torch.from_numpy(w) for w in waves]))
        return [mel_DT.clamp_min(1e-6).log().T[None] for mel_DT in mel_BDT]


class Waveform:
    """wav2vec 2.0 (and XLS-R), HuBERT, WavLM, UniSpeech(-SAT), data2vec-audio, SEW(-D): raw waveform in."""

    def __init__(self, name: str, config: Any, device: torch.device, revision: str | None) -> None:
        from transformers import Wav2Vec2FeatureExtractor

        self.device = device
        self._model = _freeze(_weights(name, revision), device)
        self._extractor = _extractor(name, revision, Wav2Vec2FeatureExtractor)
        # SEW's transformer runs on frames averaged in pairs.
        stride = self.min_samples = getattr(config, "squeeze_factor", 1)
        for kernel, step in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
            self.min_samples = (self.min_samples - 1) * step + kernel
            stride *= step
        self.info = EncoderInfo(
            name,
            _revision(name, revision),
            config.model_type,
            config.num_hidden_layers + 1,
            config.hidden_size,
            SAMPLE_RATE / stride,
            input="zero mean, unit variance" if self._extractor.do_normalize else "as recorded",
        )

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples

    @torch.inference_mode()
    def encode(self, waves: Sequence[Wave]) -> list[Tensor]:
        inputs = self._extractor(list(waves), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        states = self._model(inputs.input_values.to(self.device), output_hidden_states=True).hidden_states
        return list(torch.stack(states, dim=1).float().cpu())


class Whisper:
    """Whisper's encoder in its exact form: every window is 30 s, and only the real frames are kept.

    A recording of more than 30 s is encoded in windows of 30 s, one after the other.
    """

    min_samples = 1

    def __init__(self, name: str, config: Any, device: torch.device, revision: str | None) -> None:
        from transformers import WhisperFeatureExtractor

        self.device = device
        self._model = _freeze(_weights(name, revision).get_encoder(), device)
        self._extractor = _extractor(name, revision, partial(WhisperFeatureExtractor, feature_size=config.num_mel_bins))
        self._window = self._extractor.n_samples
        self._hop = 2 * self._extractor.hop_length  # the second convolution has stride 2
        self.info = EncoderInfo(
            name,
            _revision(name, revision),
            config.model_type,
            config.encoder_layers + 1,
            config.d_model,
            SAMPLE_RATE / self._hop,
            input="log-mel padded to 30 s",
        )

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples <= self._window or num_samples

    @torch.inference_mode()
    def encode(self, waves: Sequence[Wave]) -> list[Tensor]:
        windows = [[w[i : i + self._window] for i in range(0, len(w), self._window)] for w in waves]
        flat = [part for parts in windows for part in parts]
        inputs = self._extractor(flat, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        output = self._model(inputs.input_features.to(self.device), output_hidden_states=True)
        states = iter(torch.stack(output.hidden_states, dim=1).float().cpu())
        return [torch.cat([next(states)[:, : -(-len(p) // self._hop)] for p in parts], dim=1) for parts in windows]


def _weights(name: str, revision: str | None) -> Any:
    """The model, or a UserError where `transformers` would put random numbers for weights that are not there."""
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        model, report = AutoModel.from_pretrained(
            name, revision=revision, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise UserError(f"encoder {name!r}: its weights cannot be loaded: {_first_line(error)}") from error
    # What masks spans in training, and Whisper's decoder, take no part in the features.
    missing = sorted(k for k in report["missing_keys"] if k != "masked_spec_embed" and not k.startswith("decoder."))
    if missing:
        raise UserError(f"encoder {name!r}: {len(missing)} weights are missing from its files, {missing[0]} the first")
    return model


def _freeze(model: Any, device: torch.device) -> Any:
    return model.to(device).eval().requires_grad_(False)


def _extractor(name: str, revision: str | None, default: Callable[[], Any]) -> Any:
    """How the model wants its input; for a folder that does not say, the defaults of `transformers`."""
    from transformers import AutoFeatureExtractor

    folder = Path(name)
    if folder.is_dir() and not any((folder / f"{s}_config.json").exists() for s in ("preprocessor", "processor")):
        return default()
    try:
        return AutoFeatureExtractor.from_pretrained(name, revision=revision)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder {name!r}: its preprocessor_config.json cannot be read: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _revision(name: str, commit: str | None) -> str:
    """The hub's commit, or for a folder a hash over its configuration and weights."""
    folder = Path(name)
    if not folder.is_dir():
        assert commit is not None, "load_encoder has looked it up"
        return commit
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
