"""Forced alignment: the frames where made-up emissions have each word; a recogniser of random weights end to end."""

# mypy: disable-error-code="comparison-overlap"

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from models import SMALL
from refusals import refusal
from sounds import tone
from stores import quiet, store
from torch import Tensor

from bas.cli.main import main
from bas.corpora import Utterance, Word, open_corpus
from bas.encoders.aligner import Aligner, align, letters
from bas.features.derive import derive
from bas.speech.words import Segments, UnalignedError, describe_unaligned, word_segments

CPU = torch.device("cpu")
BLANK, BETWEEN, A, B, C = range(5)


def emissions(path: Sequence[int], sure: float = 0.9) -> Tensor:
    """`(T, C)` log probabilities of a recogniser that hears this class in each frame."""
    probabilities = torch.full((len(path), 5), (1 - sure) / 4)
    probabilities[range(len(path)), path] = sure
    return probabilities.log()


# Made-up emissions


@pytest.mark.parametrize("sure", [0.9, 0.4])
def test_words_are_where_the_emissions_have_them(sure: float) -> None:
    path = [BLANK, BLANK, A, A, BLANK, B, BLANK, BETWEEN, BLANK, C, C, C, BLANK]
    assert align(emissions(path, sure), [[A, B], [C]], BLANK, BETWEEN) == [(2, 6), (9, 12)]
    assert align(emissions(path, sure), [[A, B], [C]], BLANK) == [(2, 6), (9, 12)]


def test_a_letter_twice_in_a_row_is_parted_by_a_blank() -> None:
    path = [BLANK, A, A, BLANK, A, BLANK, A, BLANK, BLANK, B]
    assert align(emissions(path), [[A, A], [A, B]], BLANK) == [(1, 5), (6, 10)]


def test_the_transcript_s_order_wins_over_what_was_heard() -> None:
    path = [B, BLANK, A, BLANK, C, BLANK]  # B was heard first, but said after A
    (a, b) = align(emissions(path), [[A], [B]], BLANK)
    assert a == (2, 3)
    assert 3 <= b[0] < b[1] <= 6


def test_all_frames_may_be_needed_and_none_may_lack() -> None:
    tight = emissions([A, B, BLANK, B, C])
    assert align(tight, [[A, B], [B, C]], BLANK) == [(0, 2), (3, 5)]
    with pytest.raises(ValueError, match="5 letters need 6 frames, the recording makes 5"):
        align(tight, [[A, B], [B, C, A]], BLANK)
    with pytest.raises(ValueError, match="5 letters need 5 frames"):
        align(tight[:4], [[A, B], [B, C]], BLANK, BETWEEN)


def test_words_without_letters_get_the_gap_between_their_neighbours() -> None:
    path = [BLANK, BLANK, A, BLANK, BLANK, BLANK, BLANK, B, BLANK, BLANK, BLANK, BLANK]
    spans = align(emissions(path), [[], [A], [], [], [B], []], BLANK)
    assert spans == [(0, 2), (2, 3), (3, 5), (5, 7), (7, 8), (8, 12)]


def test_a_gap_that_is_too_narrow_is_widened_to_a_frame_for_each() -> None:
    spans = align(emissions([A, B, C]), [[], [A], [], [], [B], [C], []], BLANK)
    assert [spans[i] for i in (1, 4, 5)] == [(0, 1), (1, 2), (2, 3)]
    assert all(0 <= a < b <= 3 for a, b in spans)
    assert spans[0] == (0, 1)
    assert spans[-1] == (2, 3)
    assert all(a <= b for (a, _), (b, _) in pairwise(align(emissions([A]), [[], [], [A], [], []], BLANK)))


# Letters


def test_letters_in_the_vocabulary_s_own_case_then_transliterated_then_left_out() -> None:
    upper = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ'")}

    def spelt(word: str, vocabulary: dict[str, int]) -> str:
        names = {i: c for c, i in vocabulary.items()}
        return "".join(names[i] for i in letters(word, vocabulary))

    lower = {c.lower(): i for c, i in upper.items()} | {"ü": 30}
    assert spelt("Straße", upper) == "STRASSE"
    assert spelt("Überkötzchen", upper) == "UEBERKOETZCHEN"
    assert spelt("Überkötzchen", lower) == "überkoetzchen"
    assert spelt("U\u0308ber", lower) == "über"  # the umlaut as two characters
    assert spelt("Café don’t 1995", upper) == "CAFEDON'T"
    assert spelt("Жук", upper) == ""
    assert spelt("Ab", {"A": 0, "a": 1, "b": 2}) == "Ab"


# The model


VOCABULARY = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, **{c: 5 + i for i, c in enumerate("ABDEHLMNOSTU'")}}


def recogniser(folder: Path, vocabulary: dict[str, int], **config: Any) -> Path:
    """A wav2vec 2.0 CTC model with random weights that spells."""
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir()
    (folder / "letters.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(str(folder / "letters.json")).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL, vocab_size=len(vocabulary), **config)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recogniser(tmp_path_factory.mktemp("ctc") / "model", VOCABULARY)


@pytest.fixture(scope="module")
def aligner(model: Path) -> Aligner:
    return Aligner(str(model), CPU)


@pytest.fixture
def spoken(tmp_path: Path) -> Utterance:
    return Utterance("a", tone(tmp_path / "a.wav", 1.5), text="Hallo, – 42 Mädel!")


def test_an_utterance_s_words_come_in_order_inside_it(aligner: Aligner, spoken: Utterance) -> None:
    words = aligner(spoken)
    assert [w.text for w in words] == ["Hallo", "42", "Mädel"]
    assert all(0 <= w.start < w.end <= 1.5 for w in words)
    assert words[0].end <= words[1].start < words[1].end <= words[2].start
    assert words == aligner(spoken)
    frame = 1.5 / 74
    assert all(w.start / frame == pytest.approx(round(w.start / frame)) for w in words)
    assert aligner._model.training is False


def test_times_are_of_the_utterance_not_of_its_recording(aligner: Aligner, tmp_path: Path) -> None:
    long = tone(tmp_path / "long.wav", 3.0)
    part = Utterance("p", long, text="Hallo du", start=1.0, end=2.0)
    assert all(0 <= w.start < w.end <= 1.0 for w in aligner(part))


def test_what_has_no_letter_that_is_known_has_no_words(aligner: Aligner, spoken: Utterance) -> None:
    for text in ("", "...", "42", "ЖЖ", None):
        assert aligner(replace(spoken, text=text)) == ()


def test_a_text_that_the_recording_cannot_hold_is_refused(aligner: Aligner, spoken: Utterance, tmp_path: Path) -> None:
    with pytest.raises(UnalignedError, match="119 letters need 139 frames, the recording makes 74"):
        aligner(replace(spoken, text="hallo " * 20))
    with pytest.raises(UnalignedError, match=r"0\.01 s make no frame"):
        aligner(replace(spoken, audio=tone(tmp_path / "short.wav", 0.01)))


def test_what_cannot_be_aligned_is_cut_into_pseudo_segments_and_named(
    aligner: Aligner, spoken: Utterance, tmp_path: Path
) -> None:
    short = tone(tmp_path / "short.wav", 0.01)
    utterances = [
        replace(spoken, id="long", text="hallo " * 20),
        replace(spoken, id="short", audio=short),
        replace(spoken, id="stretch", start=1.0, end=1.02),
        replace(spoken, id="double", text="l" * 50),
        replace(spoken, id="signs", text="42 ... ЖЖ"),
        replace(spoken, id="blank", text=" \n"),
        replace(spoken, id="none", text=None),
        spoken,
    ]
    words = word_segments(utterances, aligner)
    assert words.source == {u.id: "pseudo" for u in utterances} | {"a": "aligned"}
    assert words.of["a"] == aligner(spoken)
    assert list(words.unaligned) == ["long", "short", "stretch", "double"]
    assert describe_unaligned(words.unaligned) == (
        "4 utterances are cut into pseudo-segments, as the text or its times do not fit the recording: long (119 "
        "letters need 139 frames, the recording makes 74), short (0.01 s make no frame), stretch (0.02 s make no frame)"
        " and 1 more",
    )
    assert words.only(["a", "long"]).unaligned.keys() == {"long"}
    assert Segments.parse(words.to_dict()).digest == words.digest


def test_the_corpus_s_own_times_are_checked_before_anything_is_aligned(spoken: Utterance) -> None:
    """Hours of alignment would be lost."""
    wrong = replace(spoken, id="z", words=(Word(9.0, 9.5, "late"),))
    calls: list[str] = []
    message = refusal(word_segments, [spoken, wrong], lambda u: (calls.append(u.id), ())[1])
    assert "the word 'late' begins at 9 s" in message
    assert calls == []


def test_a_silent_model_is_aligned_by_its_letters_alone(
    aligner: Aligner, spoken: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the model says is what is aligned: a model of made-up emissions."""
    path = [0] * 74
    path[10:12], path[20], path[40:44] = [VOCABULARY["D"]] * 2, VOCABULARY["U"], [VOCABULARY["A"]] * 4
    logits = torch.zeros(1, 74, len(VOCABULARY))
    logits[0, range(74), path] = 9

    class Said:
        main_input_name = "input_values"

        def __call__(self, given: Tensor) -> Any:
            assert given.shape == (1, 24_000)
            return type("Output", (), {"logits": logits})

    monkeypatch.setattr(aligner, "_model", Said())
    monkeypatch.setattr(aligner, "_delimiter", None)
    aligned = aligner(replace(spoken, text="du A"))
    frame = 1.5 / 74
    assert [(w.start / frame, w.end / frame, w.text) for w in aligned] == [
        (pytest.approx(10), pytest.approx(21), "du"),
        (pytest.approx(40), pytest.approx(44), "A"),
    ]


def test_aligned_words_are_segments(aligner: Aligner, spoken: Utterance) -> None:
    untold = replace(spoken, id="b", text="...")
    segments = word_segments([spoken, untold], aligner)
    assert segments.source == {"a": "aligned", "b": "pseudo"}
    assert segments.of["a"] == aligner(spoken)


def test_what_is_no_recogniser_of_letters_is_refused(model: Path, hubert: Path, tmp_path: Path) -> None:
    def refused(name: Path | str) -> str:
        message = refusal(Aligner, str(name), CPU)
        assert message.startswith(f"aligner '{name}': "), message
        return message

    from transformers import HubertModel, Wav2Vec2ForCTC

    assert "cannot be loaded as a CTC model" in refused(tmp_path / "none")
    signs = recogniser(tmp_path / "signs", {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "ah": 5, "1": 6})
    assert "its vocabulary has no letters" in refused(signs)
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in model.iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    Wav2Vec2ForCTC.from_pretrained(model).wav2vec2.save_pretrained(bare)  # never taught to spell
    assert "2 weights are missing from its files, lm_head.bias the first" in refused(bare)
    HubertModel.from_pretrained(hubert).save_pretrained(tmp_path / "hubert")
    assert "cannot be loaded as a CTC model" in refused(tmp_path / "hubert")  # no tokenizer
    (bare / "preprocessor_config.json").write_text(
        (model / "preprocessor_config.json").read_text().replace("16000", "8000")
    )
    Wav2Vec2ForCTC.from_pretrained(model).save_pretrained(bare)
    assert "takes 8000 Hz, not 16000 Hz" in refused(bare)


def test_the_command_aligns_what_has_a_text(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone(tmp_path / "a.wav", 0.6)
    tone(tmp_path / "b.wav", 0.6, hertz=300)
    table = tmp_path / "list.csv"
    table.write_text("id,audio,text\na,a.wav,Hallo du\nb,b.wav,\n")
    parent = store(table, tmp_path / "parent")
    command = ["features", "derive", str(parent.folder), "--pooling", "mean", "--aligner", str(model)]
    assert main([*command, "--device", "cpu"]) == 0
    assert "list: words of 2 utterances: 0 corpus, 1 aligned, 1 pseudo" in capsys.readouterr().out


def test_the_command_goes_on_where_a_text_is_too_long(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tone(tmp_path / "a.wav", 0.6)
    tone(tmp_path / "b.wav", 0.6, hertz=300)
    table = tmp_path / "list.csv"
    table.write_text(f"id,audio,text\na,a.wav,Hallo du\nb,b.wav,{'hallo ' * 20}\n")
    parent = store(table, tmp_path / "parent")
    command = ["features", "derive", str(parent.folder), "--pooling", "mean", "--aligner", str(model)]
    assert main([*command, "--device", "cpu"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "list: words of 2 utterances: 0 corpus, 1 aligned, 1 pseudo" in told
    assert "1 utterance is cut into pseudo-segments, as the text or its times do not fit the recording: b (" in told
    segments = word_segments(open_corpus("manifest", table).utterances, Aligner(str(model), CPU))
    made = derive(parent.folder, tmp_path / "parent-words-mean", segments, "mean", quiet())  # nothing left to do
    assert (made.num_frames("a"), made.num_frames("b")) == (2, 2)
