"""The stacked probes against plain PyTorch, each alone, planted structure; the two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refusal
from torch import nn

from bas.stats import macro_f1
from bas.studies.dynamics import classifiers
from bas.studies.dynamics.classifiers import (
    MARK,
    AnalysisSettings,
    Member,
    Probed,
    Split,
    probes,
    published_split,
    rng_of,
    speaker_splits,
    train_probes,
)

pytestmark = pytest.mark.slow

FEW = AnalysisSettings(initialisations=2, splits=2, hidden=12, patience=3)


def planted(
    n: int = 120,
    states: int = 2,
    dims: int = 10,
    classes: int = 3,
    speakers: int = 6,
    signal: float = 1.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`(L, U, D)` noise around a mean for each class; classes; speakers."""
    rng = np.random.default_rng(seed)
    classes_U = rng.integers(0, classes, n)
    x_LUD = rng.standard_normal((states, n, dims)) + signal * rng.standard_normal((classes, dims))[classes_U]
    return 3 * x_LUD + 5, classes_U, np.array([f"s{i}" for i in rng.integers(0, speakers, n)])


# --- splits ---


@pytest.mark.parametrize("n", [10, 57, 107, 1231])
def test_the_published_split_is_80_10_10_with_each_class_in_its_share(n: int) -> None:
    classes_U = np.sort(np.random.default_rng(n).choice(4, n, p=[0.6, 0.2, 0.15, 0.05]))
    drawn = set()
    for s in range(5):
        split = published_split(classes_U, rng_of(s))
        assert sorted(np.concatenate([split.fit, split.valid, split.test])) == list(range(n))
        for part in (split.valid, split.test):
            assert abs(part.size - n / 10) < 1
            for c, count in Counter(classes_U.tolist()).items():
                assert abs(np.count_nonzero(classes_U[part] == c) - count / 10) <= 1
        drawn.add(tuple(np.sort(split.test)))
    assert len(drawn) > 2
    assert np.array_equal(published_split(classes_U, rng_of(0)).test, published_split(classes_U, rng_of(0)).test)


@pytest.mark.parametrize("speakers", [3, 4, 7, 20])
def test_no_speaker_is_in_two_parts_and_each_is_tested_once(speakers: int) -> None:
    _, classes_U, speakers_U = planted(200, speakers=speakers)
    splits, note = speaker_splits(classes_U, speakers_U, 5, rng_of(0))
    assert len(splits) == min(5, speakers)
    assert f"{speakers} speakers in {len(splits)} groups" in note
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(200))
    for split in splits:
        parts = [set(speakers_U[part]) for part in (split.fit, split.valid, split.test)]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == speakers
        assert split.fit.size + split.valid.size + split.test.size == 200
    again = [speaker_splits(classes_U, speakers_U, 5, rng_of(seed))[0] for seed in (0, 1, 2, 3)]
    assert np.array_equal(again[0][0].test, splits[0].test)
    together = {tuple(sorted(tuple(sorted(set(speakers_U[s.test]))) for s in of)) for of in again}
    assert len(together) > 1 or speakers < 5  # the groups are drawn again
    assert len({tuple(speakers_U[of[0].valid]) for of in again}) > 1  # and so is who validates


def test_of_two_speakers_one_is_tested_and_the_other_cut() -> None:
    _, classes_U, speakers_U = planted(100, speakers=2)
    splits, note = speaker_splits(classes_U, speakers_U, 5, rng_of(0))
    assert note.startswith("two speakers")
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(100))
    for split in splits:
        (tested,), (other,) = set(speakers_U[split.test]), set(speakers_U[np.concatenate([split.fit, split.valid])])
        assert tested != other
        assert not set(split.fit) & set(split.valid)
        assert split.valid.size / (split.valid.size + split.fit.size) == pytest.approx(0.2, abs=0.03)


def test_too_few_speakers_are_refused_with_a_reason() -> None:
    x_LUD, classes_U, _ = planted(40)
    assert speaker_splits(classes_U, np.full(40, "a"), 5, rng_of(0)) == (
        [],
        "a single speaker: no split keeps speakers apart",
    )
    splits, why = speaker_splits(classes_U, np.array(["a"] * 35 + ["b"] * 5), 5, rng_of(0))
    assert splits == []
    assert "fewer than 10" in why
    results = probes(x_LUD, x_LUD[0], classes_U, np.full(40, "a"), FEW, 0, "cpu")
    assert results["linear"]["grouped"] == {"refused": "a single speaker: no split keeps speakers apart"}
    assert len(results["linear"]["published"]["states"]) == 2
    few = probes(x_LUD[:, :9], x_LUD[0, :9], classes_U[:9], np.full(9, "a"), FEW, 0, "cpu")
    assert few["relu"]["published"] == {"refused": "fewer than 10 utterances"}


# --- the stack ---


def plain(x_UD: np.ndarray, classes_U: np.ndarray, member: Member, hidden: int, settings: AnalysisSettings) -> Any:
    """The same probe by torch's own modules and optimiser: predictions, epochs."""
    split = member.split
    x = torch.tensor((x_UD - x_UD[split.fit].mean(0)) / x_UD[split.fit].std(0), dtype=torch.float32)
    y = torch.tensor(classes_U)
    generator = torch.Generator().manual_seed(int(rng_of(*member.seed, "train").integers(2**62)))
    sizes = (x.shape[1], hidden, int(y.max()) + 1) if hidden else (x.shape[1], int(y.max()) + 1)
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            bound = layer.in_features**-0.5
            layer.weight.copy_(
                (2 * torch.rand((layer.in_features, layer.out_features), generator=generator) - 1).T * bound
            )
            layer.bias.copy_((2 * torch.rand(layer.out_features, generator=generator) - 1) * bound)
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1]) if hidden else layers[0]
    adam, criterion = torch.optim.Adam(model.parameters(), lr=settings.lr), nn.CrossEntropyLoss()
    losses: list[float] = []
    bar, since, best = np.inf, 0, None
    while since < settings.patience and len(losses) < settings.epochs:
        order = torch.tensor(split.fit)[torch.randperm(len(split.fit), generator=generator)]
        for batch in order.split(settings.batch_size):
            adam.zero_grad()
            criterion(model(x[batch]), y[batch]).backward()
            adam.step()
        with torch.no_grad():
            losses.append(float(criterion(model(x[split.valid]), y[split.valid])))
            if losses[-1] == min(losses):
                best = model(x[split.test]).argmax(1).numpy()
        bar, since = (losses[-1], 0) if losses[-1] < bar - settings.improvement else (bar, since + 1)
    return best, len(losses)


def members_of(x_LUD: np.ndarray, classes_U: np.ndarray, speakers_U: np.ndarray) -> list[Member]:
    """Of different sizes, so that some have a batch more than others."""
    splits = [published_split(classes_U, rng_of(s)) for s in range(2)]
    splits += speaker_splits(classes_U, speakers_U, 3, rng_of(9))[0]
    return [Member(state, split, (0, i)) for state in range(len(x_LUD)) for i, split in enumerate(splits)]


@pytest.mark.parametrize("hidden", [0, 12])
def test_every_member_is_what_plain_pytorch_makes_of_it(hidden: int) -> None:
    x_LUD, classes_U, speakers_U = planted(70, signal=0.5)
    members = members_of(x_LUD, classes_U, speakers_U)
    trained = train_probes(x_LUD, classes_U, members, hidden, FEW)
    assert len({t.epochs for t in trained}) > 2  # they stop at different times
    assert len({-(-m.split.fit.size // FEW.batch_size) for m in members}) > 1
    for member, one in zip(members, trained, strict=True):
        predictions, epochs = plain(x_LUD[member.state], classes_U, member, hidden, FEW)
        assert one.epochs == epochs
        assert one.predictions.tolist() == predictions.tolist()


@pytest.mark.parametrize("hidden", [0, 12])
def test_a_member_has_alone_the_numbers_it_has_in_the_stack(hidden: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x_LUD, classes_U, speakers_U = planted(70, signal=0.5)
    members = members_of(x_LUD, classes_U, speakers_U)
    stacked = train_probes(x_LUD, classes_U, members, hidden, FEW)
    monkeypatch.setitem(classifiers.STACK, "cpu", 1_000)  # some at a time
    for other in (
        [train_probes(x_LUD, classes_U, [member], hidden, FEW)[0] for member in members],
        train_probes(x_LUD, classes_U, members, hidden, FEW),
        train_probes(x_LUD, classes_U, members[::-1], hidden, FEW)[::-1],
    ):
        for one, alone in zip(stacked, other, strict=True):
            assert one.epochs == alone.epochs
            assert one.predictions.tolist() == alone.predictions.tolist()


def test_epochs_are_bounded_and_patience_counts() -> None:
    x_LUD, classes_U, _ = planted(signal=0.0)
    member = [Member(0, published_split(classes_U, rng_of(0)), (0, 0))]
    assert train_probes(x_LUD, classes_U, member, 0, replace(FEW, epochs=2))[0].epochs == 2
    never = replace(FEW, improvement=100.0)  # the first epoch is an improvement on nothing
    assert train_probes(x_LUD, classes_U, member, 0, never)[0].epochs == 1 + never.patience


def test_a_test_part_changes_nothing_but_its_own_answers() -> None:
    x_LUD, classes_U, speakers_U = planted()
    split = speaker_splits(classes_U, speakers_U, 5, rng_of(0))[0][0]
    before = train_probes(x_LUD, classes_U, [Member(0, split, (0, 0))], 8, FEW)[0]
    rng = np.random.default_rng(0)
    other_U = classes_U.copy()
    other_U[split.test] = rng.permutation(other_U[split.test])
    x_LUD[:, split.test[1:]] = 1_000 * rng.standard_normal(x_LUD[:, split.test[1:]].shape)
    after = train_probes(x_LUD, other_U, [Member(0, split, (0, 0))], 8, FEW)[0]
    assert after.epochs == before.epochs
    assert after.predictions[0] == before.predictions[0]
    assert (after.predictions != before.predictions).any()


# --- what they find ---


def f1(results: dict[str, Any], kind: str, split: str, state: int) -> float:
    return float(np.mean(results[kind][split]["states"][state]["splits"]["macro_f1"]))


def test_linear_and_relu_probes_find_what_is_planted_for_them() -> None:
    x_LUD, _, speakers_U = planted(240, states=3, dims=6, signal=0.0)
    rng = np.random.default_rng(1)
    signs_U2 = rng.choice([-1, 1], (240, 2))
    classes_U = (signs_U2[:, 0] > 0).astype(np.int64)
    x_LUD[1, :, 0] += 30 * signs_U2[:, 0]
    x_LUD[2, :, :2] = 5 + 3 * (signs_U2 * [[1, 1]] + 0.2 * rng.standard_normal((240, 2)))
    x_LUD[2, :, 1] = 5 + 3 * (signs_U2.prod(1) + 0.2 * rng.standard_normal(240))
    x_LUD[2, :, 0] = 5 + 3 * (signs_U2[:, 1] + 0.2 * rng.standard_normal(240))  # the class is their product: XOR
    results = probes(x_LUD, x_LUD[1], classes_U, speakers_U, FEW, 0, "cpu")
    for split in ("published", "grouped"):
        assert f1(results, "linear", split, 0) < 0.65
        assert f1(results, "linear", split, 1) > 0.99
        assert f1(results, "linear", split, 2) < 0.65
        assert f1(results, "relu", split, 2) > 0.9
        assert np.mean(results["linear"][split]["egemaps"]["splits"]["macro_f1"]) > 0.99


def test_what_only_tells_speakers_apart_helps_the_published_split_alone() -> None:
    """Ten speakers with a class each, known by their voice: only a split that shares speakers looks good."""
    rng = np.random.default_rng(0)
    speaker_U = np.repeat(np.arange(10), 20)
    voice = rng.standard_normal((10, 30))
    x_LUD = (voice[speaker_U] + 0.1 * rng.standard_normal((200, 30)))[None]
    classes_U = np.array([0, 1] * 5)[speaker_U]
    results = probes(x_LUD, x_LUD[0], classes_U, speaker_U.astype(str), FEW, 0, "cpu")
    assert f1(results, "linear", "published", 0) > 0.99
    assert f1(results, "linear", "grouped", 0) < 0.7
    assert results["linear"]["published"]["note"] == MARK
    assert "predictions" not in results["linear"]["published"]["states"][0]["splits"]


def test_predictions_of_the_grouped_split_are_in_the_order_of_the_utterances() -> None:
    x_LUD, classes_U, speakers_U = planted(signal=0.7)
    few = replace(FEW, splits=3)
    state = probes(x_LUD, x_LUD[0], classes_U, speakers_U, few, 0, "cpu")["linear"]["grouped"]["states"][1]["splits"]
    assert np.array(state["predictions"]).shape == (few.splits, 120)
    for predictions, score in zip(state["predictions"], state["macro_f1"], strict=True):
        assert macro_f1(classes_U, np.array(predictions)) == score
    assert min(state["macro_f1"]) > 0.5


def drawn(
    monkeypatch: pytest.MonkeyPatch, settings: AnalysisSettings, speakers: int = 6
) -> tuple[dict[str, list[Member]], np.ndarray]:
    """The members on the states that `probes` trains linearly, by split, and the speakers. Nothing is trained."""
    x_LUD, classes_U, speakers_U = planted(speakers=speakers)
    seen: list[list[Member]] = []

    def train(z_LUD: np.ndarray, classes_U: np.ndarray, members: list[Member], *more: object) -> list[Probed]:
        seen.append(members)
        return [Probed(classes_U[m.split.test], 1) for m in members]

    monkeypatch.setattr(classifiers, "train_probes", train)
    probes(x_LUD, x_LUD[0], classes_U, speakers_U, settings, 7, "cpu")
    assert len(seen) == 8  # two kinds, two splits, states and eGeMAPS
    return {"published": seen[0], "grouped": seen[2]}, speakers_U


def test_initialisations_vary_on_one_split_and_splits_with_one_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, states = replace(FEW, initialisations=4, splits=3), 2
    by_split, _ = drawn(monkeypatch, settings)
    for name, folds in (("published", 1), ("grouped", 5)):
        members = by_split[name]
        assert len(members) == states * folds * (4 + 3 - 1)
        of = [[(m.seed, tuple(m.split.fit), tuple(m.split.valid)) for m in members if m.state == s] for s in (0, 1)]
        assert of[0] == of[1]  # every state has the same splits and initialisations
        probed = [of[0][at : at + folds] for at in range(0, len(of[0]), folds)]
        on_one_split, others = probed[:4], probed[4:]
        assert len({str([parts[1:] for parts in one]) for one in on_one_split}) == 1
        assert len({str([parts[0] for parts in one]) for one in on_one_split}) == 4
        assert len({str([parts[1:] for parts in one]) for one in (probed[0], *others)}) == 3
        assert len({str([parts[0] for parts in one]) for one in (probed[0], *others)}) == 1


@pytest.mark.parametrize("speakers", [3, 4, 7, 20])
def test_speakers_are_apart_in_every_split(speakers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    by_split, speakers_U = drawn(monkeypatch, replace(FEW, splits=4), speakers)
    for member in by_split["grouped"]:
        parts = [set(speakers_U[part]) for part in (member.split.fit, member.split.valid, member.split.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == speakers
    shared = [set(speakers_U[m.split.fit]) & set(speakers_U[m.split.test]) for m in by_split["published"]]
    assert all(shared)


def test_either_spread_is_nothing_where_its_luck_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that answer by their initialisation alone, and others that answer by their split alone."""
    x_LUD, classes_U, speakers_U = planted()

    def spreads(answer: Callable[[Member], int]) -> dict[str, float]:
        def train(z_LUD: np.ndarray, classes_U: np.ndarray, members: list[Member], *more: object) -> list[Probed]:
            return [
                Probed(np.where(np.arange(m.split.test.size) < answer(m), 0, classes_U[m.split.test]), 1)
                for m in members
            ]

        monkeypatch.setattr(classifiers, "train_probes", train)
        settings = replace(FEW, initialisations=4, splits=4)
        results = probes(x_LUD, x_LUD[0], classes_U, speakers_U, settings, 0, "cpu")
        state = results["linear"]["grouped"]["states"][0]
        return {name: float(np.std(state[name]["macro_f1"])) for name in ("initialisations", "splits")}

    by_initialisation = spreads(lambda m: 3 * m.seed[1])
    by_split = spreads(lambda m: int(m.split.valid.sum() % 25))
    assert by_split["initialisations"] == 0 < 0.005 < by_split["splits"]
    assert by_initialisation["initialisations"] > 0.005
    # The tested utterances are others in each split, but no answer is wrong.
    assert by_initialisation["splits"] == 0


def test_equal_seeds_give_equal_numbers() -> None:
    x_LUD, classes_U, speakers_U = planted(50, states=1)
    few = replace(FEW, initialisations=1, splits=1)
    one, again, other = (probes(x_LUD, x_LUD[0], classes_U, speakers_U, few, seed, "cpu") for seed in (0, 0, 1))
    assert one == again
    assert one["linear"] != other["linear"]


def test_a_dimension_that_is_constant_where_it_was_fitted_tells_nothing() -> None:
    x_LUD, classes_U, _ = planted(states=1)
    split = published_split(classes_U, rng_of(0))
    dead = np.concatenate([x_LUD, np.full((1, 120, 1), 7.1)], 2)
    dead[:, split.test, -1] = 1e6
    member = [Member(0, Split(split.fit, split.valid, split.test), (0, 0))]
    constant = dead.copy()
    constant[..., -1] = 7.1
    answers = [train_probes(x, classes_U, member, 0, FEW)[0].predictions.tolist() for x in (dead, constant)]
    assert answers[0] == answers[1]


def test_a_hole_is_filled_with_the_mean_of_the_fit_part() -> None:
    x_LUD, classes_U, _ = planted(states=1)
    split = published_split(classes_U, rng_of(0))
    x_LUD[:, split.test, 1] += 50  # a mean over all would be another
    holes, by_hand = x_LUD.copy(), x_LUD.copy()
    for part in (split.fit, split.valid, split.test):
        holes[:, part[:4], 1] = by_hand[:, part[:4], 1] = np.nan
    by_hand[np.isnan(by_hand)] = np.nanmean(by_hand[0, split.fit, 1])
    holes[..., 2] = np.nan  # nobody has it: it tells nothing
    by_hand[..., 2] = 0.0
    mean_D, sd_D = classifiers._moments(torch.tensor(holes[0, split.fit]))
    assert mean_D[1].item() == pytest.approx(np.nanmean(holes[0, split.fit, 1]), rel=1e-6)
    assert sd_D[1].item() == pytest.approx(np.nanstd(holes[0, split.fit, 1]), rel=1e-6)
    members = [Member(0, split, (0, 0))]
    feeds = [classifiers.Feed(torch.tensor(x), torch.tensor(classes_U), members) for x in (holes, by_hand)]
    for feed in feeds:  # whose deviation is that of what is known, by hand as with holes
        feed.sd_MD = feeds[0].sd_MD
    weights = [torch.randn(1, 10, 3, dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64)]
    index_AB = torch.arange(120)[None]
    one, two = (feed.logits(weights, torch.tensor([0]), index_AB) for feed in feeds)
    np.testing.assert_allclose(one, two, atol=1e-4)
    assert len(train_probes(holes, classes_U, members, 0, FEW)[0].predictions) == split.test.size


def test_settings_that_cannot_be_are_refused_by_name() -> None:
    assert "initialisations=0" in refusal(AnalysisSettings, initialisations=0)
    assert "splits=0" in refusal(AnalysisSettings, splits=0)
    assert "lr=-1" in refusal(AnalysisSettings, lr=-1)
    assert "folds=2" in refusal(AnalysisSettings, folds=2)
    assert "strengths" in refusal(AnalysisSettings, strengths=())
