"""A task defines what is predicted: targets, loss, metrics, and the fields that the parts of a split may not share."""

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
from bas.stats import Metric, macro_f1, shares, ua, wa, wf1

Linear = Callable[[float], Any]
"""Makes a scikit-learn estimator with `fit` and `predict`, from an inverse regularisation."""

OBJECTIVES = ("mse", "ccc")


class Task(Protocol):
    """What the engine needs from a task. `N` utterances, `O` outputs."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str:
        """The field of `Utterance` to predict; utterances without it are left out."""

    @property
    def classes(self) -> str | None:
        """The field whose values are the classes; every training part must have them all. None: no classes."""

    @property
    def disjoint(self) -> tuple[str, ...]:
        """Fields of `Utterance` whose values may not be on both sides of a split."""

    @property
    def protocol(self) -> str | None:
        """The split rule of a run that names none; None: the corpus's own."""

    @property
    def pooled(self) -> bool:
        """Whether metrics are computed over the test parts of all folds at once, or within each; see `join_parts`."""

    @property
    def linears(self) -> Mapping[str, Linear]:
        """Linear baseline rows by name, fitted on mean frames; differences are against the first."""

    def metrics(self, outputs: Sequence[str]) -> Mapping[str, Metric]:
        """Metrics by name; the first is the headline unless the corpus names another."""

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[str, ...]:
        """The names of the outputs, for instance the classes."""

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        """`(N, ...)` targets."""

    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        """The mean loss over the batch, a scalar."""

    def predict(self, outputs_BO: Tensor) -> np.ndarray:
        """The predictions that the metrics compare with the targets."""

    def remarks(self, outputs: Sequence[str], targets: np.ndarray, predictions_SN: np.ndarray) -> tuple[str, ...]:
        """Notes on a row's predictions (one row a seed), to show beside its metrics. targets: see `join_parts`."""

    def ceiling(
        self, utterances: Sequence[Utterance], outputs: Sequence[str], targets: np.ndarray, chosen_by: Collection[str]
    ) -> shares.Ceiling | None:
        """The best score a model could reach on these targets (see `join_parts`), by metric; None: unknown or perfect.

        chosen_by: outputs by which the corpus selected its utterances, see `bas.corpora.Corpus`.
        """


def has_logits(task: Task) -> bool:
    """Whether the outputs of a task's models are logits, one for each class, and its targets the numbers of classes."""
    return isinstance(task, Classification)


def join_parts(task: Task, targets: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Targets of several test parts, joined as the task's metrics take them; join predictions in the same order.

    part_N: the part number of each utterance. Where metrics are not pooled, it becomes the last column of the targets:
    each part has its own model, and a correlation across parts would measure the offsets between models.
    """
    return targets if task.pooled else np.column_stack([targets, part_N])


@dataclass(frozen=True)
class Classification:
    """One class per utterance; cross-entropy (Fang et al. 2023, eq. 6); WA, UA, weighted and macro F1.

    The default is emotion recognition: it predicts the label, and no speaker is on both sides of a split.
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
        return {"WA": wa, "UA": ua, "WF1": wf1, "MF1": macro_f1}

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
    """The share of an utterance's listeners that perceived each emotion, 0 to 1 (arXiv 2308.14359).

    The network's outputs pass through a sigmoid. Metrics: Spearman's correlation, as a mean over emotions and for each;
    Pearson's correlation and 1 - MAE, as means over emotions. Each is computed within each fold, then averaged over the
    folds, weighted by their utterances.
    """

    emotions: tuple[str, ...] = ()  # some of the corpus's emotions; (): all
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
        emotions = self.emotions or tuple(name for name, _ in utterances[0].shares)
        for utterance in utterances:
            names = [name for name, _ in utterance.shares]
            missing = set(emotions).difference(names)
            if missing:
                raise UserError(
                    f"task {self.name}: utterance {utterance.id} has no share of {min(missing)!r}; "
                    f"it has {', '.join(names)}"
                )
        return emotions

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
        raters = np.array([u.raters for u in utterances if u.raters is not None])
        metrics = self.metrics(outputs)
        if set(outputs).intersection(chosen_by):
            # Votes cut off at a threshold do not show their noise, nor do means over emotions that include such votes.
            kept = [f"Spearman {output}" for output in outputs if output not in chosen_by]
            metrics = {name: metrics[name] for name in kept if name in metrics}
        return shares.ceiling(targets, raters, metrics) if metrics and len(raters) == len(utterances) else None


def _logistic(strength: float) -> Any:
    return LogisticRegression(C=strength, max_iter=2000)


class _Ridge(Ridge):  # type: ignore[misc]  # scikit-learn has no types
    """Predictions are `(N, O)` even for one output."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.reshape(super().predict(X), (len(X), -1))


class _Mean(DummyRegressor):  # type: ignore[misc]
    """Predictions are `(N, O)` even for one output."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        return np.reshape(super().predict(X), (len(X), -1))


def _ridge(strength: float) -> Any:
    return _Ridge(alpha=1 / strength)


def _mean(strength: float) -> Any:
    return _Mean()


EMOTION = Classification()
