"""Files that are never half written, and folders that two processes never write at a time."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from bas.errors import UserError
from bas.util.reading import read_bytes

CHECKSUM = "sha256"
"""The last field of a record."""

LOCK_FILES = (".lock", ".planning", ".session")
"""The lock files of a folder."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends without an error, it is renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
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
    """The value in a JSON file. Raises UserError naming the file if it is missing or not JSON.

    remedy: what the user can do about a damaged file.
    """
    try:
        text = read_bytes(path).decode()
        value = json.loads(text)
        if "\\u" in text:  # half a surrogate pair cannot be written or shown: refuse it here
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UserError:  # a ValueError too
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from error


def hold(stream: IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file for this process, or for all that share it, until it is closed. False: another process has it.

    Raises UserError on a disk without locks, where two processes could write the same files.
    """
    try:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        message = f"its disk has no file locks ({error.strerror})"
        remedy = "work in a folder on another disk, or have this one mounted with them (Lustre: -o flock)"
        raise UserError(f"{Path(stream.name).parent}: {message}; {remedy}") from error
    return True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Run the block alone: wait until no other process is inside a block of this path."""
    with path.open("w") as stream:
        hold(stream, wait=True)
        yield


@contextmanager
def locked(folder: Path, doing: str, *, shared: bool = False) -> Iterator[None]:
    """Lock the folder for this process, or for all that share it; the lock of a killed process is released.

    Raises UserError if another process has the lock, or the folder cannot be written. A UserError in the block means
    that the input was refused: lock files and empty folders made here are then removed, unless the lock is shared,
    since others may still begin.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    before = {name for name in LOCK_FILES if (folder / name).exists()}

    def leave_as_before() -> None:
        for name in set(LOCK_FILES) - before:
            (folder / name).unlink(missing_ok=True)
        for path in made:
            with suppress(OSError):  # something was written there
                path.rmdir()

    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
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
        except UserError:
            if not shared:
                leave_as_before()
            raise
