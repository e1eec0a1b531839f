"""CaFE, the Canadian French Emotional speech database: 936 utterances, 12 actors, 6 sentences, 7 emotions."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.readers import tree

EMOTIONS = {
    "C": "anger",
    "D": "disgust",
    "J": "joy",
    "N": "neutral",
    "P": "fear",
    "S": "surprise",
    "T": "sadness",
}
ACTORS = {f"{number:02}": "male" if number % 2 else "female" for number in range(1, 13)}
SENTENCES = {
    "1": "Un cheval fou dans mon jardin.",
    "2": "Deux ânes aigris au pelage brun.",
    "3": "Trois cygnes aveugles au bord du lac.",
    "4": "Quatre vieilles truies éléphantesques.",
    "5": "Cinq pumas fiers et passionnés.",
    "6": "Six ours aimants domestiqués.",
}


def read(root: Path) -> Corpus:
    """Read the folder of one copy: `CaFE_48k` (wav), or the one that holds `CaFE_192k_1` and `CaFE_192k_2` (aiff).

    `Colère/Faible/01-C-1-1.wav` is actor, emotion letter, intensity (1 weak, 2 strong; `Neutre` has 1), sentence. Only
    the file names are read: unzipping can garble the accents of the folders, but must leave UTF-8. Odd actors are male;
    the sentences are the documentation's.
    UserError: no recording, two copies, a file name with an unknown actor, emotion letter or sentence.
    """
    paths = tree.find_recordings(root, "Joie/Faible/01-J-1-1.wav and 935 more", suffixes=(".wav", ".aiff", ".aif"))
    utterances, remarks = tree.take_once(_utterance(path) for path in paths)
    names = {"-".join(parts) for parts in product(ACTORS, EMOTIONS, "12", SENTENCES) if parts[1:3] != ("N", "2")}
    ids = {u.id for u in utterances}
    note = tree.describe_missing(ids, len(names), names - ids)
    return Corpus("cafe", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _utterance(path: Path) -> Utterance:
    match = tree.parse_name(path, r"(\d\d)-([A-Z])-[12]-(\d)", "01-C-1-1.wav", str.upper)
    actor, emotion, sentence = match.groups()
    return Utterance(
        id=match[0],
        audio=path,
        label=tree.look_up(path, "emotion", emotion, EMOTIONS),
        speaker=actor,
        sex=tree.look_up(path, "actor", actor, ACTORS),
        language="fr",
        text=tree.look_up(path, "sentence", sentence, SENTENCES),
    )
