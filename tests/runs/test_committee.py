"""Rows that are committees, in a run: which utterances they see, kills, the files that they leave."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from races import KilledError, left, started, ticking, without_time
from records import record
from stacking import eight_speakers

from bas.errors import UserError
from bas.networks.committee import Committee
from bas.networks.network import Network
from bas.runs.fit import fit_row
from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.results import LinearResult, TrainingResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.training.batches import Data
from bas.training.loop import outputs

BASELINE = Job(Kind.BASELINE, "simple FFN", 0, 0)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_speakers(tmp_path_factory.mktemp("committee"))


def speakers(run: Run, ids: tuple[str, ...]) -> set[str | None]:
    return {run.utterances[run.position[i]].speaker for i in ids}


# Inner folds


def test_each_training_speaker_is_held_out_once_and_no_test_speaker_is_seen(features: Path, tmp_path: Path) -> None:
    session = Session(started(tmp_path / "run", features))
    for number, fold in enumerate(session.run.protocol.folds):
        inner = session.inner_folds(number, 3)
        held = Counter(i for parts in inner for i in parts.valid)
        assert set(held.values()) == {1}
        assert set(held) == {*fold.fit, *fold.valid}
        for parts in inner:
            assert parts.test == fold.test
            assert not speakers(session.run, parts.fit) & speakers(session.run, parts.valid)
            assert not speakers(session.run, fold.test) & speakers(session.run, (*parts.fit, *parts.valid))
        units = len(speakers(session.run, (*fold.fit, *fold.valid)))
        assert len(session.inner_folds(number, 99)) == units, "no more than there are speakers"


# A committee


def test_a_committee_is_the_mean_of_its_networks(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    run_job(Session(run), BASELINE)
    result = read_result(run, BASELINE, TrainingResult)
    assert len(result.networks) == 3
    session = Session(run)
    space = run.baselines[BASELINE.row]
    fitted = fit_row(session, space, space.only(), run.plan.settings, 0, 0, lambda record: None)
    assert isinstance(fitted.network, Committee)
    test = session.members(run.protocol.folds[0].test)
    each = torch.stack([outputs(n, fitted.data, test) for n in fitted.network.networks])
    together = outputs(fitted.network, fitted.data, test)
    torch.testing.assert_close(together, each.mean(0))
    assert len({tuple(row.flatten().tolist()) for row in each}) == 3, "each learned something else"
    assert result.test.predictions.tolist() == together.argmax(1).tolist()
    assert [curve.kept.epoch for curve in result.networks] == [kept["epoch"] for kept in fitted.kept]
    assert result.parameters == sum(p.numel() for p in fitted.network.parameters() if p.requires_grad)


def test_a_committee_of_one_is_a_training_alone(features: Path, tmp_path: Path) -> None:
    session = Session(started(tmp_path / "run", features, committee="1"))
    space = session.run.baselines[BASELINE.row]
    fitted = fit_row(session, space, space.only(), session.run.plan.settings, 0, 0, lambda record: None)
    assert isinstance(fitted.network, Network)
    run_job(session, BASELINE)
    assert len(read_result(session.run, BASELINE, TrainingResult).networks) == 1


def test_by_speaker_each_network_is_shown_the_test_part_alike(features: Path, tmp_path: Path) -> None:
    session = Session(started(tmp_path / "run", features, normalise="speaker"))
    parts = session.inner_folds(0, 3)
    test = session.members(parts[0].test)
    seen = [session.derived(1, inner, session.run.plan.settings).batch(test)[0] for inner in parts]
    assert all(torch.equal(seen[0], other) for other in seen[1:])
    of_fit = session.members(parts[0].fit)
    moved = [session.derived(1, inner, session.run.plan.settings).batch(of_fit)[0] for inner in parts]
    assert not torch.equal(moved[0], moved[1]), "statistics are of what each is trained on"


def test_a_killed_committee_goes_on_from_its_networks(features: Path, tmp_path: Path) -> None:
    whole, killed = (started(tmp_path / name, features) for name in ("whole", "killed"))
    run_job(Session(whole), BASELINE)
    with pytest.raises(KilledError):
        ticking(killed, BASELINE, kill=5)  # in the first epoch of the third network
    assert left(killed) == [f"{BASELINE.name}.{number}.checkpoint" for number in (0, 1)]
    assert ticking(killed, BASELINE) == 2, "two networks were not trained again"
    assert without_time(record(killed.job_path(BASELINE.name))) == without_time(record(whole.job_path(BASELINE.name)))
    assert left(killed) == []


def test_the_linear_row_is_fitted_on_all_training_speakers(features: Path, tmp_path: Path) -> None:
    name = "logistic regression"
    job = Job(Kind.LINEAR, name, 0, 0)
    seen: list[int] = []
    for committee in ("1", "3"):
        session = Session(started(tmp_path / committee, features, committee=committee))
        fold, real = session.run.protocol.folds[0], Data.mean_frames

        def watched(data: Data, members: torch.Tensor, real: Any = real) -> torch.Tensor:
            seen.append(len(members))
            out: torch.Tensor = real(data, members)
            return out

        with mock.patch.object(Data, "mean_frames", watched):
            run_job(session, job)
        *_, trained, tested = seen
        assert tested == len(fold.test)
        assert trained == (len(fold.fit) if committee == "1" else len(fold.fit) + len(fold.valid))
        result = read_result(session.run, job, LinearResult)
        assert set(result.valid) == set(session.run.metrics)


def test_a_checkpoint_of_a_finished_network_names_its_training(features: Path, tmp_path: Path) -> None:
    """Weights that have seen the test part of another split are not taken for those of a network."""
    one, other = (started(tmp_path / name, features) for name in ("one", "other"))
    with pytest.raises(KilledError):
        ticking(one, BASELINE, kill=3)
    (kept,) = (one.folder / "jobs").glob("*.checkpoint")
    (other.folder / "jobs").mkdir(exist_ok=True)
    (other.folder / "jobs" / kept.name.replace(".0.", ".1.")).write_bytes(kept.read_bytes())
    with pytest.raises(UserError, match="not of this job"):
        run_job(Session(other), BASELINE)
