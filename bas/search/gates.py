"""Gates: the weights that theta gives a part's candidates in one step of a search."""

from __future__ import annotations

import torch
from torch import Tensor


def gumbel_softmax(theta: Tensor, temperature: float) -> Tensor:
    """softmax((theta + g) / temperature) over the first axis, each g ~ Gumbel(0, 1) (Fang et al., eq. 4)."""
    return (_perturb(theta) / temperature).softmax(0)


def _perturb(theta: Tensor) -> Tensor:
    """theta + g."""
    # The clamp avoids log(0): float32's smallest positive number has a finite logarithm.
    return theta - torch.empty_like(theta).exponential_().clamp_min(torch.finfo(theta.dtype).tiny).log()


def softmax(theta: Tensor, temperature: float) -> Tensor:
    """softmax(theta), whatever the temperature."""
    return theta.softmax(0)


def straight_through(theta: Tensor, temperature: float) -> list[Tensor | None]:
    """Draw two candidates by softmax(theta), weight the first by 1 and the second by 0.

    The gradient is that of the Gumbel-softmax between these two.
    """
    perturbed = _perturb(theta)
    # The largest perturbed logits are a draw without replacement.
    drawn = perturbed.detach().topk(min(2, len(theta)), 0).indices.cpu()
    is_drawn = torch.stack([(drawn == c).any(0) for c in range(len(theta))])
    soft = (perturbed / temperature).masked_fill(~is_drawn.to(theta.device), -torch.inf).softmax(0)
    hard = torch.stack([drawn[0] == c for c in range(len(theta))]).to(soft)
    return _only_drawn(hard + (soft - soft.detach()), is_drawn)


def uniform_path(theta: Tensor, temperature: float) -> list[Tensor | None]:
    """Draw one candidate uniformly; only the shape of theta matters."""
    number = torch.randint(len(theta), theta.shape[1:])
    is_drawn = torch.stack([number == c for c in range(len(theta))])
    return _only_drawn(is_drawn.to(theta), is_drawn)


def _only_drawn(gates: Tensor, is_drawn: Tensor) -> list[Tensor | None]:
    """The gates, with None for a candidate that was not drawn; `is_drawn` is on the CPU."""
    return [gate if bool(any_.any()) else None for gate, any_ in zip(gates, is_drawn, strict=True)]
