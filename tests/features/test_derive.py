"""Derived stores: the rows that the words' times say, whole or not at all, and never taken for their parent."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from records import rewrite
from refusals import refusal
from sounds import tone
from stores import SECONDS, Fake, flip, manifest, names, quiet, store

from bas.cli.main import main
from bas.corpora import Word, open_corpus
from bas.features.assemble import merge, subset
from bas.features.derive import POOLINGS, beside, derive, frame_times, origin, pooled, spans
from bas.features.info import describe
from bas.features.shard import shard_path
from bas.features.store import SEGMENTS, FeatureStore, StoreInfo
from bas.features.verify import Finding, verify
from bas.speech.words import Segments, random_like, word_segments

# Of the 0.2 s (10 frames at 50 a second) that every utterance has: two frames, a gap, one frame, none, beyond the last.
WORDS = (Word(0.02, 0.06, "two"), Word(0.08, 0.1, "one"), Word(0.121, 0.129, "none"), Word(0.195, 0.2, "late"))
SPANS = [[1, 3], [4, 5], [6, 7], [9, 10]]


@pytest.fixture
def parent(tmp_path: Path) -> FeatureStore:
    """Six utterances in three shards or more, of a length that is no whole number of frames."""
    return store(manifest(tmp_path / "list.csv", names()), tmp_path / "parent")


@pytest.fixture
def words(parent: FeatureStore) -> Segments:
    return Segments("words", dict.fromkeys(parent.ids, WORDS), dict.fromkeys(parent.ids, "corpus"))


def checks(folder: Path, sample: int = 99) -> dict[str, Finding]:
    return {finding.check: finding for finding in verify(folder, quiet(), torch.device("cpu"), sample=sample)}


def wrong(folder: Path, sample: int = 99) -> dict[str, tuple[str, ...]]:
    return {name: finding.problems for name, finding in checks(folder, sample).items() if finding.problems}


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


# Which frames


def test_the_frames_of_words() -> None:
    times = frame_times(10, 50)
    assert times == pytest.approx(0.01 + 0.02 * np.arange(10))
    assert spans(times, WORDS, "mean").tolist() == SPANS
    assert spans(times, WORDS, "centre").tolist() == [[1, 2], [4, 5], [6, 7], [9, 10]]
    assert spans(times, WORDS, "inside").tolist() == [[1, 2], [2, 3], [4, 5]]  # no word holds a centre of 6 and 9
    assert spans(times, (*WORDS[2:], WORDS[3]), "inside").tolist() == [[6, 7], [9, 10]]
    assert spans(times, [Word(0.5, 0.7, "after the last frame")], "mean").tolist() == [[9, 10]]


def test_words_that_overlap_share_frames_and_inside_has_each_once() -> None:
    overlap = [Word(0, 0.1, "a"), Word(0.04, 0.12, "b")]
    times = frame_times(10, 50)
    assert spans(times, overlap, "mean").tolist() == [[0, 5], [2, 6]]
    assert spans(times, overlap, "inside")[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_means_are_computed_in_float64_and_stored_as_the_parent_s() -> None:
    block = np.full((3000, 2), 60000, dtype=np.float16)  # their sum is beyond float16, and so is any error of it
    block[:, 1] = np.float16(0.1)
    means = pooled(block, np.array([[0, 3000], [1, 2]]))
    assert means.dtype == np.float16
    assert np.array_equal(means, block[:2])


# The store


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_derived_store_holds_what_the_times_say(dtype: str, words: Segments, tmp_path: Path) -> None:
    parent = store(tmp_path / "list.csv", tmp_path / dtype, dtype=dtype)
    assert len(parent.info.shards) >= 3
    made = {p: derive(parent.folder, beside(parent.folder, "words", p), words, p, quiet()) for p in POOLINGS}
    assert [s.folder.name for s in made.values()] == [f"{dtype}-words-{p}" for p in POOLINGS]
    for id_ in parent.ids:
        for layer in parent.info.layers:
            frames = parent.read(id_, layer).astype(np.float64)
            means = np.stack([frames[a:b].mean(0) for a, b in SPANS]).astype(dtype)
            assert np.array_equal(made["mean"].read(id_, layer), means)
            assert np.array_equal(made["centre"].read(id_, layer), frames[[1, 4, 6, 9]].astype(dtype))
            assert np.array_equal(made["inside"].read(id_, layer), frames[[1, 2, 4]].astype(dtype))
    info = made["mean"].info
    assert (info.dtype, info.shards, info.layers) == (dtype, parent.info.shards, parent.info.layers)
    assert (info.made_by, info.derived) == ("derive", f"mean words {words.digest}")
    assert set(files(made["mean"].folder)) == {"store.json", SEGMENTS, *(p.name for p in parent.folder.glob("*.h5"))}
    assert origin(made["mean"].folder, info) == (parent.folder, words)
    assert all(wrong(s.folder) == {} for s in made.values())


def test_identities_are_of_the_pooling_and_the_segments(parent: FeatureStore, words: Segments, tmp_path: Path) -> None:
    seconds = dict(zip(parent.ids, (0.2,) * 6, strict=True))
    choices = [(words, p) for p in POOLINGS] + [(random_like(words, seconds, seed), "mean") for seed in (0, 1)]
    made = [derive(parent.folder, tmp_path / str(i), s, p, quiet()) for i, (s, p) in enumerate(choices)]
    assert len({parent.info.identity, *(s.info.identity for s in made)}) == 6
    again = derive(parent.folder, tmp_path / "elsewhere", words, "mean", quiet())
    assert again.info.identity == made[0].info.identity


def test_the_identity_of_an_extracted_store_is_what_it_was(parent: FeatureStore) -> None:
    info = parent.info
    raw = json.loads((parent.folder / "store.json").read_text())
    held = sorted((id_, info.recordings[id_][0]) for id_ in parent.ids)
    what = json.dumps([held, ["1", "", "float32"], "float16", 2])
    assert info.identity == hashlib.sha256(what.encode()).hexdigest()[:12]
    raw.pop("derived")  # as it was written before there were derived stores
    rewrite(parent.folder / "store.json", raw)
    assert FeatureStore(parent.folder).info == info


def test_segments_of_more_utterances_than_the_store_s_play_no_part(
    parent: FeatureStore, words: Segments, tmp_path: Path
) -> None:
    more = Segments("words", {**words.of, "x": WORDS}, {**words.source, "x": "pseudo"})
    made = derive(parent.folder, tmp_path / "out", more, "mean", quiet())
    assert made.info.derived == f"mean words {words.digest}"


def test_a_parent_of_some_layers_and_skipped_utterances(tmp_path: Path) -> None:
    root = manifest(tmp_path / "list.csv", names())
    tone(tmp_path / "wav" / "u0.wav", 0.01)
    parent = store(root, tmp_path / "parent", layers=[2])
    held = [u for u in open_corpus("manifest", root).utterances if u.id in parent]
    made = derive(parent.folder, tmp_path / "out", word_segments(held), "mean", quiet())
    assert (made.info.layers, set(made.info.skipped)) == ((2,), {"u0"})
    assert made.num_frames("u1") == round(SECONDS[1] / 0.3)
    assert wrong(made.folder) == {}


# What is refused


def test_what_cannot_be_derived_is_refused_before_anything_is_written(
    parent: FeatureStore, words: Segments, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert "pooling 'max' is not one of mean, centre, inside" in refusal(
        derive, parent.folder, out, words, "max", quiet()
    )
    fewer = words.only([i for i in parent.ids if i != "u3"])
    message = refusal(derive, parent.folder, out, fewer, "mean", quiet())
    assert message.startswith(f"{parent.folder}: 1 of its utterances have no words, u3 the first")
    assert not out.exists()
    made = derive(parent.folder, out, words, "mean", quiet())
    assert f"{out}: is itself derived (mean words " in refusal(derive, out, tmp_path / "twice", words, "mean", quiet())
    for verb, call in (
        ("subset", lambda: subset(out, tmp_path / "s", quiet(), layers=[0], ids=None)),
        ("merge", lambda: merge([parent.folder, out], tmp_path / "m", quiet())),
    ):
        message = refusal(call)
        assert message.startswith(f"{out}: derived ({made.info.derived}), so no source of a {verb}; {verb} what it was")
    assert {p.name for p in tmp_path.iterdir()} == {"list.csv", "wav", "parent", "out"}


def test_another_store_is_never_written_over(parent: FeatureStore, words: Segments, tmp_path: Path) -> None:
    out = tmp_path / "out"
    derive(parent.folder, out, words, "mean", quiet())
    other = Segments("words", {**words.of, "u0": WORDS[:1]}, words.source)
    for folder, choice in ((out, (words, "centre")), (out, (other, "mean")), (parent.folder, (words, "mean"))):
        before = files(folder)
        assert f"{folder}: holds another store (" in refusal(derive, parent.folder, folder, *choice, quiet())
        assert files(folder) == before
    encoder = Fake()
    assert "holds another store (made by: derive there" in refusal(store, tmp_path / "list.csv", out, encoder)
    assert encoder.encoded == 0


def test_a_damaged_parent_is_refused(parent: FeatureStore, words: Segments, tmp_path: Path) -> None:
    id_ = flip(shard_path(parent.folder, 1), layer=2)
    message = refusal(derive, parent.folder, tmp_path / "out", words, "mean", quiet())
    assert message.startswith(f"{shard_path(parent.folder, 1)}: {id_}: layer 2: other bytes than were computed")
    assert not (tmp_path / "out" / "store.json").exists()
    shard_path(parent.folder, 1).unlink()
    assert "shards are gone" in refusal(derive, parent.folder, tmp_path / "out", words, "mean", quiet())


def test_shards_of_parent_and_child_are_never_taken_for_each_other(
    parent: FeatureStore, words: Segments, tmp_path: Path
) -> None:
    made = derive(parent.folder, tmp_path / "out", words, "mean", quiet())
    shutil.copy(shard_path(parent.folder, 0), made.folder)
    assert "belongs to another store" in refusal(FeatureStore(made.folder).read, parent.info.shards[0][0], 0)
    assert "shards" in wrong(made.folder)
    shutil.copy(shard_path(made.folder, 1), parent.folder)
    assert "belongs to another store" in refusal(FeatureStore(parent.folder).read, parent.info.shards[1][0], 0)


# What interrupts


KILLED = """
import json, os, signal, sys
from pathlib import Path
from rich.console import Console
from bas.features import derive
from bas.features.shard import Shard
from bas.speech.words import Segments

real, calls = Shard.read_intact, 0

def read_intact(*given):
    global calls
    calls += 1
    if calls == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)

Shard.read_intact = read_intact
parent, out = map(Path, sys.argv[2:4])
derive.derive(parent, out, Segments.parse(json.loads(sys.argv[4])), "mean", Console(quiet=True))
"""


@pytest.mark.parametrize("at", [2, 12])
def test_a_derivation_that_is_killed_goes_on(at: int, parent: FeatureStore, words: Segments, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(at), str(parent.folder), str(out), json.dumps(words.to_dict())]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    assert "run the same `bas features derive` again" in refusal(StoreInfo.read, out)
    finished = {p: p.stat().st_ino for p in out.glob("shard-*.h5")}
    assert bool(finished) == (at > 2)
    derive(parent.folder, out, words, "mean", quiet())
    assert {p: p.stat().st_ino for p in finished} == finished  # not written again
    assert files(out) == files(derive(parent.folder, tmp_path / "straight", words, "mean", quiet()).folder)
    assert wrong(out) == {}


def test_the_same_command_makes_again_what_was_deleted(parent: FeatureStore, words: Segments, tmp_path: Path) -> None:
    out = tmp_path / "out"
    derive(parent.folder, out, words, "inside", quiet())
    before = files(out)
    shard_path(out, 1).unlink()
    (out / SEGMENTS).write_text("{}")
    problems = wrong(out)
    assert problems["files"] == ("shard-00001.h5: missing",)
    assert "damaged" in problems["derivation"][0]
    derive(parent.folder, out, words, "inside", quiet())
    assert files(out) == before


# Verify and info


def test_verify_derives_again_where_the_parent_is(
    parent: FeatureStore, words: Segments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {p: derive(parent.folder, tmp_path / p, words, p, quiet()).folder for p in POOLINGS}
    monkeypatch.setattr("bas.encoders.again.load_encoder", lambda *_, **__: pytest.fail("an encoder makes other rows"))
    for folder in made.values():
        findings = checks(folder, sample=2)
        assert list(findings) == ["files", "entries", "shards", "derivation", "labels"]
        assert not any(f.problems for f in findings.values())
        assert findings["derivation"].summary.endswith(f"2 of them derived again from {parent.folder}")
    assert "0 of them derived again" in checks(made["mean"], sample=0)["derivation"].summary
    shutil.rmtree(parent.folder)
    for folder in made.values():
        findings = checks(folder)
        assert not any(f.problems for f in findings.values())
        assert f"nothing derived again: {parent.folder}: no feature store here" in findings["derivation"].summary


class Louder(Fake):
    """Another encoder under the same revision."""

    def encode(self, inputs: Any) -> list[torch.Tensor]:
        return [1.1 * states for states in super().encode(inputs)]


def test_verify_finds_a_parent_that_gives_something_else(parent: FeatureStore, words: Segments, tmp_path: Path) -> None:
    made = derive(parent.folder, tmp_path / "out", words, "mean", quiet())
    shutil.rmtree(parent.folder)
    store(tmp_path / "list.csv", parent.folder, Louder())
    lines = wrong(made.folder)["derivation"]
    assert len(lines) == 6
    assert all(f" from what {parent.folder} gives now" in line for line in lines)


@pytest.mark.parametrize("pooling", ["mean", "inside"])
def test_verify_finds_segments_that_are_not_those_of_then(
    pooling: str, parent: FeatureStore, words: Segments, tmp_path: Path
) -> None:
    made = derive(parent.folder, tmp_path / "out", words, pooling, quiet())
    raw = json.loads((made.folder / SEGMENTS).read_text())
    raw["of"]["u2"] = raw["of"]["u2"][:1]
    rewrite(made.folder / SEGMENTS, raw)
    (line,) = wrong(made.folder)["derivation"]
    assert f"the store was derived from {made.info.derived}" in line
    # Also where all else was changed along: then the rows are too many.
    digest = Segments.parse({k: raw[k] for k in ("name", "of", "source")}).digest
    path = made.folder / "store.json"
    rewrite(path, json.loads(path.read_text().replace(words.digest, digest)))
    for path in made.folder.glob("shard-*.h5"):
        with h5py.File(path, "r+") as file:
            file.attrs["derived"] = f"{pooling} words {digest}"
    rows, expected = (4, 1) if pooling == "mean" else (3, 2)
    assert f"u2: {rows} rows, but its words make {expected}" in wrong(made.folder, sample=0)["derivation"]


def test_info_says_what_a_store_is_derived_from(parent: FeatureStore, tmp_path: Path) -> None:
    sources = dict(zip(parent.ids, ("corpus", "corpus", "corpus", "aligned", "pseudo", "pseudo"), strict=True))
    words = Segments("words", dict.fromkeys(parent.ids, WORDS), sources)
    description = describe(derive(parent.folder, tmp_path / "a", words, "mean", quiet()).folder, quiet())
    assert description["held"] == "6 utterances, 0.00 h, 24 words"
    assert description["derived from"] == f"{parent.folder}: the mean over each word's frames"
    assert description["segments"] == (
        f"words {words.digest}: utterances 3 with the corpus's times, 1 aligned, 2 cut into pseudo-segments"
    )
    assert description["frames"] == "4 wide, one a word, of 50 a second"
    assert description["made by"] == "bas features derive"
    description = describe(derive(parent.folder, tmp_path / "b", words, "inside", quiet()).folder, quiet())
    assert description["held"] == "6 utterances, 0.00 h, 18 frames"
    assert description["frames"] == "4 wide, at 50 a second"
    strewn = random_like(words, dict.fromkeys(parent.ids, 0.2))
    description = describe(derive(parent.folder, tmp_path / "c", strewn, "centre", quiet()).folder, quiet())
    assert "24 random stretches" in description["held"]
    assert description["derived from"].endswith(": the frame at the centre of each random stretch")
    assert "derived from" not in describe(parent.folder, quiet())


# The command


def test_the_command_derives_beside_the_parent(parent: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["features", "derive", str(parent.folder), "--pooling", "mean", "--device", "cpu"]
    assert main(command) == 0
    made = parent.folder.with_name("parent-words-mean")
    out = capsys.readouterr().out
    assert "list: words of 6 utterances: 0 corpus, 0 aligned, 6 pseudo" in out
    assert out.endswith(f"features: {made}, complete\nnext: bas compare --features {made}\n")
    expected = word_segments(open_corpus("manifest", Path(parent.info.root)).utterances)
    assert FeatureStore(made).info.derived == f"mean words {expected.digest}"
    assert main([*command, "--segments", "random", "--into", str(made.with_name("x"))]) == 0
    assert FeatureStore(made.with_name("x")).info.derived.startswith("mean random ")
    assert main(["features", "info", str(made)]) == 0
    assert main([*command, "--pooling", "median"]) == 2


def test_the_info_command_needs_no_torch_for_a_derived_store(
    parent: FeatureStore, words: Segments, tmp_path: Path
) -> None:
    made = derive(parent.folder, tmp_path / "out", words, "mean", quiet())
    script = f"from bas.cli.main import main; assert main(['features', 'info', {str(made.folder)!r}]) == 0"
    check = "import sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", f"{script}; {check}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
