"""The cost of an architecture: trainable parameters, or the multiply-adds of a forward pass over one utterance.

Multiply-adds are those of matrix products, attention and convolutions (half of PyTorch's FLOP count); elementwise
operations are not counted, as usual.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bas.networks.network import count_parameters
from bas.networks.supernet import Supernet


def multiply_adds(module: nn.Module, dim_in: int, frames: int) -> int:
    """Multiply-adds of `module(x_BTD, mask_BT)` over one utterance of `frames` frames, `dim_in` wide.

    module: a block, a stem, a pool or a whole network. It is not changed, and no random number is drawn.
    """
    module = copy.deepcopy(module).cpu().eval()
    x_BTD, mask_BT = torch.zeros(1, frames, dim_in), torch.ones(1, frames, dtype=torch.bool)
    # The counter does not see into fused kernels. So attention runs unfused, and so do recurrent networks (fused by
    # oneDNN) and transformer layers (fused only without gradients).
    with (
        warnings.catch_warnings(action="ignore"),
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False),
        torch.enable_grad(),
    ):
        module(x_BTD, mask_BT)
    return int(counter.get_total_flops()) // 2


@dataclass(frozen=True)
class Costs:
    """The costs of a supernet: of what every architecture has, and of each candidate of each searched part."""

    fixed: int
    searched: Mapping[str, Mapping[str, int]]

    @property
    def largest(self) -> int:
        """The cost of the most expensive architecture; at least 1, to divide by."""
        return max(1, self.fixed + sum(max(row.values()) for row in self.searched.values()))

    def of(self, blocks: Iterable[tuple[str, str]]) -> int:
        """The cost with these candidates computed, each `(part, name)`, such as the blocks of an architecture."""
        return self.fixed + sum(self.searched[part][name] for part, name in blocks)

    def shares(self, part: str, like: Tensor) -> Tensor:
        """The cost of each candidate as a share of the most expensive architecture's, `(C,)`."""
        return like.new_tensor(list(self.searched[part].values())) / self.largest


def count(supernet: Supernet, measure: str, frames: int) -> Costs:
    """The costs of a supernet. measure: parameters, or multiply-adds over an utterance of `frames` frames."""
    width, dim = supernet.standardise.mean_I.numel(), supernet.head.in_features
    widths = {"state": width, "stem": supernet.in_dim}

    def of(module: nn.Module, dim_in: int) -> int:
        return count_parameters(module) if measure == "parameters" else multiply_adds(module, dim_in, frames)

    searched = {
        name: {n: of(part.candidates[n], widths.get(name, dim)) for n in part.names}
        for name, part in supernet.mixed_parts().items()
    }
    first = next(supernet.space.architectures())
    whole = of(supernet.discrete(first), width)
    return Costs(whole - sum(searched[part][name] for part, name in first.blocks), searched)
