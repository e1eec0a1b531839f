"""Bytes that changed on the disk are refused by their file's name, or change no number.

Every kind of file of a store and of a run has single bytes and blocks of it damaged at random; then the verb is given
again, as a user would. Either it ends in one line that names the file, or with the numbers that it had before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from damage import SORTS, damaged
from golden.verbs import SPACE, corpus

from bas.cli.main import main

pytestmark = pytest.mark.slow

FAULTS = 20  # of each sort, in each kind of file
QUICK = ["--set", "epochs=2", "--set", "width=8", "--set", "stride=4", "--workers", "1", "--seeds", "1"]
ONE = ["--protocol", "speaker:2", "--space", "four.py"]
STORE = "runs/features/cups-log-mel"
VERBS = {
    "compare": [*QUICK, *ONE, "--set", "strategy=gumbel", "--set", "committee=1", "--features", STORE],
    "tune": [*QUICK, *ONE, "--set", "strategy=gumbel", "--features", STORE, "--trials", "2"],
}
FILES = {
    **{f"{STORE}/{name}": "compare" for name in ("store.json", "shard-00000.h5")},
    **{
        f"runs/compare/{name}": "compare"
        for name in (
            *("run.json", "study.json", "protocol.json", "experiment.toml", "spaces/four.py"),
            *("jobs/search-four-fold0-seed0.json", "jobs/retrain-four-fold1-seed0.json"),
            *("jobs/baseline-simple-FFN-fold0-seed0.json", "jobs/logistic.json", "jobs/retrain-four-fold1-seed0.pt"),
        )
    },
    **{f"runs/tune/{name}": "tune" for name in ("studies/four/fold0/001.json", "jobs/tuned.json")},
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory with a store, and a finished run of each verb."""
    folder = tmp_path_factory.mktemp("corruption")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        corpus(folder)
        Path("four.py").write_text(SPACE, encoding="utf-8")
        assert main(["extract", "--corpus", "manifest", "--root", "cups.csv", "--encoder", "log-mel"]) == 0
        for verb, words in VERBS.items():
            assert main([verb, *words, "--name", verb]) == 0
        yield folder


@pytest.fixture(scope="module")
def cut(work: Path) -> Path:
    """A comparison that was interrupted in its first retraining, with the checkpoint of one epoch."""
    seen: list[object] = []

    def interrupt(*given: object) -> None:
        seen.append(given)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bas.training.loop.CHECKPOINT_SECONDS", 0.0)
        patch.setattr("bas.runs.tensorboard.train_epoch", interrupt)
        assert main(["compare", *VERBS["compare"], "--name", "cut"]) == 130
    (path,) = Path("runs/cut/jobs").glob("*.checkpoint")
    return path


@pytest.mark.parametrize("sort", SORTS)
def test_a_fault_of_a_checkpoint(sort: str, cut: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = 0
    for raw in damaged(cut.read_bytes(), sort, FAULTS):
        shutil.rmtree("runs/fresh", ignore_errors=True)
        shutil.copytree("runs/cut", "runs/fresh")
        Path("runs/fresh/jobs", cut.name).write_bytes(raw)
        capsys.readouterr()
        if main(["compare", *VERBS["compare"], "--name", "fresh"]) == 0:
            assert numbers("fresh") == numbers("compare")
        else:
            assert f"{cut.name}: damaged" in capsys.readouterr().err
            refused += 1
    assert refused >= FAULTS // 2


def numbers(name: str) -> Any:
    raw = json.loads(Path(f"runs/{name}/results.json").read_text())
    rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in raw["rows"]]
    return rows, {key: raw[key] for key in ("sequences", "protocol", "settings", "tested")}


def path_of(file: str) -> Path:
    named = {
        "logistic.json": "linear-logistic-regression-fold1-seed0.json",
        "tuned.json": "tuned-four-*-fold1-seed0.json",
    }
    path = Path(file)
    (path,) = path.parent.glob(named.get(path.name, path.name))
    return path


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("file", FILES)
def test_a_fault_is_found_or_harmless(file: str, sort: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, verb = path_of(file), FILES[file]
    name = "fresh" if path.is_relative_to(STORE) else verb  # a finished run reads no feature
    whole, before = path.read_bytes(), numbers(verb)
    refused = 0
    try:
        for number, raw in enumerate(damaged(whole, sort, FAULTS)):
            path.write_bytes(raw)
            capsys.readouterr()
            shutil.rmtree("runs/fresh", ignore_errors=True)
            code = main([verb, *VERBS[verb], "--name", name])
            message = capsys.readouterr().err
            if code == 0:
                assert numbers(name) == before, f"fault {number}"
            else:
                assert code == 2, message
                assert message.count("\n") == 1
                assert path.name in message
                refused += 1
    finally:
        path.write_bytes(whole)
    assert main([verb, *VERBS[verb], "--name", verb]) == 0
    assert numbers(verb) == before
    if path.suffix not in (".toml", ".pt"):  # these two are not read
        assert refused >= FAULTS // 2
