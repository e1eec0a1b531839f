"""Word times from annotation files: a Praat TextGrid of one utterance, or a CTM file of any number of them.

TextGrid ("TextGrid file formats" and "Praat text files" in Praat's manual): only free-standing numbers, texts in double
quotes and flags such as <exists> count; all else is comment. One grammar therefore reads the long and the short form.
Binary TextGrids are not read. CTM (NIST's SCTK): file, channel, start, duration, word and an optional confidence.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from bas.corpora.base import Word
from bas.errors import UserError

SUFFIXES = (".textgrid", ".ctm")
NO_WORD = ("", "sil", "sp", "<eps>", "spn")  # silence, pauses and spoken noise

_TIER = re.compile(r"(.* - )?words?", re.IGNORECASE)  # "speaker - words" is the Montreal Forced Aligner's
_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]|"")*)"|(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?!\S))|(?P<flag><\w+>)|\S+'
)


class Intervals:
    """The annotation files that a manifest names, relative to its folder; each CTM file is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, dict[str, tuple[Word, ...]]] = {}

    def words(self, name: str, id_: str) -> tuple[Word, ...]:
        """The words of the utterance `id_` in the file `name`, `.TextGrid` or `.ctm`.

        UserError: a file that cannot be read or is damaged, a TextGrid without a tier of words, a CTM file without a
        line of this utterance.
        """
        path = self.folder / name
        if path.suffix.lower() == ".textgrid":
            return read_textgrid(path)
        if path not in self._read:
            self._read[path] = read_ctm(path)
        if id_ not in self._read[path]:
            raise UserError(f"{path}: no line of {id_!r}; its first column holds the utterances' ids")
        return self._read[path][id_]


def read_textgrid(path: Path) -> tuple[Word, ...]:
    """The intervals of the tier of words, without those in NO_WORD; UTF-8 or UTF-16, long or short form.

    The tier is named "words", "word" or "speaker - words", in any case; UserError unless there is exactly one.
    """
    tokens = _Tokens(path, _read_text(path))
    if [tokens.text("file type"), tokens.text("object class")][1] != "TextGrid":
        raise UserError(f"{path}: no TextGrid; save it as a text file, long or short")
    tokens.number("xmin")
    tokens.number("xmax")
    tiers: list[tuple[str, str, list[Word]]] = []
    for _ in range(tokens.count("size") if tokens.exists() else 0):
        kind, name, intervals = tokens.text("class"), tokens.text("name"), []
        tokens.number("xmin")
        tokens.number("xmax")
        for _ in range(tokens.count("size")):
            start = tokens.number("xmin")
            end = tokens.number("xmax") if kind == "IntervalTier" else start
            line, text = tokens.line, tokens.text("text").strip()
            if text.casefold() in NO_WORD or kind != "IntervalTier":
                continue
            if not 0 <= start < end:
                message = f"the interval {text!r} is from {start:g} to {end:g}; expected 0 <= start < end"
                raise UserError(f"{path} line {line}: {message}")
            intervals.append(Word(start, end, text))
        tiers.append((kind, name, intervals))
    words = [intervals for kind, name, intervals in tiers if kind == "IntervalTier" and _TIER.fullmatch(name.strip())]
    if len(words) != 1:
        named = [f"{name!r}" if kind == "IntervalTier" else f"{name!r} (points)" for kind, name, _ in tiers]
        several = "several tiers of words" if words else "no tier of words"
        listed = ", ".join(named) or "none"
        raise UserError(f"{path}: {several}; expected one interval tier named words, its tiers are: {listed}")
    return tuple(words[0])


def read_ctm(path: Path) -> dict[str, tuple[Word, ...]]:
    """The words of each utterance id, without those in NO_WORD, in order of time; ";;" begins a comment."""
    words: dict[str, list[Word]] = {}
    channels: dict[str, str] = {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        cells = line.split()
        if not cells or line.lstrip().startswith(";;"):
            continue
        where = f"{path} line {number}"
        if len(cells) not in (5, 6):
            raise UserError(f"{where}: {len(cells)} cells; expected file, channel, start, duration, word, [confidence]")
        id_, channel, start, duration, text = cells[:5]
        id_ = unicodedata.normalize("NFC", id_)
        if channels.setdefault(id_, channel) != channel:
            message = f"{id_!r} has a second one, {channel!r} beside {channels[id_]!r}"
            raise UserError(f"{where}: channel: {message}; give each channel a name of its own")
        words.setdefault(id_, [])
        if text.casefold() not in NO_WORD:
            begin = _seconds(where, "start", start)
            length = _seconds(where, "duration", duration)
            if not begin < begin + length:
                raise UserError(f"{where}: duration: {duration!r}; expected seconds above 0")
            words[id_].append(Word(begin, begin + length, text))
    return {id_: tuple(sorted(spoken, key=lambda word: word.start)) for id_, spoken in words.items()}


def _seconds(where: str, field: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{where}: {field}: {text!r} is not a time; expected seconds from 0 on, such as 1.5")
    return value


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: neither UTF-8 nor UTF-16 ({error.reason}); save the file as UTF-8") from None


class _Tokens:
    """The tokens of a Praat text file, in order. UserError, with the line, where another kind is expected."""

    def __init__(self, path: Path, content: str) -> None:
        self.path, self.line = path, 1
        self._stream = self._tokens(content)

    def text(self, field: str) -> str:
        return self._next("text", field, "a text in double quotes").replace('""', '"')

    def number(self, field: str) -> float:
        return float(self._next("number", field, "a number"))

    def count(self, field: str) -> int:
        value = self.number(field)
        if value < 0 or value != int(value):
            raise UserError(f"{self.path} line {self.line}: {field}: {value:g}; expected a whole number")
        return int(value)

    def exists(self) -> bool:
        return self._next("flag", "tiers?", "<exists> or <absent>") == "<exists>"

    def _next(self, kind: str, field: str, expected: str) -> str:
        actual, text, self.line = next(self._stream, ("the end of the file", "", self.line))
        if actual != kind:
            token = f"{actual} {text!r}" if text else actual
            raise UserError(f"{self.path} line {self.line}: {field}: found {token}, expected {expected}; damaged?")
        return text

    @staticmethod
    def _tokens(content: str) -> Iterator[tuple[str, str, int]]:
        line, end = 1, 0
        for match in _TOKEN.finditer(content):
            line, end = line + content.count("\n", end, match.start()), match.start()
            if match.lastgroup:
                yield match.lastgroup, match[match.lastgroup], line
