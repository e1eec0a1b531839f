"""Every verb, killed at random moments and begun again until it ends: `killing_verbs.py FOLDER KILLS SEED`.

What a reader takes numbers from must be as an undisturbed run leaves it, and so must the names of all files. Half
of the kills come at any moment of an undisturbed run's length, half at one of its writes, where a temporary file lies.
It prints a line for each verb. It forks, so that an attempt begins at once; that is why it is no test itself.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import pkgutil
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from places import PATIENCE

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not outlive a fork, and torch would wait for them

import numpy as np
from families import save
from golden import verbs

import bas
from bas.cli.main import main
from bas.features import compared
from bas.features.store import FeatureStore

TABLE = "--corpus=manifest --root=cups.csv"
EXTRACT = f"extract {TABLE} --device=cpu"
NEW = "--name=new --device=cpu"
RUN = f"{NEW} --seeds=1 --workers=1 --set=epochs=2 --set=batch_size=8"
SMALL = f"--space=four.py --layer=0 {RUN} --set=width=8"
RACE = f"--space=wide.py --layer=0 {RUN} --set=width=8 --set=budget=8 --set=committee=2"
THREE = "--protocol=speaker:3"
TUNING = "--set=epochs=2 --set=batch=8 --set=micro_batch=4 --set=evaluate_every=1 --set=checkpoint_every=2"
VERBS = {
    "export": f"corpus export {TABLE} --to=export.csv",
    "make": f"protocol make {TABLE} {THREE} --to=split.json",
    "extract": f"{EXTRACT} --encoder=encoder --features=states",
    "import": f"features import {TABLE} --encoder=mine --source=arrays --frame-rate=100 --features=imported",
    "derive": "features derive mel --pooling=mean --into=means",
    "search": f"search --features=mel {RACE} {THREE}",
    "compare": f"compare --features=mel {RACE} {THREE}",
    "probe": f"probe --features mel --space four.py {RUN} {THREE}",
    "audit": f"audit --features=mel {SMALL} {THREE} --strategy=gumbel --variant=residual=every",
    "tune": f"tune --features=mel {SMALL} {THREE} --trials=2 --set=strategy=gumbel",
    "cost": f"protocol cost --features=mel {SMALL} --clean=speaker:3 --leaky=id:3",
    "words": f"words --features mel {RUN} --protocol=speaker:2 --text-encoder=random",
    "shares": f"shares --features mel {RUN} --set=width=8 --protocol=speaker:2 --layer=0",
    "dynamics": f"dynamics {TABLE} {NEW} --encoder=encoder {THREE} --rotations=1 {TUNING} --set=lr=0.001",
}
TIMES = re.compile(r"seconds|^(sha256|commit)$")
"""Fields that hold times, a checksum over these, and the commit at work."""


def prepare(work: Path) -> None:
    """A corpus of three speakers, a space, an encoder and a store."""
    work.mkdir(parents=True)
    os.chdir(work)
    verbs.SPEAKERS, verbs.TAKES = 3, 2
    verbs.corpus(work)
    (work / "four.py").write_text(verbs.SPACE)
    (work / "wide.py").write_text(verbs.WIDE)
    assert Attempt(f"{EXTRACT} --encoder=log-mel --features=mel", work.parent / "said.txt").wait() == 0, (
        work.parent / "said.txt"
    ).read_text()
    (work / "arrays").mkdir()
    mel = FeatureStore(work / "mel")
    for id_ in mel.ids:
        np.save(work / "arrays" / f"{id_}.npy", mel.read(id_, 0))


class Attempt:
    """A command in a process and a group of its own."""

    def __init__(self, command: str, said: Path, write: int | None = None) -> None:
        """write: at which of its writes to a disk it kills itself."""
        self.child = os.fork()
        os.setpgid(self.child, self.child)  # in both, whichever comes first
        if self.child == 0:
            code = 1
            try:
                out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(out, 1)
                os.dup2(out, 2)
                if write is not None:
                    kill_at(write)
                code = main(command.split())
                sys.stdout.flush()
            finally:
                os._exit(code)

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, if it was killed negative; it is killed with its whole group after so many seconds."""
        end = time.monotonic() + (PATIENCE if seconds is None else seconds)
        while time.monotonic() < end:
            done, status = os.waitpid(self.child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        assert seconds is not None, "it does not end"
        os.killpg(self.child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


def kill_at(write: int) -> None:
    """SIGKILL this process and its group before its n-th fsync: what it wrote is not renamed yet."""
    fsync, left = os.fsync, iter(range(write))

    def deadly(number: Any) -> None:
        if next(left, None) is None:
            os.killpg(0, signal.SIGKILL)
        fsync(number)

    setattr(os, "fsync", deadly)  # noqa: B010  of the same use, if not of the same type


def state(work: Path) -> dict[str, Any]:
    """By name, what each file below says; of TensorBoard's files, whose names hold the time, that there are some."""
    values: dict[str, Any] = {}
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work).as_posix()
        name = re.sub(r"(/tb/.*)events\.out\.tfevents\.[\d.]+\w+\.\d+\.\d+$", r"\1events", name)
        if path.is_file() and path.name != compared.FILE:  # whether it is kept depends on how old recordings are
            values[name] = content(path)
    return values


def content(path: Path) -> Any:
    if path.suffix == ".json":
        return timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".md":
        return list(verbs._page(path.name, path.read_text(encoding="utf-8")))
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as stream:
            return [timeless(row) for row in csv.DictReader(stream)]
    timed = path.suffix == ".parquet" or path.name in ("report.html", "seconds.svg")
    if "/tb/" in str(path) or timed:  # a CSV, results.json and table.md say the rest
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if not TIMES.search(key)}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            if key not in before or key not in after:
                yield f"{at} {key}: {'left over' if key in after else 'not there'}"
            else:
                yield from differences(before[key], after[key], f"{at} {key}")
    elif before != after:
        yield f"{at}: {str(before)[:200]} has become {str(after)[:200]}"


def kill(name: str, kills: int, base: Path, chance: random.Random) -> None:
    """Kill a verb so many times in all, at random moments and writes, and compare each end with an undisturbed run."""
    work, said, command = base.parent / "work", base.parent / "said.txt", VERBS[name]

    def anew() -> None:
        os.chdir(base)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        os.chdir(work)

    anew()
    start = time.monotonic()
    assert Attempt(command, said).wait() == 0, f"{name}: {said.read_text()}"
    seconds, undisturbed = time.monotonic() - start, state(work)
    writes = len(undisturbed) - len(state(base))
    made = runs = temporary = 0
    while made < kills:
        anew()
        runs, code, moments = runs + 1, -signal.SIGKILL, []
        while code == -signal.SIGKILL:
            if made == kills:
                code = Attempt(command, said).wait()
            elif chance.random() < 0.5:
                moments.append(f"{(moment := chance.uniform(0, seconds)):.3f} s")
                code = Attempt(command, said).wait(moment)
            else:
                moments.append(f"write {(write := chance.randrange(writes))}")
                code = Attempt(command, said, write).wait()
            made += code == -signal.SIGKILL
            temporary += len(list(work.rglob("*.tmp")))
        story = f"{name} of {seconds:.2f} s, to be killed at {', '.join(moments)}"
        # A verb that writes one file refuses one that is there: it may have been killed after its last write.
        assert code == 0 or "is there already" in said.read_text(), f"{story}: {said.read_text()}"
        different = list(differences(undisturbed, state(work)))
        assert not different, f"{story}: " + "\n".join(different[:20])
    print(f"{name}: {seconds:.1f} s, {made} kills in {runs} runs left {temporary} *.tmp, the ends none", flush=True)


def begin(root: Path) -> Path:
    """Load everything, and make what the verbs work on; its folder."""
    for module in pkgutil.walk_packages(bas.__path__, "bas."):  # once, here
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    prepare(root / "work")
    save(root / "work" / "encoder", "hubert-layer")
    (root / "work").rename(root / "base")  # what lies there is used under the name `work`
    return root / "base"


def kill_all(root: Path, kills: int, seed: int) -> None:
    base = begin(root)
    for name in VERBS:
        kill(name, -(-kills // len(VERBS)), base, random.Random(f"{seed} {name}"))


if __name__ == "__main__":
    kill_all(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
