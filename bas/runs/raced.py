"""A race in a fold of a run: its trainings, and the file from which a killed race goes on.

Nothing here scores a test part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bas.networks.costs import count, multiply_adds
from bas.networks.network import Network
from bas.networks.supernet import Supernet
from bas.protocols import Fold
from bas.runs.fit import fit
from bas.runs.session import Session
from bas.search.race import Choice, Race, Trial, random_search
from bas.search.search import PASSES
from bas.space import Architecture, SearchSpace
from bas.training.loop import Record, seed_of
from bas.training.settings import Settings
from bas.util.faults import judging
from bas.util.files import read_record, write_json
from bas.util.typed import from_plain, to_plain

INNER = 5
"""Inner folds of a race, unless the rows are committees: then as many as these have."""

FIRST = 1000
"""The number of a race's first training among those of its fold and seed: its luck is not that of a row's networks."""

DAMAGED = "damaged, or not of this job; delete it: the job starts over"


@dataclass(frozen=True)
class Raced:
    """What a race did and chose. multiply_adds: of its trainings. choice: None for random-search."""

    architecture: Architecture
    trials: tuple[Trial, ...]
    choice: Choice | None
    seconds: float
    multiply_adds: int


def race_fold(
    session: Session,
    space: SearchSpace,
    settings: Settings,
    fold: int,
    seed: int,
    after_epoch: Callable[[], None],
    after_training: Callable[[int, Trial], None] = lambda number, trial: None,
    checkpoint: Path | None = None,
) -> Raced:
    """Race the architectures of a space on the training units of a fold; see `bas.search.race`.

    after_training: takes the number of a trial and the trial, also of those that a killed race had done.
    checkpoint: a file with the trials done; the caller deletes it when all is saved.
    """
    inner = session.inner_folds(fold, settings.committee if settings.committee > 1 else INNER)
    data = session.data(session.layer(fold), settings.stride)
    dims = data.dim, settings.width or data.dim, len(session.run.outputs)
    supernet = Supernet(space, *dims, settings.dropout, settings.residual == "every", data.states)
    fold_parts = session.run.protocol.folds[fold]
    members = session.members((*fold_parts.fit, *fold_parts.valid))
    frames = int(data.lengths_U[members].median())  # not of the test part
    costs = count(supernet, settings.cost, frames)
    done = _read(checkpoint) if checkpoint and checkpoint.exists() else []
    trials: list[Trial] = []

    def train(architecture: Architecture, replication: int) -> Trial:
        number = len(trials)
        if number < len(done):
            trial = done[number]
            with judging(checkpoint or Path(), DAMAGED):
                if (trial.architecture, trial.replication) != (architecture.to_dict(), replication):
                    raise ValueError("holds another race")
        else:
            trial = _train(session, space, architecture, settings, (fold, seed, replication), inner, after_epoch)
        trials.append(trial)
        after_training(number, trial)
        if checkpoint and number >= len(done):
            write_json(checkpoint, {"trials": to_plain(trials)})
        return trial

    of_seed = seed_of(fold, seed)
    choice = None
    if settings.strategy == "race":
        race = Race(space, costs, len(inner), settings.budget, of_seed)
        while (following := race.next()) is not None:
            race.add(*following, train(*following).loss)
        choice = race.choice()
        architecture = Architecture.of(choice.architecture)
    else:
        architecture = random_search(space, settings.budget, of_seed, lambda a: train(a, 0).loss)
    work: dict[Architecture, int] = {}
    for of in {Architecture.of(trial.architecture) for trial in trials}:
        network: Network = supernet.discrete(of)
        work[of] = multiply_adds(network, data.states * data.dim, frames)
    passes = settings.epochs * len(members) * (PASSES * (len(inner) - 1) + 1) / len(inner)
    total = int(sum(work[Architecture.of(trial.architecture)] for trial in trials) * passes)
    return Raced(architecture, tuple(trials), choice, sum(trial.seconds for trial in trials), total)


def _train(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    which: tuple[int, int, int],
    inner: list[Fold],
    after_epoch: Callable[[], None],
) -> Trial:
    fold, seed, replication = which

    def after(record: Record) -> None:
        after_epoch()

    parts = inner[replication % len(inner)]
    fitted = fit(session, space, architecture, settings, fold, seed, after, parts=parts, member=FIRST + replication)
    (kept,) = fitted.kept
    return Trial(
        architecture.to_dict(), replication, kept["valid"]["loss"], kept["valid"][session.run.headline], fitted.seconds
    )


def _read(checkpoint: Path) -> list[Trial]:
    raw = read_record(checkpoint, DAMAGED)
    with judging(checkpoint, DAMAGED):
        return [from_plain(Trial, trial, checkpoint, DAMAGED) for trial in raw["trials"]]
