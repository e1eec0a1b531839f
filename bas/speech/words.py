"""Segments of utterances: their words, and random segments of the same lengths as a control.

Axes: T frames and W segments of one utterance. Times are seconds from the beginning of the utterance.
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
PSEUDO_SECONDS = 0.3  # of a pseudo-segment: about the length of a spoken word


@dataclass(frozen=True)
class Segments:
    """The segments of each utterance, and where they are from."""

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
        """A short hash of everything, independent of the order of the utterances."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def counts(self) -> dict[str, int]:
        """The number of utterances by source."""
        counts = Counter(self.source.values())
        return {name: counts[name] for name in SOURCES}

    def only(self, ids: Collection[str]) -> Segments:
        """The segments of these utterances alone. KeyError for an utterance that has none."""
        return Segments(self.name, {i: self.of[i] for i in ids}, {i: self.source[i] for i in ids})

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `parse` reads it."""
        of = {id_: [[w.start, w.end, w.text] for w in words] for id_, words in self.of.items()}
        return {"name": self.name, "of": of, "source": dict(self.source)}

    @classmethod
    def parse(cls, raw: Any) -> Segments:
        """The segments of which `raw` is the `to_dict`. ValueError where it is anything else."""
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

    aligner: called for each utterance that has a text but no word times (`bas.encoders.aligner.Aligner`). Without an
    aligner, without a text, or where the aligner finds no word, the whole utterance is cut into pseudo-segments of
    about PSEUDO_SECONDS with the text "". on_progress: called after each utterance.

    A word that ends after the utterance is cut off at its end. Raises UserError for a word that begins at the end or
    later, for a recording whose header cannot be read, and whatever the aligner raises.
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
        of[utterance.id] = tuple(_clip(utterance, word, seconds) for word in sorted(words, key=lambda w: w.start))
        source[utterance.id] = origin
        on_progress()
    return Segments("words", of, source)


def random_like(segments: Segments, seconds: Mapping[str, float], seed: int = 0) -> Segments:
    """For each utterance as many segments of the same lengths, shuffled, at random places without overlap.

    The utterance's silence is divided before, between and after the segments by uniform cuts (a flat Dirichlet): every
    placement of the shuffled order is equally likely. The places depend on `seed` and the utterance's id alone. Where
    the words overlap so much that their lengths exceed the utterance, all are shortened by one factor. Segments of
    one length that fill the utterance, such as pseudo-segments, stay in place.

    seconds: the utterances' durations by id. The segments' texts are "".
    """
    of = {id_: _scatter(words, seconds[id_], id_, seed) for id_, words in segments.of.items()}
    return Segments("random", of, dict(segments.source))


def holder(times_T: npt.NDArray[np.float64], words: Sequence[Word]) -> npt.NDArray[np.int64]:
    """`(T,)`: the index of the first word that contains each time (start <= time < end); -1 for none."""
    if not words:
        return np.full(len(times_T), -1)
    starts_W, ends_W = (np.array([getattr(w, name) for w in words]) for name in ("start", "end"))
    inside_TW = (starts_W <= times_T[:, None]) & (times_T[:, None] < ends_W)
    return np.where(inside_TW.any(1), inside_TW.argmax(1), -1)


def _pseudo(seconds: float) -> tuple[Word, ...]:
    count = max(1, round(seconds / PSEUDO_SECONDS))
    edges = np.linspace(0, seconds, count + 1).tolist()
    return tuple(Word(a, b, "") for a, b in pairwise(edges))


def _clip(utterance: Utterance, word: Word, seconds: float) -> Word:
    if word.start >= seconds:
        message = f"the word {word.text!r} begins at {word.start:g} s, but the utterance is {seconds:.2f} s long"
        raise UserError(f"{utterance.audio}: {utterance.id}: {message}; are its word times of another recording?")
    return Word(word.start, min(word.end, seconds), word.text)


def _scatter(words: Sequence[Word], seconds: float, id_: str, seed: int) -> tuple[Word, ...]:
    rng = np.random.default_rng([seed, zlib.crc32(id_.encode())])
    lengths_W = rng.permutation([w.end - w.start for w in words])
    lengths_W *= min(1.0, seconds / lengths_W.sum())
    silence = max(0.0, seconds - lengths_W.sum())
    cuts_W = np.sort(rng.uniform(0, silence, len(words)))  # the silence before each of them
    edges = np.cumsum([0.0, *lengths_W])
    starts_W, ends_W = cuts_W + edges[:-1], np.minimum(cuts_W + edges[1:], seconds)
    return tuple(Word(a, b, "") for a, b in zip(starts_W.tolist(), ends_W.tolist(), strict=True))
