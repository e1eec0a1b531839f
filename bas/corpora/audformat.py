"""Databases of the audformat package (https://audeering.github.io/audformat): a folder with db.yaml and its tables."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from bas.corpora.base import Corpus, Utterance
from bas.corpora.cells import PARSERS, own
from bas.corpora.columns import describe_unread
from bas.corpora.folders import Names
from bas.corpora.intervals import Left
from bas.corpora.manifest import assemble
from bas.corpora.recordings import Recordings, name_in
from bas.corpora.values import Cells, fold_name
from bas.errors import UserError
from bas.util.faults import naming
from bas.util.reading import read_bytes
from bas.util.temporary import sweep_beside, temporary_of

HEADER = "db.yaml"
# Our field -> its names in a database. The first name that is there counts, as a scheme's before a column's.
NAMES = {
    "label": ("emotion", "label"),
    "text": ("transcription", "text", "sentence", "transcript", "raw_text"),
    "sex": ("gender", "sex"),
    "speaker": ("speaker", "speaker_id"),
    **{name: (name,) for name in ("id", "session", "language", "script", "shares", "raters", "words")},
}
OWN = ("label", "id")  # a segment does not take these from its file
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
GENDERS = {"female": "female", "male": "male", "child": None, "other": None}  # audformat's -> ours
GOLD = "gold_standard"  # audformat's convention: a table whose name ends so holds what the raters agreed on
REMEDY = "leave one of the tables out (audformat.Database.drop_tables, then save)"

Key = tuple[str, float | None, float | None]  # of a row: file, start and end in seconds; no start for a whole file
FieldNames = Mapping[str, tuple[str, ...]]
Cell = tuple[Key, Any, str, bool]  # key of the row, value, where it was read, whether from the gold standard


def read(root: Path, columns: Mapping[str, str] | None = None) -> Corpus:
    """Read the database in the folder `root`: `db.yaml` and its tables, parquet or csv, and the media they name.

    An utterance is a row of a table of emotions. The emotion's column is the one with the scheme `emotion`, else the
    one with that name, else likewise `label`. Tables whose name ends with `gold_standard` win over the others; the
    others must agree. Speaker, transcription (else text), gender (else sex; child and other mean unknown), language,
    session, script, shares, raters and words come from the same row of any table, else from the row of the whole file;
    the split comes from the tables' splits, where dev means valid. Gender and language may also come from the labels of
    the scheme `speaker`; a header with one language gives it to every utterance. The id is the column `id`, else the
    file's name without its suffix, followed by the times of a segment. Names are compared, blanks trimmed and missing
    values recognised as in a manifest, and the protocol is chosen likewise, see `bas.corpora.manifest.read`. A remark
    names the columns that are not read. A pickled table is never opened: a pickle can run any code.

    columns: by field the name of the scheme or column that holds it, such as {"label": "mood"}; {"age": "age"} keeps a
    column of the user's own.
    UserError: no db.yaml, a broken one, a broken table, no emotion column, an emotion that is no text, columns that
    disagree, a duplicate row or id, missing recordings.
    """
    db, names = _load(root), _name_fields(columns or {})
    rows = {id_: _keys(root, id_, table) for id_, table in db.tables.items()}
    matched = {field: _columns(db, names[field]) for field in names}
    _check_named(root, db, columns or {}, matched)
    emotions = [id_ for id_, _ in matched["label"]]
    if not emotions:
        remedy = "add one, or say which it is: --map label=COLUMN"
        raise UserError(f"{root}: no column of emotions: none has the scheme or name emotion or label; {remedy}")
    cells = Cells()
    known = {field: _merge(root, field, _cells(root, db, rows, field, matched[field], cells)) for field in names}
    known["split"] = _merge(root, "split", _splits(db, rows))
    speakers = {
        str(name): properties for name, properties in _labels(db, "speaker").items() if isinstance(properties, Mapping)
    }
    language = db.languages[0] if len(db.languages) == 1 else None
    recordings, left_out = Recordings(root), Left()
    utterances: dict[str, Utterance] = {}
    for key, table in {key: id_ for id_ in emotions for key in rows[id_]}.items():
        file, start, end = key
        where = f"{root}: table {table!r}: {file!r}"
        whole = (file, None, None)
        values = {f: at.get(key, None if f in OWN else at.get(whole)) for f, at in known.items()}
        speaker = speakers.get(str(values["speaker"]), {})
        values["sex"] = _sex(where, values["sex"] or speaker.get("gender", speaker.get("sex")))
        values["language"] = values["language"] or speaker.get("language") or language
        values["id"] = values["id"] or _name(key)
        try:
            fields = {f: PARSERS[f](value) for f, value in values.items() if f in PARSERS and value is not None}
            others = tuple(own(f, value) for f, value in values.items() if f not in PARSERS and value is not None)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
        fields["words"] = left_out.keep(fields.get("words", ()))
        audio = recordings.find(file, f"{root}: table {table!r}")
        utterance = Utterance(**fields, audio=audio, start=start or 0.0, end=end, others=others)
        if utterances.setdefault(utterance.id, utterance) is not utterance:
            first = utterances[utterance.id].audio
            raise UserError(f"{where}: the id {utterance.id!r} is that of {first} already; each row needs its own")
    recordings.check()
    files = {key[0] for keys in rows.values() for key in keys}
    left = sorted(files - {key[0] for id_ in emotions for key in rows[id_]})
    notes = [cells.note]
    if left:
        line = f"{len(left)} of {len(files)} files are in no table of emotions and left out, {left[0]} the first"
        notes.insert(0, line)
    read_columns = {pair for pairs in matched.values() for pair in pairs}
    every = [(id_, name) for id_, table in db.tables.items() for name in table.columns]
    unread = describe_unread([f"{name} of {id_}" for id_, name in every if (id_, name) not in read_columns])
    name, note = str(db.name).replace(os.sep, "-"), "; ".join(filter(None, notes))
    return assemble(
        name, list(utterances.values()), note, (*unread, *cells.remarks, *recordings.remarks, *left_out.remarks)
    )


def _name_fields(mapped: Mapping[str, str]) -> FieldNames:
    """By our field or own column, its names in a database: what the user has said, else NAMES."""
    for field, name in mapped.items():
        if field not in NAMES and field != name:
            raise UserError(f"--map {field}={name}: no such field; allowed: {', '.join(NAMES)}")
    return {**NAMES, **{field: (name,) for field, name in mapped.items()}}


def _check_named(root: Path, db: Any, mapped: Mapping[str, str], matched: Mapping[str, list[tuple[str, str]]]) -> None:
    for field, name in mapped.items():
        if not matched[field]:
            there = dict.fromkeys(column for table in db.tables.values() for column in table.columns)
            said = f"--map {field}={name}" if field in NAMES else f"--keep {name}"
            raise UserError(f"{root}: {said}: no such scheme or column; it has: {', '.join(there)}")


def _load(root: Path) -> Any:
    """The package's Database with all its tables.

    The package would also read YAML that runs code, and pickles: only safe YAML, parquet and csv are passed to it.
    """
    import audformat
    import yaml

    names = Names()
    path = names.find(root, HEADER)
    try:
        header = yaml.safe_load(read_bytes(path).decode())
    except (FileNotFoundError, NotADirectoryError):
        message = f"no {HEADER}; an audformat database is a folder with {HEADER} and its tables"
        raise UserError(f"{root}: {message}") from None
    except UserError:  # a ValueError too
        raise
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML: {_one_line(error)}") from None
    try:
        db = audformat.Database.load_header_from_yaml(header)
    except Exception as error:  # a header may break the package in any of its lines
        raise UserError(f"{path}: no audformat header: {type(error).__name__}: {_one_line(error)}") from None
    with tempfile.TemporaryDirectory(prefix="bas-") as folder:
        for id_ in [*db.misc_tables, *db.tables]:  # in this order: misc tables are schemes of the tables
            files = [f"db.{id_}.{kind}" for kind in ("parquet", "csv")]
            name, source = next(((f, p) for f in files if (p := names.find(root, f)).is_file()), ("", root))
            if not name:
                message = f"no {files[0]} and no {files[1]}; save it as one of them"
                raise UserError(f"{root}: table {id_!r}: {message}")
            link = Path(folder) / name
            link.symlink_to(source.absolute())
            try:
                db[id_].load(str(link.with_suffix("")))
            except Exception as error:  # a table may break it, too
                raise UserError(f"{source}: no table of {HEADER}: {type(error).__name__}: {_one_line(error)}") from None
    return db


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _keys(root: Path, id_: str, table: Any) -> list[Key]:
    index = table.df.index
    if table.is_filewise:
        keys: list[Key] = [(str(file), None, None) for file in index]
    else:
        starts, ends = (_seconds(index.get_level_values(level)) for level in ("start", "end"))
        files = index.get_level_values("file")
        keys = [(str(file), start or 0.0, end) for file, start, end in zip(files, starts, ends, strict=True)]
    seen: set[Key] = set()
    for key in keys:
        if key in seen:
            raise UserError(f"{root}: table {id_!r}: {_name(key)!r} is there twice; a row is an utterance")
        seen.add(key)
    return keys


def _seconds(times: Any) -> list[float | None]:
    """The times in seconds, None where missing. From whole nanoseconds: total_seconds() may err in the last digit."""
    count = times.to_numpy("timedelta64[ns]").astype("int64").tolist()
    return [None if unknown else time / 1e9 for time, unknown in zip(count, times.isna(), strict=True)]


def _name(key: Key) -> str:
    file, start, end = key
    stem = os.path.splitext(file)[0]
    return stem if start is None else f"{stem}-{start}-{'' if end is None else end}"


def _columns(db: Any, names: Sequence[str]) -> list[tuple[str, str]]:
    """Table and column of every column that has the first of these names that is there; gold standards first."""
    every = [(id_, name, column) for id_, table in db.tables.items() for name, column in table.columns.items()]
    for name in map(fold_name, names):
        schemes = [(t, c) for t, c, column in every if fold_name(column.scheme_id or "") == name]
        if candidates := schemes or [(t, c) for t, c, _ in every if fold_name(c) == name]:
            return sorted(candidates, key=lambda pair: not pair[0].endswith(GOLD))
    return []


def _cells(
    root: Path,
    db: Any,
    rows: Mapping[str, list[Key]],
    field: str,
    columns: Sequence[tuple[str, str]],
    cells: Cells,
) -> Iterator[Cell]:
    """Every known value of our field, which these columns of tables hold."""
    for id_, name in columns:
        where = f"column {name!r} of table {id_!r}"
        scheme = db[id_].columns[name].scheme_id
        labels = _labels(db, scheme) if field == "text" and scheme else {}
        for key, cell in zip(rows[id_], _plain(db[id_].df[name]), strict=True):
            value = cells.read(field, cell)
            if field == "label" and not isinstance(value, str | None):
                raise UserError(f"{root}: {where}: {_name(key)!r}: the emotion {value!r} is no text")
            if value is not None:
                sentence = labels.get(value)
                yield key, sentence if isinstance(sentence, str) else value, where, id_.endswith(GOLD)


def _splits(db: Any, rows: Mapping[str, list[Key]]) -> Iterator[Cell]:
    for id_, table in db.tables.items():
        if table.split_id is not None and (split := SPLITS.get(table.split.type)):
            yield from ((key, split, f"table {id_!r}", False) for key in rows[id_])


def _merge(root: Path, field: str, cells: Iterable[Cell]) -> dict[Key, Any]:
    """The value of each row. UserError where two disagree, unless only the first is from the gold standard."""
    merged: dict[Key, tuple[Any, str, bool]] = {}
    for key, value, where, gold in cells:
        first, first_where, first_gold = merged.setdefault(key, (value, where, gold))
        if first != value and gold == first_gold:
            message = f"{first!r} in {first_where}, {value!r} in {where}"
            raise UserError(f"{root}: {field} of {_name(key)!r}: {message}; {REMEDY}")
    return {key: value for key, (value, _, _) in merged.items()}


def _labels(db: Any, scheme: str) -> dict[Any, Any]:
    """What each label of a scheme means: a text, or a dict of properties."""
    labels = db.schemes[scheme].labels if scheme in db.schemes else None
    if isinstance(labels, str):  # a table's name
        table = db[labels].df
        columns = {column: _plain(table[column]) for column in table.columns}
        return {label: {c: values[i] for c, values in columns.items()} for i, label in enumerate(_plain(table.index))}
    return dict(labels) if isinstance(labels, dict) else {}


def _plain(values: Any) -> list[Any]:
    """A column's values: None where missing, int for every kind of whole number."""
    return [
        None if missing else int(v) if isinstance(v, Integral) and not isinstance(v, bool) else v
        for v, missing in zip(values.tolist(), values.isna(), strict=True)
    ]


def _sex(where: str, gender: Any) -> str | None:
    if gender is not None and gender not in GENDERS:
        raise UserError(f"{where}: unknown gender {gender!r}; allowed: {', '.join(GENDERS)}")
    return GENDERS.get(gender)


def write(corpus: Corpus, folder: Path) -> None:
    """Write the corpus as an audformat database into the new or empty `folder`; `read` gives its utterances back.

    Tables: `emotion` has a row for every utterance; `files` (`segments` where any utterance has a start or an end) has
    all else that is known, raters as text, words and shares as JSON; `train`, `dev` and `test` are the splits;
    `speaker` has the gender and the language that all utterances of a speaker share. Recordings are not copied; their
    names are relative to the folder where they are inside it, else absolute. Times are kept to the nanosecond. The
    protocol is not kept: `read` chooses one. The folder appears once everything is written.
    UserError: a folder that is not empty; two utterances that are the same part of one recording; a label of more than
    one line.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty; name another folder")
    rows = [(name_in(folder, u.audio), u.start, u.end) for u in corpus.utterances]
    first: dict[tuple[str, float, float | None], str] = {}
    for row, u in zip(rows, corpus.utterances, strict=True):
        if first.setdefault(row, u.id) != u.id:
            message = f"{first[row]!r} and {u.id!r} are the same part of {row[0]}"
            raise UserError(f"corpus {corpus.name}: {message}, which audformat cannot hold; export a .csv or .jsonl")
        if u.label is not None and len(u.label.splitlines()) > 1:  # which YAML would fold
            raise UserError(f"corpus {corpus.name}: {u.id!r} has the label {u.label!r}; a label is one line")
    temporary = temporary_of(folder)
    sweep_beside(folder)
    try:
        with naming(folder):
            _database(corpus, rows).save(str(temporary))
            temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _database(corpus: Corpus, rows: Sequence[tuple[str, float, float | None]]) -> Any:
    import audformat
    import pandas as pd

    utterances = corpus.utterances
    segmented = any(start or end is not None for _, start, end in rows)

    def index(chosen: Sequence[tuple[str, float, float | None]]) -> Any:
        files = [file for file, _, _ in chosen]
        if not segmented:
            return audformat.filewise_index(files)
        starts = [time(start) for _, start, _ in chosen]
        return audformat.segmented_index(files, starts, [time(end) for _, _, end in chosen])

    def time(seconds: float | None) -> Any:
        return pd.NaT if seconds is None else pd.Timedelta(round(seconds * 1e9), "ns")

    def fill(table: str, name: str, values: Sequence[Any], **scheme: Any) -> None:
        if any(value is not None for value in values):
            if name not in db.schemes:
                db.schemes[name] = audformat.Scheme(**(scheme or {"dtype": "str"}))
            db[table][name] = audformat.Column(scheme_id=name)
            db[table][name].set(list(values))

    db = audformat.Database(
        corpus.name, usage=audformat.define.Usage.OTHER, description=corpus.note or None, languages=_languages(corpus)
    )
    speakers = _speakers(corpus)
    if speakers:
        db["speaker"] = audformat.MiscTable(pd.Index(list(speakers), name="speaker", dtype="string"))
        fill("speaker", "gender", [sex for sex, _ in speakers.values()], labels=["female", "male"])
        fill("speaker", "language", [language for _, language in speakers.values()])
    unknown = (None, None)
    others: dict[str, Sequence[Any]] = {
        "id": [u.id for u in utterances],
        "speaker": [u.speaker for u in utterances],
        "gender": [u.sex if speakers.get(u.speaker or "", unknown)[0] is None else None for u in utterances],
        "language": [u.language if speakers.get(u.speaker or "", unknown)[1] is None else None for u in utterances],
        "session": [u.session for u in utterances],
        "script": [u.script for u in utterances],
        "transcription": [u.text for u in utterances],
        "shares": [_json(dict(u.shares)) for u in utterances],
        "raters": [None if u.raters is None else str(u.raters) for u in utterances],
        "words": [_json([[w.start, w.end, w.text] for w in u.words]) for u in utterances],
        **{name: [u.get(name) for u in utterances] for name in corpus.own},
    }
    schemes: dict[str, Any] = {
        "speaker": {"dtype": "str", "labels": "speaker"},
        "gender": {"labels": ["female", "male"]},
    }
    main = "segments" if segmented else "files"
    for table in ("emotion", main):
        db[table] = audformat.Table(index(rows))
    for name, values in others.items():
        fill(main, name, values, **schemes.get(name, {}))
    labels = sorted({u.label for u in utterances if u.label is not None})
    db.schemes["emotion"] = audformat.Scheme("str", labels=labels or None)
    db["emotion"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion"]["emotion"].set([u.label for u in utterances])
    for theirs, ours in SPLITS.items():
        chosen = [row for row, u in zip(rows, utterances, strict=True) if u.split == ours]
        if chosen:
            db.splits[theirs] = audformat.Split(theirs)
            db[theirs] = audformat.Table(index(chosen), split_id=theirs)
    return db


def _speakers(corpus: Corpus) -> dict[str, tuple[str | None, str | None]]:
    """Sex and language of each speaker, where all of the speaker's utterances have the same."""
    every: dict[str, tuple[set[str | None], set[str | None]]] = {}
    for u in corpus.utterances:
        if u.speaker is not None:
            sexes, languages = every.setdefault(u.speaker, (set(), set()))
            sexes.add(u.sex)
            languages.add(u.language)
    one = {name: [next(iter(s)) if len(s) == 1 else None for s in both] for name, both in every.items()}
    return {name: (sex, language) for name, (sex, language) in sorted(one.items())}


def _languages(corpus: Corpus) -> list[str] | None:
    """The header's languages, which apply to every utterance; None unless each has one that audformat knows."""
    import audformat

    every = sorted({u.language or "" for u in corpus.utterances})
    try:
        return [audformat.utils.map_language(language) for language in every]
    except ValueError:
        return None


def _json(value: Any) -> str | None:
    return json.dumps(value, ensure_ascii=False) if value else None
