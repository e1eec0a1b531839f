"""What `bas` tells its user to type is a command of its own, not of make: whoever came by make has what make gives."""

from __future__ import annotations

import ast
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import bas
from bas.cli.options import tell_next

FILES = sorted(Path(bas.__file__).parent.rglob("*.py"))


def texts(tree: ast.AST) -> list[str]:
    """Every text of a module but those that stand by themselves, as docstrings do."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone]
    return [node.value for node in found if isinstance(node.value, str)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FILES[0].parent)))
def test_no_message_names_make(path: Path) -> None:
    said = [text for text in texts(ast.parse(path.read_text(encoding="utf-8"))) if "`make " in text]
    assert said == []


def test_the_next_command_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin/bas"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    written = StringIO()
    output = Console(file=written)
    for path, given in (("/nowhere", str(program)), (str(program.parent), str(program)), ("/nowhere", "__main__.py")):
        monkeypatch.setenv("PATH", path)
        monkeypatch.setattr("sys.argv", [given])
        tell_next(output, ["board", "a b"])
    assert written.getvalue().splitlines() == [f"next: {program} board 'a b'", *["next: bas board 'a b'"] * 2]
