"""Other labels than the corpus's own: one vocabulary for all corpora, or those of a table by utterance.

Readers keep the words of their distribution; nothing is renamed unless `relabel` is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeGuard

from bas.corpora import manifest
from bas.corpora.base import Corpus, Utterance
from bas.corpora.columns import COLUMNS, kept
from bas.corpora.values import Cells
from bas.errors import UserError

_WORDS = {
    "anger": ("anger", "angry"),
    "disgust": ("disgust",),
    "fear": ("fear", "fearful"),
    "happiness": ("happiness", "happy", "joy"),
    "neutral": ("neutral",),
    "sadness": ("sadness", "sad"),
    "surprise": ("surprise", "surprised"),
    None: ("boredom", "calm"),  # no counterpart among the seven
}
_FOUR = ("anger", "happiness", "neutral", "sadness")

# By scheme: what each label of a reader becomes, None where the scheme has no label for it.
SCHEMES: Mapping[str, Mapping[str, str | None]] = {
    "common": {word: common for common, words in _WORDS.items() for word in words},
    "four": {word: common if common in _FOUR else None for common, words in _WORDS.items() for word in words},
}


# Columns of a table of labels that are not read: its recordings are those of the corpus, and its words.
LEFT = ("audio", "start", "end", "words")
_UNKNOWN = {field.name: field.default for field in fields(Utterance)}


def is_table(labels: str | None) -> TypeGuard[str]:
    """Whether labels are those of a table, and not of a scheme, nor the corpus's own."""
    return labels is not None and labels not in SCHEMES


def place_of(labels: str | None) -> str | None:
    """Labels as a record holds them: of a table, its absolute path."""
    return str(Path(labels).expanduser().resolve()) if is_table(labels) else labels


def relabel(corpus: Corpus, labels: str, keep: Sequence[str] = ()) -> Corpus:
    """The corpus with other labels: of a scheme, or of the table with this path; its note says which.

    Under a scheme, labels are renamed, and an utterance whose label has no counterpart stays without one.

    A table has the form of a manifest, of which it needs the column id alone: a row for each utterance. Each of its
    columns but LEFT stands in the place of the corpus's, and what it does not know is not known, also of an utterance
    without a row, which the note counts. keep: its own columns, see `Utterance.others`. Where it gives another split,
    speaker or session, the corpus is under the protocol of a manifest, and its split is no longer the published one.

    UserError: neither a scheme nor a table, a label that the scheme does not know, what `manifest.read` refuses in a
    table, and one without a row for any utterance.
    """
    if labels in SCHEMES:
        return _under_scheme(corpus, labels)
    path = Path(labels).expanduser()
    if path.suffix.lower() in manifest.SUFFIXES and not path.exists():
        raise UserError(f"--labels {labels}: no such table; put it back, or name its place today")
    if path.suffix.lower() not in manifest.SUFFIXES:
        allowed = f"a scheme, {' or '.join(SCHEMES)}, or a table: {', '.join(manifest.SUFFIXES)}"
        raise UserError(f"--labels {labels}: must be {allowed}")
    heading, cells = manifest.open_heading(path, kept(keep), ("id",)), Cells()
    found: dict[str, dict[str, Any]] = {}
    columns: dict[str, None] = {}
    for number, raw, matched in manifest.rows(path, heading):
        where, names = f"{path} line {number}", {c: theirs[0] for c, theirs in matched.items() if c not in LEFT}
        columns |= dict.fromkeys(names)
        row = manifest.parse(where, manifest.read_cells(raw, {c: matched[c] for c in names}, cells), names)
        id_ = row.pop("id", None)
        if id_ is None:
            raise UserError(f"{where}: id: missing; a table of labels names each utterance by its id")
        if id_ in found:
            raise UserError(f"{where}: id: {id_!r} is there already; give each utterance one line")
        found[id_] = row
    heading.check_mapped(str(path))
    ours = {u.id for u in corpus.utterances}
    if not ours & found.keys():
        first = corpus.utterances[0].id
        raise UserError(f"{path}: none of its {len(found)} ids is of corpus {corpus.name}, whose first is {first!r}")
    blank = {column: _UNKNOWN[column] for column in columns if column in COLUMNS and column != "id"}
    utterances = []
    for utterance in corpus.utterances:
        row = found.get(utterance.id, {})
        others = tuple((name, value) for name, value in utterance.others if name not in columns)
        utterances.append(replace(utterance, **{**blank, **row, "others": (*others, *row.get("others", ()))}))
    note = f"labels of {path.name}"
    if without := len(ours - found.keys()):
        note += f", which has no line for {without} of {len(ours)} utterances"
    if empty := sum(not row for id_, row in found.items() if id_ in ours):
        note += f", and {empty} lines without a value"
    if foreign := found.keys() - ours:
        note += f", and {len(foreign)} for others, {min(foreign)!r} the first"
    notes, remarks = (corpus.note, note, cells.note), (*corpus.remarks, *heading.remarks, *cells.remarks)
    new = replace(corpus, utterances=tuple(utterances), note="; ".join(filter(None, notes)), remarks=remarks)
    if all(_parted(u) == _parted(old) for u, old in zip(new.utterances, corpus.utterances, strict=True)):
        return new
    protocol, unit = manifest.protocol_of(new.utterances)
    return replace(new, protocol=protocol, unit=unit, published=False)


def _parted(utterance: Utterance) -> tuple[str | None, ...]:
    """What a manifest's protocol goes by."""
    return utterance.split, utterance.speaker, utterance.session


def _under_scheme(corpus: Corpus, scheme: str) -> Corpus:
    table = SCHEMES[scheme]
    out: Counter[str] = Counter()
    utterances = []
    for utterance in corpus.utterances:
        label = utterance.label
        if label is not None:
            if label not in table:
                raise UserError(
                    f"corpus {corpus.name}: labels {scheme} do not know {label!r} of utterance {utterance.id!r}; "
                    f"allowed: {', '.join(table)}"
                )
            if table[label] is None:
                out[label] += 1
            utterance = replace(utterance, label=table[label])
        utterances.append(utterance)
    note = f"labels {scheme}"
    if out:
        note += f": {', '.join(f'{count} {label}' for label, count in sorted(out.items()))} left out"
    return replace(
        corpus, utterances=tuple(utterances), labels=scheme, note="; ".join(filter(None, (corpus.note, note)))
    )
