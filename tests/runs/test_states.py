"""The encoder's state as a part of the space: `layer = "search"`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from places import ROOT
from records import record
from told_by_a_state import DIM, SETTINGS, SPACE, STATES, TOLD, accuracy, planted, planted_store
from torch.nn import functional as F

from bas.cli.main import main
from bas.networks.costs import count, multiply_adds
from bas.networks.network import Network, Standardise, State, build, count_parameters
from bas.networks.supernet import Supernet
from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.spaces import MOST_STATES, load_space, over_states
from bas.search.race import Race
from bas.search.search import search
from bas.space import Architecture, SearchSpace, told
from bas.training.batches import by_speaker
from bas.training.loop import outputs, seed_everything
from bas.training.placement import Placement

LAYERS = (3, 5, 7)
FOUND = f"state {LAYERS[TOLD]}"


def with_states(space: SearchSpace, layers: tuple[int, ...] = LAYERS) -> SearchSpace:
    shipped = load_space(str(ROOT / "search_spaces" / "ser_bas3.py"))
    return over_states(replace(shipped, space=space), layers).space


OVER = with_states(SPACE)


def test_the_middle_state_comes_first_and_a_large_encoder_gives_nine() -> None:
    assert OVER.state is not None
    assert list(OVER.state) == ["state 5", "state 3", "state 7"]
    assert OVER.size == 3 * SPACE.size
    assert list(with_states(SPACE, (0, 6)).searched["state"]) == ["state 6", "state 0"]
    names = list(with_states(SPACE, tuple(range(25))).searched["state"])
    assert names[0] == "state 12"
    assert sorted(int(name.split()[1]) for name in names) == list(range(0, 25, 3))
    assert len(names) == MOST_STATES
    assert OVER.signature != SPACE.signature
    for stored in range(2, 50):
        names = list(with_states(SPACE, tuple(range(stored))).searched["state"])
        assert names[0] == f"state {stored // 2}", "the middle one"
        assert {"state 0", f"state {stored - 1}"} <= {*names}
        assert len(names) == min(stored, MOST_STATES)


def test_pages_name_the_state_first() -> None:
    empty = {"state": "state 7", "layer1": "none", "pool": "mean"}
    assert told(empty) == "state 7 > no block > mean"
    assert told(empty | {"stem": "wide", "layer1": "FFN"}) == "state 7 > wide > FFN > mean"


def test_only_the_state_that_is_read_is_standardised() -> None:
    x_BTI, whole = torch.randn(2, 5, STATES * DIM), Standardise(STATES * DIM)
    whole.set(torch.randn(STATES * DIM), torch.rand(STATES * DIM) + 0.5)
    for index in range(STATES):
        one = State(index, STATES)
        torch.testing.assert_close(one(x_BTI), x_BTI.unflatten(-1, (STATES, DIM))[..., index, :])
        assert torch.equal(whole(x_BTI, one), one(whole(x_BTI)))


def test_a_network_of_a_state_is_one_on_that_state_alone() -> None:
    """Outputs, parameters and multiply-adds; padding and batch size change none."""
    data, everyone = planted(0, 30), torch.arange(30)
    for index, layer in enumerate(LAYERS):
        torch.manual_seed(1)
        one = build(
            OVER, Architecture.of({"state": f"state {layer}", "layer1": "MSA"}), DIM, 8, 2, states=STATES
        ).eval()
        torch.manual_seed(1)
        alone = build(SPACE, Architecture.of({"layer1": "MSA"}), DIM, 8, 2).eval()
        assert one.mix is None
        assert count_parameters(one) == count_parameters(alone)
        assert multiply_adds(one, STATES * DIM, 10) == multiply_adds(alone, DIM, 10)
        one.standardise.set(*data.moments(everyone))
        alone.standardise.set(*(State(index, STATES)(moment) for moment in data.moments(everyone)))
        x_BTI, mask_BT, _ = data.batch(everyone)
        with torch.inference_mode():
            torch.testing.assert_close(one(x_BTI, mask_BT), alone(State(index, STATES)(x_BTI), mask_BT))
        for size in (1, 7):
            torch.testing.assert_close(outputs(one, data, everyone, size), outputs(one, data, everyone))


def test_a_state_costs_nothing_and_the_rest_as_much_as_without() -> None:
    costs = count(Supernet(OVER, DIM, 8, 2, states=STATES), "multiply-adds", 10)
    alone = count(Supernet(SPACE, DIM, 8, 2), "multiply-adds", 10)
    assert costs.searched == {"state": dict.fromkeys(OVER.searched["state"], 0), **alone.searched}
    assert costs.fixed == alone.fixed


@pytest.mark.parametrize("strategy", ["gumbel", "bilevel", "hard", "darts", "single-path"])
def test_a_supernet_chooses_the_state_that_tells(strategy: str) -> None:
    data, members, others = planted(0), torch.arange(72), torch.arange(72, 112)
    seed_everything(0)
    supernet = Supernet(OVER, data.dim, 8, 2, states=data.states)
    supernet.standardise.set(*data.moments(members))
    assert supernet.mix is None

    def score(one: Network) -> Mapping[str, float]:
        return {"loss": float(F.cross_entropy(outputs(one, data, others), data.targets_U[others]))}

    setting = replace(SETTINGS, strategy=strategy)  # type: ignore[arg-type]
    outcome = search(supernet, F.cross_entropy, data, members, setting, 0, lambda epoch: {}, others, score)
    assert outcome.architecture["state"] == FOUND
    assert accuracy(supernet.discrete(outcome.architecture), data, others) > 0.9


@pytest.mark.parametrize("name", ["ser_bas3", "ser_wide"])
def test_where_nothing_is_solved_a_race_tries_every_block(name: str) -> None:
    """All states cost the same: they would fill the first round with one network."""
    space = with_states(load_space(str(ROOT / "search_spaces" / f"{name}.py")).space, tuple(range(13)))
    costs = count(Supernet(space, DIM, 8, 2, states=13), "parameters", 10)
    race, tried = Race(space, costs, 4, 16, 0, ensemble=2), []
    while (following := race.next()) is not None:
        tried.append(following[0])
        race.add(*following, 1.0 + 0.01 * len(tried))
    names = {of["layer1"] for of in tried} | {of["layer2"] for of in tried} | {of["layer3"] for of in tried}
    assert names == {*space.slots["layer1"]}
    assert len({of["state"] for of in tried}) > 4


@pytest.mark.parametrize("moved", [False, True])
def test_data_of_one_state_are_that_state(moved: bool) -> None:
    data = planted(0, 30)
    if moved:
        data = by_speaker(data, torch.arange(20), [f"s{u % 3}" for u in range(30)])
    members = torch.tensor([3, 1, 25])
    x_BTI, mask_BT, targets_B = data.batch(members)
    for index in range(STATES):
        alone, one = data.of_state(index), State(index, STATES)
        assert (alone.dim, alone.states) == (DIM, 1)
        found = alone.batch(members)
        assert torch.equal(found[0], one(x_BTI))
        assert torch.equal(found[1], mask_BT)
        assert torch.equal(found[2], targets_B)
        assert torch.equal(alone.mean_frames(members), one(data.mean_frames(members)))


# --- whole runs ---

FILE = '''"""Twelve architectures of a state each."""
from bas.blocks import FFN, MeanPool, Skip, StatisticsPool
from bas.space import SearchSpace

space = SearchSpace({"layer1": {"none": Skip, "FFN": FFN}}, {"mean": MeanPool, "statistics": StatisticsPool})
baselines = {"FFN": SearchSpace({"layer1": {"FFN": FFN}}, MeanPool)}
'''
SMALL = [f"--set={setting}" for setting in ("epochs=2", "width=8", "stride=2", "batch_size=12")]
RACE = ["--set=budget=8", "--set=committee=2"]
FOLDS = 2


def words(verb: str, layer: object, name: str, *more: str) -> list[str]:
    run = [
        verb,
        "--features",
        "features",
        "--layer",
        str(layer),
        "--space",
        "tiny.py",
        "--protocol",
        f"speaker:{FOLDS}",
    ]
    return [*run, *SMALL, "--workers", "1", "--name", name, *more]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A planted store; a comparison that searches the state, of two seeds, and one on the state that tells."""
    root = tmp_path_factory.mktemp("states")
    planted_store(root, root / "features")
    (root / "tiny.py").write_text(FILE)
    here = Path.cwd()
    os.chdir(root)
    try:
        assert main(words("compare", "search", "any", "--seeds", "2", *RACE)) == 0
        assert main(words("compare", TOLD, "one", "--seeds", "1", *RACE)) == 0
    finally:
        os.chdir(here)
    return root


def job(folder: Path, kind: str, fold: int, seed: int = 0) -> dict[str, Any]:
    return record(folder / f"jobs/{kind}-tiny-fold{fold}-seed{seed}.json")


@pytest.mark.slow
def test_a_race_finds_the_state_and_its_row_the_classes(work: Path) -> None:
    for fold in range(FOLDS):
        for seed in (0, 1):
            found = job(work / "runs/any", "search", fold, seed)
            assert found["architecture"]["state"] == f"state {TOLD}"
            heavy = [m["weight"] for m in found["members"] if m["architecture"]["state"] == f"state {TOLD}"]
            assert sum(heavy) > 0.8
            solved = {tuple(t["architecture"].values()) for t in found["trials"] if t["solved"]}
            assert len(solved) == STATES * 2, "of each state the mean and the statistics"
            trained = [t["architecture"]["state"] for t in found["trials"] if not t["solved"]]
            assert f"state {TOLD}" in trained
            row = job(work / "runs/any", "retrain", fold, seed)
            assert row["test"]["metrics"]["WA"] > 0.85
            assert row["mix"] is None
    base = record(work / "runs/any/jobs/baseline-FFN-fold0-seed0.json")
    assert list(base["mix"]) == ["0", "1", "2"], "rows without a search read the mix"
    linear = record(work / "runs/any/jobs/linear-logistic-regression-fold0-seed0.json")
    assert linear["parameters"] == STATES * DIM + 1
    page = (work / "runs/any/table.md").read_text()
    assert "Layer search: each search chooses of states 0, 1, 2; rows without a search read their mix" in page
    assert "state 100 %" not in page
    assert f"state: state {TOLD} 100 %" in page


@pytest.mark.slow
def test_a_linear_model_of_a_state_is_that_of_a_run_on_the_state(work: Path) -> None:
    for fold in range(FOLDS):
        given = {
            (t["architecture"]["pool"], t["replication"]): t["loss"]
            for t in job(work / "runs/any", "search", fold)["trials"]
            if t["solved"] and t["architecture"]["state"] == f"state {TOLD}"
        }
        alone = [t for t in job(work / "runs/one", "search", fold)["trials"] if t["solved"]]
        assert given == pytest.approx(
            {(t["architecture"]["pool"], t["replication"]): t["loss"] for t in alone}, abs=1e-6
        )


@pytest.mark.slow
@pytest.mark.parametrize("where", ["memory", "store"])
def test_a_job_alone_gives_what_it_gave_after_another(work: Path, tmp_path: Path, where: str) -> None:
    """Linear models that another seed's race has solved are taken over; the numbers are those of solving them."""
    folder = tmp_path / "any"
    shutil.copytree(work / "runs/any", folder)
    session = Session(folder, placement=Placement(where, 2**26))
    for kind in (Kind.SEARCH, Kind.RETRAIN):
        chosen = Job(kind, "tiny", 1, 1)
        before = record(session.run.job_path(chosen.name))
        session.run.job_path(chosen.name).unlink()
        run_job(session, chosen)
        assert timeless(record(session.run.job_path(chosen.name))) == timeless(before)
    solved = len(session.solved)
    for kind in (Kind.SEARCH, Kind.RETRAIN):
        other = Job(kind, "tiny", 1, 0)
        before = record(session.run.job_path(other.name))
        session.run.job_path(other.name).unlink()
        spared = session.spared
        run_job(session, other)
        now = record(session.run.job_path(other.name))
        assert timeless(now) == timeless(before)
        if kind == Kind.SEARCH:
            assert session.spared > spared
        elif session.spared > spared:
            assert now["seconds"] > session.spared - spared, "as if they were solved for this seed"
    assert len(session.solved) <= solved + STATES * 2, "what another seed's row has beside"


@pytest.mark.slow
def test_a_run_of_one_seed_keeps_no_solved_models(work: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    shutil.copytree(work / "runs/one", folder)
    session = Session(folder)
    session.run.job_path(Job(Kind.SEARCH, "tiny", 0, 0).name).unlink()
    run_job(session, Job(Kind.SEARCH, "tiny", 0, 0))
    assert session.solved == {}


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: timeless(of) for name, of in value.items() if name not in ("seconds", "sha256")}
    return [timeless(of) for of in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "more"),
    [
        ("compare", ["--set=strategy=gumbel", "--set=committee=1", "--seeds=1"]),
        ("compare", ["--set=strategy=random-search", *RACE, "--seeds=1"]),
        ("audit", ["--strategy=single-path", "--variant=none", "--seeds=2"]),
        ("tune", ["--trials=3", "--set=strategy=single-path"]),
    ],
)
def test_every_verb_that_searches_takes_it(
    work: Path, monkeypatch: pytest.MonkeyPatch, verb: str, more: list[str]
) -> None:
    monkeypatch.chdir(work)
    name = f"{verb}-{more[0].rpartition('=')[2]}"
    assert main(words(verb, "search", name, *more)) == 0
    searches = [path for path in (work / "runs" / name).rglob("jobs/search-*.json")]
    assert {record(path)["architecture"]["state"] for path in searches} <= {f"state {i}" for i in range(STATES)}
    if verb == "audit":
        page = (work / "runs" / name / "table.md").read_text()
        assert f"| state {TOLD} > no block > mean | 100.0 |" in page
        assert "| single-path | state | state 1 100 % |" in page


@pytest.mark.slow
def test_one_state_alone_is_refused_and_one_more_needs_another_name(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    assert main(["features", "subset", "features", "--into", "one", "--layers", "1"]) == 0
    assert main(["features", "subset", "features", "--into", "two", "--layers", "1,2"]) == 0
    capsys.readouterr()
    assert (
        main([w.replace("features", "one") if w == "features" else w for w in words("compare", "search", "new")]) == 2
    )
    assert (
        "--layer search: only state 1 is stored, nothing to search; extract more, or name it" in capsys.readouterr().err
    )
    assert not Path("runs/new").exists()
    assert (
        main([w.replace("features", "two") if w == "features" else w for w in words("compare", "search", "any")]) == 2
    )
    assert capsys.readouterr().err.count("\n") == 1
    assert Run.open(work / "runs/any").states == STATES
