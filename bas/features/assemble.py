"""Stores made of stores: some layers or utterances of one, or several of one encoder put together. Nothing is encoded.

Each shard of the result is cut from one shard of a source, with the checksums that were taken when its states were
computed; `bas.features.derive` puts its stores together in the same way. As with an extraction, plan.json says what is
to come until all shards are there; store.json comes last, and the same command goes on after a kill, or makes again
what was deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from rich.console import Console

from bas.corpora import Corpus, open_corpus
from bas.errors import UserError
from bas.features.recordings import recording_hashes
from bas.features.shard import Contents, Shard, States, fault, offsets, shard_path, write_shard
from bas.features.store import FeatureStore, StoreInfo
from bas.util.files import locked, write_json, write_text
from bas.util.progress import bar

LEFT_OUT = "left out by subset"
ELSEWHERE = "not in the merged stores"


class Piece(Protocol):
    """What becomes one shard of the store `plan`."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def frames(self) -> int:
        """Of one layer, all utterances."""

    def written(self, path: Path, plan: StoreInfo) -> bool:
        """Whether an earlier start of the same command finished this shard."""

    def write(self, path: Path, plan: StoreInfo) -> None: ...


@dataclass(frozen=True)
class Remade:
    """Of shard `index` of a store, all utterances with other states in their place: what derived pieces share."""

    store: FeatureStore
    index: int

    @property
    def ids(self) -> tuple[str, ...]:
        return self.store.info.shards[self.index]

    def written(self, path: Path, plan: StoreInfo) -> bool:
        """By what it says of itself: its states would have to be made to know their checksums."""
        held, there = self.store.shard(self.index).contents, contents_at(path, plan)
        return there is not None and (there.derived, there.layers, there.dtype, there.ids, there.recordings) == (
            (plan.derived, plan.layers, plan.dtype, held.ids, held.recordings)
        )


@dataclass(frozen=True)
class _Cut:
    """These utterances of shard `index` of a store."""

    store: FeatureStore
    index: int
    ids: tuple[str, ...]

    def frames(self) -> int:
        held = self.store.shard(self.index).contents
        return int(np.diff(held.offsets)[self._columns(held)].sum())

    def written(self, path: Path, plan: StoreInfo) -> bool:
        held = contents_at(path, plan)
        return held is not None and held.checksum == self._contents(plan.layers).checksum

    def write(self, path: Path, plan: StoreInfo) -> None:
        contents = self._contents(plan.layers)
        columns = self._columns(self.store.shard(self.index).contents)
        write_shard(path, contents, lambda layer, u: intact(self.store, self.index, layer, columns[u]))

    def _contents(self, layers: Sequence[int]) -> Contents:
        """What the shard will say of itself: the source's words, cut."""
        held = self.store.shard(self.index).contents
        columns, rows = self._columns(held), [held.layers.index(layer) for layer in layers]
        return replace(
            held,
            layers=tuple(layers),
            ids=self.ids,
            offsets=offsets(np.diff(held.offsets)[columns].tolist()),
            crc32=held.crc32[np.ix_(rows, columns)],
            recordings=tuple(held.recordings[u] for u in columns),
            skipped={},
        )

    def _columns(self, held: Contents) -> list[int]:
        place = {id_: u for u, id_ in enumerate(held.ids)}
        return [place[id_] for id_ in self.ids]


def subset(
    folder: Path, into: Path, console: Console, *, layers: Collection[int] | None, ids: Collection[str] | None
) -> FeatureStore:
    """Make the store `into` of these layers and utterances of another; None: all of them.

    The utterances left out stand in `skipped`, so that a run knows they are. The identity stays that of the source
    where all utterances do.

    Raises UserError for a layer or an utterance that is not stored, a source that is damaged or derived, too little
    disk, and a folder `into` that holds something else.
    """
    store = FeatureStore(folder)
    info = store.info
    _refuse_derived(store, "subset")
    for layer in layers or ():
        if layer not in info.layers:
            raise UserError(f"{folder}: layer {layer} is not stored; it holds {', '.join(map(str, info.layers))}")
    wanted = set(store.ids if ids is None else ids)
    for id_ in wanted - set(store.ids):
        store.num_frames(id_)  # refuses by name, with the reason where the extraction skipped it
    if not wanted or (layers is not None and not layers):
        raise UserError(f"{folder}: no {'layer' if wanted else 'utterance'} is asked for")
    plan = replace(
        info,
        layers=info.layers if layers is None else tuple(sorted(set(layers))),
        recordings={id_: info.recordings[id_] for id_ in store.ids if id_ in wanted},
        skipped={**info.skipped, **{id_: LEFT_OUT for id_ in store.ids if id_ not in wanted}},
        made_by="subset",
    )
    return put_together(plan, _pieces(store, wanted), into, console)


def merge(
    folders: Sequence[Path], into: Path, console: Console, *, corpus: str | None = None, root: Path | None = None
) -> FeatureStore:
    """Make the store `into` of all utterances of several stores of one encoder, which hold the same layers.

    corpus and root: the reader, and what it reads, that know every one of them; None where the stores agree on it.
    An utterance of two stores is taken once.

    Raises UserError where the stores differ in what makes the features, or hold one id of two recordings; for an
    utterance that the corpus does not know, or knows with another recording; and as `subset` does.
    """
    stores = [FeatureStore(folder) for folder in folders]
    first = stores[0].info
    for store in stores:
        _refuse_derived(store, "merge")
    for store in stores[1:]:
        _alike(stores[0], store)
    origins = {(store.info.corpus, store.info.root) for store in stores}
    if (corpus is None) != (root is None):
        raise UserError("--corpus and --root: give both, or none where the stores are of one corpus")
    if corpus is not None and root is not None:
        named = corpus, str(root.resolve())
    elif len(origins) == 1:
        (named,) = origins
    else:
        told = " and ".join(f"{reader} {path}" for reader, path in sorted(origins))
        raise UserError(f"the stores are of {told}: name one that lists all with --corpus and --root")
    pieces: list[_Cut] = []
    held: dict[str, FeatureStore] = {}
    for store in stores:
        for id_ in store.ids:
            there = held.setdefault(id_, store)
            if there.info.recordings[id_][0] != store.info.recordings[id_][0]:
                raise UserError(f"{there.folder} and {store.folder}: {id_} is another recording in each")
        pieces += _pieces(store, {id_ for id_ in store.ids if held[id_] is store})
    opened = open_corpus(named[0], Path(named[1]))
    _known(opened, held, named, console)
    reasons = {id_: why for store in reversed(stores) for id_, why in store.info.skipped.items()}
    plan = replace(
        first,
        corpus=named[0],
        root=named[1],
        recordings={id_: store.info.recordings[id_] for id_, store in held.items()},
        skipped={u.id: reasons.get(u.id, ELSEWHERE) for u in opened.utterances if u.id not in held},
        made_by="merge",
    )
    return put_together(plan, pieces, into, console)


def _refuse_derived(store: FeatureStore, verb: str) -> None:
    if store.info.derived:
        told = f"derived ({store.info.derived}), so no source of a {verb}"
        raise UserError(f"{store.folder}: {told}; {verb} what it was derived from, and derive of that")


def _pieces(store: FeatureStore, wanted: Collection[str]) -> list[_Cut]:
    cut = [_Cut(store, i, tuple(id_ for id_ in ids if id_ in wanted)) for i, ids in enumerate(store.info.shards)]
    return [piece for piece in cut if piece.ids]


def _alike(one: FeatureStore, other: FeatureStore) -> None:
    """Refuse to mix features that were made otherwise, by the name of the field."""
    a, b = one.info, other.info
    told = {name: (a.encoder[name], b.encoder[name]) for name in ("revision", "input", "precision", "sample_rate")}
    # Bits differ between devices; one store never mixes them.
    told |= {name: (getattr(a, name), getattr(b, name)) for name in ("dtype", "device", "layers")}
    for name, (mine, theirs) in told.items():
        if mine != theirs:
            raise UserError(f"{one.folder} and {other.folder}: {name} differs ({mine} and {theirs}); not one store")


def _known(corpus: Corpus, held: Mapping[str, FeatureStore], named: tuple[str, str], console: Console) -> None:
    """Refuse an utterance that the corpus does not have, or that means another recording there.

    An id means a recording within its own corpus only: that of another one is read and held against the store's hash.
    """
    known = {u.id: u for u in corpus.utterances}
    for id_, store in held.items():
        if id_ not in known:
            raise UserError(f"{store.folder}: {id_} is not in {named[0]} {named[1]}; name a corpus that lists all")
    foreign = [known[i] for i, store in held.items() if (store.info.corpus, store.info.root) != named]
    with bar(console, "recordings") as progress:
        task = progress.add_task("read", total=len({u.audio for u in foreign}), visible=bool(foreign))
        now = recording_hashes(foreign, lambda: progress.advance(task))
    for utterance in foreign:
        store = held[utterance.id]
        if now.get(utterance.id) != store.info.recordings[utterance.id][0]:
            told = "is another recording than its features were made of"
            raise UserError(f"{named[0]} {named[1]}: {utterance.id} ({utterance.audio}) {told} in {store.folder}")


def put_together(
    plan: StoreInfo, pieces: Sequence[Piece], into: Path, console: Console, beside: Mapping[str, str] | None = None
) -> FeatureStore:
    """Write the shards that are not there yet, then store.json.

    beside: texts of further files by name, written before the shards. Raises UserError for too little disk, and a
    folder `into` that holds something else.
    """
    plan = replace(plan, shards=tuple(piece.ids for piece in pieces))
    with locked(into, "writing"):
        _refuse_other(into, plan)
        for left in into.glob("*.tmp"):  # by a process that was killed while it wrote
            left.unlink()
        paths = [(shard_path(into, index), piece) for index, piece in enumerate(pieces)]
        todo = [(path, piece) for path, piece in paths if not piece.written(path, plan)]
        size = sum(piece.frames() for _, piece in todo) * plan.frame_bytes * len(plan.layers)
        free = shutil.disk_usage(into).free
        console.print(
            f"{into}: {plan.num_utterances} utterances, layers {', '.join(map(str, plan.layers))}; "
            f"{size / 2**20:,.0f} MiB to write in {len(todo)} of {len(pieces)} shards ({free / 2**30:,.0f} GiB free)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if size > free:
            raise UserError(f"{into}: needs {size / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free on that disk")
        for name, text in (beside or {}).items():
            write_text(into / name, text)
        if not (into / "store.json").exists():
            write_json(into / "plan.json", plan.as_dict())
        with bar(console, "shards") as progress:
            task = progress.add_task("derive" if plan.derived else "copy", total=len(todo))
            for path, piece in todo:
                piece.write(path, plan)
                progress.advance(task)
        if not (into / "store.json").exists():
            write_json(into / "store.json", plan.as_dict())
        (into / "plan.json").unlink(missing_ok=True)
    return FeatureStore(into)


def _refuse_other(into: Path, plan: StoreInfo) -> None:
    there = StoreInfo.read_plan(into)
    if there is None and (into / "store.json").exists():
        there = StoreInfo.read(into)
    if there is None and any(into.glob("shard-*")):
        raise UserError(f"{into}: holds shards but no store.json; delete them or name another folder with --into")
    for name in [field.name for field in fields(plan)] if there else []:
        if getattr(there, name) != getattr(plan, name):
            raise UserError(
                f"{into}: holds another store ({name} differs); delete it, or name another folder with --into"
            )


def contents_at(path: Path, plan: StoreInfo) -> Contents | None:
    """What the shard says of itself; None where there is none of this store's."""
    try:
        return Shard(path, plan.encoder).contents if path.exists() else None
    except UserError:
        return None


def intact(store: FeatureStore, index: int, layer: int, u: int) -> States:
    """One layer of utterance `u` of a shard, `(T, D)`. UserError where it is not what was computed."""
    source = store.shard(index)
    block = source.read(layer, u)
    why = fault(block, int(source.contents.crc32[source.contents.layers.index(layer), u]))
    if why:
        told = f"{source.contents.ids[u]}: layer {layer}: {why}; see `bas features verify {store.folder}`"
        raise UserError(f"{source.path}: {told}")
    return block
