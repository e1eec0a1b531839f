"""The paper's Table 1 for any features, with seeds, spread and a paired comparison; and what the search chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bas.protocols import Protocol, field_of
from bas.run import BEST, MIX, Job, Run
from bas.selection import summarise, warnings
from bas.settings import PRESETS
from bas.space import SearchSpace
from bas.stats import Paired, paired, spread, verdict_sentence
from bas.tasks import together

UNKNOWN = "unknown"
MOST = 3  # metrics beside each other on a terminal


def searched(run: Run, space: str) -> dict[tuple[int, int], dict[str, str]]:
    """By fold and seed, the architecture that a search of this space found."""
    keys = [(f, s) for s in run.plan.seeds for f in range(len(run.protocol.folds))]
    return {(f, s): run.result(Job("search", space, f, s).name)["architecture"] for f, s in keys}


def tested(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Targets, as the metrics take them, and units of the N test utterances, fold after fold."""
    where = [run.position[i] for i in run.protocol.tested]
    folds_N = np.repeat(np.arange(len(run.protocol.folds)), [len(fold.test) for fold in run.protocol.folds])
    units_N = np.array([field_of(run.utterances[i], run.unit) or UNKNOWN for i in where])
    return together(run.task, run.targets[where], folds_N), units_N


def context(run: Run) -> dict[str, Any]:
    """What a table must say of its run, as plain data."""
    layers = [
        run.result(Job("layer", BEST, f, 0).name)["layer"] if run.plan.layer == BEST else run.plan.layer
        for f in range(len(run.protocol.folds))
    ]
    if run.plan.layer == MIX:
        layers = list(run.store.info.layers)
    _, units_N = tested(run)
    return {
        "run": run.folder.name,
        "corpus": run.corpus.name,
        "note": run.corpus.note,
        "encoder": run.store.info.encoder,
        "layer": run.plan.layer,
        "layers": layers,  # by fold; of a mix, those that are mixed
        "protocol": {k: v for k, v in run.protocol.as_dict().items() if k != "folds"} | {"told": run.protocol.told},
        "settings": run.plan.settings.as_dict(),
        "device": run.plan.device,
        "folds": len(run.protocol.folds),
        "seeds": list(run.plan.seeds),
        "tested": len(units_N),
        "unit": run.unit,
        "units": len(set(units_N)),
        "without_unit": int((units_N == UNKNOWN).sum()),
        "headline": run.headline,
        "pooled": run.task.pooled,
        "reference": run.reference,
        "linear": run.linear,
    }


def tabulate(run: Run) -> dict[str, Any]:
    """Every number of the table from the jobs' results, as plain data."""
    targets_N, units_N = tested(run)
    rows: list[dict[str, Any]] = []
    predictions: dict[str, np.ndarray] = {}
    for label, row in _rows(run).items():
        predictions[label], numbers = _row(run, row, targets_N)
        rows.append({"row": label, **numbers})
    headline, metric = run.headline, run.metrics[run.headline]
    for entry in rows:
        for key, reference in (("against_reference", run.reference), ("against_linear", run.linear)):
            a_SN, b_SN = predictions[entry["row"]], predictions[reference]
            other = entry["row"] != reference
            entry[key] = {headline: plain(paired(targets_N, a_SN, b_SN, units_N, metric))} if other else {}
    tested_on = [run.utterances[run.position[i]] for i in run.protocol.tested]
    ceiling = run.task.ceiling(tested_on, run.outputs, targets_N)
    return {
        **context(run),
        "rows": rows,
        "ceiling": asdict(ceiling) if ceiling else None,
        "verdicts": _verdicts(run, rows),
        "decisions": {name: _decided(run, name) for name in run.spaces},
        "sequences": {name: [" > ".join(b.values()) for b in searched(run, name).values()] for name in run.spaces},
        "mix": _mixes(run),
    }


def decided(searches: Sequence[Mapping[str, Any]], space: SearchSpace) -> dict[str, Any]:
    """What searches of a space decided, by slot, and what to warn of (`bas.selection`), from their jobs' results.

    A strategy that chooses without architecture parameters has no margin and no entropy: they are None.
    """
    chosen = [search["architecture"] for search in searches]
    beliefs = [search["probabilities"] for search in searches]
    believed = all(beliefs)
    if not believed:
        beliefs = [{s: {n: float(n == choice[s]) for n in c} for s, c in space.searched.items()} for choice in chosen]
    selection = summarise(beliefs, chosen)
    found = selection.as_dict() | {"warnings": warnings(selection, believed)}
    if not believed:
        for slot in found["slots"].values():
            slot |= {"margin": None, "entropy": None}
    return found


def _decided(run: Run, space: str) -> dict[str, Any]:
    results = [run.result(Job("search", space, f, s).name) for f, s in searched(run, space)]
    return decided(results, run.spaces[space].space)


def _mixes(run: Run) -> dict[str, dict[str, dict[str, float]]]:
    """Each state's weight in the layer mix of a row's trainings and of a space's searches, over folds and seeds."""
    if run.plan.layer != MIX:
        return {}
    rows = {label: row for label, row in _rows(run).items() if row not in run.task.linears}
    trained = {label: [job for of_seed in results_of(run, row) for job in of_seed] for label, row in rows.items()}
    found = {
        f"searches of {name}": [run.result(Job("search", name, f, s).name) for f, s in searched(run, name)]
        for name in run.spaces
    }
    return {
        label: {
            state: dict(zip(("mean", "sd"), spread([job["mix"][state] for job in jobs]), strict=True))
            for state in jobs[0]["mix"]
        }
        for label, jobs in {**trained, **found}.items()
        if "mix" in jobs[0]  # not of a random choice
    }


def _rows(run: Run) -> dict[str, str]:
    """By label, every row of the table: the baselines, what the searches found, the linear ones."""
    return {**{n: n for n in run.baselines}, **_bas(run), **{n: n for n in run.task.linears}}


def _bas(run: Run) -> dict[str, str]:
    return {f"BAS {name}": name for name in run.spaces}


def results_of(run: Run, row: str) -> list[list[dict[str, Any]]]:
    """By seed and fold, the jobs of a row: a linear one, a baseline, or what the searches of a space found."""
    linear = row in run.task.linears
    seeds = run.plan.seeds[:1] if linear else run.plan.seeds
    kind = "linear" if linear else "baseline" if row in run.baselines else "retrain"
    return [[run.result(Job(kind, row, f, s).name) for f in range(len(run.protocol.folds))] for s in seeds]


def pooled(jobs: Sequence[Sequence[Mapping[str, Any]]]) -> np.ndarray:
    """`(S, N)` test predictions, of several outputs `(S, N, O)`, fold after fold, of results by seed and fold."""
    return np.array([np.concatenate([r["test"]["predictions"] for r in of_seed]) for of_seed in jobs])


def _row(run: Run, row: str, targets_N: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Pooled predictions `(S, N)` of one row, and its own numbers."""
    folds, metrics = range(len(run.protocol.folds)), run.metrics
    jobs = results_of(run, row)
    every = [result for of_seed in jobs for result in of_seed]
    pooled_SN = pooled(jobs)
    searches = [run.result(Job("search", row, f, s).name) for s in run.plan.seeds for f in folds if row in run.spaces]
    scores = {name: spread([m(targets_N, p_N) for p_N in pooled_SN]) for name, m in metrics.items()}
    return pooled_SN, {
        "seeds": len(jobs),
        "remarks": list(run.task.remarks(run.outputs, targets_N, pooled_SN)),
        "metrics": {name: {"mean": mean, "sd": sd} for name, (mean, sd) in scores.items()},
        "fold_mean": {name: float(np.mean([r["test"]["metrics"][name] for r in every])) for name in metrics},
        "parameters": float(np.median([r["parameters"] for r in every])),
        "train_seconds": float(np.mean([r["seconds"] for r in every])),
        "search_seconds": float(np.mean([r["seconds"] for r in searches])) if searches else None,
    }


def plain(value: Paired) -> dict[str, Any]:
    return {**asdict(value), "verdict": value.verdict}


def _verdicts(run: Run, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Each searched row against the reference and against the linear row, in one sentence."""
    headline, sentences = run.headline, []
    where = f"{run.corpus.name} under {run.protocol.told}"  # a sentence is quoted without its table
    for row in rows:
        for key, name in (("against_reference", f"the {run.reference}"), ("against_linear", f"the {run.linear}")):
            if row["row"] in _bas(run):
                value = Paired(**{k: v for k, v in row[key][headline].items() if k != "verdict"})
                sentences.append(verdict_sentence(row["row"], name, where, headline, value, run.unit))
    return sentences


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
    heading = ["model", *names, f"{headline} by fold", "params", "s"]
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
        interval = f"{100 * d['low']:+.1f} to {100 * d['high']:+.1f}"
        return f"{100 * d['difference']:+.1f} ({interval}), p {d['p']:.2g}: {d['verdict']}"

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
    reached = ", ".join(f"{name} {_points(v)} ({_points(low)} to {_points(high)})" for name, (v, low, high) in values)
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
