"""The contracts of a task, on made-up utterances: each returns, or raises BrokenContractError with what was seen."""

from __future__ import annotations

import math
from difflib import get_close_matches

import numpy as np
import torch

from bas.corpora.base import KNOWN
from bas.tasks import join_parts, labels_of
from bas.testing.subject import BrokenContractError, Subject, close

ALIKE = 0.8  # of names, from 0 to 1


def targets_depend_on_their_own_utterance(subject: Subject) -> None:
    """Outputs have distinct names in a fixed order; a target depends on its own utterance alone."""
    task, utterances = subject.task, subject.utterances()
    outputs = task.outputs(utterances)
    if not outputs or len(set(outputs)) < len(outputs) or not all(isinstance(o, str) and o for o in outputs):
        raise BrokenContractError(f"outputs: {outputs!r} must be distinct names")
    if task.outputs(utterances[::-1]) != outputs:
        raise BrokenContractError("outputs: another order of the utterances gives another order of the outputs")
    targets = task.targets(utterances, outputs)
    if len(targets) != len(utterances):
        raise BrokenContractError(f"targets: {len(targets)} rows for {len(utterances)} utterances")
    if not np.isfinite(targets).all():
        raise BrokenContractError("targets: not all are finite")
    if not np.array_equal(task.targets(utterances[::-1], outputs), targets[::-1]):
        raise BrokenContractError("targets: another order of the utterances changes an utterance's target")


def splits_go_by_fields_of_an_utterance(subject: Subject) -> None:
    """`label`, `classes` and `disjoint` are fields of an utterance, or columns whose names are not almost those."""
    task = subject.task
    named = {"classes": task.classes, **{f"label {name}": name for name in labels_of(task)}}
    for part, field in (named | {f"disjoint {name}": name for name in task.disjoint}).items():
        if field is not None and field not in KNOWN and (near := get_close_matches(field, KNOWN, 1, ALIKE)):
            raise BrokenContractError(f"{part}: {field!r} must be {near[0]}, or a column of quite another name")


def the_loss_is_a_mean(subject: Subject) -> None:
    """The loss is a finite mean over the batch: the same batch twice, in any order, gives the same."""
    task, utterances = subject.task, subject.utterances()
    outputs = task.outputs(utterances)
    targets_B = torch.from_numpy(task.targets(utterances, outputs))
    generator = torch.Generator().manual_seed(3)
    outputs_BO = torch.randn(len(utterances), len(outputs), generator=generator).requires_grad_()
    loss = task.loss(outputs_BO, targets_B)
    if loss.shape != ():
        raise BrokenContractError(f"loss: has the shape {tuple(loss.shape)}, one number is due")
    (gradient_BO,) = torch.autograd.grad(loss, outputs_BO)
    if not loss.isfinite() or not gradient_BO.isfinite().all() or not gradient_BO.any():
        raise BrokenContractError("loss: it and its gradient must be finite, and not 0 throughout")
    twice = task.loss(torch.cat([outputs_BO] * 2), torch.cat([targets_B] * 2))
    if not close(twice, loss):
        raise BrokenContractError(f"loss: {loss.item():.4g} of a batch, {twice.item():.4g} of the same twice: no mean")
    if not close(task.loss(outputs_BO.flip(0), targets_B.flip(0)), loss):
        raise BrokenContractError("loss: depends on the order of the batch")


def metrics_are_finite_and_highest_for_the_truth(subject: Subject) -> None:
    """Every metric is finite, and highest where the targets themselves are predicted."""
    task, utterances = subject.task, subject.utterances()
    outputs = task.outputs(utterances)
    targets = task.targets(utterances, outputs)
    generator = torch.Generator().manual_seed(4)
    predictions = task.predict(torch.randn(len(utterances), len(outputs), generator=generator))
    if len(predictions) != len(utterances):
        raise BrokenContractError(f"predict: {len(predictions)} predictions for {len(utterances)} utterances")
    metrics = task.metrics(outputs)
    if not metrics:
        raise BrokenContractError("metrics: there is none; the first is the headline")
    several = join_parts(task, targets, np.arange(len(utterances)) % 2)
    for name, metric in metrics.items():
        values = [float(metric(truth, predictions)) for truth in (targets, several)]
        if not all(map(math.isfinite, values)):
            raise BrokenContractError(f"metric {name}: not finite on random predictions")
        if predictions.shape == targets.shape and metric(targets, targets) < values[0]:
            raise BrokenContractError(
                f"metric {name}: lower where the targets are predicted; the higher must be better"
            )
    x_BI = torch.randn(len(utterances), 5, generator=generator).numpy()
    for name, linear in task.linears.items():
        shape = np.shape(linear(1.0).fit(x_BI, targets).predict(x_BI))
        if shape != predictions.shape:
            raise BrokenContractError(f"linear {name}: predicts {shape} where `predict` gives {predictions.shape}")
