"""Rows that are committees, and races, in a run: which utterances they see, kills, the files that they leave."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from records import record, rewrite
from stacking import eight_speakers, new_run

from bas.errors import UserError
from bas.networks.committee import Committee
from bas.networks.network import Network, build
from bas.runs import raced
from bas.runs.fit import fit, fit_row
from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.results import LinearResult, SearchResult, TrainingResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.space import Architecture
from bas.training.batches import Data
from bas.training.loop import outputs

SPACE = Path(__file__).parents[2] / "search_spaces" / "ser_wide.py"
SEARCH, RETRAIN = (Job(kind, "ser_wide", 0, 0) for kind in (Kind.SEARCH, Kind.RETRAIN))
BASELINE = Job(Kind.BASELINE, "simple FFN", 0, 0)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_speakers(tmp_path_factory.mktemp("committee"))


def started(folder: Path, features: Path, **changes: str) -> Run:
    given = {"strategy": "race", "budget": "12", "committee": "3", "epochs": "2", "width": "8", **changes}
    return new_run(folder, features, SPACE, **given)


def speakers(run: Run, ids: tuple[str, ...]) -> set[str | None]:
    return {run.utterances[run.position[i]].speaker for i in ids}


def without_time(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_time(v) for k, v in value.items() if k not in ("seconds", "sha256")}
    return list(map(without_time, value)) if isinstance(value, list) else value


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


class KilledError(Exception):
    pass


def test_a_killed_committee_goes_on_from_its_networks(features: Path, tmp_path: Path) -> None:
    whole, killed = (started(tmp_path / name, features) for name in ("whole", "killed"))
    run_job(Session(whole), BASELINE)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == 5:  # in the last epoch of the third network's first
            raise KilledError

    with pytest.raises(KilledError):
        run_job(Session(killed, tick), BASELINE)
    left = sorted(path.name for path in (killed.folder / "jobs").glob("*.checkpoint"))
    assert left == [f"{BASELINE.name}.{number}.checkpoint" for number in (0, 1)]
    again = 0

    def count() -> None:
        nonlocal again
        again += 1

    run_job(Session(killed, count), BASELINE)
    assert again == 2, "two networks were not trained again"
    assert without_time(record(killed.job_path(BASELINE.name))) == without_time(record(whole.job_path(BASELINE.name)))
    assert not list((killed.folder / "jobs").glob("*.checkpoint"))


def test_the_weights_of_a_committee_are_kept(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    for job in (SEARCH, RETRAIN):
        run_job(Session(run), job)
    result = read_result(run, RETRAIN, TrainingResult)
    session, space = Session(run), run.spaces["ser_wide"].space
    data = session.data(1, 1)
    made = [build(space, Architecture.of(result.architecture), data.dim, 8, len(run.outputs)) for _ in range(3)]
    committee = Committee(made)
    committee.load_state_dict(torch.load(run.folder / "jobs" / f"{RETRAIN.name}.pt", weights_only=True))
    test = session.members(run.protocol.folds[0].test)
    assert outputs(committee.eval(), data, test).argmax(1).tolist() == result.test.predictions.tolist()


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


# A race


@pytest.fixture(scope="module")
def raced_run(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = started(tmp_path_factory.mktemp("raced") / "run", features)
    run_job(Session(run), SEARCH)
    return run


def test_what_a_race_writes(raced_run: Run) -> None:
    result = read_result(raced_run, SEARCH, SearchResult)
    assert result.trials
    assert result.choice
    assert len(result.trials) == 12
    assert [t.replication for t in result.trials] == [0] * 9 + [1] * 3
    assert result.architecture in [t.architecture for t in result.trials]
    assert result.architecture == result.choice.architecture
    assert 0 <= result.choice.probability <= 1
    assert result.choice.regret >= 0
    assert result.choice.noise > 0
    assert result.multiply_adds > 0
    assert result.seconds == pytest.approx(sum(t.seconds for t in result.trials))
    assert (raced_run.folder / "tb" / SEARCH.name).is_dir()
    assert not list((raced_run.folder / "jobs").glob("*.checkpoint"))


def test_its_losses_are_of_inner_folds_and_their_own_seeds(raced_run: Run) -> None:
    """The first training by hand, and that a row's network is another training."""
    session = Session(raced_run)
    space, settings = raced_run.spaces["ser_wide"].space, raced_run.plan.settings
    first = read_result(raced_run, SEARCH, SearchResult).trials[0]  # type: ignore[index]
    architecture = Architecture.of(first.architecture)
    inner = session.inner_folds(0, 3)

    def loss(member: int) -> float:
        fitted = fit(session, space, architecture, settings, 0, 0, lambda r: None, parts=inner[0], member=member)
        return float(fitted.kept[0]["valid"]["loss"])

    assert loss(raced.FIRST) == first.loss
    assert loss(0) != first.loss


def test_a_killed_race_goes_on_and_ends_alike(raced_run: Run, features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    real, done = raced._train, 0

    def train(*arguments: Any) -> Any:
        nonlocal done
        if done == 5:
            raise KilledError
        done += 1
        return real(*arguments)

    with mock.patch.object(raced, "_train", train), pytest.raises(KilledError):
        run_job(Session(run), SEARCH)
    path = run.folder / "jobs" / f"{SEARCH.name}.checkpoint"
    assert len(record(path)["trials"]) == 5
    made = mock.Mock(side_effect=real)
    with mock.patch.object(raced, "_train", made):
        run_job(Session(run), SEARCH)
    assert made.call_count == 12 - 5
    assert without_time(record(run.job_path(SEARCH.name))) == without_time(record(raced_run.job_path(SEARCH.name)))
    assert not path.exists()


@pytest.mark.parametrize("how", ["cut", "of another race", "a weight's"])
def test_a_damaged_checkpoint_is_refused_by_name(how: str, features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    path = run.folder / "jobs" / f"{SEARCH.name}.checkpoint"
    path.parent.mkdir(exist_ok=True)
    trial = {"architecture": {"layer1": "FFN"}, "replication": 0, "loss": 1.0, "headline": 0.5, "seconds": 1.0}
    if how == "of another race":
        rewrite(path, {"trials": [trial]})
    else:
        path.write_bytes(b'{"trials": [' if how == "cut" else bytes(range(256)))
    with pytest.raises(UserError) as error:
        run_job(Session(run), SEARCH)
    assert path.name in str(error.value)
    assert "delete it" in str(error.value)
    assert path.exists()


def test_random_search_draws_as_many_as_the_budget(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features, strategy="random-search", budget="4")
    run_job(Session(run), SEARCH)
    result = read_result(run, SEARCH, SearchResult)
    assert result.trials
    assert result.choice is None
    assert [t.replication for t in result.trials] == [0] * 4
    assert result.architecture == min(result.trials, key=lambda t: t.loss).architecture


def test_a_checkpoint_of_a_finished_network_names_its_training(features: Path, tmp_path: Path) -> None:
    """Weights that have seen the test part of another split are not taken for those of a network."""
    one, other = (started(tmp_path / name, features) for name in ("one", "other"))
    ticks = iter(range(100))

    def tick() -> None:
        if next(ticks) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        run_job(Session(one, tick), BASELINE)
    (kept,) = (one.folder / "jobs").glob("*.checkpoint")
    (other.folder / "jobs").mkdir(exist_ok=True)
    (other.folder / "jobs" / kept.name.replace(".0.", ".1.")).write_bytes(kept.read_bytes())
    with pytest.raises(UserError, match="not of this job"):
        run_job(Session(other), BASELINE)
