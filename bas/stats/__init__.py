"""Statistics: every interval, p and verdict in a table is computed here."""

from bas.stats.intervals import (
    MIN_UNITS,
    NO_INTERVAL,
    Estimate,
    Interval,
    Paired,
    Spread,
    between,
    interval,
    jackknife_t,
    paired,
    spread,
    verdict_sentence,
)
from bas.stats.metrics import Metric, macro_f1, ua, wa, wf1

__all__ = [
    "MIN_UNITS",
    "NO_INTERVAL",
    "Estimate",
    "Interval",
    "Metric",
    "Paired",
    "Spread",
    "between",
    "interval",
    "jackknife_t",
    "macro_f1",
    "paired",
    "spread",
    "ua",
    "verdict_sentence",
    "wa",
    "wf1",
]
