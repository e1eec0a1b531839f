"""Rows that are trained once more on fit and valid part: on what, for how long, and after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from races import KilledError, left, started, ticking, without_time
from records import record
from stacking import eight_speakers

from bas.errors import UserError
from bas.experiment import Experiment, settings_of
from bas.networks.network import Network
from bas.runs import fit
from bas.runs.fit import fit_row
from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.results import LinearResult, TrainingResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.training.loop import optimise, outputs
from bas.training.settings import settings

BASELINE = Job(Kind.BASELINE, "simple FFN", 0, 0)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return eight_speakers(tmp_path_factory.mktemp("refit"))


def refitting(folder: Path, features: Path, refit: str = "true") -> Run:
    return started(folder, features, committee="1", refit=refit, epochs="4", normalise="corpus")


def test_it_trains_on_all_but_the_test_part_for_as_many_epochs_as_were_chosen(features: Path, tmp_path: Path) -> None:
    run = refitting(tmp_path / "run", features)
    trained: list[tuple[list[int], int | None, str | None]] = []

    def watched(*given: Any, **named: Any) -> Any:
        trained.append((sorted(given[4].tolist()), named.get("epochs"), named.get("keep_best")))
        return optimise(*given, **named)

    session, space = Session(run), run.baselines[BASELINE.row]
    seen: list[dict[str, Any]] = []
    with mock.patch.object(fit, "optimise", watched):
        fitted = fit_row(session, space, space.only(), run.plan.settings, 0, 0, seen.append)
    fold = run.protocol.folds[0]
    both = sorted(session.members((*fold.fit, *fold.valid)).tolist())
    kept = fitted.kept[0]["epoch"]
    assert trained == [(sorted(session.members(fold.fit).tolist()), None, "score"), (both, kept + 1, None)]
    assert not set(both) & set(session.members(fold.test).tolist())
    again = [of for of in seen if of.get("refit")]
    assert [of["epoch"] for of in again] == list(range(kept + 1))
    assert all("valid" not in of and "score" not in of for of in again), "it has trained on the valid part"
    # Its own standardisation, of all that it trains on.
    mean_D, _ = fitted.data.moments(torch.tensor(both))
    assert isinstance(fitted.network, Network)
    torch.testing.assert_close(fitted.network.standardise.mean_I, mean_D)


def test_its_network_is_that_of_a_training_on_both_parts(features: Path, tmp_path: Path) -> None:
    run = refitting(tmp_path / "run", features)
    session, space = Session(run), run.baselines[BASELINE.row]
    fitted = fit_row(session, space, space.only(), run.plan.settings, 0, 0, lambda record: None)
    joined = run.protocol.folds[0].joined()
    network, data, loss = fit._begin(session, space, space.only(), run.plan.settings, 0, 0, joined)
    forward = fit._forward(network)
    fits = session.members(joined.fit)
    ends: list[torch.Tensor] = []

    def after(epoch: Any) -> dict[str, Any]:
        ends.append(outputs(network, data, session.members(joined.test)))
        return {}

    optimise(network, forward, loss.fit, data, fits, run.plan.settings, 0, after)
    test = outputs(fitted.network, fitted.data, session.members(joined.test))
    assert torch.equal(test, ends[fitted.kept[0]["epoch"]]), "rates and batches are those of the whole schedule"


def test_what_is_chosen_is_what_a_row_without_it_chooses(features: Path, tmp_path: Path) -> None:
    one, other = (refitting(tmp_path / name, features, name) for name in ("false", "true"))
    for run in (one, other):
        run_job(Session(run), BASELINE)
    plain, again = (read_result(run, BASELINE, TrainingResult) for run in (one, other))
    assert plain.networks == again.networks, "curves and the epoch that is kept"
    assert (plain.test.logits != again.test.logits).any()  # type: ignore[union-attr]  # neither is None


@pytest.mark.parametrize("kill", [2, 5])
def test_a_killed_one_ends_with_the_same_numbers(features: Path, tmp_path: Path, kill: int) -> None:
    whole, killed = (refitting(tmp_path / name, features) for name in ("whole", "killed"))
    total = ticking(whole, BASELINE)
    with pytest.raises(KilledError):
        ticking(killed, BASELINE, kill=kill)  # in the first training, and in the second
    rest = ticking(killed, BASELINE)
    assert rest <= total
    if kill == 5:
        assert rest <= total - 4, "the first training was done"
    assert without_time(record(killed.job_path(BASELINE.name))) == without_time(record(whole.job_path(BASELINE.name)))
    assert left(killed) == []


def test_the_linear_row_is_fitted_on_both_parts_with_the_strength_that_valid_chose(
    features: Path, tmp_path: Path
) -> None:
    job = Job(Kind.LINEAR, "logistic regression", 0, 0)
    results = {}
    for refit in ("false", "true"):
        run = refitting(tmp_path / refit, features, refit)
        run_job(Session(run), job)
        results[refit] = read_result(run, job, LinearResult)
    assert results["false"].strength == results["true"].strength
    assert results["false"].valid == results["true"].valid
    plain, again = (results[refit].test.logits for refit in ("false", "true"))
    assert (plain != again).any()  # type: ignore[union-attr]  # neither is None


def test_a_committee_needs_none() -> None:
    with pytest.raises(UserError, match="committee=4: needs refit=false"):
        settings("cpu", {"refit": "true", "committee": "4"})


@pytest.mark.parametrize(("verb", "refits"), [("compare", True), ("search", True), ("audit", False), ("tune", False)])
def test_under_the_papers_preset_rows_are_refitted_but_no_single_training(verb: str, refits: bool) -> None:
    assert settings_of(Experiment(preset="paper"), verb).refit is refits
