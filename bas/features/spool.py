"""A shard that is being filled: raw states in `.spool`, and in `.journal` one line a finished batch.

A journal line begins with a checksum of itself, has one of every block of bytes that it names, and counts only if the
bytes are there. So nothing needs to be flushed to the disk, even against a kill or a power failure. A process claims
the shard that it fills, for all hosts, and holds the lock of its journal, for the processes of this one.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from bas.errors import UserError
from bas.features.shard import Contents, Shard, States, as_bytes, checksum, offsets, shard_path, write_shard
from bas.features.store import StoreInfo
from bas.util.claims import HEART, Claim, claims_on
from bas.util.files import hold, open_own
from bas.util.versions import versions


@dataclass(frozen=True)
class Encoded:
    """The result for one utterance: its states `(L, T, D)` as stored, or why there are none."""

    id: str
    states: States | None = None
    crc32: tuple[int, ...] = ()  # of each layer's bytes
    skipped: str = ""
    level: str = ""  # of the recording: see `audio.listen`

    @classmethod
    def of(cls, id_: str, states: States, level: str) -> Encoded:
        return cls(id_, states, tuple(checksum(block) for block in states), level=level)


@dataclass(frozen=True)
class _Place:
    begin: int  # byte in the spool
    frames: int
    crc32: tuple[int, ...]


def missing_layers(folder: Path, index: int, info: StoreInfo) -> tuple[int, ...]:
    """The plan's layers that shard `index` lacks: all of them where there is no such shard."""
    path = shard_path(folder, index)
    if not path.exists():
        return info.layers
    return tuple(layer for layer in info.layers if layer not in Shard(path, info.encoder).contents.layers)


def journaled(folder: Path, index: int) -> set[str]:
    """The utterances that the journal of shard `index` names as encoded."""
    path = shard_path(folder, index).with_suffix(".journal")
    lines = path.read_bytes().splitlines() if path.exists() else []
    return {id_ for line in lines for id_ in _entries(line)[0]}


def _entries(line: bytes) -> tuple[dict[str, _Place], dict[str, str]]:
    """A journal line's encoded and skipped utterances; empty for a line that is not as it was written."""
    try:
        crc32, text = line[:8], line[9:].rstrip(b"\n")
        if int(crc32, 16) != zlib.crc32(text):
            return {}, {}
        raw = json.loads(text)
        return {id_: _Place(b, t, tuple(c)) for id_, b, t, c in raw["done"]}, dict(raw["skipped"])
    except (ValueError, TypeError, KeyError):
        return {}, {}


class Spool:
    """Shard `index` of a plan, claimed by this process until `finish` or `close`."""

    @classmethod
    def claim(cls, folder: Path, index: int, info: StoreInfo) -> Spool | None:
        """The spool of the shard; None when another process fills the shard, or it is complete."""
        layers = missing_layers(folder, index, info)
        claim = claims_on(folder).take(shard_path(folder, index).name) if layers else None
        if claim is None:
            return None
        journal = open_own(shard_path(folder, index).with_suffix(".journal"), "a+b", buffering=0)
        if not hold(journal):
            journal.close()
            HEART.release(claim)
            return None
        spool = cls(folder, index, info, layers, journal, claim)
        # Another process may have completed the shard before the lock was taken.
        if missing_layers(folder, index, info) != layers:
            spool._remove()
            return None
        spool._recover()
        return spool

    def __init__(
        self, folder: Path, index: int, info: StoreInfo, layers: tuple[int, ...], journal: FileIO, claim: Claim
    ) -> None:
        self.index, self.info, self.layers = index, info, layers
        self.path = shard_path(folder, index)
        self.skipped: dict[str, str] = {}
        self._places: dict[str, _Place] = {}
        self._journal, self._claim = journal, claim
        self._data_path = self.path.with_suffix(".spool")
        self._data = open_own(self._data_path, "a+b", buffering=0)
        self._end = 0

    @property
    def open_ids(self) -> list[str]:
        """The utterances that are neither encoded nor skipped."""
        return [i for i in self.info.shards[self.index] if i not in self._places and i not in self.skipped]

    @property
    def full(self) -> bool:
        """Whether no utterance is open. Called after each batch, so it must not loop over the utterances."""
        return len(self._places) + len(self.skipped) == len(self.info.shards[self.index])

    def append(self, batch: Sequence[Encoded]) -> None:
        """Write a batch. UserError for an utterance without states where layers are added to a complete shard, and
        where another host fills the shard by now, as this one was silent for so long."""
        self._check_claim()
        done, skipped = [], {e.id: e.skipped for e in batch if e.states is None}
        if skipped and self.path.exists():
            id_, why = next(iter(skipped.items()))
            raise UserError(f"{self.path}: layers {self.layers} cannot be added, {id_} is stored but now: {why}")
        end, line = self._end, os.fstat(self._journal.fileno()).st_size
        try:
            for encoded in batch:
                if encoded.states is not None:
                    _write(self._data, as_bytes(encoded.states))
                    done.append((encoded.id, end, encoded.states.shape[1], encoded.crc32))
                    end += encoded.states.nbytes
            text = json.dumps({"done": done, "skipped": skipped}).encode()
            _write(self._journal, memoryview(b"%08x %s\n" % (zlib.crc32(text), text)))
        except BaseException:
            os.truncate(self._data.fileno(), self._end)
            os.truncate(self._journal.fileno(), line)
            raise
        self._end = end
        self._places.update({id_: _Place(begin, frames, crc32) for id_, begin, frames, crc32 in done})
        self.skipped.update(skipped)

    def finish(self) -> None:
        """Write the shard. An existing shard keeps its layers: only the new ones were encoded."""
        assert self.full, "every utterance of the shard is in the journal"
        self._check_claim()
        old = Shard(self.path, self.info.encoder) if self.path.exists() else None
        ids = old.contents.ids if old else tuple(i for i in self.info.shards[self.index] if i in self._places)
        places = [self._places[i] for i in ids]
        # One map for all utterances: a map each would take as many file descriptors.
        spool = np.memmap(self._data_path, np.uint8, "r") if self._end else np.empty(0, np.uint8)

        def states(layer: int, u: int) -> States:
            if layer not in self.layers:
                assert old is not None
                return old.read_intact(layer, u)
            size = places[u].frames * self.info.frame_bytes
            begin = places[u].begin + self.layers.index(layer) * size
            block: States = spool[begin : begin + size].view(self.info.dtype).reshape(-1, self.info.dim)
            return block

        def sums(layer: int) -> list[int]:
            if layer not in self.layers:
                assert old is not None
                return [int(c) for c in old.contents.crc32[old.contents.layers.index(layer)]]
            return [p.crc32[self.layers.index(layer)] for p in places]

        layers = tuple(sorted({*self.layers, *(old.contents.layers if old else ())}))
        contents = Contents(
            self.info.encoder,
            self.info.dtype,
            layers,
            ids,
            offsets([p.frames for p in places]),
            np.array([sums(layer) for layer in layers], np.uint32).reshape(len(layers), len(ids)),
            tuple(self.info.recordings[i][0] for i in ids),
            old.contents.skipped if old else self.skipped,
            _join_versions(old.contents.versions, versions()) if old else versions(),
        )
        if old and not np.array_equal(contents.offsets, old.contents.offsets):
            raise UserError(f"{self.path}: layers {self.layers} have other frames than those stored; extract again")
        write_shard(self.path, contents, states)
        self._remove()

    def close(self) -> None:
        """Release the shard; another extraction can resume it."""
        self._data.close()
        self._journal.close()
        HEART.release(self._claim)

    def _check_claim(self) -> None:
        """Before each write: a heart that has stopped with its process notices too late."""
        self._claim.beat()
        if self._claim.lost or os.fstat(self._data.fileno()).st_size != self._end:
            raise UserError(f"{self.path}: another host goes on with it: this one had stopped; give the command again")

    def _remove(self) -> None:
        self._data_path.unlink(missing_ok=True)
        self.path.with_suffix(".journal").unlink(missing_ok=True)
        self.close()

    def _recover(self) -> None:
        """Resume from the journal's lines whose bytes are in the spool; cut off whatever follows them."""
        kept, size = 0, self._data_path.stat().st_size
        raw = np.memmap(self._data_path, np.uint8, "r") if size else np.empty(0, np.uint8)
        self._journal.seek(0)
        for line in self._journal.read().splitlines(keepends=True):
            places, skipped = _entries(line) if line.endswith(b"\n") else ({}, {})
            if not (places or skipped) or not all(self._intact(p, raw) for p in places.values()):
                break
            self._places.update(places)
            self.skipped.update(skipped)
            kept += len(line)
            self._end = max([self._end, *(p.begin + self._bytes(p) for p in places.values())])
        os.truncate(self._journal.fileno(), kept)
        os.truncate(self._data.fileno(), self._end)

    def _bytes(self, place: _Place) -> int:
        return place.frames * self.info.frame_bytes * len(self.layers)

    def _intact(self, place: _Place, raw: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
        if len(place.crc32) != len(self.layers) or place.begin + self._bytes(place) > len(raw):
            return False
        blocks = raw[place.begin : place.begin + self._bytes(place)].reshape(len(self.layers), -1)
        return tuple(checksum(b) for b in blocks) == place.crc32


def _join_versions(old: dict[str, str], new: dict[str, str]) -> dict[str, str]:
    """The versions of a shard whose layers were computed at different times."""
    return {name: ", ".join(dict.fromkeys([*old.get(name, "").split(", "), now])) for name, now in new.items()}


def _write(stream: FileIO, data: memoryview) -> None:
    """Write everything, unbuffered, so that a full disk raises here."""
    while data:
        data = data[stream.write(data) :]
