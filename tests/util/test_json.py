"""JSON that every reader takes, also where one speaker gives no interval; and a table that says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import bad_input
import numpy as np
import pytest
from bad_input import EXTRACT, PLAIN, SMALL, STORE
from refusals import refusal

from bas.cli.main import main
from bas.report.results import write_results
from bas.stats import NO_INTERVAL, between
from bas.studies import load_results
from bas.util.files import read_json, write_json


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def strict(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)


def test_a_number_that_is_none_is_null(tmp_path: Path) -> None:
    value = {"a": [1.5, float("nan")], "b": (float("inf"), {"c": np.float64("-inf")}), "d": None, "e": "NaN", "f": 3}
    write_json(tmp_path / "a.json", value)
    raw = strict(tmp_path / "a.json")
    assert len(raw.pop("sha256")) == 64
    assert raw == {"a": [1.5, None], "b": [None, {"c": None}], "d": None, "e": "NaN", "f": 3}


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    """Python would take the last: of a fold with two lists `fit`, say."""
    (tmp_path / "a.json").write_text('{"folds": [{"fit": ["a"], "test": ["b"], "fit": ["b"]}]}', encoding="utf-8")
    assert "a.json: not readable as JSON ('fit' is there twice)" in refusal(read_json, tmp_path / "a.json")


def test_an_interval_or_none() -> None:
    assert between(-0.0123, 0.5) == "-1.2 to +50.0"
    assert between(0.1, 0.25, "", scale=1, digits=3) == "0.100 to 0.250"
    for low, high in ((None, None), (-np.inf, np.inf), (None, 1.0), (0.0, np.nan)):
        assert between(low, high) == NO_INTERVAL == "no interval"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five speakers, of whom one is tested."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bad_input.good()
        ids = [line.split(",")[0] for line in Path("cups.csv").read_text().splitlines()[1:]]
        fold = {"fit": [i for i in ids if i[0] != "e"], "test": [i for i in ids if i[0] == "e"]}
        Path("one.json").write_text(json.dumps({"folds": [fold]}))
        assert main(f"{EXTRACT} log-mel".split()) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "page", "results"),
    [
        (f"compare --features {STORE} {SMALL} --protocol one.json", "table.md", "results.json"),
        (f"audit --features {STORE} {PLAIN} --protocol one.json", "table.md", "results.json"),
        (f"tune --features {STORE} {SMALL} --protocol one.json --trials 2", "table.md", "results.json"),
        (
            f"probe --features {STORE} --space mine.py --set epochs=1 --seeds 1 --workers 1 --protocol one.json",
            "table.md",
            "results.json",
        ),
    ],
)
def test_one_test_speaker_gives_no_interval(
    command: str, page: str, results: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    name = command.split()[0]
    assert main([*command.split(), "--name", name]) == 0
    folder = Path("runs") / name
    write_results(tmp_path, load_results(folder))
    assert (tmp_path / results).read_bytes() == (folder / results).read_bytes(), "read and written again"
    for path in folder.rglob("*.json"):
        strict(path)
    text = (folder / page).read_text(encoding="utf-8")
    assert NO_INTERVAL in text
    assert " inf" not in text
    assert "-inf" not in text
    assert "nan" not in text.replace("nano", "")
