"""What every encoder has in common: what it says about itself, its protocol, and how weights get here from outside.

Axes: B waves, L hidden states (state 0 is what enters the first transformer layer), T frames, D width.
Frozen means: `eval`, no gradient, no dropout.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import Tensor

from bas.audio import SAMPLE_RATE, Wave
from bas.errors import UserError

PRECISIONS = ("float32", "bfloat16", "float16")


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


def load_weights(name: str, revision: str | None, dtype: torch.dtype) -> Any:
    """The model, or a UserError where `transformers` would put random numbers for weights that are not there."""
    from transformers import AutoModel

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


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
