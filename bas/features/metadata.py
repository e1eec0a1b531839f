"""Stores with metadata of the speaker appended to the encoder's states: optional inputs of any network.

Each frame's D numbers are followed by M columns, one-hot by field: 1 in the column of the utterance's sex, language or
speaker, 0 in the others; all 0 where unknown. The paper on emotion shares (arXiv 2308.14359) leaves open whether they
help. The result is a feature store; metadata.json beside the shards names the columns and the parent store.

Axes: T frames of one utterance, D width of the encoder, M columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bas.corpora import Utterance
from bas.errors import UserError
from bas.features.assemble import Remade, write_store
from bas.features.corpus import corpus_of
from bas.features.shard import States, checksum, write_shard
from bas.features.store import METADATA, FeatureStore, StoreInfo
from bas.util.files import read_record
from bas.util.places import find_place, note_place

FIELDS = ("sex", "language", "speaker")


@dataclass(frozen=True)
class Columns:
    """The names of the columns, and which are 1 in each utterance."""

    names: tuple[str, ...]  # FIELD=VALUE
    of: Mapping[str, tuple[str, ...]]  # by utterance id

    @property
    def digest(self) -> str:
        what = [self.names, sorted(self.of.items())]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]

    def beside(self, block_TD: States, id_: str) -> States:
        """`(T, D + M)`, in the block's dtype: the block with the utterance's columns appended."""
        ones_M = np.isin(self.names, self.of[id_]).astype(block_TD.dtype)
        return np.concatenate([block_TD, np.broadcast_to(ones_M, (len(block_TD), len(ones_M)))], axis=1)


def append(
    folder: Path, into: Path, fields: Sequence[str], console: Console, layers: Collection[int] | None = None
) -> FeatureStore:
    """Make the store `into` of the store `folder`: all its utterances, these layers (None: all), the fields' columns.

    fields: some of FIELDS. A killed call is resumed; an existing store is kept.
    Raises UserError for another field, one that has fewer than two values, a store that is damaged or itself derived,
    a layer that is not stored, a corpus that lacks an utterance, too little disk, and a folder `into` that holds
    something else.
    """
    store = FeatureStore(folder)
    info = store.info
    if info.derived:
        raise UserError(f"{folder}: is itself derived ({info.derived}); name the store of frames that it was made of")
    for layer in layers or ():
        if layer not in info.layers:
            raise UserError(f"{folder}: layer {layer} is not stored; it holds {', '.join(map(str, info.layers))}")
    corpus = corpus_of(info)
    by_id = {u.id: u for u in corpus.utterances}
    missing = [id_ for id_ in store.ids if id_ not in by_id]
    if missing:
        message = f"{len(missing)} of its utterances are not in the corpus, {missing[0]} the first"
        raise UserError(f"{folder}: {message}: the corpus is another than the store's, extract it again")
    columns = columns_of([by_id[id_] for id_ in store.ids], fields, corpus.name)
    plan = replace(
        info,
        encoder={**info.encoder, "dim": info.dim + len(columns.names)},
        layers=tuple(layer for layer in info.layers if layers is None or layer in layers),
        made_by="append",
        derived=f"metadata {'+'.join(fields)} {columns.digest}",
    )
    pieces = [_Piece(store, index, columns) for index, ids in enumerate(info.shards) if ids]
    contents = note_place("parent", folder.resolve(), into) | {"columns": columns.names, "of": columns.of}
    return write_store(plan, pieces, into, console, {METADATA: contents})


def beside(folder: Path, fields: Sequence[str], layers: Collection[int] | None = None) -> Path:
    """The default folder of a store with these fields and layers, made of the store `folder`."""
    some = "" if layers is None else "-layer" + "-".join(map(str, sorted(layers)))
    return folder.with_name(f"{folder.name}-with-{'-'.join(fields)}{some}")


def columns_of(utterances: Sequence[Utterance], fields: Sequence[str], corpus: str) -> Columns:
    """A column for each value of each field. UserError for an unknown field, and one of fewer than two values."""
    names: list[str] = []
    for field in fields:
        if field not in FIELDS or list(fields).count(field) > 1:
            raise UserError(f"metadata {field!r}: must be one of {', '.join(FIELDS)}, each once")
        values = sorted({getattr(u, field) for u in utterances} - {None})
        if len(values) < 2:
            why = f"is {values[0]} throughout" if values else "is known of no utterance"
            raise UserError(f"metadata {field}: {field} {why} in {corpus}: it tells nothing apart; leave it out")
        names += [f"{field}={value}" for value in values]
    of = {
        u.id: tuple(f"{field}={getattr(u, field)}" for field in fields if getattr(u, field) is not None)
        for u in utterances
    }
    return Columns(tuple(names), of)


def origin(folder: Path, info: StoreInfo) -> tuple[Path, Columns]:
    """The parent of a store with metadata, and its columns. UserError where they are not those that `info` names."""
    remedy = f"run the same `{info.command}` again"
    raw: Any = read_record(folder / METADATA, remedy, old=True)
    try:
        parent = Path(find_place(raw, "parent", folder))
        of = {str(id_): tuple(ones) for id_, ones in raw["of"].items()}
        columns = Columns(tuple(raw["columns"]), of)
        digest = columns.digest
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / METADATA}: damaged ({error}); {remedy}") from error
    if info.derived.split()[-1] != digest:
        raise UserError(f"{folder / METADATA}: holds columns {digest}, the store has {info.derived}; {remedy}")
    return parent, columns


@dataclass(frozen=True)
class _Piece(Remade):
    """Shard `index` of a store, with the columns."""

    columns: Columns

    def frames(self) -> int:
        return int(self.store.shard(self.index).contents.offsets[-1])

    def write(self, path: Path, plan: StoreInfo) -> None:
        def states(layer: int, u: int) -> States:
            return self.columns.beside(self.store.shard(self.index).read_intact(layer, u), self.ids[u])

        # Made twice rather than kept: a shard may be as large as memory.
        crc32 = [[checksum(states(layer, u)) for u in range(len(self.ids))] for layer in plan.layers]
        contents = replace(
            self.store.shard(self.index).contents,
            encoder=plan.encoder,
            layers=plan.layers,
            crc32=np.array(crc32, dtype=np.uint32),
            skipped={},
            derived=plan.derived,
        )
        write_shard(path, contents, states)
