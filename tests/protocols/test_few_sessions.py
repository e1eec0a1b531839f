"""Five sessions of two speakers, as in IEMOCAP: how much of them trains, and whether there is a verdict on them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
from running import begin
from splits import check_invariants, corpus, dialogues, notes, values
from stores import Fake, quiet

from bas.corpora import Corpus, open_corpus
from bas.features.extract import extract
from bas.features.plan import Request
from bas.protocols import make
from bas.runs.plan import Plan
from bas.runs.spaces import load_space
from bas.studies.compare.study import compare
from bas.tasks import EMOTION
from bas.training.settings import settings

CLASSES = {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}
"""IEMOCAP's utterances of each class."""


def uneven(seed: int) -> Corpus:
    """As many utterances of each class as IEMOCAP has, in sessions and speakers of unlike sizes."""
    rng = Random(seed)
    weights = [rng.uniform(0.8, 1.2) for _ in range(10)]
    rows = [
        {"session": f"Session{s // 2}", "speaker": f"Ses{s // 2}{'FM'[s % 2]}", "sex": ("female", "male")[s % 2]}
        | {"label": label}
        for label, count in CLASSES.items()
        for s in rng.choices(range(10), weights, k=count)
    ]
    return corpus(rows, protocol="session")


@pytest.mark.parametrize("seed", range(6))
def test_seven_tenths_train_and_no_speaker_is_on_two_sides(seed: int) -> None:
    c = uneven(seed)
    protocol = make(c, EMOTION, seed=seed)
    check_invariants(c, EMOTION, protocol)
    assert protocol.rule == "session"
    assert protocol.marks == ()
    trained = sum(len(fold.fit) for fold in protocol.folds) / len(protocol.folds) / len(c.utterances)
    assert trained >= 0.69
    for fold in protocol.folds:
        assert len(values(c, fold.test, "session")) == 1
        assert len(values(c, fold.valid, "speaker")) == 1
        assert values(c, fold.valid, "label") == set(CLASSES)
        fit, valid, test = (values(c, part, "speaker") for part in (fold.fit, fold.valid, fold.test))
        assert not set(fit) & set(valid)
        assert not (set(fit) | set(valid)) & set(test)
    (note,) = notes(protocol)
    assert note.startswith("session on both sides: 1 values")
    assert note.endswith("in fit and valid, none in test")


def test_whole_sessions_where_there_are_many_or_the_task_forbids_to_share_them() -> None:
    many = dialogues(7)
    assert notes(make(many, EMOTION)) == ()
    apart = replace(EMOTION, disjoint=("speaker", "session"))
    assert notes(make(dialogues(), apart)) == ()


def test_sessions_whose_speakers_come_again_are_held_out_whole() -> None:
    """A speaker of two training sessions lies within neither."""
    c = dialogues(6)
    again = {"Ses1F": "Ses0F", "Ses1M": "Ses0M"}  # as if sessions 0 and 1 were of the same two
    c = replace(c, utterances=tuple(replace(u, speaker=again.get(str(u.speaker), u.speaker)) for u in c.utterances))
    protocol = make(c, EMOTION, "session", allowed=("speaker",))
    sides = [(values(c, fold.fit, "session"), values(c, fold.valid, "session")) for fold in protocol.folds]
    assert [bool(set(fit) & set(valid)) for fit, valid in sides] == [True, True, False, False, False, False]


@pytest.mark.parametrize("sessions", [2, 3, 4])
def test_fewer_sessions(sessions: int) -> None:
    c = dialogues(sessions)
    protocol = make(c, replace(EMOTION, disjoint=("speaker",)), "session")
    lost = {2: 0.2 / 2, 3: 1 / 6, 4: 1 / 8}[sessions]  # of two, a fifth of the session that trains
    for fold in protocol.folds:
        assert len(fold.valid) / len(c.utterances) == pytest.approx(lost, abs=0.02)


@pytest.mark.slow
def test_an_obvious_difference_has_a_verdict(tmp_path: Path) -> None:
    """Loud or soft: the logistic regression hears it, networks that hardly learn do not."""
    rng = np.random.default_rng(0)
    with (tmp_path / "two.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker", "session"])
        for s in range(10):
            for n in range(8):
                loud = n % 2
                id_ = f"s{s}n{n}"
                soundfile.write(tmp_path / f"{id_}.wav", 0.05 + 0.3 * loud + 0.02 * rng.standard_normal(6400), 16_000)
                writer.writerow([id_, f"{id_}.wav", ("soft", "loud")[loud], f"s{s}", f"session{s // 2}"])
    table = tmp_path / "two.csv"
    extract(open_corpus("manifest", table), Fake(), tmp_path / "store", Request("manifest", table), quiet())
    tiny = settings("cpu", {"epochs": "1", "width": "8", "lr": "0.000001", "strategy": "random"})
    plan = Plan(str(tmp_path / "store"), (str(load_space("ser_bas3").path),), 0, tiny, (0, 1), "cpu")
    table_ = compare(begin(tmp_path / "run", plan), 1, quiet())
    assert table_.protocol.rule == "session"
    assert (table_.unit, table_.units) == ("session", 5)
    transformer = next(row for row in table_.rows if row.row == "4L transformer")
    assert transformer.against_linear is not None
    assert transformer.against_linear.verdict == "worse"
