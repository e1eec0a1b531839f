"""Bytes that changed on the disk are refused by their file's name, or change no number.

Every kind of file of a store and of a run has single bytes and blocks of it damaged at random; then the verb is given
again, as a user would. Either it ends in one line that names the file, or with the numbers that it had before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden.verbs import SPACE, corpus

from bas.cli.main import main

pytestmark = pytest.mark.slow

FAULTS = 20  # of each sort, in each kind of file
BLOCK = 4096
QUICK = ["--set", "epochs=2", "--set", "width=8", "--set", "stride=4", "--workers", "1", "--seeds", "1"]
ONE = ["--protocol", "speaker:2", "--space", "four.py"]
STORE = "runs/features/cups-log-mel"
VERBS = {
    "compare": [*QUICK, *ONE, "--set", "strategy=gumbel", "--features", STORE],
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
    **{f"runs/tune/{name}": "tune" for name in ("studies.journal", "jobs/tuned.json")},
}


def flip_byte(raw: bytearray, rng: np.random.Generator) -> None:
    raw[rng.integers(len(raw))] ^= int(rng.integers(1, 256))


def zero_block(raw: bytearray, rng: np.random.Generator) -> None:
    size = min(BLOCK, max(1, len(raw) // 4))
    start = int(rng.integers(len(raw) - size + 1))
    raw[start : start + size] = bytes(size)


def move_block(raw: bytearray, rng: np.random.Generator) -> None:
    size = min(BLOCK, max(1, len(raw) // 4))
    start, to = (int(rng.integers(len(raw) - size + 1)) for _ in range(2))
    raw[to : to + size] = raw[start : start + size]


Fault = Callable[[bytearray, np.random.Generator], None]
SORTS: dict[str, list[Fault]] = {"bytes": [flip_byte], "blocks": [zero_block, move_block]}


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
    rng = np.random.default_rng(sum(map(ord, file)))
    refused = 0
    try:
        for number in range(FAULTS):
            raw = bytearray(whole)
            faults = SORTS[sort]
            faults[number % len(faults)](raw, rng)
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
