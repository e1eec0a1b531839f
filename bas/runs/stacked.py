"""Jobs of one shape trained together (`bas.training.stack`), for a GPU.

A small network leaves a GPU waiting for its next kernel; M networks together launch few more kernels than one. An audit
trains each architecture in every fold with every seed: these are the members of one stack. Each member has its own
initial weights, batches, rates and best epoch; its numbers equal those of `fit.fit` to float tolerance.

Axes: M members, S steps of an epoch, B utterances of a batch, O outputs, P parameters of a network.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bas.errors import Diverged
from bas.networks.network import build
from bas.runs import tensorboard
from bas.runs.fit import Fitted
from bas.runs.jobs import board_of, checkpoint, finish, keep, training_of
from bas.runs.plan import Job
from bas.runs.session import Session
from bas.runs.solved import solvable
from bas.space import Architecture, SearchSpace
from bas.training.batches import SCORED, Data, scoring_batches
from bas.training.loop import (
    CHECKPOINT,
    DAMAGED,
    FACTOR,
    Record,
    find_checkpoint,
    pause,
    seed_everything,
    seed_of,
    write_checkpoint,
)
from bas.training.settings import Settings
from bas.training.stack import Feed, Member, NotStackableError, Stack, Update, check, fill, one_epoch, orders_of
from bas.util.faults import judging


def stacks(session: Session, jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """The jobs in stacks of at most `size`, each of one architecture on one layer; other jobs are alone in theirs."""
    groups: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        same: tuple[object, ...] = (job.name,)
        if session.stackable(job):
            space, architecture = training_of(session.run, job)
            if not space.each_output and not solvable(session, space, architecture):
                # Members of a stack have one loss; the class weights are those of a fold's fit part.
                weighs = session.run.plan.settings.class_weights != "none"
                same = architecture, session.layer(job.fold), job.fold if weighs else None
        groups.setdefault((job.kind, job.row, *same), []).append(job)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def run_stack(session: Session, jobs: Sequence[Job]) -> None:
    """Do the jobs of one stack and write the same results as `jobs.run_job`, each with its share of the seconds.

    Jobs that have a result are left out. A stack that was killed goes on from its checkpoint, which is the first job's
    and goes with it; so that job's result is written last.
    Raises NotStackableError before anything is written.
    """
    todo = [job for job in jobs if not session.run.done(job.name)]
    if not todo:
        return
    space, architecture = training_of(session.run, todo[0])
    members = [(job.fold, job.seed) for job in todo]

    def after_epoch() -> None:
        for _ in todo:
            session.tick()

    path = checkpoint(session, todo[0]).with_suffix(".stack.checkpoint")
    fitted = fit_stack(session, space, architecture, session.run.plan.settings, members, after_epoch, path)
    for job, one in reversed(list(zip(todo, fitted, strict=True))):
        with board_of(session, job) as board:
            if board:
                for record in one.curves[0]:
                    tensorboard.train_epoch(board, record)
            keep(session, job, finish(session, job, architecture, one, board))


def fit_stack(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    members: Sequence[tuple[int, int]],
    after_epoch: Callable[[], None],
    checkpoint: Path | None = None,
) -> list[Fitted]:
    """`fit.fit` for each (fold, seed) at once; all folds must read the same layer. Each gets an equal share of the
    seconds.

    checkpoint: a file to resume from and to write now and then, as in `loop.optimise`; the caller deletes it. One of
    more members serves those of them that are left; one that lacks a member is not used.

    Raises NotStackableError if the features are not on the device, or a block or the loss cannot be stacked; Diverged
    when a training diverges.
    """
    if session.run.states > 1:
        mix = "a layer mix learns at a rate of its own"
        raise NotStackableError(mix if space.state is None else "features of several states are not stacked")
    made = _members(session, space, architecture, settings, members)
    if any(hasattr(module, FACTOR) for module in made[0].network.modules()):
        raise NotStackableError("a module learns at a rate of its own")
    if settings.class_weights != "none" and len({fold for fold, _ in members}) > 1:
        raise NotStackableError("class weights differ from fold to fold")
    loss, task = session.run.losses(settings, made[0].fit), session.run.task
    stack, feed = Stack([member.network for member in made]), Feed([member.data for member in made])
    update = Update(stack.flat_MP, settings)
    positions_M, valid_M = zip(
        *(zip(*scoring_batches(m.data, m.valid, SCORED), strict=True) for m in made), strict=True
    )
    order_M = [torch.cat(positions).argsort() for positions in positions_M]
    valid = feed.steps(valid_M)
    check(stack, [member.network for member in made], feed, feed.steps(orders_of(made, settings, 0)), loss.fit)
    records_M: list[list[Record]] = [[] for _ in made]
    best_M, best_MP = torch.full((len(made),), -math.inf), stack.flat_MP.detach().clone()
    seconds, written, cost = 0.0, time.monotonic(), 0.0
    of = [digest_of(member) for member in made]
    state = find_checkpoint(checkpoint) if checkpoint else None
    if checkpoint and state and set(of) <= set(state["of"]):
        with judging(checkpoint, DAMAGED):
            rows = [state["of"].index(one) for one in of]
            stack.restore(state["model"]["flat"][rows])
            update.restore({name: value[rows] for name, value in state["optimiser"].items()})
            best_M, best_MP = state["best"]["score"][rows], state["best"]["flat"][rows].to(best_MP.device)
            records_M = [state["records"][row] for row in rows]
        seconds = state["seconds"] * len(made) / len(state["of"])
    for epoch in range(len(records_M[0]), settings.epochs):
        begun = time.monotonic()
        losses = one_epoch(stack, update, feed, made, settings, epoch, loss.fit)
        seconds += time.monotonic() - begun
        if bad := [value for value in losses if not math.isfinite(value)]:
            raise Diverged(f"training diverged: loss {bad[0]} in epoch {epoch}; lower the setting lr={settings.lr}")
        out_SMBO = stack.outputs(feed, valid)
        for m, member in enumerate(made):
            outputs_BO = out_SMBO[:, m][valid.real_SMB[:, m]][order_M[m]]
            value = float(loss.held(outputs_BO, member.data.targets_U[member.valid.to(member.data.device)].cpu()))
            scores = {"loss": value, **session.metrics(task.predict(outputs_BO), member.valid)}
            record = {"epoch": epoch, "loss": losses[m], "valid": scores, "score": -value}
            records_M[m].append(json.loads(json.dumps(record)))
        score_M = torch.tensor([records[-1]["score"] for records in records_M])
        if not score_M.isfinite().all():
            raise Diverged(f"training diverged: its score is not finite in epoch {epoch}; lower lr={settings.lr}")
        better_M1 = (score_M > best_M)[:, None].to(best_MP.device)
        best_M, best_MP = best_M.maximum(score_M), torch.where(better_M1, stack.flat_MP.detach(), best_MP)
        if checkpoint and (epoch + 1 == settings.epochs or time.monotonic() - written > pause(cost)):
            begun, best = time.monotonic(), {"score": best_M, "flat": best_MP}
            model = {"flat": stack.flat_MP.detach()}
            values = (of, model, update.state(), records_M, best, seconds)
            write_checkpoint(checkpoint, dict(zip(CHECKPOINT, values, strict=True)))
            written = time.monotonic()
            cost = written - begun
        after_epoch()
    if not best_MP.isfinite().all():
        raise Diverged(f"training diverged in its last step; lower the setting lr={settings.lr}")
    for values_P, member in zip(best_MP, made, strict=True):
        fill(member.network, values_P)
    share = seconds / len(made)
    return [Fitted(m.network.eval(), m.data, (records,), share) for m, records in zip(made, records_M, strict=True)]


def digest_of(member: Member) -> str:
    """What tells a member of a stack from others: its seed and the utterances it is trained and validated on."""
    seen = member.seed, member.fit.tolist(), member.valid.tolist()
    return hashlib.sha256(repr(seen).encode()).hexdigest()


def _members(
    session: Session,
    space: SearchSpace,
    architecture: Architecture,
    settings: Settings,
    members: Sequence[tuple[int, int]],
) -> list[Member]:
    made: list[Member] = []
    of_fold: dict[int, tuple[Data, Tensor, Tensor, tuple[Tensor, Tensor] | None]] = {}
    for fold, seed in members:
        if fold not in of_fold:
            parts = session.run.protocol.folds[fold]
            data, fit = session.derived(session.layer(fold), parts, settings), session.members(parts.fit)
            moments = None if settings.normalise == "none" else data.moments(fit)
            of_fold[fold] = data, fit, session.members(parts.valid), moments
        data, fit, valid, moments = of_fold[fold]
        seed_everything(seed, fold, "initial weights")
        dims = data.dim, settings.width or data.dim, len(session.run.outputs)
        network = build(space, architecture, *dims, settings.dropout, settings.residual == "every").to(session.device)
        if moments:
            network.standardise.set(*moments)
        made.append(Member(network, data, fit, valid, seed_of(fold, seed)))
    return made
