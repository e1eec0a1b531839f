"""How much a leak inflates a score: the same models, trained under a clean and a leaky split of the same utterances.

Every seed draws both splits and trains every model in every fold of both. Each split tests an utterance once, so
the two are compared utterance by utterance, paired over the units of the clean split. All models of a seed train on
equally many utterances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from rich.console import Console
from rich.text import Text

from bas.errors import UserError
from bas.protocols import Protocol, field_of, thin
from bas.report.notes import tell_protocol
from bas.report.results import write_results
from bas.runs.plan import BEST, Job, Kind
from bas.runs.run import Inputs, Run
from bas.runs.session import place_features
from bas.runs.start import split, start
from bas.runs.workers import Workers
from bas.studies.leak.numbers import SIDES, kinds, tabulate
from bas.studies.leak.page import ONE_SEED, markdown, show
from bas.studies.leak.results import Leak
from bas.util.files import write_text


def measure(
    folder: Path,
    inputs: Inputs,
    clean: str | None,
    leaky: str | None,
    workers: int,
    console: Console,
    memory: float | None,
) -> Leak:
    """Train what is not trained yet under `folder/clean-seed0`, `folder/leaky-seed0`, ...; write and show the table.

    clean: a rule that leaks nothing; None: the rule of the task or the corpus. leaky: a rule that shares what the task
    forbids; None: as many folds as the clean rule makes, drawn over utterances. Each seed of the plan gives one split
    of either kind and one initialisation. memory: see the study `compare`. The caller holds the folder's lock.
    Raises UserError for a clean rule that leaks, a leaky rule that does not, two rules that test no utterance in
    common, and for what `start.split` and `start.start` refuse.
    """
    splits = _splits(inputs, clean, leaky)
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    if len(inputs.plan.seeds) == 1:
        console.print(f"note: {ONE_SEED}", style="yellow", highlight=False)
    with Workers(workers, console) as pool:
        for seed, pair in zip(inputs.plan.seeds, splits, strict=True):
            for side, protocol in zip(SIDES, pair, strict=True):
                part = folder / f"{side}-seed{seed}"
                run = start(part, inputs.with_plan(seeds=(seed,)), protocol)
                runs[side].append(run)
                console.print(Text.assemble((str(part), "bold"), f": protocol {run.protocol.description}"))
                if seed == inputs.plan.seeds[0]:
                    tell_protocol(run.protocol, console)
                _train(run, pool, memory)
    results = tabulate(folder, runs)
    write_results(folder, results)
    write_text(folder / "table.md", markdown(results))
    show(results, console)
    return results


def _splits(inputs: Inputs, clean: str | None, leaky: str | None) -> list[tuple[Protocol, Protocol]]:
    """The clean and the leaky split of every seed, made and checked before anything is written.

    All fit parts of a seed are cut to the size of the smallest, so that no model has more utterances to train on.
    """
    task, corpus = inputs.task, inputs.corpus
    if task.classes is None:
        raise UserError(f"task {task.name}: the cost of a leak is measured for tasks with classes only")
    label = {u.id: field_of(u, task.classes) or "" for u in corpus.utterances}
    units = {u.id: field_of(u, corpus.unit) for u in corpus.utterances}
    pairs = []
    for seed in inputs.plan.seeds:
        one = split(inputs, clean, seed, task.disjoint)
        if leaky is None and len(one.folds) == 1:
            raise UserError(f"--clean {one.rule}: has one fold, so --leaky has no default; name a rule such as id:5")
        other = split(inputs, leaky or f"id:{len(one.folds)}", seed, task.disjoint)
        if one.marks:
            raise UserError(f"--clean {one.rule}: shares what task {task.name} forbids: {one.marks[0]}")
        if not other.marks:
            raise UserError(f"--leaky {other.rule}: shares nothing that task {task.name} forbids; name another rule")
        pairs.append((one, other))
    both = set.intersection(*(set(protocol.test_ids) for pair in pairs for protocol in pair))
    if len({units.get(i) for i in both}) < 2:
        rules = f"--clean {pairs[0][0].rule}, --leaky {pairs[0][1].rule}"
        reason = f"what both test with every seed is of fewer than two {corpus.unit}s"
        raise UserError(f"{rules}: {reason}; use rules that test every utterance, such as speaker:5 and id:5")
    cut = []
    for one, other in pairs:
        size = min(len(fold.fit) for protocol in (one, other) for fold in protocol.folds)
        cut.append((_cut(one, size, label), _cut(other, size, label)))
    return cut


def _cut(protocol: Protocol, size: int, label: Mapping[str, str]) -> Protocol:
    """The protocol with `size` fit utterances in every fold, drawn so that each class keeps its share."""
    rngs = [Random(f"cut/{protocol.seed}/{index}") for index in range(len(protocol.folds))]
    pairs = zip(protocol.folds, rngs, strict=True)
    folds = tuple(replace(fold, fit=thin(fold.fit, label, size, rng)) for fold, rng in pairs)
    note = f"every fit part is cut to {size} utterances, the smallest of the seed's"
    name = f"{protocol.name}-fit{size}"
    return replace(protocol, name=name, folds=folds, notes=(*protocol.notes, note))


def _train(run: Run, pool: Workers, memory: float | None) -> None:
    placement, _ = place_features(run, pool.count, memory)
    folds, (seed,) = range(len(run.protocol.folds)), run.plan.seeds
    if run.plan.layer == BEST:
        pool.run(run, [Job(Kind.LAYER, BEST, f, 0) for f in folds], 1, "layers", placement)
    jobs = [Job(kind, row, f, seed) for row, kind in kinds(run).items() for f in folds]
    pool.run(run, jobs, run.plan.settings.epochs, "trainings", placement)
