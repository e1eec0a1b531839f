"""Import: features that another program computed become a store, as if an encoder of that name had been extracted.

All arrays are read and checked before anything is written; then each shard is written whole, so that a kill costs one
shard at most. The recordings are the corpus's, with their hashes and lengths as in an extraction: the arrays must have
as many frames as these make. What bas cannot know is that an array is of its recording, and what made it: the
revision is a hash of their values, and a model of such features is not exported.

Axes: L states, T frames, D width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bas.corpora import Corpus
from bas.encoders.base import EncoderInfo, frames_fault
from bas.errors import UserError
from bas.features.assemble import contents_at, write_store
from bas.features.plan import Request, cut, survey
from bas.features.shard import Contents, States, as_bytes, checksum, offsets, write_shard
from bas.features.sources import Array, Source
from bas.features.store import IMPORTED, SOURCE, FeatureStore, StoreInfo
from bas.speech import audio
from bas.util.places import note_place
from bas.util.progress import bar

NAMED = 10  # utterances in a message
LARGEST = {"float16": "65504", "float32": "3.4e38"}


@dataclass(frozen=True)
class _Checked:
    """What the check of an utterance's array found."""

    frames: int
    digest: str  # of all states as stored: equal numbers are the same features, whatever file they lie in
    crc32: tuple[int, ...]  # of each state's bytes as stored


def import_features(
    corpus: Corpus, source: Source, folder: Path, request: Request, name: str, frame_rate: float, console: Console
) -> FeatureStore:
    """Fill `folder` with the source's arrays of every utterance of the corpus, in the dtype of the request.

    name: of the encoder, free text. frame_rate: frames a second. An utterance whose recording cannot be read is left
    out and listed in the store's `skipped`; an array of no utterance is named in a note. A killed call is resumed; an
    existing store of the same arrays is kept.

    Raises UserError for an utterance without an array, arrays of different numbers of states or widths, numbers of
    frames that the frame rate does not make, NaN and infinite values, values that the dtype cannot hold, too little
    disk, and a folder that holds something else.
    """
    recordings, unusable = survey(request.asked(corpus), console)
    skipped = {**request.left_out, **unusable}
    _tell_unknown(corpus, source, console)
    if missing := [id_ for id_ in recordings if id_ not in source]:
        remedy = "make these, or leave them out of the corpus (`bas corpus export` writes a manifest to shorten)"
        raise UserError(f"{source.path}: no features of {_named(missing, len(recordings))}; {remedy}")
    states, width = _shape(source, recordings, frame_rate)
    checked = _check(source, recordings, request.dtype, console)
    contents = [float(frame_rate), sorted((id_, one.digest) for id_, one in checked.items())]
    revision = f"arrays:{hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]}"
    encoder = EncoderInfo(name, revision, IMPORTED, states, width, float(frame_rate), precision="as imported")
    plan = StoreInfo(
        request.reader,
        str(request.root.resolve()),
        encoder.to_dict(),
        tuple(range(states)),
        (),
        recordings,
        skipped,
        "elsewhere",
        request.dtype,
        made_by="import",
        truncated=request.truncated,
        columns=dict(request.columns),
    )
    shards = cut(recordings, recordings, plan, request.shard_bytes)
    pieces = [_Piece(source, ids, _contents(ids, plan, checked)) for ids in shards]
    return write_store(plan, pieces, folder, console, {SOURCE: note_place("source", source.path.resolve(), folder)})


def difference_from(source: Source, store: FeatureStore, id_: str) -> str:
    """What differs between a stored utterance and its array; empty if nothing does."""
    if id_ not in source:
        return f"not in {source.path} any more"
    array = source.open(id_)
    shape = (len(store.info.layers), store.num_frames(id_), store.info.dim)
    if array.shape != shape:
        return f"{array.where}: shape {array.shape}, where {shape} was imported"
    for layer in store.info.layers:
        if not np.array_equal(_stored(array.read(layer), store.info.dtype), store.read(id_, layer)):
            return f"{array.where}: state {layer} has other values than were imported"
    return ""


@dataclass(frozen=True)
class _Piece:
    """The arrays of one shard."""

    source: Source
    ids: tuple[str, ...]
    contents: Contents

    def frames(self) -> int:
        return int(self.contents.offsets[-1])

    def written(self, path: Path, plan: StoreInfo) -> bool:
        there = contents_at(path, plan)
        return there is not None and there.checksum == self.contents.checksum

    def write(self, path: Path, plan: StoreInfo) -> None:
        def states(layer: int, u: int) -> States:
            array = self.source.open(self.ids[u])
            block_TD = _stored(array.read(layer), plan.dtype)
            if checksum(block_TD) != self.contents.crc32[layer, u]:
                raise UserError(f"{array.where}: changed while it was imported; give the same command again")
            return block_TD

        write_shard(path, self.contents, states)


def _contents(ids: Sequence[str], plan: StoreInfo, checked: Mapping[str, _Checked]) -> Contents:
    return Contents(
        plan.encoder,
        plan.dtype,
        plan.layers,
        tuple(ids),
        offsets([checked[id_].frames for id_ in ids]),
        np.array([checked[id_].crc32 for id_ in ids], np.uint32).T,
        tuple(plan.recordings[id_][0] for id_ in ids),
        {},
    )


def _tell_unknown(corpus: Corpus, source: Source, console: Console) -> None:
    known = {u.id for u in corpus.utterances}
    if unknown := [id_ for id_ in source.ids if id_ not in known]:
        message = f"note: {source.path}: {_named(unknown, len(source.ids))} are of no utterance of {corpus.name}"
        console.print(message, style="bold yellow", highlight=False, markup=False, soft_wrap=True)


def _shape(source: Source, recordings: Mapping[str, tuple[str, int]], frame_rate: float) -> tuple[int, int]:
    """The number of states and the width, the same for all; nothing but the files' headers is read.

    Raises UserError for an array that has others, and for numbers of frames that are not those of the recordings.
    """
    first: Array | None = None
    wrong: dict[str, str] = {}
    for id_, (_, samples) in recordings.items():
        array = source.open(id_)
        first = first or array
        for what, axis in (("states", 0), ("width", 2)):
            if array.shape[axis] != first.shape[axis]:
                message = f"{what} {array.shape[axis]}, but {first.where} has {first.shape[axis]}"
                raise UserError(f"{array.where}: {message}; they must be the same for all")
        if why := frames_fault(array.shape[1], samples, frame_rate, audio.SLACK):
            wrong[id_] = why
    if wrong:
        which, why = next(iter(wrong.items()))
        message = f"{which}: {why} at --frame-rate {frame_rate:g}; {len(wrong)} of {len(recordings)} utterances are off"
        raise UserError(f"{source.path}: {message}; state the rate of the arrays, and cut padding off")
    assert first is not None, "a survey without an utterance is refused"
    return first.shape[0], first.shape[2]


def _check(source: Source, ids: Mapping[str, Any], dtype: str, console: Console) -> dict[str, _Checked]:
    """Read every array once. UserError naming those with NaN or infinite values, or values beyond the dtype."""
    checked: dict[str, _Checked] = {}
    odd: list[str] = []
    beyond: list[str] = []
    with bar(console, "utterances") as progress:
        task = progress.add_task("check", total=len(ids))
        for id_ in ids:
            array = source.open(id_)
            digest, crc32, finite, held = hashlib.sha256(repr(array.shape).encode()), [], True, True
            for layer in range(array.shape[0]):
                block_TD = array.read(layer)
                stored_TD = _stored(block_TD, dtype)
                digest.update(as_bytes(stored_TD))
                crc32.append(checksum(stored_TD))
                finite &= bool(np.isfinite(block_TD).all())
                held &= bool(np.isfinite(stored_TD).all())
            if not held:
                (beyond if finite else odd).append(id_)
            checked[id_] = _Checked(array.shape[1], digest.hexdigest(), tuple(crc32))
            progress.advance(task)
    if odd:
        raise UserError(f"{source.path}: a feature is NaN or infinite in {_named(odd, len(ids))}; compute them again")
    if beyond:
        remedy = "use --dtype float32" if dtype == "float16" else "scale the features"
        message = f"a feature is beyond {dtype} ({LARGEST[dtype]}) in {_named(beyond, len(ids))}"
        raise UserError(f"{source.path}: {message}; {remedy}")
    return checked


def _stored(block_TD: States, dtype: str) -> States:
    with np.errstate(over="ignore"):  # infinite values are refused
        return block_TD.astype(dtype)


def _named(ids: Sequence[str], of: int) -> str:
    """3 of 20: a1, a2, b1"""
    return f"{len(ids)} of {of}: {', '.join(ids[:NAMED])}{', ...' * (len(ids) > NAMED)}"
