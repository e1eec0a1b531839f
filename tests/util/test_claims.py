"""Claims: one process has a piece of work; who dies loses it; clocks of hosts and file locks play no part."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import PATIENCE

from bas.util import claims as module
from bas.util.claims import HEART, Claims, LostError, Owner, forget
from bas.util.hosts import machine

OTHER = "0123ab"


class Clock:
    """This process's own seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("bas.util.claims.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_held() -> Iterator[None]:
    yield
    HEART._held.clear()


def of_another_host(folder: Path, name: str, generation: int = 0, beat: int = 0, process: int = 1) -> Path:
    """A claim as a process of another host has made it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{generation}.claim"
    path.write_text(Owner("far", OTHER, process, "77").line(beat))
    return path


@pytest.fixture
def hectic() -> Iterator[None]:
    """Threads take turns a thousand times as often as they are used to."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_one_of_many_threads_has_a_claim_and_the_next_after_its_release(tmp_path: Path, hectic: None) -> None:
    for number, name in enumerate(["a job", "b[1]"] * 100):
        folder = tmp_path / str(number)
        folder.mkdir()
        won: list[module.Claim] = []
        start = threading.Barrier(8)

        def take(mine: Claims, name: str = name, won: list[module.Claim] = won, start: Any = start) -> None:
            start.wait()
            if claim := mine.take(name):
                won.append(claim)

        threads = [threading.Thread(target=take, args=(Claims(folder),)) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(won) == 1
        assert Claims(folder).take(name) is None
        HEART.release(won[0])
        assert os.listdir(folder / "claims") == []
        with Claims(folder).taking(name) as claim:
            assert claim


def test_a_process_of_this_machine_that_is_gone_is_seen_at_once(tmp_path: Path) -> None:
    script = "import os, sys; from pathlib import Path; from bas.util.claims import Claims; "
    script += "assert Claims(Path(sys.argv[1])).take('job'); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == 9
    mine = Claims(tmp_path)
    owner = mine.owner("job")
    assert owner
    assert owner.gone
    assert str(owner).startswith("process ")
    claim = mine.take("job")
    assert claim
    assert claim.generation == 1
    HEART.release(claim)
    assert os.listdir(tmp_path / "claims") == []


def test_a_claim_says_whose_it_is_from_its_first_moment_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def seen(temporary: Path, path: Path) -> None:
        assert Owner.of(temporary.read_text()) == Owner.here()
        assert not path.exists()
        link(temporary, path)

    monkeypatch.setattr(os, "link", seen)
    assert Claims(tmp_path).take("job")
    assert Claims(tmp_path).owner("job") == Owner.here()
    assert os.listdir(tmp_path / "claims") == ["job.0.claim"]


def test_a_link_that_was_made_and_is_said_to_be_there_is_this_process_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def asked_twice(temporary: Path, path: Path) -> None:
        link(temporary, path)
        link(temporary, path)

    monkeypatch.setattr(os, "link", asked_twice)
    assert Claims(tmp_path).take("job")
    assert Claims(tmp_path).take("job") is None


def test_where_there_are_no_links_a_claim_is_one_process_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr(os, "link", none)
    assert Claims(tmp_path).take("job")
    assert Claims(tmp_path).take("job") is None
    assert Claims(tmp_path).owner("job") == Owner.here()
    assert os.listdir(tmp_path / "claims") == ["job.0.claim"]


def test_a_number_given_anew_is_not_the_process(tmp_path: Path) -> None:
    living = Owner.here()
    assert not living.gone
    assert Owner(living.host, living.machine, living.process, "1").gone
    assert not Owner(living.host, living.machine, living.process, "-").gone, "not told: it may be the process"
    assert not Owner("far", OTHER, 2**22 + 1, "1").gone, "another machine's processes are not seen"


def test_a_host_that_is_silent_for_long_has_lost_by_the_clock_of_who_waits(tmp_path: Path, clock: Clock) -> None:
    path = of_another_host(tmp_path / "claims", "job")
    os.utime(path, (0, 0))  # what the disk or the other host takes the time to be says nothing
    mine = Claims(tmp_path)
    assert mine.take("job") is None
    clock.now += module.STALE_SECONDS - 1
    assert mine.take("job") is None
    of_another_host(tmp_path / "claims", "job", beat=1)
    clock.now += 2
    assert mine.take("job") is None, "it lives"
    clock.now += module.STALE_SECONDS - 1
    assert mine.take("job") is None
    clock.now += 2
    claim = mine.take("job")
    assert claim
    assert claim.generation == 1
    assert path.read_text().split()[-1] == f"{1:012}", "the file of another is left as it is"


def test_one_of_two_heirs_wins_and_a_younger_claim_counts_anew(tmp_path: Path, clock: Clock) -> None:
    of_another_host(tmp_path / "claims", "job")
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("job") is second.take("job") is None
    clock.now += module.STALE_SECONDS + 1
    of_another_host(tmp_path / "claims", "job", generation=1)  # another heir was faster
    assert first.take("job") is None
    clock.now += module.STALE_SECONDS - 1
    assert first.take("job") is None
    clock.now += 2
    assert first.take("job")
    assert second.take("job") is None


def test_who_was_only_slow_finds_that_it_has_lost_and_leaves_the_claims_of_its_heir(tmp_path: Path) -> None:
    claim = Claims(tmp_path).take("job")
    assert claim
    HEART.check()
    of_another_host(tmp_path / "claims", "job", generation=1)
    claim.beat()
    assert claim.lost
    with pytest.raises(LostError, match="job"):
        HEART.check()
    HEART.release(claim)
    assert len(os.listdir(tmp_path / "claims")) == 2
    HEART.check()


def test_the_heart_beats_for_all_that_are_held_and_rests_when_none_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(module, "HEART", heart := module.Heart())
    mine = Claims(tmp_path)
    held = [claim for name in ("a", "b") if (claim := mine.take(name))]
    end = time.monotonic() + PATIENCE
    while (
        not all(int(path.read_text().split()[-1]) > 3 for path in (tmp_path / "claims").iterdir())
        and time.monotonic() < end
    ):
        time.sleep(0.01)
    assert {int(path.read_text().split()[-1]) > 3 for path in (tmp_path / "claims").iterdir()} == {True}
    for claim in held:
        heart.release(claim)
    while heart._thread is not None and time.monotonic() < end:
        time.sleep(0.01)
    assert heart._thread is None
    assert mine.take("c")
    assert heart._thread is not None
    heart._held.clear()


def test_claims_on_what_is_not_done_are_kept(tmp_path: Path) -> None:
    for folder, name in ((tmp_path, "done.json"), (tmp_path / "variants/a", "done.json"), (tmp_path, "open")):
        folder.mkdir(parents=True, exist_ok=True)
        of_another_host(folder / "claims", name, generation=2)
    forget(tmp_path, lambda folder, name: name == "done.json")
    assert os.listdir(tmp_path / "claims") == ["open.2.claim"]
    assert not (tmp_path / "variants/a/claims").exists()
    forget(tmp_path, lambda folder, name: folder == tmp_path and name == "open")
    assert not (tmp_path / "claims").exists()


def test_a_claim_that_is_only_begun_is_waited_for(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims/job.0.claim").write_text("")
    mine = Claims(tmp_path)
    assert mine.take("job") is None
    assert mine.owner("job") is None
    assert mine.owner("other") is None
    clock.now += module.STALE_SECONDS + 1
    assert mine.take("job")
    of_another_host(tmp_path / "claims", "near", process=os.getpid())
    assert machine() != OTHER
    assert mine.take("near") is None
