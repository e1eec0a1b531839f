"""`bas shares`: the weights it exports, the report worked out again from the jobs, what it refuses."""

# mypy: disable-error-code="attr-defined,index"

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import soundfile
from refusals import refusal
from running import run_jobs
from sklearn.svm import SVR
from stores import Fake, quiet, store
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bas.cli.main import main
from bas.encoders import Padded
from bas.report import comparison
from bas.runs.plan import Job, Kind
from bas.runs.results import LinearResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.speech import acoustics
from bas.speech.acoustics import Contours, Functionals
from bas.stats import Predictions, paired
from bas.stats.shares import spearman
from bas.studies import load_results
from bas.studies.shares import study
from bas.studies.shares.acoustic import COMPLEXITIES, EPSILON
from bas.studies.shares.attention import WEIGHTS, Attention, SharesSession, centres
from bas.studies.shares.contours import MEASURES
from bas.studies.shares.results import ACOUSTIC

pytestmark = pytest.mark.slow

SEEDS, FOLDS, SPEAKERS, TAKES = 2, 2, 7, 4
SMALL = {"epochs": "1", "width": "8", "stride": "2", "lr": "0.01", "batch_size": "8"}


def write(root: Path, name: str = "cups", **change: str) -> Path:
    """Noise, the louder the more natural; change: a column to one value."""
    rng, path = np.random.default_rng(0), root / f"{name}.csv"
    root.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ("id", "audio", "speaker", "sex", "language", "shares", "raters", "label"))
        writer.writeheader()
        for s in range(SPEAKERS):
            for take in range(TAKES):
                id_, share = f"{name}/s{s}-{take}", float(rng.integers(0, 11)) / 10
                wave = (0.05 + 0.3 * share) * rng.standard_normal(320 * int(rng.integers(10, 24)))
                soundfile.write(root / f"{name}-s{s}-{take}.wav", np.clip(wave, -1, 1), 16_000)
                row = {
                    "id": id_,
                    "audio": f"{name}-s{s}-{take}.wav",
                    "speaker": f"s{s}",
                    "sex": ("female", "male")[s % 2],
                }
                shares = json.dumps({"natural": share, "recognised": 1 - share / 2})
                writer.writerow(row | {"language": "de", "shares": shares, "raters": 10, "label": "ab"[s % 2]} | change)
    return path


def words(features: Sequence[str], name: str, *more: str, seeds: int = SEEDS) -> list[str]:
    small = [f"--set={setting}={value}" for setting, value in SMALL.items()]
    run = ["shares", "--features", *features, "--seeds", str(seeds), "--protocol", f"speaker:{FOLDS}", "--name", name]
    return [*run, "--workers", "1", "--layer", "1", *small, *more]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven speakers, two stores of three states, one of them padded; one finished study, and what it said."""
    root, said, here = tmp_path_factory.mktemp("shares"), StringIO(), Path.cwd()
    store(write(root), root / "plain", shard_bytes=10**6)
    store(root / "cups.csv", root / "padded", Padded(Fake(), 0.6), shard_bytes=10**6)  # type: ignore[arg-type]
    os.chdir(root)
    try:
        with redirect_stdout(said):
            assert main(words(["plain", "padded"], "whole", "--metadata", "sex")) == 0
    finally:
        os.chdir(here)
    (root / "said.txt").write_text(said.getvalue())
    return root


@pytest.fixture(scope="module")
def results(work: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((work / "runs/whole/results.json").read_text())
    return result


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1, line
    return line


# --- what is written ---


def test_the_exported_weights_are_of_the_network_of_each_fold(work: Path) -> None:
    run = Run.open(work / "runs/whole/plain")
    attention = Attention.read(run.folder / WEIGHTS)
    assert attention.models == (
        "CNN+LSTM+attention",
        "CNN+LSTM+attention, one an emotion: natural",
        "CNN+LSTM+attention, one an emotion: recognised",
    )
    assert attention.ids == run.protocol.test_ids
    assert attention.weights_MSN.dtype == np.float32
    for u, id_ in enumerate(attention.ids):
        here = slice(*attention.offsets[u : u + 2].tolist())
        np.testing.assert_allclose(attention.weights_MSN[:, :, here].sum(2), 1, atol=1e-5)
        np.testing.assert_allclose(attention.seconds_N[here], centres(run.store.num_frames(id_), 50, 2))
    with h5py.File(run.folder / WEIGHTS) as file:
        assert file["fold"][:].tolist() == [f for f, fold in enumerate(run.protocol.folds) for _ in fold.test]
        assert file.attrs["seeds"].tolist() == [0, 1]
        assert file.attrs["protocol"] == run.protocol.hash
        assert file.attrs["features"] == run.store.info.identity
    assert not list((work / "runs").rglob("*.tmp")) + list((work / "runs").rglob("*.checkpoint"))


def test_a_job_is_that_of_any_other_verb(work: Path, tmp_path: Path) -> None:
    """The same numbers as `jobs.run_job` gives; and a job of a baseline without attention keeps no weights."""
    from bas.runs.jobs import run_job

    run = Run.open(work / "runs/whole/plain")
    shutil.copytree(run.folder, tmp_path / "again", ignore=shutil.ignore_patterns("jobs"))
    job = Job(Kind.BASELINE, "CNN+LSTM+attention", 1, 1)
    run_job(Session(tmp_path / "again"), job)
    clock = {"seconds": 0.0}
    assert Run.open(tmp_path / "again").result(job.name) | clock == run.result(job.name) | clock
    attention, begin = Attention.read(run.folder / WEIGHTS), len(run.protocol.folds[0].test)
    with np.load(run.folder / "jobs" / f"{job.name}.attention.npz") as held:
        here = slice(attention.offsets[begin], attention.offsets[begin + len(run.protocol.folds[1].test)])
        assert np.array_equal(held["weights"][0], attention.weights_MSN[0, 1, here])
        assert not np.array_equal(held["weights"][0], attention.weights_MSN[0, 0, here])
    kept = {path.name for path in (run.folder / "jobs").glob("*.npz")}
    assert kept == {
        f"{Job(Kind.BASELINE, row, f, s).name}.attention.npz"
        for row in ("CNN+LSTM+attention", "CNN+LSTM+attention, one an emotion")
        for f in range(FOLDS)
        for s in range(SEEDS)
    }


def test_the_table_is_what_the_jobs_say(work: Path, results: dict[str, Any]) -> None:
    runs = {name: Run.open(work / "runs/whole" / name) for name in ("plain", "padded", "plain-with-sex")}
    plain = runs["plain"]
    targets, units = comparison.tested(plain)

    def of(name: str, row: str) -> Predictions:
        jobs = comparison.results_of(runs[name], row)
        rows_SNO = np.array([np.concatenate([job.test.predictions for job in of_seed]) for of_seed in jobs])
        again = [job.again for job in jobs[0] if isinstance(job, LinearResult)]
        folds_N = np.repeat(np.arange(FOLDS), [len(fold.test) for fold in plain.protocol.folds])
        return Predictions(rows_SNO, folds_N, np.concatenate(again, axis=1) if again else None)

    def score(predictions_NO: np.ndarray) -> float:
        """Spearman of each emotion within each fold, by hand."""
        parts = [targets[:, -1] == f for f in range(FOLDS)]
        by_part = [spearman(targets[p, :2], predictions_NO[p]).mean() * p.sum() for p in parts]
        return float(sum(by_part) / len(targets))

    first, second = results["stores"]
    assert (first["store"], second["store"], first["headline"]) == ("plain", "padded", "Spearman")
    row = first["rows"]["CNN+LSTM+attention"]
    scores = [score(p) for p in of("plain", "CNN+LSTM+attention").rows_SN]
    assert row["metrics"]["Spearman"] == pytest.approx({"mean": np.mean(scores), "sd": np.std(scores, ddof=1)})
    assert row["interval"]["low"] < row["metrics"]["Spearman"]["mean"] < row["interval"]["high"]
    metric = plain.metrics["Spearman"]
    for difference, a, b in (
        (first["attention"][0]["difference"], ("plain", "CNN+LSTM+attention"), ("plain", "CNN+LSTM")),
        (first["each"][1]["difference"], ("plain", "CNN+LSTM, one an emotion"), ("plain", "CNN+LSTM")),
        (first["against_linear"]["CNN+LSTM"], ("plain", "CNN+LSTM"), ("plain", "ridge regression")),
        (second["against_first"]["CNN+LSTM"], ("padded", "CNN+LSTM"), ("plain", "CNN+LSTM")),
        (results["metadata"]["against"]["CNN+LSTM"], ("plain-with-sex", "CNN+LSTM"), ("plain", "CNN+LSTM")),
    ):
        expected = paired(targets, of(*a), of(*b), units, metric)
        assert (difference["difference"], difference["p"]) == pytest.approx((expected.difference, expected.p))
        assert difference["verdict"] == expected.verdict
    assert first["against_first"] == {}
    assert set(results["metadata"]["against"]) == {*plain.baselines, "ridge regression"}
    assert runs["plain-with-sex"].store.info.layers == (1,)
    assert results["ceiling"]["raters"] == 10


def test_the_row_of_recordings_is_fitted_chosen_and_scored_as_it_says(work: Path, results: dict[str, Any]) -> None:
    """By hand, with scikit-learn's own kernel: fitted on the fit part, C by the valid part, scored on the test part."""
    run = Run.open(work / "runs/whole/plain")
    saved = Functionals.load(run.folder / "functionals.npz")
    assert saved.values_UF.shape == (SPEAKERS * TAKES, 6373)
    metric, rows, again = run.metrics["Spearman"], [], []
    for f, fold in enumerate(run.protocol.folds):
        x_UF, y_UO = saved.of(fold.fit), run.targets[[run.position[i] for i in fold.fit]]
        mean_F, std_F = x_UF.mean(0), x_UF.std(0)
        std_F[std_F <= 1e-6 * np.sqrt(mean_F**2 + std_F**2)] = 1

        def predicted(strength: float, ids: Sequence[str], seen: Any = (x_UF, y_UO, mean_F, std_F)) -> np.ndarray:
            x_UF, y_UO, mean_F, std_F = seen
            new_UF = (saved.of(ids) - mean_F) / std_F
            svrs = [SVR(kernel="linear", C=strength, epsilon=EPSILON).fit((x_UF - mean_F) / std_F, y) for y in y_UO.T]
            return np.column_stack([svr.predict(new_UF) for svr in svrs])

        valid = run.targets[[run.position[i] for i in fold.valid]]
        best = max(COMPLEXITIES, key=lambda c: (metric(valid, predicted(c, fold.valid)), -c))
        job = read_result(run, Job(Kind.LINEAR, ACOUSTIC, f, 0), LinearResult)
        assert job.strength == best
        np.testing.assert_allclose(job.test.predictions, predicted(best, fold.test), atol=2e-3)
        assert job.parameters == 2 * (6373 + 1)
        rows.append(job.test.predictions)
        again.append(job.again)
    folds_N = np.repeat(np.arange(FOLDS), [len(fold.test) for fold in run.protocol.folds])
    row = Predictions(np.concatenate(rows)[None], folds_N, np.concatenate(again, axis=1))
    targets, units = comparison.tested(run)
    told = results["recordings"][ACOUSTIC]
    assert told["metrics"]["Spearman"]["mean"] == pytest.approx(metric(targets, row.rows_SN[0]))
    assert told["metrics"]["Spearman natural"]["mean"] > 0.6, "the louder, the more natural"
    assert told["interval"]["low"] < told["metrics"]["Spearman"]["mean"] < told["interval"]["high"]
    for of_store in results["stores"]:
        other = Run.open(work / "runs/whole" / of_store["store"])
        jobs = comparison.results_of(other, "CNN+LSTM")
        network = Predictions(
            np.array([np.concatenate([job.test.predictions for job in of_seed]) for of_seed in jobs]), folds_N
        )
        expected, found = paired(targets, network, row, units, metric), of_store["against_acoustic"]["CNN+LSTM"]
        assert (found["difference"], found["p"]) == pytest.approx((expected.difference, expected.p))
        assert set(of_store["against_acoustic"]) == set(other.baselines)
        assert ACOUSTIC not in of_store["rows"]
    assert not [path for path in (work / "runs/whole/padded/jobs").iterdir() if "SVR" in path.name]
    assert not (work / "runs/whole/padded/functionals.npz").exists()


def test_the_report_is_a_page_data_figures_and_tensorboard(work: Path, results: dict[str, Any]) -> None:
    folder, said = work / "runs/whole", (work / "said.txt").read_text()
    page = (folder / "table.md").read_text()
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert titles == [
        "Encoder x attention: Spearman",
        "One network an emotion against one for all: Spearman",
        "Stores against plain: Spearman",
        "Networks against openSMILE+SVR: Spearman",
        "Metadata: Spearman",
        "What attention goes with",
        "Every metric on plain",
        "Every metric on padded",
        "Every metric of openSMILE+SVR",
    ]
    recordings = page.partition("## Networks against openSMILE+SVR")[2].partition("##")[0]
    score = results["recordings"][ACOUSTIC]["metrics"]["Spearman"]["mean"]
    assert f"minus openSMILE+SVR ({100 * score:.1f})" in recordings
    assert recordings.count("\n| plain | CNN+LSTM | ") == recordings.count("\n| padded | CNN+LSTM | ") == 1
    assert page.count("\n| openSMILE+SVR | ") == 1, "once, not beside every store"
    ablation = page.partition("## Encoder")[2].partition("##")[0]
    assert ablation.count("\n| plain | CNN+LSTM | ") == ablation.count("\n| padded | CNN+LSTM, one an emotion | ") == 1
    assert "| ridge regression | mean share | ceiling |" in ablation
    for text in (
        "2 folds (protocol cups-speaker-2-emotion-share-seed0 (speaker:2)",
        "mean ± sd over 2 seeds",
        "- Intervals: 95 %, for other units (7: speaker) and other trainings (2 folds x 2 seeds).",
        "- Power: a true difference of ",
        f"- {len(load_results(folder).compared)} comparisons, not corrected for their number: ",
        "- A/A check, each seed of a row against its other seeds: needs three seeds and 4 units.",
        "correlations are not corrected for their number",
        "Ceiling, what knowing every true share would reach with 10 listeners",
        "With metadata: one-hot columns of sex",
        "openSMILE+SVR, after the challenge's baseline: the 6,373 functionals of ComParE 2016",
        "padded: fake, padded with zeros to 0.6 s; layer 1.",
        "plain, mean share: the prediction of natural is constant",
        "Frames are means of 2.",
        "Settings: preset=cpu, width=8",
    ):
        assert text in page, text
    assert "sign-flip" not in page
    pngs = {path.name for path in (folder / "figures").glob("*.png")}
    assert "encoder-x-attention.png" in pngs
    assert len(pngs) == 1 + 2 * 3
    board = EventAccumulator(str(folder / "tb/shares"))
    board.Reload()
    assert len(board.Tags()["images"]) == len(pngs)
    lines = said.strip().splitlines()
    assert lines[-1] == "next: bas compare --features plain --space emotion_share --layer 1"
    assert "report: runs/whole/table.md" in said
    comparison = [line for line in lines if line.startswith(("│", "┃", "┏"))]
    assert comparison
    assert max(map(len, comparison)) <= 80
    assert "…" not in "".join(comparison)


def test_what_attention_goes_with(work: Path, results: dict[str, Any]) -> None:
    plain, padded = (store["models"] for store in results["stores"])
    assert list(plain) == list(Attention.read(work / "runs/whole/plain" / WEIGHTS).models)
    for model in plain.values():
        assert set(model["measures"]) == set(MEASURES)
        assert model["measures"]["energy"]["utterances"] > SPEAKERS * TAKES / 2
        assert -1 <= model["measures"]["time"]["low"] <= model["measures"]["time"]["mean"] <= 1
        assert 0 < model["spread"] <= 1
        assert model["behind"] == 0
    # 0.2 to 0.48 s of 0.6: attention that is nearly even lies on the silence for about half.
    assert all(0.2 < model["behind"] < 0.8 for model in padded.values())
    ids = Contours.load(work / "runs/whole/plain/contours.npz").ids
    assert set(ids) == set(Run.open(work / "runs/whole/plain").protocol.test_ids)


def test_a_second_call_does_nothing_new(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    folder = work / "runs/whole"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("jobs/*")}
    page = (folder / "table.md").read_text()

    def never(*arguments: Any) -> None:
        raise AssertionError("measured or trained again")

    monkeypatch.setattr(study, "contours", never)
    monkeypatch.setattr(study.acoustic, "functionals", never)
    monkeypatch.setattr(study.acoustic, "regress", never)
    monkeypatch.setattr(study.page, "draw", lambda folder, results, console: None)
    monkeypatch.setattr("bas.runs.jobs.fit_ensemble", never)
    kept = (folder / "plain/functionals.npz").rename(work / "away.npz")  # of no use once all folds are done
    assert main(words(["plain", "padded"], "whole", "--metadata", "sex")) == 0
    kept.rename(folder / "plain/functionals.npz")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("jobs/*")} == before
    assert (folder / "table.md").read_text() == page


# --- what is refused ---


def test_weights_that_are_gone(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(work)
    path = work / "runs/whole/plain/jobs/baseline-CNN+LSTM+attention-fold0-seed0.attention.npz"
    held = path.read_bytes()
    path.unlink()
    line = refused(capsys, words(["plain", "padded"], "whole"))
    assert "attention.npz: missing; put it back, or give another --name" in line
    path.write_bytes(held[:-40])
    line = refused(capsys, words(["plain", "padded"], "whole"))
    assert "damaged; delete " in line
    assert "jobs/baseline-CNN+LSTM+attention-fold0-seed0.json: its job is done again" in line
    path.write_bytes(held)


def test_refusals(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(work)
    few = work / "few.csv"
    few.write_text("".join((work / "cups.csv").read_text().splitlines(keepends=True)[:-1]))
    ids = work / "ids.txt"
    ids.write_text("\n".join(sorted(line.partition(",")[0] for line in few.read_text().splitlines()[1:])))
    assert main(["features", "subset", "plain", "--into", "fewer", "--ids", "ids.txt"]) == 0
    store(write(work / "elsewhere", "mugs"), work / "mugs", shard_bytes=10**6)
    store(write(work / "elsewhere", "plain-too"), work / "elsewhere/plain", shard_bytes=10**6)
    capsys.readouterr()
    for arguments, message in (
        (words(["plain", "mugs"], "x"), "stores plain and mugs: of manifest "),
        (words(["plain", "fewer"], "x"), "1 utterances are in one of them alone, "),
        (words(["plain", "elsewhere/plain"], "x"), "two stores are named plain"),
        (words(["plain-with-sex-layer1"], "x"), "is derived (metadata sex "),
        (words(["plain"], "x", "--space", "ser_bas3"), "task emotion: predicts label, not shares of listeners"),
        (words(["plain"], "x", "--metadata", "age"), "metadata 'age': must be one of sex, language, speaker"),
        (words(["plain"], "x", "--metadata", "language"), "language is de throughout in cups"),
        (words(["plain"], "x", "--metadata", "speaker"), "no speaker of the test part is in the training part"),
        (words(["plain"], "x", "--metadata", "sex", "--set=normalise=speaker"), "normalise=speaker would remove it"),
        (words(["plain"], "x", "--layer", "1", "2"), "--layer 1 2: one for all of 1 stores, or one for each"),
        (words(["plain"], "x", "--set=strategy=gumbel"), "--set strategy=gumbel: shares does not read it"),
        (words(["plain"], "x", "--layer", "9"), "--layer 9: "),
        (words(["plain"], "x", seeds=0), "--seeds 0: must be 1 or more"),
        (words(["nowhere"], "x"), "nowhere: no feature store here"),
    ):
        assert message in refused(capsys, arguments), message
        assert not (work / "runs/x/results.json").exists()


def test_a_store_of_other_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store(write(tmp_path), tmp_path / "plain", shard_bytes=10**6)
    soundfile.write(tmp_path / "cups-s3-1.wav", np.full(3200, 0.1), 16_000)
    store(tmp_path / "cups.csv", tmp_path / "later", shard_bytes=10**6)
    line = refused(capsys, words(["plain", "later"], "x"))
    assert "stores plain and later: extracted from other recordings of cups/s3-1; extract one of them again" in line


def test_a_corpus_without_shares_and_a_space_without_attention(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store(write(tmp_path, "bare", shares=""), tmp_path / "bare", shard_bytes=10**6)
    assert "no utterance has shares, which task emotion-share predicts" in refused(capsys, words(["bare"], "x"))
    (tmp_path / "own.py").write_text(
        "from bas.blocks import FFN, MeanPool\nfrom bas.space import SearchSpace\nfrom bas.tasks import Shares\n"
        "space = SearchSpace({'a': {'FFN': FFN}}, MeanPool)\ntask = Shares()\nbaselines = {'one': space}\n"
    )
    line = refused(capsys, words([str(work / "plain")], "x", "--space", "own.py"))
    assert "space own: baselines one: no two differ in the pool alone" in line


def test_without_opensmile_nothing_is_trained(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setitem(sys.modules, "opensmile", None)
    assert "pip install 'bas[dynamics]'" in refused(capsys, words(["plain"], "none"))
    assert not (work / "runs/none").exists()
    assert "opensmile, which is not installed" in refusal(acoustics.contours, [("a", np.zeros(800, np.float32))])


def test_functionals_that_are_damaged_are_told(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    path, job = (
        work / "runs/whole/plain" / name for name in ("functionals.npz", "jobs/linear-openSMILE+SVR-fold1-seed0.json")
    )
    held, result = path.read_bytes(), job.read_bytes()
    path.write_bytes(held[:-40])
    job.unlink()  # only a job that is left needs them
    try:
        line = refused(capsys, words(["plain", "padded"], "whole", "--metadata", "sex"))
    finally:
        path.write_bytes(held)
        job.write_bytes(result)
    assert "functionals.npz: damaged; delete it: the functionals are measured again" in line


def test_a_fold_that_was_lost_is_done_again_with_the_same_numbers(
    work: Path, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    job = work / "runs/whole/plain/jobs/linear-openSMILE+SVR-fold1-seed0.json"
    before = json.loads(job.read_text())
    job.unlink()
    monkeypatch.setattr(study.page, "draw", lambda folder, results, console: None)
    monkeypatch.setattr(study.acoustic, "functionals", lambda *given: pytest.fail("measured again"))
    assert main(words(["plain", "padded"], "whole", "--metadata", "sex")) == 0
    of_time = {"seconds": 0.0, "sha256": ""}
    assert json.loads(job.read_text()) | of_time == before | of_time


def test_one_seed_and_one_store(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study.page, "draw", lambda folder, results, console: None)
    assert main(words([str(work / "plain")], "one", seeds=1)) == 0
    result = json.loads((tmp_path / "runs/one/results.json").read_text())
    assert result["metadata"] is None
    (only,) = result["stores"]
    assert all(model["agreement"] is None for model in only["models"].values())
    assert "Stores against" not in (tmp_path / "runs/one/table.md").read_text()
    # A second seed is added: what is there stays.
    jobs = {p.name: p.read_bytes() for p in (tmp_path / "runs/one/plain/jobs").iterdir()}
    assert main(words([str(work / "plain")], "one", seeds=2)) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "runs/one/plain/jobs").iterdir() if p.name in jobs} == jobs
    assert Attention.read(tmp_path / "runs/one/plain" / WEIGHTS).weights_MSN.shape[1] == 2


def test_a_job_that_is_done_is_left_alone(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(work / "runs/whole/plain")
    monkeypatch.setattr("bas.runs.jobs.fit_ensemble", lambda *arguments: pytest.fail("trained again"))
    jobs = [Job(Kind.BASELINE, "CNN+LSTM+attention", 0, 0), Job(Kind.LINEAR, "ridge regression", 0, 0)]
    run_jobs(run, jobs, 1, 1, quiet(), "jobs", open=SharesSession)
