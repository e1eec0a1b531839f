"""What is opened when a user names a file: regular files alone, one line at a time, no more than such a file holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refusal

from bas.cli.main import main
from bas.util import reading
from bas.util.reading import check_own, check_regular, open_regular, read_bytes, read_lines, read_text


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


KINDS: dict[str, Callable[[Path], None]] = {
    "a pipe": make_pipe,
    "a socket": make_socket,
    "a device": make_device,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "read", [check_regular, open_regular, read_bytes, read_text, lambda path: list(read_lines(path))]
)
def test_what_is_no_file_is_not_opened(kind: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    KINDS[kind](tmp_path / "x")
    message = refusal(read, tmp_path / "x")
    assert message == f"{tmp_path / 'x'}: {kind}, not a file; save its content as a file and name that"


COMMANDS = {
    "m.csv": "corpus show --corpus manifest --root m.csv",
    "m.jsonl": "corpus show --corpus manifest --root m.jsonl",
    "db/db.yaml": "corpus show --corpus audformat --root db",
    "notes/a.TextGrid": "corpus show --corpus manifest --root words.csv",
    "notes/b.ctm": "corpus show --corpus manifest --root ctm.csv",
    "a.wav": "corpus show --corpus manifest --root audio.csv",
    "split.json": "protocol check split.json --corpus manifest --root good.csv",
    "e.toml": "extract e.toml",
    "fold_1/x_train_fold_1.jsonl": "protocol make --corpus manifest --root good.csv --protocol emobox:.",
    "store/store.json": "features info store",
    "ravdess/03-01-03-01-01-01-01.wav": "corpus show --corpus ravdess --root ravdess",
    "encoder/config.json": "extract --corpus manifest --root good.csv --encoder ./encoder",
}


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a socket"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_verb_waits_for_a_file_that_is_none(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for row in ("good", "words", "ctm", "audio"):
        words = {"words": "notes/a.TextGrid", "ctm": "notes/b.ctm"}.get(row, "")
        audio = "a.wav" if row == "audio" else "good.wav"
        Path(f"{row}.csv").write_text(f"id,audio,label,speaker,words\nx,{audio},joy,s,{words}\n")
    Path("good.wav").touch()
    Path(name).parent.mkdir(exist_ok=True)
    KINDS[kind](Path(name).absolute())
    assert main(COMMANDS[name].split()) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert name in told
    assert kind.removeprefix("a ") in told or "regular file" in told or "neither a file nor a folder" in told


def test_a_text_is_read_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes("ä\r\nb\n\nc".encode(encoding))
        assert list(read_lines(path, utf16=True)) == [(1, "ä\r\n"), (2, "b\n"), (3, "\n"), (4, "c")]
    assert "UTF-16; save" in refusal(lambda: list(read_lines(path)))
    path.write_bytes(b"a\n\xff\n")
    assert "line 2: not UTF-8" in refusal(lambda: list(read_lines(path)))
    path.write_bytes(b"\xff\xfea")
    assert "not UTF-16" in refusal(lambda: list(read_lines(path, utf16=True)))
    monkeypatch.setattr(reading, "LONGEST_LINE", 10)
    for encoding in ("utf-8", "utf-16"):
        path.write_bytes(("a\n" + "b" * 30).encode(encoding))
        assert "line 2: more than " in refusal(lambda: list(read_lines(path, utf16=True)))


def test_no_more_is_read_than_such_a_file_may_have(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x" * 2**21)
    assert read_bytes(tmp_path / "x", 2**21) == b"x" * 2**21
    assert "2 MiB, more than the 1 MiB" in refusal(read_bytes, tmp_path / "x", 2**20)


@pytest.mark.parametrize("kind", ["a pipe", "a link", "a socket"])
def test_a_folder_of_ours_holds_its_own_files(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/file").touch()
    check_own(folder, "move it away")
    path = folder / "a/b/x"
    path.symlink_to(tmp_path) if kind == "a link" else KINDS[kind](path)
    assert refusal(check_own, folder, "move it").startswith(f"{path}: {kind}, where a file")
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "other")
    (tmp_path / "other").mkdir()
    check_own(linked, "move it away")  # the folder itself may lie on another disk
