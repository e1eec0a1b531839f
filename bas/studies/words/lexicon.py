"""Words as a text encoder represents them in their sentence: one vector for each spoken word.

Axes: W words of all utterances end to end, B sentences of a batch, K tokens, V words of a batch, E width.

Reference
    Devlin et al., *BERT*, NAACL 2019. A word's vector is the mean of the last hidden state over its subwords, as in
    Saliba et al., *Layer-wise analysis of self-supervised acoustic word embeddings*, 2024 (arXiv 2402.02617).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bas.corpora import Utterance
from bas.encoders.text import BATCH, load_text_encoder
from bas.errors import UserError
from bas.speech.words import Segments

RANDOM = "random"
"""The name of the untrained encoder. Its vectors depend on the word and its place in the sentence, hardly on the other
words, and not on what a word means."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

Sentence = tuple[str, ...]


@dataclass(frozen=True)
class Tokens:
    """The words of all utterances end to end, in the order of a `Lexicon`'s rows; `words_of` makes it."""

    types_W: np.ndarray  # str; "" for a segment that is no word
    sentences_W: np.ndarray  # str; equal for utterances with equal words
    places_W: np.ndarray  # index in the sentence, from 0
    units_W: np.ndarray  # str, mostly the speaker


@dataclass(frozen=True)
class Lexicon:
    """The lexical vectors of spoken words."""

    vectors_WE: np.ndarray  # float32; zeros for a segment that is no known word
    starts: Mapping[str, int]  # by utterance id, the row of its first word
    name: str
    random: bool  # whether it is RANDOM; of a folder it is unknown whether its weights are trained


def word_type(text: str) -> str:
    """The type of a word: casefolded, without punctuation around it; "" for text without a letter or digit."""
    folded = unicodedata.normalize("NFC", text).casefold()
    inside = [i for i, c in enumerate(folded) if c.isalnum()]
    return folded[inside[0] : inside[-1] + 1] if inside else ""


def words_of(utterances: Sequence[Utterance], segments: Segments, units: Sequence[str]) -> Tokens:
    """Every word of the utterances. units: the unit of each utterance, which the interval leaves out in turn.

    A sentence is identified by its types in order.
    """
    rows: list[tuple[str, str, int, str]] = []
    for utterance, unit in zip(utterances, units, strict=True):
        types = [word_type(word.text) for word in segments.of[utterance.id]]
        rows += [(type_, " ".join(filter(None, types)), place, unit) for place, type_ in enumerate(types)]
    return Tokens(*(np.array(column) for column in zip(*rows, strict=True)))


def lexicon(
    name: str,
    utterances: Sequence[Utterance],
    segments: Segments,
    device: torch.device,
    on_progress: Callable[[], None] = lambda: None,
) -> Lexicon:
    """One vector for each word of each utterance, in order: the mean over its subwords of the last hidden state.

    name: a text encoder of the BERT family in `transformers`, by hub name or local folder, or RANDOM. It reads the
    words of an utterance as one sentence, as written in `segments`, so each vector depends on the other words. A
    sentence that occurs several times is embedded once. A segment with text "" (a pseudo-segment) is skipped and gets
    zeros, and so does a text without any token (a control character). on_progress: called after each batch of
    sentences.
    Raises UserError when the encoder cannot be loaded; when it has no fast tokenizer, which is needed to map subwords
    to words; and when an utterance has more tokens than it takes: sentences are not cut, which would change their
    meaning.
    """
    sentence_of = {u.id: tuple(word.text.strip() for word in segments.of[u.id]) for u in utterances}
    first = {tuple(filter(None, words)): id_ for id_, words in reversed(sentence_of.items())}
    sentences = sorted((sentence for sentence in first if sentence), key=lambda s: (len(s), s))
    if name == RANDOM:
        tokenizer, model = _random(sorted({word for sentence in sentences for word in sentence}))
        model = model.to(device)
    else:
        tokenizer, model = load_text_encoder(name, device, words=True)
    if not tokenizer.is_fast:
        raise UserError(f"text encoder {name!r}: no fast tokenizer (tokenizer.json), which maps subwords to words")
    most = _most_tokens(tokenizer, model)
    rows: dict[Sentence, np.ndarray] = {}
    for start in range(0, len(sentences), BATCH):
        batch = sentences[start : start + BATCH]
        encoded = tokenizer([list(sentence) for sentence in batch], is_split_into_words=True, padding=True)
        longest = max(range(len(batch)), key=lambda i: sum(encoded["attention_mask"][i]))
        tokens = sum(encoded["attention_mask"][longest])
        if tokens > most:
            reason = f"utterance {first[batch[longest]]!r} has {tokens} tokens, and it takes {most:.0f}"
            raise UserError(f"text encoder {name!r}: {reason}; leave the utterance out, or cut the recording in two")
        rows |= dict(zip(batch, _words(model, encoded, [len(sentence) for sentence in batch]), strict=True))
        on_progress()

    starts: dict[str, int] = {}
    vectors_WE = np.zeros((sum(map(len, sentence_of.values())), model.config.hidden_size), np.float32)
    row = 0
    for id_, words in sentence_of.items():
        starts[id_] = row
        positions = [row + i for i, word in enumerate(words) if word]
        if positions:
            vectors_WE[positions] = rows[tuple(filter(None, words))]
        row += len(words)
    return Lexicon(vectors_WE, starts, name, random=name == RANDOM)


@torch.inference_mode()
def _words(model: Any, encoded: Any, counts: Sequence[int]) -> list[np.ndarray]:
    """For each sentence its words `(V, E)`: the mean over a word's tokens; zeros for a word without tokens."""
    tensors = {key: torch.tensor(value, device=model.device) for key, value in encoded.items()}
    states_BKE: Tensor = model(**tensors).last_hidden_state.float().cpu()
    vectors = []
    for i, count in enumerate(counts):
        owner_VK = torch.tensor([[word == v for word in encoded.word_ids(i)] for v in range(count)]).float()
        vectors.append((owner_VK @ states_BKE[i] / owner_VK.sum(1, keepdim=True).clamp(min=1)).numpy())
    return vectors


def _most_tokens(tokenizer: Any, model: Any) -> float:
    """The most tokens of a sentence. Where the tokenizer does not say it, the number of learned positions."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return float(tokenizer.model_max_length)
    unused = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from after its padding
    return float(min(tokenizer.model_max_length, table.num_embeddings - unused))


def _random(words: Sequence[str]) -> tuple[Any, Any]:
    """An untrained BERT (seed 0) of two layers of width 64, with one token for each of these words."""
    from tokenizers import Tokenizer, models, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL, *words)))}
    whole_words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    whole_words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=whole_words, pad_token="[PAD]", unk_token="[UNK]"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
        )
        model: Any = BertModel(config, add_pooling_layer=False)
    return tokenizer, model.eval().requires_grad_(False)
