"""A shard of another layout, or one that declares what it does not have, is refused before anything of it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from records import record, rewrite
from refusals import refusal
from stores import manifest, names, store

from bas.errors import UserError
from bas.features.shard import Shard, shard_path
from bas.features.store import FeatureStore, StoreInfo

NAMES = ("states", "ids", "offsets", "crc32", "recordings")
MANY = 2**31


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    root = tmp_path_factory.mktemp("corpus")
    return store(manifest(root / "m.csv", names()), root / "store", shard_bytes=10**6)


@pytest.fixture
def path(whole: FeatureStore, tmp_path: Path) -> Path:
    copied = tmp_path / "shard-00000.h5"
    copied.write_bytes(shard_path(whole.folder, 0).read_bytes())
    return copied


def anew(path: Path, name: str, **how: Any) -> None:
    """Write one dataset again with the same values, in another way."""
    with h5py.File(path, "r+") as file:
        values, dtype = file[name][:], file[name].dtype
        del file[name]
        file.create_dataset(name, data=values, dtype=dtype, **how)


def in_another_file(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        data = file[name]
        shape, dtype = data.shape, data.dtype
        del file[name]
        file.create_dataset(name, shape, dtype, external=[(str(path.with_name("bytes")), 0, h5py.h5f.UNLIMITED)])


def virtual(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout(file[name].shape, file[name].dtype)
        layout[:] = h5py.VirtualSource(str(path), name, file[name].shape)
        del file[name]
        file.create_virtual_dataset(name, layout)


def linked(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        file.move(name, "elsewhere")
        file[name] = h5py.SoftLink("/elsewhere")


def compact(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        del file[name]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.COMPACT)
        space, kind = h5py.h5s.create_simple(values.shape), h5py.h5t.py_create(values.dtype, logical=True)
        h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=how)
        file[name][:] = values


def big_endian(path: Path, name: str) -> None:
    with h5py.File(path, "r+") as file:
        values = file[name][:]
        del file[name]
        file[name] = values.astype(values.dtype.newbyteorder(">"))


LAYOUTS: dict[str, tuple[tuple[str, ...], Callable[[Path, str], None], str]] = {
    "chunks": (NAMES, lambda path, name: anew(path, name, chunks=True), "stored in chunks"),
    "gzip": (NAMES, lambda path, name: anew(path, name, compression="gzip"), "stored in chunks"),
    "another file": (("states", "offsets", "crc32"), in_another_file, "stored in another file"),
    "virtual": (("states", "offsets", "crc32"), virtual, "stored in another dataset"),
    "a link": (NAMES, linked, "a link"),
    "compact": (("offsets", "crc32"), compact, "stored inside the header"),
    "big-endian": (("states", "offsets", "crc32"), big_endian, "big-endian"),
}
CASES = [(sort, name) for sort, (of, _, _) in LAYOUTS.items() for name in of]


@pytest.mark.parametrize(("sort", "name"), CASES)
def test_another_layout(sort: str, name: str, path: Path, whole: FeatureStore) -> None:
    _, change, message = LAYOUTS[sort]
    change(path, name)
    said = refusal(Shard, path, whole.info.encoder)
    assert f"{path}: {name}: {message}" in said
    assert "restore the file, or extract it again into another folder" in said


def bomb(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """Declare a dataset that is never written: in a file that is as long, but has nothing on the disk."""
    with h5py.File(path, "r+") as file:
        dtype = file[name].dtype
        del file[name]
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        how.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape), dcpl=how)


@pytest.mark.parametrize(
    ("name", "shape"), [("offsets", (MANY,)), ("crc32", (MANY // 4, 4)), ("crc32", (1, MANY)), ("offsets", (2, 9))]
)
def test_what_it_declares_is_not_read_first(
    name: str, shape: tuple[int, ...], path: Path, whole: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb(path, name, shape)
    assert path.stat().st_blocks * 512 < 2**22
    monkeypatch.setattr("bas.features.shard.check_readable", lambda *_: None)  # reads all those zeros
    assert "do not go together" in refusal(Shard, path, whole.info.encoder)


@pytest.mark.parametrize("value", [[1, 2], [0, 0], [0, -1], [-5, 3]])
def test_offsets_that_cut_nothing(value: list[int], path: Path, whole: FeatureStore) -> None:
    with h5py.File(path, "r+") as file:
        file["offsets"][:2] = value
    assert "(offsets do not cut the frames into " in refusal(Shard, path, whole.info.encoder)


@pytest.mark.parametrize("name", ["ids", "recordings"])
def test_many_texts_that_are_one_long_text(name: str, path: Path, whole: FeatureStore) -> None:
    with h5py.File(path, "r+") as file:
        count = len(file[name])
        del file[name]
        file[name] = np.array(["x" * 2**20, *"y" * (count - 1)], dtype=h5py.string_dtype())
        begin = file[name].id.get_offset()
    raw = bytearray(path.read_bytes())
    raw[begin : begin + 16 * count] = raw[begin : begin + 16] * count
    path.write_bytes(raw)
    assert f"/{name}: its texts are longer than the file" in refusal(Shard, path, whole.info.encoder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("versions", "[1, 2]"),
        ("versions", "7"),
        ("versions", '{"torch": 2}'),
        ("skipped", "[]"),
        ("layers", 0),
        ("layers", [0.0]),
        ("layers", [[0]]),
        *((name, [1, 2]) for name in ("revision", "frame_rate", "checksum", "input", "sample_rate", "skipped")),
    ],
)
def test_an_attribute_of_another_kind(name: str, value: Any, path: Path, whole: FeatureStore) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    said = refusal(Shard, path, whole.info.encoder)
    assert said.startswith(f"{path}: not readable as a shard ({name}: ")


def test_further_attributes_are_not_read(path: Path, whole: FeatureStore) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs.create("more", ["x" * 1000] * 50, dtype=h5py.string_dtype())
    assert Shard(path, whole.info.encoder).contents.ids == whole.info.shards[0]


def test_a_pipe(path: Path, whole: FeatureStore) -> None:
    path.unlink()
    os.mkfifo(path)
    assert "a pipe, not a file" in refusal(Shard, path, whole.info.encoder)


def test_a_wrong_width_in_store_json_condemns_no_shard(path: Path, whole: FeatureStore) -> None:
    said = refusal(Shard, path, {**whole.info.encoder, "dim": 5})
    assert said.startswith(f"{path}: belongs to another store (dim: ")
    assert "delete" not in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", [0.0]),
        ("layers", [False]),
        ("layers", [0, 0]),
        ("layers", []),
        ("layers", [-1]),
        *(("recordings", number) for number in (-1, 10**400, float("inf"), 2**60, None, "x")),
        ("root from here", 7),
        ("root", 7),
    ],
)
def test_a_number_that_bas_never_writes(field: str, value: Any, whole: FeatureStore, tmp_path: Path) -> None:
    changed = record(whole.folder / "store.json")
    changed[field] = (
        {id_: [digest, value] for id_, (digest, _) in changed[field].items()} if field == "recordings" else value
    )
    try:
        rewrite(tmp_path / "store.json", changed)
    except (ValueError, OverflowError):
        (tmp_path / "store.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(UserError, match=r"store\.json: (damaged|not readable)"):
        StoreInfo.read(tmp_path)
