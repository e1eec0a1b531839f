"""A corpus that is no longer where its store names it: every verb says what takes the store along, and that works."""

from __future__ import annotations

from pathlib import Path

import pytest
from sounds import tone

from bas.cli.main import main

STORE = "runs/features/m-log-mel"


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"a{i},wav/a{i}.wav,{'joy' if i % 2 else 'anger'},s{i // 2}\n" for i in range(6))
    for i in range(6):
        tone(tmp_path / f"old/wav/a{i}.wav", 0.3, hertz=200 + 50 * i)
    (tmp_path / "old/m.csv").write_text(f"id,audio,label,speaker\n{rows}")
    extract = "extract --corpus manifest --root old/m.csv --encoder log-mel"
    assert main(extract.split()) == 0
    assert main(f"features subset {STORE} --into part --layers 0".split()) == 0
    (tmp_path / "old").rename(tmp_path / "new")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        f"compare --features {STORE}",
        f"search --features {STORE}",
        f"features derive {STORE} --pooling mean",
        f"features append {STORE} --fields sex",
        f"features verify {STORE}",
    ],
)
def test_the_line_names_what_works(command: str, moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command.split()) == 2
    message = capsys.readouterr().err
    assert f"corpus manifest: no such file or folder: {moved}/old/m.csv, where the store names it; if it has" in message
    assert "the `bas extract` that made the store, with the new --root and --features" in message


def test_what_it_names_works(moved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = {path: path.stat().st_mtime_ns for path in Path(STORE).glob("shard-*")}
    assert main(f"extract --corpus manifest --root new/m.csv --encoder log-mel --features {STORE}".split()) == 0
    assert {path: path.stat().st_mtime_ns for path in Path(STORE).glob("shard-*")} == shards
    assert main(f"features verify {STORE}".split()) == 0
    assert main(["compare", "--features", "part"]) == 2
    assert "and takes it along; so does the same `bas features subset` after it" in capsys.readouterr().err
    assert main(f"features subset {STORE} --into part --layers 0".split()) == 0
    assert main(["features", "verify", "part"]) == 0
