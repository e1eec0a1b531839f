"""Writes docs/reference/ from the code: keys and settings, the command line, what is refused, the public face."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bas.cli.main import parser
from bas.experiment import KEYS
from bas.util.values import describe

DOCS = Path(__file__).resolve().parents[1]
PACKAGE = DOCS.parent / "bas"
PUBLIC = ("bas.api", "bas.space", "bas.blocks", "bas.tasks", "bas.report.results", "bas.testing", "bas.errors")
REFUSALS = ("UserError", "Diverged")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", lambda app: write())
    app.connect("autodoc-process-docstring", plain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def plain(app: Any, what: str, name: str, of: object, options: object, lines: list[str]) -> None:
    """Our docstrings are plain text with `names`: to reStructuredText, each argument as a paragraph."""
    text: list[str] = []
    for line in lines:
        if re.match(r"\w+(, \w+)*: ", line):
            text.append("")
        line = line.strip().replace("*", "\\*").replace("|", "\\|")
        text.append(re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line))
    lines[:] = text


def write() -> None:
    """All pages; one that is as it was is not touched, so that Sphinx does not read it again."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    pages = {"keys": keys(), "commands": commands(parser()), "refusals": refusals(), "api": api()}
    for name, lines in pages.items():
        path, text = folder / f"{name}.md", "\n".join(lines) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def keys() -> Iterator[str]:
    """Every key of an experiment, table by table."""
    yield "# Keys of an experiment"
    yield ""
    yield "Made from `bas/experiment/keys.py`. In a file a key stands in the table that its name begins with."
    yield "`--set` takes the whole name, and a setting of the verb's own by its last part."
    table = None
    for name, key in KEYS.items():
        of = name.rpartition(".")[0]
        if of != table:
            table = of
            yield from ("", f"## {f'[{of}]' if of else 'At the top'}", "")
            yield from ("| key | kind | default | meaning | read by |", "| --- | --- | --- | --- | --- |")
        default = "" if key.default in (None, ()) else f"`{_toml(key.default)}`"
        verbs = ", ".join(key.verbs)
        yield f"| `{name.rpartition('.')[2]}` | {_cell(describe(key.kind))} | {default} | {_cell(key.help)} | {verbs} |"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def commands(whole: argparse.ArgumentParser, level: int = 1) -> Iterator[str]:
    """The help of every verb, as the console shows it."""
    if level == 1:
        yield from ("# The command line", "", "Made from the parser.")
    yield from ("", f"{'#' * max(2, level)} {whole.prog}", "", "```text", whole.format_help().rstrip(), "```")
    for action in whole._actions:  # argparse has no other way to its subparsers
        if isinstance(action, argparse._SubParsersAction):
            for child in dict.fromkeys(action.choices.values()):
                yield from commands(child, level + 1)


def refusals() -> Iterator[str]:
    """Every message of an error of the user's, room by room; what stands in braces depends on the input."""
    yield from (
        "# Refusals in the code",
        "",
        "The messages that the code spells out. The tests run those in [Refusals](../refusals.md).",
    )
    for room in sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}):
        paths = sorted((PACKAGE / room).rglob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / room]
        messages = list(dict.fromkeys(message for path in paths for message in _messages(path)))
        if messages:
            yield from ("", f"## `{room}`", "")
            yield from (f"- `` {message} ``" for message in messages)


def _messages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name = node.exc.func
            if isinstance(name, ast.Name) and name.id in REFUSALS:
                text = _template(node.exc.args[0])
                if re.search(r"[a-z]{3}", re.sub(r"\{.*?\}", "", text)):
                    yield " ".join(text.split())


def _template(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return _template(node.left) + _template(node.right)
    value = node.value if isinstance(node, ast.FormattedValue) else node
    names = [node for node in ast.walk(value) if isinstance(node, ast.Attribute | ast.Name)]
    if not names:
        return "{…}"
    first = names[0]
    return f"{{{first.attr if isinstance(first, ast.Attribute) else first.id}}}"


def api() -> Iterator[str]:
    """The public face, from docstrings."""
    yield from ("# Python reference", "", "Made from docstrings.")
    for module in PUBLIC:
        yield from ("", f"## `{module}`", "", "```{eval-rst}", f".. automodule:: {module}", "   :members:", "```")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
