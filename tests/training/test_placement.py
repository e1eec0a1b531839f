"""Where features go is decided from what is really free, and told."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from refusals import refusal

from bas.training import placement
from bas.training.batches import CPU
from bas.training.placement import GIB, Placement, free_memory, place


def room(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda: int(free * GIB))


@pytest.mark.parametrize(
    ("whole", "least", "processes", "memory", "where"),
    [
        (3.0, 0.1, 1, None, "memory"),  # three quarters of half of 8
        (3.1, 0.1, 1, None, "store"),
        (1.5, 0.1, 2, None, "memory"),
        (1.6, 0.1, 2, None, "store"),
        (0.75, 0.1, 1, 1.0, "memory"),
        (0.76, 0.1, 1, 1.0, "store"),
        (6.0, 0.1, 1, 8.0, "memory"),
        (6.1, 0.1, 1, 100.0, "store"),  # no more than what is free, whatever was allowed
        (0.1, 9.9, 1, None, "memory"),  # small features need no streaming
    ],
)
def test_the_place_follows_what_is_free_and_allowed(
    monkeypatch: pytest.MonkeyPatch, whole: float, least: float, processes: int, memory: float | None, where: str
) -> None:
    room(monkeypatch, 8)
    placed, line = place(int(whole * GIB), int(least * GIB), CPU, processes, memory)
    assert placed.where == where
    assert placed.share * processes <= (4 if memory is None else memory) * GIB
    assert placed.mapped == placed.share // 4
    assert placement.PLACES[where] in line
    assert ("--memory" in line) == (memory is not None)


def test_a_gpu_holds_what_fits_into_half_of_what_is_free_there(monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * GIB, 40 * GIB))
    cuda = torch.device("cuda")
    assert place(10 * GIB, GIB, cuda, 1)[0] == Placement("gpu", 4 * GIB)
    assert place(11 * GIB, GIB, cuda, 1)[0] == Placement("store", 4 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * GIB, 40 * GIB))
    assert place(2 * GIB, GIB, cuda, 1)[0] == Placement("memory", 4 * GIB)


def test_too_little_even_to_stream_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    room(monkeypatch, 8)
    message = refusal(place, 9 * GIB, 2 * GIB, CPU, 4, None)
    for word in ("10.7 GiB", "4 processes", "4.0 GiB", "--memory", "--workers", "batch_size"):
        assert word in message
    assert place(9 * GIB, 2 * GIB, CPU, 1, 2.7)[0].where == "store"
    assert "--memory 0" in refusal(place, 1, 1, CPU, 1, 0.0)
    assert "--memory nan" in refusal(place, 1, 1, CPU, 1, float("nan"))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"}
STAT = "anon 1\ninactive_file 300000\nactive_file 200000\n"
TOTAL = "inactive_file 1\nactive_file 1\ntotal_inactive_file 300000\ntotal_active_file 200000\n"


def version_2(group: str, limit: str) -> dict[str, str]:
    where = f"sys/fs/cgroup/{group}memory."
    return {where + "max": f"{limit}\n", where + "current": "2500000\n", where + "stat": STAT}


def version_1(group: str, limit: str) -> dict[str, str]:
    where = f"sys/fs/cgroup/memory/{group}memory."
    return {where + "limit_in_bytes": limit, where + "usage_in_bytes": "2500000", where + "stat": TOTAL}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8_192_000),
        ({"proc/self/cgroup": "0::/a/b\n", **version_2("a/b/", "max")}, 8_192_000),
        ({"proc/self/cgroup": "0::/a/b\n", **version_2("a/b/", "5000000")}, 3_000_000),  # 2 MB in use beside files
        ({"proc/self/cgroup": "0::/a/b\n", **version_2("a/b/", "max"), **version_2("a/", "4000000")}, 2_000_000),
        ({"proc/self/cgroup": "0::/a/b\n", **version_2("", "4000000")}, 2_000_000),  # the mount is the container's own
        ({"proc/self/cgroup": "0::/\n", **version_2("", "1000000")}, 0),
        ({"proc/self/cgroup": "0::/\n", **version_2("", "50000000000")}, 8_192_000),
        ({"proc/self/cgroup": "3:cpu:/a\n4:memory:/a\n0::/a\n", **version_1("a/", "3000000")}, 1_000_000),
        ({"proc/self/cgroup": "4:memory:/docker/x\n", **version_1("", "3000000")}, 1_000_000),
        ({"proc/self/cgroup": "4:memory:/a\n", **version_1("a/", str(2**63 - 4096))}, 8_192_000),
        ({"proc/self/cgroup": "3:cpu:/a\n", **version_1("a/", "3000000")}, 8_192_000),
    ],
)
def test_free_memory_knows_the_limits_around_this_process(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert free_memory(write(tmp_path, {**MACHINE, **files})) == free


def test_free_memory_here_and_off_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2**20 < free_memory() < 2**50
    monkeypatch.setattr(placement.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert free_memory(tmp_path) == 4_096_000
