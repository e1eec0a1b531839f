"""RAVDESS, the speech part: 1440 English utterances, 24 actors, 2 sentences, 8 emotions."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.readers import tree
from bas.errors import UserError

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
SENTENCES = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
ACTORS = {f"{number:02}": "male" if number % 2 else "female" for number in range(1, 25)}


def read(root: Path) -> Corpus:
    """Read the folder that holds `Actor_01` to `Actor_24`, one above it or one of these.

    `Actor_01/03-01-05-02-01-01-01.wav` is modality (03: audio only), channel (01: speech), emotion, intensity,
    sentence, repetition, actor. Odd actors are male; the sentences are the documentation's. Songs (channel 02) and
    the sound of videos (modality 01 and 02) are left out.
    UserError: no recording or no speech, two copies, a file name with an unknown emotion, sentence or actor.
    """
    paths = tree.find_recordings(root, "Actor_01/03-01-01-01-01-01-01.wav and 1439 more")
    pattern, example = r"(0[1-3]-0[12])-(\d\d)-0[12]-(\d\d)-0[12]-(\d\d)", "03-01-05-02-01-01-01.wav"
    matches = {path: tree.parse_name(path, pattern, example) for path in paths}
    speech = [path for path in paths if matches[path][1] == "03-01"]
    if not speech:
        raise UserError(f"{root}: {len(paths)} recordings, but none of speech; name the folder that holds 03-01-*.wav")
    utterances, remarks = tree.take_once(_utterance(path, *matches[path].groups()[1:]) for path in speech)
    names = {
        "-".join(("03-01", *parts))
        for parts in product(EMOTIONS, ("01", "02"), SENTENCES, ("01", "02"), ACTORS)
        if parts[:2] != ("01", "02")  # neutral has no strong intensity
    }
    ids = {u.id for u in utterances}
    note = tree.describe_missing(ids, len(names), names - ids)
    return Corpus("ravdess", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _utterance(path: Path, emotion: str, sentence: str, actor: str) -> Utterance:
    return Utterance(
        id=path.stem,
        audio=path,
        label=tree.look_up(path, "emotion", emotion, EMOTIONS),
        speaker=actor,
        sex=tree.look_up(path, "actor", actor, ACTORS),
        language="en",
        text=tree.look_up(path, "sentence", sentence, SENTENCES),
    )
