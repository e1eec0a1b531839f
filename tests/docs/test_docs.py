"""README and documentation: examples run, commands are understood, links lead somewhere."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import ROOT
from sounds import tone
from stores import Fake, store

from bas.cli.main import main, parser
from bas.cli.options import read_command
from bas.experiment import read_experiment
from bas.testing import CONTRACTS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPACE = """
from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace

space = SearchSpace(slots={"layer1": {"FFN": FFN, "other": FFN}}, pool=MeanPool)
"""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> Iterator[tuple[str, str]]:
    """Each line of a shell block, and each `make ...` within a sentence: page, command."""
    for page in PAGES:
        lines = [line.partition("  #")[0].strip() for block in blocks(page, "sh") for line in block.splitlines()]
        whole = [line for line in lines if line.split(" ")[0] in ("make", "bas")]
        within = re.findall(r"`(make [a-z][^`]* [^`]*)`", page.read_text(encoding="utf-8"))
        yield from ((page.name, command) for command in dict.fromkeys([*whole, *within]))


def targets() -> Iterator[tuple[str, str]]:
    """Each bare `make X`, `bas X` and `bas X Y` within a sentence: program, words."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    yield from sorted(set(re.findall(r"`(make|bas) ([a-z][a-z -]*)`", text)))


def understand(words: list[str]) -> None:
    """A command line of `bas`: the parser takes it, and its experiment can be read."""
    arguments = parser().parse_args(words)
    if hasattr(arguments, "experiment"):
        verb = words[1] if words[0] in ("protocol", "corpus", "features") else words[0]
        read_command(arguments, {"make": "protocol", "show": "corpus", "export": "corpus"}.get(verb, verb))


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_is_understood(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shown,) = blocks(ROOT / "README.md", "toml")
    (tmp_path / "emodb.toml").write_text(shown, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    if words[0] == "bas":
        understand(words[1:])
        return
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    make = ["make", "-n", "--no-print-directory", "-C", str(ROOT), *words[1:]]
    done = subprocess.run(make, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    for line in re.findall(r"^\.venv/bin/bas (.*)$", done.stdout, re.MULTILINE):
        understand(shlex.split(line))


@pytest.mark.parametrize(("program", "words"), targets())
def test_what_a_sentence_names_is_there(program: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    if program == "make":
        assert re.search(rf"^{words}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    with pytest.raises(SystemExit) as end:
        parser().parse_args([*words.split(), "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bas {words} ")


def test_the_readme_is_short_and_its_experiment_is_one() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    for page in PAGES:
        for block in blocks(page, "toml"):
            read_experiment(tomllib.loads(block))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith(("http", "reference/")):  # the reference is made when the pages are built
            assert (page.parent / target).exists(), target


def test_the_house_has_every_room() -> None:
    shown = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
    for path in (ROOT / "bas").iterdir():
        if not path.name.startswith("__") and path.name != "py.typed":
            name = f"{path.name}/" if path.is_dir() else path.name
            assert re.search(rf"\b{re.escape(name)}", shown["README.md"]), name
            assert f"`bas/{name}`" in shown["house.md"], name
    for path in re.findall(r"`((?:bas|tests|search_spaces)/[\w/.]*)`", shown["house.md"]):
        assert (ROOT / path).exists(), path


def test_a_table_of_results_is_included_not_copied() -> None:
    reports = [p.read_text(encoding="utf-8") for p in (ROOT / "benchmarks").glob("*.md")]
    rows = {line for report in reports for line in report.splitlines() if line.startswith("| ") and " ± " in line}
    assert len(rows) > 50
    for page in PAGES:
        assert rows.isdisjoint(page.read_text(encoding="utf-8").splitlines()), page.name


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name: an experiment on a small corpus, a store, a space file."""
    with (tmp_path / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for s in range(4):
            for label in "ab":
                for take in range(2):
                    id_, hertz = f"s{s}{label}{take}", 200 + 10 * s + 50 * (label == "b")
                    tone(tmp_path / f"{id_}.wav", 0.3 + 0.02 * take, hertz=hertz)
                    writer.writerow([id_, f"{id_}.wav", label, f"s{s}"])
    with (tmp_path / "emodb.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [["id", "audio"], *([id_, tone(tmp_path / f"{id_}.wav", 0.3)] for id_ in ("03a01Fa", "03a01Nc"))]
        )
    store(tmp_path / "emodb.csv", tmp_path / "runs/features/emodb-whisper-tiny.en", Fake())
    (tmp_path / "two.py").write_text(SPACE, encoding="utf-8")
    shutil.copy(ROOT / "search_spaces/speaker_id.py", tmp_path / "my_space.py")
    (tmp_path / "emodb.toml").write_text(
        'spaces = ["two.py"]\nseeds = 1\nworkers = 1\n[corpus]\nreader = "manifest"\nroot = "cups.csv"\n'
        '[encoder]\nname = "bas-hubert-nano"\nlayers = [0, 3]\n[protocol]\nrule = "speaker:2"\n'
        "[settings]\nepochs = 2\nwidth = 8\nbudget = 4\ncommittee = 2\n",
        encoding="utf-8",
    )
    tone(tmp_path / "recording.wav", 0.3)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page.name for page in PAGES[1:] if blocks(page, "python")])
def test_an_example_runs(page: str, place: Path) -> None:
    made: dict[str, Any] = {}
    for block in blocks(ROOT / "docs" / page, "python"):
        exec(compile(block, page, "exec"), made)
    if page == "encoders.md":
        Path("my_encoder.py").write_text(block, encoding="utf-8")
        assert main(["check-encoder", "my_encoder.py:Spectrum"]) == 0
        assert main(["extract", "emodb.toml", "--encoder", "my_encoder.py", "--layers", "1"]) == 0
    if page == "spaces.md":
        for contract in CONTRACTS:
            made["test_my_space"](contract)


def test_the_example_of_the_readme_runs(place: Path) -> None:
    (extraction, _) = blocks(ROOT / "docs/python.md", "python")[0].split("results =")
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(extraction + block, "README.md", "exec"), {})


def test_a_protocol_by_hand_needs_what_the_page_says(place: Path) -> None:
    (shown,) = re.findall(r"needs only `(.*?)`", (ROOT / "docs/protocols.md").read_text(encoding="utf-8"))
    names = {"fit": ["s0", "s1", "s2"], "test": ["s3"]}
    for part, speakers in names.items():
        ids = [f"{speaker}{label}{take}" for speaker in speakers for label in "ab" for take in range(2)]
        shown = shown.replace(f'"{part}": [ids]', f'"{part}": {json.dumps(ids)}')
    Path("split.json").write_text(shown, encoding="utf-8")
    assert main(["protocol", "check", "split.json", "emodb.toml"]) == 0
    Path("split.json").write_text(shown.replace('"s3a0"', '"s0a0"'), encoding="utf-8")
    assert main(["protocol", "check", "split.json", "emodb.toml"]) == 2
