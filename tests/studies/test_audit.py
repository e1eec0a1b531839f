"""An audit: every architecture under the same folds and seeds, and numbers that are those of its jobs."""

# mypy: disable-error-code="arg-type,var-annotated"

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from refusals import refusal
from running import begin
from sounds import tone
from stores import Fake, quiet, store

from bas.cli.main import main
from bas.protocols import Protocol
from bas.report.comparison import decided
from bas.runs.plan import Job, Kind, Plan
from bas.runs.results import search_of
from bas.runs.run import Inputs, Run
from bas.runs.start import split
from bas.studies import load_results
from bas.studies.audit.page import claims as claims_table
from bas.studies.audit.page import markdown
from bas.studies.audit.results import Claim
from bas.studies.audit.study import measure
from bas.studies.audit.trained import Truth, load_searches, load_truth
from bas.studies.audit.verdicts import ENOUGH, FIRST, LATER, block_claims, random_search, value_picks
from bas.training.settings import settings, variant

pytestmark = pytest.mark.slow

SPACE = '''"""Nine architectures."""
from functools import partial
from bas.blocks import FFN, MSA, MeanPool, TransformerBlock
from bas.space import SearchSpace

layer = {"MSA+FFN": partial(TransformerBlock, num_heads=2), "MSA": partial(MSA, num_heads=2), "FFN": FFN}
space = SearchSpace(slots={"layer1": layer, "layer2": layer}, pool=MeanPool)
'''
STRATEGIES = ["gumbel", "single-path", "gumbel+warmup=1"]  # the default among them


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Eight speakers, two classes a pitch apart."""
    root = tmp_path_factory.mktemp("audit")
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(8):
            for label in "ab":
                for take in range(3):
                    id_ = f"s{s}{label}{take}"
                    tone(root / f"{id_}.wav", 0.2 + 0.02 * take, hertz=200 + 10 * s + 25 * (label == "b") + 7 * take)
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(root / "cups.csv", root / "store", Fake())
    (root / "nine.py").write_text(SPACE, encoding="utf-8")
    changes = {"epochs": "2", "width": "16", "stride": "1"}
    return Plan(str(root / "store"), (str(root / "nine.py"),), 1, settings("cpu", changes), (0, 1), "cpu")


def inputs_and_split(plan: Plan) -> tuple[Inputs, Protocol]:
    inputs = Inputs.open(plan)
    return inputs, split(inputs, "speaker:3", 0)


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited") / "cups"
    measure(folder, *inputs_and_split(plan), STRATEGIES, ["residual=every"], 1, quiet(), None)
    return folder


def test_the_table_has_a_row_for_every_architecture_fold_and_seed(folder: Path) -> None:
    frame = pd.read_parquet(folder / "nine.parquet")
    assert len(frame) == 9 * 3 * 2
    assert not frame.duplicated(["architecture", "fold", "seed"]).any()
    pd.testing.assert_frame_equal(frame, pd.read_csv(folder / "nine.csv"), check_dtype=False)
    run = Run.open(folder)
    row = frame[(frame.architecture == "FFN > MSA") & (frame.fold == 2) & (frame.seed == 1)].iloc[0]
    result = run.result(Job(Kind.ALONE, "nine", 2, 1, int(row.number)).name)
    assert result["architecture"] == {"layer1": "FFN", "layer2": "MSA"}
    assert row.test_WA == result["test"]["metrics"]["WA"]
    assert row.valid_loss == min(epoch["valid"]["loss"] for epoch in result["epochs"])
    assert row.kept_epoch == result["kept_epoch"]
    searched = run.result(Job(Kind.SEARCH, "nine", 2, 1, searcher="gumbel").name)
    p = searched["epochs"][-1]["probabilities"]
    assert row["gumbel_probability"] == pytest.approx(p["layer1"]["FFN"] * p["layer2"]["MSA"])
    assert row["gumbel_valid_loss"] == searched["paths"][int(row.number)]["loss"]


def test_a_strategy_is_worth_what_its_picks_reach(folder: Path) -> None:
    run = Run.open(folder)
    (space,) = json.loads((folder / "results.json").read_text())["spaces"]
    rows = {row["strategy"]: row for row in space["strategies"]}
    assert list(rows) == [*STRATEGIES, "exhaustive", "one drawn blindly"]
    numbers = {str(a): i for i, a in enumerate(run.spaces["nine"].space.architectures())}
    by_seed = {name: [] for name in rows}
    for seed in (0, 1):
        hits = {name: [] for name in rows}
        for fold, parts in enumerate(run.protocol.folds):
            targets = run.targets[[run.position[i] for i in parts.test]]
            alone = [run.result(Job(Kind.ALONE, "nine", fold, seed, n).name) for n in range(9)]
            right = [np.array(result["test"]["predictions"]) == targets for result in alone]
            for name in STRATEGIES:
                chosen = run.result(Job(Kind.SEARCH, "nine", fold, seed, searcher=name).name)["architecture"]
                hits[name].extend(right[numbers[" > ".join(chosen.values())]])
            losses = [min(e["valid"]["loss"] for e in result["epochs"]) for result in alone]
            hits["exhaustive"].extend(right[int(np.argmin(losses))])
            hits["one drawn blindly"].extend(np.mean(right, axis=0))
        for name, values in hits.items():
            by_seed[name].append(np.mean(values))
    for name, row in rows.items():
        assert row["score"]["mean"] == pytest.approx(np.mean(by_seed[name])), name
        if name != "one drawn blindly":
            assert row["score"]["sd"] == pytest.approx(np.std(by_seed[name], ddof=1)), name
    assert rows["one drawn blindly"]["score"]["sd"] > np.std(by_seed["one drawn blindly"], ddof=1), (
        "of architectures too"
    )
    assert rows["exhaustive"]["cost"] == pytest.approx(9 * rows["one drawn blindly"]["cost"])
    assert rows["gumbel"]["cost"] > rows["one drawn blindly"]["cost"]
    assert rows["gumbel"]["searched"]["random"]["tried"] >= 1


def test_a_pick_retrained_by_compare_is_its_row_in_the_audit(plan: Plan, folder: Path, tmp_path: Path) -> None:
    from bas.studies.compare.study import retrain

    run = begin(tmp_path / "compared", replace(plan, seeds=(1,)), "speaker:3")
    retrain(run, 1, quiet())
    numbers = {str(a): i for i, a in enumerate(run.spaces["nine"].space.architectures())}
    for fold in range(3):
        retrained = run.result(Job(Kind.RETRAIN, "nine", fold, 1).name)
        number = numbers[" > ".join(retrained["architecture"].values())]
        alone = Run.open(folder).result(Job(Kind.ALONE, "nine", fold, 1, number).name)
        for name in ("test", "epochs", "kept_epoch", "parameters"):
            assert alone[name] == retrained[name]


def test_again_it_trains_nothing_and_says_the_same(plan: Plan, folder: Path) -> None:
    def written() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in folder.glob("**/jobs/*")}

    before, page = written(), (folder / "table.md").read_text()
    measure(folder, *inputs_and_split(plan), STRATEGIES, ["residual=every"], 1, quiet(), None)
    assert written() == before
    assert (folder / "table.md").read_text() == page


def test_what_a_kill_left_undone_is_done_and_no_number_changes(plan: Plan, folder: Path) -> None:
    page = (folder / "table.md").read_text()
    lost = [
        "jobs/alone-nine-004-fold1-seed1",
        "jobs/search-nine+single-path-fold2-seed0",
        "jobs/baseline-simple-FFN-fold0",
    ]
    lost += ["variants/residual=every/jobs/alone-nine-002-fold0-seed0"]
    for name in lost:
        for path in folder.glob(f"{name}*.json"):
            path.unlink()
    measure(folder, *inputs_and_split(plan), STRATEGIES, ["residual=every"], 2, quiet(), None)
    assert (folder / "table.md").read_text() == page


def test_the_page_says_what_its_numbers_rest_on(folder: Path) -> None:
    page = (folder / "table.md").read_text()
    results = json.loads((folder / "results.json").read_text())
    assert results["tested"] == 48
    for words in ("48 test utterances", "3 folds", "2 seeds", "8 units (speaker)", results["protocol"]["hash"]):
        assert words in page, words
    for words in ("A/A check", "Simulated null", "| MSA > FFN |", "residual=every", FIRST, LATER, ENOUGH):
        assert words in page, words
    (space,) = results["spaces"]
    assert set(space["false_verdicts"]) == {"a_a", "null"}
    assert space["variants"]["residual=every"]["seeds"] == [0]
    assert set(space["variants"]["residual=every"]["claims"]) == {FIRST, LATER, ENOUGH}
    assert space["variants"]["residual=every"]["mean"] != space["summary"]["mean"]


def test_a_variant_is_trained_with_a_skip_around_every_block(folder: Path) -> None:
    run, beside = Run.open(folder), Run.open(folder / "variants/residual=every")
    assert beside.plan.settings == replace(run.plan.settings, residual="every")
    assert beside.protocol == run.protocol
    one, other = (r.result(Job(Kind.ALONE, "nine", 0, 0, 8).name)["parameters"] for r in (run, beside))
    assert other == one + 2 * 2 * 16, "a LayerNorm around each of two blocks"


def truth(accuracy_AS: np.ndarray, scores_AFS: np.ndarray, costs_A: list[float]) -> Truth:
    size, folds, _ = scores_AFS.shape
    curve_AE, costs_AF = np.ones((size, 1)), np.repeat(np.array(costs_A)[:, None], folds, 1)
    predictions_ASN = np.zeros((*accuracy_AS.shape, folds), int)
    return Truth("s", (), predictions_ASN, scores_AFS, curve_AE, curve_AE, np.ones(size), costs_AF)


def test_random_search_spends_what_it_may_and_takes_the_best_on_valid() -> None:
    scores = np.arange(6.0)[:, None, None] + np.zeros((6, 2, 3))
    known = truth(np.zeros((6, 3)), scores, [1.0] * 6)
    all_of_them, tried = random_search(known, 6.0)
    assert tried == 6
    assert all((picks == 5).all() for picks in all_of_them)
    one_each, tried = random_search(known, 0.5)
    assert tried == 1
    assert len(np.unique(one_each)) == 6, "any of them"
    _, tried = random_search(known, 3.0)
    assert tried == 3


def test_the_claims_are_read_from_the_blocks_of_the_slots() -> None:
    blocks = ("MSA+FFN", "MSA", "FFN")
    designs = [{"layer1": a, "layer2": b} for a in blocks for b in blocks]
    rng = np.random.default_rng(0)
    worth = np.array([0.05 * (d["layer1"] == "FFN") - 0.03 * (d["layer2"] == "FFN") for d in designs])
    values = 0.8 + worth + np.vstack([np.zeros(9), rng.normal(0, 1e-4, (8, 9))])
    claims = block_claims(values, designs)
    assert claims[FIRST].conclusion == claims[LATER].conclusion == "confirmed"
    assert claims[FIRST].value == pytest.approx(0.05)
    assert claims[LATER].value == pytest.approx(0.03)
    assert block_claims(0.8 - worth + values - values, designs)[FIRST].conclusion == "rejected"
    assert block_claims(values, [{"layer1": d["layer1"].lower(), "layer2": d["layer2"]} for d in designs]) == {}
    assert block_claims(values[:5], designs)[FIRST].conclusion == "no claim"


def test_a_conclusion_that_flips_is_called_so() -> None:
    def flips(*conclusions: str) -> str:
        first, *others = [{FIRST: Claim(0.0, -1.0, 1.0, 8, c)} for c in conclusions]
        return claims_table(first, {str(i): of for i, of in enumerate(others)})[1][0][-1]

    assert flips("confirmed", "rejected") == "yes"
    assert flips("confirmed", "confirmed") == "no"
    assert flips("confirmed", "undecided") == "not the same"
    assert flips("confirmed") == "–"


@pytest.mark.parametrize(
    ("strategies", "variants", "words"),
    [
        (["gumble"], None, "strategy 'gumble': a strategy comes first, one of gumbel"),
        (["gumbel+epochs=3"], None, "strategy 'gumbel+epochs=3': setting 'epochs': must be one of strategy"),
        ([""], None, "strategy '': must be one of gumbel"),
        (["gumbel+"], None, "strategy 'gumbel+': '' must be NAME=VALUE"),
        (None, ["residual"], "variant 'residual': 'residual' must be NAME=VALUE, such as residual=every"),
        (None, ["residual="], "variant 'residual=': 'residual=' must be NAME=VALUE"),
        (None, ["residual=all"], "variant 'residual=all': setting residual='all': must be one of block, every"),
        (None, ["colour=red"], "variant 'colour=red': setting 'colour': must be one of width"),
        (None, ["residual=block"], "variant 'residual=block': changes nothing"),
        (None, ["lr=0.1+lr=0.2"], "variant 'lr=0.1+lr=0.2': lr is given twice"),
        (None, ["strategy=darts"], "variant 'strategy=darts': setting 'strategy': must be one of width"),
        (None, ["width=7"], "variant 'width=7': "),
    ],
)
def test_bad_input(plan: Plan, tmp_path: Path, strategies: Any, variants: Any, words: str) -> None:
    message = refusal(measure, tmp_path / "new", *inputs_and_split(plan), strategies, variants, 1, quiet(), None)
    assert words in message
    assert not (tmp_path / "new").exists()


def test_a_space_that_is_too_large_is_refused(plan: Plan, tmp_path: Path) -> None:
    source = SPACE.replace('slots={"layer1": layer, "layer2": layer}', 'slots={f"l{i}": layer for i in range(6)}')
    (tmp_path / "large.py").write_text(source, encoding="utf-8")
    large = replace(plan, spaces=(str(tmp_path / "large.py"),))
    message = refusal(measure, tmp_path / "new", *inputs_and_split(large), None, None, 1, quiet(), None)
    assert message == "space large: 729 architectures; an audit takes 2 to 300"
    many = replace(plan, seeds=tuple(range(17)))
    message = refusal(measure, tmp_path / "new", *inputs_and_split(many), None, None, 1, quiet(), None)
    assert message == "--seeds 17: an audit takes 16 at most"
    assert not (tmp_path / "new").exists()


def test_the_verb(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ["audit", "--features", plan.features, "--layer", "1", "--space", plan.spaces[0], "--seeds", "1"]
    changes = ["--set", "epochs=1", "--set", "width=16", "--set", "stride=1", "--variant", "none"]
    split_ = ["--protocol", "id:2", "--allow-overlap", "speaker", "--strategy", "gumbel", "--workers", "1"]
    assert main([*run, *changes, *split_, "--name", "small"]) == 0
    page = (tmp_path / "runs/small/table.md").read_text()
    assert "Mark: allowed by --allow-overlap" in page
    assert "needs more units or seeds" in page, "one seed cannot stand against itself"
    shown = capsys.readouterr().out
    assert "report: runs/small/table.md" in shown
    assert "runs/small/nine.parquet" in shown
    assert "next: " in shown
    assert markdown(load_results(tmp_path / "runs/small")) == page
    searches = load_searches(Run.open(tmp_path / "runs/small"), "nine", "gumbel")
    assert searches.picks_FS.shape == (2, 1)
    assert load_truth(Run.open(tmp_path / "runs/small"), "nine").scores_AFS.shape == (9, 2, 1)


def test_a_variant_changes_settings() -> None:
    base = settings("cpu")
    assert variant(base, "optimiser=sgd+lr=0.005") == replace(base, optimiser="sgd", lr=0.005)


def test_a_pick_is_valued_by_the_other_seeds() -> None:
    """Twenty equal architectures and noise; whoever picks each seed's own luckiest finds nothing."""
    rng = np.random.default_rng(0)
    percentiles, regrets = [], []
    for _ in range(300):
        accuracy = rng.normal(0.8, 0.01, (20, 4))
        percentile, regret = value_picks(accuracy, accuracy.argmax(0)[None])
        percentiles.append(percentile)
        regrets.append(regret)
    assert np.mean(percentiles) == pytest.approx(0.5, abs=0.04)
    assert np.mean(regrets) == pytest.approx(0.0, abs=0.001)
    assert value_picks(rng.normal(0.8, 0.01, (20, 1)), np.zeros((1, 1), int)) == (None, None)


def test_what_was_never_chosen_counts_as_a_candidate(folder: Path) -> None:
    run = Run.open(folder)
    search = search_of(run, "nine", 0, 0, "gumbel")
    same = [replace(search, architecture={"layer1": "FFN", "layer2": "FFN"}, probabilities=None)] * 20
    selection = decided(same, run.spaces["nine"].space)
    assert selection.slots["layer1"].candidates == ("MSA+FFN", "MSA", "FFN")
    assert selection.slots["layer1"].margin is None
    assert [warning.split(":")[0] for warning in selection.warnings] == ["Collapse"]
