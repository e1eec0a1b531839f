"""What a corpus is to the rest of `bas`: a list of utterances and the protocol it is scored under."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from bas.corpora.values import describe_spellings, find_spellings
from bas.errors import UserError

JOINED = ("label", "speaker", "session", "script", "language")
"""Fields of which a corpus has each value in one spelling."""
LONGEST_NAME = 100
"""Bytes; file systems take 255, and a run's name adds those of the encoder, the layer and the study."""


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word: `start` and `end` in seconds from the beginning of the utterance."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)  # there may be a million
class Utterance:
    """One labelled recording, or the part of a recording between `start` and `end` (seconds).

    `id` is unique within the corpus. `None` means "not known", never "none": a protocol that needs the field refuses
    the utterance by name. `session` is what was recorded together (IEMOCAP: the session; MELD: the dialogue).
    `script` is what several sessions play (IEMOCAP: the script or the scenario). `sex` is female or male. `split` is
    the part of the corpus's published split: train, valid or test. `shares` gives for each emotion the share of
    listeners (0 to 1) who perceived it; `raters` is the number of listeners. `truncated`: a recording that breaks off
    is taken as far as it goes, and not refused. `others` are the values of the table's own columns that the user keeps,
    by name, those that are known.
    """

    id: str
    audio: Path
    label: str | None = None
    speaker: str | None = None
    session: str | None = None
    split: str | None = None
    language: str | None = None
    text: str | None = None
    script: str | None = None
    sex: str | None = None
    shares: tuple[tuple[str, float], ...] = ()
    raters: int | None = None
    words: tuple[Word, ...] = ()
    start: float = 0.0
    end: float | None = None
    truncated: bool = False
    others: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> Any:
        """The value of a field or of an own column; None where it is not known."""
        if name in KNOWN:
            return getattr(self, name)
        return next((value for other, value in self.others if other == name), None)


KNOWN = frozenset(field.name for field in fields(Utterance))


@dataclass(frozen=True)
class Corpus:
    """A named list of utterances, sorted by id.

    A value of a field in JOINED, or of an own column, that is there in two spellings (`calm` and `Calm`, `3` and `3.0`;
    see `bas.corpora.values`) becomes one of them, and the note says so. The name stands in folders and files: UserError
    for one that is empty, longer than LONGEST_NAME bytes, or holds a character that cannot be shown.

    `protocol` is the rule this corpus is scored under in the literature for emotion, in the words of
    `bas.protocols`: `"speaker:5"` (five folds that never share a speaker), `"session"` (leave one
    session out) or `"own"` (the published train, valid and test parts). `unit` is the field whose
    values are the units of a paired comparison (speaker, session).
    """

    name: str
    utterances: tuple[Utterance, ...]
    protocol: str
    unit: str
    headlines: tuple[str, ...] = ("WA",)  # the metrics it is scored by, each for the tasks that have it
    chosen_by: tuple[str, ...] = ()  # the shares by which its utterances were selected
    published: bool = False  # the split "own" is the distribution's: it may share what a task forbids, and is marked
    labels: str = ""  # the common scheme that the labels were mapped to; empty: the corpus's own labels
    note: str = ""  # shown with every result, e.g. that the speech is synthetic
    remarks: tuple[str, ...] = ()  # shown where it is read: columns that were not, blanks that were trimmed

    def __post_init__(self) -> None:
        self._check_name()
        if not self.utterances:
            raise UserError(f"corpus {self.name}: no utterance found")
        object.__setattr__(self, "utterances", tuple(sorted(self.utterances, key=lambda u: u.id)))
        for field in (*JOINED, *self.own):
            self._join(field)
        for one, other in pairwise(self.utterances):
            if one.id == other.id:
                raise UserError(
                    f"corpus {self.name}: two utterances have the id {one.id!r}: {one.audio}, {other.audio}"
                )

    @property
    def own(self) -> tuple[str, ...]:
        """The names of the own columns of which any utterance has a value."""
        return tuple(dict.fromkeys(name for u in self.utterances for name, _ in u.others))

    @property
    def gaps(self) -> tuple[str, ...]:
        """What keeps it from being trained on, while its features can be extracted; empty for nothing."""
        labelled = self.labelled()
        if not labelled and not self.labelled("shares", *self.own):
            return ("no utterance has a label; nothing is trained until they do, and extracted features stay",)
        without = sum(u.speaker is None for u in labelled)
        if without and not self.published:
            return (f"{without} utterances with a label have no speaker; emotion is not scored until they do",)
        return ()

    def _check_name(self) -> None:
        if len(os.fsencode(self.name)) > LONGEST_NAME:
            message = f"the name has more than {LONGEST_NAME} bytes, and folders are called by it"
            raise UserError(f"corpus {self.name[:40]}...: {message}; rename it, or make a link to it")
        if not self.name or not self.name.isprintable():
            message = "empty" if not self.name else "with a character that cannot be shown"
            raise UserError(f"corpus {self.name!r}: a name {message}, and folders are called by it; rename it")

    def _join(self, field: str) -> None:
        """Give the values of a field that are there in two spellings one of them."""

        def count() -> Counter[str]:
            return Counter(value for u in self.utterances if (value := u.get(field)) is not None)

        values = {u.get(field) for u in self.utterances} - {None}
        spellings = find_spellings(values, count)
        if not spellings:
            return
        note = describe_spellings(field, spellings, count())
        joined: list[Utterance] = []
        for u in self.utterances:
            changes: dict[str, Any] = (
                {field: spellings.get(getattr(u, field), getattr(u, field))}
                if field in KNOWN
                else {"others": tuple((n, spellings.get(v, v) if n == field else v) for n, v in u.others)}
            )
            joined.append(replace(u, **changes))
        object.__setattr__(self, "utterances", tuple(joined))
        object.__setattr__(self, "note", "; ".join(filter(None, (self.note, note))))

    def labelled(self, *names: str) -> tuple[Utterance, ...]:
        """The utterances of which any of these fields or own columns is known; without a name: the label."""
        names = names or ("label",)
        return tuple(u for u in self.utterances if any(u.get(name) not in (None, ()) for name in names))
