"""One architecture as a network. It knows no block and no task: factories come from a `SearchSpace`.

Axes: B utterances, T frames, I the features' width, D the network's width, O outputs, C candidates of a part,
L states of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bas.errors import UserError
from bas.space import AROUND, Architecture, Choices, Factory, SearchSpace

FLAT = 1e-6  # of a dimension's size: float32 rounds to 6e-8 of it, and some sums of it are rounded before

Gate = Iterable[Tensor | None]
"""One weight per candidate of a part, in the order of the space: a scalar, or `(B,)`, one for each utterance.

None: not drawn, so not computed. A tensor `(C,)` or `(C, B)` will do too: every candidate is then computed.
"""

Gates = Mapping[str, Gate]
"""The gate of each searched part."""


class Mixed(nn.Module):
    """One searched part: all its candidates side by side, and the architecture parameters theta over them."""

    def __init__(self, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = tuple(candidates)
        self.candidates = _by_name(candidates)
        self.theta = nn.Parameter(torch.zeros(len(candidates)))

    def forward(self, x: Tensor, mask_BT: Tensor, gate: Gate) -> Tensor:
        """The sum of the drawn candidates' outputs, weighted by the gate (Fang et al. 2023, eq. 5)."""
        out: Tensor | None = None
        for weight, name in zip(gate, self.names, strict=True):
            if weight is None:
                continue
            output: Tensor = self.candidates[name](x, mask_BT)
            # A scalar stays a scalar: a tensor with axes would promote bfloat16 outputs to float32.
            weight = weight[(...,) + (None,) * (output.dim() - 1)] if weight.dim() else weight
            out = weight * output if out is None else out + weight * output
        assert out is not None, "no candidate was drawn"
        return out


class FrameLinear(nn.Module):
    """The default stem: a linear map of each frame to the network's width, or the identity if the widths are equal."""

    def __init__(self, in_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Identity() if in_dim == dim else nn.Linear(in_dim, dim)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.project(x_BTI)
        return out


def varying(std_D: Tensor, size_D: Tensor) -> Tensor:
    """The deviations `(D,)`, with 0.0 for each dimension that is constant: FLAT of its size or less is rounding.

    size_D: how large the dimension's values are, such as their root mean square. So a factor on all features changes
    nothing, and one rule serves whatever is standardised. A deviation whose inverse float32 cannot hold is 0.0 too.
    """
    return std_D.where(std_D > (FLAT * size_D).clamp_min(torch.finfo(torch.float32).tiny), 0.0)


class Standardise(nn.Module):
    """Per-dimension standardisation with statistics of the training part; the identity until they are set.

    std_I: see `varying`.
    """

    mean_I: Tensor
    scale_I: Tensor

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_I", torch.zeros(in_dim))
        self.register_buffer("scale_I", torch.ones(in_dim))

    def set(self, mean_I: Tensor, std_I: Tensor) -> None:
        self.mean_I.copy_(mean_I)
        # A dimension that is constant in training stays unscaled: a huge factor would blow up its first change.
        self.scale_I.copy_(torch.where(std_I > 0, 1.0 / std_I, 1.0))

    def forward(self, x_BTI: Tensor, state: State | None = None) -> Tensor:
        """state: of several states side by side, the one to keep: what is not read is not computed."""
        mean_I, scale_I = self.mean_I, self.scale_I
        if state is not None:
            x_BTI, mean_I, scale_I = state(x_BTI), state(mean_I), state(scale_I)
        return (x_BTI - mean_I) * scale_I


class State(nn.Module):
    """One of several states of an encoder that are side by side. index: its place among `states` of them."""

    def __init__(self, index: int, states: int) -> None:
        super().__init__()
        assert 0 <= index < states, (index, states)
        self.index, self.states = index, states

    def forward(self, x_BTI: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """`(..., L * I)` to `(..., I)`."""
        dim = x_BTI.shape[-1] // self.states
        return x_BTI[..., self.index * dim : (self.index + 1) * dim]


class LayerMix(nn.Module):
    """The sum of several states of an encoder, weighted by softmax(theta): SUPERB (Yang et al., Interspeech 2021)."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(states))

    def weights(self) -> Tensor:
        """softmax(theta), `(L,)` float64: they sum to 1."""
        return self.theta.detach().double().softmax(0)

    def forward(self, x_BTI: Tensor) -> Tensor:
        """`(B, T, L * I)`, the states side by side, to `(B, T, I)`."""
        x_BTLI = x_BTI.reshape(*x_BTI.shape[:-1], len(self.theta), -1)
        out: Tensor = (x_BTLI * self.theta.softmax(0)[:, None]).sum(-2)
        return out


class Residual(nn.Module):
    """A block with a skip connection and LayerNorm around it: LayerNorm(x + block(x)), as in a vanilla transformer."""

    def __init__(self, block: nn.Module, dim: int) -> None:
        super().__init__()
        self.block = block
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.norm(x_BTD + self.block(x_BTD, mask_BT))
        return out


class Network(nn.Module):
    """Standardisation, state or layer mix, stem, slots, pool and linear head: the model that is trained and scored.

    A part is a block, or in a supernet a `Mixed` of blocks, which needs gates.
    in_dim: the input width of the stem, that of one state. dropout: after the stem and before the head, the same for
    every architecture. states: the number of encoder states side by side in the features; without a part `state`,
    which takes one of them, several are mixed.
    """

    def __init__(
        self, parts: Mapping[str, nn.Module], in_dim: int, dim: int, outputs: int, dropout: float, states: int = 1
    ) -> None:
        super().__init__()
        self.standardise = Standardise(states * in_dim)
        self.mix = LayerMix(states) if states > 1 and "state" not in parts else None
        self.parts = _by_name(parts)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width_of(parts["pool"], dim), outputs)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor, gates: Gates | None = None) -> Tensor:
        """Features `(B, T, I)`, or `(B, T, L * I)` of several states, and mask `(B, T)` to outputs `(B, O)`."""
        x = self.standardise(x_BTI, next((part for part in self.parts.values() if isinstance(part, State)), None))
        if self.mix is not None:
            x = self.mix(x)
        for name, part in self.parts.items():
            if isinstance(part, State):
                continue
            if isinstance(part, Mixed):
                assert gates is not None, "a supernet is called with gates"
                x = part(x, mask_BT, gates[name])
            else:
                x = part(x, mask_BT)
            if name == "stem":
                x = self.dropout(x)
        out: Tensor = self.head(self.dropout(x))
        return out

    def mix_weights(self) -> Tensor | None:
        """The weights of the layer mix, `(L,)` float64; None without one."""
        return None if self.mix is None else self.mix.weights()


class PerOutput(Network):
    """A separate network for each output: they share the standardisation, but no weights.

    Each keeps the weights of its own best epoch, as if it had been trained alone (`training.loop`).
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        nn.Module.__init__(self)
        self.standardise = networks[0].standardise
        self.mix = None  # each has its own
        for network in networks:
            network.standardise = self.standardise
        self.networks = nn.ModuleList(networks)

    def forward(self, x_BTI: Tensor, mask_BT: Tensor, gates: Gates | None = None) -> Tensor:
        """As in `Network`; output o comes from network o."""
        return torch.cat([network(x_BTI, mask_BT) for network in self.networks], -1)


def build(
    space: SearchSpace,
    architecture: Architecture,
    in_dim: int,
    dim: int,
    outputs: int,
    dropout: float = 0.0,
    residual: bool = False,
    states: int = 1,
) -> Network:
    """One architecture of a space with fresh weights."""
    space.check(architecture)
    if space.each_output:
        alike = replace(space, each_output=False)
        made = [build(alike, architecture, in_dim, dim, 1, dropout, residual, states) for _ in range(outputs)]
        return PerOutput(made)
    parts = {
        name: make(name, choices[architecture[name]] if name in space.searched else choices[""], in_dim, dim, residual)
        for name, choices in parts_of(space).items()
    }
    return Network(parts, in_dim, dim, outputs, dropout, states)


def width_of(pool: nn.Module, dim: int) -> int:
    """The width of a pool's output: that of the network, unless it has a `width` of its own."""
    width = getattr(pool, "width", dim)
    return width if isinstance(width, int) else dim


def parts_of(space: SearchSpace) -> dict[str, Choices]:
    """State, stem, slots and pool, from input to output; a part that is not searched has one candidate, named ''."""
    stem = FrameLinear if space.stem is None else space.stem
    state = {} if space.state is None else {"state": space.state}
    fixed = {**state, "stem": stem, **space.slots, "pool": space.pool}
    return {name: value if isinstance(value, Mapping) else {"": value} for name, value in fixed.items()}


def _by_name(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """The modules as a ModuleDict; UserError for the few names that it reserves, such as `keys` and `train`."""
    try:
        return nn.ModuleDict(modules)
    except KeyError as error:
        raise UserError(f"search space: {error.args[0]} in torch.nn.ModuleDict; take another name") from error


def make(part: str, factory: Factory, in_dim: int, dim: int, residual: bool = False) -> nn.Module:
    module: nn.Module = factory(in_dim, dim) if part == "stem" else factory() if part == "state" else factory(dim)
    wrapped = residual and part not in AROUND and not getattr(factory, "identity", False)
    return Residual(module, dim) if wrapped else module


def check(space: SearchSpace, in_dim: int, dim: int) -> None:
    """Make each candidate once and try it on two short utterances.

    Raises UserError, naming part and candidate, for a factory that cannot be called as in `make`, a module that fails,
    an output of the wrong shape, and an output that depends on padding. A pool that is not searched may have a `width`.
    """
    for part, choices in parts_of(replace(space, state=None)).items():
        _by_name({name: nn.Identity() for name in choices if name})
        arguments = f"{in_dim}, {dim}" if part == "stem" else f"{dim}"
        for name, factory in choices.items():
            where = f"{part} {name}".strip()
            try:
                module = make(part, factory, in_dim, dim).eval()
                width = width_of(module, dim) if part == "pool" and not name else dim
                fault = _fault(module, part, in_dim, dim, width)
            except UserError as error:
                raise UserError(f"{where}: {error}") from error
            except Exception as error:  # a user's code may fail in any way
                why = " ".join(str(error).split())
                raise UserError(
                    f"{where}: fails as factory({arguments})(x_BTD, mask_BT): {type(error).__name__}: {why}"
                ) from error
            if fault:
                raise UserError(f"{where}: {fault}")


@torch.no_grad()
def _fault(module: nn.Module, part: str, in_dim: int, dim: int, width: int) -> str:
    """What is wrong with a candidate's output, or "". The second utterance has 3 real frames and 4 of padding."""
    x_BTD = torch.linspace(-1, 1, 2 * 7 * (in_dim if part == "stem" else dim)).sin().reshape(2, 7, -1)
    mask_BT = torch.arange(7) < torch.tensor([[7], [3]])
    shape = (2, width) if part == "pool" else (2, 7, dim)
    out = module(x_BTD, mask_BT)
    out_shape = tuple(getattr(out, "shape", ()))
    if out_shape != shape:
        return f"gives {out_shape or type(out).__name__}; it must give {shape}"
    alone = module(x_BTD[1:, :3], mask_BT[1:, :3])[0]
    real = out[1] if part == "pool" else out[1, :3]
    if not torch.allclose(real, alone, rtol=1e-3, atol=1e-4):
        return "padding changes its output; keep padded frames out with mask_BT"
    return ""


def count_parameters(module: nn.Module) -> int:
    """The number of trainable parameters of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
