"""What an import refuses, in one line and before anything is written, and what it leaves out."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from arrays import (
    Arrays,
    arrays_of,
    as_hdf5,
    as_npy,
    as_tensor_files,
    as_tensors,
    imported,
    wrong,
)
from refusals import refusal
from stores import manifest, names, quiet, store

from bas.features.store import FeatureStore


@pytest.fixture
def parent(tmp_path: Path) -> FeatureStore:
    """Six utterances of three states of width 4 at 50 frames a second, extracted into three shards or more."""
    return store(manifest(tmp_path / "list.csv", names()), tmp_path / "parent")


def odd(change: Callable[[Arrays], object]) -> Callable[[Path, Arrays], Path]:
    def make(folder: Path, arrays: Arrays) -> Path:
        change(arrays)
        return as_npy(folder / "npy", arrays)

    return make


def put(id_: str, value: float) -> Callable[[Arrays], object]:
    def change(arrays: Arrays) -> None:
        arrays[id_] = arrays[id_].astype("float32")
        arrays[id_][2, 1, 3] = value

    return change


def two(*changes: Callable[[Arrays], object]) -> Callable[[Path, Arrays], Path]:
    return odd(lambda arrays: [change(arrays) for change in changes])


def pickled(folder: Path, arrays: Arrays) -> Path:
    source = as_npy(folder / "npy", arrays)
    with (source / "u4.npy").open("wb") as stream:
        pickle.dump(Trap(), stream)
    return source


def of_objects(folder: Path, arrays: Arrays) -> Path:
    source = as_npy(folder / "npy", arrays)
    np.save(source / "u4.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    return source


def cut_off(folder: Path, arrays: Arrays) -> Path:
    source = as_npy(folder / "npy", arrays)
    os.truncate(source / "u4.npy", (source / "u4.npy").stat().st_size // 2)
    return source


def both_kinds(folder: Path, arrays: Arrays) -> Path:
    as_tensor_files(folder / "npy", {"u0": arrays["u0"]})
    return as_npy(folder / "npy", arrays)


def several(folder: Path, arrays: Arrays) -> Path:
    source = as_tensor_files(folder / "npy", arrays)
    as_tensors(source / "u4.safetensors", {"one": arrays["u4"], "two": arrays["u4"]})
    return source


def piped(folder: Path, arrays: Arrays) -> Path:
    source = as_npy(folder / "npy", arrays)
    (source / "u4.npy").unlink()
    os.mkfifo(source / "u4.npy")
    return source


def elsewhere(folder: Path, arrays: Arrays) -> Path:
    source = as_hdf5(folder / "x.h5", {id_: a for id_, a in arrays.items() if id_ != "u4"})
    with h5py.File(source, "a") as file:
        file.create_dataset("u4", (3, 10, 4), "f2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])
    return source


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


REFUSED: dict[str, tuple[Callable[[Path, Arrays], Path], str]] = {
    "missing": (two(lambda a: a.pop("u1"), lambda a: a.pop("u4")), "npy: no features of 2 of 6: u1, u4; make these"),
    "NaN": (two(put("u1", np.nan), put("u3", -np.inf)), "npy: a feature is NaN or infinite in 2 of 6: u1, u3; "),
    "beyond": (
        two(put("u1", 7e4), put("u2", -7e4)),
        "npy: a feature is beyond float16 (65504) in 2 of 6: u1, u2; use --dtype float32",
    ),
    "states": (odd(lambda a: a.update(u4=a["u4"][:2])), "u4.npy: states 2, but "),
    "width": (odd(lambda a: a.update(u4=a["u4"][..., :3])), "u4.npy: width 3, but "),
    "frames": (odd(lambda a: a.update(u4=a["u4"][:, :5])), "npy: u4: 5 frames, but 0.20 s make about 10 at --frame-r"),
    "integers": (odd(lambda a: a.update(u4=a["u4"].astype("int32"))), "u4.npy: values of kind int32; must be one of"),
    "a vector": (
        odd(lambda a: a.update(u4=a["u4"][0, 0])),
        "u4.npy: shape (4,); one vector, without frames; imp",
    ),
    "no frame": (odd(lambda a: a.update(u4=a["u4"][:, :0])), "u4.npy: shape (3, 0, 4); must be (frames, width)"),
    "a pickle": (pickled, "u4.npy: not an array of floats in .npy"),
    "objects": (of_objects, "u4.npy: not an array of floats in .npy"),
    "cut off": (cut_off, "u4.npy: not an array of floats in .npy"),
    "both kinds": (both_kinds, "npy: must hold ID.npy or ID.safetensors, one kind of the two, not .npy and .safetens"),
    "no kind": (
        lambda folder, _: folder / "wav",
        "wav: must hold ID.npy or ID.safetensors, one kind of the two, not n",
    ),
    "several tensors": (several, "u4.safetensors: 2 tensors, where a folder's file has one"),
    "a pipe": (piped, "u4.npy: a pipe, not a file"),
    "another file": (elsewhere, "x.h5: u4: its values lie in another file; copy them into this one"),
    "no HDF5": (
        lambda folder, _: Path(shutil.copy(folder / "list.csv", folder / "x.h5")),
        "x.h5: not readable as HDF5",
    ),
    "no tensors": (
        lambda folder, _: Path(shutil.copy(folder / "list.csv", folder / "x.safetensors")),
        "x.safetensors: not readable as safetensors",
    ),
    "another file type": (lambda folder, _: folder / "list.csv", "list.csv: of no known kind; features are imported"),
    "nothing": (lambda folder, _: folder / "none", "none: no such file or folder; features are imported from a folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_line_and_nothing_written(
    case: str, tmp_path: Path, parent: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = REFUSED[case]
    source = make(tmp_path, arrays_of(parent))
    assert message in refusal(imported, source, tmp_path / "made", root=tmp_path / "list.csv")
    assert not (tmp_path / "made").exists()
    assert not Path("executed").exists()


def test_too_large_for_float16_is_no_matter_in_float32(tmp_path: Path, parent: FeatureStore) -> None:
    arrays = arrays_of(parent)
    put("u1", 7e4)(arrays)
    assert imported(as_npy(tmp_path / "npy", arrays), tmp_path / "made", "float32").read("u1", 2)[1, 3] == 7e4


def test_arrays_of_no_utterance_are_named_and_left(tmp_path: Path, parent: FeatureStore) -> None:
    console = quiet()
    arrays = arrays_of(parent) | {"x1": np.zeros((1, 1)), "x2": np.zeros(3)}
    made = imported(as_npy(tmp_path / "npy", arrays), tmp_path / "made", console=console)
    assert "npy: 2 of 8: x1, x2 are of no utterance of list" in console.file.getvalue()  # type: ignore[attr-defined]
    assert set(made.ids) == set(parent.ids)


def test_what_cannot_be_read_is_skipped_as_in_an_extraction(tmp_path: Path, parent: FeatureStore) -> None:
    arrays = arrays_of(parent)
    (tmp_path / "wav/u2.wav").write_bytes(b"no sound")
    made = imported(as_npy(tmp_path / "npy", arrays), tmp_path / "made")
    assert set(made.info.skipped) == {"u2"}
    assert "u2" not in made
    assert wrong(made.folder) == {}
