"""What readers of a folder of recordings share: find the files, parse their names, describe which are missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from bas.corpora.base import Utterance
from bas.corpora.folders import describe_twin, plain, same_file, walk
from bas.errors import UserError

T = TypeVar("T")

NAMED = 5  # missing recordings that a note names


def find_recordings(
    root: Path, holds: str, *, suffixes: tuple[str, ...] = (".wav",), levels: int | None = None
) -> list[Path]:
    """The files beneath `root` with such a suffix, in any case, sorted; see `bas.corpora.folders.walk`.

    holds: what the distribution's folder holds, for the UserError when there is no such file.
    levels: how many folders lie between `root` and a file; None: any number.
    """
    paths = sorted(walk(root, suffixes, levels)) if root.is_dir() else []
    if not paths:
        raise UserError(f"{root}: no recording found; the folder holds {holds}")
    return paths


def take_once(utterances: Iterable[Utterance]) -> tuple[tuple[Utterance, ...], tuple[str, ...]]:
    """Each utterance once, and a remark on those that links lead to by several paths.

    UserError where two files are one utterance: two copies of the corpus, names that differ only in case, or a link
    by which an utterance would have another label.
    """
    first: dict[str, Utterance] = {}
    doubled: list[Utterance] = []
    for u in utterances:
        other = first.setdefault(u.id, u)
        if other is u:
            continue
        if not same_file(u.audio, other.audio):
            remedy = "name the folder that holds only one copy of the corpus"
            twin = plain(str(u.audio)) == plain(str(other.audio))
            message = describe_twin(other.audio) if twin else f"there is {other.audio} as well; {remedy}"
            raise UserError(f"{u.audio}: {message}")
        if (u.label, u.split) != (other.label, other.split):
            raise UserError(f"{u.audio}: the same file as {other.audio}, in another folder; keep one of the links")
        doubled.append(u)
    if not doubled:
        return tuple(first.values()), ()
    pair = f"{doubled[0].audio} and {first[doubled[0].id].audio}"
    return tuple(first.values()), (
        f"counted once: {len(doubled)} recordings that links lead to twice, {pair} the first",
    )


def parse_name(path: Path, pattern: str, example: str, case: Callable[[str], str] = str) -> re.Match[str]:
    """Match the file's whole name, without its suffix. UserError naming the file and an example of what matches.

    case: gives the name the case that the distribution has; the match is of that spelling, which is also the id.
    """
    match = re.fullmatch(pattern, case(path.stem))
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
