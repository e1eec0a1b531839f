"""A task owns what is predicted: targets, loss, metrics, and the fields that no split may share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor
from torch.nn import functional as F

from bas.corpora import Utterance
from bas.errors import UserError
from bas.stats import Metric, shares, ua, wa, wf1

Linear = Callable[[float], Any]
"""Makes a scikit-learn estimator with `fit` and `predict`, from an inverse regularisation."""

OBJECTIVES = ("mse", "ccc")


class Task(Protocol):
    """What the engine asks of a task. `N` utterances, `O` outputs."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str:
        """The field of `Utterance` that is predicted; utterances without it are left out."""

    @property
    def classes(self) -> str | None:
        """The field whose values are classes: each is due in every training part. None: there are none."""

    @property
    def disjoint(self) -> tuple[str, ...]:
        """Fields of `Utterance` whose values may never stand on both sides of a split."""

    @property
    def protocol(self) -> str | None:
        """The rule a run is split by unless it names another; None: the corpus's own."""

    @property
    def pooled(self) -> bool:
        """Whether the metrics are taken over all folds' test parts at once; else within each, see `together`."""

    @property
    def linears(self) -> Mapping[str, Linear]:
        """By name, the rows that keep everyone honest, fitted on mean frames; differences are against the first."""

    def metrics(self, outputs: Sequence[str]) -> Mapping[str, Metric]:
        """By name, the first is the headline unless the corpus has another."""

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[str, ...]:
        """The name of each output, for instance the classes."""

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        """`(N, ...)` targets."""

    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        """A scalar, the mean over the batch."""

    def predict(self, outputs_BO: Tensor) -> np.ndarray:
        """What the metrics compare with the targets."""

    def remarks(self, outputs: Sequence[str], targets: np.ndarray, predictions_SN: np.ndarray) -> tuple[str, ...]:
        """What must be told of a row's predictions by seed, beside its metrics. targets: of `together`."""

    def ceiling(
        self, utterances: Sequence[Utterance], outputs: Sequence[str], targets: np.ndarray, chosen_by: Collection[str]
    ) -> shares.Ceiling | None:
        """What the best of models could reach on these targets (of `together`), by metric; None: unknown, or all.

        chosen_by: outputs that the utterances were chosen by, see `bas.corpora.Corpus`.
        """


def together(task: Task, targets: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Targets of several test parts as the task's metrics take them, beside predictions put together alike.

    part_N: the part of each. Where metrics are not pooled, its number is one more column: each part has a model of its
    own, and a correlation over several would measure how those are offset.
    """
    return targets if task.pooled else np.column_stack([targets, part_N])


@dataclass(frozen=True)
class Classification:
    """One class per utterance; cross-entropy (Fang et al. 2023, eq. 6); WA, UA and weighted F1.

    The default is emotion recognition: the label, no speaker on both sides of a split.
    """

    label: str = "label"
    disjoint: tuple[str, ...] = ("speaker",)
    protocol: str | None = None
    name: str = "emotion"
    pooled = True

    @property
    def classes(self) -> str | None:
        return self.label

    @property
    def linears(self) -> Mapping[str, Linear]:
        return {"logistic regression": _logistic}

    def metrics(self, outputs: Sequence[str]) -> Mapping[str, Metric]:
        return {"WA": wa, "UA": ua, "WF1": wf1}

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[str, ...]:
        classes = sorted({getattr(u, self.label) for u in utterances})
        if len(classes) < 2:
            raise UserError(f"task {self.name}: {self.label} has one value only ({classes[0]!r}); it needs two classes")
        return tuple(classes)

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        index = {name: i for i, name in enumerate(outputs)}
        return np.array([index[getattr(u, self.label)] for u in utterances], dtype=np.int64)

    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        return F.cross_entropy(outputs_BO, targets_B)

    def predict(self, outputs_BO: Tensor) -> np.ndarray:
        return np.asarray(torch.argmax(outputs_BO, dim=-1).cpu().numpy())

    def remarks(self, outputs: Sequence[str], targets: np.ndarray, predictions_SN: np.ndarray) -> tuple[str, ...]:
        return ()

    def ceiling(
        self, utterances: Sequence[Utterance], outputs: Sequence[str], targets: np.ndarray, chosen_by: Collection[str]
    ) -> shares.Ceiling | None:
        return None


@dataclass(frozen=True)
class Shares:
    """How many of an utterance's listeners perceived each emotion, each share 0 to 1 (arXiv 2308.14359).

    A network's outputs pass through a sigmoid. Metrics: Spearman's correlation, the mean over emotions and of each;
    Pearson's and 1 - MAE, means over emotions. All are taken within each fold and averaged, weighted by its utterances.
    """

    emotions: tuple[str, ...] = ()  # which of the corpus's; (): all it has
    objective: str = "mse"  # or ccc: 1 - Lin's concordance over the batch, mean over emotions
    disjoint: tuple[str, ...] = ("speaker",)
    protocol: str | None = None
    name: str = "emotion-share"
    label: str = "shares"
    pooled = False
    classes = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UserError(f"task {self.name}: objective={self.objective!r} must be one of {', '.join(OBJECTIVES)}")

    @property
    def linears(self) -> Mapping[str, Linear]:
        return {"ridge regression": _ridge, "mean share": _mean}

    def metrics(self, outputs: Sequence[str]) -> Mapping[str, Metric]:
        each = {f"Spearman {name}": shares.within(shares.spearman, o) for o, name in enumerate(outputs)}
        return {
            "Spearman": shares.within(shares.spearman),
            **(each if len(outputs) > 1 else {}),
            "Pearson": shares.within(shares.pearson),
            "1-MAE": shares.within(shares.closeness),
        }

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[str, ...]:
        found = tuple(name for name, _ in utterances[0].shares)
        wanted = self.emotions or found
        for utterance in utterances:
            lacking = set(wanted).difference(name for name, _ in utterance.shares)
            if lacking:
                held = ", ".join(name for name, _ in utterance.shares)
                raise UserError(
                    f"task {self.name}: utterance {utterance.id} has no share of {min(lacking)!r}; it has {held}"
                )
        return wanted

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        rows = [dict(u.shares) for u in utterances]
        return np.array([[row[name] for name in outputs] for row in rows], dtype=np.float32)

    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        predicted_BO = outputs_BO.sigmoid()
        if self.objective == "mse":
            return F.mse_loss(predicted_BO, targets_B)
        return 1 - shares.concordance(predicted_BO, targets_B).mean()

    def predict(self, outputs_BO: Tensor) -> np.ndarray:
        return np.asarray(outputs_BO.sigmoid().cpu().numpy())

    def remarks(self, outputs: Sequence[str], targets: np.ndarray, predictions_SN: np.ndarray) -> tuple[str, ...]:
        return shares.constant(outputs, targets, predictions_SN)

    def ceiling(
        self, utterances: Sequence[Utterance], outputs: Sequence[str], targets: np.ndarray, chosen_by: Collection[str]
    ) -> shares.Ceiling | None:
        raters = [u.raters for u in utterances]
        known = np.array([r for r in raters if r is not None])
        metrics = self.metrics(outputs)
        if set(outputs).intersection(chosen_by):
            # Votes that were cut off at a threshold tell nothing of their noise; nor do means over them.
            kept = [f"Spearman {output}" for output in outputs if output not in chosen_by]
            metrics = {name: metrics[name] for name in kept if name in metrics}
        return shares.ceiling(targets, known, metrics) if metrics and len(known) == len(raters) else None


def _logistic(strength: float) -> Any:
    return LogisticRegression(C=strength, max_iter=2000)


class _Ridge(Ridge):  # type: ignore[misc]  # scikit-learn has no types
    """Of one output too, predictions are `(N, 1)`."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.reshape(super().predict(X), (len(X), -1))


class _Mean(DummyRegressor):  # type: ignore[misc]
    """Likewise."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.reshape(super().predict(X), (len(X), -1))


def _ridge(strength: float) -> Any:
    return _Ridge(alpha=1 / strength)


def _mean(strength: float) -> Any:
    return _Mean()


EMOTION = Classification()
