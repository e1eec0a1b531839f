"""Features of other programs: the values that were given, whole or not at all, and never taken for an extraction."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from extracting import flip, states_at
from records import rewrite
from refusals import refusal
from safetensors.torch import save_file
from sounds import tone
from stores import manifest, names, quiet, store

import bas
from bas.cli.experiments import take
from bas.cli.main import main
from bas.corpora import open_corpus
from bas.features import importing
from bas.features.assemble import merge, subset
from bas.features.derive import derive
from bas.features.importing import import_features
from bas.features.info import describe
from bas.features.plan import Request
from bas.features.shard import write_shard
from bas.features.sources import open_source
from bas.features.store import SOURCE, FeatureStore, StoreInfo
from bas.features.verify import Finding, verify
from bas.report.results import Comparison
from bas.speech.words import word_segments

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


@pytest.fixture
def parent(tmp_path: Path) -> FeatureStore:
    """Six utterances of three states of width 4 at 50 frames a second, extracted into three shards or more."""
    return store(manifest(tmp_path / "list.csv", names()), tmp_path / "parent")


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


# The store


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_it_is_the_store_that_an_extraction_of_these_states_makes(
    kind: str, dtype: str, tmp_path: Path, parent: FeatureStore
) -> None:
    extracted = store(tmp_path / "list.csv", tmp_path / "extracted", dtype=dtype)
    source = KINDS[kind](tmp_path / kind, {id_: a.astype("float32") for id_, a in arrays_of(extracted).items()})
    made = imported(source, tmp_path / "made", dtype)
    assert made.info.shards == extracted.info.shards
    assert len(made.info.shards) >= 3
    for index in range(len(made.info.shards)):
        one, other = (of.shard(index).contents for of in (made, extracted))
        assert (one.ids, one.layers, one.recordings, one.dtype) == (other.ids, other.layers, other.recordings, dtype)
        assert np.array_equal(one.offsets, other.offsets)
        assert np.array_equal(one.crc32, other.crc32)
    assert all(np.array_equal(made.read(i, layer), extracted.read(i, layer)) for i in made.ids for layer in (0, 1, 2))
    assert made.info.recordings == extracted.info.recordings
    assert made.info.imported
    assert not extracted.info.imported
    assert made.info.identity != extracted.info.identity
    assert wrong(made.folder) == {}
    assert checks(made.folder)["source"].summary.startswith("imported: 6 of 6 utterances compared with ")
    shown = describe(made.folder, quiet())
    assert shown["encoder"] == "mine (imported)"
    assert shown["computed"] == f"elsewhere, and imported from {source}, stored as {dtype}"


def test_equal_values_are_the_same_features_in_whatever_file(tmp_path: Path, parent: FeatureStore) -> None:
    arrays = arrays_of(parent)
    doubles = {id_: np.asfortranarray(array.astype(">f8")) for id_, array in arrays.items()}
    made = [imported(as_npy(tmp_path / "half", arrays), tmp_path / "a")]
    made += [imported(as_npy(tmp_path / "double", doubles), tmp_path / "b")]
    made += [imported(as_hdf5(tmp_path / "x.hdf5", arrays), tmp_path / "c")]
    assert len({one.info.identity for one in made}) == 1
    slower = {id_: array[:, ::2] for id_, array in arrays.items()}
    other = imported(as_npy(tmp_path / "slow", slower), tmp_path / "d", rate=25.0)
    arrays["u3"] = arrays["u3"] + np.float16(1)
    changed = imported(as_npy(tmp_path / "new", arrays), tmp_path / "e")
    assert len({one.info.identity for one in (made[0], other, changed)}) == 3


def test_one_state_needs_no_axis_and_bfloat16_is_a_float(tmp_path: Path, parent: FeatureStore) -> None:
    plain = {id_: array[1].astype("float32") for id_, array in arrays_of(parent).items()}
    made = imported(as_npy(tmp_path / "plain", plain), tmp_path / "made")
    assert made.info.layers == (0,)
    assert all(np.array_equal(made.read(id_, 0), parent.read(id_, 1)) for id_ in parent.ids)
    save_file({id_: torch.from_numpy(a).bfloat16() for id_, a in plain.items()}, tmp_path / "b.safetensors")
    rounded = imported(tmp_path / "b.safetensors", tmp_path / "rounded", "float32")
    assert np.array_equal(rounded.read("u0", 0), torch.from_numpy(plain["u0"]).bfloat16().float().numpy())


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_with_a_slash_is_a_path_beneath_the_source(kind: str, tmp_path: Path) -> None:
    ids = ("a/b/1", "a/b.c/2", "3")
    rows = "".join(f"{id_},{tone(tmp_path / f'{i}.wav', 0.2 + i / 10)}\n" for i, id_ in enumerate(ids))
    (tmp_path / "list.csv").write_text(f"id,audio\n{rows}")
    given = {id_: np.full((10 + 5 * i, 3), i, "float32") for i, id_ in enumerate(ids)}
    made = imported(KINDS[kind](tmp_path / kind, given), tmp_path / "made")
    assert {id_: made.read(id_, 0).tolist() for id_ in made.ids} == {id_: a.tolist() for id_, a in given.items()}


def test_stores_are_made_of_it_and_know_that_it_was_imported(tmp_path: Path, parent: FeatureStore) -> None:
    made = imported(as_npy(tmp_path / "npy", arrays_of(parent)), tmp_path / "made")
    part = subset(made.folder, tmp_path / "part", quiet(), layers=[1], ids=["u0", "u3"])
    rest = subset(made.folder, tmp_path / "rest", quiet(), layers=[1], ids=["u1", "u2", "u4", "u5"])
    both = merge([part.folder, rest.folder], tmp_path / "both", quiet())
    words = word_segments(open_corpus("manifest", tmp_path / "list.csv").utterances, None)
    pooled = derive(made.folder, tmp_path / "words", words, "mean", quiet())
    for one in (part, both, pooled):
        assert one.info.imported
        assert wrong(one.folder) == {}
        assert describe(one.folder, quiet())["computed"].startswith("elsewhere, and imported, stored")
    assert checks(part.folder)["source"].summary.startswith("made by subset of features that were imported")
    assert "encoder.revision differs" not in refusal(merge, [parent.folder, part.folder], tmp_path / "no", quiet())


# Whole or not at all


def test_an_import_that_was_cut_off_goes_on_and_not_with_other_arrays(
    tmp_path: Path, parent: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = arrays_of(parent)
    source, into = as_npy(tmp_path / "npy", arrays), tmp_path / "made"
    written: list[str] = []
    write = write_shard

    def noted(path: Path, *more: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        write(path, *more)
        written.append(path.name)

    monkeypatch.setattr(importing, "write_shard", noted)
    with pytest.raises(KeyboardInterrupt):
        imported(source, into)
    assert "run the same `bas features import` again" in refusal(FeatureStore, into)
    np.save(source / "u2.npy", arrays["u2"] * 2)
    before = {p.name: p.read_bytes() for p in into.glob("*.h5")}
    assert len(before) == 2
    message = f"{into}: holds another store (encoder.revision differs); name another folder with --features"
    assert refusal(imported, source, into) == message
    np.save(source / "u2.npy", arrays["u2"])
    written.clear()
    monkeypatch.setattr(importing, "write_shard", lambda path, *more: (written.append(path.name), write(path, *more)))
    made = imported(source, into)
    assert len(written) == len(made.info.shards) - 2
    assert {name: (into / name).read_bytes() for name in before} == before
    assert not (into / "plan.json").exists()
    assert wrong(into) == {}
    written.clear()
    assert imported(source, into).info == made.info
    assert written == []


def test_an_array_that_changes_between_check_and_write_is_refused(
    tmp_path: Path, parent: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, check = as_npy(tmp_path / "npy", arrays_of(parent)), importing._check

    def then_change(*arguments: Any) -> Any:
        found = check(*arguments)
        np.save(source / "u1.npy", np.load(source / "u1.npy") + 1)
        return found

    monkeypatch.setattr(importing, "_check", then_change)
    assert f"{source}/u1.npy: changed while it was imported" in refusal(imported, source, tmp_path / "made")
    assert not (tmp_path / "made/store.json").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, parent: FeatureStore) -> None:
    source = as_npy(tmp_path / "npy", arrays_of(parent))
    assert refusal(imported, source, parent.folder).startswith(f"{parent.folder}: holds another store (made_by differs")
    made = imported(source, tmp_path / "made")
    assert "(made by: import there, extract asked)" in refusal(store, tmp_path / "list.csv", made.folder)
    tone(tmp_path / "wav/u1.wav", 0.5, hertz=999)
    assert "(recordings differs)" in refusal(imported, source, made.folder)


def test_a_corpus_that_has_moved_is_taken_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    made = store(manifest(tmp_path / "old/list.csv", names()), tmp_path / "parent")
    source = as_npy(tmp_path / "npy", arrays_of(made))
    words = "features import --corpus manifest --encoder mine --source npy --frame-rate 50 --features st --root"
    assert main([*words.split(), "old/list.csv"]) == 0
    shards = {path: path.stat().st_mtime_ns for path in Path("st").glob("shard-*")}
    (tmp_path / "old").rename(tmp_path / "new")
    line = refusal(bas.compare, {"features": ["st"]})
    assert "the `bas features import` that made the store, with the new --root and --features" in line
    assert main([*words.split(), "new/list.csv"]) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("st").glob("shard-*")} == shards
    assert source.is_dir()
    assert main(["features", "verify", "st"]) == 0


# What is refused, before anything is written


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


# Verify


def test_verify_says_what_changed_and_what_it_cannot_know(tmp_path: Path, parent: FeatureStore) -> None:
    arrays = arrays_of(parent)
    source = as_npy(tmp_path / "npy", arrays)
    made = imported(source, tmp_path / "made")
    np.save(source / "u1.npy", arrays["u1"] * 2)
    (source / "u2.npy").unlink()
    np.save(source / "u3.npy", arrays["u3"][:, 1:])
    assert set(wrong(made.folder)["source"]) == {
        f"u1: {source}/u1.npy: state 0 has other values than were imported",
        f"u2: not in {source} any more",
        f"u3: {source}/u3.npy: shape (3, 29, 4), where (3, 30, 4) was imported",
    }
    shutil.rmtree(source)
    assert wrong(made.folder) == {}
    assert checks(made.folder)["source"].summary == f"nothing compared: {source} is not there any more"
    path, begin, _ = states_at(made, 0)
    flip(path, begin + 1)
    assert made.info.shards[0][0] in wrong(made.folder)["shards"][0]
    rewrite(made.folder / SOURCE, {})
    assert "source.json: damaged" in wrong(made.folder)["source"][0]


# The whole way


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the working folder: tones of four speakers, extracted as log-mel, and the same as arrays in a folder."""
    folder = tmp_path_factory.mktemp("imports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rows = ["id,audio,label,speaker"]
        for i in range(24):
            tone(folder / f"wav/a{i}.wav", 0.3, hertz=200 + 200 * (i % 2) + 7 * i)
            rows.append(f"a{i},wav/a{i}.wav,{'joy' if i % 2 else 'anger'},s{i // 6}")
        Path("cups.csv").write_text("\n".join(rows))
        extracted = bas.extract({"corpus": {"reader": "manifest", "root": "cups.csv"}, "encoder": {"name": "log-mel"}})
        as_npy(folder / "arrays", {id_: a.astype("float32") for id_, a in arrays_of(FeatureStore(extracted)).items()})
        encoder = '[encoder]\nname = "mine"\nsource = "arrays"\nframe_rate = 100\n'
        settings = "[settings]\nepochs = 2\nwidth = 8\nbudget = 4\ncommittee = 1\nensemble = 1\n"
        Path("cups.toml").write_text(
            f'seeds = 1\nworkers = 1\n[corpus]\nreader = "manifest"\nroot = "cups.csv"\n{encoder}{settings}'
        )
    return folder


@pytest.mark.slow
def test_a_comparison_has_the_table_of_the_extracted_store(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    assert main(["features", "import", "cups.toml"]) == 0
    assert capsys.readouterr().out.endswith("compare cups.toml\n")
    assert StoreInfo.read(home / "runs/features/cups-mine").imported
    rule: dict[str, Any] = {"protocol": {"rule": "speaker:2"}}
    mine = bas.compare("cups.toml", name="mine", **rule)
    theirs = bas.compare("cups.toml", features=["runs/features/cups-log-mel"], encoder={"name": None}, name="t", **rule)

    def rows(of: Comparison) -> Any:
        return [(row.row, row.metrics, row.interval) for row in of.rows]

    assert rows(mine) == rows(theirs)
    assert len(mine.rows) > 3
    assert take(mine) == ["board"]  # not the export, which is refused
    assert take(theirs)[0] == "export"
    assert "Note: the features were imported; bas does not know what made them." in Path(
        "runs/mine/table.md"
    ).read_text(encoding="utf-8")
    assert "imported" not in Path("runs/t/table.md").read_text(encoding="utf-8")
    line = "runs/mine: cannot be exported: its features (mine) were imported, which a recording alone does not give"
    assert refusal(bas.export, "runs/mine") == line
    assert main(["export", "runs/t", "--row", "logistic regression", "--into", "model"]) == 0


@pytest.mark.parametrize("lacking", ["corpus.root", "encoder.name", "encoder.source", "encoder.frame_rate"])
def test_what_is_missing_is_named(lacking: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    table, key = lacking.split(".")
    assert f"import: needs {lacking} (--" in refusal(bas.import_features, "cups.toml", **{table: {key: None}})


def test_another_map_of_columns_keeps_the_features(tmp_path: Path, parent: FeatureStore) -> None:
    source, into = as_npy(tmp_path / "npy", arrays_of(parent)), tmp_path / "made"
    first = imported(source, into)
    with open_source(source) as opened:
        root, columns = tmp_path / "list.csv", {"script": "speaker"}
        request = Request("manifest", root, shard_bytes=SHARD, columns=columns)
        again = import_features(
            open_corpus("manifest", root, columns=columns), opened, into, request, "mine", 50, quiet()
        )
    assert again.info.columns == columns
    assert again.info.identity == first.info.identity
    assert json.loads((into / SOURCE).read_text())["source"] == str(source)


def test_extract_says_which_verb_imports() -> None:
    table = {"corpus": {"reader": "manifest", "root": "list.csv"}, "encoder": {"name": "mine", "source": "arrays"}}
    assert refusal(bas.extract, table).endswith("features that are there already: use `bas features import`")
