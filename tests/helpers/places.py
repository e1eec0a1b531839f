"""Where the repository is, what may lie beside it (real corpora and models, in no clone), and how long to wait."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
EMODB = SHARED / "data/emodb"
PATIENCE = 900
"""Seconds for what must end: a machine that is at work elsewhere may be ten times as slow, and a fault never ends."""
