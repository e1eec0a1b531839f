"""A store of eight speakers with two classes a pitch apart, which an audit of seconds can tell."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from sounds import tone
from stores import Fake, store

from bas.protocols import Protocol
from bas.runs.run import Inputs
from bas.runs.workers import Workers
from bas.studies.audit.results import Audit
from bas.studies.audit.study import begin, conclude, train


def two_pitches(root: Path) -> str:
    """Make the store; its path."""
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(8):
            for label in "ab":
                for take in range(3):
                    id_ = f"s{s}{label}{take}"
                    tone(root / f"{id_}.wav", 0.2 + 0.02 * take, hertz=200 + 10 * s + 25 * (label == "b") + 7 * take)
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(root / "cups.csv", root / "store", Fake())
    return str(root / "store")


def measure(
    folder: Path,
    inputs: Inputs,
    protocol: Protocol,
    strategies: Sequence[str] | None,
    variants: Sequence[str] | None,
    workers: int,
    console: Console,
    memory: float | None,
    sample: int | None = None,
) -> Audit:
    """A whole audit."""
    begun = begin(folder, inputs, protocol, strategies, variants, sample)
    with Workers(workers, console) as pool:
        train(begun, pool, memory)
    return conclude(begun, console)
