"""What is done with a run that is begun: its jobs, by any number of processes on any hosts that share its folder.

Part of `bas.api`. Imports nothing heavy: each function does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from bas.errors import UserError
from bas.experiment.keys import SHARED
from bas.util.terminal import console_of, say


def work(
    run: str | os.PathLike[str],
    *,
    part: str | None = None,
    workers: int | None = None,
    memory: float | None = None,
    console: Console | None = None,
) -> Path:
    """Do the jobs of a run that have no result, beside all others who do so, and return its folder.

    Each job is claimed by a file in the folder, which needs neither file locks nor clocks that agree; what a process
    leaves that dies is taken up. Without `part` it ends when all jobs have a result, and waits for what others do.

    run: the folder that `prepare`, or the verb itself, has begun. part: "i/N": the i-th of N fixed shares, i from 0,
    and nothing else, for schedulers that number their tasks. workers: processes; None: one a core. memory: GiB that
    features may take in all of these; None: half of what is free.
    Raises UserError for a folder that is no run of search, retrain, compare, audit or tune, or is of other things than
    now.
    """
    from bas.experiment import FILE, load_experiment
    from bas.runs.choose import STUDY, TASKS, words_of, workers_of
    from bas.runs.run import OTHER
    from bas.runs.start import reopen
    from bas.runs.workers import Workers
    from bas.studies.audit import study as audit
    from bas.studies.compare import study as compare
    from bas.studies.tune import study as tune
    from bas.util.device import choose_device
    from bas.util.files import read_record
    from bas.util.part import Part
    from bas.util.reading import check_own

    folder, console = Path(run), console_of(console)
    share = None if part is None else Part.of_text(part)
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise UserError(f"workers={workers}: must be a whole number, 1 or more")
    if memory is not None and not 0 < memory < float("inf"):
        raise UserError(f"memory={memory}: must be a number above 0")
    begins = f"{folder}: no run that is begun; `bas compare EXPERIMENT.toml --prepare` begins one"
    if not (folder / STUDY).is_file():
        raise UserError(begins)
    check_own(folder, "move it away, or name another folder", [TASKS])
    verb = read_record(folder / STUDY, OTHER).get("verb")
    if verb not in SHARED:
        raise UserError(f"{folder}: holds what `bas {words_of(str(verb))}` made; work does that of {', '.join(SHARED)}")
    if not (folder / "run.json").is_file():
        raise UserError(begins)
    train: Callable[[Workers, float | None], None]
    if verb == "audit":
        of = load_experiment(folder / FILE).audit
        begun = audit.join(folder, of.strategies or None, of.variants or None, of.sample)
        opened, train = begun.run, partial(audit.train, begun)
    elif verb == "tune":
        tuned = load_experiment(folder / FILE).tune
        opened = tune.join(folder, tuned.choose)
        train = partial(tune.train, opened, tuned.choose, tuned.trials)
    else:
        opened = reopen(folder, beside=True)
        train = partial(compare.train, opened, verb)
    choose_device(opened.plan.device)
    with Workers(workers_of(workers, opened.plan.device), console, part=share) as pool:
        train(pool, memory)
    done = "all jobs have a result" if share is None else f"part {part} is done"
    say(console, f"{folder}: {done}")
    return folder
