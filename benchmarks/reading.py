"""How fast a feature store is read: random batches against other ways, and an epoch that does not fit into memory.

Run as a program, `reading.py FOLDER WHERE BYTES` reads two epochs of a store from `where` (see
`bas.training.placement`) within BYTES of memory, in a process that does nothing else.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from bas.encoders import EncoderInfo
from bas.features.shard import Contents, States, as_bytes, offsets, shard_path, write_shard
from bas.features.store import FeatureStore, StoreInfo
from bas.training.batches import Data, load, training_batches
from bas.training.placement import Placement
from bas.util.files import write_json

BATCH = 32  # utterances of a batch
MIB = 2**20
LARGE, ALLOWED = 1024 * MIB, 256 * MIB  # a store, and what it may take while it is streamed
Arm = Callable[[], object]


def take_turns(arms: Mapping[str, Arm], rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm in each round; the first round warms up and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for index in range(rounds + 1):
        for name, arm in arms.items():
            begun = time.perf_counter()
            arm()
            if index:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratio(seconds: dict[str, list[float]], arm: str, of: str) -> str:
    """The time of an arm divided by that of `of`, round by round: the median, with the lowest and highest."""
    ratios = [a / b for a, b in zip(seconds[arm], seconds[of], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def reading(store: FeatureStore, saved_files: Path, rounds: int) -> list[str]:
    chance = np.random.default_rng(0)
    ids = list(store.ids)
    drawn = [[ids[i] for i in chance.integers(0, len(ids), BATCH)] for _ in range(100)]
    layers = store.info.layers
    some = layers[len(layers) // 2]
    where = {id_: (s, u) for s, held in enumerate(store.info.shards) for u, id_ in enumerate(held)}
    opened = [store.shard(i) for i in range(len(store.info.shards))]
    plain = [np.memmap(s.path, s.contents.dtype, "r", s.begin, s.contents.shape) for s in opened]
    spans = [
        [
            (s, int(opened[s].contents.offsets[u]), int(opened[s].contents.offsets[u + 1]))
            for s, u in (where[id_] for id_ in b)
        ]
        for b in drawn
    ]
    row = opened[0].contents.layers.index(some)

    def numpy_one() -> None:
        for batch in spans:
            np.concatenate([plain[s][row, a:b] for s, a, b in batch])

    def numpy_all() -> None:
        for batch in spans:
            np.concatenate([plain[s][:, a:b] for s, a, b in batch], axis=1)

    def ours_one() -> None:
        for batch in drawn:
            store.gather(batch, [some])

    def ours_all() -> None:
        for batch in drawn:
            store.gather(batch, layers)

    def torch_load() -> list[States]:
        return [torch.load(saved_files / f"{i}.pt")[row].numpy() for batch in drawn[:10] for i in batch]

    def ours_few() -> None:
        for batch in drawn[:10]:
            store.gather(batch, [some])

    def cold(arm: Arm) -> Arm:
        def run() -> None:
            for shard in opened:
                forget(shard.path)
            arm()

        return run

    rows = []
    if hasattr(os, "posix_fadvise"):  # not on macOS
        fresh_disk = take_turns({"numpy": cold(numpy_one), "ours": cold(ours_one)}, rounds)
        rows = [f"| one layer, not in the page cache, likewise | {ratio(fresh_disk, 'numpy', 'ours')} |"]
    warm = take_turns({"numpy": numpy_one, "ours": ours_one, "numpy all": numpy_all, "ours all": ours_all}, rounds)
    files = take_turns({"torch.load": torch_load, "ours": ours_few}, rounds)
    return [
        f"| one layer, against a gather from `numpy.memmap` | {ratio(warm, 'numpy', 'ours')} |",
        *rows,
        f"| all {len(layers)} layers, likewise | {ratio(warm, 'numpy all', 'ours all')} |",
        f"| one layer, against `torch.load` of a file an utterance | {ratio(files, 'torch.load', 'ours')} |",
    ]


def large_store(folder: Path, size: int) -> None:
    """A store of `size` bytes: one layer of noise as wide as HuBERT base, utterances of 1 to 5 s."""
    chance = np.random.default_rng(0)
    encoder = EncoderInfo("noise", "1", "noise", 1, 768, 50.0).to_dict()
    frames = chance.integers(50, 250, size // (150 * 768 * 2)).tolist()
    ids = [f"{i:06d}" for i in range(len(frames))]
    noise = chance.standard_normal((250, 768)).astype(np.float16)
    shards = []
    for index, start in enumerate(range(0, len(ids), 1000)):
        held, lengths = tuple(ids[start : start + 1000]), frames[start : start + 1000]
        crc32 = np.array([[zlib.crc32(as_bytes(noise[:t])) for t in lengths]], np.uint32)
        contents = Contents(encoder, "float16", (0,), held, offsets(lengths), crc32, held, {})

        def frames_of(_: int, u: int, lengths: Sequence[int] = lengths) -> np.ndarray:
            return noise[: lengths[u]]

        write_shard(shard_path(folder, index), contents, frames_of)
        shards.append(held)
    recordings = {id_: (id_, 320 * t) for id_, t in zip(ids, frames, strict=True)}
    info = StoreInfo("noise", ".", encoder, (0,), tuple(shards), recordings, {}, "cpu", "float16")
    write_json(folder / "store.json", info.to_dict())


def epochs(folder: Path, where: str, allowed: int) -> None:
    """Read two epochs of random batches in this process; print its growth in bytes and the second one's seconds."""
    torch.set_num_threads(1)
    placement = Placement(where, allowed)

    def epoch(data: Data, seed: int) -> float:
        order = training_batches(data, torch.arange(len(data.lengths_U)), BATCH, torch.Generator().manual_seed(seed))
        begun = time.perf_counter()
        for _ in data.batches(order):
            pass
        return time.perf_counter() - begun

    def opened(count: int | None) -> Data:
        store = FeatureStore(folder, placement.mapped)
        ids = store.ids[:count]
        return load(store, ids, [0], 1, np.zeros(len(ids)), where, torch.device("cpu"))

    epoch(opened(3 * BATCH), 0)  # libraries load some memory at their first use
    before = peak_memory()
    data = opened(None)
    epoch(data, 0)
    seconds = epoch(data, 1)
    print(peak_memory() - before, seconds)


def peak_memory() -> int:
    """Bytes, mapped pages of files among them."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would include the peak of the parent process
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: in bytes


def streaming(folder: Path, size: int, allowed: int) -> str:
    large_store(fresh(folder), size)
    measured = {}
    for where in ("store", "memory"):
        command = [sys.executable, __file__, str(folder), where, str(allowed)]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        measured[where] = int(words[0]), float(words[1])
    grown, seconds = measured["store"]
    return (
        f"An epoch of random batches from a store of {size / MIB:,.0f} MiB that may take {allowed / MIB:,.0f} MiB: the "
        f"process grew by {grown / MIB:,.0f} MiB at its peak, mapped pages counted, and the epoch took "
        f"{seconds / measured['memory'][1]:.2f} times that of a process which holds all of it "
        f"(and grew by {measured['memory'][0] / MIB:,.0f} MiB)."
    )


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


if __name__ == "__main__":
    epochs(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
