"""Tasks whose targets are real numbers: shares of listeners, and numbers of any range, such as age or arousal.

Axes: N utterances, O outputs, B of a batch, S seeds.

References
    Lin, *Biometrics* 45(1):255, 1989: the concordance correlation coefficient.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn import functional as F

from bas.corpora import Utterance
from bas.errors import UserError
from bas.stats import Metric, shares
from bas.stats.metrics import limited, limits_of

Linear = Callable[[float], Any]
"""Makes a scikit-learn estimator with `fit` and `predict`, from an inverse regularisation."""

OBJECTIVES = ("mse", "ccc")
NEAR = 0.01  # a network that begins nearer to the end of a range hardly learns: the sigmoid is flat there

Array = TypeVar("Array", np.ndarray, Tensor)


class RealOutputs(ABC):
    """What tasks of several real numbers have in common: losses, linear rows, and metrics within each fold.

    Losses and metrics are of shares of each output's range, so that they do not depend on a unit. A subclass is a
    dataclass; it says how a network's outputs become such shares (`squash`) and back (`unsquash`), and where its range
    is not 0 to 1, how shares become numbers (`in_units`) and numbers shares (`unitless`).
    """

    name: str
    objective: str
    mean_row: str
    pooled = False
    classes = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise UserError(f"task {self.name}: objective={self.objective!r} must be one of {', '.join(OBJECTIVES)}")

    @abstractmethod
    def squash(self, outputs_BO: Tensor) -> Tensor:
        """A network's outputs as shares of each range."""

    @abstractmethod
    def unsquash(self, shares_O: Tensor) -> Tensor:
        """The outputs that `squash` makes these shares, all within 0 and 1."""

    def constant(self, targets_NO: np.ndarray) -> Tensor:
        """The outputs `(O,)`, float32, of a network that always says the mean of these targets.

        Where a network begins there, it need not first learn by how much all numbers are off.
        """
        mean_O = torch.from_numpy(np.asarray(self.unitless(targets_NO.astype(float))).mean(0))
        return self.unsquash(mean_O.clamp(NEAR, 1 - NEAR)).float()

    def in_units(self, shares_BO: Tensor) -> Tensor:
        """Shares of each range in the targets' units."""
        return shares_BO

    def unitless(self, x_NO: Array) -> Array:
        """Numbers in the targets' units as shares of each range; a last column, the part's number, stays as it is."""
        return x_NO

    @property
    def linears(self) -> Mapping[str, Linear]:
        return {"ridge regression": _ridge, self.mean_row: _mean}

    def within(self, statistics: Mapping[str, shares.Statistic], outputs: Sequence[str]) -> Mapping[str, Metric]:
        """These statistics as metrics: means over the outputs, and of the first also that of each output."""
        metrics: dict[str, Metric] = {}
        for name, statistic in statistics.items():
            metrics[name] = self._score(shares.within(statistic))
            if len(metrics) == 1 < len(outputs):
                metrics |= {f"{name} {of}": self._score(shares.within(statistic, o)) for o, of in enumerate(outputs)}
        return metrics

    def _score(self, metric: Metric) -> Metric:
        @limited(limits_of(metric))
        def score(targets: np.ndarray, predictions_NO: np.ndarray) -> float:
            return metric(self.unitless(targets), self.unitless(predictions_NO))

        return score

    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        predicted_BO, targets_BO = self.squash(outputs_BO), self.unitless(targets_B).to(outputs_BO.dtype)
        if self.objective == "mse":
            return F.mse_loss(predicted_BO, targets_BO)
        return 1 - shares.concordance(predicted_BO, targets_BO).mean()

    def predict(self, outputs_BO: Tensor) -> np.ndarray:
        return np.asarray(self.in_units(self.squash(outputs_BO)).cpu().numpy())

    def remarks(self, outputs: Sequence[str], targets: np.ndarray, predictions_SN: np.ndarray) -> tuple[str, ...]:
        return shares.constant(outputs, targets, self.unitless(predictions_SN))


@dataclass(frozen=True)
class Shares(RealOutputs):
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
    mean_row = "mean share"

    def squash(self, outputs_BO: Tensor) -> Tensor:
        return outputs_BO.sigmoid()

    def unsquash(self, shares_O: Tensor) -> Tensor:
        return shares_O.logit()

    def metrics(self, outputs: Sequence[str]) -> Mapping[str, Metric]:
        statistics = {"Spearman": shares.spearman, "Pearson": shares.pearson, "1-MAE": shares.closeness}
        return self.within(statistics, outputs)

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


@dataclass(frozen=True)
class Regression(RealOutputs):
    """One or more real numbers, each of a stated range: `Regression({"arousal": (1, 5), "valence": (1, 5)})`.

    The names are own columns of the corpus (`--keep arousal valence`). An output of a network is not held within the
    range: 0 means its middle, and 1 as far above that as the range is wide. Metrics: Lin's concordance (CCC) as a mean
    over targets and for each, Pearson's correlation, and 1-NMAE, where the mean absolute error is a share of the range;
    each within each fold, then averaged over the folds, weighted by their utterances. UserError for a range that is
    none.
    """

    ranges: Mapping[str, tuple[float, float]] = field(hash=False)  # by target, its least and its largest value
    objective: str = "ccc"  # 1 - Lin's concordance over the batch, mean over targets; or mse, of shares of the range
    disjoint: tuple[str, ...] = ("speaker",)
    protocol: str | None = None
    name: str = "regression"
    mean_row = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.ranges, Mapping) or not self.ranges:
            raise UserError(f'task {self.name}: ranges={self.ranges!r} must be by target, such as {{"age": (0, 100)}}')
        for target, limits in self.ranges.items():
            sound = isinstance(limits, Sequence) and len(limits) == 2 and all(map(_is_number, limits))
            if not sound or not limits[0] < limits[1]:
                raise UserError(f"task {self.name}: range of {target}: {limits!r} must be two numbers, the lower first")
        # A run knows its task by its description, in which 1 and 1.0 are two.
        object.__setattr__(
            self, "ranges", {target: (float(low), float(high)) for target, (low, high) in self.ranges.items()}
        )

    @property
    def label(self) -> tuple[str, ...]:
        return tuple(self.ranges)

    def squash(self, outputs_BO: Tensor) -> Tensor:
        return outputs_BO + 0.5

    def unsquash(self, shares_O: Tensor) -> Tensor:
        return shares_O - 0.5

    def in_units(self, shares_BO: Tensor) -> Tensor:
        low_O, high_O = torch.tensor([*self.ranges.values()], dtype=torch.float64, device=shares_BO.device).unbind(1)
        return low_O + (high_O - low_O) * shares_BO

    def unitless(self, x_NO: Array) -> Array:
        rows = [*self.ranges.values(), (0.0, 1.0)][: x_NO.shape[-1]]
        if isinstance(x_NO, Tensor):
            least_O, most_O = torch.tensor(rows, dtype=torch.float64, device=x_NO.device).unbind(1)
            return (x_NO - least_O) / (most_O - least_O)
        low_O, high_O = np.array(rows, dtype=float).T
        shares_NO: np.ndarray = (x_NO - low_O) / (high_O - low_O)
        return shares_NO

    def metrics(self, outputs: Sequence[str]) -> Mapping[str, Metric]:
        return self.within({"CCC": shares.ccc, "Pearson": shares.pearson, "1-NMAE": shares.closeness}, outputs)

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[str, ...]:
        self.targets(utterances, self.label)
        return self.label

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        return np.array([[self._value(u, name) for name in outputs] for u in utterances], dtype=np.float64)

    def _value(self, utterance: Utterance, target: str) -> float:
        """UserError for a value that is missing while another is there, no number, or out of range."""
        value, (low, high) = utterance.get(target), self.ranges[target]
        where = f"task {self.name}: utterance {utterance.id}"
        if value is None:
            has = ", ".join(name for name in self.ranges if utterance.get(name) is not None)
            remedy = "give it every target, or none, which leaves it out"
            raise UserError(f"{where} has {has} and no {target}; {remedy}")
        try:
            number = math.nan if "_" in str(value) else float(value)  # Python takes 1_0 for 10
        except (TypeError, ValueError):
            number = math.nan
        if not low <= number <= high:
            raise UserError(f"{where}: {target}: {value!r} must be a number from {low:g} to {high:g}")
        return number

    def ceiling(
        self, utterances: Sequence[Utterance], outputs: Sequence[str], targets: np.ndarray, chosen_by: Collection[str]
    ) -> shares.Ceiling | None:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
