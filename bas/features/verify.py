"""Verify that a store holds what its description says, by five independent checks.

They compare the bytes with the checksums taken when they were computed, the ids and recordings with the corpus as it is
now, and a sample of the states with the encoder's, for a derived store with those derived again from its parent, for
an imported one with the arrays.
"""

from __future__ import annotations

import os
import random
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from bas.corpora import Corpus, Utterance
from bas.encoders import is_own
from bas.encoders.again import load_again
from bas.encoders.base import frames_fault
from bas.errors import UserError
from bas.features import metadata
from bas.features.corpus import corpus_of
from bas.features.derive import frame_times, origin, pooled, spans
from bas.features.importing import difference_from
from bas.features.metadata import Columns
from bas.features.recordings import recording_hashes
from bas.features.shard import Shard, States, shard_path
from bas.features.sources import open_source
from bas.features.store import FeatureStore, StoreInfo, open_shard, source_of
from bas.speech import audio
from bas.speech.words import Segments
from bas.util.progress import bar
from bas.util.threads import in_threads

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.01}
"""Of `difference`, by the encoder's precision. An utterance of a batch then is encoded alone now. That makes
1e-4 (stored as float16) and 0.01 (bfloat16) with Whisper, HuBERT and WavLM; another utterance's states make 0.3."""


@dataclass(frozen=True)
class Finding:
    """What one check found: `summary` in any case, and a line for each of its `problems`."""

    check: str
    summary: str
    problems: tuple[str, ...] = ()
    advice: str = ""
    checked: bool = True  # False: it could not be, and that is no fault of the store


def verify(
    folder: Path,
    console: Console,
    device: torch.device,
    sample: int = 3,
    seed: int = 0,
    encoder: str | None = None,
) -> Iterator[Finding]:
    """Check the store; yields the finding of each check: files, entries, shards, labels, encoder.

    sample: the number of utterances to encode again, drawn with `seed`; 0: none, and no encoder is loaded. For a
    derived store these are derived again from its parent, if that exists: the check "derivation" instead of "encoder".
    Of an imported store no encoder is known: it is compared with the arrays, if they are still there: "source".
    encoder: the name to load instead of the store's; its revision must be the store's.

    Raises UserError where there is no complete store; everything else is a finding.
    """
    info = StoreInfo.read(folder)
    yield _files(folder, info)
    yield _entries(info)
    finding, intact = _shards(folder, info, console)
    yield finding
    if info.derived or info.imported:
        yield (_derivation if info.derived else _source)(folder, info, intact, sample, seed)
        sample = 0
    try:
        corpus = corpus_of(info)
    except (UserError, OSError) as error:
        message = f"{info.corpus} cannot be opened"
        yield Finding(
            "labels", message, (str(error),), "put the corpus, or a link to it, back where the store names it"
        )
        if sample:
            yield Finding("encoder", "nothing encoded again", (f"there are no recordings: {message}",), "or --sample 0")
        return
    finding, unchanged = _labels(info, corpus, console)
    yield finding
    if sample:
        usable = [u for u in corpus.utterances if u.id in intact and u.id in unchanged]
        chosen = random.Random(seed).sample(usable, min(sample, len(usable)))
        yield _encode_again(folder, info, chosen, encoder, device, console)


def _files(folder: Path, info: StoreInfo) -> Finding:
    """Compare the folder's files with store.json."""
    shards = {shard_path(folder, i).name for i, ids in enumerate(info.shards) if ids}
    allowed = {shard_path(folder, i).name for i in range(len(info.shards))}
    existing = {p.name for p in folder.glob("shard-*")} | {p.name for p in folder.glob("*.tmp")}
    missing, stray = sorted(shards - existing), sorted(existing - allowed)
    summary = f"{len(shards) - len(missing)} of {len(shards)} shards"
    if (folder / "plan.json").exists():
        summary += f"; plan.json: `{info.command}` adds to it or was stopped ({len(stray)} files beyond the store)"
    elif stray:
        more = " ..." if len(stray) > 3 else ""
        summary += f"; left behind: {', '.join(stray[:3])}{more} (nothing reads them)"
    advice = f"run the same `{info.command}` again: only what is missing is made" if missing else ""
    return Finding("files", summary, tuple(f"{name}: missing" for name in missing), advice)


def _entries(info: StoreInfo) -> Finding:
    """Check that store.json is consistent."""
    times = Counter(id_ for ids in info.shards for id_ in ids)
    wrong = [f"{id_}: listed {n} times" for id_, n in times.items() if n > 1]
    wrong += [f"{id_}: both held and skipped" for id_ in times if id_ in info.skipped]
    wrong += [f"{id_}: held, but no recording is named for it" for id_ in times if id_ not in info.recordings]
    advice = "store.json was changed by hand or is damaged: extract into another folder" if wrong else ""
    return Finding("entries", f"{len(times)} utterances held, {len(info.skipped)} skipped", tuple(wrong), advice)


def _shards(folder: Path, info: StoreInfo, console: Console) -> tuple[Finding, set[str]]:
    """Compare every byte of every shard with its checksum; also returns the ids of the intact utterances."""
    wrong: list[str] = []
    damaged: list[str] = []
    unread: list[str] = []
    intact: set[str] = set()
    read = seen = 0
    with bar(console, "utterances") as progress, ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        task = progress.add_task("read", total=info.num_utterances)
        for index, ids in enumerate(info.shards):
            path = shard_path(folder, index)
            if path.exists():  # else the check of the files reports it
                unreadable: OSError | None = None
                try:
                    shard = open_shard(folder, info, index)
                    reasons: list[str | OSError] = []
                    for why in pool.map(partial(_fault, info, shard), range(len(ids))):
                        reasons.append(why)
                        progress.advance(task)
                    unreadable = next((why for why in reasons if isinstance(why, OSError)), None)
                    faults = [f"{id_}: {_say(why)}" for id_, why in zip(ids, reasons, strict=False) if why]
                    intact.update(id_ for id_, why in zip(ids, reasons, strict=False) if not why)
                    read += shard.nbytes
                except UserError as error:
                    faults = [str(error)]
                except OSError as error:
                    unreadable, faults = error, [_say(error)]
                wrong += [f"{path.name}: {why.removeprefix(f'{path}: ')}" for why in faults]
                if unreadable:
                    unread.append(path.name)
                elif faults:
                    damaged.append(path.name)
            seen += len(ids)
            progress.update(task, completed=seen)
    summary = (
        f"{len(intact)} of {info.num_utterances} utterances are as they were computed, {read / 2**20:,.0f} MiB read"
    )
    advice = []
    if damaged:
        again = f"run the same `{info.command}` again: only what is missing is made"
        advice.append(f"move {', '.join(damaged)} out of the folder and {again}")
    if unread:
        advice.append(f"see to the rights and the disk of {', '.join(unread)} first: nothing else is known to be wrong")
    return Finding("shards", summary, tuple(wrong), "; ".join(advice)), intact


def _say(why: str | OSError) -> str:
    return f"cannot be read: {why.strerror}" if isinstance(why, OSError) else why


def _fault(info: StoreInfo, shard: Shard, u: int) -> str | OSError:
    """What is wrong with the states of utterance `u`, or why they cannot be read; empty if nothing is."""
    if not info.derived and (why := _check_frames(info, shard, u)):
        return why
    try:
        return shard.fault(u)
    except OSError as error:
        return error


def _check_frames(info: StoreInfo, shard: Shard, u: int) -> str:
    """What is wrong with the number of frames, given the recording's length; empty if nothing is."""
    samples = info.recordings[shard.contents.ids[u]][1]
    frames = int(shard.contents.offsets[u + 1] - shard.contents.offsets[u])
    # `audio.load` accepts a recording that ends a little before its header says.
    return frames_fault(frames, samples, info.encoder["frame_rate"], audio.SLACK)


def _derivation(folder: Path, info: StoreInfo, intact: set[str], sample: int, seed: int) -> Finding:
    """Compare the numbers of rows with the segments or columns, and some utterances with deriving them again."""
    again = f"run `{info.command}` again, into another folder"
    try:
        parent, of = metadata.origin(folder, info) if info.made_by == "append" else origin(folder, info)
    except UserError as error:
        return Finding("derivation", "nothing derived again", (str(error),), f"run the same `{info.command}` again")
    store, source, summary = FeatureStore(folder), None, f"derived again from {parent}"
    try:
        source = FeatureStore(parent)
    except UserError as error:
        summary = f"nothing derived again: {error}"
    wrong = [f"{id_}: {why}" for id_ in sorted(intact) if (why := _check_rows(store, source, of, id_))]
    chosen = random.Random(seed).sample(sorted(intact), min(sample, len(intact))) if source else []
    for id_ in chosen:
        assert source is not None
        try:
            largest = max(_derived_difference(store, source, of, id_, layer) for layer in info.layers)
            if largest > TOLERANCE["float32"]:
                wrong.append(f"{id_}: differs by {largest:.2g} from what {parent} gives now")
        except UserError as error:
            wrong.append(str(error))
    checked = f"{len(chosen)} of them " if source else ""
    summary = f"{info.derived}: {len(intact)} utterances; {checked}{summary}"
    return Finding("derivation", summary, tuple(wrong), again if wrong else "")


def _source(folder: Path, info: StoreInfo, intact: set[str], sample: int, seed: int) -> Finding:
    """Compare some utterances with the arrays that they were imported from."""
    if info.made_by != "import":
        why = f"made by {info.made_by} of features that were imported"
        return Finding("source", f"{why}: no encoder is known to compute them again; verify the store of the import")
    try:
        place = source_of(folder, info)
    except UserError as error:
        return Finding("source", "nothing compared", (str(error),), f"run the same `{info.command}` again")
    if not place.exists():
        return Finding("source", f"nothing compared: {place} is not there any more")
    store, wrong = FeatureStore(folder), []
    chosen = random.Random(seed).sample(sorted(intact), min(sample, len(intact)))
    try:
        with open_source(place) as source:
            wrong = [f"{id_}: {why}" for id_ in chosen if (why := difference_from(source, store, id_))]
    except UserError as error:
        wrong.append(str(error))
    summary = f"imported: {len(chosen)} of {len(intact)} utterances compared with {place}"
    advice = f"put the arrays back, or run `{info.command}` into another folder" if wrong else ""
    return Finding("source", summary, tuple(wrong), advice)


def _check_rows(store: FeatureStore, source: FeatureStore | None, of: Segments | Columns, id_: str) -> str:
    """What is wrong with the number of rows, given the utterance's segments; empty if nothing is."""
    if isinstance(of, Columns):
        return "" if id_ in of.of else "has no metadata"
    if id_ not in of.of:
        return "has no segments"
    pooling, rows, expected = store.info.derived.split()[0], store.num_frames(id_), len(of.of[id_])
    if pooling == "inside":
        if source is None or id_ not in source:  # the number of frames is unknown
            return ""
        times_T = frame_times(source.num_frames(id_), store.info.encoder["frame_rate"])
        expected = len(spans(times_T, of.of[id_], pooling))
    return "" if rows == expected else f"{rows} rows, but its {of.name} make {expected}"


def _derived_difference(
    store: FeatureStore, source: FeatureStore, of: Segments | Columns, id_: str, layer: int
) -> float:
    """The `difference` between one layer of an utterance and what is derived from the source now."""
    block_TD = source.read(id_, layer)
    if isinstance(of, Columns):
        return difference(store.read(id_, layer), of.beside(block_TD, id_))
    times_T = frame_times(len(block_TD), store.info.encoder["frame_rate"])
    return difference(
        store.read(id_, layer), pooled(block_TD, spans(times_T, of.of[id_], store.info.derived.split()[0]))
    )


def _labels(info: StoreInfo, corpus: Corpus, console: Console) -> tuple[Finding, set[str]]:
    """Compare the store with the corpus as it is now; also returns the ids whose recordings are unchanged."""
    held = {id_ for ids in info.shards for id_ in ids}
    by_id = {u.id: u for u in corpus.utterances}
    common = [u for u in corpus.utterances if u.id in held]
    with bar(console, "recordings") as progress:
        task = progress.add_task("read", total=len({u.audio for u in common}))
        now = recording_hashes(common, lambda: progress.advance(task))
    changed = [u for u in common if now.get(u.id) != info.recordings.get(u.id, ("", 0))[0]]
    missing = [id_ for id_ in by_id if id_ not in held and id_ not in info.skipped]
    gone = [id_ for ids in info.shards for id_ in ids if id_ not in by_id]
    wrong = [f"{id_}: in the corpus, but neither held nor skipped" for id_ in missing]
    wrong += [f"{id_}: held, but the corpus has it no more" for id_ in gone]
    wrong += [f"{u.id}: {_changed(u, now)}" for u in changed]
    unchanged = {u.id for u in common} - {u.id for u in changed}
    reasons = dict(in_threads(lambda u: (u.id, _unusable(u)), [u for u in common if u.id in unchanged]))
    cut = [f"{id_}: {why}" for id_, why in reasons.items() if why]
    wrong += cut
    summary = (
        f"{corpus.name}: {len(by_id)} utterances, {len(common)} of them held; {len(unchanged)} recordings unchanged"
    )
    if info.truncated:
        summary += f"; {sum(audio.is_cut(u) for u in common)} break off and were taken as far as they go"
    advice = ""
    if gone or changed:
        advice = "extract into another folder, or put back the corpus that it was extracted from"
    elif cut:
        advice = (
            "put whole recordings in their place and extract into another folder, where such recordings are skipped"
        )
    elif missing:
        advice = (
            "run the same `bas extract` again: it adds them" if info.made_by == "extract" else "make the store again"
        )
    return Finding("labels", summary, tuple(wrong), advice), unchanged


def _unusable(utterance: Utterance) -> str:
    """Why an extraction would skip the recording today, from its header: features of half of it may be held."""
    try:
        audio.duration(utterance)
    except UserError as error:
        return str(error)
    return ""


def _changed(utterance: Utterance, now: Mapping[str, str]) -> str:
    return f"{utterance.audio} {'changed since' if utterance.id in now else 'cannot be read'}"


def _encode_again(
    folder: Path, info: StoreInfo, chosen: list[Utterance], place: str | None, device: torch.device, console: Console
) -> Finding:
    """Compare the states of some utterances with what the encoder computes now."""
    if place is None and is_own(name := info.encoder["name"]):
        advice = f"to encode some again, read that file and name it: --encoder {shlex.quote(name)}"
        return Finding("encoder", f"{name} is Python, which is run only if you name it", advice=advice, checked=False)
    if not chosen:
        return Finding("encoder", "nothing encoded again", ("no utterance is left to encode: see above",))
    try:
        encoder = load_again(info.encoder, place, device, "store")
    except UserError as error:
        advice = "name the same files with --encoder, or leave this check out with --sample 0"
        return Finding("encoder", "nothing encoded again", (str(error),), advice)
    tolerance = TOLERANCE[info.encoder["precision"]]
    where = {id_: (index, u) for index, ids in enumerate(info.shards) for u, id_ in enumerate(ids)}
    worst = dict.fromkeys(info.layers, 0.0)
    wrong: list[str] = []
    with bar(console, "utterances") as progress:
        task = progress.add_task("encode", total=len(chosen))
        for utterance in chosen:
            index, u = where[utterance.id]
            shard = open_shard(folder, info, index)
            try:
                (states_LTD,) = encoder.encode([encoder.prepare(audio.load(utterance))])
            except UserError as error:
                wrong.append(f"{utterance.id}: {error}")
                continue
            for layer in info.layers:
                off = difference(shard.read(layer, u), states_LTD[layer].float().cpu().numpy())
                worst[layer] = max(worst[layer], off)
                if off > tolerance:
                    wrong.append(f"{utterance.id}: layer {layer} differs by {off:.2g}")
            progress.advance(task)
    each = ", ".join(f"{layer}: {off:.1g}" for layer, off in worst.items())
    summary = f"{len(chosen)} utterances encoded again on {encoder.device.type}; largest difference by layer {each}"
    summary += f"; tolerance {tolerance:g}"
    advice = "the states are not this encoder's of these recordings: extract into another folder" if wrong else ""
    return Finding("encoder", summary, tuple(wrong), advice)


def difference(stored_TD: States, again_TD: States) -> float:
    """The relative difference (RMS over D) of the frame that differs most; infinite for different shapes.

    Each value's difference is divided by its own size plus the layer's RMS: a few values are a hundred times the RMS,
    where float16 is coarse, and would hide all others.
    """
    if stored_TD.shape != again_TD.shape:
        return float("inf")
    stored, again = stored_TD.astype(np.float64), again_TD.astype(np.float64)
    scale = np.sqrt(np.square(again).mean()) + np.abs(again)
    off = (stored - again) / np.maximum(scale, np.finfo(np.float64).tiny)
    largest = float(np.sqrt(np.square(off).mean(1)).max())
    return largest if np.isfinite(largest) else float("inf")
