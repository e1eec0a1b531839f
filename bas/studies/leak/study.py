"""What a leak is worth: the same models, trained under a clean and a leaky split of the same utterances.

For every seed both splits are drawn anew and every model is trained in every fold of both. An utterance is tested once
under each, so that the two stand against each other utterance by utterance, paired over the clean split's units. All
train on equally many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from rich.console import Console

from bas.errors import UserError
from bas.features.store import StoreInfo
from bas.protocols import Protocol, field_of, thin
from bas.report.comparison import UNKNOWN
from bas.report.comparison_page import markdown_table, preset_told, rich_table, tell_protocol
from bas.runs.fit import place_features
from bas.runs.run import BEST, Job, Plan, Run, common_task, open_labelled, split, start
from bas.runs.workers import run_jobs
from bas.space import load_space
from bas.stats import Paired, between, paired, spread
from bas.util.files import locked, write_results, write_text

SIDES = ("clean", "leaky")


def measure(
    folder: Path, plan: Plan, clean: str | None, leaky: str | None, workers: int, console: Console, memory: float | None
) -> dict[str, Any]:
    """Train what is not trained yet under `folder/clean-seed0`, `folder/leaky-seed0`, ...; write and show the table.

    clean: a rule that leaks nothing, None: the task's or the corpus's. leaky: one that may share what the task forbids,
    None: as many folds as the clean one, drawn over utterances. plan.seeds: one split and one initialisation each.
    memory: see `compare.carry_out`.
    UserError: a clean rule that leaks or a leaky one that does not, rules that test no utterance in common, and what
    `run.split` and `run.start` refuse.
    """
    if (folder / "run.json").exists():
        raise UserError(f"{folder}: holds another run; give another --name")
    splits = _splits(plan, clean, leaky)
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for seed, pair in zip(plan.seeds, splits, strict=True):
        for side, protocol in zip(SIDES, pair, strict=True):
            part = folder / f"{side}-seed{seed}"
            with locked(part, "searching or training"):
                run = start(part, replace(plan, seeds=(seed,)), protocol)
                runs[side].append(run)
                console.print(f"[bold]{part}[/bold]: protocol {run.protocol.told}")
                if seed == plan.seeds[0]:
                    tell_protocol(run.protocol, console)
                _train(run, workers, console, memory)
    results = tabulate(folder, runs)
    write_results(folder / "leak.json", results)
    write_text(folder / "leak.md", markdown(results))
    heading, rows = _cells(results, (results["headline"],))
    shown = [heading.index(name) for name in heading if name not in ("metric", "sd", "p")]  # for 80 columns
    narrow = [[row[i] for i in shown] for row in (heading, *rows)]
    console.print(rich_table(f"{_title(results)} ({results['headline']})", narrow[0], narrow[1:]))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
    return results


def _splits(plan: Plan, clean: str | None, leaky: str | None) -> list[tuple[Protocol, Protocol]]:
    """The clean and the leaky split of every seed, made and tried before anything is written.

    A seed's fit parts are cut to the smallest of them, so that no model is better for having more to train on.
    """
    task = common_task([load_space(path) for path in plan.spaces])
    if task.classes is None:
        raise UserError(f"task {task.name}: the cost of a leak is measured for tasks with classes only")
    info = StoreInfo.read(Path(plan.features))
    corpus = open_labelled(info, plan.labels)
    label = {u.id: field_of(u, task.classes) or "" for u in corpus.utterances}
    units = {u.id: field_of(u, corpus.unit) for u in corpus.utterances}
    pairs = []
    for seed in plan.seeds:
        one = split(plan, clean, seed, task.disjoint)
        if leaky is None and len(one.folds) == 1:
            raise UserError(f"--clean {one.rule}: has one fold, so --leaky has no default; name a rule such as id:5")
        other = split(plan, leaky or f"id:{len(one.folds)}", seed, task.disjoint)
        if one.marks:
            raise UserError(f"--clean {one.rule}: shares what task {task.name} forbids: {one.marks[0]}")
        if not other.marks:
            raise UserError(f"--leaky {other.rule}: shares nothing that task {task.name} forbids; name another rule")
        pairs.append((one, other))
    both = set.intersection(*(set(protocol.tested) for pair in pairs for protocol in pair))
    if len({units.get(i) for i in both}) < 2:
        told = f"of less than two {corpus.unit}s is an utterance tested in both by every seed; "
        told += "use rules that test all, such as speaker:5 and id:5"
        raise UserError(f"--clean {pairs[0][0].rule}, --leaky {pairs[0][1].rule}: {told}")
    cut = []
    for one, other in pairs:
        size = min(len(fold.fit) for protocol in (one, other) for fold in protocol.folds)
        cut.append((_cut(one, size, label), _cut(other, size, label)))
    return cut


def _cut(protocol: Protocol, size: int, label: Mapping[str, str]) -> Protocol:
    """The same with `size` utterances to train on in every fold, drawn so that each class keeps its share."""
    rngs = [Random(f"cut/{protocol.seed}/{index}") for index in range(len(protocol.folds))]
    pairs = zip(protocol.folds, rngs, strict=True)
    folds = tuple(replace(fold, fit=thin(fold.fit, label, size, rng)) for fold, rng in pairs)
    note = f"every fit part is cut to {size} utterances, the smallest of the seed's"
    name = f"{protocol.name}-fit{size}"
    return replace(protocol, name=name, folds=folds, notes=(*protocol.notes, note))


def _rows(run: Run) -> dict[str, str]:
    """What is trained, and the kind of its jobs."""
    return {run.linear: "linear", **dict.fromkeys(run.baselines, "baseline")}


def _train(run: Run, workers: int, console: Console, memory: float | None) -> None:
    placement, _ = place_features(run, workers, memory)
    folds, (seed,) = range(len(run.protocol.folds)), run.plan.seeds
    if run.plan.layer == BEST:
        run_jobs(run.folder, [Job("layer", BEST, f, 0) for f in folds], 1, workers, console, "layers", placement)
    jobs = [Job(kind, row, f, seed) for row, kind in _rows(run).items() for f in folds]
    run_jobs(run.folder, jobs, run.plan.settings.epochs, workers, console, "trainings", placement)


def tabulate(folder: Path, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """Every number of the table, as plain data; the difference is the leaky split's metric less the clean one's."""
    first = runs["clean"][0]
    everywhere = [set(run.protocol.tested) for side in SIDES for run in runs[side]]
    ids = sorted(set.intersection(*everywhere))
    targets_N = first.targets[[first.position[i] for i in ids]]
    units_N = np.array([field_of(first.utterances[first.position[i]], first.unit) or UNKNOWN for i in ids])
    rows = []
    for row in _rows(first):
        predictions = {side: np.array([_predictions(run, row, ids) for run in runs[side]]) for side in SIDES}
        metrics = {}
        for name, metric in first.metrics.items():
            scores = {side: [metric(targets_N, p_N) for p_N in predictions[side]] for side in SIDES}
            difference = paired(targets_N, predictions["leaky"], predictions["clean"], units_N, metric)
            each = [a - b for a, b in zip(scores["leaky"], scores["clean"], strict=True)]
            metrics[name] = {
                **{side: dict(zip(("mean", "sd"), spread(scores[side]), strict=True)) for side in SIDES},
                "leak": asdict(difference) | {"verdict": difference.verdict, "sd": spread(each)[1]},
            }
        rows.append({"row": row, "metrics": metrics})
    return {
        "run": folder.name,
        "corpus": first.corpus.name,
        "note": first.corpus.note,
        "encoder": first.store.info.encoder,
        "layer": first.plan.layer,
        "settings": first.plan.settings.as_dict(),
        "headline": first.headline,
        "seeds": [seed for run in runs["clean"] for seed in run.plan.seeds],
        "tested": len(ids),
        "of": len(first.utterances),
        "unit": first.unit,
        "units": len(set(units_N)),
        **{
            side: {
                "rule": runs[side][0].protocol.rule,
                "told": [run.protocol.told for run in runs[side]],
                "hashes": [run.protocol.hash for run in runs[side]],
                "marks": runs[side][0].protocol.marks,
                "notes": runs[side][0].protocol.notes,
                "fit": float(np.mean([len(fold.fit) for run in runs[side] for fold in run.protocol.folds])),
            }
            for side in SIDES
        },
        "rows": rows,
    }


def _predictions(run: Run, row: str, ids: list[str]) -> np.ndarray:
    """Of these utterances, in their order; of one that several folds test, the last fold's."""
    kind, (seed,) = _rows(run)[row], run.plan.seeds
    found: dict[str, int] = {}
    for index, fold in enumerate(run.protocol.folds):
        predictions = run.result(Job(kind, row, index, seed).name)["test"]["predictions"]
        found |= dict(zip(fold.test, predictions, strict=True))
    return np.array([found[i] for i in ids])


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
