"""CREMA-D, the Crowd-sourced Emotional Multimodal Actors Dataset: 7442 English utterances, 91 actors, 6 emotions."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.folders import Names
from bas.corpora.readers import tree
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
VOTES = {"A": "anger", "D": "disgust", "F": "fear", "H": "happy", "N": "neutral", "S": "sad"}
VOICE = "1"  # a row of votes has the number 100000 * M + clip, where M is 1 for the voice, 2 the face, 3 both
Ratings = tuple[tuple[tuple[str, float], ...], int]
"""Shares of listeners by emotion, and the number of listeners."""

LISTED = {"1040_ITH_SAD_X": "1040_ITH_SAD_XX"}  # the one file whose name is not the one of the distribution's list


def read(root: Path) -> Corpus:
    """Read the folder that holds `AudioWAV`, or `AudioWAV` itself.

    `AudioWAV/1001_DFA_ANG_XX.wav` is actor, sentence, emotion meant, level (LO, MD, HI, XX). The sentences are the
    documentation's. Files beside `AudioWAV` are read where they exist: `VideoDemographics.csv` has the sexes,
    `SentenceFilenames.csv` the names of all files, and `processedResults/tabulatedVotes.csv` the shares of listeners
    who heard each emotion, of those who were given the voice alone, some ten a clip.
    UserError: no recording, two copies, a file name with an unknown actor, sentence or emotion, a csv without the
    columns needed, an unknown sex, votes that are no counts or do not add up.
    """
    paths = tree.find_recordings(root, "AudioWAV/1001_DFA_ANG_XX.wav and 7441 more")
    beside, names = paths[0].absolute().parent.parent, Names()
    demographics = names.find(beside, "VideoDemographics.csv")
    sexes = {
        actor: tree.look_up(demographics, "sex", sex, SEXES) for actor, sex in _columns(demographics, "ActorID", "Sex")
    }
    listed = {name for _, name in _columns(names.find(beside, "SentenceFilenames.csv"), "Stimulus_Number", "Filename")}
    ratings = _read_ratings(names.find(beside, "processedResults", "tabulatedVotes.csv"))
    utterances, remarks = tree.take_once(_utterance(path, sexes, ratings) for path in paths)
    ids = {LISTED.get(u.id, u.id) for u in utterances}
    note = tree.describe_missing(ids, UTTERANCES, listed - ids)
    return Corpus("cremad", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _utterance(path: Path, sexes: Mapping[str, str], ratings: Mapping[str, Ratings]) -> Utterance:
    listed = path.with_stem(LISTED.get(path.stem.upper(), path.stem))
    pattern = r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(?:LO|MD|HI|XX)"
    match = tree.parse_name(listed, pattern, "1001_DFA_ANG_XX.wav", str.upper)
    actor, sentence, emotion = match.groups()
    shares, raters = ratings.get(match[0], ((), None))
    return Utterance(
        id=path.stem.upper(),
        audio=path,
        label=tree.look_up(path, "emotion", emotion, EMOTIONS),
        speaker=tree.look_up(path, "actor", actor, ACTORS),
        sex=sexes.get(actor),
        language="en",
        text=tree.look_up(path, "sentence", sentence, SENTENCES),
        shares=shares,
        raters=raters,
    )


def _read_ratings(path: Path) -> dict[str, Ratings]:
    """The ratings of each clip's voice; empty without the file."""
    ratings: dict[str, Ratings] = {}
    for number, clip, responses, *votes in _columns(path, "", "fileName", "numResponses", *VOTES):
        if number[:1] != VOICE:
            continue
        where = f"{path}: row {number} ({clip})"
        if not all(text.isdecimal() for text in (responses, *votes)):
            raise UserError(f"{where}: numResponses {responses!r}, votes {', '.join(votes)}: expected whole numbers")
        counts, raters = [int(text) for text in votes], int(responses)
        if not 0 < raters == sum(counts):
            raise UserError(f"{where}: numResponses is {raters}, the votes {', '.join(VOTES)} add up to {sum(counts)}")
        if clip in ratings:
            raise UserError(f"{where}: the second row of this clip's voice")
        ratings[clip] = tuple((name, c / raters) for name, c in zip(VOTES.values(), counts, strict=True)), raters
    return ratings


def _columns(path: Path, *names: str) -> list[tuple[str, ...]]:
    """These columns of a table of the distribution, row by row; empty without the file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file, restval="")
        lost = [name for name in names if name not in (reader.fieldnames or ())]
        if lost:
            raise UserError(f"{path}: no column {lost[0]!r}; needed: {', '.join(names)}")
        return [tuple(row[name] for name in names) for row in reader]
