"""How the worth of a leak reads: the page, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rich.console import Console

from bas.report.old import preset_told
from bas.report.table import markdown_table, rich_table
from bas.stats import Paired, between
from bas.studies.leak.numbers import SIDES


def _title(results: dict[str, Any]) -> str:
    clean, leaky = results["clean"]["rule"], results["leaky"]["rule"]
    return f"{results['corpus']}: what the leak of {leaky} (MARKED) is worth, against {clean}"


def _cells(results: dict[str, Any], metrics: Collection[str]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of these metrics under both splits, in points, and what the leak added."""
    rules = [results["clean"]["rule"], f"{results['leaky']['rule']} (MARKED)"]
    several = len(results["seeds"]) > 1
    heading = ["model", "metric", *rules, "leak", "sd", "95 % interval", "p", "verdict"]
    rows = []
    for row in results["rows"]:
        for name in metrics:
            found = row["metrics"][name]
            sides = [
                f"{100 * found[side]['mean']:.1f}" + f" ± {100 * found[side]['sd']:.1f}" * several for side in SIDES
            ]
            leak = Paired(**{k: v for k, v in found["leak"].items() if k not in ("verdict", "sd")})
            interval = between(leak.low, leak.high)
            verdict = {"better": "inflated", "worse": "deflated"}.get(leak.verdict, leak.verdict)
            sd = f"{100 * found['leak']['sd']:.1f}" if several else "–"
            worth = [f"{100 * leak.difference:+.1f}", sd, interval, f"{leak.p:.2g}"]
            rows.append([row["row"], name, *sides, *worth, verdict])
    return heading, rows


def _legend(results: dict[str, Any]) -> list[str]:
    count = len(results["seeds"])
    return [
        f"Points on the {results['tested']} of {results['of']} utterances that both splits test; mean ± sd over "
        f"{count} seeds; a seed makes both splits, where their rules leave a choice, and the initial weights.",
        *(
            f"{side}: {results[side]['rule']}, {results[side]['fit']:.0f} training utterances a fold, hashes "
            f"{', '.join(results[side]['hashes'])}."
            for side in SIDES
        ),
        f"Leak: leaky less clean, 95 % jackknife-t interval and sign-flip p over {results['units']} units "
        f"({results['unit']}); sd: of the difference over seeds. A tie: these units do not tell the two apart.",
        *(f"Mark of the leaky split: {mark}." for mark in results["leaky"]["marks"]),
        *(
            f"Of the {side} split of seed {results['seeds'][0]}: {note}."
            for side in SIDES
            for note in results[side]["notes"]
        ),
        *([f"Note: {results['note']}."] if results["note"] else []),
    ]


def markdown(results: dict[str, Any]) -> str:
    """The table and its legend as a page."""
    encoder = results["encoder"]["name"].rstrip("/").rpartition("/")[2]
    lines = [
        f"# {_title(results)}",
        "",
        f"{encoder}, layer {results['layer']}, {preset_told(results['settings'])}.",
        "",
        *markdown_table(*_cells(results, results["rows"][0]["metrics"])),
        "",
        *(f"- {line}" for line in _legend(results)),
        "",
        "Settings: " + ", ".join(f"{k}={v}" for k, v in results["settings"].items()),
    ]
    return "\n".join(lines) + "\n"


def show(results: dict[str, Any], console: Console) -> None:
    """The headline's table and the legend on the terminal."""
    heading, rows = _cells(results, (results["headline"],))
    shown = [heading.index(name) for name in heading if name not in ("metric", "sd", "p")]  # for 80 columns
    narrow = [[row[i] for i in shown] for row in (heading, *rows)]
    console.print(rich_table(f"{_title(results)} ({results['headline']})", narrow[0], narrow[1:]))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
