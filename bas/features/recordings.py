"""Hashes of recordings, over the file's bytes and the utterance's times: which recording features were made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from bas.corpora import Utterance
from bas.util.threads import in_threads


def recording_hashes(utterances: Iterable[Utterance], tick: Callable[[], None]) -> dict[str, str]:
    """By id, a hash over the bytes of the utterance's file and its times; files that cannot be read are left out.

    Each file is read once; `tick` is called after each.
    """
    utterances = list(utterances)
    digests = dict(in_threads(lambda path: (path, _digest(path)), sorted({u.audio for u in utterances}), tick))
    return {u.id: _with_times(u, digest) for u in utterances if (digest := digests[u.audio]) is not None}


def recording_hash(utterance: Utterance) -> str | None:
    """The hash of one utterance, free of cost where its file was read before and is unchanged; None if unreadable."""
    digest = _digest(utterance.audio)
    return None if digest is None else _with_times(utterance, digest)


def _with_times(utterance: Utterance, digest: str) -> str:
    text = json.dumps([utterance.start, utterance.end, digest])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(path: Path) -> str | None:
    try:
        status = path.stat()
        return _read_digest(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError:
        return None


@lru_cache(maxsize=2**16)
def _read_digest(path: Path, *version: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()
