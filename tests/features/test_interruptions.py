"""Whatever interrupts an extraction, at whatever moment, costs what was in flight; the rest is never computed again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from damage import SORTS, damaged
from extracting import ALONE, ONE, Fake, contents, extract, finished, leftovers, marks
from places import PATIENCE, ROOT
from refusals import refusal
from sounds import tone, tones
from torch import Tensor

from bas.corpora import Corpus
from bas.encoders import load_encoder
from bas.features.shard import shard_path
from bas.features.store import FeatureStore

pytestmark = pytest.mark.slow

# One process


class Stops(Fake):
    """Is interrupted in its n-th batch."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        if len(self.batches) == self.after:
            raise KeyboardInterrupt
        return super().encode(inputs)


def interrupted(corpus: Corpus, folder: Path, after: int, layers: Sequence[int] | None = None) -> None:
    """Leave `folder` as a run leaves it that stops after some batches of the first shard."""
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, folder, Stops(after), shard_bytes=ONE, group=ALONE, layers=layers)


def tear(folder: Path, how: str) -> None:
    spool, journal = folder / "shard-00000.spool", folder / "shard-00000.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    match how:
        case "nothing":
            pass
        case "line":
            journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:-3])
        case "line without its end":
            journal.write_bytes(b"".join(lines)[:-1])
        case "zeros for a line":
            journal.write_bytes(b"".join(lines[:-1]) + bytes(len(lines[-1]) - 1) + b"\n")
        case "spool longer":
            spool.write_bytes(spool.read_bytes() + b"half a batch")
        case "spool shorter":
            os.truncate(spool, spool.stat().st_size - 1)
        case "zeros at the spool's end":  # as a machine without power leaves what it had not written yet
            spool.write_bytes(spool.read_bytes()[:-8] + bytes(8))
        case "no spool":
            spool.unlink()
        case "no journal":
            journal.unlink()


@pytest.mark.parametrize(
    ("how", "lost"),
    [
        ("nothing", []),
        ("spool longer", []),
        ("line", ["u03", "u06"]),
        ("line without its end", ["u03", "u06"]),
        ("zeros for a line", ["u03", "u06"]),
        ("spool shorter", ["u03", "u06"]),
        ("zeros at the spool's end", ["u03", "u06"]),
        ("no spool", ["u01", "u03", "u04", "u06", "u07"]),
        ("no journal", ["u01", "u03", "u04", "u06", "u07"]),
    ],
)
def test_a_torn_spool_is_taken_up_where_it_is_whole(how: str, lost: list[str], corpus: Corpus, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "store", Fake()
    extract(corpus, tmp_path / "whole", shard_bytes=ONE)
    interrupted(corpus, folder, after=3)
    assert finished(folder, [0, 1, 2]) == {"u07", "u01", "u04", "u03", "u06"}
    tear(folder, how)
    assert "incomplete, 0 of 1 shards" in refusal(FeatureStore, folder)
    extract(corpus, folder, encoder, shard_bytes=ONE)
    assert sorted(encoder.seen) == marks(corpus, "u00", "u02", "u05", *lost)
    assert contents(folder) == contents(tmp_path / "whole")
    assert leftovers(folder) == []


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("suffix", ["spool", "journal"])
def test_a_fault_of_what_was_not_finished_is_encoded_again(
    suffix: str, sort: str, corpus: Corpus, tmp_path: Path
) -> None:
    interrupted(corpus, tmp_path / "cut", after=3)
    whole = contents(extract(corpus, tmp_path / "whole", shard_bytes=ONE).folder)
    for number, raw in enumerate(damaged((tmp_path / f"cut/shard-00000.{suffix}").read_bytes(), sort, 20)):
        folder = tmp_path / f"store{number}"
        shutil.copytree(tmp_path / "cut", folder)
        (folder / f"shard-00000.{suffix}").write_bytes(raw)
        extract(corpus, folder, shard_bytes=ONE)
        assert contents(folder) == whole, f"fault {number}"


def test_the_journal_names_checksums_of_every_layer(corpus: Corpus, tmp_path: Path) -> None:
    interrupted(corpus, tmp_path / "store", after=3)
    lines = (tmp_path / "store/shard-00000.journal").read_text().splitlines()
    done = [entry for line in lines for entry in json.loads(line[9:])["done"]]
    assert [len(json.loads(line[9:])["done"]) for line in lines] == [1, 2, 2]
    assert all(len(crc32) == 3 for _, _, _, crc32 in done)


def test_batches_that_end_at_the_same_moment_are_written_in_order(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a loaded machine several are done when the writer looks; a set of them has no order."""
    monkeypatch.setattr(
        "bas.features.extract.wait",
        lambda running, return_when: SimpleNamespace(done=list(reversed([*running])) if futures.wait(running) else []),
    )
    interrupted(corpus, tmp_path / "store", after=3)
    lines = (tmp_path / "store/shard-00000.journal").read_text().splitlines()
    assert [[id_ for id_, *_ in json.loads(line[9:])["done"]] for line in lines] == [
        ["u07"],
        ["u01", "u04"],
        ["u03", "u06"],
    ]


def test_nothing_waits_for_the_disk_after_a_batch(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor))
    extract(corpus, tmp_path / "store", shard_bytes=ONE, batch_seconds=0.01)
    assert len(synced) == 3  # the plan, the one shard, the store


def test_what_is_not_held_yet_may_be_another_recording_by_now(corpus: Corpus, tmp_path: Path) -> None:
    interrupted(corpus, tmp_path / "store", after=3)
    tone(corpus.utterances[5].audio, 0.2, hertz=999.0)
    store = extract(corpus, tmp_path / "store", shard_bytes=ONE)
    assert store.info.identity == extract(corpus, tmp_path / "whole").info.identity
    assert (
        contents(tmp_path / "store")[0][0] == contents(extract(corpus, tmp_path / "one", shard_bytes=ONE).folder)[0][0]
    )


def test_what_the_journal_names_may_not(corpus: Corpus, tmp_path: Path) -> None:
    interrupted(corpus, tmp_path / "store", after=3)
    tone(corpus.utterances[6].audio, 0.41, hertz=999.0)
    encoder = Fake()
    assert "u06 was extracted from another recording" in refusal(
        extract, corpus, tmp_path / "store", encoder, shard_bytes=ONE
    )
    assert encoder.seen == []


def test_layers_that_were_being_added_are_by_the_same_command(corpus: Corpus, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "store", Fake()
    extract(corpus, folder, layers=[1], shard_bytes=ONE)
    interrupted(corpus, folder, after=3, layers=[0])
    assert FeatureStore(folder).info.layers == (1,), "readable as it was"
    message = refusal(extract, corpus, folder, layers=[2], shard_bytes=ONE)
    assert "an extraction of layers 0, 1 is under way here; finish it with these --layers" in message
    assert extract(corpus, folder, encoder, layers=[0], shard_bytes=ONE).info.layers == (0, 1)
    assert sorted(encoder.seen) == marks(corpus, "u00", "u02", "u05")
    extract(corpus, tmp_path / "whole", layers=[0, 1], shard_bytes=ONE)
    assert contents(folder) == contents(tmp_path / "whole")


def test_utterances_may_join_while_it_is_interrupted(corpus: Corpus, tmp_path: Path) -> None:
    fewer, encoder = replace(corpus, utterances=corpus.utterances[1:]), Fake()
    interrupted(fewer, tmp_path / "store", after=3)
    store = extract(corpus, tmp_path / "store", encoder, shard_bytes=ONE)
    assert [len(ids) for ids in store.info.shards] == [7, 1]
    assert sorted(encoder.seen) == marks(corpus, "u00", "u02", "u05")


def test_batches_may_be_cut_otherwise_when_it_goes_on(corpus: Corpus, tmp_path: Path) -> None:
    extract(corpus, tmp_path / "whole", shard_bytes=ONE)
    interrupted(corpus, tmp_path / "store", after=2)
    extract(corpus, tmp_path / "store", shard_bytes=ONE, batch_seconds=0.01)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


@pytest.mark.parametrize("complete", [False, True])
def test_half_written_files_are_never_read_and_go(complete: bool, corpus: Corpus, tmp_path: Path) -> None:
    folder, encoder = tmp_path / "store", Fake()
    if complete:  # killed between the shard's renaming and the removal of its spool
        extract(corpus, folder, shard_bytes=ONE)
        for left in ("shard-00000.spool", "shard-00000.journal", "shard-00001.h5", "shard-00000.h5.4194305.tmp"):
            (folder / left).write_bytes(b"left")
    else:
        interrupted(corpus, folder, after=2)
        for left in ("shard-00000.h5.4194305.tmp", "store.json.4194305.tmp"):
            (folder / left).write_bytes(b"left")
    extract(corpus, folder, encoder, shard_bytes=ONE)
    assert (encoder.seen == []) == complete
    assert leftovers(folder) == []
    assert [p.name for p in folder.glob("*.h5")] == ["shard-00000.h5"]


def test_a_spool_left_beside_its_shard_goes_when_the_store_is_made(corpus: Corpus, tmp_path: Path) -> None:
    """Killed after the first of several shards took its name."""
    folder = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, folder, Stops(3), group=ALONE)
    assert shard_path(folder, 0).exists()
    for suffix in (".spool", ".journal"):
        shard_path(folder, 0).with_suffix(suffix).write_bytes(b"left")
    extract(corpus, folder)
    assert leftovers(folder) == []


# Killed processes


def program(*words: object) -> str:
    """What `killing.py` prints, in a process that may fork: it has used no thread yet."""
    path = ROOT / "tests/helpers/killing.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(path), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("processes", [1, 3])
def test_thirty_kills_at_random_moments(processes: int, tmp_path: Path) -> None:
    """Of one process, and of any or all of three: at random writes, renames and removals, and at any time."""
    assert int(program("rounds", tmp_path, 30, processes, 0)) >= 30


def test_a_living_process_is_waited_for_and_a_dead_ones_shard_taken_over(tmp_path: Path) -> None:
    assert int(program("take_over", tmp_path)) == 3


def workers(parent: int) -> Iterator[tuple[int, str]]:
    """The processes that torchrun has started by now, with their ranks."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1]) == parent:
                environment = dict(
                    x.split(b"=", 1) for x in entry.joinpath("environ").read_bytes().split(b"\0") if b"=" in x
                )
                yield int(entry.name), environment[b"RANK"].decode()
        except (OSError, KeyError, IndexError):
            continue


def until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not what():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_torchrun_starts_again_what_was_killed(tmp_path: Path) -> None:
    corpus, folder = tones(tmp_path / "recordings", tuple(0.5 + i / 1000 for i in range(600))), tmp_path / "store"
    lines = [json.dumps({"id": u.id, "audio": str(u.audio), "label": "a"}) for u in corpus.utterances]
    (tmp_path / "tones.jsonl").write_text("\n".join(lines))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    words = ["--corpus=manifest", f"--root={tmp_path / 'tones.jsonl'}", "--encoder=log-mel", f"--features={folder}"]
    process = subprocess.Popen(
        [*torchrun, "-m", "bas", "extract", "--device=cpu", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    )
    try:
        ranks: dict[str, int] = {}

        def begun() -> bool:
            ranks.update({rank: pid for pid, rank in workers(process.pid)})
            return "1" in ranks and any(p.stat().st_size for p in folder.glob("*.journal"))

        until(begun, process)
        os.kill(ranks["1"], signal.SIGKILL)
        assert not (folder / "store.json").exists(), "killed too late to tell anything"
        output = process.communicate(timeout=PATIENCE)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "signal" in output.lower(), "torchrun saw a worker die"
    assert f"features: {folder}, complete" in output
    store = FeatureStore(folder)
    assert len(store.ids) == len(set(store.ids)) == 600
    assert len(store.info.shards) >= 16, "there is work for both"
    assert leftovers(folder) == []
    alone = extract(corpus, tmp_path / "alone", load_encoder("log-mel", torch.device("cpu")), shard_bytes=10**9)
    assert store.info.identity == alone.info.identity
    for id_ in store.ids[::20]:
        assert torch.allclose(torch.from_numpy(store.read(id_, 0)), torch.from_numpy(alone.read(id_, 0)), rtol=2e-3)
