"""In place of architectures without a block: linear models of a summary over time, solved rather than trained.

Gradient descent with the rate and the epochs of a deep network ends far from the optimum of a linear model, which is
one and can be computed; so "nothing more than a linear model" would lose a search for the wrong reason. The summary is
of the frames as the network sees them, after the stride; the linear row's mean is taken before it.

Axes: U utterances, K values of a summary, O outputs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from bas.networks.linear import LinearModel, OfState, Summary
from bas.networks.network import varying
from bas.protocols import Fold
from bas.runs.linear import STRENGTHS
from bas.runs.session import Session
from bas.space import Architecture, SearchSpace
from bas.training.batches import Data
from bas.training.loop import Record, outputs
from bas.training.settings import Settings

KEPT = 2**25
"""Weights of solved models that a process keeps for the seeds that follow: 128 MiB of them."""

SMALLEST = 1e-10  # of the largest eigenvalue: below it there is rounding


@dataclass(frozen=True)
class Solved:
    """A linear model and the data that it sees; record: as of an epoch of a training, the only one."""

    network: LinearModel
    data: Data
    record: Record
    seconds: float


def solvable(session: Session, space: SearchSpace, architecture: Architecture) -> Summary | None:
    """The summary of which a linear model takes the architecture's place; None: it has a block, or the task no classes.

    Only for classes is the loss of networks, cross-entropy, one with which a linear model has a single optimum.
    """
    summary = space.summary(architecture) if session.run.task.classes is not None else None
    if summary is None or space.state is None:
        return summary
    state = space.state[architecture["state"]]()
    return OfState(summary, state.index, state.states)


def solve(
    session: Session, summary: Summary, settings: Settings, fold: int, splits: Sequence[Fold], whole: Fold
) -> Solved:
    """Logistic regression on a summary, fitted on the fit part of `whole`.

    Its inverse regularisation, of `linear.STRENGTHS`, has the lowest mean loss on the valid parts of `splits` when it
    is fitted on their fit parts. No test part is used. Where there are several seeds, those that follow in this process
    have it from here, with the seconds that it took, which `session.spared` counts.
    """
    read = settings.stride, settings.normalise, settings.class_weights, settings.label_smoothing
    key = summary, read, fold, *splits, whole
    if key in session.solved:
        network, record, seconds = session.solved[key]
        session.spared += seconds
        return Solved(network, session.derived(session.layer(fold), whole, settings), record, seconds)
    solved = _solve(session, summary, settings, fold, splits, whole)
    kept = sum(network.head.weight.numel() for network, _, _ in session.solved.values())
    if len(session.run.plan.seeds) > 1 and kept + solved.network.head.weight.numel() <= KEPT:
        session.solved[key] = solved.network, solved.record, solved.seconds
    return solved


def _solve(
    session: Session, summary: Summary, settings: Settings, fold: int, splits: Sequence[Fold], whole: Fold
) -> Solved:
    begun = time.monotonic()
    held: dict[float, list[Record]] = {strength: [] for strength in STRENGTHS}
    for parts in splits:  # one at a time: each is a copy of the summaries
        problem = _Problem(session, summary, settings, fold, parts)
        for strength in STRENGTHS:
            held[strength].append(problem.scores(problem.solution(strength), parts.valid))
    valid = {s: {name: float(np.mean([one[name] for one in of])) for name in of[0]} for s, of in held.items()}
    best = min(STRENGTHS, key=lambda strength: (valid[strength]["loss"], strength))
    if problem.parts != whole:
        problem = _Problem(session, summary, settings, fold, whole)
    network = problem.solution(best)
    loss = problem.scores(network, whole.fit)["loss"]
    record = {"epoch": 0, "loss": loss, "valid": valid[best], "score": -valid[best]["loss"]}
    return Solved(network, problem.data, record, time.monotonic() - begun)


class _Summaries(nn.Module):
    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary

    def forward(self, x_BTI: Tensor, mask_BT: Tensor) -> Tensor:
        with torch.autocast(x_BTI.device.type, enabled=False):  # as in `LinearModel`
            return self.summary(x_BTI.float(), mask_BT)


def _basis(z_UK: np.ndarray) -> np.ndarray:
    """Orthonormal directions of all rows, `(R, K)`, from their inner products: K may be tens of thousands."""
    values_U, vectors_UU = np.linalg.eigh(z_UK @ z_UK.T)
    kept = values_U > SMALLEST * values_U[-1]
    kept[-1] = True  # also where nothing varies
    return np.asarray((vectors_UU[:, kept] / np.sqrt(np.maximum(values_U[kept], SMALLEST))).T @ z_UK)


class _Problem:
    """The summaries of one split, standardised by its fit part."""

    def __init__(self, session: Session, summary: Summary, settings: Settings, fold: int, parts: Fold) -> None:
        self.session, self.parts, self.of = session, parts, summary
        self.data = session.derived(session.layer(fold), parts, settings)
        # Of one of many states the others are not read.
        self.read = self.data.of_state(summary.index) if isinstance(summary, OfState) else self.data
        self.summary = _Summaries(summary.summary if isinstance(summary, OfState) else summary).eval()
        self._known: dict[tuple[str, ...], Tensor] = {}
        x_UK = self._of(parts.fit).cpu().double()
        size_K = x_UK.square().mean(0).sqrt()
        self.mean_K, self.std_K = x_UK.mean(0), varying(x_UK.std(0, correction=0), size_K)
        scale_K = torch.where(self.std_K > 0, 1 / self.std_K, 1.0)
        z_UK = ((x_UK - self.mean_K) * scale_K).numpy()
        # With more values than utterances, the same optimum in fewer dimensions: an L2 penalty does not see a rotation.
        self.basis_RK = _basis(z_UK) if z_UK.shape[1] > len(z_UK) else None
        self.z_UR = z_UK if self.basis_RK is None else z_UK @ self.basis_RK.T
        fit_part = session.members(parts.fit)
        self.targets_U, self.class_weights = session.run.targets[fit_part.numpy()], settings.class_weights
        self.loss = session.run.losses(settings, fit_part).held

    def _of(self, ids: tuple[str, ...]) -> Tensor:
        if ids not in self._known:
            self._known[ids] = outputs(self.summary, self.read, self.session.members(ids))
        return self._known[ids]

    def solution(self, strength: float) -> LinearModel:
        names_C = np.unique(self.targets_U)
        if len(names_C) == 1:  # as where each speaker has one label: nothing to learn but that
            weight_CR, bias_C = np.zeros((1, self.z_UR.shape[1])), np.zeros(1)
        else:
            weight = None if self.class_weights == "none" else self.class_weights
            model = LogisticRegression(C=strength, max_iter=2000, class_weight=weight).fit(self.z_UR, self.targets_U)
            weight_CR, bias_C = model.coef_, model.intercept_
        if len(names_C) == 2:  # one row, for the second class
            weight_CR, bias_C = np.vstack([0 * weight_CR, weight_CR]), np.array([0.0, bias_C[0]])
        network = LinearModel(self.of, self.data.states * self.data.dim, len(self.session.run.outputs))
        network.standardise.set(self.mean_K.float(), self.std_K.float())
        classes = torch.from_numpy(names_C)
        with torch.no_grad():
            # A class without an utterance here is less likely than one with one.
            network.head.weight.zero_()
            network.head.bias.fill_(float(bias_C.min() - np.log(len(self.targets_U))))
            weight_CK = weight_CR if self.basis_RK is None else weight_CR @ self.basis_RK
            network.head.weight[classes] = torch.from_numpy(weight_CK).float()
            network.head.bias[classes] = torch.from_numpy(bias_C).float()
        return network.to(self.session.device).eval()

    @torch.inference_mode()
    def scores(self, network: LinearModel, ids: tuple[str, ...]) -> Record:
        members, task = self.session.members(ids), self.session.run.task
        outputs_BO = network.of_summary(self._of(ids))
        loss = float(self.loss(outputs_BO, self.data.targets_U[members]))
        return {"loss": loss, **self.session.metrics(task.predict(outputs_BO), members)}
