"""Extraction: run a frozen encoder over a corpus and write the states into shards; a killed extraction is resumed.

Each thread of a crew decodes a batch, encodes it and casts the states to the stored dtype; the calling thread writes
them. On the CPU each thread computes on one core, which is faster than one batch on all cores, and decoding and writing
overlap with it; on CUDA the threads take turns at the model and overlap in everything else.

Several processes (torchrun) share one extraction: each claims one shard after another, and takes over the shard of a
process that died. Every utterance is encoded once; a resumed extraction runs the same batches.
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
from bas.encoders import Encoder, one_at_a_time
from bas.errors import UserError
from bas.features.plan import Request, announce, batches, compare, make_plan
from bas.features.recordings import recording_hash
from bas.features.shard import Shard, shard_path
from bas.features.spool import Encoded, Spool, missing_layers
from bas.features.store import FeatureStore, StoreInfo
from bas.speech import audio
from bas.util.claims import forget
from bas.util.files import alone, hold, locked, open_own
from bas.util.part import Part
from bas.util.progress import bar
from bas.util.temporary import sweep

BATCH_SECONDS = {"cpu": 4.0, "cuda": 480.0}
"""Audio in a batch. On the CPU an utterance by itself is fastest; only short ones, such as words, share a batch."""
CREW = {"cpu": 16, "cuda": 6}
"""Threads at most. On CUDA they decode and copy; at most two have a batch on the GPU at a time."""
POLL_SECONDS = 0.5
NAMED = 10  # utterances in a note
LEVELS = {
    "silent": "are silent, each of one value throughout",
    "loud": f"have a peak beyond {audio.LOUDEST:g} times full scale: integers stored as floating-point numbers",
}


@dataclass(frozen=True)
class Group:
    """The processes that share an extraction: one alone, those that one torchrun started on this machine, or those of
    several parts, on any machines.

    token: equal in all that share it. part: of the shards, do these alone; None: all.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    token: str = ""
    part: Part | None = None

    @classmethod
    def of_torchrun(cls) -> Group:
        """The group that the environment describes; one process alone where torchrun has set nothing."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_PORT")
        started = [socket.gethostname(), str(os.getppid()), *(os.environ.get(n, "") for n in names)]
        rank, size, local_rank, local_size = (
            int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        )
        return cls(rank, size, local_rank, local_size, ":".join(started))

    def of_part(self, part: Part) -> Group:
        """The same processes as those of one part: the others' are none that they see."""
        return replace(self, size=self.size * part.count, token=f"{part.count} parts", part=part)

    @property
    def cores(self) -> int:
        """This process's share of the cores it may use."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, usable // self.local_size)


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
    """Fill `folder` with hidden states of every utterance of the corpus, or add those that are missing; see `fill`."""
    group = group or Group.of_torchrun()
    assert group.part is None, "a part may leave the store incomplete"
    fill(corpus, encoder, folder, request, console, group, batch_seconds)
    return FeatureStore(folder)


def fill(
    corpus: Corpus,
    encoder: Encoder,
    folder: Path,
    request: Request,
    console: Console,
    group: Group,
    batch_seconds: float | None = None,
) -> bool:
    """Do the group's share of an extraction. Returns whether the store is complete: False where other parts are behind.

    Prints the cost in disk first. Memory is bounded by two batches a thread, whatever the size of the corpus. An
    utterance that cannot be read or encoded is left out and listed in the store's `skipped` with the reason; the next
    extraction tries it again.
    batch_seconds: audio in a batch; None: the device's BATCH_SECONDS.

    Raises UserError for what the plan refuses (see `make_plan`), too little disk, a value that the dtype cannot hold,
    and a folder in use by another extraction; OSError for a disk that fills up. Finished batches are kept.
    """
    shared = bool(group.token)
    with locked(folder, "extracting", shared=shared), open_own(folder / ".session", "a+", encoding="utf-8") as session:
        info = _agree(corpus, encoder, folder, request, console, group, session)
        seconds = BATCH_SECONDS[encoder.device.type] if batch_seconds is None else batch_seconds
        encoded = _carry_out(corpus, encoder, folder, info, console, seconds, group)
        with alone(folder / ".planning"):
            complete = group.part is None or not _behind(folder, info)
            if complete:
                forget(folder, lambda store, name: True)
                _seal(folder, info)
        _tell_levels(encoded, console)
    return complete


def _behind(folder: Path, info: StoreInfo) -> list[int]:
    """The shards that parts have not yet filled."""
    return [i for i in range(len(info.shards)) if missing_layers(folder, i, info)]


def _agree(
    corpus: Corpus,
    encoder: Encoder,
    folder: Path,
    request: Request,
    console: Console,
    group: Group,
    session: TextIO,
) -> StoreInfo:
    """The plan: the first process of a group makes it, the others read it."""
    with alone(folder / ".planning"):
        if group.token and _join(folder, group, session):
            plan = StoreInfo.read_plan(folder)  # None: the others have completed the store already
            if plan or (folder / "store.json").exists():
                plan = plan or StoreInfo.read(folder)
                compare(folder, plan, encoder)
                if group.rank == 0:
                    announce(folder, plan, console)
                return plan
        _sweep(folder)
        info = make_plan(corpus, encoder, folder, request, console, group.size)
        announce(folder, info, console)
        if (folder / "plan.json").exists() or not _complete(folder, info):
            info.write(folder / "plan.json")
        else:  # only the paths of the corpus and the encoder may have changed
            info.write(folder / "store.json")
        session.truncate(0)
        session.write(group.token)
        session.flush()
        return info


def _join(folder: Path, group: Group, session: TextIO) -> bool:
    """Hold the session's lock for the life of this process; True if others of the group hold it already.

    UserError while processes of another group hold it.
    """
    for pause in (0.0, 0.1, 0.3, 0.6):  # a killed process releases its locks one by one
        time.sleep(pause)
        others = not hold(session)
        session.seek(0)
        if not others or session.read() == group.token:
            hold(session, shared=True, wait=True)
            return others
    raise UserError(f"{folder}: another process is extracting here; wait for it or stop it")


def _sweep(folder: Path) -> None:
    """Remove files of killed processes, and shards after the store's last, which hold only skipped utterances."""
    sweep(folder)
    if (folder / "store.json").exists() and not (folder / "plan.json").exists():
        shards = {shard_path(folder, i) for i in range(len(StoreInfo.read(folder).shards))}
        for path in folder.glob("shard-*"):
            if path not in shards:
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
) -> dict[str, str]:
    """Encode what is missing; by id of what was encoded now, the level of its recording (see `audio.listen`)."""
    utterances = {u.id: u for u in corpus.utterances}
    on_cpu = encoder.device.type == "cpu"
    crew = 1 if one_at_a_time(encoder) else min(CREW[encoder.device.type], group.cores)
    most = 2 * crew if on_cpu else crew + 2  # batches submitted and not yet written
    # Where there are more cores than threads of the crew, each computes on several cores.
    threads = max(1, group.cores // crew) if on_cpu else 1
    turn = nullcontext() if on_cpu else BoundedSemaphore(2)  # one thread computes while the other copies
    before = torch.get_num_threads()
    spools: dict[int, Spool] = {}
    running: dict[Future[list[Encoded]], int] = {}
    levels: dict[str, str] = {}
    with (
        bar(console, "utterances") as progress,
        ThreadPoolExecutor(crew, initializer=torch.set_num_threads, initargs=(threads,)) as pool,
    ):
        mine = list(range(len(info.shards)) if group.part is None else group.part.of(range(len(info.shards))))
        total = sum(len(info.shards[i]) for i in mine)
        task = progress.add_task("extract", total=total)

        def work(ids: list[str], layers: tuple[int, ...]) -> list[Encoded]:
            return _encode([utterances[i] for i in ids], encoder, layers, info, turn)

        def write_finished() -> None:
            """Wait until a batch is encoded; write all that are, in the order in which they were submitted."""
            done = wait(running, return_when=FIRST_COMPLETED).done
            for future in [one for one in running if one in done]:
                spool = spools[running.pop(future)]
                batch = future.result()
                spool.append(batch)
                levels.update({encoded.id: encoded.level for encoded in batch if not encoded.skipped})
                progress.advance(task, len(batch))
                finish_if_full(spool)

        def finish_if_full(spool: Spool) -> None:
            if spool.full:
                spool.finish()
                del spools[spool.index]

        try:
            for spool in _claims(folder, info, mine, lambda ids: progress.advance(task, ids)):
                if spool is None:  # other processes have the remaining shards
                    write_finished() if running else time.sleep(POLL_SECONDS)
                    continue
                spools[spool.index] = spool
                todo = spool.open_ids
                progress.advance(task, len(info.shards[spool.index]) - len(todo))
                finish_if_full(spool)
                for ids in batches(todo, info, encoder, seconds):
                    while len(running) >= most:
                        write_finished()
                    running[pool.submit(work, ids, spool.layers)] = spool.index
            while running:
                write_finished()
            progress.update(task, completed=total)  # other processes' last shards were not counted
        except BaseException:
            pool.shutdown(cancel_futures=True)
            for future, index in running.items():  # keep the batches finished in the meantime
                if not future.cancelled() and future.exception() is None and index in spools:
                    spools[index].append(future.result())
            raise
        finally:
            torch.set_num_threads(before)  # the crew's setting would apply to every later thread
            for spool in spools.values():
                spool.close()
    return levels


def _tell_levels(levels: dict[str, str], console: Console) -> None:
    """A line on recordings without any sound, and one on those that are too loud to be as they were meant."""
    for level, what in LEVELS.items():
        names = [id_ for id_, one in sorted(levels.items()) if one == level]
        if names:
            of = f"all {len(levels)}" if len(names) == len(levels) else f"{len(names)} of {len(levels)}"
            named = f"{what}: {', '.join(names[:NAMED])}{', ...' * (len(names) > NAMED)}"
            message = f"note: {of} utterances encoded now {named}"
            console.print(message, style="bold yellow", highlight=False, markup=False, soft_wrap=True)


def _claims(
    folder: Path, info: StoreInfo, mine: Sequence[int], on_complete: Callable[[int], None]
) -> Iterator[Spool | None]:
    """Yields shards claimed by this process until all of `mine` are complete; None while others have all the rest.

    on_complete: called with the number of utterances of each shard that is complete already.
    """
    left = list(mine)
    while left and (folder / "plan.json").exists():  # without plan.json another process has completed the store
        claimed = False
        for index in list(left):
            if not missing_layers(folder, index, info):
                left.remove(index)
                on_complete(len(info.shards[index]))
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
    encoded: list[Encoded] = []
    waves: list[tuple[Utterance, audio.Wave]] = []
    levels: dict[str, str] = {}
    for utterance in batch:
        try:
            wave, level = audio.listen(utterance)
            if len(wave) < encoder.min_samples:
                raise UserError(f"{utterance.audio}: {len(wave)} samples are too few for the encoder")
            if recording_hash(utterance) != info.recordings[utterance.id][0]:
                raise UserError(f"{utterance.audio}: changed while it was extracted")
            waves.append((utterance, wave))
            levels[utterance.id] = level
        except UserError as error:
            encoded.append(Encoded(utterance.id, skipped=str(error)))
    keys = {encoder.batch_key(len(wave)) for _, wave in waves}
    # Resampling may round two files of one duration to different lengths, which may not share a batch.
    groups = [waves] if len(keys) == 1 else [[one] for one in waves]
    for group in groups:
        prepared = [encoder.prepare(wave) for _, wave in group]
        with turn:
            try:
                states = encoder.encode(prepared)
                chosen = [(bool(s.isfinite().all()), s[list(layers)].to(stored).cpu()) for s in states]
            except torch.OutOfMemoryError as error:
                option = "--batch-seconds" if len(group) > 1 else "--longest"
                raise UserError(f"{batch[0].audio}: the GPU's memory is short; lower {option}") from error
            del states  # free the GPU's memory for the next batch
        for (utterance, _), (finite, block) in zip(group, chosen, strict=True):
            if not finite:
                encoded.append(Encoded(utterance.id, skipped=f"{utterance.audio}: a feature is NaN or infinite"))
            elif not block.isfinite().all():
                message = "a feature is beyond float16 (65504): use --dtype float32 and another folder"
                raise UserError(f"{utterance.audio}: {utterance.id}: {message}")
            else:
                encoded.append(Encoded.of(utterance.id, block.numpy(), levels[utterance.id]))
    return encoded


def _seal(folder: Path, plan: StoreInfo) -> None:
    """Replace plan.json by store.json once every shard is written; skipped utterances are listed with their reasons."""
    if not (folder / "plan.json").exists():  # another process has done so, or nothing was missing
        return
    shards = [Shard(shard_path(folder, i), plan.encoder).contents for i in range(len(plan.shards))]
    held = {id_ for shard in shards for id_ in shard.ids}
    # An utterance not in the plan's recordings was skipped by the plan for another reason, or has left the corpus.
    missing = plan.recordings.keys() - held
    reasons = {i: why for shard in shards for i, why in shard.skipped.items() if i in missing}
    if not held:  # nothing is worth keeping: the next extraction starts from scratch
        for path in (folder / "plan.json", *folder.glob("shard-*")):
            path.unlink()
        raise UserError(f"{folder}: no utterance could be extracted; the first: {next(iter(reasons.values()))}")
    while not shards[-1].ids:  # holds only skipped utterances: the next extraction reuses its number
        shards.pop()
    info = replace(
        plan,
        shards=tuple(shard.ids for shard in shards),
        recordings={id_: plan.recordings[id_] for id_ in plan.recordings if id_ in held},
        skipped={**plan.skipped, **reasons},
    )
    info.write(folder / "store.json")
    (folder / "plan.json").unlink()
    _sweep(folder)
