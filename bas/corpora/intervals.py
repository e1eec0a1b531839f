"""Word times from annotation files: a Praat TextGrid of one utterance, or a CTM file of any number of them.

TextGrid ("TextGrid file formats" and "Praat text files" in Praat's manual): only free-standing numbers, texts in double
quotes and flags such as <exists> count; all else is comment. One grammar therefore reads the long and the short form.
Binary TextGrids are not read. CTM (NIST's SCTK and rich-transcription evaluations; NeMo's aligner): file, channel,
start, duration, word, and optionally confidence, type and speaker.

What is no word is left out: silence and pauses (NO_WORD), marks in brackets such as [noise] or <laugh>, words without a
duration, and of alternatives (<ALT_BEGIN>) all but the first. All but silence is counted; `Left.remarks` says it.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from bas.corpora.base import Word
from bas.corpora.folders import Names, describe_respelt, plain
from bas.errors import UserError
from bas.util.reading import read_bytes, read_lines

SUFFIXES = (".textgrid", ".ctm")
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aif", ".aiff", ".caf", ".sph")
NO_WORD = ("", "sil", "sp", "<eps>", "spn", "<sil>", "<p:>", "@", "!sil", "[silence]")  # silence, pauses, spoken noise
UNKNOWN = ("<unk>", "[unk]")  # a word that was spoken, and which the tool could not spell
NO_LEXEME = ("non-lex", "misc")  # CTM's types of sounds that are no words
TYPES = ("lex", "frag", "fp", "un-lex", "for-lex", "noscore", *NO_LEXEME, "na")
TEXTGRID_BYTES = 2**26  # at most: hours of speech, each letter with its time
NAMED = 3  # kinds of marks that a remark names

_MARK = re.compile(r"<[^>]*>|\[[^\]]*\]|\{[^}]*\}|%\S+")
_CONFIDENCE = re.compile(r"[-+.\deE]+|NA|N/A|nan|null|\*|-", re.IGNORECASE)

ALTERNATIVES = {"<ALT_BEGIN>": False, "<ALT>": True, "<ALT_END>": True}  # whether it stands inside an alternation

_TIER = re.compile(r"(.* - )?words?", re.IGNORECASE)  # "speaker - words" is the Montreal Forced Aligner's
_TOKEN = re.compile(
    r'"(?P<text>(?:[^"]++|"")*+)"|(?P<open>")|(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?(?!\S))|(?P<flag><\w+>)|\S+'
)


class Left:
    """What was left out of words: counts."""

    def __init__(self) -> None:
        self.empty: Counter[str] = Counter()  # by text
        self.marks: Counter[str] = Counter()
        self.alternatives = 0

    def keep(self, words: Iterable[Word]) -> tuple[Word, ...]:
        """The words that have a duration."""
        kept = []
        for word in words:
            if word.end > word.start:
                kept.append(word)
            else:
                self.empty[word.text] += 1
        return tuple(kept)

    def is_word(self, text: str, kind: str = "") -> bool:
        """Whether it is a word. kind: its type in a CTM file."""
        plain = text.casefold()
        if plain in NO_WORD:
            return False
        if (_MARK.fullmatch(plain) and plain not in UNKNOWN) or kind in NO_LEXEME:
            self.marks[text] += 1
            return False
        return True

    @property
    def remarks(self) -> tuple[str, ...]:
        lines = []
        if self.empty:
            lines.append(f"left out: {self.empty.total()} words without a duration, {_list(self.empty)}")
        if self.marks:
            lines.append(f"left out: {self.marks.total()} marks that are no words, {_list(self.marks)}")
        if self.alternatives:
            lines.append(f"of {self.alternatives} alternatives (<ALT_BEGIN>) the first is taken")
        return tuple(lines)


def _list(counts: Counter[str]) -> str:
    more = f" and {len(counts) - NAMED} others" if len(counts) > NAMED else ""
    return ", ".join(f"{text} ({n})" for text, n in counts.most_common(NAMED)) + more


class Intervals:
    """The annotation files that a manifest names, relative to its folder; each CTM file is read once.

    As of recordings, a file that is not there as it is named is looked for in another spelling.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left = Left()
        self._read: dict[Path, dict[str, tuple[Word, ...]]] = {}
        self._keys: dict[Path, dict[str, list[str]]] = {}  # a CTM file's ids, by `_fold`
        self._taken: dict[tuple[Path, str], str] = {}  # which utterance's words those of a CTM file's id are
        self._unnamed: dict[Path, dict[str, str]] = {}  # by CTM file, utterances without a line, and where they are
        self._names = Names()
        self._respelt: dict[str, Path] = {}

    def words(self, name: str, id_: str, where: str, recording: str | None = None) -> tuple[Word, ...]:
        """The words of the utterance `id_` in the file `name`, `.TextGrid` or `.ctm`; none where a CTM file has none.

        where: how a message of `check` begins. recording: a CTM file may call the utterance so as well; its own id
        comes first. Neither case nor the suffix of a recording counts.
        UserError: a file that cannot be read or is damaged, a TextGrid without a tier of words, two of a CTM file's
        ids that may be this utterance, or one that may be two.
        """
        path = self.folder / name
        if not path.exists() and (respelt := self._names.respell(path)):
            path = self._respelt[name] = respelt
        if path.suffix.lower() == ".textgrid":
            return read_textgrid(path, self.left)
        if path not in self._read:
            self._read[path] = read_ctm(path, self.left)
            keys = self._keys[path] = defaultdict(list)
            for theirs in self._read[path]:
                keys[_fold(theirs)].append(theirs)
        if (key := self._find(path, id_, recording)) is None:
            self._unnamed.setdefault(path, {})[id_] = where
            return ()
        if (other := self._taken.setdefault((path, key), id_)) != id_:
            message = f"{key!r} has the words of {other!r}, and may be {id_!r} too"
            raise UserError(f"{path}: {message}; name each as the utterance's id in the first column")
        return self._read[path][key]

    def check(self) -> None:
        """UserError for a CTM file of which no id is that of an utterance, unless it alone of several is empty."""
        named = {path for path, _ in self._taken}
        for path, where_of in self._unnamed.items():
            if path not in named and (self._read[path] or not named):
                id_, where = next(iter(where_of.items()))
                has = f"it has {next(iter(self._read[path]))!r}" if self._read[path] else "it has no line at all"
                others = " nor of any other that names this file" if len(where_of) > 1 else ""
                remedy = f"its first column holds the utterances' ids or recordings' names, {has}"
                raise UserError(f"{where}: {path}: no line of {id_!r}{others}; {remedy}")

    def _find(self, path: Path, id_: str, recording: str | None) -> str | None:
        """What the CTM file calls the utterance; None where it has none."""
        if id_ in self._read[path]:
            return id_
        for name in filter(None, (id_, recording)):
            keys = self._keys[path].get(_fold(name), [])
            if len(keys) > 1:
                message = f"{keys[0]!r} and {keys[1]!r} may both be {id_!r}; name one of them as the id"
                raise UserError(f"{path}: {message}")
            if keys:
                return keys[0]
        return None

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which files and utterances were found under another name, which utterances have none; what was left out."""
        lines = [*describe_respelt(self._respelt, "files of words")]
        if others := [(id_, key) for (_, key), id_ in self._taken.items() if key != id_]:
            id_, key = others[0]
            count = f"{len(others)} utterances have another name in the files of words"
            lines.append(f"{count}: {id_!r} is {key!r}, the first")
        if without := [id_ for where_of in self._unnamed.values() for id_ in where_of]:
            listed = ", ".join(map(repr, without[:NAMED]))
            more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
            lines.append(f"no line in the files of words for {len(without)} utterances: {listed}{more}")
        return (*lines, *self.left.remarks)


def _fold(name: str) -> str:
    """An id in a CTM file as it is compared."""
    folded = plain(name)
    return next((folded.removesuffix(suffix) for suffix in AUDIO if folded.endswith(suffix)), folded)


def read_textgrid(path: Path, left: Left) -> tuple[Word, ...]:
    """The intervals of the tier of words that are words; UTF-8 or UTF-16, long or short form. left: counts the others.

    The tier is named "words", "word" or "speaker - words", in any case; UserError unless there is exactly one,
    and where the sizes count more or less than the file holds.
    """
    tokens = _Tokens(path, _read_text(path))
    if [tokens.text("file type"), tokens.text("object class")][1] != "TextGrid":
        raise UserError(f"{path}: no TextGrid; save it as a text file, long or short")
    tokens.number("xmin")
    tokens.number("xmax")
    tiers: list[tuple[str, str, list[tuple[int, Word]]]] = []
    for _ in range(tokens.count("size") if tokens.exists() else 0):
        kind, name = tokens.text("class"), tokens.text("name")
        intervals: list[tuple[int, Word]] = []
        tokens.number("xmin")
        tokens.number("xmax")
        for _ in range(tokens.count("size")):
            start = tokens.number("xmin")
            end = tokens.number("xmax") if kind == "IntervalTier" else start
            line, text = tokens.line, tokens.text("text").strip()
            intervals.append((line, Word(start, end, text)))
        tiers.append((kind, name, intervals))
    if tiers:
        tokens.end()
    words = [intervals for kind, name, intervals in tiers if kind == "IntervalTier" and _TIER.fullmatch(name.strip())]
    if len(words) != 1:
        named = [f"{name!r}" if kind == "IntervalTier" else f"{name!r} (points)" for kind, name, _ in tiers]
        several = "several tiers of words" if words else "no tier of words"
        listed = ", ".join(named) or "none"
        raise UserError(f"{path}: {several}; expected one interval tier named words, its tiers are: {listed}")
    spoken = [(line, word) for line, word in words[0] if left.is_word(word.text)]
    for line, word in spoken:
        if not 0 <= word.start <= word.end:
            message = f"the interval {word.text!r} is from {word.start:g} to {word.end:g}; expected 0 <= start < end"
            raise UserError(f"{path} line {line}: {message}")
    return left.keep(word for _, word in spoken)


def read_ctm(path: Path, left: Left) -> dict[str, tuple[Word, ...]]:
    """The words of each utterance id, in order of time; ";;" begins a comment. left: counts what is no word."""
    words: dict[str, list[Word]] = {}
    channels: dict[str, str] = {}
    alternative = 0  # number of the one that is read; 0: outside
    for number, line in read_lines(path, utf16=True):
        cells = line.split()
        if not cells or line.lstrip().startswith(";;"):
            continue
        where = f"{path} line {number}"
        if not 5 <= len(cells) <= 8:
            more = "[confidence, type, speaker]"
            raise UserError(f"{where}: {len(cells)} cells; expected file, channel, start, duration, word, {more}")
        id_, channel, start, duration, text = cells[:5]
        if text.upper() in ALTERNATIVES:
            if ALTERNATIVES[text.upper()] != bool(alternative):
                raise UserError(f"{where}: {text} without the one before it; expected <ALT_BEGIN>, <ALT>, <ALT_END>")
            alternative = 0 if text.upper() == "<ALT_END>" else alternative + 1
            left.alternatives += text.upper() == "<ALT_BEGIN>"
            continue
        if alternative > 1:
            continue
        confidence, kind = [*cells[5:7], "NA", "NA"][:2]
        if not _CONFIDENCE.fullmatch(confidence):
            raise UserError(f"{where}: confidence: {confidence!r}; expected a number or NA, and words without blanks")
        if kind.casefold() not in TYPES:
            raise UserError(f"{where}: type: unknown {kind!r}; allowed: {', '.join(TYPES)}")
        id_ = unicodedata.normalize("NFC", id_)
        if channels.setdefault(id_, channel) != channel:
            message = f"{id_!r} has a second one, {channel!r} beside {channels[id_]!r}"
            raise UserError(f"{where}: channel: {message}; give each channel a name of its own")
        words.setdefault(id_, [])
        if left.is_word(text, kind.casefold()):
            begin = _seconds(where, "start", start)
            length = _seconds(where, "duration", duration)
            words[id_] += left.keep([Word(begin, begin + length, text)])
    if alternative:
        raise UserError(f"{path}: <ALT_BEGIN> without <ALT_END>; cut off?")
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
        raw = read_bytes(path, TEXTGRID_BYTES)
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

    def end(self) -> None:
        self._next("the end of the file", "size", "the end of the file, as the sizes count no more")

    def _next(self, kind: str, field: str, expected: str) -> str:
        actual, text, self.line = next(self._stream, ("the end of the file", "", self.line))
        if actual == "open":
            raise UserError(f"{self.path} line {self.line}: {field}: a text without its closing quote; damaged?")
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
