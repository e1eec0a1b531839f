"""URDU (Latif et al. 2018): 400 utterances of Urdu talk shows, 4 emotions, published as of 38 speakers.

The file names know 29 speakers: SF1 to SF11, SM1 to SM7 and SM17 to SM27.
"""

from __future__ import annotations

from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.readers import tree

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
SEXES = {"F": "female", "M": "male"}

# By emotion, each speaker's number of utterances, in the order in which the emotion's files are numbered from 1 to 100.
SPOKEN = {
    "A": {"SM1": 22, "SM2": 28, "SM3": 2, "SM4": 48},
    "H": {"SF1": 12, "SF2": 2, "SF3": 2, "SF4": 4, "SF5": 4, "SF6": 14, "SF7": 6, "SF8": 2}
    | {"SM17": 2, "SM18": 2, "SM19": 2, "SM3": 2, "SM5": 8, "SM6": 10, "SM7": 28},
    "N": {"SF9": 4, "SM20": 10, "SM21": 4, "SM22": 2, "SM3": 8, "SM5": 72},
    "S": {"SF10": 2, "SF11": 4, "SM23": 6, "SM24": 38, "SM25": 40, "SM26": 2, "SM27": 4, "SM6": 4},
}
SPEAKERS = {speaker: SEXES[speaker[1]] for counts in SPOKEN.values() for speaker in counts}


def read(root: Path) -> Corpus:
    """Read the folder that holds `Angry`, `Happy`, `Neutral` and `Sad`.

    `Sad/SM24_F5_S017.wav` is speaker SM24 (SF female, SM male), file 5 of the speaker in that emotion, emotion letter S
    and the number among the emotion's files. The text is not distributed.
    UserError: no recording, another file name, an unknown speaker or emotion, a folder of another emotion.
    """
    paths = tree.find_recordings(root, "Angry/SM1_F1_A01.wav and 399 more in four folders", levels=1)
    utterances, remarks = tree.take_once(_utterance(path) for path in paths)
    released, ids = _released(), {u.id for u in utterances}
    note = tree.describe_missing(ids, len(released), released - ids)
    return Corpus("urdu", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _released() -> set[str]:
    names = set()
    for letter, counts in SPOKEN.items():
        takes = [(speaker, take) for speaker, count in counts.items() for take in range(1, count + 1)]
        names |= {f"{speaker}_F{take}_{letter}0{number}" for number, (speaker, take) in enumerate(takes, 1)}
    return names


def _utterance(path: Path) -> Utterance:
    match = tree.parse_name(path, r"(\w+)_F\d+_([A-Z])\d+", "SM24_F5_S017.wav", str.upper)
    speaker, letter = match.groups()
    return Utterance(
        id=match[0],
        audio=path,
        label=tree.check_folder(path, tree.look_up(path, "emotion letter", letter, EMOTIONS)),
        speaker=speaker,
        sex=tree.look_up(path, "speaker", speaker, SPEAKERS),
        language="ur",
    )
