"""Figures of other systems on a corpus, cited beside a table and never compared with it.

Table 2 of Fang et al., 2023. Of their own rows the paper says that IEMOCAP is tested by leaving one session out and
MELD on its test part; of the others' protocols nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bas.report.results import Comparison
from bas.util.pages import Grid, Text, Written

TITLE = "Cited, not run here"


@dataclass(frozen=True)
class Cited:
    """A system with the metrics that are cited of it, in points as printed there."""

    system: str
    metrics: Mapping[str, str]


def _emotion(system: str, wa: str, ua: str) -> Cited:
    return Cited(system, {"WA": wa, "UA": ua})


CITED: Mapping[str, tuple[Cited, ...]] = {
    "iemocap": (
        _emotion("Guo et al. 2021", "61.32", "60.43"),
        _emotion("Chen et al. 2022", "62.90", "64.50"),
        _emotion("Li et al. 2022", "67.99", "68.24"),
        _emotion("Zou et al. 2022", "69.80", "71.05"),
        _emotion("Fang et al. 2023, HuBERT large", "72.35", "73.35"),
        _emotion("Fang et al. 2023, WavLM large", "74.03", "74.95"),
    ),
    "meld": (
        Cited("Lian et al. 2021", {"WF1": "38.20"}),
        Cited("Chudasama et al. 2022", {"WF1": "39.63"}),
        Cited("Chen et al. 2022", {"WF1": "41.90"}),
        Cited("Hu et al. 2022", {"WF1": "42.72"}),
        Cited("Fang et al. 2023, HuBERT large", {"WF1": "45.24"}),
        Cited("Fang et al. 2023, WavLM large", {"WF1": "47.18"}),
    ),
}
"""By the name of a corpus: four emotions of IEMOCAP, seven of MELD."""


def cited(results: Comparison) -> list[Written]:
    """The cited rows for this table's corpus and task, and what they are; nothing for another."""
    rows = CITED.get(results.corpus, ()) if results.protocol.task == "emotion" and not results.protocol.labels else ()
    if not rows:
        return []
    names = list(rows[0].metrics)
    told = [[of.system, *(of.metrics[name] for name in names)] for of in rows]
    splits = {"iemocap": "four classes, one session left out", "meld": "seven classes, its test part"}[results.corpus]
    return [
        Grid(["system", *names], told),
        Text(
            f"Of Fang et al. 2023, table 2, for whose own rows: {splits}. The protocols of the others are not given "
            "there. Nothing above is compared with them."
        ),
    ]
