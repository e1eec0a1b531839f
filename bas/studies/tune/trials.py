"""Optuna over what a search leaves fixed, and over the blocks themselves: an independent baseline for the search.

Every space has a study of its own in every fold. A trial is one training on the fold's fit part; its value is the
lowest validation loss over its epochs, by which early stopping goes too: a metric on so few utterances takes few values
and ties. The first trial is the preset with the first candidate in every slot (in `ser_bas4` the 4L transformer), so
nothing worse than that on valid is ever chosen. No trial sees a test part: the best of each study is trained again with
every seed of the plan, and scored there once.

The studies lie in one journal in the run's folder, shared by all worker processes. A trial that a kill cut off is done
again. What a trial draws depends on the trials of its study alone: with no more workers than studies, one trial of a
study runs at a time, and the numbers are the same every time; with more, the order in which trials end matters.

References
    Akiba et al., *Optuna*, KDD 2019. Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, NeurIPS 2011: TPE.
    Golovin et al., *Google Vizier*, KDD 2017, section 3.2.2: the median rule by which trials are pruned.
    Cawley and Talbot, *JMLR* 11, 2010: why the choice is made anew inside every fold.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bas.errors import Diverged, UserError
from bas.networks.network import check
from bas.runs import tensorboard
from bas.runs.fit import find, fit
from bas.runs.jobs import checkpoint, finish, keep
from bas.runs.plan import Job
from bas.runs.run import Run
from bas.runs.session import Session
from bas.search.gates import softmax
from bas.search.search import STRATEGIES
from bas.space import Architecture, SearchSpace, keyword_values, with_keyword
from bas.training.loop import Record
from bas.training.placement import Placement
from bas.training.settings import Settings

HEADS = (2, 4, 8)
RATE, TEMPERATURE = 10.0, 3.0  # how many times less and more than the preset's is tried
DROPOUT = 0.5  # the most
BLOCK = "block "  # before the name of a slot: no setting is named so
STARTUP = 5  # complete trials before the first is pruned; TPE draws its first ten at random
SPARED = 0.25  # of the epochs, before a trial may be pruned: under one-cycle the rates are still rising

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
JOURNAL = "studies.journal"


def ranges(settings: Settings, space: SearchSpace, in_dim: int, mode: str) -> dict[str, BaseDistribution]:
    """What a trial draws, by name: settings, num_heads, and in mode "blocks" a candidate for every slot.

    In mode "search" the blocks are found inside each trial by the search, and of its own settings those are drawn that
    its strategy uses: theta_lr and warmup where architecture parameters move, temperatures where they are perturbed
    (darts has none); nothing for single-path and random.

    All contain the preset's value. Heads and widths that some candidate of the space cannot have are left out; heads
    are drawn only where all candidates that name them have the same number, otherwise they are part of the choice.
    """
    width, stride = settings.width or in_dim, settings.stride
    own = keyword_values(space, "num_heads")
    heads = sorted({*HEADS, *own}) if len(own) == 1 else []
    heads = [h for h in heads if _works(with_keyword(space, "num_heads", h), in_dim, width)]
    spaces = [with_keyword(space, "num_heads", h) for h in heads] or [space]
    others = [w for w in (width // 2, width * 2) if w and all(_works(s, in_dim, w) for s in spaces)]
    found: dict[str, BaseDistribution] = {
        "lr": _around(settings.lr, RATE),
        "dropout": FloatDistribution(0.0, max(DROPOUT, settings.dropout)),
        "width": CategoricalDistribution(sorted([width, *others])),
        "stride": CategoricalDistribution(sorted({max(1, stride // 2), stride, stride * 2})),
    }
    if heads:
        found["num_heads"] = CategoricalDistribution(heads)
    if mode == "blocks":
        blocks = {BLOCK + slot: CategoricalDistribution(list(c)) for slot, c in space.searched.items()}
        return {**found, **blocks}
    strategy = STRATEGIES.get(settings.strategy)
    if strategy is None or not strategy.theta:
        return found
    found["theta_lr"] = _around(settings.theta_lr, RATE)
    found["warmup"] = CategoricalDistribution(sorted({0, settings.warmup, settings.epochs // 8, settings.epochs // 4}))
    if strategy.draw is not softmax:
        end = "tau_end" if settings.tau_rate is None else "tau_rate"
        found |= {name: _around(getattr(settings, name), TEMPERATURE) for name in ("tau_start", end)}
    return found


def _around(value: float, factor: float) -> FloatDistribution:
    return FloatDistribution(value / factor, value * factor, log=True)


def _works(space: SearchSpace, in_dim: int, width: int) -> bool:
    try:
        check(space, in_dim, width)
    except UserError:
        return False
    return True


def preset(
    settings: Settings, space: SearchSpace, in_dim: int, drawn: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """The parameters of the first trial: the run's settings, and the first candidate of every slot."""
    blocks = {BLOCK + slot: next(iter(choices)) for slot, choices in space.searched.items()}
    heads = dict.fromkeys(["num_heads"], next(iter(keyword_values(space, "num_heads")), None))
    known = {**settings.as_dict(), "width": settings.width or in_dim, **heads, **blocks}
    return {name: known[name] for name in drawn}


def applied(settings: Settings, space: SearchSpace, params: Mapping[str, Any]) -> tuple[Settings, SearchSpace]:
    """The settings and the space of a trial."""
    named = {f.name for f in fields(Settings)}
    if "num_heads" in params:
        space = with_keyword(space, "num_heads", params["num_heads"])
    return replace(settings, **{name: value for name, value in params.items() if name in named}), space


def open_journal(folder: Path) -> JournalStorage:
    """The run's studies. UserError for a file that is none."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # one bar instead
    path = folder / JOURNAL
    try:
        journal = JournalStorage(JournalFileBackend(str(path)))
        with path.open("rb") as stream:
            for line in stream:  # of a last line that is no JSON, Optuna says nothing
                if line.endswith(b"\n"):
                    json.loads(line)
        return journal
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        told = f"damaged, or no journal ({type(error).__name__}); delete it and jobs/tuned-*: all is tuned again"
        raise UserError(f"{path}: {told}") from error


def begin(run: Run, mode: str) -> JournalStorage:
    """Make the studies, or take them up again. The caller holds the folder's lock: nobody else writes here.

    UserError where they were made with another mode or other ranges, and for trainings of trials that are gone: the
    new ones have the same numbers.
    """
    path = run.folder / JOURNAL
    if path.exists():  # a process that was killed leaves its last line unfinished, and its lock
        with path.open("r+b") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
        path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
    if not (path.exists() and path.stat().st_size) and any((run.folder / "jobs").glob("tuned-*")):
        told = f"jobs/tuned-* are of a {JOURNAL} that is gone; delete them, or give another --name"
        raise UserError(f"{run.folder}: {told}")
    journal, settings, in_dim = open_journal(run.folder), run.plan.settings, run.store.info.dim
    for space, file in run.spaces.items():
        drawn = ranges(settings, file.space, in_dim, mode)
        made_of = {"tune": mode, **{f"range of {n}": distribution_to_json(d) for n, d in drawn.items()}}
        for fold in range(len(run.protocol.folds)):
            study = optuna.create_study(
                study_name=_name(space, fold), storage=journal, direction="minimize", load_if_exists=True
            )
            there = study.user_attrs.get("made_of", made_of)
            for name in {**made_of, **there}:
                if there.get(name) != made_of.get(name):
                    told = f"made with {name} {there.get(name)}, now {made_of.get(name)}"
                    raise UserError(f"{run.folder}: {told}; give another --name, or delete that folder")
            study.set_user_attr("made_of", made_of)
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                study.enqueue_trial(trial.params)
                study.tell(trial.number, state=TrialState.FAIL)
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(preset(settings, file.space, in_dim, drawn))
    return journal


def _name(space: str, fold: int) -> str:
    return f"{space}-fold{fold}"


def study_of(journal: JournalStorage, space: str, fold: int) -> optuna.Study:
    return optuna.load_study(study_name=_name(space, fold), storage=journal)


def drawn_from(study: optuna.Study) -> dict[str, BaseDistribution]:
    """The ranges that the study was made with."""
    made_of = study.user_attrs["made_of"].items()
    return {n.removeprefix("range of "): json_to_distribution(v) for n, v in made_of if n.startswith("range of ")}


def best_of(journal: JournalStorage, space: str, fold: int) -> FrozenTrial:
    """The complete trial of the lowest validation loss. UserError where no training held."""
    study = study_of(journal, space, fold)
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise UserError(f"{space}, fold {fold}: every trial diverged; lower the setting lr")
    return study.best_trial


@dataclass(frozen=True)
class Attempt:
    """One trial to make. ordinal: the how-manieth of its study, from 0; with the study's name it seeds the sampler."""

    space: str
    fold: int
    ordinal: int


class TuneSession(Session):
    """A run that is tuned, open in this process, and the journal of its studies."""

    def __init__(
        self, source: Run | Path, tick: Callable[[], None] = lambda: None, placement: Placement | None = None
    ) -> None:
        super().__init__(source, tick, placement)
        self.journal = open_journal(self.run.folder)


def attempt(session: TuneSession, asked: Attempt) -> None:
    """Draw the parameters of a trial, train, and tell the study what came of it: nothing of it touches a test part."""
    run, begun = session.run, time.monotonic()
    study = optuna.load_study(
        study_name=_name(asked.space, asked.fold),
        storage=session.journal,
        sampler=_sampler(asked),
        pruner=optuna.pruners.MedianPruner(STARTUP, math.ceil(SPARED * run.plan.settings.epochs)),
    )
    trial = study.ask(drawn_from(study))
    settings, space = applied(run.plan.settings, run.spaces[asked.space].space, trial.params)
    seed = run.plan.seeds[0]

    def after_epoch(record: Record) -> None:
        trial.report(float(record["valid"]["loss"]), record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    found: dict[str, Any] = {}
    value = None
    try:
        if any(name.startswith(BLOCK) for name in trial.params):
            architecture = Architecture.of({slot: trial.params[BLOCK + slot] for slot in space.searched})
        else:
            # Only the training that follows may be pruned.
            _, searched = find(session, space, settings, asked.fold, seed, lambda record: None, paths=False)
            architecture = searched.architecture
        found["architecture"] = architecture.as_dict()
        fitted = fit(session, space, architecture, settings, asked.fold, seed, after_epoch)
        value = fitted.kept["valid"]["loss"]
        found |= {"valid": fitted.kept["valid"], "kept_epoch": fitted.kept["epoch"]}
    except optuna.TrialPruned:
        pass
    except (Diverged, torch.OutOfMemoryError) as error:
        # Recorded as pruned: TPE learns to keep away, which it would not from a failed one.
        found["broken"] = " ".join(str(error).split())
    found["seconds"] = time.monotonic() - begun
    for name, attribute in found.items():
        trial.set_user_attr(name, attribute)
    study.tell(trial, value, TrialState.PRUNED if value is None else TrialState.COMPLETE)
    _show_trial(run, asked, study.get_trials(deepcopy=False)[trial.number])


def _sampler(asked: Attempt) -> optuna.samplers.TPESampler:
    seed = hashlib.sha256(repr((asked.space, asked.fold, asked.ordinal)).encode()).digest()[:4]
    with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):  # before Optuna 5
        # Trials that run beside this one count as bad ones: what they try is not tried twice.
        return optuna.samplers.TPESampler(seed=int.from_bytes(seed, "big"), constant_liar=True)


def _show_trial(run: Run, asked: Attempt, trial: FrozenTrial) -> None:
    """TensorBoard: one entry of HParams, of validation figures alone."""
    protocol, attributes = run.protocol, trial.user_attrs
    hparams = {"run": run.folder.name, "space": asked.space, "fold": asked.fold, "state": trial.state.name.lower()}
    hparams["architecture"] = " > ".join(attributes.get("architecture", {}).values())
    losses = list(filter(math.isfinite, trial.intermediate_values.values()))
    values = attributes.get("valid") or ({"loss": min(losses)} if losses else {})
    name = f"trials/{_name(asked.space, asked.fold)}-{trial.number:03}"
    with tensorboard.writer(run.folder, name, protocol.told, protocol.marks) as board:
        metrics = {f"valid/{metric}": value for metric, value in values.items()}
        board.add_hparams({**hparams, **trial.params}, metrics, run_name=".")


def score(session: TuneSession, job: Job) -> None:
    """Train a study's best trial with this seed and score it on the test part, once. The result is as of `run_job`."""
    run = session.run
    trial = best_of(session.journal, job.row, job.fold)
    assert trial.number == job.number
    settings, space = applied(run.plan.settings, run.spaces[job.row].space, trial.params)
    architecture = Architecture.of(trial.user_attrs["architecture"])
    with tensorboard.writer(run.folder, job.name, run.protocol.told, run.protocol.marks) as board:

        def after_epoch(record: Record) -> None:
            tensorboard.train_epoch(board, record)
            session.tick()

        path = checkpoint(session, job)
        fitted = fit(session, space, architecture, settings, job.fold, job.seed, after_epoch, path)
        result = finish(session, job, architecture, fitted, board)
    keep(session, job, {"params": trial.params, "settings": settings.as_dict(), **result})
