"""Files that are never half written, and folders that two processes never write at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bas.errors import UserError
from bas.util.faults import naming
from bas.util.reading import distinct, read_bytes
from bas.util.temporary import temporary_of

CHECKSUM = "sha256"
"""The last field of a record."""

LARGEST = 2**30
"""Bytes of a record: far more than the segments of a million utterances."""
LOCK_FILES = (".lock", ".planning", ".session")
"""The lock files of a folder."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, 524)  # 524: NFS says so of itself


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends without an error, it is renamed to `path`.

    Raises OSError, with the file's name, for what the machine refuses, whichever library writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_of(path)
    temporary.unlink(missing_ok=True)  # a link that lies in wait there would be written through
    try:
        with naming(path):
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):  # the error above says more
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a record as strict JSON, with a checksum of its content as the last field, for `read_record`.

    NaN and infinite numbers (as in an interval of one unit) become null.
    """
    body = _finite(value)
    assert CHECKSUM not in body, path
    text = json.dumps({**body, CHECKSUM: _checksum(body)}, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def _checksum(body: Mapping[str, Any]) -> str:
    """Of what the text says, not of its blanks; the order of fields counts."""
    return hashlib.sha256(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_record(path: Path, remedy: str, *, old: bool = False) -> dict[str, Any]:
    """What `write_json` wrote, without its checksum.

    old: take a file without one, of a time when none was written. remedy: what the user can do about a damaged file.
    Raises UserError naming the file if it is missing, not an object of JSON, or not as it was written.
    """
    value = read_json(path, remedy)
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a record of bas; {remedy}")
    checksum = value.pop(CHECKSUM, None)
    if checksum is None and not old:
        raise UserError(f"{path}: {CHECKSUM}: missing: the file is of an earlier version of bas, or edited; {remedy}")
    if checksum is not None and checksum != _checksum(value):
        raise UserError(f"{path}: {CHECKSUM}: differs: other content than was written; {remedy}")
    return value


def check_archive(path: Path) -> None:
    """Raise ValueError unless every byte of a zip archive (a checkpoint, weights, .npz) is as it was written."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
        raise ValueError(f"not a sound archive ({error})") from error
    if damaged is not None:
        raise ValueError(f"other bytes in {damaged} than were written")


def read_json(path: Path, remedy: str = "restore it, or make it again") -> Any:
    """The value in a JSON file. Raises UserError naming the file if it is missing or not JSON; OSError if it cannot be
    read.

    remedy: what the user can do about a damaged file.
    """
    try:
        text = read_bytes(path, LARGEST).decode()
        value = json.loads(text, object_pairs_hook=distinct)
        if "\\u" in text:  # half a surrogate pair cannot be written or shown: refuse it here
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except UserError:  # a ValueError too
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from error


def open_own(path: Path, mode: str, **how: Any) -> Any:
    """Open a file that is changed where it lies, such as a lock: it is not emptied, and a link is not followed.

    A folder from elsewhere may hold a link of that name that leads to any file of the user's. Raises UserError for a
    link, and for what is no ordinary file.
    """
    assert "w" not in mode, mode

    def opener(name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise UserError(f"{path}: no ordinary file, which it must be; move it away, or name another folder")
        return descriptor

    try:
        return open(path, mode, opener=opener, **how)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK):  # the latter on FreeBSD
            raise
        message = "a link, which would lead what is written into another file"
        raise UserError(f"{path}: {message}; move it away, or name another folder") from error


def hold(stream: IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file for this process, or for all that share it, until it is closed. False: another process has it.

    Raises UserError on a disk without locks, where two processes could write the same files; OSError for another fault.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OSError(error.errno, error.strerror, stream.name) from error
        message = f"its disk has no file locks ({error.strerror})"
        remedy = "work in a folder on another disk, or have this one mounted with them (Lustre: -o flock)"
        raise UserError(f"{Path(stream.name).parent}: {message}; {remedy}") from error
    return True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Run the block alone: wait until no other process is inside a block of this path."""
    with open_own(path, "a+") as stream:
        hold(stream, wait=True)
        yield


@contextmanager
def locked(folder: Path, doing: str, *, shared: bool = False) -> Iterator[None]:
    """Lock the folder for this process, or for all that share it; the lock of a killed process is released.

    Raises UserError if another process has the lock, the folder cannot be written, or it was moved or deleted before
    the block ended. A UserError in the block means that the input was refused: lock files and empty folders made here
    are then removed, unless the lock is shared, since others may still begin.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    before = {name for name in LOCK_FILES if os.path.lexists(folder / name)}

    def leave_as_before() -> None:
        for name in set(LOCK_FILES) - before:
            (folder / name).unlink(missing_ok=True)
        for path in made:
            with suppress(OSError):  # something was written there
                path.rmdir()

    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = open_own(folder / ".lock", "a+")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}; name another folder") from error
    with stream:
        try:
            free = hold(stream, shared=shared)
        except UserError:
            leave_as_before()
            raise
        if not free:
            raise UserError(f"{folder}: another process is {doing} here; wait for it or stop it")
        try:
            yield
            _check_there(folder, stream)
        except Exception as error:
            _check_there(folder, stream, error)
            if isinstance(error, UserError) and not shared:
                leave_as_before()
            raise


def _check_there(folder: Path, lock: IO[Any], error: Exception | None = None) -> None:
    """Raise UserError if the folder is no longer the one that was locked, which explains whatever went wrong in it."""
    try:
        there = os.path.samestat((folder / ".lock").stat(), os.fstat(lock.fileno()))
    except OSError:
        there = False
    if not there:
        remedy = "put it back and give the same command again, or begin anew under another name"
        raise UserError(f"{folder}: was moved, deleted or replaced during the work in it; {remedy}") from error
