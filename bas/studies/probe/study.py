"""Which layer is best? Every hidden state of every store is probed, and the ways of choosing one are compared.

Each store has a folder with two runs. `disjoint`: the folds of the run's own protocol; each fold chooses a layer on its
training speakers. `random`: the split of *Decoding Emotions*, 60/20/20 over utterances regardless of speaker, rotated
five times so that each utterance is tested once; speakers are in several parts, so the split is marked. The difference
between the two, and between either and a choice by test accuracy, is the bias of the paper's protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random

from rich.console import Console

from bas.errors import UserError
from bas.protocols import Fold, Protocol, field_of, make, thin
from bas.protocols.base import slug
from bas.report.notes import announce_study
from bas.report.results import write_results
from bas.runs.run import Inputs, Run
from bas.runs.session import place_features
from bas.runs.start import start
from bas.runs.workers import Workers
from bas.studies.probe import figures, numbers, page, transfer
from bas.studies.probe.few import COUNTS, few_job, run_few
from bas.studies.probe.jobs import WHOLE, epochs_of, probe_job, run_probe
from bas.studies.probe.results import Probe
from bas.util.files import write_text

DISJOINT, RANDOM = "disjoint", "random"
ROTATIONS = 5


@dataclass(frozen=True)
class StoreChoice:
    """One store to probe: its inputs, whose plan names every stored state, and its protocol."""

    name: str  # of the store's folder within the study's
    inputs: Inputs
    protocol: Protocol


def carry_out(
    folder: Path,
    choices: Sequence[StoreChoice],
    percents: Sequence[int],
    workers: int,
    console: Console,
    memory: float | None = None,
) -> Probe:
    """Probe what is not probed yet; write and show the report. The caller holds the folder's lock.

    percents: shares of the fit part for learning curves, beside the whole; empty: no curves. memory: see the study
    `compare`. Raises UserError for what `start` and `transfer` refuse.
    """
    # All refusals come before hours of training.
    pairs = []
    for choice in choices:
        run = start(folder / choice.name / DISJOINT, choice.inputs, choice.protocol)
        pairs.append((run, start(folder / choice.name / RANDOM, choice.inputs, _random(run))))
    groups = transfer.groups([run for run, _ in pairs])
    for group in groups:
        transfer.check(group, workers, memory)
    if any(len(run.plan.seeds) == 1 for run, _ in pairs):
        line = "note: with one seed, intervals are over folds, and what a choice of the layer claims has none"
        console.print(f"{line}; three seeds have both", style="yellow", highlight=False)
    stores = []
    with Workers(workers, console) as pool:
        for run, random in pairs:
            states = ", ".join(map(str, run.store.info.layers))
            announce_study(run, run.folder.parent, f"states {states}", console)
            _train(run, percents, pool, memory)
            _train(random, (), pool, memory)
            stores.append(numbers.tabulate(run, random, percents))
        transfers = [transfer.carry_out(folder / transfer.name_of(g), g, pool) for g in groups]
    saved = [(store.corpus, store.choice.reduction or store.choice.gain) for store in stores if store.choice]
    results = Probe(run=folder.name, stores=tuple(stores), mean=numbers.averaged(saved), transfer=tuple(transfers))
    write_results(folder, results)
    write_text(folder / "table.md", page.markdown(results))
    figures.draw(folder, results, console)
    page.show(results, console)
    return results


def _random(run: Run) -> Protocol:
    """The random protocol: three fifths fit, one valid, one test, drawn over utterances; each fifth is tested once.

    Fit parts are thinned to the smallest of the disjoint folds, so that a leak does not also mean more training data:
    each class keeps its share; without classes all are drawn alike.
    """
    seed, task = run.protocol.seed, run.task
    try:
        drawn = make(run.corpus, task, f"id:{ROTATIONS}", seed, allowed=task.disjoint)
    except UserError as error:
        raise UserError(f"the random split, which is probed as well: {error}") from error
    label = {u.id: (field_of(u, task.classes) if task.classes else None) or "" for u in run.utterances}
    size = min(len(fold.fit) for fold in run.protocol.folds)
    tests = [fold.test for fold in drawn.folds]
    folds = []
    for index, test in enumerate(tests):
        valid = tests[(index + 1) % ROTATIONS]
        rest = [i for fifth in tests for i in fifth if fifth not in (test, valid)]
        fit = thin(rest, label, size, Random(f"random/{seed}/{index}"))
        folds.append(Fold(fit, valid, test).in_order())
    rule = f"id:60/20/20, {ROTATIONS} rotations"
    return replace(drawn, name=slug(run.corpus.name, "id-60-20-20", f"seed{seed}"), rule=rule, folds=tuple(folds))


def _train(run: Run, percents: Sequence[int], pool: Workers, memory: float | None) -> None:
    """Do the missing jobs of one run: the layer from few labels, and the probes of every share."""
    plan, folds = run.plan, range(len(run.protocol.folds))
    placement, line = place_features(run, pool.count, memory)
    pool.console.print(f"{run.folder}: protocol {run.protocol.description}; {line}", markup=False, highlight=False)
    disjoint = run.folder.name == DISJOINT
    if disjoint and run.states > 1:
        few = [few_job(f) for f in folds]
        pool.run(run, few, len(COUNTS), "few labels", placement, run_few)
    for percent in (WHOLE, *percents):
        jobs = [probe_job(f, s, percent) for s in plan.seeds for f in folds]
        work = partial(run_probe, cumulative=disjoint)
        pool.run(run, jobs, epochs_of(plan.settings, percent), f"probes, {percent} %", placement, work)
