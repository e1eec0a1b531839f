"""What was found when a store's recordings were compared, kept in the store: compared.json. No start reads them twice.

    {"same": {STATE: [[[id, id], ...], [ids that cannot be read]]}, "extracted": {STATE: identity}}

A finding holds while the files stay as they are. STATE is a digest over the utterances, their times, and the size,
number and times of change of each file, by which also git knows its own; a file that was written within FRESH seconds
may be written once more within a tick of its disk's clock, and nothing is kept of it. `bas features verify` reads every
byte.
A folder that cannot be written keeps nothing. Hosts that share one may each keep what they found, and the last stays.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bas import NUMBERS
from bas.corpora import Utterance
from bas.errors import UserError
from bas.features.recordings import recording_hashes
from bas.features.store import StoreInfo
from bas.protocols.same import Found
from bas.protocols.same import same_samples as compare_samples
from bas.util.files import read_record, write_json
from bas.util.threads import in_threads

FILE = "compared.json"
KEPT = 16  # findings of each kind: a store serves several tasks, each with its own utterances
FRESH = 2.0  # the coarsest clock of a disk, FAT's


def same_samples(folder: Path, utterances: Sequence[Utterance]) -> Found:
    """As `bas.protocols.same.same_samples`; what was found before of these files is not looked for again."""
    state = _state(utterances)
    if kept := _read(folder, "same").get(state):
        groups, unread = kept
        return [tuple(ids) for ids in groups], list(unread)
    found = compare_samples(utterances)
    _keep(folder, "same", state, utterances, found)
    return found


def unlike(folder: Path, info: StoreInfo, utterances: Sequence[Utterance]) -> list[str]:
    """The ids whose recording is another than was extracted; those that are not on disk are not compared.

    What was found alike before is not read again, unless its files have changed.
    """
    state = _state(utterances)
    if _read(folder, "extracted").get(state) == info.identity:
        return []
    now = recording_hashes(utterances, lambda: None)
    others = [id_ for id_, digest in now.items() if digest != info.recordings[id_][0]]
    if not others:
        _keep(folder, "extracted", state, utterances, info.identity)
    return others


def _state(utterances: Sequence[Utterance]) -> str:
    """See the module; empty where a file was written just now. That one is not there is a state as well."""
    versions = list(in_threads(_version, sorted({u.audio for u in utterances})))
    # By the time of its inode's change, which unlike that of its content nobody can set.
    if time.time() - max((changed for *_, changed in versions), default=0) / 1e9 < FRESH:
        return ""
    digest = hashlib.sha256(repr((NUMBERS, versions)).encode())
    for u in utterances:
        digest.update(json.dumps([u.id, str(u.audio), u.start, u.end, u.truncated]).encode())
    return digest.hexdigest()


def _version(path: Path) -> tuple[int, ...]:
    """Number, size, times of modification and of change of a file; zeros where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0, 0
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(folder: Path, kind: str) -> Mapping[str, Any]:
    """The findings of a kind; none where the file is missing, damaged or another user's alone: they are made again."""
    with suppress(UserError, OSError):
        kept = read_record(folder / FILE, "delete it").get(kind)
        return kept if isinstance(kept, dict) else {}
    return {}


def _keep(folder: Path, kind: str, state: str, utterances: Sequence[Utterance], found: Any) -> None:
    """Write a finding down, unless a file has changed since `state` was taken, before it was read."""
    if not state or _state(utterances) != state:
        return
    kinds = {name: dict(_read(folder, name)) for name in ("same", "extracted")}
    kinds[kind] = dict(list((kinds[kind] | {state: found}).items())[-KEPT:])
    with suppress(OSError):
        write_json(folder / FILE, kinds)
