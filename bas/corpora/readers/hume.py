"""Hume-Prosody, the corpus of ComParE 2023's Emotion Share: how much of nine emotions listeners heard, each 0 to 1.

It has 51,881 recordings of 1,004 speakers from three countries who imitate emotional speech, in train, devel and test
parts of disjoint speakers. A recording's shares are relative to its strongest emotion and do not add up to one. The
lists name neither the speakers nor the languages, and the test part is blind.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.folders import Names, walk
from bas.corpora.readers import tree
from bas.errors import UserError

PARTS = {"train.csv": "train", "devel.csv": "valid", "test.csv": "test"}
EMOTIONS = (
    "Anger",
    "Boredom",
    "Calmness",
    "Concentration",
    "Determination",
    "Excitement",
    "Interest",
    "Sadness",
    "Tiredness",
)
BLIND = "?"
UNKNOWN = "who speaks is unknown: each recording counts as a speaker of its own, so intervals are too narrow"
DEVEL = "the test part is blind: devel is tested on, and valid is held out from train"


def read(root: Path) -> Corpus:
    """Read the folder that holds `lab/train.csv`, `lab/devel.csv`, `lab/test.csv` and `wav`.

    A row is `filename` (such as 31746.wav) and nine shares of 0 to 1; a test row of question marks has none. There are
    no labels. Rows without a recording are left out and named in the note; a recording that no list names is not read.
    As the speakers are unknown, a comparison's units are the recordings (`id`), as if each had its own speaker. Where
    all of test is blind, as it was published, devel is the test part. The note says both.
    UserError: no recording, one whose name is no number, a missing list or column, a share that is not one.
    """
    names = Names()
    wav = names.find(root, "wav")
    present = set(walk(wav, (".wav",), 0)) if wav.is_dir() else set()
    if not present:
        raise UserError(f"{root}: no recording found; the folder holds lab/train.csv and wav/31746.wav")
    for path in sorted(present):
        tree.parse_name(path, r"\d+", "31746.wav")
    listed = [u for name, split in PARTS.items() for u in _part(names, wav, names.find(root, "lab", name), split)]
    notes = [UNKNOWN]
    if not any(u.shares for u in listed if u.split == "test"):
        listed = [replace(u, split="test") if u.split == "valid" else u for u in listed]
        notes.append(DEVEL)
    utterances = tuple(u for u in listed if u.audio in present)
    missing = [u.id for u in listed if u.audio not in present]
    incomplete = tree.describe_missing((u.id for u in utterances), len(listed), missing)
    note = "; ".join([incomplete, *notes] if incomplete else notes)
    return Corpus("hume", utterances, protocol="own", unit="id", published=True, note=note)


def _part(names: Names, wav: Path, path: Path, split: str) -> list[Utterance]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; the folder lab holds {', '.join(PARTS)}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        lost = [column for column in ("filename", *EMOTIONS) if column not in (reader.fieldnames or ())]
        if lost:
            raise UserError(f"{path}: no column {lost[0]!r}; needed: filename, {', '.join(EMOTIONS)}")
        rows = [(f"{path} line {reader.line_num}", row) for row in reader]
    return [
        Utterance(
            id=Path(row["filename"]).stem,
            audio=names.find(wav, row["filename"]),
            split=split,
            shares=() if split == "test" and {row[e] for e in EMOTIONS} == {BLIND} else _shares(where, row),
        )
        for where, row in rows
    ]


def _shares(where: str, row: dict[str, str]) -> tuple[tuple[str, float], ...]:
    shares = []
    for emotion in EMOTIONS:
        try:
            share = float(row[emotion] or "")
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise UserError(f"{where}: {emotion} is {row[emotion]!r}; expected a share of 0 to 1")
        shares.append((emotion.lower(), share))
    return tuple(shares)
