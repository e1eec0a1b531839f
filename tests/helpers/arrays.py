"""Arrays of other programs as files, and stores made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from safetensors.torch import save_file
from stores import quiet

from bas.corpora import open_corpus
from bas.features.importing import import_features
from bas.features.plan import Request
from bas.features.sources import open_source
from bas.features.store import FeatureStore
from bas.features.verify import Finding, verify

SHARD = 1500  # bytes: several shards
Arrays = dict[str, np.ndarray]


def arrays_of(made: FeatureStore) -> Arrays:
    """The states of a store, `(L, T, D)` by id."""
    return {id_: made.gather([id_], made.info.layers)[0] for id_ in made.ids}


def as_npy(folder: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    for id_, array in arrays.items():
        (folder / f"{id_}.npy").parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{id_}.npy", array)
    return folder


def as_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    save_file({id_: torch.from_numpy(np.array(array)) for id_, array in arrays.items()}, path)
    return path


def as_tensor_files(folder: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    for id_, array in arrays.items():
        (folder / f"{id_}.safetensors").parent.mkdir(parents=True, exist_ok=True)
        as_tensors(folder / f"{id_}.safetensors", {"features": array})
    return folder


def as_hdf5(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for id_, array in arrays.items():
            file.create_dataset(id_, data=array, chunks=True, compression="gzip")
    return path


KINDS: dict[str, Callable[[Path, Mapping[str, np.ndarray]], Path]] = {
    "npy": as_npy,
    "files.of": as_tensor_files,
    "one.safetensors": as_tensors,
    "one.h5": as_hdf5,
}


def imported(
    source: Path, folder: Path, dtype: str = "float16", rate: float = 50.0, root: Path | None = None, **how: Any
) -> FeatureStore:
    root = root or source.parent / "list.csv"
    request = Request("manifest", root, dtype=dtype, shard_bytes=SHARD)
    console = how.pop("console", None) or quiet()
    with open_source(source) as opened:
        return import_features(open_corpus("manifest", root), opened, folder, request, "mine", rate, console)


def checks(folder: Path, sample: int = 99) -> dict[str, Finding]:
    return {one.check: one for one in verify(folder, quiet(), torch.device("cpu"), sample=sample)}


def wrong(folder: Path) -> dict[str, tuple[str, ...]]:
    return {name: one.problems for name, one in checks(folder).items() if one.problems}
