"""One checkpoint of a fine-tuning: its states on the third part, and the scores of the model cut off after each.

Axes: L hidden states, U utterances, N frames of an utterance, D width, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from bas.corpora import Corpus, Utterance
from bas.encoders import Tunable
from bas.errors import UserError
from bas.features.extract import extract
from bas.features.plan import Request
from bas.runs.linear import fit_linear
from bas.speech import audio
from bas.stats import Metric, macro_f1, ua, wa
from bas.studies.dynamics.finetune import micro_batches
from bas.tasks import Task
from bas.util.faults import judging
from bas.util.files import replacing

METRICS: Mapping[str, Metric] = {"WA": wa, "UA": ua, "macro_f1": macro_f1}


def embed(
    encoder: Tunable, third: Corpus, manifest: Path, store: Path, means: Path, console: Console
) -> tuple[np.ndarray, np.ndarray]:
    """Write the states of the third part to a feature store and their means over time to an npz; return the means.

    The means are `x_LUD`, of the states, and `cut_LUD`, of the model's output if it ended with each of them
    (`Tunable.cut`). manifest: the file from which the third part is read again when the store is opened.
    Raises UserError where an utterance cannot be encoded, and for what `extract` refuses.
    """
    ids = tuple(u.id for u in third.utterances)
    made = extract(third, encoder, store, Request("manifest", manifest), console)
    if made.info.skipped:
        id_, why = next(iter(made.info.skipped.items()))
        raise UserError(f"{store}: {len(made.info.skipped)} utterances could not be encoded, e.g. {id_}: {why}")
    if not means.exists():
        rows: list[tuple[np.ndarray, np.ndarray]] = []
        for id_ in ids:
            states_LND, _ = made.gather([id_], made.info.layers)
            x_LND = torch.from_numpy(states_LND.astype(np.float32)).to(encoder.device)
            with torch.inference_mode():
                rows.append((x_LND.mean(1).cpu().numpy(), encoder.cut(x_LND).mean(1).cpu().numpy()))
        x_LUD, cut_LUD = (np.stack(part, axis=1) for part in zip(*rows, strict=True))
        with replacing(means) as temporary, temporary.open("wb") as stream:
            np.savez(stream, ids=np.array(ids, np.str_), x_LUD=x_LUD, cut_LUD=cut_LUD)
    return read_means(means, ids, "delete it: it is made again")


def read_means(means: Path, ids: Sequence[str], remedy: str) -> tuple[np.ndarray, np.ndarray]:
    """Read what `embed` wrote. Raises UserError with `remedy` where it is damaged or of other utterances."""
    with judging(means, f"damaged or of other utterances; {remedy}"), np.load(means, allow_pickle=False) as arrays:
        if arrays["ids"].tolist() != list(ids):
            raise ValueError("of other utterances")
        return arrays["x_LUD"], arrays["cut_LUD"]


def mean_states(encoder: Tunable, utterances: Sequence[Utterance], size: int) -> np.ndarray:
    """`(L, U, D)` means over time, with at most `size` utterances encoded at a time; nothing is stored."""
    means: dict[int, np.ndarray] = {}
    for start in range(0, len(utterances), 8 * size):
        waves = [audio.load(u) for u in utterances[start : start + 8 * size]]
        for members in micro_batches(encoder, [len(wave) for wave in waves], size):
            states = encoder.encode([encoder.prepare(waves[i]) for i in members])
            means |= {start + i: s.float().mean(1).cpu().numpy() for i, s in zip(members, states, strict=True)}
    return np.stack([means[i] for i in range(len(utterances))], axis=1)


def own_head(
    cut_LUD: np.ndarray, weight_OD: np.ndarray, bias_O: np.ndarray, targets_U: np.ndarray
) -> dict[str, list[Any]]:
    """Scores of the model cut off after each state, with the head that was trained on the last state."""
    return score([np.argmax(cut_UD @ weight_OD.T + bias_O, axis=1) for cut_UD in cut_LUD], targets_U)


def refitted(parts: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], task: Task) -> dict[str, list[Any]]:
    """Scores of the model cut off after each state, with the task's linear classifier fitted on that state's means.

    parts: `(L, U, D)` of fit, valid and test. The classifier is fitted on fit, its strength is chosen on valid, and
    test is scored once.
    """
    predictions, strengths = [], []
    for fit_UD, valid_UD, test_UD in zip(parts["fit"], parts["valid"], parts["test"], strict=True):
        model, strength = fit_linear(
            next(iter(task.linears.values())), wa, (fit_UD, targets["fit"]), (valid_UD, targets["valid"])
        )
        predictions.append(model.predict(test_UD))
        strengths.append(strength)
    return {**score(predictions, targets["test"]), "strengths": strengths}


def score(predictions: Sequence[np.ndarray], targets_U: np.ndarray) -> dict[str, list[Any]]:
    """By state: WA, UA, macro F1 (0..1), and the predictions by utterance."""
    metrics = {name: [metric(targets_U, p_U) for p_U in predictions] for name, metric in METRICS.items()}
    return {**metrics, "predictions": [p_U.tolist() for p_U in predictions]}
