"""Local neighbourhood similarity: sums by hand, what chance gives, what a sentence and a place alone would give."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from scipy.stats import hypergeom

from bas.stats import interval
from bas.studies.words import neighbours
from bas.studies.words.lexicon import Tokens
from bas.studies.words.neighbours import MAX_UNITS
from bas.util.typed import to_plain

TRIPLES = [f"{letter}{i}" for letter in "abcd" for i in (1, 2, 3)]


def similarity(*arguments: Any, **named: Any) -> Any:
    """As plain data."""
    return to_plain(neighbours.similarity(*arguments, **named))


def table(*arguments: Any) -> Any:
    return to_plain(neighbours.table(*arguments))


def spoken(sentences: list[list[str]], speakers: int = 2) -> Tokens:
    """Each sentence said by each speaker."""
    rows = [
        (word, " ".join(words), place, f"s{speaker:03}")
        for speaker in range(speakers)
        for words in sentences
        for place, word in enumerate(words)
    ]
    return Tokens(*(np.array(column) for column in zip(*rows, strict=True)))


def grid(sentences: int, words: int, speakers: int = 2) -> Tokens:
    """Sentences of which no two have a word in common."""
    return spoken([[f"w{s:02}{w:02}" for w in range(words)] for s in range(sentences)], speakers)


def as_tokens(tokens: Tokens, x_TD: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A row of x for each token, by its type, with noise of its own."""
    index_W = np.unique(tokens.types_W, return_inverse=True)[1]
    return np.asarray(
        x_TD[index_W] + noise * np.random.default_rng(seed).standard_normal((len(index_W), x_TD.shape[1]))
    )


def only(result: dict[str, Any], state: int = 0) -> dict[str, Any]:
    mean: dict[str, Any] = result["states"][state]["mean"]
    return mean


def numbers(one: dict[str, Any]) -> list[float]:
    """The value, its interval, and what chance gives."""
    return [one["value"], one["low"], one["high"], *(x for n in ("chance", "within", "place") for x in one[n].values())]


def triples() -> tuple[Tokens, np.ndarray, np.ndarray]:
    """Twelve words, a sentence each, at 0, 90, 180 and 270 degrees; to the lexicon b3 and c3 are the other way round.

    The mean is 0 and both dimensions are alike, so standardising changes no angle.
    """
    degrees = np.array([90 * (t // 3) + 5 * (t % 3) for t in range(12)]) * np.pi / 180
    awe_TD = np.stack([np.cos(degrees), np.sin(degrees)], 1)
    order = list(range(12))
    order[5], order[8] = 8, 5
    tokens = spoken([[word] for word in TRIPLES])
    return tokens, as_tokens(tokens, awe_TD), as_tokens(tokens, awe_TD[order])


def test_by_hand() -> None:
    """a and d: both sets the same. b1, b2: {b2 or b1, b3} and {b2 or b1, c3}, one of three. b3: nothing. c as b."""
    tokens, awe_WD, lexical_WE = triples()
    result = similarity(awe_WD[:, None], lexical_WE, tokens, ks=[2], draws=9)
    assert result["states"][0]["by_k"][0]["value"] == pytest.approx((6 * 1 + 4 / 3 + 2 * 0) / 12)
    assert only(result)["value"] == result["states"][0]["by_k"][0]["value"]
    assert (result["types"], result["tokens"], result["units"], result["took_part"]) == (12, 24, 2, [12])


def test_table_by_hand() -> None:
    tokens, awe_WD, lexical_WE = triples()
    b1, b3 = table(awe_WD, lexical_WE, tokens, ["B1!", "b3"], 2)
    assert (b1["word"], b1["tokens"]) == ("b1", 2)
    assert [row["word"] for row in b1["acoustic"]] == ["b2", "b3"]
    assert [row["word"] for row in b1["lexical"]] == ["b2", "c3"]
    assert b1["common"] == ["b2"]
    assert [row["cosine"] for row in b1["acoustic"]] == pytest.approx(np.cos(np.deg2rad([5, 10])), abs=1e-6)
    assert {row["word"] for row in b3["lexical"]} == {"c1", "c2"}
    json.dumps([b1, b3])


def test_a_space_and_itself_are_alike() -> None:
    tokens = grid(8, 5, speakers=6)  # all of them alike: fewer would have no interval
    x_TD = np.random.default_rng(0).standard_normal((40, 6))
    lexical_WE = as_tokens(tokens, x_TD)
    other_WD = as_tokens(tokens, np.random.default_rng(1).standard_normal((40, 6)))
    result = similarity(np.stack([3 * lexical_WE + 7, other_WD], 1), lexical_WE, tokens, draws=99)
    assert result["ks"] == list(range(1, 10))
    assert (only(result)["value"], only(result)["low"], only(result)["high"], only(result)["p"]) == (1, 1, 1, 0.01)
    assert only(result, 1)["value"] < 0.3
    (difference,) = result["differences"]
    assert difference["value"] == pytest.approx(1 - only(result, 1)["value"])
    assert json.loads(json.dumps(result)) == result


def expected_jaccard(choices: int, k: int) -> float:
    """Of two random sets of k among so many."""
    shared = np.arange(k + 1)
    return float(hypergeom.pmf(shared, choices, k, k) @ (shared / (2 * k - shared)))


def test_unrelated_spaces_give_what_chance_gives() -> None:
    """With sentences of unlike lengths, so that types have unlike numbers to choose from."""
    tokens = spoken([[f"{s}x{w}" for w in range(2 + 3 * (s % 4))] for s in range(8)])
    types = len(set(tokens.types_W))
    choices = [types - int(2 + 3 * (s % 4)) for s in range(8) for _ in range(2 + 3 * (s % 4))]
    rng, ks, values = np.random.default_rng(0), [1, 3, 9], []
    for _ in range(40):
        x_WD, y_WE = (as_tokens(tokens, rng.standard_normal((types, 5))) for _ in range(2))
        values.append(
            [row["value"] for row in similarity(x_WD[:, None], y_WE, tokens, ks, draws=1)["states"][0]["by_k"]]
        )
    result = similarity(x_WD[:, None], y_WE, tokens, ks, draws=400)["states"][0]["by_k"]
    for q, k in enumerate(ks):
        expected = np.mean([expected_jaccard(n, k) for n in choices])
        error = np.std([row[q] for row in values], ddof=1)
        assert np.mean([row[q] for row in values]) == pytest.approx(expected, abs=4 * error / 40**0.5)
        assert result[q]["chance"]["mean"] == pytest.approx(expected, abs=4 * error / 400**0.5)


def sentence_vectors(tokens: Tokens, seed: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Two spaces in which a word is near those of its sentence, and unrelated but for that."""
    rng = np.random.default_rng(seed)
    sentence_W = np.unique(tokens.sentences_W, return_inverse=True)[1]
    types = len(set(tokens.types_W))
    spaces = []
    for _ in range(2):
        each_SD = rng.standard_normal((sentence_W.max() + 1, 8))
        spaces.append(each_SD[sentence_W] + as_tokens(tokens, noise * rng.standard_normal((types, 8))))
    return spaces[0][:, None], spaces[1]


def test_which_sentence_a_word_is_of_is_not_measured() -> None:
    tokens, values, chances = grid(12, 5), [], []
    apart = replace(tokens, sentences_W=tokens.types_W)  # as if each word were a sentence: no exclusion
    for seed in range(10):
        spaces = sentence_vectors(tokens, seed, noise=0.05)
        assert only(similarity(*spaces, apart, ks=[4], draws=1))["value"] == 1
        one = only(similarity(*spaces, tokens, ks=[4], draws=99))
        values.append(one["value"])
        chances.append(one["chance"]["mean"])
    assert np.mean(values) == pytest.approx(np.mean(chances), abs=4 * np.std(values, ddof=1) / 10**0.5)
    assert np.mean(values) < 0.15


def test_words_of_a_sentence_are_not_independent() -> None:
    """Where two sentences are near in both spaces by chance, all their words are: `chance` cries wolf, `within` not."""
    tokens = grid(8, 6)
    overlaps = [only(similarity(*sentence_vectors(tokens, seed, 0.3), tokens, ks=[5], draws=99)) for seed in range(40)]
    wrong = {name: sum(one[name]["p"] <= 0.05 for one in overlaps) for name in ("chance", "within")}
    assert wrong["chance"] >= 8
    assert wrong["within"] <= 6  # of 40 at 5 %: more than that has a probability of 1 %
    assert all(one["p"] == max(one[name]["p"] for name in ("chance", "within", "place")) for one in overlaps)


def test_the_place_in_a_sentence_is_no_meaning() -> None:
    tokens = grid(8, 6)
    rng, shared_PD = np.random.default_rng(0), np.random.default_rng(1).standard_normal((6, 8))
    wrong = 0
    for _ in range(20):
        x_WD, y_WE = (shared_PD[tokens.places_W] + as_tokens(tokens, rng.standard_normal((48, 8))) for _ in range(2))
        one = only(similarity(x_WD[:, None], y_WE, tokens, ks=[5], draws=99))
        assert max(one["chance"]["p"], one["within"]["p"]) <= 0.05
        wrong += one["p"] <= 0.05
    assert wrong <= 4


def test_a_similarity_of_words_is_found() -> None:
    tokens = grid(8, 6)
    x_TD = np.random.default_rng(0).standard_normal((48, 8))
    awe_WD = as_tokens(tokens, x_TD, noise=0.5)
    assert only(similarity(awe_WD[:, None], as_tokens(tokens, x_TD), tokens, draws=99))["p"] == 0.01


def test_the_interval_is_that_of_speakers_left_out() -> None:
    tokens = grid(6, 4, speakers=5)
    x_TD = np.random.default_rng(0).standard_normal((24, 4))
    awe_WLD = np.stack([as_tokens(tokens, x_TD, noise, seed=1) for noise in (0.8, 1.5)], 1)
    lexical_WE = as_tokens(tokens, x_TD)

    def value(mask_W: np.ndarray, state: int) -> float:
        some = Tokens(*(x[mask_W] for x in vars(tokens).values()))
        result = only(similarity(awe_WLD[mask_W], lexical_WE[mask_W], some, draws=1), state)["value"]
        return float(result)

    result = similarity(awe_WLD, lexical_WE, tokens, draws=1)
    for state in (0, 1):
        expected = interval(lambda m, state=state: value(m, state), tokens.units_W, ())
        assert tuple(only(result, state)[name] for name in ("value", "low", "high")) == pytest.approx(astuple(expected))
    (difference,) = result["differences"]
    expected = interval(lambda m: value(m, 0) - value(m, 1), tokens.units_W, ())
    assert tuple(difference[name] for name in ("value", "low", "high")) == pytest.approx(astuple(expected))
    assert difference["low"] < difference["value"] < difference["high"]


def test_who_takes_part() -> None:
    tokens = grid(6, 4, speakers=3)
    awe_WD = np.random.default_rng(0).standard_normal((72, 4))
    types_W, units_W = tokens.types_W.copy(), tokens.units_W.copy()
    lexical_WE = as_tokens(tokens, np.random.default_rng(1).standard_normal((24, 4)))
    types_W[types_W == "w0000"] = ""  # no word
    lexical_WE[types_W == "w0001"] = 0  # nothing the encoder knows
    units_W[types_W == "w0002"] = "s000"  # one speaker's
    result = similarity(awe_WD[:, None], lexical_WE, replace(tokens, types_W=types_W, units_W=units_W), draws=9)
    assert (result["types"], result["tokens"], result["left_out"]) == (21, 63, 1)
    one = similarity(awe_WD[:, None], lexical_WE, replace(tokens, units_W=np.full(72, "s000")), draws=9)
    assert (one["types"], one["units"], only(one)["low"], only(one)["high"]) == (23, 1, -np.inf, np.inf)


def test_a_type_needs_more_to_choose_from_than_its_neighbours() -> None:
    """`i` shares a sentence with all but three: it takes part up to k = 2."""
    tokens = spoken([["i", f"w{n:02}"] for n in range(13)] + [[f"v{n}"] for n in range(3)])
    awe_WD, lexical_WE = (np.random.default_rng(s).standard_normal((len(tokens.types_W), 4)) for s in (0, 1))
    result = similarity(awe_WD[:, None], lexical_WE, tokens, draws=9)
    assert (result["ks"], result["took_part"]) == ([1, 2, 3, 4], [17, 17, 16, 16])
    assert only(result)["within"] is None  # w00 has no other of the same sentences
    assert only(result)["place"] is not None
    assert len(table(awe_WD, lexical_WE, tokens, ["i"], 2)[0]["acoustic"]) == 2
    message = refusal(table, awe_WD, lexical_WE, tokens, ["i"], 3)
    assert message == "word 'i': only 3 words share no sentence with it; its 3 nearest need more"


def test_many_units_are_left_out_in_groups() -> None:
    tokens = grid(6, 4, speakers=50)
    awe_WD, lexical_WE = (np.random.default_rng(s).standard_normal((1200, 3)) for s in (0, 1))
    assert similarity(awe_WD[:, None], lexical_WE, tokens, draws=1)["units"] == MAX_UNITS


def test_what_is_refused() -> None:
    tokens, awe_WD, lexical_WE = triples()
    awe_WLD = awe_WD[:, None]
    message = "k 3: with 12 words, of which one shares no sentence with at most 11, k is 1 to 2"
    assert refusal(similarity, awe_WLD, lexical_WE, tokens, ks=[1, 3]) == message
    assert refusal(similarity, awe_WLD, lexical_WE, tokens, ks=[0]).startswith("k 0: ")
    together = replace(tokens, sentences_W=np.full(24, "all of them"))
    message = refusal(similarity, awe_WLD, lexical_WE, together)
    assert message.startswith(
        "neighbours of words: 12 words, of which none has two others that share no sentence with it"
    )
    assert refusal(similarity, awe_WLD, 0 * lexical_WE, tokens).startswith("neighbours of words: of 0 none is said 2 ")
    assert "not finite" in refusal(similarity, np.full_like(awe_WLD, np.inf), lexical_WE, tokens)
    message = "word 'Nein': not said 2 times and by two speakers, so it has no neighbours; 'a1' has"
    assert refusal(table, awe_WD, lexical_WE, tokens, ["Nein"], 1) == message


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_neither_order_nor_scale_nor_side_matters(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tokens = grid(5, 4, speakers=int(rng.integers(1, 4)) + 1)
    awe_WD, lexical_WE = (rng.standard_normal((len(tokens.types_W), d)) for d in (5, 3))
    result = only(similarity(awe_WD[:, None], lexical_WE, tokens, draws=9))
    assert 0 <= result["value"] <= 1
    assert result["low"] <= result["value"] <= result["high"]
    turned = only(similarity(lexical_WE[:, None], awe_WD, tokens, draws=9))
    assert numbers(turned)[:3] == pytest.approx(numbers(result)[:3])
    order = rng.permutation(len(awe_WD))
    shuffled = Tokens(*(x[order] for x in vars(tokens).values()))
    scaled_WD = awe_WD * rng.uniform(0.1, 10, 5) * rng.choice([-1, 1]) + rng.standard_normal(5)
    again = only(similarity(scaled_WD[order][:, None], lexical_WE[order], shuffled, draws=9))
    assert numbers(again) == pytest.approx(numbers(result))
