"""The layer to use on a new corpus, estimated from few labels: a question that *Decoding Emotions* leaves open.

Each fold of a probe draws only from its training speakers. See `bas.runs.layers` for the estimate.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

import numpy as np

from bas.runs.jobs import keep
from bas.runs.layers import best, cross_validate, middle
from bas.runs.plan import BEST, Job, Kind
from bas.runs.session import Session
from bas.studies.probe.results import FewResult

COUNTS = (5, 10, 20)
"""How many utterances of each class are drawn."""

IN_ALL = (20, 40, 80)
"""How many are drawn of a task without classes, in all: as many as of four classes."""

DRAWS = 10
ALL = "all"


def few_job(fold: int) -> Job:
    return Job(Kind.FEW, BEST, fold, 0)


def run_few(session: Session, job: Job) -> None:
    """Estimate a fold's layer from COUNTS utterances of each class, DRAWS times, and once from all; write the result.

    Without classes, from IN_ALL utterances. A count that no class exceeds, or not all utterances, is skipped. The
    estimate from all utterances is the layer that `layer=best` takes.
    """
    run, states = session.run, session.run.store.info.layers
    x_ULD, targets_U, units_U = session.training_means(job.fold)
    metric = run.metrics[run.headline]
    # Without classes all are drawn alike, as of a single one.
    class_U = targets_U if run.task.classes else np.zeros(len(targets_U), int)

    def estimate(drawn: np.ndarray) -> int:
        if not run.task.classes and len(np.unique(targets_U[drawn], axis=0)) == 1:
            return middle(states)  # as rare emotions have it: a share of 0 in all of a few
        drawn_from = x_ULD[drawn], targets_U[drawn], units_U[drawn]
        return best(cross_validate(*drawn_from, states, run.task, metric, run.plan.settings.class_weights))

    layers: dict[str, list[int]] = {}
    most = int(np.unique(class_U, return_counts=True)[1].max())
    for count in COUNTS if run.task.classes else IN_ALL:
        if count >= most:  # a draw would be all utterances
            continue
        rngs = [Random(f"few/{job.fold}/{draw}") for draw in range(DRAWS)]
        layers[str(count)] = [estimate(_draw(class_U, count, rng)) for rng in rngs]
        session.tick()
    layers[ALL] = [estimate(np.arange(len(targets_U)))]
    keep(session, job, FewResult({count: tuple(of) for count, of in layers.items()}))


def _draw(class_U: np.ndarray, count: int, rng: Random) -> np.ndarray:
    """Positions of `count` utterances of each class, or of all where a class has fewer.

    The draws from equal generators are nested: that of a smaller count lies in that of a larger one.
    """
    members = defaultdict(list)
    for position in rng.sample(range(len(class_U)), len(class_U)):
        members[int(class_U[position])].append(position)
    return np.array(sorted(position for positions in members.values() for position in positions[:count]))
