"""A corpus with a value in every field, to be written and read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bas.corpora import Corpus, Utterance, Word


def rich(folder: Path) -> Corpus:
    """Of everything something: known and not, whole recordings and parts, below the folder and beside it."""
    for name in ("in/a b.wav", "in/ä.wav", "beside.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    first = Utterance(
        *("x/1", folder / "in/a b.wav", "joy", "03", "d1", "train", "de", 'Er sagte "ja, nein";\r\nund ging. '),
        *("s1", "female", (("joy", 0.75), ("fear", 0.0)), 20, (Word(0.1, 0.30000000000000004, "Er"),), 0.25, 1.1),
    )
    others = (
        replace(
            first, id="2", label="no", sex=None, language=None, shares=(), raters=None, words=(), start=1.1, end=None
        ),
        replace(first, id="3", audio=folder / "in/ä.wav", label=None, speaker="none", sex="male", split="valid"),
        Utterance("4", folder / "beside.wav"),
        Utterance("5", folder / "beside.wav", speaker="na", split="test", language="Swiss German", start=0.5),
    )
    return Corpus("rich", (first, *others), protocol="session", unit="session", note="a note")
