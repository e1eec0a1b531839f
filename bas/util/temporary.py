"""The names of files that are being written, and the removal of those that killed processes left.

A name says which machine and which process writes it: a folder may be shared by hosts that do not see each other's
processes. Nobody removes what may still be written; of another host that is what did not change for KEPT_SECONDS.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from glob import escape
from pathlib import Path

from bas.util.hosts import machine, started

TEMPORARY = re.compile(r"\.(?:([0-9a-f]{6})-)?(\d+)\.tmp$")
"""How such a name ends: machine and process; without the machine, of bas 0.9 and before."""

KEPT_SECONDS = 24 * 3600.0


def temporary_of(path: Path) -> Path:
    """Where this process writes what is to be renamed to `path`, whether file or folder."""
    return path.with_name(f"{path.name}.{machine()}-{os.getpid()}.tmp")


def sweep(folder: Path, *, beneath: bool = False) -> None:
    """Remove the temporary files that killed processes left in a folder.

    beneath: in the folders beneath it too.
    """
    for parent, folders, files in os.walk(folder):
        for name in filter(TEMPORARY.search, (*folders, *files)):
            _remove_if_left(Path(parent, name))
        if not beneath:
            return


def sweep_beside(path: Path) -> None:
    """Remove the temporary files that killed processes left of writing this file."""
    for left in path.parent.glob(f"{escape(path.name)}.*.tmp"):
        name = TEMPORARY.search(left.name)
        if name and left.name == path.name + name[0]:
            _remove_if_left(left)


def _remove_if_left(path: Path) -> None:
    name = TEMPORARY.search(path.name)
    assert name is not None, path
    process = int(name[2])
    here = name[1] in (None, machine())
    if (process == os.getpid() or started(process) is None) if here else _unchanged(path):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _unchanged(path: Path) -> bool:
    """Whether a file did not change for KEPT_SECONDS, by the clock of the disk that it is on."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as now:
            times = [one.lstat().st_mtime for one in (path, *path.rglob("*"))]
            return os.fstat(now.fileno()).st_mtime - max(times) > KEPT_SECONDS
    except OSError:
        return False
