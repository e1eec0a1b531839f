"""Search spaces as plain data. Imports no torch, so a space can be counted, listed and named anywhere.

A search space is a Python file that defines `space` (and `task`, when it is not emotion recognition).
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from bas.errors import UserError

Factory = Callable[..., Any]
"""Makes one module: `factory(dim)` for a block or a pool, `factory(in_dim, dim)` for a stem."""

Choices = Mapping[str, Factory]
"""Candidate factories by the name that tables and TensorBoard show."""


AROUND = ("state", "stem", "pool")
"""The parts of an architecture that are no slots."""

NO_BLOCK = "none"
"""What a space calls the candidate of an empty slot, so that pages leave it out."""

NO_BLOCKS = "no block"
"""What pages call an architecture whose slots are all empty."""


def told(architecture: Mapping[str, str]) -> str:
    """A sequence of choices as pages show it, without empty slots: "none > FFN > none > mean" is "FFN > mean"."""
    blocks = [choice for part, choice in architecture.items() if part not in AROUND]
    left = [choice for choice in blocks if choice != NO_BLOCK]
    state, stem, pool = ([architecture[part]] if part in architecture else [] for part in AROUND)
    return " > ".join([*state, *stem, *(left or [NO_BLOCKS] * bool(blocks)), *pool])


@dataclass(frozen=True)
class Architecture:
    """One choice per slot, from input to output; `str()` gives "FFN > MSA > MSA+FFN"."""

    blocks: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " > ".join(choice for _, choice in self.blocks)

    def __getitem__(self, slot: str) -> str:
        return dict(self.blocks)[slot]

    def to_dict(self) -> dict[str, str]:
        return dict(self.blocks)

    @classmethod
    def of(cls, blocks: Mapping[str, str]) -> Architecture:
        return cls(tuple(blocks.items()))


@dataclass(frozen=True)
class SearchSpace:
    """Slots from input to output, each with its candidate blocks, between a stem and a pool.

    slots: the candidates by slot name, in order; every block is `(x_BTD, mask_BT) -> x_BTD`.
    pool: `(x_BTD, mask_BT) -> x_BD`, one factory or choices to search over.
    stem: `(x_BTI, mask_BT) -> x_BTD`, one factory or choices; `None` is a linear map of each frame to the run's width,
        or the identity where that width is the encoder's own.
    each_output: train a separate network for each output of the task. For baselines only: it cannot be searched.
    state: the encoder's states to choose one from, before the stem, each a factory without arguments. A run whose layer
        is `search` adds it (`bas.runs.spaces.over_states`); a file leaves it out.
    """

    slots: Mapping[str, Choices]
    pool: Factory | Choices
    stem: Factory | Choices | None = None
    each_output: bool = False
    state: Choices | None = None
    searched: Mapping[str, Choices] = field(init=False, repr=False)
    """Every part with choices: the slots, stem and pool where they have several candidates, and the state if any."""

    def __post_init__(self) -> None:
        if not self.slots:
            raise UserError("search space: slots is empty; it needs at least one slot of candidate blocks")
        parts: dict[str, Choices] = {} if self.state is None else {"state": self.state}
        if isinstance(self.stem, Mapping):
            parts["stem"] = self.stem
        for name, choices in self.slots.items():
            if not name.isidentifier() or name in AROUND:
                raise UserError(f"search space: slot {name!r} must be an identifier other than {', '.join(AROUND)}")
            parts[name] = choices
        if isinstance(self.pool, Mapping):
            parts["pool"] = self.pool
        for slot, choices in parts.items():
            if not choices:
                raise UserError(f"search space: {slot} has no candidate")
            bad = [name for name in choices if "." in name or not name]
            if bad:
                raise UserError(f"search space: {slot}: a candidate's name may not be empty or hold a dot: {bad[0]!r}")
        object.__setattr__(self, "searched", parts)
        self.signature  # noqa: B018  refuse lambdas now, not in the middle of a run

    @property
    def size(self) -> int:
        """The number of architectures in the space."""
        return math.prod(len(choices) for choices in self.searched.values())

    def architectures(self) -> Iterator[Architecture]:
        """All architectures, in a fixed order."""
        for names in itertools.product(*self.searched.values()):
            yield Architecture(tuple(zip(self.searched, names, strict=True)))

    def at(self, number: int) -> Architecture:
        """The architecture of this number, from 0, in the order of `architectures`, without the ones before it."""
        blocks: list[tuple[str, str]] = []
        for part, row in reversed(list(self.searched.items())):
            number, which = divmod(number, len(row))
            blocks.append((part, list(row)[which]))
        assert number == 0, "beyond the space"
        return Architecture(tuple(reversed(blocks)))

    def number(self, architecture: Architecture) -> int:
        """Its number in the order of `architectures`."""
        number = 0
        for part, row in self.searched.items():
            number = number * len(row) + list(row).index(architecture[part])
        return number

    def distinct(self, architecture: Architecture) -> Architecture:
        """The one that stands for all architectures that are the same network: empty slots come last.

        A slot is empty where the candidate's class has a true attribute `identity`, as `bas.blocks.Skip` has. Blocks
        change places only within a run of slots with the same candidates under the same names.
        """
        blocks: list[tuple[str, str]] = []
        for parts, _, empty in self._runs:
            names = [architecture[part] for part in parts]
            blocks += zip(parts, sorted(names, key=lambda name: name in empty), strict=True)
        return Architecture(tuple(blocks))

    @property
    def different(self) -> int:
        """The number of architectures that are different networks, see `distinct`."""
        return math.prod(sum(_fillings(parts, full, empty)) for parts, full, empty in self._runs)

    def sample(self, count: int, seed: int) -> list[Architecture]:
        """Different architectures (`distinct`), drawn uniformly without replacement; nothing is enumerated.

        The first of a larger count are those of a smaller one. count: at most `different`.
        """
        assert count <= self.different, (count, self.different)
        rng, runs = random.Random(seed), self._runs
        drawn: dict[Architecture, None] = {}
        while len(drawn) < count:
            blocks: list[tuple[str, str]] = []
            for parts, full, empty in runs:
                filled = _fillings(parts, full, empty)
                where, used = rng.randrange(sum(filled)), 0
                while where >= filled[used]:
                    where, used = where - filled[used], used + 1
                names = [rng.choice(full) for _ in range(used)] + [rng.choice(empty) for _ in parts[used:]]
                blocks += zip(parts, names, strict=True)
            drawn[Architecture(tuple(blocks))] = None
        return list(drawn)

    def same(self, architecture: Architecture) -> Iterator[Architecture]:
        """All architectures that are the same network, see `distinct`."""
        runs = []
        for parts, _, empty in self._runs:
            names = [architecture[part] for part in parts]
            orders = set()
            blocks, skips = ([n for n in names if (n in empty) == skip] for skip in (False, True))
            for where in itertools.combinations(range(len(parts)), len(blocks)):
                left = (iter(blocks), iter(skips))
                orders.add(tuple(next(left[i not in where]) for i in range(len(parts))))
            runs.append([tuple(zip(parts, order, strict=True)) for order in sorted(orders)])
        for chosen in itertools.product(*runs):
            yield Architecture(tuple(itertools.chain(*chosen)))

    @cached_property
    def _runs(self) -> list[tuple[list[str], list[str], list[str]]]:
        """Each run of parts with the same candidates under the same names: the parts, the blocks, the empty slots."""

        def candidates(part: str) -> list[tuple[str, str]]:
            return [(name, describe(factory)) for name, factory in self.searched[part].items()]

        runs = []
        for _, group in itertools.groupby(self.searched, candidates):
            parts = list(group)
            row = self.searched[parts[0]]
            empty = [name for name, factory in row.items() if getattr(factory, "identity", False)]
            runs.append((parts, [name for name in row if name not in empty], empty))
        return runs

    def summary(self, architecture: Architecture) -> Factory | None:
        """The function of frames and mask of which a linear model takes the architecture's place; None: it is trained.

        For the default stem, no block in any slot, and a pool whose class has a `summary` (`bas.blocks`). For the mean
        that is the same family of functions; a summary that is not linear in the frames is taken before the stem.
        """
        if self.stem is not None or self.each_output:
            return None
        empty = all(getattr(row[architecture[slot]], "identity", False) for slot, row in self.slots.items())
        pool = self.pool[architecture["pool"]] if isinstance(self.pool, Mapping) else self.pool
        return getattr(pool, "summary", None) if empty else None

    def blockless(self) -> list[Architecture]:
        """Every architecture without a block; none where a slot cannot be empty."""
        parts = {part: list(row) for part, row in self.searched.items()}
        for slot, row in self.slots.items():
            parts[slot] = [name for name, factory in row.items() if getattr(factory, "identity", False)][:1]
        return [Architecture(tuple(zip(parts, names, strict=True))) for names in itertools.product(*parts.values())]

    def only(self) -> Architecture:
        """The architecture of a space that has just one, such as a baseline."""
        assert self.size == 1, self.size
        return next(self.architectures())

    def check(self, architecture: Architecture) -> None:
        """Raise UserError unless the architecture belongs to this space."""
        chosen = architecture.to_dict()
        if list(chosen) != list(self.searched):
            raise UserError(f"architecture: slots {', '.join(chosen)} are not this space's {', '.join(self.searched)}")
        for slot, name in chosen.items():
            if name not in self.searched[slot]:
                raise UserError(f"architecture: {slot}={name!r} is not one of {', '.join(self.searched[slot])}")

    def factories(self) -> list[Factory]:
        """Every factory, as the file gives it: slots, pool and stem."""
        parts = (*self.slots.values(), self.pool, self.stem)
        given = [f for part in parts for f in (part.values() if isinstance(part, Mapping) else [part])]
        return [factory for factory in given if factory is not None]

    @property
    def signature(self) -> str:
        """A short hash of slots, names and factories, the same in every process and on every machine."""
        lines = [f"{slot}/{name}={describe(f)}" for slot, c in self.searched.items() for name, f in c.items()]
        for part, value in (("stem", self.stem), ("pool", self.pool)):
            if value is not None and not isinstance(value, Mapping):
                lines.append(f"{part}={describe(value)}")
        if self.each_output:
            lines.append("each output")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _fillings(parts: Sequence[str], full: Sequence[str], empty: Sequence[str]) -> list[int]:
    """In how many ways a run's first j slots have blocks and the others none, by j from 0."""
    return [len(full) ** j * len(empty) ** (len(parts) - j) for j in range(len(parts) + 1)]


def keyword_values(space: SearchSpace, name: str) -> tuple[Any, ...]:
    """The values that the space's factories give a keyword, such as 8 in `partial(MSA, num_heads=8)`."""
    given = [f.keywords for f in space.factories() if isinstance(f, partial) and name in f.keywords]
    return tuple(dict.fromkeys(keywords[name] for keywords in given))


def with_keyword(space: SearchSpace, name: str, value: Any) -> SearchSpace:
    """The same space with another value of a keyword in every factory that sets it."""

    def change(factory: Factory) -> Factory:
        sets_it = isinstance(factory, partial) and name in factory.keywords
        return partial(factory, **{name: value}) if sets_it else factory

    def change_all(choices: Choices) -> Choices:
        return {n: change(f) for n, f in choices.items()}

    pool, stem = space.pool, space.stem
    return SearchSpace(
        {slot: change_all(choices) for slot, choices in space.slots.items()},
        change_all(pool) if isinstance(pool, Mapping) else change(pool),
        change_all(stem) if isinstance(stem, Mapping) else stem and change(stem),
        space.each_output,
        space.state,
    )


def describe(factory: Factory) -> str:
    """The factory as `module.Class(argument=value)`, which a signature hashes.

    Raises UserError for a lambda or a local function: two different ones could have the same name.
    """
    if isinstance(factory, partial):
        values = [repr(a) for a in factory.args] + [f"{k}={v!r}" for k, v in sorted(factory.keywords.items())]
        odd = [v for v in (*factory.args, *factory.keywords.values()) if not _plain(v)]
        if odd:
            raise UserError(f"search space: {describe(factory.func)} takes plain values only, not {odd[0]!r}")
        return f"{describe(factory.func)}({', '.join(values)})"
    name = getattr(factory, "__qualname__", "")
    if not name or "<" in name:
        raise UserError("search space: a lambda or local function has no unique name; use a class or functools.partial")
    return f"{factory.__module__}.{name}"


def _plain(value: object) -> bool:
    """Whether the value's `repr` is the same in every process."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return isinstance(value, bool | int | float | str | None)
