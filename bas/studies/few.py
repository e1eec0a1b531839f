"""The layer to read on a new corpus, estimated from few labels: which of the states does best in cross-validation.

The question *Decoding Emotions* leaves open. In each fold of a probe only training speakers are drawn from. The
estimate is a linear model on standardised mean frames, cross-validated over whole speakers where the drawn ones are of
several.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from bas.bench import Bench
from bas.protocols import field_of
from bas.run import BEST, MIX, Job
from bas.train import keep

COUNTS = (5, 10, 20)
"""Utterances of each class."""

DRAWS = 10
STRENGTH = 0.03  # inverse regularisation: the middle of `train.STRENGTHS`; nothing is left to choose another on
FOLDS = 5


def few_job(fold: int) -> Job:
    return Job("few", BEST, fold, 0)


def middle(states: Sequence[int]) -> int:
    """What one would read without any label."""
    return states[len(states) // 2]


def run_few(bench: Bench, job: Job) -> None:
    """Estimate a fold's layer from COUNTS utterances of each class, DRAWS times, and from all; write the result."""
    if bench.run.done(job.name):
        return
    torch.set_num_threads(1)
    run, parts = bench.run, bench.run.protocol.folds[job.fold]
    states = run.store.info.layers
    data = bench.derived(MIX, parts, run.plan.settings)
    members = bench.members((*parts.fit, *parts.valid))
    x_ULD = data.mean_frames(members).unflatten(1, (len(states), -1)).numpy()
    targets_U = run.targets[members.numpy()]
    disjoint = run.task.disjoint[0] if run.task.disjoint else "id"
    units_U = np.array([field_of(run.utterances[int(u)], disjoint) or run.utterances[int(u)].id for u in members])
    found: dict[str, list[int]] = {}
    with threadpool_limits(1):
        for count in COUNTS:
            draws = [_draw(targets_U, count, Random(f"few/{job.fold}/{draw}")) for draw in range(DRAWS)]
            found[str(count)] = [_estimate(bench, x_ULD[d], targets_U[d], units_U[d], states) for d in draws]
            bench.tick()
        found["all"] = [_estimate(bench, x_ULD, targets_U, units_U, states)]
    keep(bench, job, {"layers": found})


def _draw(targets_U: np.ndarray, count: int, rng: Random) -> np.ndarray:
    """Positions of `count` of each class, or of all there are; draws of one generator are nested by count."""
    members = defaultdict(list)
    for position in rng.sample(range(len(targets_U)), len(targets_U)):
        members[int(targets_U[position])].append(position)
    return np.array(sorted(position for drawn in members.values() for position in drawn[:count]))


def _estimate(
    bench: Bench, x_ULD: np.ndarray, targets_U: np.ndarray, units_U: np.ndarray, states: Sequence[int]
) -> int:
    """The state with the best headline in cross-validation; of equals, the one nearest to the middle."""
    units = len(set(units_U))
    # By class only where one speaker has said all that is labelled.
    folds = GroupKFold(min(FOLDS, units)) if units > 1 else StratifiedKFold(FOLDS)
    metric = bench.run.task.metrics[bench.run.headline]
    scores: dict[int, float] = {}
    for index, state in enumerate(states):
        model = make_pipeline(StandardScaler(), bench.run.task.linear(STRENGTH))
        predicted = cross_val_predict(model, x_ULD[:, index], targets_U, cv=folds, groups=units_U)
        scores[state] = metric(targets_U, predicted)
    return max(states, key=lambda state: (scores[state], -abs(state - middle(states)), -state))
