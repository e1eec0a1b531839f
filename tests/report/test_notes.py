"""What stands under a table."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from types import SimpleNamespace

from bas.report.notes import power_lines
from bas.stats import Paired


def test_where_all_noise_is_that_of_seeds_power_names_twice_as_many() -> None:
    """No number of seeds is then enough to come near the power of infinitely many."""
    one = Paired(0.01, -0.03, 0.05, 0.5, 0.02, 8.0, 8, False, (2, 2), 0.02)
    (line,) = power_lines(SimpleNamespace(seeds=(0, 1), unit="speaker"), [one])
    assert line.endswith("a true difference of 6.4 points is seen in four of five such tables. With 4 seeds, 4.5.")
