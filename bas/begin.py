"""Begin the run of a verb, or go on with it, and have its jobs done: here, or by tasks of a cluster.

Part of `bas.api`. Imports nothing heavy: each function does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bas.errors import UserError
from bas.experiment import SHARED, Experiment, Source, change, read_experiment
from bas.util.terminal import console_of, say

if TYPE_CHECKING:
    from bas.cluster import Expected
    from bas.experiment.keys import TuneTable
    from bas.runs.run import Inputs, Run
    from bas.runs.workers import Workers
    from bas.studies.audit.study import Begun

Do = Callable[[Callable[["Workers", float | None], None]], None]
"""Has trainings done: takes what does them with a pool of workers and the GiB that features may take."""


@contextmanager
def begin_run(
    verb: str, experiment: Source, console: Console | None, changes: dict[str, Any]
) -> Iterator[tuple[Run, Do, Console]]:
    """A verb's run, begun or gone on with, under its folder's lock; what has its jobs done; where to show progress."""
    from bas.runs import choose
    from bas.runs.start import start
    from bas.studies.compare.study import expected

    choice, inputs, console = open_one(verb, experiment, console, changes)
    folder = choose.run_folder(choice, "", inputs)
    inputs = choose.gone_on(choice, folder, inputs)
    resolved = choose.resolve(choice, verb, folder, [inputs])
    with choose.work_in(folder, verb, resolved):
        run = start(folder, inputs, choose.split_of(choice, inputs))
        yield run, _doing(choice, run, lambda: (expected(run, verb), True), console), console


def _doing(choice: Experiment, run: Run, expected: Expected, console: Console) -> Do:
    """By the processes of this machine, or by tasks of a cluster."""
    from bas.runs import choose
    from bas.runs.workers import Workers

    def do(train: Callable[[Workers, float | None], None]) -> None:
        if choice.cluster.kind is not None:
            from bas import cluster

            return cluster.carry_out(run.folder, choice.cluster, expected, choice.memory, console)
        with Workers(choose.workers_of(choice.workers, run.plan.device), console) as pool:
            train(pool, choice.memory)

    return do


@contextmanager
def begin_audit(
    experiment: Source, console: Console | None, changes: dict[str, Any]
) -> Iterator[tuple[Begun, Do, Console]]:
    """As `begin_run`, of an audit."""
    from bas.runs import choose
    from bas.studies.audit.study import begin, expected

    choice, inputs, console = open_one("audit", experiment, console, changes)
    folder, protocol, of = choose.run_folder(choice, "audit-", inputs), choose.split_of(choice, inputs), choice.audit
    inputs = choose.gone_on(choice, folder, inputs)
    with choose.work_in(folder, "audit", choose.resolve(choice, "audit", folder, [inputs])):
        begun = begin(folder, inputs, protocol, of.strategies or None, of.variants or None, of.sample)
        yield begun, _doing(choice, begun.run, lambda: (expected(begun), of.sample is None), console), console


@contextmanager
def begin_tuning(
    experiment: Source, console: Console | None, changes: dict[str, Any]
) -> Iterator[tuple[Run, TuneTable, Do, Console]]:
    """As `begin_run`, of a tuning."""
    from bas.runs import choose
    from bas.studies.tune.study import begin, check_mode, expected

    choice, inputs, console = open_one("tune", experiment, console, changes)
    of = choice.tune
    check_mode(of.choose, inputs.plan.settings)
    folder = choose.run_folder(choice, "tune-" if of.choose == "blocks" else f"tune-{of.choose}-", inputs)
    inputs = choose.gone_on(choice, folder, inputs)
    with choose.work_in(folder, "tune", choose.resolve(choice, "tune", folder, [inputs])):
        run = begin(folder, inputs, choose.split_of(choice, inputs), of.choose)
        yield run, of, _doing(choice, run, lambda: expected(run, of.trials), console), console


def prepare(verb: str, experiment: Source, *, console: Console | None = None, **changes: Any) -> Path:
    """Begin the run of search, retrain, compare, audit or tune, and train nothing; its folder. `work` does its jobs, on
    any hosts; then the verb itself makes the table."""
    if verb not in SHARED:
        raise UserError(f"prepare {verb!r}: must be one of {', '.join(SHARED)}")
    if verb == "audit":
        with begin_audit(experiment, console, changes) as (begun, _, console):
            folder = begun.run.folder
    elif verb == "tune":
        with begin_tuning(experiment, console, changes) as (run, _, _, console):
            folder = run.folder
    else:
        with begin_run(verb, experiment, console, changes) as (run, _, console):
            folder = run.folder
    say(console, f"{folder}: begun")
    return folder


def choice_of(verb: str, experiment: Source, changes: dict[str, Any]) -> Experiment:
    return change(read_experiment(experiment), verb, changes)


def open_one(
    verb: str, experiment: Source, console: Console | None, changes: dict[str, Any]
) -> tuple[Experiment, Inputs, Console]:
    """What a verb on one store needs: the experiment, its inputs, where to show what is done."""
    from bas.runs import choose

    choice = choice_of(verb, experiment, changes)
    return choice, choose.inputs_of(choice, verb, choose.open_store(choice, verb)), console_of(console)
