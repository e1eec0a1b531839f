"""Extraction and its shards: the right bytes, read one by one; and whatever interrupts it costs one batch at most."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import DURATIONS, refusal, tone, tones
from rich.console import Console
from torch import Tensor

from bas import audio
from bas.corpora import Corpus, Utterance
from bas.encoders import Encoder, EncoderInfo, load_encoder
from bas.errors import UserError
from bas.features import extract as extraction
from bas.features.store import FeatureStore, StoreInfo, shard_path, write_shard
from bas.files import locked

CPU = torch.device("cpu")
SMALL_SHARDS = 900  # bytes: the eight tones in several shards


class Fake:
    """States made of the wave itself, three of width 4, 50 frames/s; notes every wave it is given."""

    min_samples = 320
    device = CPU

    def __init__(self, log: Path | None = None, pause: float = 0.0, **info: Any) -> None:
        given = {"name": "fake", "revision": "1", "model_type": "fake", "num_states": 3, "dim": 4, "frame_rate": 50.0}
        self.info = EncoderInfo(**{**given, **info})
        self.log, self.pause = log, pause
        self.seen: list[int] = []

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples

    def encode(self, waves: Sequence[audio.Wave]) -> list[Tensor]:
        assert len({len(w) for w in waves}) == 1
        time.sleep(self.pause)
        for wave in waves:
            self.seen.append(zlib.crc32(wave.tobytes()))
            if self.log:
                with self.log.open("a") as stream:
                    stream.write(f"{self.seen[-1]}\n")
        return [self.states(w) for w in waves]

    def states(self, wave: audio.Wave) -> Tensor:
        frames = torch.from_numpy(wave[: len(wave) // 320 * 320].reshape(-1, 4, 80).mean(2))
        return torch.stack([(layer + 1) * frames for layer in range(self.info.num_states)])


def quiet() -> Console:
    return Console(file=StringIO(), width=400)


def extract(corpus: Corpus, folder: Path, encoder: Encoder | None = None, **changes: Any) -> FeatureStore:
    given: dict[str, Any] = {"layers": None, "console": quiet(), "shard_bytes": SMALL_SHARDS, "reader": corpus.name}
    return extraction.extract(
        corpus, root=folder.parent, encoder=encoder or Fake(), folder=folder, **{**given, **changes}
    )


def marks(corpus: Corpus) -> dict[str, int]:
    """What `Fake` notes for each utterance."""
    return {u.id: zlib.crc32(audio.load(u).tobytes()) for u in corpus.utterances}


def contents(folder: Path) -> list[tuple[bytes, ...]]:
    """The data of all shards; versions and other attributes aside."""
    found = []
    for path in sorted(folder.glob("shard-*.h5")):
        with h5py.File(path, "r") as file:
            numbers = (file[name][:].tobytes() for name in ("states", "offsets", "crc32"))
            found.append((*numbers, *file["ids"][:]))
    return found


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix not in (".h5", ".json") and p.name != ".lock")


# What a store holds


def test_a_store_holds_what_the_encoder_gave_in_float16(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    assert len(store.info.shards) > 2
    assert [i for ids in store.info.shards for i in ids] == [u.id for u in corpus.utterances]
    for utterance in corpus.utterances:
        states = Fake().states(audio.load(utterance)).half().numpy()
        assert utterance.id in store
        assert store.num_frames(utterance.id) == states.shape[1]
        for layer in range(3):
            block = store.read(utterance.id, layer)
            assert block.dtype == np.float16
            assert np.array_equal(block, states[layer])
    assert leftovers(tmp_path / "store") == []


def test_float32_keeps_what_the_encoder_gave(corpus: Corpus, tmp_path: Path) -> None:
    class Large(Fake):
        def states(self, wave: audio.Wave) -> Tensor:
            return 1e6 * super().states(wave)

    message = refusal(extract, corpus, tmp_path / "half", Large())
    assert "beyond float16 (65504): try --dtype float32" in message
    store = extract(corpus, tmp_path / "store", Large(), dtype="float32")
    store.verify()
    for utterance in corpus.utterances:
        block = store.read(utterance.id, 1)
        assert block.dtype == np.float32
        assert np.array_equal(block, Large().states(audio.load(utterance))[1].numpy())
    with h5py.File(shard_path(store.folder, 0), "r") as file:
        assert (file["states"].dtype, file.attrs["dtype"]) == (np.float32, "float32")
    half = extract(corpus, tmp_path / "half16", shard_bytes=2 * SMALL_SHARDS)
    assert half.info.shards != store.info.shards
    assert extract(corpus, tmp_path / "half32", dtype="float32", shard_bytes=2 * SMALL_SHARDS).info.shards == (
        extract(corpus, tmp_path / "half16small").info.shards
    )
    assert half.info.identity != replace(half.info, dtype="float32").identity
    assert "'float64' is not one of float16, float32" in refusal(extract, corpus, tmp_path / "x", dtype="float64")


def test_a_store_names_the_device_that_computed(corpus: Corpus, tmp_path: Path) -> None:
    class Elsewhere(Fake):
        device = torch.device("cuda", 0)

    assert extract(corpus, tmp_path / "here").info.device == "cpu"
    assert extract(corpus, tmp_path / "store", Elsewhere()).info.device == "cuda"
    assert "(device: cuda there, cpu asked)" in refusal(extract, corpus, tmp_path / "store")


@pytest.mark.parametrize("name", ["log-mel", "hubert"])
def test_with_a_real_encoder(name: str, corpus: Corpus, hubert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(name if name == "log-mel" else str(hubert), CPU)
    store = extract(corpus, tmp_path / "store", encoder)
    for utterance in corpus.utterances:
        states = encoder.encode([audio.load(utterance)])[0].half().numpy()
        for layer in range(encoder.info.num_states):
            # Within a batch the last bit of float32, and so now and then of float16, may differ.
            np.testing.assert_allclose(store.read(utterance.id, layer), states[layer], rtol=2e-3, atol=2e-3)


def test_one_layer_of_one_utterance_is_one_run_of_bytes(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[0, 2])
    for shard, ids in enumerate(store.info.shards):
        path = shard_path(store.folder, shard)
        with h5py.File(path, "r") as file:
            dataset = file["states"]
            assert dataset.chunks is None
            assert dataset.compression is None
            assert dataset.dtype == np.float16
            begin, (_, frames, dim), offsets = dataset.id.get_offset(), dataset.shape, file["offsets"][:]
        raw = path.read_bytes()
        for u, id_ in enumerate(ids):
            for row, layer in enumerate((0, 2)):
                start = begin + (row * frames + offsets[u]) * dim * 2
                stop = begin + (row * frames + offsets[u + 1]) * dim * 2
                assert raw[start:stop] == store.read(id_, layer).tobytes()


def test_a_shard_says_what_it_holds(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[2, 1, 1])
    with h5py.File(shard_path(store.folder, 0), "r") as file:
        attributes = dict(file.attrs)
    assert attributes["encoder"] == "fake"
    assert attributes["revision"] == "1"
    assert attributes["layers"].tolist() == [1, 2]
    assert attributes["frame_rate"] == 50
    assert attributes["sample_rate"] == 16_000
    assert json.loads(attributes["versions"])["torch"] == version("torch")
    assert len(attributes["checksum"]) == 64
    assert store.info == StoreInfo.read(store.folder)


def test_a_subset_of_the_layers(corpus: Corpus, tmp_path: Path) -> None:
    some, whole = extract(corpus, tmp_path / "some", layers=[2, 0]), extract(corpus, tmp_path / "whole")
    assert some.info.layers == (0, 2)
    for layer in (0, 2):
        assert np.array_equal(some.read("u03", layer), whole.read("u03", layer))
    assert "layer 1 is not stored; it holds 0, 2" in refusal(some.read, "u03", 1)
    assert some.info.identity != whole.info.identity


@pytest.mark.parametrize("layers", [[3], [0, -1], []])
def test_a_layer_the_encoder_has_not(layers: list[int], corpus: Corpus, tmp_path: Path) -> None:
    assert "fake has 0 to 2" in refusal(extract, corpus, tmp_path / "store", layers=layers)
    assert not (tmp_path / "store").exists()


def test_an_unknown_utterance(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    assert "zzz" not in store
    assert "'zzz'" in refusal(store.read, "zzz", 0)
    assert "'zzz'" in refusal(store.num_frames, "zzz")


def test_any_id_will_do(tmp_path: Path) -> None:
    ids = ("../up", "a/b/c.wav", "ü 日本語 🎵", 'quote " and \\ back', "line\nbreak", "[bold]")
    utterances = tuple(
        Utterance(id_, tone(tmp_path / f"{i}.wav", 0.3, hertz=200 + 50 * i)) for i, id_ in enumerate(ids)
    )
    store = extract(Corpus("odd", utterances, "own", "speaker"), tmp_path / "store", shard_bytes=10**6)
    for utterance in utterances:
        expected = Fake().states(audio.load(utterance)).half().numpy()[1]
        assert np.array_equal(FeatureStore(store.folder).read(utterance.id, 1), expected)


def test_one_utterance_and_one_larger_than_a_shard(tmp_path: Path) -> None:
    store = extract(tones(tmp_path / "a", (0.3,)), tmp_path / "one", shard_bytes=1)
    assert store.info.shards == (("u00",),)
    assert store.num_frames("u00") == 15
    assert len(extract(tones(tmp_path / "a", (0.3, 0.2)), tmp_path / "two", shard_bytes=1).info.shards) == 2


def test_segments_of_one_file(tmp_path: Path) -> None:
    path = tone(tmp_path / "long.wav", 2.0)
    parts = tuple(Utterance(f"s{i}", path, start=i / 2, end=i / 2 + 0.4) for i in range(4))
    store = extract(Corpus("parts", parts, "own", "speaker"), tmp_path / "store")
    whole = Fake().states(audio.load(Utterance("all", path))).half().numpy()
    for i in range(4):
        assert np.array_equal(store.read(f"s{i}", 0), whole[0, i * 25 : i * 25 + 20])


def test_a_shard_may_hold_more_utterances_than_a_process_may_open_files(tmp_path: Path) -> None:
    many = tones(tmp_path / "recordings", (0.02,) * 120)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 40, hard))
    try:
        store = extract(many, tmp_path / "store", shard_bytes=10**9)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(store.info.shards) == 1


def test_utterances_share_a_batch_only_with_an_equal_key(corpus: Corpus, tmp_path: Path) -> None:
    sizes = []

    class Sizes(Fake):
        def encode(self, waves: Sequence[audio.Wave]) -> list[Tensor]:
            sizes.append(len(waves))
            return super().encode(waves)

    extract(corpus, tmp_path / "store", Sizes(), shard_bytes=10**6)
    assert sorted(sizes) == [1, 1, 2, 2, 2]


def test_a_batch_has_a_limit(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "BATCH_SECONDS", 0.5)
    batches = list(extraction._batches(corpus.utterances, Fake(), {u.id: 0.2 for u in corpus.utterances}))
    assert [len(b) for b in batches] == [2, 2, 2, 2]


# What is told and refused


def test_the_cost_is_told_before_anything_is_computed(corpus: Corpus, tmp_path: Path) -> None:
    console = quiet()

    class Watching(Fake):
        def encode(self, waves: Sequence[audio.Wave]) -> list[Tensor]:
            told.append(console.file.getvalue())
            return super().encode(waves)

    told: list[str] = []
    folder = tmp_path / "store[bold]"
    extract(corpus, folder, Watching(dim=4), console=console, reader="tones")
    assert "tones: 8 utterances, 0.00 h; fake: 3 layers of 4 at 50 frames/s; 0 MiB in " in told[0]
    assert f"shards under {folder}" in told[0]
    assert "GiB free" in told[0]


def test_the_cost_is_the_size_of_the_shards(tmp_path: Path) -> None:
    console = quiet()
    encoder = Fake(num_states=25, dim=1024)
    info = extraction._plan("r", tmp_path, encoder, tuple(range(25)), "float16", 2**28, {"a": 3600.0}, "")
    extraction._announce(tmp_path, replace(info, shards=(("a",),)), encoder, console, 3600.0)
    assert f"1.00 h; fake: 25 layers of 1024 at 50 frames/s; {3600 * 50 * 25 * 1024 * 2 / 2**20:,.0f} MiB" in (
        console.file.getvalue()
    )


def test_too_little_disk_is_refused_before_anything_is_computed(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, folder = Fake(), tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000))
        assert f"{folder}: needs" in refusal(extract, corpus, folder, encoder)
        assert encoder.seen == []
        assert not folder.exists()
        # A store that is complete needs no disk.
        patch.undo()
        extract(corpus, folder, encoder)
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        extract(corpus, folder, encoder)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("revision", {"encoder": Fake(revision="2")}),
        ("input", {"encoder": Fake(input="as recorded")}),
        ("layers", {"layers": [0]}),
        ("dtype", {"dtype": "float32"}),
        ("corpus", {"reader": "other"}),
        ("shards", {"shard_bytes": 10**6}),
    ],
)
def test_a_store_of_another_kind_is_refused(field: str, change: dict[str, Any], corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    extract(corpus, folder)
    before = contents(folder), (folder / "store.json").read_bytes()
    message = refusal(extract, corpus, folder, **change)
    assert f"({field}: " in message
    assert str(folder) in message
    assert (contents(folder), (folder / "store.json").read_bytes()) == before


def test_a_store_of_other_recordings_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store")
    fewer = replace(corpus, utterances=corpus.utterances[:-1])
    assert "(recordings: " in refusal(extract, fewer, tmp_path / "store")
    cut = replace(corpus, utterances=(replace(corpus.utterances[0], end=0.299), *corpus.utterances[1:]))
    assert "(recordings: " in refusal(extract, cut, tmp_path / "store")
    tone(corpus.utterances[0].audio, 0.7)
    assert "(recordings: " in refusal(extract, corpus, tmp_path / "store")


@pytest.mark.parametrize("complete", [True, False])
def test_other_audio_of_equal_length_is_noticed(complete: bool, corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    if complete:
        extract(corpus, folder, shard_bytes=10**6)
    else:
        interrupted(corpus, folder, after=2)
    tone(corpus.utterances[0].audio, DURATIONS[0], hertz=999.0)
    encoder = Fake()
    assert "(recordings: " in refusal(extract, corpus, folder, encoder, shard_bytes=10**6)
    assert encoder.seen == []


def test_the_same_audio_elsewhere_is_the_same(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    shutil.copytree(tmp_path / "recordings", tmp_path / "copy", copy_function=shutil.copyfile)  # with a new mtime
    moved = tuple(replace(u, audio=tmp_path / "copy" / u.audio.name) for u in corpus.utterances)
    again = Fake()
    assert extract(replace(corpus, utterances=moved), tmp_path / "store", again).info == store.info
    assert again.seen == []


def test_reading_the_recordings_shows_a_bar_only_when_it_takes_long(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience, shown in ((60.0, False), (-1.0, True)):
        monkeypatch.setattr(extraction, "PATIENCE", patience)
        console = quiet()
        extraction._samples(corpus, console)
        assert ("8/8" in console.file.getvalue()) == shown
        assert bool(console.file.getvalue().strip()) == shown


def test_an_encoder_of_equal_files_may_have_another_name(corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store", Fake(name="models/a"))
    again = Fake(name="elsewhere/a")
    assert extract(corpus, tmp_path / "store", again).info.encoder["name"] == "elsewhere/a"
    assert again.seen == []
    message = refusal(extract, corpus, tmp_path / "store", Fake(name="models/b", revision="2"))
    assert "(revision: elsewhere/a 1 there, models/b 2 asked)" in message


def test_a_corpus_that_moved_keeps_its_store(corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store")
    again = Fake()
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "store"
    store = extraction.extract(corpus, "tones", elsewhere, again, folder, None, quiet(), shard_bytes=SMALL_SHARDS)
    assert again.seen == []
    assert store.info.root == str((tmp_path / "elsewhere").resolve())


def test_no_store_and_an_unfinished_one_cannot_be_opened(corpus: Corpus, tmp_path: Path) -> None:
    assert "no store.json" in refusal(FeatureStore, tmp_path)
    store = extract(corpus, tmp_path / "store")
    shard_path(store.folder, 1).unlink()
    message = refusal(FeatureStore, store.folder)
    assert f"incomplete, {len(store.info.shards) - 1} of {len(store.info.shards)} shards" in message


def test_shards_without_a_store_json_are_not_taken_up(corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store")
    (tmp_path / "store/store.json").unlink()
    assert "no store.json" in refusal(extract, corpus, tmp_path / "store", layers=[0])


@pytest.mark.parametrize("text", ["{", '{"format": 99}', '{"format": 1, "layers": [], "shards": []}'])
def test_a_broken_store_json(text: str, corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store")
    (tmp_path / "store/store.json").write_text(text)
    assert str(tmp_path / "store/store.json") in refusal(FeatureStore, tmp_path / "store")


def test_two_extractions_at_a_time(corpus: Corpus, tmp_path: Path) -> None:
    with locked(tmp_path / "store", "extracting"):
        assert "another process is extracting here" in refusal(extract, corpus, tmp_path / "store")
    extract(corpus, tmp_path / "store")


def test_a_folder_that_cannot_be_made(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(extract, corpus, tmp_path / "file/store")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "parent/store")
    for folder in (store.folder, store.folder.parent):
        folder.chmod(0o555)
    try:
        FeatureStore(store.folder).verify()
        assert "cannot be written" in refusal(extract, corpus, tmp_path / "parent/other")
    finally:
        for folder in (store.folder.parent, store.folder):
            folder.chmod(0o755)


# Damage


def put(path: Path, data: bytes) -> None:
    """Another file under this name: HDF5 would answer for a changed one from its cache while it is open somewhere."""
    path.unlink()
    path.write_bytes(data)


def flip(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 0x40
    put(path, bytes(raw))


def test_a_flipped_bit_is_found(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    store.verify()
    path, id_ = shard_path(store.folder, 1), store.info.shards[1][-1]
    with h5py.File(path, "r") as file:
        last = file["states"].id.get_offset() + file["states"].id.get_storage_size() - 1
    flip(path, last)
    assert f"{path}: {id_} is damaged" in refusal(FeatureStore(store.folder).verify)


def test_whatever_byte_is_damaged_it_is_found_or_does_no_harm(tmp_path: Path) -> None:
    store = extract(tones(tmp_path / "recordings", (0.1, 0.2)), tmp_path / "store", shard_bytes=10**6)
    path = shard_path(store.folder, 0)
    whole = path.read_bytes()
    good = {(id_, layer): store.read(id_, layer) for id_ in ("u00", "u01") for layer in range(3)}
    found = 0
    for position in range(0, len(whole), 101):
        flip(path, position)
        damaged = FeatureStore(store.folder)
        try:
            damaged.verify()
        except UserError:
            found += 1
        else:
            assert all(np.array_equal(damaged.read(*key), value) for key, value in good.items()), position
        put(path, whole)
    assert found > 5


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9])
def test_a_shard_cut_short(keep: float, corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    path = shard_path(store.folder, 0)
    whole = path.read_bytes()
    put(path, whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    assert f"{path}: not readable as a shard" in refusal(FeatureStore(store.folder).read, store.info.shards[0][0], 0)


@pytest.mark.parametrize("change", [{"layers": [0, 2]}, {"encoder": Fake(revision="2")}])
def test_a_shard_of_another_store(change: dict[str, Any], corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[0, 1])
    extract(corpus, tmp_path / "other", **{"layers": [0, 1], **change})
    put(shard_path(store.folder, 0), shard_path(tmp_path / "other", 0).read_bytes())
    assert "belongs to another store" in refusal(FeatureStore(store.folder).verify)


def test_a_damaged_shard_is_made_again_and_no_other(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    before = contents(store.folder)
    shard_path(store.folder, 1).unlink()
    encoder = Fake()
    extract(corpus, store.folder, encoder)
    assert sorted(encoder.seen) == sorted(marks(corpus)[i] for i in store.info.shards[1])
    assert contents(store.folder) == before


# Interruptions


def test_an_unreadable_utterance_keeps_what_was_finished(corpus: Corpus, tmp_path: Path) -> None:
    import soundfile

    bad = corpus.utterances[5]
    wave, rate = soundfile.read(bad.audio)
    soundfile.write(bad.audio, np.full_like(wave, np.nan), rate, subtype="FLOAT")
    first = Fake()
    message = refusal(extract, corpus, tmp_path / "store", first)
    assert str(bad.audio) in message
    assert bad.id in message
    assert len(first.seen) >= 3
    assert "incomplete" in refusal(FeatureStore, tmp_path / "store")
    soundfile.write(bad.audio, wave, rate)  # a repaired recording is another recording
    assert "(recordings: " in refusal(extract, corpus, tmp_path / "store")


def test_a_recording_that_could_not_be_read_for_once(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(utterance: Utterance) -> audio.Wave:
        if utterance.id == "u05":
            raise UserError("the network drive is away")
        return whole(utterance)

    whole, first, second = audio.load, Fake(), Fake()
    with monkeypatch.context() as patch:
        patch.setattr(audio, "load", load)
        assert "network drive" in refusal(extract, corpus, tmp_path / "store", first)
    extract(corpus, tmp_path / "store", second)
    assert len(first.seen) >= 3
    assert sorted(first.seen + second.seen) == sorted(marks(corpus).values())


@pytest.mark.parametrize("seconds", [0.0, 0.015])
def test_too_short_a_recording_is_refused_before_anything_is_computed(
    seconds: float, corpus: Corpus, tmp_path: Path
) -> None:
    bad = tone(corpus.utterances[5].audio, seconds)
    encoder = Fake()
    assert str(bad) in refusal(extract, corpus, tmp_path / "store", encoder)
    assert encoder.seen == []
    tone(bad, 0.3)  # repaired, it may have any length
    extract(corpus, tmp_path / "store", encoder)


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        (float("nan"), "float16", "a feature is NaN"),
        (float("nan"), "float32", "a feature is NaN"),
        (70_000.0, "float16", "beyond float16 (65504): try --dtype float32"),
    ],
)
def test_a_feature_that_cannot_be_stored(value: float, dtype: str, told: str, corpus: Corpus, tmp_path: Path) -> None:
    class Wild(Fake):
        def states(self, wave: audio.Wave) -> Tensor:
            states = super().states(wave)
            states[1, 2, 3] = value
            return states

    message = refusal(extract, corpus, tmp_path / "store", Wild(), dtype=dtype)
    assert "u00" in message
    assert told in message


@pytest.mark.parametrize("at", [0, 1, 2, 3, 6, 8])
def test_a_disk_that_fills_leaves_the_store_resumable(
    at: int, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fills: the plan, a spool, a journal or a shard."""
    extract(corpus, tmp_path / "whole")
    sync, left = os.fsync, iter(range(at))

    def full(descriptor: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            extract(corpus, tmp_path / "store")
    extract(corpus, tmp_path / "store")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert leftovers(tmp_path / "store") == []


@pytest.mark.parametrize("limit", [2_000, 10_000])
def test_a_write_that_breaks_off_leaves_the_store_resumable(limit: int, corpus: Corpus, tmp_path: Path) -> None:
    """A limit on the size of files breaks writes off half way, as a full disk does: of the spool, of the shard."""
    whole = extract(corpus, tmp_path / "whole", shard_bytes=10**6)
    spool = sum(whole.num_frames(u.id) for u in corpus.utterances) * whole.info.frame_bytes
    assert 2_000 < spool < 10_000 < shard_path(whole.folder, 0).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"(?i)file too large"):
            extract(corpus, tmp_path / "store", shard_bytes=10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "store/shard-00000.journal").exists()
    again = Fake()
    extract(corpus, tmp_path / "store", again, shard_bytes=10**6)
    assert len(again.seen) < len(corpus.utterances)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert leftovers(tmp_path / "store") == []


def interrupted(corpus: Corpus, folder: Path, after: int) -> list[int]:
    """Leave `folder` as a run leaves it that stops after `after` batches of the first shard."""

    class Stops(Fake):
        batches = 0

        def encode(self, waves: Sequence[audio.Wave]) -> list[Tensor]:
            if self.batches == after:
                raise KeyboardInterrupt
            self.batches += 1
            return super().encode(waves)

    encoder = Stops()
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, folder, encoder, shard_bytes=10**6)
    return encoder.seen


def tear(folder: Path, how: str) -> None:
    spool, journal = folder / "shard-00000.spool", folder / "shard-00000.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    match how:
        case "nothing":
            pass
        case "line":
            journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:-3])
        case "line without its end":
            journal.write_bytes(b"".join(lines)[:-1])
        case "zeros for a line":
            journal.write_bytes(b"".join(lines[:-1]) + bytes(len(lines[-1]) - 1) + b"\n")
        case "spool longer":
            spool.write_bytes(spool.read_bytes() + b"half a batch")
        case "spool shorter":
            os.truncate(spool, spool.stat().st_size - 1)
        case "no spool":
            spool.unlink()
        case "no journal":
            journal.unlink()


@pytest.mark.parametrize(
    ("how", "lost"),
    [
        ("nothing", 0),
        ("spool longer", 0),
        ("line", 1),
        ("line without its end", 1),
        ("zeros for a line", 1),
        ("spool shorter", 1),
        ("no spool", 3),
        ("no journal", 3),
    ],
)
def test_a_torn_spool_is_taken_up_where_it_is_whole(how: str, lost: int, corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    extract(corpus, tmp_path / "whole", shard_bytes=10**6)
    done = interrupted(corpus, folder, after=3)  # u00 and u02, u01 and u04, u03 and u06
    assert len(done) == 6
    tear(folder, how)
    encoder = Fake()
    extract(corpus, folder, encoder, shard_bytes=10**6)
    assert len(encoder.seen) == 2 + 2 * lost
    assert contents(folder) == contents(tmp_path / "whole")
    assert leftovers(folder) == []


def test_batches_may_be_cut_otherwise_when_it_goes_on(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(corpus, tmp_path / "whole", shard_bytes=10**6)
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "BATCH_SECONDS", 0.1)
        assert len(interrupted(corpus, tmp_path / "store", after=1)) == 1
    extract(corpus, tmp_path / "store", shard_bytes=10**6)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_half_written_shards_are_never_read_and_go(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    interrupted(corpus, folder, after=2)
    (folder / "shard-00000.h5.123.tmp").write_bytes(b"half a shard")
    assert "incomplete" in refusal(FeatureStore, folder)
    extract(corpus, folder, shard_bytes=10**6)
    # Killed between the shard's renaming and the removal of its spool.
    (folder / "shard-00000.spool").write_bytes(b"spool")
    (folder / "shard-00000.journal").write_bytes(b"journal")
    encoder = Fake()
    extract(corpus, folder, encoder, shard_bytes=10**6)
    assert encoder.seen == []
    assert leftovers(folder) == []


def test_a_shard_appears_whole_or_not_at_all(corpus: Corpus, tmp_path: Path) -> None:
    info = extract(corpus, tmp_path / "store").info
    (tmp_path / "new").mkdir()
    path = shard_path(tmp_path / "new", 0)
    blocks = [np.zeros((3, 5, 4), np.float16), np.zeros((3, 5, 7), np.float16)]  # the second does not fit
    with pytest.raises(TypeError):
        write_shard(path, info, ("a", "b"), blocks)
    assert list(path.parent.iterdir()) == []


def finished(folder: Path) -> set[str]:
    """The utterances that the folder's shards and journals name."""
    shards = StoreInfo.read(folder).shards if (folder / "store.json").exists() else ()
    ids = {i for n, shard in enumerate(shards) if shard_path(folder, n).exists() for i in shard}
    for journal in folder.glob("*.journal"):
        for line in journal.read_bytes().splitlines(keepends=True):
            ids |= {entry[0] for entry in json.loads(line)} if line.endswith(b"\n") else set()
    return ids


def killed(corpus: Corpus, folder: Path, log: Path, at_sync: int | None, after: float | None) -> bool:
    """Extract in a process of its own, SIGKILLed at its n-th fsync or after some seconds; whether it completed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sync, left = os.fsync, iter(range(at_sync or 0))

            def fsync(descriptor: int) -> None:
                if at_sync is not None and next(left, None) is None:
                    os.kill(os.getpid(), signal.SIGKILL)
                sync(descriptor)

            os.fsync = fsync
            extract(corpus, folder, Fake(log, pause=0.02), shard_bytes=3_000)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the extraction failed by itself"
    return not os.WIFSIGNALED(status)


def kill_until_it_completes(root: str, seed: str) -> None:
    """Runs as a program: a process that has used no thread yet, so that it can fork."""
    torch.set_num_threads(1)
    corpus, folder, log = tones(Path(root) / "recordings", DURATIONS_KILLED), Path(root) / "store", Path(root) / "log"
    log.touch()
    name = {mark: id_ for id_, mark in marks(corpus).items()}
    chance, kills, again = random.Random(int(seed)), 0, 0
    complete = False
    while not complete:
        before, told = finished(folder), len(log.read_text().splitlines())
        at_sync, after = (chance.randint(0, 5), None) if chance.random() < 0.6 else (None, chance.uniform(0.0, 0.1))
        complete = killed(corpus, folder, log, at_sync, after)
        kills += not complete
        encoded = {name[int(mark)] for mark in log.read_text().splitlines()[told:]}
        assert not encoded & before, f"encoded though finished: {encoded & before}"
        lost = encoded - finished(folder)
        assert len({audio.duration(u) for u in corpus.utterances if u.id in lost}) <= 1, "more than one batch was lost"
        again += len(lost)
        assert kills < 300
    counts = Counter(log.read_text().splitlines())
    assert set(map(int, counts)) == set(name)
    assert counts.total() == len(name) + again
    print(kills)


DURATIONS_KILLED = (0.3, 0.2, 0.3, 0.25, 0.2, 0.35, 0.25, 0.1) * 3


@pytest.mark.parametrize("seed", [0, 1])
def test_sigkill_at_any_moment_costs_one_batch_at_most(seed: int, tmp_path: Path) -> None:
    program = f"import test_features; test_features.kill_until_it_completes({str(tmp_path)!r}, '{seed}')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    extract(tones(tmp_path / "recordings", DURATIONS_KILLED), tmp_path / "undisturbed", shard_bytes=3_000)
    assert contents(tmp_path / "store") == contents(tmp_path / "undisturbed")
    assert leftovers(tmp_path / "store") == []
    FeatureStore(tmp_path / "store").verify()
