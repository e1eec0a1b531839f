"""The studies, a room each: what is trained, its numbers, its page, its figures. One study knows no other."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bas.errors import UserError
from bas.report.results import FILE, FORMAT, REMEDY, Results
from bas.util.files import read_record
from bas.util.typed import from_plain


def load_results(folder: Path | str) -> Results:
    """The typed results of a finished study in its run's folder: a `Comparison`, or the class of another study.

    Raises UserError naming the file, and the field that is missing, unknown or of another type.
    """
    path = Path(folder) / FILE
    raw = read_record(path, REMEDY)
    if raw.get("format") != FORMAT:
        raise UserError(f"{path}: format: must be {FORMAT}, not {raw.get('format')!r}; {REMEDY}")
    kind = _class_of(raw.get("study"))
    if kind is None:
        raise UserError(f"{path}: study: {raw.get('study')!r} is no study of this version of bas; {REMEDY}")
    return from_plain(
        kind, {name: value for name, value in raw.items() if name not in ("format", "study")}, path, REMEDY
    )


def _class_of(study: Any) -> type[Results] | None:
    """The class of a study's results, by the study's name, which is its folder's: none is listed here."""
    name = f"bas.studies.{study}"
    if not isinstance(study, str) or not study.isidentifier() or find_spec(name) is None:
        return None
    classes = [one for one in vars(import_module(f"{name}.results")).values() if getattr(one, "study", None) == study]
    assert len(classes) == 1, (name, classes)
    kind: type[Results] = classes[0]
    return kind
