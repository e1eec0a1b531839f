"""Networks of one output each that train side by side: each keeps its own best epoch, also after a kill."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from heard import FEATURES, SHARES, heard
from races import KilledError, ticking, without_time
from records import record
from running import begin

from bas.networks.network import PerOutput
from bas.runs.fit import _begin, _forward, fit, fit_again
from bas.runs.plan import Job, Kind, Plan
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.stacked import stacks
from bas.training import loop
from bas.training.loop import optimise, outputs
from bas.training.settings import settings

JOB = Job(Kind.BASELINE, "one each", 0, 0)


def begun(folder: Path, **changes: str) -> Run:
    given = {"epochs": "8", "lr": "0.05", "width": "8", "precision": "float32", **changes}
    return begin(folder, Plan(FEATURES, ("space.py",), 0, settings("cpu", given), (0, 1), "cpu"))


@pytest.fixture(autouse=True)
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    heard(utterances=60, speakers=6)
    Path("space.py").write_text(SHARES, encoding="utf-8")
    # Sad by chance: there is nothing to learn, and more epochs do harm.
    rows, rng = [json.loads(line) for line in Path("heard.jsonl").read_text().splitlines()], random.Random(0)
    for row in rows:
        row["shares"]["sad"] = float(rng.random() < 0.5)
    Path("heard.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_each_network_has_the_weights_of_its_own_best_epoch(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    session, space = Session(run), run.baselines[JOB.row]
    valid = session.members(run.protocol.folds[0].valid)
    losses: list[list[float]] = []
    weights: list[list[dict[str, torch.Tensor]]] = []

    def watched(network: Any, *given: Any) -> Any:
        if isinstance(network, PerOutput) and len(given[1]) == len(valid) and len(losses) < 8:
            out, targets = outputs(network, *given), run.targets[valid.numpy()]
            own = (out.sigmoid() - torch.from_numpy(targets)).square().mean(0)
            losses.append(own.tolist())
            weights.append([{k: v.clone() for k, v in one.state_dict().items()} for one in network.networks])
        return outputs(network, *given)

    with mock.patch("bas.runs.fit._apart", wraps=apart_with(watched)):
        fitted = fit(session, space, space.only(), run.plan.settings, 0, 0, lambda record: None)
    best = [min(range(8), key=lambda epoch, o=o: losses[epoch][o]) for o in range(2)]  # type: ignore[misc]
    assert len(set(best)) == 2, "a case in which they differ"
    assert isinstance(fitted.network, PerOutput)
    for o, network in enumerate(fitted.network.networks):
        for name, value in network.state_dict().items():
            assert torch.equal(value, weights[best[o]][o][name]), (o, name)
    assert all("apart" not in record for record in fitted.curves[0])


def apart_with(watched: Any) -> Any:
    real = fit.__globals__["_apart"]

    def called(session: Session, network: Any, data: Any, valid: Any, loss: Any) -> Any:
        watched(network, data, valid)
        return real(session, network, data, valid, loss)

    return called


def test_refitted_each_trains_for_its_own_number_of_epochs(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", refit="true")
    session, space = Session(run), run.baselines[JOB.row]
    fitted = fit_again(session, space, space.only(), run.plan.settings, 0, 0, lambda record: None)
    first = fit(session, space, space.only(), run.plan.settings, 0, 0, lambda record: None)
    stops, whole = first.stops, run.protocol.folds[0].joined()
    assert len(set(stops)) == 2, "a case in which they differ"
    network, data, loss = _begin(session, space, space.only(), run.plan.settings, 0, 0, whole)
    ends: list[torch.Tensor] = []

    def after(epoch: Any) -> dict[str, Any]:
        ends.append(outputs(network, data, session.members(whole.test)))
        return {}

    optimise(network, _forward(network), loss.fit, data, session.members(whole.fit), run.plan.settings, 0, after)
    test = outputs(fitted.network, fitted.data, session.members(whole.test))
    for o, stop in enumerate(stops):
        assert torch.equal(test[:, o], ends[stop][:, o]), (o, stop)


@pytest.mark.parametrize(("refit", "kill"), [("false", 3), ("false", 6), ("true", 6), ("true", 10)])
def test_a_killed_one_ends_with_the_same_numbers(tmp_path: Path, refit: str, kill: int) -> None:
    whole, killed = (begun(tmp_path / name, refit=refit) for name in ("whole", "killed"))
    with mock.patch.object(loop, "CHECKPOINT_SECONDS", 0.0):
        total = ticking(whole, JOB)
        with pytest.raises(KilledError):
            ticking(killed, JOB, kill=kill)
        assert ticking(killed, JOB) < total, "it went on"
    assert without_time(record(killed.job_path(JOB.name))) == without_time(record(whole.job_path(JOB.name)))


def test_such_networks_are_not_stacked(tmp_path: Path) -> None:
    run = begun(tmp_path / "run")
    jobs = [Job(Kind.BASELINE, JOB.row, fold, seed) for seed in (0, 1) for fold in (0, 1)]
    assert stacks(Session(run), jobs, 4) == [[job] for job in jobs]
