"""A result under a marked split cannot be read without the mark: not in a table, a sentence, a file or TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import rewrite
from rich.table import Table
from sounds import tone
from stores import Fake, store
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bas.cli.main import main

WORDS = ["compare", "--features", "store", "--layer", "1", "--space", "ser_bas3", "--seeds", "1", "--workers", "1"]
QUICK = [
    "--set",
    "strategy=single-path",
    "--set",
    "committee=1",
    "--set",
    "epochs=1",
    "--set",
    "width=16",
    "--set",
    "stride=1",
    "--name",
    "marked",
]
LEAKY = ["--protocol", "id:2", "--allow-overlap", "speaker"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What a comparison under a leaky split prints; the working directory holds what it wrote."""
    root = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch, (root / "cups.csv").open("w", encoding="utf-8") as stream:
        patch.chdir(root)
        stream.write("id,audio,label,speaker\n")
        for speaker in "pqrs":
            for label in "ab":
                for take in range(2):
                    id_ = f"{speaker}{label}{take}"
                    tone(
                        root / f"{id_}.wav",
                        0.2 + 0.02 * take,
                        hertz=150 + 40 * "pqrs".index(speaker) + 13 * (label == "b"),
                    )
                    stream.write(f"{id_},{id_}.wav,{label},{speaker}\n")
        stream.flush()
        store(root / "cups.csv", root / "store", Fake())
        capture = pytest.MonkeyPatch()
        lines: list[str] = []
        capture.setattr("rich.console.Console.print", lambda self, *parts, **_: lines.extend(map(_plain, parts)))
        try:
            assert main([*WORDS, *QUICK, *LEAKY]) == 0
        finally:
            capture.undo()
        yield "\n".join(lines)


def _plain(part: object) -> str:
    return str(part.title if isinstance(part, Table) else part)


def test_every_table_on_the_terminal_has_it(shown: Any) -> None:
    titles = [line for line in shown.splitlines() if "(protocol " in line]
    assert len(titles) == 4  # chosen blocks, two tables, the legend
    assert all("MARKED" in line for line in titles)
    assert "mark: allowed by --allow-overlap, with speaker on both sides" in shown


def test_every_file_and_sentence_has_it(shown: Any) -> None:
    page = Path("runs/marked/table.md").read_text()
    assert "MARKED" in page.splitlines()[0]
    sentences = [line for line in page.splitlines() if line.startswith("- BAS ser_bas3 ")]
    assert len(sentences) == 2
    assert all("MARKED" in line for line in sentences)
    results = json.loads(Path("runs/marked/results.json").read_text())
    assert results["protocol"]["description"].endswith("MARKED")
    assert results["protocol"]["marks"]
    assert all("MARKED" in line for line in results["verdicts"])
    protocol = json.loads(Path("runs/marked/protocol.json").read_text())
    assert protocol["marks"] == results["protocol"]["marks"]
    jobs = list(Path("runs/marked/jobs").glob("*.json"))
    assert {json.loads(job.read_text())["protocol"] for job in jobs} == {protocol["hash"]}


def test_every_curve_in_tensorboard_has_it(shown: Any) -> None:
    events = list(Path("runs/marked/tb").rglob("events.*"))
    assert len(events) > 8
    assert all("MARKED" in event.parts for event in events)
    job = next(event for event in events if "baseline-simple-FFN-fold0-seed0" in event.parts)
    board = EventAccumulator(str(job.parent)).Reload()
    (text,) = board.Tensors("protocol/text_summary")
    assert b"MARKED" in text.tensor_proto.string_val[0]
    assert b"--allow-overlap" in text.tensor_proto.string_val[0]


def test_it_is_not_lost_by_going_on_without_the_flag(shown: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The same split by its file is refused without the flag, and so is the same run."""
    before = Path("runs/marked/results.json").read_bytes()
    assert main([*WORDS, *QUICK, "--protocol", "id:2"]) == 2
    assert "speaker on both sides" in capsys.readouterr().err
    make = ["protocol", "make", "--corpus", "manifest", "--root", "cups.csv", *LEAKY, "--to", "leaky.json"]
    assert main(make) == 0
    assert main([*WORDS, *QUICK, "--protocol", "leaky.json"]) == 2
    assert Path("runs/marked/results.json").read_bytes() == before


def test_a_result_of_another_split_is_not_taken(shown: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(Path("runs/marked/jobs").glob("baseline-simple-FFN-fold1-*.json"))
    whole = path.read_text()
    rewrite(path, json.loads(whole) | {"protocol": "0123456789ab"})
    try:
        assert main([*WORDS, *QUICK, *LEAKY]) == 2
        assert f"{path}: of another protocol" in capsys.readouterr().err
    finally:
        path.write_text(whole)
