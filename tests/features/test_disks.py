"""A disk that fills, wherever and whenever it does: one line says so, and what was finished is kept."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from extracting import ONE, Fake, contents, extract, finished, leftovers
from refusals import refusal
from sounds import tones

from bas.corpora import Corpus
from bas.features import shard as shards
from bas.features import spool as spools
from bas.features.shard import shard_path


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 2, 9, 10, 16, 22, 23])
def test_a_disk_that_fills_leaves_the_store_resumable(
    at: int, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fills: the plan, a spool, a journal, a shard or the store's own file."""
    extract(corpus, tmp_path / "whole")
    left, calls = iter(range(at)), {name: getattr(*name) for name in ((spools, "_write"), (os, "fsync"))}

    def until_full(call: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: full() if next(left, None) is None else call(*arguments)

    with monkeypatch.context() as patch:
        for name, call in calls.items():
            patch.setattr(*name, until_full(call))
        with pytest.raises(OSError, match="No space left"):
            extract(corpus, tmp_path / "store")
    kept, encoder = finished(tmp_path / "store", [0, 1, 2]), Fake()
    extract(corpus, tmp_path / "store", encoder)
    assert len(kept) + len(encoder.seen) == 8
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert leftovers(tmp_path / "store") == []


@pytest.mark.parametrize("limit", [2_000, 10_000])
def test_a_write_that_breaks_off_leaves_the_store_resumable(limit: int, corpus: Corpus, tmp_path: Path) -> None:
    """A limit on the size of files breaks writes off half way, as a full disk does: of the spool, of the shard."""
    whole = extract(corpus, tmp_path / "whole", shard_bytes=ONE)
    assert 2_000 < 160 * 3 * whole.info.frame_bytes < 10_000 < shard_path(whole.folder, 0).stat().st_size + 2**16
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"(?i)file too large"):
            extract(corpus, tmp_path / "store", shard_bytes=ONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept, again = finished(tmp_path / "store", [0, 1, 2]), Fake()
    assert len(kept) > 2
    extract(corpus, tmp_path / "store", again, shard_bytes=ONE)
    assert len(again.seen) == len(corpus.utterances) - len(kept)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert leftovers(tmp_path / "store") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk in memory of so many KiB, or made that large."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def sized(kib: int) -> Path:
        options = f"size={kib}k,remount" if disk.is_mount() else f"size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", disk], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
        return disk

    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    yield sized
    if disk.is_mount():
        subprocess.run(["umount", disk], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("kib", "fit"), [(200, 0), (600, 1), (2_000, 4)])
def test_a_disk_that_is_really_full(
    kib: int, fit: int, small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For four times 351 KiB of states: too small for the spool, or for the spool and the shard beside it."""
    corpus = tones(tmp_path / "recordings", (0.6,) * 4)
    extract(corpus, tmp_path / "whole", Fake(num_states=1500), shard_bytes=10**9)
    folder = small_disk(kib) / "store"
    assert "needs 3 MiB while it is written" in refusal(
        extract, corpus, folder, Fake(num_states=1500), shard_bytes=10**9
    )
    with monkeypatch.context() as patch:  # it fills while the extraction is at work
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
        with pytest.raises(OSError, match="No space left"):
            extract(corpus, folder, Fake(num_states=1500), shard_bytes=10**9, batch_seconds=0.1)
    kept, again = finished(folder, range(1500)), Fake(num_states=1500)
    assert len(kept) == fit
    small_disk(16_000)
    extract(corpus, folder, again, shard_bytes=10**9)
    assert len(again.seen) == 4 - len(kept)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_disk_that_another_fills_while_a_shard_is_written(
    small_disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 would crash: its room is kept for it."""
    disk, reserve = small_disk(6_000), shards._reserve

    def and_fill(path: Path, size: int) -> None:
        reserve(path, size)
        with suppress(OSError), (disk / "other").open("wb", buffering=0) as stream:
            while stream.write(bytes(1024)):
                pass

    monkeypatch.setattr(shards, "_reserve", and_fill)
    corpus = tones(tmp_path / "recordings", (0.5,) * 40)
    folder, wide = disk / "store", Fake(dim=4, num_states=300)
    store = extract(corpus, folder, wide, shard_bytes=10 * ONE)
    assert len(store.ids) == 40
    assert (disk / "other").stat().st_size > 10_000
