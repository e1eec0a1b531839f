"""Arrays of features that another program wrote, one an utterance, opened one at a time and never unpickled.

A source is a folder of `ID.npy` or of `ID.safetensors` (one tensor each), one `.safetensors` with a tensor an id, or
one HDF5 file with a dataset an id. An id with a slash is a path beneath the folder, or a dataset in a group.

Axes: L states, T frames, D width.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from bas.errors import UserError, first_line
from bas.features.shard import DAMAGE, States
from bas.util.faults import check_readable
from bas.util.reading import check_regular

FLOATS = ("float16", "bfloat16", "float32", "float64")
TENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""The floats of safetensors by their names there."""
HDF5 = (".h5", ".hdf5")
KINDS = "a folder of ID.npy or ID.safetensors, a .safetensors file with a tensor an id, a .h5 or .hdf5 with a dataset"


@dataclass(frozen=True)
class Array:
    """One utterance's features. where: file and tensor, for messages. dtype: one of FLOATS, as they were written."""

    where: str
    shape: tuple[int, int, int]  # (L, T, D)
    dtype: str
    rows: Callable[[int], States]

    def read(self, layer: int) -> States:
        """One state, `(T, D)`, in the dtype as written; float32 for bfloat16. UserError for bytes that are damaged."""
        try:
            return self.rows(layer)
        except DAMAGE as error:
            raise UserError(f"{self.where}: damaged: {first_line(error)}") from error


@dataclass(frozen=True)
class Source:
    """The arrays of a source by id; its file, if it is one, is open while the block of `open_source` runs."""

    path: Path
    _open: Mapping[str, Callable[[], Array]]

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._open)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._open

    def open(self, id_: str) -> Array:
        """Raises UserError for what is no array of floats `(T, D)` or `(L, T, D)`, or cannot be read."""
        return self._open[id_]()


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """Raises UserError for what is no source, and for a file that is damaged."""
    suffix = path.suffix.lower()
    if path.is_dir():
        yield Source(path, _folder(path))
    elif not path.exists():
        raise UserError(f"{path}: no such file or folder; features are imported from {KINDS} an id")
    elif suffix == ".safetensors":
        file = _tensors(path)
        yield Source(path, {name: partial(_tensor, path, file, name) for name in file.keys()})  # noqa: SIM118
    elif suffix in HDF5:
        with _datasets(path) as by_id:
            yield Source(path, {id_: partial(_dataset, path, data) for id_, data in by_id.items()})
    else:
        raise UserError(f"{path}: of no known kind; features are imported from {KINDS} an id")


def _folder(folder: Path) -> dict[str, Callable[[], Array]]:
    """By id, a file beneath the folder; hidden ones are passed over."""
    by_suffix: dict[str, dict[str, Path]] = {".npy": {}, ".safetensors": {}}
    for within, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(within, name)
            if path.suffix in by_suffix and not name.startswith("."):
                by_suffix[path.suffix][path.relative_to(folder).as_posix().removesuffix(path.suffix)] = path
    kinds = [suffix for suffix, paths in by_suffix.items() if paths]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "neither"
        raise UserError(f"{folder}: must hold ID.npy or ID.safetensors, one kind of the two, not {found}")
    read = _npy if kinds == [".npy"] else _alone
    return {id_: partial(read, path) for id_, path in by_suffix[kinds[0]].items()}


def _npy(path: Path) -> Array:
    check_regular(path)
    try:
        # Mapped, so that one state is read at a time. Of objects, which are pickles, nothing is read.
        data = np.lib.format.open_memmap(path, mode="r")
    except DAMAGE as error:
        check_readable(path, error)
        raise UserError(f"{path}: not an array of floats in .npy: {first_line(error)}") from error
    return _array(str(path), data.shape, data.dtype.name, lambda at: np.asarray(data[at]))


def _alone(path: Path) -> Array:
    """The one tensor of a file, whatever its name."""
    file = _tensors(path)
    names = list(file.keys())
    if len(names) != 1:
        message = f"{len(names)} tensors, where a folder's file has one; to import one file of all ids, name it"
        raise UserError(f"{path}: {message}")
    return _tensor(path, file, names[0])


def _tensors(path: Path) -> Any:
    """The file, open until nothing of it is in use."""
    check_regular(path)
    try:
        return safe_open(path, framework="pt")  # NumPy has no bfloat16
    except (SafetensorError, *DAMAGE) as error:
        check_readable(path, error)
        raise UserError(f"{path}: not readable as safetensors: {first_line(error)}") from error


def _tensor(path: Path, file: Any, name: str) -> Array:
    data = file.get_slice(name)

    def rows(at: Any) -> States:
        value: torch.Tensor = data[at]
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()

    kind = data.get_dtype()
    return _array(f"{path}: {name}", tuple(data.get_shape()), TENSORS.get(kind, kind), rows)


@contextmanager
def _datasets(path: Path) -> Iterator[dict[str, h5py.Dataset]]:
    """The datasets of an HDF5 file by name, those in groups too; links, which may lead to other files, are not one."""
    check_regular(path)
    by_id: dict[str, h5py.Dataset] = {}
    try:
        file = h5py.File(path, "r")
        file.visititems(lambda name, item: by_id.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    except DAMAGE as error:
        check_readable(path, error)
        raise UserError(f"{path}: not readable as HDF5: {first_line(error)}") from error
    with file:
        yield by_id


def _dataset(path: Path, data: h5py.Dataset) -> Array:
    where = f"{path}: {data.name.removeprefix('/')}"
    if data.is_virtual or data.external:
        raise UserError(f"{where}: its values lie in another file; copy them into this one")
    return _array(where, data.shape or (), data.dtype.name, lambda at: np.asarray(data[at]))


def _array(where: str, shape: tuple[int, ...], dtype: str, rows: Callable[[Any], States]) -> Array:
    """rows: takes an index of the first axis, or a slice."""
    if dtype not in FLOATS:
        raise UserError(f"{where}: values of kind {dtype}; must be one of {', '.join(FLOATS)}")
    if len(shape) == 1:
        message = "one vector, without frames; import the frames that it was pooled from, as (frames, width)"
        raise UserError(f"{where}: shape {tuple(shape)}; {message}")
    if len(shape) not in (2, 3) or not all(shape):
        message = "must be (frames, width) for one state, or (states, frames, width), each 1 or more"
        raise UserError(f"{where}: shape {tuple(shape)}; {message}")
    if len(shape) == 2:
        frames, width = shape
        return Array(where, (1, frames, width), dtype, lambda layer: rows(slice(None)))
    states, frames, width = shape
    return Array(where, (states, frames, width), dtype, rows)
