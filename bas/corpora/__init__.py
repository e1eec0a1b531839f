"""Readers: a folder (or a manifest file) in, a `Corpus` out. Adding a corpus is one module and one line here."""

from __future__ import annotations

from pathlib import Path

from bas.corpora import emodb, iemocap, manifest, meld, synthetic
from bas.corpora.base import Corpus, Utterance, Word
from bas.errors import UserError

__all__ = ["READERS", "Corpus", "Utterance", "Word", "open_corpus"]

READERS = {
    "emodb": emodb.read,
    "iemocap": iemocap.read,
    "meld": meld.read,
    "manifest": manifest.read,
    "demo": synthetic.read,
}


def open_corpus(name: str, root: Path) -> Corpus:
    """Read the corpus `name` from the folder `root` (for "manifest": from the file `root`).

    UserError: an unknown name, a `root` that does not exist, and whatever the reader itself refuses.
    """
    if name not in READERS:
        raise UserError(f"corpus: unknown name {name!r}; allowed: {', '.join(READERS)}")
    if not root.exists():
        raise UserError(f"corpus {name}: no such file or folder: {root}")
    return READERS[name](root)
