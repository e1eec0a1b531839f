"""`bas probe` of shares and of numbers: the state that tells is found, and nothing is drawn by class."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from test_probing import CHANGES, Corpus

from bas.cli.main import main
from bas.runs import results as of_runs
from bas.runs.run import Run
from bas.studies import load_results
from bas.studies.probe.few import few_job
from bas.studies.probe.jobs import probe_job
from bas.studies.probe.results import Probe

pytestmark = pytest.mark.slow

INFORMATIVE, STATES = 2, 4
LEVELS = {"a": 0.1, "b": 0.35, "c": 0.65, "d": 0.9}
SPACE = """
from bas.blocks import FFN, MeanPool
from bas.reals import Regression, Shares
from bas.space import SearchSpace

space = SearchSpace({"layer1": {"FFN": FFN}}, MeanPool)
task = TASK
"""
TASKS = {"shares": "Shares()", "age": 'Regression({"age": (0, 100)})'}
HEADLINE = {"shares": "Spearman", "age": "CCC"}


@pytest.fixture(scope="module", params=["shares", "age"])
def probed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One finished probe of four states, of which one tells the number."""
    what: str = request.param
    root = tmp_path_factory.mktemp(what)
    code = tuple((label, 4 * (level - 0.5)) for label, level in LEVELS.items())
    features = Corpus(takes=3, code=code, informative=INFORMATIVE, states=STATES).extract(root)
    with (root / "cups.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with (root / "told.jsonl").open("w", encoding="utf-8") as stream:
        for row in rows:
            level = LEVELS[row["label"]]
            told = (
                {"shares": {"warm": level, "cold": 1 - level}, "raters": 20}
                if what == "shares"
                else {"age": 100 * level}
            )
            stream.write(json.dumps({"id": row["id"], **told}) + "\n")
    (root / "mine.py").write_text(SPACE.replace("TASK", TASKS[what]), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        small = [f"--set={name}={value}" for name, value in (CHANGES | {"epochs": "6"}).items()]
        keep = ["--keep", "age"] if what == "age" else []
        run = ["--seeds", "2", "--workers", "1", "--protocol", "speaker:3", "--percent", "50", "--name", "run", *small]
        table = ["--labels", "told.jsonl", *keep]
        assert main(["probe", "--features", str(features), "--space", "mine.py", *table, *run]) == 0
    return what, root / "runs" / "run"


def results_of(folder: Path) -> Probe:
    results = load_results(folder)
    assert isinstance(results, Probe)
    return results


def test_the_state_that_tells_is_best(probed: tuple[str, Path]) -> None:
    what, folder = probed
    (store,) = results_of(folder).stores
    assert store.headline == HEADLINE[what]
    assert store.numbers
    for kind in ("linear", "dense"):
        scores = [store.heads[kind][f"state {state}"].metrics[store.headline].mean for state in range(STATES)]
        assert int(np.argmax(scores)) == INFORMATIVE
        assert scores[INFORMATIVE] > 0.15 + max(s for i, s in enumerate(scores) if i != INFORMATIVE)
    assert store.choice is not None
    assert set(store.choice.chosen["LAYER=best"]) == {INFORMATIVE}
    assert store.random.marks, "speakers on both sides"


def test_a_score_is_that_of_the_predictions_within_each_fold(probed: tuple[str, Path]) -> None:
    _, folder = probed
    run = Run.open(folder / "cups" / "disjoint")
    (store,) = results_of(folder).stores
    targets, _ = of_runs.tested(run)
    scores = []
    for seed in run.plan.seeds:
        jobs = [run.job_path(probe_job(fold, seed).name) for fold in range(3)]
        of = [
            json.loads(path.read_text())["heads"][f"dense state {INFORMATIVE}"]["test"]["predictions"] for path in jobs
        ]
        scores.append(run.metrics[run.headline](targets, np.concatenate([np.array(one) for one in of])))
    row = store.heads["dense"][f"state {INFORMATIVE}"]
    assert row.metrics[store.headline].mean == pytest.approx(np.mean(scores), abs=1e-6)


def test_few_labels_are_so_many_in_all(probed: tuple[str, Path]) -> None:
    _, folder = probed
    few = json.loads((folder / "cups" / "disjoint" / "jobs" / f"{few_job(0).name}.json").read_text())["layers"]
    assert list(few) == ["20", "50", "all"], "64 utterances train in a fold"
    page = (folder / "table.md").read_text(encoding="utf-8")
    assert "| labelled utterances | states it picks |" in page
    assert "Numbers have no classes" in page
    assert "nan" not in page.lower()


def test_a_thinned_fit_part_is_a_part_of_it(probed: tuple[str, Path]) -> None:
    _, folder = probed
    run = Run.open(folder / "cups" / "disjoint")
    half = json.loads(run.job_path(probe_job(0, 0, 50).name).read_text())
    assert half["fit"] == round(len(run.protocol.folds[0].fit) / 2)
