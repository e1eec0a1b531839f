"""Baselines of a searched architecture: those of Fang et al. 2023, Table 1, unless a space file defines its own.

Each is a space of one architecture, trained like any other. Differences in a table are against the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from bas.blocks import MeanPool, SimpleFFN, TransformerBlock
from bas.errors import UserError
from bas.runs.spaces import SpaceFile
from bas.space import SearchSpace

SIMPLE = "simple FFN"


def _transformer(layers: int) -> SearchSpace:
    block = partial(TransformerBlock, num_heads=8)
    return SearchSpace({f"layer{i}": {"MSA+FFN": block} for i in range(1, layers + 1)}, MeanPool)


BASELINES: Mapping[str, SearchSpace] = {
    "4L transformer": _transformer(4),
    "3L transformer": _transformer(3),
    SIMPLE: SearchSpace({"layer1": {"MLP": SimpleFFN}}, MeanPool),
}


def common_baselines(files: Sequence[SpaceFile]) -> Mapping[str, SearchSpace]:
    """The baselines of all these spaces; BASELINES where a file defines none. The first file's lead.

    Raises UserError if a name is two baselines, or that of a space or of a linear row too.
    """
    tasks = [file.task for file in files if not isinstance(file.task, type)]  # a class is refused as a task
    taken = {*(file.name for file in files), *(row for task in tasks for row in getattr(task, "linears", ()))}
    every: dict[str, SearchSpace] = {}
    owner: dict[str, tuple[str, str]] = {}  # of a name with hyphens, as jobs have it: the baseline and its space
    for file in files:
        for name, space in (file.baselines or BASELINES).items():
            if name in taken:
                raise UserError(f"space {file.name}: baselines: {name!r} is the name of another row; rename it")
            other, of = owner.setdefault(name.replace(" ", "-"), (name, file.name))
            if other != name or every.setdefault(name, space).signature != space.signature:
                raise UserError(f"spaces {of} and {file.name}: {other!r} and {name!r} are two baselines; rename one")
    return every
