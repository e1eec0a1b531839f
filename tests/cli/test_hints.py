"""What `bas` tells its user to type is a command of its own, not of make: whoever came by make has what make gives."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import bas

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
