"""Every verb on one tiny corpus, and its numbers as lines of text: what a change of the house must leave as it is.

`python tests/golden/verbs.py` prints them; `make golden` writes them to numbers.txt beside this file, and
tests/test_golden.py compares. The corpus is made of noise and buzzes on the spot; its numbers say nothing about speech.

A line of a training holds its losses and a digest of its predictions; a line of a page, the cells of a table's row.
What is left out is time: columns of seconds, and results that hold nothing else.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import soundfile
import torch

from bas.cli.main import main
from bas.encoders import NANO
from bas.features.store import FeatureStore
from bas.runs import plan
from bas.studies.probe import few
from bas.training.settings import RACES, STRATEGIES

RATE, SPEAKERS, TAKES = 16_000, 6, 4
SENTENCES = ("der hund bellt laut", "das auto fährt schnell", "wir essen gern kuchen", "ein vogel singt draussen")
SPACE = '''"""Four architectures."""
from functools import partial
from bas.blocks import FFN, MSA, MeanPool
from bas.space import SearchSpace

layer = {"MSA": partial(MSA, num_heads=2), "FFN": FFN}
space = SearchSpace(slots={"layer1": layer, "layer2": layer}, pool=MeanPool)
'''
WIDE = '''"""Linear models among the architectures."""
from bas.blocks import FFN, MeanPool, QuantilePool, Skip, StatisticsPool
from bas.space import SearchSpace

slot = {"none": Skip, "FFN": FFN}
pool = {"mean": MeanPool, "statistics": StatisticsPool, "quantiles": QuantilePool}
space = SearchSpace({"layer1": slot, "layer2": slot}, pool)
'''
TIMES = ("s", "seconds")
"""Heads of a page's columns that hold seconds, a search's and a training's."""


def corpus(root: Path) -> Path:
    """A manifest of six speakers: who buzzes higher and brighter is "a"; words have times, listeners shares."""
    rng = np.random.default_rng(0)
    rows = []
    for s in range(SPEAKERS):
        for label in "ab":
            for take in range(TAKES):
                text = SENTENCES[take]
                seconds = float(rng.uniform(0.5, 0.7))
                time_S = np.arange(round(seconds * RATE)) / RATE
                hertz_S = (110 + 12 * s + 40 * (label == "a")) * (1 + 0.1 * np.sin(2 * np.pi * 3 * time_S))
                phase_S = 2 * np.pi * np.cumsum(hertz_S) / RATE
                tilt = 0.8 if label == "a" else 1.6
                wave_S = np.sum([np.sin(k * phase_S) / k**tilt for k in range(1, 16)], axis=0)
                wave_S = 0.1 * wave_S + 0.02 * rng.standard_normal(time_S.size)
                id_ = f"s{s}{label}{take}"
                soundfile.write(root / f"{id_}.wav", np.clip(wave_S, -1, 1), RATE)
                edges = np.linspace(0.05, seconds - 0.05, len(text.split()) + 1)
                words = [[round(a, 3), round(b, 3), w] for a, b, w in zip(edges, edges[1:], text.split(), strict=False)]
                share = float(rng.integers(0, 11)) / 10
                rows.append(
                    {
                        **{"id": id_, "audio": f"{id_}.wav", "label": label, "speaker": f"s{s}", "text": text},
                        **{"sex": ("female", "male")[s % 2], "language": "de", "raters": 10},
                        **{"words": json.dumps(words), "shares": json.dumps({"awe": share, "fear": 1 - share / 2})},
                    }
                )
    path = root / "cups.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def do(*words: str) -> None:
    """Carry out one command line; what it says goes nowhere, unless it fails."""
    said = StringIO()
    with redirect_stdout(said):
        code = main(list(words))
    assert code == 0, (words, said.getvalue())


def changes(**values: object) -> list[str]:
    return [f"--set={name}={value}" for name, value in values.items()]


def run_all(root: Path) -> None:
    """Every verb, in the folder `root`."""
    table, one = ["--corpus=manifest", f"--root={corpus(root)}"], ["--seeds=1", "--workers=1"]
    (root / "four.py").write_text(SPACE, encoding="utf-8")
    (root / "wide.py").write_text(WIDE, encoding="utf-8")
    do("corpus", "export", *table, "--to=export.csv")
    do("protocol", "make", *table, "--protocol=speaker:3", "--to=split.json")
    do("protocol", "check", "split.json", *table)
    do("extract", *table, f"--encoder={NANO}", "--layers=0,3,6", "--features=nano")
    do("extract", *table, "--encoder=log-mel", "--features=mel")
    for store in ("nano", "mel"):
        do("features", "verify", store)
    do("features", "derive", "nano", "--pooling=mean", "--into=means")
    small = changes(epochs=2, width=16, batch_size=8)
    for strategy in STRATEGIES:
        space = "wide" if strategy in RACES else "four"
        run = [*one, "--layer=middle", f"--space={space}.py", "--protocol=speaker:2", f"--name=cpu-{strategy}"]
        verb = "compare" if strategy == "single-path" else "retrain"  # the baselines are the same for all
        rows = changes(committee=2, ensemble=2, budget=8) if strategy in RACES else changes(committee=1)
        do(verb, "--features=nano", *run, *small, f"--set=strategy={strategy}", *rows)
    paper = [*one, "--preset=paper", "--layer=mix", "--space=four.py", "--space=ser_bas3", "--protocol=speaker:2"]
    for verb in ("search", "retrain", "compare"):
        do(verb, "--features=nano", *paper, "--name=paper", *changes(epochs=2, width=16, stride=2))
    alone = changes(strategy="single-path", committee=1)
    best = ["--layer=best", "--space=four.py", "--protocol=speaker:3", "--name=mel-best", "--workers=2", "--seeds=2"]
    do("compare", "--features=mel", *best, *changes(epochs=2, width=16, batch_size=8, normalise="speaker"), *alone)
    audit = [*one, "--space=four.py", "--layer=3", "--protocol=speaker:2", "--name=audit", "--variant=residual=every"]
    do("audit", "--features=nano", *audit, "--strategy=single-path", "--strategy=gumbel", *small)
    for mode in ("blocks", "search"):
        tune = [*one, "--space=four.py", "--layer=3", "--protocol=speaker:60/20/20", f"--name=tune-{mode}"]
        do("tune", "--features=nano", *tune, f"--tune={mode}", "--trials=3", *small, "--set=strategy=gumbel")
    do("protocol", "cost", "--features=nano", *one, "--layer=3", "--space=four.py", "--name=cost", *small)
    with mock.patch.object(few, "DRAWS", 2):
        probe = ["--features", "nano", "mel", *one, "--protocol=speaker:2", "--percent", "50", "--name=probe"]
        do("probe", *probe, *changes(epochs=2, batch_size=8))
    words = [*one, "--protocol=speaker:2", "--text-encoder=random", "--name=words"]
    do("words", "--features", "nano", *words, *changes(epochs=2, batch_size=8))
    shares = [*one, "--protocol=speaker:2", "--layer=3", "--metadata", "sex", "--name=shares"]
    do("shares", "--features", "nano", *shares, *small)
    tuning = changes(epochs=2, batch=16, micro_batch=8, evaluate_every=1, checkpoint_every=2, lr=0.001)
    do("dynamics", *table, f"--encoder={NANO}", "--protocol=speaker:3", "--rotations=1", "--name=dynamics", *tuning)


def lines(root: Path) -> Iterator[str]:
    """The numbers of all that lies under `root`, in a fixed order."""
    yield f"# bas on {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"
    yield f"split: {json.loads((root / 'split.json').read_text())['hash']}"
    for name in ("nano", "mel", "means"):
        yield from _features(name, root / name)
    for run in sorted(p for p in root.glob("runs/*") if p.is_dir() and p.name not in ("features", "protocols")):
        for folder in sorted({p.parent for p in run.rglob("jobs/*.json")}):
            yield from _jobs(folder.relative_to(root / "runs").parent.as_posix(), folder)
        for page in sorted(run.glob("*.md")):
            yield from _page(f"{run.name}/{page.name}", page.read_text(encoding="utf-8"))


def _features(name: str, folder: Path) -> Iterator[str]:
    store = FeatureStore(folder)
    for layer in store.info.layers:
        x_TD = np.concatenate([store.read(id_, layer) for id_ in store.ids[:4]]).astype(np.float64)
        yield f"{name} state {layer}: {x_TD.shape}, mean {_short(x_TD.mean())}, deviation {_short(x_TD.std())}"


def _jobs(run: str, folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        shown = [f"{key} {value}" for key, value in _leaves(result) if key]
        yield f"{run} {path.stem}: {', '.join(shown)}"


def _leaves(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What a job's result says: its choice, the losses of its last epoch, a digest of its predictions."""
    if "architecture" in result:
        yield "blocks", " > ".join(result["architecture"].values())
    result = {**result, **result["networks"][0]} if "networks" in result else result
    for key in ("layer", "parameters", "kept_epoch", "strength"):
        if key in result:
            yield key, _short(result[key]) if isinstance(result[key], float) else str(result[key])
    if result.get("epochs"):
        last = result["epochs"][-1]
        yield "loss", _short(last["loss"])
        if last.get("valid"):
            yield "valid", _short(last["valid"]["loss"])
    yield "tested", f"{_digest(list(_predictions(result))):08x}"


def _predictions(result: Any) -> Iterator[Any]:
    if isinstance(result, dict):
        for key, value in sorted(result.items()):
            if key == "predictions":
                yield value
            else:
                yield from _predictions(value)
    elif isinstance(result, list):
        for value in result:
            yield from _predictions(value)


def _digest(values: list[Any]) -> int:
    """Of predictions; those that are no class are rounded first."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode()) if values else 0


def _page(name: str, text: str) -> Iterator[str]:
    """The rows of a page's tables, without their columns of seconds."""
    head: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            head = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        if head is None:
            head = cells
        elif set(line) - set("|-: "):
            kept = [c for h, c in zip(head, cells, strict=True) if h not in TIMES]
            yield f"{name}: {' | '.join(kept)}"


def _short(value: float) -> str:
    return f"{value:.4g}"


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    here = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


def numbers(root: Path) -> list[str]:
    """Run everything in the empty folder `root`; the lines."""
    # As on a machine without instructions for bfloat16: the numbers are to be those of every machine.
    with inside(root), mock.patch.object(plan, "products_of", return_value="float32"):
        run_all(root)
    return list(lines(root))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        sys.stdout.write("\n".join(numbers(Path(made))) + "\n")
