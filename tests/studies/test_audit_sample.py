"""An audit of a sample: who stands for the space, who is only judged by it, and what the page says of both."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audited import measure, two_pitches
from refusals import refusal
from stores import quiet

from bas.protocols import Protocol
from bas.runs.plan import Job, Kind, Plan
from bas.runs.results import search_of
from bas.runs.run import Inputs, Run
from bas.runs.start import split
from bas.space import Architecture
from bas.stats import Estimate
from bas.studies import load_results
from bas.studies.audit.notes import legend, sample_lines
from bas.studies.audit.page import markdown
from bas.studies.audit.page import strategies as strategies_table
from bas.studies.audit.results import Audit, SpaceAudit
from bas.studies.audit.study import LARGE
from bas.studies.audit.taken import judges, take, with_picks
from bas.studies.audit.trained import load_searches, load_truth
from bas.studies.audit.verdicts import random_search, strategies, summarise
from bas.training.settings import settings

pytestmark = pytest.mark.slow

SPACE = '''"""54 architectures, 30 of them different."""
from functools import partial
from bas.blocks import FFN, MSA, MeanPool, Skip, StatisticsPool
from bas.space import SearchSpace

layer = {"none": Skip, "FFN": FFN, "MSA": partial(MSA, num_heads=2)}
space = SearchSpace({f"l{i}": layer for i in range(3)}, {"mean": MeanPool, "statistics": StatisticsPool})
'''
STRATEGIES = ["race+budget=4", "random-search+budget=2", "gumbel"]
DRAWN, SEEDS, FOLDS = 6, 2, 3


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    root = tmp_path_factory.mktemp("sampled")
    (root / "thirty.py").write_text(SPACE, encoding="utf-8")
    changes = {"epochs": "2", "width": "16", "stride": "1"}
    return Plan(two_pitches(root), (str(root / "thirty.py"),), 1, settings("cpu", changes), (0, 1), "cpu")


def inputs_and_split(plan: Plan) -> tuple[Inputs, Protocol]:
    inputs = Inputs.open(plan)
    return inputs, split(inputs, "speaker:3", 0)


@pytest.fixture(scope="module")
def folder(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audited") / "cups"
    measure(folder, *inputs_and_split(plan), STRATEGIES, ["residual=every"], 1, quiet(), None, DRAWN)
    return folder


def read(folder: Path) -> tuple[Audit, SpaceAudit]:
    results = load_results(folder)
    assert isinstance(results, Audit)
    return results, results.spaces[0]


def picked(run: Run) -> dict[int, set[int]]:
    """By number, in the order of the space, the seeds whose searches picked it."""
    space = run.spaces["thirty"].space
    seeds: dict[int, set[int]] = defaultdict(set)
    for strategy in STRATEGIES:
        for fold in range(FOLDS):
            for seed in range(SEEDS):
                of = Architecture.of(search_of(run, "thirty", fold, seed, strategy).architecture)
                seeds[space.number(space.distinct(of))].add(seed)
    return seeds


def test_the_drawn_have_every_seed_and_the_picked_those_that_judge_them(folder: Path) -> None:
    run, frame = Run.open(folder), pd.read_parquet(folder / "thirty.parquet")
    space = run.spaces["thirty"].space
    drawn = [space.number(a) for a in space.sample(DRAWN, 0)]
    of_drawn, of_picked = (frame[frame.taken == word] for word in ("drawn", "picked"))
    assert list(of_drawn.number.unique()) == drawn
    assert len(of_drawn) == DRAWN * FOLDS * SEEDS
    assert len(of_drawn) + len(of_picked) == len(frame)
    beside = {number: seeds for number, seeds in picked(run).items() if number not in drawn}
    assert beside, "else this test shows nothing"
    assert set(of_picked.number) == set(beside)
    for number, seeds in beside.items():
        rows = of_picked[of_picked.number == number]
        expected = {(fold, 1 - seed) for seed in seeds for fold in range(FOLDS)}
        assert {*zip(rows.fold, rows.seed, strict=True)} == expected
        done = run.folder.glob(f"jobs/alone-thirty-{number:03}-*.json")
        assert len(list(done)) == len(expected), "no training that judges nothing"
    pd.testing.assert_frame_equal(frame, pd.read_csv(folder / "thirty.csv"), check_dtype=False)
    assert set(pd.read_parquet(folder / "variants/residual=every/thirty.parquet").number) == set(drawn)


def test_what_is_said_of_the_space_rests_on_the_sample_alone(folder: Path) -> None:
    run, (_, space) = Run.open(folder), read(folder)
    frame = pd.read_parquet(folder / "thirty.parquet")
    right = {}
    for (number, seed), rows in frame.groupby(["number", "seed"]):
        right[number, seed] = np.average(rows.test_WA, weights=rows.tested)
    drawn = list(dict.fromkeys(frame[frame.taken == "drawn"].number))
    means = {n: np.mean([right[n, s] for s in range(SEEDS)]) for n in drawn}
    assert (space.size, len(space.architectures)) == (30, DRAWN)
    assert space.sample is not None
    assert {row.number for row in space.architectures} == set(drawn)
    assert [row.score.mean for row in space.architectures] == pytest.approx(sorted(means.values(), reverse=True))
    assert space.summary.mean == space.sample.mean.value == pytest.approx(np.mean(list(means.values())))
    rows = {row.strategy: row for row in space.strategies}
    blind = rows["one drawn blindly"]
    assert blind.score is not None
    assert blind.score.mean == pytest.approx(space.summary.mean)
    for row in space.sample.picked:
        seeds = sorted(s for n, s in right if n == row.number)
        assert row.score.mean == pytest.approx(np.mean([right[row.number, s] for s in seeds]))
        assert row.shrunken is None
    for part, of in space.effects.items():
        for block, mean in of.means.items():
            here = run.spaces["thirty"].space
            with_it = [m for n, m in means.items() for a in here.same(here.at(n)) if a[part] == block]
            assert mean == pytest.approx(np.mean(with_it)), (part, block)


def test_a_pick_is_judged_by_its_place_among_the_sample(folder: Path) -> None:
    run = Run.open(folder)
    taken = with_picks(run, "thirty", STRATEGIES, DRAWN)
    truth = load_truth(run, "thirty", taken)
    searches = [load_searches(run, "thirty", name, taken) for name in STRATEGIES]
    rows = {row.strategy: row for row in strategies(run, truth, searches, ranks=True)}
    frame = pd.read_parquet(folder / "thirty.parquet")
    right = {key: np.average(of.test_WA, weights=of.tested) for key, of in frame.groupby(["number", "seed"])}
    for search in searches:
        places = []
        for fold in range(FOLDS):
            for seed in range(SEEDS):
                number = taken.every[search.picks_FS[fold, seed]]
                assert seed in picked(run)[number]
                own, others = right[number, 1 - seed], [n for n in taken.numbers if n != number]
                gaps = [np.sign(round(own - right[n, 1 - seed], 12)) for n in others]
                places.append((1 + np.mean(gaps)) / 2)
        of = rows[search.strategy].percentile
        assert of is not None
        assert of.value == pytest.approx(np.mean(places)), search.strategy
    exhaustive = rows["exhaustive"].percentile
    assert exhaustive is not None
    assert exhaustive.value < 1, "the best of a sample is not that of the space"
    draws, tried = random_search(truth, 1e30)
    assert tried == DRAWN
    assert draws.max() < DRAWN, "it draws from the sample"


def test_a_theta_believes_in_all_that_are_the_same_network(folder: Path) -> None:
    run = Run.open(folder)
    taken = with_picks(run, "thirty", STRATEGIES, DRAWN)
    space = taken.space
    (search,) = [load_searches(run, "thirty", name, taken) for name in ["gumbel"]]
    assert search.beliefs_FSA is not None
    p = search_of(run, "thirty", 1, 0, "gumbel").probabilities
    paths = search_of(run, "thirty", 1, 0, "gumbel").paths
    assert p is not None
    assert paths is not None
    for index, architecture in enumerate(taken.architectures):
        same = [a for a in space.architectures() if space.distinct(a) == architecture]
        belief = sum(np.prod([p[part][block] for part, block in a.blocks]) for a in same)
        assert np.exp(search.beliefs_FSA[1, 0, index]) == pytest.approx(belief)
        assert search.paths_FSA is not None
        assert -search.paths_FSA[1, 0, index] == min(paths[space.number(a)]["loss"] for a in same)


def test_a_larger_sample_begins_with_the_smaller_one(plan: Plan, folder: Path) -> None:
    def done() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in folder.glob("jobs/alone-*.json")}

    before, page = done(), (folder / "table.md").read_text()
    measure(folder, *inputs_and_split(plan), STRATEGIES, ["residual=every"], 1, quiet(), None, DRAWN + 2)
    after = done()
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    (_, larger) = read(folder)
    numbers = list(dict.fromkeys(pd.read_parquet(folder / "thirty.parquet").number))
    space = Run.open(folder).spaces["thirty"].space
    assert numbers[: DRAWN + 2] == [space.number(a) for a in space.sample(DRAWN + 2, 0)]
    assert larger.sample is not None
    assert larger.sample.drawn == DRAWN + 2
    measure(folder, *inputs_and_split(plan), STRATEGIES, ["residual=every"], 1, quiet(), None, DRAWN)
    assert done() == after
    assert (folder / "table.md").read_text() == page


def test_the_page_says_that_it_is_a_sample(folder: Path) -> None:
    results, space = read(folder)
    page = (folder / "table.md").read_text()
    assert markdown(results) == page
    assert space.sample is not None
    for words in (
        "A sample: 6 architectures of the 30 of the space that are different networks, drawn at random (seed 0;",
        "The 6 that were drawn",
        "Picked, and not drawn",
        "| all of the sample |",
        "the truly best of the 6, whichever it is, is among the best 39 % of the space",
        "A race is judged by its choice",
        "against training all of the sample",
    ):
        assert words in page, words
    assert "Every architecture" not in page
    assert "exhaustive |" not in page
    first, *others = space.strategies
    better = replace(first, percentile=Estimate(1, 0.8, 1), regret=Estimate(-0.015, -0.03, 0.011))
    summary = summarise(np.linspace(0.5, 0.9, 6)[:, None] + np.random.default_rng(0).normal(0, 0.001, (6, 2)))
    clear = replace(space, summary=summary, strategies=(better, *others))
    assert summary.ranks
    assert strategies_table(clear, "WA")[1][0][2:4] == ["100 (80 to 100)", "-1.5 (-3.0 to +1.1)"]
    lines = sample_lines(results, clear, space.sample, "")
    assert "Percentile: that among 6 of 30 drawn at random." in " ".join(lines)
    ranked = " ".join(legend(replace(results, spaces=(clear,))))
    assert "is expected to beat n of n + 1" in ranked
    assert "exhaustive tries all" not in ranked


def test_random_search_that_the_sample_holds_back_is_named(folder: Path) -> None:
    results, space = read(folder)
    assert space.sample is not None

    def said(paid: float) -> str:
        row = space.strategies[0]
        assert row.searched is not None
        assert row.searched.random is not None
        random = replace(row.searched.random, paid=paid)
        changed = replace(row, searched=replace(row.searched, random=random))
        assert space.sample is not None
        return " ".join(sample_lines(results, replace(space, strategies=(changed,)), space.sample, ""))

    assert "race+budget=4: its cost pays for 40 trainings of random search, which has only the 6" in said(40.0)
    assert "its cost pays" not in said(6.0)


def test_a_space_that_is_no_larger_than_the_sample_is_trained_whole(plan: Plan) -> None:
    space = Inputs.open(plan).spaces[0].space
    for sample in (None, 30, 300):
        whole = take(space, sample)
        assert not whole.sampled, sample
        assert whole.numbers == tuple(range(54)), "as without a sample"
    assert take(space, 29).sampled
    assert judges(0, 1) == [0]
    assert judges(1, 3) == [0, 2]


def test_one_seed_judges_a_pick_by_itself(plan: Plan, tmp_path: Path) -> None:
    """And a strategy's row may be of the drawn alone."""
    one = replace(plan, seeds=(0,))
    results = measure(tmp_path / "one", *inputs_and_split(one), ["random"], ["none"], 1, quiet(), None, 2)
    (space,) = results.spaces
    assert space.sample is not None
    run = Run.open(tmp_path / "one")
    for row in space.sample.picked:
        assert all(run.done(Job(Kind.ALONE, "thirty", f, 0, row.number).name) for f in range(FOLDS))
    assert not space.claims.keys() - {"a simple FFN is good enough"}, "some block may be in no drawn architecture"


def test_what_is_refused(plan: Plan, tmp_path: Path) -> None:
    wide = replace(plan, spaces=("search_spaces/ser_wide.py",))

    def said(plan: Plan, sample: int | None, strategies: list[str] | None) -> str:
        message = refusal(
            measure, tmp_path / "new", *inputs_and_split(plan), strategies, None, 1, quiet(), None, sample
        )
        assert not (tmp_path / "new").exists()
        return message

    assert said(wide, None, None) == (
        "space ser_wide: 6480 architectures (3905 different); an audit takes 2 to 300, or so many of them: --sample 40"
    )
    assert said(plan, 301, None) == "--sample 301: an audit takes 2 to 300"
    scored = "space ser_wide: 6480 architectures; strategy single-path scores every one, at most 1024"
    assert said(wide, 20, ["single-path"]) == f"{scored}; name another, such as --strategy gumbel"
    assert "single-path" not in LARGE
    assert said(wide, 301, None) == "--sample 301: an audit takes 2 to 300", "the default strategies are not refused"
