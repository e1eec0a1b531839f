"""Plan an extraction from the files' headers and bytes, before anything is encoded.

The longest utterances come first: an utterance that does not fit into memory fails at once, and utterances of similar
length share shards and batches. What a store already holds is compared with the recordings' hashes and kept.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from bas.corpora import Corpus, Utterance
from bas.encoders import Encoder, Padded
from bas.errors import UserError
from bas.features.recordings import recording_hashes
from bas.features.shard import Shard, shard_path
from bas.features.spool import journaled, missing_layers
from bas.features.store import DTYPES, StoreInfo
from bas.speech import audio
from bas.util.progress import bar
from bas.util.threads import in_threads

SHARD_BYTES = 256 * 2**20
SHARDS_EACH = 8  # at least, for each of several processes, so that none waits long for the last one
NAMED = 10  # utterances that break off
PATIENCE = 2.0  # seconds without a progress bar


@dataclass(frozen=True)
class Request:
    """The options of an extraction.

    reader, root, columns: how the corpus was opened, so that a run can read its labels. layers: numbers of
    hidden states; None: all. dtype: as stored. longest: in seconds; None: any.
    truncated: as the corpus was opened (see `bas.corpora.Utterance`). left_out: by id, why these utterances of the
    corpus are not asked for.
    """

    reader: str
    root: Path
    layers: Sequence[int] | None = None
    dtype: str = "float16"
    shard_bytes: int = SHARD_BYTES
    longest: float | None = None
    truncated: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def asked(self, corpus: Corpus, stored: Collection[str] = ()) -> Corpus:
        """The utterances that are asked for, and those that are stored: a store has all its layers of each."""
        chosen = (u for u in corpus.utterances if u.id in stored or u.id not in self.left_out)
        return replace(corpus, utterances=tuple(chosen))


def make_plan(
    corpus: Corpus, encoder: Encoder, folder: Path, request: Request, console: Console, processes: int = 1
) -> StoreInfo:
    """The plan that completes or extends the store in `folder`; new shards are cut for so many processes.

    Raises UserError for a layer that the encoder lacks, a recording longer than the length that all are padded to, a
    folder with features of another kind or of recordings that have changed, and a corpus of which nothing can be read.
    """
    if request.dtype not in DTYPES:
        raise UserError(f"dtype {request.dtype!r} is not one of {', '.join(DTYPES)}")
    # Stored layers are kept, so that the command that began to add others also resumes it.
    stored = StoreInfo.read(folder).layers if (folder / "store.json").exists() else ()
    layers = tuple(sorted({*_layers(encoder, request.layers), *stored}))
    longest = None if request.longest is None else round(request.longest * audio.SAMPLE_RATE)
    padded = encoder.samples if isinstance(encoder, Padded) else None
    old = _read_old(folder)
    planned = {id_ for ids in old.shards for id_ in ids} if old else set()
    asked = request.asked(corpus, planned)
    recordings, unusable = survey(asked, console, encoder.min_samples, longest, padded)
    skipped = {**request.left_out, **unusable}
    fresh = StoreInfo(
        request.reader,
        str(request.root.resolve()),
        encoder.info.to_dict(),
        layers,
        (),
        recordings,
        skipped,
        encoder.device.type,
        request.dtype,
        truncated=request.truncated,
        columns=dict(request.columns),
    )
    if old is None:
        return replace(fresh, shards=cut(recordings, recordings, fresh, request.shard_bytes, processes))
    _compare_settings(folder, old, fresh)
    compare(folder, old, encoder)
    _check_unchanged(folder, old, {u.id for u in corpus.utterances}, recordings)
    new = [id_ for id_ in recordings if id_ not in planned]
    return replace(
        fresh,
        shards=old.shards + cut(new, recordings, fresh, request.shard_bytes, processes),
        # Stored features keep the hash of their recording, even where that cannot be read now.
        recordings={**{i: old.recordings[i] for i in planned}, **recordings},
        skipped={i: why for i, why in skipped.items() if i not in planned},
    )


def announce(folder: Path, info: StoreInfo, console: Console) -> None:
    """Print the plan and its cost in disk. Raises UserError when the disk is too small."""
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
    # A spool and the shard made of it exist together for a moment; so do a shard and its successor with more layers.
    extra = max((s + _size(shard_path(folder, i)) for (i, _), s in zip(todo, sizes, strict=True) if s), default=0)
    need = sum(sizes) + extra - already
    if need > free:
        message = f"needs {need / 2**20:,.0f} MiB while it is written, {free / 2**20:,.0f} MiB are free on that disk"
        raise UserError(f"{folder}: {message}")


def batches(ids: Sequence[str], info: StoreInfo, encoder: Encoder, seconds: float) -> Iterator[list[str]]:
    """Batches of utterances that may be encoded together, longest first, each of at most `seconds` with its padding.

    A longer utterance is a batch by itself. Equal ids give equal batches.
    """
    groups: dict[object, list[str]] = {}
    for id_ in sorted(ids, key=lambda i: -info.recordings[i][1]):
        groups.setdefault(encoder.batch_key(info.recordings[id_][1]), []).append(id_)
    for group in groups.values():
        start = 0
        while start < len(group):
            # Sorted by length: the first is the longest, to which the others are padded.
            cost = encoder.cost(info.recordings[group[start]][1]) / audio.SAMPLE_RATE
            stop = start + max(1, int(seconds / cost))
            yield group[start:stop]
            start = stop


def _layers(encoder: Encoder, chosen: Sequence[int] | None) -> tuple[int, ...]:
    layers = tuple(range(encoder.info.num_states)) if chosen is None else tuple(sorted(set(chosen)))
    outside = [i for i in layers if not 0 <= i < encoder.info.num_states]
    if outside or not layers:
        allowed = f"{encoder.info.name} has 0 to {encoder.info.num_states - 1}"
        raise UserError(f"layers: {', '.join(map(str, outside)) or 'none'}: {allowed}; name some of these, or all")
    return layers


def survey(
    corpus: Corpus, console: Console, shortest: int = 1, longest: int | None = None, padded: int | None = None
) -> tuple[dict[str, tuple[str, int]], dict[str, str]]:
    """By id, each utterance's recording hash and number of samples at 16 kHz; and by id why others cannot be used.

    shortest, longest: samples of what can be used. padded: the samples to which all are padded, which then count.
    A line names the recordings that are taken though they break off. UserError where nothing can be used.
    """
    begun = time.monotonic()
    with bar(console, "recordings") as progress:
        task = progress.add_task("read", total=2 * len(corpus.utterances), visible=False)

        def tick() -> None:
            progress.update(task, advance=1, visible=time.monotonic() - begun > PATIENCE)

        lengths = dict(in_threads(lambda u: (u.id, _samples(u, shortest, longest)), corpus.utterances, tick))
        if padded is not None:
            lengths = _padded(corpus.utterances, lengths, padded)
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
    _tell_cut([u for u in corpus.utterances if u.id in recordings and audio.is_cut(u)], console)
    return recordings, skipped


def _tell_cut(utterances: Sequence[Utterance], console: Console) -> None:
    """A line on recordings that are taken though they break off."""
    if utterances:
        named = ", ".join(u.id for u in utterances[:NAMED]) + ", ..." * (len(utterances) > NAMED)
        message = f"note: {len(utterances)} utterances break off and are taken as far as they go: {named}"
        console.print(message, style="bold yellow", highlight=False, markup=False, soft_wrap=True)


def _padded(utterances: Iterable[Utterance], lengths: Mapping[str, int | str], samples: int) -> dict[str, int | str]:
    """The lengths, each replaced by `samples`. UserError for a longer recording, which would have to be cut."""
    usable = {u: n for u in utterances if isinstance(n := lengths[u.id], int)}
    longest = max(usable, key=usable.__getitem__, default=None)
    if longest is not None and usable[longest] > samples:
        limit, length = samples / audio.SAMPLE_RATE, usable[longest] / audio.SAMPLE_RATE
        message = f"{length:.2f} s, the longest of {sum(n > samples for n in usable.values())} beyond the {limit:g} s"
        raise UserError(
            f"{longest.audio}: {longest.id}: {message} of --pad-audio; raise that, or skip them with --longest "
            f"{limit:g}"
        )
    return {id_: samples if isinstance(n, int) else n for id_, n in lengths.items()}


def _samples(utterance: Utterance, shortest: int, longest: int | None) -> int | str:
    """The utterance's samples at 16 kHz, or why it cannot be used, from the file's header."""
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


def _read_old(folder: Path) -> StoreInfo | None:
    """The unfinished plan in the folder, else its store; None where there is neither."""
    plan = StoreInfo.read_plan(folder)
    if plan is not None:
        return plan
    if (folder / "store.json").exists():
        return StoreInfo.read(folder)
    if any(folder.glob("shard-*")):
        raise UserError(f"{folder}: holds shards but no store.json; restore that, or name another folder")
    return None


def compare(folder: Path, stored: StoreInfo, encoder: Encoder) -> None:
    """UserError where the features in the folder are of another encoder, or of this one with other settings."""
    old, new = stored.encoder, encoder.info.to_dict()
    if old["revision"] != new["revision"]:  # the name may differ: equal files are the same encoder
        _refuse_other(folder, "revision", *(f"{e['name']} {e['revision']}" for e in (old, new)))
    for name in ("input", "precision", "sample_rate"):
        _refuse_other(folder, name, old[name], new[name])
    _refuse_other(folder, "device", stored.device, encoder.device.type)  # bits differ: one store never mixes them


def _compare_settings(folder: Path, old: StoreInfo, new: StoreInfo) -> None:
    """UserError where the folder has features of another kind, or other layers are being added to it."""
    for name in ("made_by", "dtype", "corpus"):
        _refuse_other(folder, name.replace("_", " "), getattr(old, name), getattr(new, name))
    _refuse_other(folder, "--accept-truncated", old.truncated, new.truncated)
    if (folder / "plan.json").exists() and old.layers != new.layers:
        message = f"of layers {', '.join(map(str, old.layers))} is under way here; finish it with these --layers"
        raise UserError(f"{folder}: an extraction {message}, or give it up by deleting plan.json")


def _refuse_other(folder: Path, name: str, old: object, new: object) -> None:
    if old != new:
        message = f"({name}: {old} there, {new} asked)"
        raise UserError(f"{folder}: holds another store {message}; name another folder with --features")


def _check_unchanged(
    folder: Path, old: StoreInfo, ids_now: set[str], recordings: Mapping[str, tuple[str, int]]
) -> None:
    """UserError where a recording with features has changed, or is no longer in the corpus."""
    for index, ids in enumerate(old.shards):
        path = shard_path(folder, index)
        held = set(Shard(path, old.encoder).contents.ids) if path.exists() else journaled(folder, index)
        for id_ in ids:
            if id_ not in old.recordings:
                raise UserError(f"{folder}: store.json or plan.json: recordings: lacks {id_}; restore that file")
            if id_ not in ids_now:
                message = f"holds {id_}, which {old.corpus} has no more"
                raise UserError(f"{folder}: {message}; name another folder, or see `bas features subset`")
            if id_ in held and id_ in recordings and recordings[id_][0] != old.recordings[id_][0]:
                raise UserError(
                    f"{folder}: {id_} was extracted from another recording than is there now "
                    f"(recordings: {old.recordings[id_][0]} there, {recordings[id_][0]} now); name another folder"
                )


def cut(
    ids: Iterable[str],
    recordings: Mapping[str, tuple[str, int]],
    info: StoreInfo,
    shard_bytes: float,
    processes: int = 1,
) -> tuple[tuple[str, ...], ...]:
    """The utterances of each new shard, of `shard_bytes` at most, or fewer so that every process has enough shards."""
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
