"""Tasks of real numbers: predictions in the user's units, and metrics that no unit changes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal

from bas.corpora import Corpus, Utterance
from bas.stats import limits_of
from bas.stats.shares import ccc, concordance
from bas.tasks import MEMBERS, Classification, Regression, Shares, Task, check_task, join_parts

AGES = Regression({"age": (0, 100), "height": (150, 200)}, "mse")


def person(number: int, **known: object) -> Utterance:
    return Utterance(f"u{number}", Path("u.wav"), others=tuple((name, str(value)) for name, value in known.items()))


def drawn(rng: np.random.Generator, task: Regression, count: int) -> np.ndarray:
    low_O, high_O = np.array([*task.ranges.values()]).T
    return rng.uniform(low_O, high_O, (count, len(low_O)))


def test_concordance_is_lin_s() -> None:
    rng = np.random.default_rng(0)
    t_NO, p_NO = rng.normal(size=(2, 40, 3))
    for o, found in enumerate(ccc(t_NO, p_NO)):
        t_N, p_N = t_NO[:, o], p_NO[:, o]
        covariance = np.cov(t_N, p_N, bias=True)[0, 1]
        assert found == pytest.approx(2 * covariance / (t_N.var() + p_N.var() + (t_N.mean() - p_N.mean()) ** 2))
    assert ccc(t_NO, p_NO) == pytest.approx(concordance(torch.tensor(p_NO), torch.tensor(t_NO)).numpy())
    assert ccc(t_NO, t_NO) == pytest.approx(np.ones(3))
    assert (ccc(t_NO, t_NO + 1) < 0.8).all(), "it is not a correlation: an offset counts"
    assert ccc(t_NO, np.ones_like(t_NO)) == pytest.approx(np.zeros(3))


def test_metrics_of_one_and_of_several() -> None:
    assert list(AGES.metrics(AGES.label)) == ["CCC", "CCC age", "CCC height", "Pearson", "1-NMAE"]
    assert list(Regression({"age": (0, 100)}).metrics(("age",))) == ["CCC", "Pearson", "1-NMAE"]
    rng = np.random.default_rng(1)
    targets, predictions = drawn(rng, AGES, 30), drawn(rng, AGES, 30)
    metrics = AGES.metrics(AGES.label)
    assert metrics["CCC"](targets, predictions) == pytest.approx(ccc(targets, predictions).mean())
    assert metrics["CCC height"](targets, predictions) == pytest.approx(ccc(targets, predictions)[1])
    error = (np.abs(targets - predictions).mean(0) / [100, 50]).mean()
    assert metrics["1-NMAE"](targets, predictions) == pytest.approx(1 - error)
    assert [limits_of(metric) for metric in metrics.values()] == [(-1, 1)] * 4 + [(-math.inf, 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6)), min_size=2, max_size=2),
    st.sampled_from(["mse", "ccc"]),
    st.integers(0, 9),
)
def test_no_unit_changes_a_metric_a_loss_or_a_remark(
    maps: list[tuple[float, float]], objective: str, seed: int
) -> None:
    """Each target in another unit: y' = a + b y, and its range with it."""
    plain = Regression({"age": (0, 100), "height": (150, 200)}, objective)
    offset_O, factor_O = np.array(maps).T
    ends = [tuple(a + b * end for end in limits) for (a, b), limits in zip(maps, plain.ranges.values(), strict=True)]
    other = Regression(dict(zip(plain.ranges, ends, strict=True)), objective)  # type: ignore[arg-type]
    rng, part_N = np.random.default_rng(seed), np.arange(24) % 3
    outputs_NO = torch.from_numpy(rng.normal(0, 0.3, (24, 2)).astype(np.float32))
    targets = drawn(rng, plain, 24)
    moved = offset_O + factor_O * targets
    tolerance = 1e-12 * max(1.0, float(np.abs(offset_O / factor_O).max()))  # what the offset costs of the last digits
    for before, after in (
        (targets, moved),
        (join_parts(plain, targets, part_N), join_parts(other, moved, part_N)),
    ):
        for name, metric in other.metrics(other.label).items():
            expected = plain.metrics(plain.label)[name](before, plain.predict(outputs_NO))
            assert metric(after, other.predict(outputs_NO)) == pytest.approx(expected, abs=tolerance + 1e-9), name
    losses = [float(t.loss(outputs_NO, torch.from_numpy(y))) for t, y in ((plain, targets), (other, moved))]
    assert losses[1] == pytest.approx(losses[0], abs=tolerance + 1e-5)
    flat = np.broadcast_to(other.predict(torch.zeros(1, 2)), (1, 24, 2))
    assert len(other.remarks(other.label, join_parts(other, moved, part_N), flat)) == 2


def test_predictions_are_in_the_user_s_units() -> None:
    outputs_BO = torch.tensor([[0.0, 0.0], [0.5, -0.5], [1.0, 0.1]])
    assert AGES.predict(outputs_BO) == pytest.approx(np.array([[50.0, 175.0], [100.0, 150.0], [150.0, 180.0]]))
    assert float(AGES.loss(torch.tensor([[0.5, -0.5]]), torch.tensor([[100.0, 150.0]]))) == 0
    assert float(AGES.loss(torch.tensor([[0.5, 0.5]]), torch.tensor([[100.0, 150.0]]))) == pytest.approx(0.5)


def test_a_linear_target_is_recovered_by_gradient_descent_and_by_ridge() -> None:
    rng = np.random.default_rng(2)
    x_NI = rng.normal(size=(200, 3)).astype(np.float32)
    targets = np.column_stack([50 + 10 * x_NI[:, 0], 175 - 5 * x_NI[:, 1] + 3 * x_NI[:, 2]])
    metric = AGES.metrics(AGES.label)["CCC"]
    for task in (AGES, Regression(AGES.ranges)):
        linear = torch.nn.Linear(3, 2)
        optimiser = torch.optim.Adam(linear.parameters(), 0.02)
        for _ in range(400):
            optimiser.zero_grad()
            task.loss(linear(torch.from_numpy(x_NI)), torch.from_numpy(targets)).backward()
            optimiser.step()
        assert metric(targets, task.predict(linear(torch.from_numpy(x_NI)).detach())) > 0.99
    assert metric(targets, AGES.linears["ridge regression"](1e3).fit(x_NI, targets).predict(x_NI)) > 0.99
    assert AGES.linears["mean"](1.0).fit(x_NI, targets).predict(x_NI)[0] == pytest.approx(targets.mean(0))


def test_who_has_no_target_is_left_out_and_who_has_some_is_refused() -> None:
    people = [person(0, age=20, height=170.5), person(1), person(2, age=30)]
    corpus = Corpus("people", tuple(people), "speaker:5", "speaker")
    assert [u.id for u in corpus.labelled(*AGES.label)] == ["u0", "u2"]
    assert AGES.targets(people[:1], AGES.outputs(people[:1])).tolist() == [[20.0, 170.5]]
    told = refusal(lambda: AGES.outputs(corpus.labelled(*AGES.label)))
    assert (
        told
        == "task regression: utterance u2 has age and no height; give it every target, or none, which leaves it out"
    )


@pytest.mark.parametrize("value", ["101", "-0.5", "old", "nan", "inf", "1,5"])
def test_a_value_out_of_range_is_refused(value: str) -> None:
    told = refusal(lambda: AGES.outputs([person(0, age=value, height=170)]))
    assert told == f"task regression: utterance u0: age: {value!r} must be a number from 0 to 100"


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ({}, "must be by target"),
        ({"age": (5, 5)}, "range of age: (5, 5) must be two numbers, the lower first"),
        ({"age": (5, 1)}, "range of age"),
        ({"age": 5}, "range of age: 5 must be"),
        ({"age": (0, math.inf)}, "range of age"),
        ({"age": ("0", "1")}, "range of age"),
        (["age"], "must be by target"),
    ],
)
def test_a_range_that_is_none(ranges: dict[str, tuple[float, float]], said: str) -> None:
    assert said in refusal(lambda: Regression(ranges))


def test_an_objective_that_is_none() -> None:
    for make in (lambda: Regression({"age": (0, 1)}, "mae"), lambda: Shares(objective="mae")):
        assert "objective='mae' must be one of mse, ccc" in refusal(make)


def test_a_task_of_one_s_own_lacks_what_it_lacks_in_one_line() -> None:
    assert set(MEMBERS) == {member for member in dir(Task) if not member.startswith("_")}
    for task in (AGES, Classification(), Shares()):
        check_task(task)

    class Half:
        name = label = "half"
        classes = protocol = None
        disjoint = "speaker"
        pooled = True
        linears = ()
        metrics = outputs = targets = predict = remarks = len

    told = refusal(lambda: check_task(Half()))
    assert (
        "it has no loss, ceiling; disjoint must be a tuple of texts, not 'speaker'; linears must be a mapping" in told
    )
    assert "Half is a class; make one: Half(...)" in refusal(lambda: check_task(Half))


def test_the_page_describes_every_member_of_a_task() -> None:
    page = (
        (Path(__file__).parent.parent / "docs/spaces.md")
        .read_text(encoding="utf-8")
        .partition("## A task of your own")[2]
    )
    for member in MEMBERS:
        assert f"| `{member}" in page, member


@pytest.mark.parametrize("task", [Shares(), Regression({"age": (0, 100), "arousal": (-3, 3)}, name="two")])
def test_a_constant_says_the_mean(task: Shares | Regression) -> None:
    targets_NO = np.array([[0.9, 0.2], [0.7, 0.4]])
    if isinstance(task, Regression):
        targets_NO = np.array([[90.0, -1.8], [70.0, -0.6]])
    outputs_O = task.constant(targets_NO)
    assert task.predict(outputs_O[None])[0] == pytest.approx(targets_NO.mean(0), rel=1e-5)
    ends_NO = np.array([[0.0, 1.0]]) if isinstance(task, Shares) else np.array([[0.0, 3.0]])
    assert task.constant(ends_NO).isfinite().all(), "where nobody heard it in any utterance"
