"""Writes docs/reference/ from the code: keys and settings, the command line, what is refused, the public face."""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from docutils import nodes
from sphinx import addnodes

from bas.cli.main import parser
from bas.experiment import KEYS
from bas.experiment.keys import SEEDS, SPACES
from bas.training import settings, tuning
from bas.util.values import describe

DOCS = Path(__file__).resolve().parents[1]
PACKAGE = DOCS.parent / "bas"
PUBLIC = ("bas.api", "bas.space", "bas.blocks", "bas.tasks", "bas.report.results", "bas.testing", "bas.errors")
REFUSALS = ("UserError", "Diverged")
PRESETS: Mapping[str, tuple[type, Mapping[str, Any]]] = {
    "settings": (settings.Settings, settings.PRESETS),
    "dynamics.settings": (tuning.Tuning, tuning.PRESETS),
}
"""By table of settings, the class that has them, and its presets."""

BAR = "\\|"  # in a cell
VERBS = {"import": "features import", "cost": "protocol cost", "protocol": "protocol make", "check": "protocol check"}
"""As they are typed, where that is more than the name that a key has for them."""


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", lambda app: write())
    app.connect("autodoc-process-docstring", plain)
    app.connect("doctree-read", link_files, priority=400)  # before downloads are collected
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


def link_files(app: Any, doctree: nodes.document) -> None:
    """A Markdown file of the repository that is no page of this site is a download, as every other file is.

    What leads nowhere is left, for Sphinx to warn of.
    """
    for node in list(doctree.findall(addnodes.pending_xref)):
        target = node["reftarget"] + (".md" if node.get("refdomain") == "doc" else "")
        source = next((one.source for one in (node, node.parent, node.parent.parent) if one.source), "")
        path = (Path(source).parent / target).resolve()
        if path.is_file() and not path.is_relative_to(DOCS):
            relative = f"/{os.path.relpath(path, DOCS)}"
            reference = addnodes.download_reference("", *node.children, reftarget=relative, refdoc=app.env.docname)
            node.replace_self(reference)


def write() -> None:
    """All pages; one that is as it was is not touched, so that Sphinx does not read it again."""
    folder = DOCS / "reference"
    folder.mkdir(exist_ok=True)
    pages = {"keys": keys_page(), "commands": commands_page(), "refusals": refusals_page(), "api": api_page()}
    for name, lines in pages.items():
        path, text = folder / f"{name}.md", "\n".join(lines) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def keys_page() -> Iterator[str]:
    """Every key of an experiment, table by table."""
    yield "# Keys of an experiment"
    yield ""
    yield "In a file a key stands in the table that its name begins with. `--set` takes the whole name, such as"
    yield "`protocol.rule=speaker:5`, and a setting of the verb's own by its last part: `epochs=30`."
    table = None
    for name, key in KEYS.items():
        of, _, last = name.rpartition(".")
        cls, presets = PRESETS.get(of, (None, {}))
        if of != table:
            table, meanings = of, _comments(cls) if cls else {}
            yield from ("", f"## {f'[{of}]' if of else 'At the top'}", "")
            columns = (*presets, "meaning") if presets else ("default", "flag", "meaning")
            yield from _table("key", "kind", *columns, "read by")
        verbs = ", ".join(VERBS.get(verb, verb) for verb in key.verbs)
        if presets:
            values = [_toml(getattr(preset, last)) or "`none`" for preset in presets.values()]
            yield _row(f"`{last}`", describe(key.kind), *values, meanings[last], verbs)
        else:
            flag = f"`{key.flag}`" if key.flag else ""
            yield _row(f"`{last}`", describe(key.kind), _toml(key.default), flag, key.help, verbs)
    yield from ("", "## What a verb takes unless it is given", "")
    yield from _table("verb", "seeds", "spaces")
    for verb in dict.fromkeys((*SEEDS, *SPACES)):
        spaces = ", ".join(f"`{space}`" for space in SPACES.get(verb, ()))
        yield _row(f"`{VERBS.get(verb, verb)}`", str(SEEDS.get(verb, "")), spaces)


def _comments(cls: type) -> dict[str, str]:
    """What the comments behind each field of a class say."""
    source = textwrap.dedent(inspect.getsource(cls))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    meanings = {}
    for node, following in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, following.lineno)
            meanings[node.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return meanings


def _toml(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _table(*columns: str) -> Iterator[str]:
    yield from (_row(*columns), _row(*["---"] * len(columns)))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def commands_page() -> Iterator[str]:
    """The help of every verb, as the console shows it."""
    yield "# The command line"
    yield from _command()


def _command(*words: str) -> Iterator[str]:
    text = io.StringIO()
    # Where argparse breaks lines; restored, because later tables of the same process would be wider too.
    with patch.dict(os.environ, COLUMNS="100"), redirect_stdout(text), suppress(SystemExit):
        parser().parse_args([*words, "--help"])
    yield from ("", f"{'#' * max(2, len(words) + 1)} `{' '.join(('bas', *words))}`", "")
    yield from ("```text", text.getvalue().rstrip(), "```")
    for verb in re.findall(r"^    ([a-z][a-z-]*)(?:  |$)", text.getvalue(), re.MULTILINE):
        yield from _command(*words, verb)


def refusals_page() -> Iterator[str]:
    """Every message of an error of the user's, room by room; what stands in braces depends on the input."""
    yield "# Refusals in the code"
    yield ""
    yield "The messages that the code spells out; what stands in braces depends on the input."
    yield "The tests run those in [Refusals](../refusals.md)."
    for room in sorted({path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}):
        paths = sorted((PACKAGE / room).rglob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / room]
        messages = list(dict.fromkeys(message for path in paths for message in messages_of(path)))
        messages = [message for message in messages if re.search("[a-z]{3}", re.sub(r"{.*?}", "", message))]
        if messages:
            yield from ("", f"## `{room}`", "")
            yield from (f"- `` {message} ``" for message in messages)


def messages_of(path: Path) -> Iterator[str]:
    """The message of every refusal that a file raises, once for each place."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    outside = _texts(tree.body)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSALS:
            around = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)]
            inside = _texts([inner for one in around for inner in ast.walk(one)])
            yield " ".join(_template(node.args[0], outside | inside).split())


def _texts(statements: list[Any]) -> dict[str, ast.expr]:
    """The names that are given one text, in one place."""
    given: dict[str, list[ast.expr]] = {}
    for node in statements:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given.setdefault(node.targets[0].id, []).append(node.value)
    texts = {name: values[0] for name, values in given.items() if len(values) == 1}
    return {name: value for name, value in texts.items() if _is_text(value)}


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) and _is_text(node.orelse)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _template(node: ast.expr, texts: Mapping[str, ast.expr]) -> str:
    """A message with a name in braces for what is filled in; one choice or the other has a bar between them."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(_template(part, texts) for part in node.values)
        case ast.FormattedValue():
            return _template(node.value, texts)
        case ast.BinOp(op=ast.Add()):
            return _template(node.left, texts) + _template(node.right, texts)
        case ast.IfExp() if _is_text(node):
            return f"{{{_template(node.body, texts)}|{_template(node.orelse, texts)}}}"
        case ast.Name() if node.id in texts:
            return _template(texts[node.id], {name: text for name, text in texts.items() if name != node.id})
    return f"{{{_name(node)}}}"


def _name(node: ast.AST) -> str:
    """What a value is called: that of `len(missing)` is missing, that of `error.strerror` strerror."""
    match node:
        case ast.Name():
            return node.id.strip("_")
        case ast.Attribute() if not node.attr.startswith("_"):
            return node.attr
        case ast.Call() if node.args:
            return _name(node.args[0])
    return next((name for child in ast.iter_child_nodes(node) if (name := _name(child)) != "…"), "…")


def api_page() -> Iterator[str]:
    """The public face, from docstrings."""
    yield "# Python reference"
    for module in PUBLIC:
        yield from ("", f"## `{module}`", "", "```{eval-rst}", f".. automodule:: {module}", "   :members:", "```")
