"""What an extraction plans, tells and refuses, and what a later one adds to the store."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from extracting import ALONE, ONE, SMALL, Fake, contents, extract, leftovers, marks, quiet
from refusals import refusal
from sounds import DURATIONS, tone, tones
from torch import Tensor

from bas.corpora import Corpus, Utterance
from bas.errors import UserError
from bas.features import plan as plans
from bas.features.extract import Group
from bas.features.plan import Request, announce, batches, make_plan
from bas.features.shard import Shard, shard_path
from bas.features.store import FeatureStore, StoreInfo
from bas.speech import audio

# Batches and shards


def planned(durations: tuple[float, ...]) -> StoreInfo:
    recordings = {f"u{i:02d}": (str(i), round(16_000 * d)) for i, d in enumerate(durations)}
    encoder = Fake().info.to_dict()
    return StoreInfo("tones", "/", encoder, (0,), (tuple(recordings),), recordings, {}, "cpu", "float16")


class Halves(Fake):
    """May put together what has the same number of half seconds; works through a second at least."""

    def batch_key(self, num_samples: int) -> int:
        return num_samples // 8_000

    def cost(self, num_samples: int) -> int:
        return max(num_samples, 16_000)


@pytest.mark.parametrize("seconds", [0.1, 2.5, 6.0, 100.0])
def test_batches_are_bounded_with_their_padding_and_never_mix_keys(seconds: float) -> None:
    durations = tuple(np.random.default_rng(0).uniform(0.1, 3.0, 60).round(2).tolist())
    info, encoder = planned(durations), Halves()
    made = list(batches(list(info.recordings), info, encoder, seconds))
    assert sorted(i for batch in made for i in batch) == sorted(info.recordings)
    for batch in made:
        samples = [info.recordings[i][1] for i in batch]
        assert samples == sorted(samples, reverse=True)
        assert len({encoder.batch_key(n) for n in samples}) == 1
        assert len(batch) == 1 or len(batch) * encoder.cost(samples[0]) <= seconds * 16_000
    first = [info.recordings[batch[0]][1] for batch in made]
    assert first == sorted(first, reverse=True)
    assert made == list(batches(list(info.recordings), info, encoder, seconds))
    assert len(made) < 60 or seconds == 0.1
    # Whatever batches are done, the others are cut as they were.
    rest = [i for batch in made[1::2] for i in batch]
    assert list(batches(rest, info, encoder, seconds)) == made[1::2]


def test_an_extraction_encodes_those_batches(corpus: Corpus, tmp_path: Path) -> None:
    encoder = Fake()
    extract(corpus, tmp_path / "store", encoder, shard_bytes=ONE)
    assert sorted(encoder.batches) == [1, 1, 2, 2, 2]
    small = Fake()
    extract(corpus, tmp_path / "small", small, shard_bytes=ONE, batch_seconds=0.9)  # 0.5 s twice is too much
    assert sorted(small.batches) == [1, 1, 1, 1, 2, 2]
    assert contents(tmp_path / "small") == contents(tmp_path / "store")


def test_resampled_to_other_lengths_they_are_encoded_apart(tmp_path: Path) -> None:
    """441 samples at 44.1 kHz are 160 at 16 kHz; what a header says in seconds may be rounded otherwise."""
    paths = [tone(tmp_path / f"{i}.wav", (11_025 + i) / 44_100, 44_100) for i in range(2)]
    durations = [audio.duration(Utterance("u", p)) for p in paths]
    lengths = [len(audio.load(Utterance("u", p))) for p in paths]
    assert len({round(16_000 * d) for d in durations}) == 1
    assert len(set(lengths)) == 2
    encoder = Fake()
    extract(Corpus("c", tuple(Utterance(p.stem, p) for p in paths), "own", "speaker"), tmp_path / "store", encoder)
    assert encoder.batches == [1, 1]


def test_a_shard_is_as_large_as_asked_or_one_utterance(tmp_path: Path) -> None:
    corpus = tones(tmp_path / "recordings", (0.3, 0.2))
    assert extract(corpus, tmp_path / "two", shard_bytes=1).info.shards == (("u00",), ("u01",))
    bytes_ = 25 * 3 * 4 * 2 + 1
    assert len(extract(corpus, tmp_path / "fits", shard_bytes=bytes_).info.shards) == 1
    assert len(extract(corpus, tmp_path / "not", shard_bytes=bytes_ - 2).info.shards) == 2
    assert len(extract(corpus, tmp_path / "float32", shard_bytes=bytes_, dtype="float32").info.shards) == 2
    assert len(extract(corpus, tmp_path / "layers", shard_bytes=bytes_, dtype="float32", layers=[0]).info.shards) == 1


def test_segments_of_one_file(tmp_path: Path) -> None:
    path = tone(tmp_path / "long.wav", 2.0)
    parts = tuple(Utterance(f"s{i}", path, start=i / 2, end=i / 2 + 0.4) for i in range(4))
    store = extract(Corpus("parts", parts, "own", "speaker"), tmp_path / "store")
    whole = Fake().states(torch.from_numpy(audio.load(Utterance("all", path)))).half().numpy()
    for i in range(4):
        assert np.array_equal(store.read(f"s{i}", 0), whole[0, i * 25 : i * 25 + 20])


def test_a_shard_may_hold_more_utterances_than_a_process_may_open_files(tmp_path: Path) -> None:
    many = tones(tmp_path / "recordings", (0.02,) * 120)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        store = extract(many, tmp_path / "store", shard_bytes=ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(store.info.shards) == 1


def test_the_group_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("RANK", "3")
    assert Group.of_torchrun() == Group()
    environment = {"RUN_ID": "one", "RESTART_COUNT": "0"}
    for name, value in environment.items():
        monkeypatch.setenv(f"TORCHELASTIC_{name}", value)
    for name, value in {"WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    group = Group.of_torchrun()
    assert (group.rank, group.size, group.local_rank, group.local_size) == (3, 8, 1, 2)
    assert Group.of_torchrun().token == group.token != ""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert Group.of_torchrun().token != group.token


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    assert [Group(local_size=n).cores for n in (1, 2, 5, 100)] == [12, 6, 2, 1]


# What is told


def test_the_cost_is_told_before_anything_is_computed(corpus: Corpus, tmp_path: Path) -> None:
    console = quiet()

    class Watching(Fake):
        def encode(self, inputs: Any) -> list[Tensor]:
            lines.append(console.file.getvalue())
            return super().encode(inputs)

    lines: list[str] = []
    folder = tmp_path / "store[bold]"
    extract(corpus, folder, Watching(), console=console)
    assert (
        "tones: 8 utterances, 0.00 h; fake: 3 layers of 4 at 50 frames/s; 0 MiB to write in 6 of 6 shards" in lines[0]
    )
    assert f"under {folder} (" in lines[0]
    assert "GiB free" in lines[0]


def test_the_cost_is_the_size_of_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console, info = quiet(), planned((3600.0,))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**40))  # whatever this disk has
    announce(tmp_path, replace(info, layers=tuple(range(25)), encoder={**info.encoder, "dim": 1024}), console)
    size = 3600 * 50 * 25 * 1024 * 2 / 2**20
    assert f"1.00 h; fake: 25 layers of 1024 at 50 frames/s; {size:,.0f} MiB to write in 1 of 1" in (
        console.file.getvalue()
    )


def test_too_little_disk_is_refused_before_anything_is_computed(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, folder = Fake(), tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4_000))  # 3840, and a spool beside
        assert f"{folder}: needs" in refusal(extract, corpus, folder, encoder)
        assert encoder.seen == []
        assert not folder.exists()
        patch.undo()
        extract(corpus, folder, encoder, layers=[0, 1])
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        extract(corpus, folder, encoder, layers=[0])  # a store that is complete needs no disk
        assert "needs" in refusal(extract, corpus, folder, encoder, layers=[2])


def test_reading_the_recordings_shows_a_bar_only_when_it_takes_long(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience, shown in ((60.0, False), (-1.0, True)):
        monkeypatch.setattr(plans, "PATIENCE", patience)
        console = quiet()
        console._force_terminal = True
        make_plan(corpus, Fake(), tmp_path / "store", Request("tones", tmp_path), console)
        assert ("16/16" in console.file.getvalue()) == shown


# What is added


def test_layers_asked_later_are_added_and_no_others_computed(corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    first = extract(corpus, folder, layers=[1], shard_bytes=SMALL // 3)
    held: list[tuple[int, ...]] = []

    class Watching(Fake):
        def encode(self, inputs: Any) -> list[Tensor]:
            whole = FeatureStore(folder)
            held.append(whole.info.layers)
            assert np.array_equal(whole.read("u07", 1), first.read("u07", 1))
            return super().encode(inputs)

        def states(self, x: Tensor) -> Tensor:
            states = super().states(x)
            states[1] = -1.0  # were it stored again, it would be seen
            return states

    more = extract(corpus, folder, Watching(), layers=[0, 2], group=ALONE)
    assert set(held) == {(1,)}, "readable as it was all the while"
    assert more.info.layers == (0, 1, 2)
    assert more.info.identity == first.info.identity
    extract(corpus, tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")
    assert leftovers(folder) == []
    again = Fake()
    assert extract(corpus, folder, again, layers=[0]).info == more.info
    assert again.seen == []


def test_utterances_new_in_the_corpus_are_added_in_shards_of_their_own(corpus: Corpus, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "store", Fake()
    fewer = replace(corpus, utterances=corpus.utterances[2:])
    first = extract(fewer, folder, shard_bytes=ONE)
    before = contents(folder)
    store = extract(corpus, folder, encoder, shard_bytes=ONE)
    assert store.info.shards == (*first.info.shards, ("u01", "u00"))
    assert contents(folder)[:1] == before
    assert sorted(encoder.seen) == marks(corpus, "u00", "u01")
    assert store.info.identity == extract(corpus, tmp_path / "whole").info.identity
    # Layers and utterances at once: no layer of what is held is computed again, and none is missing of what is new.
    some = extract(fewer, tmp_path / "both", layers=[1])
    both = extract(corpus, tmp_path / "both", layers=[0, 2])
    assert (some.info.layers, both.info.layers) == ((1,), (0, 1, 2))
    for id_ in both.ids:
        assert np.array_equal(both.gather([id_], [0, 1, 2])[0], store.gather([id_], [0, 1, 2])[0])


def test_a_missing_shard_is_made_again_and_no_other(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    before = contents(store.folder)
    shard_path(store.folder, 4).unlink()
    encoder = Fake()
    extract(corpus, store.folder, encoder)
    assert sorted(encoder.seen) == marks(corpus, "u06", "u00")
    assert contents(store.folder) == before


# What is refused


@pytest.mark.parametrize("layers", [[3], [0, -1], []])
def test_a_layer_the_encoder_has_not(layers: list[int], corpus: Corpus, tmp_path: Path) -> None:
    assert "fake has 0 to 2" in refusal(extract, corpus, tmp_path / "store", layers=layers)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("revision", {"encoder": Fake(revision="2")}),
        ("input", {"encoder": Fake(input="as recorded")}),
        ("precision", {"encoder": Fake(precision="bfloat16")}),
        ("dtype", {"dtype": "float32"}),
        ("corpus", {"reader": "other"}),
    ],
)
def test_a_store_of_another_kind_is_refused(field: str, change: dict[str, Any], corpus: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "store"
    extract(corpus, folder)
    before = contents(folder), (folder / "store.json").read_bytes()
    message = refusal(extract, corpus, folder, **change)
    assert f"{folder}: holds another store ({field}: " in message
    assert (contents(folder), (folder / "store.json").read_bytes()) == before
    assert not (folder / "plan.json").exists()


def test_a_store_names_the_device_that_computed(corpus: Corpus, tmp_path: Path) -> None:
    class Elsewhere(Fake):
        device = torch.device("cuda", 0)

    assert extract(corpus, tmp_path / "here").info.device == "cpu"
    assert extract(corpus, tmp_path / "store", Elsewhere()).info.device == "cuda"
    assert "(device: cuda there, cpu asked)" in refusal(extract, corpus, tmp_path / "store")


def test_other_recordings_of_what_is_held_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "store", Fake()
    extract(corpus, folder)
    fewer = replace(corpus, utterances=corpus.utterances[:-1])
    assert "holds u07, which tones has no more" in refusal(extract, fewer, folder, encoder)
    cut = replace(corpus, utterances=(replace(corpus.utterances[0], end=0.299), *corpus.utterances[1:]))
    assert "u00 was extracted from another recording" in refusal(extract, cut, folder, encoder)
    tone(corpus.utterances[0].audio, DURATIONS[0], hertz=999.0)  # of equal length
    assert "u00 was extracted from another recording" in refusal(extract, corpus, folder, encoder)
    assert encoder.seen == []


def test_the_same_audio_elsewhere_is_the_same(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    shutil.copytree(tmp_path / "recordings", tmp_path / "copy", copy_function=shutil.copyfile)  # with a new mtime
    moved = tuple(replace(u, audio=tmp_path / "copy" / u.audio.name) for u in corpus.utterances)
    again = Fake(name="elsewhere/fake")
    second = extract(replace(corpus, utterances=moved), tmp_path / "store", again, root=tmp_path / "copy")
    assert again.seen == []
    assert (second.info.identity, second.info.shards) == (store.info.identity, store.info.shards)
    assert second.info.root == str((tmp_path / "copy").resolve())
    assert second.info.encoder["name"] == "elsewhere/fake"
    message = refusal(extract, corpus, tmp_path / "store", Fake(name="models/b", revision="2"))
    assert "(revision: elsewhere/fake 1 there, models/b 2 asked)" in message


def test_shards_without_a_store_json_are_not_taken_up(corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store")
    (tmp_path / "store/store.json").unlink()
    assert "no store.json" in refusal(extract, corpus, tmp_path / "store", layers=[0])


def test_a_damaged_shard_is_refused_and_not_added_to(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[0])
    path = shard_path(store.folder, 1)
    os.truncate(path, 1_000)
    assert f"{path}: not readable as a shard" in refusal(extract, corpus, store.folder, layers=[0, 1])
    with pytest.raises(UserError):
        Shard(path, store.info.encoder)


def test_a_folder_that_cannot_be_made(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refusal(extract, corpus, tmp_path / "file/store")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "parent/store")
    for folder in (store.folder, store.folder.parent):
        folder.chmod(0o555)
    try:
        assert FeatureStore(store.folder).num_frames("u07") == 30
        assert "cannot be written" in refusal(extract, corpus, tmp_path / "parent/other")
    finally:
        for folder in (store.folder.parent, store.folder):
            folder.chmod(0o755)
