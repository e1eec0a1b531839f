"""What a split may not share is refused, on leaks built by hand; and a split is known by its hash."""

# mypy: disable-error-code="arg-type,call-overload,has-type,misc,operator"

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from refusals import refusal
from sounds import tone
from splits import acted, corpus, notes, refused, split

from bas.corpora import Corpus
from bas.protocols import Fold, check, make
from bas.tasks import EMOTION

# --- hash and file ---


def test_seeds_make_the_split() -> None:
    c = acted()
    shuffled = dataclasses.replace(c, utterances=tuple(random.Random(1).sample(c.utterances, len(c.utterances))))
    assert make(c, EMOTION, seed=3) == make(shuffled, EMOTION, seed=3)
    assert len({make(c, EMOTION, seed=seed).hash for seed in range(20)}) > 15


def test_hash_is_the_same_in_every_process() -> None:
    """A pinned value: neither the process's hash seed nor the Python version may change a split."""
    assert make(acted(), EMOTION).hash == "7a349e2e4fb3"


@pytest.mark.parametrize("to", ["fit", "valid", "other fold"])
def test_hash_sees_one_moved_id(to: Any) -> None:
    protocol = make(acted(), EMOTION)
    first, second, *rest = protocol.folds
    moved, *stay = first.test
    first = dataclasses.replace(first, test=tuple(stay))
    if to == "other fold":
        second = dataclasses.replace(second, test=(*second.test, moved))
    else:
        first = dataclasses.replace(first, **{to: (*first.parts()[to], moved)})
    assert dataclasses.replace(protocol, folds=(first, second, *rest)).hash != protocol.hash


# --- the check itself, on leaks built by hand ---


def leaky(corpus: Corpus, folds: list[Fold], published: bool = False) -> object:
    return check(corpus, EMOTION, folds, published="published split" if published else "")


@pytest.mark.parametrize(("source", "to"), [(a, b) for a in range(3) for b in range(3) if a != b])
def test_check_refuses_one_moved_utterance(source: str, to: Any) -> None:
    """Two utterances of one speaker on two sides, whichever: the smallest leak there is."""
    c = acted(speakers=9, texts=4)
    for index in range(3):
        folds = list(make(c, EMOTION, "speaker:3").folds)
        parts = [list(ids) for ids in folds[index].parts().values()]
        moved = parts[source].pop()
        parts[to].append(moved)
        folds[index] = Fold(*(tuple(ids) for ids in parts))
        speaker = next(u.speaker for u in c.utterances if u.id == moved)
        if {source, to} == {0, 1}:  # no test speaker was seen
            marks, notes = check(c, EMOTION, folds)
            assert marks == ()
            assert f"speaker on both sides: 1 values, e.g. '{speaker}' in fit and valid, none in test" in notes
        else:
            refused(lambda folds=folds: leaky(c, folds), f"fold {index}", f"'{speaker}'", "speaker")


def test_what_no_rule_makes_but_a_file_may_hold() -> None:
    c = acted(speakers=9)
    good = make(c, EMOTION, "speaker:3").folds
    leaky(c, list(good))
    first, rest = good[0], good[1:]
    for broken, named in (
        (Fold(first.fit + first.test[:1], first.valid, first.test), (repr(first.test[0]), "2 times")),
        (Fold(first.fit, first.valid + first.fit[:1], first.test), (repr(first.fit[0]), "2 times")),
        (Fold(first.fit + first.fit[:1], first.valid, first.test), (repr(first.fit[0]), "2 times")),
        (Fold(first.fit + first.valid, (), first.test), ("valid is empty",)),
        (Fold((), first.fit + first.valid, first.test), ("fit is empty",)),
        (Fold(first.fit, first.valid + first.test, ()), ("test is empty",)),
        (Fold((*first.fit, "nobody"), first.valid, first.test), ("'nobody'", "paper cups")),
    ):
        refused(lambda broken=broken: leaky(c, [broken, *rest]), "fold 0", *named)
    _, named = leaky(c, [Fold(first.fit, first.valid, first.test[1:])])
    assert any(f"1 utterances are in no part of any fold, e.g. {first.test[0]!r}" in note for note in named)
    _, named = leaky(c, [first, first])
    assert any(f"{len(first.test)} utterances are tested in more than one fold" in note for note in named)


KEPT = "empty its label in the table (`bas corpus export` writes one of any corpus) to leave it out"


@pytest.mark.parametrize("rule", ["speaker:5", "speaker", "speaker:2"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("speakers", "why"),
    [
        pytest.param(["s00"], "it has one utterance, which is in one part alone", id="one"),
        pytest.param(["s00"] * 3, "all its 3 are of speaker 's00', who is in one part alone", id="one-speaker"),
    ],
)
def test_no_advice_that_cannot_work_for_a_rare_class(rule: str, seed: int, speakers: list[str], why: str) -> None:
    rows: list[Any] = [{"speaker": f"s{s:02}", "label": label} for s in range(6) for label in "aabb"]
    rare: list[Any] = [{"speaker": speaker, "label": "rare"} for speaker in speakers]
    message = refusal(make, corpus(rows + rare), EMOTION, rule, seed=seed)
    assert message.startswith("protocol fold ")
    assert message.endswith(f"training utterances; {why}: {KEPT}")
    make(corpus(rows + [row | {"label": None} for row in rare]), EMOTION, rule, seed=seed)  # which the message advises


def test_a_class_of_several_speakers_may_be_in_training_with_other_folds() -> None:
    rows: list[Any] = [{"speaker": f"s{s:02}", "label": label} for s in range(6) for label in "aabb"]
    rows += [{"speaker": speaker, "label": "rare"} for speaker in ("s00", "s01")]
    c = corpus(rows)
    ids = [u.id for u in c.utterances]
    fold = Fold(tuple(ids[8:20]), tuple(ids[20:24]), tuple(ids[:8] + ids[24:]))
    message = refusal(check, c, EMOTION, [fold], compare=None)
    assert message.endswith(f"; use other folds or another seed, or {KEPT}")
    assert make(c, EMOTION, "speaker:2").folds


def test_one_class_alone_is_refused_where_a_split_is_made_or_checked() -> None:
    rows: list[Any] = [{"speaker": f"s{s:02}", "label": "joy"} for s in range(6)]
    message = "task emotion: label has one value only ('joy'); it needs two classes"
    assert refusal(make, corpus(rows), EMOTION) == message
    folds = make(corpus([*rows, *(row | {"label": "fear"} for row in rows)]), EMOTION).folds
    ids = {u.id for u in corpus(rows).utterances}
    folds = tuple(fold.without(set(fold.fit + fold.valid + fold.test) - ids) for fold in folds)
    assert refusal(check, corpus(rows), EMOTION, folds) == message


def test_a_class_missing_from_valid_or_test_is_noted() -> None:
    c = split("abc", "d", "ef")
    rows = tuple(u for u in c.utterances if not (u.speaker in "ef" and u.label == "b"))
    protocol = make(dataclasses.replace(c, utterances=rows), EMOTION)
    assert "classes missing from test: fold 0 label 'b'" in protocol.notes


def test_check_sees_leaks_without_speakers_in_published_splits() -> None:
    """Where the disjoint field is unknown, the split is marked for it, and one id on two sides is still caught."""
    c = corpus([{"label": "ab"[i % 2]} for i in range(8)], published=True)
    ids = tuple(u.id for u in c.utterances)
    marks, _ = leaky(c, [Fold(ids[:4], ids[4:6], ids[6:])], published=True)
    assert marks == ("published split, though speaker is unknown for 8 utterances, e.g. 'u000'",)
    refused(lambda: leaky(c, [Fold(ids[:6], ids[4:6], ids[6:])], published=True), "'u004'")


# --- what the user allows ---


def test_overlap_allowed_by_name_is_marked() -> None:
    c = acted()
    protocol = make(c, EMOTION, "id:5", allowed=("speaker",))
    (mark,) = protocol.marks
    assert mark.startswith("allowed by --allow-overlap, with speaker on both sides: 10 values")
    assert protocol.description == f"paper-cups-id-5-seed0 (id:5), hash {protocol.hash}, MARKED"
    assert protocol.unit == "speaker"  # utterances of one speaker are no independent units
    assert make(c, EMOTION, "speaker:5", allowed=("speaker",)).marks == ()
    refused(lambda: make(c, EMOTION, "id:5", allowed=("text",)), "--allow-overlap text", "speaker")
    two = dataclasses.replace(EMOTION, disjoint=("speaker", "text"))
    refused(lambda: make(c, two, "id:5", allowed=("speaker",)), "text on both sides", "--allow-overlap text")
    assert len(make(c, two, "id:5", allowed=("speaker", "text")).marks) == 2


# --- one recording under two names ---


def recorded(folder: Path, speakers: str = "abcdef") -> Corpus:
    """Two classes a speaker; every recording another sound, all of one length."""
    rows = []
    for i, (speaker, label) in enumerate((s, c) for s in speakers for c in "xy"):
        tone(folder / f"{i}.wav", 0.1, hertz=200 + 20 * i)
        rows.append({"speaker": speaker, "label": label, "audio": folder / f"{i}.wav"})
    return corpus(rows)


def test_one_recording_under_two_names_is_refused_even_when_published_and_allowed(tmp_path: Path) -> None:
    c = recorded(tmp_path)
    make(c, EMOTION, "speaker:3")
    wave, rate = soundfile.read(tmp_path / "0.wav", dtype="int16")
    soundfile.write(tmp_path / "11.flac", wave, rate)  # another file, name and format: the same samples
    rows = tuple(dataclasses.replace(u, audio=tmp_path / "11.flac") if u.id == "u011" else u for u in c.utterances)
    leak = dataclasses.replace(c, utterances=rows)
    named = ("'u000'", "'u011'", "same recording")
    refused(lambda: make(leak, EMOTION, "speaker:6"), *named)
    refused(lambda: make(leak, EMOTION, "speaker:6", allowed=("speaker",)), *named)
    parts = {"a": "train", "b": "train", "c": "valid", "d": "valid", "e": "test", "f": "test"}
    own = tuple(dataclasses.replace(u, split=parts[u.speaker or ""]) for u in leak.utterances)
    refused(lambda: make(dataclasses.replace(leak, utterances=own, published=True), EMOTION, "own"), *named)


def test_one_recording_twice_in_one_part_is_noted(tmp_path: Path) -> None:
    c = recorded(tmp_path)
    rows = [dataclasses.replace(u, audio=tmp_path / "0.wav") if u.id == "u001" else u for u in c.utterances]
    protocol = make(dataclasses.replace(c, utterances=tuple(rows)), EMOTION, "speaker:3")
    assert "1 recordings have several names, e.g. u000 = u001" in protocol.notes


def test_parts_of_one_recording_are_told_apart(tmp_path: Path) -> None:
    tone(tmp_path / "long.wav", 1.0, hertz=223.7)
    rows = [
        {"speaker": s, "label": c, "audio": tmp_path / "long.wav", "start": 0.1 * i, "end": 0.1 * i + 0.14}
        for i, (s, c) in enumerate((s, c) for s in "abcd" for c in "xy")
    ]
    protocol = make(corpus(rows), EMOTION, "speaker:4")
    assert any(note.startswith("audio on both sides") for note in protocol.notes)
    longer = [row | {"end": row["end"] + 0.02} for row in rows]  # 0.06 s in common, more than times are rounded by
    refused(lambda: make(corpus(longer), EMOTION, "speaker:4"), "overlap in time", "u00")
    same = [row | {"start": 0.0, "end": 0.1} if row["speaker"] in "ab" else row for row in rows]
    refused(lambda: make(corpus(same), EMOTION, "speaker:4"), "same recording")


def test_copies_in_stereo_and_with_minus_zero_are_the_same_recording(tmp_path: Path) -> None:
    c = recorded(tmp_path)
    wave, rate = soundfile.read(tmp_path / "0.wav", dtype="float32")
    wave[:4] = 0.0
    soundfile.write(tmp_path / "0.wav", wave, rate, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo.wav", np.stack([wave, wave], 1), rate, subtype="FLOAT")
    minus = np.where(wave == 0, np.float32(-0.0), wave)
    soundfile.write(tmp_path / "minus.wav", minus, rate, subtype="FLOAT")
    for name in ("stereo.wav", "minus.wav"):
        rows = tuple(dataclasses.replace(u, audio=tmp_path / name) if u.id == "u011" else u for u in c.utterances)
        copied = dataclasses.replace(c, utterances=rows)
        refused(lambda copied=copied: make(copied, EMOTION, "speaker:6"), "'u011'", "same recording")


def test_silence_is_no_copy_of_silence(tmp_path: Path) -> None:
    c = recorded(tmp_path)
    for name in ("0.wav", "11.wav"):
        soundfile.write(tmp_path / name, np.zeros(1600), 16000)
    make(c, EMOTION, "speaker:6")


@pytest.mark.parametrize("beginning", ["silence", "a tone"])
def test_what_begins_as_another_recording_is_no_copy_and_what_goes_on_as_it_is(tmp_path: Path, beginning: str) -> None:
    """They differ, if at all, after the excerpt by which most are told apart."""
    chance, c = np.random.default_rng(0), recorded(tmp_path)
    waves = chance.uniform(-0.3, 0.3, (3, 16000))
    waves[:, :9600] = 0.0 if beginning == "silence" else 0.3 * np.sin(np.arange(9600))
    for i, wave in zip((0, 7, 11), waves, strict=True):
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000)
    assert not any("several names" in note for note in make(c, EMOTION, "speaker:6").notes)
    soundfile.write(tmp_path / "11.wav", waves[0], 16000)
    refused(lambda: make(c, EMOTION, "speaker:6"), "'u000'", "'u011'", "same recording")


def test_recordings_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    c = recorded(tmp_path)
    assert notes(make(c, EMOTION, "speaker:3")) == make(c, EMOTION, "speaker:3").notes
    (tmp_path / "3.wav").write_bytes(b"RIFF")
    note = make(c, EMOTION, "speaker:3").notes[-1]
    assert note == "1 recordings cannot be read, so not compared with the others, e.g. of 'u003'"


def test_an_order_of_ids_is_no_part_of_a_split() -> None:
    protocol = make(acted(), EMOTION)
    turned = tuple(Fold(*(ids[::-1] for ids in fold.parts().values())) for fold in protocol.folds)
    assert dataclasses.replace(protocol, folds=turned).hash == protocol.hash
    assert all(list(ids) == sorted(ids) for fold in protocol.folds for ids in fold.parts().values())


def test_overlaps_are_found_through_links_and_equal_stretches(tmp_path: Path) -> None:
    tone(tmp_path / "long.wav", 3.0, hertz=223.7)
    (tmp_path / "link.wav").symlink_to(tmp_path / "long.wav")
    own = [{"speaker": s, "label": c} for s in "abcdef" for c in "xy"]  # have no recordings
    apart = {"audio": tmp_path / "long.wav", "start": 0.0, "end": 1.0}
    near = {"audio": tmp_path / "link.wav", "start": 0.5, "end": 1.5}
    make(corpus([{**own[0], **apart}, *own[1:11], {**own[11], **near, "start": 0.96}]), EMOTION, "speaker:6")
    rows = [{**own[0], **apart}, *own[1:11], {**own[11], **near}]
    refused(lambda: make(corpus(rows), EMOTION, "speaker:6"), "'u000'", "'u011'", "overlap in time")
    short = {**near, "start": 0.5, "end": 0.54}
    make(corpus([{**own[0], **apart}, *own[1:11], {**own[11], **short}]), EMOTION, "speaker:6")


def test_a_file_that_was_replaced_is_another_recording(tmp_path: Path) -> None:
    """Inode numbers are given anew: what was a file's yesterday may be another's now, within one process too."""
    own = [{"speaker": s, "label": c} for s in "abcdef" for c in "xy"]  # have no recordings
    one, other = tone(tmp_path / "one.wav", 3.0, hertz=223.7), tone(tmp_path / "other.wav", 3.0, hertz=311.3)
    first = {**own[0], "audio": one, "start": 0.0, "end": 1.0}
    last = {**own[11], "audio": other, "start": 0.5, "end": 1.6}
    rows = [first, *own[1:11], last]
    make(corpus(rows), EMOTION, "speaker:6")
    other.unlink()
    other.hardlink_to(one)
    refused(lambda: make(corpus(rows), EMOTION, "speaker:6"), "'u000'", "'u011'", "overlap in time")
    other.unlink()
    tone(other, 3.0, hertz=311.3)
    make(corpus(rows), EMOTION, "speaker:6")
