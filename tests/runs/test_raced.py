"""Races in a run: their trainings, kills, the ensemble that they end in, and the row that takes their networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from races import RETRAIN, SEARCH, KilledError, left, started, ticking, without_time
from records import record
from running import begin
from stacking import eight_speakers

from bas.errors import Diverged, UserError
from bas.networks.committee import Committee
from bas.networks.linear import LinearModel
from bas.networks.network import build
from bas.report.results import Races
from bas.runs.fit import Fitted, fit, fit_row
from bas.runs.jobs import run_job
from bas.runs.results import SearchResult, TrainingResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.search.ensemble import Member, weigh
from bas.search.race import Trial
from bas.space import Architecture
from bas.studies.tune.numbers import baselines_of
from bas.training.loop import outputs


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_speakers(tmp_path_factory.mktemp("raced"))


@pytest.fixture(scope="module")
def raced_run(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = started(tmp_path_factory.mktemp("raced") / "run", features)
    run_job(Session(run), SEARCH)
    return run


def networks(result: SearchResult) -> list[Trial]:
    """The trials that were trained, without those that were solved."""
    assert result.trials
    return [trial for trial in result.trials if not trial.solved]


def loss(trial: Trial) -> float:
    assert trial.loss is not None
    return trial.loss


def test_what_a_race_writes(raced_run: Run) -> None:
    result = read_result(raced_run, SEARCH, SearchResult)
    assert result.trials
    assert result.choice
    assert [t.replication for t in result.trials if t.solved] == [0, 1, 2] * 3
    assert [t.replication for t in networks(result)] == [0] * 7 + [1] * 4 + [2]
    assert result.architecture in [t.architecture for t in result.trials]
    assert result.architecture == result.choice.architecture
    assert result.members == (Member(result.architecture, 1.0),)
    assert 0 <= result.choice.probability <= 1
    assert result.choice.regret >= 0
    assert result.choice.noise > 0
    assert result.multiply_adds > 0
    assert result.seconds == pytest.approx(sum(t.seconds for t in result.trials))
    assert (raced_run.folder / "tb" / SEARCH.name).is_dir()


def test_its_trainings_are_the_networks_of_a_committee(raced_run: Run) -> None:
    """So the row of what was chosen need not train them again."""
    session = Session(raced_run)
    space, settings = raced_run.spaces["ser_wide"].space, raced_run.plan.settings
    first, *_, last = networks(read_result(raced_run, SEARCH, SearchResult))
    inner = session.inner_folds(0, 3)
    for trial in (first, last):
        architecture, number = Architecture.of(trial.architecture), trial.replication
        fitted = fit(session, space, architecture, settings, 0, 0, lambda r: None, parts=inner[number], member=number)
        assert float(fitted.kept[0]["valid"]["loss"]) == trial.loss
    row = fit_row(session, space, Architecture.of(last.architecture), settings, 0, 0, lambda r: None)
    assert row.kept[last.replication]["valid"]["loss"] == last.loss


def test_a_killed_race_goes_on_and_ends_alike(raced_run: Run, features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    with pytest.raises(KilledError):
        ticking(run, SEARCH, kill=5 * 2 + 1)  # five networks of two epochs, half of one; linear models do not tick
    assert len(left(run)) == 5
    assert ticking(run, SEARCH) == 7 * 2
    assert without_time(record(run.job_path(SEARCH.name))) == without_time(record(raced_run.job_path(SEARCH.name)))


@pytest.fixture(scope="module")
def ensemble_run(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = started(tmp_path_factory.mktemp("ensemble") / "run", features, ensemble="2")
    run_job(Session(run), SEARCH)
    return run


def test_an_ensemble_is_weighed_by_what_it_predicts_of_held_out_speakers(ensemble_run: Run) -> None:
    """All by hand: complete architectures, their outputs for each inner fold by the network that held it out."""
    session = Session(ensemble_run)
    result = read_result(ensemble_run, SEARCH, SearchResult)
    space, settings, inner = (
        ensemble_run.spaces["ser_wide"].space,
        ensemble_run.plan.settings,
        session.inner_folds(0, 3),
    )
    done: dict[Architecture, set[int]] = {}
    for trial in result.trials or ():
        done.setdefault(Architecture.of(trial.architecture), set()).add(trial.replication)
    complete = [a for a, replications in done.items() if replications >= {0, 1, 2}]
    assert sum(space.summary(a) is None for a in complete) == 2
    held_MNO = []
    for architecture in complete:
        parts = [
            fit(session, space, architecture, settings, 0, 0, lambda r: None, parts=one, member=number)
            for number, one in enumerate(inner)
        ]
        pairs = zip(parts, inner, strict=True)
        held_MNO.append(torch.cat([outputs(p.network, p.data, session.members(one.valid)) for p, one in pairs]))
    targets_N = torch.from_numpy(ensemble_run.targets)[session.members(tuple(i for one in inner for i in one.valid))]

    def loss(outputs_NO: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs_NO, targets_N)

    weights = weigh(held_MNO, loss)
    mean = sum(w * o for w, o in zip(weights, held_MNO, strict=True))
    theirs = {Architecture.of(m.architecture): m.weight for m in result.members}
    assert sum(theirs.values()) == pytest.approx(1)
    assert set(theirs) <= set(complete)
    own = sum(theirs.get(a, 0.0) * o for a, o in zip(complete, held_MNO, strict=True))
    assert isinstance(mean, torch.Tensor)
    assert isinstance(own, torch.Tensor)
    assert float(loss(own)) == pytest.approx(float(loss(mean)), abs=1e-6)


def test_the_row_of_a_race_takes_its_trainings_and_leaves_none(
    ensemble_run: Run, features: Path, tmp_path: Path
) -> None:
    session, members = Session(ensemble_run), read_result(ensemble_run, SEARCH, SearchResult).members
    space = ensemble_run.spaces["ser_wide"].space
    solved = [m for m in members if space.summary(Architecture.of(m.architecture))]
    assert len(left(ensemble_run)) == 3 * (len(members) - len(solved)), "those of the members alone"
    data, test = session.data(1, 1), session.members(ensemble_run.protocol.folds[0].test)
    settings = ensemble_run.plan.settings
    rows = [
        fit_row(session, space, Architecture.of(m.architecture), settings, 0, 0, lambda record: None) for m in members
    ]
    expected = sum(m.weight * outputs(row.network, data, test) for m, row in zip(members, rows, strict=True))
    assert isinstance(expected, torch.Tensor)
    assert ticking(ensemble_run, RETRAIN) == len(solved), "nothing was trained again"
    result = read_result(ensemble_run, RETRAIN, TrainingResult)
    assert result.members == members
    assert result.test.predictions.tolist() == expected.argmax(1).tolist()
    assert len(result.networks) == len(solved) + 3 * (len(members) - len(solved))
    assert left(ensemble_run) == []
    again = started(tmp_path / "again", features, ensemble="2")
    run_job(Session(again), SEARCH)
    for name in left(again):
        (again.folder / "jobs" / name).unlink()
    assert ticking(again, RETRAIN) == len(solved) + 2 * 3 * (len(members) - len(solved))
    same = (without_time(record(run.job_path(RETRAIN.name))) for run in (ensemble_run, again))
    assert next(same) == next(same), "and without them the row is the same"


@pytest.mark.parametrize("how", ["cut", "no archive", "of another replication"])
def test_a_damaged_checkpoint_is_refused_by_name(how: str, features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    with pytest.raises(KilledError):
        ticking(run, SEARCH, kill=8 * 2 + 1)
    paths = {name: run.folder / "jobs" / name for name in left(run)}
    path = next(p for name, p in paths.items() if name.endswith(".0.checkpoint"))
    other = next(p for name, p in paths.items() if name.endswith(".1.checkpoint"))
    whole = path.read_bytes()
    damaged = {"cut": whole[: len(whole) // 2], "no archive": bytes(range(256)), "of another": other.read_bytes()}
    path.write_bytes(damaged[how.removesuffix(" replication")])
    with pytest.raises(UserError) as error:
        run_job(Session(run), SEARCH)
    assert path.name in str(error.value)
    assert "delete it" in str(error.value)
    assert path.exists()


def test_random_search_with_an_ensemble_completes_its_best(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features, strategy="random-search", ensemble="2", budget="7")
    run_job(Session(run), SEARCH)
    result = read_result(run, SEARCH, SearchResult)
    made = networks(result)
    assert len(made) == 7
    drawn = sorted(made[:3], key=loss)
    assert [t.replication for t in made] == [0, 0, 0, 1, 2, 1, 2]
    assert [t.architecture for t in made[3::2]] == [t.architecture for t in drawn[:2]]
    assert result.architecture == drawn[0].architecture
    assert sum(member.weight for member in result.members) == pytest.approx(1)


@pytest.mark.parametrize("more", [{}, {"strategy": "random-search", "budget": "14", "ensemble": "2"}])
def test_a_training_that_diverges_ends_no_search(
    more: dict[str, str], features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(tmp_path / "run", features, **{"ensemble": "2", **more})

    space = run.spaces["ser_wide"].space
    first: list[Architecture] = []

    def diverging(*given: Any) -> Fitted:
        """All with an FFN, and in its last inner fold what is trained there first."""
        fitted, (architecture, replication) = fit(*given), (given[2], given[-1])
        if not space.summary(architecture) and replication == 2 and not first:
            first.append(architecture)
        if "FFN" in architecture.to_dict().values() or (replication == 2 and architecture in first):
            raise Diverged("training diverged: loss nan")
        return fitted

    monkeypatch.setattr("bas.runs.raced.fit", diverging)
    run_job(Session(run), SEARCH)
    result = read_result(run, SEARCH, SearchResult)
    lost = [trial for trial in networks(result) if trial.loss is None]
    assert len(lost) == 1 + sum("FFN" in trial.architecture.values() for trial in networks(result))
    gone = [trial.architecture for trial in lost]
    assert first[0].to_dict() in gone
    assert all(of not in gone for of in (result.architecture, *(m.architecture for m in result.members)))
    races = Races.of([result])
    assert (races.diverged if races else None) == (None if "strategy" in more else len(lost))
    monkeypatch.undo()
    run_job(Session(run), RETRAIN)
    assert left(run) == []


@pytest.mark.parametrize("strategy", ["race", "random-search"])
def test_where_no_finalist_is_left_the_row_is_the_choice(
    strategy: str, features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(tmp_path / "run", features, ensemble="2", strategy=strategy, budget="8")

    def diverging(*given: Any) -> Fitted:
        if given[-1] == 2:
            raise Diverged("training diverged: loss nan")
        return fit(*given)

    monkeypatch.setattr("bas.runs.raced.fit", diverging)
    monkeypatch.setattr("bas.runs.raced.solvable", lambda *_: None)
    run_job(Session(run), SEARCH)
    result = read_result(run, SEARCH, SearchResult)
    assert result.members == (Member(result.architecture, 1.0),)
    assert all(trial.loss is not None for trial in result.trials or () if trial.architecture == result.architecture)


def test_a_race_killed_after_a_divergence_ends_alike(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(*given: Any) -> Fitted:
        fitted = fit(*given)
        if "MSA" in given[2].to_dict().values():
            raise Diverged("training diverged: loss nan")
        return fitted

    monkeypatch.setattr("bas.runs.raced.fit", diverging)
    whole, killed = (started(tmp_path / name, features, ensemble="2") for name in ("whole", "killed"))
    run_job(Session(whole), SEARCH)
    with pytest.raises(KilledError):
        ticking(killed, SEARCH, kill=9 + 6 * 2 + 1)
    run_job(Session(killed), SEARCH)
    records = [record(run.job_path(SEARCH.name)) for run in (whole, killed)]
    assert without_time(records[0]) == without_time(records[1])
    assert any(trial["loss"] is None for trial in records[0]["trials"])


def test_random_search_draws_as_many_as_the_budget(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features, strategy="random-search", budget="4")
    run_job(Session(run), SEARCH)
    result = read_result(run, SEARCH, SearchResult)
    assert result.trials
    assert result.choice is None
    assert [t.replication for t in result.trials] == [0] * 4
    assert result.members == (Member(result.architecture, 1.0),)
    assert result.architecture == min(result.trials, key=loss).architecture


def rebuilt(session: Session, result: TrainingResult) -> Committee:
    """The networks of a row with fresh weights, as its result names them."""
    space, settings = session.run.spaces["ser_wide"].space, session.run.plan.settings
    every: list[torch.nn.Module] = []
    for member in result.members:
        architecture = Architecture.of(member.architecture)
        dims = session.data(1, 1).dim, 8, len(session.run.outputs)
        if summary := space.summary(architecture):
            every.append(LinearModel(summary, dims[0], dims[2]))
        else:
            every.append(Committee([build(space, architecture, *dims) for _ in range(settings.committee)]))
    if len(every) == 1:
        assert isinstance(every[0], Committee)
        return every[0]
    return Committee(every, [member.weight for member in result.members])


@pytest.mark.parametrize("more", [{"strategy": "random-search", "budget": "3"}, {"ensemble": "2"}])
def test_the_weights_of_a_row_are_kept(more: dict[str, str], features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features, **more)
    for job in (SEARCH, RETRAIN):
        run_job(Session(run), job)
    result = read_result(run, RETRAIN, TrainingResult)
    session = Session(run)
    network = rebuilt(session, result)
    network.load_state_dict(torch.load(run.folder / "jobs" / f"{RETRAIN.name}.pt", weights_only=True))
    test = session.members(run.protocol.folds[0].test)
    data = session.data(1, 1)
    assert outputs(network.eval(), data, test).argmax(1).tolist() == result.test.predictions.tolist()


def test_a_space_may_be_added_with_its_baselines(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    assert list(run.baselines) == ["4L transformer", "simple FFN"]
    spaces = tuple(str(ROOT / "search_spaces" / f"{name}.py") for name in ("ser_wide", "ser_bas3"))
    more = begin(run.folder, replace(run.plan, spaces=spaces))
    assert list(more.baselines) == ["4L transformer", "simple FFN", "3L transformer"]
    assert baselines_of(more) == ("4L transformer", "simple FFN")
    begin(run.folder, replace(run.plan, spaces=spaces[::-1]))
