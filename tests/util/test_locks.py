"""A folder from elsewhere leads no lock, journal or temporary file into another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from extracting import Fake
from extracting import extract as extract_quietly

from bas.corpora import Corpus
from bas.errors import UserError
from bas.util.files import alone, locked, open_own, replacing, write_text
from bas.util.temporary import temporary_of

MINE = "years of work\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.txt"
    path.write_text(MINE)
    return path


def lock(folder: Path, name: str) -> None:
    with locked(folder, "at work"):
        pass


def plan(folder: Path, name: str) -> None:
    with alone(folder / name):
        pass


def append(folder: Path, name: str) -> None:
    with open_own(folder / name, "a+b", buffering=0) as stream:
        stream.write(b"x")


WAYS = {".lock": lock, ".planning": plan, ".session": append, "shard-00000.journal": append}
LINKS: dict[str, Callable[[Path, Path], None]] = {
    "a link": lambda link, mine: link.symlink_to(mine),
    "a relative link": lambda link, mine: link.symlink_to(Path("..") / mine.name),
    "a link to a link": lambda link, mine: (link.with_name("on").symlink_to(mine), link.symlink_to("on"))[1],
    "a link that leads nowhere": lambda link, mine: link.symlink_to(mine.with_name("new.txt")),
    "a link to itself": lambda link, mine: link.symlink_to(link.name),
    "a link to a device": lambda link, mine: link.symlink_to("/dev/null"),
    "a pipe": lambda link, mine: os.mkfifo(link),
}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("name", WAYS)
def test_a_link_is_refused_and_nothing_is_emptied(tmp_path: Path, mine: Path, name: str, link: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    LINKS[link](folder / name, mine)
    with pytest.raises(UserError, match=rf"/run/{name}: (a link|no ordinary file)") as refused:
        WAYS[name](folder, name)
    assert len(str(refused.value).splitlines()) == 1
    assert mine.read_text() == MINE
    assert os.path.lexists(folder / name)
    assert not mine.with_name("new.txt").exists()


@pytest.mark.parametrize("name", [".lock", ".planning"])
def test_a_second_name_of_a_file_is_not_emptied_either(tmp_path: Path, mine: Path, name: str) -> None:
    os.link(mine, tmp_path / name)
    WAYS[name](tmp_path, name)
    assert mine.read_text() == MINE


def test_a_link_in_wait_for_a_temporary_file_is_not_written_through(tmp_path: Path, mine: Path) -> None:
    temporary_of(tmp_path / "table.md").symlink_to(mine)
    write_text(tmp_path / "table.md", "new")
    assert mine.read_text() == MINE
    assert (tmp_path / "table.md").read_text() == "new"
    assert not (tmp_path / "table.md").is_symlink()


def test_what_is_replaced_is_the_link_not_its_file(tmp_path: Path, mine: Path) -> None:
    (tmp_path / "results.json").symlink_to(mine)
    with replacing(tmp_path / "results.json") as temporary:
        temporary.write_text("new")
    assert mine.read_text() == MINE


@pytest.mark.parametrize("name", [".lock", ".planning", ".session", "shard-00000.journal", "shard-00000.spool"])
def test_an_extraction_into_such_a_folder_is_refused(tmp_path: Path, mine: Path, corpus: Corpus, name: str) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).symlink_to(mine)
    with pytest.raises(UserError, match=r"\.lock|\.planning|\.session|holds shards"):
        extract_quietly(corpus, tmp_path / "store", Fake())
    assert mine.read_text() == MINE


def test_a_lock_is_held_as_before(tmp_path: Path) -> None:
    message = "another process is at work here"
    with locked(tmp_path, "at work"), pytest.raises(UserError, match=message), locked(tmp_path, "at work"):
        pass
    with locked(tmp_path, "at work"):
        pass
