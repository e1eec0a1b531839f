"""Every number with an interval, a p or a verdict comes from here; and the metrics they are of."""

from bas.stats.intervals import (
    MIN_UNITS,
    NO_INTERVAL,
    Metric,
    Paired,
    between,
    interval,
    jackknife_t,
    macro_f1,
    paired,
    spread,
    ua,
    verdict_sentence,
    wa,
    wf1,
)

__all__ = [
    "MIN_UNITS",
    "NO_INTERVAL",
    "Metric",
    "Paired",
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
