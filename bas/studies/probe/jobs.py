"""A probe job: all heads on all inputs, trained together on a fold's fit part, and each scored on its test part.

A head keeps the weights of its own best epoch, by its loss on the valid part. The test part is used once, at the end.
At a share below 100 percent, the heads see that share of the fit utterances, in as many epochs as `epochs_of` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from torch import Tensor

from bas.networks.network import varying
from bas.protocols import thin
from bas.reals import RealOutputs
from bas.runs.jobs import checkpoint, keep
from bas.runs.losses import Losses
from bas.runs.plan import MIX, Job, Kind
from bas.runs.results import Tested
from bas.runs.session import Session
from bas.studies.probe.heads import Heads
from bas.studies.probe.results import HeadResult, ProbeResult
from bas.training.batches import Data
from bas.training.heads import Trained, train
from bas.training.loop import outputs, seed_everything
from bas.training.settings import Settings

WHOLE = 100
"""Percent of the fit part."""


def probe_job(fold: int, seed: int, percent: int = WHOLE) -> Job:
    return Job(Kind.PROBE, f"{percent}%", fold, seed)


def epochs_of(settings: Settings, percent: int) -> int:
    """Epochs of a training on this share of the fit part.

    They grow with the square root of 1 / share: a compromise between equally many epochs, which are too few steps, and
    equally many steps.
    """
    return math.ceil(settings.epochs * math.sqrt(WHOLE / percent))


def run_probe(session: Session, job: Job, cumulative: bool = True) -> None:
    """Do one job and write its result. Resumes from a checkpoint that a kill left.

    cumulative: also probe the mixes of the first k states.
    """
    run, percent = session.run, int(job.row.removesuffix("%"))
    parts, settings = run.protocol.folds[job.fold], run.plan.settings
    ids = parts.fit
    if percent < WHOLE:
        # Each class keeps its share; without classes all are drawn alike.
        label = {i: str(run.targets[run.position[i]]) if run.task.classes else "" for i in ids}
        size = max(1, round(len(ids) * percent / WHOLE))
        ids = thin(ids, label, size, Random(f"share/{job.seed}/{job.fold}"))
    fit, valid, test = session.members(ids), session.members(parts.valid), session.members(parts.test)
    data = session.derived(MIX, replace(parts, fit=ids), settings)
    changed = replace(settings, warmup=0, epochs=epochs_of(settings, percent))
    trained = train_heads(
        data,
        run.store.info.layers,
        run.losses(settings, fit),
        len(run.outputs),
        fit,
        valid,
        changed,
        (job.fold, job.seed),
        session.tick,
        checkpoint(session, job),
        cumulative,
        round(changed.epochs / settings.epochs),  # about equally many evaluations on valid at every share
        run.task.constant(run.targets[fit.numpy()]) if isinstance(run.task, RealOutputs) else None,
    )
    valid_BHO, test_BHO = (outputs(trained.heads, data, part) for part in (valid, test))
    heads = {}
    for h, name in enumerate(trained.heads.names):
        on_valid, on_test = (run.task.predict(out_BHO[:, h]) for out_BHO in (valid_BHO, test_BHO))
        heads[name] = HeadResult(
            valid={"loss": trained.valid_loss[name], **session.metrics(on_valid, valid)},
            test=Tested(on_test, session.metrics(on_test, test)),
            mix=tuple(trained.heads.mix(name)),
        )
    keep(session, job, ProbeResult(len(ids), trained.seconds, heads))


def train_heads(
    data: Data,
    states: Sequence[int],
    loss: Losses,
    num_outputs: int,
    fit: Tensor,
    valid: Tensor,
    settings: Settings,
    seed: tuple[int, int],
    tick: Callable[[], None],
    path: Path | None = None,
    cumulative: bool = True,
    every: int = 1,
    begin_O: Tensor | None = None,
) -> Trained[Heads]:
    """Train all heads on the utterances `fit` of `data`, whose frames hold these states side by side.

    seed: fold and seed. tick: called after every epoch. path: of the checkpoint; None: none is written.
    cumulative: see `heads.input_names`. every: see `train`. begin_O: outputs that every head begins near; None: 0.
    Raises UserError when a training diverges.
    """
    seed_everything(*seed, "initial weights")
    heads = Heads(states, data.dim, num_outputs, cumulative)
    if begin_O is not None:
        heads.begin_at(begin_O)
    if settings.normalise != "none":
        mean_D, std_D = data.moments(fit)
        heads.standardise.set(mean_D, std_D)
        mean_BD = data.mean_frames(fit)
        # Where all frames are the same, the mean frames of two lengths differ by rounding alone.
        apart_D = mean_BD.std(0, correction=0).where(std_D.cpu() > 0, 0.0)
        heads.standardise_mean.set(mean_BD.mean(0), varying(apart_D, mean_BD.square().mean(0).sqrt()))
    targets_B = data.targets_U[valid.to(data.device)]
    return train(heads, loss.fit, loss.held, data, fit, valid, targets_B, settings, seed, tick, path, every)
