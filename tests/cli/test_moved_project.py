"""A project's folder, corpus and stores and runs in it, is moved as a whole: every verb goes on from there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from golden.verbs import SPACE, corpus

from bas.cli.main import main
from bas.encoders import NANO, files_of
from bas.features.derive import origin
from bas.features.store import StoreInfo
from bas.util.places import find_place, note_place, short_name, short_place

QUICK = "--set epochs=2 --set batch_size=8 --seeds 1 --workers 1"
SMALL = f"--features runs/features/cups-log-mel {QUICK} --set width=16 --space four.py --set strategy=gumbel"
VERBS = {
    "compare": f"compare {SMALL} --set committee=1 --protocol split.json",
    "audit": f"audit {SMALL.replace('--set strategy=gumbel', '--strategy gumbel')} --variant none",
    "tune": f"tune {SMALL} --trials 2",
    "cost": f"protocol cost {SMALL.replace(' --set strategy=gumbel', '')} --clean speaker:3 --leaky id:3",
    "probe": f"probe --features runs/features/cups-log-mel {QUICK} --percent 50 --protocol speaker:2",
    "words": f"words --features runs/features/cups-log-mel {QUICK} --text-encoder random --protocol split.json",
    "shares": f"shares --features runs/features/cups-log-mel {QUICK} --set width=16 --metadata sex --layer 0",
    "dynamics": "dynamics --corpus manifest --root data/cups.csv --encoder ./nano --protocol speaker:3 --rotations 1 "
    "--set epochs=1 --set batch=16 --set micro_batch=8 --set evaluate_every=1 --set lr=0.001",
}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[Path, int]]]:
    """The files of each verb's jobs, by when they were written, after the folder was moved; the working directory."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "old/data").mkdir(parents=True)
        patch.chdir(folder / "old")
        corpus(Path("data"))
        Path("four.py").write_text(SPACE, encoding="utf-8")
        Path("nano").symlink_to(files_of(NANO))
        table = "--corpus manifest --root data/cups.csv"
        assert main(f"extract {table} --encoder log-mel".split()) == 0
        assert main(f"protocol make {table} --protocol speaker:3 --to split.json".split()) == 0
        for verb, command in VERBS.items():
            assert main([*command.split(), "--name", verb]) == 0, verb
        (folder / "a/b").mkdir(parents=True)
        (folder / "old").rename(folder / "a/b/new")
        patch.chdir(folder / "a/b/new")
        yield {verb: _written(verb) for verb in VERBS}


def _written(verb: str) -> dict[Path, int]:
    paths = [*Path("runs", verb).rglob("jobs/*"), *Path("runs", verb, "rotation0").rglob("*")]
    return {path: path.stat().st_mtime_ns for path in paths}


def _numbers(verb: str) -> dict[str, Any]:
    """Of results.json, without its checksum, and without the places of derived stores."""
    results = json.loads(Path("runs", verb, "results.json").read_text(encoding="utf-8"))
    assert results.pop("sha256")
    for store in results.get("stores", ()) if verb == "words" else ():
        assert store.pop("derived")
    return dict(results)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_goes_on(verb: str, moved: dict[str, dict[Path, int]], capsys: pytest.CaptureFixture[str]) -> None:
    result = _numbers(verb)
    assert moved[verb]
    words = VERBS[verb].split()
    verbs = words[: words.index("--corpus" if verb == "dynamics" else "--features")]
    for command in ([*words, "--name", verb], [*verbs, f"runs/{verb}/experiment.toml"]):
        assert main(command) == 0, capsys.readouterr().err
        assert _written(verb) == moved[verb]
        assert _numbers(verb) == result


@pytest.mark.slow
def test_stores_go_on(moved: dict[str, dict[Path, int]], capsys: pytest.CaptureFixture[str]) -> None:
    here, store = Path.cwd(), Path("runs/features/cups-log-mel")
    assert StoreInfo.read(store).root == f"{here}/data/cups.csv"
    derived = store.with_name("cups-log-mel-words-mean")
    assert origin(derived, StoreInfo.read(derived))[0] == here / store
    for store in Path("runs/features").iterdir():
        assert main(["features", "verify", str(store)]) == 0, capsys.readouterr()


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the record first, so that a copy of a project reads its own; else where it was."""
    (tmp_path / "p/store").mkdir(parents=True)
    (tmp_path / "p/corpus").mkdir()
    record = note_place("root", tmp_path / "p/corpus", tmp_path / "p/store")
    (tmp_path / "q/store").mkdir(parents=True)
    assert find_place(record, "root", tmp_path / "q/store") == str(tmp_path / "p/corpus")
    (tmp_path / "q/corpus").mkdir()
    assert find_place(record, "root", tmp_path / "q/store") == str(tmp_path / "q/corpus")
    (tmp_path / "linked").symlink_to(tmp_path / "p/store")
    assert find_place(record, "root", tmp_path / "linked") == str(tmp_path / "p/corpus")
    assert find_place({"root": "/gone"}, "root", tmp_path) == "/gone"
    with pytest.raises(KeyError):
        find_place({}, "root", tmp_path)
    monkeypatch.chdir(tmp_path / "p")
    assert short_place(tmp_path / "p/corpus/a b") == "corpus/a b"
    assert short_place("../q") == str(tmp_path / "q")
    assert short_name("corpus/") == "corpus"
    assert short_name("microsoft/wavlm-base") == "microsoft/wavlm-base"
