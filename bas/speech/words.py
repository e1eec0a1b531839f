"""Which stretches of each utterance are its words, and random stretches of the same lengths as a control.

T frames of one utterance, W stretches of one utterance. Times are seconds from the beginning of the utterance.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bas.corpora import Utterance, Word
from bas.errors import UserError
from bas.speech import audio

SOURCES = ("corpus", "aligned", "pseudo")
NAMES = ("words", "random")
PSEUDO_SECONDS = 0.3  # of a pseudo-segment, about: a spoken word, within sentences


@dataclass(frozen=True)
class Segments:
    """The stretches of each utterance, and where they are from."""

    name: str  # one of NAMES
    of: Mapping[str, tuple[Word, ...]]  # by utterance id, in order of time; never empty for an utterance
    source: Mapping[str, str]  # by utterance id, one of SOURCES

    def __post_init__(self) -> None:
        assert self.name in NAMES, self.name
        assert self.of.keys() == self.source.keys(), "each utterance has one source"
        assert set(self.source.values()) <= set(SOURCES), set(self.source.values())
        for id_, words in self.of.items():
            assert words, id_
            assert all(0 <= w.start < w.end for w in words), id_
            assert all(a.start <= b.start for a, b in pairwise(words)), id_

    @property
    def digest(self) -> str:
        """A short hash of all of it, whatever the order of the utterances."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def counts(self) -> dict[str, int]:
        """How many utterances have their stretches from each of SOURCES."""
        found = Counter(self.source.values())
        return {name: found[name] for name in SOURCES}

    def only(self, ids: Collection[str]) -> Segments:
        """Those of these utterances. KeyError for one that has none."""
        return Segments(self.name, {i: self.of[i] for i in ids}, {i: self.source[i] for i in ids})

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; `parse` reads it."""
        of = {id_: [[w.start, w.end, w.text] for w in words] for id_, words in self.of.items()}
        return {"name": self.name, "of": of, "source": dict(self.source)}

    @classmethod
    def parse(cls, raw: Any) -> Segments:
        """What `as_dict` gave. ValueError where it is anything else."""
        try:
            of = {id_: tuple(Word(a, b, text) for a, b, text in words) for id_, words in raw["of"].items()}
            return cls(raw["name"], of, raw["source"])
        except (TypeError, KeyError, ValueError, AttributeError, AssertionError) as error:
            raise ValueError(f"no segments: {error}") from error


def word_segments(
    utterances: Sequence[Utterance],
    aligner: Callable[[Utterance], tuple[Word, ...]] | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Segments:
    """The words of each utterance: the corpus's own times; else the aligner's; else equal pseudo-segments.

    aligner: asked for an utterance with a text and without word times (`bas.encoders.aligner.Aligner`). Where it finds
    no word, as where there is none or no text, the whole utterance is cut into stretches of about PSEUDO_SECONDS, whose
    text is "". on_progress: called after each utterance.

    A word that goes on beyond the utterance's end is cut off there. Raises UserError for one that begins there or
    later, for a recording whose header cannot be read, and what the aligner refuses.
    """
    of: dict[str, tuple[Word, ...]] = {}
    source: dict[str, str] = {}
    for utterance in utterances:
        seconds = audio.duration(utterance)
        words, origin = utterance.words, "corpus"
        if not words and aligner is not None and (utterance.text or "").strip():
            words, origin = aligner(utterance), "aligned"
        if not words:
            words, origin = _pseudo(seconds), "pseudo"
        of[utterance.id] = tuple(_clipped(utterance, word, seconds) for word in sorted(words, key=lambda w: w.start))
        source[utterance.id] = origin
        on_progress()
    return Segments("words", of, source)


def random_like(segments: Segments, seconds: Mapping[str, float], seed: int = 0) -> Segments:
    """By utterance, as many stretches of the same lengths in another order, at random places without overlap.

    The silence of an utterance is dealt out before, between and behind them by uniform cuts (a flat Dirichlet), so that
    every placement of that order is as likely. An utterance's places hang on `seed` and its id alone. Where words
    overlap so much that their lengths exceed the utterance, all are shortened alike. Where the stretches fill the
    utterance and are of one length, as pseudo-segments are, nothing is left to chance: they stay where they were.

    seconds: the utterances' durations by id. The texts are "": no stretch is a word.
    """
    of = {id_: _strewn(words, seconds[id_], id_, seed) for id_, words in segments.of.items()}
    return Segments("random", of, dict(segments.source))


def holder(times_T: npt.NDArray[np.float64], words: Sequence[Word]) -> npt.NDArray[np.int64]:
    """`(T,)`: the index of the word that holds each time (start <= time < end), the first of several; -1 for none."""
    if not words:
        return np.full(len(times_T), -1)
    starts_W, ends_W = (np.array([getattr(w, name) for w in words]) for name in ("start", "end"))
    inside_TW = (starts_W <= times_T[:, None]) & (times_T[:, None] < ends_W)
    return np.where(inside_TW.any(1), inside_TW.argmax(1), -1)


def _pseudo(seconds: float) -> tuple[Word, ...]:
    count = max(1, round(seconds / PSEUDO_SECONDS))
    edges = np.linspace(0, seconds, count + 1).tolist()
    return tuple(Word(a, b, "") for a, b in pairwise(edges))


def _clipped(utterance: Utterance, word: Word, seconds: float) -> Word:
    if word.start >= seconds:
        told = f"the word {word.text!r} begins at {word.start:g} s, but the utterance is {seconds:.2f} s long"
        raise UserError(f"{utterance.audio}: {utterance.id}: {told}; its word times are of another recording, or wrong")
    return Word(word.start, min(word.end, seconds), word.text)


def _strewn(words: Sequence[Word], seconds: float, id_: str, seed: int) -> tuple[Word, ...]:
    rng = np.random.default_rng([seed, zlib.crc32(id_.encode())])
    lengths_W = rng.permutation([w.end - w.start for w in words])
    lengths_W *= min(1.0, seconds / lengths_W.sum())
    silence = max(0.0, seconds - lengths_W.sum())
    cuts_W = np.sort(rng.uniform(0, silence, len(words)))  # the silence before each of them
    edges = np.cumsum([0.0, *lengths_W])
    starts_W, ends_W = cuts_W + edges[:-1], np.minimum(cuts_W + edges[1:], seconds)
    return tuple(Word(a, b, "") for a, b in zip(starts_W.tolist(), ends_W.tolist(), strict=True))
