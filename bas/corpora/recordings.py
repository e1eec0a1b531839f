"""The audio files that a table names: checked when it is read, named when it is written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bas.corpora.folders import REMEDIES, Names, describe_respelt
from bas.errors import UserError

NAMED = 3  # missing recordings that the message names


def name_in(folder: Path, audio: Path) -> str:
    """How a table in `folder` names a recording: relative to the folder if inside it, else absolute."""
    audio, folder = audio.absolute(), folder.absolute()
    if not audio.is_relative_to(folder) or os.pardir in (relative := audio.relative_to(folder)).parts:
        return str(audio)
    return str(relative)


def refuse_outside(name: str, folder: Path, where: str) -> None:
    """UserError for a relative name that leaves the table's folder. where: how the message begins."""
    if not os.path.isabs(name) and os.path.normpath(name).split(os.sep)[0] == os.pardir:
        message = f"{name!r} leaves the folder {folder}; where that is meant, write an absolute path"
        raise UserError(f"{where}: {message}")


class Recordings:
    """The audio files that a table names; each is looked up once.

    A file that is not there as it is named is looked for in another case and in the other form of accents.
    folders: what a relative name may be relative to, tried in this order.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self._paths: dict[str, Path] = {}
        self._missing = 0
        self._named: list[str] = []
        self._names = Names()
        self._respelt: dict[str, Path] = {}

    def has_blanks(self, name: str) -> bool:
        """Whether blanks around a name belong to it, as a file is called so."""
        return name != name.strip() and any((folder / name).is_file() for folder in self.folders)

    def find(self, name: str, where: str) -> Path:
        """The path of the recording `name`; a missing one is reported by `check`. where: how a message begins.

        UserError: a relative name that leaves the folder; a folder, a loop of links, a file that may not be read.
        """
        if name in self._paths:
            return self._paths[name]
        refuse_outside(name, self.folders[0], where)
        files = [folder / name for folder in self.folders]
        path = next((file for file in files if _is_recording(file, where)), None)
        if path is None:
            path = next((file for file in map(self._names.respell, files) if file and _is_recording(file, where)), None)
            if path is not None:
                self._respelt[name] = path
        if path is None:
            self._missing += 1
            if len(self._named) < NAMED:
                link = " (a link that leads nowhere)" if files[0].is_symlink() else ""
                self._named.append(f"{name!r}{link}" if self._named else f"{where}: {name!r}{link}")
        return self._paths.setdefault(name, path or files[0])

    def check(self) -> None:
        """UserError where recordings are missing: how many, and the first of them."""
        if self._missing:
            first, *others = self._named
            also = f", also {', '.join(others)}" if others else ""
            slash = "; separate folders by /" if "\\" in first else ""
            count = f"{self._missing} of {len(self._paths)} recordings are missing{also}"
            raise UserError(f"{first}: no such file in {self.folders[0]}; {count}{slash}")

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which recordings were found under another spelling."""
        return describe_respelt(self._respelt, "recordings")


def _is_recording(file: Path, where: str) -> bool:
    """Whether the file exists. UserError where it is anything but a readable regular file."""
    try:
        mode = os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"{where}: {file}: {REMEDIES.get(error.errno or 0, error.strerror)}") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UserError(f"{where}: {file}: {what}; name a recording")
    if not os.access(file, os.R_OK):
        raise UserError(f"{where}: {file}: no permission to read it; let your user read it")
    return True
