"""Numbers through the whole house: of a table of labels beside a store, compared, exported, predicted in units."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import bas
from bas.cli.main import main
from bas.features.store import FeatureStore
from bas.runs.run import open_labelled

pytestmark = pytest.mark.slow

SPACE = """
from bas.blocks import FFN, MeanPool, Skip, StatisticsPool
from bas.space import SearchSpace
from bas.tasks import Regression

layer = {"none": Skip, "FFN": FFN}
space = SearchSpace({"layer1": layer}, {"mean": MeanPool, "statistics": StatisticsPool})
task = Regression({"level": (-60, 0), "pitch": (100, 900)}, "mse", name="numbers")
baselines = {"one each": SearchSpace({"layer1": {"FFN": FFN}}, MeanPool, each_output=True)}
"""
SMALL = [f"--set={setting}" for setting in ("epochs=3", "width=8", "stride=4")]
COMMON = ["--features", "store", "--layer", "0", "--space", "mine.py", "--seeds", "1", "--workers", "1", *SMALL]
COMMON += ["--protocol", "speaker:3"]
ALONE = ["--set=strategy=gumbel", "--set=committee=1"]
KEPT = ["--labels", "numbers.csv", "--keep", "level", "pitch"]
UNLABELLED = 3


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Noise of a level in dB, which log-mel frames hold as it is, under a tone; extracted, and compared."""
    folder = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plain, numbers = [], []
        for i in range(48):
            level, pitch, time_N = rng.uniform(-50, -10), rng.uniform(200, 800), np.arange(5_000 + 40 * i) / 16_000
            wave_N = rng.standard_normal(len(time_N)) + np.sin(2 * np.pi * pitch * time_N)
            soundfile.write(f"{i:02}.wav", 0.2 * 10 ** (level / 20) * wave_N, 16_000, subtype="FLOAT")
            plain.append(f"u{i:02},{i:02}.wav,s{i % 6}")
            numbers.append(f"u{i:02},{level:.2f},{pitch:.1f}")
        Path("cups.csv").write_text("\n".join(["id,audio,speaker", *plain]))
        Path("numbers.csv").write_text("\n".join(["id,level,pitch", *numbers[UNLABELLED:]]))
        Path("mine.py").write_text(SPACE)
        extract = ["extract", "--corpus", "manifest", "--root", "cups.csv", "--encoder", "log-mel"]
        assert main([*extract, "--features", "store"]) == 0
        assert main(["compare", *COMMON, *KEPT, *ALONE, "--name", "run"]) == 0
        yield folder


def truth() -> dict[str, tuple[float, float]]:
    with Path("numbers.csv").open() as stream:
        return {row["id"]: (float(row["level"]), float(row["pitch"])) for row in csv.DictReader(stream)}


def test_compared_like_any_other_task() -> None:
    results = json.loads(Path("runs/run/results.json").read_text())
    rows = {row["row"]: row for row in results["rows"]}
    assert list(rows) == ["one each", "BAS mine", "ridge regression", "mean"]
    assert list(rows["one each"]["metrics"]) == ["CCC", "CCC level", "CCC pitch", "Pearson", "1-NMAE"]
    assert (results["headline"], results["tested"], results["pooled"]) == ("CCC", 48 - UNLABELLED, False)
    assert rows["ridge regression"]["metrics"]["CCC level"]["mean"] > 0.97, "what is linear in the frames is recovered"
    assert rows["mean"]["metrics"]["CCC"]["mean"] == 0
    assert 0.6 < rows["mean"]["metrics"]["1-NMAE"]["mean"] < 0.9
    assert "labels of numbers.csv, which has no line for 3 of 48 utterances" in results["note"]
    with Path("runs/run/predictions.csv").open() as stream:
        told = [row for row in csv.DictReader(stream) if row["row"] == "ridge regression"]
    assert {row["id"]: (float(row["truth level"]), float(row["truth pitch"])) for row in told} == truth()
    errors = [abs(float(row["predicted level"]) - float(row["truth level"])) for row in told]
    assert np.mean(errors) < 3, "in dB"


def test_the_run_says_what_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    told = tomllib.loads(Path("runs/run/experiment.toml").read_text())
    assert (told["labels"], told["corpus"]["keep"]) == ("numbers.csv", ["level", "pitch"])
    before = Path("runs/run/results.json").read_text()
    assert main(["compare", "runs/run/experiment.toml"]) == 0
    assert Path("runs/run/results.json").read_text() == before
    assert main(["compare", *COMMON, *ALONE, "--name", "none"]) == 2
    assert "no utterance has level or pitch, which task numbers predicts; own columns" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["BAS mine", "one each", "ridge regression", "mean"])
def test_exported_it_predicts_in_the_user_s_units(row: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"model-{row.replace(' ', '-')}"
    assert main(["export", "runs/run", "--row", row, "--into", name]) == 0
    card = (Path(name) / "README.md").read_text()
    assert "Predicts numbers (level from -60 to 0, pitch from 100 to 900)" in card
    model = bas.load(name, device="cpu")
    said = {id_: model.predict(f"{id_[1:]}.wav")[0].values for id_ in truth()}
    said_NO = np.array([[said[id_]["level"], said[id_]["pitch"]] for id_ in said])
    truth_NO = np.array([truth()[id_] for id_ in said])
    if row == "mean":
        assert said_NO == pytest.approx(np.broadcast_to(said_NO[0], said_NO.shape))
        assert (np.abs(said_NO[0] - truth_NO.mean(0)) < [4, 60]).all(), "of the training part"
    if row == "ridge regression":
        assert np.abs(said_NO - truth_NO)[:, 0].mean() < 3
    capsys.readouterr()
    assert main(["predict", name, "05.wav", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == pytest.approx(said["u05"])


def test_a_graph_gives_numbers() -> None:
    import onnxruntime

    if not Path("model-of-graph").exists():
        assert main(["export", "runs/run", "--row", "BAS mine", "--into", "model-of-graph"]) == 0
    model = bas.load("model-of-graph", device="cpu")
    graph = onnxruntime.InferenceSession(bas.to_onnx("model-of-graph"))
    about = json.loads(graph.get_modelmeta().custom_metadata_map["bas"])
    assert (about["activation"], about["ranges"]) == ("range", [[-60, 0], [100, 900]])
    width = graph.get_inputs()[0].shape[-1]
    given = {"features": np.zeros((1, 3, width), np.float32), "mask": np.ones((1, 3), bool)}
    outputs_1O, numbers_1O = graph.run(["outputs", "numbers"], given)
    expected = np.array([-60, 100]) + np.array([60, 800]) * (outputs_1O + 0.5)
    assert numbers_1O == pytest.approx(expected, rel=1e-5, abs=1e-3)
    assert model.description.values == "numbers"


def test_audited_and_tuned() -> None:
    common = [*COMMON, *KEPT, "--set=epochs=2"]
    assert main(["audit", *common, "--name", "audit", "--strategy", "gumbel", "--variant", "none"]) == 0
    results = json.loads(Path("runs/audit/results.json").read_text())
    assert len(results["spaces"][0]["architectures"]) == 4
    assert main(["tune", *common, "--name", "tune", "--trials", "1"]) == 0
    assert json.loads(Path("runs/tune/results.json").read_text())["headline"] == "CCC"


def test_raced(capsys: pytest.CaptureFixture[str]) -> None:
    race = ["--set=strategy=race", "--set=budget=4", "--set=ensemble=2", "--set=committee=2", "--name", "race"]
    assert main(["compare", *COMMON, *KEPT, "--set=epochs=2", *race]) == 0
    assert "CCC" in capsys.readouterr().out
    assert list(Path("runs/race/tb").iterdir())


def test_a_column_that_came_later_is_read_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path("cups.csv").read_text().splitlines()
    info = FeatureStore(Path("store")).info
    assert open_labelled(info, None).own == ()
    grown = "\n".join([f"{text[0]},age", *(f"{line},{20 + i}" for i, line in enumerate(text[1:]))])
    try:
        Path("cups.csv").write_text(grown)
        corpus = open_labelled(info, None, ["age"])
        assert [u.get("age") for u in corpus.utterances][:2] == ["20", "21"]
        extract = [
            "extract",
            "--corpus",
            "manifest",
            "--root",
            "cups.csv",
            "--encoder",
            "log-mel",
            "--features",
            "store",
        ]
        assert main([*extract, "--keep", "age"]) == 0  # keeps the features, and the store the column
        assert open_labelled(FeatureStore(Path("store")).info, None).own == ("age",)
        into = ["--into", str(tmp_path / "part"), "--layers", "0"]
        assert main(["features", "subset", "store", *into]) == 0
        assert open_labelled(FeatureStore(tmp_path / "part").info, None).own == ("age",)
    finally:
        Path("cups.csv").write_text("\n".join(text))
        assert main(extract) == 0


def test_what_needs_classes_refuses_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol", "cost", *COMMON[:6], *KEPT]) == 2
    assert "measured for tasks with classes only" in capsys.readouterr().err
