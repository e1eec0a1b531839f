"""The paper's Table 1 for any features, with seeds, spread and a paired comparison; and what the search chose."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bas.run import BEST, Run
from bas.stats import Paired, paired, selection_frequency, spread, verdict_sentence
from bas.train import BASELINES, LINEAR, Job

REFERENCE = "4L transformer"


def searched(run: Run, space: str) -> dict[tuple[int, int], dict[str, str]]:
    """By fold and seed, the architecture that a search of this space found."""
    keys = [(f, s) for f in range(len(run.protocol.folds)) for s in run.plan.seeds]
    return {(f, s): run.result(Job("search", space, f, s).name)["architecture"] for f, s in keys}


def print_choices(run: Run, console: Console) -> None:
    """The sequence each search chose, and how often each block stands in each layer."""
    for name in run.spaces:
        found = searched(run, name)
        table = Table(title=f"{name}: chosen blocks", title_justify="left")
        for column in ("fold", "seed", "architecture"):
            table.add_column(column)
        for (fold, seed), blocks in found.items():
            table.add_row(str(fold), str(seed), " > ".join(blocks.values()))
        console.print(table)


def print_retrained(run: Run, console: Console) -> None:
    """Each retrained architecture's metrics on its test part."""
    table = Table(title="retrained, on each fold's test part", title_justify="left")
    for column in ("space", "fold", "seed", "architecture", *run.task.metrics):
        table.add_column(column)
    for name in run.spaces:
        for fold, seed in searched(run, name):
            result = run.result(Job("train", name, fold, seed).name)
            values = [f"{result['test']['metrics'][m]:.3f}" for m in run.task.metrics]
            table.add_row(name, str(fold), str(seed), " > ".join(result["architecture"].values()), *values)
    console.print(table)


def tabulate(run: Run) -> dict[str, Any]:
    """Every number of the table from the jobs' results, as plain data."""
    folds, metrics = range(len(run.protocol.folds)), run.task.metrics
    where = [run.position[i] for i in run.protocol.tested]
    targets_N = run.targets[where]
    units_N = np.array([getattr(run.utterances[i], run.corpus.unit) or "unknown" for i in where])
    rows: list[dict[str, Any]] = []
    predictions: dict[str, np.ndarray] = {}
    names = {**{row: row for row in BASELINES}, **{f"BAS {name}": name for name in run.spaces}, LINEAR: LINEAR}
    for label, row in names.items():
        kind, seeds = ("linear", run.plan.seeds[:1]) if row == LINEAR else ("train", run.plan.seeds)
        found = {(s, f): run.result(Job(kind, row, f, s).name) for s in seeds for f in folds}
        pooled_SN = np.array([np.concatenate([found[s, f]["test"]["predictions"] for f in folds]) for s in seeds])
        predictions[label] = pooled_SN
        searches = [
            run.result(Job("search", row, f, s).name)["seconds"] for s in seeds for f in folds if row in run.spaces
        ]
        rows.append(
            {
                "row": label,
                "seeds": len(seeds),
                "metrics": {
                    name: dict(zip(("mean", "sd"), spread([m(targets_N, p) for p in pooled_SN]), strict=True))
                    for name, m in metrics.items()
                },
                "fold_mean": {
                    name: float(np.mean([r["test"]["metrics"][name] for r in found.values()])) for name in metrics
                },
                "parameters": float(np.median([r["parameters"] for r in found.values()])),
                "train_seconds": float(np.mean([r["seconds"] for r in found.values()])),
                "search_seconds": float(np.mean(searches)) if searches else None,
            }
        )
    headline = next(iter(metrics))
    for row in rows:
        for key, reference in (("reference", REFERENCE), ("linear", LINEAR)):
            row[f"against_{key}"] = (
                None
                if row["row"] == reference
                else {
                    name: _paired(paired(targets_N, predictions[row["row"]], predictions[reference], units_N, metric))
                    for name, metric in metrics.items()
                }
            )
    verdicts = [
        verdict_sentence(
            row["row"],
            f"the {REFERENCE}",
            run.corpus.name,
            headline,
            _unpaired(row["against_reference"][headline]),
            run.corpus.unit,
        )
        for row in rows
        if row["against_reference"] and row["row"] not in BASELINES
    ]
    return {
        "run": run.folder.name,
        "corpus": run.corpus.name,
        "note": run.corpus.note,
        "encoder": run.store.info.encoder,
        "layer": run.plan.layer,
        "layers_chosen": [run.result(Job("layer", BEST, f, 0).name)["layer"] for f in folds]
        if run.plan.layer == BEST
        else None,
        "protocol": {
            "rule": run.protocol.rule,
            "hash": run.protocol.hash,
            "marks": run.protocol.marks,
            "notes": run.protocol.notes,
        },
        "settings": run.plan.settings.as_dict(),
        "folds": len(folds),
        "seeds": list(run.plan.seeds),
        "tested": len(where),
        "unit": run.corpus.unit,
        "units": len(set(units_N)),
        "headline": headline,
        "rows": rows,
        "verdicts": verdicts,
        "chosen": {name: selection_frequency(list(searched(run, name).values())) for name in run.spaces},
        "sequences": {name: [" > ".join(b.values()) for b in searched(run, name).values()] for name in run.spaces},
    }


def _paired(value: Paired) -> dict[str, Any]:
    return {**asdict(value), "verdict": value.verdict}


def _unpaired(raw: dict[str, Any]) -> Paired:
    return Paired(**{k: v for k, v in raw.items() if k != "verdict"})


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def _cells(row: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """One row as text: metrics in points as mean ± deviation over seeds, then what it cost, then the comparison."""
    spreads = [f"{points(m['mean'])} ± {points(m['sd'])}" for m in row["metrics"].values()]
    if row["seeds"] == 1:
        spreads = [points(m["mean"]) for m in row["metrics"].values()]
    headline = results["headline"]
    seconds = f"{row['train_seconds']:.1f}" + (f" + {row['search_seconds']:.1f}" if row["search_seconds"] else "")
    return [
        row["row"],
        *spreads,
        points(row["fold_mean"][headline]),
        f"{row['parameters']:,.0f}",
        seconds,
        _difference(row["against_reference"], headline),
        _difference(row["against_linear"], headline),
    ]


def _difference(against: dict[str, Any] | None, headline: str) -> str:
    if against is None:
        return ""
    d = against[headline]
    return f"{100 * d['difference']:+.1f} ({100 * d['low']:+.1f} to {100 * d['high']:+.1f}), p {d['p']:.2g}, {d['verdict']}"


def _columns(results: dict[str, Any]) -> list[str]:
    metrics = list(results["rows"][0]["metrics"])
    headline = results["headline"]
    return [
        "model",
        *metrics,
        f"{headline}, mean of folds",
        "parameters",
        "seconds",
        f"{headline} against {REFERENCE}",
        f"{headline} against {LINEAR}",
    ]


def _legend(results: dict[str, Any]) -> list[str]:
    seeds = len(results["seeds"])
    return [
        f"Metrics in points on {results['tested']} test utterances pooled over {results['folds']} folds "
        f"(protocol {results['protocol']['rule']}, hash {results['protocol']['hash']}), mean ± sd over {seeds} seeds; "
        f"{LINEAR} has no seed.",
        f"Differences: 95 % jackknife-t interval and sign-flip p over {results['units']} units ({results['unit']}), "
        f"predictions averaged over seeds.",
        "Seconds: one training of one fold; a searched row adds its search. Parameters: the median over folds and seeds.",
        *(f"Mark: {m}." for m in results["protocol"]["marks"]),
        *([f"Layer {BEST}, chosen on valid, by fold: {results['layers_chosen']}."] if results["layers_chosen"] else []),
        *([f"Note: {results['note']}."] if results["note"] else []),
    ]


def _frequencies(results: dict[str, Any]) -> list[str]:
    lines = []
    for name, slots in results["chosen"].items():
        each = "; ".join(
            f"{slot}: " + ", ".join(f"{b} {100 * f:.0f} %" for b, f in c.items()) for slot, c in slots.items()
        )
        top, count = Counter(results["sequences"][name]).most_common(1)[0]
        total = len(results["sequences"][name])
        lines.append(
            f"{name}, chosen over {total} searches: {each}. Most frequent sequence, {count} of {total}: {top}."
        )
    return lines


def markdown(results: dict[str, Any]) -> str:
    """The table, its legend, the verdicts and the chosen blocks as a page."""
    columns = _columns(results)
    encoder = results["encoder"]["name"].rstrip("/").rpartition("/")[2]
    lines = [
        f"# {results['corpus']}, {encoder}, layer {results['layer']}, preset {results['settings']['preset']}",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(_cells(row, results)) + " |" for row in results["rows"]),
        "",
        *(f"- {line}" for line in (*_legend(results), *results["verdicts"], *_frequencies(results))),
        "",
        "Settings: " + ", ".join(f"{k}={v}" for k, v in results["settings"].items()),
    ]
    return "\n".join(lines) + "\n"


def show(results: dict[str, Any], console: Console) -> None:
    """The same on the terminal."""
    table = Table(title=f"{results['corpus']}: which downstream model?", title_justify="left")
    for column in _columns(results):
        table.add_column(column)
    for row in results["rows"]:
        table.add_row(*_cells(row, results))
    console.print(table)
    for line in (*_legend(results), *_frequencies(results)):
        console.print(line, highlight=False)
    for line in results["verdicts"]:
        console.print(f"[bold]{line}", highlight=False)
