import _ctypes

# mypy: disable-error-code="arg-type,var-annotated"
import ctypes
import importlib.util
import itertools
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from bas.corpora.readers import espeak, synthetic
from bas.errors import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="espeak-ng is not installed: pip install 'bas[demo]'"
)

SMALL: dict[str, Any] = {"speakers": 3, "sentences": 2}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("demo")
    return root, synthetic.synthesise(root)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("small")
    return root, synthetic.synthesise(root, **SMALL)


def files(root: Path) -> Any:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*.*") if p.suffix}


@pytest.mark.slow
def test_the_corpus_is_whole_and_balanced(demo: Any) -> None:
    root, corpus = demo
    assert (corpus.name, corpus.protocol, corpus.unit) == ("demo", "speaker:5", "speaker")
    assert "not real emotion" in corpus.note
    assert len(corpus.utterances) == 10 * 12 * 4
    assert len(corpus.labelled("speaker")) == len(corpus.utterances)
    counts = defaultdict(int)
    for u in corpus.utterances:
        counts[u.speaker, u.label] += 1
        assert u.id == f"{u.speaker}-{u.id.split('-')[1]}-{u.label}"
        assert (u.session, u.split, u.language) == (None, None, "en")
        info = soundfile.info(u.audio)
        assert (info.samplerate, info.channels, info.subtype, info.format) == (16000, 1, "PCM_16", "WAV")
        assert 1.0 < info.duration < 3.5
    assert len(counts) == 40
    assert set(counts.values()) == {12}
    assert not list(root.rglob("*.tmp"))


def test_words_are_the_text_and_lie_in_order_inside_the_recording(demo: Any) -> None:
    _, corpus = demo
    for u in corpus.utterances:
        assert " ".join(w.text for w in u.words) == u.text.strip(".")
        times = [t for w in u.words for t in (w.start, w.end)]
        assert times == sorted(times)
        assert all(w.start < w.end for w in u.words)
        assert times[0] > 0
        assert times[-1] < soundfile.info(u.audio).duration


def test_words_are_where_the_sound_is(demo: Any) -> None:
    _, corpus = demo
    for u in corpus.utterances[::16]:
        wav, rate = soundfile.read(u.audio)
        first, last = round(u.words[0].start * rate), round(u.words[-1].end * rate)
        silence = np.concatenate([wav[: first - 80], wav[last + 320 :]])
        assert silence.std() < 0.3 * wav[first:last].std()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(small: Any, tmp_path: Path) -> None:
    root, _ = small
    synthetic.synthesise(tmp_path / "again", **SMALL)
    assert files(tmp_path / "again") == files(root)
    synthetic.synthesise(tmp_path / "other", seed=1, **SMALL)
    ours, other = files(root), files(tmp_path / "other")
    assert ours.keys() == other.keys()
    assert all(ours[name] != other[name] for name in ours)


def test_an_utterance_does_not_depend_on_the_ones_before_it(demo: Any, small: Any) -> None:
    (_, corpus), (_, part) = demo, small
    everything = {u.id: u for u in corpus.utterances}
    for u in part.utterances:  # spoken after others in the whole corpus than in the small one
        assert u.audio.read_bytes() == everything[u.id].audio.read_bytes()
        assert u.words == everything[u.id].words

    library, data = espeak.find()
    scripts = {s.id: s for s in synthetic.script(0)}
    for uid in ("spk09-s05-anger", "spk01-s01-sadness", "spk06-s12-neutral"):  # alone, in no order
        speech, _ = espeak.speak(library, data, scripts[uid])
        wav = np.round(synthetic._record(speech, scripts[uid]) * 2**15)
        np.testing.assert_allclose(soundfile.read(everything[uid].audio, dtype="int16")[0], wav, atol=1)


def test_a_finished_corpus_is_not_spoken_again(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root, corpus = small
    monkeypatch.setattr(espeak, "find", lambda: pytest.fail("spoken again"))
    assert synthetic.synthesise(root, **SMALL) == corpus == synthetic.read(root)


@pytest.mark.slow
@pytest.mark.parametrize("manifest_left", [True, False])
def test_a_torn_corpus_is_finished_with_the_same_files(small: Any, tmp_path: Path, manifest_left: Any) -> None:
    root, corpus = small
    whole = files(root)
    synthetic.synthesise(tmp_path, **SMALL)
    for u in corpus.utterances[::2]:
        (tmp_path / "wav" / f"{u.id}.wav").unlink()
    (tmp_path / "wav" / f"{corpus.utterances[0].id}.wav.tmp").write_bytes(b"RIFF")
    if not manifest_left:
        (tmp_path / "manifest.jsonl").unlink()
    synthetic.synthesise(tmp_path, **SMALL)
    assert files(tmp_path) == whole


def test_a_killed_call_leaves_no_manifest_and_the_next_one_finishes(small: Any, tmp_path: Path) -> None:
    def kill(done: Any, total: Any) -> None:
        assert total == 3 * 2 * 4
        if done == 7:
            raise KeyboardInterrupt

    synthetic.synthesise(tmp_path, seed=1, **SMALL)  # what stood there before
    with pytest.raises(KeyboardInterrupt):
        synthetic.synthesise(tmp_path, on_progress=kill, **SMALL)
    with pytest.raises(UserError, match="manifest"):
        synthetic.read(tmp_path)
    synthetic.synthesise(tmp_path, **SMALL)
    assert files(tmp_path) == files(small[0])


def f0(wav: Any, rate: Any = 16000) -> Any:
    """The median over voiced frames of the autocorrelation's peak between 60 and 500 Hz."""
    pitches = []
    for at in range(0, len(wav) - 800, 400):
        frame = wav[at : at + 800] - wav[at : at + 800].mean()
        if frame.std() > wav.std() / 2:
            r = np.correlate(frame, frame, "full")[799:]
            lags = np.arange(rate // 500, rate // 60)
            pitches.append(rate / lags[r[lags].argmax()])
    return np.median(pitches)


def test_the_emotions_go_the_way_the_literature_says(demo: Any) -> None:
    _, corpus = demo
    pitches: defaultdict[str, list[float]] = defaultdict(list)
    durations: defaultdict[str, list[float]] = defaultdict(list)
    for u in corpus.utterances:
        durations[u.label].append(u.words[-1].end - u.words[0].start)
        if u.id.split("-")[1] in ("s02", "s05", "s09"):
            pitches[u.label].append(f0(soundfile.read(u.audio)[0]))
    pitch = {label: np.mean(x) for label, x in pitches.items()}
    duration = {label: np.mean(x) for label, x in durations.items()}
    assert duration["sadness"] > 1.08 * duration["neutral"]
    assert duration["anger"] < 0.95 * duration["neutral"]
    assert pitch["anger"] > pitch["happiness"] > 1.1 * pitch["neutral"]
    assert pitch["sadness"] < 0.97 * pitch["neutral"]


def log_mel(wav: Any) -> Any:
    """80 bands, windows of 25 ms every 10 ms, the natural logarithm with a floor at 1e-6: (time, band)."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 82) / 2595) - 1)
    hz = np.arange(257) * 16000 / 512
    up = (hz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    down = (edges[2:, None] - hz) / np.diff(edges)[1:, None]
    frames = np.lib.stride_tricks.sliding_window_view(wav, 400)[::160] * np.hanning(400)
    return np.log(np.maximum(np.abs(np.fft.rfft(frames, 512)) ** 2 @ np.clip(np.minimum(up, down), 0, None).T, 1e-6))


@pytest.mark.slow
def test_the_corpus_is_neither_hopeless_nor_saturated(demo: Any) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    _, corpus = demo
    features = [log_mel(soundfile.read(u.audio)[0]) for u in corpus.utterances]
    labels = np.array([u.label for u in corpus.utterances])
    speakers = [u.speaker for u in corpus.utterances]

    def accuracy(x: Any) -> Any:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=2000))
        return np.mean(cross_val_predict(model, x, labels, groups=speakers, cv=GroupKFold(5)) == labels)

    loudness = accuracy(np.array([[f.mean()] for f in features]))
    mean = accuracy(np.array([f.mean(0) for f in features]))
    course = [np.concatenate([f.mean(0), f.std(0), np.diff(f, axis=0).std(0)]) for f in features]
    assert loudness < 0.55
    assert 0.5 < mean < 0.9
    assert mean + 0.05 < accuracy(np.array(course)) < 0.95


def test_seeds_draw_apart_and_values_stay_in_range() -> None:
    for s in itertools.chain.from_iterable(synthetic.script(seed) for seed in range(20)):
        assert 0 <= s.pitch <= 99
        assert 0 <= s.range <= 99
        assert 80 <= s.rate_wpm <= 450
        assert s.gain_db < 3  # espeak-ng's speech leaves that much below full scale
    assert [s.id for s in synthetic.script(0, 2, 3)] == sorted(s.id for s in synthetic.script(5, 2, 3))


def test_two_words_spoken_as_one_stay_one_entry() -> None:
    library, data = espeak.find()
    script = replace(synthetic.script(0, 1, 1)[0], text="It is on the table.")
    _, words = espeak.speak(library, data, script)
    assert " ".join(text for _, _, text in words) == "It is on the table"


def test_without_espeak_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'bas\[demo\]'"):
        synthetic.synthesise(tmp_path)


def test_a_library_in_use_is_refused(tmp_path: Path) -> None:
    import espeakng_loader

    lib = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        with pytest.raises(UserError, match="already"):
            synthetic.synthesise(tmp_path)
    finally:
        _ctypes.dlclose(lib._handle)


def test_data_that_espeak_cannot_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library, _ = espeak.find()
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(espeak, "find", lambda: (library, str(tmp_path / "empty")))
    with pytest.raises(UserError, match="empty: espeak-ng"):
        synthetic.synthesise(tmp_path / "demo")
    monkeypatch.setattr(espeak, "find", lambda: (str(tmp_path / "no.so"), str(tmp_path)))
    with pytest.raises(UserError, match=r"no\.so: cannot be loaded"):
        synthetic.synthesise(tmp_path / "demo")


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"speakers": 0}, {"speakers": 11}, {"sentences": 13}])
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        synthetic.synthesise(tmp_path, **wrong)
