"""Until every study has typed results: what those that have none take as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from bas.report import notes
from bas.runs import results
from bas.runs.results import Context
from bas.runs.run import Run
from bas.stats import Paired
from bas.training.settings import Settings
from bas.util.typed import from_plain, to_plain


def context(run: Run) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(Context(**results.context(run)))
    return plain


def noted(of: Mapping[str, Any]) -> list[str]:
    names = [f.name for f in fields(Context)]
    return notes.about(from_plain(Context, {name: to_plain(of[name]) for name in names}, "results"))


def preset_told(settings: Mapping[str, Any]) -> str:
    return notes.preset_told(Settings(**settings))


def plain(value: Paired) -> dict[str, Any]:
    return {**asdict(value), "verdict": value.verdict}
