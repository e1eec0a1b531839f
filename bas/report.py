"""TensorBoard: what a search believes over time, and what each training reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.tensorboard.writer import SummaryWriter

from bas.loop import Epoch
from bas.settings import Settings
from bas.supernet import Supernet

IMAGES = 5
"""How many images of layers x blocks a search leaves: drawing one takes longer than a small epoch."""


@contextmanager
def writer(folder: Path, job: str, checkpoint: Path) -> Iterator[SummaryWriter]:
    """Events of one job under `tb/`; those that a killed try wrote beyond its last checkpoint are purged."""
    resumed = len(torch.load(checkpoint, weights_only=True)["records"]) if checkpoint.exists() else 0
    board = SummaryWriter(str(folder / "tb" / job), purge_step=resumed)
    try:
        yield board
    finally:
        board.close()


def _scalars(board: SummaryWriter, values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        board.add_scalar(name, value, step)


def train_epoch(board: SummaryWriter, epoch: Epoch, valid: Mapping[str, float]) -> None:
    _scalars(board, {"loss/train": epoch.loss, "rate": epoch.rate}, epoch.index)
    _scalars(board, {f"{'loss/valid' if k == 'loss' else f'valid/{k}'}": v for k, v in valid.items()}, epoch.index)


def search_epoch(
    board: SummaryWriter, epoch: Epoch, supernet: Supernet, valid: Mapping[str, float], epochs: int
) -> None:
    """Probability of each block per layer, temperature, entropy, the chosen sequence as text, an image now and then."""
    train_epoch(board, epoch, valid)
    _scalars(board, {"temperature": epoch.temperature}, epoch.index)
    rows = {}
    for part, p in supernet.probabilities().items():
        names = supernet.mixed()[part].names
        rows[part] = dict(zip(names, p.tolist(), strict=True))
        entropy = float(-(p * p.clamp_min(1e-30).log()).sum())
        _scalars(board, {f"probability/{part}/{n}": v for n, v in rows[part].items()}, epoch.index)
        _scalars(board, {f"entropy/{part}": entropy}, epoch.index)
    board.add_text("architecture", str(supernet.argmax()), epoch.index)
    every = max(1, epochs // IMAGES)
    if epoch.index % every == 0 or epoch.index + 1 == epochs:
        board.add_figure("layers x blocks", _figure(rows), epoch.index)


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


def trained(
    board: SummaryWriter,
    row: str,
    fold: int,
    seed: int,
    architecture: str,
    settings: Settings,
    metrics: Mapping[str, float],
) -> None:
    """HParams with the fold's test metrics, so that several searches can be set side by side."""
    chosen = {k: "none" if v is None else v for k, v in settings.as_dict().items()}
    hparams = {"row": row, "fold": fold, "seed": seed, "architecture": architecture, **chosen}
    board.add_text("architecture", architecture, 0)
    board.add_hparams(hparams, {f"test/{name}": value for name, value in metrics.items()}, run_name=".")
