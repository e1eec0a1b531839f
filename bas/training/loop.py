"""The training loop: a search and a training differ only in what they pass as `forward`.

The randomness of an epoch (order, dropout, Gumbel noise) depends only on the seed and the epoch's number, so a
training that was killed resumes from its last checkpoint and, on the CPU, ends with the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bas.errors import Diverged, UserError
from bas.networks.network import LayerMix, Mixed
from bas.training.batches import SCORED, Batched, scoring_batches, training_batches
from bas.training.settings import Settings
from bas.util.faults import judging
from bas.util.files import check_archive, replacing

Forward = Callable[[Tensor, Tensor, float], Tensor]
"""`(x_BTD, mask_BT, temperature) -> outputs_BO`."""

Record = dict[str, Any]
"""The numbers of one epoch, in JSON's own types."""

FACTOR = "learning_rate_factor"
"""An attribute of a module: a factor on the learning rate of its own parameters."""

APART = "apart"
"""The score of each network of a `PerOutput` in an epoch's record: each keeps its own best epoch."""

CHECKPOINT_SECONDS = 5.0
CHEAP_SECONDS = 0.25  # A checkpoint that takes longer to write, of a large network, is written as much more rarely.
DAMAGED = "damaged, or not of this job; delete it: the job starts over"
CHECKPOINT = ("of", "model", "optimiser", "records", "best", "seconds")


@dataclass(frozen=True)
class Epoch:
    """One finished epoch."""

    index: int
    loss: float  # mean over the utterances of the steps that moved weights
    temperature: float  # of the last step
    rate: float  # the factor on the learning rates in the last step


def seed_everything(*parts: object) -> None:
    """Seed torch's generators from any values, in the same way in every process."""
    torch.manual_seed(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1)


def optimise(
    model: nn.Module,
    forward: Forward,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Batched,
    members: Tensor,
    settings: Settings,
    seed: int,
    after_epoch: Callable[[Epoch], Record],
    checkpoint: Path | None = None,
    keep_best: str | None = None,
    held_out: Tensor | None = None,
    keep_checkpoint: bool = False,
    epochs: int | None = None,
) -> tuple[list[Record], float]:
    """Train `model` in place on the utterances `members`; return the record of each epoch and the seconds it took.

    Architecture parameters do not move in the first `settings.warmup` epochs.

    after_epoch: called with the model in eval mode; it returns the epoch's record.
    keep_best: a key of the record, higher is better; the model ends with the weights of the first best epoch; where the
        record says how each network of a `PerOutput` does (APART), each with those of its own. None: with those of the
        last epoch.
    checkpoint: a file to resume from and to write every few seconds; the caller deletes it when all is saved.
    keep_checkpoint: write it at the end too, so that the same call then returns at once.
    held_out: utterances on which the architecture parameters move, alternating with the weights (bi-level, first
        order: DARTS, Liu et al. 2019, algorithm 1 with xi = 0). None: they move with the weights, on `members`.
    epochs: end after so many of `settings.epochs`, which the schedules are made for; None: after them all.
    Raises Diverged if the training loss, the score or a weight is not finite; UserError if the checkpoint is of another
    training.
    """
    optimiser, count = _optimiser(model, settings), epochs or settings.epochs
    # The utterances it trains on: weights that have seen the test part of another split must not be resumed here.
    seen = [part.tolist() for part in (members, held_out) if part is not None]
    of = hashlib.sha256(repr((seed, *seen)).encode()).hexdigest()
    records: list[Record] = []
    best: dict[str, Any] = {}
    seconds = 0.0
    if checkpoint and (state := find_checkpoint(checkpoint)) is not None:
        with judging(checkpoint, DAMAGED):
            if state["of"] != of:
                raise ValueError("trained on other utterances, or from another seed")
            model.load_state_dict(state["model"])
            if len(state["records"]) < count:
                optimiser.load_state_dict(state["optimiser"])
        records, best, seconds = state["records"], state["best"], state["seconds"]
    written, cost = time.monotonic(), 0.0
    for epoch in range(len(records), count):
        begun = time.monotonic()
        seed_everything(seed, "epoch", epoch)
        steps = _steps(data, members, held_out, settings, epoch)
        done = _one_epoch(model, forward, loss, data, steps, settings, epoch, optimiser)
        seconds += time.monotonic() - begun
        if not math.isfinite(done.loss):
            raise Diverged(f"training diverged: loss {done.loss} in epoch {epoch}; lower the setting lr={settings.lr}")
        model.eval()
        # Through JSON: a metric may return NumPy's float, which a checkpoint would not be loaded with.
        records.append(json.loads(json.dumps(after_epoch(done))))
        if keep_best and not math.isfinite(records[-1][keep_best]):
            raise Diverged(f"training diverged: its score is not finite in epoch {epoch}; lower lr={settings.lr}")
        if keep_best:
            _keep_better(best, model, records[-1], keep_best)
        last = epoch + 1 == count
        if checkpoint and (keep_checkpoint if last else time.monotonic() - written > pause(cost)):
            states = model.state_dict(), {} if last else optimiser.state_dict()  # the end needs less disk
            begun = time.monotonic()
            write_checkpoint(checkpoint, dict(zip(CHECKPOINT, (of, *states, records, best, seconds), strict=True)))
            written = time.monotonic()
            cost = written - begun
    if keep_best:
        model.load_state_dict(best["model"])
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise Diverged(f"training diverged in its last step; lower the setting lr={settings.lr}")
    model.eval()
    return records, seconds


def _keep_better(best: dict[str, Any], model: nn.Module, record: Record, score: str) -> None:
    """Take the weights that are better now; those of networks that stop apart, each by its own score."""
    scores = record.get(APART, [record[score]])
    parts = [f"networks.{o}." for o in range(len(scores))] if APART in record else [""]
    if not best:
        best.update(score=list(scores), model={k: v.clone() for k, v in model.state_dict().items()})
    for number, (part, now) in enumerate(zip(parts, scores, strict=True)):
        if now > best["score"][number]:
            best["score"][number] = now
            best["model"] |= {k: v.clone() for k, v in model.state_dict().items() if k.startswith(part)}


def pause(cost: float) -> float:
    """Seconds between two checkpoints. cost: those that writing the last one took."""
    return CHECKPOINT_SECONDS * max(1.0, cost / CHEAP_SECONDS)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of `optimise`. Raises UserError for any other file; no code in the file is run."""
    with judging(path, DAMAGED), warnings.catch_warnings(action="ignore"):  # of pickles that torch did not write
        check_archive(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        return {name: state[name] for name in CHECKPOINT}


def find_checkpoint(path: Path) -> dict[str, Any] | None:
    """`read_checkpoint`; None where there is none, or none any more: another process may just have ended its job."""
    if not path.exists():
        return None
    try:
        return read_checkpoint(path)
    except UserError:
        if path.exists():
            raise
        return None


@dataclass(frozen=True)
class Step:
    """One batch, and the groups of parameters that it moves."""

    members_B: Tensor
    moves: tuple[str, ...]


def _steps(data: Batched, members: Tensor, held_out: Tensor | None, settings: Settings, epoch: int) -> list[Step]:
    """The steps of one epoch: every member once; with `held_out`, a step of theta on held-out utterances before each.

    So theta moves as often in a bi-level search as in any other. The held-out utterances are repeated as often as
    needed, each time in another order.
    """
    batches = training_batches(data, members, settings.batch_size, torch.default_generator)
    if epoch < settings.warmup or held_out is not None:
        moves: tuple[str, ...] = ("weights",)
    else:
        moves = ("weights", "theta")
    steps = [Step(batch, moves) for batch in batches]
    if epoch < settings.warmup or held_out is None:
        return steps
    others: list[Step] = []
    while len(others) < len(batches):
        batches_of = training_batches(data, held_out, settings.batch_size, torch.default_generator)
        others.extend(Step(batch, ("theta",)) for batch in batches_of)
    return [step for pair in zip(others, steps, strict=False) for step in pair]


def _one_epoch(
    model: nn.Module,
    forward: Forward,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Batched,
    steps: list[Step],
    settings: Settings,
    epoch: int,
    optimiser: torch.optim.Optimizer,
) -> Epoch:
    model.train()
    device = data.device
    total, count, rate, tau = torch.zeros((), device=device), 0, 0.0, 0.0
    with closing(data.batches([step.members_B for step in steps])) as read:
        for index, (step, (x_BTD, mask_BT, targets_B)) in enumerate(zip(steps, read, strict=True)):
            rate = settings.rate(epoch, index, len(steps))
            tau = settings.temperature(epoch, index, len(steps))
            for group in optimiser.param_groups:
                group["lr"] = rate * group["full_lr"]
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                outputs_BO = forward(x_BTD, mask_BT, tau)
            value = loss(outputs_BO.float(), targets_B)
            optimiser.zero_grad(set_to_none=True)
            # Parameters that this step does not move get no gradient, so no momentum and no decay either.
            groups = [group["params"] for group in optimiser.param_groups if group["name"] in step.moves]
            moved = [p for params in groups for p in params if p.requires_grad]  # a block's own may be frozen
            value.backward(inputs=moved)  # type: ignore[no-untyped-call]
            optimiser.step()
            if "weights" in step.moves:
                total += value.detach() * len(targets_B)
                count += len(targets_B)
    return Epoch(epoch, float(total) / count, tau, rate)


def _optimiser(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    # Architecture parameters are not decayed: decay would pull every search towards indecision. A layer mix counts as
    # one, in a training too: at the rate of the weights, softmax weights would hardly move.
    theta = [part.theta for part in model.modules() if isinstance(part, Mixed | LayerMix)]
    weights = [p for p in model.parameters() if all(p is not t for t in theta)]
    rates = {id(p): float(getattr(m, FACTOR, 1.0)) for m in model.modules() for p in m.parameters(recurse=False)}
    groups: list[dict[str, Any]] = [
        {
            "name": "weights",
            "params": [p for p in weights if rates[id(p)] == rate],
            "weight_decay": settings.weight_decay,
            "full_lr": rate * settings.lr,
        }
        for rate in dict.fromkeys(rates[id(p)] for p in weights)
    ]
    if theta:
        groups.append({"name": "theta", "params": theta, "weight_decay": 0.0, "full_lr": settings.theta_lr})
    if settings.optimiser == "sgd":
        # Not fused: that fails where a parameter, of a candidate that was not drawn, has had no gradient yet.
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True)


@torch.inference_mode()
def outputs(model: nn.Module, data: Batched, members: Tensor, size: int = SCORED) -> Tensor:
    """`(len(members), O)` outputs in the order of `members`, float32, without gradient or dropout.

    On a CPU products are float32 whatever the setting `precision`, so that no other utterance changes a score; on a GPU
    they are bfloat16.
    """
    assert not model.training
    device = data.device
    positions, batches = zip(*scoring_batches(data, members, size), strict=True)
    parts = []
    with closing(data.batches(batches)) as read:
        for x_BTD, mask_BT, _ in read:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                parts.append(model(x_BTD, mask_BT).float())
    return torch.cat(parts)[torch.cat(positions).argsort().to(device)]


def seed_of(fold: int, seed: int, member: int = 0) -> int:
    """The seed of a training's batches and noise. member: which of several trainings of one fold and seed."""
    return member * 10_000_000 + seed * 1000 + fold
