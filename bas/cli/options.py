"""What several verbs are asked, and what they read out of the answers."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bas.corpora import READERS
from bas.corpora.labels import SCHEMES
from bas.errors import UserError
from bas.training.settings import LAYERS, PRESETS, settings
from bas.util.device import DEVICES, choose_device

if TYPE_CHECKING:
    import torch  # seconds to import: --help does without

    from bas.runs.run import Inputs


RUNS = Path("runs")
PRECISIONS = ("float32", "bfloat16", "float16")


def tell_next(console: Console, command: str) -> None:
    console.print(f"next: {command}", highlight=False, markup=False, soft_wrap=True)


def add_encoder_arguments(p: argparse.ArgumentParser, encoders: str) -> None:
    """An encoder over a corpus."""
    p.add_argument("--corpus", required=True, help=f"which reader: {', '.join(READERS)}")
    p.add_argument("--root", required=True, type=Path, help="the corpus's folder; for manifest: the file")
    p.add_argument("--encoder", required=True, help=encoders)
    p.add_argument("--revision", help="the hub's revision; default: its newest")
    p.add_argument("--real-length", action="store_true", help="Whisper: the recording, not 30 s; not exact, and faster")


def whole_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number, 0 or more")
    return int(text)


def above_0(text: str) -> float:
    """An argument's kind."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number above 0")
    return value


def asked(arguments: argparse.Namespace) -> tuple[Inputs, int]:
    """What `add_run_arguments` asked for: the inputs, opened, and the number of workers."""
    from bas.features.store import FeatureStore
    from bas.runs.plan import Plan
    from bas.runs.run import Inputs, open_labelled
    from bas.runs.spaces import load_space
    from bas.runs.start import check_networks

    chosen = settings(arguments.preset, dict(pair(text) for text in arguments.set))
    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: must be 1 or more")
    features = arguments.features.resolve()
    store = FeatureStore(features)
    info = store.info
    layer = _layer(arguments.layer or LAYERS[arguments.preset], info.layers, info.encoder["num_states"])
    spaces = tuple(load_space(name) for name in arguments.space or arguments.spaces)
    check_networks(spaces, info.dim, chosen)
    device = choose_device(arguments.device)
    workers = _workers(arguments.workers, device)
    paths = tuple(str(s.path) for s in spaces)
    plan = Plan(str(features), paths, layer, chosen, tuple(range(arguments.seeds)), device.type, arguments.labels)
    inputs = Inputs(plan, store, open_labelled(info, plan.labels), spaces)
    return inputs, workers


def _workers(asked: int | None, device: torch.device) -> int:
    if asked is not None and asked < 1:
        raise UserError(f"--workers {asked}: must be 1 or more")
    if device.type == "cuda":
        if asked and asked > 1:
            raise UserError(f"--workers {asked}: one process has the GPU to itself; leave it out or give 1")
        return 1
    if asked:
        return asked
    # Where the system tells it, the cores this process may use, which in a container are fewer than the machine's.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _layer(text: str, stored: Sequence[int], states: int) -> int | str:
    """Which of the encoder's states (not of those stored) is meant; "best" and "mix" stay as they are."""
    if text == "mix" and len(stored) == 1:
        raise UserError(f"--layer mix: only state {stored[0]} is stored, nothing to mix; extract more, or name it")
    if text in ("best", "mix"):
        return text
    named = {"last": states - 1, "middle": states // 2}
    if text in named:
        if named[text] not in stored:
            raise UserError(
                f"--layer {text}: state {named[text]} is not stored; there is {', '.join(map(str, stored))}"
            )
        return named[text]
    if not text.isdecimal():
        raise UserError(f"--layer {text!r}: must be last, middle, best, mix, or one of {', '.join(map(str, stored))}")
    return int(text)


def study_stores(arguments: argparse.Namespace) -> dict[str, Path]:
    """The stores that a study over several was given, by the name of their folder."""
    folders = list(dict.fromkeys(arguments.features))
    names = [folder.resolve().name for folder in folders]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--features: two stores are named {doubled[0]}; rename a folder")
    return dict(zip(names, folders, strict=True))


def study_folder(arguments: argparse.Namespace, names: Sequence[str]) -> Path:
    """Where a study of stores of these names goes."""
    others = hashlib.sha256("/".join(names).encode()).hexdigest()[:6]
    more = f"-and-{len(names) - 1}-more-{others}" if len(names) > 1 else ""
    return RUNS / (arguments.name or f"{arguments.command}-{names[0]}{more}-{arguments.preset}")


def tell_report(folder: Path, console: Console) -> None:
    told = f"report: {folder}/table.md, as data: {folder}/results.json, figures: {folder}/figures"
    console.print(told, highlight=False, soft_wrap=True)


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text!r}: must be NAME=VALUE, such as epochs=30")
    return name, value


def add_run_arguments(p: argparse.ArgumentParser, seeds: int, spaces: Sequence[str] = ("ser_bas3", "ser_bas4")) -> None:
    """What is trained on what, and where. seeds, spaces: unless the user says so."""
    names = ", ".join(name for name in PRESETS["cpu"].as_dict() if name != "preset")
    p.add_argument("--features", required=True, type=Path, help="a store made by extract")
    layers = "a stored state: a number, last, middle, or best (chosen in each fold); mix: all, with learned weights"
    p.add_argument("--layer", help=f"{layers}; default: the preset's")
    p.add_argument(
        "--space", action="append", help=f"shipped name or .py path; repeatable; default: {' '.join(spaces)}"
    )
    p.set_defaults(spaces=spaces)
    p.add_argument("--preset", default="cpu", help=f"{' or '.join(PRESETS)}; default: %(default)s")
    change = f"change one setting; repeatable; one of {names}"
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=change)
    p.add_argument("--seeds", type=int, default=seeds, help="how many; default: %(default)s")
    p.add_argument("--labels", choices=SCHEMES, help="map them to a common scheme; default: the corpus's own words")
    p.add_argument("--workers", type=int, help="processes of one thread each; default: one a core")
    most = "that features may take in all processes, else they are streamed; default: half of what is free"
    p.add_argument("--memory", type=above_0, metavar="GIB", help=most)
    p.add_argument("--device", default="auto", choices=DEVICES, help="default: cuda where there is one")
    p.add_argument("--name", help="the run's folder under runs/; default: from features, layer and preset")


def add_protocol_arguments(p: argparse.ArgumentParser) -> None:
    rules = "own, session, speaker:5, speaker:64/20/16, emobox:FOLDER, superb:FOLDER, a protocol's FILE.json, ..."
    p.add_argument("--protocol", metavar="RULE", help=f"{rules} (README); default: the task's, else the corpus's")
    p.add_argument("--protocol-seed", type=int, default=0, help="which units share a fold; default: %(default)s")
    overlap = "let this field stand on both sides of a split though the task forbids it; every table is marked"
    p.add_argument("--allow-overlap", action="append", default=[], metavar="FIELD", help=overlap)
