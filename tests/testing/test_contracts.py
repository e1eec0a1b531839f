"""The contracts that ship: every shipped space holds them, and each is broken by a space that breaks it."""

from __future__ import annotations

from pathlib import Path

import pytest
import stem_and_pool

from bas.cli.main import main
from bas.runs.spaces import load_space, shipped
from bas.testing import CONTRACTS, BrokenContractError, check

WIDTH = 16
OF_A_TASK = ("targets", "splits", "loss", "metrics")


def shipped_contracts() -> list[tuple[str, str]]:
    """Each space with each contract; those of blocks once for spaces with the same blocks."""
    held, cases = set[tuple[str, str]](), []
    for file in (*shipped(), stem_and_pool.__file__):
        of_blocks = load_space(file).space.signature
        for contract in CONTRACTS:
            key = (file if contract in OF_A_TASK else of_blocks), contract
            if key not in held:
                cases.append((file, contract))
            held.add(key)
    return cases


@pytest.mark.slow
@pytest.mark.parametrize(("file", "contract"), shipped_contracts(), ids=lambda part: Path(part).stem)
def test_a_shipped_space_holds(file: str, contract: str) -> None:
    check(file, contract, WIDTH)


SOUND = """
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace
from bas.tasks import Classification


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.scale = 1.0

    def forward(self, x_BTD, mask_BT):
        return self.scale * self.linear(x_BTD).tanh()


@dataclass(frozen=True)
class Task(Classification):
    pass  # task


candidates = {"Block": Block, "FFN": FFN}
space = SearchSpace(slots={"a": candidates, "b": candidates}, pool=MeanPool)
task = Task()
"""
INIT, FORWARD, TASK, SLOTS = (
    "self.scale = 1.0",
    "return self.scale * self.linear(x_BTD).tanh()",
    "pass  # task",
    "class Block(",
)
EVERY_NETWORK = "gradient own state discrete seed"
BROKEN = {
    "cannot be called": (FORWARD, "return self.lineal(x_BTD)", f"shape padding batch {EVERY_NETWORK}"),
    "another shape": (FORWARD, "return x_BTD[..., :-1]", f"shape padding batch {EVERY_NETWORK}"),
    "sees padding": (FORWARD, "return self.linear(x_BTD.cumsum(1).flip(1)).tanh()", "shape padding"),
    "mixes a batch": (FORWARD, "return self.linear(x_BTD - x_BTD.mean((0, 1))).tanh()", "shape padding batch"),
    "numbers a batch": (
        FORWARD,
        "return self.linear(x_BTD).tanh() + torch.arange(len(x_BTD))[:, None, None]",
        "shape padding batch",
    ),
    "nothing computed": (INIT, "self.scale = 1.0; self.unused = nn.Parameter(torch.ones(3))", "gradient"),
    "cut off": (FORWARD, "return self.linear(x_BTD).tanh() * self.linear(x_BTD).sign().detach() * 0", "gradient"),
    "one module for two": (INIT, "self.scale = 1.0; self.linear = COMMON", "own seed"),
    "no buffer": (INIT, "self.scale = torch.randn(dim)", "state discrete"),
    "made by count": (
        INIT,
        "Block.made = self.scale = getattr(Block, 'made', 0) + 1",
        "state discrete seed",
    ),
    "draws": (FORWARD, "return F.dropout(self.linear(x_BTD).tanh(), 0.5, True)", "shape padding batch state discrete"),
    "a set": ("candidates = {", "candidates = {name: FFN for name in set('abcdefgh')} | {", "signature"),
    "another chance": (INIT, "self.scale = 1.0; nn.init.constant_(self.linear.bias, random.random())", "seed"),
    "targets by place": (
        TASK,
        "def targets(self, utterances, outputs): return np.arange(len(utterances)) % len(outputs)",
        "targets",
    ),
    "outputs by place": (
        TASK,
        "def outputs(self, utterances): return tuple(dict.fromkeys(u.label for u in utterances))",
        "targets",
    ),
    "no field": ("task = Task()", "task = Task(disjoint=('speeker',))", "splits"),
    "a sum": (
        TASK,
        "def loss(self, outputs, targets): return F.cross_entropy(outputs, targets, reduction='sum')",
        "loss",
    ),
    "by order": (TASK, "def loss(self, outputs, targets): return F.cross_entropy(outputs[:4], targets[:4])", "loss"),
    "no number": (
        TASK,
        "def loss(self, outputs, targets): return F.cross_entropy(outputs, targets, reduction='none')",
        "loss seed",
    ),
    "an error": (
        TASK,
        "def metrics(self, outputs): return {'errors': lambda targets, outputs: float((targets != outputs).mean())}",
        "metrics",
    ),
    "not finite": (
        TASK,
        "def metrics(self, outputs): return {'nan': lambda targets, predictions: float('nan')}",
        "metrics",
    ),
    "too few": (TASK, "def predict(self, outputs): return super().predict(outputs)[1:]", "metrics"),
}


def write(path: Path, old: str = "", new: str = "") -> str:
    assert old in SOUND
    path.write_text(SOUND.replace(old, new, 1).replace(SLOTS, f"COMMON = nn.Linear({WIDTH}, {WIDTH})\n\n\n{SLOTS}", 1))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_space_that_breaks_a_contract_is_told_so(name: str, tmp_path: Path) -> None:
    old, new, broken = BROKEN[name]
    file = write(tmp_path / "broken.py", old, new)
    reasons = {}
    for contract in CONTRACTS:
        if contract == "signature" and contract not in broken:
            continue  # it starts two processes
        try:
            check(file, contract, WIDTH)
        except BrokenContractError as error:
            reasons[contract] = str(error)
    assert sorted(reasons) == sorted(broken.split()), reasons
    assert not any("\n" in reason for reason in reasons.values())


def test_every_contract_is_broken_by_a_space() -> None:
    assert {contract for _, _, broken in BROKEN.values() for contract in broken.split()} == set(CONTRACTS)


@pytest.mark.slow
def test_the_verb_says_a_line_a_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-space", write(tmp_path / "sound.py"), "--width", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["pass", name] for name in CONTRACTS]

    file = write(tmp_path / "broken.py", FORWARD, "return self.linear(x_BTD.cumsum(1).flip(1))")
    assert main(["check-space", file, "--width", "16"]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("FAIL")] == ["shape", "padding"]
    assert "keep padded frames out with mask_BT" in next(line for line in lines if line.startswith("FAIL padding"))
    assert last == f"{file}: 2 of {len(CONTRACTS)} contracts broken"


def test_a_file_that_is_no_space_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none.py").write_text("x = 1\n")
    assert main(["check-space", str(tmp_path / "none.py")]) == 2
    assert "defines no `space = SearchSpace(...)`" in capsys.readouterr().err
