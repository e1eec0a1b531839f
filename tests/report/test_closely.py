"""Where rows are right and wrong, against counts by hand; and every prediction as a table."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from bas.corpora import Utterance
from bas.protocols import Fold, Protocol
from bas.report import closely
from bas.runs import results as of_jobs
from bas.runs.results import Scored
from bas.tasks import EMOTION, Shares

CLASSES = ("calm", "loud", "sad")
TRUTH = [0, 0, 1, 2, 1, 0]
SAID = [[0, 1, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]]
SPEAKERS = ["ann", "ann", "ann", "ben", "ben", "ben"]


def scored(predictions: np.ndarray, logits: np.ndarray | None) -> Scored:
    return Scored(parameters=1, seconds=0.0, test=of_jobs.Tested(predictions, {}, logits))


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Two folds of a speaker each; the corpus has the utterances in another order."""
    ids = [f"u{n}" for n in range(6)]
    utterances = [Utterance(i, Path(f"{i}.wav"), speaker=s) for i, s in zip(ids, SPEAKERS, strict=True)][::-1]
    folds = (Fold(tuple(ids[3:]), (), tuple(ids[:3])), Fold(tuple(ids[:3]), (), tuple(ids[3:])))
    protocol = Protocol("cups", "cups", "emotion", "speaker:2", 0, folds, "speaker")
    return SimpleNamespace(
        folder=tmp_path,
        outputs=CLASSES,
        utterances=utterances,
        position={u.id: n for n, u in enumerate(utterances)},
        targets=np.array(TRUTH[::-1]),
        protocol=protocol,
        unit="speaker",
        task=EMOTION,
        plan=SimpleNamespace(seeds=(3, 5)),
    )


@pytest.fixture
def logits() -> np.ndarray:
    """By seed: of each prediction the largest, by 4 but for the fourth utterance, where it is by 8."""
    made = np.zeros((2, 6, 3))
    for s, n in np.ndindex(2, 6):
        made[s, n, SAID[s][n]] = 8 if n == 3 else 4
    return made


@pytest.fixture
def jobs(logits: np.ndarray) -> dict[str, list[list[Scored]]]:
    made = [[scored(np.array(SAID[s])[part], logits[s, part]) for part in (slice(0, 3), slice(3, 6))] for s in range(2)]
    return {"FFN": made, "BAS mine": made, "SVM": [[scored(np.zeros(3, int), None), scored(np.zeros(3, int), None)]]}


def table(page: str, title: str) -> dict[str, list[str]]:
    """The rows of the table under a title, by their first cell."""
    part = page.split(f"## {title}")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows}


def test_the_page_counts(run: Any, jobs: Any) -> None:
    page = closely.markdown(run, jobs, None)
    recalls = table(page, "Recall by class")
    assert recalls["class"] == ["utterances", "FFN", "BAS mine", "SVM"]
    assert recalls["calm"] == ["3", "83.3", "83.3", "100.0"]  # 2 of 3, then 3 of 3
    assert recalls["loud"] == ["2", "75.0", "75.0", "0.0"]
    assert recalls["sad"] == ["1", "0.0", "0.0", "0.0"]
    confusion = table(page, "What BAS mine takes for what")
    assert [confusion[name] for name in CLASSES] == [
        ["2.5", "0.5", "0.0"],
        ["0.5", "1.5", "0.0"],
        ["0.0", "1.0", "0.0"],
    ]
    units = table(page, "Correct by speaker")
    assert list(units)[2:] == ["ben", "ann"], "the lowest first"
    assert units["ben"] == ["3", "50.0", "50.0", "33.3"]
    assert units["ann"] == ["3", "83.3", "83.3", "66.7"]


def test_the_page_says_how_sure_rows_are(run: Any, jobs: Any, logits: np.ndarray) -> None:
    page = closely.markdown(run, jobs, None)
    sure = table(page, "Is it as sure as it is right?")
    of_truth = np.concatenate([softmax(logits[s], axis=1)[np.arange(6), TRUTH] for s in range(2)])
    assert sure["FFN"][0] == f"{-np.log(of_truth).mean():.3f}"
    right = np.array(SAID) == TRUTH
    confident = softmax(logits, axis=-1).max(-1)
    assert confident.min() > 14 / 15, "one bin"
    assert sure["FFN"][1] == f"{100 * abs((confident - right).mean()):.1f}"
    assert sure["SVM"] == ["–"] * 4
    worst = table(page, "What BAS mine is most wrong about")
    assert list(worst)[2] == "u3"
    assert worst["u3"] == ["ben", "sad", "loud (1.00)", "8.00"]


def test_every_prediction_is_in_the_table(run: Any, jobs: Any, logits: np.ndarray) -> None:
    closely.write(run, jobs, None)
    lines = list(csv.DictReader((run.folder / closely.TABLE).open(newline="", encoding="utf-8")))
    assert len(lines) == 6 * (2 + 2 + 1)
    assert (run.folder / closely.PAGE).exists()
    mine = [line for line in lines if line["row"] == "BAS mine"]
    for n, line in enumerate(mine):
        s, u = divmod(n, 6)
        assert (line["seed"], line["fold"], line["id"], line["speaker"]) == (
            str((3, 5)[s]),
            str(u // 3),
            f"u{u}",
            SPEAKERS[u],
        )
        assert (line["truth"], line["predicted"]) == (CLASSES[TRUTH[u]], CLASSES[SAID[s][u]])
        said = [float(line[f"probability of {name}"]) for name in CLASSES]
        assert said == pytest.approx(softmax(logits[s, u]), abs=1e-6)
    assert {line["probability of sad"] for line in lines if line["row"] == "SVM"} == {""}


def test_shares_have_a_truth_and_a_prediction_each(run: Any) -> None:
    run.task, run.outputs = Shares(), ("joy", "=fear")
    run.targets = np.linspace(0, 1, 12).reshape(6, 2)
    said = np.linspace(1, 0, 12).reshape(6, 2)
    closely.write(run, {"ridge": [[scored(said[:3], None), scored(said[3:], None)]]}, None)
    lines = list(csv.DictReader((run.folder / closely.TABLE).open(newline="", encoding="utf-8")))
    first = run.targets[run.position["u0"]]
    assert [float(lines[0][name]) for name in ("truth joy", "truth =fear")] == pytest.approx(first)
    assert float(lines[0]["predicted joy"]) == 1
    assert not (run.folder / closely.PAGE).exists()


def test_a_text_that_a_spreadsheet_would_compute_is_defused(run: Any, jobs: Any) -> None:
    run.utterances = [replace(u, speaker="=1+1") for u in run.utterances]
    closely.write(run, {"FFN": jobs["FFN"]}, None)
    lines = list(csv.DictReader((run.folder / closely.TABLE).open(newline="", encoding="utf-8")))
    assert lines[0]["speaker"] == "'=1+1"


def test_with_one_fold_nothing_is_scaled(run: Any, jobs: Any) -> None:
    run.protocol = replace(run.protocol, folds=run.protocol.folds[:1])
    one = {"FFN": [[of_seed[0]] for of_seed in jobs["FFN"]]}
    sure = table(closely.markdown(run, one, None), "Is it as sure as it is right?")
    assert sure["FFN"][2:] == ["–", "–"]


def test_a_number_for_each_utterance_is_a_truth_and_a_prediction(run: Any) -> None:
    """A task of somebody's own, whose targets have no axis of outputs."""
    run.task, run.outputs = SimpleNamespace(classes=None, pooled=True), ("arousal",)
    run.targets = np.linspace(0, 1, 6)
    said = np.linspace(1, 0, 6)
    closely.write(run, {"ridge": [[scored(said[:3], None), scored(said[3:], None)]]}, None)
    lines = list(csv.DictReader((run.folder / closely.TABLE).open(newline="", encoding="utf-8")))
    assert list(lines[0])[-2:] == ["truth", "predicted"]
    assert float(lines[0]["truth"]) == run.targets[run.position["u0"]]
    assert [float(line["predicted"]) for line in lines] == said.tolist()


def test_the_row_that_is_taken_is_looked_at_first(run: Any, jobs: Any) -> None:
    page = closely.markdown(run, jobs, "SVM")
    assert page.index("What SVM takes for what") < page.index("What BAS mine takes for what")
    assert "What FFN takes for what" not in page
    assert table(page, "What SVM takes for what")["calm"] == ["3", "0", "0"], "of one seed a whole number"
    assert "What SVM is most wrong about" not in page, "its probabilities are not known"
