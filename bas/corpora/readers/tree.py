"""What readers of a folder of recordings share: find them, read their names, say which of them are missing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from bas.errors import UserError

T = TypeVar("T")

NAMED = 5  # of the missing, so many by name


def recordings(root: Path, pattern: str, holds: str, what: str = "recording") -> list[Path]:
    """The files under `root` that fit the glob `pattern`, sorted; those of hidden names (macOS's `._x.wav`) not.

    holds: what the distribution's folder holds, for the UserError when there is none. what: what one file is.
    """
    found = sorted(p for p in root.glob(pattern) if not p.name.startswith("."))
    if not found:
        raise UserError(f"{root}: no {what} found; the folder holds {holds}")
    return found


def one_copy(paths: list[Path]) -> list[Path]:
    """The files themselves. UserError when two of them have one name (without the suffix): two copies of the corpus."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise UserError(f"{path}: there is {other} as well; name the folder that holds only one copy of the corpus")
    return paths


def parsed(path: Path, pattern: str, example: str) -> re.Match[str]:
    """The file's name without its suffix, matched whole. UserError naming the file and an example of what fits."""
    match = re.fullmatch(pattern, path.stem)
    if match is None:
        raise UserError(f"{path}: not a file name of this corpus; expected one like {example}")
    return match


def known(where: Path | str, what: str, code: str, table: Mapping[str, T]) -> T:
    """What `code` stands for. UserError naming the file (or the file and line), the code and the allowed ones.

    A reader never guesses.
    """
    if code not in table:
        raise UserError(f"{where}: unknown {what} {code!r}; allowed: {', '.join(table)}")
    return table[code]


def agreed(path: Path, said: str) -> str:
    """What the file's name says, its folder being named the same. UserError where the two contradict."""
    if path.parent.name.lower() != said:
        raise UserError(f"{path}: the file's name says {said}, its folder {path.parent.name!r}")
    return said


def incomplete(found: Iterable[str], published: int, missing: Iterable[str] = (), what: str = "utterances") -> str:
    """A corpus's note: nothing for all that was published, else how many there are and which are missing, by name.

    missing: names, as far as the distribution itself or its rules tell them; the first few are said.
    """
    count, lost = len(set(found)), sorted(missing)
    if count >= published and not lost:
        return ""
    named = ", ".join(lost[:NAMED]) + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
    return f"incomplete: {count} of {published} {what}" + (f"; missing: {named}" if lost else "")
