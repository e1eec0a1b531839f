"""Bad input: every row of the table in docs/refusals.md, through the command line, with nothing written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import bad_input
import pytest
import torch
from bad_input import CASES, CHECKPOINT, EXTRACT, MORE, OLD, SPLIT, Case
from places import ROOT

import bas.runs.tensorboard
import bas.training.loop
from bas.cli.main import main

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/refusals.md").read_text(encoding="utf-8")


def table() -> dict[str, dict[str, str]]:
    """By group and mistake, what the page says that `bas` says."""
    groups: dict[str, dict[str, str]] = {}
    rows: dict[str, str] = {}
    for wrong, message in re.findall(r"^\| (.+?) \| (.*?) ?\|$", PAGE, re.MULTILINE)[2:]:
        if message:
            rows[wrong] = re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", message)
        else:
            rows = groups.setdefault(wrong.strip("*"), {})
    return groups


def tree(folder: Path) -> dict[str, bytes | str]:
    """Everything beneath the folder by name, hidden files too."""
    files: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            files[str(path.relative_to(folder))] = f"-> {os.readlink(path)}"
        elif path.is_file():
            files[str(path.relative_to(folder))] = path.read_bytes()
        else:
            files[str(path.relative_to(folder))] = "folder" if path.is_dir() else "neither"
    return files


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, hubert: Path) -> Path:
    """A corpus, its features, a split, a run that was interrupted in its last search, a model; beside it a copy."""
    folder = tmp_path_factory.mktemp("bad") / "work"
    folder.mkdir()
    shown = []
    show = bas.runs.tensorboard.search_epoch

    def interrupted(*arguments: Any) -> None:
        shown.append(arguments)
        if len(shown) == 6:  # of three folds and two epochs
            raise KeyboardInterrupt
        show(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("bas.runs.start._commit", lambda: None)
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setattr(bas.training.loop, "CHECKPOINT_SECONDS", 0.0)
        patch.setattr(bas.runs.tensorboard, "search_epoch", interrupted)
        bad_input.good()
        shutil.copytree(hubert, "encoder")
        assert main(f"{EXTRACT} log-mel".split()) == 0
        assert main(f"{SPLIT} speaker:3 --to split.json".split()) == 0
        assert main(OLD.split()) == 130
        assert Path(CHECKPOINT).exists()
    shutil.copytree(folder, folder.with_name("good"))
    return folder


@pytest.fixture
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.rmtree(work)
    shutil.copytree(work.with_name("good"), work)
    monkeypatch.chdir(work)
    monkeypatch.setattr("bas.runs.start._commit", lambda: None)  # others may commit meanwhile
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    return work


def refused(case: Case, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command ends with, without its "bas: "; the folder stays as it was."""
    held = case.prepare()
    before = tree(folder)
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as warned:  # they would be lines, too
        assert main(case.words) == 2
    del held
    message = capsys.readouterr().err.replace(f"{folder}/", "")
    assert [w for w in warned if issubclass(w.category, UserWarning)] == []
    assert re.fullmatch(r"bas: .+\n", message), message
    assert tree(folder) == before
    return message.removeprefix("bas: ").strip()


def test_the_table_has_a_row_for_every_case() -> None:
    assert {group: list(rows) for group, rows in table().items()} == {g: list(cases) for g, cases in CASES.items()}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, cases in CASES.items() for name in cases])
def test_the_line_is_that_of_the_table(group: str, name: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(CASES[group][name], inside, capsys)
    expected = table()[group][name]
    assert re.fullmatch(".+".join(map(re.escape, expected.split("…"))), message), message


@pytest.mark.parametrize("name", MORE)
def test_whatever_else_is_one_line_too(name: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case, parts = MORE[name]
    message = refused(case, inside, capsys)
    assert [part for part in parts if part not in message] == [], message


def test_the_good_folder_is_good(inside: Path) -> None:
    """Else a refusal would prove nothing; and the interrupted search goes on from its checkpoint."""
    assert main(OLD.split()) == 0
    assert main(f"{EXTRACT} log-mel".split()) == 0
    assert main(f"{EXTRACT} ./encoder --features new".split()) == 0


def test_a_checkpoint_of_another_job(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(CHECKPOINT, weights_only=True)
    torch.save(state | {"model": {name: x[..., :1] for name, x in state["model"].items()}}, CHECKPOINT)
    assert main(OLD.split()) == 2
    message = f"{CHECKPOINT}: damaged, or not of this job; delete it: the job starts over"
    assert capsys.readouterr().err == f"bas: {message}\n"


def test_a_trap_is_one(inside: Path) -> None:
    bad_input.trap("trap.pt")
    torch.load("trap.pt", weights_only=False)
    assert Path("executed").is_dir()


@pytest.mark.parametrize(
    "command",
    [
        f"{EXTRACT} log-mel --features new",
        OLD.replace("old", "new"),
        bad_input.AUDIT,
        bad_input.TUNE,
        bad_input.PROBE,
        f"protocol cost --features {bad_input.STORE} {bad_input.PLAIN} --name new",
        f"words --features {bad_input.STORE} --text-encoder random --name new",
        f"{bad_input.DYNAMICS} ./encoder",
        f"features subset {bad_input.STORE} --into new --layers 0",
        f"features derive {bad_input.STORE} --pooling mean --into new",
        "demo",
    ],
)
def test_a_disk_without_locks_is_told_and_nothing_is_left(
    command: str, inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(stream: Any, how: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    message = refused(Case(command), inside, capsys)
    assert "its disk has no file locks (Function not implemented); work in a folder on another disk, or have" in message
