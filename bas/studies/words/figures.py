"""The figures of a words study, as files and in TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from bas.encoders.logmel import LOG_MEL
from bas.runs import tensorboard
from bas.studies.words.heads import ALONE, FUSIONS, TEXT
from bas.studies.words.jobs import FUSED, INPUTS, RAW, WORDS
from bas.studies.words.page import MARK, NULLS, encoder_of
from bas.studies.words.results import Similarity, StoreWords, TaskWords, Words

COLOURS = dict(zip(INPUTS, ("black", "tab:gray", "tab:red", "tab:blue", "tab:green", "tab:orange"), strict=True))


def draw(folder: Path, results: Words, console: Console) -> None:
    """`figures/*.png`, and the same in TensorBoard."""
    figures: dict[str, Figure] = {}
    for store in results.stores:
        for task in store.tasks:
            mel = _mel(results, store, task.task)
            figures[f"states of {store.store}, {task.task}"] = _by_state(store, task, mel)
            if task.fused:
                figures[f"text with {store.store}, {task.task}"] = _text(store, task, results)
        if store.neighbourhoods is not None:
            figures[f"neighbourhoods of {store.store}"] = _neighbourhoods(store, store.neighbourhoods.lns, results)
    tasks = [task for store in results.stores for task in store.tasks]
    marks = sorted({mark for task in tasks for mark in task.protocol.marks})
    marks += [MARK.lower()] if results.text_encoder.untrained else []
    splits = "; ".join(dict.fromkeys(task.protocol.description for task in tasks))
    tensorboard.draw(folder, "words", splits, marks, figures, console)


def _mel(results: Words, store: StoreWords, task: str) -> TaskWords | None:
    """What another store of the same corpus, of log-mel features, reaches on a task."""
    others = [s for s in results.stores if s.corpus == store.corpus and encoder_of(s) == LOG_MEL and s is not store]
    return next((one for other in others for one in other.tasks if one.task == task), None)


def _line(axes: Axes, store: StoreWords, task: TaskWords, row: str, label: str, **style: Any) -> None:
    """A row's headline by state."""
    numbers = [task.rows[row].states[f"state {state}"] for state in store.states]
    values = [score.metrics[task.headline].mean for score in numbers]
    axes.plot(store.states, values, marker="o", label=label, **style)
    ends = np.array([[score.interval.low, score.interval.high] for score in numbers]).T
    if row in (RAW, WORDS) and np.isfinite(ends).all():
        axes.fill_between(store.states, *ends, color=style["color"], alpha=0.12)


def _by_state(store: StoreWords, task: TaskWords, mel: TaskWords | None) -> Figure:
    """Every input's headline by state, raw frames and word means with their intervals; dashed, log-mel features."""
    figure = Figure(figsize=(6.0 + 0.2 * len(store.states), 4.0), layout="constrained")
    axes = figure.subplots()
    for name in INPUTS:
        bold = name in (RAW, WORDS)
        style = {"linewidth": 2.2 if bold else 1.2, "linestyle": "solid" if bold else "dotted"}
        _line(axes, store, task, name, name, color=COLOURS[name], **style)
    for name in (RAW, WORDS) if mel else ():
        assert mel is not None
        numbers = next(iter(mel.rows[name].states.values())).metrics[task.headline].mean
        axes.axhline(numbers, color=COLOURS[name], linestyle="dashed", linewidth=1, label=f"log-mel, {name}")
    title = f"{store.corpus}, {encoder_of(store)}: {task.task}"
    axes.set(title=title, xlabel="state", ylabel=task.headline, xticks=store.states)
    figure.legend(*axes.get_legend_handles_labels(), fontsize="x-small", loc="outside right upper")
    return figure


def _text(store: StoreWords, task: TaskWords, results: Words) -> Figure:
    """Each input alone and with text, by state; dashed, text alone."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(FUSED), sharey=True)
    for axes, name in zip(panels, FUSED, strict=True):
        _line(axes, store, task, name, ALONE, color="black")
        for fusion, colour in zip(FUSIONS, ("tab:orange", "tab:blue", "tab:green"), strict=True):
            _line(axes, store, task, f"{name}+{fusion}", fusion, color=colour)
        value = task.rows[TEXT].over_states.metrics[task.headline].mean
        axes.axhline(value, color="tab:gray", linestyle="dashed", linewidth=1, label="text alone")
        axes.set(title=name, xlabel="state", xticks=store.states)
    panels[0].set(ylabel=task.headline)
    panels[0].legend(fontsize="x-small")
    figure.suptitle(_marked(f"{store.corpus}, {encoder_of(store)}: {task.task}", results))
    return figure


def _neighbourhoods(store: StoreWords, lns: Similarity, results: Words) -> Figure:
    """LNS by state (the mean over k) with what permutations give, and by k for every state."""
    states = store.states
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    means = [of_state.mean for of_state in lns.states]
    left.plot(states, [m.value for m in means], marker="o", color="tab:red", label="LNS")
    ends = np.array([[m.low, m.high] for m in means]).T
    if np.isfinite(ends).all():
        left.fill_between(states, *ends, color="tab:red", alpha=0.12)
    for name, style in zip(NULLS, ("dashed", "dotted", "dashdot"), strict=True):
        if nulls := [null for m in means if (null := m.nulls[name])]:
            chance, p95 = [null.mean for null in nulls], [null.p95 for null in nulls]
            left.plot(states, chance, color="black", linestyle=style, linewidth=1, label=f"chance ({NULLS[name]})")
            left.fill_between(states, chance, p95, color="black", alpha=0.07)
    left.set(title="mean over k; grey: chance up to its 95th percentile", xlabel="state", ylabel="LNS", xticks=states)
    left.legend(fontsize="x-small")
    for index, (state, of_state) in enumerate(zip(states, lns.states, strict=True)):
        shade = colormaps["viridis"](index / max(1, len(states) - 1))
        right.plot(lns.ks, [k.value for k in of_state.by_k], marker=".", color=shade, label=f"state {state}")
        most = [max(null.p95 for null in k.nulls.values() if null) for k in of_state.by_k]
        right.plot(lns.ks, most, color=shade, linestyle="dotted", linewidth=1)
    right.set(title="by k; dotted: the largest 95th percentile of chance", xlabel="k", ylabel="LNS")
    right.legend(fontsize="x-small", ncols=1 + len(states) // 8)
    figure.suptitle(_marked(f"{store.corpus}, {encoder_of(store)}: neighbourhoods of words", results))
    return figure


def _marked(title: str, results: Words) -> str:
    return f"{title} ({MARK})" if results.text_encoder.untrained else title
