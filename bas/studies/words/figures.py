"""The figures of a words study, as files and in TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bas.encoders.logmel import LOG_MEL
from bas.runs import tensorboard
from bas.studies.words.heads import ALONE, FUSIONS, TEXT
from bas.studies.words.jobs import FUSED, INPUTS, RAW, WORDS
from bas.studies.words.page import MARK, NULLS, encoder_of

COLOURS = dict(zip(INPUTS, ("black", "tab:gray", "tab:red", "tab:blue", "tab:green", "tab:orange"), strict=True))


def draw(folder: Path, results: Mapping[str, Any]) -> None:
    """`figures/*.png`, and the same in TensorBoard."""
    figures: dict[str, Figure] = {}
    for store in results["stores"]:
        for task in store["tasks"]:
            mel = next((m for m in _mel(results, store, task["task"]) if m["store"] != store["store"]), None)
            figures[f"states of {store['store']}, {task['task']}"] = _by_state(store, task, mel)
            if task["fused"]:
                figures[f"text with {store['store']}, {task['task']}"] = _text(store, task, results)
        if store["lns"] is not None:
            figures[f"neighbourhoods of {store['store']}"] = _neighbourhoods(store, results)
    tasks = [task for store in results["stores"] for task in store["tasks"]]
    marks = sorted({mark for task in tasks for mark in task["protocol"]["marks"]})
    marks += [MARK.lower()] if results["text_encoder"]["untrained"] else []
    told = "; ".join(dict.fromkeys(task["protocol"]["told"] for task in tasks))
    tensorboard.draw(folder, "words", told, marks, figures)


def _mel(results: Mapping[str, Any], store: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    """The log-mel stores of a store's corpus with what they reach on a task."""
    found = [s for s in results["stores"] if s["corpus"] == store["corpus"] and encoder_of(s) == LOG_MEL]
    return [{"store": s["store"], "task": t} for s in found for t in s["tasks"] if t["task"] == task]


def _line(axes: Axes, store: Mapping[str, Any], task: Mapping[str, Any], row: str, label: str, **style: Any) -> None:
    """A row's headline by state."""
    numbers = [task["rows"][row][f"state {state}"] for state in store["states"]]
    values = [n["metrics"][task["headline"]]["mean"] for n in numbers]
    axes.plot(store["states"], values, marker="o", label=label, **style)
    ends = np.array([[n["low"], n["high"]] for n in numbers]).T
    if row in (RAW, WORDS) and np.isfinite(ends).all():
        axes.fill_between(store["states"], *ends, color=style["color"], alpha=0.12)


def _by_state(store: Mapping[str, Any], task: Mapping[str, Any], mel: Mapping[str, Any] | None) -> Figure:
    """Every input's headline by state, raw frames and word means with their intervals; dashed, log-mel features."""
    figure = Figure(figsize=(6.0 + 0.2 * len(store["states"]), 4.0), layout="constrained")
    axes = figure.subplots()
    for name in INPUTS:
        bold = name in (RAW, WORDS)
        style = {"linewidth": 2.2 if bold else 1.2, "linestyle": "solid" if bold else "dotted"}
        _line(axes, store, task, name, name, color=COLOURS[name], **style)
    for name in (RAW, WORDS) if mel else ():
        assert mel is not None
        numbers = next(iter(mel["task"]["rows"][name].values()))["metrics"][task["headline"]]["mean"]
        axes.axhline(numbers, color=COLOURS[name], linestyle="dashed", linewidth=1, label=f"log-mel, {name}")
    title = f"{store['corpus']}, {encoder_of(store)}: {task['task']}"
    axes.set(title=title, xlabel="state", ylabel=task["headline"], xticks=store["states"])
    figure.legend(*axes.get_legend_handles_labels(), fontsize="x-small", loc="outside right upper")
    return figure


def _text(store: Mapping[str, Any], task: Mapping[str, Any], results: Mapping[str, Any]) -> Figure:
    """Each input alone and with text, by state; dashed, text alone."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(FUSED), sharey=True)
    for axes, name in zip(panels, FUSED, strict=True):
        _line(axes, store, task, name, ALONE, color="black")
        for fusion, colour in zip(FUSIONS, ("tab:orange", "tab:blue", "tab:green"), strict=True):
            _line(axes, store, task, f"{name}+{fusion}", fusion, color=colour)
        value = task["rows"][TEXT][TEXT]["metrics"][task["headline"]]["mean"]
        axes.axhline(value, color="tab:gray", linestyle="dashed", linewidth=1, label="text alone")
        axes.set(title=name, xlabel="state", xticks=store["states"])
    panels[0].set(ylabel=task["headline"])
    panels[0].legend(fontsize="x-small")
    figure.suptitle(_marked(f"{store['corpus']}, {encoder_of(store)}: {task['task']}", results))
    return figure


def _neighbourhoods(store: Mapping[str, Any], results: Mapping[str, Any]) -> Figure:
    """LNS by state (the mean over k) with what permutations give, and by k for every state."""
    found, states = store["lns"], store["states"]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    means = [of_state["mean"] for of_state in found["states"]]
    left.plot(states, [m["value"] for m in means], marker="o", color="tab:red", label="LNS")
    ends = np.array([[m["low"], m["high"]] for m in means]).T
    if np.isfinite(ends).all():
        left.fill_between(states, *ends, color="tab:red", alpha=0.12)
    for name, style in zip(NULLS, ("dashed", "dotted", "dashdot"), strict=True):
        if means[0].get(name):
            chance, p95 = ([m[name][which] for m in means] for which in ("mean", "p95"))
            left.plot(states, chance, color="black", linestyle=style, linewidth=1, label=f"chance ({NULLS[name]})")
            left.fill_between(states, chance, p95, color="black", alpha=0.07)
    left.set(title="mean over k; grey: chance up to its 95th percentile", xlabel="state", ylabel="LNS", xticks=states)
    left.legend(fontsize="x-small")
    for index, (state, of_state) in enumerate(zip(states, found["states"], strict=True)):
        shade = colormaps["viridis"](index / max(1, len(states) - 1))
        right.plot(found["ks"], [k["value"] for k in of_state["by_k"]], marker=".", color=shade, label=f"state {state}")
        most = [max(k[name]["p95"] for name in NULLS if k.get(name)) for k in of_state["by_k"]]
        right.plot(found["ks"], most, color=shade, linestyle="dotted", linewidth=1)
    right.set(title="by k; dotted: the largest 95th percentile of chance", xlabel="k", ylabel="LNS")
    right.legend(fontsize="x-small", ncols=1 + len(states) // 8)
    figure.suptitle(_marked(f"{store['corpus']}, {encoder_of(store)}: neighbourhoods of words", results))
    return figure


def _marked(title: str, results: Mapping[str, Any]) -> str:
    return f"{title} ({MARK})" if results["text_encoder"]["untrained"] else title
