"""A learned mix of layers: it finds the state that tells the classes apart, in trainings as in searches."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import record
from sounds import tone
from stores import Fake, store
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from told_by_a_state import DIM, SETTINGS, SPACE, STATES, TOLD, accuracy, planted
from torch import Tensor, nn
from torch.nn import functional as F

from bas.blocks import FFN, MeanPool
from bas.cli.main import main
from bas.features.store import FeatureStore
from bas.networks.costs import count, multiply_adds
from bas.networks.network import FrameLinear, LayerMix, Network, build, count_parameters
from bas.networks.supernet import Supernet
from bas.runs.baselines import BASELINES
from bas.runs.jobs import run_job
from bas.runs.plan import MIX, Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.stacked import fit_stack
from bas.search.search import search
from bas.space import Architecture, SearchSpace
from bas.studies.audit.trained import training_cost
from bas.training.batches import CPU, by_speaker, load, sizes
from bas.training.loop import optimise, outputs, seed_everything
from bas.training.placement import Placement
from bas.training.stack import NotStackableError

ONE = Architecture((("layer1", "FFN"),))


def randomised(network: Network) -> Network:
    torch.manual_seed(0)
    for p in network.parameters():
        nn.init.normal_(p, std=0.3)
    return network.eval()


# --- the module ---


def test_it_is_a_weighted_sum_of_the_states_side_by_side() -> None:
    mix = LayerMix(STATES)
    states_LBTD = torch.randn(STATES, 2, 5, DIM)
    x_BTI = torch.cat(list(states_LBTD), -1)
    torch.testing.assert_close(mix(x_BTI), states_LBTD.mean(0))
    with torch.no_grad():
        mix.theta.copy_(torch.tensor([0.0, 1.0, -2.0]))
    weights = torch.tensor([1.0, np.e, np.e**-2]) / (1 + np.e + np.e**-2)
    torch.testing.assert_close(mix(x_BTI), (weights[:, None, None, None] * states_LBTD).sum(0))
    assert float(mix.weights().sum()) == pytest.approx(1, abs=1e-12)


def test_one_state_has_no_mix() -> None:
    for network in (Supernet(SPACE, DIM, 8, 2), build(SPACE, ONE, DIM, 8, 2)):
        assert network.mix is None
        assert not [name for name in network.state_dict() if "mix" in name]


def test_an_architecture_of_a_supernet_shares_its_mix_and_pays_for_one_state_from_the_stem_on() -> None:
    supernet = Supernet(SPACE, DIM, 8, 2, states=STATES)
    one = supernet.discrete(ONE)
    assert one.mix is supernet.mix
    assert one.standardise.mean_I.numel() == STATES * DIM
    built = build(SPACE, ONE, DIM, 8, 2, states=STATES)
    alone = build(SPACE, ONE, DIM, 8, 2)
    assert count_parameters(built) == count_parameters(alone) + STATES
    # What works element by element is not counted.
    assert multiply_adds(built, STATES * DIM, 10) == multiply_adds(alone, DIM, 10)
    assert count(supernet, "multiply-adds", 10).of(ONE.blocks) == multiply_adds(alone, DIM, 10)
    stems = SearchSpace({"layer1": {"FFN": FFN}}, MeanPool, stem={"one": FrameLinear, "other": FrameLinear})
    costs = count(Supernet(stems, DIM, 8, 2, states=STATES), "parameters", 10)
    assert costs.searched["stem"] == dict.fromkeys(("one", "other"), DIM * 8 + 8)


def test_padding_and_batch_size_change_nothing() -> None:
    data, everyone = planted(0, 30), torch.arange(30)
    network = randomised(build(SPACE, Architecture((("layer1", "MSA"),)), DIM, 8, 2, states=STATES))
    network.standardise.set(*data.moments(everyone))
    together = outputs(network, data, everyone)
    for size in (1, 7):
        torch.testing.assert_close(outputs(network, data, everyone, size), together, rtol=1e-4, atol=1e-5)


# --- what it learns ---


@pytest.mark.parametrize("strategy", [None, "gumbel", "bilevel", "single-path"])
def test_the_state_that_tells_gets_the_weight(strategy: str | None) -> None:
    """strategy: of a search; None: a training."""
    data, members, others = planted(0), torch.arange(72), torch.arange(72, 112)
    seed_everything(0)
    network: Network
    if strategy is None:
        network = made = build(SPACE, ONE, data.dim, 8, 2, states=data.states)
        made.standardise.set(*data.moments(members))

        def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
            out: Tensor = made(x_BTD, mask_BT)
            return out

        optimise(made, forward, F.cross_entropy, data, members, SETTINGS, 0, lambda epoch: {})
    else:
        supernet = Supernet(SPACE, data.dim, 8, 2, states=data.states)
        supernet.standardise.set(*data.moments(members))

        def score(one: Network) -> dict[str, float]:
            return {"loss": float(F.cross_entropy(outputs(one, data, others), data.targets_U[others]))}

        setting = replace(SETTINGS, strategy=strategy, warmup=1)
        seen: list[list[float]] = []

        def after_epoch(record: dict[str, Any]) -> dict[str, Any]:
            assert supernet.mix is not None
            seen.append(supernet.mix.weights().tolist())
            return {}

        outcome = search(supernet, F.cross_entropy, data, members, setting, 0, after_epoch, others, score)
        assert seen[0] == [1 / STATES] * STATES, "in the warm-up it rests"
        network = supernet.discrete(outcome.architecture)
    assert network.mix is not None
    assert float(network.mix.weights()[TOLD]) > 0.5
    assert accuracy(network, data, others) > 0.9


# --- the data ---


SPEAKERS = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers, two classes a pitch apart, states 0 and 2 of three stored; one finished comparison of their mix."""
    root = tmp_path_factory.mktemp("mix")
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(SPEAKERS):
            for label in "ab":
                for take in range(2):
                    id_ = f"s{s}{label}{take}"
                    tone(root / f"{id_}.wav", 0.2 + 0.02 * take, hertz=200 + 10 * s + 25 * (label == "b") + 7 * take)
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(root / "cups.csv", root / "two", Fake(), layers=(0, 2))
    here = Path.cwd()
    os.chdir(root)
    try:
        assert main(compare(root / "two", "whole")) == 0
    finally:
        os.chdir(here)
    return root


def compare(features: Path, name: str, *more: str) -> list[str]:
    small = [f"--set={setting}" for setting in ("strategy=gumbel", "epochs=2", "width=8", "stride=2", "warmup=1")]
    small.append("--set=committee=1")
    run = ["compare", "--features", str(features), "--layer", "mix", "--space", "ser_bas3", "--seeds", "1"]
    return [*run, *small, "--protocol", "speaker:2", "--workers", "1", "--name", name, *more]


def job(folder: Path, name: str) -> dict[str, Any]:
    return record(folder / f"jobs/{name}.json")


@pytest.mark.slow
def test_frames_hold_the_states_side_by_side_wherever_they_lie(work: Path) -> None:
    held = FeatureStore(work / "two")
    ids, speakers = held.ids, [id_[:2] for id_ in held.ids]
    targets, everyone = np.arange(len(ids)) % 2, torch.arange(len(ids))
    resident, streamed = (load(held, ids, [0, 2], 2, targets, where, CPU) for where in ("memory", "store"))
    for data in (resident, streamed):
        assert (data.dim, data.states) == (4, 2)
        for number, layer in enumerate((0, 2)):
            one = load(held, ids, [layer], 2, targets, "memory", CPU)
            here = slice(4 * number, 4 * number + 4)
            assert torch.equal(data.batch(everyone)[0][..., here], one.batch(everyone)[0])
            assert torch.equal(data.mean_frames(everyone)[:, here], one.mean_frames(everyone))
            moments = zip(data.moments(everyone), one.moments(everyone), strict=True)
            assert all(torch.equal(m_D[here], n_D) for m_D, n_D in moments)
            moved, alone = (by_speaker(d, everyone[::2], speakers) for d in (data, one))
            torch.testing.assert_close(moved.batch(everyone)[0][..., here], alone.batch(everyone)[0])
    (whole, least), (twice, more) = (sizes(held, ids, 2, 32, states) for states in (1, 2))
    assert twice == 2 * whole
    assert more > least


# --- a whole run ---


def test_every_row_has_weights_that_sum_to_one(work: Path) -> None:
    folder = work / "runs/whole"
    paths = sorted(p.stem for p in (folder / "jobs").glob("*.json") if not p.stem.startswith("linear"))
    assert len(paths) == 2 * (len(BASELINES) + 2)
    for name in paths:
        result = job(folder, name)
        result |= result.get("networks", ({},))[0]
        assert result["layer"] == MIX
        for weights in (result["mix"], *(epoch["mix"] for epoch in result["epochs"])):
            assert list(weights) == ["0", "2"]
            assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
        # The warm-up is the search's.
        resting = result["epochs"][0]["mix"] == {"0": 0.5, "2": 0.5}
        assert resting == name.startswith("search")
        last = result["epochs"][result.get("kept_epoch", -1)]
        assert result["mix"] == last["mix"]
        assert result["mix"] != {"0": 0.5, "2": 0.5} or result.get("kept_epoch") == 0
    linear = job(folder, "linear-logistic-regression-fold0-seed0")
    assert linear["parameters"] == 2 * DIM + 1, "it sees both states' means"


def test_the_page_tells_the_weights(work: Path) -> None:
    folder = work / "runs/whole"
    results = json.loads((folder / "results.json").read_text())
    assert list(results["mix"]) == [*BASELINES, "BAS ser_bas3", "searches of ser_bas3"]
    given = [job(folder, f"retrain-ser_bas3-fold{f}-seed0")["mix"]["2"] for f in (0, 1)]
    weight = results["mix"]["BAS ser_bas3"]["2"]
    assert weight["mean"] == pytest.approx(np.mean(given))
    assert weight["sd"] == pytest.approx(np.std(given, ddof=1))
    page = (folder / "table.md").read_text()
    assert results["layers"] == [0, 2]
    assert "Layer mix of states 0, 2: " in page
    assert f"state 2 {100 * weight['mean']:.1f} ± {100 * weight['sd']:.1f} %" in page
    assert page.splitlines()[0].count("layer mix") == 1


def test_the_weights_are_plotted(work: Path) -> None:
    for name in ("search-ser_bas3-fold0-seed0", "retrain-ser_bas3-fold0-seed0"):
        events = EventAccumulator(str(work / f"runs/whole/tb/{name}"))
        events.Reload()
        assert [e.step for e in events.Scalars("mix/state 2")] == [0, 1]
        assert "layer mix" in events.Tags()["images"]


def test_streamed_is_resident_and_nothing_is_stacked(work: Path) -> None:
    folder = work / "runs/streamed"
    shutil.copytree(work / "runs/whole", folder)
    session = Session(folder, placement=Placement("store", 2**26))
    for kind in (Kind.SEARCH, Kind.RETRAIN):
        chosen = Job(kind, "ser_bas3", 1, 0)
        before = job(folder, chosen.name)
        session.run.job_path(chosen.name).unlink()
        run_job(session, chosen)
        now = job(folder, chosen.name)
        assert {**now, "seconds": 0} == {**before, "seconds": 0}
    space = BASELINES["simple FFN"]
    with pytest.raises(NotStackableError, match="layer mix"):
        fit_stack(session, space, space.only(), session.run.plan.settings, [(0, 0)], lambda: None)


def test_what_a_training_costs(work: Path) -> None:
    run = Run.open(work / "runs/whole")
    parts = run.protocol.folds[0]
    frames = int(np.median([-(-run.store.num_frames(i) // 2) for i in parts.fit]))
    space = run.spaces["ser_bas3"].space
    one = next(space.architectures())
    alone = multiply_adds(build(space, one, DIM, 8, 2, residual=True), DIM, frames)
    assert training_cost(run, space, one, 0) == alone * 2 * (3 * len(parts.fit) + len(parts.valid))


def test_a_state_added_later_needs_another_name(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    shutil.copytree(work / "two", work / "three")
    assert main(compare(work / "three", "whole")) == 0, "it goes on"
    store(work / "cups.csv", work / "three", Fake(), layers=(0, 1, 2))
    capsys.readouterr()
    assert main(compare(work / "three", "whole")) == 2
    message = capsys.readouterr().err.strip()
    assert "made with layer mix of 0, 2, now mix of 0, 1, 2" in message
    assert "\n" not in message


def test_one_state_alone_is_refused(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    store(work / "cups.csv", work / "one", Fake(), layers=(1,))
    capsys.readouterr()
    assert main(compare(work / "one", "never")) == 2
    message = capsys.readouterr().err.strip()
    assert message == "bas: --layer mix: only state 1 is stored, nothing to mix; extract more, or name it"
    assert not (work / "runs/never").exists()
