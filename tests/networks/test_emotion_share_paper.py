"""The published networks of shares: their sizes, by hand; padding; one frame; where attention looks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bas.errors import UserError
from bas.networks.network import build, check, count_parameters
from bas.runs.spaces import load_space
from search_spaces.emotion_share_paper import Attentive, Published, baselines

CONVOLUTIONS = (1024 * 3 + 1) * 768 + (768 * 3 + 1) * 384 + (384 * 3 + 1) * 192
LSTMS = 4 * 512 * (192 + 512 + 2) + 4 * 512 * (512 + 512 + 2)
WITH = CONVOLUTIONS + LSTMS + 2 * 192 + (1024 + 1) * 512 + (513 * 256 + 512) + (257 * 128 + 256) + (129 * 64 + 128) + 65
WITHOUT = CONVOLUTIONS + LSTMS + 513 * 256 + 257 * 64 + 65 * 8 + 9


@pytest.mark.parametrize(
    ("name", "expected"), [("CNN+LSTM+attention, published", WITH), ("CNN+LSTM, published", WITHOUT)]
)
def test_at_the_papers_width_they_have_the_papers_weights(name: str, expected: int) -> None:
    space = baselines[name]
    assert count_parameters(build(space, space.only(), 1024, 1024, 9)) == 9 * expected


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize("dim", [16, 80, 192])
def test_padding_and_the_batch_change_nothing(attention: bool, dim: int) -> None:
    torch.manual_seed(0)
    network = Published(dim, attention).eval()
    lengths = [1, 2, 3, 6, 7]
    utterances = [torch.randn(1, length, dim) for length in lengths]
    alone = [network(x, torch.ones(1, x.shape[1], dtype=torch.bool)) for x in utterances]
    together = torch.full((len(lengths), 10, dim), 7.0)  # what is on padding must not count
    for row, x in zip(together, utterances, strict=True):
        row[: x.shape[1]] = x
    mask = torch.arange(10) < torch.tensor(lengths)[:, None]
    torch.testing.assert_close(network(together, mask), torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_frame_weighs_half_of_its_pair_and_all_weigh_one() -> None:
    torch.manual_seed(1)
    pool = Attentive(32).eval()
    x, mask = torch.randn(4, 7, 32), torch.arange(7) < torch.tensor([[7], [4], [1], [2]])
    weights = pool.weights(x, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(4))
    torch.testing.assert_close(weights[:, 0:6:2][[0, 1, 3]], weights[:, 1:6:2][[0, 1, 3]])
    assert not weights[~mask].any()
    assert weights[0, 6] == 0, "the code's pooling drops a last frame without another"
    assert weights[2, 0] == 1
    assert len(set(weights[0, :6].tolist())) == 3


def test_later_frames_move_the_query() -> None:
    """The query is of the states at the end: the weight of the first pair depends on the last."""
    torch.manual_seed(2)
    pool = Attentive(32).eval()
    x, mask = torch.randn(1, 6, 32), torch.ones(1, 6, dtype=torch.bool)
    changed = x.clone()
    changed[:, 4:] += 3
    ratio = [(w[0, 0] / w[0, 2]).item() for w in (pool.weights(x, mask), pool.weights(changed, mask))]
    assert ratio[0] != pytest.approx(ratio[1], rel=1e-3)


def test_the_space_is_taken_like_any_other() -> None:
    file = load_space("emotion_share_paper")
    assert file.task.name == "emotion-share"
    for space in baselines.values():
        check(space, 192, 192)


def test_a_pool_that_is_searched_has_the_networks_width() -> None:
    space = replace(next(iter(baselines.values())), pool={"published": Attentive})
    with pytest.raises(UserError, match=r"pool published: gives \(2, .*it must give \(2, 192\)"):
        check(space, 192, 192)
