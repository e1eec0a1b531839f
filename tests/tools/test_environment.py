"""The versions that were tested are the ones that run, and an environment made otherwise is mended."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

import bas

sys.path.insert(0, str(ROOT / "tools"))
import environment

pytestmark = pytest.mark.slow

CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DECLARED = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]


def pinned() -> dict[str, str]:
    """By package, the version that the file names for the build of torch that runs."""
    build = "cpu" if version("torch").endswith("+cpu") else ""
    lines = environment.constraints(build).splitlines()
    return {canonicalize_name(name): exact for name, _, exact in (line.partition("==") for line in lines)}


def needed() -> dict[str, str]:
    """Every package that the declared ones bring, themselves among them, with the version that is here."""
    versions_of: dict[str, str] = {}
    queue = [(Requirement(text), "") for text in DECLARED]
    while queue:
        requirement, extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if (requirement.marker and not requirement.marker.evaluate({"extra": extra})) or name in versions_of:
            continue
        try:
            here = distribution(name)
        except PackageNotFoundError:
            versions_of[name] = "absent"
            continue
        versions_of[name] = here.version
        queue += [(Requirement(text), e) for text in here.requires or () for e in (requirement.extras or {""})]
    return versions_of


def test_what_runs_is_what_was_tested() -> None:
    """Else no test here says anything of what `make` installs: `make test` brings the versions of the file."""
    pins, here = pinned(), needed()
    assert {name: here[name] for name in here if here[name] != pins.get(name)} == {}, "here, and not in constraints.txt"
    assert {"pip", "setuptools"} <= set(pins)
    assert len(here) > 70


def test_the_file_names_exact_versions_and_no_place() -> None:
    lines = CONSTRAINTS.splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z][\w.-]*==[\w.]+", line)] == []
    assert re.findall(r"https?:|@|/simple", CONSTRAINTS) == []
    (cpu,) = [line for line in lines if line.startswith(environment.CPU)]
    assert re.fullmatch(r"torch==[\d.]+\+cpu", cpu.removeprefix(environment.CPU))


@pytest.mark.parametrize("text", sorted(set(DECLARED)))
def test_every_range_has_two_ends_and_holds_what_was_tested(text: str) -> None:
    requirement = Requirement(text)
    pins = pinned()
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    ends = {specifier.operator for specifier in requirement.specifier}
    assert ">=" in ends
    assert "<" in ends


def test_the_version_is_the_changelogs() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (\S+)", changelog, re.MULTILINE)
    assert versions[0] == bas.__version__, "what lands is a version, and the changelog says what it changed"
    assert versions == sorted(versions, key=lambda text: [int(n) for n in text.split(".")], reverse=True)
    assert bas.__version__.startswith(bas.NUMBERS + ".")
    try:
        assert version("bas") == bas.__version__
    except PackageNotFoundError:
        pytest.fail("bas is not installed here: `make setup`")


# The environment is mended


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A project of its own, where the virtual environment is real and installing is written down."""
    log: list[str] = []
    (tmp_path / "bas").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "bas/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    venv = tmp_path / ".venv"
    names = {"ROOT": tmp_path, "VENV": venv, "RECORD": venv / "bas.json", "CONSTRAINTS": tmp_path / "constraints.txt"}
    for name, path in names.items():
        monkeypatch.setattr(environment, name, path)

    def run(*command: object, cwd: Path = tmp_path) -> None:
        assert command[1:3] == ("-m", "venv")
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python").symlink_to(sys.executable)

    def fill(where: Path, pins: str, *what: str, torch: str = "") -> None:
        site = where / "lib/python3.11/site-packages"
        for old in site.glob("*"):
            old.rmdir()
        for line in pins.split():
            (site / f"{line.replace('==', '-')}.dist-info").mkdir(parents=True)
            (site / line.partition("==")[0]).mkdir(exist_ok=True)
        log.append(what[-1])

    monkeypatch.setattr(environment, "run", run)
    monkeypatch.setattr(environment, "fill", fill)
    return log


def install(kind: str = "run", torch: str | None = None, this_python: bool = False) -> None:
    environment.install(kind, torch, this_python)


def holds(package: str) -> bool:
    return any(name.startswith(package) for name in environment.packages())


def test_it_is_made_once_and_grows(made: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    install()
    assert made == ["."]
    assert "installing into .venv" in capsys.readouterr().out
    install()
    assert (made, capsys.readouterr().out) == (["."], ""), "nothing to do, nothing said"
    install("demo")
    install("dynamics")
    install("run")
    assert made == [".", ".[demo]", ".[demo,dynamics]"], "what is there stays"


@pytest.mark.parametrize("what", ["another version", "removed", "constraints", "pyproject", "version"])
def test_whatever_differs_is_mended_in_place(what: str, made: list[str], tmp_path: Path) -> None:
    install("demo")
    mark = environment.VENV / "mark"
    mark.touch()
    numpy = next(environment.VENV.glob("lib/python3.11/site-packages/numpy-*"))
    if what == "another version":
        numpy.rename(numpy.with_name("numpy-1.0.dist-info"))
    elif what == "removed":
        numpy.rmdir()
    else:
        names = {"constraints": "constraints.txt", "pyproject": "pyproject.toml", "version": "bas/__init__.py"}
        with (tmp_path / names[what]).open("a") as stream:
            stream.write("rich==1.0\n" if what == "constraints" else "# changed\n")
    install()
    assert made == [".[demo]"] * 2
    assert numpy.exists()
    assert mark.exists(), "in place"


@pytest.mark.parametrize(
    "what", ["older Makefile", "half made", "moved", "no python", "broken python", "damaged", "files"]
)
def test_what_cannot_be_mended_is_made_again(what: str, made: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if what == "older Makefile":
        (environment.VENV / "bin").mkdir(parents=True)
        (environment.VENV / "run").touch()
    else:
        install()
    mark = environment.VENV / "mark"
    mark.touch()
    python = environment.VENV / "bin/python"
    if what == "half made":
        environment.RECORD.unlink()
    elif what == "moved":
        record = json.loads(environment.RECORD.read_text())
        environment.RECORD.write_text(json.dumps(record | {"root": "/elsewhere"}))
    elif what == "no python":
        python.unlink()
    elif what == "broken python":
        python.unlink()
        python.symlink_to("/usr/bin/python-that-was-removed")
    elif what == "files":
        (environment.VENV / "lib/python3.11/site-packages/h5py").rmdir()
    elif what == "damaged":
        environment.RECORD.write_text("{")
    capsys.readouterr()
    install()
    assert "; made again" in capsys.readouterr().out
    assert not mark.exists()
    install()
    assert made[-1] == "."
    assert len(made) == (1 if what == "older Makefile" else 2)


def test_an_interrupted_installation_is_not_taken_for_whole(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object, **more: object) -> None:
        raise KeyboardInterrupt

    install()
    numpy = next(environment.VENV.glob("lib/python3.11/site-packages/numpy-*"))
    numpy.rmdir()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "fill", killed)
        with pytest.raises(KeyboardInterrupt):
            install()
    numpy.mkdir()  # so that all is there by name, half of it changed
    install()
    assert made == [".", "."]
    with monkeypatch.context() as patch:
        patch.setattr(environment, "fill", killed)
        with pytest.raises(KeyboardInterrupt):
            install("demo", torch="9.9.9")
    install()
    assert (made[-1], holds("torch-9.9.9.")) == (".[demo]", True), "what was asked for is not asked again"


def test_what_cannot_be_had_leaves_the_environment_as_it_was(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **more: object) -> None:
        raise environment.Refused("pip failed")

    install("demo")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "fill", fails)
        with pytest.raises(environment.Refused):
            install("demo", torch="9.9.9")
    install("demo")
    assert made == [".[demo]"], "whole as before, with the torch it had"


def test_the_build_of_torch_is_kept_until_another_is_named(made: list[str]) -> None:
    cpu = re.search(r"TORCH=cpu: torch==(\S+)", CONSTRAINTS)
    assert cpu
    install(torch="cpu")
    assert holds(f"torch-{cpu[1]}") or sys.platform == "darwin"
    install("demo")
    assert holds(f"torch-{cpu[1]}") or sys.platform == "darwin"
    install(torch="2.99.1+cu999")
    assert holds("torch-2.99.1+cu999.")
    assert not holds("nvidia"), "its own, whatever they are"
    assert holds("torchaudio-")
    install("demo", torch="")
    assert holds("nvidia")


def test_another_python_is_another_environment(
    made: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install()
    monkeypatch.setattr(environment, "dotted", lambda version: "3.99")
    install()
    assert len(made) == 1, "unless it was named, whichever made it will do"
    install(this_python=True)
    assert len(made) == 2
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"of Python {mine}, not 3.99; made again" in capsys.readouterr().out


def message_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["environment.py", *words])
    monkeypatch.setenv("PYTHONPATH", "")  # main takes it out: put back afterwards
    monkeypatch.setenv("PYTHONWARNINGS", "")
    assert environment.main() == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"make: .+\n", err)
    return err


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    err = message_of(monkeypatch, capsys, "install", "run", "--torch", "gpu")  # before anything is looked at
    assert err == "make: TORCH=gpu: must be cpu, or a version such as 2.14.1+cu126\n"

    def fails(*command: object, cwd: Path = ROOT) -> None:
        raise environment.Refused("python -m pip failed")

    monkeypatch.setattr(environment, "run", fails)
    with pytest.raises(environment.Refused, match=r"asked for torch 9\.9; .*PIP_EXTRA_INDEX_URL"):
        environment.fill(tmp_path, "torch==9.9\n", ".", torch="9.9")


def test_an_old_python_makes_no_environment_but_may_look_after_one(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 10, 13))
        install()
        install("demo")
        assert made == [".", ".[demo]"]
        environment.RECORD.unlink()
        with pytest.raises(environment.Refused, match=r"older than 3\.11; name another, such as PYTHON=python3\.12"):
            install()
        with pytest.raises(environment.Refused, match="older"):
            environment.installed(None)


def test_what_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(environment, "run", lambda *words, cwd=None: said.append([str(word) for word in words]))
    environment.fill(tmp_path, "torch==9.9\n", "--editable", ".")
    listed = str(tmp_path / "constraints.txt")
    assert Path(listed).read_text() == "torch==9.9\n"
    for words in said:
        assert words[words.index("--constraint") + 1] == listed
    assert said[0][-2:] == ["pip", "setuptools"]
    assert "--no-build-isolation" in said[1], "else the build would take whatever setuptools is newest"
    assert said[1][-2:] == ["--editable", "."]


def test_an_activated_environment_can_be_made_again(tmp_path: Path) -> None:
    """The Python that runs may be the one that has to go."""
    (tmp_path / "bas").mkdir()
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "bas/__init__.py", "tools/environment.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    real = tmp_path / "other disk"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", real], check=True)
    (tmp_path / ".venv").symlink_to(real)
    command = [tmp_path / ".venv/bin/python", tmp_path / "tools/environment.py", "install"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    )
    assert "not made by this version of the Makefile, or not whole; made again" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("make: python -m pip failed"), "nothing to install from"
    assert (real / "bin/pip").exists(), "again, where the link leads"
