"""Files that a user named, opened only where they are regular files.

A pipe (FIFO) would be waited for without end, a device read without end, and what holds no line break, or is far larger
than a file of its kind, would fill the memory.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bas.errors import UserError

T = TypeVar("T", str, bytes)

LONGEST_LINE = 2**26
"""Bytes of a line of text: far more than the words of an hour."""
MOST = 2**24
"""Bytes of a file that somebody wrote by hand."""
KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def is_utf8(name: str | os.PathLike[str]) -> bool:
    """Whether the name's bytes are UTF-8, which records, reports and most libraries can hold."""
    try:
        os.fsencode(name).decode()
    except UnicodeDecodeError:
        return False
    return True


LOCALE = "set PYTHONUTF8=1, or a locale of UTF-8 such as LC_ALL=C.UTF-8"
"""The remedy where a name cannot be said."""


def check_name(name: str | os.PathLike[str], also: str = "") -> None:
    """UserError unless the name is UTF-8 and the locale's encoding has its letters. also: what else has such a name."""
    if not is_utf8(name):
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        remedy = "rename it (`convmv -r -f CP850 -t UTF-8 --notest FOLDER`, or `-f latin1`)"
        raise UserError(f"{shown}: the name is not UTF-8{also}; {remedy}, or unzip again with -O CP850")
    if (whole := os.fsencode(name).decode()) != os.fsdecode(name):
        encoding = sys.getfilesystemencoding()
        raise UserError(f"{whole!a}: has letters that this locale's encoding, {encoding}, lacks; {LOCALE}")


def check_regular(path: Path) -> int:
    """The file's size in bytes. UserError for what is no regular file; OSError as `os.stat` has it."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")
        raise UserError(f"{path}: {kind}, not a file; save its content as a file and name that")
    return status.st_size


def check_folder(folder: Path) -> None:
    """UserError for what is neither file nor folder in it, which a library that opens its files would wait for.

    Nothing is checked where there is no such folder.
    """
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.exists() and not path.is_dir():
            check_regular(path)


def check_own(folder: Path, remedy: str, but: Collection[str] = ()) -> None:
    """UserError unless all that lies in a folder of ours, however deep, are files and folders of its own.

    A folder from elsewhere may hold a link that leads what is written, or deleted, to any file of the user's, or a pipe
    that would be waited for. but: folders directly in it which nothing is read from, or written to, but in folders that
    are new there.
    """
    for within, folders, files in os.walk(folder):
        inside = list(folders)
        if Path(within) == folder:
            folders[:] = [name for name in folders if name not in but]
        for name in (*inside, *files):
            path = Path(within, name)
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # of another process that is at work there
                continue
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                kind = KINDS.get(stat.S_IFMT(mode), "no regular file")
                raise UserError(f"{path}: {kind}, where a file or folder belongs that is this folder's own; {remedy}")


def open_regular(path: Path) -> BinaryIO:
    """Open for reading. UserError for what is no regular file; OSError as `open` has it."""
    check_regular(path)
    return path.open("rb")


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """The file's content. UserError for what is no regular file, or has more than `most` bytes."""
    size = check_regular(path)
    if most is not None and size > most:
        message = f"{size / 2**20:,.0f} MiB, more than the {most / 2**20:,.0f} MiB that such a file may have"
        raise UserError(f"{path}: {message}; is it another file?")
    with open_regular(path) as file:
        return file.read() if most is None else file.read(most)


def read_text(path: Path) -> str:
    """What somebody wrote by hand, in UTF-8, else UnicodeDecodeError. UserError as `read_bytes`, of MOST bytes."""
    return read_bytes(path, MOST).decode().replace("\r\n", "\n")


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON (`object_pairs_hook`); ValueError for a key that is there twice: Python would take the last."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return value


def read_lines(path: Path, *, utf16: bool = False) -> Iterator[tuple[int, str]]:
    """Each line of a text in UTF-8 with its number, its end kept; memory holds one line at a time.

    utf16: read UTF-16 as well, which begins with a byte order mark.
    UserError: a file that cannot be read, is no regular file, or no such text; a line of more than LONGEST_LINE bytes.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            if not utf16:
                raise UserError(f"{path} line 1: UTF-16; save the file as UTF-8 (in a spreadsheet: CSV UTF-8)")
            file.seek(0)
            text = TextIOWrapper(file, "utf-16", newline="\n")
            try:
                yield from enumerate(_bounded(path, lambda: text.readline(LONGEST_LINE + 1)), 1)
            except UnicodeDecodeError as error:
                raise UserError(f"{path}: not UTF-16 ({error.reason}); save the file as UTF-8") from None
            return
        file.seek(0)
        for number, line in enumerate(_bounded(path, lambda: file.readline(LONGEST_LINE + 1)), 1):
            if b"\0" in line:
                raise UserError(f"{path} line {number}: a NUL byte: no text, or UTF-16; save the file as UTF-8")
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path} line {number}: not UTF-8 ({error.reason}); save the file as UTF-8") from None


def _bounded(path: Path, read: Callable[[], T]) -> Iterator[T]:
    """Lines until an empty one, which is the end of the file."""
    for number in count(1):
        line = read()
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise UserError(f"{path} line {number}: more than {LONGEST_LINE / 2**20:.0f} MiB long; is it a text?")
        yield line
