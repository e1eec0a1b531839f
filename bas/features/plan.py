"""What an extraction has to do: decided from the files' headers and bytes before anything is encoded.

The longest utterances come first, so that what does not fit into memory shows at once and utterances of like length
share shards and batches. What stands in a store already is held against the recordings' hashes and left alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from bas.corpora import Corpus, Utterance
from bas.encoders import Encoder, Padded
from bas.errors import UserError
from bas.features.recordings import in_threads, recording_hashes
from bas.features.shard import Shard, shard_path
from bas.features.spool import journaled, missing_layers
from bas.features.store import DTYPES, StoreInfo
from bas.speech import audio
from bas.util.progress import bar

SHARD_BYTES = 256 * 2**20
SHARDS_EACH = 8  # at least, of each process where several share an extraction: none waits long for the last
PATIENCE = 2.0  # seconds without a progress bar


@dataclass(frozen=True)
class Request:
    """What a user asks an extraction for. reader and root: how the corpus was opened, so that a run finds its labels.

    layers: hidden states by number; None: all. dtype: as stored. longest: seconds; None: the encoder's own limit.
    """

    reader: str
    root: Path
    layers: Sequence[int] | None = None
    dtype: str = "float16"
    shard_bytes: int = SHARD_BYTES
    longest: float | None = None


def make_plan(
    corpus: Corpus, encoder: Encoder, folder: Path, request: Request, console: Console, processes: int = 1
) -> StoreInfo:
    """The plan that completes or extends what stands in `folder`; new shards are cut for so many processes.

    Raises UserError for a layer that the encoder has not, a recording longer than what all are padded to, a folder that
    holds features of another kind or of recordings that have changed since, and a corpus of which nothing can be read.
    """
    if request.dtype not in DTYPES:
        raise UserError(f"dtype {request.dtype!r} is not one of {', '.join(DTYPES)}")
    # Those that are stored stay; so an extraction that adds some goes on by the command that began it.
    stored = StoreInfo.read(folder).layers if (folder / "store.json").exists() else ()
    layers = tuple(sorted({*_layers(encoder, request.layers), *stored}))
    recordings, skipped = _survey(corpus, encoder, request.longest, console)
    fresh = StoreInfo(
        request.reader,
        str(request.root.resolve()),
        encoder.info.as_dict(),
        layers,
        (),
        recordings,
        skipped,
        encoder.device.type,
        request.dtype,
    )
    there = _there(folder)
    if there is None:
        return replace(fresh, shards=_cut(recordings, recordings, fresh, request.shard_bytes, processes))
    _compare(folder, there, fresh)
    compare(folder, there, encoder)
    planned = {id_ for ids in there.shards for id_ in ids}
    _held_unchanged(folder, there, {u.id for u in corpus.utterances}, recordings)
    new = [id_ for id_ in recordings if id_ not in planned]
    return replace(
        fresh,
        shards=there.shards + _cut(new, recordings, fresh, request.shard_bytes, processes),
        # What is held keeps the recording it was made of, also where that cannot be read today.
        recordings={**{i: there.recordings[i] for i in planned}, **recordings},
        skipped={i: why for i, why in skipped.items() if i not in planned},
    )


def announce(folder: Path, info: StoreInfo, console: Console) -> None:
    """Print what there is to do and its cost in disk. Raises UserError when the disk is too small."""
    todo = [(i, missing_layers(folder, i, info)) for i in range(len(info.shards))]
    rate = info.encoder["frame_rate"] / audio.SAMPLE_RATE
    sizes = [
        sum(info.recordings[id_][1] for id_ in info.shards[i]) * rate * info.frame_bytes * len(layers)
        for i, layers in todo
    ]
    hours = sum(samples for _, samples in info.recordings.values()) / audio.SAMPLE_RATE / 3600
    free = shutil.disk_usage(folder).free
    console.print(
        f"{info.corpus}: {info.num_utterances} utterances, {hours:.2f} h; {info.encoder['name']}: "
        f"{len(info.layers)} layers of {info.dim} at {info.encoder['frame_rate']:g} frames/s; "
        f"{sum(sizes) / 2**20:,.0f} MiB to write in {sum(s > 0 for s in sizes)} of {len(sizes)} shards "
        f"under {folder} ({free / 2**30:,.0f} GiB free)",
        markup=False,
        soft_wrap=True,
    )
    already = sum(p.stat().st_size for p in folder.glob("shard-*.spool"))
    # A spool and the shard made of it stand side by side for a moment; so do a shard and the same with more layers.
    beside = max((s + _size(shard_path(folder, i)) for (i, _), s in zip(todo, sizes, strict=True) if s), default=0)
    need = sum(sizes) + beside - already
    if need > free:
        told = f"needs {need / 2**20:,.0f} MiB while it is written, {free / 2**20:,.0f} MiB are free on that disk"
        raise UserError(f"{folder}: {told}")


def batches(ids: Sequence[str], info: StoreInfo, encoder: Encoder, seconds: float) -> Iterator[list[str]]:
    """Utterances that may be encoded together, longest first, of at most `seconds` with their padding, or one alone.

    Equal lists give equal batches.
    """
    groups: dict[object, list[str]] = {}
    for id_ in sorted(ids, key=lambda i: -info.recordings[i][1]):
        groups.setdefault(encoder.batch_key(info.recordings[id_][1]), []).append(id_)
    for group in groups.values():
        start = 0
        while start < len(group):
            # Sorted by length: the first is the longest, and what the others are padded to.
            cost = encoder.cost(info.recordings[group[start]][1]) / audio.SAMPLE_RATE
            stop = start + max(1, int(seconds / cost))
            yield group[start:stop]
            start = stop


def _layers(encoder: Encoder, asked: Sequence[int] | None) -> tuple[int, ...]:
    layers = tuple(range(encoder.info.num_states)) if asked is None else tuple(sorted(set(asked)))
    outside = [i for i in layers if not 0 <= i < encoder.info.num_states]
    if outside or not layers:
        known = f"{encoder.info.name} has 0 to {encoder.info.num_states - 1}"
        raise UserError(f"layers: {', '.join(map(str, outside)) or 'none'}: {known}; name some of these, or all")
    return layers


def _survey(
    corpus: Corpus, encoder: Encoder, longest: float | None, console: Console
) -> tuple[dict[str, tuple[str, int]], dict[str, str]]:
    """Of each utterance a hash over its file's bytes and its times, and its samples; or why it cannot be used.

    Where the encoder pads, the samples are those it pads to.
    """
    limit = encoder.max_samples if longest is None else round(longest * audio.SAMPLE_RATE)
    begun = time.monotonic()
    with bar(console, "recordings") as progress:
        task = progress.add_task("read", total=2 * len(corpus.utterances), visible=False)

        def tick() -> None:
            progress.update(task, advance=1, visible=time.monotonic() - begun > PATIENCE)

        lengths = dict(in_threads(lambda u: (u.id, _samples(u, encoder.min_samples, limit)), corpus.utterances, tick))
        if isinstance(encoder, Padded):
            lengths = _padded(corpus.utterances, lengths, encoder.samples)
        usable = [u for u in corpus.utterances if isinstance(lengths[u.id], int)]
        digests = recording_hashes(usable, tick)
        progress.update(task, completed=2 * len(corpus.utterances))
    recordings: dict[str, tuple[str, int]] = {}
    skipped: dict[str, str] = {}
    for utterance in corpus.utterances:
        samples = lengths[utterance.id]
        digest = digests.get(utterance.id)
        if isinstance(samples, str) or digest is None:
            skipped[utterance.id] = samples if isinstance(samples, str) else f"{utterance.audio}: cannot be read"
            continue
        recordings[utterance.id] = digest, samples
    if not recordings:
        raise UserError(f"corpus {corpus.name}: no utterance can be used; the first: {next(iter(skipped.values()))}")
    return recordings, skipped


def _padded(utterances: Iterable[Utterance], lengths: Mapping[str, int | str], samples: int) -> dict[str, int | str]:
    """`samples` for every length. UserError for what is longer: it would have to be cut."""
    found = {u: n for u in utterances if isinstance(n := lengths[u.id], int)}
    longest = max(found, key=found.__getitem__, default=None)
    if longest is not None and found[longest] > samples:
        seconds, most = samples / audio.SAMPLE_RATE, found[longest] / audio.SAMPLE_RATE
        told = f"{most:.2f} s, the longest of {sum(n > samples for n in found.values())} beyond the {seconds:g} s"
        raise UserError(
            f"{longest.audio}: {longest.id}: {told} of --pad-audio; raise that, or skip them with --longest {seconds:g}"
        )
    return {id_: samples if isinstance(n, int) else n for id_, n in lengths.items()}


def _samples(utterance: Utterance, shortest: int, longest: int | None) -> int | str:
    """At 16 kHz, or why it cannot be used: what a header tells."""
    try:
        samples = round(audio.duration(utterance) * audio.SAMPLE_RATE)
    except UserError as error:
        return str(error)
    if samples < shortest:
        return f"{utterance.audio}: shorter than the {shortest / audio.SAMPLE_RATE} s that the encoder needs"
    if longest is not None and samples > longest:
        limit = f"more than {longest / audio.SAMPLE_RATE:g} s: cut it (start, end), or raise --longest"
        return f"{utterance.audio}: {samples / audio.SAMPLE_RATE:.1f} s, {limit}"
    return samples


def _there(folder: Path) -> StoreInfo | None:
    """The plan that was begun here, else the store."""
    plan = StoreInfo.read_plan(folder)
    if plan is not None:
        return plan
    if (folder / "store.json").exists():
        return StoreInfo.read(folder)
    if any(folder.glob("shard-*")):
        raise UserError(f"{folder}: holds shards but no store.json; delete them or name another folder")
    return None


def compare(folder: Path, there: StoreInfo, encoder: Encoder) -> None:
    """Refuse a folder whose features another encoder made, or the same one otherwise."""
    old, new = there.encoder, encoder.info.as_dict()
    if old["revision"] != new["revision"]:  # its name may differ: one of equal files is the same encoder
        _refuse_other(folder, "revision", *(f"{e['name']} {e['revision']}" for e in (old, new)))
    for name in ("input", "precision", "sample_rate"):
        _refuse_other(folder, name, old[name], new[name])
    _refuse_other(folder, "device", there.device, encoder.device.type)  # bits differ: one store never mixes them


def _compare(folder: Path, there: StoreInfo, asked: StoreInfo) -> None:
    """Refuse a folder with features of another kind, or to which other layers are being added."""
    for name in ("made_by", "dtype", "corpus"):
        _refuse_other(folder, name.replace("_", " "), getattr(there, name), getattr(asked, name))
    if (folder / "plan.json").exists() and there.layers != asked.layers:
        told = f"of layers {', '.join(map(str, there.layers))} is under way here; finish it with these --layers"
        raise UserError(f"{folder}: an extraction {told}, or give it up by deleting plan.json")


def _refuse_other(folder: Path, name: str, there: object, asked: object) -> None:
    if there != asked:
        told = f"({name}: {there} there, {asked} asked)"
        raise UserError(f"{folder}: holds another store {told}; name another folder with --features")


def _held_unchanged(folder: Path, there: StoreInfo, known: set[str], recordings: Mapping[str, tuple[str, int]]) -> None:
    """Refuse where a recording that features were made of is another by now, or no longer one of the corpus."""
    for index, ids in enumerate(there.shards):
        path = shard_path(folder, index)
        held = set(Shard(path, there.encoder).contents.ids) if path.exists() else journaled(folder, index)
        for id_ in ids:
            if id_ not in there.recordings:
                raise UserError(f"{folder}: store.json or plan.json: recordings: lacks {id_}; restore that file")
            if id_ not in known:
                told = f"holds {id_}, which {there.corpus} has no more"
                raise UserError(f"{folder}: {told}; name another folder, or see `bas features subset`")
            if id_ in held and id_ in recordings and recordings[id_][0] != there.recordings[id_][0]:
                raise UserError(
                    f"{folder}: {id_} was extracted from another recording than is there now "
                    f"(recordings: {there.recordings[id_][0]} there, {recordings[id_][0]} now); name another folder"
                )


def _cut(
    ids: Iterable[str], recordings: Mapping[str, tuple[str, int]], info: StoreInfo, shard_bytes: float, processes: int
) -> tuple[tuple[str, ...], ...]:
    """Which utterances go into which shard, of `shard_bytes` at most, or less so that each process finds work."""
    rate = info.encoder["frame_rate"] / audio.SAMPLE_RATE * info.frame_bytes * len(info.layers)
    cost = {i: recordings[i][1] * rate for i in ids}
    if processes > 1:
        shard_bytes = min(shard_bytes, sum(cost.values()) / (SHARDS_EACH * processes))
    shards: list[list[str]] = []
    filled = 0.0
    for id_ in sorted(cost, key=lambda i: (-cost[i], i)):
        if not shards or filled + cost[id_] > shard_bytes:
            shards.append([])
            filled = 0.0
        shards[-1].append(id_)
        filled += cost[id_]
    return tuple(tuple(s) for s in shards)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
