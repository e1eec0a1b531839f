"""Architectures without a block: against scikit-learn, by which speakers, and which are not solved."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from places import ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sounds import tone
from stacking import new_run
from stores import Fake, store

from bas.blocks import FFN, MeanPool, QuantilePool, Skip, StatisticsPool, mean_frame, moments, quantiles
from bas.networks.linear import LinearModel
from bas.networks.network import Network, Residual, build, make
from bas.protocols import Fold
from bas.runs import solved as solving
from bas.runs.fit import fit, fit_row
from bas.runs.linear import STRENGTHS
from bas.runs.session import Session
from bas.runs.solved import solvable, solve
from bas.space import Architecture, SearchSpace
from bas.tasks import Shares
from bas.training.loop import outputs

SPACE = ROOT / "search_spaces" / "ser_wide.py"
LAST = "c"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight speakers, three labels; the pitch of a tone says a little of each."""
    root = tmp_path_factory.mktemp("solved")
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(8):
            for number, label in enumerate("abc"):
                for take in range(3):
                    id_ = f"s{s}{label}{take}"
                    hertz = 200 + 37 * s + 290 * number * (take > 0)
                    tone(root / f"{id_}.wav", 0.2 + 0.06 * take + 0.05 * number, hertz=hertz)
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(root / "cups.csv", root / "store", Fake())
    return root / "store"


@pytest.fixture(scope="module")
def session(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    changes = {"committee": "3", "strategy": "race", "epochs": "2", "width": "8"}
    return Session(new_run(tmp_path_factory.mktemp("run") / "run", features, SPACE, **changes))


def blockless(session: Session, pool: str) -> Architecture:
    space = session.run.spaces["ser_wide"].space
    return next(a for a in space.blockless() if a["pool"] == pool)


def by_hand(session: Session, pool: str, ids: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The summaries of utterances, each alone; and their targets."""
    summary = {"mean": mean_frame, "statistics": moments, "quantiles": quantiles}[pool]
    members, data = session.members(ids), session.data(1, 1)
    rows = []
    for u in members.tolist():
        x_BTD, mask_BT, _ = data.batch(torch.tensor([u]))
        rows.append(summary(x_BTD, mask_BT)[0].double().numpy())
    return np.array(rows), session.run.targets[members.numpy()]


def model(strength: float) -> LogisticRegression:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, tol=1e-8))


@pytest.mark.parametrize(
    ("pool", "rotated"), [("mean", False), ("statistics", False), ("quantiles", False), ("quantiles", True)]
)
def test_it_is_the_logistic_regression_of_the_lowest_held_out_loss(
    pool: str, rotated: bool, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rotated: a fit part of fewer utterances than the summary has values, which is solved in fewer dimensions."""
    inner = session.inner_folds(0, 3)
    if rotated:
        inner = [replace(one, fit=one.fit[::5][:9]) for one in inner[:1]]
    tight = lambda **given: LogisticRegression(**{**given, "tol": 1e-8, "max_iter": 5000})  # noqa: E731
    monkeypatch.setattr(solving, "LogisticRegression", tight)
    whole, settings = inner[0], session.run.plan.settings
    space = session.run.spaces["ser_wide"].space
    summary = solvable(session, space, blockless(session, pool))
    assert summary
    found = solve(session, summary, settings, 0, inner, whole)
    losses = {}
    for strength in STRENGTHS:
        each = []
        for one in inner:
            (x_UK, y_U), (held_UK, held_U) = (by_hand(session, pool, ids) for ids in (one.fit, one.valid))
            fitted = model(strength).fit(x_UK, y_U)
            each.append(log_loss(held_U, fitted.predict_proba(held_UK), labels=[0, 1, 2]))
        losses[strength] = float(np.mean(each))
    best = min(losses, key=lambda strength: losses[strength])
    assert found.record["valid"]["loss"] == pytest.approx(losses[best], rel=1e-4)
    assert found.record["score"] == -found.record["valid"]["loss"]
    x_UK, y_U = by_hand(session, pool, whole.fit)
    tested = session.run.protocol.folds[0].test
    expected = model(best).fit(x_UK, y_U).predict_log_proba(by_hand(session, pool, tested)[0])
    out = outputs(found.network, found.data, session.members(tested)).double().log_softmax(1).numpy()
    assert out == pytest.approx(expected, abs=2e-3)
    assert found.record["loss"] == pytest.approx(
        log_loss(y_U, model(best).fit(x_UK, y_U).predict_proba(x_UK)), rel=1e-3
    )


def test_a_row_is_fitted_on_all_training_speakers_and_a_network_of_a_race_on_its_own(session: Session) -> None:
    space, settings, parts = (
        session.run.spaces["ser_wide"].space,
        session.run.plan.settings,
        session.run.protocol.folds[0],
    )
    architecture = blockless(session, "mean")
    row = fit_row(session, space, architecture, settings, 0, 0, lambda record: None)
    assert isinstance(row.network, LinearModel)
    means_UK, _ = by_hand(session, "mean", (*parts.fit, *parts.valid))
    assert row.network.standardise.mean_I.numpy() == pytest.approx(means_UK.mean(0), abs=1e-4)
    (inner, *_) = session.inner_folds(0, 3)
    one = fit(session, space, architecture, settings, 0, 0, lambda record: None, parts=inner)
    assert isinstance(one.network, LinearModel)
    assert one.network.standardise.mean_I.numpy() == pytest.approx(
        by_hand(session, "mean", inner.fit)[0].mean(0), abs=1e-4
    )
    alone = fit_row(session, space, architecture, replace(settings, committee=1), 0, 0, lambda record: None)
    assert isinstance(alone.network, LinearModel)
    assert alone.network.standardise.mean_I.numpy() == pytest.approx(
        by_hand(session, "mean", parts.fit)[0].mean(0), abs=1e-4
    )


def test_a_class_without_an_utterance_is_less_likely_than_any_other(session: Session) -> None:
    (inner, *_) = session.inner_folds(0, 3)
    two = Fold(tuple(i for i in inner.fit if LAST not in i), inner.valid, inner.test)
    found = solve(session, mean_frame, session.run.plan.settings, 0, [two], two)
    out_UO = outputs(found.network, found.data, session.members(two.valid))
    assert out_UO.isfinite().all()
    assert set(out_UO.argmax(1).tolist()) <= {0, 1}
    fit_UO = outputs(found.network, found.data, session.members(two.fit))
    _, y_U = by_hand(session, "mean", two.fit)
    assert (fit_UO.argmax(1).numpy() == y_U).mean() > 0.5, "two classes have one row of coefficients"


def test_one_class_alone_is_what_it_predicts(session: Session) -> None:
    """As where each speaker has one label, and few train."""
    (inner, *_) = session.inner_folds(0, 3)
    one = Fold(tuple(i for i in inner.fit if LAST in i), inner.valid, inner.test)
    found = solve(session, mean_frame, session.run.plan.settings, 0, [one], one)
    out_UO = outputs(found.network, found.data, session.members(one.valid))
    assert set(out_UO.argmax(1).tolist()) == {2}
    assert out_UO.isfinite().all()


def test_where_nothing_varies_it_knows_the_shares_of_the_classes(session: Session) -> None:
    (inner, *_) = session.inner_folds(0, 3)
    alike = tuple(i for i in inner.fit if i.endswith("0") and i.startswith(inner.fit[0][:2]))
    one = Fold((*alike, alike[0]), inner.valid, inner.test)
    found = solve(session, quantiles, session.run.plan.settings, 0, [one], one)
    fit_UO = outputs(found.network, found.data, session.members(one.fit))
    assert set(fit_UO.argmax(1).tolist()) == {0}, "the class that is there twice"


def test_it_takes_the_place_of_a_network_of_its_summary_not_of_its_stem(session: Session) -> None:
    """The deviation of a projected frame is no linear map of the dimensions' own: the model is another, and said so."""
    space = session.run.spaces["ser_wide"].space
    network = build(space, blockless(session, "statistics"), 4, 8, 3).eval()
    x_BTD = torch.tensor([[[1.0, 1, 0, 0], [-1, -1, 0, 0]], [[1.0, -1, 0, 0], [-1, 1, 0, 0]]])
    mask_BT = torch.ones(2, 2, dtype=torch.bool)
    torch.testing.assert_close(*moments(x_BTD, mask_BT))
    assert not torch.allclose(*network(x_BTD, mask_BT))
    assert torch.allclose(*LinearModel(moments, 4, 3)(x_BTD, mask_BT))


def test_the_batch_changes_nothing(session: Session) -> None:
    (inner, *_) = session.inner_folds(0, 3)
    found = solve(session, QuantilePool.summary, session.run.plan.settings, 0, [inner], inner)
    members = session.members(inner.valid)
    together, apart = (outputs(found.network, found.data, members, size) for size in (64, 1))
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


# What is solved


LAYER = {"none": Skip, "FFN": FFN}


def test_only_what_is_a_linear_model_is_solved(session: Session) -> None:
    space = SearchSpace({"a": LAYER, "b": LAYER}, {"mean": MeanPool, "statistics": StatisticsPool})
    chosen = {str(a): solvable(session, space, a) for a in space.architectures()}
    assert {name for name, summary in chosen.items() if summary} == {"none > none > mean", "none > none > statistics"}
    assert [str(a) for a in space.blockless()] == ["none > none > mean", "none > none > statistics"]
    full = SearchSpace({"a": LAYER, "b": {"FFN": FFN}}, MeanPool)
    assert full.blockless() == []
    stem = SearchSpace({"a": {"none": Skip}}, MeanPool, stem=Network)
    assert stem.summary(stem.only()) is None
    each = SearchSpace({"a": {"none": Skip}}, MeanPool, each_output=True)
    assert each.summary(each.only()) is None
    shares = cast(Session, SimpleNamespace(run=SimpleNamespace(task=Shares())))
    assert solvable(shares, space, space.blockless()[0]) is None, "no classes: another loss"


def test_an_empty_slot_stays_empty_with_residuals() -> None:
    assert isinstance(make("a", Skip, 4, 4, residual=True), Skip)
    assert isinstance(make("a", FFN, 4, 4, residual=True), Residual)
