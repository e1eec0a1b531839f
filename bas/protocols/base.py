"""A split as data: which utterances fit, validate and test in each fold, under a name and a hash; and its file.

The file is JSON, one part of a fold a line:

    {"format": 1, "name": "emodb-speaker-5-seed0", "corpus": "emodb", "task": "emotion", "rule": "speaker:5", ...,
     "folds": [
      {"fit": ["03a01Fa", ...],
       "valid": [...],
       "test": [...]},
      ...]}

Only `folds` is needed in a file written by hand, and of each fold only `fit` and `test`: valid is then drawn from fit.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from bas.corpora import Utterance
from bas.corpora.values import find_spellings
from bas.errors import UserError
from bas.util.files import read_json, write_text
from bas.util.temporary import sweep_beside

FORMAT = 1
PARTS = ("fit", "valid", "test")
REPORTED = ("speaker", "session", "script", "text", "audio")
FIELDS = tuple(f.name for f in fields(Utterance) if f.name in (*REPORTED, "sex", "language", "label", "id"))


@dataclass(frozen=True)
class Fold:
    """Utterance ids by part: `fit` trains; `valid` is for every choice (early stopping, layer, regularisation); `test`
    is scored once. A search for a fold sees only `fit` and `valid`."""

    fit: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def parts(self) -> dict[str, tuple[str, ...]]:
        return {"fit": self.fit, "valid": self.valid, "test": self.test}

    def in_order(self) -> Fold:
        """The fold with the ids of each part sorted, so that equal splits are equal folds."""
        return Fold(**{part: tuple(sorted(ids)) for part, ids in self.parts().items()})

    def joined(self) -> Fold:
        """The fold with its valid part among its fit part, for what is trained after every choice."""
        return Fold((*self.fit, *self.valid), (), self.test)

    def without(self, ids: Collection[str]) -> Fold:
        """The fold without these utterances; a part may become empty."""
        return Fold(**{part: tuple(i for i in old if i not in ids) for part, old in self.parts().items()})


@dataclass(frozen=True)
class Protocol:
    """Folds, and the rule and seed that made them.

    labels: the common scheme of the labels; empty: the corpus's own labels. unit: the field whose values are never
    split between parts, and are the units of a paired comparison. published: a distribution's or benchmark's own split,
    which may share what the task forbids. marks: warnings that every result must show, such as forbidden overlap.
    notes: overlap in fields the task does not forbid, classes missing from a part, and the like.
    """

    name: str
    corpus: str
    task: str
    rule: str
    seed: int
    folds: tuple[Fold, ...]
    unit: str
    labels: str = ""
    published: bool = False
    marks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @cached_property
    def hash(self) -> str:
        """A short hash of every id in every part of every fold: equal splits have equal hashes."""
        text = json.dumps([{part: sorted(ids) for part, ids in fold.parts().items()} for fold in self.folds])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Every test id, in the order of the folds."""
        return tuple(i for fold in self.folds for i in fold.test)

    @property
    def description(self) -> str:
        """The protocol in a line, as in every table."""
        return f"{self.name} ({self.rule}), hash {self.hash}" + (", MARKED" if self.marks else "")

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "folds"},
            "hash": self.hash,
            "folds": [fold.parts() for fold in self.folds],
        }

    def write(self, path: Path) -> None:
        """Write the file, complete or not at all."""
        assert self.name == slug(self.name), f"{self.name!r}, which `read` would refuse"
        head = {name: value for name, value in self.to_dict().items() if name != "folds"}
        lines = [json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "folds": [']
        for fold in self.folds:
            parts = (f'"{part}": {json.dumps(ids, ensure_ascii=False)}' for part, ids in fold.parts().items())
            lines.append("  {" + ",\n   ".join(parts) + "},")
        sweep_beside(path)
        write_text(path, "\n".join(lines)[:-1] + "\n ]}\n")


def slug(*words: str) -> str:
    """The words joined into a name that can be a file's, such as emodb-speaker-5-seed0."""
    return re.sub(r"[^\w.-]+", "-", "-".join(words)).strip("-")


def read(path: Path) -> Protocol:
    """Read a protocol's file. A fold without `valid` gets an empty one.

    UserError naming file and field: no such file, no JSON, another format, a field of a wrong type, an id twice in a
    fold, an empty part, or a hash that is not the folds'.
    """
    raw = read_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("folds"), list) or not raw["folds"]:
        raise UserError(
            f'{path}: folds: missing; expected {{"folds": [{{"fit": [ids], "valid": [ids], "test": [ids]}}]}}'
        )
    if raw.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"{path}: format: {raw['format']!r} cannot be read by this version of bas; allowed: {FORMAT}; make it again"
        )
    allowed = ("format", "hash", *(f.name for f in fields(Protocol)))
    for field, value in raw.items():
        if field not in allowed:
            raise UserError(f"{path}: {field}: unknown; allowed: {', '.join(allowed)}")
        if field in ("name", "corpus", "task", "rule", "unit", "labels") and not (
            isinstance(value, str) and value.isprintable()
        ):
            raise UserError(f"{path}: {field}: {value!r} is not a text of one line")
        if field == "name" and value != slug(value):
            raise UserError(f"{path}: name: {value!r} must be letters, digits, - _ and . alone")
        if field == "seed" and type(value) is not int:
            raise UserError(f"{path}: {field}: {value!r} is not a whole number")
        if field == "published" and not isinstance(value, bool):
            raise UserError(f"{path}: {field}: {value!r}; allowed: true, false")
        if field in ("marks", "notes") and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise UserError(f"{path}: {field}: {value!r} is not a list of texts")
    folds = tuple(_fold(path, index, fold) for index, fold in enumerate(raw["folds"]))
    given = {name: raw[name] for name in allowed if name in raw and name not in ("format", "hash", "folds")}
    defaults = {"name": slug(path.stem), "corpus": "", "task": "", "rule": path.name, "seed": 0, "unit": ""}
    lines = {name: tuple(raw.get(name, ())) for name in ("marks", "notes")}
    protocol = Protocol(**{**defaults, **given, **lines}, folds=folds)
    if raw.get("hash", protocol.hash) != protocol.hash:
        message = f"{raw['hash']!r}, but its folds have {protocol.hash}: edited? if it was meant, delete the line hash"
        raise UserError(f"{path}: hash: {message}")
    return protocol


def _fold(path: Path, index: int, raw: Any) -> Fold:
    where = f"{path}: folds[{index}]"
    if not isinstance(raw, dict) or set(raw) - set(PARTS):
        raise UserError(f"{where}: expected an object with the parts {', '.join(PARTS)}")
    parts: dict[str, tuple[str, ...]] = {}
    seen: dict[str, str] = {}
    for part in PARTS:
        ids = raw.get(part, [] if part == "valid" else None)
        if not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            raise UserError(f"{where}.{part}: expected a list of utterance ids")
        if not ids and (part != "valid" or part in raw):
            raise UserError(f"{where}.{part}: empty; every part needs utterances (valid may be left out: it is drawn)")
        for id_ in ids:
            if id_ in seen:
                raise UserError(f"{where}.{part}: {id_!r} is in {seen[id_]} already; keep it in one part")
            seen[id_] = part
        parts[part] = tuple(ids)
    return Fold(**parts)


def field_of(utterance: Utterance, name: str) -> str | None:
    """The value of the utterance's field or own column as text (`audio` is a path); None where it is not known."""
    value = utterance.get(name)
    return None if value is None else str(value)


def compared(utterances: Iterable[Utterance], name: str) -> dict[str, str | None]:
    """By id, the value of the field as splits compare it: of a text that is there in two spellings it is one of them.

    A corpus leaves texts as they were spoken; of other fields it has one spelling of each value already.
    """
    value = {u.id: field_of(u, name) for u in utterances}
    if name != "text":
        return value
    counts = Counter(text for text in value.values() if text is not None)
    spellings = find_spellings(counts, lambda: counts)
    return {id_: text if text is None else spellings.get(text, text) for id_, text in value.items()}
