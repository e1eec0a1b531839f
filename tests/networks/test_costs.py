"""What blocks, networks and supernets cost, against counts by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bas.blocks import FFN, MSA, MeanPool, TransformerBlock
from bas.networks.costs import Costs, count, multiply_adds
from bas.networks.network import build, count_parameters
from bas.networks.supernet import Supernet
from bas.space import Architecture, SearchSpace

DIM, CLASSES = 16, 4


def attention(frames: int, dim: int) -> int:
    return 4 * dim**2 * frames + 2 * frames**2 * dim


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (MSA(16, 4), attention(10, 16)),
        (FFN(16), 8 * 16**2 * 10),
        (TransformerBlock(16, 8), attention(10, 16) + 8 * 16**2 * 10),
        (MeanPool(16), 0),
    ],
)
def test_multiply_adds_against_a_count_by_hand(module: nn.Module, expected: int) -> None:
    module.train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in module.state_dict().items()}
    assert multiply_adds(module, 16, 10) == expected
    assert module.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state[name], value) for name, value in module.state_dict().items())
    assert torch.backends.mkldnn.enabled


class Recurrent(nn.Module):
    """A user's own, whose kernel hides what it does from the counter."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 8, batch_first=True, bidirectional=True)
        self.layer = nn.TransformerEncoderLayer(16, 4, dim_feedforward=64, batch_first=True)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        if not bool(mask_BT.all()):  # looks at values
            raise AssertionError
        return self.layer(self.lstm(x_BTD)[0], src_key_padding_mask=~mask_BT)


def test_multiply_adds_of_fused_kernels() -> None:
    lstm = 2 * 4 * 8 * (16 + 8) * 10
    with torch.no_grad():
        assert multiply_adds(Recurrent(), 16, 10) == lstm + attention(10, 16) + 8 * 16**2 * 10


@pytest.mark.parametrize("measure", ["multiply-adds", "parameters"])
def test_costs_of_a_supernet_are_those_of_its_networks(measure: str) -> None:
    space = SearchSpace({"a": {"MSA": partial(MSA, num_heads=2), "FFN": FFN}, "b": {"FFN": FFN}}, MeanPool)
    supernet = Supernet(space, 12, DIM, CLASSES)
    costs = count(supernet, measure, 7)
    for architecture in space.architectures():
        network = build(space, architecture, 12, DIM, CLASSES)
        whole = count_parameters(network) if measure == "parameters" else multiply_adds(network, 12, 7)
        assert costs.of(architecture.blocks) == whole
    assert costs.largest == max(costs.of(a.blocks) for a in space.architectures())
    assert costs.shares("a", torch.zeros(())).tolist() == pytest.approx(
        [costs.searched["a"][name] / costs.largest for name in ("MSA", "FFN")]
    )
    assert costs.of(Architecture((("a", "MSA"), ("b", "FFN"))).blocks) - costs.fixed == (
        costs.searched["a"]["MSA"] + costs.searched["b"]["FFN"]
    )
    assert Costs(0, {"a": {"one": 0}}).largest == 1
