"""What readers of a folder of recordings share: find the files, parse their names, describe which are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from bas.errors import UserError

T = TypeVar("T")

NAMED = 5  # missing recordings that a note names


def find_recordings(root: Path, pattern: str, holds: str, what: str = "recording") -> list[Path]:
    """The files under `root` that match the glob `pattern`, sorted, without hidden ones (macOS's `._x.wav`).

    holds: what the distribution's folder holds, for the UserError when no file matches. what: what one file is.
    """
    paths = sorted(p for p in root.glob(pattern) if not p.name.startswith("."))
    if not paths:
        raise UserError(f"{root}: no {what} found; the folder holds {holds}")
    return paths


def check_one_copy(paths: list[Path]) -> list[Path]:
    """The same paths. UserError when two files have one name (without suffix): the folder holds two copies."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise UserError(f"{path}: there is {other} as well; name the folder that holds only one copy of the corpus")
    return paths


def parse_name(path: Path, pattern: str, example: str) -> re.Match[str]:
    """Match the file's whole name, without its suffix. UserError naming the file and an example of what matches."""
    match = re.fullmatch(pattern, path.stem)
    if match is None:
        raise UserError(f"{path}: not a file name of this corpus; expected one like {example}")
    return match


def look_up(where: Path | str, what: str, code: str, table: Mapping[str, T]) -> T:
    """The meaning of `code`. UserError naming the file (or file and line), the code and the allowed ones.

    A reader never guesses.
    """
    if code not in table:
        raise UserError(f"{where}: unknown {what} {code!r}; allowed: {', '.join(table)}")
    return table[code]


def check_folder(path: Path, value: str) -> str:
    """`value`, which the file's name says. UserError unless its folder has the same name."""
    if path.parent.name.lower() != value:
        raise UserError(f"{path}: the file's name says {value}, its folder {path.parent.name!r}")
    return value


def describe_missing(ids: Iterable[str], published: int, missing: Iterable[str] = (), what: str = "utterances") -> str:
    """A corpus's note: empty for a complete corpus, else how many utterances there are and which are missing.

    missing: their names, as far as the distribution or its naming rules give them; the note names the first few.
    """
    count, lost = len(set(ids)), sorted(missing)
    if count >= published and not lost:
        return ""
    named = ", ".join(lost[:NAMED]) + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
    return f"incomplete: {count} of {published} {what}" + (f"; missing: {named}" if lost else "")
