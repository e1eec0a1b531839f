"""Which machine this is, and whether a process of it still runs.

Folders are shared by machines that see neither each other's processes nor each other's clocks.
"""

from __future__ import annotations

import hashlib
import os
import platform
import uuid
from functools import cache
from pathlib import Path

PROC = Path("/proc")


@cache
def host() -> str:
    """The machine's name, for people."""
    return platform.node() or "unnamed"


@cache
def machine() -> str:
    """Six hexadecimal digits that tell this machine from others, and this container: whoever shares them sees the same
    processes under the same numbers, until the next start of the machine."""
    told = [host()]
    try:
        told += [(PROC / "sys/kernel/random/boot_id").read_text().strip(), os.readlink(PROC / "self/ns/pid")]
    except OSError:  # no Linux
        told.append(str(uuid.getnode()))
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:6]


def started(process: int) -> str | None:
    """When a process of this machine began, in ticks since the machine's own start; numbers of processes are given
    anew, but not with the same time. None: it does not run. "": it runs, and its time is not told here."""
    try:
        # The name of the program, in parentheses, may hold blanks and parentheses.
        fields = (PROC / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "" if _answers(process) else None
    return None if fields[0] in "ZX" else fields[19]


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
