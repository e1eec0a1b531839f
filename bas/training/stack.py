"""Networks of one shape trained as one: their parameters are stacked, with `torch.func.vmap` over them.

Each member has its own batches, rates and weights; its numbers equal those of a training alone, to float tolerance.
A block or loss that cannot be stacked is detected on the first batch and refused; so is whatever draws at random while
it trains (dropout), because its draws would depend on the other members.

Axes: M members, S steps of an epoch, B utterances of a batch, T frames, D width, O outputs, P parameters of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from bas.networks.network import Network
from bas.training.batches import Data, gathered, training_batches
from bas.training.loop import seed_everything
from bas.training.settings import Settings

AGREES = 1e-2  # largest error of a member's first gradient against its gradient alone, both float32
BETAS, EPS = (0.9, 0.999), 1e-8  # torch's defaults of AdamW, which `loop` trains with

Loss = Callable[[Tensor, Tensor], Tensor]


class NotStackableError(Exception):
    """These trainings must run one by one; the message says why, in one line."""


@dataclass(frozen=True)
class Member:
    """One training: a network with its initial weights, and the utterances it is trained and validated on."""

    network: Network
    data: Data
    fit: Tensor
    valid: Tensor
    seed: int


def _trained(network: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


@torch.no_grad()
def fill(network: nn.Module, values_P: Tensor) -> None:
    parameters = _trained(network).values()
    for parameter, values in zip(parameters, torch.split(values_P, [p.numel() for p in parameters]), strict=True):
        parameter.copy_(values.view_as(parameter))


class Stack:
    """M networks of one shape as one function of `x_MBTD` and `mask_MBT`; their weights are the rows of `flat_MP`."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.network = networks[0]  # for its code only; its weights are not used
        rows = [torch.cat([p.detach().flatten() for p in _trained(n).values()]) for n in networks]
        self.flat_MP = torch.stack(rows).requires_grad_()
        self.shapes = {name: p.shape for name, p in _trained(networks[0]).items()}
        # Buffers, and weights that are not trained.
        rest = [{**dict(n.named_parameters()), **dict(n.named_buffers())} for n in networks]
        self.fixed = {k: torch.stack([r[k].detach() for r in rest]) for k in rest[0] if k not in self.shapes}

    @torch.no_grad()
    def restore(self, flat_MP: Tensor) -> None:
        """Take these weights."""
        self.flat_MP.copy_(flat_MP)

    def __call__(self, x_MBTD: Tensor, mask_MBT: Tensor) -> Tensor:
        """`outputs_MBO`."""

        def one(weights: dict[str, Tensor], x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
            out: Tensor = functional_call(self.network, weights, (x_BTD, mask_BT))
            return out

        pieces = torch.split(self.flat_MP, [shape.numel() for shape in self.shapes.values()], dim=1)
        named = zip(self.shapes.items(), pieces, strict=True)
        weights = {name: piece.reshape(len(piece), *shape) for (name, shape), piece in named}
        # The CPU's fused kernel would be called member by member, a GPU's keeps nothing for a gradient outside of vmap.
        with sdpa_kernel(SDPBackend.MATH):
            out_MBO: Tensor = vmap(one, randomness="error")({**weights, **self.fixed}, x_MBTD, mask_MBT)
        return out_MBO

    @torch.no_grad()
    def outputs(self, feed: Feed, steps: Steps) -> Tensor:
        """`(S, M, B, O)` on the CPU, float32, without dropout; 0 in rows that no member needs."""
        self.network.eval()
        parts = []
        for x_MBTD, mask_MBT, _, _ in feed.batches(steps):
            unneeded = steps.real_SMB.shape[2] - x_MBTD.shape[1]
            with torch.autocast(x_MBTD.device.type, torch.bfloat16, enabled=x_MBTD.is_cuda):  # as in `loop`
                parts.append(F.pad(self(x_MBTD, mask_MBT).float(), (0, 0, 0, unneeded)))
        return torch.stack(parts).cpu()


@dataclass(frozen=True)
class Steps:
    """The utterances of every member in each step; a member with no more batches has none."""

    ids_SMB: Tensor
    real_SMB: Tensor  # false: the row is filler with weight 0
    longest_S: list[int]
    size_S: list[int]  # rows that some member needs; the rest of a step is not computed


class Feed:
    """Batches of all members at once, from frames on the device."""

    def __init__(self, data_M: Sequence[Data]) -> None:
        first = data_M[0]
        if not isinstance(first.frames_ND, Tensor) or first.frames_ND.device != first.device:
            raise NotStackableError(f"the features are too large for the memory of {first.device.type}")
        assert all(data.frames_ND is first.frames_ND for data in data_M), "members read one layer"
        self.frames_ND, self.targets_U, self.lengths_U = first.frames_ND, first.targets_U, first.lengths_U
        self.starts, self.lengths = first.starts_U.to(first.device), first.lengths_U.to(first.device)
        self.moved_M = [d.moved and replace(d.moved, group_U=d.moved.group_U.to(first.device)) for d in data_M]

    def steps(self, batches_M: Sequence[Sequence[Tensor]]) -> Steps:
        """Each member's batches side by side, filled up with its shortest utterance, so that every row has frames."""
        count, size = max(map(len, batches_M)), max(len(batch) for batches in batches_M for batch in batches)
        real_SMB = torch.zeros((count, len(batches_M), size), dtype=torch.bool)
        ids_SMB = torch.zeros(real_SMB.shape, dtype=torch.long)
        for m, batches in enumerate(batches_M):
            every = torch.cat(list(batches))
            ids_SMB[:, m] = every[self.lengths_U[every].argmin()]
            for s, batch in enumerate(batches):
                ids_SMB[s, m, : len(batch)], real_SMB[s, m, : len(batch)] = batch, True
        size_S = real_SMB.sum(2).amax(1).tolist()
        longest_S = [int(self.lengths_U[ids_MB[:, :rows]].max()) for ids_MB, rows in zip(ids_SMB, size_S, strict=True)]
        return Steps(ids_SMB, real_SMB, longest_S, size_S)

    def batches(self, steps: Steps) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """`x_MBTD` float32 with zeros on padding, `mask_MBT`, targets, `real_MB`; nothing waits for the device."""
        ids_SMB, real_SMB = steps.ids_SMB.to(self.starts.device), steps.real_SMB.to(self.starts.device)
        for each_MB, are_MB, longest, rows in zip(ids_SMB, real_SMB, steps.longest_S, steps.size_S, strict=True):
            ids_MB, real_MB = each_MB[:, :rows], are_MB[:, :rows]
            within_T = torch.arange(longest, device=ids_MB.device)
            mask_MBT = within_T < self.lengths[ids_MB][..., None]
            x_MBTD = gathered(self.frames_ND, self.starts[ids_MB], mask_MBT)
            for m, moved in enumerate(self.moved_M):
                if moved:
                    x_MBTD[m] = moved(x_MBTD[m], ids_MB[m])
            x_MBTD.masked_fill_(~mask_MBT[..., None], 0.0)
            yield x_MBTD, mask_MBT, self.targets_U[ids_MB], real_MB


def _mean_losses(loss: Loss, out_MBO: Tensor, targets_MB: Tensor, real_MB: Tensor) -> Tensor:
    """Each member's loss on its real rows: the mean of the losses of single utterances, as a task must define it."""
    rows = vmap(loss)(out_MBO.flatten(0, 1)[:, None], targets_MB.flatten(0, 1)[:, None])
    kept_MB = torch.where(real_MB, rows.view_as(real_MB), 0.0)
    return kept_MB.sum(1) / real_MB.sum(1).clamp_min(1)


def orders_of(members: Sequence[Member], settings: Settings, epoch: int) -> list[list[Tensor]]:
    """The batches of each member in an epoch, the same as in a training alone."""
    orders = []
    for member in members:
        seed_everything(member.seed, "epoch", epoch)
        orders.append(training_batches(member.data, member.fit, settings.batch_size, torch.default_generator))
    return orders


def one_epoch(
    stack: Stack, update: Update, feed: Feed, members: Sequence[Member], settings: Settings, epoch: int, loss: Loss
) -> list[float]:
    """Each member's mean training loss."""
    stack.network.train()
    device = stack.flat_MP.device
    orders = orders_of(members, settings, epoch)
    steps = feed.steps(orders)
    rate_SM = [[settings.lr * settings.rate(epoch, s, len(o)) for o in orders] for s in range(len(steps.longest_S))]
    lr_SM1 = torch.tensor(rate_SM, dtype=torch.float64, device=device)[..., None]
    total_M = torch.zeros(len(members), device=device)
    batches = feed.batches(steps)
    for lr_M1, (x_MBTD, mask_MBT, targets_MB, real_MB) in zip(lr_SM1, batches, strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            out_MBO = stack(x_MBTD, mask_MBT)
        loss_M = _mean_losses(loss, out_MBO.float(), targets_MB, real_MB)
        (grad_MP,) = torch.autograd.grad(loss_M.sum(), stack.flat_MP)
        update(stack.flat_MP, grad_MP, lr_M1, real_MB.any(1, keepdim=True))
        total_M += loss_M.detach() * real_MB.sum(1)
    return [total / len(member.fit) for total, member in zip(total_M.tolist(), members, strict=True)]


def adamw(
    w: Tensor, gradient: Tensor, first: Tensor, second: Tensor, count: Tensor, lr: Tensor, decay: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of `torch.optim.AdamW` for M members at once: the new weights and both moments, `(M, ...)` each.

    count: the step of each member, from 1. lr: its rate. Both `(M, 1, ...)` float64, as the bias corrections need.
    Without decay it is Adam (Kingma and Ba, *ICLR* 2015; Loshchilov and Hutter, *ICLR* 2019).
    """
    first = first.lerp(gradient, 1 - BETAS[0])
    second = (BETAS[1] * second).addcmul_(gradient, gradient, value=1 - BETAS[1])
    size, root = lr / (1 - BETAS[0] ** count), (1 - BETAS[1] ** count).sqrt()
    away = first / (second.sqrt() / root.float()).add_(EPS)
    return w * (1 - lr * decay).float() - size.float() * away, first, second


class Update:
    """`torch.optim`'s AdamW or SGD on the rows of `flat_MP`, each with its own rate; a member may skip a step."""

    def __init__(self, like_MP: Tensor, settings: Settings) -> None:
        self.settings = settings
        self.first_MP, self.second_MP = (torch.zeros_like(like_MP, requires_grad=False) for _ in range(2))
        self.count_M1 = torch.zeros((len(like_MP), 1), dtype=torch.float64, device=like_MP.device)

    def state(self) -> dict[str, Tensor]:
        """What the next step depends on, a row for each member."""
        return {"first": self.first_MP, "second": self.second_MP, "count": self.count_M1}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` gave."""
        for name, value in self.state().items():
            value.copy_(state[name])

    @torch.no_grad()
    def __call__(self, flat_MP: Tensor, grad_MP: Tensor, lr_M1: Tensor, moves_M1: Tensor) -> None:
        """One step in place. lr_M1: float64, as the bias corrections need. moves_M1: the members that take the step."""
        decay = self.settings.weight_decay
        self.count_M1 += moves_M1
        if self.settings.optimiser == "sgd":
            first_MP = self.settings.momentum * self.first_MP + (grad_MP + decay * flat_MP)
            new_MP = flat_MP - lr_M1.float() * first_MP
        else:
            count_M1 = self.count_M1.clamp_min(1)  # 0 for a member that has not moved yet
            new_MP, first_MP, second_MP = adamw(flat_MP, grad_MP, self.first_MP, self.second_MP, count_M1, lr_M1, decay)
            self.second_MP = torch.where(moves_M1, second_MP, self.second_MP)
        self.first_MP = torch.where(moves_M1, first_MP, self.first_MP)
        flat_MP.copy_(torch.where(moves_M1, new_MP, flat_MP))


def check(stack: Stack, networks: Sequence[nn.Module], feed: Feed, steps: Steps, loss: Loss) -> None:
    """Raise NotStackableError unless every member has the same loss and gradient on the first batch as alone.

    The check runs without dropout, in float32, and leaves out the last row to detect a block that mixes utterances. A
    forward pass in training mode detects a block that changes its buffers (BatchNorm).
    """
    x_MBTD, mask_MBT, targets_MB, real_MB = next(feed.batches(steps))
    real_MB[:, 1:][:, -1:] = False
    kept = {name: value.clone() for name, value in stack.fixed.items()}
    stack.network.eval()
    try:
        loss_M = _mean_losses(loss, stack(x_MBTD, mask_MBT), targets_MB, real_MB)
        (grad_MP,) = torch.autograd.grad(loss_M.sum(), stack.flat_MP)
        stack.network.train()
        stack(x_MBTD, mask_MBT)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a user's block may fail in any way that vmap has
        raise NotStackableError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    if not all(torch.equal(value, stack.fixed[name]) for name, value in kept.items()):
        raise NotStackableError("a block changes its buffers while it trains")
    for m, network in enumerate(networks):
        mine_B, weights = real_MB[m], list(_trained(network).values())
        value = loss(network.eval()(x_MBTD[m][mine_B], mask_MBT[m][mine_B]), targets_MB[m][mine_B])
        grads = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
        grad_P = torch.cat([grad.flatten() for grad in grads])
        apart = float((grad_MP[m] - grad_P).norm() / grad_P.norm().clamp_min(EPS))
        if not (apart < AGREES and torch.isclose(loss_M[m], value, rtol=AGREES)):
            raise NotStackableError(
                f"together, a first gradient is {apart:.1g} off: the loss or a block mixes utterances"
            )
