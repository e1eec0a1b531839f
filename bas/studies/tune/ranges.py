"""What a trial of a tuning draws from, and what its parameters mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from bas.errors import UserError
from bas.networks.network import check
from bas.search.gates import softmax
from bas.search.search import STRATEGIES
from bas.space import SearchSpace, keyword_values, with_keyword
from bas.training.settings import Settings

HEADS = (2, 4, 8)
RATE, TEMPERATURE = 10.0, 3.0  # a trial draws between the preset's value / factor and value * factor
DROPOUT, SMOOTHING = 0.5, 0.3  # the highest that are drawn
BLOCK = "block "  # prefix of a slot's name; no setting's name begins with it


def ranges(settings: Settings, space: SearchSpace, in_dim: int, mode: str) -> dict[str, BaseDistribution]:
    """The distributions that a trial draws from, by name: settings, num_heads, and in mode "blocks" one for every slot.

    In mode "search" each trial runs the search, which chooses the blocks. Then the search's own settings are drawn as
    far as its strategy uses them: theta_lr and warmup where architecture parameters are trained, temperatures where
    they are perturbed (darts has none), nothing for single-path and random.

    Every distribution contains the preset's value. Heads and widths that some candidate of the space cannot take are
    left out. Heads are drawn only where all candidates that name them have the same number; otherwise the number of
    heads is part of the choice of a block. Label smoothing is drawn where the settings have some; the value of a trial
    has none of it, so trials compare.
    """
    width, stride = settings.width or in_dim, settings.stride
    own = keyword_values(space, "num_heads")
    heads = sorted({*HEADS, *own}) if len(own) == 1 else []
    heads = [h for h in heads if _works(with_keyword(space, "num_heads", h), in_dim, width)]
    spaces = [with_keyword(space, "num_heads", h) for h in heads] or [space]
    others = [w for w in (width // 2, width * 2) if w and all(_works(s, in_dim, w) for s in spaces)]
    drawn: dict[str, BaseDistribution] = {
        "lr": _around(settings.lr, RATE),
        "dropout": FloatDistribution(0.0, max(DROPOUT, settings.dropout)),
        "width": CategoricalDistribution(sorted([width, *others])),
        "stride": CategoricalDistribution(sorted({max(1, stride // 2), stride, stride * 2})),
    }
    if settings.label_smoothing:
        drawn["label_smoothing"] = FloatDistribution(0.0, max(SMOOTHING, settings.label_smoothing))
    if heads:
        drawn["num_heads"] = CategoricalDistribution(heads)
    if mode == "blocks":
        blocks = {BLOCK + slot: CategoricalDistribution(list(c)) for slot, c in space.searched.items()}
        return {**drawn, **blocks}
    strategy = STRATEGIES.get(settings.strategy)
    if strategy is None or not strategy.theta:
        return drawn
    drawn["theta_lr"] = _around(settings.theta_lr, RATE)
    drawn["warmup"] = CategoricalDistribution(sorted({0, settings.warmup, settings.epochs // 8, settings.epochs // 4}))
    if strategy.draw is not softmax:
        end = "tau_end" if settings.tau_rate is None else "tau_rate"
        drawn |= {name: _around(getattr(settings, name), TEMPERATURE) for name in ("tau_start", end)}
    return drawn


def _around(value: float, factor: float) -> FloatDistribution:
    return FloatDistribution(value / factor, value * factor, log=True)


def _works(space: SearchSpace, in_dim: int, width: int) -> bool:
    try:
        check(space, in_dim, width)
    except UserError:
        return False
    return True


def preset_params(
    settings: Settings, space: SearchSpace, in_dim: int, drawn: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """The parameters of the first trial: the run's settings and the first candidate of every slot."""
    blocks = {BLOCK + slot: next(iter(choices)) for slot, choices in space.searched.items()}
    heads = dict.fromkeys(["num_heads"], next(iter(keyword_values(space, "num_heads")), None))
    values = {**settings.to_dict(), "width": settings.width or in_dim, **heads, **blocks}
    return {name: values[name] for name in drawn}


def apply_params(settings: Settings, space: SearchSpace, params: Mapping[str, Any]) -> tuple[Settings, SearchSpace]:
    """The settings and the space of a trial with these parameters."""
    names = {f.name for f in fields(Settings)}
    if "num_heads" in params:
        space = with_keyword(space, "num_heads", params["num_heads"])
    return replace(settings, **{name: value for name, value in params.items() if name in names}), space
