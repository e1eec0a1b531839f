"""Files of a corpus's folders, wherever they lie and however their names are spelt.

Links to folders and to files are followed. Names are compared in any case and in both forms of accents (`plain`):
unzip on Windows writes `.WAV`, macOS writes an accent as a character of its own. Hidden names and macOS's `__MACOSX`
(the `._x.wav` beside `x.wav`) are passed over.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from bas.errors import UserError

REMEDIES = {
    errno.ELOOP: "a symbolic link that leads back to itself; point it at the recording",
    errno.EACCES: "no permission to enter its folder; let your user read it",
}


def plain(name: str) -> str:
    """The name as it is compared."""
    return (
        name.casefold()
        if name.isascii()
        else unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    )


def is_passed_over(name: str) -> bool:
    return name.startswith(".") or name.upper() == "__MACOSX"


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead, over links, to one file; two names of it in one place (hard links) are two files."""
    return os.path.realpath(one) == os.path.realpath(other)


def walk(root: Path, suffixes: tuple[str, ...], levels: int | None = None) -> Iterator[Path]:
    """The files beneath `root` with one of these suffixes (in lower case), in no order.

    levels: how many folders lie between; None: any number.
    UserError: a folder that cannot be listed, a link that leads nowhere or back to a folder above it, and something
    with such a suffix that is neither file nor folder.
    """
    yield from _walk(root, suffixes, levels, {})


def _walk(
    folder: Path, suffixes: tuple[str, ...], levels: int | None, above: dict[tuple[int, int], Path]
) -> Iterator[Path]:
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not is_passed_over(entry.name)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed: {error.strerror}; let your user read it") from error
    place = (status.st_dev, status.st_ino)
    if place in above:
        message = f"a link that leads back to {above[place]}, above it; point it elsewhere, or move it away"
        raise UserError(f"{folder}: {message}")
    below = {**above, place: folder}
    for entry in entries:
        path = folder / entry.name
        wanted = path.suffix.lower() in suffixes
        try:
            if entry.is_dir():
                if levels != 0:
                    yield from _walk(path, suffixes, None if levels is None else levels - 1, below)
            elif entry.is_file():
                if wanted and not levels:
                    yield path
            elif entry.is_symlink() and not path.exists():
                message = f"a link that leads nowhere (to {os.readlink(path)}); is its disk mounted? else move it away"
                raise UserError(f"{path}: {message}")
            elif wanted:
                raise UserError(f"{path}: neither a file nor a folder; a recording is a regular file, move it away")
        except OSError as error:
            raise UserError(f"{path}: {REMEDIES.get(error.errno or 0, error.strerror)}") from error


class Names:
    """Looks up files whose names may be spelt otherwise than expected; each folder is listed once."""

    def __init__(self) -> None:
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, folder: Path, *names: str) -> Path:
        """The path of folder/name/name... as it is spelt on the disk; as given from the first that is not there.

        UserError: a folder that cannot be listed, two names that differ in their spelling alone.
        """
        for name in names:
            spellings = self._list(folder).get(plain(name), [name])
            first, *others = (folder / spelling for spelling in sorted(spellings, key=lambda s: (s != name, s)))
            if other := next((other for other in others if not same_file(first, other)), None):
                raise UserError(f"{first}: {describe_twin(other)}")
            folder = first
        return folder

    def respell(self, path: Path) -> Path | None:
        """A path that is not there, as it is spelt on the disk; None where it has no other spelling there."""
        there = next(folder for folder in path.parents if folder.is_dir())
        spelt = self.find(there, *path.relative_to(there).parts)
        return spelt if spelt != path and spelt.exists() else None

    def _list(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._listings:
            listing = self._listings[folder] = {}
            try:
                for name in os.listdir(folder):
                    listing.setdefault(plain(name), []).append(name)
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise UserError(f"{folder}: cannot be listed: {error.strerror}; let your user read it") from error
        return self._listings[folder]


def describe_respelt(spellings: Mapping[str, Path], what: str) -> tuple[str, ...]:
    """A remark on files that were found under another spelling; none for none. spellings: by name, as on the disk."""
    if not spellings:
        return ()
    name, path = next(iter(spellings.items()))
    return (f"{len(spellings)} {what} have another case or form of accents on the disk: {name!r} is {path}, the first",)


def describe_twin(other: Path) -> str:
    """What is wrong with a file beside which there is `other`, of the same name but for its spelling."""
    return f"there is {other} as well, which differs only in case or in the form of its accents; keep one in the folder"
