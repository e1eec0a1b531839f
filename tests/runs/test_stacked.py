"""Trainings of one shape together are those one by one: weights, whole results, what cannot be stacked, resuming."""

# mypy: disable-error-code="arg-type,attr-defined,misc,operator"

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from records import rewrite
from running import run_jobs
from stacking import alone, compare, eight_speakers, new_run, results
from stores import quiet

import bas.runs.claimed
from bas.errors import UserError
from bas.runs.baselines import BASELINES
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import SearchResult
from bas.runs.session import Session
from bas.runs.stacked import _members, stacks
from bas.search.ensemble import Member
from bas.space import SearchSpace
from bas.studies.audit.taken import take
from bas.studies.audit.trained import load_truth
from bas.training.loop import optimise, outputs
from bas.training.placement import Placement
from bas.training.settings import settings
from bas.training.stack import Feed, Stack, Update, _trained, one_epoch
from bas.util.typed import to_plain

pytestmark = pytest.mark.slow

SGD = {"optimiser": "sgd", "lr": "0.05", "momentum": "0.9", "schedule": "constant", "weight_decay": "0.001"}
VARIANTS = {
    "adamw": {},
    "sgd": SGD,
    "by speaker": {"normalise": "speaker", "residual": "every"},
    "as it is": {"normalise": "none", "schedule": "constant"},
}
ARCHITECTURES = {"MSA+FFN": 0, "MSA": 13, "FFN": 26, "mixed": 5}
"""Numbers in ser_bas3; mixed: MSA+FFN > MSA > FFN."""

OWN = """
import torch
from torch import nn
from torch.nn import functional as F
from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace
from bas.tasks import Classification

class Normed(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)
    def forward(self, x_BTD, mask_BT):
        return self.norm(x_BTD.mT).mT

class Deciding(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
    def forward(self, x_BTD, mask_BT):
        return self.linear(x_BTD) if x_BTD.abs().max() > 0 else x_BTD

class Frozen(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.linear = nn.Linear(dim, dim).requires_grad_(False)
    def forward(self, x_BTD, mask_BT):
        return self.scale * self.linear(x_BTD)

class Weighted(Classification):
    def loss(self, outputs_BO, targets_B):
        return F.cross_entropy(outputs_BO, targets_B, weight=torch.tensor([0.2, 0.8]))

blocks = {"BatchNorm": Normed, "Deciding": Deciding, "Frozen": Frozen, "FFN": FFN}
space = SearchSpace(slots={"a": blocks}, pool=MeanPool)
"""


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # as a job has it
    return eight_speakers(tmp_path_factory.mktemp("stacked"))


# Steps


def of(architecture: str) -> tuple[SearchSpace, Any]:
    if architecture in BASELINES:
        return BASELINES[architecture], BASELINES[architecture].only()
    from bas.runs.spaces import load_space

    space = load_space("ser_bas3").space
    return space, list(space.architectures())[ARCHITECTURES[architecture]]


@pytest.mark.parametrize(("batch_size", "epochs", "steps"), [(64, 1, 1), (8, 2, 10)])
@pytest.mark.parametrize(
    ("architecture", "variant"),
    [*((a, "adamw") for a in (*ARCHITECTURES, "simple FFN")), *(("mixed", v) for v in VARIANTS if v != "adamw")],
)
def test_weights_after_some_steps(
    features: Path, tmp_path: Path, architecture: str, variant: str, batch_size: int, epochs: int, steps: int
) -> None:
    run = new_run(tmp_path / "run", features, batch_size=str(batch_size), epochs=str(epochs), **VARIANTS[variant])
    session, chosen = Session(run.folder), run.plan.settings
    members = _members(session, *of(architecture), chosen, [(f, f % 2) for f in range(5)])
    for member in members:
        # AdamW's first steps are the sign of the gradient; a tiny one's is left to the kernel in float32.
        member.network.double()
    counts = {-(-len(member.fit) // batch_size) for member in members}
    assert max(counts) * epochs == steps, [len(member.fit) for member in members]
    assert len(counts) > (steps > 1), "some member must wait for the others"
    stack, feed = Stack([member.network for member in members]), Feed([member.data for member in members])
    update = Update(stack.flat_MP, chosen)
    for epoch in range(epochs):
        losses = one_epoch(stack, update, feed, members, chosen, epoch, run.task.loss)
    for m, member in enumerate(members):
        network = deepcopy(member.network)
        records, _ = optimise(
            network,
            lambda x, mask, _, network=network: network(x, mask),
            run.task.loss,
            member.data,
            member.fit,
            chosen,
            member.seed,
            lambda epoch: {"loss": epoch.loss},
        )
        assert losses[m] == pytest.approx(records[-1]["loss"], rel=1e-5)
        values = stack.flat_MP[m].detach().split([p.numel() for p in _trained(network).values()])
        for weight, stacked in zip(_trained(network).values(), values, strict=True):
            torch.testing.assert_close(stacked, weight.detach().flatten(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["adamw", "sgd"])
def test_updates_are_those_of_torch(variant: str) -> None:
    chosen = settings("cpu", {**VARIANTS[variant], "weight_decay": "0.1"})
    torch.manual_seed(0)
    flat_MP = torch.randn(3, 50)
    alone = [row.clone().requires_grad_() for row in flat_MP]
    makers = {"adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}
    optimisers = [makers[variant]([row], weight_decay=0.1) for row in alone]
    update = Update(flat_MP, chosen)
    for step in range(20):
        lr_M1 = torch.rand(3, 1, dtype=torch.float64) / 50
        grad_MP, moves_M1 = torch.randn(3, 50), torch.tensor([[True], [step % 3 > 0], [step < 10]])
        update(flat_MP, grad_MP, lr_M1, moves_M1)
        for m, (row, optimiser) in enumerate(zip(alone, optimisers, strict=True)):
            if moves_M1[m]:
                row.grad = grad_MP[m].clone()
                optimiser.param_groups[0]["lr"] = float(lr_M1[m])
                optimiser.step()
    torch.testing.assert_close(flat_MP, torch.stack(alone).detach(), rtol=2e-6, atol=2e-7)


# Whole jobs


@pytest.mark.parametrize("variant", VARIANTS)
def test_results_are_those_of_one_by_one(features: Path, tmp_path: Path, variant: str) -> None:
    of_runs = []
    for stacked in (False, True):
        run = new_run(tmp_path / f"{stacked}", features, **VARIANTS[variant])
        jobs = [*alone(run, 0, 5), *(Job(Kind.BASELINE, "simple FFN", f, 0) for f in range(5))]
        assert [len(together) for together in stacks(Session(run.folder), jobs, 6)] == [6, 4, 6, 4, 5]
        console = quiet()
        run_jobs(run, jobs, 3, 1, console, "audit", stacked=stacked)
        assert "one by one" not in console.file.getvalue()
        assert (run.folder / "tb" / jobs[-1].name).exists()
        assert not (run.folder / "tb" / jobs[0].name).exists()
        of_runs.append(results(run))
    compare(of_runs[1], of_runs[0])


def test_what_draws_at_random_is_trained_one_by_one(features: Path, tmp_path: Path) -> None:
    """In a stack its draws would depend on the companions: on a resume, or on the GPU's free memory."""
    seen = []
    for stacked in (False, True):
        run, console = new_run(tmp_path / f"{stacked}", features, dropout="0.3"), quiet()
        run_jobs(run, alone(run, 0), 3, 1, console, "audit", stacked=stacked)
        assert ("trained one by one" in console.file.getvalue()) is stacked
        seen.append(results(run))
        for result in seen[-1].values():
            result.pop("seconds")
    assert seen[0] == seen[1]


def test_weights_that_are_kept_are_the_scored(features: Path, tmp_path: Path) -> None:
    """A retrain takes the architecture of its search, and leaves the weights of its best epoch."""
    run = new_run(tmp_path / "run", features, epochs="6", lr="0.1")
    jobs = [Job(Kind.RETRAIN, "ser_bas3", f, s) for f in range(3) for s in (0, 1)]
    space = run.spaces["ser_bas3"].space
    for index, job in enumerate(jobs):
        chosen = list(space.architectures())[26 * (index % 2)].to_dict()
        numbers = {"parameters": 1, "multiply_adds": 0.0, "seconds": 0.0}
        search = SearchResult(
            architecture=chosen,
            members=(Member(chosen, 1.0),),
            layer=1,
            settings={},
            probabilities=None,
            paths=None,
            epochs=(),
            **numbers,
        )
        path = run.job_path(replace(job, kind=Kind.SEARCH).name)
        rewrite(path, {"job": {}, "protocol": run.protocol.hash, **to_plain(search)})
    run_jobs(run, jobs, 6, 1, quiet(), "retrains", stacked=True)
    session = Session(run.folder)
    assert {run.result(job.name)["networks"][0]["kept_epoch"] for job in jobs} - {5}, "no early stopping was seen"
    for index, job in enumerate(jobs):
        result = run.result(job.name)
        architecture = list(space.architectures())[26 * (index % 2)]
        assert result["architecture"] == architecture.to_dict()
        (member,) = _members(session, space, architecture, run.plan.settings, [(job.fold, job.seed)])
        path = run.folder / "jobs" / f"{job.name}.pt"
        member.network.load_state_dict(torch.load(path, weights_only=True))
        assert path.stat().st_size < 8 * result["parameters"], "one member's weights, not the whole stack's"
        predicted = outputs(member.network.eval(), member.data, member.valid)
        loss = float(run.task.loss(predicted, member.data.targets_U[member.valid]))
        assert loss == pytest.approx(min(e["valid"]["loss"] for e in result["networks"][0]["epochs"]), rel=1e-4)


# What cannot be stacked

EMPTY = """from bas.blocks import FFN, MeanPool, Skip
from bas.space import SearchSpace

space = SearchSpace({"a": {"none": Skip, "FFN": FFN}}, MeanPool)
"""


def test_a_linear_model_is_solved_beside_stacks(features: Path, tmp_path: Path) -> None:
    """And an audit reads it beside trainings of many epochs."""
    (tmp_path / "empty.py").write_text(EMPTY)
    of_runs = []
    for stacked in (False, True):
        run = new_run(tmp_path / f"{stacked}", features, tmp_path / "empty.py")
        assert sorted(map(len, stacks(Session(run), alone(run, 0, 1), 99))) == [1] * 10 + [10]
        run_jobs(run, alone(run, 0, 1), 3, 1, quiet(), "audit", stacked=stacked)
        of_runs.append(results(run))
    compare(of_runs[1], of_runs[0])
    truth = load_truth(run, "empty", take(run.spaces["empty"].space, None))
    assert truth.training_AE.shape == truth.validation_AE.shape == (2, 3)
    assert len(set(truth.training_AE[0])) == 1 < len(set(truth.training_AE[1]))


def test_jobs_of_other_kinds_are_alone_and_need_no_architecture(features: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", features)
    kinds = {Kind.LINEAR: "logistic regression", Kind.LAYER: BEST, Kind.SEARCH: "ser_bas3"}
    jobs = [Job(kind, row, fold, 0) for kind, row in kinds.items() for fold in range(2)]
    baselines = [Job(Kind.BASELINE, "simple FFN", fold, 0) for fold in range(2)]
    assert stacks(Session(run), [*jobs, *baselines], 99) == [*([job] for job in jobs), baselines]


@pytest.mark.parametrize(("number", "words"), [(0, "buffers"), (1, "data-dependent"), (2, ""), (3, "")])
def test_blocks_that_cannot_be_stacked(features: Path, tmp_path: Path, number: int, words: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    of_runs = []
    for stacked in (False, True):
        run, console = new_run(tmp_path / f"{stacked}", features, tmp_path / "own.py"), quiet()
        run_jobs(run, alone(run, number), 3, 1, console, "audit", stacked=stacked)
        of_runs.append(results(run))
    shown = console.file.getvalue()
    assert shown.count("one by one") == bool(words)
    assert words in shown
    compare(of_runs[1], of_runs[0])


def test_a_loss_that_is_no_mean_over_utterances(features: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN + "task = Weighted()\n")
    run, console = new_run(tmp_path / "run", features, tmp_path / "own.py"), quiet()
    run_jobs(run, alone(run, 3), 3, 1, console, "audit", stacked=True)
    assert "one by one (together, a first gradient is" in console.file.getvalue()
    assert len(results(run)) == 10


def test_features_that_are_streamed(features: Path, tmp_path: Path) -> None:
    run, console = new_run(tmp_path / "run", features), quiet()
    run_jobs(run, alone(run, 26), 3, 1, console, "audit", Placement("store", 2**30), stacked=True)
    assert "one by one (the features are too large for the memory of cpu)" in console.file.getvalue()
    assert len(results(run)) == 10


def test_divergence_is_told(features: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", features, **(SGD | {"lr": "1e30"}))
    with pytest.raises(UserError, match="training diverged"):
        run_jobs(run, alone(run, 26), 3, 1, quiet(), "audit", stacked=True)
    assert not results(run)


# Scheduling


def test_too_little_memory_halves_the_stacks(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, console, sizes = new_run(tmp_path / "run", features), quiet(), []
    run_stack = bas.runs.claimed.run_stack

    def small(session: Session, jobs: list[Job]) -> None:
        sizes.append(len(jobs))
        if len(jobs) > 3:
            raise torch.OutOfMemoryError
        run_stack(session, jobs)

    monkeypatch.setattr(bas.runs.claimed, "run_stack", small)
    run_jobs(run, alone(run, 26, 25), 3, 1, console, "audit", stacked=True)
    assert sizes == [10, 5, 3, 3, 3, 3, 3, 3]  # and the tenth of each architecture alone
    assert "10 trainings together do not fit" in console.file.getvalue()
    assert len(results(run)) == 20
