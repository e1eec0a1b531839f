"""What a store holds and how it is read: the right bytes, whoever reads them, and never those of a damaged file."""

# mypy: disable-error-code="arg-type,return-value"

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from extracting import ONE, Fake, extract, flip, put, states_at
from records import rewrite
from refusals import refusal
from sounds import tone, tones
from torch import Tensor

from bas.corpora import Corpus, Utterance
from bas.encoders import load_encoder
from bas.errors import UserError
from bas.features import store as stores
from bas.features.shard import Contents, Shard, offsets, shard_path, write_shard
from bas.features.store import FeatureStore, StoreInfo
from bas.speech import audio
from bas.util.files import read_json

# What it holds


def expected(utterance: Utterance) -> np.ndarray:
    return Fake().states(torch.from_numpy(audio.load(utterance))).half().numpy()


def test_it_holds_what_the_encoder_gave_in_float16_longest_first(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    assert store.info.shards == (("u07",), ("u01",), ("u04",), ("u03",), ("u06", "u00"), ("u02", "u05"))
    assert store.ids == ("u07", "u01", "u04", "u03", "u06", "u00", "u02", "u05")
    for utterance in corpus.utterances:
        states = expected(utterance)
        assert utterance.id in store
        assert store.num_frames(utterance.id) == states.shape[1]
        for layer in range(3):
            block = store.read(utterance.id, layer)
            assert block.dtype == np.float16
            assert np.array_equal(block, states[layer])


def test_float32_keeps_what_float16_cannot(corpus: Corpus, tmp_path: Path) -> None:
    class Large(Fake):
        def states(self, x: Tensor) -> Tensor:
            return 1e6 * super().states(x)

    store = extract(corpus, tmp_path / "store", Large(), dtype="float32")
    for utterance in corpus.utterances:
        block = store.read(utterance.id, 1)
        assert block.dtype == np.float32
        assert np.array_equal(block, Large().states(torch.from_numpy(audio.load(utterance)))[1].numpy())
    with h5py.File(shard_path(store.folder, 0), "r") as file:
        assert (file["states"].dtype, file.attrs["dtype"]) == (np.float32, "float32")
    assert "'float64' is not one of float16, float32" in refusal(extract, corpus, tmp_path / "x", dtype="float64")


@pytest.mark.parametrize("name", ["log-mel", "hubert"])
def test_with_a_real_encoder(name: str, corpus: Corpus, hubert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(name if name == "log-mel" else str(hubert), torch.device("cpu"))
    store = extract(corpus, tmp_path / "store", encoder, shard_bytes=ONE)
    for utterance in corpus.utterances:
        states = encoder.encode([encoder.prepare(audio.load(utterance))])[0].half().numpy()
        for layer in range(encoder.info.num_states):
            # Within a batch the last bit of float32, and so now and then of float16, may differ.
            np.testing.assert_allclose(store.read(utterance.id, layer), states[layer], rtol=2e-3, atol=2e-3)


def test_a_shard_says_what_it_holds(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", Fake(input="as recorded"), layers=[2, 1, 1])
    with h5py.File(shard_path(store.folder, 0), "r") as file:
        attributes = dict(file.attrs)
    shown = {name: attributes[name] for name in ("encoder", "revision", "input", "precision", "dtype")}
    assert shown == {
        "encoder": "fake",
        "revision": "1",
        "input": "as recorded",
        "precision": "float32",
        "dtype": "float16",
    }
    assert attributes["layers"].tolist() == [1, 2]
    assert (attributes["frame_rate"], attributes["sample_rate"]) == (50, 16_000)
    assert json.loads(attributes["versions"])["torch"] == version("torch")
    assert store.info == StoreInfo.read(store.folder)


def test_the_identity_is_of_the_features_however_they_are_cut(corpus: Corpus, tmp_path: Path) -> None:
    whole = extract(corpus, tmp_path / "whole").info
    same = [
        extract(corpus, tmp_path / "one", shard_bytes=ONE).info,
        extract(corpus, tmp_path / "layers", layers=[1]).info,
        extract(corpus, tmp_path / "name", Fake(name="elsewhere/fake")).info,
        extract(replace(corpus, utterances=corpus.utterances[::-1]), tmp_path / "reversed").info,
    ]
    assert {info.identity for info in same} == {whole.identity}
    others = [
        extract(replace(corpus, utterances=corpus.utterances[:-1]), tmp_path / "fewer").info,
        extract(corpus, tmp_path / "dtype", dtype="float32").info,
        extract(corpus, tmp_path / "revision", Fake(revision="2")).info,
        extract(corpus, tmp_path / "input", Fake(input="as recorded")).info,
        extract(corpus, tmp_path / "precision", Fake(precision="bfloat16")).info,
    ]
    tone(corpus.utterances[0].audio, 0.3, hertz=999.0)
    others.append(extract(corpus, tmp_path / "recordings").info)
    assert len({whole.identity, *(info.identity for info in others)}) == 7


def test_any_id_will_do(tmp_path: Path) -> None:
    ids = ("../up", "a/b/c.wav", "ü 日本語 🎵", 'quote " and \\ back', "line\nbreak", "[bold]")
    utterances = tuple(
        Utterance(id_, tone(tmp_path / f"{i}.wav", 0.3, hertz=200 + 50 * i)) for i, id_ in enumerate(ids)
    )
    store = extract(Corpus("odd", utterances, "own", "speaker"), tmp_path / "store", shard_bytes=ONE)
    for utterance in utterances:
        assert np.array_equal(FeatureStore(store.folder).read(utterance.id, 1), expected(utterance)[1])


# How it is read


def by_h5py(store: FeatureStore, id_: str, layer: int) -> np.ndarray:
    """As somebody reads it who knows only the file's layout."""
    index = next(i for i, ids in enumerate(store.info.shards) if id_ in ids)
    with h5py.File(shard_path(store.folder, index), "r") as file:
        u = [i.decode() for i in file["ids"][:]].index(id_)
        start, stop = file["offsets"][u : u + 2]
        frames: np.ndarray = file["states"][file.attrs["layers"].tolist().index(layer), start:stop]
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("open_shards", [1, 2, 256])
@pytest.mark.parametrize("mapped_bytes", [1, 2**30])
def test_random_access_agrees_with_h5py(
    open_shards: int, mapped_bytes: int, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while shards are unmapped, and their memory given back, all the time."""
    monkeypatch.setattr(stores, "OPEN_SHARDS", open_shards)
    forgotten = []
    monkeypatch.setattr(Shard, "forget", lambda shard, forget=Shard.forget: forgotten.append(forget(shard)))
    extract(corpus, tmp_path / "store", layers=[0, 2])
    store, chance = FeatureStore(tmp_path / "store", mapped_bytes), random.Random(0)
    for _ in range(40):
        ids, layers = chance.choices(store.ids, k=chance.randint(1, 9)), chance.sample([0, 2], chance.randint(1, 2))
        states_LND, frames = store.gather(ids, layers)
        assert frames.tolist() == [store.num_frames(i) for i in ids]
        for layer, states_ND in zip(layers, states_LND, strict=True):
            assert np.array_equal(states_ND, np.concatenate([by_h5py(store, i, layer) for i in ids]))
            assert np.array_equal(store.read(ids[0], layer), by_h5py(store, ids[0], layer))
    assert bool(forgotten) == (mapped_bytes == 1)


def test_what_was_gathered_is_the_callers_own(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    before = store.read("u00", 1).copy()
    store.read("u00", 1)[:] = 7
    assert np.array_equal(store.read("u00", 1), before)


def test_few_files_are_open_however_many_shards_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(tones(tmp_path / "recordings", (0.02,) * 40), tmp_path / "store", shard_bytes=1)
    monkeypatch.setattr(stores, "OPEN_SHARDS", 5)
    store = FeatureStore(tmp_path / "store")
    assert len(store.info.shards) == 40

    def at_most(number: int) -> None:
        assert len(os.listdir("/proc/self/fd")) <= before + number

    before, mapped = len(os.listdir("/proc/self/fd")), stores.FeatureStore._mapped

    def watching(store: FeatureStore, *arguments: Any) -> Any:
        at_most(5 + 1)  # the last call's shard is let go of with its arrays
        return mapped(store, *arguments)

    monkeypatch.setattr(stores.FeatureStore, "_mapped", watching)
    assert store.gather(store.ids, [0, 1])[0].shape == (2, 40, 4)
    at_most(5)


def test_one_layer_of_one_utterance_is_one_run_of_bytes(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[0, 2])
    for index, ids in enumerate(store.info.shards):
        path, begin, end = states_at(store, index)
        with h5py.File(path, "r") as file:
            dataset, edges = file["states"], file["offsets"][:]
            assert (dataset.chunks, dataset.compression, dataset.dtype) == (None, None, np.float16)
            _, frames, dim = dataset.shape
        raw = path.read_bytes()[begin:end]
        for u, id_ in enumerate(ids):
            for row, layer in enumerate((0, 2)):
                start, stop = ((row * frames + edge) * dim * 2 for edge in edges[u : u + 2])
                assert raw[start:stop] == store.read(id_, layer).tobytes()


def test_an_unknown_layer_or_utterance(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[2, 0])
    assert store.info.layers == (0, 2)
    assert "layer 1 is not stored; it holds 0, 2" in refusal(store.read, "u03", 1)
    assert "zzz" not in store
    assert "'zzz'" in refusal(store.read, "zzz", 0)
    assert "'zzz'" in refusal(store.num_frames, "zzz")


@pytest.mark.parametrize("mapped", [False, True])
def test_who_reads_while_layers_are_added_reads_the_right_ones(mapped: bool, corpus: Corpus, tmp_path: Path) -> None:
    """The shards are replaced by others, in which the layers lie elsewhere."""
    store = extract(corpus, tmp_path / "store", layers=[1, 2])
    before = {(id_, layer): by_h5py(store, id_, layer) for id_ in store.ids for layer in (1, 2)}
    assert [store.num_frames(id_) for id_ in store.ids]  # the headers are read
    if mapped:
        store.gather(store.ids, [1])
    extract(corpus, tmp_path / "store", layers=[0])
    for (id_, layer), states in before.items():
        index, u = store._where[id_]
        assert np.array_equal(store.shard(index).read(layer, u), states)
        assert np.array_equal(store.read(id_, layer), states)
    assert all(store.shard(i).damaged() == [] for i in range(len(store.info.shards)))


# Damage, and stores that are none


def test_a_flipped_bit_is_found(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    path, begin, end = states_at(store, 4)
    assert Shard(path, store.info.encoder).damaged() == []
    for position, id_ in ((begin, "u06"), (end - 1, "u00")):
        flip(path, position)
        assert Shard(path, store.info.encoder).damaged() == [id_]
        flip(path, position)
    assert Shard(path, store.info.encoder).damaged() == []


@pytest.mark.slow
def test_whatever_byte_is_damaged_it_is_found_or_does_no_harm(tmp_path: Path) -> None:
    store = extract(tones(tmp_path / "recordings", (0.1, 0.2)), tmp_path / "store", shard_bytes=ONE)
    path, encoder = shard_path(store.folder, 0), store.info.encoder
    whole, good = path.read_bytes(), {(id_, layer): store.read(id_, layer) for id_ in store.ids for layer in range(3)}
    detected = 0
    for position in range(0, len(whole), 61):
        flip(path, position)
        try:
            damaged = Shard(path, encoder).damaged()
            assert damaged or all(
                np.array_equal(FeatureStore(store.folder).read(*key), value) for key, value in good.items()
            )
            detected += bool(damaged)
        except UserError:
            detected += 1
        put(path, whole)
    assert detected > 10


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.9])
def test_a_shard_cut_short(keep: float, corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    path = shard_path(store.folder, 0)
    store.num_frames("u07")  # its header is read
    whole = path.read_bytes()
    put(path, whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    for opened in (store, FeatureStore(store.folder)):
        assert f"{path}: not readable as a shard" in refusal(opened.read, "u07", 0)


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("(revision: 2 there, 1 in store.json)", {"encoder": Fake(revision="2")}),
        ("(precision: bfloat16 there, float32 in store.json)", {"encoder": Fake(precision="bfloat16")}),
        ("(input: as recorded there,  in store.json)", {"encoder": Fake(input="as recorded")}),
        ("belongs to another store", {"dtype": "float32"}),
        ("holds layers (0, 2)", {"layers": [0, 2]}),
        ("belongs to another store", {"shard_bytes": ONE}),
    ],
)
def test_a_shard_of_another_store(named: str, change: dict[str, Any], corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store", layers=[0, 1])
    extract(corpus, tmp_path / "other", **{"layers": [0, 1], **change})
    path = shard_path(store.folder, 0)
    put(path, shard_path(tmp_path / "other", 0).read_bytes())
    message = refusal(FeatureStore(store.folder).read, "u07", 0)
    assert str(path) in message
    assert named in message


def test_a_shard_of_other_recordings_of_the_same_names(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    tone(corpus.utterances[7].audio, 0.6, hertz=999.0)
    extract(corpus, tmp_path / "other")
    put(shard_path(store.folder, 0), shard_path(tmp_path / "other", 0).read_bytes())
    assert "belongs to another store" in refusal(FeatureStore(store.folder).read, "u07", 0)


def test_a_missing_shard_is_told_at_once(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    shard_path(store.folder, 1).unlink()
    assert "1 of 6 shards are gone, 1 the first; run the same `bas extract`" in refusal(FeatureStore, store.folder)


def test_no_store_here(tmp_path: Path) -> None:
    assert "no store.json" in refusal(FeatureStore, tmp_path)


def test_a_store_of_the_format_before_is_refused_by_readers_and_extractions(corpus: Corpus, tmp_path: Path) -> None:
    store = extract(corpus, tmp_path / "store")
    rewrite(store.folder / "store.json", {**read_json(store.folder / "store.json"), "format": 1})
    for call in (lambda: FeatureStore(store.folder), lambda: extract(corpus, store.folder)):
        message = refusal(call)
        assert str(store.folder / "store.json") in message
        assert "format 1, this bas reads 2; extract it again into another folder" in message


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2, "layers": [], "shards": []}'])
def test_a_broken_store_json(text: str, corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "store")
    (tmp_path / "store/store.json").write_text(text)
    assert str(tmp_path / "store/store.json") in refusal(FeatureStore, tmp_path / "store")


def test_a_shard_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    blocks = {"a": np.ones((1, 5, 4), np.float16), "b": np.ones((1, 5, 4), np.float16)}
    sums = np.array([[0, 0]], np.uint32)  # not those of the blocks: as if the disk gave back other bytes
    held = Contents(Fake().info.to_dict(), "float16", (0,), tuple(blocks), offsets([5, 5]), sums, ("x", "y"), {})
    path = shard_path(tmp_path, 0)
    with pytest.raises(OSError, match="a cannot be read back as it was written"):
        write_shard(path, held, lambda layer, u: blocks["ab"[u]][layer])
    with pytest.raises(ZeroDivisionError):
        write_shard(path, held, lambda layer, u: blocks["ab"[u]][layer] if u == 0 else 1 // 0)
    assert list(tmp_path.iterdir()) == []
