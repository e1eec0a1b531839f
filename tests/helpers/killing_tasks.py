"""A run and a store that processes share who are killed at random moments: `killing_tasks.py FOLDER KILLS SEED`.

The run is shared by two calls of `bas work` and by a submitting `bas compare --cluster local` with a task of its own;
the store by three calls of `bas extract --part`. Whoever is killed is begun again, until so many kills were made; in
the end every result and every file must be as one undisturbed process leaves it. It prints a line for each. Like
`killing_verbs.py` it forks, so that an attempt begins at once.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from killing_verbs import Attempt, begin, differences, state
from places import PATIENCE

COMPARE = (
    "compare --features=mel --space=wide.py --layer=best --device=cpu --seeds=2 --protocol=speaker:3 "
    "--set=epochs=40 --set=width=8 --set=batch_size=8 --set=budget=8 --set=committee=2"
)
SUBMIT = f"{COMPARE} --name=new --cluster=local --tasks=1"
WORK = "work runs/new --workers=1"
EXTRACT = "extract --corpus=manifest --root=cups.csv --device=cpu --encoder=encoder --features=states"
PARTS = 3


class Shared:
    """Processes that share a piece of work, by the command that begins each again."""

    def __init__(self, commands: list[str], said: Path, chance: random.Random) -> None:
        self.commands, self.said, self.chance = commands, said, chance
        self.living: dict[int, Attempt] = {}
        self.kills = 0

    def carry_out(self, kills: int, pause: float) -> None:
        """Begin all, kill one after another at random, and begin it again; at last wait for all to end well."""
        for i, command in enumerate(self.commands):
            self.living[i] = Attempt(command, self.said.with_suffix(f".{i}.txt"))
        end = time.monotonic() + PATIENCE
        while self.living:
            assert time.monotonic() < end, "it does not end"
            self._settle()
            time.sleep(self.chance.uniform(0, 2 * pause) if self.kills < kills else 0.05)
            if self.kills < kills and self.living:
                self._kill(self.chance.choice(sorted(self.living)))

    def _settle(self) -> None:
        for i, attempt in list(self.living.items()):
            done, status = os.waitpid(attempt.child, os.WNOHANG)
            if done:
                said = self.said.with_suffix(f".{i}.txt")
                assert os.waitstatus_to_exitcode(status) == 0, f"{self.commands[i]}: {said.read_text()}"
                del self.living[i]

    def _kill(self, i: int) -> None:
        attempt = self.living[i]
        victims = [attempt.child, *tasks_of()]
        victim = self.chance.choice(victims)
        if victim == attempt.child:
            os.kill(victim, signal.SIGKILL)  # a submitting process alone: its tasks live on
            if os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]) == -signal.SIGKILL:
                self.kills += 1
                self.living[i] = Attempt(self.commands[i], self.said.with_suffix(f".{i}.txt"))
            else:
                del self.living[i]
        else:
            os.kill(victim, signal.SIGKILL)
            self.kills += 1


def tasks_of() -> list[int]:
    """The tasks that submitit has begun for a run in the working directory, whoever submitted them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            here = Path(os.readlink(path.parent / "cwd")) == Path.cwd()
        except OSError:
            continue
        if here and b"submitit.core._submit" in words:
            found.append(int(path.parent.name))
    return found


def until_killed(
    name: str, kills: int, base: Path, once: Callable[[], Any], shared: Callable[[int], int], seen: Callable[[], Any]
) -> None:
    """Share the work, begun anew each time, until so many kills were made; compare each end with an undisturbed one."""
    work = base.parent / "work"

    def anew() -> None:
        os.chdir(base)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        os.chdir(work)

    anew()
    once()
    undisturbed, made, runs = seen(), 0, 0
    while made < kills:
        anew()
        made, runs = made + shared(kills - made), runs + 1
        different = list(differences(undisturbed, seen()))
        assert not different, f"{name}: " + "\n".join(different[:20])
    print(f"{name}: {made} kills in {runs} runs", flush=True)


def main(root: Path, kills: int, seed: int) -> None:
    base, chance = begin(root), random.Random(seed)
    said = root / "said"

    def do(command: str) -> None:
        log = said.with_suffix(".txt")
        assert Attempt(command, log).wait() == 0, f"{command}: {log.read_text()}"

    def without_cluster() -> dict[str, Any]:
        """What a run holds, but for the tasks' logs and for who was to do it."""
        values = state(Path.cwd())
        kept = {name: of for name, of in values.items() if "/cluster/" not in name and "/tb/" not in name}
        return {name: of for name, of in kept.items() if not name.endswith("experiment.toml")}

    def run(most: int) -> int:
        do(f"{COMPARE} --name=new --prepare")
        shared = Shared([SUBMIT, WORK, WORK], said, chance)
        shared.carry_out(most, 0.7)
        do(f"{COMPARE} --name=new --workers=1")
        return shared.kills

    def store(most: int) -> int:
        shared = Shared([f"{EXTRACT} --part={i}/{PARTS}" for i in range(PARTS)], said, chance)
        shared.carry_out(most, 0.15)
        return shared.kills

    def in_turn() -> None:
        for i in range(PARTS):
            do(f"{EXTRACT} --part={i}/{PARTS}")

    until_killed("run", kills, base, lambda: do(f"{COMPARE} --name=new --workers=1"), run, without_cluster)
    until_killed("store", kills, base, in_turn, store, lambda: state(Path.cwd()))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]))
