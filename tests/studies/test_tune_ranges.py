"""What a trial may draw: the preset's values among others, and only what the space can be."""

from __future__ import annotations

from functools import partial

from optuna.distributions import CategoricalDistribution, FloatDistribution

from bas.blocks import FFN, MSA, MeanPool
from bas.space import Choices, SearchSpace, keyword_values, with_keyword
from bas.studies.tune.ranges import ranges
from bas.training.settings import RACES, STRATEGIES, settings

THETA = {"theta_lr", "warmup"}
TEMPERATURES = {"tau_start", "tau_end"}


def test_ranges_hold_the_preset_and_only_what_the_space_can_be() -> None:
    layer: Choices = {"MSA": partial(MSA, num_heads=8), "FFN": FFN}
    space = SearchSpace({"a": layer, "b": layer}, MeanPool)
    cpu = settings("cpu")
    drawn = ranges(cpu, space, 80, "blocks")
    assert drawn["width"] == CategoricalDistribution([64, 128, 256])
    assert drawn["stride"] == CategoricalDistribution([4, 8, 16])
    assert drawn["num_heads"] == CategoricalDistribution([2, 4, 8])
    assert drawn["block a"] == drawn["block b"] == CategoricalDistribution(["MSA", "FFN"])
    assert drawn["lr"] == FloatDistribution(1e-4, 1e-2, log=True)
    # 8 heads do not divide half of 40; the paper's width is the encoder's, its stride one frame.
    paper = ranges(settings("paper"), space, 40, "search")
    assert paper["width"] == CategoricalDistribution([40, 80])
    assert paper["stride"] == CategoricalDistribution([1, 2])
    assert "tau_rate" in paper
    assert "block a" not in paper
    for plain in (
        SearchSpace({"a": {"FFN": FFN}}, MeanPool),
        SearchSpace({"a": {"2": partial(MSA, num_heads=2), "4": partial(MSA, num_heads=4)}}, MeanPool),
    ):
        assert "num_heads" not in ranges(cpu, plain, 80, "blocks")
    own: dict[str, set[str]] = {
        strategy: set(ranges(settings("cpu", {"strategy": strategy}), space, 80, "search")) for strategy in STRATEGIES
    }
    shared = {"lr", "dropout", "width", "stride", "num_heads"}
    for name in ("single-path", "random", *RACES):
        assert own.pop(name) == shared
    assert own.pop("darts") == shared | THETA
    assert own == dict.fromkeys(("gumbel", "bilevel", "hard"), shared | THETA | TEMPERATURES)


def test_a_keyword_is_changed_wherever_it_was_given() -> None:
    layer: Choices = {"MSA": partial(MSA, num_heads=8), "plain": MSA, "FFN": FFN}
    space = SearchSpace({"a": layer, "b": layer}, {"mean": MeanPool})
    changed = with_keyword(space, "num_heads", 2)
    assert keyword_values(space, "num_heads") == (8,)
    assert keyword_values(changed, "num_heads") == (2,)
    assert with_keyword(changed, "num_heads", 8).signature == space.signature != changed.signature
    assert with_keyword(space, "kernel", 3).signature == space.signature
    assert [*changed.searched] == [*space.searched]
