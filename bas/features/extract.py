"""Extraction: a frozen encoder over a corpus, into shards, at the encoder's own speed; a kill costs a moment's work.

A crew of threads takes one batch each through decoding, the encoder, and the cast to what is stored; the calling thread
writes what they hand over. On the CPU each of the crew computes on one core, which beats one batch over all cores, so
decoding and writing cost only their own time; on CUDA they take turns at the model and overlap in everything else.

Several processes (torchrun) share one extraction: each claims a shard after the other, and takes over that of a process
that died. What the plan holds is computed once; a resumed extraction runs the same batches.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore
from typing import TextIO

import torch
from rich.console import Console

from bas.corpora import Corpus, Utterance
from bas.encoders import Encoder
from bas.errors import UserError
from bas.features.plan import Request, announce, batches, compare, make_plan
from bas.features.recordings import recording_hash
from bas.features.shard import Shard, shard_path
from bas.features.spool import Encoded, Spool, missing_layers
from bas.features.store import FeatureStore, StoreInfo
from bas.speech import audio
from bas.util.files import alone, hold, locked, write_json
from bas.util.progress import bar

BATCH_SECONDS = {"cpu": 4.0, "cuda": 480.0}
"""Of audio in a batch. On the CPU an utterance alone is fastest; only words and the like are put together."""
CREW = {"cpu": 16, "cuda": 6}
"""Threads at most. On CUDA they decode and copy; two at a time have a batch on the GPU."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Group:
    """The processes that share an extraction: one alone, or those that one torchrun started on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    token: str = ""  # the same in all that were started together

    @classmethod
    def of_torchrun(cls) -> Group:
        """Read from the environment; one process alone where torchrun has set nothing."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
        started = [socket.gethostname(), str(os.getppid()), *(os.environ.get(n, "") for n in names)]
        rank, size, here, together = (
            int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
        return cls(rank, size, here, together, ":".join(started))

    @property
    def cores(self) -> int:
        """This process's share of the cores it may use."""
        here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, here // self.local_size)


def extract(
    corpus: Corpus,
    encoder: Encoder,
    folder: Path,
    request: Request,
    console: Console,
    *,
    batch_seconds: float | None = None,
    group: Group | None = None,
) -> FeatureStore:
    """Fill `folder` with hidden states of every utterance of the corpus, or add to it what is missing.

    Prints the cost in disk first. Memory is bounded by two batches for each of the crew, whatever the corpus. What
    cannot be read or encoded is left out, stands in the store's `skipped` with the reason, and is tried again by the
    next extraction.
    batch_seconds: of audio in a batch; None: as the device likes it.

    Raises UserError for what the plan refuses (see `make_plan`), too little disk, a value that the dtype cannot hold,
    and a folder that another extraction holds; OSError for a disk that fills up. What was finished by then is kept.
    """
    group = group or Group.of_torchrun()
    shared = bool(group.token)
    with locked(folder, "extracting", shared=shared), (folder / ".session").open("a+", encoding="utf-8") as session:
        info = _agree(corpus, encoder, folder, request, console, group, session)
        seconds = BATCH_SECONDS[encoder.device.type] if batch_seconds is None else batch_seconds
        _carry_out(corpus, encoder, folder, info, console, seconds, group)
        with alone(folder / ".planning"):
            _seal(folder, info)
    return FeatureStore(folder)


def _agree(
    corpus: Corpus,
    encoder: Encoder,
    folder: Path,
    request: Request,
    console: Console,
    group: Group,
    session: TextIO,
) -> StoreInfo:
    """The plan, which the first process of a group makes and the others read."""
    with alone(folder / ".planning"):
        if group.token and _join(folder, group, session):
            there = StoreInfo.read_plan(folder)  # none: the others have completed the store already
            if there or (folder / "store.json").exists():
                there = there or StoreInfo.read(folder)
                compare(folder, there, encoder)
                if group.rank == 0:
                    announce(folder, there, console)
                return there
        _sweep(folder)
        info = make_plan(corpus, encoder, folder, request, console, group.size)
        announce(folder, info, console)
        if (folder / "plan.json").exists() or not _complete(folder, info):
            write_json(folder / "plan.json", info.as_dict())
        else:  # only the corpus and the encoder may have moved
            write_json(folder / "store.json", info.as_dict())
        session.truncate(0)
        session.write(group.token)
        session.flush()
        return info


def _join(folder: Path, group: Group, session: TextIO) -> bool:
    """Hold the session while this process lives. Whether others of the group are at work already.

    UserError while processes of another group are.
    """
    for pause in (0.0, 0.1, 0.3, 0.6):  # a process that is killed lets go of its locks one by one
        time.sleep(pause)
        others = not hold(session)
        session.seek(0)
        if not others or session.read() == group.token:
            hold(session, shared=True, wait=True)
            return others
    raise UserError(f"{folder}: another process is extracting here; wait for it or stop it")


def _sweep(folder: Path) -> None:
    """Remove what killed processes left, and shards behind the store's last: they hold skipped utterances only."""
    for left in folder.glob("*.tmp"):
        left.unlink()
    if (folder / "store.json").exists() and not (folder / "plan.json").exists():
        known = {shard_path(folder, i) for i in range(len(StoreInfo.read(folder).shards))}
        for path in folder.glob("shard-*"):
            if path.with_suffix(".h5") not in known or path.suffix != ".h5":
                path.unlink()


def _complete(folder: Path, info: StoreInfo) -> bool:
    stored = (folder / "store.json").exists()
    return stored and not any(ids and missing_layers(folder, i, info) for i, ids in enumerate(info.shards))


def _carry_out(
    corpus: Corpus,
    encoder: Encoder,
    folder: Path,
    info: StoreInfo,
    console: Console,
    seconds: float,
    group: Group,
) -> None:
    utterances = {u.id: u for u in corpus.utterances}
    on_cpu = encoder.device.type == "cpu"
    crew = min(CREW[encoder.device.type], group.cores)
    most = 2 * crew if on_cpu else crew + 2  # batches in hand
    # Fewer of the crew than cores: then each has several.
    threads = max(1, group.cores // crew) if on_cpu else 1
    turn = nullcontext() if on_cpu else BoundedSemaphore(2)  # one computes while the other copies
    before = torch.get_num_threads()
    spools: dict[int, Spool] = {}
    running: dict[Future[list[Encoded]], int] = {}
    with (
        bar(console, "utterances") as progress,
        ThreadPoolExecutor(crew, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
    ):
        task = progress.add_task("extract", total=info.num_utterances)

        def work(ids: list[str], layers: tuple[int, ...]) -> list[Encoded]:
            return _encode([utterances[i] for i in ids], encoder, layers, info, turn)

        def hand_over() -> None:
            """Write what is done; wait for something to be."""
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                spool = spools[running.pop(future)]
                batch = future.result()
                spool.append(batch)
                progress.advance(task, len(batch))
                finish_if_full(spool)

        def finish_if_full(spool: Spool) -> None:
            if spool.full:
                spool.finish()
                del spools[spool.index]

        try:
            for spool in _claims(folder, info, lambda ids: progress.advance(task, ids)):
                if spool is None:  # the shards that are left are with other processes
                    hand_over() if running else time.sleep(POLL_SECONDS)
                    continue
                spools[spool.index] = spool
                todo = spool.open_ids
                progress.advance(task, len(info.shards[spool.index]) - len(todo))
                finish_if_full(spool)
                for ids in batches(todo, info, encoder, seconds):
                    while len(running) >= most:
                        hand_over()
                    running[pool.submit(work, ids, spool.layers)] = spool.index
            while running:
                hand_over()
            progress.update(task, completed=info.num_utterances)  # what others completed last was not seen one by one
        except BaseException:
            pool.shutdown(cancel_futures=True)
            for future, index in running.items():  # what was done meanwhile is not lost
                if not future.cancelled() and future.exception() is None and index in spools:
                    spools[index].append(future.result())
            raise
        finally:
            torch.set_num_threads(before)  # what the crew sets is every later thread's, too
            for spool in spools.values():
                spool.close()


def _claims(folder: Path, info: StoreInfo, found: Callable[[int], None]) -> Iterator[Spool | None]:
    """Shards for this process alone, until all are complete; None where only other processes' are left for now.

    found: told the number of utterances of a shard that was completed elsewhere.
    """
    left = list(range(len(info.shards)))
    while left and (folder / "plan.json").exists():  # else another process has made it the store
        claimed = False
        for index in list(left):
            if not missing_layers(folder, index, info):
                left.remove(index)
                found(len(info.shards[index]))
                continue
            spool = Spool.claim(folder, index, info)
            if spool is not None:
                left.remove(index)
                claimed = True
                yield spool
        if left and not claimed:
            yield None


def _encode(
    batch: Sequence[Utterance],
    encoder: Encoder,
    layers: tuple[int, ...],
    info: StoreInfo,
    turn: nullcontext[None] | BoundedSemaphore,
) -> list[Encoded]:
    """Decode, encode and cast one batch; the states of each utterance, or why there are none."""
    stored = getattr(torch, info.dtype)
    found: list[Encoded] = []
    waves: list[tuple[Utterance, audio.Wave]] = []
    for utterance in batch:
        try:
            wave = audio.load(utterance)
            if len(wave) < encoder.min_samples:
                raise UserError(f"{utterance.audio}: {len(wave)} samples are too few for the encoder")
            if recording_hash(utterance) != info.recordings[utterance.id][0]:
                raise UserError(f"{utterance.audio}: changed while it was extracted")
            waves.append((utterance, wave))
        except UserError as error:
            found.append(Encoded(utterance.id, skipped=str(error)))
    together = {encoder.batch_key(len(wave)) for _, wave in waves}
    # Resampling may round two files of one duration to different lengths: then they may not share a batch.
    groups = [waves] if len(together) == 1 else [[one] for one in waves]
    for group in groups:
        prepared = [encoder.prepare(wave) for _, wave in group]
        with turn:
            try:
                states = encoder.encode(prepared)
                chosen = [(bool(s.isfinite().all()), s[list(layers)].to(stored).cpu()) for s in states]
            except torch.OutOfMemoryError as error:
                option = "--batch-seconds" if len(group) > 1 else "--longest"
                raise UserError(f"{batch[0].audio}: the GPU's memory is short; lower {option}") from error
            del states  # not beside the next batch's on the GPU
        for (utterance, _), (finite, block) in zip(group, chosen, strict=True):
            if not finite:
                found.append(Encoded(utterance.id, skipped=f"{utterance.audio}: a feature is NaN or infinite"))
            elif not block.isfinite().all():
                told = "a feature is beyond float16 (65504): use --dtype float32 and another folder"
                raise UserError(f"{utterance.audio}: {utterance.id}: {told}")
            else:
                found.append(Encoded.of(utterance.id, block.numpy()))
    return found


def _seal(folder: Path, plan: StoreInfo) -> None:
    """Make the plan the store: every shard is there. What was skipped is left out of it, with the reasons."""
    if not (folder / "plan.json").exists():  # sealed by another process, or nothing was to do
        return
    shards = [Shard(shard_path(folder, i), plan.encoder).contents for i in range(len(plan.shards))]
    held = {id_ for shard in shards for id_ in shard.ids}
    # Whoever is not in the plan's recordings was skipped by it for another reason, or has left the corpus.
    known = plan.recordings.keys() - held
    found = {i: why for shard in shards for i, why in shard.skipped.items() if i in known}
    if not held:  # nothing that would be worth keeping: the next extraction begins anew
        for path in (folder / "plan.json", *folder.glob("shard-*")):
            path.unlink()
        raise UserError(f"{folder}: no utterance could be extracted; the first: {next(iter(found.values()))}")
    while not shards[-1].ids:  # it holds nothing but what was skipped: the next extraction takes its place
        shards.pop()
    info = replace(
        plan,
        shards=tuple(shard.ids for shard in shards),
        recordings={id_: plan.recordings[id_] for id_ in plan.recordings if id_ in held},
        skipped={**plan.skipped, **found},
    )
    write_json(folder / "store.json", info.as_dict())
    (folder / "plan.json").unlink()
    _sweep(folder)
