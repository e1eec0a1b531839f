"""Readers: a folder (or a manifest file) in, a `Corpus` out. Adding a corpus is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from bas.corpora import audformat, manifest
from bas.corpora.base import Corpus, Utterance, Word
from bas.corpora.columns import COLUMNS
from bas.corpora.readers import (
    aesdd,
    cafe,
    cremad,
    emodb,
    emovo,
    esd,
    hume,
    iemocap,
    meld,
    ravdess,
    shemo,
    urdu,
)
from bas.errors import UserError
from bas.util.reading import check_name, is_utf8

__all__ = ["READERS", "Corpus", "Utterance", "Word", "open_corpus"]


def _demo(root: Path) -> Corpus:
    from bas.corpora.readers import synthetic  # scipy takes a second to import; `bas --help` does without

    return synthetic.read(root)


READERS: Mapping[str, Callable[..., Corpus]] = {
    "aesdd": aesdd.read,
    "cafe": cafe.read,
    "cremad": cremad.read,
    "emodb": emodb.read,
    "emovo": emovo.read,
    "esd": esd.read,
    "hume": hume.read,
    "iemocap": iemocap.read,
    "meld": meld.read,
    "ravdess": ravdess.read,
    "shemo": shemo.read,
    "urdu": urdu.read,
    "manifest": manifest.read,
    "audformat": audformat.read,
    "demo": _demo,
}
MAPPED = ("manifest", "audformat")
"""Readers of tables whose columns may have any names."""


def open_corpus(name: str, root: Path, truncated: bool = False, columns: Mapping[str, str] | None = None) -> Corpus:
    """Read the corpus `name` from the folder `root` (for "manifest": from the file `root`).

    truncated: of every utterance, see `Utterance`. columns: by field the name of its column in a table of another form,
    such as {"label": "mood"}, and own columns to keep, see `bas.corpora.columns.kept`; MAPPED readers alone take any.
    UserError: an unknown name, a `root` that does not exist, a path that is not UTF-8 (records could not hold it), and
    whatever the reader itself refuses.
    """
    if name not in READERS:
        raise UserError(f"corpus: unknown name {name!r}; allowed: {', '.join(READERS)}")
    if not root.exists():
        raise UserError(f"corpus {name}: no such file or folder: {root}")
    for path in (root.absolute(), root.resolve()):
        check_name(path)
    if columns and name not in MAPPED:
        mapped = ",".join(f"{field}={column}" for field, column in columns.items() if field in COLUMNS)
        if not mapped:
            remedy = "it is for manifest and audformat; any other takes them of a table: --labels TABLE.csv"
            raise UserError(f"--keep {' '.join(columns)}: corpus {name} has no columns of yours; {remedy}")
        raise UserError(f"--map {mapped}: corpus {name} has columns of its own; it is for {' and '.join(MAPPED)}")
    corpus = READERS[name](root, columns) if columns else READERS[name](root)
    odd = {u.audio for u in corpus.utterances if not str(u.audio).isascii() and not is_utf8(u.audio)}
    if odd:
        check_name(min(odd), f", one of {len(odd)} recordings with such a path")
    if not truncated:
        return corpus
    return replace(corpus, utterances=tuple(replace(u, truncated=True) for u in corpus.utterances))
