"""An audit: every architecture under the same folds and seeds, and numbers that are those of its jobs."""

# mypy: disable-error-code="arg-type,var-annotated"

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audited import measure, two_pitches
from refusals import refusal
from running import begin
from stores import quiet

from bas.cli.main import main
from bas.protocols import Protocol
from bas.report.comparison import decided
from bas.runs.plan import Job, Kind, Plan
from bas.runs.results import search_of
from bas.runs.run import Inputs, Run
from bas.runs.start import split
from bas.runs.workers import Workers
from bas.stats import Estimate
from bas.studies import load_results
from bas.studies.audit.notes import refusal as refusal_of_ranks
from bas.studies.audit.page import markdown
from bas.studies.audit.page import strategies as strategies_table
from bas.studies.audit.results import Audit
from bas.studies.audit.taken import take
from bas.studies.audit.trained import load_searches, load_truth
from bas.studies.audit.verdicts import (
    ENOUGH,
    FIRST,
    LATER,
    strategies,
    summarise,
)
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
    features = two_pitches(root)
    (root / "nine.py").write_text(SPACE, encoding="utf-8")
    changes = {"epochs": "2", "width": "16", "stride": "1"}
    return Plan(features, (str(root / "nine.py"),), 1, settings("cpu", changes), (0, 1), "cpu")


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
    assert row.valid_loss == min(epoch["valid"]["loss"] for epoch in result["networks"][0]["epochs"])
    assert row.kept_epoch == result["networks"][0]["kept_epoch"]
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
            fresh = [run.result(Job(Kind.ALONE, "nine", fold, 1 - seed, n).name) for n in range(9)]
            right = [np.array(result["test"]["predictions"]) == targets for result in fresh]
            for name in STRATEGIES:
                chosen = run.result(Job(Kind.SEARCH, "nine", fold, seed, searcher=name).name)["architecture"]
                hits[name].extend(right[numbers[" > ".join(chosen.values())]])
            losses = [min(e["valid"]["loss"] for e in result["networks"][0]["epochs"]) for result in alone]
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
    one, every = rows["one drawn blindly"]["cost"], rows["exhaustive"]["cost"]
    assert 9.5 * one < every < 10.5 * one, "all, and the one that it takes once more"
    assert rows["gumbel"]["cost"] > rows["one drawn blindly"]["cost"]
    assert rows["gumbel"]["searched"]["random"]["tried"] >= 1


def test_a_pick_retrained_by_compare_is_its_row_in_the_audit(plan: Plan, folder: Path, tmp_path: Path) -> None:
    from bas.studies.compare.study import train

    run = begin(tmp_path / "compared", replace(plan, seeds=(1,)), "speaker:3")
    with Workers(1, quiet()) as pool:
        train(run, "retrain", pool, None)
    numbers = {str(a): i for i, a in enumerate(run.spaces["nine"].space.architectures())}
    for fold in range(3):
        retrained = run.result(Job(Kind.RETRAIN, "nine", fold, 1).name)
        number = numbers[" > ".join(retrained["architecture"].values())]
        alone = Run.open(folder).result(Job(Kind.ALONE, "nine", fold, 1, number).name)
        for name in ("networks", "parameters"):
            assert alone[name] == retrained[name]
        assert alone["test"] == {**retrained["test"], "logits": None}, "an audit's thousands keep none"


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
    for words in ("48 test utterances", "3 folds", "2 seeds", "(8: speaker)", results["protocol"]["hash"]):
        assert words in page, words
    for words in ("A/A check", "Power: ", "| MSA > FFN |", "residual=every", FIRST, LATER, ENOUGH):
        assert words in page, words
    assert "3 folds x 2 seeds" in page
    assert "With one seed (of variants), intervals of blocks and claims are over 3 folds, not over speakers" in page
    heading = page.splitlines()[0]
    assert "preset cpu with width=16, stride=1, epochs=2, not the paper's" in heading
    assert "single-path on nine (preset cpu with width=16, stride=1, epochs=2, not the paper's)" in page
    assert "The claims of Fang et al. 2023 (preset cpu with width=16, stride=1, epochs=2, not the paper's)" in page
    (space,) = results["spaces"]
    assert space["false_verdicts"] is None, "two seeds: none stands against two others"
    ranks = space["summary"]["ceiling"]["ranks"]
    for row in space["strategies"]:
        assert (row["percentile"] is not None) == (row["regret"] is not None) == ranks
    assert space["variants"]["residual=every"]["seeds"] == [0]
    assert set(space["variants"]["residual=every"]["claims"]) == {FIRST, LATER, ENOUGH}
    assert space["variants"]["residual=every"]["mean"] != space["summary"]["mean"]


def test_a_variant_is_trained_with_a_skip_around_every_block(folder: Path) -> None:
    run, beside = Run.open(folder), Run.open(folder / "variants/residual=every")
    assert beside.plan.settings == replace(run.plan.settings, residual="every")
    assert beside.protocol == run.protocol
    one, other = (r.result(Job(Kind.ALONE, "nine", 0, 0, 8).name)["parameters"] for r in (run, beside))
    assert other == one + 2 * 2 * 16, "a LayerNorm around each of two blocks"


@pytest.mark.parametrize(
    ("strategies", "variants", "words"),
    [
        (["gumble"], None, "strategy 'gumble': a strategy comes first, one of race"),
        (["gumbel+epochs=3"], None, "strategy 'gumbel+epochs=3': setting 'epochs': must be one of strategy"),
        ([""], None, "strategy '': must be one of race"),
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
    assert message == "space large: 729 architectures; an audit takes 2 to 300, or so many of them: --sample 40"
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
    assert "needs three seeds" in page, "one seed cannot stand against itself"
    assert "one seed does not show whether its trainings rank the architectures" in page
    assert "| exhaustive | – |" in page, "it would be judged by the training that it kept"
    assert "with the noise of training, which one seed does not show" in page
    shown = capsys.readouterr().out
    assert "report: runs/small/table.md" in shown
    assert "runs/small/nine.parquet" in shown
    assert "next: " in shown
    assert markdown(load_results(tmp_path / "runs/small")) == page
    small = Run.open(tmp_path / "runs/small")
    taken = take(small.spaces["nine"].space, None)
    searches = load_searches(small, "nine", "gumbel", taken)
    assert searches.picks_FS.shape == (2, 1)
    assert load_truth(small, "nine", taken).scores_AFS.shape == (9, 2, 1)


def test_a_variant_changes_settings() -> None:
    base = settings("cpu")
    assert variant(base, "optimiser=sgd+lr=0.005") == replace(base, optimiser="sgd", lr=0.005)


def read(folder: Path) -> Audit:
    results = load_results(folder)
    assert isinstance(results, Audit)
    return results


def ranked(folder: Path, accuracy_AS: np.ndarray, forced: bool) -> tuple[Audit, str]:
    """The audit's results and page, as if its architectures had such accuracies; forced: as if they were ranked."""
    results, run = read(folder), Run.open(folder)
    taken = take(run.spaces["nine"].space, None)
    searches = [load_searches(run, "nine", name, taken) for name in STRATEGIES]
    rows = strategies(run, load_truth(run, "nine", taken), searches, ranks=forced)
    changed = replace(results.spaces[0], summary=summarise(accuracy_AS), strategies=rows)
    results = replace(results, spaces=(changed,))
    return results, markdown(results)


def test_where_trainings_may_rank_nothing_no_rank_is_printed(folder: Path) -> None:
    noise_AS = np.random.default_rng(0).normal(0.8, 0.01, (9, 2))
    results, page = ranked(folder, noise_AS, forced=False)
    (space,) = results.spaces
    assert strategies_table(space, "WA")[0] == ["strategy", "WA", "cost"]
    assert all(row.percentile is row.regret is None for row in space.strategies)
    assert all(s.ahead is s.paths is s.beliefs is None for row in space.strategies if (s := row.searched))
    line = refusal_of_ranks(results, space)
    assert line in page
    assert "are not told: these trainings do not rank the architectures (reliability 0 to " in line
    assert "; there are 2." in line
    for words in ("tau of paths", "Percentile: of the other", "Half of the seeds"):
        assert words not in page, words


def test_a_refusal_says_how_many_seeds_would_help(folder: Path) -> None:
    results = read(folder)
    few = summarise(np.linspace(0, 0.02, 9)[:, None] + np.random.default_rng(0).normal(0, 0.01, (9, 2)))
    ceiling = few.ceiling
    assert ceiling is not None

    def said(enough: int | None, reliability: float) -> str:
        of = replace(ceiling, reliability=reliability, reliability_low=0.0, enough_seeds=enough)
        return refusal_of_ranks(results, replace(results.spaces[0], summary=replace(few, ceiling=of)))

    assert "If the estimates are right, 5 seeds would; there are 2." in said(5, 0.4)
    assert "More seeds than an audit takes would; there are 2." in said(None, 0.1)
    assert "How many seeds would cannot be estimated" in said(None, 0.0)
    one_seed = refusal_of_ranks(results, replace(results.spaces[0], summary=summarise(np.linspace(0, 1, 9)[:, None])))
    assert "one seed does not show" in one_seed


def test_ranks_come_with_intervals_and_no_regret_is_negative(folder: Path) -> None:
    clear_AS = np.linspace(0.5, 0.9, 9)[:, None] + np.random.default_rng(0).normal(0, 0.001, (9, 2))
    results, page = ranked(folder, clear_AS, forced=True)
    (space,) = results.spaces
    heading, rows = strategies_table(space, "WA")
    assert heading == ["strategy", "WA", "percentile", "regret", "tau of paths", "tau of theta", "cost"]
    assert all(row[2].endswith("(no interval)") for row in rows[:3]), "three folds are too few"
    assert rows[-1][2] == "50"
    assert "none with fewer than 4 folds" in page
    first, *others = space.strategies
    better = replace(first, percentile=Estimate(0.6, 0.31, 0.9), regret=Estimate(-0.015, -0.03, 0.011))
    cells = strategies_table(replace(space, strategies=(better, *others)), "WA")[1][0]
    assert cells[2:4] == ["60 (31 to 90)", "none seen (-3.0 to +1.1)"]


def test_the_range_is_that_of_shrunken_means(folder: Path) -> None:
    (space,) = read(folder).spaces
    of, raw = space.summary, [row.score.mean for row in space.architectures]
    assert of.ceiling is not None
    assert of.worst is not None
    assert of.best is not None
    for row in space.architectures:
        assert row.shrunken == pytest.approx(of.mean + of.ceiling.reliability * (row.score.mean - of.mean))
    assert of.best - of.worst == pytest.approx(of.ceiling.reliability * (max(raw) - min(raw)))
    page = (folder / "table.md").read_text()
    assert f"from {100 * of.worst:.1f} to {100 * of.best:.1f} with the noise of training taken out" in page
    assert summarise(np.linspace(0, 1, 9)[:, None]).best is None, "one seed shows no noise to take out"


def test_what_was_never_chosen_counts_as_a_candidate(folder: Path) -> None:
    run = Run.open(folder)
    search = search_of(run, "nine", 0, 0, "gumbel")
    same = [replace(search, architecture={"layer1": "FFN", "layer2": "FFN"}, probabilities=None)] * 20
    selection = decided(same, run.spaces["nine"].space)
    assert selection.slots["layer1"].candidates == ("MSA+FFN", "MSA", "FFN")
    assert selection.slots["layer1"].margin is None
    assert [warning.split(":")[0] for warning in selection.warnings] == ["Collapse"]
