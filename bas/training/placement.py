"""Where a run's features are while it trains, by the memory that is free: on the GPU, in memory, or in the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bas.errors import UserError

GIB = 2**30
FREE_SHARE = 0.5  # of free memory, for features; the rest is for the training, its batches and everything else
MAPPED_SHARE = 0.25  # of a process's share, for mapped pages of the store's files; the rest is for frames
CACHED = ("inactive_file", "active_file")  # pages of files, which the system drops when memory is needed
PLACES = {"gpu": "on the GPU", "memory": "in the memory of each process", "store": "streamed from the store"}


@dataclass(frozen=True)
class Placement:
    """Where the frames are, one of PLACES, and the bytes that features may take in each process's memory."""

    where: str
    share: int

    @property
    def mapped(self) -> int:
        """Bytes of the store's files that may count as a process's memory."""
        return int(MAPPED_SHARE * self.share)


def place(
    whole: int, least: int, device: torch.device, processes: int, memory: float | None = None
) -> tuple[Placement, str]:
    """The fastest place that is large enough, and one line that says which and why.

    whole, least: bytes in a process with all frames, and when streaming. memory: GiB that features may take in all
    processes together; None: FREE_SHARE of free memory.
    Raises UserError if there is not even room to stream.
    """
    if memory is not None and not memory > 0:
        raise UserError(f"--memory {memory}: must be above 0")
    room = _room(free_memory(), memory)
    placement = Placement("store", room // processes)
    frames = placement.share - placement.mapped
    if device.type == "cuda" and processes * whole <= _room(torch.cuda.mem_get_info(device)[0], memory):
        placement = Placement("gpu", placement.share)
    elif whole <= frames:
        placement = Placement("memory", placement.share)
    elif least > frames:
        needed = processes * min(whole, least) / (1 - MAPPED_SHARE)
        raise UserError(
            f"features need {_size(needed)} in {processes} processes and may take {_size(room)}; "
            "raise --memory, or use fewer --workers or a smaller setting batch_size"
        )
    why = "half of what is free" if memory is None else "--memory"
    message = f"features: {_size(whole)}, {PLACES[placement.where]}"
    return placement, f"{message}; in all they may take {_size(room)} ({why})"


def _room(free: int, memory: float | None) -> int:
    return int(FREE_SHARE * free if memory is None else min(memory * GIB, free))


def _size(size: float) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB else f"{size / 2**20:,.0f} MiB"


def free_memory(root: Path = Path("/")) -> int:
    """Bytes available without swapping: the least of the machine and every control group around this process.

    The page cache counts as free. On systems other than Linux: the machine's whole memory.
    """
    return min([_machine(root), *_control_groups(root)])


def _machine(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_groups(root: Path) -> Iterator[int]:
    """The bytes left in each group with a limit: a container, a batch system's job, a systemd slice."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        # Version 2 has no controllers in that line. A version 1 group without a limit has one beyond any machine's.
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        names = ("limit_in_bytes", "usage_in_bytes", "stat") if controllers else ("max", "current", "stat")
        own = mount / path.lstrip("/")  # not there where a container sees its own group as the mount itself
        for group in (own, *own.parents[: len(own.parts) - len(mount.parts)]):
            try:
                limit, used, stat = ((group / f"memory.{name}").read_text().strip() for name in names)
            except OSError:
                continue
            if limit != "max":
                counts = dict(line.split() for line in stat.splitlines())
                cached = sum(int(counts[("total_" if controllers else "") + kind]) for kind in CACHED)
                yield max(0, int(limit) - max(0, int(used) - cached))
