"""AESDD, the Acted Emotional Speech Dynamic Database: 605 Greek recordings, 6 actors, 20 utterances, 5 emotions."""

from __future__ import annotations

from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.readers import tree

EMOTIONS = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"}
SPEAKERS = {str(n): str(n) for n in range(1, 7)}
SENTENCES = {f"{n:02}": f"{n:02}" if n < 20 else None for n in range(1, 21)}  # the last one is improvised

# Every actor said every utterance in every emotion. The distribution lacks three of these recordings, and speaker 5 has
# a second take of eight; the takes of s01 are named a and b.
ABSENT = {"d18 (5)", "f02 (4)", "h11 (3)", "s01 (5)"}
FURTHER = {f"{take} (5)b" for take in ("a06", "d01", "d03", "d04", "f18", "s01", "s02", "s04")} | {"s01 (5)a"}
RELEASED = {f"{e}{s} ({n})" for e in EMOTIONS for s in SENTENCES for n in SPEAKERS} - ABSENT | FURTHER


def read(root: Path) -> Corpus:
    """Read the folder that holds `anger`, `disgust`, `fear`, `happiness` and `sadness`.

    `anger/a03 (4).wav` is emotion letter a, utterance 03, speaker 4; speaker 1 is also spelt `(01)`. `a06 (5)b.wav`
    is a further take. The text is the utterance's number, as the sentences are not distributed; 20 is improvised and
    has none. The actors' sexes are not documented. The distribution's `s05 (3).wav` cannot be decoded.
    UserError: no recording, another file name, an unknown letter, utterance or speaker, a folder of another emotion.
    """
    paths = tree.find_recordings(root, "anger/a01 (1).wav and 604 more in five folders", levels=1)
    takes = [_utterance(path) for path in paths]
    names = {name for name, _ in takes}
    utterances, remarks = tree.take_once(u for _, u in takes)
    note = tree.describe_missing(names, len(RELEASED), RELEASED - names)
    return Corpus("aesdd", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _utterance(path: Path) -> tuple[str, Utterance]:
    """The name in RELEASED, and the utterance."""
    match = tree.parse_name(path, r"(\w)(\d\d) \(0?(\d)\)([ab]?)", "a03 (4).wav", str.lower)
    letter, sentence, number, take = match.groups()
    speaker = tree.look_up(path, "speaker", number, SPEAKERS)
    return f"{letter}{sentence} ({number}){take}", Utterance(
        id=match[0],
        audio=path,
        label=tree.check_folder(path, tree.look_up(path, "emotion letter", letter, EMOTIONS)),
        speaker=speaker,
        language="el",
        text=tree.look_up(path, "utterance number", sentence, SENTENCES),
    )
