"""What is measured of a checkpoint, on numbers made by hand; on a fine-tuning's own: test_dynamics.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refusals import refusal

from bas.studies.dynamics.checkpoints import own_head, read_means, refitted, score
from bas.tasks import EMOTION


def test_refitting_fits_on_fit_and_chooses_on_valid() -> None:
    """A direction that tells the classes in fit alone is no help; the test part plays no role in the choice."""
    rng = np.random.default_rng(0)
    targets = {part: rng.integers(0, 2, n) for part, n in (("fit", 60), ("valid", 40), ("test", 50))}
    parts = {part: rng.standard_normal((2, len(t), 5)) for part, t in targets.items()}
    for part, t in targets.items():
        parts[part][1, :, 3] += 6.0 * t
    scores = refitted(parts, targets, EMOTION)
    assert scores["WA"][1] > 0.95
    assert scores["WA"][0] < 0.75
    changed = refitted({**parts, "test": parts["test"][:, ::-1]}, targets, EMOTION)
    assert changed["strengths"] == scores["strengths"]
    blind = refitted(parts, {**targets, "valid": 1 - targets["valid"]}, EMOTION)
    assert blind["strengths"][1] <= scores["strengths"][1]


def test_own_head_and_scores() -> None:
    cut_LUD = np.array([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    scores = own_head(cut_LUD, np.eye(2), np.array([0.0, 0.5]), np.array([0, 1, 0]))
    assert scores["predictions"] == [[0, 1, 1]]
    assert scores["WA"] == [pytest.approx(2 / 3)]
    assert scores["UA"] == [pytest.approx(0.75)]
    assert score([np.array([0, 1, 0])], np.array([0, 1, 0]))["macro_f1"] == [1.0]


def test_means_are_read_for_their_own_utterances_or_refused_with_the_remedy(tmp_path: Path) -> None:
    path, x_LUD = tmp_path / "means.npz", np.ones((2, 2, 3))
    assert refusal(read_means, path, ["a"], "do so") == f"{path}: missing; put it back, or give another --name"
    np.savez(path, ids=np.array(["a", "b"]), x_LUD=x_LUD, cut_LUD=2 * x_LUD)
    assert [float(part.mean()) for part in read_means(path, ["a", "b"], "do so")] == [1, 2]
    assert refusal(read_means, path, ["b", "a"], "do so").endswith("; do so")
