"""A task owns what is predicted: targets, loss, metrics, and the fields that no split may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from bas.corpora import Utterance
from bas.errors import UserError
from bas.stats import Metric, ua, wa, wf1


class Task(Protocol):
    """What the engine asks of a task. `N` utterances, `O` outputs."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str:
        """The field of `Utterance` that is predicted; utterances without it are left out."""

    @property
    def disjoint(self) -> tuple[str, ...]:
        """Fields of `Utterance` whose values may never stand on both sides of a split."""

    @property
    def protocol(self) -> str | None:
        """The rule a run is split by unless it names another; None: the corpus's own."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """By name, the first is the headline."""

    def outputs(self, utterances: Sequence[Utterance]) -> tuple[str, ...]:
        """The name of each output, for instance the classes."""

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        """`(N, ...)` targets."""

    def loss(self, outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        """A scalar, the mean over the batch."""

    def predict(self, outputs_BO: Tensor) -> np.ndarray:
        """What the metrics compare with the targets."""

    def linear(self, strength: float) -> Any:
        """A scikit-learn estimator with `fit` and `predict`: the row that keeps everyone honest."""


@dataclass(frozen=True)
class Classification:
    """One class per utterance; cross-entropy (Fang et al. 2023, eq. 6); WA, UA and weighted F1.

    The default is emotion recognition: the label, no speaker on both sides of a split.
    """

    label: str = "label"
    disjoint: tuple[str, ...] = ("speaker",)
    protocol: str | None = None
    name: str = "emotion"

    @property
    def metrics(self) -> Mapping[str, Metric]:
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

    def linear(self, strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=2000)


EMOTION = Classification()
