"""Every verb's numbers on a tiny corpus are those of tests/golden/numbers.txt; `make golden` rewrites that file."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path

import numpy as np
import pytest
from golden.verbs import numbers

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "golden" / "numbers.txt"
TOLERANCE = 0.02
"""Of the features' means and deviations, on another processor or torch."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return numbers(tmp_path_factory.mktemp("golden"))


def same(known: Sequence[str], made: Sequence[str]) -> list[str]:
    """The lines that differ, each as it was and is; empty where the numbers are the same.

    On the machine and torch that the first line names, every character counts. Elsewhere a training may choose and
    predict another class: there the same trainings must have been done, on features that agree within TOLERANCE.
    """
    if known[0] != made[0]:
        (known, were), (made, are) = _portable(known), _portable(made)
        if known == made:
            pairs = zip(known, were, are, strict=True)
            return [f"{name}: {a}, was {b}" for name, a, b in pairs if not np.allclose(a, b, TOLERANCE, TOLERANCE)]
    changed = unified_diff(known, made, lineterm="", n=0)
    return [line for line in changed if line[0] in "+-" and line[:3] not in ("+++", "---")]


def _portable(lines: Sequence[str]) -> tuple[list[str], list[list[float]]]:
    """The trainings and features, and the features' numbers."""
    named = [line.split(": ", 1) for line in lines[1:] if ".md: " not in line]
    moments = [text.partition(", mean ")[2] for _, text in named]
    return [name for name, _ in named], [[float(v) for v in text.split(", deviation ") if v] for text in moments]


def test_every_verb_gives_the_numbers_that_are_written_down(made: list[str]) -> None:
    differences = same(GOLDEN.read_text(encoding="utf-8").splitlines(), made)
    assert not differences, "\n".join(differences)


def test_a_number_that_moved_is_told() -> None:
    known = ["# here", "nano state 0: (9, 4), mean 0.7179, deviation 2", "cups search: loss 0.5"]
    assert same(known, known) == []
    assert same(known, [*known[:2], "cups search: loss 0.6"]) == ["-cups search: loss 0.5", "+cups search: loss 0.6"]
    assert same(known, [*known, known[-1]]) == ["+cups search: loss 0.5"]
    elsewhere = ["# there", "nano state 0: (9, 4), mean 0.7181, deviation 2", "cups search: loss 0.6"]
    assert same(known, elsewhere) == []
    assert same(known, elsewhere[:2]) == ["-cups search"]
    assert same(known, [elsewhere[0], "nano state 0: (9, 4), mean 0.9, deviation 2", elsewhere[2]]) != []
