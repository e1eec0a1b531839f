"""The figures of a report: of a column's width, letters of 8 points, colours that the colour-blind tell apart.

Axes: S seeds, N test utterances, O classes.

References
    Okabe and Ito, *Color Universal Design*, 2008: the colours.
    DeGroot and Fienberg, *The Statistician* 32, 1983: the reliability diagram.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle, product

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from bas.report.answer import compared
from bas.report.notes import corrected
from bas.report.results import Comparison, Row
from bas.space import NO_BLOCK, SearchSpace
from bas.stats import Spread
from bas.stats.calibration import bins

DPI = 200  # where it is no vector drawing, as in TensorBoard
WIDTH = 3.5  # inches: a column of a two-column paper
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442")
GREY, LIGHT, PALE = "#555555", "#999999", "#DDDDDD"
HATCHES = ("", "///", "...", "xxx")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Looks = Mapping[str, tuple[str, str]]
"""Colour and hatch, by choice."""
MOST_CLASSES, MOST_LABELS = 10, 25  # of which a confusion has its shares written in it; of which it names all
LONGEST = 22  # letters of a name


def letters() -> AbstractContextManager[None]:
    """In the block, figures are made, and saved, with letters of 8 points."""
    sizes = ("axes.labelsize", "axes.titlesize", "legend.fontsize", "xtick.labelsize", "ytick.labelsize")
    return rc_context({"font.size": 8, **dict.fromkeys(sizes, "medium")})  # type: ignore[arg-type]


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def scores(results: Comparison, taken: str | None) -> Figure:
    """The headline of every row with its interval."""
    rows, name = results.rows[::-1], results.headline
    figure, axes = _axes(0.7 + 0.24 * len(rows))
    for y, row in enumerate(rows):
        _whisker(axes, row, name, y, COLOURS[0] if row.row == taken else GREY)
    axes.set_yticks(range(len(rows)), [row.row for row in rows])
    axes.set(xlabel=f"{name}, points", ylim=(-0.6, len(rows) - 0.4))
    return figure


def _whisker(axes: Axes, row: Row, name: str, y: float, colour: str) -> None:
    mean, low, high = 100 * row.metrics[name].mean, 100 * row.interval.low, 100 * row.interval.high
    if np.isfinite([low, high]).all():
        axes.plot([low, high], [y, y], color=colour, linewidth=1.2)
    axes.plot([mean], [y], "o", color=colour, markersize=4)


def differences(results: Comparison) -> Figure | None:
    """The headline of every row against the linear row, with intervals; None where none is known.

    Black: what the correction for all comparisons of the table leaves.
    """
    stay = corrected(compared(results).values())
    known = [(row.row, row.against_linear) for row in results.rows[::-1] if row.against_linear]
    known = [(label, of) for label, of in known if np.isfinite([of.low, of.high]).all()]
    if not known:
        return None
    figure, axes = _axes(0.7 + 0.24 * len(known))
    axes.axvline(0, color=GREY, linewidth=0.8)
    for y, (_, of) in enumerate(known):
        colour = "black" if of in stay else LIGHT
        axes.plot([100 * of.low, 100 * of.high], [y, y], color=colour, linewidth=1.2)
        axes.plot([100 * of.difference], [y], "o", color=colour, markersize=4)
    axes.set_yticks(range(len(known)), [label for label, _ in known])
    axes.set(xlabel=f"{results.headline} against the {results.linear}, points", ylim=(-0.6, len(known) - 0.4))
    return figure


def costs(results: Comparison, cost: Callable[[Row], float], label: str) -> Figure:
    """The headline of every row that costs something, with its interval, against what it costs. label: what that is."""
    name, rows = results.headline, [row for row in results.rows if cost(row) > 0]
    columns = _columns([row.row for row in rows], 2)
    figure, axes = _axes(2.2 + 0.16 * -(-len(rows) // columns))
    for index, row in enumerate(rows):
        # After each round of colours the markers are shifted, so that no two rows look the same.
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]
        mean, ends = 100 * row.metrics[name].mean, 100 * np.array([row.interval.low, row.interval.high])
        if np.isfinite(ends).all():
            axes.plot([cost(row)] * 2, ends, color=colour, linewidth=1)
        axes.plot([cost(row)], [mean], marker, color=colour, markersize=5, label=row.row, linestyle="none")
    axes.set(xscale="log", xlabel=label, ylabel=f"{name}, points")
    low, high = min(map(cost, rows), default=1.0), max(map(cost, rows), default=1.0)
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,), numticks=8))
    axes.xaxis.set_major_formatter(lambda x, _: _brief(x))
    axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _brief(number: float) -> str:
    """0.5, 20, 5,000, 20k, 1M"""
    if number < 10_000:
        return f"{number:,g}"
    return f"{number / 1e6:g}M" if number >= 1e6 else f"{number / 1e3:g}k"


def _columns(names: Sequence[str], most: int) -> int:
    """The columns of a legend that a figure has room for."""
    return max(1, min(most, 56 // (6 + max(map(len, names), default=0))))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def chosen(choices: Mapping[tuple[int, int], Mapping[str, str]], looks: Looks) -> Figure:
    """What was chosen in each slot, by fold and seed: a column a search, a colour a block; empty slots are pale."""
    slots, wide = list(next(iter(choices.values()))), len(choices)
    used = {block for of in choices.values() for block in of.values()}
    looks = {name: look for name, look in looks.items() if name in used}
    figure, axes = _axes(0.9 + 0.26 * len(slots) + _high(looks))
    for (x, of), (y, slot) in product(enumerate(choices.values()), enumerate(reversed(slots))):
        colour, hatch = looks[of[slot]]
        axes.bar(x, 0.86, 0.9, y - 0.43, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    axes.set_yticks(range(len(slots)), slots[::-1])
    axes.set(xlim=(-0.6, wide - 0.4), ylim=(-0.6, len(slots) - 0.4))
    seeds = list(dict.fromkeys(seed for _, seed in choices))
    if wide <= 2 * MOST_CLASSES:
        axes.set_xticks(range(wide), [str(fold) for fold, _ in choices])
    else:
        axes.set_xticks([])
    each = wide // len(seeds)
    for index in range(1, len(seeds)):
        axes.axvline(index * each - 0.5, color="black", linewidth=0.8)
    folds = "fold" if wide <= 2 * MOST_CLASSES else f"{each} folds"
    told = folds if len(seeds) == 1 else f"{folds}, for each of seeds {', '.join(map(str, seeds))}"
    axes.set_xlabel(told)
    _legend(figure, looks)
    return figure


def made(shares: Mapping[str, Mapping[str, float]], looks: Looks) -> Figure:
    """Of each slot, the share of each block in what rows average, 0..1."""
    looks = {name: look for name, look in looks.items() if any(name in of for of in shares.values())}
    figure, axes = _axes(0.9 + 0.26 * len(shares) + _high(looks))
    for y, of in enumerate(reversed([*shares.values()])):
        left = 0.0
        for name, (colour, hatch) in looks.items():
            width = 100 * of.get(name, 0.0)
            axes.barh(y, width, 0.86, left, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
            left += width
    axes.set_yticks(range(len(shares)), list(shares)[::-1])
    axes.set(xlabel="weight, %", xlim=(0, 100))
    _legend(figure, looks)
    return figure


def ribbons(searches: Sequence[Sequence[Mapping[str, Mapping[str, float]]]], looks: Looks) -> Figure:
    """The probability of each block over the epochs of a search, slot by slot: the height of its band, a mean.

    searches: of each, the probabilities by epoch, slot and block.
    """
    slots, epochs = list(searches[0][0]), range(len(searches[0]))
    used = {name: looks[name] for slot in slots for name in searches[0][0][slot]}
    figure = Figure(figsize=(WIDTH, 0.7 + 0.5 * len(slots) + _high(used)), dpi=DPI, layout="constrained")
    every = np.atleast_1d(figure.subplots(len(slots), 1, sharex=True)).tolist()
    for axes, slot in zip(every, slots, strict=True):
        names = list(searches[0][0][slot])
        bands = [[100 * float(np.mean([of[e][slot][name] for of in searches])) for e in epochs] for name in names]
        for band, name in zip(axes.stackplot(epochs, bands), names, strict=True):
            band.set(facecolor=looks[name][0], hatch=looks[name][1], edgecolor="white", linewidth=0)
        axes.set(yticks=[], ylim=(0, 100), xlim=(0, epochs[-1]))
        axes.set_ylabel(slot, rotation=0, ha="right", va="center")
    every[-1].set_xlabel("epoch of the search")
    _legend(figure, used)
    return figure


def paths(losses: Mapping[str, Mapping[str, float]], frequent: Mapping[str, str], looks: Looks) -> Figure:
    """The mean validation loss of the paths through each block, slot by slot; ringed: what was chosen most often."""
    slots, names = list(losses)[::-1], list(dict.fromkeys(name for of in losses.values() for name in of))
    columns = _columns(names, 3)
    figure, axes = _axes(0.9 + 0.26 * len(losses) + 0.16 * -(-len(names) // columns))
    shapes = {name: (looks[name][0], MARKERS[HATCHES.index(looks[name][1])]) for name in names}
    for y, slot in enumerate(slots):
        for name, loss in losses[slot].items():
            ring, (colour, marker) = "black" if frequent[slot] == name else "none", shapes[name]
            axes.plot([loss], [y], marker, color=colour, markeredgecolor=ring, markersize=6)
    axes.set_yticks(range(len(slots)), slots)
    axes.set(xlabel="validation loss of paths", ylim=(-0.6, len(slots) - 0.4))
    handles = [Line2D([], [], color=c, marker=m, linestyle="none", label=_short(n)) for n, (c, m) in shapes.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _high(looks: Looks) -> float:
    """Inches of a legend."""
    return 0.16 * -(-len(looks) // _columns(list(looks), 3))


def _legend(figure: Figure, looks: Looks) -> None:
    shown = [(_short(name), *look) for name, look in looks.items()]
    handles = [Patch(facecolor=c, hatch=h, edgecolor="white", linewidth=0, label=name) for name, c, h in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=_columns(list(looks), 3), frameon=False)


def looks_of(space: SearchSpace) -> Looks:
    """A colour and a hatch for each choice of a space; the same choice of two slots looks the same."""
    names = [name for name in dict.fromkeys(n for part in space.searched.values() for n in part) if name != NO_BLOCK]
    every = ((colour, hatch) for hatch in cycle(HATCHES) for colour in COLOURS)
    return {NO_BLOCK: (PALE, "")} | dict(zip(names, every, strict=False))


def confusion(counted_OO: np.ndarray, names: Sequence[str], label: str) -> Figure:
    """How often each class is taken for which, in points of the class; a row is a class. Of many classes, in colour."""
    share_OO = counted_OO / np.maximum(counted_OO.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(WIDTH, WIDTH + 0.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * share_OO, cmap="Blues", vmin=0, vmax=100)
    if len(names) > MOST_CLASSES:
        figure.colorbar(image, ax=axes, shrink=0.6)
    else:
        for (y, x), share in np.ndenumerate(share_OO):
            axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", color="white" if share > 0.6 else "black")
    ticks = range(0, len(names), 1 + (len(names) - 1) // MOST_LABELS)
    axes.set_xticks(ticks, [_short(names[tick]) for tick in ticks], rotation=90)
    axes.set_yticks(ticks, [_short(names[tick]) for tick in ticks])
    axes.set(xlabel="predicted", ylabel="truth", title=label)
    return figure


def reliability(answers: Mapping[str, np.ndarray], targets_N: np.ndarray) -> Figure:
    """How often a row is right against how sure it was; answers: by row, probabilities `(S, N, O)`."""
    figure, axes = _axes(WIDTH)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8, linestyle="dashed")
    for index, (label, said_SNO) in enumerate(answers.items()):
        said, targets = said_SNO.reshape(-1, said_SNO.shape[-1]), np.tile(targets_N, len(said_SNO))
        sure, right, count = (np.array(of) for of in zip(*bins(said, targets), strict=True))
        axes.plot(100 * sure, 100 * right, color=COLOURS[index], linewidth=1, label=label)
        axes.scatter(100 * sure, 100 * right, 40 * count / count.max(), color=COLOURS[index], marker=MARKERS[index])
    axes.set(xlabel="probability of the predicted class, points", ylabel="right, points")
    axes.legend(frameon=False)
    return figure


def layers(by_fold: Sequence[Mapping[int, float]], taken: Sequence[int], score: str) -> Figure:
    """The cross-validated score of each state: a line a fold, the mean bold, what each fold takes as a dot."""
    figure, axes = _axes(2.4)
    for of, state in zip(by_fold, taken, strict=True):
        axes.plot(list(of), [100 * value for value in of.values()], color=GREY, linewidth=0.6)
        axes.plot([state], [100 * of[state]], "o", color=COLOURS[0], markersize=4)
    states = list(by_fold[0])
    axes.plot(states, [100 * float(np.mean([of[s] for of in by_fold])) for s in states], color=COLOURS[0], linewidth=2)
    axes.set(xlabel="state of the encoder", ylabel=f"{score}, points")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def mix(weights: Mapping[str, Spread], label: str) -> Figure:
    """The weight of each state in a layer mix, mean and deviation over folds and seeds."""
    figure, axes = _axes(2.4)
    heights, spread = zip(*((100 * w.mean, 100 * w.sd) for w in weights.values()), strict=True)
    axes.bar(list(map(int, weights)), heights, yerr=spread, color=COLOURS[0], ecolor="black", capsize=2)
    axes.set(xlabel="state of the encoder", ylabel="weight, %", title=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
