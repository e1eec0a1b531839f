"""What the machine refuses: told with a remedy that never blames a file whose bytes were not read."""

from __future__ import annotations

import builtins
import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refusal

from bas.errors import UserError
from bas.features.shard import Shard
from bas.speech.acoustics import Contours
from bas.studies.dynamics.checkpoints import read_means
from bas.studies.dynamics.finetune import read_head
from bas.studies.shares.attention import _read
from bas.studies.words.jobs import read_lexicon
from bas.training.loop import read_checkpoint
from bas.util.faults import describe, judging, naming
from bas.util.files import hold, locked, read_json, replacing

KEPT = "what is finished is kept"


def os_error(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("error", "parts"),
    [
        (os_error(errno.ENOSPC, "a/b.pt.123.tmp"), ["a/b.pt: its disk is full", KEPT]),
        (os_error(errno.EDQUOT, "a/b"), ["a/b: the quota", KEPT]),
        (os_error(errno.EROFS, "a/b"), ["a/b: its disk is read-only"]),
        (os_error(errno.EACCES, "a/b"), ["a/b: permission denied"]),
        (os_error(errno.EIO, "a/b"), ["a/b: input/output error", KEPT]),
        (os_error(errno.EMFILE, "a/b"), ["a/b: too many open files; raise `ulimit -n`"]),
        (os_error(errno.ENOENT, "a/b"), ["a/b: not there, or not any more"]),
        (os_error(errno.ENOSPC), ["a file or standard output: its disk is full"]),
        (os_error(errno.ENOMEM), ["memory is short", "--workers"]),
        (os_error(errno.ELOOP, "a/b"), ["a/b: links that lead to one another; name what they were meant to lead to"]),
        (MemoryError(), ["memory is short", "ulimit -v"]),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), ["memory is short (unable to allocate 7.45 GiB)"]),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to "
                "allocate 800 bytes."
            ),
            ["memory is short (tried to allocate 800 bytes)"],
        ),
        (RuntimeError("can't start new thread"), ["memory is short"]),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), ["the GPU's memory is short (tried to"]),
        (ImportError("libtorch.so: failed to map segment from shared object"), ["memory is short"]),
        (RuntimeError("I/O error: No space left on device (os error 28)"), ["its disk is full"]),
        (UnicodeEncodeError("ascii", "wav/ä.wav", 4, 5, "ordinal not in range"), ["wav/\\xe4.wav", "PYTHONUTF8=1"]),
    ],
)
def test_a_fault_of_the_machine_has_a_remedy(error: Exception, parts: list[str]) -> None:
    line = describe(error)
    assert line is not None
    assert [part for part in parts if part not in line] == [], line
    assert "delete it" not in line


@pytest.mark.parametrize("error", [KeyError("linear"), AssertionError(), RuntimeError("shape [2, 3]"), TypeError("x")])
def test_our_own_faults_keep_their_traceback(error: Exception) -> None:
    assert describe(error) is None


def write_weights(path: Path) -> None:
    with path.open("wb") as stream:
        torch.save({"w": torch.zeros(9)}, stream)


def write_arrays(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, w=np.zeros(9))


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file may grow beyond 100 bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("write", [write_weights, write_arrays, lambda path: path.write_text("x" * 999)])
@pytest.mark.usefixtures("no_room")
def test_whatever_library_writes_the_file_is_named(write: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(OSError, match=r"weights\.pt") as caught, replacing(path) as temporary:
        write(temporary)
    assert caught.value.errno == errno.EFBIG
    assert str(describe(caught.value)).startswith(f"{path}: larger than a file may grow here")
    assert list(tmp_path.iterdir()) == []


def test_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone"), naming(tmp_path / "new"):
        (tmp_path / "gone").open()


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, int], None]:
    """Makes every opening of a file fail, as rights or a failing disk would; root may read all."""
    refused: dict[str, int] = {}
    raw_open = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> Any:
        if not isinstance(path, int) and os.path.abspath(os.fspath(path)) in refused:
            raise OSError(refused[os.path.abspath(path)], os.strerror(refused[os.path.abspath(path)]), str(path))
        return None

    true_open = io.open

    def opened(path: Any, *arguments: Any, **named: Any) -> Any:
        refuse(path)
        return true_open(path, *arguments, **named)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(builtins, "open", opened)
    monkeypatch.setattr(os, "open", lambda path, *a, **n: refuse(path) or raw_open(path, *a, **n))
    return lambda path, number: refused.update({os.path.abspath(path): number})


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a shard": ("shard-00000.h5", lambda path: Shard(path, {})),
    "a checkpoint": ("x.checkpoint", read_checkpoint),
    "contours": ("contours.npz", Contours.load),
    "means": ("means.npz", lambda path: read_means(path, ["a"], "delete it: it is made again")),
    "a head": ("checkpoints/step-00001.npz", lambda path: read_head(path.parents[1], 1)),
    "weights of attention": ("x.attention.npz", _read),
    "a lexicon": ("lexicon.npz", lambda path: read_lexicon(path.parent)),
    "JSON": ("x.json", lambda path: read_json(path, "delete it: it is made again")),
}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE, errno.ESTALE])
@pytest.mark.parametrize("what", READERS)
def test_what_may_not_be_read_is_not_to_be_deleted(
    what: str, number: int, tmp_path: Path, unreadable: Callable[[Path, int], None]
) -> None:
    name, read = READERS[what]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"garbage")
    line = refusal(read, path)
    assert "delete" in line, "the bytes were read and are wrong"
    unreadable(path, number)
    with pytest.raises((OSError, UserError)) as caught:
        read(path)
    line = str(caught.value) if isinstance(caught.value, UserError) else str(describe(caught.value))
    assert line.startswith(f"{path}: "), line
    assert "delete" not in line.removeprefix(str(path)), line


def test_short_memory_blames_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(b"sound")
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(MemoryError), judging(path, "damaged; delete it"):
            raise error


@pytest.mark.parametrize("move", ["delete", "move", "replace"])
@pytest.mark.parametrize(
    "error", [None, KeyError("x"), UserError("run.json: no such file"), os_error(errno.ENOENT, "x")]
)
def test_a_folder_that_goes_away_is_said_to(move: str, error: Exception | None, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def work() -> None:
        with locked(folder, "at work"):
            folder.rename(tmp_path / "elsewhere")
            if move == "delete":
                (tmp_path / "elsewhere/.lock").unlink()
            if move == "replace":
                folder.mkdir()
                (folder / ".lock").touch()
            if error:
                raise error

    assert "run: was moved, deleted or replaced during the work in it" in refusal(work)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, 524])
def test_a_disk_without_locks_is_told_for_what_it_is(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise os_error(number)

    monkeypatch.setattr("fcntl.flock", no_locks)
    for shared in (False, True):
        line = refusal(lambda shared=shared: locked(tmp_path / "run", "at work", shared=shared).__enter__())
        assert "run: its disk has no file locks" in line
    assert list(tmp_path.iterdir()) == []


def test_another_fault_of_a_lock_is_not_called_a_lack_of_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> None:
        raise os_error(errno.EIO)

    monkeypatch.setattr("fcntl.flock", failing)
    with (tmp_path / "lock").open("w") as stream, pytest.raises(OSError, match="lock") as caught:
        hold(stream)
    assert caught.value.errno == errno.EIO
