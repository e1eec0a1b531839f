"""A probe's figures, as files and in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich.console import Console

from bas.report.format import points
from bas.runs import tensorboard
from bas.studies.probe.heads import KINDS
from bas.studies.probe.numbers import AGGREGATES
from bas.studies.probe.page import title_of
from bas.studies.probe.results import Probe, StoreProbe
from bas.training.heads import state_name


def draw(folder: Path, results: Probe, console: Console) -> None:
    """`figures/*.png`, and the same in TensorBoard."""
    figures = {f"layers of {store.store}": _layer_curve(store) for store in results.stores}
    figures |= {f"learning curves of {s.store}": _learning(s) for s in results.stores if len(s.curves) > 1}
    for corpus in dict.fromkeys(store.corpus for store in results.stores):
        of_corpus = [store for store in results.stores if store.corpus == corpus]
        figures[f"encoders x layers on {corpus}"] = _heatmap(of_corpus)
    marks = sorted({mark for store in results.stores for mark in store.protocol.marks})
    splits = "; ".join(dict.fromkeys(store.protocol.description for store in results.stores))
    tensorboard.draw(folder, "probe", splits, marks, figures, console)


def _layer_curve(store: StoreProbe) -> Figure:
    """Headline by state with its interval; dashed, what the mixes reach."""
    figure = Figure(figsize=(5.0 + 0.2 * len(store.states), 3.6), layout="constrained")
    axes = figure.subplots()
    for kind, colour in zip(KINDS, ("tab:blue", "tab:orange"), strict=True):
        rows = [store.heads[kind][state_name(s)] for s in store.states]
        values = np.array([row.metrics[store.headline].mean for row in rows])
        ends = np.array([[row.interval.low, row.interval.high] for row in rows]).T
        axes.plot(store.states, values, marker="o", color=colour, label=kind)
        if np.isfinite(ends).all():
            axes.fill_between(store.states, *ends, color=colour, alpha=0.15)
        for aggregate, style in zip(AGGREGATES, ("dotted", "dashed", "dashdot"), strict=True):
            if aggregate in store.heads[kind]:
                value = store.heads[kind][aggregate].metrics[store.headline].mean
                axes.axhline(value, color=colour, linestyle=style, linewidth=1, label=f"{kind}, {aggregate}")
    axes.set(title=title_of(store), xlabel="state", ylabel=store.headline, xticks=store.states)
    axes.legend(fontsize="x-small")
    return figure


def _learning(store: StoreProbe) -> Figure:
    """Headline by the share of the fit part, a line for each state and aggregate."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    percents = list(map(int, store.curves))
    for axes, kind in zip(figure.subplots(1, len(KINDS), sharey=True), KINDS, strict=True):
        states = len(store.states)
        aggregates = AGGREGATES if states > 1 else ()
        for index, name in enumerate([*map(state_name, store.states), *aggregates]):
            scores = [curve[f"{kind} {name}"] for curve in store.curves.values()]
            style = "solid" if index < states else ("dotted", "dashed", "dashdot")[index - states]
            shade = colormaps["viridis"](index / max(1, states - 1)) if index < states else "black"
            axes.plot(percents, [f.mean for f in scores], marker=".", linestyle=style, color=shade, label=name)
        axes.set(title=kind, xlabel="% of the fit part", xscale="log", xticks=percents, xticklabels=percents)
    axes.set(ylabel=store.headline)
    axes.legend(fontsize="x-small")
    return figure


def _heatmap(stores: Sequence[StoreProbe]) -> Figure:
    """Encoders x layers, the headline of each state; the best of each row is bold."""
    most = max(len(store.states) for store in stores)
    figure = Figure(figsize=(3 + 0.45 * most * len(KINDS), 1.4 + 0.5 * len(stores)), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(KINDS), sharey=True), KINDS, strict=True):
        states = sorted({s for store in stores for s in store.states})
        grid = np.full((len(stores), len(states)), np.nan)
        for row, store in enumerate(stores):
            for state in store.states:
                score = store.heads[kind][state_name(state)].metrics[store.headline].mean
                grid[row, states.index(state)] = score
        image = axes.imshow(grid, cmap="viridis", aspect="auto")
        for (y, x), value in np.ndenumerate(grid):
            if np.isfinite(value):
                weight = "bold" if value == np.nanmax(grid[y]) else "normal"
                shade = "black" if value > (np.nanmin(grid) + np.nanmax(grid)) / 2 else "white"
                axes.text(x, y, points(value), ha="center", va="center", color=shade, fontsize="x-small", weight=weight)
        axes.set(title=kind, xlabel="state", xticks=range(len(states)), xticklabels=states)
        axes.set(yticks=range(len(stores)), yticklabels=[store.store for store in stores])
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
