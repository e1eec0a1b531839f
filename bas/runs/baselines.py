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
    """The baselines of these spaces; BASELINES where a file defines none.

    Raises UserError if two files have different baselines, or one has the name of a space or of a linear row.
    """
    of_file = {file.name: file.baselines or BASELINES for file in files}
    first, *others = of_file
    for name in others:
        if {n: s.signature for n, s in of_file[name].items()} != {n: s.signature for n, s in of_file[first].items()}:
            raise UserError(f"spaces {first} and {name}: other baselines; run them apart")
    taken = {*of_file, *(row for file in files for row in getattr(file.task, "linears", ()))}
    for name in of_file[first]:
        if name in taken:
            raise UserError(f"space {first}: baselines: {name!r} is the name of another row; rename it")
    return of_file[first]
