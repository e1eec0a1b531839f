"""What every encoder has in common: its description, its interface, and how its weights are loaded and saved.

Axes: B waves, L hidden states (state 0 is the input of the first transformer layer), T frames, D width.
Frozen means: `eval`, no gradient, no dropout.

References
    Wagner et al., *Dawn of the transformer era in speech emotion recognition*, IEEE TPAMI 2023: the convolutional front
        stays frozen while all layers after it are trained.
    Park et al., *SpecAugment*, Interspeech 2019.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from bas.encoders.opening import cached_first
from bas.errors import UserError, first_line
from bas.speech.audio import SAMPLE_RATE, Wave
from bas.util.faults import naming, raise_memory
from bas.util.temporary import temporary_of

PRECISIONS = ("float32", "bfloat16", "float16")
LONGEST = 120 * SAMPLE_RATE
"""Samples that a model attends to at once; a longer wave goes in pieces. Memory grows with the square of the length: at
120 s WavLM base makes several (12, 6000, 6000) of 1.7 GB each."""
SPARE_FRAMES = 2
"""By which a number of frames may differ from length times frame rate."""


def _settle_torchaudio() -> str:
    """Why torchaudio does not load; empty where it does, or is not installed.

    torchaudio's library loads only with some builds of torch, but `transformers` imports it wherever it is installed,
    and fails with it. Nothing here needs it, so `transformers`, which checks once, is made to see it as not installed.
    """
    try:
        import torchaudio  # noqa: F401
    except Exception as error:  # a library that does not load may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "torchaudio":
            return ""
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            del sys.modules[name]
        sys.modules["torchaudio"] = None  # type: ignore[assignment]  # `importlib` then says: not installed
        from transformers.utils.import_utils import is_torchaudio_available

        is_torchaudio_available.cache_clear()  # other code may have called it already
        if not is_torchaudio_available():
            del sys.modules["torchaudio"]  # who imports it on purpose gets the true error
        return " ".join(f"{type(error).__name__}: {error}".split())
    return ""


TORCHAUDIO_FAULT = _settle_torchaudio()  # before anything here imports `transformers`


@dataclass(frozen=True)
class EncoderInfo:
    """The description of an encoder, as shards record it."""

    name: str
    revision: str  # the hub's commit, or a hash of the local files
    model_type: str
    num_states: int
    dim: int
    frame_rate: float  # frames per second
    sample_rate: int = SAMPLE_RATE
    input: str = ""  # how the waveform is prepared
    precision: str = "float32"  # of weights and arithmetic: one of PRECISIONS

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def frames_fault(frames: int, samples: int, frame_rate: float, slack: float = 0.0) -> str:
    """What is wrong with the number of frames of so many samples; empty if nothing is. slack: seconds of doubt."""
    expected = samples / SAMPLE_RATE * frame_rate
    if abs(frames - expected) > SPARE_FRAMES + slack * frame_rate:
        return f"{frames} frames, but {samples / SAMPLE_RATE:.2f} s make about {expected:.0f}"
    return ""


class Encoder(Protocol):
    """Waves in, hidden states out. `prepare` and `encode` may be called from several threads at once."""

    info: EncoderInfo
    device: torch.device  # where it computes
    min_samples: int

    def batch_key(self, num_samples: int) -> Hashable:
        """Waves with equal keys may share a batch: the others do not change a wave's states."""

    def cost(self, num_samples: int) -> int:
        """The number of samples that the model processes, with its own padding; a batch is bounded by their sum."""

    def prepare(self, wave: Wave) -> Tensor:
        """The model's input for one wave `(samples,)`, on the CPU, without padding."""

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Each prepared wave's states `(L, T, D)`, in the encoder's precision, on its device; they may be views.

        Of a wave that went in pieces they may be on the CPU. All waves have the same batch key.
        """


@runtime_checkable
class Graphed(Protocol):
    """An encoder that can be part of an exported graph; all of `bas` can."""

    window: int | None  # samples of the longest wave that a graph encodes whole; None: any

    def graph(self, layers: Sequence[int]) -> nn.Module:
        """One wave `(1, N)` as recorded to the states of these layers `(L, T, D)`, by operations of torch alone.

        As `encode` of what `prepare` makes of it, but for the last digits.
        """


class Tunable(Encoder, Protocol):
    """An encoder that can be trained, except for its convolutional front; by one thread at a time while it is."""

    longest: int | None  # samples of the longest wave that it may be trained on; None: any
    trunk: nn.Module
    """All modules that may be trained. Frozen at first; in `train` mode it applies dropout, layer drop and SpecAugment
    as the model's own configuration says."""

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The model's output `(T, D)` for each prepared wave, with a gradient where the trunk has one.

        All waves have the same batch key; in `eval` mode the others do not change a wave's output.
        """

    def cut(self, states_LTD: Tensor) -> Tensor:
        """`(L, T, D)`: the model's output if it ended with each of one wave's states `(L, T, D)`.

        The states are normalised where the model ends with a norm, so the last equals `outputs`.
        """

    def save(self, folder: Path) -> None:
        """Write the model as a new folder in the layout of `transformers`, complete or not at all.

        `load_encoder` of that folder computes the same bits.
        """


def pieces(length: int, longest: int) -> list[tuple[int, int]]:
    """Where each of the fewest pieces begins and ends, of one length (but for one) and at most the longest."""
    count = max(1, -(-length // longest))
    return list(pairwise(i * length // count for i in range(count + 1)))


def joined(states: Iterable[Tensor]) -> Tensor:
    """The states `(L, T, D)` of a long wave's pieces, one after another, on the CPU: its memory is the larger one."""
    return torch.cat([x_LTD.cpu() for x_LTD in states], 1)


def filled(wave_1N: Tensor, samples: int) -> Tensor:
    """A wave with zeros behind it, `(1, samples)`; of a longer one that much. For graphs: it takes any length."""
    return torch.cat([wave_1N, wave_1N.new_zeros(1, samples)], 1)[:, :samples]


def spans(length: int, share: float, span: int, least: int) -> Tensor:
    """`(length,)`, true where SpecAugment masks: random spans that cover about `share` of the wave, at least `least`.

    Drawn from torch's global generator for one wave, independent of its batch. Nothing is masked where no span fits.
    """
    mask_T = torch.zeros(length, dtype=torch.bool)
    wanted = max(int(share * length / span + float(torch.rand(()))), least)
    for start in torch.randperm(max(0, length - span + 1))[: min(wanted, length // span)].tolist():
        mask_T[start : start + span] = True
    return mask_T


def save_as(folder: Path, model: Any, state: dict[str, Tensor], extractor: Any) -> None:
    """Write `state` and the configurations of `model` and `extractor` as the new folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(folder)
    try:
        with naming(folder):
            model.save_pretrained(temporary, state_dict=state)
            extractor.save_pretrained(temporary)
            for file in temporary.iterdir():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_weights(name: str, revision: str | None, dtype: torch.dtype) -> Any:
    """The model. UserError where weights are missing, which `transformers` would fill with random numbers."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # missing weights are refused below, in one line
    given: dict[str, Any] = {"revision": revision, "dtype": dtype, "trust_remote_code": False}
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles that torch did not write
            model, report = cached_first(
                name,
                lambda local: AutoModel.from_pretrained(
                    name, **given, local_files_only=local, output_loading_info=True
                ),
            )
    except UnpicklingError as error:  # torch's own message advises to run the pickle
        reason = "no pickle of numbers alone, it may run code; get model.safetensors instead"
        raise UserError(f"encoder {name!r}: its weights cannot be loaded: {reason}") from error
    except Exception as error:  # transformers may fail in any way on broken files
        raise_memory(error)
        reason = f"{first_line(error)}; get them again"
        raise UserError(f"encoder {name!r}: its weights cannot be loaded: {reason}") from error
    # The embedding of masked spans and Whisper's decoder do not affect the features.
    missing = sorted(k for k in report["missing_keys"] if k != "masked_spec_embed" and not k.startswith("decoder."))
    if missing:
        raise UserError(f"encoder {name!r}: {len(missing)} weights are missing from its files, {missing[0]} the first")
    return model


def freeze(model: Any, device: torch.device) -> Any:
    return model.to(device).eval().requires_grad_(False)


def load_extractor(name: str, revision: str | None, kind: type[Any], default: Callable[[], Any]) -> Any:
    """The model's feature extractor, of class `kind`; for a folder without one the default of `transformers`."""
    from transformers import AutoFeatureExtractor

    folder = Path(name)
    if folder.is_dir() and not any((folder / f"{s}_config.json").exists() for s in ("preprocessor", "processor")):
        return default()
    try:
        extractor: Any = cached_first(
            name,
            lambda local: AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
                name, revision=revision, trust_remote_code=False, local_files_only=local
            ),
        )
    except Exception as error:
        raise_memory(error)
        raise UserError(
            f"encoder {name!r}: its preprocessor_config.json cannot be read: {first_line(error)}"
        ) from error
    # The encoders do its arithmetic themselves, so it must be the class that they implement.
    if not isinstance(extractor, kind):
        raise UserError(f"encoder {name!r}: its preprocessor is {type(extractor).__name__}, not {kind.__name__}")
    if extractor.sampling_rate != SAMPLE_RATE:
        raise UserError(f"encoder {name!r}: it takes {extractor.sampling_rate} Hz, not {SAMPLE_RATE} Hz")
    return extractor


def revision_of(name: str, commit: str | None) -> str:
    """The hub's commit, or for a folder a hash of its configuration and weights."""
    folder = Path(name)
    if not folder.is_dir():
        assert commit is not None, "load_encoder looks the commit up"
        return commit
    digest = hashlib.sha256()
    for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin")):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:16]}"
