"""The contracts of a search space: each returns, or raises BrokenContractError with what was seen."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import torch

from bas.networks.network import build, check
from bas.networks.supernet import Supernet
from bas.runs.spaces import load_space
from bas.search.search import search
from bas.testing.subject import (
    IN_DIM,
    LENGTHS,
    OUTPUTS,
    BrokenContractError,
    Subject,
    close,
    features,
    padded,
    weights_of,
)
from bas.training.batches import Data
from bas.training.settings import settings

LONGER = 31
"""Frames that a batch is padded to, more than any utterance has."""

NOISE = 1e4
"""On the padding, against features of order 1."""

HASH_SEEDS = ("1", "2")
"""Of the processes that read the file again: the order of a set of strings depends on it."""


def every_candidate_gives_the_shape_due(subject: Subject) -> None:
    """Every candidate can be made and called, and gives the shape that its place asks for."""
    for space in (subject.space, *(subject.file.baselines or {}).values()):
        check(space, IN_DIM, subject.width)


@torch.no_grad()
def padding_never_changes_an_output(subject: Subject) -> None:
    """Padding never changes an output, whatever its values and length."""
    frames = features()
    for name, network in subject.networks():
        alone_BO = torch.cat([network(*padded([x_TI], len(x_TI))) for x_TI in frames])
        for length, noise in ((max(LENGTHS), 0.0), (max(LENGTHS), NOISE), (LONGER, NOISE)):
            if not close(network(*padded(frames, length, noise)), alone_BO):
                what = f"{length - min(LENGTHS)} frames of padding" + (" that hold noise" if noise else "")
                raise BrokenContractError(f"{name}: {what} change an output; keep padded frames out with mask_BT")


@torch.no_grad()
def a_batch_never_changes_an_output(subject: Subject) -> None:
    """Neither the size of a batch, nor what else is in it, nor the order changes an output."""
    x_BTI, mask_BT = padded(features(), max(LENGTHS))
    order = torch.tensor([2, 0, 3, 1])
    for name, network in subject.networks():
        whole_BO = network(x_BTI, mask_BT)
        pairs_BO = torch.cat([network(x, m) for x, m in ((x_BTI[:2], mask_BT[:2]), (x_BTI[2:], mask_BT[2:]))])
        if not close(pairs_BO, whole_BO):
            raise BrokenContractError(f"{name}: two batches of 2 give other outputs than one of 4")
        if not close(network(x_BTI[order], mask_BT[order]), whole_BO[order]):
            raise BrokenContractError(f"{name}: another order of the batch gives other outputs")


def every_parameter_learns_under_soft_gates(subject: Subject) -> None:
    """Every parameter, also of the architecture, gets a finite gradient under soft gates."""
    supernet = subject.supernet().train()
    gates = {part: mixed.theta.softmax(0) for part, mixed in supernet.mixed_parts().items()}
    supernet(*padded(features(), max(LENGTHS)), gates).square().sum().backward()
    for name, parameter in supernet.named_parameters():
        if not parameter.requires_grad:
            continue  # frozen by its author
        if parameter.grad is None:
            raise BrokenContractError(f"{name} gets no gradient: nothing is computed from it")
        if not parameter.grad.isfinite().all():
            raise BrokenContractError(f"{name}: its gradient is not finite")
        # A key's bias shifts all scores alike and rightly gets 0, so of a bias no more is asked.
        if not parameter.grad.any() and not name.endswith("bias"):
            raise BrokenContractError(f"{name}: its gradient is 0 throughout")


def no_candidate_learns_for_another(subject: Subject) -> None:
    """No candidate shares a parameter with another: in an architecture its own blocks alone learn."""
    for architecture in subject.architectures():
        supernet = subject.supernet().train()
        supernet.discrete(architecture)(*padded(features(), max(LENGTHS))).square().sum().backward()
        chosen = architecture.to_dict()
        for name, parameter in supernet.named_parameters(remove_duplicate=False):
            part = name.split(".")[1]
            others = part in chosen and f".candidates.{chosen[part]}." not in name
            if others and parameter.grad is not None:
                raise BrokenContractError(f"{name} learns in {architecture}, which does not have it; share no module")


@torch.no_grad()
def a_saved_state_is_the_whole_state(subject: Subject) -> None:
    """The state_dict holds the architecture parameters and all that an output depends on."""
    supernet = subject.supernet()
    thetas = {f"parts.{part}.theta" for part in subject.space.searched}
    assert thetas <= set(supernet.state_dict()), "architecture parameters are not in the state_dict"
    file = io.BytesIO()
    torch.save(supernet.state_dict(), file)
    file.seek(0)
    torch.manual_seed(9)
    other = Supernet(subject.space, IN_DIM, subject.width, OUTPUTS).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    batch = padded(features(), max(LENGTHS))
    if other.argmax() != supernet.argmax() or not torch.equal(
        other(*batch, other.probabilities()), supernet(*batch, supernet.probabilities())
    ):
        raise BrokenContractError(
            "a supernet that loads another's state_dict gives other outputs; what they depend on must be a parameter or"
            " a buffer, and nothing may be drawn in eval mode"
        )


@torch.no_grad()
def one_hot_gates_are_the_built_network(subject: Subject) -> None:
    """Under one-hot gates the supernet is, bit for bit, the network that `build` makes."""
    supernet = subject.supernet()
    batch = padded(features(), max(LENGTHS))
    for architecture in subject.architectures():
        one_hot_BO = supernet(*batch, supernet.one_hot(architecture))
        if not torch.equal(supernet.discrete(architecture)(*batch), one_hot_BO):
            raise BrokenContractError(f"{architecture}: a candidate that is not chosen changes the output")
        built = build(subject.space, architecture, IN_DIM, subject.width, OUTPUTS).eval()
        built.load_state_dict(weights_of(supernet.state_dict(), architecture))
        if not torch.equal(built(*batch), one_hot_BO):
            raise BrokenContractError(f"{architecture}: built again with the supernet's weights, its output differs")


def the_signature_is_the_same_in_every_process(subject: Subject) -> None:
    """The signature of slots, names and arguments is the same whenever and wherever the file is read."""
    path = str(subject.file.path)
    code = "import sys; from bas.runs.spaces import load_space; print(load_space(sys.argv[1]).space.signature)"
    signatures = {subject.space.signature, load_space(path).space.signature}
    fresh = [
        subprocess.Popen(
            [sys.executable, "-c", code, path],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in HASH_SEEDS
    ]
    ends = [(process.communicate(), process.returncode) for process in fresh]
    for (out, error), status in ends:
        if status:
            raise BrokenContractError(f"read in another process, it fails: {error.strip().splitlines()[-1]}")
        signatures.add(out.strip())
    if len(signatures) > 1:
        raise BrokenContractError(
            "read again, the file gives another space; its names, order and arguments must be fixed"
        )


def one_seed_gives_the_same_numbers_twice(subject: Subject) -> None:
    """A short search that is run twice with one seed gives the same bits."""
    utterances = subject.utterances()
    outputs = subject.task.outputs(utterances)
    lengths_U = torch.arange(3, 3 + len(utterances))
    frames = features(lengths_U.tolist())
    targets_U = torch.from_numpy(subject.task.targets(utterances, outputs))
    means_UI = torch.stack([x_TI.mean(0) for x_TI in frames])
    data = Data(torch.cat(frames), lengths_U.cumsum(0) - lengths_U, lengths_U, targets_U, means_UI)
    short = settings("cpu", {"epochs": "2", "batch_size": "8", "strategy": "gumbel", "dropout": "0.1"})
    ends = []
    for _ in range(2):
        torch.manual_seed(0)
        supernet = Supernet(subject.space, IN_DIM, subject.width, len(outputs), short.dropout)
        begin = {name: value.clone() for name, value in supernet.state_dict().items()}
        members = torch.arange(len(utterances))
        result = search(supernet, subject.task.loss, data, members, short, 0, lambda record: {})
        ends.append((begin, result.records, supernet.state_dict()))
    (begin, records, state), (begin_again, records_again, state_again) = ends
    for name in begin:
        if not torch.equal(begin[name], begin_again[name]):
            raise BrokenContractError(f"{name} begins with other numbers under the same seed; draw from torch alone")
    for name in state:
        if not torch.equal(state[name], state_again[name]):
            raise BrokenContractError(f"{name} ends with other numbers under the same seed; draw from torch alone")
    if records != records_again:
        raise BrokenContractError("the epochs of two searches differ under the same seed; draw from torch alone")
