"""ESD, the Emotional Speech Dataset: 35,000 utterances, 10 Mandarin and 10 English speakers, 5 emotions.

Each speaker says the 350 sentences of the language in each emotion. The published parts (20 sentences for evaluation,
30 for test, 300 for training) share speakers, so the corpus is scored under folds of speakers.
"""

from __future__ import annotations

import codecs
import re
from itertools import product
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.folders import Names
from bas.corpora.readers import tree
from bas.errors import UserError

SENTENCES = 350

EMOTIONS = {"Neutral": "neutral", "Angry": "angry", "Happy": "happy", "Sad": "sad", "Surprise": "surprise"}
IN_CHINESE = {"中立": "neutral", "生气": "angry", "快乐": "happy", "伤心": "sad", "惊喜": "surprise"}
FEMALE = ("0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019")
SPEAKERS = {f"{n:04}": "female" if f"{n:04}" in FEMALE else "male" for n in range(1, 21)}
ENGLISH = "0011"  # the first
PARTS = {"train": "train", "evaluation": "valid", "test": "test"}

Line = tuple[str, str, str]  # file and line, text, emotion


def read(root: Path) -> Corpus:
    """Read the folder that holds the speakers' folders `0001` to `0020`, one above it or one of these.

    `0011/Angry/0011_000351.wav` is speaker and utterance; the folder is the label. A folder `evaluation`, `test` or
    `train` may lie between; without it the sentence's number gives the part: the first 20, the next 30, the other 300.
    The text is from `0011/0011.txt` (id, text, emotion), where that has the utterance; the sexes are the ReadMe's.
    UserError: no recording, two copies, an unknown speaker, emotion or utterance number; a transcript of an unknown
    encoding, with a line of another form, or with another emotion than the folder.
    """
    paths = tree.find_recordings(root, "0001/Angry/0001_000351.wav and 34,999 more")
    folders = {path: path.parents[1 if path.parent.name.lower() in PARTS else 0] for path in paths}
    names = Names()
    texts = {
        folder: _transcript(names.find(folder, f"{folder.absolute().name}.txt"))
        for folder in {f.parent for f in folders.values()}
    }
    utterances, remarks = tree.take_once(
        _utterance(path, folder.name.capitalize(), texts[folder.parent]) for path, folder in folders.items()
    )
    ids, here = {u.id for u in utterances}, {u.speaker for u in utterances}
    expected = {f"{s}_{n:06}" for s, n in product(SPEAKERS, range(1, len(EMOTIONS) * SENTENCES + 1))}
    missing = {name if name[:4] in here else f"all of {name[:4]}" for name in expected - ids}
    note = tree.describe_missing(ids, len(expected), missing)
    return Corpus("esd", utterances, protocol="speaker:5", unit="speaker", published=True, note=note, remarks=remarks)


def _utterance(path: Path, emotion: str, lines: dict[str, Line]) -> Utterance:
    speaker, number = tree.parse_name(path, r"(\d{4})_(\d{6})", "0011_000351.wav").groups()
    last = len(EMOTIONS) * SENTENCES
    if not 1 <= int(number) <= last:
        raise UserError(f"{path}: unknown utterance number {number!r}; allowed: 000001 to {last:06}")
    sentence = (int(number) - 1) % SENTENCES
    label = tree.look_up(path, "emotion (its folder)", emotion, EMOTIONS)
    where, text, said = lines.get(path.stem, (None, None, label))
    if said != label:
        raise UserError(f"{where}: {path.stem} is {said} here, but its recording lies in {emotion}")
    return Utterance(
        id=path.stem,
        audio=path,
        label=label,
        speaker=speaker,
        sex=tree.look_up(path, "speaker", speaker, SPEAKERS),
        split=PARTS.get(path.parent.name.lower())
        or ("valid" if sentence < 20 else "test" if sentence < 50 else "train"),
        language="en" if speaker >= ENGLISH else "zh",
        text=text,
    )


def _transcript(path: Path) -> dict[str, Line]:
    """The lines by utterance; empty without the file. In 14 lines of the distribution the first tab is a blank."""
    lines = {}
    for number, line in enumerate(_read_text(path).splitlines() if path.is_file() else [], 1):
        where = f"{path} line {number}"
        match = re.fullmatch(r"\s*(\d{4}_\d{6})\s+(\S.*?)\s+(\S+)\s*", line)
        if match is not None:
            emotion = tree.look_up(where, "emotion", match[3], EMOTIONS | IN_CHINESE)
            lines[match[1]] = (where, match[2], emotion)
        elif line.strip():
            raise UserError(f"{where}: {line.strip()!r} is not an utterance, its text and its emotion")
    return lines


def _read_text(path: Path) -> str:
    """The text of a transcript, in any of the distribution's four encodings."""
    raw = path.read_bytes()
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "gb2312", "cp1252"):
        try:
            text = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        # Nearly all bytes decode as cp1252. In English its characters beyond ASCII come singly, misread ones in runs.
        if encoding != "cp1252" or not re.search(r"[^\x00-\x7f\xa0]{2}", text):
            return text
    raise UserError(f"{path}: neither UTF-8 nor UTF-16, GB2312 or English in Windows-1252; save it as UTF-8")
