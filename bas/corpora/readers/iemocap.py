"""IEMOCAP with the four classes of the literature: 5531 utterances, five sessions of two actors each."""

from __future__ import annotations

import re
from pathlib import Path

from bas.corpora.base import Corpus, Utterance, Word
from bas.corpora.folders import Names, walk
from bas.corpora.readers import tree
from bas.errors import UserError

UTTERANCES = 5531  # angry 1103, happy 1636, sad 1084, neutral 1708

LABELS: dict[str, str | None] = {"ang": "angry", "hap": "happy", "exc": "happy", "sad": "sad", "neu": "neutral"}
LABELS |= dict.fromkeys(("fru", "sur", "fea", "dis", "oth", "xxx"))  # left out
SEXES = {"F": "female", "M": "male"}

_TURN = re.compile(r"\[\s*[\d.]+\s*-\s*[\d.]+\]\t((Ses0[1-5])[FM]_((?:impro|script)\d\d)\w*_([FM])\w+)\t(\w+)\t")
_TRANSCRIPT = re.compile(r"(Ses\w+)\s+\[[^\]]*\]:\s*(.*)")


def read(root: Path) -> Corpus:
    """Read the release's folder, the one that holds `Session1` to `Session5`.

    Labels are the turn lines of `Session1/dialog/EmoEvaluation/Ses01F_impro01.txt`: ang, hap, sad and neu are kept,
    exc counts as happy, the other codes are left out. Audio is `Session1/sentences/wav/Ses01F_impro01/<turn>.wav`.
    Where present, text comes from `dialog/transcriptions` and word times (seconds, words in lower case) from
    `sentences/ForcedAlignment`. The speaker is the session and the sex of the turn: `Ses01F_impro01_M003` is Ses01M.
    The script is impro01 there, and script01 in `Ses01F_script01_1`. The note names sessions without labels.
    UserError: no label file, an unreadable turn line, an unknown emotion code, a labelled turn without its wav.
    """
    holds = "Session1 to Session5, each with dialog/EmoEvaluation/*.txt"
    names = Names()
    folders = {f"Session{k}": names.find(root, f"Session{k}", "dialog", "EmoEvaluation") for k in range(1, 6)}
    files = {name: sorted(walk(folder, (".txt",), 0)) for name, folder in folders.items() if folder.is_dir()}
    if not any(files.values()):
        raise UserError(f"{root}: no label file found; the folder holds {holds}")
    utterances = tuple(u for of_session in files.values() for file in of_session for u in _dialog(file, names))
    missing = [u.audio for u in utterances if not u.audio.is_file()]
    if missing:
        first = ", ".join(str(path) for path in missing[:3])
        raise UserError(f"{root}: {len(missing)} of {len(utterances)} labelled turns have no wav file; first: {first}")
    absent = {name for name in folders if not files.get(name)}
    note = tree.describe_missing((u.id for u in utterances), UTTERANCES, absent)
    return Corpus("iemocap", utterances, protocol="session", unit="session", note=note)


def _dialog(file: Path, names: Names) -> list[Utterance]:
    session_folder = file.parents[2]
    texts = _texts(names.find(session_folder, "dialog", "transcriptions", file.name))
    utterances = []
    for number, line in enumerate(file.read_text("utf-8", errors="replace").splitlines(), 1):
        if not line.startswith("["):  # the heading, a rater's line or an empty one
            continue
        match = _TURN.match(line)
        if match is None:
            raise UserError(f"{file} line {number}: not a turn; expected [start - end], turn, emotion code, [V, A, D]")
        turn, session, script, sex, code = match.groups()
        label = tree.look_up(f"{file} line {number}", "emotion code", code, LABELS)
        if label is None:
            continue
        dialog = turn.rpartition("_")[0]
        sentences = names.find(session_folder, "sentences")
        utterances.append(
            Utterance(
                id=turn,
                audio=names.find(sentences, "wav", dialog, f"{turn}.wav"),
                label=label,
                speaker=session + sex,
                sex=SEXES[sex],
                session=session,
                script=script,
                language="en",
                text=texts.get(turn),
                words=_words(names.find(sentences, "ForcedAlignment", dialog, f"{turn}.wdseg")),
            )
        )
    return utterances


def _texts(path: Path) -> dict[str, str]:
    """Text by turn. Lines of another form are the asides between turns, which carry no turn id."""
    if not path.is_file():
        return {}
    lines = path.read_text("utf-8", errors="replace").splitlines()
    matches = (_TRANSCRIPT.match(line) for line in lines)
    return {m[1]: m[2].strip() for m in matches if m is not None}


def _words(path: Path) -> tuple[Word, ...]:
    """The words of one alignment. A line is first and last frame (10 ms each), score, and word with variant number."""
    if not path.is_file():
        return ()
    words = []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1):
        cells = line.split()
        if not cells or cells[0] in ("SFrm", "Total"):
            continue
        if len(cells) != 4 or not (cells[0].isdecimal() and cells[1].isdecimal() and int(cells[0]) <= int(cells[1])):
            raise UserError(f"{path} line {number}: {line!r} is not first frame, last frame, score, word")
        if not cells[3].startswith(("<", "++")):
            text = re.sub(r"\(\d+\)$", "", cells[3]).lower()
            words.append(Word(int(cells[0]) / 100, (int(cells[1]) + 1) / 100, text))
    return tuple(words)
