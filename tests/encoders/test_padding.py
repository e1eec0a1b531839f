"""Audio-level padding: what the encoder is given, what is stored, told, refused and verified."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extracting import Fake, extract
from refusals import refusal
from sounds import DURATIONS
from stores import SECONDS, manifest, quiet, store
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from bas.cli.main import main
from bas.corpora import Corpus
from bas.encoders import LOG_MEL, Padded, load_encoder, padded_as
from bas.features.info import describe
from bas.features.store import FeatureStore
from bas.features.verify import verify
from bas.speech import audio

CPU = torch.device("cpu")


def tail(wave: audio.Wave, seconds: float) -> audio.Wave:
    return np.concatenate([wave, np.zeros(round(seconds * 16_000) - len(wave), np.float32)])


@pytest.mark.parametrize("batch_seconds", [0.1, 60.0])
def test_each_frame_of_the_padded_wave_is_stored(corpus: Corpus, tmp_path: Path, batch_seconds: float) -> None:
    padded = extract(corpus, tmp_path / "padded", Padded(Fake(), 0.7), batch_seconds=batch_seconds)
    assert {padded.num_frames(u.id) for u in corpus.utterances} == {35}
    for u in corpus.utterances:
        expected_LTD = Fake().states(torch.from_numpy(tail(audio.load(u), 0.7))).half().numpy()
        for layer in range(3):
            assert np.array_equal(padded.read(u.id, layer), expected_LTD[layer])
        assert not padded.read(u.id, 0)[-4:].any()  # the longest is 0.6 s


def test_a_speech_encoder_is_given_the_silence_too(hubert: Path, corpus: Corpus, tmp_path: Path) -> None:
    """Against `transformers` alone: its preprocessor normalises over the zeros, and no mask is set."""
    padded = extract(corpus, tmp_path / "padded", Padded(load_encoder(str(hubert), CPU), 0.8), dtype="float32")
    model, prepare = HubertModel.from_pretrained(hubert).eval(), Wav2Vec2FeatureExtractor()
    for u in corpus.utterances[:3]:
        given = prepare(tail(audio.load(u), 0.8), sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            states = model(given["input_values"], output_hidden_states=True).hidden_states
        for layer, expected_1TD in enumerate(states):
            np.testing.assert_allclose(padded.read(u.id, layer), expected_1TD[0].numpy(), rtol=1e-3, atol=1e-4)


def test_the_length_is_part_of_what_a_store_is(corpus: Corpus, tmp_path: Path) -> None:
    given = {"plain": Fake(), "0.7": Padded(Fake(), 0.7), "0.8": Padded(Fake(input="as recorded"), 0.8)}
    infos = {name: extract(corpus, tmp_path / name, encoder).info for name, encoder in given.items()}
    assert len({info.identity for info in infos.values()}) == 3
    assert [info.encoder["input"] for info in infos.values()] == [
        "",
        "padded with zeros to 0.7 s",
        "as recorded, padded with zeros to 0.8 s",
    ]
    assert {samples for _, samples in infos["0.7"].recordings.values()} == {11_200}
    message = refusal(extract, corpus, tmp_path / "plain", Padded(Fake(), 0.7))
    assert "input:  there, padded with zeros to 0.7 s asked" in message
    assert describe(tmp_path / "0.7", quiet())["input"] == "16 kHz, padded with zeros to 0.7 s"


def test_the_plan_knows_how_much_it_will_be(corpus: Corpus, tmp_path: Path) -> None:
    console = quiet()
    extract(corpus, tmp_path / "store", Padded(Fake(), 60.0), console=console)
    bytes_ = len(DURATIONS) * 60 * 50 * 3 * 4 * 2
    assert f"{bytes_ / 2**20:,.0f} MiB to write" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_longer_recording_is_refused_before_anything_is_encoded(corpus: Corpus, tmp_path: Path) -> None:
    fake = Fake()
    message = refusal(extract, corpus, tmp_path / "store", Padded(fake, 0.45))
    assert message.startswith(
        f"{corpus.utterances[7].audio}: u07: 0.60 s, the longest of 3 beyond the 0.45 s of --pad-"
    )
    assert message.endswith("skip them with --longest 0.45")
    assert not fake.batches
    assert not list((tmp_path / "store").glob("*.*"))
    padded = extract(corpus, tmp_path / "store", Padded(fake, 0.45), longest=0.45)
    assert set(padded.info.skipped) == {"u01", "u04", "u07"}
    assert {padded.num_frames(id_) for id_ in padded.ids} == {22}


def test_the_very_length_is_not_longer(corpus: Corpus, tmp_path: Path) -> None:
    padded = extract(corpus, tmp_path / "store", Padded(Fake(), max(DURATIONS)))
    assert padded.info.num_utterances == len(DURATIONS)


def test_a_length_that_the_encoder_cannot_take_is_refused(hubert: Path) -> None:
    message = refusal(Padded, load_encoder(str(hubert), CPU), 0.01)
    assert "padding to 0.01 s: encoder" in message
    assert "needs 0.025 s at least" in message


def test_one_sample_of_rounding_is_cut() -> None:
    padded = Padded(Fake(), 0.1)
    wave = np.arange(1601, dtype=np.float32)
    assert np.array_equal(padded.prepare(wave).numpy(), wave[:1600])
    with pytest.raises(AssertionError, match="a plan refuses"):
        padded.prepare(np.arange(1602, dtype=np.float32))


@pytest.mark.parametrize("seconds", [0.7, 1 / 3, 12.0, 1234.56789])
def test_a_store_tells_how_to_pad_again(seconds: float) -> None:
    made = Padded(Fake(input="log-mel padded to 30 s"), seconds)
    again = padded_as(Fake(input="log-mel padded to 30 s"), made.info.input)
    assert isinstance(again, Padded)
    assert (again.samples, again.info) == (made.samples, made.info)
    plain = Fake(input="log-mel padded to 30 s")
    assert padded_as(plain, plain.info.input) is plain


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifest(tmp_path / "tones.csv", {f"u{i}": seconds for i, seconds in enumerate(SECONDS)})


def test_a_padded_store_is_verified(root: Path, tmp_path: Path) -> None:
    encoder: Any = Padded(load_encoder(LOG_MEL, CPU), 0.75)
    folder = store(root, tmp_path / "store", encoder).folder
    findings = list(verify(folder, quiet(), CPU, sample=2))
    assert [f.check for f in findings if f.problems] == []
    assert "2 utterances encoded again" in findings[-1].summary


def test_by_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    into = tmp_path / "store"
    command = ["extract", "--corpus", "manifest", "--root", str(root), "--encoder", LOG_MEL, "--features", str(into)]
    assert main([*command, "--pad-audio", "0.7"]) == 0
    padded = FeatureStore(into)
    assert {padded.num_frames(id_) for id_ in padded.ids} == {71}
    assert np.allclose(padded.read("u0", 0)[-8:], np.log(1e-6), atol=0.01)
    assert main([*command, "--pad-audio", "0.5"]) == 2
    assert "the longest of 2 beyond the 0.5 s of --pad-audio" in capsys.readouterr().err
    assert main([*command, "--pad-audio", "0"]) == 2
    assert "must be above 0" in capsys.readouterr().err
