"""The weights of a pool that attends: padding does not change them, and the network pools with just these."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch

from bas.blocks import FFN, LSTM, LastStateAttention, MeanPool
from bas.networks.network import build
from bas.runs.spaces import load_space
from bas.space import SearchSpace
from bas.studies.shares.attention import attends, centres, pools, weights
from bas.studies.shares.numbers import pairs_of
from bas.studies.shares.results import Pairs
from bas.training.batches import Data


def utterances(lengths: Sequence[int], dim: int) -> Data:
    lengths_U = torch.tensor(lengths)
    frames_ND = torch.randn(int(lengths_U.sum()), dim, generator=torch.Generator().manual_seed(0))
    count = len(lengths)
    return Data(frames_ND, lengths_U.cumsum(0) - lengths_U, lengths_U, torch.zeros(count, 2), torch.zeros(count, dim))


@pytest.mark.parametrize("name", ["CNN+LSTM+attention", "CNN+LSTM+attention, one an emotion"])
def test_padding_and_company_do_not_change_the_weights(name: str) -> None:
    space = (load_space("emotion_share").baselines or {})[name]
    torch.manual_seed(0)
    network = build(space, space.only(), 12, 8, 2).eval()
    data = utterances((9, 1, 5, 14, 70), 12)
    members = torch.tensor([2, 0, 4, 1, 3])
    together = weights(network, data, members)
    alone = [weights(network, data, u[None])[0] for u in members]
    assert [w.shape for w in together] == [(2 if space.each_output else 1, n) for n in (5, 9, 70, 1, 14)]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(a.sum(1), 1, atol=1e-6)
    assert len(pools(network)[0]._forward_pre_hooks) == 0


def test_the_weights_are_those_that_the_network_pools_with() -> None:
    """What the head sees is the sum of the states by these weights."""
    torch.manual_seed(0)
    space = SearchSpace({"layer1": {"LSTM": LSTM}}, LastStateAttention)
    network = build(space, space.only(), 6, 6, 2).eval()
    data = utterances((7,), 6)
    x_BTD, mask_BT, _ = data.batch(torch.tensor([0]))
    with torch.no_grad():
        states_TD = network.parts["layer1"](network.parts["stem"](x_BTD, mask_BT), mask_BT)[0]
        (found_1T,) = weights(network, data, torch.tensor([0]))
        by_hand = network.head(torch.from_numpy(found_1T) @ states_TD)
        torch.testing.assert_close(by_hand, network(x_BTD, mask_BT))


def test_the_centres_of_frames_after_the_stride() -> None:
    assert centres(5, 50, 1) == pytest.approx([0.01, 0.03, 0.05, 0.07, 0.09])
    assert centres(5, 50, 2) == pytest.approx([0.02, 0.06, 0.09])  # the last is one frame alone


def test_pairs_are_told_by_what_baselines_are_made_of() -> None:
    shipped = load_space("emotion_share").baselines or {}
    assert pairs_of(shipped, 8) == Pairs(
        (
            ("CNN+LSTM+attention", "CNN+LSTM"),
            ("CNN+LSTM+attention, one an emotion", "CNN+LSTM, one an emotion"),
        ),
        (
            ("CNN+LSTM+attention, one an emotion", "CNN+LSTM+attention"),
            ("CNN+LSTM, one an emotion", "CNN+LSTM"),
        ),
    )
    other = {
        "x": SearchSpace({"a": {"FFN": FFN}}, {"last": LastStateAttention}),
        "y": SearchSpace({"a": {"LSTM": LSTM}}, MeanPool),
        "z": SearchSpace({"a": {"FFN": FFN}}, partial(MeanPool, hidden=True)),
    }
    assert pairs_of(other, 8) == Pairs((("x", "z"),), ())
    assert [attends(space, 8) for space in other.values()] == [True, False, False]
