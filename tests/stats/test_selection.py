"""What a set of searches decided: hand computations, and every warning both ways."""

# mypy: disable-error-code="arg-type,operator"

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from bas.stats.decisions import Selection, summarise, warnings
from bas.util.typed import to_plain

BLOCKS = ("MSA+FFN", "MSA", "FFN")


def searches(rows: list[str], first: float = 0.8, slots: int = 3) -> Selection:
    """One search a row, one digit a slot: the block's number, which holds `first` of the probability."""

    def probabilities(block: int) -> dict[str, float]:
        return {b: first if i == block else (1 - first) / 2 for i, b in enumerate(BLOCKS)}

    names = [f"layer{i}" for i in range(1, slots + 1)]
    return summarise(
        [{n: probabilities(int(d)) for n, d in zip(names, row, strict=True)} for row in rows],
        [{n: BLOCKS[int(d)] for n, d in zip(names, row, strict=True)} for row in rows],
    )


def test_one_slot_by_hand() -> None:
    probabilities = [{"layer1": {"a": 0.6, "b": 0.4}}, {"layer1": {"a": 0.9, "b": 0.1}}, {"layer1": {"a": 0, "b": 1}}]
    result = summarise(probabilities, [{"layer1": "a"}, {"layer1": "a"}, {"layer1": "b"}])
    slot = result.slots["layer1"]
    margins = [0.2, 0.8, 1.0]
    entropies = [entropy([0.6, 0.4], base=2), entropy([0.9, 0.1], base=2), 0.0]
    assert slot.frequency == {"a": 2 / 3, "b": 1 / 3}
    assert (slot.margin, slot.margin_sd) == pytest.approx((np.mean(margins), np.std(margins, ddof=1)))
    assert (slot.entropy, slot.entropy_sd) == pytest.approx((np.mean(entropies), np.std(entropies, ddof=1)))
    assert slot.agreement == result.agreement == pytest.approx(1 / 3)  # of the three pairs one agrees
    # Two or three of three for one block: 4 / 8, for either: everything.
    assert slot.p == 1.0
    assert result.alike == ()  # one slot is always like itself


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 6), width=st.integers(1, 4))
def test_bounds_and_the_pairwise_agreement(data: st.DataObject, count: int, width: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 9_999)))
    names = [f"b{i}" for i in range(width)]
    rows = [{s: dict(zip(names, rng.dirichlet(np.ones(width)), strict=True)) for s in "xyz"} for _ in range(count)]
    chosen = [{s: max(p, key=p.__getitem__) for s, p in row.items()} for row in rows]
    result = summarise(rows, chosen)
    for name, slot in result.slots.items():
        assert 0 <= slot.entropy <= 1 + 1e-9
        assert 0 <= slot.margin <= 1
        assert sum(slot.frequency.values()) == pytest.approx(1)
        assert 0 < slot.p <= 1
        pairs = [a[name] == b[name] for i, a in enumerate(chosen) for b in chosen[i + 1 :]]
        assert slot.agreement == (pytest.approx(np.mean(pairs)) if pairs else None)
    for line in warnings(result):
        assert line.endswith(".")
    json.dumps(to_plain(result))


def test_a_slot_with_one_candidate_is_decided_and_never_warned_of() -> None:
    rows = [{"stem": {"linear": 1.0}, "head": {"linear": 1.0}, "layer1": {"a": 0.9, "b": 0.1}}] * 8
    result = summarise(rows, [{"stem": "linear", "head": "linear", "layer1": "a"}] * 8)
    slot = result.slots["stem"]
    assert (slot.entropy, slot.margin, slot.agreement, slot.p) == (0.0, 1.0, 1.0, 1.0)
    assert not slot.open
    assert warnings(result) == []
    only = summarise([{"stem": {"linear": 1.0}}], [{"stem": "linear"}])
    assert only.agreement is None
    assert warnings(only) == []


# --- warnings ---


def test_searches_that_agree_on_a_mixed_sequence_are_not_warned_of() -> None:
    assert warnings(searches(["012"] * 10)) == []


def test_collapse_is_told_from_half_of_the_searches_on() -> None:
    (line,) = warnings(searches(["111"] * 9 + ["110"]))
    assert line.startswith("Collapse: 9 of 10 searches chose one block for all of layer1, layer2, layer3 (MSA 9);")
    # Different blocks in different searches are collapse too, if not agreement.
    several = searches(["111"] * 4 + ["000"] * 2 + ["012"] * 4)
    assert several.alike[0].blocks == {"MSA": 4, "MSA+FFN": 2}
    assert "6 of 10" in warnings(several)[0]
    below = searches(["111"] * 4 + ["112"] * 6)
    assert (below.alike[0].count, below.alike[0].p < 0.05) == (4, True)
    assert not any(line.startswith("Collapse") for line in warnings(below))


def test_two_slots_that_are_alike_as_often_as_chance_has_it_are_no_collapse() -> None:
    # Two slots of two candidates are alike in half of all random searches.
    rows = [{s: {"a": 0.8, "b": 0.2} for s in "xy"}] * 12
    half = summarise(rows, [{"x": "a", "y": "ab"[i % 2]} for i in range(12)])
    assert half.alike[0].count == 6
    assert half.alike[0].p > 0.5
    assert not any(line.startswith("Collapse") for line in warnings(half))


def test_only_slots_of_the_same_candidates_can_collapse() -> None:
    rows = [{"x": {"a": 0.9, "b": 0.1}, "y": {"b": 0.1, "a": 0.9}, "z": {"a": 0.9, "c": 0.1}}] * 10
    result = summarise(rows, [{"x": "a", "y": "a", "z": "c"}] * 10)
    assert [group.slots for group in result.alike] == [("x", "y")]
    assert warnings(result)[0].startswith("Collapse: 10 of 10 searches chose one block for all of x, y (a 10)")


@pytest.mark.parametrize(
    ("probability", "warned"),
    [((0.40, 0.35, 0.25), True), ((0.48, 0.42, 0.10), True), ((0.48, 0.28, 0.24), True), ((0.7, 0.2, 0.1), False)],
)
def test_indecision(probability: tuple[float, ...], warned: bool) -> None:
    rows = [{"layer1": dict(zip(BLOCKS, probability, strict=True))}] * 10
    result = summarise(rows, [{"layer1": BLOCKS[0]}] * 10)
    # The second case by its margin alone, the third by its entropy alone.
    normalised = entropy(probability) / math.log(3)
    assert warned == (normalised > 0.9 or probability[0] - probability[1] < 0.1)
    lines = warnings(result)
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith("Indecision: the searches hardly prefer a block for layer1 ")
        assert f"entropy {normalised:.2f}" in lines[0]


def test_disagreement() -> None:
    # 7 of 15 for the first of three: P(Bin(15, 1/3) >= 7) = 0.203, times three candidates 0.61.
    rows = ["0"] * 7 + ["1"] * 4 + ["2"] * 4
    (line,) = warnings(searches(rows, slots=1))
    assert line == (
        "Disagreement: 7 of 15 searches chose MSA+FFN for layer1, no more than chance among 3 candidates gives "
        "(p 0.61), with a mean margin of 0.70."
    )
    assert warnings(searches(["0"] * 12 + ["1", "2", "1"], slots=1)) == []


def test_chance_is_called_a_choice_in_at_most_five_of_a_hundred_cases() -> None:
    # Without the correction for three candidates it would be about 9.
    rng = np.random.default_rng(0)
    ps = [searches(list(map(str, rng.integers(0, 3, 15))), slots=1).slots["layer1"].p for _ in range(600)]
    assert np.mean(np.array(ps) <= 0.05) <= 0.05


@pytest.mark.parametrize(("count", "warned"), [(1, True), (3, True), (4, False)])
def test_too_few_searches_to_tell_a_choice_from_chance(count: int, warned: bool) -> None:
    lines = warnings(searches(["01"] * count, slots=2))
    assert len(lines) == warned
    if warned:
        noun = "search is" if count == 1 else "searches are"
        assert lines[0] == f"Too few: {count} {noun} too few to tell a choice for layer1, layer2 from chance."


def test_what_does_not_fit_is_our_own_mistake() -> None:
    good = {"x": {"a": 0.5, "b": 0.5}}
    for probabilities, chosen in (
        ([], []),
        ([good], []),
        ([good], [{"y": "a"}]),
        ([good], [{"x": "c"}]),
        ([good, {"x": {"a": 1.0}}], [{"x": "a"}, {"x": "a"}]),
        ([{"x": {"a": 0.5, "b": 0.1}}], [{"x": "a"}]),
    ):
        with pytest.raises(AssertionError):
            summarise(probabilities, chosen)
