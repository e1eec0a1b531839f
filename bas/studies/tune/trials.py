"""Optuna over what a search leaves fixed, and over the blocks themselves: an independent baseline of the search.

Every space has one Optuna study in every fold. A trial is one training on the fold's fit part. Its value is the lowest
validation loss over its epochs, which also decides early stopping: a metric on so few utterances takes few values and
ties. The first trial is the preset with the first candidate in every slot (in `ser_bas4` the 4L transformer), so the
chosen trial is never worse than that on valid. No trial sees a test part: the best trial of each study is trained again
with every seed of the plan, and scored on the test part once.

Each study is a job, and has a journal of its own in the run's folder, which only the process writes that has claimed
the job: one trial after another, so that numbers repeat exactly, whatever processes and hosts share the run. A trial
that a kill cut off is made again.

References
    Akiba et al., *Optuna*, KDD 2019. Bergstra et al., *Algorithms for Hyper-Parameter Optimization*, NeurIPS 2011: TPE.
    Golovin et al., *Google Vizier*, KDD 2017, section 3.2.2: the median rule by which trials are pruned.
    Cawley and Talbot, *JMLR* 11, 2010: why the choice is made again inside every fold.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import zlib
from collections.abc import Generator, Mapping
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
from bas.report.format import encoder_name
from bas.runs import tensorboard
from bas.runs.fit import fit, fit_row, search_fold
from bas.runs.jobs import checkpoint, finish, keep
from bas.runs.plan import Job, Kind
from bas.runs.results import StudyResult, TunedResult
from bas.runs.run import Run
from bas.runs.session import Session
from bas.search.gates import softmax
from bas.search.search import STRATEGIES
from bas.space import Architecture, SearchSpace, keyword_values, told, with_keyword
from bas.training.loop import Record
from bas.training.settings import Settings
from bas.util.faults import naming
from bas.util.files import open_own

HEADS = (2, 4, 8)
RATE, TEMPERATURE = 10.0, 3.0  # a trial draws between the preset's value / factor and value * factor
DROPOUT, SMOOTHING = 0.5, 0.3  # the highest that are drawn
BLOCK = "block "  # prefix of a slot's name; no setting's name begins with it
STARTUP = 5  # complete trials before any is pruned; TPE draws its first ten at random
GRACE = 0.25  # share of the epochs before a trial may be pruned: under one-cycle the rates still rise

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
CHECKSUM = "crc32"
STUDIES = "studies"
"""The folder of the journals."""


def ranges(settings: Settings, space: SearchSpace, in_dim: int, mode: str) -> dict[str, BaseDistribution]:
    """The distributions that a trial draws from, by name: settings, num_heads, and in mode "blocks" one for every slot.

    In mode "search" each trial runs the search, which chooses the blocks. Then the search's own settings are drawn as
    far as its strategy uses them: theta_lr and warmup where architecture parameters are trained, temperatures where
    they are perturbed (darts has none), nothing for single-path and random.

    Every distribution contains the preset's value. Heads and widths that some candidate of the space cannot take are
    left out. Heads are drawn only where all candidates that name them have the same number; otherwise the number of
    heads is part of the choice of a block. Label smoothing is drawn where the settings have some; the value of a trial
    has none of it, so trials compare.
    """
    width, stride = settings.width or in_dim, settings.stride
    own = keyword_values(space, "num_heads")
    heads = sorted({*HEADS, *own}) if len(own) == 1 else []
    heads = [h for h in heads if _works(with_keyword(space, "num_heads", h), in_dim, width)]
    spaces = [with_keyword(space, "num_heads", h) for h in heads] or [space]
    others = [w for w in (width // 2, width * 2) if w and all(_works(s, in_dim, w) for s in spaces)]
    drawn: dict[str, BaseDistribution] = {
        "lr": _around(settings.lr, RATE),
        "dropout": FloatDistribution(0.0, max(DROPOUT, settings.dropout)),
        "width": CategoricalDistribution(sorted([width, *others])),
        "stride": CategoricalDistribution(sorted({max(1, stride // 2), stride, stride * 2})),
    }
    if settings.label_smoothing:
        drawn["label_smoothing"] = FloatDistribution(0.0, max(SMOOTHING, settings.label_smoothing))
    if heads:
        drawn["num_heads"] = CategoricalDistribution(heads)
    if mode == "blocks":
        blocks = {BLOCK + slot: CategoricalDistribution(list(c)) for slot, c in space.searched.items()}
        return {**drawn, **blocks}
    strategy = STRATEGIES.get(settings.strategy)
    if strategy is None or not strategy.theta:
        return drawn
    drawn["theta_lr"] = _around(settings.theta_lr, RATE)
    drawn["warmup"] = CategoricalDistribution(sorted({0, settings.warmup, settings.epochs // 8, settings.epochs // 4}))
    if strategy.draw is not softmax:
        end = "tau_end" if settings.tau_rate is None else "tau_rate"
        drawn |= {name: _around(getattr(settings, name), TEMPERATURE) for name in ("tau_start", end)}
    return drawn


def _around(value: float, factor: float) -> FloatDistribution:
    return FloatDistribution(value / factor, value * factor, log=True)


def _works(space: SearchSpace, in_dim: int, width: int) -> bool:
    try:
        check(space, in_dim, width)
    except UserError:
        return False
    return True


def preset_params(
    settings: Settings, space: SearchSpace, in_dim: int, drawn: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """The parameters of the first trial: the run's settings and the first candidate of every slot."""
    blocks = {BLOCK + slot: next(iter(choices)) for slot, choices in space.searched.items()}
    heads = dict.fromkeys(["num_heads"], next(iter(keyword_values(space, "num_heads")), None))
    values = {**settings.to_dict(), "width": settings.width or in_dim, **heads, **blocks}
    return {name: values[name] for name in drawn}


def apply_params(settings: Settings, space: SearchSpace, params: Mapping[str, Any]) -> tuple[Settings, SearchSpace]:
    """The settings and the space of a trial with these parameters."""
    names = {f.name for f in fields(Settings)}
    if "num_heads" in params:
        space = with_keyword(space, "num_heads", params["num_heads"])
    return replace(settings, **{name: value for name, value in params.items() if name in names}), space


class CheckedJournal(JournalFileBackend):
    """Optuna's journal, whose every line has a checksum of its content."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with naming(self.path):
            super().append_logs([{**log, CHECKSUM: _checksum(log)} for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        for log in super().read_logs(log_number_from):
            checksum = log.pop(CHECKSUM, None)
            if checksum != _checksum(log):
                raise ValueError("a line is not as it was written")
            yield log


def _checksum(log: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(log).encode()):08x}"


def journal_path(folder: Path, space: str, fold: int) -> Path:
    return folder / STUDIES / f"{_name(space, fold)}.journal"


def study_of(folder: Path, space: str, fold: int, **how: Any) -> optuna.Study:
    """A study of the run in `folder`, as far as its journal goes; how: its sampler and its pruner.

    Raises UserError where the journal is damaged or none.
    """
    return optuna.load_study(study_name=_name(space, fold), storage=_open(journal_path(folder, space, fold)), **how)


def _open(path: Path) -> JournalStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # one progress bar shows all trials
    try:
        journal = JournalStorage(CheckedJournal(path))
        with path.open("rb") as stream:
            for line in stream:  # Optuna skips a last line that is not JSON
                if line.endswith(b"\n"):
                    json.loads(line)
        return journal
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        reason = f"damaged, or no journal ({type(error).__name__})"
        remedy = f"delete it, and jobs/study-* and jobs/tuned-* of {path.stem}: it is tuned again"
        raise UserError(f"{path}: {reason}; {remedy}") from error


def check_studies(run: Run, mode: str) -> None:
    """Raise UserError where studies that were begun were made with another mode or other ranges, or their journal is
    gone and results of it are left: new trials would have the same numbers. Writes nothing."""
    for space in run.spaces:
        made_of = _made_of(run, mode, space)
        for fold in range(len(run.protocol.folds)):
            path = journal_path(run.folder, space, fold)
            # A journal that was cut off in its first line has no study.
            if path.is_file() and b"\n" in path.read_bytes():
                _compare(run.folder, study_of(run.folder, space, fold), made_of)
            elif left := _results_of(run.folder, space, fold):
                reason = f"{left[0].name} belongs to {STUDIES}/{path.name}, which is gone"
                raise UserError(f"{run.folder}/jobs: {reason}; put that back, or give another --name")


def _results_of(folder: Path, space: str, fold: int) -> list[Path]:
    jobs = folder / "jobs"
    kinds = (Kind.STUDY, Kind.TUNED)
    return [path for kind in kinds for path in sorted(jobs.glob(f"{kind}-{space}-*-fold{fold}-seed*.json"))]


def _made_of(run: Run, mode: str, space: str) -> dict[str, str]:
    drawn = ranges(run.plan.settings, run.spaces[space].space, run.store.info.dim, mode)
    return {"tune": mode, **{f"range of {n}": distribution_to_json(d) for n, d in drawn.items()}}


def _compare(folder: Path, study: optuna.Study, made_of: Mapping[str, str]) -> None:
    recorded = study.user_attrs.get("made_of", made_of)
    for name in {**made_of, **recorded}:
        if recorded.get(name) != made_of.get(name):
            reason = f"made with {name} {recorded.get(name)}, now {made_of.get(name)}"
            raise UserError(f"{folder}: {reason}; give another --name")


def begin(run: Run, mode: str, space: str, fold: int) -> optuna.Study:
    """Create a study, or take it up. The caller has claimed its job: no other process writes the journal."""
    path = journal_path(run.folder, space, fold)
    path.parent.mkdir(exist_ok=True)
    if path.is_symlink() or path.exists():  # a killed process leaves an unfinished last line, and its lock
        with open_own(path, "r+b") as stream:
            stream.truncate(stream.read().rfind(b"\n") + 1)
        for left in path.parent.glob(f"{path.name}.lock*"):
            left.unlink(missing_ok=True)
    storage, made_of = _open(path), _made_of(run, mode, space)
    study = optuna.create_study(
        study_name=_name(space, fold), storage=storage, direction="minimize", load_if_exists=True
    )
    _compare(run.folder, study, made_of)
    study.set_user_attr("made_of", made_of)
    drawn = recorded_ranges(study)
    waiting = [planned_params(t) for t in study.get_trials(states=(TrialState.WAITING,))]
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        params = planned_params(trial)
        if params.keys() == drawn.keys() and params not in waiting:  # else the same ones are drawn again
            study.enqueue_trial(params)
        study.tell(trial.number, state=TrialState.FAIL)
    if not study.get_trials(deepcopy=False):
        given = run.spaces[space].space
        study.enqueue_trial(preset_params(run.plan.settings, given, run.store.info.dim, drawn))
    return study


def _name(space: str, fold: int) -> str:
    return f"{space}-fold{fold}"


def planned_params(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters that a trial was begun with, where they are not drawn, else those that it has drawn."""
    params: dict[str, Any] = trial.system_attrs.get("fixed_params") or trial.params
    return params


def recorded_ranges(study: optuna.Study) -> dict[str, BaseDistribution]:
    """The ranges that the study was made with."""
    made_of = study.user_attrs["made_of"].items()
    return {n.removeprefix("range of "): json_to_distribution(v) for n, v in made_of if n.startswith("range of ")}


def best_of(folder: Path, space: str, fold: int) -> FrozenTrial:
    """The complete trial with the lowest validation loss. Raises UserError where every trial diverged."""
    study = study_of(folder, space, fold)
    if not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        raise UserError(f"{space}, fold {fold}: every trial diverged; lower the setting lr")
    return study.best_trial


@dataclass(frozen=True)
class Attempt:
    """One trial to make. ordinal: its index in its study, from 0; with the study's name it seeds the sampler."""

    space: str
    fold: int
    ordinal: int


def run_study(mode: str, session: Session, job: Job) -> None:
    """Make the trials of a study that are missing of `job.number`. The result says which trial is the best."""
    assert job.number is not None
    study = begin(session.run, mode, job.row, job.fold)
    made = len(study.get_trials(deepcopy=False, states=FINISHED))
    for ordinal in range(made, job.number):
        run_attempt(session, Attempt(job.row, job.fold, ordinal))
        session.tick()
    best, study = best_of(session.run.folder, job.row, job.fold), study_of(session.run.folder, job.row, job.fold)
    seconds = sum(t.user_attrs["seconds"] for t in study.get_trials(deepcopy=False, states=FINISHED))
    keep(session, job, StudyResult(best=best.number, seconds=seconds))


def run_attempt(session: Session, attempt: Attempt) -> None:
    """Draw the parameters of a trial, train, and report the outcome to the study. The test part is not touched."""
    run, begun = session.run, time.monotonic()
    pruner = optuna.pruners.MedianPruner(STARTUP, math.ceil(GRACE * run.plan.settings.epochs))
    study = study_of(run.folder, attempt.space, attempt.fold, sampler=_sampler(attempt), pruner=pruner)
    trial = study.ask(recorded_ranges(study))
    settings, space = apply_params(run.plan.settings, run.spaces[attempt.space].space, trial.params)
    seed = run.plan.seeds[0]

    def after_epoch(record: Record) -> None:
        trial.report(float(record["valid"]["loss"]), record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    outcome: dict[str, Any] = {}
    value = None
    try:
        if any(name.startswith(BLOCK) for name in trial.params):
            architecture = Architecture.of({slot: trial.params[BLOCK + slot] for slot in space.searched})
        else:
            # Epochs of the search are not reported: only the training that follows may be pruned.
            _, searched = search_fold(session, space, settings, attempt.fold, seed, lambda record: None, paths=False)
            architecture = searched.architecture
        outcome["architecture"] = architecture.to_dict()
        fitted = fit(session, space, architecture, settings, attempt.fold, seed, after_epoch)
        (kept,) = fitted.kept
        value = kept["valid"]["loss"]
        outcome |= {"valid": kept["valid"], "kept_epoch": kept["epoch"]}
    except optuna.TrialPruned:
        pass
    except (Diverged, torch.OutOfMemoryError) as error:
        # Recorded as pruned: TPE learns from a pruned trial to avoid such parameters; it ignores a failed one.
        outcome["broken"] = " ".join(str(error).split())
    outcome["seconds"] = time.monotonic() - begun
    for name, attribute in outcome.items():
        trial.set_user_attr(name, attribute)
    study.tell(trial, value, TrialState.PRUNED if value is None else TrialState.COMPLETE)
    _show_trial(run, attempt, study.get_trials(deepcopy=False)[trial.number])


def _sampler(attempt: Attempt) -> optuna.samplers.TPESampler:
    seed = hashlib.sha256(repr((attempt.space, attempt.fold, attempt.ordinal)).encode()).digest()[:4]
    return optuna.samplers.TPESampler(seed=int.from_bytes(seed, "big"))


def _show_trial(run: Run, attempt: Attempt, trial: FrozenTrial) -> None:
    """Write one HParams entry to TensorBoard, with validation figures only."""
    protocol, attributes = run.protocol, trial.user_attrs
    settings, _ = apply_params(run.plan.settings, run.spaces[attempt.space].space, trial.params)
    facts = {
        "row": f"trial {trial.number}",
        "architecture": told(attributes.get("architecture", {})),
        "run": run.folder.name,
        "encoder": encoder_name(run.store.info.encoder["name"]),
        "layer": str(run.plan.layer),
        "corpus": run.corpus.name,
        "protocol": protocol.description,
        "space": attempt.space,
        "fold": str(attempt.fold),
        "num_heads": str(trial.params.get("num_heads", "")),
        "state": trial.state.name.lower(),
    }
    losses = list(filter(math.isfinite, trial.intermediate_values.values()))
    values = attributes.get("valid") or ({"loss": min(losses)} if losses else {})
    name = f"trials/{_name(attempt.space, attempt.fold)}-{trial.number:03}"
    with tensorboard.writer(run.folder, name, protocol.description, protocol.marks) as board:
        metrics = {f"valid/{metric}": value for metric, value in values.items()}
        tensorboard.write_hparams(board, facts, settings, metrics, run.metrics)


def score(session: Session, job: Job) -> None:
    """Train a study's best trial with this seed and score it once on the test part. The result is like `run_job`'s."""
    run = session.run
    trial = best_of(run.folder, job.row, job.fold)
    assert trial.number == job.number
    settings, space = apply_params(run.plan.settings, run.spaces[job.row].space, trial.params)
    architecture = Architecture.of(trial.user_attrs["architecture"])
    with tensorboard.writer(run.folder, job.name, run.protocol.description, run.protocol.marks) as board:

        def after_epoch(record: Record) -> None:
            tensorboard.train_epoch(board, record)
            session.tick()

        path = checkpoint(session, job)
        fitted = fit_row(session, space, architecture, settings, job.fold, job.seed, after_epoch, path)
        result = finish(session, job, architecture, fitted, board)
    keep(session, job, TunedResult(**vars(result), params=trial.params, settings=settings))
