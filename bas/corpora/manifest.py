"""Corpora listed in a file: a table or JSON Lines, one utterance a line; EmoBox's and AudioFolder's forms too."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import sys
import unicodedata
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from bas.corpora import intervals
from bas.corpora.base import Corpus, Utterance, Word
from bas.corpora.intervals import Intervals
from bas.corpora.recordings import Recordings, refuse_outside
from bas.corpora.values import Cells, fold_name
from bas.errors import UserError
from bas.util.reading import check_regular, read_lines

COLUMNS = (
    *("id", "audio", "label", "speaker", "session", "split", "language", "text"),
    *("script", "sex", "shares", "raters", "start", "end", "words"),
)
REQUIRED = ("id", "audio")
SUFFIXES = (".csv", ".jsonl", ".json", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".json")
SESSIONS = range(3, 11)  # numbers of sessions that are left out one at a time; more would make too many folds
SPLITS = {"train": "train", "valid": "valid", "dev": "valid", "val": "valid", "validation": "valid", "test": "test"}
SEXES = ("female", "male")
# Our column -> its names in AudioFolder and in tables of `datasets`; the first that has a value counts:
OTHERS = {
    "audio": ("audio", "file_name", "path", "file"),
    "label": ("label", "emotion"),
    "speaker": ("speaker", "speaker_id"),
    "sex": ("sex", "gender"),
    "text": ("text", "transcription", "sentence", "transcript", "raw_text"),
}
LISTED = 12  # columns that are not read, by name
ALSO = "; ".join(f"for {column} also {', '.join(names[1:])}" for column, names in OTHERS.items())
EMOBOX = {"id": ("key",), "audio": ("wav",), "label": ("emo",), "speaker": ("speaker", "spk"), "type": ("type",)}


def read(path: Path, columns: Mapping[str, str] | None = None) -> Corpus:
    """Read the manifest file `path`, UTF-8: `.csv`, `.tsv` or `.txt`, or JSON Lines as `.jsonl` or `.json`.

    A table has commas between its cells, or tabs where its heading has tabs (and no comma, unless it ends in `.tsv`).

    Columns: id and audio (required; audio relative to the manifest's folder unless absolute), label, speaker, session,
    split (train, valid, test; dev, val and validation mean valid), language, text, script, sex (female, male), shares
    (a JSON object: emotion to the share of listeners, 0 to 1), raters (how many listeners each share is of), start and
    end of the utterance in the audio (seconds), words (a JSON list of [start, end, "text"], seconds from the
    utterance's start; or the name of a Praat TextGrid, `.TextGrid`, or of a CTM file, `.ctm`, that holds such times,
    relative to the manifest's folder; see `bas.corpora.intervals`). Also read: emotion for the label, speaker_id for
    the speaker, gender for the sex, transcription, transcript, sentence or raw_text for the text. Columns are compared
    without case, blanks, `_` and `-`. Empty, null and what pandas writes for a missing value (see `bas.corpora.values`)
    is "not known", and a note counts the latter; blanks around a cell, other than a text, are trimmed and counted.

    Two foreign forms are read as well, recognised by the first row; their unknown columns are not read, which a remark
    says. AudioFolder's `metadata.csv` and tables written by `datasets` lack the column id or audio: file_name, path or
    file names the recording, and the id is the recording's path without its suffix. EmoBox's JSON Lines have key and
    wav: emo is the label, the wav may be relative to any parent of the manifest's folder, and speaker or spk is read
    where it was added. Of several columns for one of ours the first that has a value counts, as a remark says.

    columns: the file's names of some of our columns, such as {"label": "mood"}: a foreign form.

    The protocol is "own" if every row has a split, else "session" if every row has a session and there are 3 to 10 of
    them, else "speaker:5".
    UserError, one line with file, line, field and remedy: an unknown, duplicate or missing column, a malformed line,
    text that is not UTF-8, a duplicate id, an unknown split or sex, a bad time, share, number of raters or word, an
    annotation file without the utterance's words, no row at all, a recording that is no readable file. Missing
    recordings are counted over all rows first.
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
    in_json = path.suffix.lower() in JSON_LINES
    heading, cells = _Heading(columns or {}, in_json), Cells()
    utterances: list[Utterance] = []
    numbers = array("Q")
    for number, raw, matched in (_json_rows if in_json else _table_rows)(path, heading):
        if heading.others is EMOBOX:
            recordings.folders = tuple(path.absolute().parents)
        row = _read_cells(raw, matched, cells, recordings)
        utterances.append(_utterance(f"{path} line {number}", row, matched, recordings, annotations))
        numbers.append(number)
    if not utterances:
        raise UserError(f"{path}: no utterance; expected one line for each, with {' and '.join(REQUIRED)} at least")
    heading.check_mapped(str(path))
    recordings.check()
    if len({u.id for u in utterances}) < len(utterances):
        first: dict[str, int] = {}
        for u, number in zip(utterances, numbers, strict=True):
            if first.setdefault(u.id, number) != number:
                message = f"{u.id!r} is on line {first[u.id]} already; give each line an id of its own"
                raise UserError(f"{path} line {number}: id: {message}")
    remarks = (*heading.remarks, *cells.remarks, *recordings.remarks, *annotations.remarks)
    return assemble(path.stem, utterances, cells.note, remarks)


def assemble(name: str, utterances: Sequence[Utterance], note: str = "", remarks: Sequence[str] = ()) -> Corpus:
    """A corpus of these utterances under the protocol that `read` describes."""
    sessions = {u.session for u in utterances}
    if all(u.split for u in utterances):
        protocol = "own"
    else:
        protocol = "session" if None not in sessions and len(sessions) in SESSIONS else "speaker:5"
    unit = "speaker" if protocol != "session" and all(u.speaker for u in utterances) else "session"
    return Corpus(name, tuple(utterances), protocol=protocol, unit=unit, note=note, remarks=tuple(remarks))


Names = Mapping[str, tuple[str, ...]]
Matched = dict[str, tuple[str, ...]]  # our column -> the file's columns that are read for it, the first first
Row = tuple[int, dict[str, Any], Matched]  # line, its cells by the file's columns


class _Heading:
    """Which of a file's columns are read. mapped: the file's names of some of ours, as the user has said."""

    def __init__(self, mapped: Mapping[str, str], in_json: bool) -> None:
        self.in_json = in_json
        for column in mapped:
            if column not in COLUMNS:
                raise UserError(f"--map {column}={mapped[column]}: no such field; allowed: {', '.join(COLUMNS)}")
        self.mapped = {column: (theirs,) for column, theirs in mapped.items()}
        self.others: Names | None = None  # the names of a foreign form; empty: our own form; None: no row was read
        self._seen: dict[str, None] = {}
        self._read: dict[str, None] = {}
        self._several: dict[str, None] = {}

    def match(self, where: str, columns: Sequence[str]) -> Matched:
        """Our columns, and which of the file's are read for them; the first row's decide about the form."""
        self._seen.update(dict.fromkeys(name for name in columns if name))
        folded = {fold_name(name): name for name in reversed(columns)}
        if self.others is None:
            self.others = self._choose_form(folded)
        names = self._names()
        read = {fold_name(name) for allowed in names.values() for name in allowed}
        for index, name in enumerate(columns):
            twice = next((n for n in columns[:index] if fold_name(n) == fold_name(name)), None)
            if twice is not None and fold_name(name) in read:
                also = "" if twice == name else f", also as {name!r}"
                raise UserError(f"{where}: {twice}: the column is there twice{also}; allowed: {', '.join(COLUMNS)}")
        matched: Matched = {}
        for column, allowed in names.items():
            theirs = dict.fromkeys(folded[fold] for name in allowed if (fold := fold_name(name)) in folded)
            if theirs:
                matched[column] = tuple(theirs)
        self._check(where, columns, matched, names)
        self._read.update(dict.fromkeys(name for theirs in matched.values() for name in theirs))
        for column, (first, *others) in matched.items():
            if others:
                self._several[f"{column} is read from {first}, where that is empty from {', '.join(others)}"] = None
        return matched

    def _choose_form(self, folded: Mapping[str, str]) -> Names:
        if self.in_json and {"key", "wav"} <= folded.keys():
            return EMOBOX
        own = set(REQUIRED) <= folded.keys() or not any(fold_name(name) in folded for name in OTHERS["audio"])
        return {} if own and not self.mapped else OTHERS

    def _names(self) -> Names:
        """By our column, the names under which a file of this form may have it."""
        own = {column: (column,) for column in COLUMNS}
        if self.others is EMOBOX:
            return own | EMOBOX
        more = OTHERS if self.others else {c: names for c, names in OTHERS.items() if c not in REQUIRED}
        return own | more | self.mapped

    def _check(self, where: str, columns: Sequence[str], matched: Matched, names: Names) -> None:
        allowed = f"allowed: {', '.join(COLUMNS)}; {ALSO}"
        read = {name for theirs in matched.values() for name in theirs}
        for name in () if self.others else columns:
            if name not in read:
                remedy = f"rename it, or say what it is, such as --map label={name or 'COLUMN'}"
                raise UserError(f"{where}: {name!r}: unknown column, {remedy}; {allowed}")
        for column, theirs in matched.items():
            if len(theirs) > 1 and not self.others:
                remedy = f"say which one is meant: --map {column}={theirs[0]}"
                raise UserError(f"{where}: {' and '.join(theirs)}: two columns for {column}; {remedy}")
        for column in REQUIRED:
            if column not in matched and not (self.others is OTHERS and column == "id"):
                if column in self.mapped:
                    self.check_mapped(where)
                remedy = f"if it has another name: --map {column}=COLUMN"
                raise UserError(f"{where}: {names[column][0]}: the required column is missing; {allowed}; {remedy}")

    def check_mapped(self, where: str) -> None:
        """UserError where the file has no column that the user has named."""
        for column, (theirs,) in self.mapped.items():
            if fold_name(theirs) not in {fold_name(name) for name in self._seen}:
                raise UserError(f"{where}: --map {column}={theirs}: no such column; it has: {', '.join(self._seen)}")

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which columns were not read, and of which the first with a value was."""
        return (*describe_unread([name for name in self._seen if name not in self._read]), *self._several)


def describe_unread(names: Sequence[str]) -> tuple[str, ...]:
    """A remark on the columns of a table that were not read; none where all were."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (f"columns not read: {', '.join(names[:LISTED])}{more}",) if names else ()


def _table_rows(path: Path, heading: _Heading) -> Iterator[Row]:
    lines = (line for _, line in read_lines(path))
    first = next(lines, "")
    tabs = "\t" in first and ("," not in first or path.suffix.lower() == ".tsv")
    reader = csv.reader(chain([first] if first else [], lines), delimiter="\t" if tabs else ",", strict=True)
    try:
        columns = next(reader, [])
        if not columns:
            raise UserError(f"{path} line 1: no heading; allowed columns: {', '.join(COLUMNS)}")
        if len(columns) == 1 and ";" in columns[0]:
            raise UserError(f"{path} line 1: ';' between the cells; save the file with commas or tabs between them")
        matched = heading.match(f"{path} line 1", columns)
        heading.check_mapped(f"{path} line 1")
        for cells in reader:
            if not any(map(str.strip, cells)):  # a spreadsheet leaves such lines at its end
                continue
            if len(cells) != len(columns):
                mark = "tab" if tabs else "comma"
                message = f"{len(cells)} cells, the heading has {len(columns)}; put a cell with a {mark} in quotes"
                raise UserError(f"{path} line {reader.line_num}: {message}")
            yield reader.line_num, dict(zip(columns, cells, strict=True)), matched
    except csv.Error as error:
        kind = "table with tabs" if tabs else "CSV"
        raise UserError(f"{path} line {reader.line_num}: malformed {kind}: {error}") from None


def _json_rows(path: Path, heading: _Heading) -> Iterator[Row]:
    known: dict[tuple[str, ...], Matched] = {}
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
        if columns not in known:
            known[columns] = heading.match(where, columns)
        yield number, raw, known[columns]


def _read_cells(raw: Mapping[str, Any], matched: Matched, cells: Cells, recordings: Recordings) -> dict[str, Any]:
    """The values that are known, by our columns."""
    row = {}
    for column, theirs in matched.items():
        for name in theirs:
            value = raw[name]
            if not (column == "audio" and isinstance(value, str) and recordings.has_blanks(value)):
                value = cells.read(column, value)
            if value is not None:
                row[column] = value
                break
    return row


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


def _utterance(
    where: str, row: dict[str, Any], matched: Matched, recordings: Recordings, annotations: Intervals
) -> Utterance:
    fields: dict[str, Any] = {}
    names = {column: theirs[0] for column, theirs in matched.items()}
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
            raise UserError(
                f"{where}: {names[column]}: empty, or a word for a missing value; every utterance needs one"
            )
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
        refuse_outside(annotation, recordings.folders[0], f"{where}: {names['words']}")
        try:
            fields["words"] = annotations.words(annotation, fields["id"])
        except UserError as error:
            raise UserError(f"{where}: {names['words']}: {error}") from None
    elif "words" in fields:
        fields["words"] = annotations.left.keep(fields["words"])
    return Utterance(**fields)


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():  # pandas makes whole numbers such where one is missing
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not a text")
    return str(value)


def _key(value: object) -> str:
    """A text that is compared."""
    text = _text(value)
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
        if emotion != emotion.strip():
            raise ValueError(f"{emotion!r} begins or ends with a blank; remove it")
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
