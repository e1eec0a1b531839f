"""A fitted row as plain data, and back: no pickle, no code but blocks of `bas` and of files that the user names."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from bas import blocks
from bas.errors import UserError, first_line
from bas.networks.committee import Committee
from bas.networks.linear import LinearModel, OfState, Summary
from bas.networks.network import State, build
from bas.runs.spaces import SpaceFile
from bas.space import Architecture, Choices, Factory, SearchSpace
from bas.training.settings import Settings

LARGEST = 1_000
"""Of whole numbers that a block of `bas` is given; a file could ask for any."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A factory: its class by module and name, and what it is given besides the width, in JSON's own types."""

    module: str  # bas.blocks, or one of the user's own
    name: str
    given: tuple[Any, ...] = ()
    named: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A network and all that its weights fit into; one of the three, by `kind`.

    mean: of the outputs of `members`, by `weights`. linear: a linear model of the summary of the pool. network: stem,
    slots (blocks by slot, from input to output) and pool, of this width; see `bas.networks.network.build`. state: the
    place, among those that the model reads, of the only one that this network sees; None: it sees them all.
    """

    kind: str
    members: tuple[Layout, ...] = ()
    weights: tuple[float, ...] = ()
    pool: Block | None = None
    stem: Block | None = None
    slots: Mapping[str, Block] | None = None
    dim: int = 0
    residual: bool = False
    each_output: bool = False
    state: int | None = None

    @property
    def widest(self) -> int:
        """The width of the widest network."""
        return max(abs(self.dim), *(member.widest for member in self.members), 0)

    @property
    def blocks(self) -> list[Block]:
        """All blocks, those of the members too."""
        own = [block for block in (self.stem, *(self.slots or {}).values(), self.pool) if block]
        return own + [block for member in self.members for block in member.blocks]


def layout_of(
    network: nn.Module, space: SearchSpace, architecture: Architecture, settings: Settings, dim: int
) -> Layout:
    """The layout of a network, a committee or a linear model of one architecture. dim: the features' width."""
    if isinstance(network, Committee):
        members = tuple(layout_of(one, space, architecture, settings, dim) for one in network.networks)
        return Layout(kind="mean", members=members, weights=tuple(map(float, network.weights)))
    chosen = architecture.to_dict()

    def block(part: str, choices: Factory | Choices | None) -> Block | None:
        factory = choices[chosen[part]] if isinstance(choices, Mapping) else choices
        return None if factory is None else _describe(factory)

    pool = block("pool", space.pool)
    state = None if space.state is None else space.state[chosen["state"]]().index
    if isinstance(network, LinearModel):
        return Layout(kind="linear", pool=pool, state=state)
    slots = {slot: made for slot, choices in space.slots.items() if (made := block(slot, choices))}
    return Layout(
        kind="network",
        stem=block("stem", space.stem),
        slots=slots,
        pool=pool,
        dim=settings.width or dim,
        residual=settings.residual == "every",
        each_output=space.each_output,
        state=state,
    )


def _describe(factory: Factory) -> Block:
    given: tuple[Any, ...] = ()
    named: dict[str, Any] = {}
    while isinstance(factory, partial):
        given, named, factory = (*factory.args, *given), {**factory.keywords, **named}, factory.func
    return Block(module=factory.__module__, name=factory.__qualname__, given=given, named=named)


def make(layout: Layout, in_dim: int, outputs: int, states: int, spaces: Collection[SpaceFile] = ()) -> nn.Module:
    """The network, with weights yet to be loaded. in_dim, states: width and number of the encoder's states.

    Only blocks of `bas.blocks` are made, and of the files `spaces`, which the user has named. Raises UserError for any
    other, and for what cannot be made.
    """
    if layout.kind == "mean":
        if not layout.members or len(layout.weights) != len(layout.members):
            raise UserError(f"network: {len(layout.members)} members with {len(layout.weights)} weights")
        return Committee([make(m, in_dim, outputs, states, spaces) for m in layout.members], layout.weights)
    if layout.pool is None or layout.kind not in ("linear", "network"):
        raise UserError(f"network: kind {layout.kind!r} with pool {layout.pool}; allowed: mean, linear, network")
    pool = _factory(layout.pool, spaces)
    if layout.state is not None and not 0 <= layout.state < states:
        raise UserError(f"network: state {layout.state}; allowed: 0 to {states - 1}, a place among those it reads")
    try:
        if layout.kind == "linear":
            summary: Summary = pool.summary  # type: ignore[attr-defined]
            return LinearModel(_of_state(summary, layout.state, states), states * in_dim, outputs)
        slots: dict[str, Choices] = {slot: {"block": _factory(b, spaces)} for slot, b in (layout.slots or {}).items()}
        stem = None if layout.stem is None else _factory(layout.stem, spaces)
        state = None if layout.state is None else {"state": partial(State, layout.state, states)}
        space = SearchSpace(slots, pool, stem, layout.each_output, state)
        return build(space, space.only(), in_dim, layout.dim, outputs, 0.0, layout.residual, states)
    except UserError:
        raise
    except Exception as error:  # a class may refuse its arguments in any way
        what = ", ".join(map(str, layout.blocks))
        raise UserError(f"network: {what}: cannot be made: {type(error).__name__}: {first_line(error)}") from error


def _of_state(summary: Summary, state: int | None, states: int) -> Summary:
    return summary if state is None else OfState(summary, state, states)


def _factory(block: Block, spaces: Collection[SpaceFile]) -> Factory:
    factory: Any = None
    if block.module == blocks.__name__:
        found = vars(blocks).get(block.name)
        factory = found if isinstance(found, type) and issubclass(found, nn.Module) else None
        numbers = [value for value in (*block.given, *(block.named or {}).values()) if isinstance(value, int)]
        if any(not -LARGEST <= number <= LARGEST for number in numbers):
            raise UserError(f"network: block {block}: is given {max(numbers, key=abs)}; at most {LARGEST}")
    elif block.module in {module for space in spaces for module in modules(space)}:
        factory = sys.modules[block.module]
        for name in block.name.split("."):
            factory = getattr(factory, name, None)
    if factory is None or getattr(factory, "__module__", "") != block.module:
        named = ", ".join(str(space.path) for space in spaces)
        where = f", nor is it in {named}" if spaces else ""
        remedy = "name the file of its search space with --space, whose code is run"
        raise UserError(f"network: block {block} is not one of bas.blocks{where}; {remedy}")
    given, more = tuple(map(_value, block.given)), {name: _value(v) for name, v in (block.named or {}).items()}
    made: Factory = partial(factory, *given, **more) if given or more else factory
    return made


def _value(value: Any) -> Any:
    """A value as the factory was given it: JSON's lists were tuples."""
    return tuple(map(_value, value)) if isinstance(value, list) else value


def modules(file: SpaceFile) -> set[str]:
    """The modules in which the factories of a space file are defined."""
    modules = set()
    for factory in (f for space in (file.space, *(file.baselines or {}).values()) for f in space.factories()):
        while isinstance(factory, partial):
            factory = factory.func
        modules.add(factory.__module__)
    return modules
