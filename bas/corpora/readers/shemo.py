"""ShEMO, the Sharif Emotional Speech Database: 3000 Persian utterances of radio plays, 87 speakers, 6 emotions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.readers import tree

EMOTIONS = {"A": "anger", "F": "fear", "H": "happiness", "N": "neutral", "S": "sadness", "W": "surprise"}
SEXES = {"F": "female", "M": "male"}
SPEAKERS = {f"{sex}{n:02}": f"{sex}{n:02}" for sex, count in (("F", 31), ("M", 56)) for n in range(1, count + 1)}
PUBLISHED = {"anger": 1059, "fear": 38, "happiness": 201, "neutral": 1028, "sadness": 449, "surprise": 225}


def read(root: Path) -> Corpus:
    """Read the folder that holds `female` and `male`, or all recordings in one.

    `female/F21N05.wav` is speaker F21 (F female, M male), emotion letter N, the fifth of the speaker in that emotion.
    Label and sex are those of the file's name; the transcripts of the distribution's json file are not read. The names
    do not give the number of recordings of each speaker, so the note counts the missing ones by emotion.
    UserError: no recording, two copies, another file name, an unknown speaker or emotion, a folder of the other sex.
    """
    holds = "female/F01A01.wav and male/M01A01.wav, 3000 in all"
    utterances, remarks = tree.take_once(_utterance(path) for path in tree.find_recordings(root, holds))
    counts = Counter(u.label for u in utterances)
    missing = [f"{e}: {n - counts[e]} of {n}" for e, n in PUBLISHED.items() if counts[e] < n]
    note = tree.describe_missing((u.id for u in utterances), sum(PUBLISHED.values()), missing)
    return Corpus("shemo", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _utterance(path: Path) -> Utterance:
    match = tree.parse_name(path, r"(\w\d\d)(\w)\d\d", "F21N05.wav", str.upper)
    speaker, letter = match.groups()
    sex = SEXES[tree.look_up(path, "speaker", speaker, SPEAKERS)[0]]
    return Utterance(
        id=match[0],
        audio=path,
        label=tree.look_up(path, "emotion letter", letter, EMOTIONS),
        speaker=speaker,
        sex=tree.check_folder(path, sex) if path.parent.name.lower() in SEXES.values() else sex,
        language="fa",
    )
