"""Class weights and label smoothing: what they are, whose classes they count, and who obeys."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from refusals import refusal
from running import run_jobs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight
from sounds import tone
from stacking import alone, compare, new_run, results
from stores import Fake, quiet, store
from torch import Tensor
from torch.func import vmap
from torch.nn import functional as F

from bas.blocks import MeanPool
from bas.runs import run as runs
from bas.runs.fit import fit, fit_row, search_fold
from bas.runs.linear import fit_linear_row
from bas.runs.losses import Losses, balanced, check_loss, losses
from bas.runs.raced import race_fold
from bas.runs.session import Session
from bas.runs.stacked import fit_stack, stacks
from bas.space import SearchSpace
from bas.tasks import EMOTION, Classification, Shares
from bas.training.settings import PRESETS, Settings
from bas.training.stack import NotStackableError

WIDE = ROOT / "search_spaces" / "ser_wide.py"
BALANCED = replace(PRESETS["cpu"], class_weights="balanced")
SMOOTH = replace(PRESETS["cpu"], label_smoothing=0.2)
TARGETS = np.array([0, 0, 0, 0, 2, 2, 1, 0])


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight speakers, of whom each says the rarer word another number of times; a tone tells a little."""
    root = tmp_path_factory.mktemp("rare")
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(8):
            for label, takes in (("often", 4), ("rare", 1 + s % 3)):
                for take in range(takes):
                    id_ = f"s{s}{label}{take}"
                    hertz = 200 + 31 * s + 300 * (label == "rare") * (take != 1)
                    tone(root / f"{id_}.wav", 0.2 + 0.06 * take, hertz=hertz)
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(root / "cups.csv", root / "store", Fake())
    return root / "store"


def session_of(folder: Path, features: Path, space: Path = WIDE, **changes: str) -> Session:
    return Session(new_run(folder, features, space, **{"class_weights": "balanced", "epochs": "2", **changes}))


def weights_of(session: Session, ids: tuple[str, ...]) -> np.ndarray:
    """By class, as scikit-learn has them."""
    targets = session.run.targets[session.members(ids).numpy()]
    return np.asarray(compute_class_weight("balanced", classes=np.unique(targets), y=targets))


# --- the losses alone ---


def test_without_a_setting_the_loss_is_the_tasks() -> None:
    plain = losses(EMOTION, PRESETS["cpu"], TARGETS, 3)
    assert plain == (EMOTION.loss, EMOTION.loss)
    assert (PRESETS["cpu"].class_weights, PRESETS["paper"].label_smoothing) == ("none", 0.0)


def test_weights_are_those_of_scikit_learn() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    assert balanced(TARGETS, 3).numpy() == pytest.approx(expected)
    assert float(balanced(TARGETS, 3)[torch.from_numpy(TARGETS)].mean()) == pytest.approx(1)


def test_a_class_that_does_not_train_weighs_one() -> None:
    expected = compute_class_weight("balanced", classes=np.arange(3), y=TARGETS)
    assert balanced(TARGETS, 5).tolist() == pytest.approx([*expected, 1, 1])


def test_a_loss_is_a_mean_over_utterances_whatever_is_beside_them() -> None:
    """Else trainings that are stacked, which add the losses of single utterances, would not weigh at all."""
    outputs_BO, targets_B = torch.randn(8, 3, generator=torch.manual_seed(0)), torch.from_numpy(TARGETS)
    for loss in losses(EMOTION, replace(BALANCED, label_smoothing=0.1), TARGETS, 3):
        rows = vmap(loss)(outputs_BO[:, None], targets_B[:, None])
        assert float(rows.mean()) == pytest.approx(float(loss(outputs_BO, targets_B)))
        assert float(rows[4] / F.cross_entropy(outputs_BO[4:5], targets_B[4:5])) != pytest.approx(1)
    held = losses(EMOTION, BALANCED, TARGETS, 3).held
    expected = log_loss(TARGETS, outputs_BO.double().softmax(1), sample_weight=balanced(TARGETS, 3)[targets_B])
    assert float(held(outputs_BO, targets_B)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("settings", [SMOOTH, replace(SMOOTH, class_weights="balanced")])
def test_smoothing_is_of_what_trains_alone(settings: Settings) -> None:
    outputs_BO, targets_B = torch.randn(8, 3, generator=torch.manual_seed(1)), torch.from_numpy(TARGETS)
    weighs = settings.class_weights == "balanced"
    weights_B = balanced(TARGETS, 3)[targets_B] if weighs else torch.ones(8)
    smoothed_BO = 0.8 * F.one_hot(targets_B, 3) + 0.2 / 3
    log_BO = outputs_BO.log_softmax(1)
    of = losses(EMOTION, settings, TARGETS, 3)
    wanted = float(-(weights_B * (smoothed_BO * log_BO).sum(1)).mean())
    assert float(of.fit(outputs_BO, targets_B)) == pytest.approx(wanted, rel=1e-5)
    plain_B = F.cross_entropy(outputs_BO, targets_B, reduction="none")
    assert float(of.held(outputs_BO, targets_B)) == pytest.approx(float((weights_B * plain_B).mean()), rel=1e-5)


@dataclass(frozen=True)
class Focal(Classification):
    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        return 2 * super().loss(outputs_BO, targets_B)


@pytest.mark.parametrize(("settings", "given"), [(BALANCED, "class_weights=balanced"), (SMOOTH, "label_smoothing=0.2")])
def test_a_task_without_classes_or_with_a_loss_of_its_own_is_refused(settings: Settings, given: str) -> None:
    assert (
        refusal(check_loss, Shares(), settings) == f"setting {given}: task emotion-share has no classes; leave it out"
    )
    assert "task emotion has a loss or a linear model of its own" in refusal(check_loss, Focal(), settings)
    check_loss(Shares(), PRESETS["cpu"])
    check_loss(EMOTION, settings)


# --- who obeys ---


def test_the_linear_row_is_scikit_learns_of_the_same_weights(tmp_path: Path, features: Path) -> None:
    row = fit_linear_row(session_of(tmp_path, features), "logistic regression", 0)
    x_UD, targets_U = row.training
    expected = make_pipeline(
        StandardScaler(), LogisticRegression(C=row.strength, max_iter=2000, class_weight="balanced")
    ).fit(x_UD, targets_U)
    assert row.model[-1].coef_ == pytest.approx(expected[-1].coef_)
    plain = fit_linear_row(session_of(tmp_path / "plain", features, class_weights="none"), "logistic regression", 0)
    assert plain.model[-1].class_weight is None


def test_weights_are_of_the_fit_part_of_each_training(
    tmp_path: Path, features: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a row, a committee, a race with its ensemble, and a search: never of utterances that judge or test."""
    seen: list[Counter[int]] = []

    def noted(task: Any, settings: Settings, targets_U: np.ndarray, classes: int) -> Losses:
        assert settings.class_weights == "balanced"
        seen.append(Counter(targets_U.tolist()))
        return losses(task, settings, targets_U, classes)

    monkeypatch.setattr(runs, "losses", noted)
    session = session_of(tmp_path, features, committee="2", strategy="race", ensemble="2", budget="4")
    run, space = session.run, session.run.spaces["ser_wide"].space

    def counts(ids: tuple[str, ...]) -> Counter[int]:
        return Counter(run.targets[session.members(ids).numpy()].tolist())

    parts, inner = run.protocol.folds[0], session.inner_folds(0, 2)
    deep = next(a for a in space.architectures() if space.summary(a) is None)
    fit(session, space, deep, replace(run.plan.settings, committee=1, ensemble=1), 0, 0, lambda record: None)
    assert seen == [counts(parts.fit)]
    seen.clear()
    fit_row(session, space, deep, run.plan.settings, 0, 0, lambda record: None)
    assert seen == [counts(of.fit) for of in inner]
    seen.clear()
    race_fold(session, space, run.plan.settings, 0, 0, lambda: None)
    training = counts((*parts.fit, *parts.valid))
    assert {tuple(sorted(of.items())) for of in seen} == {
        tuple(sorted(of.items())) for of in (training, *(counts(of.fit) for of in inner))
    }
    assert seen[-1] == training, "an ensemble is weighed on all that was held out"
    seen.clear()
    slots: Any = {"layer1": dict(list(space.slots["layer1"].items())[:2])}
    small = SearchSpace(slots, MeanPool)
    search_fold(session, small, replace(run.plan.settings, strategy="gumbel"), 0, 0, lambda record: None)
    assert seen == [counts(parts.fit)]


def test_the_validation_loss_is_weighted_and_not_smoothed(tmp_path: Path, features: Path) -> None:
    """Of a network and of a linear model that is solved in its place."""
    session = session_of(tmp_path, features, label_smoothing="0.3")
    run, space, parts = session.run, session.run.spaces["ser_wide"].space, session.run.protocol.folds[0]
    valid = session.members(parts.valid)
    weights_O, targets_B = weights_of(session, parts.fit), run.targets[valid.numpy()]
    deep = next(a for a in space.architectures() if space.summary(a) is None)
    for architecture in (deep, space.blockless()[0]):
        fitted = fit(session, space, architecture, run.plan.settings, 0, 0, lambda record: None)
        with torch.inference_mode():
            outputs = [fitted.network(*fitted.data.batch(u[None])[:2])[0] for u in valid]
        chances_BO = torch.stack(outputs).softmax(1).double().numpy()
        wanted = -(weights_O[targets_B] * np.log(chances_BO[np.arange(len(valid)), targets_B])).mean()
        (kept,) = fitted.kept
        assert kept["valid"]["loss"] == pytest.approx(wanted, rel=1e-4)
        assert kept["score"] == -kept["valid"]["loss"]


def test_a_rare_class_is_heard_more_often(tmp_path: Path, features: Path) -> None:
    """What the weights are for: of solved models, to which no luck of a training adds."""
    rare = {}
    for how in ("none", "balanced"):
        session = session_of(tmp_path / how, features, class_weights=how)
        run, space = session.run, session.run.spaces["ser_wide"].space
        everyone = torch.arange(len(run.utterances))
        fitted = fit(session, space, space.blockless()[0], run.plan.settings, 0, 0, lambda record: None)
        with torch.inference_mode():
            outputs = [fitted.network(*fitted.data.batch(u[None])[:2])[0] for u in everyone]
        rare[how] = float(torch.stack(outputs).softmax(1)[:, run.outputs.index("rare")].mean())
    assert rare["balanced"] > rare["none"] + 0.05


# --- in stacks ---


def test_a_stack_is_of_one_fold_where_weights_are_of_folds(tmp_path: Path, features: Path) -> None:
    run = new_run(tmp_path / "one", features, class_weights="balanced", label_smoothing="0.1")
    jobs = alone(run, 0, 5)
    session = Session(run)
    assert {len({job.fold for job in group}) for group in stacks(session, jobs, 99)} == {1}
    assert all(len(group) == len(run.plan.seeds) for group in stacks(session, jobs, 99))
    plain = Session(new_run(tmp_path / "plain", features, label_smoothing="0.1"))
    assert max(len({job.fold for job in group}) for group in stacks(plain, jobs, 99)) == len(run.protocol.folds)
    space = run.spaces["ser_bas3"].space
    architecture = next(space.architectures())
    with pytest.raises(NotStackableError, match="class weights differ from fold to fold"):
        fit_stack(session, space, architecture, run.plan.settings, [(0, 0), (1, 0)], lambda: None)


@pytest.mark.slow
def test_stacked_trainings_weigh_and_smooth_as_alone(tmp_path: Path, features: Path) -> None:
    both = []
    for stacked in (True, False):
        run = new_run(tmp_path / f"{stacked}", features, class_weights="balanced", label_smoothing="0.1")
        run_jobs(run, alone(run, 5), 3, 1, quiet(), "trainings", stacked=stacked)
        both.append(results(run))
    compare(*both)
