"""Anyone's data: a CSV file with a heading, or JSON Lines, one utterance a line; EmoBox's JSON Lines as they are."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bas.corpora.base import Corpus, Utterance, Word
from bas.errors import UserError

COLUMNS = ("id", "audio", "label", "speaker", "session", "split", "language", "text", "start", "end", "words")
REQUIRED = ("id", "audio")
SESSIONS = range(3, 11)  # so many are left out one at a time; of more, each would be a fold
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "validation": "valid", "test": "test"}
EMOBOX = {"key": "id", "wav": "audio", "emo": "label", "spk": "speaker"}


def read(path: Path) -> Corpus:
    """Read the manifest file `path`: `.csv`, or JSON Lines as `.jsonl` or `.json`, UTF-8.

    Columns: id and audio (required; audio relative to the manifest's folder unless absolute), label, speaker, session,
    split (train, valid, test; dev, val and validation mean valid), language, text, start and end of the utterance in
    the audio (seconds), words (a JSON list of [start, end, "text"], seconds from the utterance's start). An empty cell
    or null is "not known". A line with EmoBox's `key` and `wav` is read as EmoBox's: emo is the label, the wav may be
    relative to any parent of the manifest's folder, speaker or spk is used where somebody added it, and columns unknown
    here are ignored. The protocol is "own" if every row has a split, else "session" if every row has one and
    there are 3 to 10, else "speaker:5".
    UserError, with file, line and field: an unknown, doubled or missing column, a malformed line, not UTF-8, a doubled
    id, a missing audio file, an unknown split, a bad time or word, no row at all.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such manifest file")
    if path.suffix not in (".csv", ".jsonl", ".json"):
        raise UserError(f"{path}: unknown extension {path.suffix!r}; allowed: .csv, .jsonl, .json")
    utterances: list[Utterance] = []
    lines: dict[str, int] = {}
    for number, row in _csv_rows(path) if path.suffix == ".csv" else _json_rows(path):
        utterance = _utterance(path, number, row)
        if utterance.id in lines:
            raise _bad(path, number, "id", f"{utterance.id!r} stands on line {lines[utterance.id]} already")
        lines[utterance.id] = number
        utterances.append(utterance)
    if not utterances:
        raise UserError(f"{path}: no utterance; expected one line for each, with {' and '.join(REQUIRED)} at least")
    sessions = {u.session for u in utterances}
    if all(u.split for u in utterances):
        protocol = "own"
    else:
        protocol = "session" if None not in sessions and len(sessions) in SESSIONS else "speaker:5"
    unit = "speaker" if protocol != "session" and all(u.speaker for u in utterances) else "session"
    return Corpus(path.stem, tuple(utterances), protocol=protocol, unit=unit)


def _bad(path: Path, number: int, field: str, problem: str) -> UserError:
    return UserError(f"{path} line {number}: {field}: {problem}")


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} line {number}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        heading = next(reader, [])
        if not heading:
            raise UserError(f"{path} line 1: no heading; allowed columns: {', '.join(COLUMNS)}")
        _check_columns(path, 1, heading)
        for cells in reader:
            if cells and len(cells) != len(heading):
                raise UserError(f"{path} line {reader.line_num}: {len(cells)} cells, the heading has {len(heading)}")
            if cells:
                yield reader.line_num, dict(zip(heading, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: malformed CSV: {error}") from None


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path} line {number}: malformed JSON ({error}); expected one object a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{path} line {number}: a JSON {type(row).__name__}; expected one object a line")
        if "key" not in row or "wav" not in row:
            _check_columns(path, number, list(row))
        yield number, row


def _check_columns(path: Path, number: int, columns: list[str]) -> None:
    allowed = f"allowed: {', '.join(COLUMNS)}"
    for column in columns:
        if column not in COLUMNS:
            raise _bad(path, number, repr(column), f"unknown column; {allowed}")
        if columns.count(column) > 1:
            raise _bad(path, number, column, f"the column stands there twice; {allowed}")
    for column in REQUIRED:
        if column not in columns:
            raise _bad(path, number, column, f"the required column is missing; {allowed}")


def _utterance(path: Path, number: int, row: dict[str, Any]) -> Utterance:
    folders = [path.parent]
    names = {column: column for column in COLUMNS}  # our column -> what the file calls it
    if "key" in row and "wav" in row:
        if row.get("type", "raw") != "raw":
            raise _bad(path, number, "type", f"{row['type']!r} cannot be read; allowed: raw (wav files)")
        folders = list(path.absolute().parents)
        names |= {column: name for name, column in EMOBOX.items() if column != "speaker" or row.get(column) is None}

    def text(column: str) -> str | None:
        value = row.get(names[column])
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise _bad(path, number, names[column], f"{value!r} is not a text")
        if column in REQUIRED and value in (None, ""):
            raise _bad(path, number, names[column], "empty; every utterance needs one")
        return None if value in (None, "") else str(value)

    def seconds(column: str) -> float | None:
        value = row.get(column)
        if value in (None, ""):
            return None
        time = _seconds(value)
        if math.isnan(time):
            raise _bad(path, number, column, f"{value!r} is not a time; expected seconds from 0 on")
        return time

    audio = [folder / str(text("audio")) for folder in folders]
    found = next((file for file in audio if file.is_file()), None)
    if found is None:
        raise _bad(path, number, names["audio"], f"no such file: {audio[0]}")
    split = text("split")
    if split is not None and split not in SPLITS:
        raise _bad(path, number, "split", f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    start, end = seconds("start") or 0.0, seconds("end")
    if end is not None and end <= start:
        raise _bad(path, number, "end", f"{end} is not after the start, {start}")
    return Utterance(
        id=str(text("id")),
        audio=found,
        label=text("label"),
        speaker=text("speaker"),
        session=text("session"),
        split=None if split is None else SPLITS[split],
        language=text("language"),
        text=text("text"),
        words=_words(path, number, row.get("words")),
        start=start,
        end=end,
    )


def _seconds(value: object) -> float:
    """The time as a float, NaN where it is none: not a number, negative or infinite."""
    try:
        time = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    return time if 0 <= time < math.inf else math.nan


def _words(path: Path, number: int, value: Any) -> tuple[Word, ...]:
    if value in (None, ""):
        return ()
    if isinstance(value, str):  # a CSV cell
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _bad(path, number, "words", f'malformed JSON ({error}); expected [[start, end, "text"]]') from None
    words = []
    for item in value if isinstance(value, list) else [value]:
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)):
            raise _bad(path, number, "words", f'{item!r} is not [start, end, "text"]')
        start, end = _seconds(item[0]), _seconds(item[1])
        if not start < end:  # also where one is no time
            raise _bad(path, number, "words", f"{item!r}: expected seconds with 0 <= start < end")
        words.append(Word(start, end, item[2]))
    return tuple(words)
