"""Whatever a corpus or a disk holds in store for an extraction has an outcome with a name: kept, skipped or refused."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from extracting import ALONE, ONE, Fake, contents, extract, finished, leftovers, marks
from refusals import refusal
from sounds import tone, tones
from torch import Tensor

from bas.corpora import Corpus, Utterance
from bas.encoders import load_encoder
from bas.features.extract import Group
from bas.features.shard import Shard, shard_path
from bas.features.store import FeatureStore
from bas.speech import audio
from bas.util.files import locked

# Recordings


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "PCM_32", "FLOAT"])
def test_any_rate_and_depth_in_stereo_ends_in_the_store(rate: int, subtype: str, tmp_path: Path) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 220 * np.arange(rate) / rate)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave], 1), rate, subtype=subtype)
    corpus = Corpus("c", (Utterance("a", tmp_path / "a.wav"),), "own", "speaker")
    states = extract(corpus, tmp_path / "store").read("a", 0)
    expected = Fake().states(torch.from_numpy(audio.load(Utterance("b", tone(tmp_path / "b.wav", 1.0)))))[0]
    assert states.shape == (50, 4)
    assert np.abs(states - expected.numpy())[2:-2].max() < 0.02  # of 8 bits; the resampler looks over both ends


def spoil(path: Path, how: str) -> None:
    match how:
        case "missing":
            path.unlink()
        case "zero bytes":
            path.write_bytes(b"")
        case "no audio":
            path.write_text("no audio\nat all\n" * 100)
        case "no samples":
            tone(path, 0.0)
        case "10 ms":
            tone(path, 0.01)
        case "NaN":
            wave, rate = soundfile.read(path)
            wave[100] = np.nan
            soundfile.write(path, wave, rate, subtype="FLOAT")
        case "unknown length":  # as of a FLAC that was written to a pipe
            soundfile.write(path, soundfile.read(path)[0], 16_000, format="FLAC")
            raw = bytearray(path.read_bytes())
            raw[21] &= 0xF0
            raw[22:26] = bytes(4)
            path.write_bytes(raw)
        case "breaks off":
            soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 8_000), 16_000, format="FLAC")
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "cannot be read as audio"),
        ("zero bytes", "cannot be read as audio"),
        ("no audio", "cannot be read as audio"),
        ("no samples", "holds no samples"),
        ("10 ms", "shorter than the 0.02 s"),
        ("NaN", "holds NaN or infinite samples"),
        ("unknown length", "does not say how long it is"),
        ("breaks off", "u05"),
    ],
)
def test_what_cannot_be_used_is_skipped_with_the_reason_and_tried_again(
    how: str, message: str, corpus: Corpus, tmp_path: Path
) -> None:
    bad, folder = corpus.utterances[5], tmp_path / "store"
    good = bad.audio.read_bytes()
    extract(corpus, tmp_path / "whole")
    spoil(bad.audio, how)
    for _ in range(2):  # tried again in vain, nothing moves
        store = extract(corpus, folder)
        assert store.info.skipped.keys() == {"u05"}
        assert str(bad.audio) in store.info.skipped["u05"]
        assert message in store.info.skipped["u05"]
        assert len(store.ids) == 7
        assert "u05" not in store.info.recordings
        assert re.search(f"u05.*{message}", refusal(store.read, "u05", 0))
    bad.audio.write_bytes(good)
    encoder = Fake()
    store = extract(corpus, folder, encoder)
    assert store.info.skipped == {}
    assert encoder.seen == marks(corpus, "u05")
    assert store.info.identity == FeatureStore(tmp_path / "whole").info.identity
    for id_ in store.ids:
        assert np.array_equal(store.read(id_, 1), FeatureStore(tmp_path / "whole").read(id_, 1))
    assert leftovers(folder) == []


def test_the_reason_told_is_todays(corpus: Corpus, tmp_path: Path) -> None:
    bad = corpus.utterances[5].audio
    spoil(bad, "NaN")
    extract(corpus, tmp_path / "store", shard_bytes=ONE)
    spoil(bad, "no samples")
    assert "holds no samples" in extract(corpus, tmp_path / "store", shard_bytes=ONE).info.skipped["u05"]
    tone(corpus.utterances[4].audio, 0.01)
    new = Utterance("new", tone(tmp_path / "new.wav", 0.3))
    gone = replace(corpus, utterances=(*(u for u in corpus.utterances if u.id != "u05"), new))
    assert extract(gone, tmp_path / "store").info.skipped == {}, "whoever has left the corpus is not skipped by it"


def test_log_mel_takes_10_ms(tmp_path: Path) -> None:
    store = extract(tones(tmp_path / "a", (0.01,)), tmp_path / "store", load_encoder("log-mel", torch.device("cpu")))
    assert store.num_frames("u00") == 2


@pytest.mark.parametrize("how", ["missing", "NaN"])
def test_a_corpus_of_which_nothing_can_be_used_is_refused_without_a_trace(
    how: str, corpus: Corpus, tmp_path: Path
) -> None:
    whole = [u.audio.read_bytes() for u in corpus.utterances]
    for utterance in corpus.utterances:
        spoil(utterance.audio, how)
    message = refusal(extract, corpus, tmp_path / "store")
    assert "no utterance can be used" in message or "no utterance could be extracted" in message
    assert ".wav" in message
    assert not (tmp_path / "store").exists()
    for utterance, good in zip(corpus.utterances, whole, strict=True):
        utterance.audio.write_bytes(good)
    assert extract(corpus, tmp_path / "store").info.skipped == {}


@pytest.fixture
def hour(tmp_path: Path) -> Corpus:
    """Beside three tones, an hour at 8 kHz in 8 bits: 29 MB."""
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 8_000, 1, subtype="PCM_U8") as file:
        for _ in range(60):
            file.write(0.5 * np.sin(2 * np.pi * 220 * np.arange(60 * 8_000) / 8_000))
    few = tones(tmp_path / "recordings", (0.3, 0.2, 0.4))
    return replace(few, utterances=(*few.utterances, Utterance("hour", tmp_path / "hour.wav")))


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes of memory that the call took at its worst."""

    def status(name: str) -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
        return 1024 * int(line.split()[1])

    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


@pytest.mark.slow
def test_an_hour_in_one_piece_takes_memory_for_one_hour_only(hour: Corpus, tmp_path: Path) -> None:
    peak = peak_of(lambda: extract(hour, tmp_path / "store", shard_bytes=10**9))
    assert peak < 3 * 2**30  # resampling takes ten times its samples in float32
    store = FeatureStore(tmp_path / "store")
    assert store.num_frames("hour") == 3600 * 50
    assert store.ids[0] == "hour"


@pytest.mark.slow
def test_what_is_longer_than_wished_is_skipped_and_the_option_named(hour: Corpus, tmp_path: Path) -> None:
    store = extract(hour, tmp_path / "store", longest=30)
    assert store.info.skipped["hour"].endswith("3600.0 s, more than 30 s: cut it (start, end), or raise --longest")
    assert len(store.ids) == 3
    assert "more than 0.35 s" in extract(hour, tmp_path / "lower", longest=0.35).info.skipped["u02"]
    assert "hour" in extract(hour, tmp_path / "higher", longest=4_000, shard_bytes=10**9)


class Meddling(Fake):
    """Something is done to the recordings at its first batch, and the crew is one thread."""

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do: Callable[[], object] | None = do

    def encode(self, inputs: Any) -> list[Tensor]:
        if self.do:
            self.do()
        self.do = None
        return super().encode(inputs)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (Path.unlink, "cannot be read as audio"),
        (lambda path: tone(path, 0.2, hertz=999.0), "changed while it was extracted"),  # of equal length
        (lambda path: tone(path, 0.7), "changed while it was extracted"),
    ],
)
def test_a_file_that_goes_or_changes_half_way_is_skipped(
    do: Callable[[Path], object], message: str, corpus: Corpus, tmp_path: Path
) -> None:
    path = corpus.utterances[5].audio  # of the last batch
    store = extract(corpus, tmp_path / "store", Meddling(lambda: do(path)), group=ALONE)
    assert f"{path}: {message}" in store.info.skipped["u05"]
    assert len(store.ids) == 7
    tone(path, 0.4)  # never held, so it may be any recording
    assert extract(corpus, tmp_path / "store").num_frames("u05") == 20


def test_a_drive_that_is_away_leaves_what_is_held(corpus: Corpus, tmp_path: Path) -> None:
    """Nothing is read of the recordings of what is complete; where layers are to be added they are needed."""
    first = extract(corpus, tmp_path / "store", layers=[0])
    path = corpus.utterances[5].audio
    whole = path.read_bytes()
    path.unlink()
    again = extract(corpus, tmp_path / "store", layers=[0])
    assert (again.info.identity, again.info.skipped) == (first.info.identity, {})
    assert "layers (1,) cannot be added, u05 is stored but now: " in refusal(
        extract, corpus, tmp_path / "store", layers=[1]
    )
    assert np.array_equal(FeatureStore(tmp_path / "store").read("u05", 0), first.read("u05", 0))
    path.write_bytes(whole)
    assert extract(corpus, tmp_path / "store", layers=[1]).info.layers == (0, 1)


# Features


class Wild(Fake):
    """One value of the utterance of 0.2 s is another; a crew of one thread comes to it last."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def states(self, x: Tensor) -> Tensor:
        states = super().states(x)
        if len(x) == 3_200:
            states[1, 2, 3] = self.value
        return states


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("layers", [None, [0]])
def test_a_feature_that_is_no_number_is_skipped(
    value: float, dtype: str, layers: list[int] | None, corpus: Corpus, tmp_path: Path
) -> None:
    """Whichever layers are stored, so that layers can be added."""
    store = extract(corpus, tmp_path / "store", Wild(value), dtype=dtype, layers=layers, shard_bytes=ONE)
    assert store.info.skipped == {"u05": f"{corpus.utterances[5].audio}: a feature is NaN or infinite"}
    assert len(store.ids) == 7
    assert Shard(shard_path(store.folder, 0), store.info.encoder).damaged() == []
    more = extract(corpus, tmp_path / "store", Wild(value), dtype=dtype, layers=[2], shard_bytes=ONE)
    assert more.info.layers == ((0, 1, 2) if layers is None else (0, 2))
    assert more.info.skipped.keys() == {"u05"}


def test_a_value_beyond_float16_is_refused_and_nothing_is_lost(corpus: Corpus, tmp_path: Path) -> None:
    folder, first, second = tmp_path / "store", Wild(70_000.0), Fake()
    message = refusal(extract, corpus, folder, first, shard_bytes=ONE, group=ALONE)
    assert f"{corpus.utterances[5].audio}: u05: a feature is beyond float16 (65504): use --dtype float32" in message
    assert len(finished(folder, [0, 1, 2])) == 7
    assert "incomplete, 0 of 1 shards; run the same" in refusal(FeatureStore, folder)
    extract(corpus, folder, second, shard_bytes=ONE)
    assert second.seen == marks(corpus, "u05")
    assert extract(corpus, tmp_path / "float32", Wild(70_000.0), dtype="float32").read("u05", 1)[2, 3] == 70_000


# Two at a time


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Group(), Group()),
        (Group(token="a"), Group()),
        (Group(), Group(token="b")),
        (Group(token="a"), Group(token="b")),
    ],
)
def test_a_second_extraction_is_refused_and_the_first_undisturbed(
    first: Group, second: Group, corpus: Corpus, tmp_path: Path
) -> None:
    folder, messages = tmp_path / "store", []
    encoder = Meddling(lambda: messages.append(refusal(extract, corpus, folder, group=second)))
    extract(corpus, folder, encoder, group=replace(first, local_size=ALONE.local_size))
    assert messages == [f"{folder}: another process is extracting here; wait for it or stop it"]
    assert sorted(encoder.seen) == marks(corpus)
    extract(corpus, tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")
    with locked(folder, "extracting"):
        assert FeatureStore(folder).num_frames("u07") == 30  # reading asks for no lock
