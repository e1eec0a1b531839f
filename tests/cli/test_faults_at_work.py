"""A disk that is full, workers that are ended, what goes away: each verb says so in one line, and goes on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.popen_spawn_posix import Popen
from pathlib import Path
from typing import Any

import bad_input
import pytest
from bad_input import EXTRACT, STORE
from places import PATIENCE

from bas.cli.main import main

pytestmark = pytest.mark.slow

SMALL = f"--features {STORE} {bad_input.PLAIN} --set strategy=gumbel"
VERBS = {
    "search": f"search {SMALL} --protocol speaker:3",
    "compare": f"compare {SMALL} --protocol speaker:3",
    "audit": f"audit --features {STORE} {bad_input.PLAIN} --protocol speaker:3 --strategy gumbel",
    "tune": f"tune {SMALL} --protocol speaker:3 --trials 2",
    "cost": f"protocol cost --features {STORE} {bad_input.PLAIN} --clean speaker:3 --leaky id:3",
    "probe": f"probe --features {STORE} --space mine.py --set epochs=2 --seeds 1 --workers 1 --protocol speaker:3",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "work"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bad_input.good()
        assert main(f"{EXTRACT} log-mel --layers 0".split()) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of standard error."""
    line = capsys.readouterr().err
    assert re.fullmatch(r"bas: .+\n", line), line
    return line


@pytest.mark.parametrize("verb", VERBS)
def test_a_disk_that_fills(
    verb: str, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After one file, then nine, then five: what was written stays, and all ends well once there is room."""
    command, fsync, left = [*VERBS[verb].split(), "--name", "new"], os.fsync, [0]

    def until_full(number: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    kept: set[Path] = set()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", until_full)
        for room in (1, 9, 5):
            left[0] = room
            code = main(command)
            jobs = set(work.glob("runs/new/**/jobs/*.json"))
            assert kept <= jobs
            assert not list(work.rglob("*.tmp"))
            kept = jobs
            if code == 0:
                capsys.readouterr()
                break
            line = said(capsys)
            assert re.search(r"bas: runs/new/\S+: its disk is full; free some of it and give the same command", line)
    assert main(command) == 0


@pytest.mark.parametrize(
    ("number", "parts"),
    [
        (
            signal.SIGKILL,
            ["a worker was killed (SIGKILL), as the system does where memory is short", "fewer --workers"],
        ),
        (signal.SIGBUS, ["a worker ended by SIGBUS: a file that it read was cut off", "bas features verify"]),
        (signal.SIGSEGV, ["a worker ended by SIGSEGV"]),
    ],
)
def test_what_ended_a_worker(
    number: signal.Signals,
    parts: list[str],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended: list[int] = []
    children: Callable[[], list[Any]] = multiprocessing.active_children

    def and_end_one() -> list[Any]:
        processes = children()
        os.kill(processes[0].pid, number)
        ended.append(processes[0].pid)
        return processes

    poll: Callable[..., int | None] = Popen.poll

    def reaped_by_the_pool(process: Popen, flag: int = os.WNOHANG) -> int | None:
        """Its thread takes the exit code, and says it only later; until then `waitpid` tells others nothing."""
        if process.returncode is None and threading.current_thread() is not threading.main_thread():
            code = poll(process, flag)
            process.returncode = None
            time.sleep(0.5)
            process.returncode = code
        return process.returncode

    monkeypatch.setattr(multiprocessing, "active_children", and_end_one)
    monkeypatch.setattr(Popen, "poll", reaped_by_the_pool)
    assert main([*VERBS["search"].replace("--workers 1", "--workers 2").split(), "--name", "new"]) == 2
    line = said(capsys)
    assert ended
    assert [part for part in [*parts, "the same command goes on from here"] if part not in line] == [], line


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENOENT, errno.EACCES])
def test_shared_memory_is_named(
    number: int, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refused)
    command = [*VERBS["search"].split(), "--name", "new"]
    assert main([*command, "--workers", "2"]) == 2
    assert f"bas: /dev/shm: processes share it and cannot ({os.strerror(number)}); mount or" in said(capsys)
    assert main([*command, "--workers", "1"]) == 0


@pytest.mark.parametrize("what", ["the run", "the store"])
@pytest.mark.parametrize("workers", [1, 2])
def test_what_goes_away_while_a_verb_works(
    what: str, workers: int, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("runs/new" if what == "the run" else STORE)
    command = [*VERBS["search"].split(), "--name", "new", "--workers", str(workers)]
    command[command.index("epochs=2")] = "epochs=60"
    process = subprocess.Popen(
        [sys.executable, "-m", "bas", *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    end = time.monotonic() + PATIENCE
    while not list(Path("runs/new/jobs").glob("*.json")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    path.rename("elsewhere")
    _, errors = process.communicate(timeout=PATIENCE)
    if what == "the run":
        assert errors == (
            "bas: runs/new: was moved, deleted or replaced during the work in it; put it back and give the same "
            "command again, or begin anew under another name\n"
        )
        assert process.returncode == 2
        shutil.rmtree(path, ignore_errors=True)  # what was written meanwhile
    elif process.returncode:  # all had been read
        assert re.fullmatch(rf"bas: \S*{STORE}\S*: .*(not there|no feature store here).*\n", errors), errors
    Path("elsewhere").rename(path)
    assert main(command) == 0
