"""EMOVO: 588 Italian utterances, 6 actors, 14 sentences, 7 emotions."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from bas.corpora.base import Corpus, Utterance
from bas.corpora.readers import tree

EMOTIONS = {
    "dis": "disgust",
    "gio": "joy",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
    "neu": "neutral",
}
ACTORS = {"f1": "female", "f2": "female", "f3": "female", "m1": "male", "m2": "male", "m3": "male"}
SENTENCES = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato ... ed è inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
}


def read(root: Path) -> Corpus:
    """Read the folder that holds `f1`, `f2`, `f3`, `m1`, `m2` and `m3`, one above it or one of these.

    `f1/dis-f1-b1.wav` is emotion, actor, sentence. The sentences are the documentation's.
    UserError: no recording, two copies, a file name with an unknown emotion, actor or sentence.
    """
    paths = tree.find_recordings(root, "f1/dis-f1-b1.wav and 587 more")
    utterances, remarks = tree.take_once(_utterance(path) for path in paths)
    names = {"-".join(parts) for parts in product(EMOTIONS, ACTORS, SENTENCES)}
    ids = {u.id for u in utterances}
    note = tree.describe_missing(ids, len(names), names - ids)
    return Corpus("emovo", utterances, protocol="speaker:5", unit="speaker", note=note, remarks=remarks)


def _utterance(path: Path) -> Utterance:
    match = tree.parse_name(path, r"([a-z]+)-([a-z]\d+)-([a-z]\d+)", "dis-f1-b1.wav", str.lower)
    emotion, actor, sentence = match.groups()
    return Utterance(
        id=match[0],
        audio=path,
        label=tree.look_up(path, "emotion", emotion, EMOTIONS),
        speaker=actor,
        sex=tree.look_up(path, "actor", actor, ACTORS),
        language="it",
        text=tree.look_up(path, "sentence", sentence, SENTENCES),
    )
