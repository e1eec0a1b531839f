"""Whole units into parts: shares, classes and sexes are kept as well as units allow, and never at random by machine."""

# mypy: disable-error-code="arg-type,attr-defined,index,var-annotated"

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import EMODB

from bas.corpora import Utterance, open_corpus
from bas.protocols import make, thin
from bas.protocols.allot import allot
from bas.tasks import EMOTION


def unit(name: str, labels: str, sex: str | None = None) -> list[Utterance]:
    return [Utterance(f"{name}{i}", Path("x.wav"), label=label, sex=sex) for i, label in enumerate(labels)]


def counts(units: list[str], groups: dict[str, list[Utterance]], field: str = "label") -> Counter[str]:
    return Counter(getattr(u, field) for name in units for u in groups[name])


@pytest.mark.parametrize("seed", range(10))
def test_each_fold_has_its_share_of_classes_and_sexes(seed: int) -> None:
    """40 speakers, one sex and class mix for each of four kinds of speaker: chance alone would not part them evenly."""
    kinds = [("ab" * 6, "female"), ("a" * 12, "male"), ("b" * 12, "male"), ("c" * 12, "female")]
    groups = {f"s{i:02}": unit(f"s{i:02}-", *kinds[i % 4]) for i in range(40)}
    parts = allot(groups, "label", [0.2] * 5, [[p for p in range(5) if p != q] for q in range(5)], Random(seed))
    assert sorted(name for names in parts for name in names) == sorted(groups)
    for names in parts:
        assert counts(names, groups) == {"a": 36, "b": 36, "c": 24}
        assert counts(names, groups, "sex") == {"female": 48, "male": 48}


@pytest.mark.parametrize("shares", [[0.64, 0.2, 0.16], [0.6, 0.2, 0.2]])
@pytest.mark.parametrize("seed", range(5))
def test_parts_come_near_their_shares(shares: Any, seed: int) -> None:
    """CREMA-D's shape: 91 speakers of 82 utterances, 48 men and 43 women, six classes."""
    groups = {f"{i}": unit(f"{i}-", "abcdef" * 13 + "abcd", "male" if i < 48 else "female") for i in range(91)}
    parts = allot(groups, "label", shares, [[0]], Random(seed))
    for names, share in zip(parts, shares, strict=True):
        assert len(names) / 91 == pytest.approx(share, abs=0.02)
        men = counts(names, groups, "sex")["male"] / 82
        assert men == pytest.approx(48 * share, abs=1.5)


def test_a_rare_class_stays_in_training() -> None:
    """Two of six units have it: they may not share a test fold, nor may valid take the last of them."""
    groups = {f"s{i}": unit(f"s{i}-", "aabr" if i < 2 else "aab") for i in range(6)}
    for seed in range(50):
        parts = allot(groups, "label", [1 / 3] * 3, [[1, 2], [0, 2], [0, 1]], Random(seed))
        assert not any({"s0", "s1"} <= set(names) for names in parts)
        fit, _ = allot({k: v for k, v in groups.items() if k != "s0"}, "label", [0.8, 0.2], [[0]], Random(seed))
        assert "s1" in fit


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.text("abc", min_size=1, max_size=9), st.sampled_from(["female", "male", None])), min_size=3),
    st.lists(st.integers(1, 99), min_size=2, max_size=3),
    st.integers(),
)
def test_every_unit_once_and_no_part_empty(units: Any, weights: Any, seed: int) -> None:
    groups = {f"{i}": unit(f"{i}-", labels, sex) for i, (labels, sex) in enumerate(units)}
    shares = [w / sum(weights) for w in weights]
    parts = allot(groups, "label", shares, [[0]], Random(seed))
    assert len(parts) == len(shares)
    assert all(parts)
    assert sorted(name for names in parts for name in names) == sorted(groups)
    assert allot(groups, "label", shares, [[0]], Random(seed)) == parts


def test_single_utterances_are_parted_evenly() -> None:
    rng = np.random.default_rng(0)
    groups = {f"{i:04}": unit(f"{i}-", "abc"[int(rng.integers(3))]) for i in range(600)}
    every = counts(list(groups), groups)
    for names in allot(groups, "label", [0.25] * 4, [], Random(1)):
        assert all(abs(counts(names, groups)[c] - every[c] / 4) <= 1 for c in "abc")


@pytest.mark.skipif(not EMODB.is_dir(), reason=f"the EmoDB recordings are not at {EMODB}")
def test_emodb_has_a_woman_and_a_man_in_every_test_fold() -> None:
    corpus = open_corpus("emodb", EMODB)
    sex = {u.id: u.sex for u in corpus.utterances}
    splits = [make(corpus, EMOTION, seed=seed) for seed in range(10)]
    assert len({split.hash for split in splits}) == 10
    for split in splits:
        for fold in split.folds:
            assert {sex[i] for i in fold.test} == {"female", "male"}
            assert len(fold.test) == pytest.approx(107, abs=30)
            assert len(fold.valid) / (len(fold.fit) + len(fold.valid)) == pytest.approx(0.2, abs=0.07)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.integers(0, 999).map(str), st.sampled_from("aaabbc"), min_size=1), st.integers(), st.data())
def test_thinned_parts_are_nested_and_keep_each_class_its_share(label: str, seed: int, data: Any) -> None:
    smaller, larger = sorted(data.draw(st.integers(0, len(label))) for _ in range(2))
    ids = data.draw(st.permutations(list(label)))
    few, more, every = (thin(ids, label, size, Random(seed)) for size in (smaller, larger, len(label) + 1))
    assert set(few) <= set(more) <= set(every) == set(label)
    assert (len(few), len(more)) == (smaller, larger)
    assert list(more) == sorted(more)
    assert thin(sorted(ids), label, larger, Random(seed)) == more, "in whatever order they come"
    whole, kept = Counter(label.values()), Counter(label[i] for i in more)
    # The first of every class comes first: of K classes one may lose K times its share of an utterance to them.
    over = {c: kept[c] - whole[c] * larger / len(label) for c in whole}
    assert all(-len(whole) * whole[c] / len(label) - 1e-9 <= over[c] <= 1 + 1e-9 for c in whole)


def test_another_draw_thins_to_others() -> None:
    label = {f"{i:02}": "ab"[i % 2] for i in range(40)}
    assert len({thin(label, label, 20, Random(seed)) for seed in range(10)}) == 10
