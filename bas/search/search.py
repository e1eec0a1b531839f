"""Search: train a supernet, then choose one architecture of its space. Six strategies, one loop.

gumbel       the paper's (Fang et al. 2023, section 2.2): weights and architecture parameters theta learn together on
             the training part; a Gumbel-softmax weights every block (eq. 4 and 5)
bilevel      the same gates; theta learns on held-out speakers, the weights on the others (FBNet, Wu et al. 2019;
             first-order DARTS, Liu et al. 2019)
darts        plain softmax(theta): no noise, no temperature; single-level like gumbel, unlike DARTS
hard         straight-through: two blocks of each part are drawn and computed; the first is the output, and theta's
             gradient compares the two (ProxylessNAS, Cai et al. 2019, section 3.2, with Gumbel noise). GDAS (Dong &
             Yang 2019) computes one block, so its gradient only shows the effect of that block's scale: none, once
             its weights are learned
single-path  one block of each part, drawn uniformly: only weights learn. Then every architecture is scored with them
             on held-out speakers, and the lowest loss wins (SPOS, Guo et al. 2020, with enumeration instead of its
             evolution). Takes C times the epochs, see `epochs_of`
random       trains nothing and draws an architecture uniformly: the baseline of the others

All but single-path and random end with each part's argmax. All but bilevel and single-path see no held-out speaker.
The loss has a cost term: `cost_weight` times the cost expected under softmax(theta), as a share of the most expensive
architecture's (ProxylessNAS, eq. 7). single-path adds each architecture's own share to its score instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from bas.errors import UserError
from bas.networks.costs import count
from bas.networks.network import Gate, Network
from bas.networks.supernet import Supernet
from bas.search.gates import gumbel_softmax, softmax, straight_through, uniform_path
from bas.space import Architecture, SearchSpace
from bas.training.batches import Data
from bas.training.loop import Epoch, Record, optimise, seed_everything
from bas.training.settings import RACES, Settings

PATHS = 1024
"""The largest space whose architectures are scored one by one with a trained supernet."""

PASSES = 3
"""The cost of a training step in forward passes; the backward pass counts as two. A step of theta alone costs less."""

Score = Callable[[Network], Mapping[str, float]]
"""An architecture's `loss` and any other scores, on held-out utterances."""


@dataclass(frozen=True)
class Strategy:
    """What distinguishes one search from another."""

    draw: Callable[[Tensor, float], Gate]
    """`(theta, temperature)` to a part's gates. theta: `(C,)`, or `(C, B)` for a separate draw for each utterance."""
    theta: bool = True  # whether architecture parameters learn and decide; else every architecture's score decides
    held_out: bool = False  # whether they learn on held-out utterances


STRATEGIES: Mapping[str, Strategy] = {
    "gumbel": Strategy(gumbel_softmax),
    "bilevel": Strategy(gumbel_softmax, held_out=True),
    "hard": Strategy(straight_through),
    "single-path": Strategy(uniform_path, theta=False),
    "darts": Strategy(softmax),
}
"""The strategies that train a supernet."""


def epochs_of(settings: Settings, space: SearchSpace) -> int:
    """The number of epochs of a search.

    single-path computes one of a part's C candidates at a time, so it takes C times as many epochs as a training: each
    block then learns for as long as it would alone, at the cost of a supernet that computes all blocks. With a C-th of
    the time, blocks would be ranked by how fast they learn, not by where they end.
    """
    if settings.strategy in RACES:
        return settings.epochs * settings.budget
    if settings.strategy == "random":
        return 0
    drawn_alone = STRATEGIES[settings.strategy].draw is uniform_path
    rows = [len(row) for part, row in space.searched.items() if part != "state"]  # a state has nothing to learn
    return settings.epochs * (max(rows, default=1) if drawn_alone else 1)


@dataclass(frozen=True)
class SearchOutcome:
    """The outcome of a search."""

    architecture: Architecture
    records: list[Record]
    seconds: float  # spent on what the strategy needs to choose
    multiply_adds: int  # likewise: of the blocks computed, at the median length of the members
    probabilities: dict[str, dict[str, float]] | None  # softmax(theta) by part and candidate; None: no theta
    paths: list[Record] | None  # every architecture's score with the supernet's weights, in the order of the space


def search(
    supernet: Supernet,
    loss: Callable[[Tensor, Tensor], Tensor],
    data: Data,
    members: Tensor,
    settings: Settings,
    seed: int,
    after_epoch: Callable[[Record], Record],
    held_out: Tensor | None = None,
    score: Score | None = None,
    checkpoint: Path | None = None,
) -> SearchOutcome:
    """Train the supernet as `settings.strategy` says and choose an architecture; a function of the seed.

    The supernet sees only the utterances `members` and, for `bilevel`, `held_out`. The record of an epoch holds loss
    (including the cost term), rate, temperature, probabilities, entropy (nats), architecture (None for single-path,
    which has none before the end) and multiply_adds. `after_epoch` takes the record, may score the current argmax on
    other utterances, and returns what to add to the record.

    score: scores every architecture on `held_out` at the end, in a space of at most PATHS; single-path chooses by its
        loss, the others only record it. None: no paths.
    Raises UserError when the training diverges, or for single-path in a larger space.
    """
    if settings.strategy == "random":
        return SearchOutcome(_draw_uniformly(supernet, seed), [], 0.0, 0, None, None)
    strategy, space = STRATEGIES[settings.strategy], supernet.space
    settings = replace(settings, epochs=epochs_of(settings, space))
    if not strategy.theta and space.size > PATHS:
        message = f"scores every architecture of a space, at most {PATHS}"
        raise UserError(f"setting strategy={settings.strategy}: {message}; this space has {space.size}")
    assert held_out is not None or not strategy.held_out, f"{settings.strategy} learns on held-out utterances"
    frames = int(data.lengths_U[members].median())
    work = count(supernet, "multiply-adds", frames)
    cost = work if settings.cost == "multiply-adds" else count(supernet, settings.cost, frames)
    mixed = supernet.mixed_parts()
    shares = {name: cost.shares(name, part.theta) for name, part in mixed.items()}
    done = 0

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        nonlocal done
        utterances = len(x_BTD)
        gates: dict[str, list[Tensor | None]] = {}
        for name, part in mixed.items():
            each = settings.noise == "utterance"
            theta = part.theta[:, None].repeat(1, utterances) if each else part.theta
            gates[name] = list(strategy.draw(theta, temperature))
        drawn = [(p, n) for p, row in gates.items() for n, g in zip(mixed[p].names, row, strict=True) if g is not None]
        done += PASSES * utterances * work.of(drawn)
        out: Tensor = supernet(x_BTD, mask_BT, gates)
        return out

    def with_cost(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        expected = torch.stack([part.theta.softmax(0) @ shares[name] for name, part in mixed.items()]).sum()
        return loss(outputs_BO, targets_B) + settings.cost_weight * expected

    def record(epoch: Epoch) -> Record:
        nonlocal done
        probabilities = {name: p.double() for name, p in supernet.probabilities().items()}
        result = {
            "epoch": epoch.index,
            "loss": epoch.loss,
            "rate": epoch.rate,
            "temperature": epoch.temperature,
            "probabilities": {n: dict(zip(mixed[n].names, p.tolist(), strict=True)) for n, p in probabilities.items()},
            "entropy": {n: float(-(p * p.clamp_min(1e-30).log()).sum()) for n, p in probabilities.items()},
            "architecture": supernet.argmax().to_dict() if strategy.theta else None,
            "multiply_adds": done,
        }
        done = 0
        return {**result, **after_epoch(result)}

    records, seconds = optimise(
        supernet,
        forward,
        with_cost if settings.cost_weight and strategy.theta else loss,
        data,
        members,
        settings,
        seed,
        record,
        checkpoint,
        held_out=held_out if strategy.held_out else None,
    )
    spent = sum(r["multiply_adds"] for r in records)
    begun, paths = time.monotonic(), None
    if score and space.size <= PATHS:
        paths = [dict(score(supernet.discrete(a))) for a in space.architectures()]
    if strategy.theta:
        return SearchOutcome(supernet.argmax(), records, seconds, spent, records[-1]["probabilities"], paths)
    assert paths is not None, "single-path chooses by the score"
    assert held_out is not None, "single-path scores on held-out utterances"
    weight = settings.cost_weight / cost.largest
    chosen = min(
        zip(paths, space.architectures(), strict=True), key=lambda p: p[0]["loss"] + weight * cost.of(p[1].blocks)
    )
    scoring = len(held_out) * sum(work.of(a.blocks) for a in space.architectures())
    return SearchOutcome(chosen[1], records, seconds + time.monotonic() - begun, spent + scoring, None, paths)


def _draw_uniformly(supernet: Supernet, seed: int) -> Architecture:
    """Draw an architecture uniformly."""
    seed_everything(seed, "architecture")
    drawn = {name: part.names[int(torch.randint(len(part.names), ()))] for name, part in supernet.mixed_parts().items()}
    return Architecture.of(drawn)
