"""EmoDB, the Berlin Database of Emotional Speech: 535 utterances, 10 actors, 10 German sentences, 7 emotions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bas.corpora.base import Corpus, Utterance, Word
from bas.corpora.folders import Names, walk
from bas.corpora.readers import tree
from bas.errors import UserError

UTTERANCES = 535

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}

SPEAKERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}

# A hyphen parts the syllables as the label files count them ("gehen" is one label in b09 and two in b02).
# a05 is printed with "Stück Papier" in the corpus description, but the phone and syllable labels of all 62
# takes have "Blatt", and that is what is heard.
SENTENCES = {
    "a01": "Der Lap-pen liegt auf dem Eis-schrank.",
    "a02": "Das will sie am Mitt-woch ab-ge-ben.",
    "a04": "Heu-te a-bend könn-te ich es ihm sa-gen.",
    "a05": "Das schwar-ze Blatt Pa-pier be-fin-det sich da o-ben ne-ben dem Holz-stück.",
    "a07": "In sie-ben Stun-den wird es so-weit sein.",
    "b01": "Was sind denn das für Tü-ten, die da un-ter dem Tisch ste-hen?",
    "b02": "Sie ha-ben es ge-ra-de hoch-ge-tra-gen und jetzt ge-hen sie wie-der run-ter.",
    "b03": "An den Wo-chen-en-den bin ich jetzt im-mer nach Hau-se ge-fah-ren und ha-be Ag-nes be-sucht.",
    "b09": "Ich will das e-ben weg-brin-gen und dann mit Karl was trin-ken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie im-mer hin-le-gen.",
}

Ratings = tuple[tuple[tuple[str, float], ...], int]
"""Shares of listeners, and the number of listeners."""

COLUMNS = ("Nr.", "Satz", "erkannt", "natuerlich")  # of erkennung.txt
LISTENERS = (20, 21)  # "20 subjects" says erklaerung.txt, but the percentages of all takes of b03 are of 21


def read(root: Path) -> Corpus:
    """Read the folder that holds `wav/` (and beside it `silb/` and `erkennung.txt`), or `wav/` itself.

    `wav/03a01Fa.wav` is speaker 03, sentence a01, emotion letter F, take a. Word times (seconds) come from
    `silb/03a01Fa.silb`; an utterance without that file, or whose syllables do not fit the sentence, has no words.
    A take that `silb` names and `wav` lacks is missing; the other label folders also name takes that were never
    distributed. The sexes are those in the corpus description's table of speakers.
    `erkennung.txt`, where it exists, has the shares of listeners to whom a take sounded natural and who recognised the
    intended emotion. "natural" comes first: the distributed takes are those that 80 % or more recognised, which leaves
    little to predict; the rest of the list is not read.
    UserError: no recording, a file name with an unknown speaker, sentence or emotion, a syllable line that is no time
    and label, a line of `erkennung.txt` that is not number, take and two percentages of its listeners.
    """
    names = Names()
    wav = names.find(root, "wav")
    wav = wav if wav.is_dir() else root
    silb = names.find(wav.parent, "silb")
    paths = tree.find_recordings(wav, "03a01Fa.wav and 534 more", levels=0)
    labels = {_spell(path.stem): path for path in (walk(silb, (".silb",), 0) if silb.is_dir() else ())}
    ratings = _read_ratings(names.find(wav.parent, "erkennung.txt"))
    utterances, remarks = tree.take_once(_utterance(path, labels, ratings) for path in paths)
    ids = {u.id for u in utterances}
    note = tree.describe_missing(ids, UTTERANCES, labels.keys() - ids)
    return Corpus(
        "emodb",
        utterances,
        protocol="speaker:5",
        unit="speaker",
        headlines=("WA", "Spearman natural"),
        chosen_by=("recognised",),
        note=note,
        remarks=remarks,
    )


def _spell(name: str) -> str:
    """The name in the case of the distribution: the emotion letter alone is upper case."""
    return name[:5].lower() + name[5:6].upper() + name[6:].lower()


def _utterance(path: Path, labels: Mapping[str, Path], ratings: Mapping[str, Ratings]) -> Utterance:
    pattern = r"(\d\d)([a-z]\d\d)([A-Z])[a-z]"
    match = tree.parse_name(path, pattern, "03a01Fa.wav (speaker, sentence, emotion, take)", _spell)
    speaker, code, letter = match.groups()
    sentence = tree.look_up(path, "sentence code", code, SENTENCES)
    shares, raters = ratings.get(match[0], ((), None))
    return Utterance(
        id=match[0],
        audio=path,
        label=tree.look_up(path, "emotion letter", letter, EMOTIONS),
        speaker=speaker,
        sex=tree.look_up(path, "speaker", speaker, SPEAKERS),
        language="de",
        text=sentence.replace("-", ""),
        shares=shares,
        raters=raters,
        words=_words(labels[match[0]], sentence) if match[0] in labels else (),
    )


def _read_ratings(path: Path) -> dict[str, Ratings]:
    """The ratings of each take; empty without the file.

    The file is in Latin-1, with tabs between the columns, no-break spaces after the numbers, and decimal commas.
    """
    if not path.is_file():
        return {}
    with path.open(encoding="latin-1") as file:
        lines = [tuple(field.strip() for field in line.split("\t")) for line in file]
    if lines[:1] != [COLUMNS]:
        raise UserError(f"{path} line 1: must be the columns {', '.join(COLUMNS)}, with tabs between")
    ratings: dict[str, Ratings] = {}
    for number, fields in enumerate(lines[1:], 2):
        if not any(fields):
            continue
        where = f"{path} line {number}"
        if len(fields) != len(COLUMNS):
            raise UserError(f"{where}: {len(fields)} fields; expected {', '.join(COLUMNS)}, with tabs between")
        _, take, recognised, natural = fields
        if not take.endswith(".wav") or take[:-4] in ratings:
            raise UserError(f"{where}: {COLUMNS[1]} is {take!r}; expected a take such as 03a01Fa.wav, each once")
        percents = [_percent(f"{where}: {name}", text) for name, text in zip(COLUMNS[2:], fields[2:], strict=True)]
        listeners = [n for n in LISTENERS if all(round(_count(p, n) * 100 / n, 2) == p for p in percents)]
        if not listeners:
            message = f"{COLUMNS[2]} {recognised} and {COLUMNS[3]} {natural}"
            raise UserError(
                f"{where}: {message} are not the percentages of {' or '.join(map(str, LISTENERS))} listeners"
            )
        raters = listeners[0]
        of_recognised, of_natural = (_count(p, raters) / raters for p in percents)
        ratings[take[:-4]] = (("natural", of_natural), ("recognised", of_recognised)), raters
    return ratings


def _percent(where: str, text: str) -> float:
    try:
        percent = float(text.replace(",", "."))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise UserError(f"{where} is {text!r}; expected a percentage of 0 to 100")
    return percent


def _count(percent: float, listeners: int) -> int:
    return round(percent * listeners / 100)


def _words(path: Path, sentence: str) -> tuple[Word, ...]:
    """The sentence's words with their times, or () where the file's syllables do not fit the sentence.

    A line's time is where its syllable STARTS: the first equals the start of the first phone in the corpus's
    phone labels, the final "." is where the speech ends, and "(" starts a pause.
    """
    lines: list[tuple[float, str]] = []
    for number, line in enumerate(path.read_text("latin-1").splitlines(), 1):
        if not line.strip():
            continue
        try:
            time, label = line.split()
            lines.append((float(time), label))
        except ValueError:
            raise UserError(f"{path} line {number}: {line!r} is not a time in seconds and a label") from None
    if not lines or lines[-1][1] != ".":
        return ()
    starts = [start for start, _ in lines]
    spans = [(a, b, label) for (a, label), b in zip(lines, starts[1:], strict=False) if label != "("]
    words = sentence.split()
    if len(spans) != sum(word.count("-") + 1 for word in words):
        return ()
    timed: list[Word] = []
    for word in words:
        syllables = [spans.pop(0) for _ in range(word.count("-") + 1)]
        text = word.replace("-", "").strip(".,?")
        start, end, label = syllables[0][0], syllables[-1][1], syllables[0][2]
        # Spoken forms differ ("könnt te", "ak nis", "s" for "es"), so only the first sound is checked.
        if end <= start or label[0].lower() not in text.lower():
            return ()
        timed.append(Word(start, end, text))
    return tuple(timed) if starts == sorted(starts) else ()
