"""A shares study's report: the page, the figures, TensorBoard, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from bas.report.format import NONE, counted, encoder_name, ends, points, spread, verdict
from bas.report.notes import (
    about,
    ceiling_line,
    corrected,
    intervals_line,
    preset_line,
    settings_line,
    uncorrected_line,
    verdict_lines,
)
from bas.report.table import Table, rich_table
from bas.runs import tensorboard
from bas.stats import FalseVerdicts, Paired, verdict_sentence
from bas.studies.shares.contours import DRAWS, LEAST, MEASURES
from bas.studies.shares.results import ACOUSTIC, Correlation, Example, ShareRow, ShareStudy, StoreShares, WithMetadata
from bas.util.markdown import bullets, markdown_table, paragraph, section


def _ablation(results: ShareStudy) -> Table:
    """Encoder x attention: a row a store and pair of baselines."""
    first = results.stores[0]
    linears, stay = [row for row in first.rows if row not in first.against_linear], _stay(results)
    headline = first.headline
    heading = ["store", "network", "without attention", "with attention", "with minus without", *linears]
    reached = results.ceiling.metrics.get(headline) if results.ceiling else None
    if reached:
        heading.append("ceiling")
    rows = []
    for store in results.stores:
        for pair in store.attention:
            without, with_, *beside = (
                spread(store.rows[row].metrics[headline]) for row in (pair.other, pair.row, *linears)
            )
            most = [points(reached[0])] if reached else []
            rows.append([store.store, pair.other, without, with_, verdict(pair.difference, stay), *beside, *most])
    return heading, rows


def _stay(results: ShareStudy) -> set[Paired]:
    """The differences that are better or worse also once all are corrected for their number."""
    return corrected(results.compared.values())


def _metrics(store: StoreShares, stay: set[Paired]) -> Table:
    """Every metric of every row of a store."""
    (model, *names, interval, params, seconds), rows = _own(store.rows, store.headline)
    heading = [model, *names, interval, f"{store.headline} against the {store.linear}", params, seconds]
    return heading, [[*row[:-2], verdict(store.against_linear.get(row[0]), stay), *row[-2:]] for row in rows]


def _own(rows: Mapping[str, ShareRow], headline: str) -> Table:
    """Every metric of these rows."""
    names = list(next(iter(rows.values())).metrics)
    heading = ["model", *names, f"interval of {headline}", "params", "s"]
    return heading, [
        [
            name,
            *(spread(row.metrics[of]) for of in names),
            ends(row.interval),
            f"{row.parameters:,.0f}",
            f"{row.seconds:.1f}",
        ]
        for name, row in rows.items()
    ]


def _each(results: ShareStudy) -> Table:
    heading = ["store", "one network an emotion", "minus one for all"]
    pairs, stay = [(s.store, pair) for s in results.stores for pair in s.each], _stay(results)
    return heading, [[store, pair.row, verdict(pair.difference, stay)] for store, pair in pairs]


def _stores(results: ShareStudy) -> Table:
    """Every other store against the first, row by row."""
    heading = ["store", "model", f"minus that on {results.stores[0].store}"]
    rows, stay = [(s.store, *row) for s in results.stores for row in s.against_first.items()], _stay(results)
    return heading, [[store, row, verdict(of, stay)] for store, row, of in rows]


def _acoustic(results: ShareStudy) -> Table:
    """Every store's networks against the row of recordings."""
    headline, stay = results.stores[0].headline, _stay(results)
    heading = [
        "store",
        "network",
        headline,
        f"minus {ACOUSTIC} ({points(results.recordings[ACOUSTIC].metrics[headline].mean)})",
    ]
    rows = [(s, *row) for s in results.stores for row in s.against_acoustic.items()]
    return heading, [[s.store, row, spread(s.rows[row].metrics[headline]), verdict(of, stay)] for s, row, of in rows]


def _metadata(store: StoreShares, with_metadata: WithMetadata, stay: set[Paired]) -> Table:
    """Every row of the first store with and without metadata, and the difference."""
    heading = ["store", "model", "without", f"with {' and '.join(with_metadata.fields)}", "with minus without"]
    rows = []
    for row, difference in with_metadata.against.items():
        both = [spread(of[row].metrics[store.headline]) for of in (store.rows, with_metadata.rows)]
        rows.append([store.store, row, *both, verdict(difference, stay)])
    return heading, rows


def _attention(results: ShareStudy) -> Table:
    """What the attention weights correlate with."""

    def cell(of: Correlation | None) -> str:
        if of is None:
            return NONE
        shown = "shown" if of.shown else "not shown"
        return f"{of.mean:+.2f} ({ends(of, '+', scale=1, digits=2)}), p {of.p:.2g}: {shown}"

    heading = ["store", "model", *MEASURES, "spread", "seeds agree", "behind the end"]
    rows = []
    for store in results.stores:
        for name, model in store.models.items():
            agreement = NONE if model.agreement is None else f"{model.agreement:+.2f}"
            cells = [cell(model.measures[measure]) for measure in MEASURES]
            cells += [f"{100 * model.spread:.0f} %", agreement, f"{100 * model.behind:.0f} %"]
            rows.append([store.store, name, *cells])
    return heading, rows


def _said(results: ShareStudy) -> list[str]:
    """The paper's question, in a sentence for each store and pair."""
    lines = []
    for store in results.stores:
        where = f"{store.corpus}, {store.store}, under {store.protocol.description}"
        lines += [
            verdict_sentence(pair.row, pair.other, where, store.headline, pair.difference, store.unit)
            for pair in store.attention
        ]
    return lines


def _legend(results: ShareStudy) -> list[str]:
    store, seeds, compared = results.stores[0], len(results.stores[0].seeds), results.compared
    lines = [
        f"Metrics in points (hundredths of {store.headline} and the like) on {store.tested} test utterances over "
        f"{store.folds} folds (protocol {store.protocol.description}), taken within each fold; mean ± sd over "
        f"{counted(seeds, 'seed')}; linear rows have no seed. The headline is {store.headline}.",
        intervals_line(store),
        *verdict_lines(store, compared, _from_themselves(results)),
        *uncorrected_line(compared.values()),
    ]
    if results.ceiling:
        lines.append(ceiling_line(results.ceiling))
    for one in results.stores:
        prepared = f", {one.encoder.input}" if one.encoder.input else ""
        lines.append(f"{one.store}: {encoder_name(one.encoder.name)}{prepared}; layer {one.layer}.")
    lines.append(
        f"{ACOUSTIC}, after the challenge's baseline: the 6,373 functionals of ComParE 2016 (openSMILE "
        f"{results.opensmile}) and a linear support vector regression for each emotion, standardised and fitted on the "
        "fit part, its C chosen on the valid part. It reads recordings, so it is the same beside every store."
    )
    lines += [f"{name}: {remark}." for name, row in results.recordings.items() for remark in row.remarks]
    lines += dict.fromkeys(
        f"{one.store}, {name}: {remark}."
        for one in results.stores
        for name, row in one.rows.items()
        for remark in row.remarks
    )
    if results.metadata:
        fields = ", ".join(results.metadata.fields)
        lines.append(f"With metadata: one-hot columns of {fields} behind each frame's numbers; zeros where not known.")
    return lines + _looked(results) + list(dict.fromkeys(line for one in results.stores for line in about(one)))


def _from_themselves(results: ShareStudy) -> FalseVerdicts | None:
    """The A/A checks of all stores as one."""
    checks = [store.false_verdicts for store in results.stores if store.false_verdicts]
    return FalseVerdicts(sum(of.count for of in checks), sum(of.total for of in checks)) if checks else None


def _looked(results: ShareStudy) -> list[str]:
    stride = results.stores[0].settings.stride
    return [
        "Attention: the weight of each frame in the pool, for every test utterance by the networks of its fold "
        "(attention.h5); those of a network whose score may be 0 say nothing. Frames are means of "
        f"{stride}. Rank correlations of a network's weights over an utterance's frames (pitch: "
        f"over voiced ones, {LEAST} at least), mean over seeds and utterances; given time: partial. Shown: the "
        "interval excludes 0 (other units and other trainings would show it) and p is at most 0.05 against "
        f"{DRAWS} circular shifts of the weights within each utterance (these weights do). The "
        f"{results.correlations} correlations are not corrected for their number. Energy is "
        f"loudness (Loudness_sma3), F0 in semitones, eGeMAPS by openSMILE {results.opensmile}.",
        "Spread: over what part of the frames the weights spread (exponential of their entropy; 100 %: all alike). "
        "Seeds agree: rank correlation of two seeds' weights; where it is low, no single network's weights mean much. "
        "Behind the end: weight on frames whose centre is after the recording's end, as on padded silence.",
    ]


def _sections(results: ShareStudy) -> list[tuple[str, Table]]:
    first = results.stores[0]
    sections = [(f"encoder x attention: {first.headline}", _ablation(results))]
    if any(store.each for store in results.stores):
        sections.append((f"one network an emotion against one for all: {first.headline}", _each(results)))
    if len(results.stores) > 1:
        sections.append((f"stores against {first.store}: {first.headline}", _stores(results)))
    sections.append((f"networks against {ACOUSTIC}: {first.headline}", _acoustic(results)))
    if results.metadata:
        sections.append((f"metadata: {first.headline}", _metadata(first, results.metadata, _stay(results))))
    return [*sections, ("what attention goes with", _attention(results))]


def markdown(results: ShareStudy) -> str:
    """The whole report as a page."""
    first = results.stores[0]
    lines = [section(1, f"Shares of listeners on {first.corpus}"), "", paragraph(f"{preset_line(first.settings)}."), ""]
    for title, rows in _sections(results):
        lines += [section(2, f"{title[0].upper()}{title[1:]}"), "", *markdown_table(*rows), ""]
    for store in results.stores:
        lines += [
            section(2, f"Every metric on {store.store}"),
            "",
            *markdown_table(*_metrics(store, _stay(results))),
            "",
        ]
    lines += [section(2, f"Every metric of {ACOUSTIC}"), ""]
    lines += [*markdown_table(*_own(results.recordings, first.headline)), ""]
    lines += [*bullets((*_said(results), *_legend(results))), ""]
    return "\n".join([*lines, paragraph(settings_line(first.settings))]) + "\n"


def show(results: ShareStudy, console: Console) -> None:
    """Show the report on the terminal, in narrow tables; the metrics of every row are on the page alone."""
    for title, (heading, rows) in _sections(results):
        for name in dict.fromkeys(row[0] for row in rows):
            for narrow in _narrow(heading[1:], [row[1:] for row in rows if row[0] == name]):
                console.print(rich_table(f"{name}, {title}", *narrow))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
    for line in _said(results):
        console.print(line, style="bold", highlight=False, markup=False)


MOST, TURNED = 4, 2  # columns, and rows beside each other, that a terminal of 80 characters has room for


def _narrow(heading: list[str], rows: list[list[str]]) -> list[Table]:
    """The table; of more than MOST columns turned by 90 degrees, in as many tables as it takes."""
    if len(heading) <= MOST:
        return [(heading, rows)]
    parts = [rows[i : i + TURNED] for i in range(0, len(rows), TURNED)]
    return [
        (
            [heading[0], *(row[0] for row in part)],
            [[heading[c], *(row[c] for row in part)] for c in range(1, len(heading))],
        )
        for part in parts
    ]


def draw(folder: Path, results: ShareStudy, console: Console) -> None:
    """`figures/*.png`, and the same in TensorBoard."""
    figures = {"encoder x attention": _bars(results)}
    for store in results.stores:
        for model, examples in store.examples.items():
            if examples:
                figures[f"attention of {model} on {store.store}"] = _examples(model, store.store, examples)
    protocol = results.stores[0].protocol
    tensorboard.draw(folder, "shares", protocol.description, protocol.marks, figures, console)


def _bars(results: ShareStudy) -> Figure:
    """The headline of every store and row with its interval; dashed, the ceiling; dotted, that of recordings."""
    stores, first = results.stores, results.stores[0]
    names, headline = list(first.rows), first.headline
    figure = Figure(figsize=(3.0 + 1.6 * len(stores), 4.2), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(names):
        rows = [store.rows[name] for store in stores]
        x = np.arange(len(stores)) + 0.8 * (index + 0.5) / len(names) - 0.4
        means = np.array([row.metrics[headline].mean for row in rows])
        ends = np.array([[row.interval.low for row in rows], [row.interval.high for row in rows]], np.float64)
        bars = np.abs(ends - means) if np.isfinite(ends).all() else None
        marker = "o" if name in first.against_linear else "s"
        axes.errorbar(x, means, bars, fmt=marker, markersize=4, capsize=2, label=name)
    if results.ceiling and headline in results.ceiling.metrics:
        axes.axhline(results.ceiling.metrics[headline][0], color="black", linestyle="dashed", label="ceiling")
    axes.axhline(results.recordings[ACOUSTIC].metrics[headline].mean, color="grey", linestyle="dotted", label=ACOUSTIC)
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(ylabel=headline, title=first.corpus)
    axes.set_xticks(range(len(stores)), [store.store for store in stores], fontsize="small")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _examples(model: str, store: str, examples: Sequence[Example]) -> Figure:
    """Weights, loudness and pitch over time; each seed's weights in grey."""
    figure = Figure(figsize=(3.4 * len(examples), 5.2), layout="constrained")
    figure.suptitle(f"{model} on {store}", fontsize="medium")
    panels = figure.subplots(3, len(examples), squeeze=False, sharex="col")
    for column, one in zip(panels.T, examples, strict=True):
        seconds, weights_ST = one.seconds, one.weights
        column[0].plot(seconds, weights_ST.T, color="lightgrey", linewidth=0.8)
        column[0].plot(seconds, weights_ST.mean(0), color="tab:red", marker=".")
        column[0].set_title(f"{one.id}: {one.rho:+.2f} with energy", fontsize="small")
        column[1].plot(seconds, one.energy, color="tab:blue", marker=".")
        column[2].plot(seconds, one.pitch, color="tab:green", marker=".", linestyle="none")
        column[2].set_xlabel("seconds")
    for axes, label in zip(panels[:, 0], ("weight", "loudness (sone)", "F0 (semitones)"), strict=True):
        axes.set_ylabel(label)
    return figure
