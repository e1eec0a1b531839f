"""A SLURM of two nodes of one core on this machine, for the tests: Debian's slurmctld, slurmd and munge, as root.

BAS_SLURM=1 in the environment: it must be there (so .ci/run says); else tests are skipped where it is not.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from places import PATIENCE

PROGRAMS = ("slurmctld", "slurmd", "munged", "munge", "runuser", "sbatch", "squeue", "scancel", "sinfo")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
MpiDefault=none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no SLURM here."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        return f"no {', '.join(lacking)}: apt-get install slurmctld slurmd slurm-client munge"
    return None if os.geteuid() == 0 else "its daemons must be started as root"


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; the environment in which its commands find it."""
    why = missing()
    if why and os.environ.get("BAS_SLURM") != "1":
        pytest.skip(f"SLURM: {why}")
    assert why is None, why
    (folder / "state").mkdir(parents=True)
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder, ports=free_ports(3)))
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    environment = {**os.environ, "SLURM_CONF": str(configuration), "PATH": path}
    start_munge(environment)
    try:
        subprocess.run(["slurmctld"], env=environment, check=True)
        for node in ("n1", "n2"):
            subprocess.run(["slurmd", "-N", node], env=environment, check=True)
        asked, end = ["sinfo", "--noheader", "--format", "%T"], time.monotonic() + PATIENCE
        while (said := subprocess.run(asked, env=environment, capture_output=True, text=True)).stdout.strip() != "idle":
            assert time.monotonic() < end, said
            time.sleep(0.5)
        yield environment
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], env=environment, stderr=subprocess.DEVNULL)
        for file in folder.glob("*.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGTERM)


def start_munge(environment: dict[str, str]) -> None:
    """Start what SLURM's daemons know each other by, unless it answers; also where one was killed and left its socket,
    of which the service's own script says nothing and starts none."""

    def answers() -> bool:
        asked = subprocess.run(["munge", "-n"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return asked.returncode == 0

    if answers():
        return
    subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "-m", "755", "/run/munge"], check=True)
    subprocess.run(["runuser", "-u", "munge", "--", "munged", "--force"], env=environment, check=True)
    end = time.monotonic() + PATIENCE
    while not answers():
        assert time.monotonic() < end, "munged does not answer"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; below those that the system gives to whoever asks."""
    found: list[int] = []
    for port in range(17000 + os.getpid() % 4000, 30000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")
