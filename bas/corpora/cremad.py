"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: 7442 English utterances, 91 actors, 6 emotions."""

from __future__ import annotations

import csv
from pathlib import Path

from bas.corpora import tree
from bas.corpora.base import Corpus, Utterance
from bas.errors import UserError

UTTERANCES = 7442

EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
ACTORS = {str(number): str(number) for number in range(1001, 1092)}
SEXES = {"Female": "female", "Male": "male"}
LISTED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # the one file whose name is not the one of the distribution's list


def read(root: Path) -> Corpus:
    """Read the folder that holds `AudioWAV`, or `AudioWAV` itself.

    `AudioWAV/1001_DFA_ANG_XX.wav` is actor, sentence, emotion meant, level (LO, MD, HI, XX). The sentences are the
    documentation's. Where they lie beside `AudioWAV`, `VideoDemographics.csv` tells the sexes and
    `SentenceFilenames.csv` which files are missing.
    UserError: no recording, two copies, a file name with an unknown actor, sentence or emotion, a csv without the
    columns needed, an unknown sex.
    """
    paths = tree.one_copy(tree.recordings(root, "**/*.wav", "AudioWAV/1001_DFA_ANG_XX.wav and 7441 more"))
    beside = paths[0].absolute().parent.parent
    demographics = beside / "VideoDemographics.csv"
    sexes = {
        actor: tree.known(demographics, "sex", sex, SEXES) for actor, sex in _columns(demographics, "ActorID", "Sex")
    }
    listed = {name for _, name in _columns(beside / "SentenceFilenames.csv", "Stimulus_Number", "Filename")}
    utterances = tuple(_utterance(path, sexes) for path in paths)
    ids = {LISTED.get(u.id, u.id) for u in utterances}
    note = tree.incomplete(ids, UTTERANCES, listed - ids)
    return Corpus("cremad", utterances, protocol="speaker:5", unit="speaker", note=note)


def _utterance(path: Path, sexes: dict[str, str]) -> Utterance:
    listed = path.with_stem(LISTED.get(path.stem, path.stem))
    match = tree.parsed(listed, r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(?:LO|MD|HI|XX)", "1001_DFA_ANG_XX.wav")
    actor, sentence, emotion = match.groups()
    return Utterance(
        id=path.stem,
        audio=path,
        label=tree.known(path, "emotion", emotion, EMOTIONS),
        speaker=tree.known(path, "actor", actor, ACTORS),
        sex=sexes.get(actor),
        language="en",
        text=tree.known(path, "sentence", sentence, SENTENCES),
    )


def _columns(path: Path, *names: str) -> list[tuple[str, ...]]:
    """These columns of a table of the distribution, row by row; nothing without the file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file, restval="")
        lost = [name for name in names if name not in (reader.fieldnames or ())]
        if lost:
            raise UserError(f"{path}: no column {lost[0]!r}; needed: {', '.join(names)}")
        return [tuple(row[name] for name in names) for row in reader]
