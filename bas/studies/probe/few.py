"""The layer to read on a new corpus, estimated from few labels: the question *Decoding Emotions* leaves open.

In each fold of a probe only training speakers are drawn from; see `layers` for the estimate.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

import numpy as np

from bas.runs.jobs import keep
from bas.runs.layers import best, cross_validated
from bas.runs.plan import BEST, Job
from bas.runs.session import Session

COUNTS = (5, 10, 20)
"""Utterances of each class."""

DRAWS = 10
ALL = "all"


def few_job(fold: int) -> Job:
    return Job("few", BEST, fold, 0)


def run_few(session: Session, job: Job) -> None:
    """Estimate a fold's layer from COUNTS utterances of each class, DRAWS times, and from all; write the result.

    A count that no class has more than is left out. The estimate from all is what `layer=best` takes.
    """
    run, states = session.run, session.run.store.info.layers
    x_ULD, targets_U, units_U = session.training_means(job.fold)
    metric = run.metrics[run.headline]

    def estimate(drawn: np.ndarray) -> int:
        return best(cross_validated(x_ULD[drawn], targets_U[drawn], units_U[drawn], states, run.task, metric))

    found: dict[str, list[int]] = {}
    most = int(np.unique(targets_U, return_counts=True)[1].max())
    for count in COUNTS:
        if count >= most:  # that would be all of them
            continue
        rngs = [Random(f"few/{job.fold}/{draw}") for draw in range(DRAWS)]
        found[str(count)] = [estimate(_draw(targets_U, count, rng)) for rng in rngs]
        session.tick()
    found[ALL] = [estimate(np.arange(len(targets_U)))]
    keep(session, job, {"layers": found})


def _draw(targets_U: np.ndarray, count: int, rng: Random) -> np.ndarray:
    """Positions of `count` of each class, or of all there are; draws of one generator are nested by count."""
    members = defaultdict(list)
    for position in rng.sample(range(len(targets_U)), len(targets_U)):
        members[int(targets_U[position])].append(position)
    return np.array(sorted(position for drawn in members.values() for position in drawn[:count]))
