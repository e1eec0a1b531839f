"""Anyone's data: a CSV file with a heading, or JSON Lines, one utterance a line; EmoBox's and AudioFolder's too."""

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

COLUMNS = (
    *("id", "audio", "label", "speaker", "session", "split", "language", "text"),
    *("script", "sex", "shares", "raters", "start", "end", "words"),
)
REQUIRED = ("id", "audio")
SUFFIXES = (".csv", ".jsonl", ".json")
SESSIONS = range(3, 11)  # so many are left out one at a time; of more, each would be a fold
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "validation": "valid", "test": "test"}
SEXES = ("female", "male")
# Our column -> what others call it; of several with a value the first counts. AudioFolder, and tables of `datasets`:
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

    Two forms of others are read, told by the first row, and in them unknown columns are ignored. Where `id` or `audio`
    is no column, file_name, path or file may name the recording, emotion the label, speaker_id the speaker, gender the
    sex, transcription or sentence the text, and the id is the recording's path without its suffix (AudioFolder's
    `metadata.csv`, tables that `datasets` wrote). Where JSON Lines have `key` and `wav` they are EmoBox's: emo is the
    label, the wav may be relative to any parent of the manifest's folder, speaker or spk counts where it was added.

    The protocol is "own" if every row has a split, else "session" if every row has one and there are 3 to 10, else
    "speaker:5".
    UserError, one line with file, line, field and remedy: an unknown, doubled or missing column, a malformed line, not
    UTF-8, a doubled id, an unknown split or sex, a blank around a value that is compared, a bad time, share, number of
    raters or word, an annotation file without the utterance's words, no row at all, a recording that is no readable
    file. Missing recordings are counted over all rows first.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder; a manifest is a file: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such manifest file" + ": the link leads nowhere" * path.is_symlink())
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
                told = f"{u.id!r} stands on line {first[u.id]} already; give each line an id of its own"
                raise UserError(f"{path} line {number}: id: {told}")
    return assemble(path.stem, utterances)


def assemble(name: str, utterances: Sequence[Utterance], note: str = "") -> Corpus:
    """The corpus of a table, which names no protocol: the one that `read` tells of."""
    sessions = {u.session for u in utterances}
    if all(u.split for u in utterances):
        protocol = "own"
    else:
        protocol = "session" if None not in sessions and len(sessions) in SESSIONS else "speaker:5"
    unit = "speaker" if protocol != "session" and all(u.speaker for u in utterances) else "session"
    return Corpus(name, tuple(utterances), protocol=protocol, unit=unit, note=note)


def _lines(path: Path) -> Iterator[str]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        for number, line in enumerate(file, 1):
            if number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise UserError(f"{path} line 1: UTF-16; save the file as UTF-8 (in a spreadsheet: CSV UTF-8)")
            if b"\0" in line:
                raise UserError(f"{path} line {number}: a NUL byte: no text, or UTF-16; save the file as UTF-8")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} line {number}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


Names = dict[str, tuple[str, ...]]
Row = tuple[int, dict[str, Any], dict[str, str]]  # line, values by our columns, the file's names of these columns


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        heading = next(reader, [])
        if not heading:
            raise UserError(f"{path} line 1: no heading; allowed columns: {', '.join(COLUMNS)}")
        if len(heading) == 1 and (mark := next((m for m in ";\t" if m in heading[0]), "")):
            raise UserError(f"{path} line 1: {mark!r} between the cells; save the file as CSV with commas")
        ours = _ours(f"{path} line 1", heading, _others(heading))
        places = [(heading.index(theirs), column) for theirs, column in ours.items()]
        names = {column: theirs for theirs, column in ours.items()}
        for cells in reader:
            if not any(map(str.strip, cells)):  # a spreadsheet leaves such lines at its end
                continue
            if len(cells) != len(heading):
                told = f"{len(cells)} cells, the heading has {len(heading)}; a cell with a comma stands in quotes"
                raise UserError(f"{path} line {reader.line_num}: {told}")
            yield reader.line_num, {column: cell for i, column in places if (cell := cells[i])}, names
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: malformed CSV: {error}") from None


def _json_rows(path: Path) -> Iterator[Row]:
    others: Names | None = None
    known: dict[tuple[str, ...], tuple[dict[str, str], dict[str, str]]] = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            raw = OBJECTS.decode(line)
            if "\\u" in line:
                _encodable(raw)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: malformed JSON ({error}); expected one object a line") from None
        if not isinstance(raw, dict):
            raise UserError(f"{where}: a JSON {type(raw).__name__}; expected one object a line")
        columns = tuple(raw)
        if columns not in known:
            if others is None:  # the first row tells
                others = EMOBOX if {"key", "wav"} <= set(columns) else _others(columns)
            ours = _ours(where, columns, others)
            known[columns] = ours, {column: theirs for theirs, column in ours.items()}
        ours, names = known[columns]
        row = {column: value for theirs, column in ours.items() if (value := raw[theirs]) not in (None, "")}
        yield number, row, names


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


OBJECTS = json.JSONDecoder(object_pairs_hook=_object)


def _encodable(value: Any) -> None:
    """ValueError where an escape stands for what no file of text holds: half a surrogate pair, or NUL."""
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    if re.search(r"(?<!\\)(\\\\)*\\u0000", text):  # an even number of backslashes before it is text
        raise ValueError("a NUL character")


def _others(columns: Sequence[str]) -> Names:
    """What another form's file calls our columns; empty where the form is our own."""
    own = set(REQUIRED) <= set(columns) or not any(name in columns for name in OTHERS["audio"])
    return {} if own else OTHERS


def _ours(where: str, columns: Sequence[str], others: Names) -> dict[str, str]:
    """The file's columns that are read -> ours; of several for one of ours the last counts."""
    names = {column: (column,) for column in COLUMNS} | others
    found = {name: column for column in names for name in reversed(names[column]) if name in columns}
    allowed = f"allowed: {', '.join(COLUMNS)}"
    for name in columns:
        if name not in found and not others:
            raise UserError(f"{where}: {name!r}: unknown column, rename or delete it; {allowed}")
        if name in found and columns.count(name) > 1:
            raise UserError(f"{where}: {name}: the column stands there twice; {allowed}")
    for column in REQUIRED:
        if column not in found.values() and not (others is OTHERS and column == "id"):
            raise UserError(f"{where}: {names[column][0]}: the required column is missing; {allowed}")
    return found


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
    return Utterance(**fields)


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a text")
    return str(value)


def _key(value: object) -> str:
    """A text that is compared: "anger " beside "anger" would be one class more."""
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
    """NaN where it is none: no number, negative or infinite."""
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
    """A CSV cell holds JSON as text."""
    try:
        return OBJECTS.decode(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed JSON ({error}); expected {expected}") from None


def _shares(value: object) -> tuple[tuple[str, float], ...]:
    expected = 'an object such as {"anger": 0.75, "fear": 0.25}'
    found = _json(value, expected)
    if not isinstance(found, dict):
        raise ValueError(f"{found!r} is not {expected}")
    for emotion, share in found.items():
        if not _number(share) <= 1 or isinstance(share, str):
            raise ValueError(f"{emotion!r}: {share!r} is not a share; expected a number from 0 to 1")
    return tuple((_key(emotion), float(share)) for emotion, share in found.items())


def _raters(value: object) -> int:
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise ValueError(f"{value!r} is not a number of listeners; expected a whole number from 1 on")
    return int(text)


def _words(value: object) -> tuple[Word, ...]:
    found = _json(value, expected := '[[start, end, "text"]], or in a manifest the name of a .TextGrid or .ctm file')
    if not isinstance(found, list):
        raise ValueError(f"{found!r} is not {expected}")
    words = []
    for item in found:
        if not (isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)):
            raise ValueError(f'{item!r} is not [start, end, "text"]')
        start, end = _number(item[0]), _number(item[1])
        if not start < end:  # also where one is no time
            raise ValueError(f"{item!r}: expected seconds with 0 <= start < end")
        words.append(Word(start, end, item[2]))
    return tuple(words)


def _often(parser: Callable[[Any], str]) -> Callable[[Any], str]:
    """A million rows share a few labels and speakers: each is checked once, and one object for all."""
    return lru_cache(maxsize=2**14, typed=True)(parser)


PARSERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("label", "speaker", "session", "language", "script"), _often(_key)),
    **{"id": _key, "audio": _text, "text": _sentence, "type": _text, "split": _often(_split), "sex": _often(_sex)},
    **{"shares": _shares, "raters": _raters, "start": _seconds, "end": _seconds, "words": _words},
}
