"""TensorBoard: the probabilities of a search over time, and the scores of each training."""

from __future__ import annotations

import math
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from bas.search.race import Trial
from bas.space import Architecture, told
from bas.training.loop import Record
from bas.training.settings import Settings
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


def add_figure(board: SummaryWriter, name: str, figure: Figure, step: int) -> None:
    with legible(figure):
        board.add_figure(name, figure, step)


def write_scalars(board: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        board.add_scalar(name, value, step)


def scalars_of(loss: float, valid: Mapping[str, float]) -> dict[str, float]:
    """The scalars of an epoch, by the names that they have in TensorBoard. valid: loss and metrics."""
    return {"loss/train": loss} | {"loss/valid" if k == "loss" else f"valid/{k}": v for k, v in valid.items()}


def train_epoch(board: SummaryWriter, record: Record) -> None:
    """Write training and validation loss, and validation metrics and layer-mix weights if there are any.

    The curves of a committee's networks are apart, by number, and so is that of a network trained once more.
    """
    own = f" {record['member']}" if "member" in record else " refit" if record.get("refit") else ""
    values = scalars_of(record["loss"], record.get("valid", {}))
    write_scalars(board, {f"{name}{own}": value for name, value in values.items()}, record["epoch"])
    write_scalars(board, {f"mix/state {state}{own}": w for state, w in record.get("mix", {}).items()}, record["epoch"])


def search_epoch(board: SummaryWriter, record: Record, epochs: int) -> None:
    """Write the blocks' probabilities by layer, temperature, entropy (1 is undecided), the chosen sequence, an image.

    For a strategy without architecture parameters, only the loss and the rate.
    """
    epoch, rows = record["epoch"], record["probabilities"]
    train_epoch(board, record)
    write_scalars(board, {"rate": record["rate"]}, epoch)
    if not record["architecture"]:
        return
    if epoch == 0:  # under Custom Scalars, a chart a slot
        board.add_custom_scalars({"probability": {slot: ["Multiline", [f"probability/{slot}/.*"]] for slot in rows}})
    write_scalars(board, {"temperature": record["temperature"]}, epoch)
    write_scalars(board, {f"probability/{slot}/{n}": p for slot, row in rows.items() for n, p in row.items()}, epoch)
    entropy = {
        slot: value / math.log(len(rows[slot])) for slot, value in record["entropy"].items() if len(rows[slot]) > 1
    }
    write_scalars(board, {f"entropy/{slot}": value for slot, value in entropy.items()}, epoch)
    board.add_text("architecture", paragraph(told(record["architecture"])), epoch)
    every = max(1, epochs // IMAGES)
    if epoch % every == 0 or epoch + 1 == epochs:
        add_figure(board, "layers x blocks", _figure(rows, record["architecture"]), epoch)


def write_trial(board: SummaryWriter, number: int, trial: Trial, metric: str) -> None:
    """Write one training of a race: its architecture, and its scores on the held-out utterances."""
    board.add_text("trial", paragraph(told(trial.architecture)), number)
    if trial.loss is not None and trial.headline is not None:  # it has not diverged
        write_scalars(board, {"race/loss": trial.loss, f"race/{metric}": trial.headline}, number)


def write_choice(
    board: SummaryWriter, chosen: Architecture, losses: Sequence[tuple[Architecture, float]], epochs: int
) -> None:
    """Write the architecture that a search chose, and an image of the mean validation loss of the paths by block."""
    board.add_text("architecture", paragraph(told(chosen.to_dict())), epochs)
    by_block: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for architecture, value in losses:
        for part, block in architecture.blocks:
            by_block[part][block].append(value)
    if by_block:
        means = {part: {block: float(np.mean(v)) for block, v in row.items()} for part, row in by_block.items()}
        add_figure(board, "layers x blocks, valid loss of paths", _figure(means, chosen.to_dict(), lowest=True), epochs)


def _figure(rows: Mapping[str, Mapping[str, float]], chosen: Mapping[str, str], *, lowest: bool = False) -> Figure:
    """A number for each part and block; framed, what is chosen. lowest: the best is the lowest; else 1 of 0 to 1 is."""
    names = list(dict.fromkeys(n for row in rows.values() for n in row))
    values = np.array([[row.get(n, np.nan) for n in names] for row in rows.values()])
    figure = Figure(figsize=(1.6 + 1.1 * len(names), 1.0 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    low, high = (np.nanmin(values), np.nanmax(values)) if lowest else (0.0, 1.0)
    image = axes.imshow(values, vmin=low, vmax=high, cmap="cividis_r" if lowest else "cividis", aspect="auto")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(rows)), list(rows))
    for (y, x), value in np.ndenumerate(values):
        if np.isfinite(value):
            light = sum(image.cmap(image.norm(value))[:3]) > 1.5
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", color="black" if light else "white")
    for y, part in enumerate(rows):
        corner = names.index(chosen[part]) - 0.46, y - 0.46
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="red", linewidth=2))
    return figure


FACTS = ("row", "architecture", "run", "encoder", "layer", "corpus", "protocol", "space", "fold", "num_heads", "state")
"""What HParams shows beside settings."""


def write_hparams(
    board: SummaryWriter,
    facts: Mapping[str, str],
    settings: Settings,
    metrics: Mapping[str, float],
    names: Iterable[str],
) -> None:
    """Write an entry of HParams, with the same columns for every verb, for TensorBoard takes those of any one entry.

    metrics: `pooled/NAME` or `valid/NAME`. names: all metrics of the task.
    """
    assert set(facts) <= set(FACTS), facts
    # TensorBoard sorts columns by name, and begins with the first five.
    known = {f"setting/{k}": "none" if v is None else v for k, v in settings.to_dict().items()}
    columns = {f"{part}/{name}": 0.0 for part, of in (("pooled", names), ("valid", ("loss", *names))) for name in of}
    assert set(metrics) <= set(columns), metrics
    for summary in hparams({name: facts.get(name, "") for name in FACTS} | known, columns):  # type: ignore[no-untyped-call]
        assert board.file_writer
        board.file_writer.add_summary(summary)
    write_scalars(board, metrics, 0)


def write_mix(board: SummaryWriter, record: Record) -> None:
    """Write the weights of a layer mix over the encoder's states, if there is one."""
    if "mix" in record:
        figure = Figure(figsize=(1.6 + 0.3 * len(record["mix"]), 2.4), layout="constrained")
        axes = figure.subplots()
        axes.bar(list(record["mix"]), list(record["mix"].values()))
        axes.set(xlabel="state", ylabel="weight")
        add_figure(board, "layer mix", figure, 0)


def write_training(board: SummaryWriter, architecture: str, metrics: Mapping[str, float]) -> None:
    """Write the trained architecture, and its metrics on the test part of its fold."""
    board.add_text("architecture", paragraph(architecture), 0)
    write_scalars(board, {f"test/{name}": value for name, value in metrics.items()}, 0)
