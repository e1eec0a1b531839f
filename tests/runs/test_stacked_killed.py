"""A stack that is killed: in training, while it writes its results, and in the middle of several stacks."""

# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from running import run_jobs
from stacking import alone, compare, eight_speakers, new_run, results
from stores import quiet

import bas.runs.stacked
from bas.runs.plan import Job
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.stacked import run_stack

pytestmark = pytest.mark.slow

SGD = {"optimiser": "sgd", "lr": "0.05", "momentum": "0.9", "schedule": "constant", "weight_decay": "0.001"}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # as a job has it
    return eight_speakers(tmp_path_factory.mktemp("stacked"))


class Pair(NamedTuple):
    """A new run, one in which the jobs are done, and the jobs: four of one architecture."""

    run: Run
    whole: Run
    jobs: list[Job]


@pytest.fixture(params=[{}, SGD], ids=["adamw", "sgd"])
def pair(features: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Pair:
    run, whole = (new_run(tmp_path / name, features, **request.param) for name in ("run", "whole"))
    jobs = alone(run, 26)[:4]
    run_jobs(whole, jobs, 3, 1, quiet(), "audit", stacked=True)
    return Pair(run, whole, jobs)


def numbers(run: Run) -> dict[str, Any]:
    """All that results hold but the time."""
    return {name: {**result, "seconds": None} for name, result in results(run).items()}


def test_a_killed_stack_goes_on(features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, console = new_run(tmp_path / "run", features), quiet()
    jobs = alone(run, 26, 25)
    whole = new_run(tmp_path / "whole", features)
    run_jobs(whole, jobs, 3, 1, quiet(), "audit", stacked=True)
    write_json, written = bas.runs.jobs.write_json, []

    def dies(path: Path, value: Any) -> None:
        written.append(path)
        if len(written) == 14:  # in the second stack
            raise KeyboardInterrupt
        write_json(path, value)

    with monkeypatch.context() as patch:
        patch.setattr("bas.runs.jobs.write_json", dies)
        with pytest.raises(KeyboardInterrupt):
            run_jobs(run, jobs, 3, 1, console, "audit", stacked=True)
    assert len(results(run)) == 13
    before = {p: p.stat().st_mtime_ns for p in (run.folder / "jobs").glob("*.json")}
    run_jobs(run, jobs, 3, 1, console, "audit", stacked=True)
    assert before == {p: p.stat().st_mtime_ns for p in before}
    compare(results(run), results(whole))
    rows = [line.split("│")[1:5] for line in console.file.getvalue().splitlines() if "alone" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["alone", "ser_bas3", "13", "20"],
        ["alone", "ser_bas3", "20", "20"],
    ]


def test_in_training(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member ends with the same bits, and no epoch before the kill is trained again."""
    run, whole, jobs = pair
    epochs: list[int] = []
    one_epoch, one_training = bas.runs.stacked.one_epoch, run.plan.settings.epochs
    assert one_training > 2

    def counted(*arguments: Any) -> list[float]:
        epochs.append(arguments[5])
        return one_epoch(*arguments)

    def dies() -> None:
        if epochs[-1] == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(bas.runs.stacked, "one_epoch", counted)
    monkeypatch.setattr(bas.training.loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run_stack(Session(run, dies), jobs)
    assert epochs == [0, 1]
    assert not results(run)
    run_stack(Session(run), jobs)
    assert epochs == list(range(one_training))
    assert not list((run.folder / "jobs").glob("*.checkpoint"))
    assert numbers(run) == numbers(whole)


def test_while_it_writes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no result yet gets it from the checkpoint of all, and nothing is trained."""
    run, whole, jobs = pair
    keep = bas.runs.stacked.keep
    kept: list[Job] = []

    def dies(session: Session, job: Job, result: Any) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(job)
        keep(session, job, result)

    with monkeypatch.context() as patch:
        patch.setattr(bas.runs.stacked, "keep", dies)
        with pytest.raises(KeyboardInterrupt):
            run_stack(Session(run), jobs)
    assert kept == [jobs[3], jobs[2]]
    with monkeypatch.context() as patch:
        patch.delattr(bas.runs.stacked, "one_epoch")
        run_stack(Session(run), jobs)
    assert numbers(run) == numbers(whole)


def test_a_checkpoint_of_fewer_members_is_not_used(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    run, whole, jobs = pair
    with monkeypatch.context() as patch:
        patch.delattr(bas.runs.stacked, "keep")
        with pytest.raises(NameError):
            run_stack(Session(run), jobs[:2])
    assert len(list((run.folder / "jobs").glob("*.stack.checkpoint"))) == 1
    run_stack(Session(run), jobs)
    assert numbers(run) == numbers(whole)
