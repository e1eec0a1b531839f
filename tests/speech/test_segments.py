"""Word segments: whose times they are, that nothing leaves the utterance, and a control that is one."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refusal
from sounds import tone

from bas.corpora import Utterance, Word
from bas.speech.words import PSEUDO_SECONDS, Segments, describe_unaligned, holder, random_like, word_segments


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    return tone(tmp_path / "a.wav", 1.0)


def spoken(wav: Path, *times: tuple[float, float], **fields: object) -> Utterance:
    return Utterance("a", wav, words=tuple(Word(a, b, f"w{i}") for i, (a, b) in enumerate(times)), **fields)


def segments(words: Sequence[Word], name: str = "words") -> Segments:
    return Segments(name, {"a": tuple(words)}, {"a": "corpus"})


def test_the_corpus_s_own_times_come_first_in_order_and_inside_the_utterance(wav: Path) -> None:
    aligned: list[str] = []

    def aligner(u: Utterance) -> tuple[Word, ...]:
        aligned.append(u.id)
        return (Word(0.1, 0.2, "aligned"),)

    utterance = spoken(wav, (0.5, 1.02), (0.1, 0.4), text="w0 w1")
    segmented = word_segments([utterance], aligner)
    assert segmented.of["a"] == (Word(0.1, 0.4, "w1"), Word(0.5, 1.0, "w0"))
    assert (segmented.name, dict(segmented.source), aligned) == ("words", {"a": "corpus"}, [])


def test_a_text_without_times_is_aligned_and_nothing_at_all_is_cut_into_equal_parts(wav: Path) -> None:
    utterances = [Utterance("t", wav, text="hello"), Utterance("b", wav, text=" "), Utterance("n", wav)]
    utterances.append(Utterance("d", wav, text="..."))
    done: list[int] = []
    segmented = word_segments(
        utterances, lambda u: (Word(0.1, 0.2, "hello"),) if u.id == "t" else (), lambda: done.append(1)
    )
    assert segmented.source == {"t": "aligned", "b": "pseudo", "n": "pseudo", "d": "pseudo"}
    assert segmented.counts == {"corpus": 0, "aligned": 1, "pseudo": 3}
    assert len(done) == 4
    parts = segmented.of["n"]
    assert len(parts) == round(1 / PSEUDO_SECONDS)
    assert (parts[0].start, parts[-1].end) == (0, 1)
    assert all(a.end == b.start for a, b in pairwise(parts))
    assert {w.text for w in parts} == {""}
    assert word_segments(utterances[:1]).source == {"t": "pseudo"}


def test_a_short_utterance_is_one_part_and_a_stretch_counts_from_its_own_start(tmp_path: Path) -> None:
    wav = tone(tmp_path / "a.wav", 2.0)
    segmented = word_segments([Utterance("s", wav, start=1.0, end=1.1), Utterance("l", wav, start=1.0)])
    assert segmented.of["s"] == (Word(0, pytest.approx(0.1), ""),)
    assert segmented.of["l"][-1].end == 1.0


BEYOND = [
    pytest.param([(0.1, 0.4), (1.5, 1.7)], id="beyond"),
    pytest.param([(0.1, 0.4), (1.0, 1.2)], id="at-the-end"),
    pytest.param([(5.0, 5.2), (0.1, 0.4)], id="not-in-order"),
    pytest.param([(100.0, 300.0), (300.0, 400.0)], id="milliseconds"),
]


@pytest.mark.parametrize("times", BEYOND)
@pytest.mark.parametrize("text", [None, "w0 w1"])
def test_words_beyond_the_recording_are_of_that_utterance_alone(wav: Path, times: Any, text: str | None) -> None:
    wrong, right = spoken(wav, *times, text=text), replace(spoken(wav, (0.1, 0.4)), id="b")
    aligned: list[str] = []
    segmented = word_segments([wrong, right], lambda u: (aligned.append(u.id), (Word(0.1, 0.2, "w0"),))[1])
    assert (segmented.source, aligned) == ({"a": "pseudo", "b": "corpus"}, [])
    assert segmented.of["b"] == (Word(0.1, 0.4, "w0"),)
    assert len(segmented.of["a"]) == round(1 / PSEUDO_SECONDS)
    (remark,) = describe_unaligned(segmented.unaligned)
    assert remark.startswith(
        "1 utterance is cut into pseudo-segments, as the text or its times do not fit the recording: a (the word 'w"
    )
    assert remark.endswith("s, but the utterance is 1.00 s long)")


@pytest.mark.parametrize("times", BEYOND)
def test_words_of_other_recordings_are_refused(wav: Path, times: Any) -> None:
    wrong = spoken(wav, *times)
    message = refusal(word_segments, [Utterance("0", wav), wrong])
    assert message.startswith(f"{wav}: a: the word 'w")
    assert message.endswith(" 1.00 s long; are its word times of another recording, or not in seconds?")
    message = refusal(word_segments, [Utterance("0", wav), wrong, replace(wrong, id="b")])
    assert "so it is with all 2 utterances that have word times; are its word times of another" in message


def test_words_without_a_length_are_our_own_mistake(wav: Path) -> None:
    with pytest.raises(AssertionError):
        word_segments([spoken(wav, (0.3, 0.3))])


def test_the_digest_is_of_all_of_it_and_of_no_order() -> None:
    words = {"a": (Word(0.0, 0.5, "x"),), "b": (Word(0.1, 0.2, "y"),)}
    source = {"a": "corpus", "b": "pseudo"}
    one = Segments("words", words, source)
    others = [
        Segments("random", words, source),
        Segments("words", words, {**source, "b": "aligned"}),
        Segments("words", {**words, "b": (Word(0.1, 0.2, "z"),)}, source),
        Segments("words", {**words, "b": (Word(0.1, 0.25, "y"),)}, source),
        one.only(["a"]),
    ]
    assert len({s.digest for s in (one, *others)}) == 6
    back = Segments("words", dict(reversed(words.items())), source)
    assert back.digest == one.digest == Segments.parse(one.to_dict()).digest
    assert Segments.parse(one.to_dict()) == one


@pytest.mark.parametrize("raw", [[], {"name": "words"}, {"name": "x", "of": {}, "source": {}}, None])
def test_what_is_no_segments_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match="no segments"):
        Segments.parse(raw)


@given(
    st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.01, 1)), min_size=1, max_size=12),
    st.floats(0, 3),
    st.integers(0, 5),
)
def test_random_stretches_are_of_the_same_lengths_without_overlap_inside(
    parts: list[tuple[float, float]], rest: float, seed: int
) -> None:
    words, at = [], 0.0
    for gap, length in parts:
        words.append(Word(at + gap, at + gap + length, "w"))
        at += gap + length
    stretches = random_like(segments(words), {"a": at + rest}, seed).of["a"]
    assert sorted(w.end - w.start for w in stretches) == pytest.approx(sorted(w.end - w.start for w in words), abs=1e-9)
    assert all(a.end <= b.start for a, b in pairwise(stretches))
    assert stretches[0].start >= 0
    assert stretches[-1].end <= at + rest
    assert {w.text for w in stretches} == {""}


def test_random_stretches_hang_on_the_seed_and_the_id_alone() -> None:
    words = (Word(0.1, 0.3, "x"), Word(0.4, 0.5, "y"))
    both = Segments("words", {"a": words, "b": words}, {"a": "corpus", "b": "aligned"})
    seconds = {"a": 2.0, "b": 2.0}
    segmented = random_like(both, seconds)
    assert (segmented.name, segmented.source) == ("random", both.source)
    assert segmented.of["a"] != segmented.of["b"]
    assert segmented.of["a"] == random_like(both.only(["a"]), seconds).of["a"]
    assert segmented.digest == random_like(both, seconds, seed=0).digest != random_like(both, seconds, seed=1).digest


def test_random_stretches_may_lie_anywhere_alike() -> None:
    """One stretch of 0.5 s in 2 s: its start is uniform on 0 to 1.5; two of 0.5 s: each gap is a third of the 1 s."""
    starts = [random_like(segments([Word(0, 0.5, "")]), {"a": 2.0}, seed).of["a"][0].start for seed in range(400)]
    assert np.mean(starts) == pytest.approx(0.75, abs=0.08)
    assert np.std(starts) == pytest.approx(1.5 / 12**0.5, abs=0.05)
    two = [Word(0, 0.5, ""), Word(0.5, 1, "")]
    pairs = [random_like(segments(two), {"a": 2.0}, seed).of["a"] for seed in range(400)]
    assert np.mean([(a.start, b.start - a.end, 2 - b.end) for a, b in pairs], axis=0) == pytest.approx(1 / 3, abs=0.05)


def test_words_that_overlap_more_than_fits_are_shortened_alike() -> None:
    stretches = random_like(segments([Word(0, 0.8, "x"), Word(0.1, 0.5, "y")]), {"a": 0.9}).of["a"]
    assert sorted(w.end - w.start for w in stretches) == pytest.approx([0.3, 0.6])
    assert stretches[-1].end <= 0.9


def test_the_holder_of_a_time() -> None:
    words = [Word(0.1, 0.3, "x"), Word(0.2, 0.25, "inside x"), Word(0.3, 0.4, "y")]
    times = np.array([0.0, 0.1, 0.22, 0.299, 0.3, 0.4, 9.0])
    assert holder(times, words).tolist() == [-1, 0, 0, 0, 2, -1, -1]
    assert holder(times, []).tolist() == [-1] * 7
