"""Write a corpus as a manifest file, for other tools or for later."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bas.corpora.base import Corpus, Utterance
from bas.corpora.columns import COLUMNS, REQUIRED
from bas.corpora.recordings import name_in
from bas.errors import UserError
from bas.util.files import replacing
from bas.util.spreadsheet import is_formula
from bas.util.temporary import sweep_beside

SUFFIXES = (".csv", ".jsonl")


def write(corpus: Corpus, path: Path) -> tuple[str, ...]:
    """Write the corpus as the manifest `path`, .csv or .jsonl; an existing file is replaced once all is written.

    The columns are those of `bas.corpora.manifest.read` that any utterance has, and the own ones that it keeps. The
    recordings' names are relative to the file's folder where they are inside it, else absolute. Reading it gives equal
    utterances, except that an empty text and what a table has for a missing value (see `bas.corpora.values`) become
    unknown. The corpus's name, protocol and note are not kept: `read` names the corpus after the file and chooses a
    protocol.
    Returns remarks on cells of a .csv that a spreadsheet would compute: they are kept, else `read` would give others.
    UserError: another extension, a name or text that cannot be written as UTF-8, in a .csv one of several lines.
    """
    formulas: list[str] = []
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: unknown extension {path.suffix!r}; allowed: {', '.join(SUFFIXES)}")
    sweep_beside(path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        try:
            if path.suffix == ".csv":
                present = {column for u in corpus.utterances for column in _row(u, path)}
                columns = [c for c in (*COLUMNS, *corpus.own) if c in present]
                writer = csv.DictWriter(file, columns)
                writer.writeheader()
                for u in corpus.utterances:
                    row = _row(u, path)
                    _refuse_breaks(path, u.id, row)
                    formulas += filter(is_formula, row.values())
                    writer.writerow(row | {c: _json(row[c]) for c in ("shares", "words") if c in row})
            else:
                file.writelines(_json(_row(u, path)) + "\n" for u in corpus.utterances)
        except UnicodeEncodeError as error:
            raise UserError(f"{path}: cannot be written as UTF-8: {error.object[:80]!r}; rename it") from None
    if not formulas:
        return ()
    remedy = "open it with these columns as text, or export a .jsonl"
    return (f"{len(formulas)} cells begin as a spreadsheet's formula does, {formulas[0][:40]!r} the first; {remedy}",)


def _refuse_breaks(path: Path, id_: str, row: Mapping[str, Any]) -> None:
    """UserError for a value over several lines, as `read` takes each line for a row."""
    for column, value in row.items():
        if isinstance(value, str) and ("\n" in value or "\r" in value):
            raise UserError(f"{path}: {column} of {id_!r} has several lines, a row of a .csv has one; write a .jsonl")


def _row(u: Utterance, path: Path) -> dict[str, Any]:
    """The known fields of the utterance by column, as JSON values."""
    row = {column: getattr(u, column) for column in COLUMNS}
    row["audio"] = name_in(path.parent, u.audio)
    row["shares"] = dict(u.shares)
    row["words"] = [[word.start, word.end, word.text] for word in u.words]
    row |= u.others
    return {column: value for column, value in row.items() if value or column in REQUIRED}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
