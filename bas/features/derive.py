"""Stores derived from others: instead of an encoder's frames one row a word, or only the frames inside words.

A derived store is a feature store that every verb reads. Its states are pooled from those of the whole utterance:
acoustic word embeddings are the means over words (arXiv 2402.02617, section 2).

Axes: T frames of one utterance, N rows made of them, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from bas.corpora import Word
from bas.errors import UserError
from bas.features.assemble import Remade, write_store
from bas.features.shard import States, checksum, offsets, write_shard
from bas.features.store import SEGMENTS, FeatureStore, StoreInfo
from bas.speech.words import Segments, holder
from bas.util.files import read_record
from bas.util.places import find_place, note_place

POOLINGS = ("mean", "centre", "inside")


def derive(folder: Path, into: Path, segments: Segments, pooling: str, console: Console) -> FeatureStore:
    """Make the store `into` of the store `folder`: all its layers and utterances, in its dtype.

    pooling: one row a segment, in order, either "mean", the mean over the segment's frames (in float64), or "centre",
    the frame nearest to its middle; or "inside", each frame inside any segment, once, in order of time. See `spans`.

    The segments are written to segments.json beside the shards. A killed call is resumed; an existing store is kept.
    Raises UserError for another pooling, a store that is damaged or itself derived, an utterance of it without
    segments, too little disk, and a folder `into` that holds something else.
    """
    if pooling not in POOLINGS:
        raise UserError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
    store = FeatureStore(folder)
    if store.info.derived:
        message = f"is itself derived ({store.info.derived})"
        raise UserError(f"{folder}: {message}; name the store it was derived from, see `bas features info {folder}`")
    missing = [id_ for id_ in store.ids if id_ not in segments.of]
    if missing:
        message = f"{len(missing)} of its utterances have no {segments.name}, {missing[0]} the first"
        raise UserError(f"{folder}: {message}: the corpus is another than the store's, extract it again")
    held = segments.only(sorted(store.ids))
    plan = replace(store.info, made_by="derive", derived=f"{pooling} {held.name} {held.digest}")
    pieces = [_Piece(store, index, held, pooling) for index, ids in enumerate(store.info.shards) if ids]
    contents = note_place("parent", folder.resolve(), into) | held.to_dict()
    return write_store(plan, pieces, into, console, {SEGMENTS: contents})


def beside(folder: Path, segments: str, pooling: str) -> Path:
    """The default folder of a store derived from the store `folder`."""
    return folder.with_name(f"{folder.name}-{segments}-{pooling}")


def frame_times(num_frames: int, frame_rate: float) -> npt.NDArray[np.float64]:
    """`(T,)`: seconds of each frame's centre, (i + 0.5) / frame_rate."""
    return (np.arange(num_frames, dtype=np.float64) + 0.5) / frame_rate


def spans(times_T: npt.NDArray[np.float64], words: Sequence[Word], pooling: str) -> npt.NDArray[np.int64]:
    """`(N, 2)`: each row is the mean of the frames from the first up to, not including, the second. times_T: centres.

    A word's frames are those whose centre is in [start, end); a word too short or too late for any gets the frame
    nearest to its middle. "inside" keeps the frames of all words; where no word has any, the nearest ones.
    """
    nearest_W = np.array([np.abs(times_T - (w.start + w.end) / 2).argmin() for w in words])
    if pooling == "mean":
        first_W, last_W = (np.searchsorted(times_T, [getattr(w, name) for w in words]) for name in ("start", "end"))
        empty_W = first_W == last_W
        return np.stack([np.where(empty_W, nearest_W, first_W), np.where(empty_W, nearest_W + 1, last_W)], axis=1)
    kept_N = nearest_W
    if pooling == "inside":
        inside_N = np.flatnonzero(holder(times_T, words) >= 0)
        kept_N = inside_N if inside_N.size else np.unique(nearest_W)
    return np.stack([kept_N, kept_N + 1], axis=1)


def pooled(block_TD: States, spans_N2: npt.NDArray[np.int64]) -> States:
    """`(N, D)`, in the block's dtype: the mean over each row's frames."""
    if (spans_N2[:, 1] - spans_N2[:, 0] == 1).all():
        return block_TD[spans_N2[:, 0]]
    means_ND = [block_TD[a:b].mean(0, dtype=np.float64) for a, b in spans_N2.tolist()]
    return np.stack(means_ND).astype(block_TD.dtype)


def origin(folder: Path, info: StoreInfo) -> tuple[Path, Segments]:
    """The parent of a derived store, and its segments. UserError where they are not those that `info` names."""
    raw: Any = read_record(folder / SEGMENTS, f"run the same `{info.command}` again", old=True)
    try:
        segments, parent = Segments.parse(raw), Path(find_place(raw, "parent", folder))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SEGMENTS}: damaged ({error}); run the same `{info.command}` again") from error
    if info.derived.split()[1:] != [segments.name, segments.digest]:
        message = f"holds {segments.name} {segments.digest}, the store was derived from {info.derived}"
        raise UserError(f"{folder / SEGMENTS}: {message}; run the same `{info.command}` again")
    return parent, segments


@dataclass(frozen=True)
class _Piece(Remade):
    """Shard `index` of a store, pooled."""

    segments: Segments
    pooling: str

    def frames(self) -> int:
        return sum(map(len, self._spans()))

    def write(self, path: Path, plan: StoreInfo) -> None:
        rows = self._spans()
        states = {
            (layer, u): pooled(self.store.shard(self.index).read_intact(layer, u), spans_N2)
            for layer in plan.layers
            for u, spans_N2 in enumerate(rows)
        }
        crc32 = [[checksum(states[layer, u]) for u in range(len(rows))] for layer in plan.layers]
        contents = replace(
            self.store.shard(self.index).contents,
            layers=plan.layers,
            offsets=offsets([len(spans_N2) for spans_N2 in rows]),
            crc32=np.array(crc32, dtype=np.uint32),
            skipped={},
            derived=plan.derived,
        )
        write_shard(path, contents, lambda layer, u: states[layer, u])

    def _spans(self) -> list[npt.NDArray[np.int64]]:
        """The `spans` of each utterance."""
        rate = self.store.info.encoder["frame_rate"]
        frames = np.diff(self.store.shard(self.index).contents.offsets).tolist()
        words = [self.segments.of[id_] for id_ in self.ids]
        return [spans(frame_times(n, rate), w, self.pooling) for n, w in zip(frames, words, strict=True)]
