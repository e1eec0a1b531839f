"""What a found architecture is compared with: Table 1 of Fang et al. 2023, unless a space's file brings its own.

Each is a space of one architecture, trained like any other. The first is the reference that a table's differences are
against.
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

    Raises UserError where two files differ in them, or one has the name of a space or of a linear row.
    """
    told = {file.name: file.baselines or BASELINES for file in files}
    first, *others = told
    for name in others:
        if {n: s.signature for n, s in told[name].items()} != {n: s.signature for n, s in told[first].items()}:
            raise UserError(f"spaces {first} and {name}: other baselines; run them apart")
    taken = {*told, *(row for file in files for row in getattr(file.task, "linears", ()))}
    for name in told[first]:
        if name in taken:
            raise UserError(f"space {first}: baselines: {name!r} is the name of another row; rename it")
    return told[first]
