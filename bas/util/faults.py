"""What the machine refuses, such as a full disk, short memory or a file that may not be read: one line with a remedy.

Libraries report these in words and classes of their own; an error that is none of them keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bas.errors import UserError
from bas.util.reading import LOCALE
from bas.util.temporary import TEMPORARY

AGAIN = "give the same command again: what is finished is kept"
REMEDIES = {
    errno.ENOSPC: f"its disk is full; free some of it and {AGAIN}",
    errno.EDQUOT: f"the quota of its disk is used up; free some of it and {AGAIN}",
    errno.EFBIG: f"larger than a file may grow here (ulimit -f); raise that and {AGAIN}",
    errno.EROFS: "its disk is read-only; work in a folder on another, or mount it for writing",
    errno.EACCES: "permission denied; get the right to it (see ls -l), or work in a folder of your own",
    errno.EPERM: "not permitted; get the right to it (see ls -l), or work in a folder of your own",
    errno.EMFILE: f"too many open files; raise `ulimit -n` and {AGAIN}",
    errno.ENFILE: f"too many open files on this machine; close some programs and {AGAIN}",
    errno.EIO: f"input/output error: its disk fails; look after it, then {AGAIN}",
    errno.ESTALE: f"its disk was mounted again meanwhile; {AGAIN}",
    errno.ENOENT: f"not there, or not any more; if it was moved or deleted, put it back and {AGAIN}",
    errno.EISDIR: "a folder, where a file belongs; move it away",
    errno.ENOTDIR: "beneath a file, where a folder belongs; move that file away, or name another folder",
    errno.EEXIST: "there already, and of another kind than belongs there; move it away",
    errno.ELOOP: "links that lead to one another; name what they were meant to lead to",
    errno.ENAMETOOLONG: "the name is longer than this disk takes; give a shorter one",
    errno.EPIPE: f"closed by the program that read it; {AGAIN}",
    errno.EAGAIN: f"too many processes or threads (ulimit -u); stop some, or use fewer --workers, and {AGAIN}",
}
WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EIO, errno.EROFS)
MEMORY = re.compile(
    r"(can(no|')t|unable to) allocate|not enough memory|out of memory|can't start new thread|failed to map segment"
    r"|bad_alloc|memory allocation failed",
    re.IGNORECASE,
)
AMOUNT = re.compile(r"tried to allocate [\d.]+ ?\w+|unable to allocate [\d.]+ ?\w+", re.IGNORECASE)


def describe(error: BaseException) -> str | None:
    """The line of an error that is the machine's; None for any other."""
    if is_memory(error):
        what = "the GPU's memory" if "CUDA" in str(error) else "memory"
        stated = AMOUNT.search(str(error))
        amount = f" ({stated[0][0].lower()}{stated[0][1:]})" if stated else ""
        remedy = "allow it more (ulimit -v, a container's limit) or use fewer --workers"
        return f"{what} is short{amount}; {remedy}, and {AGAIN}"
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!a} cannot be said in this locale's encoding, {error.encoding}; {LOCALE}"
    fault = os_error(error)
    if fault is None:
        return None
    message = REMEDIES.get(fault.errno or 0, fault.strerror or str(fault))
    if fault.filename is not None:
        return f"{TEMPORARY.sub('', os.fsdecode(fault.filename))}: {message}"
    return f"a file or standard output: {message}" if fault.errno in WRITING else message


def is_memory(error: BaseException) -> bool:
    """Whether memory was short."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and bool(MEMORY.search(str(error)))
    )


def raise_memory(error: BaseException) -> None:
    """Raise MemoryError if memory was short: no file is to be blamed for that."""
    if is_memory(error):
        raise MemoryError(str(error)) from error


def os_error(error: BaseException) -> OSError | None:
    """The error of the operating system that an error is, or hides; None where there is none."""
    if isinstance(error, OSError):
        return error
    if number := re.search(r"\(os error (\d+)\)", str(error)):  # of a library written in Rust
        return OSError(int(number[1]), os.strerror(int(number[1])))
    # torch and h5py: what they meet when they close a file that could not be written.
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return error.__context__
    return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raise what the operating system refused in the block as an OSError of this file, unless it names one itself."""
    try:
        yield
    except Exception as error:
        fault = os_error(error)
        if fault is None or fault.errno is None or fault.filename is not None:
            raise
        raise OSError(fault.errno, os.strerror(fault.errno), str(path)) from error


@contextmanager
def judging(path: Path, message: str) -> Iterator[None]:
    """Read a file in the block: `message` is said of its bytes, which may be wrong in any way, once all were read.

    Raises UserError: the message, or that the file is missing. OSError, with its name, where it cannot be read, and
    MemoryError where memory is short: nothing is known to be wrong with it then, and libraries still call it damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; put it back, or give another --name") from error
    except Exception as error:  # the readers of torch, h5py, NumPy and zipfile raise whatever the bytes lead them to
        check_readable(path, error)
        raise UserError(f"{path}: {message}") from error


def check_readable(path: Path, error: Exception) -> None:
    """Raise MemoryError if that was the error, and OSError if the file's bytes cannot all be read now."""
    raise_memory(error)
    with naming(path), path.open("rb", buffering=0) as stream:
        while stream.read(2**20):
            pass
