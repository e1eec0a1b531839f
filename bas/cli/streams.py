"""What a console command stands on: open streams that can say any letter, a working directory, a place for caches."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from bas.errors import UserError
from bas.util.terminal import printable


def settle() -> None:
    """Open the null device in place of closed streams, and escape letters that the locale's encoding lacks.

    Where the home may not be written, Matplotlib gets a folder until this process ends, which its workers share.
    Raises UserError where there is no working directory.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # closed by the shell: the next file that is opened would take its place
            stream = open(os.devnull, "r" if number == 0 else "w", encoding="utf-8")  # noqa: SIM115
            try:
                os.fstat(number)
            except OSError:
                os.dup2(stream.fileno(), number)
            setattr(sys, name, stream)
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, TextIOWrapper):
            output.reconfigure(errors="backslashreplace")
    if "MPLCONFIGDIR" not in os.environ and not _is_writable(Path("~/.config/matplotlib")):
        os.environ["MPLCONFIGDIR"] = folder = tempfile.mkdtemp(prefix="bas-matplotlib-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the working directory is not there any more ({error.strerror}); cd to another") from error


def _is_writable(folder: Path) -> bool:
    """Whether a folder can be made, or written in."""
    try:
        there = next(path for path in (folder.expanduser(), *folder.expanduser().parents) if path.exists())
    except (OSError, RuntimeError):  # a parent that may not be searched; no home at all
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def complain(line: str) -> None:
    """Print one line to standard error, if that is still open."""
    with suppress(OSError):
        print(f"bas: {printable(' '.join(line.splitlines()))}", file=sys.stderr, flush=True)


def close_output() -> OSError | None:
    """Write out what standard output still holds; what prevents that, if anything does."""
    try:
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # else Python tries once more when it ends, and says so in its own way
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OSError(error.errno, error.strerror, "standard output")
    return None
