"""How many listeners heard each emotion? Two layers and a pool, 32 architectures, against those of arXiv 2308.14359.

The baselines are after Mohapatra et al.'s two models: a CNN that shrinks the features, two layers of LSTM, and behind
them the mean of its states or the last state's attention over all, with one dense layer. Of each, one network for all
emotions and, as in the paper, one for each, which keeps its own best epoch. Their code has other widths, half the
frames behind the CNN, more dense layers, a ReLU at the end, and LayerNorm in other places: `emotion_share_paper`.
"""

from functools import partial

from bas.blocks import FFN, LSTM, MSA, Convolution, ConvStem, LastStateAttention, MeanPool
from bas.space import Choices, Factory, SearchSpace
from bas.tasks import Shares

layer: Choices = {"Conv": partial(Convolution, kernel=5), "LSTM": LSTM, "MSA": partial(MSA, num_heads=8), "FFN": FFN}
space = SearchSpace(slots={"layer1": layer, "layer2": layer}, pool={"mean": MeanPool, "attention": LastStateAttention})
task = Shares()


def published(pool: Factory, each_output: bool) -> SearchSpace:
    lstm: Choices = {"LSTM": partial(LSTM, layers=2)}
    return SearchSpace({"layer1": lstm}, pool, partial(ConvStem, kernel=3, layers=3), each_output)


mean, attention = partial(MeanPool, hidden=True), partial(LastStateAttention, hidden=True)
baselines = {
    "CNN+LSTM+attention": published(attention, each_output=False),
    "CNN+LSTM": published(mean, each_output=False),
    "CNN+LSTM+attention, one an emotion": published(attention, each_output=True),
    "CNN+LSTM, one an emotion": published(mean, each_output=True),
}
