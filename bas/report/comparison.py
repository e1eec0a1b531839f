"""The paper's Table 1 for any features, with seeds, spread and a paired comparison; and what the search chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bas.runs.plan import MIX, Job
from bas.runs.results import ceiling, context, interval_of, plain, pooled, results_of, searched, tested
from bas.runs.run import Run
from bas.space import SearchSpace
from bas.stats import Paired, paired, spread, verdict_sentence
from bas.stats.decisions import summarise, warnings


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
    return {
        **context(run),
        "rows": rows,
        "ceiling": ceiling(run),
        "verdicts": _verdicts(run, rows),
        "decisions": {name: _decided(run, name) for name in run.spaces},
        "sequences": {name: [" > ".join(b.values()) for b in searched(run, name).values()] for name in run.spaces},
        "mix": _mixes(run),
    }


def decided(searches: Sequence[Mapping[str, Any]], space: SearchSpace) -> dict[str, Any]:
    """What searches of a space decided, by slot, and what to warn of (`bas.stats.decisions`), from their jobs' results.

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


def _row(run: Run, row: str, targets_N: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Pooled predictions `(S, N)` of one row, and its own numbers."""
    folds, metrics = range(len(run.protocol.folds)), run.metrics
    jobs = results_of(run, row)
    every = [result for of_seed in jobs for result in of_seed]
    pooled_SN = pooled(jobs)
    searches = [run.result(Job("search", row, f, s).name) for s in run.plan.seeds for f in folds if row in run.spaces]
    scores = {name: spread([m(targets_N, p_N) for p_N in pooled_SN]) for name, m in metrics.items()}
    return pooled_SN, {
        "interval": interval_of(run, pooled_SN),
        "seeds": len(jobs),
        "remarks": list(run.task.remarks(run.outputs, targets_N, pooled_SN)),
        "metrics": {name: {"mean": mean, "sd": sd} for name, (mean, sd) in scores.items()},
        "fold_mean": {name: float(np.mean([r["test"]["metrics"][name] for r in every])) for name in metrics},
        "parameters": float(np.median([r["parameters"] for r in every])),
        "train_seconds": float(np.mean([r["seconds"] for r in every])),
        "search_seconds": float(np.mean([r["seconds"] for r in searches])) if searches else None,
    }


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
