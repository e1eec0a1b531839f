"""The figures of the study, from its results (`bas.studies.dynamics.numbers.tabulate`).

Axes: R rows (a step each, and the last one of every rotation), L hidden states, F acoustic features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bas.report.format import points
from bas.speech.acoustics import FAMILIES, OTHER
from bas.studies.dynamics.numbers import KINDS, LAST
from bas.studies.dynamics.results import Likeness, Measured, ProbeRows, RidgeRows

ANNOTATED = 13  # states; above it a heatmap's cells are too narrow for numbers
TITLES = {"grouped": "speakers apart", "published": "as published: MARKED, speakers on both sides"}


def figures(results: Measured) -> dict[str, Figure]:
    """By a name that a file can have; those whose numbers were refused are left out.

    cka-egemaps: the paper's Figure 1, debiased, and plain beside it; cka-families, cka-text, cka-start: others like
    it. A × is a cell that is not above chance. f1-linear: the paper's Figure 2, for new speakers and as published, mean
    over splits with both spreads in the legend; f1-relu: the same with a hidden layer. r2: what of the acoustics can be
    read out. cut: the model cut off early.
    """
    cka = results.likeness
    panels = {
        "cka-families": {f"{family}, debiased": cka[family].debiased for family in FAMILIES if family in cka},
        "cka-start": {"the state at step 0, debiased": cka["start"].debiased},
    }
    if "egemaps" in cka:
        panels["cka-egemaps"] = {
            "eGeMAPS, debiased": cka["egemaps"].debiased,
            "eGeMAPS, plain": cka["egemaps"].plain,
        }
    if "text" in cka:
        panels["cka-text"] = {"the text, debiased": cka["text"].debiased}
    figures_by_name = {name: _heatmaps(results, of) for name, of in panels.items() if of}
    figures_by_name["cut"] = _cut(results)
    for kind in KINDS:
        if any(isinstance(of, ProbeRows) for of in results.probes[kind].values()):
            figures_by_name[f"f1-{kind}"] = _scores(results, kind)
    if isinstance(results.ridge, RidgeRows):
        figures_by_name["r2"] = _acoustics(results.ridge, results.states)
    return figures_by_name


def medians(ridge: RidgeRows, row: int) -> dict[str, list[float]]:
    """By state: the median R² of each family, and that of each feature beside eGeMAPS, at a row; NaN: none varies."""
    r2_LF = np.array(ridge.r2[row], np.float64)
    families_F = np.array(ridge.families)
    others = {ridge.names[f]: r2_LF[:, f].tolist() for f in np.flatnonzero(families_F == OTHER)}
    of = {family: r2_LF[:, families_F == family] for family in FAMILIES}
    none_L = np.full(len(r2_LF), np.nan)
    return {
        f: (np.nanmedian(r2, axis=1) if np.isfinite(r2).any() else none_L).tolist() for f, r2 in of.items()
    } | others


def _shown(results: Measured) -> list[tuple[int, str]]:
    """Index and label of the rows worth showing: that of the last checkpoints is one of the others where all agree."""
    count = len(results.rotations)
    shown = []
    for index, row in enumerate(results.rows):
        if row.step != LAST:
            fewer = f" ({row.rotations} of {count})" if row.rotations < count else ""
            shown.append((index, f"{row.step}{fewer}"))
        elif len({of.steps[-1] for of in results.rotations}) > 1:
            shown.append((index, LAST))
    return shown


def _heatmaps(results: Measured, panels: Mapping[str, Likeness]) -> Figure:
    """Checkpoints by states, a panel each; yellow is high, as in the paper."""
    shown, states = _shown(results), results.states
    size = (1.6 + (0.5 if states <= ANNOTATED else 0.3) * states, 1.3 + 0.32 * len(shown))
    figure = Figure(figsize=(size[0] * min(2, len(panels)), size[1] * -(-len(panels) // 2)), layout="constrained")
    for number, (title, of) in enumerate(panels.items()):
        axes = figure.add_subplot(-(-len(panels) // 2), min(2, len(panels)), number + 1)
        values = np.array([of.mean[index] for index, _ in shown], np.float64)
        image = axes.imshow(values, cmap="viridis", aspect="auto")
        figure.colorbar(image, ax=axes)
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (y, x), value in np.ndenumerate(values):
            chance = of.by_chance is not None and of.by_chance[shown[y][0]][x]
            label = (f"{value:.2f}" if states <= ANNOTATED and np.isfinite(value) else "") + ("×" if chance else "")
            if label:
                axes.text(
                    x, y, label, ha="center", va="center", color="black" if value > middle else "white", fontsize=7
                )
        axes.set_xticks(range(states))
        axes.set_yticks(range(len(shown)), [label for _, label in shown])
        axes.set(title=f"CKA with {title}", xlabel="state", ylabel="step")
    return figure


def _colour(place: int, of: int) -> tuple[float, float, float]:
    """Blue for the first, red for the last."""
    share = place / max(1, of - 1)
    return (share, 0.1, 1 - share)


def _scores(results: Measured, kind: str) -> Figure:
    splits = {split: of for split, of in results.probes[kind].items() if isinstance(of, ProbeRows)}
    figure, shown = Figure(figsize=(8 * len(splits), 4), layout="constrained"), _shown(results)
    for number, (split, of) in enumerate(splits.items()):
        axes = figure.add_subplot(1, len(splits), number + 1)
        for place, (index, label) in enumerate(shown):
            lucks = _luck(of.states.initialisations.sd[index]), _luck(of.states.splits.sd[index])
            label = f"{label} (± {lucks[0]}, ± {lucks[1]})"
            _line(axes, of.states.splits.mean[index], label, _colour(place, len(shown)))
        lucks = _luck([of.egemaps.initialisations.sd]), _luck([of.egemaps.splits.sd])
        label = f"eGeMAPS (± {lucks[0]}, ± {lucks[1]})"
        axes.axhline(100 * of.egemaps.splits.mean, color="black", linestyle="--", label=label)
        axes.set(title=f"{kind} probe, {TITLES[split]}", xlabel="state", ylabel="macro F1 (points), mean over splits")
        _legend(axes, "step (± median sd over initialisations,\n± median sd over splits)")
    return figure


def _luck(sds: Sequence[float | None]) -> str:
    """The median over states, in points."""
    known = [sd for sd in sds if sd is not None]
    return points(float(np.median(known)) if known else None)


def _line(axes: Axes, values: Sequence[float | None], label: str, colour: Any, style: str = "-") -> None:
    axes.plot(range(len(values)), 100 * np.array(values, np.float64), style, marker=".", color=colour, label=label)
    axes.set_xticks(range(len(values)))


def _legend(axes: Axes, title: str | None = None) -> None:
    """Outside, where it hides no line however many there are."""
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, title=title, title_fontsize=7)


def _acoustics(ridge: RidgeRows, states: int) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for row, style, step in ((0, "--", "step 0"), (-1, "-", LAST)):
        for number, (name, values) in enumerate(medians(ridge, row).items()):
            axes.plot(range(len(values)), values, style, marker=".", color=f"C{number}", label=f"{name}, {step}")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set_xticks(range(states))
    axes.set(title="Acoustic features of new speakers (families: median)", xlabel="state", ylabel="R²")
    _legend(axes)
    return figure


def _cut(results: Measured) -> Figure:
    """WA of the fine-tuned model that ends with each state, with its own head and with a refitted one."""
    figure, shown, cut = Figure(figsize=(8, 4), layout="constrained"), _shown(results), results.cut
    axes = figure.subplots()
    for place, (index, label) in enumerate(shown):
        _line(axes, cut.own["WA"].mean[index], f"own head, {label}", _colour(place, len(shown)), ":")
    for name, colour in (("0", _colour(0, 2)), (LAST, _colour(1, 2))):
        _line(axes, cut.refitted[name]["WA"].mean, f"refitted, {name}", colour)
    axes.set(title="The model cut off after a state", xlabel="state", ylabel="WA (points)")
    _legend(axes)
    return figure
