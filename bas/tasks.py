"""A task defines what is predicted: targets, loss, metrics, and the fields that the parts of a split may not share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from bas.corpora import Utterance
from bas.errors import UserError
from bas.reals import Linear, Regression, Shares
from bas.stats import Metric, macro_f1, shares, ua, wa, wf1

__all__ = [
    "EMOTION",
    "MEMBERS",
    "Classification",
    "Linear",
    "Regression",
    "Shares",
    "Task",
    "check_task",
    "has_logits",
    "join_parts",
    "labels_of",
]


class Task(Protocol):
    """What the engine needs from a task. `N` utterances, `O` outputs."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str | tuple[str, ...]:
        """The field of `Utterance`, or the own column, to predict, or several; who has none of them is left out."""

    @property
    def classes(self) -> str | None:
        """The field or own column whose values are the classes; each training part must have them all. None: none."""

    @property
    def disjoint(self) -> tuple[str, ...]:
        """Fields and own columns whose values may not be on both sides of a split."""

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


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


def _are_callables(value: object) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(callable, value.values()))


MEMBERS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a text", _is_text),
    "label": ("a text, or a tuple of texts", lambda value: _is_text(value) or (_are_texts(value) and bool(value))),
    "classes": ("a text or None", lambda value: value is None or _is_text(value)),
    "disjoint": ("a tuple of texts", _are_texts),
    "protocol": ("a text or None", lambda value: value is None or _is_text(value)),
    "pooled": ("True or False", lambda value: isinstance(value, bool)),
    "linears": ("a mapping of functions by name, one or more", _are_callables),
    **dict.fromkeys(
        ("metrics", "outputs", "targets", "loss", "predict", "remarks", "ceiling"), ("a function", callable)
    ),
}
"""By member of `Task`, what it must be."""


def check_task(task: object) -> None:
    """UserError, one line of all that is amiss, unless the object has every member of `Task`, each of its kind."""
    kind = f"a {type(task).__name__}"
    if isinstance(task, type):
        raise UserError(f"task: {task.__name__} is a class; make one: {task.__name__}(...)")
    faults = (
        []
        if all(hasattr(task, member) for member in MEMBERS)
        else [f"it has no {', '.join(member for member in MEMBERS if not hasattr(task, member))}"]
    )
    for member, (what, is_such) in MEMBERS.items():
        if hasattr(task, member) and not is_such(value := getattr(task, member)):
            faults.append(f"{member} must be {what}, not {value!r:.40}")
    if faults:
        raise UserError(
            f"task: {kind}: {'; '.join(faults)}; it must be a task, as Classification(...) is, or subclass one"
        )


def has_logits(task: Task) -> bool:
    """Whether the outputs of a task's models are logits, one for each class, and its targets the numbers of classes."""
    return isinstance(task, Classification)


def labels_of(task: Task) -> tuple[str, ...]:
    """The names of what a task predicts: of fields of `Utterance`, or of own columns of the corpus."""
    return (task.label,) if isinstance(task.label, str) else tuple(task.label)


def join_parts(task: Task, targets: np.ndarray, part_N: np.ndarray) -> np.ndarray:
    """Targets of several test parts, joined as the task's metrics take them; join predictions in the same order.

    part_N: the part number of each utterance. Where metrics are not pooled, it becomes the last column of the targets:
    each part has its own model, and a correlation across parts would measure the offsets between models.
    """
    return targets if task.pooled else np.column_stack([targets, part_N])


@dataclass(frozen=True)
class Classification:
    """One class per utterance; cross-entropy (Fang et al. 2023, eq. 6); WA, UA, weighted and macro F1.

    The default is emotion recognition: it predicts the label, and no speaker is on both sides of a split. The label may
    be any field of an utterance, or a column that the corpus keeps (`--keep age_group`).
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
        classes = sorted({u.get(self.label) for u in utterances})
        if len(classes) < 2:
            raise UserError(f"task {self.name}: {self.label} has one value only ({classes[0]!r}); it needs two classes")
        return tuple(classes)

    def targets(self, utterances: Sequence[Utterance], outputs: Sequence[str]) -> np.ndarray:
        index = {name: i for i, name in enumerate(outputs)}
        return np.array([index[u.get(self.label)] for u in utterances], dtype=np.int64)

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


def _logistic(strength: float) -> Any:
    return LogisticRegression(C=strength, max_iter=2000)


EMOTION = Classification()
