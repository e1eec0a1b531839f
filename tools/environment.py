"""The environment of every target of the Makefile, and the versions of its packages.

    install KIND [--torch cpu|VERSION] [--this-python]    make or repair .venv as constraints.txt says
    installed [--torch cpu|VERSION]                       install a wheel in an empty environment, run its demo
    upgrade                                               write constraints.txt again, with the newest versions

Uses the standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = getattr(sys, "_base_executable", sys.executable)  # not that of an activated .venv, which may be deleted
RECORD = VENV / "bas.json"  # what the environment was made with, written once it is complete
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = (3, 11)
EXTRAS = {
    "run": [],
    "demo": ["demo"],
    "dynamics": ["dynamics"],
    "nano": ["nano"],
    "onnx": ["onnx"],
    "slurm": ["slurm"],
    "test": ["demo", "dev", "docs", "dynamics", "nano", "onnx", "slurm"],
}
CPU = "# TORCH=cpu: "
OF_TORCH = ("torch", "triton", "nvidia-", "cuda-")  # packages that another build of torch may need in other versions
HEADING = """\
# Versions that were tested together, of everything that `make test` installs: every target installs with them.
# Made by `make upgrade`, with the oldest Python that bas allows; tools/environment.py reads it.
"""


class Refused(Exception):
    """One line for the user."""


def install(kind: str, torch: str | None, this_python: bool) -> None:
    """Install into .venv what `kind` needs, besides earlier requests. Prints nothing if there is nothing to do.

    torch: cpu, a version, or None: keep the installed build, at first that of constraints.txt. this_python: the
    environment must have the Python that runs this; otherwise its own Python is kept.
    """
    there = record()
    why = broken(there, this_python)
    torch = there.get("torch", "") if torch is None else torch
    extras = sorted({*EXTRAS[kind], *there.get("extras", [])})
    pins = constraints(torch)
    wanted = {"torch": torch, "extras": extras, "made_of": made_of(pins), "root": str(ROOT)}
    if not why and there == {**wanted, "packages": packages()}:
        return
    if why:
        check_python()
        where = VENV.resolve()  # .venv may be a link to another disk
        if where.exists():
            say(f".venv: {why}; made again")
            shutil.rmtree(where)
    elif packages() != there["packages"] or made_of(pins) != there.get("made_of"):
        say(".venv: not as constraints.txt and pyproject.toml say; repairing it")
    build = torch or "as in constraints.txt: with CUDA on Linux, about 6 GB; TORCH=cpu is smaller"
    say(f"installing into .venv (torch {build})")
    if why:
        run(PYTHON, "-m", "venv", where)
    write({"torch": torch, "extras": extras})  # not complete until the end, but the request is recorded
    try:
        fill(VENV, pins, "--editable", ".[" + ",".join(extras) + "]" if extras else ".", torch=torch)
    except Refused:
        if not why and there["packages"] == packages():  # nothing was changed
            write(there)
            say(".venv: as it was")
        raise
    write({**wanted, "packages": packages()})
    say(".venv: ready")


def write(made: dict) -> None:
    temporary = RECORD.with_suffix(".tmp")
    temporary.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    temporary.replace(RECORD)


def check_python() -> None:
    """Refuse an old Python for making environments; it may still maintain an environment that another Python made."""
    if sys.version_info < OLDEST:
        raise Refused(f"{PYTHON} is older than {dotted(OLDEST)}; name another, such as PYTHON=python3.12")


def record() -> dict:
    try:
        made = json.loads(RECORD.read_text(encoding="utf-8"))
        return made if isinstance(made, dict) else {}
    except (OSError, ValueError):
        return {}


def broken(there: dict, this_python: bool) -> str:
    """Why .venv cannot be repaired in place; empty if it can."""
    if "packages" not in there:
        return "not made by this version of the Makefile, or not whole"
    if there.get("root") != str(ROOT):
        return "made in another folder"
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([VENV / "bin/python", "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "its Python does not run"
    gone = set(there["packages"]) - set(packages())
    if gone and not any(
        name.endswith(".dist-info") for name in gone
    ):  # pip would believe that the package is installed
        return f"{sorted(gone)[0]} is missing"
    mine = dotted(sys.version_info)
    return f"of Python {done.stdout.strip()}, not {mine}" if this_python and done.stdout.strip() != mine else ""


def dotted(version: tuple[int, ...]) -> str:
    return f"{version[0]}.{version[1]}"


def packages() -> list[str]:
    """The entries of site-packages, whose names include versions: shows packages changed or removed by hand."""
    return sorted(path.name for path in VENV.glob("lib/python3*/site-packages/*") if path.name != "__pycache__")


def made_of(pins: str) -> str:
    texts = [pins, *((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "bas/__init__.py"))]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def constraints(torch: str) -> str:
    """The text of constraints.txt for a build of torch: "" as it stands, "cpu", or a version."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    if torch == "cpu" and sys.platform != "darwin":  # macOS has no other
        (torch,) = (line[len(CPU + "torch==") :] for line in lines if line.startswith(CPU))
    if torch not in ("", "cpu"):
        lines = [line for line in lines if not line.startswith(OF_TORCH) or line.startswith("torchaudio")]
        lines.append(f"torch=={torch}")
    return "".join(f"{line}\n" for line in lines if not line.startswith("#"))


def fill(venv: Path, pins: str, *what: str, torch: str = "") -> None:
    """Install packages with these constraints, and the package manager and build backend that they name."""
    listed = venv / "constraints.txt"
    listed.write_text(pins, encoding="utf-8")
    pip = [venv / "bin/python", "-m", "pip", "install", "--disable-pip-version-check", "--constraint", listed]
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    try:
        run(*pip, "--quiet", "--upgrade", "pip", "setuptools")
        run(*pip, *quiet, "--no-build-isolation", *what)
    except Refused as error:
        wanted = re.search(r"^torch==(.*)$", pins, re.MULTILINE)
        if not torch or not wanted:
            raise
        remedy = (
            "where pip does not find it, name PyTorch's index of that build (PIP_EXTRA_INDEX_URL) or a wheel's folder"
        )
        raise Refused(f"{error}: it was asked for torch {wanted[1]}; {remedy} (PIP_FIND_LINKS)") from None


def installed(torch: str | None) -> None:
    """Test a `pip install` of the wheel: the demo runs in an empty folder, with nothing of this folder on the path.

    torch: as in `install`.
    """
    check_python()
    torch = record().get("torch", "") if torch is None else torch
    with tempfile.TemporaryDirectory(prefix="bas-installed-") as name:
        folder = Path(name)
        venv, pins = folder / "venv", constraints(torch)
        run(PYTHON, "-m", "venv", venv)
        fill(venv, pins, "setuptools")  # builds the wheel, without the network
        pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check"]
        shutil.rmtree(
            ROOT / "build", ignore_errors=True
        )  # setuptools would include files from there that no longer exist here
        run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder / "wheels", ROOT)
        (wheel,) = (folder / "wheels").glob("bas-*.whl")
        say(f"installing {wheel.name} into an empty environment")
        fill(venv, pins, f"{wheel}[demo]", torch=torch)
        empty = folder / "empty"
        empty.mkdir()
        run(venv / "bin/bas", "--version", cwd=empty)
        run(venv / "bin/bas", "demo", cwd=empty)
        if not (empty / "runs/demo/table.md").exists():
            raise Refused("the demo of the installed wheel left no table")


def upgrade() -> None:
    """Write down the newest versions that pyproject.toml allows; `make test` says whether they work."""
    if sys.version_info[:2] != OLDEST:
        raise Refused(f"versions are chosen for the oldest Python that bas allows: PYTHON=python{dotted(OLDEST)}")
    before = CONSTRAINTS.read_text(encoding="utf-8") if CONSTRAINTS.exists() else ""
    with tempfile.TemporaryDirectory(prefix="bas-upgrade-") as name:
        venv = Path(name)
        run(PYTHON, "-m", "venv", venv)
        say("installing the newest versions into an empty environment")
        fill(venv, "", "--upgrade", ".[" + ",".join(EXTRAS["test"]) + "]")
        pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check"]
        frozen = subprocess.run(
            [*pip, "freeze", "--all", "--exclude", "bas"], capture_output=True, text=True, check=True
        )
        pins = sorted(frozen.stdout.splitlines(), key=str.lower)
        if odd := [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.+!]+", pin)]:
            raise Refused(f"{odd[0]}: not a version that others can install")
        pins = [pin.split("+")[0] if pin.startswith("torch==") else pin for pin in pins]
        newest = next(pin for pin in pins if pin.startswith("torch==")) + "+cpu"
        last = [line[len(CPU) :] for line in before.splitlines() if line.startswith(CPU)]
        builds = list(dict.fromkeys([newest, *last]))
        for build in builds:
            dry = [*pip, "install", "--dry-run", "--no-deps", "--quiet", "--ignore-installed", build]
            if subprocess.run(dry, capture_output=True, cwd=ROOT).returncode == 0:
                break
        else:
            say(f"TORCH=cpu: pip finds no {' and no '.join(builds)} here: not tried")
        text = HEADING + CPU + build + "\n" + "".join(f"{pin}\n" for pin in pins)
    temporary = CONSTRAINTS.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(CONSTRAINTS)
    old, new = ({line for line in t.splitlines() if "==" in line} for t in (before, text))
    say(f"constraints.txt: {len(new - old)} of {len(new)} versions are new\nnext: make test")


def run(*command: object, cwd: Path = ROOT) -> None:
    done = subprocess.run([str(word) for word in command], cwd=cwd)
    if done.returncode:
        raise Refused(f"{' '.join(Path(str(word)).name for word in command[:3])} failed")


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("what", choices=("install", "installed", "upgrade"))
    p.add_argument("kind", nargs="?", choices=EXTRAS, default="run")
    p.add_argument("--torch")
    p.add_argument("--this-python", action="store_true")
    a = p.parse_args()
    os.environ.pop("PYTHONPATH", None)  # of the caller: packages there are not of this environment
    os.environ["PYTHONWARNINGS"] = "ignore"  # setuptools prints one for every editable installation
    try:
        if a.torch and a.torch != "cpu" and not re.fullmatch(r"\d+(\.\d+)+\w*(\+[\w.]+)?", a.torch):
            raise Refused(f"TORCH={a.torch}: must be cpu, or a version such as 2.14.1+cu126")
        if a.what == "install":
            with open(
                __file__, encoding="utf-8"
            ) as own:  # one process at a time; this file is the lock, so that no lock file remains
                with contextlib.suppress(OSError):  # on a disk without locks
                    fcntl.flock(own, fcntl.LOCK_EX)
                install(a.kind, a.torch, a.this_python)
        elif a.what == "installed":
            installed(a.torch)
        else:
            upgrade()
    except (Refused, OSError) as error:
        print(f"make: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make: interrupted; the same command begins the installation again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
