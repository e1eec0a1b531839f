"""Beyond the paper: no block to four, of five kinds, and four ways to pool; 3,124 different architectures.

The cheapest of them, without a block and with the mean over time, is a linear model of the mean frame.
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
    "attentive statistics": AttentiveStatisticsPool,
    "attention": LastStateAttention,
}
space = SearchSpace(slots={f"layer{i}": layer for i in range(1, 5)}, pool=pool)
