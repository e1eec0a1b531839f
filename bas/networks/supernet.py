"""The supernet that a search trains: every architecture of a space at once.

Axes: see `network`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bas.networks.network import Mixed, Network, make, parts_of
from bas.space import Architecture, SearchSpace


class Supernet(Network):
    """Every architecture of a space at once; `discrete` takes one of them out, with shared weights.

    residual: wrap every block of a slot in a `Residual`.
    """

    def __init__(
        self,
        space: SearchSpace,
        in_dim: int,
        dim: int,
        outputs: int,
        dropout: float = 0.0,
        residual: bool = False,
        states: int = 1,
    ) -> None:
        parts = {
            name: Mixed({n: make(name, f, in_dim, dim, residual) for n, f in choices.items()})
            if name in space.searched
            else make(name, next(iter(choices.values())), in_dim, dim, residual)
            for name, choices in parts_of(space).items()
        }
        assert not space.each_output, "a supernet has one network for all outputs"
        super().__init__(parts, in_dim, dim, outputs, dropout, states)
        self.space, self.in_dim = space, in_dim
        self._dims = (in_dim, dim, outputs, dropout, states)

    def mixed_parts(self) -> dict[str, Mixed]:
        """The searched parts by name."""
        return {name: part for name, part in self.parts.items() if isinstance(part, Mixed)}

    def probabilities(self) -> dict[str, Tensor]:
        """softmax(theta) of each searched part."""
        return {name: part.theta.detach().softmax(0) for name, part in self.mixed_parts().items()}

    def argmax(self) -> Architecture:
        """The candidate with the largest theta in each part, chosen at the end of a search."""
        return Architecture(tuple((name, m.names[int(m.theta.argmax())]) for name, m in self.mixed_parts().items()))

    def one_hot(self, architecture: Architecture) -> dict[str, Tensor]:
        """The gates with which the supernet computes that architecture alone."""
        return {
            name: torch.tensor([float(n == architecture[name]) for n in m.names], device=m.theta.device)
            for name, m in self.mixed_parts().items()
        }

    def discrete(self, architecture: Architecture) -> Network:
        """The network of that architecture, made of this supernet's own modules (not copies)."""
        self.space.check(architecture)
        parts = {
            name: part.candidates[architecture[name]] if isinstance(part, Mixed) else part
            for name, part in self.parts.items()
        }
        network = Network(parts, *self._dims)
        network.standardise, network.mix, network.head = self.standardise, self.mix, self.head
        return network.train(self.training)
