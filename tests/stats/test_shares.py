"""Shares of listeners as targets: their statistics by hand and against SciPy, the ceiling, the task, its networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from scipy.stats import pearsonr, rankdata, spearmanr
from sklearn.dummy import DummyRegressor

from bas.blocks import FFN, MeanPool
from bas.corpora import Utterance
from bas.networks.network import PerOutput, build
from bas.runs.baselines import common_baselines
from bas.runs.layers import cross_validate
from bas.runs.spaces import SpaceFile, load_space
from bas.space import SearchSpace
from bas.stats import Predictions, paired, shares
from bas.tasks import Shares, join_parts

ONE = Shares()


def numbers(seed: int, n: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets with many ties and predictions that know something of them."""
    rng = np.random.default_rng(seed)
    targets_NO = rng.integers(0, 6, (n, outputs)) / 5
    return targets_NO, targets_NO + rng.normal(0, 0.5, (n, outputs))


def utterance(id_: str, raters: int | None = None, **values: float) -> Utterance:
    return Utterance(id_, Path(f"{id_}.wav"), shares=tuple(values.items()), raters=raters)


# --- statistics ---


@given(seed=st.integers(0, 10_000), n=st.integers(3, 40), outputs=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_correlations_are_those_of_scipy(seed: int, n: int, outputs: int) -> None:
    targets_NO, predictions_NO = numbers(seed, n, outputs)
    correlations = shares.spearman(targets_NO, predictions_NO), shares.pearson(targets_NO, predictions_NO)
    for o in range(outputs):
        if np.ptp(targets_NO[:, o]) > 0:
            pair = targets_NO[:, o], predictions_NO[:, o]
            assert correlations[0][o] == pytest.approx(spearmanr(*pair).statistic, abs=1e-9)
            assert correlations[1][o] == pytest.approx(pearsonr(*pair).statistic, abs=1e-9)
    np.testing.assert_array_equal(shares._ranks(targets_NO) + 1, rankdata(targets_NO, axis=0))


def test_a_constant_has_a_defined_score() -> None:
    targets_NO, _ = numbers(0, 20, 2)
    for constant in (0.3, 1 / 3):  # the mean of many thirds is not quite a third
        flat_NO = np.full((20, 2), constant, np.float32)
        for statistic in (shares.spearman, shares.pearson):
            assert statistic(targets_NO, flat_NO).tolist() == [0, 0]
            assert statistic(flat_NO, targets_NO).tolist() == [0, 0]
    remarks = shares.constant(["joy", "fear"], targets_NO, np.stack([flat_NO, targets_NO * [0, 1]]))
    assert remarks == (
        "the prediction of joy is constant in 2 of 2 test parts; a correlation is taken as 0 there",
        "the prediction of fear is constant in 1 of 2 test parts; a correlation is taken as 0 there",
    )
    assert shares.constant(["joy", "fear"], targets_NO, targets_NO[None]) == ()


def test_a_metric_is_taken_within_parts_and_weighted() -> None:
    targets_NO, predictions_NO = numbers(1, 30, 2)
    parts = np.repeat([0, 1], [10, 20])
    metric = shares.within(shares.spearman, 1)
    by_hand = sum(
        len(k) / 30 * spearmanr(targets_NO[k, 1], predictions_NO[k, 1]).statistic for k in (range(10), range(10, 30))
    )
    targets = join_parts(ONE, targets_NO, parts)
    assert metric(targets, predictions_NO) == pytest.approx(by_hand)
    # An offset of one part's model changes nothing; over both together it would.
    offset_NO = predictions_NO + 10 * parts[:, None]
    assert metric(targets, offset_NO) == pytest.approx(by_hand)
    assert metric(targets_NO, offset_NO) < by_hand - 0.1


def test_the_mean_of_each_training_part_scores_nothing() -> None:
    """Pooled over folds it would be strongly negative, for a fold that is high has a training part that is low."""
    rng = np.random.default_rng(0)
    parts = np.repeat(np.arange(5), 20)
    targets_NO = (rng.random((100, 1)) + parts[:, None]) / 6
    predictions_NO = np.empty_like(targets_NO)
    for part in range(5):
        model = DummyRegressor().fit(np.zeros((80, 1)), targets_NO[parts != part])
        predictions_NO[parts == part] = model.predict(np.zeros((20, 1)))[:, None]
    assert shares.within(shares.spearman)(targets_NO, predictions_NO) < -0.9
    assert shares.within(shares.spearman)(join_parts(ONE, targets_NO, parts), predictions_NO) == 0


def test_a_paired_comparison_takes_rows_of_outputs() -> None:
    rng = np.random.default_rng(0)
    targets_NO, _ = numbers(3, 80, 2)
    units = np.repeat(np.arange(8), 10)
    good, bad = (np.stack([targets_NO + rng.normal(0, sd, (80, 2)) for _ in range(2)]) for sd in (0.1, 2.0))
    targets, metric = join_parts(ONE, targets_NO, units // 2), shares.within(shares.spearman)
    rows = Predictions(good, units // 2), Predictions(bad, units // 2)
    difference = paired(targets, *rows, units, metric)
    assert difference.verdict == "better"
    assert difference.difference == pytest.approx(
        np.mean([metric(targets, p) for p in good]) - np.mean([metric(targets, p) for p in bad])
    )
    same = Predictions(good, units // 2)
    assert paired(targets, same, same, units, metric).p == 1


def test_concordance_is_lins() -> None:
    t_BO, p_BO = (torch.tensor(x) for x in numbers(5, 30, 2))
    expected = [
        2 * np.cov(t, p, bias=True)[0, 1] / (np.var(t) + np.var(p) + (np.mean(t) - np.mean(p)) ** 2)
        for t, p in zip(t_BO.T.numpy(), p_BO.T.numpy(), strict=True)
    ]
    assert shares.concordance(p_BO, t_BO).tolist() == pytest.approx(expected)
    assert shares.concordance(t_BO, t_BO).tolist() == pytest.approx([1, 1])
    flat_BO = torch.full((4, 1), 0.5, requires_grad=True)
    shares.concordance(flat_BO, torch.full((4, 1), 0.5)).sum().backward()
    assert flat_BO.grad is not None
    assert flat_BO.grad.isfinite().all()


@pytest.mark.parametrize("raters", [5, 20, 200])
def test_the_ceiling_is_what_the_true_shares_reach(raters: int) -> None:
    """Known from the observed votes alone; held against the truth that made them."""
    rng = np.random.default_rng(raters)
    true_NO = rng.beta(4, 3, (3000, 1))
    observed_NO = rng.binomial(raters, true_NO) / raters
    targets, metric = join_parts(ONE, observed_NO, np.zeros(3000)), shares.within(shares.spearman)
    ceiling = shares.ceiling(targets, np.full(3000, raters), {"Spearman": metric})
    mean, low, high = ceiling.metrics["Spearman"]
    assert low < mean < high
    assert mean == pytest.approx(metric(targets, true_NO), abs=0.03)
    assert ceiling.raters == raters


def test_shares_that_are_noise_alone_have_a_low_ceiling() -> None:
    observed_NO = np.random.default_rng(0).binomial(20, 0.5, (2000, 1)) / 20
    ceiling = shares.ceiling(
        join_parts(ONE, observed_NO, np.zeros(2000)), np.full(2000, 20), {"Spearman": shares.within(shares.spearman)}
    )
    assert ceiling.metrics["Spearman"][0] < 0.25


# --- the task ---


def test_outputs_and_targets() -> None:
    some = [utterance("a", joy=0.5, fear=0.25), utterance("b", fear=1.0, joy=0.0)]
    assert ONE.outputs(some) == ("joy", "fear")
    np.testing.assert_array_equal(ONE.targets(some, ("joy", "fear")), [[0.5, 0.25], [0.0, 1.0]])
    chosen = Shares(emotions=("fear",))
    assert chosen.outputs(some) == ("fear",)
    assert list(chosen.metrics(("fear",))) == ["Spearman", "Pearson", "1-MAE"]
    assert list(ONE.metrics(("joy", "fear"))) == ["Spearman", "Spearman joy", "Spearman fear", "Pearson", "1-MAE"]
    lacking = [*some, utterance("c", joy=0.1)]
    expected = "task emotion-share: utterance c has no share of 'fear'; it has joy"
    assert refusal(ONE.outputs, lacking) == expected
    assert refusal(Shares, objective="mae") == "task emotion-share: objective='mae' must be one of mse, ccc"


def test_losses_and_predictions() -> None:
    targets_BO = torch.tensor([[0.2, 0.9], [0.7, 0.1], [0.4, 0.4]])
    perfect_BO = targets_BO.logit()
    for objective in ("mse", "ccc"):
        task = Shares(objective=objective)
        assert float(task.loss(perfect_BO, targets_BO)) == pytest.approx(0, abs=1e-6)
        assert float(task.loss(-perfect_BO, targets_BO)) > 0.1
    np.testing.assert_allclose(ONE.predict(perfect_BO), targets_BO, atol=1e-6)


def test_a_ceiling_needs_the_number_of_listeners() -> None:
    some = [utterance(f"u{i}", raters=20, joy=i / 20) for i in range(20)]
    targets = join_parts(ONE, ONE.targets(some, ("joy",)), np.zeros(20))
    ceiling = ONE.ceiling(some, ("joy",), targets, ())
    assert ceiling is not None
    assert 0.7 < ceiling.metrics["Spearman"][0] < 1
    assert ONE.ceiling([*some[1:], utterance("u0", joy=0.0)], ("joy",), targets, ()) is None
    # What the utterances were chosen by is cut off: neither it nor a mean over it has a ceiling.
    two = join_parts(ONE, np.column_stack([ONE.targets(some, ("joy",))] * 2), np.zeros(20))
    cut = ONE.ceiling(some, ("joy", "fear"), two, ("fear",))
    assert cut is not None
    assert list(cut.metrics) == ["Spearman joy"]
    assert ONE.ceiling(some, ("joy",), targets, ("joy",)) is None


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_best_layer_for_shares(outputs: int) -> None:
    rng = np.random.default_rng(0)
    targets_UO, units = rng.random((60, outputs)).astype(np.float32), np.repeat(np.arange(6), 10)
    x_ULD = rng.normal(size=(60, 3, 4))
    x_ULD[:, 1, :outputs] = targets_UO * 5
    metric = ONE.metrics(("a", "b")[:outputs])["Spearman"]
    for of_units in (units, np.zeros(60, int)):
        scores = cross_validate(x_ULD, targets_UO, of_units, (3, 5, 8), ONE, metric)
        assert max(scores, key=scores.__getitem__) == 5
        assert scores[5] > 0.9


# --- a network for each output ---


def test_networks_of_their_own_share_nothing() -> None:
    space = SearchSpace({"layer1": {"FFN": FFN}}, MeanPool, each_output=True)
    torch.manual_seed(0)
    network = build(space, space.only(), 6, 8, 3)
    assert isinstance(network, PerOutput)
    network.standardise.set(torch.full((6,), 2.0), torch.full((6,), 0.5))
    x_BTI, mask_BT = torch.randn(2, 5, 6), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    whole_BO = network(x_BTI, mask_BT)
    assert whole_BO.shape == (2, 3)
    torch.testing.assert_close(network(x_BTI[1:, :3], mask_BT[1:, :3])[0], whole_BO[1])
    whole_BO[:, 1].sum().backward()
    for o, own in enumerate(network.networks):
        assert any(bool(p.grad.any()) for p in own.parameters() if p.grad is not None) == (o == 1)
    alone = build(SearchSpace({"layer1": {"FFN": FFN}}, MeanPool), space.only(), 6, 8, 1)
    assert sum(p.numel() for p in network.parameters()) == 3 * sum(p.numel() for p in alone.parameters())
    assert space.signature != SearchSpace({"layer1": {"FFN": FFN}}, MeanPool).signature


def test_baselines_of_a_file(tmp_path: Path) -> None:
    head = "from bas.blocks import FFN, MSA, MeanPool\nfrom bas.space import SearchSpace\n"
    both = "space = SearchSpace({'a': {'MSA': MSA, 'FFN': FFN}}, MeanPool)\n"
    one = "SearchSpace({'a': {'FFN': FFN}}, MeanPool)"
    path = tmp_path / "mine.py"
    path.write_text(f"{head}{both}baselines = {{'plain': {one}}}\n")
    baselines = load_space(str(path)).baselines
    assert baselines is not None
    assert list(baselines) == ["plain"]
    for wrong, message in (
        (f"{{'a/b': {one}}}", "'a/b' must be of letters, digits, blanks and +,.-_ alone"),
        (f"{{'a b': {one}, 'a-b': {one}}}", "two names are alike but for blanks and hyphens"),
    ):
        path.write_text(f"{head}{both}baselines = {wrong}\n")
        assert refusal(load_space, str(path)) == f"{path}: baselines: {message}"
    path.write_text(f"{head}from bas.tasks import Shares\n{both}task = Shares()\nbaselines = {{'mean share': {one}}}\n")
    expected = "space mine: baselines: 'mean share' is the name of another row; rename it"
    assert refusal(common_baselines, [load_space(str(path))]) == expected
    expected = f"{path}: baselines: must be names with a SearchSpace of one architecture each"
    for wrong in ("{}", "[]", "{'searched': space}", "{'b': FFN}"):
        path.write_text(f"{head}{both}baselines = {wrong}\n")
        assert refusal(load_space, str(path)) == expected
    path.write_text(f"{head}space = SearchSpace({{'a': {{'MSA': MSA, 'FFN': FFN}}}}, MeanPool, each_output=True)\n")
    expected = f"{path}: space: each_output is for baselines; a search has one network for all outputs"
    assert refusal(load_space, str(path)) == expected


def test_spaces_bring_their_baselines_together(tmp_path: Path) -> None:
    def brings(name: str, baselines: str) -> SpaceFile:
        path = tmp_path / f"{name}.py"
        path.write_text(
            "from bas.blocks import FFN, MSA, MeanPool\nfrom bas.space import SearchSpace\n"
            "space = SearchSpace({'a': {'MSA': MSA, 'FFN': FFN}}, MeanPool)\n"
            "ffn, msa = (SearchSpace({'a': {'one': block}}, MeanPool) for block in (FFN, MSA))\n"
            f"baselines = {baselines}\n"
        )
        return load_space(str(path))

    one, both = brings("one", "{'plain': ffn}"), brings("both", "{'attention': msa, 'plain': ffn}")
    assert list(common_baselines([one, both])) == ["plain", "attention"]
    assert list(common_baselines([both, one])) == ["attention", "plain"]
    other = brings("other", "{'plain': msa}")
    expected = "spaces one and other: 'plain' and 'plain' are two baselines; rename one"
    assert refusal(common_baselines, [one, other]) == expected
    pair = brings("blank", "{'of one': ffn}"), brings("hyphen", "{'of-one': ffn}")
    expected = "spaces blank and hyphen: 'of one' and 'of-one' are two baselines; rename one"
    assert refusal(common_baselines, pair) == expected
    expected = "space more: baselines: 'both' is the name of another row; rename it"
    assert refusal(common_baselines, [one, both, brings("more", "{'both': ffn}")]) == expected


def test_the_wide_space_shares_baselines_with_those_of_the_paper() -> None:
    paper, wide = load_space("ser_bas3"), load_space("ser_wide")
    assert list(common_baselines([wide])) == ["4L transformer", "simple FFN"]
    assert list(common_baselines([paper, wide])) == ["4L transformer", "3L transformer", "simple FFN"]
