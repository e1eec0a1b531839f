"""A terminal shows names as they are."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bas.cli.main import main
from bas.report.table import rich_table
from bas.util.progress import bar
from bas.util.terminal import Terminal, printable

NAMES = {
    "crowd [v2].csv": "crowd [v2].csv",
    "[/x] [bold]a[/bold] [link=https://x]b[/link]": "[/x] [bold]a[/bold] [link=https://x]b[/link]",
    ":smile: :warning:": ":smile: :warning:",
    "a\x1b[2Jb": "a\\x1b[2Jb",
    "\x1b]8;;https://x\x1b\\z\x1b]8;;\x07": "\\x1b]8;;https://x\\x1b\\z\\x1b]8;;\\x07",
    "a\rb\x08\x9b31m\x00": "a\\rb\\x08\\x9b31m\\x00",
    "a\u202egnp.exe\u2028b": "a\\u202egnp.exe\\u2028b",
    "caf\udce9.wav": "caf\\udce9.wav",
    "中文 عربي 😀 e\u0301": "中文 عربي 😀 e\u0301",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_printed_as_it_is_by_every_way(name: str) -> None:
    ways = {
        "text": name,
        "assembled": Text.assemble((name, "bold")),
        "table": rich_table(name, [name], [[name]]),
        "grid": Table(name, title=name),
    }
    for way, what in ways.items():
        stream = StringIO()
        Terminal(file=stream, width=200).print(what)
        said = NAMES[name]
        if way in ("assembled", "table"):  # a Text drops these itself
            said = said.replace("\\r", "").replace("\\x07", "").replace("\\x08", "")
        assert said in stream.getvalue(), way
        assert not set(stream.getvalue()) & set(name) & set("\x1b\x07\x08\r\x00\x9b\u202e\u2028"), way


def test_a_users_console_shows_them_too_and_still_records() -> None:
    console = Console(file=StringIO(), record=True)
    Terminal.of(console).print("[/x] :smile:", style="bold")
    assert console.export_text() == "[/x] :smile:\n"
    terminal = Terminal(file=StringIO())
    assert Terminal.of(terminal) is terminal


def test_a_progress_bar_shows_them() -> None:
    stream = StringIO()
    with bar(Terminal(file=stream, force_terminal=True, width=80, legacy_windows=False), "[/epochs]") as progress:
        progress.update(progress.add_task("[/x] :smile:", total=2), completed=2)
    assert "[/x] :smile:" in stream.getvalue()


def test_lines_and_tabs_stay() -> None:
    assert printable("a\tb\nc") == "a\tb\nc"


@pytest.mark.parametrize(
    "words", [["corpus", "show", "--corpus", "\x1b[2J", "--root", "a"], ["\x1b]0;x\x07"], ["board", "--runs", "a\x1b"]]
)
def test_a_refusal_does_not_command_the_terminal(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "\\x1b" in error
    assert not set(error) & {"\x1b", "\x07"}
