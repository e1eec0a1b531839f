"""Recordings that are there under several names: equal samples, whatever the file or the lossless format."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial

from bas.corpora import Utterance
from bas.speech import audio
from bas.util.threads import in_threads

THREADS = 4
EXCERPT = 0.5  # seconds at the beginning, by which most are told apart

Found = tuple[list[tuple[str, ...]], list[str]]
"""Groups of ids with equal samples, and the ids that cannot be read."""
Compare = Callable[[Sequence[Utterance]], Found]
"""What finds the same samples among utterances: `same_samples`, or what knows them already."""


def same_samples(utterances: Sequence[Utterance]) -> Found:
    """Compare the utterances' samples: length and beginning of all, and the whole of those that are alike so far."""
    unread: list[str] = []
    alike: list[Sequence[Utterance]] = [utterances]
    for look in (partial(audio.fingerprint, seconds=EXCERPT), audio.fingerprint):
        members = [(index, u) for index, group in enumerate(alike) for u in group]
        found: dict[tuple[int, str], list[Utterance]] = defaultdict(list)
        answers = in_threads(look, [u for _, u in members], threads=THREADS)
        for (index, u), answer in zip(members, answers, strict=True):
            if answer is None:
                unread.append(u.id)
            else:
                found[index, answer].append(u)
        alike = [group for group in found.values() if len(group) > 1]
    return sorted(tuple(sorted(u.id for u in group)) for group in alike), sorted(unread)
