"""A store of eight speakers with two classes a pitch apart, which an audit of seconds can tell."""

from __future__ import annotations

import csv
from pathlib import Path

from sounds import tone
from stores import Fake, store


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
