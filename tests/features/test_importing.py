"""Features of other programs: the values that were given, whole or not at all, and never taken for an extraction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arrays import (
    KINDS,
    SHARD,
    arrays_of,
    as_hdf5,
    as_npy,
    checks,
    imported,
    wrong,
)
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
from bas.report.results import Comparison
from bas.speech.words import word_segments


@pytest.fixture
def parent(tmp_path: Path) -> FeatureStore:
    """Six utterances of three states of width 4 at 50 frames a second, extracted into three shards or more."""
    return store(manifest(tmp_path / "list.csv", names()), tmp_path / "parent")


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
