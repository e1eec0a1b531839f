"""Segments of utterances: their words, and random segments of the same lengths as a control.

Axes: T frames and W segments of one utterance. Times are seconds from the beginning of the utterance.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from bas.corpora import Utterance, Word
from bas.errors import UserError
from bas.speech import audio

SOURCES = ("corpus", "aligned", "pseudo")
NAMES = ("words", "random")
NAMED = 3  # utterances that a remark names
PSEUDO_SECONDS = 0.3  # of a pseudo-segment: about the length of a spoken word


class UnalignedError(UserError):
    """The text or the words of one utterance do not fit its recording; the message says why, without their names."""


@dataclass(frozen=True)
class Segments:
    """The segments of each utterance, and where they are from."""

    name: str  # one of NAMES
    of: Mapping[str, tuple[Word, ...]]  # by utterance id, in order of time; never empty for an utterance
    source: Mapping[str, str]  # by utterance id, one of SOURCES
    unaligned: Mapping[str, str] = field(default_factory=dict, compare=False)  # by id, why its text or words do not fit

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
        unaligned = {i: self.unaligned[i] for i in ids if i in self.unaligned}
        return Segments(self.name, {i: self.of[i] for i in ids}, {i: self.source[i] for i in ids}, unaligned)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `parse` reads it. Without `unaligned`."""
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
    aligner, without a text, or where the aligner finds no word or raises UnalignedError, the whole utterance is cut
    into pseudo-segments of about PSEUDO_SECONDS with the text "". on_progress: called after each utterance.

    A word that ends after the utterance is cut off at its end; where one begins at the end or later, the times are of
    another recording, and the utterance is cut into pseudo-segments. Raises UserError where that is so of all that have
    word times, and for a recording whose header cannot be read, before any is aligned; and whatever else the aligner
    raises.
    """
    seconds = {u.id: audio.duration(u) for u in utterances}
    of: dict[str, tuple[Word, ...]] = {}
    source: dict[str, str] = {}
    unaligned: dict[str, str] = {}
    for u in utterances:
        try:
            of[u.id], source[u.id] = _in_order(u.words, seconds[u.id]), "corpus"
        except UnalignedError as error:
            of[u.id], source[u.id], unaligned[u.id] = (), "pseudo", str(error)
    _check_any(utterances, unaligned)
    for utterance in utterances:
        id_ = utterance.id
        if not of[id_] and id_ not in unaligned and aligner is not None and (utterance.text or "").strip():
            try:
                of[id_], source[id_] = _in_order(aligner(utterance), seconds[id_]), "aligned"
            except UnalignedError as error:
                unaligned[id_] = str(error)
        if not of[id_]:
            of[id_], source[id_] = _pseudo(seconds[id_]), "pseudo"
        on_progress()
    return Segments("words", of, source, unaligned)


def describe_unaligned(unaligned: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence on the texts and word times that do not fit, without its full stop; none where all do.

    unaligned: why, by utterance id.
    """
    if not unaligned:
        return ()
    count = "1 utterance is" if len(unaligned) == 1 else f"{len(unaligned)} utterances are"
    named = ", ".join(f"{id_} ({why})" for id_, why in list(unaligned.items())[:NAMED])
    more = f" and {len(unaligned) - NAMED} more" if len(unaligned) > NAMED else ""
    return (f"{count} cut into pseudo-segments, as the text or its times do not fit the recording: {named}{more}",)


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


def _check_any(utterances: Sequence[Utterance], misfits: Mapping[str, str]) -> None:
    """UserError where the word times of all utterances that have some are misfits. misfits: why, by id."""
    timed = [u for u in utterances if u.words]
    if timed and len(misfits) == len(timed):
        first = timed[0]
        count = f"so it is with all {len(timed)} utterances that have word times" if len(timed) > 1 else ""
        remedy = "are its word times of another recording, or not in seconds?"
        raise UserError("; ".join(filter(None, (f"{first.audio}: {first.id}: {misfits[first.id]}", count, remedy))))


def _in_order(words: Sequence[Word], seconds: float) -> tuple[Word, ...]:
    return tuple(_clip(word, seconds) for word in sorted(words, key=lambda w: w.start))


def _clip(word: Word, seconds: float) -> Word:
    if word.start >= seconds:
        message = f"the word {word.text!r} begins at {word.start:g} s, but the utterance is {seconds:.2f} s long"
        raise UnalignedError(message)
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
