"""Search by trainings: a race of architectures over replications, led by a surrogate.

A replication is one inner fold of the training speakers and one seed, the same for all architectures: each is trained
on the other inner folds and judged by its loss on this one. So all training speakers judge, not the few of one valid
part, and architectures are compared within a replication. `budget` counts trainings:

1. Linear models, which are solved (`bas.runs.solved`), in every inner fold: the others must beat them. They take
   seconds, and the budget does not count them.
2. The first round, in the first replication: the cheapest architecture, and all that differ from it in one part;
   where the encoder's state is a part and nothing was solved for each, they read the states in turn.
3. Each further round, in the next replication: the BEST so far by the posterior mean of the surrogate
   (`bas.search.surrogate`), and NEW ones by their expected improvement; where nothing was solved, the cheapest again,
   as a control.
4. The race ends with the budget, or before, once every inner fold has judged and no architecture is expected to improve
   the choice by WORTH of the noise of one training. For an ensemble, the last of the budget trains its networks in the
   inner folds that they lack: `finalists`.

What diverged in a training is neither chosen nor a finalist, and its loss counts as the worst of the replication.

The choice is the architecture of those trained with the lowest posterior mean; but a cheaper one is taken if it cannot
be told from that (it is better with a probability of at least TIE), or is not worth telling (its mean is within WORTH
of the noise of one training).

random-search is the baseline (Li and Talwalkar 2019): as many architectures as the budget has trainings, drawn
uniformly, each trained in the first replication; the lowest loss wins. For an ensemble, as many fewer as its networks
need trainings in the other inner folds.

References
    Jones, Schonlau and Welch, *Journal of Global Optimization* 13, 1998: expected improvement.
    Maron and Moore, *Hoeffding Races*, NIPS 1993. Birattari et al., *F-Race*, GECCO 2002: the same blocks for all.
    Li and Talwalkar, *Random Search and Reproducibility for NAS*, UAI 2019.

Axes: see `surrogate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from bas.errors import Diverged
from bas.networks.costs import Costs
from bas.search.surrogate import Posterior, codes, posterior
from bas.space import Architecture, SearchSpace

LARGEST = 20_000
"""Architectures that the surrogate scores: all of a space, or so many drawn from a larger one, beside the first."""

BEST, NEW = 2, 2
"""Architectures of a round; for an ensemble, as many of the best as it takes."""

WORTH = 0.1  # of the noise of one training: a smaller difference is not worth a round, or a costlier architecture
TIE = 1 / 3  # probability that the cheaper of two is the better one, from which on they are not told apart
SAMPLES = 2000  # of the posterior, for probabilities


@dataclass(frozen=True)
class Trial:
    """One training of a race. loss, headline (the metric of verdicts): on held-out utterances, at its best epoch.

    Both are None where it diverged. solved: it is a linear model, and no training of the budget.
    """

    architecture: Mapping[str, str]
    replication: int
    loss: float | None
    headline: float | None
    seconds: float
    solved: bool = False


@dataclass(frozen=True)
class Choice:
    """What a race chose, and how sure it is.

    best: the architecture with the lowest posterior mean; the choice itself unless a cheaper one is as good.
    probability: that the choice has the lowest loss of all that were trained.
    regret: how much lower the lowest of them is expected to be, in units of the loss.
    gain: by how much the most promising architecture was expected to be below the best, before the last round.
    noise: standard deviation of the loss of one training. early: it ended as no architecture promised more.
    """

    architecture: Mapping[str, str]
    best: Mapping[str, str]
    probability: float
    regret: float
    gain: float
    noise: float
    early: bool


class Race:
    """The state of a race: `next` names a training, `add` takes its loss, `choice` ends it.

    solved: the linear models of the space. ensemble: how many trained architectures `finalists` gives at most; 0: none.
    """

    def __init__(
        self,
        space: SearchSpace,
        costs: Costs,
        inner_folds: int,
        budget: int,
        seed: int,
        solved: Sequence[Architecture] = (),
        ensemble: int = 0,
    ) -> None:
        self.budget, self.seed, self.inner_folds, self.ensemble = budget, seed, inner_folds, ensemble
        near = _near_cheapest(space, costs, in_turn=not solved)
        if space.size <= LARGEST:
            others = map(space.distinct, space.architectures())
        else:
            others = map(space.distinct, drawn(space, LARGEST, seed))
        every = dict.fromkeys((*near, *solved, *others))
        self.candidates = sorted(every, key=lambda a: costs.of(a.blocks))
        self.number = {a: i for i, a in enumerate(self.candidates)}
        self.codes_AP = codes(space, self.candidates)
        self.solved = {self.number[a] for a in solved}
        self.diverged = set[int]()
        self.which: list[int] = []
        self.replication: list[int] = []
        self.loss: list[float] = []
        self.gain = np.inf
        self.round = 0
        self.finished = self.early = False
        self.finalists: list[Architecture] = []
        first = sorted({self.number[a] for a in near} - self.solved)[: budget - ensemble * (inner_folds - 1)]
        self.waiting = [(a, r) for a in sorted(self.solved) for r in range(inner_folds)] + [(a, 0) for a in first]

    @property
    def spent(self) -> int:
        """The number of trainings."""
        return sum(a not in self.solved for a in self.which)

    def next(self) -> tuple[Architecture, int] | None:
        """The next training, or None at the end of the race."""
        if not self.waiting and not self.finished:
            if self.spent < self.budget:
                self.waiting = self._round()
            if not self.waiting:
                self.waiting, self.finished = self._last(), True
        if not self.waiting or (self.spent == self.budget and self.waiting[0][0] not in self.solved):
            return None
        number, replication = self.waiting.pop(0)
        return self.candidates[number], replication

    def _round(self) -> list[tuple[int, int]]:
        """Architectures to train in the next replication; none if that is not worth it, or is needed to finish."""
        sound = self._sound()
        of = self._posterior(np.arange(len(self.candidates)), 0)
        gain_A = improvement(of, sound)
        self.gain = float(gain_A.max())
        self.early = self.gain < WORTH * of.noise and self.round + 1 >= self.inner_folds
        if self.early:
            return []
        control = [] if self.solved or 0 in self.diverged else [0]
        order = [int(a) for a in sound[of.mean_A[sound].argsort(kind="stable")] if a not in self.solved]
        best = [a for a in order if a not in control][: max(BEST, self.ensemble)]
        gain_A[self.which] = -np.inf
        new = [int(a) for a in (-gain_A).argsort(kind="stable")[:NEW] if np.isfinite(gain_A[a])]
        asked = [(a, self.round + 1) for a in (*control, *best, *new)]
        final = order[: self.ensemble]
        after = sum(len(self._lacks(a) - {r for b, r in asked if b == a}) for a in final)
        after += self.inner_folds * (self.ensemble - len(final))
        if self.budget - self.spent < (len(asked) + after if self.ensemble else 1):
            return []
        self.round += 1
        return asked

    def _last(self) -> list[tuple[int, int]]:
        """What the best architectures lack to be finalists, as far as the budget goes."""
        tried = np.array(sorted(set(self.which) - self.solved - self.diverged), int)
        if not self.ensemble or not len(tried):
            return []
        of, left = self._posterior(tried, 0), self.budget - self.spent
        asked: list[tuple[int, int]] = []
        order = [int(a) for a in tried[of.mean_A.argsort(kind="stable")]]
        for i, a in enumerate(order):
            lacks, others = sorted(self._lacks(a)), self.ensemble - len(self.finalists) - 1
            rest = sorted(len(self._lacks(b)) for b in order[i + 1 :])[: max(others, 0)]
            if others >= 0 and len(lacks) + sum(rest) <= left - len(asked):  # the others can be completed too
                self.finalists.append(self.candidates[a])
                asked += [(a, r) for r in lacks]
        return asked

    def _lacks(self, number: int) -> set[int]:
        """The inner folds in which an architecture was not trained."""
        done = {r for a, r in zip(self.which, self.replication, strict=True) if a == number}
        return set(range(self.inner_folds)) - done

    def add(self, architecture: Architecture, replication: int, loss: float | None) -> None:
        """Take the loss of a training; None if it diverged."""
        number = self.number[architecture]
        self.which.append(number)
        if loss is None:
            self.diverged.add(number)
            self.finalists = [a for a in self.finalists if a != architecture]
            self.waiting = [(a, r) for a, r in self.waiting if a != number]
        self.replication.append(replication)
        self.loss.append(math.nan if loss is None else loss)

    def choice(self) -> Choice:
        """The architecture to take. The budget must be spent, or `next` have ended the race."""
        tried = self._sound()
        of = self._posterior(tried, SAMPLES)
        best = int(np.argmin(of.mean_A))
        alike_A = (of.samples_SA <= of.samples_SA[:, [best]]).mean(0) >= TIE
        alike_A |= of.mean_A <= of.mean_A[best] + WORTH * of.noise
        chosen = int(np.flatnonzero(alike_A)[0])  # candidates are in the order of their cost
        lowest_S = of.samples_SA.min(1)
        return Choice(
            self.candidates[tried[chosen]].to_dict(),
            self.candidates[tried[best]].to_dict(),
            float((of.samples_SA[:, chosen] <= lowest_S).mean()),
            float((of.samples_SA[:, chosen] - lowest_S).mean()),
            float(self.gain) if np.isfinite(self.gain) else 0.0,
            of.noise,
            self.early,
        )

    def _sound(self) -> np.ndarray:
        """What was trained or solved and has not diverged. Raises Diverged if all that was trained has."""
        sound = sorted(set(self.which) - self.diverged)
        if not set(sound) - self.solved and self.diverged:
            raise Diverged(f"search: all {self.spent} trainings diverged; lower the setting lr")
        return np.array(sound, int)

    def _posterior(self, wanted: np.ndarray, samples: int) -> Posterior:
        loss_N, replication_N = np.array(self.loss), np.array(self.replication)
        for n in np.flatnonzero(np.isnan(loss_N)):  # as the worst of its replication: others have another shift
            here_N = loss_N[replication_N == replication_N[n]]
            loss_N[n] = np.nanmax(loss_N if np.isnan(here_N).all() else here_N)
        known = np.array(self.which), replication_N, loss_N
        return posterior(self.codes_AP, *known, wanted, samples, self.seed)


def _near_cheapest(space: SearchSpace, costs: Costs, in_turn: bool) -> list[Architecture]:
    """The cheapest architecture and those that differ from it in one part.

    in_turn: where the encoder's state is a part, it does not differ alone, but each of the others reads the next state.
    All states cost the same: where no linear model is solved for each, they would fill the first round.
    """
    cheapest = {part: min(row, key=lambda name: row[name]) for part, row in costs.searched.items()}
    states = list(space.state or ()) if in_turn else []
    near = [
        space.distinct(Architecture.of({**cheapest, part: name}))
        for part, row in space.searched.items()
        for name in row
        if not states or part != "state"
    ]
    different = list(dict.fromkeys(near))
    if not states:
        return different
    return [Architecture.of({**one.to_dict(), "state": states[i % len(states)]}) for i, one in enumerate(different)]


def improvement(of: Posterior, tried: np.ndarray) -> np.ndarray:
    """By how much each architecture is expected to be below the best of those tried (Jones et al., eq. 15), `(A,)`."""
    lowest = of.mean_A[tried].min()
    sd_A = np.maximum(of.sd_A, 1e-12)
    z_A = (lowest - of.mean_A) / sd_A
    return np.asarray(sd_A * (z_A * norm.cdf(z_A) + norm.pdf(z_A)))


def drawn(space: SearchSpace, count: int, seed: int) -> list[Architecture]:
    """Architectures drawn uniformly, with replacement."""
    rng = np.random.default_rng(seed)
    parts: Sequence[tuple[str, list[str]]] = [(part, list(row)) for part, row in space.searched.items()]
    return [
        Architecture(tuple((part, names[int(rng.integers(len(names)))]) for part, names in parts)) for _ in range(count)
    ]


def random_search(
    space: SearchSpace, budget: int, seed: int, train: Callable[[Architecture], float | None]
) -> list[Architecture]:
    """`budget` architectures drawn uniformly, each once, the best first; without those that diverged.

    train: gives the loss of one, None if it diverged. Raises Diverged if all have.
    """
    losses = [(train(architecture), architecture) for architecture in map(space.distinct, drawn(space, budget, seed))]
    sound = [(loss, architecture) for loss, architecture in losses if loss is not None]
    if not sound:
        raise Diverged(f"search: all {budget} trainings diverged; lower the setting lr")
    return list(dict.fromkeys(a for _, a in sorted(sound, key=lambda pair: pair[0])))
