"""TensorBoard: what a search believes over time, and what each training reached."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch.utils.tensorboard.writer import SummaryWriter

from bas.space import Architecture
from bas.training.loop import Record
from bas.util.files import replacing

IMAGES = 5
"""How many images of layers x blocks a search leaves: drawing one takes longer than a small epoch."""


@contextmanager
def writer(folder: Path, job: str, protocol: str, marks: Sequence[str]) -> Iterator[SummaryWriter]:
    """Events of one job under `tb/`, of a marked protocol under `tb/MARKED/`, where no curve is seen without it.

    A resumed job writes on, in the same folder, from the epoch it resumes.
    """
    board = SummaryWriter(str(folder / "tb" / ("MARKED" if marks else "") / job))
    board.add_text("protocol", "\n\n".join((protocol, *marks)), 0)
    try:
        yield board
    finally:
        board.close()


def draw(folder: Path, job: str, protocol: str, marks: Sequence[str], figures: Mapping[str, Figure]) -> None:
    """Figures by name: as files in `figures/`, and in TensorBoard; drawn again, they take the place of the old ones."""
    for old in (folder / "tb").glob("**/events.*"):
        old.unlink()
    with writer(folder, job, protocol, marks) as board:
        for name, figure in figures.items():
            path = folder / "figures" / f"{re.sub('[^a-zA-Z0-9_.]+', '-', name).strip('-')}.png"
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png", dpi=150)
            board.add_figure(name, figure, 0, close=False)


def _scalars(board: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        board.add_scalar(name, value, step)


def train_epoch(board: SummaryWriter, record: Record) -> None:
    """Training and validation loss, validation metrics and the weights of a layer mix where there are any."""
    _scalars(board, {"loss/train": record["loss"]}, record["epoch"])
    valid = {"loss/valid" if k == "loss" else f"valid/{k}": v for k, v in record.get("valid", {}).items()}
    _scalars(board, valid, record["epoch"])
    _scalars(board, {f"mix/state {state}": w for state, w in record.get("mix", {}).items()}, record["epoch"])


def search_epoch(board: SummaryWriter, record: Record, epochs: int) -> None:
    """Probability of each block per layer, temperature, entropy, the chosen sequence as text, an image now and then.

    Of a strategy that decides without architecture parameters, the loss and the rate alone.
    """
    epoch, rows = record["epoch"], record["probabilities"]
    train_epoch(board, record)
    _scalars(board, {"rate": record["rate"]}, epoch)
    if not record["architecture"]:
        return
    _scalars(board, {"temperature": record["temperature"]}, epoch)
    _scalars(board, {f"probability/{slot}/{n}": p for slot, row in rows.items() for n, p in row.items()}, epoch)
    _scalars(board, {f"entropy/{slot}": value for slot, value in record["entropy"].items()}, epoch)
    board.add_text("architecture", " > ".join(record["architecture"].values()), epoch)
    every = max(1, epochs // IMAGES)
    if epoch % every == 0 or epoch + 1 == epochs:
        board.add_figure("layers x blocks", _figure(rows), epoch)


def found(
    board: SummaryWriter, chosen: Architecture, scored: Sequence[tuple[Architecture, float]], metric: str, epochs: int
) -> None:
    """What a search chose in the end; an image of the mean valid score of the supernet's paths through each block."""
    board.add_text("architecture", str(chosen), epochs)
    by_block: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for architecture, value in scored:
        for part, block in architecture.blocks:
            by_block[part][block].append(value)
    if by_block:
        means = {part: {block: float(np.mean(v)) for block, v in row.items()} for part, row in by_block.items()}
        board.add_figure(f"layers x blocks, valid {metric} of paths", _figure(means), epochs)


def _figure(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    names = list(dict.fromkeys(n for row in rows.values() for n in row))
    values = np.array([[row.get(n, np.nan) for n in names] for row in rows.values()])
    figure = Figure(figsize=(1.6 + 1.1 * len(names), 1.0 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.imshow(values, vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(rows)), list(rows))
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.5 else "white")
    return figure


def mixed(board: SummaryWriter, record: Record) -> None:
    """The weights of a layer mix over the encoder's states, where there is one."""
    if "mix" in record:
        figure = Figure(figsize=(1.6 + 0.3 * len(record["mix"]), 2.4), layout="constrained")
        axes = figure.subplots()
        axes.bar(list(record["mix"]), list(record["mix"].values()))
        axes.set(xlabel="state", ylabel="weight")
        board.add_figure("layer mix", figure, 0)


def trained(board: SummaryWriter, architecture: str, metrics: Mapping[str, float]) -> None:
    """What was trained, and its metrics on the test part of its fold."""
    board.add_text("architecture", architecture, 0)
    _scalars(board, {f"test/{name}": value for name, value in metrics.items()}, 0)
