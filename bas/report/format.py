"""How a number, a spread, an interval and a verdict read: the same on every page. Metrics and differences in points."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

from bas.stats import Paired, Spread, between

NONE = "–"


class Ends(Protocol):
    """Anything with an interval."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def points(value: float | None, sign: str = "") -> str:
    """Hundredths; NONE of what is not known. sign: "+" shows that of a difference."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:{sign}.1f}"


def spread(of: Spread) -> str:
    """The mean, and the deviation where there is one: of a single seed, or of seeds that all agree, there is none."""
    return points(of.mean) + (f" ± {points(of.sd)}" if of.sd else "")


def over_seeds(count: int) -> str:
    """What a cell of several seeds shows; of one there is no deviation."""
    return f"mean ± sd over {count} seeds" if count > 1 else "one seed"


def counted(count: int, name: str) -> str:
    """1 seed, 3 seeds."""
    return f"{count} {name}{'' if count == 1 else 's'}"


def ends(of: Ends, sign: str = "", *, scale: float = 100.0, digits: int = 1) -> str:
    """Of an interval, see `stats.between`."""
    return between(of.low, of.high, sign, scale=scale, digits=digits)


def estimate(value: float, of: Ends) -> str:
    """A difference or an effect with its interval: +1.2 (-0.3 to +2.6)."""
    return f"{points(value, '+')} ({ends(of, '+')})"


def difference(of: Paired) -> str:
    """With its p: +1.2 (-0.3 to +2.6), p 0.1."""
    return f"{estimate(of.difference, of)}, p {of.p:.2g}"


def verdict(of: Paired | None, stay: Collection[Paired] | None = None) -> str:
    """And whether it is one: +1.2 (-0.3 to +2.6), p 0.1: tie. NONE where a row is compared with itself.

    stay: those that a table's correction for many comparisons leaves; any other is "better, uncorrected". None: no such
    mark.
    """
    if of is None:
        return NONE
    mark = ", uncorrected" if stay is not None and of.significant and of not in stay else ""
    return f"{difference(of)}: {of.verdict}{mark}"


def encoder_name(name: str) -> str:
    """An encoder's name without its owner or folder."""
    return name.rstrip("/").rpartition("/")[2]
