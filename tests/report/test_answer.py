"""What a table comes to: the linear row, unless another is shown to be better."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import t as student_t

from bas.report.answer import answer
from bas.runs.results import LAST_EPOCH, NOT_ABOVE_CHANCE
from bas.stats import Paired


def pair(difference: float, se: float = 0.01, units: int = 10) -> Paired:
    """By Student's t with 9 degrees of freedom; of too few units without an interval."""
    half = se * float(student_t.ppf(0.975, 9)) if units > 2 else math.inf
    p = 2 * float(student_t.sf(abs(difference) / se, 9))
    return Paired(difference, difference - half, difference + half, p, se, 9, units, False, (3, 3), 0.0)


def table(remarks: tuple[str, ...] = (), **against_linear: Paired) -> Any:
    """Rows against the linear one; the reference, the first, against which nothing is known."""
    rows = [
        SimpleNamespace(
            row=name, against_linear=of, against_reference=None, remarks=remarks, parameters=0 if name == "mean" else 9
        )
        for name, of in against_linear.items()
    ]
    line = SimpleNamespace(row="line", against_linear=None, against_reference=None, remarks=remarks, parameters=5)
    rows.append(line)
    given = {"linear": "line", "reference": "T", "headline": "WA", "unit": "speaker", "units": 10, "folds": 5}
    return SimpleNamespace(rows=rows, seeds=(0, 1, 2), **given)


def test_without_a_better_row_the_linear_one_is_taken() -> None:
    said = answer(table(T=pair(-0.1), F=pair(0.015), BAS=pair(0.01)))
    assert said.row == "line"
    assert said.text.startswith(
        "Take the line, the simplest row: no other is shown to be better. Of the others F is the highest, WA +1.5"
    )
    assert "a true difference of 3.1 points between these two would be seen" in said.text  # 0.01 (2.262 + 0.883)


def test_a_row_that_is_shown_to_be_better_is_taken() -> None:
    said = answer(table(T=pair(0.01), BAS=pair(0.08)))
    assert said.row == "BAS"
    assert said.text.startswith("Take BAS: WA +8.0")
    assert said.text.endswith("Of no other row is that shown.")
    both = answer(table(T=pair(0.09, 0.02), BAS=pair(0.08)))
    assert both.row == "BAS", "the surest, not the highest"
    assert both.text.endswith("Better than it, too: T; which of these is best is not shown.")


def test_what_correction_takes_back_is_not_taken() -> None:
    just = pair(0.0235)  # p 0.043
    assert just.verdict == "better"
    assert answer(table(BAS=just)).row == "BAS"
    assert answer(table(T=pair(0.0), F=pair(0.0), BAS=just)).row == "line"


def test_a_row_that_is_worse_is_never_taken() -> None:
    assert answer(table(T=pair(-0.2), BAS=pair(-0.3))).row == "line"


@pytest.mark.parametrize("units", [2])
def test_without_an_interval_that_is_said(units: int) -> None:
    said = answer(table(T=pair(0.3, units=units), BAS=pair(0.5, units=units)))
    assert said.row == "line"
    assert said.text.startswith("This table tells no row from another, for there is no verdict with 10 units (speaker)")


def test_at_chance_nothing_is_taken() -> None:
    low = (f"{NOT_ABOVE_CHANCE}: its interval of UA reaches down to 50.0 or less",)
    assert answer(table(low, BAS=pair(0.01))).row is None
    one_above = table(low, BAS=pair(0.01))
    one_above.rows[0].remarks = ()
    assert answer(one_above).row == "line"
    assert "It is itself not shown to be above chance." in answer(one_above).text
    assert "itself" not in answer(table(BAS=pair(0.01))).text


def test_rows_that_had_not_learnt_to_an_end_are_told() -> None:
    early = (f"10 of 10 {LAST_EPOCH}; more epochs may change what it is worth",)
    of = table(early, T=pair(0.0), BAS=pair(0.01))
    assert answer(of).text.endswith("But 2 of 2 other rows had not learnt to an end: more epochs may change this.")
    assert answer(of).early
    of.rows[0].remarks = ()
    assert "learnt" not in answer(of).text
    assert not answer(of).early


def test_a_linear_row_that_says_no_more_than_the_mean_is_told() -> None:
    """Of numbers, chance is a row of the table."""
    said = "not shown to be better than mean, which says the same of every recording"
    assert said in answer(table(T=pair(-0.1), mean=pair(0.01))).text
    assert said in answer(table(T=pair(-0.1), mean=pair(-0.01))).text
    assert said not in answer(table(T=pair(-0.1), mean=pair(-0.4))).text
