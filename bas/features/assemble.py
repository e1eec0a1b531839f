"""Stores made from stores, without encoding: a subset of one store's layers or utterances, or a merger of several.

Each shard of the result is cut from one shard of a source, with the checksums taken when its states were computed;
`bas.features.derive`, `metadata` and `importing` write their stores in the same way. As in an extraction, plan.json
describes the store until all shards are written, and store.json is written last; after a kill or a deletion the same
command completes the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console

from bas.corpora import Corpus, open_corpus
from bas.errors import UserError
from bas.features.recordings import recording_hashes
from bas.features.shard import Contents, Shard, offsets, shard_path, write_shard
from bas.features.store import FeatureStore, StoreInfo
from bas.util.files import locked, write_json
from bas.util.progress import bar
from bas.util.temporary import sweep

LEFT_OUT = "left out by subset"
ELSEWHERE = "not in the merged stores"


class Piece(Protocol):
    """The source of one shard of the store that `plan` describes."""

    @property
    def ids(self) -> tuple[str, ...]: ...

    def frames(self) -> int:
        """The number of frames of all utterances, in one layer."""

    def written(self, path: Path, plan: StoreInfo) -> bool:
        """Whether an earlier run of the same command finished this shard."""

    def write(self, path: Path, plan: StoreInfo) -> None: ...


@dataclass(frozen=True)
class Remade:
    """Shard `index` of a store, with new states for all its utterances: the base of derived pieces."""

    store: FeatureStore
    index: int

    @property
    def ids(self) -> tuple[str, ...]:
        return self.store.info.shards[self.index]

    def written(self, path: Path, plan: StoreInfo) -> bool:
        """Judged by the shard's header: checksums would be known only once the states are computed."""
        source, written = self.store.shard(self.index).contents, contents_at(path, plan)
        if written is None:
            return False
        header = (written.derived, written.layers, written.dtype, written.ids, written.recordings)
        return header == (plan.derived, plan.layers, plan.dtype, source.ids, source.recordings)


@dataclass(frozen=True)
class _Cut:
    """Some utterances of shard `index` of a store."""

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
        write_shard(path, contents, lambda layer, u: self.store.shard(self.index).read_intact(layer, columns[u]))

    def _contents(self, layers: Sequence[int]) -> Contents:
        """The contents of the new shard, cut from the source's."""
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

    Utterances that are left out are listed in `skipped`, so that runs know of them. With all utterances the identity is
    that of the source.

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
        store.num_frames(id_)  # raises the UserError, with the reason where the extraction skipped the utterance
    if not wanted or (layers is not None and not layers):
        raise UserError(f"{folder}: no {'layer' if wanted else 'utterance'} is asked for")
    plan = replace(
        info,
        layers=info.layers if layers is None else tuple(sorted(set(layers))),
        recordings={id_: info.recordings[id_] for id_ in store.ids if id_ in wanted},
        skipped={**info.skipped, **{id_: LEFT_OUT for id_ in store.ids if id_ not in wanted}},
        made_by="subset",
    )
    return write_store(plan, _pieces(store, wanted), into, console)


def merge(
    folders: Sequence[Path],
    into: Path,
    console: Console,
    *,
    corpus: str | None = None,
    root: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> FeatureStore:
    """Make the store `into` of all utterances of several stores of one encoder, which hold the same layers.

    corpus, root and columns: the reader, the folder or file, and the columns by field (see `open_corpus`) of a corpus
    with all these utterances; None where the stores agree on one. An utterance in two stores is taken once.

    Raises UserError where the stores differ in how the features were made, or hold two recordings under one id; for an
    utterance that the corpus does not have, or has with another recording; and as `subset` does.
    """
    stores = [FeatureStore(folder) for folder in folders]
    first = stores[0].info
    for store in stores:
        _refuse_derived(store, "merge")
    for store in stores[1:]:
        _check_alike(stores[0], store)
    origins = {_origin(store) for store in stores}
    if (corpus is None) != (root is None):
        raise UserError("--corpus and --root: give both, or none where the stores are of one corpus")
    if corpus is not None and root is not None:
        named = corpus, str(root.resolve()), tuple(sorted((columns or {}).items()))
    elif columns:
        raise UserError("--map and --keep: give --corpus and --root with them")
    elif len(origins) == 1:
        (named,) = origins
    else:
        corpora = " and ".join(f"{reader} {path}" for reader, path, _ in sorted(origins))
        raise UserError(f"the stores are of {corpora}: name one that lists all with --corpus and --root")
    pieces: list[_Cut] = []
    held: dict[str, FeatureStore] = {}
    for store in stores:
        for id_ in store.ids:
            first_store = held.setdefault(id_, store)
            if first_store.info.recordings[id_][0] != store.info.recordings[id_][0]:
                raise UserError(f"{first_store.folder} and {store.folder}: {id_} is another recording in each")
        pieces += _pieces(store, {id_ for id_ in store.ids if held[id_] is store})
    opened = open_corpus(named[0], Path(named[1]), first.truncated, dict(named[2]))
    _check_corpus(opened, held, named, console)
    reasons = {id_: why for store in reversed(stores) for id_, why in store.info.skipped.items()}
    plan = replace(
        first,
        corpus=named[0],
        root=named[1],
        columns=dict(named[2]),
        recordings={id_: store.info.recordings[id_] for id_, store in held.items()},
        skipped={u.id: reasons.get(u.id, ELSEWHERE) for u in opened.utterances if u.id not in held},
        made_by="merge",
    )
    return write_store(plan, pieces, into, console)


def _refuse_derived(store: FeatureStore, verb: str) -> None:
    if store.info.derived:
        message = f"derived ({store.info.derived}), so no source of a {verb}"
        raise UserError(f"{store.folder}: {message}; {verb} what it was derived from, and derive of that")


def _pieces(store: FeatureStore, wanted: Collection[str]) -> list[_Cut]:
    cut = [_Cut(store, i, tuple(id_ for id_ in ids if id_ in wanted)) for i, ids in enumerate(store.info.shards)]
    return [piece for piece in cut if piece.ids]


def _check_alike(one: FeatureStore, other: FeatureStore) -> None:
    """UserError, naming the field, where the features of the stores were made in different ways."""
    a, b = one.info, other.info
    pairs = {name: (a.encoder[name], b.encoder[name]) for name in ("revision", "input", "precision", "sample_rate")}
    # Bits differ between devices; one store never mixes them.
    pairs |= {name: (getattr(a, name), getattr(b, name)) for name in ("dtype", "device", "layers", "truncated")}
    for name, (mine, theirs) in pairs.items():
        if mine != theirs:
            raise UserError(f"{one.folder} and {other.folder}: {name} differs ({mine} and {theirs}); not one store")


Origin = tuple[str, str, tuple[tuple[str, str], ...]]
"""How a store's corpus was opened: the reader, what it read, the columns by field."""


def _origin(store: FeatureStore) -> Origin:
    return store.info.corpus, store.info.root, tuple(sorted(store.info.columns.items()))


def _check_corpus(corpus: Corpus, held: Mapping[str, FeatureStore], named: Origin, console: Console) -> None:
    """UserError for an utterance that the corpus does not have, or has with another recording.

    Ids are unique only within a corpus: recordings of stores of another corpus are read and compared by hash.
    """
    by_id = {u.id: u for u in corpus.utterances}
    for id_, store in held.items():
        if id_ not in by_id:
            raise UserError(f"{store.folder}: {id_} is not in {named[0]} {named[1]}; name a corpus that lists all")
    foreign = [by_id[i] for i, store in held.items() if _origin(store) != named]
    with bar(console, "recordings") as progress:
        task = progress.add_task("read", total=len({u.audio for u in foreign}), visible=bool(foreign))
        now = recording_hashes(foreign, lambda: progress.advance(task))
    for utterance in foreign:
        store = held[utterance.id]
        if now.get(utterance.id) != store.info.recordings[utterance.id][0]:
            message = f"is another recording than its features were made of in {store.folder}"
            raise UserError(f"{named[0]} {named[1]}: {utterance.id} ({utterance.audio}) {message}")


def write_store(
    plan: StoreInfo,
    pieces: Sequence[Piece],
    into: Path,
    console: Console,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> FeatureStore:
    """Write the shards that are missing, then store.json.

    beside: further records by the name of their file, written before the shards. Raises UserError for too little disk,
    and a folder `into` that holds something else.
    """
    plan = replace(plan, shards=tuple(piece.ids for piece in pieces))
    with locked(into, "writing"):
        _refuse_other(into, plan)
        sweep(into)
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
        for name, record in (beside or {}).items():
            write_json(into / name, record)
        if not (into / "store.json").exists():
            plan.write(into / "plan.json")
        with bar(console, "shards") as progress:
            task = progress.add_task("derive" if plan.derived else "copy", total=len(todo))
            for path, piece in todo:
                piece.write(path, plan)
                progress.advance(task)
        plan.write(into / "store.json")  # where it was complete, the corpus or the encoder may lie elsewhere now
        (into / "plan.json").unlink(missing_ok=True)
    return FeatureStore(into)


def _refuse_other(into: Path, plan: StoreInfo) -> None:
    old = StoreInfo.read_plan(into)
    if old is None and (into / "store.json").exists():
        old = StoreInfo.read(into)
    if old is None and any(into.glob("shard-*")):
        raise UserError(f"{into}: holds shards but no store.json; restore that, or name another folder with --into")
    if old is None:
        return
    pairs: dict[str, tuple[object, object]] = {"made_by": (old.made_by, plan.made_by)}
    pairs |= {f"encoder.{name}": (old.encoder.get(name), value) for name, value in plan.encoder.items()}
    pairs |= {field.name: (getattr(old, field.name), getattr(plan, field.name)) for field in fields(plan)}
    # Where the corpus and the encoder lie changes no number.
    for name in ("encoder", "encoder.name", "root"):
        del pairs[name]
    imports = plan.made_by == "import"
    if imports:  # as for an extraction, the corpus may be read by other columns
        del pairs["columns"]
    for name, (there, now) in pairs.items():
        if there != now:
            flag = "--features" if imports else "--into"
            raise UserError(f"{into}: holds another store ({name} differs); name another folder with {flag}")


def contents_at(path: Path, plan: StoreInfo) -> Contents | None:
    """The contents of the shard `path`; None where this store has no such shard."""
    try:
        return Shard(path, plan.encoder).contents if path.exists() else None
    except UserError:
        return None
