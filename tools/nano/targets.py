"""What a frame is trained to tell: k-means units of MFCC or of hidden states, or a teacher's hidden states themselves.

Frames are HuBERT's: 25 ms, one every 20 ms, the first at the recording's beginning.

Axes: T frames, F or D numbers a frame, L a teacher's states.

References
    Hsu et al., *HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units*, IEEE/ACM
        TASLP 2021, section 2: units of MFCC first, then of the model's own states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from augment import torchaudio
from sklearn.cluster import MiniBatchKMeans
from speech import in_processes, read_part, to_wave

from bas.encoders import Encoder, load_encoder
from bas.speech.audio import SAMPLE_RATE, Wave
from bas.util.files import replacing

HOP, WINDOW = 320, 400  # samples: of HuBERT's frames
FITTED = 300_000  # frames that k-means sees


@dataclass(frozen=True)
class Source:
    """The source of the targets of each frame. encoder: a name or folder that `bas` loads; "": MFCC."""

    encoder: str = ""
    states: tuple[int, ...] = (0,)
    real_length: bool = False

    def of(self, wave: Wave) -> np.ndarray:
        """`(L, T, D)` float32, for the wave's frames."""
        frames = num_frames(wave.size)
        x_LTD = self._encoded(wave) if self.encoder else mfcc(wave)[None]
        # A teacher's frames may be some milliseconds off (Whisper's are 12.5 ms early), and one fewer or more.
        assert abs(x_LTD.shape[1] - frames) <= 2, f"{x_LTD.shape[1]} frames for {frames}"
        return x_LTD[:, np.minimum(np.arange(frames), x_LTD.shape[1] - 1)]

    def _encoded(self, wave: Wave) -> np.ndarray:
        encoder = _load(self.encoder, self.real_length)
        (states,) = encoder.encode([encoder.prepare(wave)])
        return states[list(self.states)].float().numpy()


@lru_cache(maxsize=1)
def _load(name: str, real_length: bool) -> Encoder:
    return load_encoder(name, torch.device("cpu"), real_length=real_length)


def num_frames(samples: int) -> int:
    return (samples - WINDOW) // HOP + 1


def mfcc(wave: Wave) -> np.ndarray:
    """`(T, 39)`: 13 coefficients and their first and second differences over time (HuBERT, section 3.1)."""
    x_FT = _mfcc()(torch.from_numpy(wave))
    deltas = torchaudio().functional.compute_deltas
    first = deltas(x_FT)
    return torch.cat([x_FT, first, deltas(first)]).T[::2].numpy()


@lru_cache(maxsize=1)
def _mfcc() -> torch.nn.Module:
    # A frame every 10 ms as in HuBERT, of which every other is used. Not centred: frames begin where the model's do.
    mel = {"n_fft": WINDOW, "hop_length": HOP // 2, "n_mels": 40, "center": False}
    return torchaudio().transforms.MFCC(SAMPLE_RATE, n_mfcc=13, log_mels=True, melkwargs=mel)


def _measure(source: Source, file: Path, into: Path) -> None:
    """Write every frame of a part as float16, one item after another."""
    torch.set_num_threads(1)
    items = [source.of(to_wave(samples)) for samples in read_part(file)]
    with replacing(into) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.concatenate(items, axis=1).astype(np.float16))


def measure(
    source: Source, files: Sequence[Path], folder: Path, workers: int, on_part: Callable[[], None]
) -> list[Path]:
    """A file `(L, T, D)` for each part of the speech; what is missing is made by so many processes."""
    made = [folder / file.name.replace("speech", "frames").replace(".npz", ".npy") for file in files]
    missing = {i: (source, file, made[i]) for i, file in enumerate(files) if not made[i].exists()}
    for _ in range(len(files) - len(missing)):
        on_part()
    in_processes(_measure, missing, workers, lambda part: on_part())
    return made


def cluster(frames: Sequence[Path], clusters: int, seed: int) -> Iterator[np.ndarray]:
    """The units of each part's frames, `(T,)` uint16, by k-means over some frames of all parts.

    Kept beside the frames: a training that goes on must find the same numbers for the same units.
    """
    units = [file.with_name(file.name.replace("frames", "units")) for file in frames]
    if not all(file.exists() for file in units):
        for file, of_part in zip(units, _cluster(frames, clusters, seed), strict=True):
            with replacing(file) as temporary, temporary.open("wb") as stream:
                np.save(stream, of_part)
    return (np.load(file) for file in units)


def _cluster(frames: Sequence[Path], clusters: int, seed: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    share = FITTED // len(frames)
    parts = [np.load(file, mmap_mode="r")[0] for file in frames]
    some = [part[np.sort(rng.permutation(len(part))[:share])] for part in parts]
    sample = np.concatenate(some).astype(np.float32)
    scale = sample.std(0) + 1e-5
    means = MiniBatchKMeans(clusters, batch_size=10_000, n_init=3, max_no_improvement=20, random_state=seed)
    means.fit(sample / scale)
    for part in parts:
        yield means.predict(part.astype(np.float32) / scale).astype(np.uint16)
