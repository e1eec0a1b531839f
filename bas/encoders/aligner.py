"""When each word of a transcript was said: CTC forced alignment with a speech recogniser of `transformers`.

The transcript's letters are assigned to frames along the most likely path (Viterbi over CTC's states: Graves et al.
2006, section 4; Kürzinger et al. 2020, arXiv 2007.09127, section 2). A word lasts from the first frame of its first
letter to the last frame of its last letter. This is a little too short, as a recogniser emits each letter briefly, with
blanks around it.

Axes: T frames of one utterance, C classes of the recogniser (letters, blank and marks), W words of one utterance,
L letters of all its words, with the delimiters between them, S = 2 L + 1 states: a blank, then each letter and a blank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bas.corpora import Utterance, Word
from bas.encoders.base import freeze
from bas.encoders.opening import cached_first, check_config, refuse_pointers
from bas.errors import UserError, first_line
from bas.speech import audio
from bas.speech.words import UnalignedError
from bas.util.faults import raise_memory
from bas.util.reading import check_folder

TRANSLITERATED = {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "ø": "oe", "å": "aa", "œ": "oe", "ł": "l"}
SHORTEST = 1_600  # samples: of fewer a model may make no frame, and fail
Span = tuple[int, int]  # first frame, and the one after the last


class Aligner:
    """A CTC model with a vocabulary of letters, by hub name or local folder (`facebook/wav2vec2-base-960h`).

    Called with an utterance that has a text, it returns the words of the text with their times; () where no word has a
    letter in the model's vocabulary. The text is split into words at blanks; punctuation around a word is removed, and
    punctuation alone is no word. A letter that the vocabulary lacks is tried in lower and upper case, then
    transliterated (`letters`), else left out. Utterances are encoded one at a time, without padding, which some models'
    normalisation would include.

    Raises UserError for a model that cannot be loaded, lacks weights or has no vocabulary of letters; a call raises it
    for a recording that cannot be read, and UnalignedError for a text with more letters than its frames can spell.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._model, self._extractor, tokenizer = _load(name, device)
        self._device = device
        self._blank = int(tokenizer.pad_token_id)
        vocabulary = tokenizer.get_vocab()
        self._letters = {token: int(i) for token, i in vocabulary.items() if len(token) == 1 and _is_kind(token, "LM")}
        self._letters |= {mark: int(vocabulary[mark]) for mark in "'-" if mark in vocabulary}
        delimiter = vocabulary.get(tokenizer.word_delimiter_token)
        self._delimiter = None if delimiter is None else int(delimiter)
        if not self._letters or self._blank >= self._model.config.vocab_size:
            raise UserError(f"aligner {name!r}: its vocabulary has no letters; name a CTC model that spells words")

    @torch.inference_mode()
    def __call__(self, utterance: Utterance) -> tuple[Word, ...]:
        words = [text for part in (utterance.text or "").split() if (text := _strip_punctuation(part))]
        tokens = [letters(text, self._letters) for text in words]
        if not any(tokens):
            return ()
        wave = audio.load(utterance)
        try:
            given = self._extractor(wave, sampling_rate=audio.SAMPLE_RATE, return_tensors="pt")
            logits_TC = self._model(given[self._model.main_input_name].to(self._device)).logits[0].float().cpu()
        except RuntimeError as error:
            if len(wave) < SHORTEST:
                raise UnalignedError(f"{len(wave) / audio.SAMPLE_RATE:.2f} s make no frame") from error
            message = f"{len(wave) / audio.SAMPLE_RATE:.2f} s cannot be aligned"
            raise UserError(f"{utterance.audio}: {utterance.id}: {message}: {first_line(error)}") from error
        try:
            spans = align(logits_TC.log_softmax(1), tokens, self._blank, self._delimiter)
        except ValueError as error:
            raise UnalignedError(str(error)) from error
        frame = len(wave) / audio.SAMPLE_RATE / len(logits_TC)
        return tuple(Word(a * frame, b * frame, text) for (a, b), text in zip(spans, words, strict=True))


def align(
    log_probs_TC: Tensor, tokens: Sequence[Sequence[int]], blank: int, delimiter: int | None = None
) -> list[Span]:
    """The frames of each word, `(W,)`, in order.

    tokens: each word's classes. A word without any gets the gap between its neighbours; several in a row divide the gap
    evenly; a gap narrower than a frame a word is widened to that. delimiter: the class between words, if any.
    Raises ValueError where there are too few frames: each token needs one, and two equal ones a blank between them.
    """
    spelled = [list(word) for word in tokens if word]
    assert spelled, "no token to align"
    between = [] if delimiter is None else [delimiter]
    flat = [*spelled[0], *(token for word in spelled[1:] for token in (*between, *word))]
    frames, needed = len(log_probs_TC), len(flat) + sum(a == b for a, b in pairwise(flat))
    if needed > frames:
        raise ValueError(f"{len(flat)} letters need {needed} frames, the recording makes {frames}")
    letter_spans = viterbi(log_probs_TC.numpy(), flat, blank)
    spans: list[Span | None] = []
    at = 0
    for word in tokens:
        spans.append((letter_spans[at][0], letter_spans[at + len(word) - 1][1]) if word else None)
        at += len(word) + len(between) if word else 0
    return _fill_gaps(spans, frames)


def viterbi(log_probs_TC: np.ndarray, letters_L: Sequence[int], blank: int) -> list[Span]:
    """The frames of each letter on the most likely path that spells them, `(L,)`.

    A path stays in its state, moves to the next, or skips a blank between two different letters; of equally likely
    moves it takes the first of these. The frames must suffice: one a letter, and one between two equal letters.
    Without ties torchaudio's `forced_align` gives the same frames.
    """
    frames, states = len(log_probs_TC), 2 * len(letters_L) + 1
    state_S = np.full(states, blank)
    state_S[1::2] = letters_L
    may_pass_S = np.zeros(states, bool)
    may_pass_S[3::2] = state_S[3::2] != state_S[1:-2:2]
    best_S = np.full(states, -np.inf)
    best_S[:2] = log_probs_TC[0, state_S[:2]]
    step_TS = np.zeros((frames, states), np.int8)
    for t in range(1, frames):
        moves_3S = np.full((3, states), -np.inf)
        moves_3S[0], moves_3S[1, 1:] = best_S, best_S[:-1]
        moves_3S[2, 2:] = np.where(may_pass_S[2:], best_S[:-2], -np.inf)
        step_TS[t] = moves_3S.argmax(0)
        best_S = moves_3S.max(0) + log_probs_TC[t, state_S]
    at = states - 1 if best_S[-1] > best_S[-2] else states - 2
    path = [at]
    for t in range(frames - 1, 0, -1):
        at -= int(step_TS[t, at])
        path.append(at)
    path_T = np.array(path[::-1])
    assert path_T[0] < 2, "a path begins at the first letter or the blank before it"
    first_L = np.searchsorted(path_T, np.arange(1, states, 2))
    end_L = np.searchsorted(path_T, np.arange(1, states, 2), side="right")
    assert (first_L < end_L).all(), "the path spells the letters"
    return list(zip(first_L.tolist(), end_L.tolist(), strict=True))


def letters(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    """The classes that spell a word. A letter that the vocabulary lacks is tried in lower case, in upper case, as
    TRANSLITERATED, and without its accents; if none of these is in the vocabulary, it is left out, as digits are."""
    classes: list[int] = []
    for letter in unicodedata.normalize("NFC", word).replace("’", "'"):
        plain = TRANSLITERATED.get(letter.lower()) or unicodedata.normalize("NFD", letter)
        for spelling in ([letter], [letter.lower()], [letter.upper()], plain.lower(), plain.upper()):
            spelled = [vocabulary[c] for c in spelling if c in vocabulary]
            if spelled:
                classes += spelled
                break
    return classes


def _strip_punctuation(part: str) -> str:
    """The text without the punctuation around it; empty for punctuation alone."""
    inside = [i for i, c in enumerate(part) if _is_kind(c, "LMN")]
    return part[inside[0] : inside[-1] + 1] if inside else ""


def _is_kind(character: str, kinds: str) -> bool:
    """Whether the character is of these Unicode categories: L letters, M marks (vowels in many scripts), N numbers."""
    return unicodedata.category(character)[0] in kinds


def _fill_gaps(spans: Sequence[Span | None], frames: int) -> list[Span]:
    """The spans, with each missing one placed in the gap between its neighbours, at least a frame long."""
    filled: list[Span] = []
    ends = [0]  # the last is that of the word before
    starts = [span[0] for span in spans if span]
    for is_known, group in groupby(spans, key=lambda span: span is not None):
        some = list(group)
        if is_known:
            filled += [span for span in some if span]
            ends.append(filled[-1][1])
            starts = starts[len(some) :]
            continue
        first, last = ends[-1], starts[0] if starts else frames
        if last - first < len(some):  # too narrow: overlap the neighbours
            first = max(0, min(first, last - len(some)))
            last = min(frames, max(last, first + len(some)))
        edges = [first + (last - first) * i // len(some) for i in range(len(some) + 1)]
        filled += [(a, max(b, a + 1)) for a, b in pairwise(edges)]
    return filled


def _load(name: str, device: torch.device) -> tuple[Any, Any, Any]:
    """The model, frozen, its feature extractor and its tokenizer."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer, Wav2Vec2CTCTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # missing weights are refused below, in one line
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def load(local: bool) -> Any:
        given: dict[str, Any] = {"trust_remote_code": False, "local_files_only": local}
        check_config("aligner", name, AutoConfig.from_pretrained(name, **given))
        extractor = AutoFeatureExtractor.from_pretrained(name, **given)  # type: ignore[no-untyped-call]
        tokenizer = AutoTokenizer.from_pretrained(name, **given)
        return extractor, tokenizer, AutoModelForCTC.from_pretrained(name, **given, output_loading_info=True)

    check_folder(Path(name))
    refuse_pointers("aligner", name)
    try:
        extractor, tokenizer, (model, report) = cached_first(name, load)
    except UserError:
        raise
    except Exception as error:  # transformers may fail in any way on broken files
        raise_memory(error)
        message = f"cannot be loaded as a CTC model: {first_line(error)}"
        raise UserError(f"aligner {name!r}: {message}; name one such as facebook/wav2vec2-base-960h") from error
    missing = sorted(k for k in report["missing_keys"] if k != "masked_spec_embed")
    if missing:
        message = f"{len(missing)} weights are missing from its files, {missing[0]} the first"
        raise UserError(f"aligner {name!r}: {message}; it was not trained to spell words")
    if not isinstance(tokenizer, Wav2Vec2CTCTokenizer) or tokenizer.pad_token_id is None:
        message = f"its tokenizer is {type(tokenizer).__name__}, not Wav2Vec2CTCTokenizer"
        raise UserError(f"aligner {name!r}: {message}; name a CTC model that spells words letter by letter")
    if extractor.sampling_rate != audio.SAMPLE_RATE:
        raise UserError(f"aligner {name!r}: takes {extractor.sampling_rate} Hz, not {audio.SAMPLE_RATE} Hz")
    return freeze(model, device), extractor, tokenizer
