"""How a comparison reads: the page, and what the terminal shows of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console

from bas.report.notes import noted, over_folds, preset_told
from bas.report.table import markdown_table, points, rich_table
from bas.stats import between

MOST = 3  # metrics beside each other on a terminal


def _numbers(results: dict[str, Any], most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: metrics in points as mean ± deviation over seeds, and what a row costs.

    most: metrics that there is room for, the headline first; None: all, in the task's order.
    """
    headline, names = results["headline"], list(results["rows"][0]["metrics"])
    if most and len(names) > most:
        names = list(dict.fromkeys([headline, *names]))[:most]
    heading = ["model", *names, *([f"interval of {headline}"] * (not most)), f"{headline} by fold", "params", "s"]
    rows = []
    for row in results["rows"]:
        deviation = row["seeds"] > 1
        rows.append(
            [
                row["row"],
                *(
                    points(m["mean"]) + f" ± {points(m['sd'])}" * deviation
                    for m in map(row["metrics"].__getitem__, names)
                ),
                *([between(row["interval"][0], row["interval"][1], "")] * (not most)),
                points(row["fold_mean"][headline]),
                f"{row['parameters']:,.0f}",
                f"{row['train_seconds']:.1f}" + (f" + {row['search_seconds']:.1f}" if row["search_seconds"] else ""),
            ]
        )
    return heading, rows


def _differences(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: the headline metric against the reference and against the linear row."""
    headline = results["headline"]

    def cell(against: dict[str, Any]) -> str:
        if not against:
            return "–"
        d = against[headline]
        return f"{100 * d['difference']:+.1f} ({between(d['low'], d['high'])}), p {d['p']:.2g}: {d['verdict']}"

    heading = ["model", *(f"{headline} against the {results[name]}" for name in ("reference", "linear"))]
    rows = [[row["row"], cell(row["against_reference"]), cell(row["against_linear"])] for row in results["rows"]]
    return heading, rows


def _legend(results: dict[str, Any]) -> list[str]:
    protocol = results["protocol"]
    return [
        f"Metrics in points on {results['tested']} test utterances {over_folds(results)} "
        f"(protocol {protocol['told']}), mean ± sd over {len(results['seeds'])} seeds; "
        f"the {results['linear']} has no seed.",
        f"Differences in points, mean over seeds: 95 % jackknife-t interval, sign-flip p over {results['units']} "
        f"units ({results['unit']}). Better or worse: the interval excludes 0 and p is at most 0.05; "
        "a tie: these units do not tell the two apart.",
        f"{results['headline']} by fold: the mean over folds. s: seconds of one training of one fold "
        f"({results['device']}, one thread); a searched row adds its search. params: median over folds and seeds.",
        *(
            ["Margin: the first block's probability less the second's; entropy: 1 is undecided; means over searches."]
            * bool(results["decisions"])
        ),
        *(f"{row['row']}: {remark}." for row in results["rows"] for remark in row["remarks"]),
        *_ceiling(results),
        *noted(results),
        *_mix(results),
    ]


def _ceiling(results: dict[str, Any]) -> list[str]:
    """What the targets' own noise leaves to reach."""
    if not results["ceiling"]:
        return []
    values = results["ceiling"]["metrics"].items()
    reached = ", ".join(f"{name} {points(v)} ({between(low, high, '')})" for name, (v, low, high) in values)
    told = f"{results['ceiling']['raters']:.3g} listeners an utterance (binomial votes around beta-distributed shares)"
    return [f"Ceiling, what knowing every true share would reach with {told}: {reached}."]


def _mix(results: dict[str, Any]) -> list[str]:
    """Of a layer mix, a line a row: the weight of each state, mean and deviation over folds and seeds."""
    return [
        f"Layer mix, {label}: "
        + ", ".join(f"state {s} {points(w['mean'])} ± {points(w['sd'])} %" for s, w in weights.items())
        for label, weights in results["mix"].items()
    ]


def _decisions(results: dict[str, Any]) -> list[str]:
    """For each space and slot, how often each block was chosen over folds and seeds, and how surely; the warnings."""
    lines = []
    for name, found in results["decisions"].items():
        top, count = Counter(results["sequences"][name]).most_common(1)[0]
        each = []
        for slot, of in found["slots"].items():
            shares = ", ".join(f"{block} {100 * share:.0f} %" for block, share in of["frequency"].items())
            surely = "" if of["margin"] is None else f" (margin {of['margin']:.2f}, entropy {of['entropy']:.2f})"
            each.append(f"{slot}: {shares}{surely}")
        lines.append(
            f"{name}, chosen over {found['searches']} searches: {'; '.join(each)}. Most often ({count}): {top}."
        )
        lines += [f"{name}: {warning}" for warning in found["warnings"]]
    return lines


def markdown(results: dict[str, Any]) -> str:
    """The tables, their legend, the verdicts and the chosen blocks as a page."""

    encoder = results["encoder"]["name"].rstrip("/").rpartition("/")[2]
    lines = [
        f"# {results['corpus']}, {encoder}, layer {results['layer']}, {preset_told(results['settings'])}, "
        f"protocol {results['protocol']['told']}",
        "",
        *markdown_table(*_numbers(results)),
        "",
        *markdown_table(*_differences(results)),
        "",
        *(f"- {line}" for line in (*_legend(results), *_decisions(results), *results["verdicts"])),
        "",
        "Settings: " + ", ".join(f"{k}={v}" for k, v in results["settings"].items()),
    ]
    return "\n".join(lines) + "\n"


def show(results: dict[str, Any], console: Console) -> None:
    """The same on the terminal."""
    title = f"{results['corpus']}: which downstream model? (protocol {results['protocol']['told']})"
    for heading, rows in (_numbers(results, MOST), _differences(results)):
        console.print(rich_table(title, heading, rows))
        title = f"against the baselines (protocol {results['protocol']['told']})"
    for line in (*_legend(results), *_decisions(results)):
        console.print(line, highlight=False)
    for line in results["verdicts"]:
        console.print(f"[bold]{line}", highlight=False)
