"""A part of a corpus, selected by its fields: `language=en`, `label=angry|happy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bas.corpora.base import Corpus
from bas.errors import UserError

FIELDS = ("id", "label", "speaker", "session", "script", "split", "language", "sex", "text")
"""What an utterance may be selected by, beside its own columns."""

LISTED = 12
NOT_SELECTED = "not selected"
"""How the reason begins for which a store lacks an utterance that was not selected."""


def select(corpus: Corpus, where: Sequence[str]) -> Corpus:
    """The utterances that have, in each field named, one of its values; the note says how many of how many.

    where: FIELD=VALUE or FIELD=VALUE|VALUE each; none: the corpus as it is. An own column counts as a field.
    UserError, naming what there is: another form, an unknown field, one given twice, a value that no utterance has, and
    a selection that leaves none.
    """
    if not where:
        return corpus
    wanted: dict[str, set[str]] = {}
    for one in where:
        field, equals, values = one.partition("=")
        if not (field and equals and all(values.split("|"))):
            raise UserError(f"--where {one}: must be FIELD=VALUE, such as language=en; a bar joins several values")
        if field not in (*FIELDS, *corpus.own):
            known = ", ".join((*FIELDS, *corpus.own))
            raise UserError(f"--where {one}: no such field of corpus {corpus.name}; it has {known}")
        if field in wanted:
            raise UserError(f"--where {one}: {field} is given twice; join its values, such as {field}=A|B")
        there = sorted({str(value) for u in corpus.utterances if (value := u.get(field)) is not None})
        for value in values.split("|"):
            if value not in there:
                more = f", and {len(there) - LISTED} more" if len(there) > LISTED else ""
                has = f"it has {', '.join(there[:LISTED])}{more}" if there else "none has any"
                raise UserError(f"--where {one}: no utterance of corpus {corpus.name} has the {field} {value}; {has}")
        wanted[field] = set(values.split("|"))
    chosen = tuple(u for u in corpus.utterances if all(str(u.get(field)) in of for field, of in wanted.items()))
    told = ", ".join(where)
    if not chosen:
        raise UserError(f"--where {told}: no utterance of corpus {corpus.name} has all of these together")
    note = f"selected by {told}: {len(chosen)} of {len(corpus.utterances)} utterances"
    return replace(corpus, utterances=chosen, note="; ".join(filter(None, (corpus.note, note))))
