"""`make` itself: what a target does not read is refused by name, and the environment is not read."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT

from bas.cli.main import parser

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):[^#=]*## ", MAKEFILE, re.MULTILINE)
VARIABLES = re.findall(r"^([A-Z_]+) :=", MAKEFILE, re.MULTILINE)
VARIABLES.remove("BIN")
# What a target stops without, and values that are looked at before they are handed on.
NEEDED = {
    "EXPERIMENT": "e-canary.toml",
    "SPEECH": "s-canary",
    "SPACE": "space-canary",
    "ENCODER": "encoder-canary",
    "RUN": "run-canary",
    "MODEL": "model-canary",
    "SOURCES": "one-canary two-canary",
}
SPECIAL = {"PROCESSES": "7", "REAL_LENGTH": "1", "ALL": "1", "CLUSTER": "local"}
SHOWN = {"REAL_LENGTH": "--real-length", "ALL": "--all"}

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """`make -n`: what it would run. Of its own, not a child of the make that may run the tests."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", "--no-print-directory", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment | more)


def reads(target: str) -> set[str]:
    """As the refusal of a variable that nobody knows lists them."""
    match = re.search(r"it reads: ([A-Z_ ]+|nothing)[;.]", make(target, "NOBODY=1").stderr)
    assert match, target
    return set(match[1].split()) - {"nothing"}


def test_the_targets_are_the_ones_in_the_help() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(["make"], capture_output=True, text=True, cwd=ROOT, env=environment).stdout
    assert re.findall(r"^  make ([\w-]+) ", shown, re.MULTILINE) == TARGETS
    assert len(TARGETS) > 20


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_hands_on_all_that_it_reads_and_refuses_the_rest(target: str) -> None:
    of = reads(target)
    given = {name: NEEDED.get(name) or SPECIAL.get(name) or f"{name.lower()}-canary" for name in of - {"PYTHON"}}
    done = make(target, *(f"{name}={value}" for name, value in given.items()))
    assert (done.returncode, done.stderr) == (0, "")
    assert [name for name, value in given.items() if SHOWN.get(name, value) not in done.stdout] == []
    if "PYTHON" in of:
        assert "my-python tools/environment.py" in make(target, "PYTHON=my-python", *given_needed(of)).stdout
    others = [name for name in VARIABLES if name not in of]
    assert others or not of
    refused = make(target, *(f"{name}=x" for name in others))
    assert refused.returncode == 2
    assert f"make {target}: does not read {' '.join(sorted(others))}; it reads: " in refused.stderr
    assert refused.stdout == ""


def given_needed(of: set[str]) -> list[str]:
    return [f"{name}={NEEDED[name]}" for name in of & set(NEEDED)]


def test_a_slip_of_the_pen_runs_nothing() -> None:
    done = make("compare", "EXPERIMENT=x", "EPOCHS=5", "SEED=7", "STRATEGY=gumbel", "TRIALS=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert "make compare: does not read EPOCHS SEED STRATEGY TRIALS; it reads: " in done.stderr
    assert 'SET="epochs=30"' in done.stderr


def test_torch_may_go_back_to_what_was_tested() -> None:
    assert "--torch" not in make("setup").stdout
    assert '--torch ""' in make("setup", "TORCH=").stdout


def test_what_is_no_target_is_left_to_make() -> None:
    assert "No rule to make target 'compar'" in make("compar", "EXPERIMENT=x").stderr


@pytest.mark.parametrize("word", ["PYTHON=", "PROCESSES=0", "PROCESSES=two", "REAL_LENGTH=yes", "ALL=2", "CLUSTER=lsf"])
def test_a_value_that_cannot_be_is_refused_before_anything_is_installed(word: str) -> None:
    target = "nano" if word.startswith("REAL_LENGTH") else "extract"
    done = make(target, *given_needed(reads(target)), word)
    assert (done.returncode, done.stdout) == (2, "")
    assert word.removesuffix("=").partition("=")[0] in done.stderr


@pytest.mark.parametrize("python", ["python-of-nobody", "ls", "/"])
def test_a_python_that_does_not_run_is_named(python: str) -> None:
    """For once not a dry run: it ends before anything is installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "installed", f"PYTHON={python}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 2
    assert f"make: PYTHON={python} does not run; name Python 3.11, 3.12 or 3.13" in done.stderr


def test_one_installation_at_a_time() -> None:
    """Two would make the same environment."""
    assert make("-j2", "setup", "check").returncode == 0
    assert re.search(r"^\.NOTPARALLEL:$", MAKEFILE, re.MULTILINE)


def test_two_targets_read_what_either_reads() -> None:
    assert make("setup", "board", "PORT=7").returncode == 0
    assert make("setup", "demo", "PORT=7").returncode == 2


@pytest.mark.parametrize("target", [t for t in TARGETS if t != "help"])
def test_the_environment_is_not_read(target: str) -> None:
    of = reads(target)
    needed = given_needed(of)
    theirs = {name: f"{name.lower()}-of-the-environment" for name in VARIABLES}
    assert make(target, *needed, **theirs).stdout == make(target, *needed).stdout


@pytest.mark.parametrize(
    ("target", "lacking"),
    [("compare", "EXPERIMENT"), ("features", "EXPERIMENT"), ("nano", "SPEECH"), ("predict", "MODEL")],
)
def test_what_is_missing_is_named_before_anything_is_installed(target: str, lacking: str) -> None:
    given = [word for word in given_needed(reads(target)) if not word.startswith(f"{lacking}=")]
    done = make(target, *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"make {target}: needs {lacking}; for example {lacking}=" in done.stderr


def test_an_experiment_is_handed_on_as_it_stands() -> None:
    done = make("compare", "EXPERIMENT=my file.toml", 'SET=layer=mix spaces=["a","b"] audit.strategies=gumbel+warmup=1')
    words = shlex.split(done.stdout.splitlines()[-1])
    changes = ["layer=mix", 'spaces=["a","b"]', "audit.strategies=gumbel+warmup=1"]
    assert words == [".venv/bin/bas", "compare", "my file.toml", *(word for one in changes for word in ("--set", one))]
    alone = make("compare", "SET=features=x").stdout.splitlines()[-1]
    assert shlex.split(alone) == [".venv/bin/bas", "compare", "--set", "features=x"]


@pytest.mark.parametrize("target", [t for t in TARGETS if "EXPERIMENT" in reads(t)])
def test_a_line_over_an_experiment_is_one_that_bas_takes(target: str, tmp_path: Path) -> None:
    """The words go through the command line's own parser."""
    experiment = tmp_path / "x.toml"
    done = make(target, f"EXPERIMENT={experiment}", *(["TO=x.csv"] if "TO" in reads(target) else []))
    for line in done.stdout.splitlines():
        if line.startswith(".venv/bin/bas "):
            parser().parse_args(shlex.split(line)[1:])
