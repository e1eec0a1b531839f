"""One shard: an HDF5 file, whose states are one plain array at a known byte.

    states      (L, N, D)  of the store's dtype, contiguous: one layer of one utterance is one run of bytes
    ids         (U,)       utterance ids
    offsets     (U + 1,)   utterance u has the frames from offsets[u] to offsets[u + 1]
    crc32       (L, U)     of each layer's (T, D) bytes of each utterance, taken when they were computed
    recordings  (U,)       a hash over the bytes and the times each utterance was computed from
    attributes             layers, skipped (JSON: id to reason), encoder, revision, input, precision, dtype,
                           frame_rate, sample_rate, versions (JSON), checksum; derived, in a derived store

L layers, N frames of all the shard's utterances end to end, D width, U utterances, T frames of one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from mmap import ACCESS_READ, MADV_DONTNEED, mmap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d
from isal import isal_zlib

from bas.errors import UserError
from bas.util.faults import check_readable
from bas.util.files import replacing
from bas.util.reading import check_regular
from bas.util.versions import versions

States = npt.NDArray[np.floating[Any]]
POINTER = 16
"""Bytes of a text in a dataset: its length in 4, where it lies in the file's heap in 12."""
# What h5py raises for a broken file.
DAMAGE = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)


@dataclass(frozen=True)
class Contents:
    """What a shard holds besides the states; equal before it is written and after it is opened."""

    encoder: dict[str, Any]  # bas.encoders.EncoderInfo
    dtype: str
    layers: tuple[int, ...]
    ids: tuple[str, ...]
    offsets: npt.NDArray[np.int64]
    crc32: npt.NDArray[np.uint32]
    recordings: tuple[str, ...]
    skipped: dict[str, str]
    # Versions of the packages that computed the states, kept in copies; two of each where layers were added later.
    versions: dict[str, str] = field(default_factory=lambda: versions())
    derived: str = ""  # as in store.json

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.layers), int(self.offsets[-1]), int(self.encoder["dim"])

    @property
    def made_by(self) -> dict[str, Any]:
        """The attributes that identify the features."""
        names = ("revision", "input", "precision", "frame_rate", "sample_rate")
        derived = {"derived": self.derived} if self.derived else {}
        return {"encoder": self.encoder["name"], **{n: self.encoder[n] for n in names}, "dtype": self.dtype, **derived}

    @property
    def checksum(self) -> str:
        fields = [self.ids, self.layers, self.recordings, self.skipped, self.offsets.tolist(), self.crc32.tolist()]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


def shard_path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.h5"


def write_shard(path: Path, contents: Contents, states: Callable[[int, int], States]) -> None:
    """Write a shard completely or not at all; states: `(layer, u) -> (T, D)`, called for one block at a time.

    Everything is read back and compared with `contents.crc32`. Raises OSError when the disk is full or returns other
    bytes than were written.
    """
    skipped = json.dumps(contents.skipped)
    rest = sum(200 + 2 * len(i.encode()) for i in contents.ids) + 2 * len(skipped) + 2**16
    size = int(np.prod(contents.shape)) * np.dtype(contents.dtype).itemsize + rest
    with replacing(path) as temporary:
        with h5py.File(temporary, "w") as file:
            _reserve(temporary, size)
            data = file.create_dataset("states", contents.shape, dtype=contents.dtype)
            for row, layer in enumerate(contents.layers):
                for u, (start, stop) in enumerate(zip(contents.offsets[:-1], contents.offsets[1:], strict=True)):
                    data[row, start:stop] = states(layer, u)
            file["ids"] = np.array(contents.ids, dtype=h5py.string_dtype())
            file["offsets"] = contents.offsets
            file["crc32"] = contents.crc32
            file["recordings"] = np.array(contents.recordings, dtype=h5py.string_dtype())
            file.attrs.update(
                **contents.made_by,
                layers=contents.layers,
                skipped=skipped,
                versions=json.dumps(contents.versions),
                checksum=contents.checksum,
            )
            file.flush()
            used = file.id.get_filesize()
        os.truncate(temporary, used)
        damaged = Shard(temporary, contents.encoder).damaged()
        if damaged:
            raise OSError(f"{path}: {damaged[0]} cannot be read back as it was written: is the disk failing?")


def _reserve(path: Path, size: int) -> None:
    """Reserve space, or raise OSError where the disk is too full: HDF5 would crash the process when it closes the file.

    Called after HDF5 has opened the file, as opening would truncate it.
    """
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, size)


class Shard:
    """A shard open for reading. UserError when the file is no shard, is damaged, or is of another encoder; OSError,
    with the file's name, when it cannot be read.

    encoder: the store's description of its encoder.
    """

    contents: Contents

    def __init__(self, path: Path, encoder: dict[str, Any]) -> None:
        self.path = path
        self._encoder = encoder
        self._version: tuple[int, ...] = ()
        self._map: mmap | None = None
        self._states: States | None = None
        with self._open():
            pass

    @contextmanager
    def _open(self) -> Iterator[FileIO]:
        """The open file, its header read again if the file was replaced, as happens when layers are added."""
        check_regular(self.path)
        with self.path.open("rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            version = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if version != self._version:
                self._read_header(stream)
                self._version = version
            yield stream

    def _read_header(self, stream: FileIO) -> None:
        path = self.path
        try:
            with h5py.File(stream, "r") as file:
                size = os.fstat(stream.fileno()).st_size
                names = ("states", "ids", "offsets", "crc32", "recordings")
                data, ids, offsets, crc32, recordings = (_plain(file, name, size) for name in names)
                layers = tuple(map(int, _attribute(file, "layers", 1)))
                shapes = [ids.shape, offsets.shape, crc32.shape, recordings.shape]
                (held,) = ids.shape
                if shapes != [(held,), (held + 1,), (len(layers), held), (held,)]:
                    raise ValueError(f"{', '.join(names[1:])}: shapes {shapes} do not go together")
                contents = Contents(
                    self._encoder,
                    str(data.dtype),
                    layers,
                    _texts(stream, ids, size),
                    _edges(offsets),
                    crc32[:],
                    _texts(stream, recordings, size),
                    _by_name(file, "skipped"),
                    _by_name(file, "versions"),
                    str(_attribute(file, "derived")) if "derived" in file.attrs else "",
                )
                begin = data.id.get_offset() or 0  # None: it has no frame; see `_plain`
                intact = _attribute(file, "checksum") == contents.checksum
                shape, expected = data.shape, contents.shape
                intact &= len(shape) == 3 and shape[:2] == expected[:2]
                made_by = {name: _attribute(file, name) for name in contents.made_by}
        except _LayoutError as error:
            raise UserError(f"{path}: {error}") from error
        except DAMAGE as error:
            check_readable(path, error)
            raise UserError(f"{path}: not readable as a shard ({error}); delete it and extract again") from error
        if not intact:
            raise UserError(f"{path}: checksum differs; delete it and extract again")
        del made_by["encoder"]  # one of equal files may have another name
        pairs = {"dim": (shape[2], expected[2])} | {
            name: (one, contents.made_by[name]) for name, one in made_by.items()
        }
        for name, (there, stated) in pairs.items():
            if there != stated:
                message = f"belongs to another store ({name}: {there} there, {stated} in store.json)"
                raise UserError(f"{path}: {message}; put that store's file back, whichever of the two it is")
        if self._version and (contents.ids, contents.recordings) != (self.contents.ids, self.contents.recordings):
            raise UserError(f"{path}: another shard has taken its place; open the store again")
        self.unmap()
        self.contents, self.begin = contents, begin
        self._compared = np.zeros(contents.crc32.shape, bool)
        self._item = np.dtype(contents.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the states of all layers."""
        return int(np.prod(self.contents.shape)) * self._item

    @property
    def mapped(self) -> States:
        """The states `(L, N, D)`, mapped into memory: nothing is read until it is used."""
        if self._states is None:
            with self._open() as stream:
                self._map = mmap(stream.fileno(), 0, access=ACCESS_READ)
            count = int(np.prod(self.contents.shape))
            if self.begin + count * self._item > len(self._map):
                raise UserError(f"{self.path}: cut off; delete it and extract again")
            flat = np.frombuffer(self._map, self.contents.dtype, count, self.begin)
            self._states = flat.reshape(self.contents.shape)
        return self._states

    def forget(self) -> None:
        """Release the memory of the map's pages; the next read loads them again."""
        if self._map is not None and hasattr(self._map, "madvise"):
            self._map.madvise(MADV_DONTNEED)

    def unmap(self) -> None:
        """Release the map and its file descriptor, once nothing read from it is in use."""
        self._states = None
        self._map = None

    def read(self, layer: int, u: int) -> States:
        """One layer of utterance `u`, `(T, D)`, read from the file each time. OSError where the disk fails."""
        with self._open() as stream:
            start, stop = self.contents.offsets[u : u + 2].tolist()
            row = self.contents.layers.index(layer)
            width = self.contents.shape[2] * self._item
            stream.seek(self.begin + (row * self.contents.shape[1] + start) * width)
            raw = bytearray((stop - start) * width)
            view = memoryview(raw)
            while view:
                read = stream.readinto(view)
                if not read:
                    raise UserError(f"{self.path}: cut off; delete it and extract again")
                view = view[read:]
        return np.frombuffer(raw, self.contents.dtype).reshape(stop - start, -1)

    def read_intact(self, layer: int, u: int) -> States:
        """`read`, compared with its checksum. UserError where it differs from what was computed."""
        block = self.read(layer, u)
        if why := fault(block, int(self.contents.crc32[self.contents.layers.index(layer), u])):
            what = f"{self.contents.ids[u]}: layer {layer}: {why}"
            raise UserError(f"{self.path}: {what}; see `bas features verify {self.path.parent}`")
        return block

    def compare(self, layer: int, u: int, block_TD: States) -> None:
        """Compare what was read of a block with its checksum, the first time. UserError where it differs."""
        row = self.contents.layers.index(layer)
        if self._compared[row, u]:
            return
        if checksum(block_TD) != self.contents.crc32[row, u]:
            what = f"{self.contents.ids[u]}: layer {layer}: other bytes than were computed"
            raise UserError(f"{self.path}: {what}; see `bas features verify {self.path.parent}`")
        self._compared[row, u] = True

    def damaged(self) -> list[str]:
        """The utterances whose bytes differ from those computed, or are not finite; reads everything once."""
        return [id_ for u, id_ in enumerate(self.contents.ids) if self.fault(u)]

    def fault(self, u: int) -> str:
        """What is wrong with the states of utterance `u`; empty if nothing is."""
        for layer, crc32 in zip(self.contents.layers, self.contents.crc32[:, u].tolist(), strict=True):
            why = fault(self.read(layer, u), crc32)
            if why:
                return f"layer {layer}: {why}"
        return ""


class _LayoutError(Exception):
    """The file is sound HDF5, but not laid out as bas writes it."""


def _plain(file: h5py.File, name: str, size: int) -> h5py.Dataset:
    """A dataset whose values are one run of plain bytes within the file of `size` bytes.

    Nothing of it has been read yet: its header may declare more than there is memory for.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise _LayoutError(f"{name}: a link; restore the file, or extract it again into another folder")
    data = file[name]
    how, stored = data.id.get_create_plist(), data.id.get_storage_size()
    kind = h5py.check_string_dtype(data.dtype)
    if kind is None and data.dtype.newbyteorder("<") != data.dtype:
        raise _LayoutError(f"{name}: big-endian; restore the file, or extract it again into another folder")
    declared = data.size * (POINTER if kind and kind.length is None else data.dtype.itemsize)
    if how.get_layout() != h5d.CONTIGUOUS or how.get_external_count():
        kinds = {h5d.COMPACT: "inside the header", h5d.CHUNKED: "in chunks", h5d.VIRTUAL: "in another dataset"}
        where = "in another file" if how.get_external_count() else kinds.get(how.get_layout(), "in an unknown layout")
        remedy = "as a repacking tool may leave it; restore the file, or extract it again into another folder"
        raise _LayoutError(f"{name}: stored {where}, not as one plain array, {remedy}")
    if declared > size or stored != declared:
        raise ValueError(f"{name}: declares {declared:,} bytes and has {stored:,}, in a file of {size:,}")
    return data


def _texts(stream: FileIO, data: h5py.Dataset, size: int) -> tuple[str, ...]:
    """A dataset of texts of any length, which in a file of `size` bytes are no longer than that altogether.

    Their lengths are read first, each the four bytes in front of its pointer: many could point to one long text.
    """
    kind = h5py.check_string_dtype(data.dtype)
    if kind is None or kind.length is not None:
        raise ValueError(f"{data.name}: no texts of any length")
    if not data.size:
        return ()
    pointers = os.pread(stream.fileno(), data.size * POINTER, data.id.get_offset())
    lengths = np.frombuffer(pointers, "<u4")[:: POINTER // 4]
    if int(lengths.sum(dtype=np.int64)) > size:
        raise ValueError(f"{data.name}: its texts are longer than the file")
    return tuple(text.decode() for text in data[:])


def _edges(offsets: h5py.Dataset) -> npt.NDArray[np.int64]:
    """The offsets, which cut the frames into utterances of one frame or more."""
    edges: npt.NDArray[np.int64] = offsets[:].astype(np.int64)
    if edges[0] != 0 or not (np.diff(edges) > 0).all():
        raise ValueError(f"offsets do not cut the frames into {len(edges) - 1} utterances")
    return edges


def _attribute(file: h5py.File, name: str, dimensions: int = 0) -> Any:
    """An attribute with so many dimensions: a text or a number, or a row of numbers."""
    how = file.attrs.get_id(name)
    if len(how.shape) != dimensions or (dimensions and how.dtype.kind not in "iu"):
        raise ValueError(f"{name}: an attribute of shape {how.shape} and dtype {how.dtype}")
    return file.attrs[name]


def _by_name(file: h5py.File, name: str) -> dict[str, str]:
    """An attribute that is an object of JSON, of texts by name."""
    value = json.loads(_attribute(file, name))
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{name}: must be an object of texts, not {str(value)[:80]}")
    return value


def fault(states: States, crc32: int) -> str:
    """What is wrong with a block that was computed with this checksum; empty if nothing is."""
    if checksum(states) != crc32:
        return "other bytes than were computed"
    return "" if np.isfinite(states).all() else "NaN or infinite values"


def checksum(states: npt.NDArray[Any]) -> int:
    """CRC-32 of a block's bytes, by ISA-L: 17 GB/s where zlib has 2.8, so that every block that is read is compared."""
    crc32: int = isal_zlib.crc32(as_bytes(states))
    return crc32


def as_bytes(states: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(states).reshape(-1).view(np.uint8).data


def offsets(frames: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *frames], dtype=np.int64)
