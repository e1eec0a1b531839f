"""What pages say of many comparisons and many remarks: marks and lines that stay short."""

from __future__ import annotations

from bas.report.format import NONE, verdict
from bas.report.notes import NAMED, corrected, many_line, remark_lines, uncorrected_line
from bas.stats import Paired


def of_p(p: float, units: int = 10) -> Paired:
    low, high = (0.01, 0.05) if p <= 0.05 else (-0.01, 0.07)
    return Paired(0.03 + p / 1000, low, high, p, 0.01, 9.0, units, False, (3, 3), 0.0)


def test_what_a_correction_does_not_leave_is_marked() -> None:
    certain, alone, tie = of_p(0.001), of_p(0.04), of_p(0.5)
    stay = corrected([certain, alone, tie])
    assert stay == {certain}
    cells = [verdict(of, stay).rpartition(": ")[2] for of in (certain, alone, tie)]
    assert cells == ["better", "better, uncorrected", "tie"]
    assert verdict(alone).endswith(": better"), "without a correction there is no mark"
    assert verdict(None, stay) == NONE
    assert uncorrected_line([certain, alone]) == []
    assert len(uncorrected_line([certain, alone, tie])) == 1
    assert corrected([of_p(0.001, units=3)]) == set(), "no claim, no verdict"


def test_verdicts_that_stay_are_named_where_they_are_few() -> None:
    few = {f"row {i}": of_p(0.0001 * (i + 1)) for i in range(NAMED)}
    (line,) = many_line(few)
    assert "corrected (Holm), 8: row 0 (better), " in line
    (line,) = many_line(few | {"one more": of_p(0.001)})
    assert line.endswith("corrected (Holm), 9.")


def test_a_remark_of_many_rows_is_one_line() -> None:
    remarks = {f"row {i}": ("the same", f"of row {i} alone") if i < 2 else ("the same",) for i in range(NAMED + 2)}
    assert remark_lines(remarks) == ["10 of 10 rows: the same.", "row 0: of row 0 alone.", "row 1: of row 1 alone."]
    assert remark_lines({"a": ("x",), "b": (), "c": ("x",)}) == ["a, c: x."]
