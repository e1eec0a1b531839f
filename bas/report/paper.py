"""The table of a comparison for a paper (LaTeX) and for a spreadsheet (CSV)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bas.report.answer import compared
from bas.report.format import encoder_name, ends, over_seeds, spread, verdict
from bas.report.notes import corrected
from bas.report.results import Comparison
from bas.util.files import replacing, write_text
from bas.util.spreadsheet import defuse

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
}
"""Letters that LaTeX takes for something else."""
PLAIN = {"±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$"}


def write(folder: Path, results: Comparison) -> None:
    """`table.tex`, for the package booktabs, and `table.csv`, with a column for each number of `results.frame()`."""
    write_text(folder / "table.tex", latex(results))
    import pandas as pd  # half a second to import, needed here only

    frame = results.frame().dropna(axis="columns", how="all")
    frame["remarks"] = frame["remarks"].map("; ".join)
    frame = frame[["row", *(name for name in frame if name != "row")]]
    texts = {name: frame[name].map(defuse) for name in frame if not pd.api.types.is_numeric_dtype(frame[name])}
    with replacing(folder / "table.csv") as temporary:
        frame.assign(**texts).to_csv(temporary, index=False)


def latex(results: Comparison) -> str:
    """A table with a caption: metrics in points, the interval of the headline, the difference to the linear row."""
    names, stay = list(results.rows[0].metrics), corrected(compared(results).values())
    heading = ["model", *names, f"interval of {results.headline}", f"{results.headline} against the {results.linear}"]
    rows = [
        [row.row, *(spread(row.metrics[name]) for name in names), ends(row.interval), verdict(row.against_linear, stay)]
        for row in results.rows
    ]
    caption = (
        f"{results.corpus}, {encoder_name(results.encoder.name)}, layer {results.layer}: metrics in points on "
        f"{results.tested} test utterances, {results.folds} folds, {over_seeds(len(results.seeds))}; 95 % intervals "
        f"for other units ({results.unit}) and other trainings; uncorrected: not once all comparisons are corrected "
        f"(Holm). Protocol {results.protocol.description}."
    )
    caption += "".join(f" Mark: {mark}." for mark in results.protocol.marks)
    return "\n".join(
        [
            "% needs the package booktabs",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(names)}ll}}",
            r"\toprule",
            _line(heading),
            r"\midrule",
            *map(_line, rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escaped, cells)) + r" \\"


def escaped(text: str) -> str:
    """The text, as LaTeX sets it."""
    text = re.sub(r"[\\~^&%$#_{}±–<>]", lambda match: (SPECIAL | PLAIN)[match[0]], text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)
