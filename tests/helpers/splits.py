"""Small corpora to split, and what every split must keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bas.corpora import Corpus, Utterance
from bas.errors import UserError
from bas.protocols import Protocol
from bas.tasks import Classification

SPEAKER_ID = Classification(label="speaker", disjoint=("text",), protocol="text:5", name="speaker_id")

Row = dict[str, Any]


def corpus(rows: list[Row], protocol: str = "speaker:5", published: bool = False) -> Corpus:
    """Ids u000, u001, ... unless a row gives its own."""
    named: list[Row] = [{"id": f"u{i:03}", "audio": Path(f"{i}.wav")} | row for i, row in enumerate(rows)]
    utterances = (Utterance(**row) for row in named)
    return Corpus("paper cups", tuple(utterances), protocol=protocol, unit="speaker", published=published)


def acted(speakers: int = 10, texts: int = 4, classes: str = "abc") -> Corpus:
    """Every speaker says every text in every class, as in EmoDB."""
    return corpus(
        [
            {"speaker": f"s{s:02}", "text": f"text {t}", "label": label}
            for s in range(speakers)
            for t in range(texts)
            for label in classes
        ]
    )


def dialogues(sessions: int = 5) -> Corpus:
    """Two speakers of their own in each session, as in IEMOCAP."""
    return corpus(
        [
            {"session": f"Ses{s}", "speaker": f"Ses{s}{sex}", "label": label, "text": f"{s}{sex}{label}{n}"}
            for s in range(sessions)
            for sex in "FM"
            for label in "ahns"
            for n in range(3)
        ],
        protocol="session",
    )


def split(train: str, valid: str, test: str, published: bool = False) -> Corpus:
    """Parts of speakers named by one letter each; every speaker has both classes."""
    parts = {"train": train, "valid": valid, "test": test}
    rows: list[Row] = [
        {"speaker": s, "split": part, "label": label} for part, names in parts.items() for s in names for label in "ab"
    ]
    return corpus(rows, protocol="own", published=published)


def values(corpus: Corpus, ids: tuple[str, ...], field: str) -> set[str | None]:
    known = {u.id: u for u in corpus.utterances}
    return {getattr(known[i], field) for i in ids}


def notes(protocol: Protocol) -> tuple[str, ...]:
    """But for the one that these corpora, which have no recordings, all get."""
    return tuple(note for note in protocol.notes if "cannot be read" not in note)


def check_invariants(corpus: Corpus, task: Classification, protocol: Protocol) -> None:
    """Everything a protocol promises, worked out from the corpus and the ids alone."""
    labelled = {u.id for u in corpus.utterances if getattr(u, task.label) is not None}
    classes = values(corpus, tuple(labelled), task.label)
    for fold in protocol.folds:
        parts = [fold.fit, fold.valid, fold.test]
        assert all(parts)
        ids = [i for part in parts for i in part]
        assert len(ids) == len(set(ids))
        assert set(ids) == labelled
        assert values(corpus, fold.fit, task.label) == classes
        if protocol.marks:
            continue
        for field in task.disjoint:
            training = values(corpus, (*fold.fit, *fold.valid), field)
            assert not set(training) & set(values(corpus, fold.test, field)), field
            whole = protocol.rule.partition(":")[0] == field and len(set(training)) > 1
            if whole:  # else fit and valid may share one, which a note says
                assert not set(values(corpus, fold.fit, field)) & set(values(corpus, fold.valid, field)), field
    assert len(protocol.test_ids) == len(set(protocol.test_ids))
    if protocol.rule != "own" and "/" not in protocol.rule:
        assert set(protocol.test_ids) == labelled
    if not corpus.published:
        assert all(mark.startswith("allowed by --allow-overlap") for mark in protocol.marks)


def refused(what: Callable[[], object], *parts: str) -> str:
    """The one line with which it is refused; it must hold all `parts`."""
    with pytest.raises(UserError) as caught:
        what()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert [part for part in parts if part not in message] == [], message
    return message


def ids(c: Corpus) -> tuple[str, ...]:
    return tuple(u.id for u in c.utterances)
