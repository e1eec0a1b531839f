"""Every architecture of a space trained alone, every strategy searched: the jobs of an audit, and its report.

A run folder like any other, with the same folds and seeds for all; `variants/SPEC/` beneath it holds the same
architectures trained again under other settings, with fewer seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bas import audit_tables, ranking
from bas.errors import UserError
from bas.files import locked, write_json, write_text
from bas.judge import claims, effects, judge
from bas.protocols import Protocol
from bas.run import BEST, Plan, Run, start
from bas.search import epochs_of
from bas.settings import STRATEGIES, Settings, changed, searcher
from bas.space import load_space
from bas.tables import announce, context, tested
from bas.train import BASELINES, LINEAR, Job, place_features
from bas.truth import load_searches, load_truth, write_table
from bas.workers import run_jobs

VARIANT_SEEDS = 2  # the first of the plan's: each variant trains every architecture again
LARGEST = 300  # architectures that are trained one by one
OTHER = {"adamw": "optimiser=sgd+lr=0.005+momentum=0.9", "sgd": "optimiser=adamw+lr=0.001"}
"""By optimiser, the other one; the rates are those of the presets."""


def measure(
    folder: Path,
    plan: Plan,
    protocol: Protocol,
    strategies: Sequence[str] | None,
    variants: Sequence[str] | None,
    workers: int,
    console: Console,
    memory: float | None,
) -> dict[str, Any]:
    """Train and search what is not done yet under `folder`; write the report and the tables, show the report.

    strategies: specs as of `settings.searcher`; None: all but random, with their defaults. variants: specs as of
    `varied`, or "none"; None: residual=every and the other optimiser. memory: see `compare.carry_out`.
    UserError: an unknown spec, a space that is too large, and what `run.start` refuses.
    """
    chosen = tuple(dict.fromkeys(strategies or (name for name in STRATEGIES if name != "random")))
    for spec in chosen:
        searcher(plan.settings, spec)
    defaults = ("residual=every", OTHER[plan.settings.optimiser])
    others = {spec: varied(plan.settings, spec) for spec in variants or defaults if spec != "none"}
    for file in map(load_space, plan.spaces):
        if file.space.size > LARGEST:
            raise UserError(f"space {file.name}: {file.space.size} architectures; an audit trains {LARGEST} at most")
    with locked(folder, "searching or training"):
        run = start(folder, plan, protocol)
        announce(run, workers, console)
        _train(run, workers, console, memory, chosen)
        asides = {}
        for spec, settings in others.items():
            part = folder / "variants" / spec
            with locked(part, "searching or training"):
                beside = start(part, replace(plan, settings=settings, seeds=plan.seeds[:VARIANT_SEEDS]), protocol)
                console.print(f"[bold]{part}[/bold]")
                _train(beside, workers, console, memory, None)
                asides[spec] = beside
        results = report(run, chosen, asides)
        write_json(folder / "audit.json", results)
        write_text(folder / "audit.md", audit_tables.markdown(results))
    audit_tables.show(results, console)
    return results


def varied(settings: Settings, spec: str) -> Settings:
    """`optimiser=sgd+lr=0.005`: these settings with some of them changed."""
    changes = dict(pair.partition("=")[::2] for pair in spec.split("+"))
    if not all(changes.values()):
        raise UserError(
            f"--variant {spec!r}: must be none or settings such as residual=every or optimiser=sgd+lr=0.005"
        )
    return changed(settings, changes)


def _train(run: Run, workers: int, console: Console, memory: float | None, strategies: Sequence[str] | None) -> None:
    """strategies: None for a variant, where nothing is searched and no baseline is due."""
    placement, told = place_features(run, workers, memory)
    console.print(told)
    plan, folds, epochs = run.plan, range(len(run.protocol.folds)), run.plan.settings.epochs

    def do(jobs: list[Job], epochs: int, what: str) -> None:
        run_jobs(run.folder, jobs, epochs, workers, console, what, placement)

    if plan.layer == BEST:
        do([Job("layer", BEST, f, 0) for f in folds], 1, "layers")
    spaces = {name: file.space.size for name, file in run.spaces.items()}
    every = [(f, s) for s in plan.seeds for f in folds]
    if strategies is not None:
        do([Job("linear", LINEAR, f, plan.seeds[0]) for f in folds], 1, LINEAR)
        do([Job("baseline", row, f, s) for row in BASELINES for f, s in every], epochs, "baselines")
        for spec in strategies:
            jobs = [Job("search", n, f, s, searcher=spec) for n in spaces for f, s in every]
            longest = max(epochs_of(searcher(plan.settings, spec), file.space) for file in run.spaces.values())
            do(jobs, longest, f"searches: {spec}")
    alone = [Job("alone", n, f, s, number) for f, s in every for n, size in spaces.items() for number in range(size)]
    do(alone, epochs, "architectures")


def report(run: Run, strategies: Sequence[str], variants: dict[str, Run]) -> dict[str, Any]:
    """Every number of the report, from jobs that are all done; writes the tables of architectures beside it."""
    spaces = []
    for name in run.spaces:
        truth = load_truth(run, name)
        searches = [load_searches(run, name, spec) for spec in strategies]
        write_table(run, truth, searches, run.folder)
        beside = {spec: _aside(variant, name) for spec, variant in variants.items()}
        spaces.append(judge(run, truth, searches) | {"variants": beside})
    return {**context(run), "variant_seeds": VARIANT_SEEDS, "spaces": spaces}


def _aside(run: Run, name: str) -> dict[str, Any]:
    """What a variant says of the blocks."""
    truth, (targets_N, units_N) = load_truth(run, name), tested(run)
    values_VA = ranking.deleted(targets_N, truth.predictions_ASN, units_N, run.task.metrics[run.headline])
    return {
        "seeds": list(run.plan.seeds),
        "mean": float(values_VA[0].mean()),
        "effects": effects(values_VA, truth.designs),
        "claims": claims(values_VA, truth.designs),
    }
