"""Classifiers on embeddings, many at once, under two splits: at random as published, and with speakers kept apart.

The layer-wise probes of *What Happens To WavLM Embeddings During Speech Emotion Recognition Fine-tuning?* (2024),
section 2.3.4. The paper's split has every speaker on both sides; the other one is made wherever it is possible.

A score has two kinds of luck, told apart: the initialisation of a probe (its first weights and the order of its
utterances; several on the first split, as in the paper), and the split (several, each with the first initialisation).
The first probe of both is the same one. As one probe stands for each split, the spread over splits holds the luck of a
training too.

`training.loop` does not train them: each of hundreds of probes stops at its own epoch and leaves the stack, which one
optimiser over all of them could not do. The optimiser's step is that of `training.stack`.

Axes: L hidden states, U utterances, D width, C classes; M members (probes trained at once), B utterances of a batch,
I and O a layer's inputs and outputs, S probes of one spread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from bas.errors import UserError
from bas.stats import macro_f1
from bas.stats.similarity import CONSTANT
from bas.training.stack import adamw

# The most numbers in the weights of the probes that train together, and in the features they are checked on: what fits
# into the caches of a CPU, and enough to keep a GPU busy.
STACK = {"cpu": 2**22, "cuda": 2**27}
MARK = "speakers stand on both sides"


@dataclass(frozen=True)
class AnalysisSettings:
    """The paper's numbers where it gives them. Raises UserError naming a field out of range."""

    initialisations: int = 10  # of a probe, on the first split: initial weights and order of utterances
    splits: int = 10  # with the first initialisation; not in the paper
    lr: float = 1e-2
    batch_size: int = 16
    epochs: int = 1000  # at most
    patience: int = 5  # a training ends after so many epochs without `improvement` of the validation loss
    improvement: float = 0.025
    hidden: int = 256  # of the probe with a hidden layer; not in the paper
    folds: int = 5  # groups of speakers; not in the paper
    permutations: int = 200  # not in the paper
    strengths: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)  # of ridge, for XXᵀ / D

    def __post_init__(self) -> None:
        for name in ("initialisations", "splits", "lr", "batch_size", "epochs", "patience", "hidden", "permutations"):
            if not getattr(self, name) > 0:
                raise UserError(f"analysis setting {name}={getattr(self, name)}: must be above 0")
        if self.folds < 3:
            raise UserError(f"analysis setting folds={self.folds}: must be 3 or more, to fit, validate and test")
        if self.improvement < 0 or not self.strengths or min(self.strengths) <= 0:
            raise UserError("analysis settings: improvement must not be negative, strengths must be above 0")


@dataclass(frozen=True)
class Split:
    """The indices of the utterances in each part."""

    fit: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def published_split(classes_U: np.ndarray, rng: np.random.Generator) -> Split:
    """80/10/10 at random; each part takes tenths of the utterances in order of class, so classes keep their shares.

    Speakers stand on both sides.
    """
    order_U = rng.permutation(classes_U.size)
    rank_C = rng.permutation(int(classes_U.max()) + 1)
    order_U = order_U[np.argsort(rank_C[classes_U[order_U]], kind="stable")]
    tenth_U = (np.arange(classes_U.size) + rng.integers(10)) % 10
    return Split(order_U[tenth_U > 1], order_U[tenth_U == 0], order_U[tenth_U == 1])


def speaker_splits(
    classes_U: np.ndarray, speakers_U: np.ndarray, folds: int, rng: np.random.Generator
) -> tuple[list[Split], str]:
    """Splits that keep speakers apart, in `folds` groups or as many as there are speakers; and a note on them.

    Each group is tested once, the next one validates, the others fit. With two speakers one is tested and the other is
    cut 80/20 by class. With one, or two with too few utterances, there is no split, and the note says why.
    """
    names, sizes = np.unique(speakers_U, return_counts=True)
    if len(names) < 2:
        return [], "a single speaker: no split keeps speakers apart"
    groups: list[list[int]] = [[] for _ in range(min(folds, len(names)))]
    for n in np.argsort(-sizes * rng.uniform(0.5, 1.5, len(names))):  # large ones early, for groups of similar size
        min(groups, key=lambda part: sum(sizes[part])).append(int(n))
    parts = [np.flatnonzero(np.isin(speakers_U, names[groups[i]])) for i in rng.permutation(len(groups))]
    splits = []
    if len(parts) == 2:
        if min(part.size for part in parts) < 10:
            return [], "two speakers, one with fewer than 10 utterances: too few to fit and validate on"
        for test, other in (parts, parts[::-1]):
            cut = published_split(classes_U[other], rng)
            splits.append(Split(other[cut.fit], other[np.concatenate([cut.valid, cut.test])], test))
        return splits, "two speakers: one is tested; fit and validation are 80/20 of the other"
    for i, test in enumerate(parts):
        valid = parts[(i + 1) % len(parts)]
        rest = np.concatenate([part for j, part in enumerate(parts) if j not in (i, (i + 1) % len(parts))])
        splits.append(Split(rest, valid, test))
    return splits, f"{len(names)} speakers in {len(parts)} groups: one tests, one validates, the others fit"


def rng_of(*parts: object) -> np.random.Generator:
    """A generator seeded by any values, the same in every process."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big"))


@dataclass(frozen=True)
class Member:
    """One probe to train: its state, its split, and what its initial weights and order of utterances depend on."""

    state: int
    split: Split
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Probed:
    """A trained probe."""

    predictions: np.ndarray  # on the split's test part
    epochs: int


def probes(
    x_LUD: np.ndarray,
    egemaps_UE: np.ndarray,
    classes_U: np.ndarray,
    speakers_U: np.ndarray,
    settings: AnalysisSettings,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Classifiers on each state and, in the same way, on eGeMAPS: `linear`, and `relu` with one hidden layer.

    egemaps_UE: NaN where there is no value.
    `published`: 80/10/10 at random, which is marked. `grouped`: speakers kept apart. Each has, under `states` (by
    state) and `egemaps`: `initialisations`, of probes on the first split, and `splits`, each with the first
    initialisation. These have lists by probe: macro_f1 (of the test part; grouped: of all utterances, each tested once)
    and epochs (mean over folds); grouped splits also predictions by utterance. `note` describes the split;
    {refused: why} without one.
    """
    splits: dict[str, list[list[Split]]] = {"published": [], "grouped": []}
    notes = {"published": MARK}
    for p in range(settings.splits):
        splits["published"].append([published_split(classes_U, rng_of(seed, p, "published"))])
        by_speaker, notes["grouped"] = speaker_splits(classes_U, speakers_U, settings.folds, rng_of(seed, p, "grouped"))
        splits["grouped"].append(by_speaker)
    refused = {
        "published": "fewer than 10 utterances" if classes_U.size < 10 else "",
        "grouped": "" if splits["grouped"][0] else notes["grouped"],
    }
    results: dict[str, Any] = {}
    for kind, hidden in (("linear", 0), ("relu", settings.hidden)):
        results[kind] = {}
        for name, folds in splits.items():
            if refused[name]:
                results[kind][name] = {"refused": refused[name]}
                continue
            results[kind][name] = {"note": notes[name]}
            for side, z_LUD in (("states", x_LUD), ("egemaps", egemaps_UE[None])):
                scores = _probe(z_LUD, classes_U, folds, name == "grouped", hidden, settings, seed, device)
                results[kind][name][side] = scores if side == "states" else scores[0]
    return results


def _probe(
    z_LUD: np.ndarray,
    classes_U: np.ndarray,
    splits: Sequence[Sequence[Split]],
    keep: bool,
    hidden: int,
    settings: AnalysisSettings,
    seed: int,
    device: str,
) -> list[dict[str, Any]]:
    """By state, the scores of all initialisations on the first split, and of the first initialisation on all splits.

    splits: the folds of each. keep: the predictions on all splits too.
    """
    pairs = [(0, i) for i in range(settings.initialisations)] + [(p, 0) for p in range(1, len(splits))]
    keys = [(state, p, i) for state in range(len(z_LUD)) for p, i in pairs]
    members = [Member(state, split, (seed, i, f)) for state, p, i in keys for f, split in enumerate(splits[p])]
    trained = iter(train_probes(z_LUD, classes_U, members, hidden, settings, device))
    probed = {key: [(split, next(trained)) for split in splits[key[1]]] for key in keys}

    def score(state: int, pairs: Sequence[tuple[int, int]], keep: bool) -> dict[str, list[Any]]:
        return _score(classes_U, [probed[state, p, i] for p, i in pairs], keep)

    return [
        {
            "initialisations": score(state, [(0, i) for i in range(settings.initialisations)], False),
            "splits": score(state, [(p, 0) for p in range(len(splits))], keep),
        }
        for state in range(len(z_LUD))
    ]


def _score(classes_U: np.ndarray, probed: Sequence[Sequence[tuple[Split, Probed]]], keep: bool) -> dict[str, list[Any]]:
    """The scores of some probes of one state, each with its folds pooled. keep: the predictions too."""
    scores: dict[str, list[Any]] = {"macro_f1": [], "epochs": []} | ({"predictions": []} if keep else {})
    for folds in probed:
        test = np.concatenate([split.test for split, _ in folds])
        predictions = np.concatenate([of.predictions for _, of in folds])
        scores["macro_f1"].append(macro_f1(classes_U[test], predictions))
        scores["epochs"].append(float(np.mean([of.epochs for _, of in folds])))
        if keep:
            scores["predictions"].append(predictions[np.argsort(test)].tolist())
    return scores


def train_probes(
    x_LUD: np.ndarray,
    classes_U: np.ndarray,
    members: Sequence[Member],
    hidden: int,
    settings: AnalysisSettings,
    device: str = "cpu",
) -> list[Probed]:
    """Train the members side by side; return the predictions of each on its test part.

    A member fills NaN with the mean of its fit part, standardises by it, and has its own weights, order and Adam state.
    It ends when its own validation loss has not improved by `settings.improvement` for `settings.patience` epochs, and
    keeps the weights of its lowest loss. So its numbers are those of a training alone, up to rounding. hidden: 0 for a
    linear probe, else the units of a ReLU layer.
    """
    width, classes = x_LUD.shape[2], int(classes_U.max()) + 1
    sizes = (width, hidden, classes) if hidden else (width, classes)
    largest = max(max(m.split.valid.size, m.split.test.size) for m in members) * width
    size = max(1, STACK[torch.device(device).type] // max(largest, sum(i * o for i, o in pairwise(sizes))))
    # Largest first: in the last steps of an epoch the members that still have a batch come first.
    order = sorted(range(len(members)), key=lambda m: -members[m].split.fit.size)
    x_LUD_, classes_U_ = (
        torch.as_tensor(x_LUD, dtype=torch.float32, device=device),
        torch.as_tensor(classes_U, dtype=torch.long, device=device),
    )
    probed: dict[int, Probed] = {}
    for i in range(0, len(order), size):
        stack = [members[m] for m in order[i : i + size]]
        probed |= zip(order[i : i + size], _train(x_LUD_, classes_U_, stack, sizes, settings), strict=True)
    return [probed[m] for m in range(len(members))]


def _train(
    x_LUD: Tensor, classes_U: Tensor, members: Sequence[Member], sizes: Sequence[int], settings: AnalysisSettings
) -> list[Probed]:
    device, everyone = x_LUD.device, torch.arange(len(members))
    feed = Feed(x_LUD, classes_U, members)
    generators = [torch.Generator().manual_seed(int(rng_of(*m.seed, "train").integers(2**62))) for m in members]
    fit = [torch.as_tensor(m.split.fit) for m in members]
    valid_MB = _padded([torch.as_tensor(m.split.valid) for m in members]).to(device)
    weights = _initial(generators, sizes, device)
    means, squares = [torch.zeros_like(w) for w in weights], [torch.zeros_like(w) for w in weights]
    best = [w.clone() for w in weights]
    lowest, bar = torch.full((2, len(members)), torch.inf)
    since, epochs = torch.zeros((2, len(members)), dtype=torch.long)
    alive = everyone  # the members in the rows of weights, means and squares
    for epoch in range(settings.epochs):
        order_AN = _padded([fit[m][torch.randperm(len(fit[m]), generator=generators[m])] for m in alive]).to(device)
        steps_A = torch.tensor([-(-len(fit[m]) // settings.batch_size) for m in alive])
        for step in range(int(steps_A[0])):
            front = int((steps_A > step).sum())  # the number of members with a batch left
            batch_AB = order_AN[:front, step * settings.batch_size : (step + 1) * settings.batch_size]
            moved = [w[:front].detach().requires_grad_() for w in weights]
            loss_A = feed.loss(moved, alive[:front], batch_AB)
            gradients = torch.autograd.grad(loss_A.sum(), moved)
            count_A = (epoch * steps_A[:front] + step + 1).to(device, torch.float64)
            for state in zip(weights, gradients, means, squares, strict=True):
                w, g, m, v = (x[:front] for x in state)
                count = count_A.view(-1, *[1] * (w.ndim - 1))
                stepped = adamw(w, g, m, v, count, torch.full_like(count, settings.lr))
                for old, new in zip((w, m, v), stepped, strict=True):
                    old.copy_(new)
        loss_A = feed.loss(weights, alive, valid_MB[alive]).cpu()
        assert loss_A.isfinite().all(), "a probe diverged"
        epochs[alive] += 1
        better = loss_A < lowest[alive]
        for kept, now in zip(best, weights, strict=True):
            kept[alive[better].to(device)] = now[better.to(device)]
        lowest[alive] = lowest[alive].minimum(loss_A)
        improved = loss_A < bar[alive] - settings.improvement
        bar[alive] = torch.where(improved, loss_A, bar[alive])
        since[alive] = torch.where(improved, 0, since[alive] + 1)
        stays = since[alive] < settings.patience
        if not stays.all():
            alive = alive[stays]
            weights, means, squares = ([w[stays.to(device)] for w in of] for of in (weights, means, squares))
        if not alive.numel():
            break
    test_MB = _padded([torch.as_tensor(m.split.test) for m in members]).to(device)
    answers_MB = feed.logits(best, everyone, test_MB).argmax(2).cpu().numpy()
    return [Probed(a_B[: m.split.test.size], int(n)) for m, a_B, n in zip(members, answers_MB, epochs, strict=True)]


class Feed:
    """Batches of each member's own state, standardised by its own fit part; an index of -1 is padding."""

    def __init__(self, x_LUD: Tensor, classes_U: Tensor, members: Sequence[Member]) -> None:
        self.x, self.classes = x_LUD.flatten(0, 1), classes_U
        self.first_M = torch.tensor([m.state * x_LUD.shape[1] for m in members], device=x_LUD.device)
        moments = [_moments(x_LUD[m.state][torch.as_tensor(m.split.fit, device=x_LUD.device)]) for m in members]
        self.mean_MD, self.sd_MD = (torch.stack(of) for of in zip(*moments, strict=True))

    def logits(self, weights: Sequence[Tensor], members_A: Tensor, index_AB: Tensor) -> Tensor:
        """`(A, B, C)` logits of each member on its utterances."""
        members_A = members_A.to(self.x.device)
        z = self.x[self.first_M[members_A][:, None] + index_AB.clamp(min=0)]
        z = ((z - self.mean_MD[members_A][:, None]) / self.sd_MD[members_A][:, None]).nan_to_num_()
        for layer in range(0, len(weights), 2):
            z = torch.baddbmm(weights[layer + 1][:, None], z.relu() if layer else z, weights[layer])
        return z

    def loss(self, weights: Sequence[Tensor], members_A: Tensor, index_AB: Tensor) -> Tensor:
        """`(A,)`: the mean loss over each member's utterances."""
        logits_ABC, real_AB = self.logits(weights, members_A, index_AB), index_AB >= 0
        each_AB = F.cross_entropy(logits_ABC.transpose(1, 2), self.classes[index_AB.clamp(min=0)], reduction="none")
        return (each_AB * real_AB).sum(1) / real_AB.sum(1)


def _moments(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the known values of each column; the deviation is infinite for a constant column."""
    x_ND = x_ND.double()  # in float32, torch's nanmean of a constant is not that constant
    mean_D = x_ND.nanmean(0)
    sd_D = (x_ND - mean_D).square().nanmean(0).sqrt()
    return mean_D.float(), torch.where(sd_D > CONSTANT * x_ND.abs().nan_to_num().amax(0), sd_D, torch.inf).float()


def _padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True, padding_value=-1)


def _initial(generators: Sequence[torch.Generator], sizes: Sequence[int], device: torch.device) -> list[Tensor]:
    """Weights `(M, I, O)` and biases `(M, O)` of each layer, as torch's Linear draws them."""
    weights = []
    for inputs, outputs in pairwise(sizes):
        for shape in ((inputs, outputs), (outputs,)):
            drawn = torch.stack([torch.rand(shape, generator=g) for g in generators])
            weights.append(((2 * drawn - 1) / inputs**0.5).to(device))
    return weights
