"""MELD: 13,708 utterances of a television series, seven emotions, published train, dev and test parts."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.folders import Names
from bas.corpora.readers import tree
from bas.corpora.values import Cells
from bas.errors import UserError

# csv name, folder of the clips, our name of the part, published rows
PARTS = (
    ("train_sent_emo.csv", "train_splits", "train", 9989),
    ("dev_sent_emo.csv", "dev_splits_complete", "valid", 1109),
    ("test_sent_emo.csv", "output_repeated_splits_test", "test", 2610),
)
LABELS = {word: word for word in ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")}
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
MISSING_SHARE = 0.01  # the release itself lacks a handful of usable clips


def read(root: Path) -> Corpus:
    """Read the folder that holds the three csv files and, beside them, the three folders of clips.

    `train_sent_emo.csv` goes with `train_splits/dia0_utt0.wav` (or .flac; the release's mp4 clips have to be
    converted first), dev with `dev_splits_complete`, test with `output_repeated_splits_test`. Ids are like
    `train_dia0_utt0`, the session is the dialogue, `train_dia0`. Rows without audio are left out and named in the note.
    UserError: a csv file or column is missing, an unknown emotion, an id that is no number, only mp4 clips,
    or more than 1% of a part's rows without audio.
    """
    names, cells = Names(), Cells()
    rows: dict[str, list[Utterance]] = {
        split: _part(names, names.find(root, name), names.find(root, clips), split, cells)
        for name, clips, split, _ in PARTS
    }
    missing = {split: [u for u in rows[split] if not u.audio.is_file()] for split in rows}
    lacking = [part for part in PARTS if len(missing[part[2]]) > MISSING_SHARE * len(rows[part[2]])]
    unconverted = [root / clips for _, clips, split, _ in lacking if _any_mp4(names, missing[split])]
    if unconverted:
        pattern = " ".join(f"{shlex.quote(str(folder))}/*.mp4" for folder in unconverted)
        command = f'for f in {pattern}; do ffmpeg -i "$f" -ac 1 -ar 16000 "${{f%.mp4}}.wav"; done'
        raise UserError(f"{unconverted[0]}: mp4 clips without a wav or flac beside them; convert them with: {command}")
    if lacking:
        name, clips, split, _ = lacking[0]
        first = ", ".join(u.audio.name for u in missing[split][:3])
        counts = f"{len(missing[split])} of {len(rows[split])} rows of {name}"
        raise UserError(f"{root / clips}: no wav or flac for {counts}; first: {first}")
    notes = [
        tree.describe_missing((u.id for u in rows[split]), published, what=f"rows in {name}")
        for name, _, split, published in PARTS
    ]
    gone = {u.id: None for split in rows for u in missing[split]}
    if gone:
        notes.append(f"left out, no audio: {', '.join(gone)}")
    utterances = tuple(u for split in rows for u in rows[split] if u.id not in gone)
    note = "; ".join(filter(None, (*notes, cells.note)))
    return Corpus(
        "meld",
        utterances,
        protocol="own",
        unit="session",
        headlines=("WF1",),
        published=True,
        note=note,
        remarks=cells.remarks,
    )


def _any_mp4(names: Names, utterances: list[Utterance]) -> bool:
    return any(names.find(u.audio.parent, f"{u.audio.stem}.mp4").is_file() for u in utterances)


def _part(names: Names, path: Path, clips: Path, split: str, cells: Cells) -> list[Utterance]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; MELD's folder holds {', '.join(part[0] for part in PARTS)}")
    utterances = []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        lost = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if lost:
            raise UserError(f"{path}: no column {lost[0]!r}; needed: {', '.join(COLUMNS)}")
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if any(row[column] is None for column in COLUMNS):
                raise UserError(f"{where}: fewer cells than the heading has columns")
            for column in ("Dialogue_ID", "Utterance_ID"):
                if not row[column].isdecimal():
                    raise UserError(f"{where}: {column} is {row[column]!r}; expected a whole number")
            session, clip = f"{split}_dia{row['Dialogue_ID']}", f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            flac = names.find(clips, f"{clip}.flac")
            utterances.append(
                Utterance(
                    id=f"{split}_{clip}",
                    audio=flac if flac.is_file() else names.find(clips, f"{clip}.wav"),
                    label=tree.look_up(where, "Emotion", row["Emotion"], LABELS),
                    speaker=cells.read("speaker", row["Speaker"]),
                    session=session,
                    split=split,
                    language="en",
                    text=row["Utterance"],
                )
            )
    if not utterances:
        raise UserError(f"{path}: no row below the heading")
    return utterances
