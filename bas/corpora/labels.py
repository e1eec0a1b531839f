"""One vocabulary for the labels of all corpora, for comparisons across corpora.

Readers keep the words of their distribution; nothing is renamed unless `relabel` is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from bas.corpora.base import Corpus
from bas.errors import UserError

_WORDS = {
    "anger": ("anger", "angry"),
    "disgust": ("disgust",),
    "fear": ("fear", "fearful"),
    "happiness": ("happiness", "happy", "joy"),
    "neutral": ("neutral",),
    "sadness": ("sadness", "sad"),
    "surprise": ("surprise", "surprised"),
    None: ("boredom", "calm"),  # no counterpart among the seven
}
_FOUR = ("anger", "happiness", "neutral", "sadness")

# By scheme: what each label of a reader becomes, None where the scheme has no label for it.
SCHEMES: Mapping[str, Mapping[str, str | None]] = {
    "common": {word: common for common, words in _WORDS.items() for word in words},
    "four": {word: common if common in _FOUR else None for common, words in _WORDS.items() for word in words},
}


def relabel(corpus: Corpus, scheme: str) -> Corpus:
    """The corpus with the labels of `scheme`; its note names the scheme and counts the labels that were left out.

    An utterance that is left out stays in the corpus without a label. UserError: an unknown scheme, or a label that
    the scheme does not know.
    """
    if scheme not in SCHEMES:
        raise UserError(f"labels: unknown scheme {scheme!r}; allowed: {', '.join(SCHEMES)}")
    table = SCHEMES[scheme]
    out: Counter[str] = Counter()
    utterances = []
    for utterance in corpus.utterances:
        label = utterance.label
        if label is not None:
            if label not in table:
                raise UserError(
                    f"corpus {corpus.name}: labels {scheme} do not know {label!r} of utterance {utterance.id!r}; "
                    f"allowed: {', '.join(table)}"
                )
            if table[label] is None:
                out[label] += 1
            utterance = replace(utterance, label=table[label])
        utterances.append(utterance)
    note = f"labels {scheme}"
    if out:
        note += f": {', '.join(f'{count} {label}' for label, count in sorted(out.items()))} left out"
    return replace(
        corpus, utterances=tuple(utterances), labels=scheme, note="; ".join(filter(None, (corpus.note, note)))
    )
