"""Corpora listed in a file: CSV with a heading or JSON Lines, one utterance a line; EmoBox's and AudioFolder's too."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import sys
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bas.corpora import intervals
from bas.corpora.base import Corpus, Utterance, Word
from bas.corpora.intervals import Intervals
from bas.corpora.recordings import Recordings
from bas.errors import UserError
from bas.util.reading import check_regular, read_lines

COLUMNS = (
    *("id", "audio", "label", "speaker", "session", "split", "language", "text"),
    *("script", "sex", "shares", "raters", "start", "end", "words"),
)
REQUIRED = ("id", "audio")
SUFFIXES = (".csv", ".jsonl", ".json")
SESSIONS = range(3, 11)  # numbers of sessions that are left out one at a time; more would make too many folds
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "validation": "valid", "test": "test"}
SEXES = ("female", "male")
# Our column -> its names in AudioFolder and in tables of `datasets`; the first that has a value counts:
OTHERS = {
    "audio": ("audio", "file_name", "path", "file"),
    "label": ("label", "emotion"),
    "speaker": ("speaker", "speaker_id"),
    "sex": ("sex", "gender"),
    "text": ("text", "transcription", "sentence"),
}
EMOBOX = {"id": ("key",), "audio": ("wav",), "label": ("emo",), "speaker": ("speaker", "spk"), "type": ("type",)}


def read(path: Path) -> Corpus:
    """Read the manifest file `path`: `.csv`, or JSON Lines as `.jsonl` or `.json`, UTF-8.

    Columns: id and audio (required; audio relative to the manifest's folder unless absolute), label, speaker, session,
    split (train, valid, test; dev, val and validation mean valid), language, text, script, sex (female, male), shares
    (a JSON object: emotion to the share of listeners, 0 to 1), raters (how many listeners each share is of), start and
    end of the utterance in the audio (seconds), words (a JSON list of [start, end, "text"], seconds from the
    utterance's start; or the name of a Praat TextGrid, `.TextGrid`, or of a CTM file, `.ctm`, that holds such times,
    relative to the manifest's folder; see `bas.corpora.intervals`). Empty or null is "not known".

    Two foreign forms are read as well, recognised by the first row; their unknown columns are ignored. AudioFolder's
    `metadata.csv` and tables written by `datasets` lack the column id or audio: file_name, path or file names the
    recording, emotion the label, speaker_id the speaker, gender the sex, transcription or sentence the text, and the id
    is the recording's path without its suffix. EmoBox's JSON Lines have key and wav: emo is the label, the wav may be
    relative to any parent of the manifest's folder, and speaker or spk is read where it was added.

    The protocol is "own" if every row has a split, else "session" if every row has a session and there are 3 to 10 of
    them, else "speaker:5".
    UserError, one line with file, line, field and remedy: an unknown, duplicate or missing column, a malformed line,
    text that is not UTF-8, a duplicate id, an unknown split or sex, a blank around a value that is compared, a bad
    time, share, number of raters or word, an annotation file without the utterance's words, no row at all, a recording
    that is no readable file. Missing recordings are counted over all rows first.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; a manifest is a file: {', '.join(SUFFIXES)}")
    if not path.exists():
        link = ": the link leads nowhere" if path.is_symlink() else ""
        raise UserError(f"{path}: no such manifest file{link}")
    check_regular(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: unknown extension {path.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    recordings, annotations = Recordings(path.parent), Intervals(path.parent)
    utterances: list[Utterance] = []
    numbers = array("Q")
    for number, row, names in _csv_rows(path) if path.suffix.lower() == ".csv" else _json_rows(path):
        if names["audio"] == "wav":
            recordings.folders = tuple(path.absolute().parents)
        utterances.append(_utterance(f"{path} line {number}", row, names, recordings, annotations))
        numbers.append(number)
    if not utterances:
        raise UserError(f"{path}: no utterance; expected one line for each, with {' and '.join(REQUIRED)} at least")
    recordings.check()
    if len({u.id for u in utterances}) < len(utterances):
        first: dict[str, int] = {}
        for u, number in zip(utterances, numbers, strict=True):
            if first.setdefault(u.id, number) != number:
                message = f"{u.id!r} is on line {first[u.id]} already; give each line an id of its own"
                raise UserError(f"{path} line {number}: id: {message}")
    return assemble(path.stem, utterances, remarks=(*recordings.remarks, *annotations.remarks))


def assemble(name: str, utterances: Sequence[Utterance], note: str = "", remarks: Sequence[str] = ()) -> Corpus:
    """A corpus of these utterances under the protocol that `read` describes."""
    sessions = {u.session for u in utterances}
    if all(u.split for u in utterances):
        protocol = "own"
    else:
        protocol = "session" if None not in sessions and len(sessions) in SESSIONS else "speaker:5"
    unit = "speaker" if protocol != "session" and all(u.speaker for u in utterances) else "session"
    return Corpus(name, tuple(utterances), protocol=protocol, unit=unit, note=note, remarks=tuple(remarks))


Names = dict[str, tuple[str, ...]]
Row = tuple[int, dict[str, Any], dict[str, str]]  # line, values by our columns, the file's names of these columns


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader((line for _, line in read_lines(path)), strict=True)
    try:
        heading = next(reader, [])
        if not heading:
            raise UserError(f"{path} line 1: no heading; allowed columns: {', '.join(COLUMNS)}")
        if len(heading) == 1 and (mark := next((m for m in ";\t" if m in heading[0]), "")):
            raise UserError(f"{path} line 1: {mark!r} between the cells; save the file as CSV with commas")
        ours = _match_columns(f"{path} line 1", heading, _foreign_names(heading))
        places = [(heading.index(theirs), column) for theirs, column in ours.items()]
        names = {column: theirs for theirs, column in ours.items()}
        for cells in reader:
            if not any(map(str.strip, cells)):  # a spreadsheet leaves such lines at its end
                continue
            if len(cells) != len(heading):
                message = f"{len(cells)} cells, the heading has {len(heading)}; put a cell with a comma in quotes"
                raise UserError(f"{path} line {reader.line_num}: {message}")
            yield reader.line_num, {column: cell for i, column in places if (cell := cells[i])}, names
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: malformed CSV: {error}") from None


def _json_rows(path: Path) -> Iterator[Row]:
    others: Names | None = None
    matched: dict[tuple[str, ...], tuple[dict[str, str], dict[str, str]]] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            raw = OBJECTS.decode(line)
            if "\\u" in line:
                _check_encodable(raw)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: malformed JSON ({error}); expected one object a line") from None
        if not isinstance(raw, dict):
            raise UserError(f"{where}: a JSON {type(raw).__name__}; expected one object a line")
        columns = tuple(raw)
        if columns not in matched:
            if others is None:  # the first row decides
                others = EMOBOX if {"key", "wav"} <= set(columns) else _foreign_names(columns)
            ours = _match_columns(where, columns, others)
            matched[columns] = ours, {column: theirs for theirs, column in ours.items()}
        ours, names = matched[columns]
        row = {column: value for theirs, column in ours.items() if (value := raw[theirs]) not in (None, "")}
        yield number, row, names


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("a key is there twice in one object")
    return record


OBJECTS = json.JSONDecoder(object_pairs_hook=_object)


def _check_encodable(value: Any) -> None:
    """ValueError where an escape means a character that no text file holds: half a surrogate pair, or NUL."""
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    if re.search(r"(?<!\\)(\\\\)*\\u0000", text):  # an even number of backslashes before it is text
        raise ValueError("a NUL character")


def _foreign_names(columns: Sequence[str]) -> Names:
    """The names of our columns in a file of another form; empty where the file is in our own form."""
    own = set(REQUIRED) <= set(columns) or not any(name in columns for name in OTHERS["audio"])
    return {} if own else OTHERS


def _match_columns(where: str, columns: Sequence[str], others: Names) -> dict[str, str]:
    """The file's columns that are read -> ours. Of several for one of ours the last that has a value counts."""
    names = {column: (column,) for column in COLUMNS} | others
    matched = {name: column for column in names for name in reversed(names[column]) if name in columns}
    allowed = f"allowed: {', '.join(COLUMNS)}"
    for name in columns:
        if name not in matched and not others:
            raise UserError(f"{where}: {name!r}: unknown column, rename or delete it; {allowed}")
        if name in matched and columns.count(name) > 1:
            raise UserError(f"{where}: {name}: the column is there twice; {allowed}")
    for column in REQUIRED:
        if column not in matched.values() and not (others is OTHERS and column == "id"):
            raise UserError(f"{where}: {names[column][0]}: the required column is missing; {allowed}")
    return matched


def _utterance(
    where: str, row: dict[str, Any], names: dict[str, str], recordings: Recordings, annotations: Intervals
) -> Utterance:
    fields: dict[str, Any] = {}
    annotation = row.get("words")
    if isinstance(annotation, str) and annotation.lower().endswith(intervals.SUFFIXES):
        row = {column: value for column, value in row.items() if column != "words"}
    else:
        annotation = None
    for column, value in row.items():
        try:
            fields[column] = PARSERS[column](value)
        except ValueError as error:
            raise UserError(f"{where}: {names[column]}: {error}") from None
        except TypeError:  # a JSON list or object, which has no hash
            raise UserError(f"{where}: {names[column]}: {value!r} is not a text") from None
    for column in REQUIRED:
        if column in names and column not in fields:
            raise UserError(f"{where}: {names[column]}: empty; every utterance needs one")
    if fields.pop("type", "raw") != "raw":
        raise UserError(f"{where}: type: {row['type']!r} cannot be read; allowed: raw (wav files)")
    name = fields["audio"]
    fields["audio"] = recordings.find(name, f"{where}: {names['audio']}")
    if "id" not in fields:
        fields["id"] = os.path.splitext(name)[0]
    start, end = fields.get("start", 0.0), fields.get("end")
    if end is not None and end <= start:
        raise UserError(f"{where}: {names['end']}: {end} is not after the start, {start}")
    if annotation:
        try:
            fields["words"] = annotations.words(annotation, fields["id"])
        except UserError as error:
            raise UserError(f"{where}: {names['words']}: {error}") from None
    elif "words" in fields:
        fields["words"] = annotations.left.keep(fields["words"])
    return Utterance(**fields)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a text")
    return str(value)


def _key(value: object) -> str:
    """A text that is compared: "anger " would be another class than "anger"."""
    text = _text(value)
    if text != text.strip():
        raise ValueError(f"{text!r} begins or ends with a blank; remove it")
    return text if text.isascii() else unicodedata.normalize("NFC", text)  # "é" has two spellings; macOS uses the other


def _sentence(value: object) -> str:
    return sys.intern(_text(value))


def _split(value: object) -> str:
    if (text := _key(value)) not in SPLITS:
        raise ValueError(f"unknown split {text!r}; allowed: {', '.join(SPLITS)}")
    return SPLITS[text]


def _sex(value: object) -> str:
    if (text := _key(value)) not in SEXES:
        raise ValueError(f"unknown sex {text!r}; allowed: {', '.join(SEXES)}")
    return text


def _number(value: object) -> float:
    """The value as a float; NaN where it is no number, negative or infinite."""
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan
    return number if 0 <= number < math.inf else math.nan


def _seconds(value: object) -> float:
    time = _number(value)
    if math.isnan(time):
        raise ValueError(f"{value!r} is not a time; expected seconds from 0 on, such as 1.5")
    return time


def _json(value: object, expected: str) -> Any:
    """The value, parsed where it is the text of a CSV cell."""
    try:
        return OBJECTS.decode(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed JSON ({error}); expected {expected}") from None


def _shares(value: object) -> tuple[tuple[str, float], ...]:
    expected = 'an object such as {"anger": 0.75, "fear": 0.25}'
    shares = _json(value, expected)
    if not isinstance(shares, dict):
        raise ValueError(f"{shares!r} is not {expected}")
    for emotion, share in shares.items():
        if not _number(share) <= 1 or isinstance(share, str):
            raise ValueError(f"{emotion!r}: {share!r} is not a share; expected a number from 0 to 1")
    return tuple((_key(emotion), float(share)) for emotion, share in shares.items())


def _raters(value: object) -> int:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ValueError(f"{value!r} is not a number of listeners; expected a whole number from 1 on")
    return int(text)


def _words(value: object) -> tuple[Word, ...]:
    items = _json(value, expected := '[[start, end, "text"]], or in a manifest the name of a .TextGrid or .ctm file')
    if not isinstance(items, list):
        raise ValueError(f"{items!r} is not {expected}")
    words = []
    for item in items:
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)):
            raise ValueError(f'{item!r} is not [start, end, "text"]')
        start, end = _number(item[0]), _number(item[1])
        if not start <= end:  # NaN, which is no time, is refused as well; a word without a duration is left out later
            raise ValueError(f"{item!r}: expected seconds with 0 <= start < end")
        words.append(Word(start, end, item[2]))
    return tuple(words)


def _cached(parser: Callable[[Any], str]) -> Callable[[Any], str]:
    """The parser with a cache: a million rows share a few labels and speakers, each checked once and one object."""
    return lru_cache(maxsize=2**14, typed=True)(parser)


PARSERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("label", "speaker", "session", "language", "script"), _cached(_key)),
    **{"id": _key, "audio": _text, "text": _sentence, "type": _text, "split": _cached(_split), "sex": _cached(_sex)},
    **{"shares": _shares, "raters": _raters, "start": _seconds, "end": _seconds, "words": _words},
}
