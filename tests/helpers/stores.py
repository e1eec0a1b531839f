"""Small stores for tests: tones with a manifest, so that a store finds its corpus again, and a made-up encoder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Hashable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import torch
from rich.console import Console
from sounds import tone
from torch import Tensor

from bas.corpora import open_corpus
from bas.encoders import EncoderInfo
from bas.features.extract import extract
from bas.features.plan import Request
from bas.features.shard import Contents, Shard
from bas.features.store import FeatureStore
from bas.speech import audio

SECONDS = (0.3, 0.5, 0.41, 0.6, 0.2, 0.55)


class Fake:
    """Three states of width 4 at 50 frames a second, made of the wave itself; counts the waves it is given."""

    min_samples = 320

    def __init__(self, device: str = "cpu", **info: Any) -> None:
        given = {"name": "fake", "revision": "1", "model_type": "fake", "num_states": 3, "dim": 4, "frame_rate": 50.0}
        self.info = EncoderInfo(**{**given, **info})
        self.device = torch.device(device)
        self.encoded = 0

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: audio.Wave) -> Tensor:
        return torch.from_numpy(wave)

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.encoded += len(inputs)
        frames = [x[: len(x) // 320 * 320].reshape(-1, 4, 80).mean(2) for x in inputs]
        return [torch.stack([(layer + 1) * x for layer in range(self.info.num_states)]) for x in frames]


def quiet() -> Console:
    return Console(file=StringIO(), width=400)


def manifest(path: Path, seconds: dict[str, float]) -> Path:
    """A CSV of tones, each of its own pitch by its id; the recordings lie in `wav/` beside it."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for id_, length in seconds.items():
            wav = path.parent / "wav" / f"{id_}.wav"
            if not wav.exists():
                tone(wav, length, hertz=200 + 17 * (sum(map(ord, id_)) % 90))
            writer.writerow([id_, f"wav/{id_}.wav", "ab"[len(id_) % 2], "s"])
    return path


def names(prefix: str = "u", seconds: Sequence[float] = SECONDS) -> dict[str, float]:
    return {f"{prefix}{i}": length for i, length in enumerate(seconds)}


def store(
    root: Path, folder: Path, encoder: Fake | None = None, shard_bytes: int = 1500, **request: Any
) -> FeatureStore:
    """Extract a manifest; three to four shards of the usual tones."""
    full_request = Request("manifest", root, shard_bytes=shard_bytes, **request)
    return extract(open_corpus("manifest", root), encoder or Fake(), folder, full_request, quiet())


def flip(path: Path, layer: int = 0, u: int = 0) -> str:
    """Change one bit of an utterance's states; its id."""
    shard = Shard(path, Fake().info.to_dict())
    held = shard.contents
    begin = shard.begin + (layer * held.shape[1] + int(held.offsets[u])) * held.shape[2] * 2
    raw = bytearray(path.read_bytes())
    raw[begin + 1] ^= 1
    path.write_bytes(raw)
    return held.ids[u]


def forge(path: Path, change: Callable[[h5py.File], None]) -> None:
    """Change a shard so that its own checksums agree: as another program might write it."""
    with h5py.File(path, "r+") as file:
        change(file)
        ids, recordings = ([i.decode() for i in file[name][:]] for name in ("ids", "recordings"))
        layers = tuple(map(int, file.attrs["layers"]))
        numbers = (file["offsets"][:], file["crc32"][:])
        file.attrs["checksum"] = Contents({}, "", layers, tuple(ids), *numbers, tuple(recordings), {}).checksum
