"""Train every architecture of a space alone, search with every strategy, and report: the jobs of an audit.

The run folder is like any other, with the same folds and seeds for all jobs. In it, `variants/SPEC/` holds the same
architectures and baselines trained again under other settings, with fewer seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bas.errors import UserError
from bas.protocols import Protocol
from bas.report.notes import announce
from bas.report.results import write_results
from bas.runs.losses import check_loss
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import context, tested
from bas.runs.run import Inputs, Run
from bas.runs.session import place_features
from bas.runs.start import check_networks, start
from bas.runs.workers import Workers
from bas.search.search import STRATEGIES as SUPERNETS
from bas.search.search import epochs_of
from bas.stats import limits_of_difference, ranking
from bas.studies.audit import page
from bas.studies.audit.results import Audit, Variant
from bas.studies.audit.trained import load_searches, load_truth, write_table
from bas.studies.audit.verdicts import GOOD_ENOUGH, baselines, claims, judge
from bas.training.settings import STRATEGIES, Settings, search_settings, variant
from bas.util.files import write_text

VARIANT_SEEDS = 1  # the first of the plan's: each variant trains every architecture again
LARGEST = 300  # architectures of a space, each of which is trained alone
OTHER_RESIDUAL = {"block": "residual=every", "every": "residual=block"}
OTHER_OPTIMISER = {"adamw": "optimiser=sgd+lr=0.005+momentum=0.9", "sgd": "optimiser=adamw+lr=0.001"}
"""The default variants: by the value of a setting, the other one; the rates are those of the presets."""


def measure(
    folder: Path,
    inputs: Inputs,
    protocol: Protocol,
    strategies: Sequence[str] | None,
    variants: Sequence[str] | None,
    workers: int,
    console: Console,
    memory: float | None,
) -> Audit:
    """Do the trainings and searches that are missing under `folder`; write the report and the tables, show the report.

    strategies: specs for `settings.search_settings`; None: those that train a supernet. variants: specs for
    `settings.variant`, or "none"; None: skip connections the other way, and the other optimiser. memory: see the study
    `compare`. The caller holds the folder's lock.
    Raises UserError, before anything is written, for an unknown spec, a variant that some architecture cannot have, a
    space or a number of seeds out of range, and for what `start.start` refuses.
    """
    plan = inputs.plan
    chosen = tuple(dict.fromkeys(strategies or SUPERNETS))
    settings_of = _variant_settings(inputs, chosen, variants)
    with Workers(workers, console) as pool:
        run = start(folder, inputs, protocol)
        announce(run, workers, console)
        if len(plan.seeds) < 2:
            console.print("note: with one seed nothing is ranked, and random search is not judged", style="yellow")
        _train(run, pool, memory, chosen)
        variant_runs = {}
        for spec, settings in settings_of.items():
            part = folder / "variants" / spec
            variant_run = start(part, inputs.with_plan(settings=settings, seeds=plan.seeds[:VARIANT_SEEDS]), protocol)
            console.print(str(part), style="bold")
            _train(variant_run, pool, memory, ())
            variant_runs[spec] = variant_run
        console.print("statistics: minutes where the units are many", style="dim")
        results = report(run, chosen, variant_runs)
        write_results(folder, results)
        write_text(folder / "table.md", page.markdown(results))
    page.show(results, console)
    return results


def _variant_settings(inputs: Inputs, strategies: Sequence[str], variants: Sequence[str] | None) -> dict[str, Settings]:
    """The settings of each variant, by spec. Raises UserError for what cannot be audited."""
    plan, files = inputs.plan, inputs.spaces
    if len(plan.seeds) > ranking.MOST_SEEDS:
        raise UserError(f"--seeds {len(plan.seeds)}: an audit takes {ranking.MOST_SEEDS} at most")
    for spec in strategies:
        if not spec:
            raise UserError(f"strategy '': must be one of {', '.join(STRATEGIES)}")
        search_settings(plan.settings, spec)
    for file in files:
        if not 2 <= file.space.size <= LARGEST:
            raise UserError(f"space {file.name}: {file.space.size} architectures; an audit takes 2 to {LARGEST}")
    settings = {}
    for spec in variants or (OTHER_RESIDUAL[plan.settings.residual], OTHER_OPTIMISER[plan.settings.optimiser]):
        if spec != "none":
            settings[spec] = variant(plan.settings, spec)
            try:
                check_networks(files, inputs.store.info.dim, settings[spec])
                check_loss(inputs.task, settings[spec])
            except UserError as error:
                raise UserError(f"variant {spec!r}: {error}") from error
    return settings


def _train(run: Run, pool: Workers, memory: float | None, strategies: Sequence[str]) -> None:
    """Do the missing jobs of one run. strategies: empty for a variant, which searches nothing."""
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(line)
    plan, folds, epochs = run.plan, range(len(run.protocol.folds)), run.plan.settings.epochs

    def do(jobs: list[Job], epochs: int, what: str) -> None:
        pool.run(run, jobs, epochs, what, placement)

    if plan.layer == BEST:
        do([Job(Kind.LAYER, BEST, f, 0) for f in folds], 1, "layers")
    spaces = {name: file.space for name, file in run.spaces.items()}
    pairs = [(f, s) for s in plan.seeds for f in folds]
    do([Job(Kind.LINEAR, row, f, plan.seeds[0]) for row in run.task.linears for f in folds], 1, "linear rows")
    do([Job(Kind.BASELINE, row, f, s) for row in run.baselines for f, s in pairs], epochs, "baselines")
    for spec in strategies:
        longest = max(epochs_of(search_settings(plan.settings, spec), space) for space in spaces.values())
        do([Job(Kind.SEARCH, n, f, s, searcher=spec) for n in spaces for f, s in pairs], longest, f"searches: {spec}")
    alone = [Job(Kind.ALONE, n, f, s, i) for f, s in pairs for n, space in spaces.items() for i in range(space.size)]
    do(alone, epochs, "architectures")


def report(run: Run, strategies: Sequence[str], variants: Mapping[str, Run]) -> Audit:
    """Every number of the report; also writes the tables of architectures. All jobs must be done."""
    spaces = []
    for name in run.spaces:
        truth = load_truth(run, name)
        searches = [load_searches(run, name, spec) for spec in strategies]
        write_table(run, truth, searches, run.folder)
        spaces.append(
            judge(run, truth, searches, {spec: _variant(variant, name) for spec, variant in variants.items()})
        )
    return Audit(
        **context(run),
        variant_seeds=run.plan.seeds[:VARIANT_SEEDS],
        good_enough=GOOD_ENOUGH,
        spaces=tuple(spaces),
    )


def _variant(run: Run, name: str) -> Variant:
    """The results on blocks and claims of a variant's run."""
    truth, (targets_N, units_N) = load_truth(run, name), tested(run)
    metric = run.metrics[run.headline]
    sampled = ranking.sample_all(targets_N, truth.predictions_ASN, truth.folds_N, units_N, metric)
    write_table(run, truth, (), run.folder)
    return Variant(
        seeds=run.plan.seeds,
        mean=float(sampled.whole.mean()),
        baselines=baselines(run),
        effects=ranking.marginal_effects(sampled, truth.designs, limits_of_difference(metric)),
        claims=claims(run, sampled, truth.designs),
    )
