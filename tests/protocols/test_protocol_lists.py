"""Splits that others published, read from their own lists: EmoBox's and SUPERB's."""

# mypy: disable-error-code="call-overload,var-annotated"

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from splits import corpus, dialogues, ids, refused, values

from bas.corpora import Corpus
from bas.protocols import make
from bas.tasks import EMOTION

# --- EmoBox ---


def emobox_folds(folder: Path, c: Corpus, valid: bool = False) -> Path:
    """Five folds over utterances, in EmoBox's layout: its own keys, paths of its own root, mp4 for wav."""
    for k in range(5):
        parts = {"train": [u for i, u in enumerate(c.utterances) if i % 5 != k]}
        parts["test"] = [u for i, u in enumerate(c.utterances) if i % 5 == k]
        if valid:
            parts["valid"] = parts["train"][::4]
            parts["train"] = [u for u in parts["train"] if u not in parts["valid"]]
        for part, members in parts.items():
            path = folder / f"fold_{k + 1}" / f"cups_{part}_fold_{k + 1}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps(
                    {"key": f"cups-{u.id}", "dataset": "cups", "wav": f"downloads/{u.audio.with_suffix('.mp4')}"}
                )
                for u in members
            ]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            path.with_suffix(".json").write_text("{}")  # EmoBox has each list in a second form
    return folder


def recorded_in_folders(speakers: int = 6) -> Corpus:
    """Names that repeat from folder to folder, as MELD's do."""
    rows = [
        {"speaker": f"s{s}", "label": label, "audio": Path(f"data/{s}/{label}{t}.wav")}
        for s in range(speakers)
        for label in "ab"
        for t in range(4)
    ]
    return corpus(rows)


@pytest.mark.parametrize("valid", [False, True])
def test_emobox_folds_are_read_as_they_are_and_marked(tmp_path: Path, valid: Any) -> None:
    c = recorded_in_folders()
    protocol = make(c, EMOTION, f"emobox:{emobox_folds(tmp_path, c, valid)}")
    assert protocol.rule == "emobox"
    assert [set(f.test) for f in protocol.folds] == [set(ids(c)[k::5]) for k in range(5)]
    assert all(set(f.fit) | set(f.valid) | set(f.test) == set(ids(c)) for f in protocol.folds)
    (mark,) = protocol.marks
    assert mark.startswith("published split, say its lists, with speaker on both sides: ")
    if valid:
        assert all(f.valid == tuple(i for i in ids(c) if i not in f.test)[::4] for f in protocol.folds)
    else:  # held out by speaker, as everywhere
        for fold in protocol.folds:
            assert not values(c, fold.valid, "speaker") & values(c, fold.fit, "speaker")


def test_emobox_without_what_could_not_be_extracted(tmp_path: Path) -> None:
    c = recorded_in_folders()
    protocol = make(c, EMOTION, f"emobox:{emobox_folds(tmp_path, c)}", skipped=["u003", "u040"])
    assert set(protocol.test_ids) == set(ids(c)) - {"u003", "u040"}
    assert protocol.notes[0] == "2 utterances are left out, without a label or features, e.g. 'u003'"


def test_emobox_without_speakers_runs_and_says_so(tmp_path: Path) -> None:
    c = recorded_in_folders()
    c = dataclasses.replace(c, utterances=tuple(dataclasses.replace(u, speaker=None) for u in c.utterances))
    protocol = make(c, EMOTION, f"emobox:{emobox_folds(tmp_path, c)}")
    assert protocol.marks == (
        "published split, say its lists, though speaker is unknown for 48 utterances, e.g. 'u000'",
    )


def test_two_paths_of_a_list_are_not_one_utterance(tmp_path: Path) -> None:
    """Of a name that stands in several folders of the list, the corpus has one: which is not for us to guess."""
    c = recorded_in_folders()
    folder = emobox_folds(tmp_path, c)
    rest = tuple(u for u in c.utterances if u.audio.name != "a0.wav" or u.speaker == "s2")
    fewer = dataclasses.replace(c, utterances=rest)
    refused(lambda: make(fewer, EMOTION, f"emobox:{folder}"), "a0", "looks like 'u016'", "complete?")


def test_ten_folds_are_in_their_order(tmp_path: Path) -> None:
    c = recorded_in_folders()
    emobox_folds(tmp_path, c)
    for k in range(5, 10):
        shutil.copytree(tmp_path / "fold_1", tmp_path / f"fold_{k + 1}")
        for path in list((tmp_path / f"fold_{k + 1}").iterdir()):
            path.rename(path.with_name(path.name.replace("fold_1", f"fold_{k + 1}")))
    protocol = make(c, EMOTION, f"emobox:{tmp_path}")
    assert [set(f.test) for f in protocol.folds[:5]] == [set(ids(c)[k::5]) for k in range(5)]
    assert any("tested in more than one fold" in note for note in protocol.notes)


def test_emobox_by_key(tmp_path: Path) -> None:
    """A manifest of EmoBox's own lines has its keys for ids."""
    c = recorded_in_folders()
    folder = emobox_folds(tmp_path, c)
    keyed = tuple(dataclasses.replace(u, id=f"cups-{u.id}", audio=Path(f"x/{u.id}.wav")) for u in c.utterances)
    protocol = make(dataclasses.replace(c, utterances=keyed), EMOTION, f"emobox:{folder}")
    assert set(protocol.test_ids) == {u.id for u in keyed}


def test_broken_emobox_folders(tmp_path: Path) -> None:
    c = recorded_in_folders()

    def check_refusal(*parts: str) -> None:
        refused(lambda: make(c, EMOTION, f"emobox:{tmp_path}"), *parts)

    check_refusal(str(tmp_path), "fold_1")
    emobox_folds(tmp_path, c)
    train = tmp_path / "fold_2/cups_train_fold_2.jsonl"
    lines = train.read_text()
    train.write_text(lines + "{")
    check_refusal(str(train), f"line {len(lines.splitlines()) + 1}", "malformed JSON")
    train.write_text(lines + '{"key": "k"}')
    check_refusal(str(train), "key and wav")
    train.write_text(lines + '{"key": "k", "wav": "downloads/nowhere/z.wav"}')
    check_refusal(str(train), "nowhere/z.wav", "no such utterance")
    train.write_text(lines + '{"key": "k", "wav": "a0.wav"}')
    check_refusal(str(train), "6 utterances have such a path")
    train.write_bytes(b"\xff")
    check_refusal(str(train), "UTF-8")
    train.rename(tmp_path / "fold_2/old_train_fold_2.jsonl")
    train.write_text(lines)
    check_refusal("cups_train_fold_2.jsonl", "old_train_fold_2.jsonl", "keep one")
    train.unlink()
    (tmp_path / "fold_2/old_train_fold_2.jsonl").unlink()
    check_refusal("fold_2", "no file *_train_fold_2.jsonl")


def test_a_files_list_rule_is_not_believed(tmp_path: Path) -> None:
    c = recorded_in_folders()
    folder = emobox_folds(tmp_path / "lists", c)
    protocol = make(c, EMOTION, f"emobox:{folder}")
    dataclasses.replace(protocol, rule=f"emobox:{folder}").write(tmp_path / "said.json")
    assert make(c, EMOTION, str(tmp_path / "said.json")).description.startswith("said (file said.json), hash ")


# --- SUPERB ---


def superb_lists(folder: Path, c: Corpus) -> Path:
    sessions = sorted(values(c, ids(c), "session"), key=str)
    for k, session in enumerate(sessions, 1):
        for part, keep in (("train", False), ("test", True)):
            rows = [{"path": str(u.audio), "label": u.label} for u in c.utterances if (u.session == session) == keep]
            path = folder / f"Session{k}" / f"{part}_meta_data.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"labels": {}, "meta_data": rows}))
    return folder


def test_superb_draws_the_valid_part_that_s3prl_draws(tmp_path: Path) -> None:
    c = dialogues()
    protocol = make(c, EMOTION, f"superb:{superb_lists(tmp_path, c)}")
    assert protocol.rule == "superb"
    for k, fold in enumerate(protocol.folds):
        assert values(c, fold.test, "session") == {f"Ses{k}"}
        train = [u.id for u in c.utterances if u.session != f"Ses{k}"]
        torch.manual_seed(0)  # as s3prl's downstream/emotion/expert.py
        kept = int((1 - 0.2) * len(train))
        fit, valid = torch.utils.data.random_split(train, [kept, len(train) - kept])  # type: ignore[arg-type]
        assert list(fold.fit) == sorted(fit)
        assert list(fold.valid) == sorted(valid)
    (mark,) = protocol.marks
    assert mark.startswith("published split, say its lists, with speaker on both sides: 8 values")
    assert mark.endswith("in fit and valid")
    (tmp_path / "Session3/test_meta_data.json").write_text('{"meta_data": [{"label": "a"}]}')
    refused(lambda: make(c, EMOTION, f"superb:{tmp_path}"), "Session3/test_meta_data.json", "meta_data", "path")
    shutil.rmtree(tmp_path / "Session3")
    refused(lambda: make(c, EMOTION, f"superb:{tmp_path}"), "no folder Session3")
