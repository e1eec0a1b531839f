"""The corpus that a store's features are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bas.corpora import Corpus, open_corpus
from bas.corpora.columns import kept
from bas.errors import UserError
from bas.features.store import StoreInfo


def corpus_of(info: StoreInfo, keep: Sequence[str] = ()) -> Corpus:
    """Read it from where the store names it. UserError, with a way on, where it is gone; and as `open_corpus`.

    keep: own columns of its table, beside those that the store was made with.
    """
    if not Path(info.root).exists():
        made = f"the `{info.first_command}` that made the store"
        remedy = f"{made}, with the new --root and --features, checks and takes it along"
        if info.command != info.first_command:
            remedy += f"; so does the same `{info.command}` after it"
        message = f"no such file or folder: {info.root}, where the store names it; if it has moved, {remedy}"
        raise UserError(f"corpus {info.corpus}: {message}")
    return open_corpus(info.corpus, Path(info.root), info.truncated, {**info.columns, **kept(keep)})
