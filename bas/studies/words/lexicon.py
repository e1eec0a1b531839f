"""Words as a text encoder sees them in their sentence: one vector for each spoken word.

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
"""The name of the encoder without training. Its vectors know which word it is and its place in the sentence, hardly
anything of the other words and nothing of what a word means."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

Sentence = tuple[str, ...]


@dataclass(frozen=True)
class Tokens:
    """What the words of all utterances are, end to end as the rows of a `Lexicon`; `words_of` makes it."""

    types_W: np.ndarray  # str; "" for no word
    sentences_W: np.ndarray  # str, of what is said: equal where the same is
    places_W: np.ndarray  # from 0, in the sentence
    units_W: np.ndarray  # str, mostly the speaker


@dataclass(frozen=True)
class Lexicon:
    """The lexical vectors of spoken words."""

    vectors_WE: np.ndarray  # float32; zeros for a stretch that is no known word
    starts: Mapping[str, int]  # by utterance id: the row of its first word
    name: str
    random: bool  # the built-in encoder with untrained weights; that a folder's are untrained cannot be seen


def word_type(text: str) -> str:
    """The type of a word: casefolded, without the punctuation around it; "" for what is no word."""
    folded = unicodedata.normalize("NFC", text).casefold()
    inside = [i for i, c in enumerate(folded) if c.isalnum()]
    return folded[inside[0] : inside[-1] + 1] if inside else ""


def words_of(utterances: Sequence[Utterance], segments: Segments, units: Sequence[str]) -> Tokens:
    """Every word of the utterances; units: of each of these, whoever is left out in turn for the interval.

    A sentence is known by its types in order.
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

    name: a text encoder of the BERT family in `transformers`, by hub name or local folder, or RANDOM. It is given the
    words of an utterance as one sentence, as they are written in `segments`, so each vector depends on the others. Each
    sentence is embedded once, however often it is said. A stretch with text "" (a pseudo-segment) is not given to it
    and gets zeros, as does a text of which the tokenizer makes nothing (a control character): neither says anything
    that the encoder knows. on_progress: called after each batch of sentences.
    Raises UserError when the encoder cannot be loaded, has no fast tokenizer, which alone tells whose a subword is, or
    takes fewer tokens than an utterance has: a part of its sentence would have another meaning, so none is cut.
    """
    said = {u.id: tuple(word.text.strip() for word in segments.of[u.id]) for u in utterances}
    first = {tuple(filter(None, words)): id_ for id_, words in reversed(said.items())}
    sentences = sorted((sentence for sentence in first if sentence), key=lambda s: (len(s), s))
    if name == RANDOM:
        tokenizer, model = _random(sorted({word for sentence in sentences for word in sentence}))
        model = model.to(device)
    else:
        tokenizer, model = load_text_encoder(name, device, words=True)
    if not tokenizer.is_fast:
        raise UserError(f"text encoder {name!r}: no fast tokenizer (tokenizer.json), which tells a word's subwords")
    most = _most_tokens(tokenizer, model)
    rows: dict[Sentence, np.ndarray] = {}
    for start in range(0, len(sentences), BATCH):
        some = sentences[start : start + BATCH]
        given = tokenizer([list(sentence) for sentence in some], is_split_into_words=True, padding=True)
        longest = max(range(len(some)), key=lambda i: sum(given["attention_mask"][i]))
        tokens = sum(given["attention_mask"][longest])
        if tokens > most:
            told = f"utterance {first[some[longest]]!r} has {tokens} tokens, and it takes {most:.0f}"
            raise UserError(f"text encoder {name!r}: {told}; leave the utterance out, or cut the recording in two")
        rows |= dict(zip(some, _words(model, given, [len(sentence) for sentence in some]), strict=True))
        on_progress()

    starts: dict[str, int] = {}
    vectors_WE = np.zeros((sum(map(len, said.values())), model.config.hidden_size), np.float32)
    row = 0
    for id_, words in said.items():
        starts[id_] = row
        known = [row + i for i, word in enumerate(words) if word]
        if known:
            vectors_WE[known] = rows[tuple(filter(None, words))]
        row += len(words)
    return Lexicon(vectors_WE, starts, name, random=name == RANDOM)


@torch.inference_mode()
def _words(model: Any, given: Any, counts: Sequence[int]) -> list[np.ndarray]:
    """Each sentence's words `(V, E)`: means over the tokens of each; zeros for a word without any."""
    tensors = {key: torch.tensor(value, device=model.device) for key, value in given.items()}
    states_BKE: Tensor = model(**tensors).last_hidden_state.float().cpu()
    found = []
    for i, count in enumerate(counts):
        owner_VK = torch.tensor([[word == v for word in given.word_ids(i)] for v in range(count)]).float()
        found.append((owner_VK @ states_BKE[i] / owner_VK.sum(1, keepdim=True).clamp(min=1)).numpy())
    return found


def _most_tokens(tokenizer: Any, model: Any) -> float:
    """How long a sentence may be. Folders do not always say it: then as many as have a learned position."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, nn.Embedding):
        return float(tokenizer.model_max_length)
    unused = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from behind its padding
    return float(min(tokenizer.model_max_length, table.num_embeddings - unused))


def _random(words: Sequence[str]) -> tuple[Any, Any]:
    """A BERT of two layers of width 64 as it is before training (seed 0), with a token for each of these words."""
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
