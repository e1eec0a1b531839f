"""What the tests of extraction share: an encoder without weights that notes what it is asked, and a look at a folder.

Rounds of kills import this in a process of their own, so it imports no pytest.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Hashable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import torch
from rich.console import Console
from torch import Tensor

from bas.corpora import Corpus
from bas.encoders import Encoder, EncoderInfo
from bas.features import extract as extraction
from bas.features.extract import Group
from bas.features.plan import Request
from bas.features.shard import shard_path
from bas.features.store import FeatureStore
from bas.speech import audio

SMALL = 900  # bytes of a shard: the eight tones lie in six
ONE = 10**6  # bytes of a shard: they lie in one
ALONE = Group(local_size=4096)  # one core, so a crew of one: batches run one after the other


class Fake:
    """States made of the wave itself, three of width 4, 50 frames/s; notes every wave that it is given."""

    device = torch.device("cpu")
    min_samples = 320

    def __init__(self, log: Path | None = None, pause: float = 0.0, **info: Any) -> None:
        given = {"name": "fake", "revision": "1", "model_type": "fake", "num_states": 3, "dim": 4, "frame_rate": 50.0}
        self.info = EncoderInfo(**{**given, **info})
        self.log, self.pause = log, pause
        self.seen: list[int] = []
        self.batches: list[int] = []  # the size of each

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: audio.Wave) -> Tensor:
        return torch.from_numpy(wave)

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        assert len({len(x) for x in inputs}) == 1, "all waves have the same batch key"
        self.batches.append(len(inputs))
        time.sleep(self.pause)
        for x in inputs:
            mark = zlib.crc32(x.numpy().tobytes())
            self.seen.append(mark)
            if self.log:
                with self.log.open("a") as stream:
                    stream.write(f"{mark}\n")
        return [self.states(x) for x in inputs]

    def states(self, x: Tensor) -> Tensor:
        frames_TD = x[: len(x) // 320 * 320].reshape(-1, 4, 80).mean(2)
        return torch.stack([(layer + 1) * frames_TD for layer in range(self.info.num_states)])


def quiet() -> Console:
    return Console(file=StringIO(), width=400)


def extract(
    corpus: Corpus,
    folder: Path,
    encoder: Encoder | None = None,
    *,
    reader: str | None = None,
    root: Path | None = None,
    layers: Sequence[int] | None = None,
    dtype: str = "float16",
    shard_bytes: int = SMALL,
    longest: float | None = None,
    console: Console | None = None,
    batch_seconds: float | None = None,
    group: Group | None = None,
) -> FeatureStore:
    request = Request(reader or corpus.name, root or folder.parent, layers, dtype, shard_bytes, longest)
    return extraction.extract(
        corpus, encoder or Fake(), folder, request, console or quiet(), batch_seconds=batch_seconds, group=group
    )


def marks(corpus: Corpus, *ids: str) -> list[int]:
    """What `Fake` notes for these utterances, or for all, sorted."""
    chosen = [u for u in corpus.utterances if not ids or u.id in ids]
    return sorted(zlib.crc32(audio.load(u).tobytes()) for u in chosen)


def contents(folder: Path) -> list[list[bytes]]:
    """Whatever the shards hold, bit for bit; versions aside."""
    parts = []
    for path in sorted(folder.glob("shard-*.h5")):
        with h5py.File(path, "r") as file:
            names = ("states", "offsets", "crc32")
            attributes = [file.attrs["layers"].tobytes(), file.attrs["skipped"].encode()]
            parts.append([*(file[n][:].tobytes() for n in names), *file["ids"][:], *file["recordings"][:], *attributes])
    return parts


def leftovers(folder: Path) -> list[str]:
    """Files that neither belong to a store nor are the locks of those at work."""
    locks = (".lock", ".planning", ".session", "store.json")
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".h5" and p.name not in locks)


def finished(folder: Path, layers: Sequence[int]) -> set[str]:
    """The utterances of which these layers stand in a shard or a journal."""
    ids: set[str] = set()
    for path in folder.glob("shard-*.h5"):
        with h5py.File(path, "r") as file:
            if set(layers) <= set(file.attrs["layers"].tolist()):
                ids |= {i.decode() for i in file["ids"][:]}
    for journal in folder.glob("*.journal"):
        for line in journal.read_bytes().splitlines(keepends=True):
            ids |= {entry[0] for entry in json.loads(line[9:])["done"]} if line.endswith(b"\n") else set()
    return ids


def put(path: Path, data: bytes) -> None:
    """Another file under this name."""
    path.unlink()
    path.write_bytes(data)


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0x40
    put(path, bytes(raw))


def states_at(store: FeatureStore, index: int) -> tuple[Path, int, int]:
    """A shard's file, and where in it the states begin and end."""
    path = shard_path(store.folder, index)
    with h5py.File(path, "r") as file:
        begin = file["states"].id.get_offset()
        return path, begin, begin + file["states"].id.get_storage_size()
