"""The HDF5 shards: what is in one, and how one layer of one utterance is read.

    store.json             what made the store, and which utterances stand in which shard
    shard-00000.h5         states   (L, N, D) of the dtype, contiguous: one layer of one utterance is one run of bytes
                           ids      (U,)      utterance ids
                           offsets  (U + 1,)  utterance u owns the frames offsets[u] to offsets[u + 1]
                           crc32    (U,)      of each utterance's (L, T, D) bytes
                           attributes: encoder, revision, layers, dtype, frame rate, sample rate, versions, checksum

L layers, N frames of all the shard's utterances end to end, D width, U utterances, T frames of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

import bas
from bas.errors import UserError
from bas.files import read_json, replacing

FORMAT = 1
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError)  # what h5py makes of a broken file
DTYPES = ("float16", "float32")
States = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class StoreInfo:
    """`store.json`: the plan that extraction follows and a reader checks."""

    corpus: str  # the reader's name
    root: str  # the folder or manifest it read
    encoder: dict[str, Any]  # bas.encoders.EncoderInfo
    layers: tuple[int, ...]
    shards: tuple[tuple[str, ...], ...]  # the utterance ids of each shard, in order
    samples: str  # a hash over ids, times and the bytes of the files: other recordings make another store
    device: str  # where the encoder computed
    dtype: str  # one of DTYPES
    format: int = FORMAT

    @property
    def identity(self) -> str:
        """A short hash of what changes the features."""
        what = [self.samples, self.encoder["revision"], self.encoder["input"], self.layers, self.dtype, self.format]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]

    @property
    def dim(self) -> int:
        return int(self.encoder["dim"])

    @property
    def frame_bytes(self) -> int:
        """Of one frame, all layers."""
        return len(self.layers) * self.dim * np.dtype(self.dtype).itemsize

    @classmethod
    def read(cls, folder: Path) -> StoreInfo:
        """Raises UserError when the folder holds no store, or one of another format."""
        path = folder / "store.json"
        if not path.exists():
            raise UserError(f"{folder}: no feature store here (no store.json); make one with `bas extract`")
        raw = read_json(path)
        if raw.get("format") != FORMAT:
            raise UserError(f"{path}: format {raw.get('format')!r}, this bas reads {FORMAT}; extract it again")
        try:
            return cls(**{**raw, "layers": tuple(raw["layers"]), "shards": tuple(tuple(s) for s in raw["shards"])})
        except (TypeError, KeyError) as error:
            raise UserError(f"{path}: damaged ({error}); extract it again") from error


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.h5"


def versions() -> dict[str, str]:
    """What a result depends on besides its settings."""
    names = ("torch", "torchaudio", "transformers", "numpy", "h5py", "scikit-learn")
    return {"bas": bas.__version__, "python": platform.python_version(), **{n: version(n) for n in names}}


def write_shard(path: Path, info: StoreInfo, ids: tuple[str, ...], blocks: list[States]) -> None:
    """One shard from each utterance's states `(L, T, D)`; `blocks` may be memory-mapped, one is read at a time.

    Raises OSError when the disk is full.
    """
    assert len(ids) == len(blocks)
    size = sum(b.nbytes for b in blocks) + sum(64 + len(i.encode()) for i in ids) + 2**16
    with replacing(path) as temporary:
        _reserve(temporary, size)
        _fill(temporary, info, ids, blocks)


def _fill(path: Path, info: StoreInfo, ids: tuple[str, ...], blocks: list[States]) -> None:
    offsets = np.concatenate([[0], np.cumsum([b.shape[1] for b in blocks])]).astype(np.int64)
    crc32 = np.array([zlib.crc32(np.ascontiguousarray(b).data) for b in blocks], dtype=np.uint32)
    with h5py.File(path, "w") as file:
        states = file.create_dataset("states", (len(info.layers), int(offsets[-1]), info.dim), dtype=info.dtype)
        for block, start, stop in zip(blocks, offsets[:-1], offsets[1:], strict=True):
            states[:, start:stop] = block
        file["ids"] = np.array(ids, dtype=h5py.string_dtype())
        file["offsets"] = offsets
        file["crc32"] = crc32
        file.attrs.update(
            encoder=info.encoder["name"],
            revision=info.encoder["revision"],
            layers=info.layers,
            dtype=info.dtype,
            frame_rate=info.encoder["frame_rate"],
            sample_rate=info.encoder["sample_rate"],
            versions=json.dumps(versions()),
            checksum=_checksum(ids, crc32),
        )


def _reserve(path: Path, size: int) -> None:
    """OSError now where the disk is too full: HDF5, finding that out while it closes a file, crashes the process."""
    with path.open("wb") as stream:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, size)


def _checksum(ids: tuple[str, ...], crc32: npt.NDArray[np.uint32]) -> str:
    return hashlib.sha256("\n".join(ids).encode() + crc32.tobytes()).hexdigest()


class FeatureStore:
    """A complete store, open for reading. Raises UserError when a shard is missing, damaged or of another store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = StoreInfo.read(folder)
        missing = [i for i in range(len(self.info.shards)) if not shard_path(folder, i).exists()]
        if missing:
            done = len(self.info.shards) - len(missing)
            raise UserError(
                f"{folder}: incomplete, {done} of {len(self.info.shards)} shards; run the same `bas extract` again"
            )
        self._files: dict[int, h5py.File] = {}
        self._offsets: dict[int, npt.NDArray[np.int64]] = {}
        self._crc32: dict[int, npt.NDArray[np.uint32]] = {}
        self._where = {id_: (s, u) for s, ids in enumerate(self.info.shards) for u, id_ in enumerate(ids)}

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._where

    def num_frames(self, utterance_id: str) -> int:
        shard, u = self._find(utterance_id)
        return int(self._offsets[shard][u + 1] - self._offsets[shard][u])

    def read(self, utterance_id: str, layer: int) -> States:
        """One layer of one utterance, `(T, D)` of the store's dtype; only those bytes are read."""
        shard, u = self._find(utterance_id)
        start, stop = self._offsets[shard][u : u + 2]
        return np.asarray(self._files[shard]["states"][self._layer(layer), start:stop])

    def verify(self) -> None:
        """Read everything once; UserError naming the first shard and utterance whose bytes are not those written."""
        for shard, ids in enumerate(self.info.shards):
            self._find(ids[0])
            for u, id_ in enumerate(ids):
                start, stop = self._offsets[shard][u : u + 2]
                block = self._files[shard]["states"][:, start:stop]
                if zlib.crc32(np.ascontiguousarray(block).data) != self._crc32[shard][u]:
                    raise UserError(f"{shard_path(self.folder, shard)}: {id_} is damaged; delete it and extract again")

    def _layer(self, layer: int) -> int:
        if layer not in self.info.layers:
            raise UserError(
                f"{self.folder}: layer {layer} is not stored; it holds {', '.join(map(str, self.info.layers))}"
            )
        return self.info.layers.index(layer)

    def _find(self, utterance_id: str) -> tuple[int, int]:
        if utterance_id not in self._where:
            raise UserError(f"{self.folder}: no utterance {utterance_id!r} in this store")
        shard, u = self._where[utterance_id]
        if shard not in self._files:
            path = shard_path(self.folder, shard)
            try:
                file = h5py.File(path, "r")
                ids = tuple(i.decode() for i in file["ids"][:])
                made_by = (file.attrs["revision"], str(file["states"].dtype), *map(int, file.attrs["layers"]))
                offsets, crc32 = file["offsets"][:], file["crc32"][:]
                intact = file.attrs["checksum"] == _checksum(ids, crc32)
                shape = file["states"].shape
            except DAMAGE as error:
                raise UserError(f"{path}: not readable as a shard ({error}); delete it and extract again") from error
            if not intact or shape != (len(made_by) - 2, offsets[-1], self.info.dim):
                raise UserError(f"{path}: checksum differs; delete it and extract again")
            asked = (self.info.encoder["revision"], self.info.dtype, *self.info.layers)
            if ids != self.info.shards[shard] or made_by != asked:
                raise UserError(f"{path}: belongs to another store than {self.folder}/store.json; extract again")
            self._files[shard], self._offsets[shard], self._crc32[shard] = file, offsets, crc32
        return shard, u
