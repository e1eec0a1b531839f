"""Train the architectures of a space alone, search with every strategy, and report: the jobs of an audit.

The run folder is like any other, with the same folds and seeds for all jobs. In it, `variants/SPEC/` holds the same
architectures and baselines trained again under other settings, with fewer seeds. Of a large space a sample is trained
(`taken`), and then what the searches picked outside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from bas.runs.spaces import SpaceFile
from bas.runs.start import check_networks, check_paths, reopen, start
from bas.runs.workers import Workers
from bas.search.search import PATHS, epochs_of
from bas.search.search import STRATEGIES as SUPERNETS
from bas.stats import ranking
from bas.studies.audit import page
from bas.studies.audit.results import Audit, Variant
from bas.studies.audit.taken import take, with_picks
from bas.studies.audit.trained import load_searches, load_truth, write_table
from bas.studies.audit.verdicts import GOOD_ENOUGH, baselines, blocks, judge
from bas.training.settings import STRATEGIES, Settings, search_settings, variant
from bas.util.files import write_text

VARIANT_SEEDS = 1  # the first of the plan's: each variant trains every architecture again
LARGEST = 300  # architectures of a space or a sample, each of which is trained alone
LARGE = ("race", "gumbel")
"""The default strategies where a space has more than PATHS architectures: those that the presets search it with."""
OTHER_RESIDUAL = {"block": "residual=every", "every": "residual=block"}
OTHER_OPTIMISER = {"adamw": "optimiser=sgd+lr=0.005+momentum=0.9", "sgd": "optimiser=adamw+lr=0.001"}
"""The default variants: by the value of a setting, the other one; the rates are those of the presets."""


@dataclass(frozen=True)
class Begun:
    """The runs of an audit: that of the plan, and those of the variants by spec."""

    run: Run
    variants: Mapping[str, Run]
    strategies: Sequence[str]
    sample: int | None


def begin(
    folder: Path,
    inputs: Inputs,
    protocol: Protocol,
    strategies: Sequence[str] | None,
    variants: Sequence[str] | None,
    sample: int | None = None,
) -> Begun:
    """Begin an audit under `folder`, or continue in one that was made of the same things.

    strategies: specs for `settings.search_settings`; None: those that train a supernet, and in a space whose paths are
    too many to score LARGE. variants: specs for `settings.variant`, or "none"; None: skip connections the other way,
    and the other optimiser. sample: train so many architectures of a larger space, drawn at random; a run with another
    number has those of the smaller one done. The caller holds the folder's lock.
    Raises UserError, before anything is written, for an unknown spec, a variant that some architecture cannot have, a
    space, a sample or a number of seeds out of range, and for what `start.start` refuses.
    """
    chosen = _strategies(inputs.spaces, strategies)
    settings_of = _variant_settings(inputs, chosen, variants, sample)
    run = start(folder, inputs, protocol)
    seeds = inputs.plan.seeds[:VARIANT_SEEDS]
    variant_runs = {
        spec: start(_of_variant(folder, spec), inputs.with_plan(settings=settings, seeds=seeds), protocol)
        for spec, settings in settings_of.items()
    }
    return Begun(run, variant_runs, chosen, sample)


def join(
    folder: Path, strategies: Sequence[str] | None, variants: Sequence[str] | None, sample: int | None = None
) -> Begun:
    """Open an audit that `begin` began with the same arguments, to do some of its trainings. Writes nothing."""
    run = reopen(folder, beside=True)
    files = tuple(run.spaces.values())
    specs = [spec for spec in variants or _usual_variants(run.plan.settings) if spec != "none"]
    return Begun(
        run,
        {spec: reopen(_of_variant(folder, spec), beside=True) for spec in specs},
        _strategies(files, strategies),
        sample,
    )


def train(begun: Begun, pool: Workers, memory: float | None) -> None:
    """Do the trainings and searches that are missing, or the pool's part of them. memory: see the study `compare`.

    Any number of processes may do so at a time, on any hosts: each job is claimed. Needs no lock.
    """
    run, console, sample = begun.run, pool.console, begun.sample
    announce(run, pool.count, console)
    if len(run.plan.seeds) < 2:
        console.print("note: with one seed nothing is ranked, and random search is not judged", style="yellow")
    for file in run.spaces.values():
        if sample and not take(file.space, sample).sampled:
            console.print(f"note: {file.name} has no more than {sample} architectures: all are trained")
    _train(run, pool, memory, begun.strategies, sample)
    for variant_run in begun.variants.values():
        console.print(str(variant_run.folder), style="bold")
        _train(variant_run, pool, memory, (), sample)


def expected(begun: Begun) -> list[Path]:
    """The results of all jobs, but for those of what searches will pick outside a sample."""
    paths = []
    for run in (begun.run, *begun.variants.values()):
        taken = {name: take(file.space, begun.sample).numbers for name, file in run.spaces.items()}
        for f in range(len(run.protocol.folds)):
            jobs = [Job(Kind.LINEAR, row, f, run.plan.seeds[0]) for row in run.task.linears]
            jobs += [Job(Kind.LAYER, BEST, f, 0)] if run.plan.layer == BEST else []
            for s in run.plan.seeds:
                jobs += [Job(Kind.BASELINE, row, f, s) for row in run.baselines]
                jobs += [Job(Kind.ALONE, name, f, s, i) for name, numbers in taken.items() for i in numbers]
                specs = begun.strategies if run is begun.run else ()
                jobs += [Job(Kind.SEARCH, name, f, s, searcher=spec) for name in run.spaces for spec in specs]
            paths += [run.job_path(job.name) for job in jobs]
    return paths


def conclude(begun: Begun, console: Console) -> Audit:
    """The report and the tables, written and shown. All jobs must be done."""
    console.print("statistics: minutes where the units are many", style="dim")
    results = report(begun.run, begun.strategies, begun.variants, begun.sample)
    write_results(begun.run.folder, results)
    write_text(begun.run.folder / "table.md", page.markdown(results))
    page.show(results, console)
    return results


def _of_variant(folder: Path, spec: str) -> Path:
    return folder / "variants" / spec


def _strategies(spaces: Sequence[SpaceFile], asked: Sequence[str] | None) -> tuple[str, ...]:
    usual = LARGE if any(file.space.size > PATHS for file in spaces) else tuple(SUPERNETS)
    return tuple(dict.fromkeys(asked or usual))


def _usual_variants(settings: Settings) -> tuple[str, str]:
    return OTHER_RESIDUAL[settings.residual], OTHER_OPTIMISER[settings.optimiser]


def _variant_settings(
    inputs: Inputs, strategies: Sequence[str], variants: Sequence[str] | None, sample: int | None
) -> dict[str, Settings]:
    """The settings of each variant, by spec. Raises UserError for what cannot be audited."""
    plan, files = inputs.plan, inputs.spaces
    if len(plan.seeds) > ranking.MOST_SEEDS:
        raise UserError(f"--seeds {len(plan.seeds)}: an audit takes {ranking.MOST_SEEDS} at most")
    for spec in strategies:
        if not spec:
            raise UserError(f"strategy '': must be one of {', '.join(STRATEGIES)}")
        check_paths(files, search_settings(plan.settings, spec), "name another, such as --strategy gumbel")
    if sample is not None and not 2 <= sample <= LARGEST:
        raise UserError(f"--sample {sample}: an audit takes 2 to {LARGEST}")
    for file in files:
        size = file.space.size
        if size < 2 or (size > LARGEST and not take(file.space, sample).sampled):
            of_them = f", or so many of them: --sample {min(40, file.space.different - 1)}" if size > LARGEST else ""
            networks = f" ({file.space.different} different)" if file.space.different < size else ""
            raise UserError(
                f"space {file.name}: {size} architectures{networks}; an audit takes 2 to {LARGEST}{of_them}"
            )
    settings = {}
    for spec in variants or _usual_variants(plan.settings):
        if spec != "none":
            settings[spec] = variant(plan.settings, spec)
            try:
                check_networks(files, inputs.store.info.dim, settings[spec])
                check_loss(inputs.task, settings[spec])
            except UserError as error:
                raise UserError(f"variant {spec!r}: {error}") from error
    return settings


def _train(run: Run, pool: Workers, memory: float | None, strategies: Sequence[str], sample: int | None) -> None:
    """Do the missing jobs of one run. strategies: empty for a variant, which searches nothing."""
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(line)
    plan, folds, epochs = run.plan, range(len(run.protocol.folds)), run.plan.settings.epochs

    def do(jobs: list[Job], epochs: int, what: str, shared: bool = False) -> None:
        pool.run(run, jobs, epochs, what, placement, shared=shared)

    if plan.layer == BEST:
        do([Job(Kind.LAYER, BEST, f, 0) for f in folds], 1, "layers", shared=True)
    spaces = {name: file.space for name, file in run.spaces.items()}
    pairs = [(f, s) for s in plan.seeds for f in folds]
    do([Job(Kind.LINEAR, row, f, plan.seeds[0]) for row in run.task.linears for f in folds], 1, "linear rows")
    do([Job(Kind.BASELINE, row, f, s) for row in run.baselines for f, s in pairs], epochs, "baselines")
    for spec in strategies:
        longest = max(epochs_of(search_settings(plan.settings, spec), space) for space in spaces.values())
        do([Job(Kind.SEARCH, n, f, s, searcher=spec) for n in spaces for f, s in pairs], longest, f"searches: {spec}")
    # Whoever does a part has not all searches: what they picked outside a sample is trained by who does all.
    picked = strategies if pool.part is None else ()
    taken = {name: with_picks(run, name, picked, sample) for name in spaces}
    alone = [Job(Kind.ALONE, n, f, s, i) for f, s in pairs for n, of in taken.items() for i in of.numbers]
    do(alone, epochs, "architectures")
    picks = [(n, i, plan.seeds[place]) for n, of in taken.items() for i, places in of.picks.items() for place in places]
    if picks:
        do([Job(Kind.ALONE, n, f, s, i) for f in folds for n, i, s in picks], epochs, "picks outside the sample")


def report(run: Run, strategies: Sequence[str], variants: Mapping[str, Run], sample: int | None) -> Audit:
    """Every number of the report; also writes the tables of architectures. All jobs must be done."""
    spaces = []
    for name in run.spaces:
        taken = with_picks(run, name, strategies, sample)
        truth = load_truth(run, name, taken)
        searches = [load_searches(run, name, spec, taken) for spec in strategies]
        write_table(run, truth, searches, run.folder)
        of_variants = {spec: _variant(variant, name, sample) for spec, variant in variants.items()}
        spaces.append(judge(run, truth, searches, of_variants))
    return Audit(
        **context(run),
        variant_seeds=run.plan.seeds[:VARIANT_SEEDS],
        good_enough=GOOD_ENOUGH,
        spaces=tuple(spaces),
    )


def _variant(run: Run, name: str, sample: int | None) -> Variant:
    """The results on blocks and claims of a variant's run."""
    truth, (targets_N, _) = load_truth(run, name, take(run.spaces[name].space, sample)), tested(run)
    write_table(run, truth, (), run.folder)
    return Variant(
        seeds=run.plan.seeds,
        mean=float(truth.accuracy(targets_N, run.metrics[run.headline]).mean()),
        baselines=baselines(run),
        **blocks(run, truth),
    )
