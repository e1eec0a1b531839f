"""Figures that are cited beside a table: under which tables, and that the documentation says the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comparisons import SPLIT, comparison
from places import ROOT

from bas.report.cited import CITED, TITLE
from bas.report.comparison_page import markdown


@pytest.mark.parametrize(
    ("corpus", "system", "figure"), [("iemocap", "Zou et al. 2022", "71.05"), ("meld", "Hu et al.", "42.72")]
)
def test_a_table_of_the_papers_corpora_cites_its_table_2(corpus: str, system: str, figure: str) -> None:
    page = markdown(replace(comparison(), corpus=corpus))
    _, cited = page.split(f"## {TITLE}\n")
    (line,) = [line for line in cited.splitlines() if system in line]
    assert figure in line
    assert "Nothing above is compared with them" in cited


def test_another_corpus_task_or_scheme_of_labels_cites_nothing() -> None:
    other = comparison()
    assert TITLE not in markdown(other)
    assert TITLE not in markdown(replace(other, corpus="meld", protocol=replace(SPLIT, task="speaker-id")))
    assert TITLE not in markdown(replace(other, corpus="meld", protocol=replace(SPLIT, labels="common")))


def test_the_documentation_has_the_same_rows() -> None:
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    there = [row for row in rows if row[0] in ("IEMOCAP", "MELD")]
    assert there == [
        [corpus.upper(), of.system, *(of.metrics.get(name, "") for name in ("WA", "UA", "WF1"))]
        for corpus, systems in CITED.items()
        for of in systems
    ]
