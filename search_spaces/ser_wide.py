"""Beyond the paper: no block to four, of five kinds, and five ways to pool; 3,905 different architectures.

In place of those without a block that pool by the mean, statistics or quantiles, a linear model of these is solved.
The 3-layer transformer of the paper is no baseline here: as a committee it costs almost as much as a search.
"""

from functools import partial

from bas.blocks import (
    FFN,
    LSTM,
    MSA,
    AttentiveStatisticsPool,
    Convolution,
    LastStateAttention,
    MeanPool,
    QuantilePool,
    SimpleFFN,
    Skip,
    StatisticsPool,
    TransformerBlock,
)
from bas.space import Choices, SearchSpace

layer: Choices = {
    "none": Skip,
    "FFN": FFN,
    "MSA": partial(MSA, num_heads=8),
    "MSA+FFN": partial(TransformerBlock, num_heads=8),
    "Conv": partial(Convolution, kernel=5),
    "LSTM": LSTM,
}
pool: Choices = {
    "mean": MeanPool,
    "statistics": StatisticsPool,
    "quantiles": QuantilePool,
    "attentive statistics": AttentiveStatisticsPool,
    "attention": LastStateAttention,
}
space = SearchSpace(slots={f"layer{i}": layer for i in range(1, 5)}, pool=pool)
baselines = {
    "4L transformer": SearchSpace({name: {"MSA+FFN": layer["MSA+FFN"]} for name in space.slots}, MeanPool),
    "simple FFN": SearchSpace({"layer1": {"MLP": SimpleFFN}}, MeanPool),
}
