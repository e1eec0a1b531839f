"""The columns of a manifest: ours, their names in foreign forms, and which of a file's are read for them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from bas.corpora.base import KNOWN
from bas.corpora.values import fold_name
from bas.errors import UserError

COLUMNS = (
    *("id", "audio", "label", "speaker", "session", "split", "language", "text"),
    *("script", "sex", "shares", "raters", "start", "end", "words"),
)
REQUIRED = ("id", "audio")
# Our column -> its names in AudioFolder and in tables of `datasets`; the first that has a value counts:
OTHERS = {
    "audio": ("audio", "file_name", "path", "file"),
    "label": ("label", "emotion"),
    "speaker": ("speaker", "speaker_id"),
    "sex": ("sex", "gender"),
    "text": ("text", "transcription", "sentence", "transcript", "raw_text"),
}
SHORT = 40  # characters of a line that a message shows
LISTED = 12  # columns that are not read, by name
ALSO = "; ".join(f"for {column} also {', '.join(names[1:])}" for column, names in OTHERS.items())
EMOBOX = {"id": ("key",), "audio": ("wav",), "label": ("emo",), "speaker": ("speaker", "spk"), "type": ("type",)}
_UNNAMED = re.compile(r"(unnamed: ?\d+)?", re.IGNORECASE)  # an index that pandas wrote, and what it makes of it

RULES = ("own", "emobox", "superb")  # what a protocol names in the place of a field; so a file, x.json
_OWN = re.compile(r"\w([\w .-]*[\w.-])?")  # in a rule or a list of names, a colon or a comma would end it

Names = Mapping[str, tuple[str, ...]]
Matched = dict[str, tuple[str, ...]]  # our column -> the file's columns that are read for it, the first first


class Heading:
    """Which of a file's columns are read.

    columns: the file's names of some of ours, as the user has said; one of no field of ours under its own name is an
    own column, see `kept`. required: our columns that every file must have.
    """

    def __init__(self, columns: Mapping[str, str], in_json: bool, required: Sequence[str] = REQUIRED) -> None:
        self.in_json, self.required = in_json, required
        self.mapped: dict[str, tuple[str]] = {}
        self.own: dict[str, tuple[str]] = {}
        for column, theirs in columns.items():
            if column in COLUMNS:
                self.mapped[column] = (theirs,)
            elif column == theirs:
                self.own[column] = (theirs,)
            else:
                raise UserError(f"--map {column}={theirs}: no such field; allowed: {', '.join(COLUMNS)}")
        self.others: Names | None = None  # the names of a foreign form; empty: our own form; None: no row was read
        self._seen: dict[str, None] = {}
        self._read: dict[str, None] = {}
        self._several: dict[str, None] = {}

    def match(self, where: str, columns: Sequence[str]) -> Matched:
        """Our columns, and which of the file's are read for them; the first row's decide about the form."""
        self._seen.update(dict.fromkeys(columns))
        folded = {fold_name(name): name for name in reversed(columns)}
        if self.others is None:
            self.others = self._choose_form(folded)
        names = self._names()
        read = {fold_name(name) for allowed in names.values() for name in allowed}
        for index, name in enumerate(columns):
            twice = next((n for n in columns[:index] if fold_name(n) == fold_name(name)), None)
            if twice is not None and fold_name(name) in read:
                also = "" if twice == name else f", also as {name!r}"
                raise UserError(f"{where}: {twice}: the column is there twice{also}; allowed: {', '.join(COLUMNS)}")
        matched: Matched = {}
        for column, allowed in names.items():
            theirs = dict.fromkeys(folded[fold] for name in allowed if (fold := fold_name(name)) in folded)
            if theirs:
                matched[column] = tuple(theirs)
        self._check(where, columns, matched, names)
        self._read.update(dict.fromkeys(name for theirs in matched.values() for name in theirs))
        for column, (first, *others) in matched.items():
            if others:
                self._several[f"{column} is read from {first}, where that is empty from {', '.join(others)}"] = None
        return matched

    def _choose_form(self, folded: Mapping[str, str]) -> Names:
        if self.in_json and {"key", "wav"} <= folded.keys():
            return EMOBOX
        own = set(self.required) <= folded.keys() or not any(fold_name(name) in folded for name in OTHERS["audio"])
        return {} if own and not self.mapped else OTHERS

    def _names(self) -> Names:
        """By our column, the names under which a file of this form may have it."""
        own = {column: (column,) for column in COLUMNS} | self.own
        if self.others is EMOBOX:
            return own | EMOBOX
        more = OTHERS if self.others else {c: names for c, names in OTHERS.items() if c not in REQUIRED}
        return own | more | self.mapped

    def _check(self, where: str, columns: Sequence[str], matched: Matched, names: Names) -> None:
        allowed = f"allowed: {', '.join(COLUMNS)}; {ALSO}"
        read = {name for theirs in matched.values() for name in theirs}
        if not (read or self.others or self.in_json):
            first = " ".join(columns).strip()
            first = first if len(first) <= SHORT else f"{first[:SHORT]}..."
            remedy = "put the line first that names the columns, or say which they are, such as --map audio=COLUMN"
            raise UserError(f"{where}: {first!r}: no heading, as it names no known column; {remedy}; {allowed}")
        for name in () if self.others else columns:
            if name not in read and not _UNNAMED.fullmatch(name.strip()):
                remedy = "rename it"
                if "," not in name:  # which separates the columns of --map
                    free = [column for column in COLUMNS if column not in matched]
                    near = get_close_matches(name, free, 1) or [one for one in ("label", *free) if one in free]
                    remedy += f", or say what it is, such as --map {shlex.quote(f'{near[0]}={name}')}"
                if _OWN.fullmatch(name):
                    remedy += f", or keep it as a column of your own: --keep {shlex.quote(name)}"
                self._check_kept(where, columns)
                raise UserError(f"{where}: {name!r}: unknown column, {remedy}; {allowed}")
        for column, theirs in matched.items():
            if len(theirs) > 1 and not self.others:
                remedy = f"say which one is meant: --map {shlex.quote(f'{column}={theirs[0]}')}"
                raise UserError(f"{where}: {' and '.join(theirs)}: two columns for {column}; {remedy}")
        for column in self.required:
            if column not in matched and not (self.others is OTHERS and column == "id"):
                if column in self.mapped:
                    self.check_mapped(where)
                remedy = f"if it has another name: --map {column}=COLUMN"
                raise UserError(f"{where}: {names[column][0]}: the required column is missing; {allowed}; {remedy}")

    def _check_kept(self, where: str, columns: Sequence[str]) -> None:
        """UserError for an own column that is not there, where another that is unknown may be what is meant."""
        folded = {fold_name(name) for name in columns}
        for theirs in (names[0] for names in self.own.values() if fold_name(names[0]) not in folded):
            raise UserError(f"{where}: --keep {theirs}: no such column; it has: {', '.join(filter(None, columns))}")

    def check_mapped(self, where: str) -> None:
        """UserError where the file has no column that the user has named."""
        for column, (theirs,) in (*self.mapped.items(), *self.own.items()):
            if fold_name(theirs) not in {fold_name(name) for name in self._seen}:
                said = f"--keep {theirs}" if column in self.own else f"--map {column}={theirs}"
                raise UserError(f"{where}: {said}: no such column; it has: {', '.join(filter(None, self._seen))}")

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which columns were not read, and of which the first with a value was."""
        return (*describe_unread([name for name in self._seen if name not in self._read]), *self._several)


def kept(names: Sequence[str]) -> dict[str, str]:
    """Own columns of a table, as `bas.corpora.open_corpus` takes them: each under its own name.

    UserError for a name that is twice there, that a field has, or that a rule of a split could not name.
    """
    ours = {fold_name(name): name for name in (*COLUMNS, *KNOWN, "type")}
    ours |= {fold_name(name): field for field, names in OTHERS.items() for name in names}
    seen: set[str] = set()
    for name in names:
        if (field := ours.get(fold_name(name))) is not None:
            raise UserError(f"--keep {name}: no own column, it is read for the field {field}; leave it out")
        if name in RULES or name.endswith(".json"):
            raise UserError(f"--keep {name}: a rule of splits has that name; rename the column")
        if not _OWN.fullmatch(name):
            raise UserError(f"--keep {name!r}: the name of an own column must be of letters, digits, blanks, . _ and -")
        if fold_name(name) in seen:
            raise UserError(f"--keep {name}: there twice; name it once")
        seen.add(fold_name(name))
    return {name: name for name in names}


def describe_unread(names: Sequence[str]) -> tuple[str, ...]:
    """A remark on the columns of a table that were not read; none where all were."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    listed = ", ".join(name.strip() or "(no name)" for name in names[:LISTED])
    return (f"columns not read: {listed}{more}",) if names else ()
