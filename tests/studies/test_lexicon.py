"""Words as vectors: subwords, sentences said twice, stretches without a text, and what no tokenizer can do."""

# mypy: disable-error-code="attr-defined,comparison-overlap"

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refusal
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from bas.corpora import Utterance, Word
from bas.encoders.text import load_text_encoder
from bas.speech.words import Segments
from bas.studies.words.lexicon import Lexicon, lexicon, word_type, words_of

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "door", "##s", "is", "are", "open", "closed"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(PIECES))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(PIECES), max_position_embeddings=12, initializer_range=0.5, **SIZES)
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its tokenizer cuts bytes: a space before a word is a part of its first token."""
    from tokenizers import ByteLevelBPETokenizer

    folder = tmp_path_factory.mktemp("roberta")
    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        [" the door is open", " the doors are closed"] * 9, vocab_size=320, special_tokens=special
    )
    trained.save_model(str(folder))
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=320, max_position_embeddings=14, initializer_range=0.5, **SIZES)
    RobertaModel(config).save_pretrained(folder)
    return str(folder)


def said(*sentences: str) -> tuple[list[Utterance], Segments]:
    """Utterances u0, u1, ... of these words; "_" is a stretch without a text."""
    words = {
        f"u{u}": tuple(Word(i, i + 1, "" if text == "_" else text) for i, text in enumerate(sentence.split(" ")))
        for u, sentence in enumerate(sentences)
    }
    utterances = [Utterance(id_, Path(f"{id_}.wav"), speaker="s") for id_ in words]
    return utterances, Segments("words", words, dict.fromkeys(words, "corpus"))


def rows(vectors: Lexicon, id_: str, count: int) -> np.ndarray:
    return vectors.vectors_WE[vectors.starts[id_] : vectors.starts[id_] + count]


def by_hand(name: str, text: str, owners: Sequence[Sequence[int]], kind: type = BertModel) -> np.ndarray:
    """Means of the last hidden state of this text over these of its tokens."""
    given = AutoTokenizer.from_pretrained(name)(text, return_tensors="pt")
    with torch.inference_mode():
        states_KE = kind.from_pretrained(name)(**given).last_hidden_state[0].numpy()
    return np.stack([states_KE[list(tokens)].mean(0) for tokens in owners])


def test_a_word_is_the_mean_of_its_subwords(bert: str) -> None:
    vectors = lexicon(bert, *said("the doors are closed", "the door is open"), CPU)
    assert (vectors.vectors_WE.dtype, vectors.vectors_WE.shape, vectors.random) == (np.float32, (8, 16), False)
    assert vectors.starts == {"u0": 0, "u1": 4}
    expected_VE = by_hand(bert, "the doors are closed", [[1], [2, 3], [4], [5]])
    np.testing.assert_allclose(rows(vectors, "u0", 4), expected_VE, atol=1e-5)
    assert np.abs(rows(vectors, "u0", 1) - rows(vectors, "u1", 1)).max() > 1e-2, "the same word in another sentence"


def test_words_cut_into_bytes_keep_the_space_before_them(roberta: str) -> None:
    vectors = lexicon(roberta, *said("the doors are open"), CPU)
    tokens = AutoTokenizer.from_pretrained(roberta)(" the doors are open").tokens()
    first = [i for i, token in enumerate(tokens) if token.startswith("Ġ")] + [len(tokens) - 1]
    assert len(first) == 5, tokens
    owners = [range(a, b) for a, b in itertools.pairwise(first)]
    expected_VE = by_hand(roberta, " the doors are open", owners, RobertaModel)
    np.testing.assert_allclose(vectors.vectors_WE, expected_VE, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "random"])
def test_neither_padding_nor_other_utterances_change_a_word(name: str, bert: str) -> None:
    name = bert if name == "bert" else name
    sentences = ["the", "the door is open the doors are closed", "the", "doors", "closed the door"]
    vectors = lexicon(name, *said(*sentences), CPU)
    assert np.array_equal(rows(vectors, "u0", 1), rows(vectors, "u2", 1))
    for u, sentence in enumerate(sentences):
        # Untrained vectors hang on the list of words, so these stay the same.
        alone = lexicon(name, *said(sentence, sentences[1]), CPU)
        count = len(sentence.split())
        np.testing.assert_allclose(rows(vectors, f"u{u}", count), rows(alone, "u0", count), atol=1e-5)


def test_a_sentence_said_often_is_embedded_once(bert: str) -> None:
    batches: list[None] = []
    vectors = lexicon(bert, *said(*["the door is open"] * 70), CPU, on_progress=lambda: batches.append(None))
    assert len(batches) == 1
    assert np.array_equal(vectors.vectors_WE, np.tile(vectors.vectors_WE[:4], (70, 1)))


def test_stretches_without_a_text_are_zeros_and_not_said(bert: str) -> None:
    vectors = lexicon(bert, *said("_ the _ door", "_ _", "the door"), CPU)
    assert vectors.starts == {"u0": 0, "u1": 4, "u2": 6}
    assert not vectors.vectors_WE[[0, 2, 4, 5]].any()
    assert np.array_equal(vectors.vectors_WE[[1, 3]], rows(vectors, "u2", 2))
    assert not lexicon("random", *said("_ _"), CPU).vectors_WE.any()


def test_a_word_without_a_token_is_zeros(bert: str) -> None:
    vectors = lexicon(bert, *said("the \u200b door"), CPU)
    assert not vectors.vectors_WE[1].any()
    np.testing.assert_allclose(vectors.vectors_WE[[0, 2]], by_hand(bert, "the door", [[1], [2]]), atol=1e-5)


def test_untrained_vectors_are_of_the_word_and_its_place() -> None:
    words = [f"w{i}" for i in range(12)]
    others = words[5:] + words[:5]
    state = torch.get_rng_state()
    vectors = lexicon("random", *said(" ".join(words), " ".join(others)), CPU)
    assert torch.equal(state, torch.get_rng_state())
    assert (vectors.random, vectors.name, vectors.vectors_WE.shape) == (True, "random", (24, 64))
    again = lexicon("random", *said(" ".join(words), " ".join(others)), CPU)
    assert np.array_equal(vectors.vectors_WE, again.vectors_WE)
    x_WE = vectors.vectors_WE - vectors.vectors_WE.mean(0)
    alike_VV = np.corrcoef(x_WE)[:12, 12:]  # of a word and place of the one and one of the other
    same_word_VV = np.array(words)[:, None] == np.array(others)
    same_place_VV = np.eye(12, dtype=bool)
    assert alike_VV[same_word_VV].min() > 0.2
    assert alike_VV[same_place_VV].min() > 0.2
    assert abs(alike_VV[~same_word_VV & ~same_place_VV].mean()) < 0.15


@pytest.mark.parametrize(("kind", "most"), [("bert", 10), ("roberta", 10), ("random", 510)])
def test_a_sentence_that_is_too_long_is_refused(kind: str, most: int, request: pytest.FixtureRequest) -> None:
    """Of single-token words: RoBERTa's 14 positions are 12 and two that are never used, two tokens are the ends."""
    name = kind if kind == "random" else request.getfixturevalue(kind)
    fits = " ".join(["the"] * most)
    if kind == "roberta":
        assert len(AutoTokenizer.from_pretrained(name)(" " + fits)["input_ids"]) == most + 2
    assert len(lexicon(name, *said("the", fits), CPU).vectors_WE) == most + 1
    message = refusal(lexicon, name, *said("the", fits + " the"), CPU)
    assert message.startswith(f"text encoder '{name}': utterance 'u1' has {most + 3} tokens, and it takes {most + 2}; ")


def test_a_tokenizer_that_cannot_tell_words_is_refused(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CANINE's, whose own takes seconds to make."""
    _, model = load_text_encoder(bert, CPU)
    slow = (SimpleNamespace(is_fast=False), model)
    monkeypatch.setattr("bas.studies.words.lexicon.load_text_encoder", lambda *_, **__: slow)
    assert "no fast tokenizer" in refusal(lexicon, bert, *said("the door"), CPU)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Eis-Schrank.", "eis-schrank"),
        ("»Das", "das"),
        ("don't!?", "don't"),
        ("...", ""),
        ("", ""),
        ("STRASSE", "strasse"),
    ],
)
def test_types(text: str, expected: str) -> None:
    assert word_type(text) == expected


def test_letters_have_one_form() -> None:
    assert word_type("Tu\u0308ten") == word_type("TÜTEN") == "tüten"
    assert word_type("Straße") == word_type("STRASSE")


def test_words_of_utterances() -> None:
    tokens = words_of(*said("The _ door, is", "the door is"), ["a", "b"])
    assert tokens.types_W.tolist() == ["the", "", "door", "is", "the", "door", "is"]
    assert set(tokens.sentences_W) == {"the door is"}
    assert tokens.places_W.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert tokens.units_W.tolist() == list("aaaabbb")
