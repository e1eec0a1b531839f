"""One flow: a verb opens each of its inputs once and hands it down, and starts its processes once."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sounds import tone
from stores import Fake, store

import bas.features.corpus
import bas.runs.session
import bas.runs.spaces
import bas.runs.workers
from bas.cli.experiments import take
from bas.cli.main import main
from bas.features.store import StoreInfo
from bas.report.answer import Answer
from bas.report.results import Comparison
from bas.runs.run import Run
from bas.studies import load_results

pytestmark = pytest.mark.slow

SMALL = [f"--set={setting}" for setting in ("epochs=1", "width=16", "stride=4")]
SPACE = """
from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace

space = SearchSpace(slots={"layer1": {"FFN": FFN, "other": FFN}}, pool=MeanPool)
"""


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with (tmp_path / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(6):
            for label in "ab":
                for take in range(2):
                    id_ = f"s{s}{label}{take}"
                    tone(
                        tmp_path / f"{id_}.wav", 0.2 + 0.02 * take, hertz=200 + 10 * s + 25 * (label == "b") + 7 * take
                    )
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    store(tmp_path / "cups.csv", tmp_path / "cups", Fake())
    (tmp_path / "two.py").write_text(SPACE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return "cups"


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each of these was called."""
    counted: Counter[str] = Counter()

    def count(owner: object, name: str, what: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def counting(*arguments: Any, **more: Any) -> Any:
            counted[what] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, counting)

    count(bas.features.corpus, "open_corpus", "corpus")
    count(StoreInfo, "_parse", "store.json")
    count(bas.runs.spaces, "_run", "space file")
    count(Run, "__init__", "run")
    count(bas.runs.session, "load", "features")
    count(ProcessPoolExecutor, "__init__", "pools")
    return counted


def test_a_comparison_opens_each_of_its_inputs_once(features: str, counts: Counter[str]) -> None:
    run = ["compare", "--features", features, "--layer", "1", "--space", "two.py", "--seeds", "2", *SMALL]
    run += ["--set=budget=4", "--set=committee=2"]
    assert main([*run, "--workers", "1"]) == 0
    assert counts == {"corpus": 1, "store.json": 1, "space file": 1, "run": 1, "features": 1}


def test_no_export_is_named_of_features_that_a_recording_does_not_give(
    features: str, counts: Counter[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a derived store, which is not opened once more for it."""
    assert main(["features", "derive", features, "--pooling", "mean", "--into", "words"]) == 0
    monkeypatch.setattr("bas.report.answer.answer", lambda results: Answer("FFN", "take it", False))
    for store_, following in (("words", "board"), (features, "export")):
        counts.clear()
        run = ["compare", "--features", store_, "--layer", "1", "--space", "two.py", "--seeds", "1", *SMALL]
        run += ["--set=budget=4", "--set=committee=2", "--set=stride=1", "--protocol", "speaker:2"]
        assert main([*run, "--workers", "1", "--name", following]) == 0
        assert counts["store.json"] == 1
        results = load_results(Path("runs") / following)
        assert isinstance(results, Comparison)
        assert take(results)[0] == following
        assert f" {following}" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "--layer", "1", "--set=budget=4", "--set=committee=2"],
        ["audit", "--layer", "1", "--strategy", "gumbel", "--variant", "residual=every"],
        ["tune", "--layer", "1", "--trials", "2"],
    ],
    ids=lambda words: words[0],
)
def test_a_verb_starts_its_processes_once(features: str, counts: Counter[str], words: list[str]) -> None:
    run = [*words, "--features", features, "--space", "two.py", "--seeds", "1", *SMALL, "--protocol", "speaker:2"]
    assert main([*run, "--workers", "2"]) == 0
    assert counts["pools"] == 1
    assert (counts["corpus"], counts["store.json"], counts["space file"]) == (1, 1, 1)
