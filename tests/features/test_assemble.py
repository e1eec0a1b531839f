"""Subset and merge: the same bytes under the same checksums, nothing mixed that differs, and nothing left half."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from records import rewrite
from refusals import refusal
from sounds import tone
from stores import SECONDS, Fake, flip, forge, manifest, names, quiet, store

from bas.cli.main import main
from bas.errors import UserError
from bas.features import verify
from bas.features.assemble import ELSEWHERE, LEFT_OUT, merge, subset
from bas.features.info import describe
from bas.features.shard import shard_path
from bas.features.store import FeatureStore, StoreInfo
from bas.runs.run import open_labelled, without_skipped
from bas.util.files import locked

ALL = {"layers": None, "ids": None}


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bas.encoders.again.load_encoder", lambda *_, **__: Fake())


@pytest.fixture
def whole(tmp_path: Path) -> FeatureStore:
    """Six utterances in three shards or more."""
    made = store(manifest(tmp_path / "list.csv", names()), tmp_path / "whole")
    assert len(made.info.shards) >= 3
    return made


@pytest.fixture
def parts(tmp_path: Path) -> tuple[FeatureStore, FeatureStore]:
    """Two stores of two manifests, a0 to a5 and b0 to b5."""
    return tuple(store(manifest(tmp_path / f"{n}.csv", names(n)), tmp_path / n) for n in "ab")  # type: ignore[return-value]


@pytest.fixture
def both(parts: Any, tmp_path: Path) -> dict[str, Any]:
    """The corpus that lists what the two parts do, and c0."""
    return {
        "corpus": "manifest",
        "root": manifest(tmp_path / "both.csv", {**names("a"), **names("b"), "c0": 0.3}),
    }


def sound(folder: Path) -> None:
    """Every check passes, every utterance encoded again."""
    assert [
        w for finding in verify.verify(folder, quiet(), torch.device("cpu"), sample=99) for w in finding.problems
    ] == []


def same(made: FeatureStore, source: FeatureStore) -> None:
    """What `made` holds is what `source` does."""
    for id_ in set(made.ids) & set(source.ids):
        for layer in made.info.layers:
            assert np.array_equal(made.read(id_, layer), source.read(id_, layer)), id_


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


# Subset


def test_a_subset_holds_the_same_states_of_fewer_utterances(whole: FeatureStore, tmp_path: Path) -> None:
    made = subset(whole.folder, tmp_path / "out", quiet(), layers=None, ids=["u4", "u1", "u1"])
    assert sorted(made.ids) == ["u1", "u4"]
    same(made, whole)
    sound(made.folder)
    assert made.info.made_by == "subset"
    assert made.info.skipped == dict.fromkeys(("u0", "u2", "u3", "u5"), LEFT_OUT)
    assert set(made.info.recordings) == {"u1", "u4"}
    assert set(files(made.folder)) == {"store.json", *(shard_path(made.folder, i).name for i in range(2))}
    kept = without_skipped(open_labelled(made.info, None), made.info)  # what a run sees
    assert [u.id for u in kept.utterances] == ["u1", "u4"]
    assert "4 of 6 utterances are not in the feature store" in kept.note
    assert describe(made.folder, quiet())["made by"] == "bas features subset"


def test_a_subset_of_layers_is_the_same_features(whole: FeatureStore, tmp_path: Path) -> None:
    made = subset(whole.folder, tmp_path / "out", quiet(), layers=[2, 0, 2], ids=None)
    assert made.info.layers == (0, 2)
    assert made.info.shards == whole.info.shards
    assert made.info.identity == whole.info.identity
    same(made, whole)
    sound(made.folder)
    with h5py.File(shard_path(made.folder, 0), "r") as file, h5py.File(shard_path(whole.folder, 0), "r") as old:
        assert file["states"].chunks is None
        assert np.array_equal(file["crc32"][:], old["crc32"][:][[0, 2]])
    assert "layer 1 is not stored; it holds 0, 2" in refusal(
        subset, made.folder, tmp_path / "more", quiet(), layers=[1], ids=None
    )


def test_what_an_extraction_skipped_stays_skipped(tmp_path: Path) -> None:
    root = manifest(tmp_path / "list.csv", names())
    tone(tmp_path / "wav" / "u0.wav", 0.01)
    whole = store(root, tmp_path / "whole")
    made = subset(whole.folder, tmp_path / "out", quiet(), layers=[1], ids=["u1"])
    assert "shorter than" in made.info.skipped["u0"]
    assert made.info.skipped["u2"] == LEFT_OUT
    assert "'u0' in this store: " in refusal(subset, whole.folder, tmp_path / "x", quiet(), layers=None, ids=["u0"])


def test_the_versions_that_computed_are_carried_over(whole: FeatureStore, tmp_path: Path) -> None:
    for path in whole.folder.glob("shard-*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["versions"] = json.dumps({"torch": "1.0"})
    made = subset(whole.folder, tmp_path / "out", quiet(), layers=[0], ids=None)
    assert describe(made.folder, quiet())["versions"] == "torch 1.0"


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"ids": ["u1", "nobody"]}, "no utterance 'nobody' in this store"),
        ({"layers": [0, 3]}, "layer 3 is not stored; it holds 0, 1, 2"),
        ({"ids": []}, "no utterance is asked for"),
        ({"layers": []}, "no layer is asked for"),
    ],
)
def test_a_subset_of_what_is_not_there(
    choice: dict[str, Any], message: str, whole: FeatureStore, tmp_path: Path
) -> None:
    assert message in refusal(subset, whole.folder, tmp_path / "out", quiet(), **{**ALL, **choice})
    assert not (tmp_path / "out").exists()


# Merge


def test_parts_of_a_store_merged_are_the_store(whole: FeatureStore, tmp_path: Path) -> None:
    a = subset(whole.folder, tmp_path / "a", quiet(), layers=None, ids=["u0", "u1", "u5"])
    b = subset(whole.folder, tmp_path / "b", quiet(), layers=None, ids=["u1", "u2", "u3", "u4"])
    made = merge([a.folder, b.folder], tmp_path / "out", quiet())
    assert sorted(made.ids) == sorted(whole.ids)
    assert made.info.identity == whole.info.identity
    assert made.info.skipped == {}
    assert (made.info.corpus, made.info.root, made.info.made_by) == (whole.info.corpus, whole.info.root, "merge")
    same(made, whole)
    sound(made.folder)


def test_what_neither_holds_stays_left_out(whole: FeatureStore, tmp_path: Path) -> None:
    a, b = (
        subset(whole.folder, tmp_path / n, quiet(), layers=None, ids=ids) for n, ids in (("a", ["u0"]), ("b", ["u1"]))
    )
    made = merge([a.folder, b.folder], tmp_path / "out", quiet())
    assert made.info.skipped == dict.fromkeys(("u2", "u3", "u4", "u5"), LEFT_OUT)


def test_stores_of_two_corpora_under_one_that_lists_both(parts: Any, both: dict[str, Any], tmp_path: Path) -> None:
    a, b = parts
    made = merge([a.folder, b.folder], tmp_path / "out", quiet(), **both)
    assert sorted(made.ids) == sorted((*a.ids, *b.ids))
    assert made.info.root == str(both["root"])
    assert made.info.skipped == {"c0": ELSEWHERE}
    assert len(made.info.shards) == len(a.info.shards) + len(b.info.shards)
    for part in parts:
        same(made, part)
    sound(made.folder)


def test_two_corpora_need_one_that_lists_both(parts: Any, both: dict[str, Any], tmp_path: Path) -> None:
    folders, out = [p.folder for p in parts], tmp_path / "out"
    message = refusal(merge, folders, out, quiet())
    assert f"manifest {tmp_path / 'a.csv'} and manifest {tmp_path / 'b.csv'}" in message
    assert "--corpus and --root" in message
    assert "give both" in refusal(merge, folders, out, quiet(), corpus="manifest")
    assert "give both" in refusal(merge, folders, out, quiet(), root=both["root"])
    message = refusal(merge, folders, out, quiet(), corpus="manifest", root=tmp_path / "a.csv")
    assert f"{parts[1].folder}: b" in message
    assert f"is not in manifest {tmp_path / 'a.csv'}" in message
    assert not out.exists()


def test_an_id_that_means_another_recording_in_the_corpus(parts: Any, both: dict[str, Any], tmp_path: Path) -> None:
    tone(tmp_path / "wav" / "b3.wav", SECONDS[3], hertz=999)
    message = refusal(merge, [p.folder for p in parts], tmp_path / "out", quiet(), **both)
    assert "b3 " in message
    assert "is another recording than its features were made of" in message


def test_one_id_of_two_recordings_is_refused_and_of_one_taken_once(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    one = store(manifest(tmp_path / "list.csv", names()), tmp_path / "one")
    two = store(manifest(tmp_path / "x" / "list.csv", names()), tmp_path / "two")  # elsewhere, the same bytes
    named = {"corpus": "manifest", "root": tmp_path / "list.csv"}
    made = merge([one.folder, two.folder], tmp_path / "out", quiet(), **named)
    assert (made.info.num_utterances, made.info.shards) == (6, one.info.shards)
    tone(tmp_path / "x" / "wav" / "u2.wav", 0.41, hertz=999)
    other = store(tmp_path / "x" / "list.csv", tmp_path / "other")
    message = refusal(merge, [one.folder, other.folder], tmp_path / "out2", quiet(), **named)
    assert message == f"{one.folder} and {other.folder}: u2 is another recording in each"


@pytest.mark.parametrize(
    ("field", "encoder", "choice"),
    [
        ("revision", {"revision": "2"}, {}),
        ("input", {"input": "other"}, {}),
        ("precision", {"precision": "bfloat16"}, {}),
        ("sample_rate", {"sample_rate": 8000}, {}),
        ("device", {"device": "meta"}, {}),
        ("dtype", {}, {"dtype": "float32"}),
        ("layers", {}, {"layers": [0, 1]}),
    ],
)
def test_stores_that_differ_are_not_mixed(
    field: str, encoder: dict[str, Any], choice: dict[str, Any], whole: FeatureStore, tmp_path: Path
) -> None:
    device = encoder.pop("device", "cpu")
    other = store(tmp_path / "list.csv", tmp_path / "other", Fake(**encoder), **choice)
    if device != "cpu":  # nothing here could compute there
        raw = json.loads((other.folder / "store.json").read_text())
        rewrite(other.folder / "store.json", {**raw, "device": device})
    message = refusal(merge, [whole.folder, other.folder], tmp_path / "out", quiet())
    assert f"{whole.folder} and {other.folder}: {field} differs (" in message
    assert not (tmp_path / "out").exists()


def test_an_encoder_of_equal_files_may_have_another_name(whole: FeatureStore, tmp_path: Path) -> None:
    other = store(tmp_path / "list.csv", tmp_path / "other", Fake(name="elsewhere/fake"))
    assert merge([other.folder, whole.folder], tmp_path / "out", quiet()).info.encoder["name"] == "elsewhere/fake"


# What interrupts, and what stands in the way


KILLED = """
import os, signal, sys
from pathlib import Path
from rich.console import Console
from bas.features import assemble
from bas.features.shard import Shard

real, calls = Shard.read_intact, 0

def read_intact(*given):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)

Shard.read_intact = read_intact
a, b, out, root = map(Path, sys.argv[2:])
assemble.merge([a, b], out, Console(quiet=True), corpus="manifest", root=root)
"""


@pytest.mark.parametrize("at", [2, 25])
def test_a_merge_that_is_killed_goes_on(at: int, parts: Any, both: dict[str, Any], tmp_path: Path) -> None:
    folders, out = [p.folder for p in parts], tmp_path / "out"
    words = [sys.executable, "-c", KILLED, str(at), *map(str, folders), str(out), str(both["root"])]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    assert len(list(out.glob("*.tmp"))) == 1  # in the middle of a shard
    assert "run the same `bas features merge` again" in refusal(StoreInfo.read, out)
    finished = {p: p.stat().st_ino for p in out.glob("shard-*.h5")}
    assert bool(finished) == (at > 2)
    made = merge(folders, out, quiet(), **both)
    assert {p: p.stat().st_ino for p in finished} == finished  # not written again
    assert files(out) == files(merge(folders, tmp_path / "straight", quiet(), **both).folder)
    assert not any(p.suffix in (".tmp", ".spool", ".journal") or p.name == "plan.json" for p in out.iterdir())
    sound(made.folder)


def test_the_same_command_makes_again_what_was_deleted(whole: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subset(whole.folder, out, quiet(), layers=[1], ids=None)
    before = files(out)
    subset(whole.folder, out, quiet(), layers=[1], ids=None)  # nothing to do
    flip(shard_path(out, 1))
    (finding,) = [f for f in verify.verify(out, quiet(), torch.device("cpu"), sample=0) if f.problems]
    assert "move shard-00001.h5 out of the folder and run the same `bas features subset` again" in finding.advice
    shard_path(out, 1).unlink()
    assert "run the same `bas features subset` again" in refusal(FeatureStore, out)
    subset(whole.folder, out, quiet(), layers=[1], ids=None)
    assert files(out) == before


def test_another_store_is_never_written_over(whole: FeatureStore, parts: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    subset(whole.folder, out, quiet(), layers=[1], ids=None)
    for folder in (out, whole.folder, parts[0].folder):
        before = files(folder)
        message = refusal(subset, whole.folder, folder, quiet(), layers=[0], ids=None)
        assert f"{folder}: holds another store (" in message
        assert files(folder) == before
    assert "(layers differs)" in refusal(subset, whole.folder, out, quiet(), layers=[0], ids=None)
    (tmp_path / "loose").mkdir()
    shutil.copy(shard_path(whole.folder, 0), tmp_path / "loose")
    assert "holds shards but no store.json" in refusal(subset, whole.folder, tmp_path / "loose", quiet(), **ALL)


def test_an_extraction_does_not_go_on_in_it(whole: FeatureStore, tmp_path: Path) -> None:
    for folder, made in (
        (tmp_path / "a", lambda out: subset(whole.folder, out, quiet(), **ALL)),
        (tmp_path / "b", lambda out: merge([whole.folder, whole.folder], out, quiet())),
    ):
        before = files(made(folder).folder)
        encoder = Fake()
        assert f"{folder}: holds another store (made by: " in refusal(store, tmp_path / "list.csv", folder, encoder)
        assert encoder.encoded == 0
        assert files(folder) == before
        shutil.move(folder / "store.json", folder / "plan.json")  # killed before its end
        assert f"{folder}: holds another store (made by: " in refusal(store, tmp_path / "list.csv", folder, encoder)


def test_a_damaged_source_is_not_copied(whole: FeatureStore, tmp_path: Path) -> None:
    id_ = flip(shard_path(whole.folder, 1), layer=2)
    message = refusal(subset, whole.folder, tmp_path / "out", quiet(), layers=[2], ids=None)
    assert f"{shard_path(whole.folder, 1)}: {id_}: layer 2: other bytes than were computed" in message
    assert f"bas features verify {whole.folder}" in message
    assert not (tmp_path / "out" / "store.json").exists()
    sound(subset(whole.folder, tmp_path / "sound", quiet(), layers=[0, 1], ids=None).folder)


def test_a_poisoned_source_is_not_copied(whole: FeatureStore, tmp_path: Path) -> None:
    def poison(file: h5py.File) -> None:
        from zlib import crc32

        file["states"][0, 0, 0] = np.inf
        file["crc32"][0, 0] = crc32(file["states"][0, : file["offsets"][1]].tobytes())

    forge(shard_path(whole.folder, 0), poison)
    assert "layer 0: NaN or infinite" in refusal(subset, whole.folder, tmp_path / "out", quiet(), layers=[0], ids=None)


def test_a_source_without_a_shard_is_refused(whole: FeatureStore, tmp_path: Path) -> None:
    shard_path(whole.folder, 0).unlink()
    assert "shards are gone" in refusal(subset, whole.folder, tmp_path / "out", quiet(), **ALL)
    assert not (tmp_path / "out").exists()


def test_too_little_disk_is_refused_and_the_cost_told(
    whole: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console, out = quiet(), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        assert f"{out}: needs 0 MiB, 0 MiB are free on that disk" in refusal(subset, whole.folder, out, console, **ALL)
        assert not out.exists()
    subset(whole.folder, out, console, **ALL)
    count = len(whole.info.shards)
    assert f"{out}: 6 utterances, layers 0, 1, 2; 0 MiB to write in {count} of {count} shards (" in (
        console.file.getvalue()  # type: ignore[attr-defined]
    )


def test_two_at_a_time_are_refused(whole: FeatureStore, tmp_path: Path) -> None:
    with locked(tmp_path / "out", "x"):
        words = "from pathlib import Path; from rich.console import Console; from bas.features.assemble import subset; "
        words += (
            f"subset(Path({str(whole.folder)!r}), Path({str(tmp_path / 'out')!r}), Console(), layers=[0], ids=None)"
        )
        done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert "another process is writing here" in done.stderr


def test_a_shard_of_another_making_is_made_again(whole: FeatureStore, tmp_path: Path) -> None:
    """A killed subset's shards are not believed when the source was made again meanwhile."""
    out = tmp_path / "out"
    made = subset(whole.folder, out, quiet(), layers=[0, 1], ids=None)
    other = subset(whole.folder, tmp_path / "other", quiet(), layers=[1, 2], ids=None)
    shutil.copy(shard_path(other.folder, 0), shard_path(out, 0))
    assert made.info == subset(whole.folder, out, quiet(), layers=[0, 1], ids=None).info
    sound(out)


# The commands


def test_the_commands(whole: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_bytes("\ufeffu0\r\nu3\n\n".encode())
    a, b, out = (str(tmp_path / n) for n in ("a", "b", "out"))
    assert main(["features", "subset", str(whole.folder), "--into", a, "--ids", str(ids), "--layers", "0,2"]) == 0
    assert sorted(FeatureStore(Path(a)).ids) == ["u0", "u3"]
    assert main(["features", "subset", str(whole.folder), "--into", b, "--layers", "0,2"]) == 0
    assert main(["features", "merge", a, b, "--into", out]) == 0
    assert FeatureStore(Path(out)).info.identity == whole.info.identity
    assert f"features: {out}, complete" in capsys.readouterr().out
    root = str(tmp_path / "list.csv")
    assert main(["features", "merge", a, b, "--into", out, "--corpus", "manifest", "--root", root]) == 0
    assert main(["features", "subset", str(whole.folder), "--into", out]) == 2
    assert capsys.readouterr().err == "bas: --layers or --ids: say what to keep\n"
    for bad in (b"\xff\n", None):
        ids.write_bytes(bad) if bad else ids.unlink()
        assert main(["features", "subset", str(whole.folder), "--into", out, "--ids", str(ids)]) == 2
        assert capsys.readouterr().err.startswith(f"bas: --ids {ids}")
    assert main(["features", "merge", a, "--into", out]) == 2
    assert capsys.readouterr().err.startswith("bas: the following arguments are required: FOLDER; see ")
    with pytest.raises(UserError, match="no feature store"):
        merge([whole.folder, tmp_path / "nowhere"], tmp_path / "x", quiet())


def test_the_bar_counts_shards(whole: FeatureStore, tmp_path: Path) -> None:
    console = quiet()
    subset(whole.folder, tmp_path / "out", console, **ALL)
    count = len(whole.info.shards)
    assert f"copy {count}/{count}" in console.file.getvalue()  # type: ignore[attr-defined]
