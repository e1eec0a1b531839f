"""Predict speech: recordings in, classes with probabilities, shares or numbers out.

A recording is decoded, encoded and read as in the training: the same resampling, the same frozen encoder, its states
rounded as the feature store rounded them. Speech longer than any utterance of the training is cut into windows of one
length, as short as needed.

Axes: L states, T frames, D width, O outputs.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bas.corpora import Utterance
from bas.encoders import Encoder
from bas.encoders.again import load_again
from bas.encoders.base import pieces
from bas.errors import UserError
from bas.models import folder as on_disk
from bas.models.description import Description
from bas.speech.audio import HIGHEST_RATE, LOWEST_RATE, SAMPLE_RATE, Wave, load, resample
from bas.training.batches import average

Source = str | os.PathLike[str] | Utterance


@dataclass(frozen=True)
class Prediction:
    """What a model says of a stretch of speech. start, end: seconds from the beginning of the recording.

    label: the most probable class; "" where outputs are no classes. values: by output, a probability, a share, or a
    number in the units of the corpus.
    """

    source: str
    start: float
    end: float
    label: str
    values: dict[str, float]


@dataclass(frozen=True)
class Timing:
    """Seconds that a recording took. speech: of sound. whole: from its file to what is said of it, of that encoder."""

    speech: float
    whole: float
    encoder: float


@dataclass(frozen=True)
class Failure:
    """A recording that cannot be predicted, and why."""

    source: str
    why: str


class Model:
    """A model that was exported; `bas.load` opens one.

    encoder: where the encoder lies today; None: under the name by which the model was made, unless that is a Python
    file, which is never run without being named. It is loaded when it is first needed.
    """

    def __init__(
        self, description: Description, network: nn.Module, device: torch.device, encoder: str | None = None
    ) -> None:
        self.description, self.device = description, device
        self.network = network.to(device)
        self._place = encoder

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        encoder: str | None = None,
        spaces: Sequence[str | Path] = (),
    ) -> Model:
        """Open a model's folder. Raises UserError as `bas.models.folder.read` does."""
        return cls(*on_disk.read(folder, spaces), device, encoder)

    def __repr__(self) -> str:
        of = self.description
        parts = [f"<bas.Model {of.name}: {of.task} ({', '.join(of.outputs)}) on {of.encoder.name}"]
        if of.size is not None:
            parts.append(f"network {of.size}")
        return "; ".join(parts) + ">"

    @cached_property
    def encoder(self) -> Encoder:
        """Raises UserError where it cannot be loaded, or is another than the model was made with."""
        try:
            return load_again(self.description.encoder.to_dict(), self._place, self.device, "model")
        except UserError as error:
            remedy = "" if "--encoder" in str(error) else "; name its place with --encoder"
            raise UserError(f"{error}{remedy}") from error

    def predict(self, source: Source) -> list[Prediction]:
        """What the model says of a recording, window after window; of a short one that is one.

        source: a file of any format that soundfile reads, or an utterance of a corpus. Raises UserError for one that
        cannot be read, or is too short for the encoder.
        """
        return self.timed(source)[0]

    def timed(self, source: Source) -> tuple[list[Prediction], Timing]:
        """As `predict`, and how long it took."""
        begun = time.perf_counter()
        utterance = source if isinstance(source, Utterance) else Utterance(os.fspath(source), Path(source))
        if not utterance.audio.is_file():
            why = "a folder; `bas predict` takes those" if utterance.audio.is_dir() else "no such file"
            raise UserError(f"{utterance.audio}: {why}")
        wave = load(utterance)
        said, encoder = self._of_wave(wave, utterance.id, utterance.start)
        return said, Timing(len(wave) / SAMPLE_RATE, time.perf_counter() - begun, encoder)

    def predict_wave(self, wave: np.ndarray, rate: int) -> list[Prediction]:
        """As `predict`, of samples `(N,)` in -1 to 1 at `rate` Hz."""
        wave = np.asarray(wave)
        if wave.ndim != 1 or not wave.size or not np.issubdtype(wave.dtype, np.floating) or not np.isfinite(wave).all():
            remedy = "average channels, divide whole numbers by their largest"
            raise UserError(
                f"wave: must be finite floats (samples,) in -1 to 1, not {wave.dtype} {wave.shape}; {remedy}"
            )
        if not isinstance(rate, int) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise UserError(f"rate {rate!r}: must be a whole number of Hz, {LOWEST_RATE} to {HIGHEST_RATE}")
        return self._of_wave(resample(wave.astype(np.float32), rate), "wave", 0.0)[0]

    def outputs(self, states_LTD: Tensor) -> Tensor:
        """The network's outputs `(O,)` for the states that the model reads, `(L, T, D)`: logits, for classes.

        Raises UserError for states that are not finite, or beyond what the store of the training could hold.
        """
        stored = states_LTD.to(getattr(torch, self.description.dtype)).cpu()
        if not stored.isfinite().all():
            raise UserError(f"a feature is NaN, infinite, or beyond {self.description.dtype}")
        frames_TD = stored.transpose(0, 1).reshape(stored.shape[1], -1).numpy()
        x_1TD = average(frames_TD, self.description.stride).to(self.device).float()[None]
        mask_1T = torch.ones(x_1TD.shape[:2], dtype=torch.bool, device=self.device)
        as_trained = self.device.type == self.description.device == "cuda"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=as_trained),
        ):
            outputs_1O: Tensor = self.network(x_1TD, mask_1T)
        return outputs_1O[0].float()

    def values(self, outputs_O: Tensor) -> np.ndarray:
        """Probabilities, shares, or numbers in the units of the corpus, `(O,)` float64."""
        return np.asarray(self.description.activate(outputs_O.double().cpu()).numpy())

    def _of_wave(self, wave: Wave, source: str, begin: float) -> tuple[list[Prediction], float]:
        """What is said of each window, and the seconds that the encoder took for all."""
        if len(wave) < self.encoder.min_samples:
            seconds = len(wave) / SAMPLE_RATE
            least = f"it takes {self.encoder.min_samples / SAMPLE_RATE:.3f} s"
            raise UserError(f"{source}: {seconds:.3f} s are too short for encoder {self.encoder.info.name}: {least}")
        longest = round(self.description.longest * SAMPLE_RATE) + 1  # which resampling may have rounded up
        windows = [self._window(wave[a:b], source, begin, a, b) for a, b in pieces(len(wave), longest)]
        return [said for said, _ in windows], sum(seconds for _, seconds in windows)

    def _window(self, wave: Wave, source: str, begin: float, a: int, b: int) -> tuple[Prediction, float]:
        begun = time.perf_counter()
        (states_LTD,) = self.encoder.encode([self.encoder.prepare(wave)])
        if states_LTD.is_cuda:
            torch.cuda.synchronize(states_LTD.device)  # else the encoder's seconds would be spent in what waits for it
        seconds = time.perf_counter() - begun
        try:
            values = self.values(self.outputs(states_LTD[list(self.description.layers)]))
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        names = self.description.outputs
        label = names[int(values.argmax())] if self.description.activation == "softmax" else ""
        by_name = dict(zip(names, values.tolist(), strict=True))
        return Prediction(source, begin + a / SAMPLE_RATE, begin + b / SAMPLE_RATE, label, by_name), seconds


Worked = tuple[list[Prediction], Timing] | tuple[Failure, None]


def predict_all(
    model: Model, sources: Iterable[Utterance], crew: int, done: Callable[[Timing | None], None] = lambda timing: None
) -> Iterator[list[Prediction] | Failure]:
    """The predictions of each recording, in order; of one that cannot be read, why.

    crew: threads, each of which decodes, encodes and predicts on one core. done: is called after each recording with
    how long it took; of a failure, None.
    Raises UserError where the encoder cannot be loaded.
    """
    model.encoder  # noqa: B018  a missing one is refused here, once

    def work(utterance: Utterance) -> Worked:
        try:
            return model.timed(utterance)
        except UserError as error:
            return Failure(utterance.id, str(error)), None

    before = torch.get_num_threads()
    running: deque[Future[Worked]] = deque()
    with ThreadPoolExecutor(crew, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for utterance in sources:
                running.append(pool.submit(work, utterance))
                if len(running) > 2 * crew:
                    yield _next(running, done)
            while running:
                yield _next(running, done)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)


def _next(running: deque[Future[Worked]], done: Callable[[Timing | None], None]) -> list[Prediction] | Failure:
    result, timing = running.popleft().result()
    done(timing)
    return result
