"""An ensemble of the architectures that a search has trained: weights by what they predict of held-out utterances.

Choosing one architecture throws away the others, which are as good within the noise and err elsewhere. Ensemble
selection (Caruana et al., *Ensemble Selection from Libraries of Models*, ICML 2004) starts from nothing and adds, with
replacement, the model that lowers the loss of the mean most; the weights are how often each was added.

Axes: M models, N held-out utterances, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bas.space import told

STEPS = 20
"""Models that are added: weights are multiples of 1 / STEPS."""


@dataclass(frozen=True)
class Member:
    """One architecture of an ensemble, and the share of its outputs in the mean."""

    architecture: Mapping[str, str]
    weight: float


def made_of(members: Sequence[Member]) -> str:
    """The architectures of a row as pages show them, with their weights where there are several."""
    names = [told(member.architecture) for member in members]
    if len(members) == 1:
        return names[0]
    return ", ".join(f"{name} {100 * m.weight:.0f} %" for name, m in zip(names, members, strict=True))


def weigh(outputs_MNO: Sequence[Tensor], loss: Callable[[Tensor], Tensor]) -> list[float]:
    """The weight of each model, 0.0 for those that are not needed; they sum to 1. Ties go to the first model.

    outputs_MNO: of each model `(N, O)`, all on the same utterances, by a network that was not trained on them, but
    stopped by them, or by a linear model whose regularisation they chose.
    loss: of outputs `(N, O)`.
    """
    count = [0] * len(outputs_MNO)
    total_NO = torch.zeros_like(outputs_MNO[0])
    for step in range(1, STEPS + 1):
        losses = [float(loss((total_NO + outputs_NO) / step)) for outputs_NO in outputs_MNO]
        added = losses.index(min(losses))
        count[added] += 1
        total_NO = total_NO + outputs_MNO[added]
    return [times / STEPS for times in count]
