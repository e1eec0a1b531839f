"""Metadata beside the frames: the right columns, whole or not at all, and never taken for the store they stand in."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from records import rewrite
from refusals import refusal
from sounds import tone
from stores import SECONDS, Fake, flip, quiet, store

from bas.cli.main import main
from bas.corpora import open_corpus
from bas.features.assemble import merge, subset
from bas.features.info import describe
from bas.features.metadata import append, beside, columns_of, origin
from bas.features.shard import shard_path
from bas.features.store import METADATA, FeatureStore, StoreInfo
from bas.features.verify import verify

PEOPLE = {"u0": ("f", "female", "de"), "u1": ("m", "male", "de"), "u2": ("x", "", ""), "u3": ("f", "female", "de")}
PEOPLE |= {"u4": ("n", "male", "de"), "u5": ("f", "female", "de")}


def write(path: Path, people: dict[str, tuple[str, str, str]] = PEOPLE) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "speaker", "sex", "language"])
        for (id_, person), seconds in zip(people.items(), SECONDS, strict=True):
            wav = path.parent / f"{id_}.wav"
            if not wav.exists():
                tone(wav, seconds)
            writer.writerow([id_, wav.name, *person])
    return path


@pytest.fixture
def parent(tmp_path: Path) -> FeatureStore:
    """Six utterances in three shards or more; sex is unknown of one, and all known speak one language."""
    return store(write(tmp_path / "list.csv"), tmp_path / "parent")


def wrong(folder: Path) -> dict[str, tuple[str, ...]]:
    return {f.check: f.problems for f in verify(folder, quiet(), torch.device("cpu"), sample=99) if f.problems}


def test_each_frame_is_followed_by_its_columns(parent: FeatureStore, tmp_path: Path) -> None:
    assert len(parent.info.shards) >= 3
    made = append(parent.folder, tmp_path / "both", ["sex", "speaker"], quiet())
    ones = {"u0": [1, 0, 1, 0, 0, 0], "u1": [0, 1, 0, 1, 0, 0], "u2": [0, 0, 0, 0, 0, 1], "u4": [0, 1, 0, 0, 1, 0]}
    assert origin(made.folder, made.info)[0] == parent.folder
    assert origin(made.folder, made.info)[1].names == (
        *("sex=female", "sex=male"),
        *("speaker=f", "speaker=m", "speaker=n", "speaker=x"),
    )
    assert (made.info.dim, made.info.layers, made.info.dtype) == (10, parent.info.layers, parent.info.dtype)
    assert made.ids == parent.ids
    for id_ in parent.ids:
        for layer in parent.info.layers:
            frames, extended = parent.read(id_, layer), made.read(id_, layer)
            assert np.array_equal(extended[:, :4], frames)
            assert np.array_equal(extended[:, 4:], np.tile(ones.get(id_, ones["u0"]), (len(frames), 1)))
    assert wrong(made.folder) == {}


def test_unknown_is_zeros_and_only_the_layers_asked_for_are_made(parent: FeatureStore) -> None:
    into = beside(parent.folder, ["sex"], [1])
    assert into == parent.folder.with_name("parent-with-sex-layer1")
    assert beside(parent.folder, ["sex", "speaker"]).name == "parent-with-sex-speaker"
    made = append(parent.folder, into, ["sex"], quiet(), layers=[1])
    assert made.info.layers == (1,)
    assert not made.read("u2", 1)[:, 4:].any()
    assert np.array_equal(made.read("u2", 1)[:, :4], parent.read("u2", 1))


def test_an_identity_of_its_own_that_changes_with_what_is_known(parent: FeatureStore, tmp_path: Path) -> None:
    first = append(parent.folder, tmp_path / "a", ["sex"], quiet())
    again = append(parent.folder, tmp_path / "b", ["sex"], quiet())
    other = append(parent.folder, tmp_path / "c", ["speaker"], quiet())
    write(tmp_path / "list.csv", PEOPLE | {"u2": ("x", "male", "")})
    later = append(parent.folder, tmp_path / "d", ["sex"], quiet())
    identities = [s.info.identity for s in (parent, first, other, later)]
    assert len(set(identities)) == 4
    assert again.info.identity == first.info.identity
    assert "derived differs" in refusal(append, parent.folder, tmp_path / "a", ["sex"], quiet())


def test_the_same_command_goes_on_and_finds_everything_there(parent: FeatureStore, tmp_path: Path) -> None:
    into = tmp_path / "into"
    whole = append(parent.folder, into, ["sex"], quiet())
    before = {p.name: p.read_bytes() for p in into.glob("*") if not p.name.startswith(".")}
    times = {p: p.stat().st_mtime_ns for p in into.glob("*.h5")}
    # As a kill leaves it: one shard missing, one half written, no store.json.
    (into / "plan.json").write_text((into / "store.json").read_text())
    (into / "store.json").unlink()
    shard_path(into, 1).rename(into / "shard-00001.h5.4194305.tmp")
    assert "incomplete, " in refusal(StoreInfo.read, into)
    assert "`bas features append`" in refusal(StoreInfo.read, into)
    again = append(parent.folder, into, ["sex"], quiet())
    assert again.info == whole.info
    assert {p.name for p in into.glob("*") if not p.name.startswith(".")} == set(before)
    assert [p.name for p, t in times.items() if p.stat().st_mtime_ns != t] == ["shard-00001.h5"]
    assert wrong(into) == {}


def test_verify_finds_what_was_changed(parent: FeatureStore, tmp_path: Path) -> None:
    made = append(parent.folder, tmp_path / "made", ["sex"], quiet())
    path = made.folder / METADATA
    text = path.read_text()
    raw = json.loads(text)
    rewrite(path, {**raw, "of": {**raw["of"], "u1": ["sex=female"]}})
    assert "holds columns" in wrong(made.folder)["derivation"][0]
    path.write_text("{}")
    assert "damaged" in wrong(made.folder)["derivation"][0]
    path.write_text(text)
    assert wrong(made.folder) == {}
    # Another encoder's states in the parent: no more what this store holds.
    other = Fake()
    other.encode = lambda inputs: [x + 9 for x in Fake().encode(inputs)]  # type: ignore[method-assign]
    for shard in parent.folder.glob("*"):
        if shard.is_file():
            shard.unlink()
    store(tmp_path / "list.csv", parent.folder, other)
    assert "differs by" in wrong(made.folder)["derivation"][0]


def test_info_names_the_columns_and_the_parent(parent: FeatureStore, tmp_path: Path) -> None:
    made = append(parent.folder, tmp_path / "made", ["sex"], quiet())
    description = describe(made.folder, quiet())
    assert description["derived from"] == str(parent.folder)
    assert description["metadata"] == "sex=female, sex=male: the last 2 of a frame's 6 numbers"
    assert description["made by"] == "bas features append"
    assert description["frames"] == "6 wide, 50 a second"


def test_refusals(parent: FeatureStore, tmp_path: Path) -> None:
    into = tmp_path / "into"
    for fields, message in (
        (["age"], "metadata 'age': must be one of sex, language, speaker"),
        (["sex", "sex"], "each once"),
        (["language"], "language is de throughout in list: it tells nothing apart"),
    ):
        assert message in refusal(append, parent.folder, into, fields, quiet())
    assert "layer 7 is not stored; it holds 0, 1, 2" in refusal(append, parent.folder, into, ["sex"], quiet(), [7])
    assert not into.exists()
    made = append(parent.folder, into, ["sex"], quiet())
    assert "is itself derived (metadata sex " in refusal(append, made.folder, tmp_path / "more", ["speaker"], quiet())
    assert "derived (metadata sex " in refusal(merge, [made.folder, parent.folder], tmp_path / "m", quiet())
    assert "derived (metadata sex " in refusal(subset, made.folder, tmp_path / "s", quiet(), layers=[0], ids=None)
    flip(shard_path(parent.folder, 0))
    assert "other bytes than were computed" in refusal(append, parent.folder, tmp_path / "b", ["sex"], quiet())
    utterances = open_corpus("manifest", write(tmp_path / "list.csv", {i: ("s", "", "") for i in PEOPLE})).utterances
    assert "sex is known of no utterance in list" in refusal(columns_of, utterances, ["sex"], "list")


def test_an_utterance_that_the_corpus_lost(parent: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "1 of its utterances are not in the corpus, u5" in refusal(
        append, parent.folder, tmp_path / "into", ["sex"], quiet()
    )


def test_the_verb(parent: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "append", str(parent.folder), "--fields", "sex", "--layers", "0,2"]) == 0
    said = capsys.readouterr().out
    into = parent.folder.with_name("parent-with-sex-layer0-2")
    assert f"features: {into}, complete" in said
    assert said.strip().endswith(f"next: bas compare --features {into}")
    assert FeatureStore(into).info.layers == (0, 2)
