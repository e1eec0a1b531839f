"""Weights of an ensemble, on outputs that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bas.search.ensemble import STEPS, weigh

TARGETS_N = torch.arange(120) % 3


def outputs(right: Tensor, seed: int = 0) -> Tensor:
    """Logits that name the class of the utterances `right`, and a wrong one elsewhere; a little noise."""
    named_N = torch.where(right, TARGETS_N, (TARGETS_N + 1) % 3)
    return 2.0 * F.one_hot(named_N, 3) + 0.1 * torch.randn(120, 3, generator=torch.Generator().manual_seed(seed))


def loss(outputs_NO: Tensor) -> Tensor:
    return F.cross_entropy(outputs_NO, TARGETS_N)


def rights(*shares: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(120, generator=generator) < share for share in shares]


def test_weights_are_shares_that_sum_to_one_and_the_mean_beats_each_model() -> None:
    every = [outputs(right, seed) for seed, right in enumerate(rights(0.7, 0.7, 0.7))]
    weights = weigh(every, loss)
    assert sum(weights) == pytest.approx(1)
    assert all((weight * STEPS) == pytest.approx(round(weight * STEPS)) for weight in weights)
    assert all(weight > 0.15 for weight in weights), "they err elsewhere"
    mean = sum(w * o for w, o in zip(weights, every, strict=True))
    assert isinstance(mean, Tensor)
    assert loss(mean) < min(map(loss, every))


def test_a_model_that_only_harms_has_no_weight() -> None:
    good, bad = rights(0.9, 0.2)
    assert weigh([outputs(bad), outputs(good)], loss) == [0.0, 1.0]


def test_what_is_the_same_twice_counts_once_and_goes_to_the_first() -> None:
    (right,) = rights(0.8)
    assert weigh([outputs(right), outputs(right)], loss) == [1.0, 0.0]


def test_against_all_mixtures_of_two() -> None:
    """Greedy selection is near the best share of a grid."""
    every = [outputs(right, seed) for seed, right in enumerate(rights(0.8, 0.6))]
    first, second = weigh(every, loss)
    grid = [step / STEPS for step in range(STEPS + 1)]
    best = min(float(loss(share * every[0] + (1 - share) * every[1])) for share in grid)
    assert float(loss(first * every[0] + second * every[1])) == pytest.approx(best, abs=2e-3)
