"""Every fault of `make mutants` can still be planted: its place is in the code, once."""

from __future__ import annotations

import pytest
from mutants import MUTANTS, Mutant
from planting import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_place_of_a_fault_is_in_the_code_once(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.old != mutant.new
