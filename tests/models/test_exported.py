"""A row that is exported is the row of the table, and predicts a recording as the run would."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heard import FEATURES, SHARES, heard

import bas
from bas.blocks import MeanPool
from bas.cli.main import main
from bas.models.card import card
from bas.networks.linear import LinearModel
from bas.report.answer import answer
from bas.report.results import Comparison
from bas.runs.plan import ALL, Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.whole import Whole, fit_whole, whole
from bas.training.loop import outputs

pytestmark = pytest.mark.slow

SMALL = [f"--set={setting}" for setting in ("epochs=2", "width=8", "stride=2", "budget=8", "committee=2")]
KINDS = {
    "race": ("--layer", "0"),
    "mix": ("--layer", "mix", "--set=strategy=gumbel", "--set=committee=1", "--space", "ser_bas3"),
    "search": ("--layer", "search"),
    "best": ("--layer", "best", "--set=ensemble=1", "--set=normalise=speaker"),
    "shares": ("--layer", "1", "--space", "mine.py", "--set=committee=1", "--set=strategy=single-path"),
}
"""Runs: the default on one state; one supernet and one network on all states; each network its own state; the best
state; no classes."""
ROWS = [
    *(("race", row) for row in ("ser_wide", "4L transformer", "logistic regression")),
    *(("mix", row) for row in ("ser_bas3", "logistic regression")),
    *(("search", row) for row in ("ser_wide", "simple FFN")),
    *(("best", row) for row in ("ser_wide", "simple FFN", "logistic regression")),
    *(("shares", row) for row in ("mine", "one each", "ridge regression", "mean share")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, hubert: Path) -> Iterator[Path]:
    """Runs on tones: twelve speakers' log-mel frames, and a small HuBERT's states."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        heard(utterances=40, speakers=5, labelled=True)
        store = ["--features", "runs/features/hubert"]
        assert main(["extract", "--corpus", "manifest", "--root", "heard.jsonl", "--encoder", str(hubert), *store]) == 0
        Path("mine.py").write_text(SHARES)
        for name, words in KINDS.items():
            of = ["--features", FEATURES] if name == "race" else store
            seeds = "2" if name == "race" else "1"
            more = ["--seeds", seeds, "--workers", "1", "--protocol", "speaker:2", "--name", name]
            assert main(["compare", *of, *SMALL, *words, *more]) == 0
        yield folder


def of_session(run: Run, made: Whole, ids: tuple[str, ...]) -> np.ndarray:
    """The outputs of a row that was fitted, on the features of the run."""
    session = Session(run)
    data = session.data(made.layer, made.stride)
    if isinstance(made.network, LinearModel) and made.space is None:  # the mean frame before any rounding
        assert made.network.summary is MeanPool.summary
        return made.network.of_summary(data.mean_frames(session.members(ids))).detach().double().numpy()
    return outputs(made.network, data, session.members(ids)).double().numpy()


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_the_procedure_is_the_tables(folder: Path, tmp_path: Path, name: str, row: str) -> None:
    """Given a fold's training part for all there is, it ends with the very predictions of the fold's row."""
    run = Run.open(folder / "runs" / name)
    fold = run.protocol.folds[0]
    alike = whole(run, tmp_path)
    alike.protocol = replace(alike.protocol, folds=(replace(fold, test=()),))
    made = fit_whole(alike, row, 0, lambda: None)
    kind = Kind.RETRAIN if row in run.spaces else Kind.BASELINE if row in run.baselines else Kind.LINEAR
    tested = run.result(Job(kind, row, 0, 0).name)["test"]
    found = of_session(run, made, fold.test)
    if run.task.classes is not None:
        assert found == pytest.approx(np.array(tested["logits"]), abs=2e-6)
    else:
        found = found if kind == Kind.LINEAR else 1 / (1 + np.exp(-found))
        assert found == pytest.approx(np.array(tested["predictions"]), abs=2e-6)


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_recordings_are_predicted_as_in_the_run(folder: Path, tmp_path: Path, name: str, row: str) -> None:
    """From the folder alone: the probabilities of the same row on the features of the run."""
    assert main(["export", f"runs/{name}", "--row", row, "--into", str(tmp_path / "model")]) == 0
    run = Run.open(folder / "runs" / name)
    made = fit_whole(whole(run, tmp_path / "again"), row, 0, lambda: None)
    some = run.utterances[::7]
    found = of_session(run, made, tuple(u.id for u in some))
    model = bas.load(tmp_path / "model", device="cpu")
    said = np.array([list(model.predict(u)[0].values.values()) for u in some])
    if run.task.classes is not None:
        expected = torch.from_numpy(found / model.description.temperature).softmax(-1).numpy()
        assert [model.predict(u)[0].label for u in some] == [run.outputs[i] for i in expected.argmax(1)]
    else:
        expected = found if row in run.task.linears else 1 / (1 + np.exp(-found))
    assert said == pytest.approx(expected, abs=1e-5)
    assert model.description.layers == (tuple(run.store.info.layers) if made.layer in ALL else (made.layer,))
    assert not (folder / "runs" / name / "exporting").exists()


def test_all_training_speakers_are_heard_and_nothing_is_scored(folder: Path, tmp_path: Path) -> None:
    run = Run.open(folder / "runs" / "race")
    (fold,) = whole(run, tmp_path).protocol.folds
    assert fold.test == ()
    assert {*fold.fit, *fold.valid} == {u.id for u in run.utterances}
    fit, valid = ({run.utterances[run.position[i]].speaker for i in ids} for ids in (fold.fit, fold.valid))
    assert not fit & valid
    assert len(fit | valid) == 5


def test_the_score_is_the_tables_and_never_the_models_own(folder: Path) -> None:
    results = json.loads(Path("runs/race/results.json").read_text())
    assert main(["export", "runs/race", "--row", "BAS ser_wide", "--into", "scored"]) == 0
    said = json.loads(Path("scored/model.json").read_text())
    row = next(row for row in results["rows"] if row["row"] == "BAS ser_wide")
    honest = said["honest"]
    assert honest["metrics"] == row["metrics"]
    assert honest["interval"] == row["interval"]
    assert (honest["seeds"], honest["folds"], honest["utterances"]) == (2, 2, 40)
    assert honest["protocol"]["hash"] == results["protocol"]["hash"]
    page = Path("scored/README.md").read_text()
    assert f"{100 * row['metrics']['WA']['mean']:.1f}" in page
    assert "has no score of its own" in page
    assert "class weights" not in page


def test_the_card_says_what_the_reader_says_and_what_weights_do(folder: Path) -> None:
    """Of a corpus with a note, and of class weights, which a temperature does not undo."""
    made = bas.load("scored", device="cpu").description
    note = "listeners heard words alone"
    assert f"- Of the corpus: {note}." in card(replace(made, trained={**made.trained, "note": note}))
    assert "Of the corpus" not in card(replace(made, trained={**made.trained, "note": ""}))
    weighted = {**made.trained["settings"], "class_weights": "balanced"}
    assert "too high for rare classes" in card(replace(made, trained={**made.trained, "settings": weighted}))
    older = {k: v for k, v in made.trained["settings"].items() if k != "class_weights"}
    assert "too high for rare classes" not in card(replace(made, trained={**made.trained, "settings": older}))
    run = Run.open(folder / "runs" / "race")
    assert made.trained["note"] == run.corpus.note


def test_a_killed_export_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search that it has done stays; the model comes out the same."""
    assert main(["export", "runs/race", "--row", "ser_wide", "--into", "straight"]) == 0

    def dies(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bas.models.folder.write", dies)
        assert main(["export", "runs/race", "--row", "ser_wide", "--into", "resumed"]) == 130
    assert not Path("resumed").exists()
    (search,) = Path("runs/race/exporting").rglob("search-*.json")
    before = search.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("bas.models.folder.write", dies)
        assert main(["export", "runs/race", "--row", "ser_wide", "--into", "resumed"]) == 130
    assert search.stat().st_mtime_ns == before
    assert main(["export", "runs/race", "--row", "ser_wide", "--into", "resumed"]) == 0
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("straight", "resumed")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["runs/none"], "runs/none: no results.json"),
        (
            ["runs/race", "--row", "5L"],
            "--row '5L': not a row of runs/race; it has 4L transformer, simple FFN, BAS ser_wide",
        ),
        (["runs/race", "--seed", "7"], "--seed 7: not one of runs/race's, 0, 1"),
        (["runs/race", "--into", "runs/race"], "runs/race: is there already; delete it, or give another --into"),
    ],
)
def test_what_cannot_be_exported_is_said(
    folder: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words]) == 2
    assert why in capsys.readouterr().err


def test_the_table_of_predictions_is_that_of_the_jobs(folder: Path) -> None:
    with Path("runs/race/predictions.csv").open(newline="", encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["row"] == "BAS ser_wide"]
    assert len(lines) == 2 * 40
    run = Run.open(Path("runs/race"))
    for line in lines[::9]:
        fold, seed = int(line["fold"]), int(line["seed"])
        tested = run.result(Job(Kind.RETRAIN, "ser_wide", fold, seed).name)["test"]
        n = run.protocol.folds[fold].test.index(line["id"])
        assert line["predicted"] == run.outputs[tested["predictions"][n]]
        said = [float(line[f"probability of {name}"]) for name in run.outputs]
        assert said == pytest.approx(torch.tensor(tested["logits"][n]).softmax(-1).tolist(), abs=1e-5)
    assert "BAS ser_wide" in Path("runs/race/closely.md").read_text()
    assert not Path("runs/shares/closely.md").exists()


def test_a_run_that_has_changed_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other labels, another copy of a space, another result: its score would not be the model's."""
    lines = Path("heard.jsonl").read_text()
    job = Path("runs/race/jobs/baseline-simple-FFN-fold0-seed0.json")
    for path, text in (
        (Path("heard.jsonl"), lines.replace('"bright"', '"x"').replace('"dull"', '"bright"').replace('"x"', '"dull"')),
        (Path("runs/race/spaces/ser_wide.py"), Path("runs/race/spaces/ser_wide.py").read_text() + "\n# edited"),
        (job, job.read_text()[:-20]),
    ):
        before = path.read_text()
        path.write_text(text)
        assert main(["export", "runs/race", "--row", "simple FFN", "--into", "changed"]) == 2, path
        path.write_text(before)
        assert not Path("changed").exists()
    said = capsys.readouterr().err
    for why in ("runs/race: made with labels", "runs/race: made with space ser_wide", f"{job}: not readable as JSON"):
        assert why in said


def test_what_a_search_has_added_is_left_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A seed and a space that the table does not have yet."""
    shutil.copytree(folder, tmp_path / "all")
    monkeypatch.chdir(tmp_path / "all")
    words = ["--features", FEATURES, *SMALL, *KINDS["race"], "--workers", "1", "--protocol", "speaker:2"]
    more = ["--seeds", "3", "--name", "race", "--set=strategy=race"]
    assert main(["search", *words, *more]) == 0
    assert main(["export", "runs/race", "--row", "simple FFN", "--into", "two"]) == 0
    assert json.loads(Path("two/model.json").read_text())["honest"]["seeds"] == 2
    assert main(["search", *words, *more, "--space", "ser_bas3"]) == 0
    assert main(["export", "runs/race", "--row", "BAS ser_wide", "--into", "three"]) == 2
    assert "its last command had other spaces than the row 'BAS ser_wide'" in capsys.readouterr().err


def test_the_row_that_the_table_says_to_take_is_the_default(folder: Path) -> None:
    results = bas.load_results("runs/race")
    assert isinstance(results, Comparison)
    said = answer(results).row
    place = bas.export("runs/race")
    assert json.loads((place / "model.json").read_text())["honest"]["row"] == said
    shutil.rmtree(place)


def test_a_published_split_keeps_its_valid_part(folder: Path, tmp_path: Path) -> None:
    run = Run.open(folder / "runs" / "race")
    run.protocol = replace(run.protocol, folds=run.protocol.folds[:1])
    (fold,) = whole(run, tmp_path).protocol.folds
    assert (fold.fit, fold.valid, fold.test) == (run.protocol.folds[0].fit, run.protocol.folds[0].valid, ())


def test_an_export_leaves_torch_its_threads(folder: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    bas.export("runs/race", row="logistic regression", into=tmp_path / "model")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
