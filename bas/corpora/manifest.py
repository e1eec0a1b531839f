"""Corpora listed in a file: a table or JSON Lines, one utterance a line; EmoBox's and AudioFolder's forms too."""

from __future__ import annotations

import csv
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bas.corpora import intervals
from bas.corpora.base import Corpus, Utterance
from bas.corpora.cells import OBJECTS, PARSERS, own
from bas.corpora.columns import COLUMNS, EMOBOX, REQUIRED, Heading, Matched
from bas.corpora.intervals import Intervals
from bas.corpora.recordings import Recordings, refuse_outside
from bas.corpora.values import Cells
from bas.errors import UserError
from bas.util.reading import check_regular, read_lines

SUFFIXES = (".csv", ".jsonl", ".json", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".json")
MARKS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}  # between cells
QUOTES = 'write each quote in a text twice, and the text in quotes: """No"" he said"'
SHORT = 40  # characters of a cell that a message shows
SESSIONS = range(3, 11)  # numbers of sessions that are left out one at a time; more would make too many folds


def read(path: Path, columns: Mapping[str, str] | None = None) -> Corpus:
    """Read the manifest file `path`, UTF-8: `.csv`, `.tsv` or `.txt`, or JSON Lines as `.jsonl` or `.json`.

    A table has commas, semicolons, tabs or bars between its cells: whichever gives its heading, the first line that is
    not blank, the most columns. Numbers have a decimal point in any case. A cell ends on its line: with text over
    several lines, rows that a stray quote swallows would look alike. An index column without a name is not read.

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

    columns: the file's names of some of our columns, such as {"label": "mood"}: a foreign form. A name of none of ours
    that stands for itself, {"age": "age"}, keeps that column for `Utterance.others`.

    The protocol is "own" if every row has a split, else "session" if every row has a session and there are 3 to 10 of
    them, else "speaker:5".
    UserError, one line with file, line, field and remedy: an unknown, duplicate or missing column, a malformed line,
    text that is not UTF-8, a duplicate id, an unknown split or sex, a bad time, share, number of raters or word, an
    CTM file with words of no utterance, no row at all, a recording that is no readable file. Missing
    recordings are counted over all rows first.
    """
    heading, cells = open_heading(path, columns or {}), Cells()
    recordings, annotations = Recordings(path.parent), Intervals(path.parent)
    utterances: list[Utterance] = []
    numbers = array("Q")
    for number, raw, matched in rows(path, heading):
        if heading.others is EMOBOX:
            recordings.folders = tuple(path.absolute().parents)
        row = read_cells(raw, matched, cells, recordings.has_blanks)
        utterances.append(_utterance(f"{path} line {number}", row, matched, recordings, annotations))
        numbers.append(number)
    if not utterances:
        raise UserError(f"{path}: no utterance; expected one line for each, with {' and '.join(REQUIRED)} at least")
    heading.check_mapped(str(path))
    recordings.check()
    annotations.check()
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
    protocol, unit = protocol_of(utterances)
    return Corpus(name, tuple(utterances), protocol=protocol, unit=unit, note=note, remarks=tuple(remarks))


def protocol_of(utterances: Sequence[Utterance]) -> tuple[str, str]:
    """The protocol that `read` describes, and the field of its units."""
    sessions = {u.session for u in utterances}
    if all(u.split for u in utterances):
        protocol = "own"
    else:
        protocol = "session" if None not in sessions and len(sessions) in SESSIONS else "speaker:5"
    return protocol, "speaker" if protocol != "session" and all(u.speaker for u in utterances) else "session"


Row = tuple[int, dict[str, Any], Matched]  # line, its cells by the file's columns


def open_heading(path: Path, columns: Mapping[str, str], required: Sequence[str] = REQUIRED) -> Heading:
    """The heading of a table or of JSON Lines, still to be read. UserError where the path is of no such file."""
    if path.is_dir():
        raise UserError(f"{path}: a folder; a manifest is a file: {', '.join(SUFFIXES)}")
    if not path.exists():
        link = ": the link leads nowhere" if path.is_symlink() else ""
        raise UserError(f"{path}: no such manifest file{link}")
    check_regular(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: unknown extension {path.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    return Heading(columns, path.suffix.lower() in JSON_LINES, required)


def rows(path: Path, heading: Heading) -> Iterator[Row]:
    """The rows of a table or of JSON Lines. UserError for a malformed line, and columns that the heading refuses."""
    return (_json_rows if heading.in_json else _table_rows)(path, heading)


def _table_rows(path: Path, heading: Heading) -> Iterator[Row]:
    columns: list[str] = []
    matched: Matched = {}
    mark = ""
    for number, line in _lines(path):
        where = f"{path} line {number}"
        mark = mark if columns else _choose_mark(line, path.suffix.lower())
        cells = _split(where, line, mark, columns)
        if not any(map(str.strip, cells)):  # a spreadsheet leaves such lines at its end
            continue
        if not columns:
            columns, matched = cells, heading.match(where, cells)
            heading.check_mapped(where)
        elif len(cells) == len(columns):
            yield number, dict(zip(columns, cells, strict=True)), matched
        else:
            message = f"{len(cells)} cells, the heading has {len(columns)}; put a cell with a {MARKS[mark]} in quotes"
            raise UserError(f"{where}: {message}")
    if not columns:
        raise UserError(f"{path} line 1: no heading; allowed columns: {', '.join(COLUMNS)}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its number, without its end. UserError for the line ends of old Macs."""
    for number, line in read_lines(path):
        line = line.rstrip("\r\n")
        if "\r" in line:
            remedy = "save the file with the line ends of Unix (LF) or Windows (CR LF)"
            raise UserError(f"{path} line {number}: a carriage return (CR) within the line, which ends none; {remedy}")
        yield number, line


def _choose_mark(heading: str, suffix: str) -> str:
    """What stands between the cells: what gives the heading the most columns, of a .tsv the tab wherever it is."""
    if suffix == ".tsv" and "\t" in heading:
        return "\t"
    return max(MARKS, key=lambda mark: len(next(csv.reader([heading], delimiter=mark), [])))


def _split(where: str, line: str, mark: str, columns: Sequence[str]) -> list[str]:
    """The line's cells. UserError where it is malformed; a cell over several lines is: it may be a stray quote's."""
    try:
        return next(csv.reader([line], delimiter=mark, strict=True), [])
    except csv.Error as error:
        if "unexpected end" not in str(error):
            raise UserError(f"{where}: malformed table: {error}; {QUOTES}") from None
    *before, cell = next(csv.reader([line], delimiter=mark))
    column = f"{columns[len(before)]}: " if len(before) < len(columns) else ""
    shown = f'"{cell[:SHORT]}' + ("..." if len(cell) > SHORT else "")
    message = f"{shown!r} opens a quote that does not close on this line, where its cell must end"
    raise UserError(f"{where}: {column}{message}; {QUOTES}, or join the lines of the cell")


def _json_rows(path: Path, heading: Heading) -> Iterator[Row]:
    known: dict[tuple[str, ...], Matched] = {}
    for number, line in _lines(path):
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


def read_cells(
    raw: Mapping[str, Any], matched: Matched, cells: Cells, has_blanks: Callable[[str], bool] = lambda name: False
) -> dict[str, Any]:
    """The values that are known, by our columns. has_blanks: whether a recording's name has blanks at its ends."""
    row = {}
    for column, theirs in matched.items():
        for name in theirs:
            value = raw[name]
            if not (column == "audio" and isinstance(value, str) and has_blanks(value)):
                value = cells.read(column, value)
            if value is not None:
                row[column] = value
                break
    return row


def _check_encodable(value: Any) -> None:
    """ValueError where an escape means a character that no text file holds: half a surrogate pair, or NUL."""
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    if re.search(r"(?<!\\)(\\\\)*\\u0000", text):  # an even number of backslashes before it is text
        raise ValueError("a NUL character")


def parse(where: str, row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The fields of an utterance, those that the row knows; own columns are in `others`. names: the file's, by ours."""
    fields: dict[str, Any] = {}
    others = []
    for column, value in row.items():
        try:
            if column in PARSERS:
                fields[column] = PARSERS[column](value)
            else:
                others.append(own(column, value))
        except ValueError as error:
            raise UserError(f"{where}: {names[column]}: {error}") from None
        except TypeError:  # a JSON list or object, which has no hash
            raise UserError(f"{where}: {names[column]}: {value!r} is not a text") from None
    return fields | {"others": tuple(others)} if others else fields


def _utterance(
    where: str, row: dict[str, Any], matched: Matched, recordings: Recordings, annotations: Intervals
) -> Utterance:
    names = {column: theirs[0] for column, theirs in matched.items()}
    annotation = row.get("words")
    if isinstance(annotation, str) and annotation.lower().endswith(intervals.SUFFIXES):
        row = {column: value for column, value in row.items() if column != "words"}
    else:
        annotation = None
    fields = parse(where, row, names)
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
            recording = fields["audio"].name if start == 0 and end is None else None  # times are of the utterance
            fields["words"] = annotations.words(annotation, fields["id"], f"{where}: {names['words']}", recording)
        except UserError as error:
            raise UserError(f"{where}: {names['words']}: {error}") from None
    elif "words" in fields:
        fields["words"] = annotations.left.keep(fields["words"])
    return Utterance(**fields)
