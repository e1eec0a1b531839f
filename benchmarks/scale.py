"""What a large corpus costs before anything is trained: seconds and memory of each step, by number of utterances.

`python benchmarks/scale.py --utterances 10000 100000 --folder FOLDER` writes scale.md. The corpus is made here, once
for each number: a manifest, recordings of noise of 0.05 to 0.2 s, and a store of one state of width 8 in shards of
4,096 utterances. So steps that go by utterance, file or shard are measured at their full number, and those that go by
hours of audio or bytes of features are not. Each step is a process of its own, and the disk's cache is warm. What was
measured stays in FOLDER, and is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from features import QUIET, commit, machine

PAGE = Path(__file__).with_suffix(".md")
PER_SHARD, WIDTH, RATE = 4096, 8, 16_000
SPEAKERS, EMOTIONS = 200, ("anger", "happiness", "neutral", "sadness")


# The data


def make_corpus(folder: Path, count: int) -> Path:
    """A manifest of so many recordings of noise, with their files, a thousand in a folder."""
    chance, manifest = np.random.default_rng(0), folder / "corpus.csv"
    if manifest.exists():
        return manifest
    shutil.rmtree(folder, ignore_errors=True)
    noise = chance.integers(-9000, 9000, 2 * count + 3200, dtype="<i2")
    lengths, speakers = chance.integers(800, 3200, count), chance.integers(SPEAKERS, size=count)
    emotions = chance.integers(len(EMOTIONS), size=count)
    lines = ["id,audio,label,speaker,sex,text"]
    for i, (length, speaker, emotion) in enumerate(zip(lengths, speakers, emotions, strict=True)):
        if i % 1000 == 0:
            (folder / f"{i // 1000:04d}").mkdir(parents=True)
        name, sound = f"{i // 1000:04d}/{i:07d}.wav", noise[2 * i : 2 * i + length].tobytes()
        # By hand: a library takes ten times as long.
        form = struct.pack(
            "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(sound), b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16
        )
        (folder / name).write_bytes(form + struct.pack("<4sI", b"data", len(sound)) + sound)
        sex = ("female", "male")[speaker % 2]
        lines.append(f"{i:07d},{name},{EMOTIONS[emotion]},s{speaker},{sex},sentence {i % 50000}")
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return manifest


def make_store(manifest: Path) -> None:
    """A store of the corpus, as an extraction plans it, with made-up states."""
    from bas.corpora import open_corpus
    from bas.encoders.base import EncoderInfo
    from bas.features.plan import survey
    from bas.features.shard import Contents, checksum, offsets, shard_path, write_shard
    from bas.features.store import StoreInfo

    folder = manifest.parent / "store"
    if (folder / "store.json").exists():
        return
    folder.mkdir(exist_ok=True)
    corpus = open_corpus("manifest", manifest)
    recordings, _ = survey(corpus, QUIET)
    ids = sorted(recordings)
    shards = tuple(tuple(ids[i : i + PER_SHARD]) for i in range(0, len(ids), PER_SHARD))
    encoder = EncoderInfo("made up", "none", "hubert", 1, WIDTH, 50.0)
    info = StoreInfo(
        "manifest", str(manifest.resolve()), encoder.to_dict(), (0,), shards, recordings, {}, "cpu", "float16"
    )
    states_ND = np.random.default_rng(1).standard_normal((16, WIDTH)).astype("float16")
    for index, held in enumerate(shards):
        frames = [max(1, round(recordings[id_][1] * 50 / RATE)) for id_ in held]
        crc32 = np.array([[checksum(states_ND[:count]) for count in frames]], dtype=np.uint32)
        digests = tuple(recordings[id_][0] for id_ in held)
        contents = Contents(info.encoder, "float16", (0,), held, offsets(frames), crc32, digests, {})
        write_shard(shard_path(folder, index), contents, partial(_states, states_ND, frames))
    info.write(folder / "store.json")


def _states(states_ND: np.ndarray, frames: list[int], _layer: int, u: int) -> np.ndarray:
    return states_ND[: frames[u]]


# The steps


def manifest_step(manifest: Path) -> None:
    from bas.corpora import open_corpus

    open_corpus("manifest", manifest)


def open_step(manifest: Path) -> None:
    from bas.features.store import FeatureStore

    FeatureStore(manifest.parent / "store")


def protocol_step(manifest: Path) -> None:
    from bas.corpora import open_corpus
    from bas.protocols import make
    from bas.tasks import EMOTION

    make(open_corpus("manifest", manifest), EMOTION, "speaker:5")


def verify_step(manifest: Path) -> None:
    from bas.features.verify import verify

    found = list(verify(manifest.parent / "store", QUIET, torch.device("cpu"), sample=0))
    assert not any(one.problems for one in found), found


def begin_step(manifest: Path) -> None:
    """Begin a run, or with one there go on with it: what every verb does before its first training."""
    import bas

    os.chdir(manifest.parent)  # a run is a folder in runs/
    bas.prepare("compare", _experiment(manifest))


def _experiment(manifest: Path) -> dict[str, Any]:
    """The smallest networks, for one epoch: what is measured is what surrounds them."""
    space = Path(__file__).parents[1] / "search_spaces" / "ser_bas3.py"
    settings = {"epochs": 1, "width": 8, "batch_size": 256, "strategy": "gumbel", "committee": 1}
    given = {"features": [str(manifest.parent / "store")], "spaces": [str(space)], "seeds": 2, "device": "cpu"}
    return {**given, "name": "run", "preset": "cpu", "settings": settings, "protocol": {"rule": "speaker:5"}}


def compare_step(manifest: Path) -> None:
    """The trainings and the table; once all is done, the table alone."""
    import bas

    os.chdir(manifest.parent)
    bas.compare(_experiment(manifest))


def join_step(manifest: Path) -> None:
    """Open the run as a worker does, to do its jobs beside others."""
    from bas.runs.session import Session
    from bas.runs.start import reopen

    Session(reopen(manifest.parent / "runs/run", beside=True))


def read_step(manifest: Path) -> None:
    """Load the features, as a worker does before its first training."""
    from bas.runs.session import Session

    Session(manifest.parent / "runs/run").data(0, 1)


Step = Callable[[Path], None]
STEPS: dict[str, tuple[Step, str]] = {
    "manifest": (manifest_step, "read the manifest and look up its recordings"),
    "open": (open_step, "open the store"),
    "verify": (verify_step, "`bas features verify`: every byte of features, every recording"),
    "protocol": (protocol_step, "`bas protocol`: split by speaker, and compare all recordings"),
    "begin": (begin_step, "begin the first run of `compare` on the store"),
    "again": (begin_step, "go on with it: what each verb does before its first training"),
    "join": (join_step, "open it in one more worker"),
    "load": (read_step, "open it and load a state of all utterances"),
    "train": (compare_step, "its 50 trainings and searches, as small as they get"),
    "table": (compare_step, "`compare` with everything done: the table and the report"),
}
TRAINED = 100_000  # utterances; more would take hours, of networks alone


# The page


Figures = dict[str, tuple[float, float]]


def measure(name: str, manifest: Path) -> tuple[float, float]:
    """Seconds of the step, and the most memory that its process had, in GiB."""
    command = [sys.executable, __file__, "--step", name, "--folder", str(manifest)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"benchmarks/scale.py: {name}: {done.stderr}")
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def run_step(name: str, manifest: Path) -> None:
    import bas.api
    import bas.runs.session  # noqa: F401  what is measured begins after the heavy imports

    begun = time.perf_counter()
    STEPS[name][0](manifest)
    seconds = time.perf_counter() - begun
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def page(figures: dict[int, Figures]) -> str:
    """The page: a row a step."""
    counts = " ".join(map(str, figures))
    head = " | ".join(f"{count:,} utterances" for count in figures)
    lines = [
        "# What a large corpus costs before anything is trained",
        "",
        f"`python benchmarks/scale.py --utterances {counts} --folder FOLDER`, {date.today()}, commit {commit()}, "
        f"on {machine(torch.device('cpu'))}.",
        "",
        " ".join(__doc__.split("\n\n")[1].split("scale.md. ")[1].split()),
        "Seconds, and the most memory that the step's process had, which is the imports' alone for small corpora.",
        "",
        f"| step | {head} |",
        f"| --- |{' --- |' * len(figures)}",
    ]
    for name, (_, words) in STEPS.items():
        cells = (f"{of[name][0]:,.1f} s, {of[name][1]:.1f} GiB" if name in of else "–" for of in figures.values())
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, nargs="+", default=[10_000, 100_000], help="default: %(default)s")
    parser.add_argument("--folder", type=Path, required=True, help="for corpora and stores, kept for the next time")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=STEPS, nargs="+", help="measure these steps alone, again")
    arguments = parser.parse_args()
    if arguments.step:
        return run_step(arguments.step, arguments.folder)
    figures: dict[int, Figures] = {}
    for count in arguments.utterances:
        manifest = make_corpus(arguments.folder / str(count), count).resolve()
        make_store(manifest)
        there = manifest.parent / "figures.json"
        figures[count] = json.loads(there.read_text()) if there.exists() else {}
        for name in arguments.only or [name for name in STEPS if name not in figures[count]]:
            if name in ("train", "table") and count > TRAINED:
                continue
            if name == "begin":
                shutil.rmtree(manifest.parent / "runs", ignore_errors=True)
                (manifest.parent / "store" / "compared.json").unlink(missing_ok=True)
            figures[count][name] = measure(name, manifest)
            there.write_text(json.dumps(figures[count]))
            print(f"{count} {name}: {figures[count][name]}", flush=True)
    PAGE.write_text(page(figures), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
