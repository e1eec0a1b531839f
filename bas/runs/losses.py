"""What a training lowers, and what it is judged by: the task's loss, under class weights and label smoothing.

The engine gets both as functions of outputs `(B, O)` and targets `(B,)`. Both are means over utterances, each times the
weight of its class, and not divided by the sum of the weights: so the loss of a batch does not depend on what else is
in it, and trainings that are stacked, which add the losses of single utterances, have the same.

    weight of class c = n / (C n_c),    n utterances of the fit part, n_c of class c, C classes there

as scikit-learn's "balanced". The held-out part is judged under the weights of the fit part, without smoothing: a loss
that is never told how far to be from certain ranks what was trained under several smoothings by one measure.

Axes: B utterances of a batch, U of a fit part, O classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from bas.errors import UserError
from bas.tasks import Classification, Linear, Task
from bas.training.settings import ClassWeights, Settings
from bas.training.stack import Loss


class Losses(NamedTuple):
    """fit: of the batches that train. held: of utterances that are held out, by which epochs and models are chosen."""

    fit: Loss
    held: Loss


def losses(task: Task, settings: Settings, targets_U: np.ndarray, classes: int) -> Losses:
    """The losses of a training whose fit part has these targets; the task's own where no setting changes it.

    settings: such as `check_loss` allows.
    """
    if settings.class_weights == "none" and not settings.label_smoothing:
        return Losses(task.loss, task.loss)
    if settings.class_weights == "none":
        return Losses(_loss(torch.ones(classes), settings.label_smoothing), task.loss)
    weights_O = balanced(targets_U, classes)
    return Losses(_loss(weights_O, settings.label_smoothing), _loss(weights_O, 0.0))


def balanced(targets_U: np.ndarray, classes: int) -> Tensor:
    """The weight of each class, `(O,)` float32; 1 of one without an utterance here, which only a held-out part has."""
    count_O = np.bincount(targets_U, minlength=classes)
    present = int((count_O > 0).sum())
    weights_O = np.where(count_O > 0, len(targets_U) / (present * np.maximum(count_O, 1)), 1.0)
    return torch.from_numpy(weights_O).float()


def _loss(weights_O: Tensor, smoothing: float) -> Loss:
    """Cross-entropy with the true class at 1 - smoothing + smoothing / O (Szegedy et al. 2016), weighted by it."""

    def loss(outputs_BO: Tensor, targets_B: Tensor) -> Tensor:
        each_B = F.cross_entropy(outputs_BO, targets_B, reduction="none", label_smoothing=smoothing)
        return (weights_O.to(outputs_BO.device)[targets_B] * each_B).mean()

    return loss


def weighted(linear: Linear, class_weights: ClassWeights) -> Linear:
    """The task's linear model, which a fit weighs by the classes of its own utterances."""
    if class_weights == "none":
        return linear
    return lambda strength: linear(strength).set_params(class_weight=class_weights)


def check_loss(task: Task, settings: Settings) -> None:
    """Raise UserError for class weights or label smoothing of a task whose loss or linear models cannot have them."""
    given = {"class_weights": settings.class_weights, "label_smoothing": settings.label_smoothing}
    for name, value in given.items():
        if value in ("none", 0.0):
            continue
        if task.classes is None:
            raise UserError(f"setting {name}={value}: task {task.name} has no classes; leave it out")
        own = not isinstance(task, Classification) or type(task).loss is not Classification.loss
        if own or not all(isinstance(linear(1.0), LogisticRegression) for linear in task.linears.values()):
            raise UserError(f"setting {name}={value}: task {task.name} has a loss or a linear model of its own")
