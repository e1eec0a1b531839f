"""How a comparison reads: the page, and what the terminal shows of it; pieces that other pages are made of too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bas.protocols import Protocol
from bas.report.comparison import searched
from bas.runs.run import BEST, MIX, Job, Run
from bas.stats import between
from bas.training.settings import PRESETS

MOST = 3  # metrics beside each other on a terminal


def announce(run: Run, workers: int, console: Console) -> None:
    """What is about to be trained, on what."""
    plan, info, settings = run.plan, run.store.info, run.plan.settings
    console.print(
        f"[bold]{run.folder}[/bold]: task {run.task.name} on {run.corpus.name}, {len(run.utterances)} utterances, "
        f"{len(run.outputs)} outputs; {info.encoder['name']} layer {plan.layer}"
    )
    console.print(
        f"protocol {run.protocol.told}: {len(run.protocol.folds)} folds x {len(plan.seeds)} seeds; "
        f"{workers} workers of one thread on {plan.device}"
    )
    console.print("settings: " + ", ".join(f"{k}={v}" for k, v in settings.as_dict().items()))
    tell_protocol(run.protocol, console)
    if run.corpus.note:
        console.print(f"note: {run.corpus.note}", style="bold yellow", markup=False)


def announce_study(run: Run, name: Path, reads: str, console: Console) -> None:
    """Likewise of a store that a study reads. name: of the run's folder, or the one it is in."""
    told = f"task {run.task.name} on {run.corpus.name}, {len(run.utterances)} utterances"
    told += f"; {run.store.info.encoder['name']}, {reads}; seeds {len(run.plan.seeds)}"
    console.print(f"[bold]{name}[/bold]: {told}")
    tell_protocol(run.protocol, console)
    if run.corpus.note:
        console.print(f"note: {run.corpus.note}", style="bold yellow", markup=False)


def tell_protocol(protocol: Protocol, console: Console) -> None:
    """Marks and notes, a line each."""
    for mark in protocol.marks:
        console.print(f"mark: {mark}", style="bold yellow", highlight=False, markup=False)
    for note in protocol.notes:
        console.print(f"note: {note}", style="dim", highlight=False, markup=False)


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


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
                    _points(m["mean"]) + f" ± {_points(m['sd'])}" * deviation
                    for m in map(row["metrics"].__getitem__, names)
                ),
                *([between(row["interval"][0], row["interval"][1], "")] * (not most)),
                _points(row["fold_mean"][headline]),
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


def over_folds(results: Mapping[str, Any]) -> str:
    """How the folds come together in a metric."""
    folds = results["folds"]
    return f"pooled over {folds} folds" if results["pooled"] else f"within each of {folds} folds, then averaged"


def _ceiling(results: dict[str, Any]) -> list[str]:
    """What the targets' own noise leaves to reach."""
    if not results["ceiling"]:
        return []
    values = results["ceiling"]["metrics"].items()
    reached = ", ".join(f"{name} {_points(v)} ({between(low, high, '')})" for name, (v, low, high) in values)
    told = f"{results['ceiling']['raters']:.3g} listeners an utterance (binomial votes around beta-distributed shares)"
    return [f"Ceiling, what knowing every true share would reach with {told}: {reached}."]


def noted(results: dict[str, Any]) -> list[str]:
    """What a table of any kind must say of its split, its layer and its corpus; see `context`."""
    protocol, without = results["protocol"], results["without_unit"]
    mixed = ", ".join(map(str, results["layers"])) if results["layer"] == MIX else ""
    return [
        *([f"{without} utterances of no known {results['unit']} count as one."] if without else []),
        *(f"Mark: {m}." for m in protocol["marks"]),
        *(f"Of the split: {n}." for n in protocol["notes"]),
        *(
            [f"Layer {BEST}: by cross-validation over the training part, by fold {results['layers']}."]
            * (results["layer"] == BEST)
        ),
        *(
            [
                f"Layer mix of states {mixed}: summed with softmax weights that are learned with each network, "
                f"mean ± sd over folds and seeds where given; the {results['linear']} sees the states' means side by "
                "side."
            ]
            * bool(mixed)
        ),
        *([f"Note: {results['note']}."] if results["note"] else []),
    ]


def _mix(results: dict[str, Any]) -> list[str]:
    """Of a layer mix, a line a row: the weight of each state, mean and deviation over folds and seeds."""
    return [
        f"Layer mix, {label}: "
        + ", ".join(f"state {s} {_points(w['mean'])} ± {_points(w['sd'])} %" for s, w in weights.items())
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


def preset_told(settings: Mapping[str, Any]) -> str:
    """The preset, and what was changed of it."""
    preset = PRESETS[settings["preset"]].as_dict()
    changes = [f"{k}={v}" for k, v in settings.items() if preset[k] != v]
    return f"preset {settings['preset']}" + (f" with {', '.join(changes)}" if changes else "")


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


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    return [f"| {' | '.join(cells)} |" for cells in (heading, ["---"] * len(heading), *rows)]


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


def show_choices(run: Run, console: Console) -> None:
    """The sequence that each search chose."""
    for name in run.spaces:
        rows = [[str(f), str(s), " > ".join(blocks.values())] for (f, s), blocks in searched(run, name).items()]
        console.print(
            rich_table(f"{name}: chosen blocks (protocol {run.protocol.told})", ("fold", "seed", "architecture"), rows)
        )


def show_retrained(run: Run, console: Console) -> None:
    """Each retrained architecture's metrics on its fold's test part."""
    for name in run.spaces:
        rows = []
        for fold, seed in searched(run, name):
            result = run.result(Job("retrain", name, fold, seed).name)
            values = [_points(result["test"]["metrics"][m]) for m in run.metrics]
            rows.append([str(fold), str(seed), " > ".join(result["architecture"].values()), *values])
        heading = ("fold", "seed", "architecture", *run.metrics)
        console.print(
            rich_table(f"{name}: retrained, on each fold's test part (protocol {run.protocol.told})", heading, rows)
        )


def rich_table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """For the terminal; the first column is never broken."""
    table = Table(title=Text(title, style="table.title") if title else None, title_justify="left")
    for index, column in enumerate(heading):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
