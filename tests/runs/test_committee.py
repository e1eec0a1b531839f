"""Rows that are committees, and races, in a run: which utterances they see, kills, the files that they leave."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from records import record
from stacking import eight_speakers, new_run

from bas.errors import UserError
from bas.networks.committee import Committee
from bas.networks.linear import LinearModel
from bas.networks.network import Network, build
from bas.runs.fit import fit, fit_row
from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.results import LinearResult, SearchResult, TrainingResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.search.ensemble import Member, weigh
from bas.search.race import Trial
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


def networks(result: SearchResult) -> list[Trial]:
    """The trials that were trained, without those that were solved."""
    assert result.trials
    return [trial for trial in result.trials if not trial.solved]


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


def ticking(run: Run, job: Job, kill: int | None = None) -> int:
    """Do a job; the epochs that it trained. kill: the epoch after which it is killed."""
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        if ticks == kill:
            raise KilledError

    run_job(Session(run, tick), job)
    return ticks


def left(run: Run) -> list[str]:
    return sorted(path.name for path in (run.folder / "jobs").glob("*.checkpoint"))


def test_a_killed_race_goes_on_and_ends_alike(raced_run: Run, features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features)
    with pytest.raises(KilledError):
        ticking(run, SEARCH, kill=9 + 5 * 2 + 1)  # linear models, five networks of two epochs, half of one
    assert len(left(run)) == 5
    assert ticking(run, SEARCH) == 9 + 7 * 2
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
        ticking(run, SEARCH, kill=9 + 8 * 2 + 1)
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
    drawn = sorted(made[:3], key=lambda trial: trial.loss)
    assert [t.replication for t in made] == [0, 0, 0, 1, 2, 1, 2]
    assert [t.architecture for t in made[3::2]] == [t.architecture for t in drawn[:2]]
    assert result.architecture == drawn[0].architecture
    assert sum(member.weight for member in result.members) == pytest.approx(1)


def test_random_search_draws_as_many_as_the_budget(features: Path, tmp_path: Path) -> None:
    run = started(tmp_path / "run", features, strategy="random-search", budget="4")
    run_job(Session(run), SEARCH)
    result = read_result(run, SEARCH, SearchResult)
    assert result.trials
    assert result.choice is None
    assert [t.replication for t in result.trials] == [0] * 4
    assert result.members == (Member(result.architecture, 1.0),)
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
