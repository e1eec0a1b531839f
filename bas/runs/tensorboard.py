"""TensorBoard: the probabilities of a search over time, and the scores of each training."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from torch.utils.tensorboard.writer import SummaryWriter

from bas.search.race import Trial
from bas.space import Architecture, told
from bas.training.loop import Record
from bas.util.faults import naming, os_error
from bas.util.figures import legible
from bas.util.files import replacing
from bas.util.markdown import paragraph

IMAGES = 5
"""The number of layers x blocks images of a search: drawing one takes longer than a small epoch."""


@contextmanager
def writer(folder: Path, job: str, protocol: str, marks: Sequence[str]) -> Iterator[SummaryWriter]:
    """The events of one job under `tb/`, or under `tb/MARKED/` if the protocol is marked, so that every curve shows it.

    A resumed job continues in the same folder from the epoch at which it resumes.
    """
    path = folder / "tb" / ("MARKED" if marks else "") / job
    with naming(path), _quiet_thread(), closing(SummaryWriter(str(path))) as board:
        board.add_text("protocol", "\n\n".join(map(paragraph, (protocol, *marks))), 0)
        yield board


@contextmanager
def _quiet_thread() -> Iterator[None]:
    """What TensorBoard's thread meets it raises in the next call as well: it need not print a traceback, too."""
    hook = threading.excepthook

    def quiet(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is None or os_error(arguments.exc_value) is None:
            hook(arguments)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = hook


def draw(
    folder: Path, job: str, protocol: str, marks: Sequence[str], figures: Mapping[str, Figure], console: Console
) -> None:
    """Save figures, by name, as files in `figures/` and in TensorBoard, in place of the old ones.

    Prints a note of letters that no installed font has.
    """
    unread: set[str] = set()
    names: list[str] = []
    for old in (folder / "tb").glob("**/events.*"):
        old.unlink()
    with writer(folder, job, protocol, marks) as board:
        for name, figure in figures.items():
            path = folder / "figures" / _file_name(name, names)
            names.append(path.name)
            with legible(figure) as missing:
                with replacing(path) as temporary:
                    figure.savefig(temporary, format="png", dpi=150)
                board.add_figure(name, figure, 0, close=False)
            unread |= missing
    if unread:
        told = f"no installed font has {' '.join(sorted(unread))}: figures show boxes; install one, such as Noto Sans"
        console.print(f"note: {told}", style="dim", highlight=False)


def _file_name(name: str, others: Sequence[str]) -> str:
    """A figure's file: its name in letters and digits of any script, with a number where another has that already."""
    stem = re.sub(r"[^\w.]+", "-", name).strip("-")[:60]
    numbered = (f"{stem}.png" if number == 1 else f"{stem}-{number}.png" for number in count(1))
    return next(path for path in numbered if path not in others)


def _add_figure(board: SummaryWriter, name: str, figure: Figure, step: int) -> None:
    with legible(figure):
        board.add_figure(name, figure, step)


def _scalars(board: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        board.add_scalar(name, value, step)


def train_epoch(board: SummaryWriter, record: Record) -> None:
    """Write training and validation loss, and validation metrics and layer-mix weights if there are any.

    The curves of a committee's networks are apart, by number.
    """
    own = f" {record['member']}" if "member" in record else ""
    _scalars(board, {f"loss/train{own}": record["loss"]}, record["epoch"])
    valid = {f"loss/valid{own}" if k == "loss" else f"valid/{k}{own}": v for k, v in record.get("valid", {}).items()}
    _scalars(board, valid, record["epoch"])
    _scalars(board, {f"mix/state {state}{own}": w for state, w in record.get("mix", {}).items()}, record["epoch"])


def search_epoch(board: SummaryWriter, record: Record, epochs: int) -> None:
    """Write the blocks' probabilities by layer, temperature, entropy, the chosen sequence as text, sometimes an image.

    For a strategy without architecture parameters, only the loss and the rate.
    """
    epoch, rows = record["epoch"], record["probabilities"]
    train_epoch(board, record)
    _scalars(board, {"rate": record["rate"]}, epoch)
    if not record["architecture"]:
        return
    _scalars(board, {"temperature": record["temperature"]}, epoch)
    _scalars(board, {f"probability/{slot}/{n}": p for slot, row in rows.items() for n, p in row.items()}, epoch)
    _scalars(board, {f"entropy/{slot}": value for slot, value in record["entropy"].items()}, epoch)
    board.add_text("architecture", paragraph(told(" > ".join(record["architecture"].values()))), epoch)
    every = max(1, epochs // IMAGES)
    if epoch % every == 0 or epoch + 1 == epochs:
        _add_figure(board, "layers x blocks", _figure(rows), epoch)


def write_trial(board: SummaryWriter, number: int, trial: Trial, metric: str) -> None:
    """Write one training of a race: its architecture, and its scores on the held-out utterances."""
    board.add_text("trial", paragraph(told(" > ".join(trial.architecture.values()))), number)
    if trial.loss is not None and trial.headline is not None:  # it has not diverged
        _scalars(board, {"race/loss": trial.loss, f"race/{metric}": trial.headline}, number)


def write_choice(
    board: SummaryWriter, chosen: Architecture, scored: Sequence[tuple[Architecture, float]], metric: str, epochs: int
) -> None:
    """Write the architecture that a search chose, and an image of the mean valid score of the paths by block."""
    board.add_text("architecture", paragraph(told(str(chosen))), epochs)
    by_block: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for architecture, value in scored:
        for part, block in architecture.blocks:
            by_block[part][block].append(value)
    if by_block:
        means = {part: {block: float(np.mean(v)) for block, v in row.items()} for part, row in by_block.items()}
        _add_figure(board, f"layers x blocks, valid {metric} of paths", _figure(means), epochs)


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


def write_mix(board: SummaryWriter, record: Record) -> None:
    """Write the weights of a layer mix over the encoder's states, if there is one."""
    if "mix" in record:
        figure = Figure(figsize=(1.6 + 0.3 * len(record["mix"]), 2.4), layout="constrained")
        axes = figure.subplots()
        axes.bar(list(record["mix"]), list(record["mix"].values()))
        axes.set(xlabel="state", ylabel="weight")
        _add_figure(board, "layer mix", figure, 0)


def write_training(board: SummaryWriter, architecture: str, metrics: Mapping[str, float]) -> None:
    """Write the trained architecture, and its metrics on the test part of its fold."""
    board.add_text("architecture", paragraph(architecture), 0)
    _scalars(board, {f"test/{name}": value for name, value in metrics.items()}, 0)
