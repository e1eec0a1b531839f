"""Paths that a record holds, so that a project's folder may be moved or mounted elsewhere as a whole.

Such a record has a path twice: as it was, and as seen from the record's own folder, under the name with SEEN added.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEEN = " from here"


def note_place(name: str, path: str | Path, folder: Path) -> dict[str, str]:
    """The fields of a record in `folder` that say where something lies."""
    return {name: str(path), name + SEEN: os.path.relpath(path, folder.resolve())}


def find_place(record: Mapping[str, Any], name: str, folder: Path) -> str:
    """Where it lies now: as seen from the record's folder, if something is there, else as it was.

    Raises KeyError and TypeError for a record without such a path.
    """
    path, seen = record[name], record.get(name + SEEN, "")  # earlier versions had the path alone
    if not isinstance(path, str):
        raise TypeError(f"{name}: {path!r} is no path")
    near = os.path.normpath(folder.resolve() / seen)
    return near if seen and os.path.exists(near) else path


def short_name(model: str) -> str:
    """A model's name on a hub unchanged; a local folder as `short_place` has it."""
    return short_place(model) if Path(model).expanduser().is_dir() else model


def short_place(path: str | Path) -> str:
    """A path beneath the working directory as seen from there; any other as an absolute one."""
    whole = Path(os.path.abspath(Path(path).expanduser()))
    here = Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) and whole != here else str(whole)
