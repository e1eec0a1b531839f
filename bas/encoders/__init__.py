"""Frozen encoders with one interface: speech encoders of `transformers`, by hub name or local folder, one shipped in
this package, log-mel, and a class in a Python file of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import torch
from torch import nn

from bas.encoders.base import PRECISIONS, Encoder, EncoderInfo, Tunable
from bas.encoders.logmel import LOG_MEL, LogMel
from bas.encoders.opening import cached_first, check_config, refuse_pointers
from bas.encoders.own import Own, is_own
from bas.encoders.padded import Padded, padded_as
from bas.encoders.spectrogram import SPECTROGRAM_MODELS, Spectrograms, W2vBert
from bas.encoders.waveform import WAVEFORM_MODELS, Waveform
from bas.encoders.whisper import Whisper
from bas.errors import UserError, first_line
from bas.util.faults import raise_memory
from bas.util.reading import check_folder

__all__ = [
    "LOG_MEL",
    "MODELS",
    "NANO",
    "PRECISIONS",
    "Encoder",
    "EncoderInfo",
    "Padded",
    "Tunable",
    "files_of",
    "is_own",
    "load_encoder",
    "one_at_a_time",
    "padded_as",
    "tunable",
]

MODELS = ("whisper", *WAVEFORM_MODELS, *SPECTROGRAM_MODELS)
"""Which of the models of `transformers`, by `model_type`."""
NANO = "bas-hubert-nano"
"""The encoder in this package; its folder has a model card. A user's own folder of that name is `./bas-hubert-nano`."""


def files_of(name: str) -> str:
    """What `transformers` loads for this name: for NANO its folder in this package, else the name itself."""
    return str(Path(__file__).with_name(NANO)) if name == NANO else name


def load_encoder(
    name: str,
    device: torch.device,
    revision: str | None = None,
    *,
    precision: str = "float32",
    real_length: bool = False,
) -> Encoder:
    """`log-mel`, `bas-hubert-nano`, a local folder in the `transformers` layout, a Python file, or a hub name.

    precision: of weights and arithmetic, one of PRECISIONS; float16 needs a GPU.
    real_length: run Whisper's encoder on the recording alone, without the silence that its exact form adds up to 30 s.
    Raises UserError when nothing of that name can be loaded, when it is no speech encoder that `bas` supports, or when
    it lacks the revision, precision or real length that was given.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision == "float16" and device.type == "cpu":
        raise UserError("precision 'float16' is not for the CPU: use float32, bfloat16, or a GPU")
    if is_own(name):
        _refuse_own(name, revision, precision, real_length)
        own = Own(name, device)
        own.try_out()
        return own
    given, name = name, files_of(name)
    if revision is not None and (name == LOG_MEL or Path(name).is_dir()):
        raise UserError(f"encoder {given!r}: revision {revision!r} asked, but only a hub name has revisions")
    if name == LOG_MEL:
        if precision != "float32":
            raise UserError(f"encoder {name!r}: precision {precision!r} asked, but it has no weights, only float32")
        _refuse_real_length(name, real_length)
        return LogMel()
    from transformers import AutoConfig  # seconds to import, needed here only
    from transformers.utils import logging
    from transformers.utils.hub import cached_file

    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise UserError(f"encoder {name!r}: not {LOG_MEL} or {NANO}, no model folder there")
    # For an unknown name the hub is tried for half a minute, which a typing error should not cost.
    similar = get_close_matches(name.rstrip("/").lower(), (LOG_MEL, NANO), n=1, cutoff=0.8)
    if similar and "/" not in name.rstrip("/") and not Path(name).is_dir():
        raise UserError(f"encoder {name!r}: no such name; did you mean {similar[0]}?")
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    check_folder(Path(name))
    refuse_pointers("encoder", name)
    try:
        if not Path(name).is_dir():
            # The cache keeps files under their commit, snapshots/COMMIT/config.json; the rest is loaded from it, too.
            wanted = revision
            path = cached_first(
                name, lambda local: cached_file(name, "config.json", revision=wanted, local_files_only=local)
            )
            revision = Path(str(path)).parent.name
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # transformers may fail in any way on a broken configuration
        raise_memory(error)
        message = f"not {LOG_MEL} or {NANO}, no model folder and not to be had from the hub: {first_line(error)}"
        if name and Path(name).is_dir():
            exists = (Path(name) / "config.json").is_file()
            message = f"config.json: {first_line(error)}" if exists else "no config.json in this folder"
            message += "; name a model folder in the layout of transformers"
        raise UserError(f"encoder {name!r}: {message}") from error
    if config.model_type not in MODELS:
        allowed = ", ".join(MODELS)
        raise UserError(f"encoder {name!r}: model_type {config.model_type!r} is not one of {allowed}, or {LOG_MEL}")
    check_config("encoder", name, config)
    if device.type == "cuda" and precision == "float32":  # else cuDNN's convolutions round to TF32's ten bits
        torch.backends.cudnn.allow_tf32 = False
    if config.model_type == "whisper":
        return Whisper(name, config, device, revision, precision, real_length)
    _refuse_real_length(given, real_length)
    kinds: Mapping[str, Callable[..., Encoder]] = {
        "wav2vec2-bert": W2vBert,
        "audio-spectrogram-transformer": Spectrograms,
    }
    encoder = kinds.get(config.model_type, Waveform)(name, config, device, revision, precision)
    encoder.info = replace(encoder.info, name=given)
    return encoder


def tunable(encoder: Encoder) -> Tunable:
    """The same encoder, typed as trainable. UserError for one that cannot be trained."""
    info = encoder.info
    if info.model_type in SPECTROGRAM_MODELS:
        allowed = "whisper, wav2vec2, hubert, wavlm, unispeech or unispeech-sat"
        raise UserError(f"encoder {info.name!r}: {info.model_type} is encoded here, but not fine-tuned; take {allowed}")
    if not isinstance(encoder, Waveform | Whisper):
        raise UserError(f"encoder {info.name!r}: it has no weights to train; name a speech encoder")
    if info.model_type in ("sew", "sew-d"):
        reason = "puts out other frames than its states have"
        raise UserError(f"encoder {info.name!r}: {info.model_type} {reason}, so it is not fine-tuned here")
    if getattr(encoder.trunk, "adapter", None) is not None:
        reason = "puts out fewer frames than its states have, and mixes padding into them"
        raise UserError(f"encoder {info.name!r}: its adapter (add_adapter) {reason}, so it is not fine-tuned here")
    if any(isinstance(module, nn.BatchNorm1d) for module in encoder.trunk.modules()):
        reason = "in training it would normalise each utterance by the others of its batch"
        raise UserError(f"encoder {info.name!r}: {reason} (BatchNorm), so it is not fine-tuned here")
    return encoder


def one_at_a_time(encoder: Encoder) -> bool:
    """Whether it encodes for one thread at a time: it may then compute on all cores."""
    return isinstance(encoder.inner if isinstance(encoder, Padded) else encoder, Own)


def _refuse_own(name: str, revision: str | None, precision: str, real_length: bool) -> None:
    for option, given, usual in (
        ("revision", revision, None),
        ("precision", precision, "float32"),
        ("real_length", real_length, False),
    ):
        if given != usual:
            raise UserError(f"encoder {name!r}: {option} {given!r} asked, but a Python file sees to that itself")


def _refuse_real_length(name: str, real_length: bool) -> None:
    if real_length:
        raise UserError(f"encoder {name!r}: real_length is for Whisper; this one always takes the real length")
