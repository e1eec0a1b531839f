"""What every encoder has in common: what it says about itself, its protocol, and how weights get here from outside.

Axes: B waves, L hidden states (state 0 is what enters the first transformer layer), T frames, D width.
Frozen means: `eval`, no gradient, no dropout.

References
    Wagner et al., *Dawn of the transformer era in speech emotion recognition*, IEEE TPAMI 2023: the convolutional front
        stays frozen while all behind it is trained.
    Park et al., *SpecAugment*, Interspeech 2019.
"""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bas.errors import UserError, first_line
from bas.speech.audio import SAMPLE_RATE, Wave

PRECISIONS = ("float32", "bfloat16", "float16")


def _settle_torchaudio() -> str:
    """Why torchaudio does not load; empty where it does, or is not installed.

    Its library loads beside some builds of torch only, and `transformers` imports it wherever it is installed, and
    falls with it. Nothing of ours needs it, so `transformers`, which asks once, is told that it is not there.
    """
    try:
        import torchaudio  # noqa: F401
    except Exception as error:  # whatever a library that does not load comes to
        if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
            return ""
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # so `importlib` says: not there
        from transformers.utils.import_utils import is_torchaudio_available

        is_torchaudio_available.cache_clear()  # whoever imported it before us may have asked already
        if not is_torchaudio_available():
            del sys.modules["torchaudio"]  # for whoever imports it on purpose, and will be told why it fails
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


TORCHAUDIO_FAULT = _settle_torchaudio()  # before anything here imports `transformers`


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
    precision: str = "float32"  # of weights and arithmetic: one of PRECISIONS

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Encoder(Protocol):
    """Waves in, hidden states out. `prepare` and `encode` may be called from several threads at once."""

    info: EncoderInfo
    device: torch.device  # where it computes, whatever was asked for
    min_samples: int
    max_samples: int | None  # the longest wave it takes in one piece; None: any

    def batch_key(self, num_samples: int) -> Hashable:
        """Waves with equal keys may be encoded together without any of them noticing."""

    def cost(self, num_samples: int) -> int:
        """The samples that the model will work through: what a batch is bounded by."""

    def prepare(self, wave: Wave) -> Tensor:
        """What the model takes of one wave `(samples,)`, on the CPU, without padding."""

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Each prepared wave's states `(L, T, D)`, in the encoder's precision, on its device; they may be views.

        All waves have the same batch key.
        """


class Tunable(Encoder, Protocol):
    """An encoder that can be trained, but for its convolutional front. For one thread at a time while it is."""

    trunk: nn.Module
    """All that may be trained. Frozen as it comes; in `train` mode it drops units, layers and spans of the input
    (SpecAugment) as the model's own configuration says."""

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Each prepared wave's `(T, D)` as the model puts it out, with a gradient where the trunk has one.

        All waves have the same batch key; in `eval` mode none notices the others.
        """

    def cut(self, states_LTD: Tensor) -> Tensor:
        """Of one wave's states, `(L, T, D)`: what the model would put out if it ended with each of them.

        They are normalised where the model ends with a norm. So the last equals `outputs`.
        """

    def save(self, folder: Path) -> None:
        """Write the model as a new folder in the layout of `transformers`, whole or not at all.

        `load_encoder` of that folder computes the same bits.
        """


def spans(length: int, share: float, span: int, least: int) -> Tensor:
    """`(length,)`, true where SpecAugment masks: spans at random places, of about `share` in all, `least` of them.

    From torch's own generator, and of one wave alone, whatever it shares a batch with. No span fits: nothing is masked.
    """
    mask_T = torch.zeros(length, dtype=torch.bool)
    wanted = max(int(share * length / span + float(torch.rand(()))), least)
    for start in torch.randperm(max(0, length - span + 1))[: min(wanted, length // span)].tolist():
        mask_T[start : start + span] = True
    return mask_T


def save_as(folder: Path, model: Any, state: dict[str, Tensor], extractor: Any) -> None:
    """Write `state` under the configuration of `model`, with the extractor's, as the new folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    model.save_pretrained(temporary, state_dict=state)
    extractor.save_pretrained(temporary)
    for file in temporary.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    temporary.rename(folder)


def load_weights(name: str, revision: str | None, dtype: torch.dtype) -> Any:
    """The model, or a UserError where `transformers` would put random numbers for weights that are not there."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what is missing is refused below, in a line
    given: dict[str, Any] = {"revision": revision, "dtype": dtype, "trust_remote_code": False}
    try:
        with warnings.catch_warnings(action="ignore"):  # of pickles that torch did not write
            model, report = AutoModel.from_pretrained(name, **given, output_loading_info=True)
    except UnpicklingError as error:  # torch's own words advise to run it
        told = "no pickle of numbers alone, it may run code; get model.safetensors instead"
        raise UserError(f"encoder {name!r}: its weights cannot be loaded: {told}") from error
    except Exception as error:  # transformers makes a model of whatever the files say
        told = f"{first_line(error)}; get them anew"
        raise UserError(f"encoder {name!r}: its weights cannot be loaded: {told}") from error
    # What masks spans in training, and Whisper's decoder, take no part in the features.
    missing = sorted(k for k in report["missing_keys"] if k != "masked_spec_embed" and not k.startswith("decoder."))
    if missing:
        raise UserError(f"encoder {name!r}: {len(missing)} weights are missing from its files, {missing[0]} the first")
    return model


def freeze(model: Any, device: torch.device) -> Any:
    return model.to(device).eval().requires_grad_(False)


def load_extractor(name: str, revision: str | None, kind: type[Any], default: Callable[[], Any]) -> Any:
    """How the model wants its input, of class `kind`; for a folder that does not say, the default of `transformers`."""
    from transformers import AutoFeatureExtractor

    folder = Path(name)
    if folder.is_dir() and not any((folder / f"{s}_config.json").exists() for s in ("preprocessor", "processor")):
        return default()
    try:
        extractor: Any = AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
            name, revision=revision, trust_remote_code=False
        )
    except Exception as error:
        raise UserError(
            f"encoder {name!r}: its preprocessor_config.json cannot be read: {first_line(error)}"
        ) from error
    # The encoders do its arithmetic themselves, so it must be the one they know.
    if not isinstance(extractor, kind):
        raise UserError(f"encoder {name!r}: its preprocessor is {type(extractor).__name__}, not {kind.__name__}")
    if extractor.sampling_rate != SAMPLE_RATE:
        raise UserError(f"encoder {name!r}: it takes {extractor.sampling_rate} Hz, not {SAMPLE_RATE} Hz")
    return extractor


def revision_of(name: str, commit: str | None) -> str:
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
