"""What a step of a search and of a training costs, each figure a ratio within one run; writes steps.md.

Needs no data: random frames. The arms of a comparison take turns, round after round; a figure is the median over
rounds, with the lowest and highest. `make bench DEVICE=cuda` has it done on a GPU, at the size of the paper's preset,
with what only a GPU shows: the share of its arithmetic that is used, the peak of its memory, trainings stacked, and a
whole comparison in bfloat16 against one in float32.
Axes: B utterances, T frames, D width, O outputs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from features import QUIET, commit, machine
from plain import PlainSupernet
from reading import ratio, take_turns
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from trainings import new_run, together

import bas
from bas.errors import UserError
from bas.networks.network import build
from bas.networks.supernet import Supernet
from bas.report.format import points, verdict
from bas.runs.session import Session
from bas.runs.spaces import load_space
from bas.search.gates import gumbel_softmax
from bas.training.batches import Batched, Data, training_batches
from bas.training.loop import optimise, seed_everything
from bas.training.settings import Settings, settings
from bas.training.stack import NotStackableError
from bas.util.files import write_text
from bas.util.markdown import markdown_table

PAGE = Path(__file__).with_suffix(".md")
SPACE = "ser_bas4"
OUTPUTS = 4
Heads = tuple[str, ...]


# Padding


def lengths() -> dict[str, np.ndarray]:
    """Frames, 50 a second, of as many utterances as a corpus has: by name."""
    chance = np.random.default_rng(0)
    emodb = np.clip(chance.lognormal(0.95, 0.37, 535), 1.2, 9.0)
    iemocap = np.clip(chance.gamma(2.1, 4.5 / 2.1, 5531), 0.6, 34.0)
    even = chance.uniform(3.8, 4.2, 1000)
    return {
        name: (50 * seconds).astype(int)
        for name, seconds in (("EmoDB's", emodb), ("like IEMOCAP's", iemocap), ("even", even))
    }


def padding(frames_U: np.ndarray, stride: int, size: int) -> tuple[float, float]:
    """The share of a batch that is padding, and the mean number of utterances in one, over an epoch of four fifths."""
    lengths_U = torch.from_numpy(-(-frames_U // stride))
    members = torch.randperm(len(lengths_U))[: len(lengths_U) * 4 // 5]
    data = cast(Batched, SimpleNamespace(lengths_U=lengths_U))
    batches = training_batches(data, members, size, torch.default_generator)
    computed = sum(len(batch) * int(lengths_U[batch].max()) for batch in batches)
    return 1 - int(lengths_U[members].sum()) / computed, len(members) / len(batches)


def padding_rows() -> list[list[str]]:
    rows = []
    for name, frames_U in lengths().items():
        for preset in ("paper", "cpu"):
            of = settings(preset)
            share, size = padding(frames_U, of.stride, of.batch_size)
            rows.append([name, preset, f"{100 * share:.1f} %", f"{size:.1f}"])
    return rows


# Steps


def noise(frames: int, batch: int, dim: int, steps: int, device: str) -> Data:
    """Utterances of random frames, all of one length."""
    count = batch * steps
    return Data(
        torch.randn(count * frames, dim, device=device).half(),
        torch.arange(count) * frames,
        torch.full((count,), frames),
        (torch.arange(count) % OUTPUTS).to(device),
        torch.zeros(count, dim),
    )


def epoch(model: nn.Module, data: Data, of: Settings, joint: bool) -> Callable[[], None]:
    """An epoch by the training loop of `bas`. joint: all candidates, weighted by the Gumbel-softmax."""

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        if not isinstance(model, Supernet):
            out: Tensor = model(x_BTD, mask_BT)
            return out
        gates = {name: gumbel_softmax(part.theta, temperature) for name, part in model.mixed_parts().items()}
        out = model(x_BTD, mask_BT, gates)
        return out

    def run() -> None:
        members = torch.arange(len(data.lengths_U))
        optimise(model, forward, F.cross_entropy, data, members, replace(of, epochs=1), 0, lambda _: {})
        if data.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def plain_epoch(model: nn.Module, data: Data, of: Settings) -> Callable[[], None]:
    """The same in a loop as one writes it, on frames that are already a batch."""
    rate = of.lr
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(model.parameters(), rate, of.momentum)
        if of.optimiser == "sgd"
        else torch.optim.AdamW(model.parameters(), rate)
    )
    frames, count = int(data.lengths_U[0]), len(data.lengths_U)
    assert isinstance(data.frames_ND, Tensor)
    x_UTD = data.frames_ND.view(count, frames, -1)
    device = data.device.type

    def run() -> None:
        model.train()
        for begin in range(0, count, of.batch_size):
            x_BTD = x_UTD[begin : begin + of.batch_size].float()
            padded_BT = torch.zeros(x_BTD.shape[:2], dtype=torch.bool, device=device)
            with torch.autocast(device, torch.bfloat16, enabled=of.precision == "bfloat16"):
                out_BO = model(x_BTD, padded_BT)
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(out_BO.float(), data.targets_U[begin : begin + of.batch_size]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def networks(dim: int, device: str) -> dict[str, nn.Module]:
    """A supernet of all candidates, the same in plain PyTorch, and one architecture: the transformer."""
    space = load_space(SPACE).space
    seed_everything("steps")
    made = {
        "search": Supernet(space, dim, dim, OUTPUTS),
        "plain": PlainSupernet(dim, len(space.slots), OUTPUTS),
        "training": build(space, space.at(0), dim, dim, OUTPUTS),
    }
    return {name: network.to(device) for name, network in made.items()}


def operations(run: Callable[[], None]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def products(device: str, precision: str) -> Callable[[], None]:
    """Products of square matrices, the most that this device does: what a share of its arithmetic refers to."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, precision)) for _ in range(2))

    def run() -> None:
        for _ in range(4):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def step_rows(given: argparse.Namespace) -> list[list[str]]:
    """What is timed, its operations, its share of the device's arithmetic, and ratios."""
    of = settings("paper" if given.device == "cuda" else "cpu", {"width": "none", "stride": "1", "normalise": "none"})
    data = noise(given.frames, of.batch_size, given.dim, given.steps, given.device)
    rows = []
    for precision in ("float32", "bfloat16"):
        of = replace(of, precision=precision)
        made = networks(given.dim, given.device)
        arms = {
            "search": epoch(made["search"], data, of, joint=True),
            "plain": plain_epoch(made["plain"], data, of),
            "training": epoch(made["training"], data, of, joint=False),
            "products": products(given.device, precision),
        }
        seconds = take_turns(arms, given.rounds)
        every = {name: operations(arm) for name, arm in arms.items()}
        rate = {name: every[name] / float(np.median(seconds[name])) for name in arms}
        for name in ("search", "training"):
            each = float(np.median(seconds[name])) / given.steps
            against = ratio(seconds, "plain", "search") if name == "search" else ""
            share = f"{100 * rate[name] / rate['products']:.0f} %"
            rows.append([name, precision, f"{every[name] / given.steps / 1e12:.2f}", f"{each:.3f}", share, against])
    return rows


# What only a GPU shows


def memory_rows(given: argparse.Namespace) -> list[list[str]]:
    """The peak of a search's step with the same frames in utterances twice and four times as long."""
    of = replace(settings("paper", {"width": "none"}), precision="bfloat16")
    rows = []
    for longer in (1, 2, 4):
        few = replace(of, batch_size=of.batch_size // longer)
        data = noise(given.frames * longer, few.batch_size, given.dim, 1, "cuda")
        run = epoch(networks(given.dim, "cuda")["search"], data, few, joint=True)
        run()
        torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated() / 2**30
        rows.append([str(few.batch_size), str(given.frames * longer), f"{peak:.2f}"])
    return rows


def stacked_rows(folder: Path, rounds: int) -> list[str]:
    """15 members together against one by one, at the width of the preset `cpu`."""
    session = Session(new_run(folder, 535, 2, 128, "cuda"))
    members = [(i % 5, i // 5) for i in range(15)]
    rows = []
    for number in (0, 40, 80):
        try:
            rows.append(together(session, number, members, rounds))
        except NotStackableError as error:
            rows.append(f"| architecture {number} | not stacked: {error} |")
    return rows


def compared_rows(folder: Path) -> list[list[str]]:
    """A whole comparison of the paper's preset on synthetic speech, in bfloat16 against float32."""
    from bas.corpora.readers.synthetic import synthesise
    from bas.encoders import NANO

    synthesise(folder / "speech", on_progress=lambda done, total: None)
    corpus: Mapping[str, object] = {"reader": "demo", "root": str(folder / "speech")}
    experiment = {"corpus": corpus, "encoder": {"name": NANO}, "preset": "paper", "settings": {"epochs": 20}}
    os.chdir(folder)  # where runs are made
    store = bas.extract(experiment, console=QUIET, features=str(folder / "store"))
    runs = []
    for precision in ("float32", "bfloat16"):
        changed = {**experiment, "settings": {"epochs": 20, "precision": precision}, "name": precision}
        bas.compare(changed, console=QUIET, features=store)
        runs.append(Path("runs") / precision)
    pairs = bas.between(runs[0], runs[1], console=QUIET)
    return [[p.row, points(p.first.mean), points(p.second.mean), verdict(p.second_against_first)] for p in pairs]


# The page


def table(heads: Heads, rows: list[list[str]]) -> str:
    return "\n".join(markdown_table(heads, rows))


def measure(given: argparse.Namespace, folder: Path) -> str:
    words = [f"--{name} {getattr(given, name)}" for name in ("device", "dim", "frames", "steps", "rounds")]
    page = PAGE_TEXT.format(
        command=" ".join(["python", "benchmarks/steps.py", *words]),
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device(given.device)),
        padding=table(("lengths", "preset", "padding", "utterances in a batch"), padding_rows()),
        dim=given.dim,
        frames=given.frames,
        batch=settings("cpu").batch_size,
        steps=table(STEP_HEADS, step_rows(given)),
    )
    if given.device == "cpu":
        return page + "\nNo GPU was there: what only one shows is not on this page.\n"
    return page + GPU_TEXT.format(
        memory=table(("utterances", "frames of each", "peak, GiB"), memory_rows(given)),
        stacked="\n".join(stacked_rows(folder, given.rounds)),
        compared=table(("row", "float32", "bfloat16", "bfloat16 against float32"), compared_rows(folder)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dim", type=int, help="default: 1024 on a GPU, else 384")
    parser.add_argument("--frames", type=int, default=200, help="of an utterance; default: %(default)s")
    parser.add_argument("--steps", type=int, help="of an arm in a round; default: 20 on a GPU, else 1")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("benchmarks/steps.py: --device cuda: torch finds no CUDA device here")
    given.dim = given.dim or (1024 if given.device == "cuda" else 384)
    given.steps = given.steps or (20 if given.device == "cuda" else 1)
    if given.device == "cpu":
        torch.set_num_threads(1)  # as in every training
    try:
        with tempfile.TemporaryDirectory() as name:
            page = measure(given, Path(name))
    except UserError as error:
        sys.exit(f"benchmarks/steps.py: {error}")
    write_text(PAGE, page)
    print(page, f"\nwritten: {PAGE}", sep="")


STEP_HEADS = ("step", "precision", "10^12 operations", "s", "of the device's arithmetic", "plain PyTorch, search = 1")

PAGE_TEXT = """# Steps of searches and trainings

`{command}`, {date}, commit {commit}, on {machine}.

## Padding

An epoch over four fifths of a corpus, as it is batched in training; 50 frames a second before a preset's stride.

{padding}

## A step

Batches of {batch} utterances of {frames} frames, width {dim}. search: all three candidates of four layers together;
training: the 4-layer transformer. The device's arithmetic is what products of square matrices reach in the same
precision, in the same run. Plain PyTorch: the same supernet of PyTorch's own modules, in a plain loop.

{steps}
"""

GPU_TEXT = """
## Memory of a search's step

The same number of frames in longer utterances: memory that grew with the square of their length would grow.

{memory}

## Together

15 members of one architecture, at width 128, one by one with the time of all in one stack as 1:

| architecture | one by one, stacked = 1 |
| --- | --- |
{stacked}

## A whole comparison in two precisions

Preset `paper` with 20 epochs on synthetic speech; paired on the same test utterances.

{compared}
"""


if __name__ == "__main__":
    main()
