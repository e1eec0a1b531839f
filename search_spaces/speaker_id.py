"""Who speaks? Known speakers, in sentences never trained on: a block and a task of one's own in one file."""

from functools import partial

from torch import Tensor, nn

from bas.blocks import FFN, MSA, MeanPool
from bas.space import Choices, SearchSpace
from bas.tasks import Classification


class Convolution(nn.Module):
    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.over_time = nn.Conv1d(dim, dim, kernel, padding="same")
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = x_BTD.masked_fill(~mask_BT[..., None], 0.0)  # no frame may see padding
        out: Tensor = self.norm(self.over_time(x_BTD.mT).relu().mT)
        return out


layer: Choices = {"Conv": partial(Convolution, kernel=5), "MSA": partial(MSA, num_heads=8), "FFN": FFN}
space = SearchSpace(slots={"layer1": layer, "layer2": layer}, pool=MeanPool)
task = Classification(label="speaker", disjoint=("text",), protocol="text:5", name="speaker-id")
