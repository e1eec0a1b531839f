"""What a table says of a row whose predictions are of one class."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bas.runs import results
from bas.tasks import EMOTION


def remarks(monkeypatch: pytest.MonkeyPatch, truth: list[str], predicted: list[list[str]]) -> tuple[str, ...]:
    """Of two test parts of three utterances; predictions by seed."""
    index = {"calm": 0, "angry": 1}
    targets = np.array([index[name] for name in truth])
    monkeypatch.setattr(results, "tested", lambda run: (targets, None))
    folds = [SimpleNamespace(test=("a", "b", "c")), SimpleNamespace(test=("d", "e", "f"))]
    run: Any = SimpleNamespace(task=EMOTION, outputs=("calm", "angry"), protocol=SimpleNamespace(folds=folds))
    return results.remarks_of(run, np.array([[index[name] for name in of_seed] for of_seed in predicted]))


C, A = "calm", "angry"


@pytest.mark.parametrize(
    ("predicted", "told"),
    [
        ([[C, A, C, C, C, A]], ()),
        ([[C, C, C, C, A, A]], ("predicts one class alone in 1 of 2 test parts (calm 1)",)),
        ([[C, C, C, A, A, A]], ("predicts one class alone in 2 of 2 test parts (angry 1, calm 1)",)),
        ([[C] * 6, [C, A] * 3], ("predicts one class alone in 2 of 4 test parts (calm 2)",)),
    ],
)
def test_rows_of_one_class_say_so(monkeypatch: pytest.MonkeyPatch, predicted: Any, told: Any) -> None:
    assert remarks(monkeypatch, [C, A, C, A, C, A], predicted) == told


def test_a_part_of_one_class_asks_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remarks(monkeypatch, [C, C, C, A, C, A], [[C, C, C, A, C, A]]) == ()
    told = ("predicts one class alone in 1 of 1 test parts (calm 1)",)
    assert remarks(monkeypatch, [C, C, C, A, C, A], [[C] * 6]) == told
