"""An encoder of the user's own: a class in one Python file, `my_encoder.py` or `my_encoder.py:Class`.

    class Encoder:
        num_states, dim, frame_rate, min_samples = 1, 40, 100.0, 400
        def __init__(self, device: str) -> None: ...
        def encode(self, wave): ...  # (samples,) float32 at 16 kHz -> (num_states, frames, dim) floats

Its identity is a hash of the file's bytes, the class's name, and `version`, a text, where the class has one: weights
that it loads from elsewhere are its own business. The file runs as the user who names it; none is ever run because a
store or a model names it.

Axes: L states, T frames, D width.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bas.encoders.base import EncoderInfo, frames_fault
from bas.errors import UserError, first_line
from bas.speech.audio import Wave
from bas.util.faults import raise_memory
from bas.util.reading import MOST, read_bytes

MODEL_TYPE = "own"
MARK = "py:"
"""What the revision of such an encoder begins with; the hash of the file follows, and the class after a colon."""
NUMBERS = {"num_states": (int, 1, 1_000), "dim": (int, 1, 100_000), "min_samples": (int, 1, 960_000)}
"""The whole numbers that a class must have, and their range."""
FASTEST = 16_000.0  # frames a second: one a sample
NAME = re.compile(r"(.+\.py)(?::(\w+))?")


def is_own(name: str) -> bool:
    """Whether an encoder's name is that of a Python file, with or without a class behind a colon."""
    return NAME.fullmatch(name) is not None


class Own:
    """A user's class as an encoder. Waves are encoded one at a time, alone, so no padding and no batch is seen.

    digest: what the hash of the file must be; nothing of another is run. None: any.
    Raises UserError for a file that cannot be read or run, and a class that does not hold to the contract; so do calls.
    """

    def __init__(self, name: str, device: torch.device, digest: str | None = None) -> None:
        self.device = device
        match = NAME.fullmatch(name)
        assert match, "the caller asks `is_own`"
        path, wanted = Path(match[1]).expanduser(), match[2]
        try:
            source = read_bytes(path, MOST)
        except OSError as error:
            raise UserError(f"encoder {name!r}: cannot be read: {error.strerror}") from error
        found = hashlib.sha256(source).hexdigest()[:16]
        if digest is not None and found != digest:
            raise UserError(f"encoder {name!r}: edited since, or another: its hash is {found}, not {digest}; not run")
        self._name, self._lock = name, Lock()
        cls = _class(_run(source, path, name), wanted, name)
        try:
            self._encoder = cls(device.type)
        except (Exception, SystemExit) as error:
            raise self._fault("cannot be made", error) from error
        numbers = {field: self._number(field, *of) for field, of in NUMBERS.items()}
        self.min_samples = int(numbers["min_samples"])
        rate = self._number("frame_rate", (int, float), 0.0, FASTEST)
        version = getattr(self._encoder, "version", "")
        if not isinstance(version, str) or (version and not version.isprintable()):
            raise UserError(f"encoder {name!r}: version = {version!r}: must be a text, or be left out")
        revision = f"{MARK}{found}:{cls.__name__}" + (f" {version}" if version else "")
        states, dim = int(numbers["num_states"]), int(numbers["dim"])
        self.info = EncoderInfo(name, revision, MODEL_TYPE, states, dim, float(rate), input="as recorded")

    def try_out(self) -> None:
        """Encode the shortest wave: what fails always, fails before anything is written."""
        self.encode([torch.full((self.min_samples,), 0.01)])

    def batch_key(self, num_samples: int) -> Hashable:
        return None  # each wave is encoded alone

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: Wave) -> Tensor:
        return torch.from_numpy(np.asarray(wave, np.float32))

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As `Encoder`; one wave at a time, also where several threads call: a user's class need not bear more."""
        with self._lock:
            return [self._encode(x.numpy().copy()) for x in inputs]  # which it may change as it likes

    @torch.inference_mode()
    def _encode(self, wave: Wave) -> Tensor:
        samples = len(wave)
        try:
            given = self._encoder.encode(wave)
        except torch.OutOfMemoryError:
            raise
        except (Exception, SystemExit) as error:
            raise self._fault(f"encode fails for {samples} samples", error) from error
        if not isinstance(given, Tensor | np.ndarray):
            raise self._wrong(f"{type(given).__name__}, not an array or a tensor")
        states_LTD = given if isinstance(given, Tensor) else _tensor(given)
        if states_LTD is None or not states_LTD.is_floating_point():
            raise self._wrong(f"{given.dtype}, not floats")
        states, dim = self.info.num_states, self.info.dim
        shape = tuple(states_LTD.shape)
        if len(shape) != 3 or (shape[0], shape[2]) != (states, dim) or not shape[1]:
            raise self._wrong(f"the shape {shape} for {samples} samples, not ({states}, frames, {dim})")
        if why := frames_fault(shape[1], samples, self.info.frame_rate):
            raise self._wrong(f"{why} at its frame_rate, {self.info.frame_rate:g}")
        return states_LTD

    def _number(self, field: str, kind: Any, least: float, most: float) -> float:
        value = getattr(self._encoder, field, None)
        if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most or not value:
            what = f"a whole number, {least:g} to" if kind is int else "a number above 0, at most"
            shown = "missing" if value is None else repr(value)[:40]
            raise UserError(f"encoder {self._name!r}: {field}: {shown}; must be {what} {most:,.0f}")
        return float(value)

    def _wrong(self, what: str) -> UserError:
        return UserError(f"encoder {self._name!r}: encode gives {what}")

    def _fault(self, what: str, error: Exception | SystemExit) -> UserError:
        raise_memory(error)
        return UserError(f"encoder {self._name!r}: {what}: {type(error).__name__}: {first_line(error)}")


def _tensor(array: np.ndarray) -> Tensor | None:
    """A copy, in the machine's byte order; None for what is no array of numbers."""
    try:
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    except TypeError:
        return None


def _run(source: bytes, path: Path, name: str) -> ModuleType:
    """The module of these bytes: not of the file, which may have changed since they were hashed."""
    module = ModuleType(f"bas_encoder_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles look there
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except UserError as error:
        raise UserError(f"encoder {name!r}: {error}") from error
    except (Exception, SystemExit) as error:
        raise_memory(error)
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"encoder {name!r}: cannot be imported: {what}") from error
    return module


def _class(module: ModuleType, wanted: str | None, name: str) -> type:
    """The class of that name, else the one class of the file that has `encode`."""
    classes = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "encode")
    }
    if wanted is not None and wanted in classes:
        return classes[wanted]
    found = f"it has {', '.join(classes)}" if classes else "it has none"
    if wanted is not None:
        raise UserError(f"encoder {name!r}: no class {wanted} with a method encode in this file; {found}")
    if len(classes) != 1:
        remedy = "; name one as my_encoder.py:Class" if classes else ""
        raise UserError(f"encoder {name!r}: needs one class with a method encode; {found}{remedy}")
    return next(iter(classes.values()))
