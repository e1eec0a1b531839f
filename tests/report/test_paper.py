"""The table as LaTeX and as CSV."""

from __future__ import annotations

import csv
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from comparisons import comparison

from bas.report import paper


def test_texts_are_set_as_they_are() -> None:
    assert paper.escaped(r"50 % of a_b & c\d ~ {x} ± 1") == (
        r"50 \% of a\_b \& c\textbackslash{}d \textasciitilde{} \{x\} $\pm$ 1"
    )
    assert paper.escaped("FFN > MSA – <x>^#$") == r"FFN $>$ MSA -- $<$x$>$\textasciicircum{}\#\$"


def test_the_latex_table_has_a_line_a_row() -> None:
    lines = paper.latex(comparison()).splitlines()
    start, end = lines.index(r"\midrule"), lines.index(r"\bottomrule")
    assert [line.split(" & ")[0] for line in lines[start + 1 : end]] == ["4L", "lr"]
    (columns,) = [line.partition("{tabular}")[2].strip("{}") for line in lines if line.startswith(r"\begin{tabular}")]
    assert {line.count(" & ") + 1 for line in lines if line.endswith(r"\\")} == {len(columns)}
    assert r"50.0 $\pm$ 10.0 & 40.0 & 30.0 to 70.0" in lines[start + 1]
    assert lines[start + 2].endswith(r"+10.0 (+2.0 to +20.0), p 0.01: better \\")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_sets_it(tmp_path: Path) -> None:
    odd = replace(comparison(), corpus=r"a_b & 50 % {x} \y ~ ^")
    text = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{paper.latex(odd)}\end{{document}}"
    (tmp_path / "a.tex").write_text(text)
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_the_spreadsheet_has_every_number(tmp_path: Path) -> None:
    rows = tuple(replace(row, row=f"={row.row}") for row in comparison().rows)
    paper.write(tmp_path, replace(comparison(), rows=rows))
    lines = list(csv.DictReader((tmp_path / "table.csv").open(newline="", encoding="utf-8")))
    assert [line["row"] for line in lines] == ["'=4L", "'=lr"]
    assert float(lines[1]["against_linear.p"]) == 0.01
    assert float(lines[0]["metrics.WA.mean"]) == 0.5
    assert [float(line["by_seed.WA.1"]) for line in lines] == [0.4, 0.4]
