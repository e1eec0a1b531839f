"""The reference that the documentation's extension writes from the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from places import ROOT

from bas.experiment import KEYS


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    pytest.importorskip("sphinx")
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/_ext/reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_key_has_a_row_under_its_table_that_says_what_it_means(reference: ModuleType) -> None:
    rows, table = {}, ""
    for line in reference.keys_page():
        if line.startswith("## "):
            table = "" if line == "## At the top" else f"{line[4:-1]}."
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in line.replace("\\|", "/").strip("| ").split(" | ")]
            rows[table + cells[0].strip("`")] = cells
    for name in KEYS:
        assert rows[name][-2], name
    assert rows["settings.lr"][2:4] == ["`0.005`", "`0.001`"]  # paper, cpu
    assert rows["protocol.rule"][3] == "`--protocol`"


def test_each_verb_shows_its_help_once(reference: ModuleType) -> None:
    lines = list(reference.commands_page())
    titles = [line.strip("# ") for line in lines if line.startswith("##")]
    assert len(titles) == len(set(titles)) > 25
    assert {"`bas`", "`bas compare`", "`bas protocol check`", "`bas features derive`", "`bas check-space`"} <= set(
        titles
    )
    usages = [line.split()[1:] for line in "\n".join(lines).splitlines() if line.startswith("usage: ")]
    assert len(usages) == len(titles)


def test_a_refusal_is_shown_with_names_for_what_is_filled_in(reference: ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text(
        """
REMEDY = "make it again"

def check(path, error, missing, few):
    counted = f"{len(missing)} are gone" if few else "all are gone"
    if few:
        raise UserError(f"{path}: {counted}; {REMEDY}")
    raise ValueError("of our own")

def refusal(error, lr):
    if lr:
        raise Diverged("diverged: " + f"lower lr={lr:.3f}") from None
    return UserError(f"{error.strerror}: {', '.join(sorted(NAMES))!r} are {type(error).__name__}")
"""
    )
    assert list(reference.messages_of(source)) == [
        "{path}: {{missing} are gone|all are gone}; make it again",
        "diverged: lower lr={lr}",
        "{strerror}: {NAMES} are {error}",
    ]


def test_each_refusal_of_the_package_is_read(reference: ModuleType) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "bas").rglob("*.py"))
    calls = text.count("raise UserError(") + text.count("raise Diverged(")
    messages = [message for path in (ROOT / "bas").rglob("*.py") for message in reference.messages_of(path)]
    assert len(messages) >= calls > 400
    shown = set(reference.refusals_page())
    assert "- `` training diverged in its last step; lower the setting lr={lr} ``" in shown
