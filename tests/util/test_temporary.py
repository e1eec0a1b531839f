"""Names of files that are being written, and the removal of those that killed processes left, on one host or more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from bas.util import hosts, temporary
from bas.util.files import replacing
from bas.util.hosts import machine, started
from bas.util.temporary import sweep, sweep_beside, temporary_of

GONE = 2**22 + 1  # above the largest number of a process
OTHER = "0123ab"


@pytest.fixture(autouse=True)
def _not_this_machine() -> None:
    assert machine() != OTHER


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("half")


def test_a_name_tells_machine_and_process(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.json") as path:
        assert path == temporary_of(tmp_path / "a.json")
        assert path.name == f"a.json.{machine()}-{os.getpid()}.tmp"
        path.write_text("x")
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    living = os.getppid()
    write(tmp_path, "jobs/step.4194305.tmp/model", f"table.md.{GONE}.tmp", f"x.{machine()}-{GONE}.tmp", "notes.tmp")
    write(tmp_path, f"jobs/a.json.{machine()}-{GONE}.tmp", f"jobs/b.json.{machine()}-{living}.tmp", "jobs/my.tmp")
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["jobs", "notes.tmp"]
    assert (tmp_path / "jobs/step.4194305.tmp").exists()
    sweep(tmp_path, beneath=True)
    assert sorted(os.listdir(tmp_path / "jobs")) == [f"b.json.{machine()}-{living}.tmp", "my.tmp"]


def test_what_another_host_may_be_writing_stays(tmp_path: Path) -> None:
    names = [f"a.json.{OTHER}-{GONE}.tmp", f"b.json.{OTHER}-1.tmp", f"jobs/c.{OTHER}-7.tmp"]
    write(tmp_path, *names)
    sweep(tmp_path, beneath=True)
    assert all((tmp_path / name).exists() for name in names)


def test_what_another_host_left_days_ago_is_swept_by_the_disks_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, folder = tmp_path / f"a.json.{OTHER}-1.tmp", tmp_path / f"model.{OTHER}-1.tmp"
    write(tmp_path, old.name, f"{folder.name}/weights", f"b.json.{OTHER}-1.tmp")
    before = time.time() - temporary.KEPT_SECONDS - 60
    for path in (old, folder):
        os.utime(path, (before, before))  # but not what lies in the folder
    monkeypatch.setattr(time, "time", lambda: 0.0)  # what this host takes the time to be does not matter
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"b.json.{OTHER}-1.tmp", folder.name]


def test_beside_a_file_only_what_was_left_of_it_is_swept(tmp_path: Path) -> None:
    kept = [f"split.json.{machine()}-{os.getppid()}.tmp", f"split.json.{OTHER}-9.tmp", "other.json.1.tmp"]
    kept += [f"split.json.x.{machine()}-{GONE}.tmp", "split.json", "split.json.mine.tmp"]
    write(tmp_path, f"split.json.{GONE}.tmp", f"split.json.{machine()}-{GONE}.tmp", *kept)
    sweep_beside(tmp_path / "split.json")
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_process_is_told_by_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert started(os.getpid()) == started(os.getpid()) is not None
    assert started(GONE) is None
    monkeypatch.setattr(hosts, "PROC", tmp_path)  # as where there is no /proc
    assert started(os.getpid()) == ""
    assert started(GONE) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "stat").write_text("7 (a ) b) S " + " ".join(map(str, range(4, 30))))
    assert started(7) == "22"
    (tmp_path / "7" / "stat").write_text("7 (a) Z " + " ".join(map(str, range(4, 30))))
    assert started(7) is None, "a process that has ended and was not waited for"
