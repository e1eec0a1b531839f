"""The results of a comparison; they are in `bas.report.results`, because a tuning extends them."""

from bas.report.results import Comparison

__all__ = ["Comparison"]
