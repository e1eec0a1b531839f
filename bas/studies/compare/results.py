"""A comparison's results: those of `bas.report.results`, which a tuning has too."""

from bas.report.results import Comparison

__all__ = ["Comparison"]
