"""What the README shows is what the repository holds."""

from __future__ import annotations

import re

import pytest
from places import ROOT

from bas.cli.main import parser
from bas.training.settings import PRESETS

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_example_is_the_shipped_file() -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", README.partition("## A block and a task")[2], re.DOTALL)
    assert shown == (ROOT / "search_spaces/speaker_id.py").read_text(encoding="utf-8")
    assert len(shown.splitlines()) < 30


def test_every_link_and_room_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for room in re.findall(r"`(\w+\.py|(?:\w+/)+)`", README.partition("## The house")[2]):
        assert room in ("bas/", "runs/") or (ROOT / "bas" / room).exists(), room


def test_every_room_is_in_the_readme() -> None:
    house = README.partition("## The house")[2]
    for path in (ROOT / "bas").iterdir():
        if not path.name.startswith("__"):
            assert f"`{path.name}{'/' * path.is_dir()}`" in house, path.name


def test_every_verb_has_a_target() -> None:
    verbs = re.findall(r"^    (\w+) ", parser().format_help(), re.MULTILINE)
    assert len(verbs) > 10
    for verb in verbs:
        assert re.search(rf"^{verb}:", MAKEFILE, re.MULTILINE), verb


@pytest.mark.parametrize(
    ("report", "rows"),
    [
        *[("emodb-whisper-tiny-en.md", 5), ("emodb-leak.md", 4), ("emodb-audit.md", 7), ("emodb-probe.md", 9)],
        *[("emodb-words.md", 1), ("emodb-shares.md", 5), ("nano.md", 4)],
    ],
)
def test_the_tables_in_the_readme_are_of_the_committed_reports(report: str, rows: int) -> None:
    lines = (ROOT / "benchmarks" / report).read_text(encoding="utf-8").splitlines()
    shown = [line for line in README.splitlines() if line.startswith("| ") and " ± " in line]
    assert len([line for line in shown if line in lines]) == rows
    assert len(shown) == 35


def test_the_preset_in_the_readme() -> None:
    assert PRESETS["cpu"].width == 128
    assert "width 128" in README
