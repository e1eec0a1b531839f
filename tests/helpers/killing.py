"""Extractions that are killed and started again, in processes that can be: run as a program, `killing.py VERB FOLDER`.

It forks, so nothing in it may have started a thread; that is why it is no test itself.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from extracting import Fake, contents, extract, finished, leftovers, marks
from places import PATIENCE
from sounds import tones

from bas.corpora import Corpus
from bas.features import extract as extraction
from bas.features import spool as spools
from bas.features.extract import Group
from bas.features.shard import Shard, shard_path
from bas.features.store import FeatureStore, StoreInfo

DURATIONS = (0.3, 0.2, 0.3, 0.25, 0.2, 0.35, 0.25, 0.1) * 3
SHARD_BYTES = 2_000
CREW, BATCH = 2, 2  # threads; utterances in a batch of BATCH_SECONDS
BATCH_SECONDS = 0.7
IN_FLIGHT = 2 * CREW * BATCH  # utterances that a kill may cost


def die_at(moment: int) -> None:
    """SIGKILL this process at its n-th write, rename, removal or fsync: before it, or half way through a write."""
    left = iter(range(moment))

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if next(left, None) is None:
                if call is write and moment % 2:
                    write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return wrapped

    write = spools._write
    spools._write = deadly(write)
    for where, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        setattr(where, name, deadly(getattr(where, name)))


@dataclass
class Stage:
    """One extraction that is to be completed, whatever is killed."""

    corpus: Corpus
    folder: Path
    log: Path
    layers: Sequence[int]  # asked for
    held: Sequence[int]  # in the store by then
    shard_bytes: int = SHARD_BYTES
    batch_seconds: float = BATCH_SECONDS

    def start(self, group: Group, moment: int | None) -> int:
        """Its process."""
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            extraction.CREW = {"cpu": CREW}
            extraction.POLL_SECONDS = 0.01
            if moment is not None:
                die_at(moment)
            self.carry_out(Fake(self.log, pause=0.004), group)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def carry_out(self, encoder: Fake, group: Group) -> None:
        extract(
            self.corpus,
            self.folder,
            encoder,
            layers=self.layers,
            shard_bytes=self.shard_bytes,
            batch_seconds=self.batch_seconds,
            group=group,
        )

    def finished(self) -> set[str]:
        return finished(self.folder, self.held) if self.folder.exists() else set()

    def encoded(self) -> list[int]:
        return list(map(int, self.log.read_text().splitlines()))


@dataclass
class Kills:
    chance: random.Random
    number: int = 0
    moments: int = 40  # among which one is chosen to be killed at
    named: dict[int, set[str]] = field(default_factory=dict)  # what was finished when so many had been encoded

    def plan(self, share: float) -> int | None:
        return self.chance.randrange(self.moments) if self.chance.random() < share else None

    def check(self, stage: Stage, before: set[str], kills: int) -> None:
        """Every utterance was encoded, none that was finished before a kill again, and few because of a kill."""
        mark_of = {u.id: marks(stage.corpus, u.id)[0] for u in stage.corpus.utterances}
        encoded = stage.encoded()
        for position, ids in self.named.items():
            again = {mark_of[i] for i in ids} & set(encoded[position:])
            assert not again, f"encoded though finished: {again}"
        counts = Counter(encoded)
        wanted = {mark_of[i] for i in mark_of if i not in before}
        assert set(counts) == wanted, (
            f"{len(wanted - set(counts))} never encoded, {len(set(counts) - wanted)} for nothing"
        )
        assert counts.total() - len(counts) <= kills * IN_FLIGHT, "a kill costs what is in flight at most"


def reaped(children: dict[int, int], block: bool) -> dict[int, bool]:
    """By rank, whether a process that ended was killed. A process that fails by itself is an error."""
    reaped_by = {}
    for rank, child in list(children.items()):
        done, status = os.waitpid(child, 0 if block else os.WNOHANG)
        if done:
            reaped_by[rank] = os.WIFSIGNALED(status)
            assert reaped_by[rank] or os.WEXITSTATUS(status) == 0, "an extraction failed by itself"
            del children[rank]
    return reaped_by


def survive(stage: Stage, kills: Kills, size: int) -> None:
    """Start, kill and start again, a random one or all, until every process of the group has ended well."""
    stage.log.write_text("")
    before, begun = stage.finished(), kills.number
    kills.named = {}
    children: dict[int, int] = {}
    waiting, session, deadline = set(range(size)), 0, time.monotonic() + PATIENCE
    while waiting or children:
        assert time.monotonic() < deadline, f"never ends: {list(stage.folder.iterdir())}"
        if not children and kills.chance.random() < 0.7:
            session += 1  # as torchrun, which starts all of them again
        for rank in sorted(waiting):
            group = Group(rank, 1, rank, 1, f"session {session}" if size > 1 else "")
            children[rank] = stage.start(group, kills.plan(0.6))
        waiting.clear()
        if kills.chance.random() < 0.6:
            time.sleep(kills.chance.uniform(0.01, 0.2))
            for rank in list(children) if kills.chance.random() < 0.3 else [kills.chance.choice(list(children))]:
                with suppress(ProcessLookupError):
                    os.kill(children[rank], signal.SIGKILL)
        else:
            time.sleep(0.02)
        ended = reaped(children, block=size == 1)
        waiting |= {rank for rank, killed in ended.items() if killed}
        kills.number += len(waiting)
        if waiting:
            ids = stage.finished()
            kills.named[len(stage.encoded())] = ids
    kills.check(stage, before, kills.number - begun)


def stages(folder: Path, log: Path, corpus: Corpus) -> list[Stage]:
    """Some utterances, one more layer of them, then the other utterances."""
    fewer = replace(corpus, utterances=corpus.utterances[:16])
    return [
        Stage(fewer, folder, log, [0, 2], [0, 2]),
        Stage(fewer, folder, log, [1], [0, 1, 2]),
        Stage(corpus, folder, log, [0, 1, 2], [0, 1, 2]),
    ]


def rounds(root: Path, wanted: int, size: int, seed: int) -> int:
    """Whole lives of stores under kills, each compared with one that nothing disturbed; the number of kills."""
    torch.set_num_threads(1)
    corpus, log = tones(root / "recordings", DURATIONS), root / "log"
    lives: list[Path] = []
    kills = Kills(random.Random(seed))
    while kills.number < wanted:
        lives.append(root / f"store{len(lives)}")
        for stage in stages(lives[-1], log, corpus):
            survive(stage, kills, size)
            assert leftovers(stage.folder) == [], leftovers(stage.folder)
            store = FeatureStore(stage.folder)  # readable after every stage
            assert sorted(store.ids) == sorted(u.id for u in stage.corpus.utterances)
    # Last, for it starts threads.
    for stage in stages(root / "undisturbed", log, corpus):
        stage.carry_out(Fake(), Group())
    for folder in lives:
        assert contents(folder) == contents(root / "undisturbed"), folder
        info = FeatureStore(folder).info
        for index in range(len(info.shards)):
            assert Shard(shard_path(folder, index), info.encoder).damaged() == []
    return kills.number


class Stuck(Fake):
    """Encodes three batches and no more."""

    def encode(self, inputs: Any) -> Any:
        if len(self.batches) == 3:
            time.sleep(PATIENCE)
        return super().encode(inputs)


def take_over(root: Path) -> int:
    """A holds the first shard and hangs; B does all others, waits for A, and goes on with A's when it is killed."""
    torch.set_num_threads(1)
    corpus = tones(root / "recordings", DURATIONS)
    # Each utterance alone, and about ten of them in each of three shards.
    stage = Stage(corpus, root / "store", root / "log", [0, 1, 2], [0, 1, 2], shard_bytes=4_000, batch_seconds=0.01)
    stage.log.write_text("")

    def start(rank: int, encoder: Fake) -> int:
        child = os.fork()
        if child == 0:
            extraction.CREW, extraction.POLL_SECONDS, code = {"cpu": 1}, 0.01, 1
            try:
                stage.carry_out(encoder, Group(rank, 1, rank, 2, "together"))
                code = 0
            finally:
                os._exit(code)
        return child

    def wait_for(what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert time.monotonic() < end, sorted(p.name for p in stage.folder.iterdir())
            time.sleep(0.005)

    a = start(0, Stuck(stage.log))
    wait_for(lambda: len(stage.finished()) == sum(Counter(stage.encoded()).values()) == 3)
    of_a = len(stage.encoded())
    b = start(1, Fake(stage.log))
    others = [shard_path(stage.folder, i) for i in range(1, 20)]
    plan = StoreInfo.read_plan(stage.folder)
    assert plan is not None
    number = len(plan.shards)
    wait_for(lambda: sum(p.exists() for p in others) == number - 1)
    time.sleep(0.1)
    assert not shard_path(stage.folder, 0).exists()
    assert os.waitpid(b, os.WNOHANG) == (0, 0), "B waits for the living holder"
    os.kill(a, signal.SIGKILL)
    os.waitpid(a, 0)
    assert os.waitpid(b, 0)[1] == 0
    assert sorted(stage.encoded()) == marks(corpus), "what A had journaled was not encoded again"
    assert FeatureStore(stage.folder).ids
    assert leftovers(stage.folder) == []
    stage = replace(stage, folder=root / "undisturbed")
    stage.carry_out(Fake(), Group())
    assert contents(root / "store") == contents(root / "undisturbed")
    assert np.array_equal(FeatureStore(root / "store").read("u00", 1), FeatureStore(stage.folder).read("u00", 1))
    return of_a


if __name__ == "__main__":
    verb, folder, *numbers = sys.argv[1:]
    verbs: dict[str, Callable[..., int]] = {"rounds": rounds, "take_over": take_over}
    print(verbs[verb](Path(folder), *map(int, numbers)))
