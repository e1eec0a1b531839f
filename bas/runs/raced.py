"""A race in a fold of a run: its trainings, which a killed race and the retrained row do not repeat, and its ensemble.

Nothing here scores a test part.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bas.errors import Diverged
from bas.networks.costs import count, multiply_adds
from bas.networks.supernet import Supernet
from bas.protocols import Fold
from bas.runs.fit import fit, member_path
from bas.runs.session import Session
from bas.runs.solved import solvable
from bas.search.ensemble import Member, weigh
from bas.search.race import Choice, Race, Trial, random_search
from bas.search.search import PASSES
from bas.space import Architecture, SearchSpace
from bas.training.loop import Record, outputs, seed_of
from bas.training.settings import Settings

INNER = 5
"""Inner folds of a race, unless the rows are committees: then as many as these have."""


@dataclass(frozen=True)
class Raced:
    """What a race did and chose. multiply_adds: of its trainings. choice: None for random-search.

    members: of its ensemble; the architecture alone where there is none.
    """

    architecture: Architecture
    members: tuple[Member, ...]
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

    A training of replication r is the network r of the committee that `fit_row` makes of its architecture and seed.

    after_training: takes the number of a trial and the trial, also of those that a killed race had done.
    checkpoint: where trainings stay, that of replication r as `member_path(of_architecture(checkpoint, ...), r)`; the
    caller deletes them.
    """
    inner = session.inner_folds(fold, settings.committee if settings.committee > 1 else INNER)
    data = session.data(session.layer(fold), settings.stride)
    dims = data.dim, settings.width or data.dim, len(session.run.outputs)
    supernet = Supernet(space, *dims, settings.dropout, settings.residual == "every", data.states)
    fold_parts = session.run.protocol.folds[fold]
    members = session.members((*fold_parts.fit, *fold_parts.valid))
    frames = int(data.lengths_U[members].median())  # not of the test part
    costs = count(supernet, settings.cost, frames)
    solved = [a for a in space.blockless() if solvable(session, space, a)]
    ensemble = settings.ensemble if settings.averages else 0
    trials: list[Trial] = []
    held: dict[tuple[Architecture, int], Tensor] = {}

    def train(architecture: Architecture, replication: int) -> float | None:
        path = checkpoint and of_architecture(checkpoint, architecture)
        which = fold, seed, replication
        trial, held_NO = _train(session, space, architecture, settings, which, inner, after_epoch, path)
        if replication < len(inner) and held_NO is not None:
            held[architecture, replication] = held_NO
        after_training(len(trials), trial)
        trials.append(trial)
        return trial.loss

    of_seed, choice = seed_of(fold, seed), None
    if settings.strategy == "race":
        race = Race(space, costs, len(inner), settings.budget, of_seed, solved, ensemble)
        while (following := race.next()) is not None:
            race.add(*following, train(*following))
        choice, finalists = race.choice(), race.finalists
        architecture = Architecture.of(choice.architecture)
    else:
        for architecture in solved if ensemble else ():
            for replication in range(len(inner)):
                train(architecture, replication)
        drawn = settings.budget - ensemble * (len(inner) - 1)
        order = random_search(space, drawn, of_seed, lambda a: train(a, 0))
        finalists = order[:ensemble]
        for finalist in list(finalists):
            for replication in range(1, len(inner)):
                if train(finalist, replication) is None:
                    finalists.remove(finalist)
                    order.remove(finalist)
                    break
        if not order:
            raise Diverged(f"search: each of {drawn} architectures diverged in a training; lower the setting lr")
        architecture = order[0]
    chosen: tuple[Member, ...] = (Member(architecture.to_dict(), 1.0),)
    every = [*solved, *(a for a in finalists if a not in solved)] if ensemble else []
    if every:
        held_MNO = [torch.cat([held[a, r] for r in range(len(inner))]) for a in every]
        held_out = session.members(tuple(i for parts in inner for i in parts.valid))  # each training utterance once
        targets_N, loss = data.targets_U.cpu()[held_out], session.run.losses(settings, held_out).held
        weights = weigh(held_MNO, lambda outputs_NO: loss(outputs_NO, targets_N))
        chosen = tuple(Member(a.to_dict(), w) for a, w in zip(every, weights, strict=True) if w)
    trained = [Architecture.of(trial.architecture) for trial in trials if not trial.solved]
    work = {a: multiply_adds(supernet.discrete(a), data.states * data.dim, frames) for a in set(trained)}
    passes = settings.epochs * len(members) * (PASSES * (len(inner) - 1) + 1) / len(inner)
    total = int(sum(work[a] for a in trained) * passes)
    return Raced(architecture, chosen, tuple(trials), choice, sum(trial.seconds for trial in trials), total)


def of_architecture(checkpoint: Path, architecture: Architecture) -> Path:
    """The checkpoint of a committee of an architecture, beside that of the race."""
    short = hashlib.sha256(repr(architecture.blocks).encode()).hexdigest()[:12]
    return checkpoint.with_suffix(f".{short}{checkpoint.suffix}")


def _train(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    which: tuple[int, int, int],
    inner: list[Fold],
    after_epoch: Callable[[], None],
    checkpoint: Path | None,
) -> tuple[Trial, Tensor | None]:
    """A trial, and its outputs for the utterances that it held out; none if it diverged."""
    fold, seed, replication = which
    solved = solvable(session, space, architecture) is not None

    def after(record: Record) -> None:
        if not solved:  # the budget does not count it either
            after_epoch()

    parts = inner[replication % len(inner)]
    path = checkpoint and member_path(checkpoint, replication)
    begun = time.monotonic()
    try:
        fitted = fit(session, space, architecture, settings, fold, seed, after, path, parts, replication)
    except Diverged:
        return Trial(architecture.to_dict(), replication, None, None, time.monotonic() - begun), None
    (kept,) = fitted.kept
    loss, headline = kept["valid"]["loss"], kept["valid"][session.run.headline]
    trial = Trial(architecture.to_dict(), replication, loss, headline, fitted.seconds, solved)
    return trial, outputs(fitted.network, fitted.data, session.members(parts.valid)).cpu()
