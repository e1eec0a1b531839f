"""The space of Fang et al. 2023 with four layers: three candidate blocks each, 81 architectures."""

from functools import partial

from bas.blocks import FFN, MSA, MeanPool, TransformerBlock
from bas.space import Choices, SearchSpace

layer: Choices = {
    "MSA+FFN": partial(TransformerBlock, num_heads=8),
    "MSA": partial(MSA, num_heads=8),
    "FFN": FFN,
}
space = SearchSpace(slots={f"layer{i}": layer for i in range(1, 4 + 1)}, pool=MeanPool)
