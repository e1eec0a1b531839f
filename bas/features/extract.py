"""Extraction: a frozen encoder over a corpus, into shards; resumable after a kill at any moment.

Each batch is appended to the open shard's spool (raw bytes) and then to its journal (one line). What the journal names
is finished and is never computed again; a torn last line, and the bytes it would have named, are cut off. A full spool
becomes `shard-*.h5` under a temporary name, is renamed, and the spool goes. Batches are planned from the whole shard
beforehand, so a resumed extraction runs the same batches and gets the same bits. The plan holds a hash of the audio
files' bytes: recordings that have changed are never taken for those a store was begun with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from bas import audio
from bas.corpora import Corpus, Utterance
from bas.encoders import Encoder
from bas.errors import UserError
from bas.features.store import DTYPES, FeatureStore, States, StoreInfo, shard_path, write_shard
from bas.files import locked, write_json
from bas.progress import bar

SHARD_BYTES = 256 * 2**20
BATCH_SECONDS = 240.0
PATIENCE = 2.0  # seconds without a progress bar


def extract(
    corpus: Corpus,
    reader: str,
    root: Path,
    encoder: Encoder,
    folder: Path,
    layers: Sequence[int] | None,
    console: Console,
    *,
    dtype: str = "float16",
    shard_bytes: int = SHARD_BYTES,
) -> FeatureStore:
    """Fill `folder` with the hidden states `layers` (None: all) of every utterance, as `dtype`, float16 or float32.

    reader and root: how the corpus was opened; the store names them, so that a run finds the labels again.
    Prints the cost in disk first. Memory is bounded by one batch and one utterance, whatever the corpus.
    Raises UserError for a layer the encoder has not, a folder that holds another store, too little disk, an utterance
    that cannot be read or a value that `dtype` cannot hold, and OSError for a disk that fills up meanwhile;
    what was finished by then is kept.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
    chosen = tuple(range(encoder.info.num_states)) if layers is None else tuple(sorted(set(layers)))
    outside = [i for i in chosen if not 0 <= i < encoder.info.num_states]
    if outside or not chosen:
        raise UserError(
            f"layers: {outside or 'none'} asked; {encoder.info.name} has 0 to {encoder.info.num_states - 1}"
        )
    with locked(folder, "extracting"):
        seconds = _seconds(corpus, encoder)
        samples = _samples(corpus, console)
        info = _plan(reader, root, encoder, chosen, dtype, shard_bytes, seconds, samples)
        _compare(folder, info)
        _announce(folder, info, encoder, console, sum(seconds.values()))
        write_json(folder / "store.json", asdict(info))  # of one that is there only corpus and encoder may have moved
        utterances = {u.id: u for u in corpus.utterances}
        todo = _todo(folder, info)
        _sweep(folder, info)
        with bar(console, "utterances") as progress:
            task = progress.add_task("extract", total=len(utterances))
            progress.advance(task, sum(len(ids) for i, ids in enumerate(info.shards) if i not in todo))
            for index in todo:
                spool = _Spool(folder, index, info)
                progress.advance(task, len(spool.done))
                for batch in _batches([utterances[i] for i in info.shards[index]], encoder, seconds):
                    if any(u.id not in spool.done for u in batch):
                        spool.append(batch, _encode(batch, encoder, chosen, dtype))
                        progress.advance(task, len(batch))
                spool.finish()
        store = FeatureStore(folder)
        store.verify()
        return store


def _seconds(corpus: Corpus, encoder: Encoder) -> dict[str, float]:
    """How long each utterance is. What a header tells to be unusable is refused now, not after hours."""
    seconds = {u.id: audio.duration(u) for u in corpus.utterances}
    shortest = encoder.min_samples / audio.SAMPLE_RATE
    for utterance in corpus.utterances:
        if round(seconds[utterance.id] * audio.SAMPLE_RATE) < encoder.min_samples:
            raise UserError(f"{utterance.audio}: {utterance.id} is shorter than the {shortest} s the encoder needs")
    return seconds


def _samples(corpus: Corpus, console: Console) -> str:
    """A hash over each utterance's id and times and the bytes of its file, wherever that lies; each is read once."""
    digests: dict[Path, str] = {}
    files = {u.audio for u in corpus.utterances}
    begun = time.monotonic()
    with bar(console, "recordings") as progress:
        task = progress.add_task("read", total=len(files), visible=False)
        for path in sorted(files):
            with path.open("rb") as stream:
                digests[path] = hashlib.file_digest(stream, "blake2b").hexdigest()
            progress.update(task, advance=1, visible=time.monotonic() - begun > PATIENCE)
    what = [(u.id, u.start, u.end, digests[u.audio]) for u in corpus.utterances]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _plan(
    reader: str,
    root: Path,
    encoder: Encoder,
    layers: tuple[int, ...],
    dtype: str,
    shard_bytes: int,
    seconds: Mapping[str, float],
    samples: str,
) -> StoreInfo:
    """Which utterances go into which shard: decided from the headers, before anything is encoded."""
    info = StoreInfo(
        reader, str(root.resolve()), encoder.info.as_dict(), layers, (), samples, encoder.device.type, dtype
    )
    shards: list[list[str]] = [[]]
    filled = 0.0
    for id_, length in seconds.items():
        cost = length * encoder.info.frame_rate * info.frame_bytes
        if shards[-1] and filled + cost > shard_bytes:
            shards.append([])
            filled = 0.0
        shards[-1].append(id_)
        filled += cost
    return replace(info, shards=tuple(tuple(s) for s in shards))


def _compare(folder: Path, info: StoreInfo) -> None:
    """Refuse a folder with a store that was made by another plan."""
    if not (folder / "store.json").exists():
        if any(folder.glob("shard-*")):
            raise UserError(f"{folder}: holds shards but no store.json; delete them or name another folder")
        return
    there = StoreInfo.read(folder)
    fields = {
        "revision": (there.encoder["revision"], info.encoder["revision"]),  # one of equal files has another name
        "input": (there.encoder["input"], info.encoder["input"]),
        "layers": (there.layers, info.layers),
        "dtype": (there.dtype, info.dtype),
        "corpus": (there.corpus, info.corpus),
        "recordings": (there.samples, info.samples),
        "shards": (there.shards, info.shards),
        # Bits differ between devices; one store never mixes them.
        "device": (there.device, info.device),
    }
    for name, (old, new) in fields.items():
        if old != new:
            told = f"{old} there, {new} asked" if name != "shards" else "cut differently"
            if name == "revision":
                told = f"{there.encoder['name']} {old} there, {info.encoder['name']} {new} asked"
            raise UserError(f"{folder}: holds another store ({name}: {told}); name another folder with --features")


def _todo(folder: Path, info: StoreInfo) -> list[int]:
    return [i for i in range(len(info.shards)) if not shard_path(folder, i).exists()]


def _sweep(folder: Path, info: StoreInfo) -> None:
    """Remove what a kill while a shard was written left behind."""
    for path in (*folder.glob("shard-*.tmp"), *folder.glob("store.json.*.tmp")):
        path.unlink()
    for index in set(range(len(info.shards))) - set(_todo(folder, info)):
        for suffix in (".spool", ".journal"):
            shard_path(folder, index).with_suffix(suffix).unlink(missing_ok=True)


def _announce(folder: Path, info: StoreInfo, encoder: Encoder, console: Console, seconds: float) -> None:
    size = seconds * encoder.info.frame_rate * info.frame_bytes
    free = shutil.disk_usage(folder).free
    console.print(
        f"{info.corpus}: {sum(map(len, info.shards))} utterances, {seconds / 3600:.2f} h; {encoder.info.name}: "
        f"{len(info.layers)} layers of {info.dim} at {encoder.info.frame_rate:g} frames/s; "
        f"{size / 2**20:,.0f} MiB in {len(info.shards)} shards under {folder} ({free / 2**30:,.0f} GiB free)",
        markup=False,
    )
    already = sum(p.stat().st_size for p in folder.glob("shard-*"))
    # Twice one shard: the spool and the shard made of it stand side by side for a moment.
    if _todo(folder, info) and size + min(size, SHARD_BYTES) - already > free:
        raise UserError(f"{folder}: needs {size / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free on that disk")


def _batches(
    utterances: Sequence[Utterance], encoder: Encoder, seconds: Mapping[str, float]
) -> Iterator[list[Utterance]]:
    """Utterances that may be encoded together, at most BATCH_SECONDS at a time; equal lists give equal batches."""
    groups: dict[Hashable, list[Utterance]] = {}
    for utterance in utterances:
        samples = round(seconds[utterance.id] * audio.SAMPLE_RATE)
        groups.setdefault(encoder.batch_key(samples), []).append(utterance)
    for group in groups.values():
        batch: list[Utterance] = []
        filled = 0.0
        for utterance in group:
            cost = max(seconds[utterance.id], 30.0 if encoder.info.model_type == "whisper" else 0.0)
            if batch and filled + cost > BATCH_SECONDS:
                yield batch
                batch, filled = [], 0.0
            batch.append(utterance)
            filled += cost
        yield batch


def _encode(batch: Sequence[Utterance], encoder: Encoder, layers: tuple[int, ...], dtype: str) -> list[States]:
    waves = [audio.load(u) for u in batch]
    # Resampling may round two files of one duration to different lengths: then they do not share a batch.
    together = len({encoder.batch_key(len(w)) for w in waves}) == 1
    states = encoder.encode(waves) if together else [encoder.encode([w])[0] for w in waves]
    chosen = []
    for utterance, state in zip(batch, states, strict=True):
        given = state[list(layers)]
        block = given.to(getattr(torch, dtype))
        if not block.isfinite().all():
            what = "beyond float16 (65504): try --dtype float32" if given.isfinite().all() else "NaN or infinite"
            raise UserError(f"{utterance.audio}: {utterance.id}: a feature is {what}")
        chosen.append(block.numpy())
    return chosen


class _Spool:
    """The open shard: raw states in `.spool`, and in `.journal` one line a finished batch."""

    def __init__(self, folder: Path, index: int, info: StoreInfo) -> None:
        self.shard = shard_path(folder, index)
        self.info, self.ids = info, info.shards[index]
        self.data, self.journal = self.shard.with_suffix(".spool"), self.shard.with_suffix(".journal")
        self.done: dict[str, tuple[int, int]] = {}  # utterance id to byte offset and frames
        self._end = 0
        for path in (self.data, self.journal):
            path.touch()
        self._recover()

    def _recover(self) -> None:
        """Take up what the journal names; cut off what a kill left behind its last whole line."""
        size, kept = self.data.stat().st_size, 0
        for line in self.journal.read_bytes().splitlines(keepends=True):
            try:
                entries = json.loads(line) if line.endswith(b"\n") else []
            except ValueError:
                entries = []
            stop = max((offset + self._bytes(frames) for _, offset, frames in entries), default=size + 1)
            if stop > size:
                break
            self.done.update({id_: (offset, frames) for id_, offset, frames in entries})
            kept += len(line)
            self._end = stop
        os.truncate(self.journal, kept)
        os.truncate(self.data, self._end)

    def _bytes(self, frames: int) -> int:
        return frames * self.info.frame_bytes

    def append(self, batch: Sequence[Utterance], blocks: Sequence[States]) -> None:
        entries = []
        with self.data.open("ab") as stream:
            for utterance, block in zip(batch, blocks, strict=True):
                stream.write(np.ascontiguousarray(block).tobytes())
                entries.append((utterance.id, self._end, block.shape[1]))
                self._end += self._bytes(block.shape[1])
            stream.flush()
            os.fsync(stream.fileno())
        with self.journal.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entries) + "\n")
            log.flush()
            os.fsync(log.fileno())
        self.done.update({id_: (offset, frames) for id_, offset, frames in entries})

    def finish(self) -> None:
        assert set(self.done) == set(self.ids), "every utterance of the shard is in the journal"
        shape = (len(self.info.layers), -1, self.info.dim)
        # One map for all: a map of its own for each utterance would take as many file descriptors.
        spool = np.memmap(self.data, np.uint8, "r")
        places = (self.done[i] for i in self.ids)
        parts = (spool[offset : offset + self._bytes(frames)] for offset, frames in places)
        write_shard(self.shard, self.info, self.ids, [p.view(self.info.dtype).reshape(shape) for p in parts])
        self.data.unlink()
        self.journal.unlink()
