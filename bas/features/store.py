"""A feature store: a folder of shards and a description of what made them.

    store.json       the description of a complete store
    plan.json        the description of the store that an unfinished command makes; deleted once it is complete
    segments.json    of a derived store: the parent store, and the segments of each utterance
    metadata.json    of a store with metadata: the parent store, and the columns of each utterance
    source.json      of an imported store: where the arrays lay
    compared.json    what runs have found of the recordings, see `bas.features.compared`
    shard-00000.h5   see `bas.features.shard`

While layers or utterances are added, the store stays readable in its old state.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bas.errors import UserError
from bas.features.shard import Shard, States, offsets, shard_path
from bas.util.files import read_record, write_json
from bas.util.places import SEEN, find_place, note_place

FORMAT = 2
SEGMENTS = "segments.json"
METADATA = "metadata.json"
SOURCE = "source.json"
IMPORTED = "imported"
"""The model_type of an encoder that bas knows by its arrays alone (see `bas.features.importing`)."""
DTYPES = ("float16", "float32")
OPEN_SHARDS = 128  # mapped at a time, with a file descriptor each; macOS allows a process 256
MAPPED_BYTES = 2**30  # of mapped files that may be in this process's memory
AROUND_BYTES = 2**17  # that the kernel maps around a block that is read: 64 KiB at either end
MADE_BY = ("extract", "import", "subset", "merge", "derive", "append")
DERIVING = ("derive", "append")
ENCODER: dict[str, type | tuple[type, ...]] = {  # fields of bas.encoders.EncoderInfo, which imports torch
    **dict.fromkeys(("name", "revision", "model_type", "input", "precision"), str),
    **dict.fromkeys(("num_states", "dim", "sample_rate"), int),
    "frame_rate": (int, float),
}


@dataclass(frozen=True)
class StoreInfo:
    """The content of `store.json` and `plan.json`."""

    corpus: str  # the reader's name
    root: str  # the folder or manifest it read, where it lies now (see `bas.util.places`)
    encoder: dict[str, Any]  # bas.encoders.EncoderInfo
    layers: tuple[int, ...]
    shards: tuple[tuple[str, ...], ...]  # the utterance ids of each shard, in order
    recordings: Mapping[str, tuple[str, int]]  # by id: a hash over the file's bytes and the times; samples at 16 kHz
    skipped: Mapping[str, str]  # utterances of the corpus that the store lacks, and why
    device: str  # where the encoder computed; "elsewhere": not known, the features were imported
    dtype: str  # one of DTYPES
    made_by: str = "extract"  # one of MADE_BY
    truncated: bool = False  # recordings that break off were taken as far as they go, and not skipped
    format: int = FORMAT
    derived: str = ""  # pooling, name and digest of the segments (see `bas.features.derive`); or "metadata", fields and
    #   digest of the columns (`bas.features.metadata`); "": the encoder's frames
    columns: Mapping[str, str] = field(default_factory=dict)  # of the corpus, by field, see `bas.corpora.open_corpus`

    @cached_property
    def identity(self) -> str:
        """A short hash of what the features depend on, whichever layers are stored and however shards are cut."""
        held = sorted((id_, self.recordings[id_][0]) for ids in self.shards for id_ in ids)
        encoder = [self.encoder[name] for name in ("revision", "input", "precision")]
        derived = [self.derived] if self.derived else []
        return hashlib.sha256(json.dumps([held, encoder, self.dtype, self.format, *derived]).encode()).hexdigest()[:12]

    @property
    def command(self) -> str:
        """The command that made the store; running it again completes the store."""
        return "bas extract" if self.made_by == "extract" else f"bas features {self.made_by}"

    @property
    def from_recordings(self) -> bool:
        """Whether a recording alone gives the features: they are neither derived nor imported."""
        return not self.derived and not self.imported

    @property
    def imported(self) -> bool:
        """Whether the features, or those that they were made of, are arrays of another program."""
        return bool(self.encoder["model_type"] == IMPORTED)

    @property
    def first_command(self) -> str:
        """The command that made the store, or the one that it was made of."""
        return "bas features import" if self.imported else "bas extract"

    @property
    def dim(self) -> int:
        return int(self.encoder["dim"])

    @property
    def num_utterances(self) -> int:
        return sum(map(len, self.shards))

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame of one layer."""
        return self.dim * np.dtype(self.dtype).itemsize

    @classmethod
    def read(cls, folder: Path) -> StoreInfo:
        """Raises UserError when the folder holds no complete store, or one of another format."""
        if (folder / "store.json").exists():
            return cls._parse(folder / "store.json")
        if (folder / "plan.json").exists():
            info = cls._parse(folder / "plan.json")
            done = sum(shard_path(folder, i).exists() for i in range(len(info.shards)))
            raise UserError(
                f"{folder}: incomplete, {done} of {len(info.shards)} shards; run the same `{info.command}` again"
            )
        raise UserError(f"{folder}: no feature store here (no store.json); make one with `bas extract`")

    @classmethod
    def read_plan(cls, folder: Path) -> StoreInfo | None:
        """The description in plan.json; None without that file."""
        return cls._parse(folder / "plan.json") if (folder / "plan.json").exists() else None

    @classmethod
    def _parse(cls, path: Path) -> StoreInfo:
        raw: Any = read_record(path, "restore it, or extract again into another folder", old=True)
        if raw.get("format") != FORMAT:
            raise UserError(
                f"{path}: format {raw.get('format')!r}, this bas reads {FORMAT}; extract it again into another folder"
            )
        try:
            tuples = {"layers": tuple(raw["layers"]), "shards": tuple(tuple(s) for s in raw["shards"])}
            recordings = {id_: (str(digest), int(samples)) for id_, (digest, samples) in raw["recordings"].items()}
            places = {"root": find_place(raw, "root", path.parent)}
            raw.pop("root" + SEEN, None)
            info = cls(**{**raw, **tuples, **places, "recordings": recordings})
            wrong = info._find_fault()
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            wrong = str(error)
        if wrong:
            raise UserError(f"{path}: damaged ({wrong}); restore it, or extract again into another folder")
        return info

    def _find_fault(self) -> str:
        """The first field whose value `bas` would never write; empty if there is none."""
        ids = [id_ for shard in self.shards for id_ in shard]
        kinds = {name: kind for name, kind in ENCODER.items() if not isinstance(self.encoder.get(name), kind)}
        sound = {
            f"encoder.{next(iter(kinds), '')}": not kinds,
            "layers": self.layers
            and all(type(layer) is int and layer in range(self.encoder["num_states"]) for layer in self.layers)
            and len(set(self.layers)) == len(self.layers),
            "recordings": all(0 <= samples < 2**53 for _, samples in self.recordings.values()),
            "shards": all(isinstance(id_, str) for id_ in ids),
            "skipped": all(isinstance(why, str) for why in self.skipped.values()),
            "dtype": self.dtype in DTYPES,
            "made_by": self.made_by in MADE_BY,
            **{name: isinstance(getattr(self, name), str) for name in ("corpus", "root", "device")},
            "truncated": isinstance(self.truncated, bool),
            "columns": all(isinstance(one, str) for pair in self.columns.items() for one in pair),
            "derived": isinstance(self.derived, str) and bool(self.derived) == (self.made_by in DERIVING),
        }
        return next((name for name, holds in sound.items() if not holds), "")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write store.json or plan.json."""
        write_json(path, self.to_dict() | note_place("root", self.root, path.parent))


def open_shard(folder: Path, info: StoreInfo, index: int) -> Shard:
    """Shard `index` of a store. UserError where it is missing, damaged, or not what `info` says of it."""
    if not shard_path(folder, index).exists():
        raise UserError(f"{shard_path(folder, index)}: missing; run the same `{info.command}` again")
    shard = Shard(shard_path(folder, index), info.encoder)
    message = "belongs to another store than store.json; restore the one that was here, or extract into another folder"
    held = shard.contents
    digests = tuple(info.recordings.get(i, ("", 0))[0] for i in info.shards[index])
    header = (held.ids, held.recordings, held.dtype, held.derived)
    if header != (info.shards[index], digests, info.dtype, info.derived):
        raise UserError(f"{shard.path}: {message}")
    if not set(info.layers) <= set(held.layers):
        raise UserError(f"{shard.path}: holds layers {held.layers}: {message}")
    return shard


def source_of(folder: Path, info: StoreInfo) -> Path:
    """Where the arrays lay that a store was imported from. UserError where source.json is damaged."""
    raw = read_record(folder / SOURCE, f"run the same `{info.command}` again")
    try:
        return Path(find_place(raw, "source", folder))
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / SOURCE}: damaged ({error}); run the same `{info.command}` again") from error


class FeatureStore:
    """A complete store, open for reading at random.

    Not thread-safe: each thread opens its own.
    Raises UserError when a shard is missing, damaged or of another store.
    """

    def __init__(self, folder: Path | str, mapped_bytes: int = MAPPED_BYTES) -> None:
        self.folder = folder = Path(folder)
        self.mapped_bytes = mapped_bytes
        self.info = StoreInfo.read(folder)
        missing = [i for i, ids in enumerate(self.info.shards) if ids and not shard_path(folder, i).exists()]
        if missing:
            raise UserError(
                f"{folder}: {len(missing)} of {len(self.info.shards)} shards are gone, {missing[0]} the first; "
                f"run the same `{self.info.command}` again"
            )
        self._shards: dict[int, Shard] = {}
        self._maps: OrderedDict[int, None] = OrderedDict()  # the last used comes last
        self._touched = 0
        self._edges: dict[int, list[int]] = {}
        self._where = {id_: (s, u) for s, ids in enumerate(self.info.shards) for u, id_ in enumerate(ids)}

    def __contains__(self, utterance_id: str) -> bool:
        return utterance_id in self._where

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._where)

    def num_frames(self, utterance_id: str) -> int:
        _, _, start, stop = self._run(utterance_id)
        return stop - start

    def read(self, utterance_id: str, layer: int) -> States:
        """One layer of one utterance, `(T, D)` of the store's dtype; only those bytes are read."""
        states_LTD, _ = self.gather([utterance_id], [layer])
        block: States = states_LTD[0]
        return block

    def gather(self, ids: Sequence[str], layers: Sequence[int]) -> tuple[States, npt.NDArray[np.int64]]:
        """These layers of these utterances end to end, `(L, N, D)` of the store's dtype, and the frames of each `(U,)`.

        Copied from the mapped files, of which at most `mapped_bytes` stay in this process's memory, and compared with
        their checksums when they are first read.
        UserError for an utterance or a layer that is not stored, and for bytes that are not those computed.
        """
        for layer in layers:
            if layer not in self.info.layers:
                stored = ", ".join(map(str, self.info.layers))
                raise UserError(f"{self.folder}: layer {layer} is not stored; it holds {stored}")
        runs = [self._run(i) for i in ids]
        edges = offsets([stop - start for _, _, start, stop in runs])
        out_LND = np.empty((len(layers), int(edges[-1]), self.info.dim), self.info.dtype)
        # One shard after the other, so that at most `OPEN_SHARDS` are mapped.
        in_shards = sorted(zip(runs, edges.tolist(), strict=False))
        for index, group in groupby(in_shards, key=lambda place: place[0][0]):
            arrays = self._mapped(index, layers)
            for (_, u, start, stop), begin in group:
                end = begin + stop - start
                for row, (layer, array_ND) in enumerate(zip(layers, arrays, strict=True)):
                    out_LND[row, begin:end] = array_ND[start:stop]
                    self._shards[index].compare(layer, u, out_LND[row, begin:end])
        self._touched += out_LND.nbytes + AROUND_BYTES * len(runs) * len(layers)
        if self._touched > self.mapped_bytes:
            if sum(self._shards[index].nbytes for index in self._maps) > self.mapped_bytes:
                for index in self._maps:
                    self._shards[index].forget()
            self._touched = 0
        return out_LND, np.diff(edges)

    def shard(self, index: int) -> Shard:
        """Shard `index`, compared with `info` when it is first opened."""
        if index not in self._shards:
            self._shards[index] = open_shard(self.folder, self.info, index)
        return self._shards[index]

    def _mapped(self, index: int, layers: Sequence[int]) -> list[States]:
        """These layers of a shard, each `(N, D)`."""
        self._maps[index] = None
        self._maps.move_to_end(index)
        if len(self._maps) > OPEN_SHARDS:
            self._shards[self._maps.popitem(last=False)[0]].unmap()
        shard = self._shards[index]
        return [shard.mapped[shard.contents.layers.index(layer)] for layer in layers]

    def _run(self, utterance_id: str) -> tuple[int, int, int, int]:
        """The utterance's shard and its place there, its first frame, and the one after its last."""
        index, u = self._find(utterance_id)
        if index not in self._edges:
            self._edges[index] = self.shard(index).contents.offsets.tolist()
        edges = self._edges[index]
        return index, u, edges[u], edges[u + 1]

    def _find(self, utterance_id: str) -> tuple[int, int]:
        if utterance_id not in self._where:
            why = self.info.skipped.get(utterance_id)
            reason = f": {why}" if why else ""
            raise UserError(f"{self.folder}: no utterance {utterance_id!r} in this store{reason}")
        return self._where[utterance_id]
