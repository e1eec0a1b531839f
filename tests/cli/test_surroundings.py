"""Where a command may start: without a home, a disk, memory or an output. It works there, or says why in one line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import bad_input
import pytest
from bad_input import EXTRACT, STORE
from places import ROOT

from bas.cli.main import main

pytestmark = pytest.mark.slow

SHOW = "corpus show --corpus manifest --root cups.csv"
COMPARE = f"compare --features {STORE} {bad_input.PLAIN} --protocol speaker:3 --name new"
FULL = "its disk is full; free some of it and give the same command again: what is finished is kept"


@dataclass(frozen=True)
class Surroundings:
    """shell: what a shell does with $BAS, the command. line: what `bas` says, with code 2; "": it works, code 0."""

    shell: str
    line: str = ""


TABLE = {
    "an ASCII locale": Surroundings(f"LC_ALL=C LANG=C PYTHONUTF8=0 $BAS {SHOW}"),
    "an ASCII output": Surroundings(f"PYTHONIOENCODING=ascii $BAS {COMPARE} --name ascii"),
    "a name that an ASCII locale lacks": Surroundings(
        f"cp cups.csv Größe.csv; LC_ALL=C PYTHONUTF8=0 $BAS {SHOW.replace('cups', 'Größe')}",
        r"'Gr\xf6\xdfe.csv': has letters that this locale's encoding, ascii, lacks; set PYTHONUTF8=1, or",
    ),
    "a dumb terminal": Surroundings(f"TERM=dumb $BAS {SHOW}"),
    "no terminal's name": Surroundings(f"env -u TERM $BAS {SHOW}"),
    "a closed output": Surroundings(f"$BAS {SHOW} >&-"),
    "everything closed": Surroundings(f"$BAS {SHOW} <&- >&-"),
    "nobody reads": Surroundings(
        f"$BAS {SHOW} | true; exit ${{PIPESTATUS[0]}}", "standard output: closed by the program"
    ),
    "nobody reads the help": Surroundings("$BAS --help | true; exit ${PIPESTATUS[0]}"),
    "a full output": Surroundings(f"$BAS {SHOW} >/dev/full", f"a file or standard output: {FULL}"),
    "no working directory": Surroundings(
        f"mkdir gone; cd gone; rmdir ../gone; $BAS {SHOW}", "the working directory is not there any more"
    ),
    "a home that is none": Surroundings(f"HOME=$PWD/cups.csv $BAS {COMPARE} --name home"),
    "few open files": Surroundings(f"ulimit -n 64; $BAS {COMPARE} --name few"),
    "too few open files": Surroundings(
        f"ulimit -n 20; $BAS {COMPARE} --workers 2", "too many open files; raise `ulimit -n`"
    ),
    "little memory": Surroundings(f"ulimit -v 1200000; $BAS {COMPARE}", "memory is short"),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surroundings")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        bad_input.good()
        assert main(f"{EXTRACT} log-mel".split()) == 0
    return folder


@pytest.mark.parametrize("name", TABLE)
def test_it_works_or_says_why(name: str, work: Path) -> None:
    case = TABLE[name]
    command = f"{shlex.quote(sys.executable)} -m bas"
    environment = os.environ | {"BAS": command, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", case.shell], cwd=work, env=environment, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == (2 if case.line else 0), done.stderr
    if case.line:
        assert lines[0].startswith("bas: "), lines
        assert case.line in lines[0]
    assert len(lines) == bool(case.line), done.stderr
    assert not list(work.rglob("*.tmp"))


def test_all_verbs_work_without_a_home_an_output_and_letters(tmp_path: Path) -> None:
    """All of tests/helpers/killing_verbs.py, none of them killed; the texts of their corpus have umlauts."""
    shell = f"{shlex.quote(sys.executable)} {ROOT}/tests/helpers/killing_verbs.py {tmp_path}/verbs 0 0 >&-"
    (tmp_path / "file").touch()
    bare = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "HOME": str(tmp_path / "file")}
    environment = os.environ | bare | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(["bash", "-c", shell], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
