"""Where the repository is, and what may lie beside it: real corpora and models, which no clone has."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
EMODB = SHARED / "data/emodb"
