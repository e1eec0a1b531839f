"""Which state to read, from training utterances alone."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refusal
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bas.runs.layers import FOLDS, STRENGTH, best, cross_validate, middle
from bas.stats import wa
from bas.tasks import EMOTION, Shares

RNG = np.random.default_rng(0)
UNITS = np.repeat([f"s{i}" for i in range(6)], 8)
TARGETS = np.tile([0, 1], 24)


def planted(carries: int) -> np.ndarray:
    """`(48, 3, 4)`: one state tells the class, the others are noise."""
    x_ULD = RNG.normal(size=(48, 3, 4))
    x_ULD[:, carries, 0] += 4 * TARGETS
    return x_ULD


@pytest.mark.parametrize("carries", [0, 1, 2])
def test_the_state_that_tells_the_class_is_found(carries: int) -> None:
    scores = cross_validate(planted(carries), TARGETS, UNITS, (2, 5, 9), EMOTION, wa)
    assert best(scores) == (2, 5, 9)[carries]
    assert sorted(scores) == [2, 5, 9]


def test_scores_are_those_of_scikit_learn_over_whole_speakers() -> None:
    x_ULD = planted(0)
    model = make_pipeline(StandardScaler(), EMOTION.linears["logistic regression"](STRENGTH))
    predicted = cross_val_predict(model, x_ULD[:, 1], TARGETS, cv=GroupKFold(FOLDS), groups=UNITS)
    assert cross_validate(x_ULD, TARGETS, UNITS, (0, 1, 2), EMOTION, wa)[1] == wa(TARGETS, predicted)


def test_a_state_that_only_knows_the_speaker_is_not_taken() -> None:
    """Each speaker has one voice and mostly one class: over utterances that would look like knowing the class."""
    targets_U = np.repeat(np.arange(6), 8) % 2
    targets_U[::8] ^= 1  # one utterance of each speaker is of the other class
    x_ULD = RNG.normal(size=(48, 2, 8))
    x_ULD[:, 0, :6] += 8 * (UNITS[:, None] == np.unique(UNITS))
    x_ULD[:, 1, 0] += 1.5 * targets_U
    alone = np.array([f"u{i}" for i in range(48)])
    by_speaker, by_utterance = (cross_validate(x_ULD, targets_U, u, (0, 1), EMOTION, wa) for u in (UNITS, alone))
    assert best(by_speaker) == 1
    assert best(by_utterance) == 0


def test_of_equals_the_one_nearest_the_middle() -> None:
    assert middle((0, 1, 2, 3, 4)) == 2
    assert best({0: 0.5, 1: 0.9, 2: 0.1, 3: 0.9, 4: 0.9}) == 1, "one and three are as near; the lower"
    assert best({0: 0.9, 1: 0.5, 2: 0.1, 3: 0.2, 4: 0.9}) == 0
    assert best({0: 0.9, 6: 0.9, 12: 0.9}) == 6


def test_one_speaker_is_cross_validated_over_utterances() -> None:
    scores = cross_validate(planted(1), TARGETS, np.full(48, "s0"), (0, 1, 2), EMOTION, wa)
    assert best(scores) == 1


def test_speakers_of_one_class_each_are_refused() -> None:
    units = np.where(TARGETS == 0, "s0", "s1")
    message = refusal(cross_validate, planted(0), TARGETS, units, (0, 1, 2), EMOTION, wa)
    assert message == "the best layer cannot be estimated: each training speaker is of one class"
    shares, metric = Shares(), Shares().metrics(["happy"])["Spearman"]
    message = refusal(cross_validate, planted(0), TARGETS[:, None] / 2, units, (0, 1, 2), shares, metric)
    assert message == "the best layer cannot be estimated: each training speaker is of one value"
