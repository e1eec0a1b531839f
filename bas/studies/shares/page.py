"""A shares study's report: the page, the figures, TensorBoard, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from bas.report.old import noted, preset_told
from bas.report.table import markdown_table, rich_table
from bas.runs import tensorboard
from bas.stats import Paired, between, verdict_sentence
from bas.studies.shares.contours import DRAWS, LEAST, MEASURES

Rows = tuple[list[str], list[list[str]]]


def _spread(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['sd']:.1f}" if found["sd"] else "")  # 0: one seed


def _against(found: Mapping[str, Any]) -> str:
    interval = between(found["low"], found["high"])
    return f"{100 * found['difference']:+.1f} ({interval}), p {found['p']:.2g}: {found['verdict']}"


def _ablation(results: Mapping[str, Any]) -> Rows:
    """Encoder x attention: a row a store and pair of baselines."""
    first = results["stores"][0]
    linears = [row for row in first["rows"] if row not in first["against_linear"]]
    headline, ceiling = first["headline"], results["ceiling"]
    heading = ["store", "network", "without attention", "with attention", "with less without", *linears]
    reached = ceiling["metrics"].get(headline) if ceiling else None
    heading += ["ceiling"] * bool(reached)
    rows = []
    for store in results["stores"]:
        for pair in store["attention"]:
            without, with_ = (_spread(store["rows"][pair[row]]["metrics"][headline]) for row in ("other", "row"))
            beside = [_spread(store["rows"][row]["metrics"][headline]) for row in linears]
            most = [f"{100 * reached[0]:.1f}"] if reached else []
            rows.append([store["store"], pair["other"], without, with_, _against(pair), *beside, *most])
    return heading, rows


def _metrics(store: Mapping[str, Any]) -> Rows:
    """Every metric of every row of a store."""
    names, headline = list(next(iter(store["rows"].values()))["metrics"]), store["headline"]
    heading = ["model", *names, f"interval of {headline}", f"{headline} against the {store['linear']}", "params", "s"]
    rows = []
    for name, row in store["rows"].items():
        against = store["against_linear"].get(name)
        cells = [_spread(row["metrics"][metric]) for metric in names]
        cells += [between(row["low"], row["high"], ""), _against(against) if against else "–"]
        rows.append([name, *cells, f"{row['parameters']:,.0f}", f"{row['seconds']:.1f}"])
    return heading, rows


def _each(results: Mapping[str, Any]) -> Rows:
    heading = ["store", "one network an emotion", "less one for all"]
    found = [(store["store"], pair) for store in results["stores"] for pair in store["each"]]
    return heading, [[name, pair["row"], _against(pair)] for name, pair in found]


def _stores(results: Mapping[str, Any]) -> Rows:
    """Every other store against the first, row by row."""
    heading = ["store", "model", f"less that on {results['stores'][0]['store']}"]
    found = [(store["store"], *of) for store in results["stores"] for of in store["against_first"].items()]
    return heading, [[name, row, _against(paired)] for name, row, paired in found]


def _metadata(results: Mapping[str, Any]) -> Rows:
    """Every row of the first store with metadata, and less that without."""
    store, found = results["stores"][0], results["metadata"]
    heading = ["store", "model", "without", f"with {' and '.join(found['fields'])}", "with less without"]
    rows = []
    for row, paired in found["against"].items():
        both = [_spread(of["rows"][row]["metrics"][store["headline"]]) for of in (store, found)]
        rows.append([store["store"], row, *both, _against(paired)])
    return heading, rows


def _attention(results: Mapping[str, Any]) -> Rows:
    """What the weights go with."""

    def cell(found: Mapping[str, Any] | None) -> str:
        if not found:
            return "–"
        ends = between(found["low"], found["high"], scale=1, digits=2)
        return f"{found['mean']:+.2f} ({ends}), p {found['p']:.2g}: {'shown' if found['shown'] else 'not shown'}"

    heading = ["store", "model", *MEASURES, "spread", "seeds agree", "behind the end"]
    rows = []
    for store in results["stores"]:
        for name, found in store["models"].items():
            agreement = "–" if found["agreement"] is None else f"{found['agreement']:+.2f}"
            cells = [cell(found["measures"][measure]) for measure in MEASURES]
            cells += [f"{100 * found['spread']:.0f} %", agreement, f"{100 * found['behind']:.0f} %"]
            rows.append([store["store"], name, *cells])
    return heading, rows


def comparisons(results: Mapping[str, Any]) -> int:
    """How many differences and correlations the report tests."""
    count = len(results["metadata"]["against"]) if results["metadata"] else 0
    for store in results["stores"]:
        count += sum(len(store[name]) for name in ("attention", "each", "against_linear", "against_first"))
        count += sum(found is not None for model in store["models"].values() for found in model["measures"].values())
    return count


def _said(results: Mapping[str, Any]) -> list[str]:
    """The paper's question, in a sentence for each store and pair."""
    lines = []
    for store in results["stores"]:
        where = f"{store['corpus']}, {store['store']}, under {store['protocol']['told']}"
        for pair in store["attention"]:
            value = Paired(**{k: v for k, v in pair.items() if k not in ("row", "other", "verdict")})
            lines.append(verdict_sentence(pair["row"], pair["other"], where, store["headline"], value, store["unit"]))
    return lines


def _legend(results: Mapping[str, Any]) -> list[str]:
    store, ceiling = results["stores"][0], results["ceiling"]
    headline, seeds = store["headline"], len(store["seeds"])
    lines = [
        f"Metrics in points (hundredths of {headline} and the like) on {store['tested']} test utterances over "
        f"{store['folds']} folds (protocol {store['protocol']['told']}), taken within each fold; mean ± sd over "
        f"{seeds} seed{'s' * (seeds > 1)}; linear rows have no seed. The headline is {headline}.",
        f"Intervals and differences: 95 % jackknife-t, sign-flip p, over {store['units']} units ({store['unit']}), on "
        "the same utterances. Better or worse: the interval excludes 0 and p is at most 0.05; a tie: these units do "
        "not tell the two apart.",
        f"{comparisons(results)} differences and correlations are tested; nothing is corrected for their number.",
        *([_ceiling(ceiling)] if ceiling else []),
        *(
            f"{one['store']}: {one['encoder']['name'].rstrip('/').rpartition('/')[2]}"
            + (f", {one['encoder']['input']}" if one["encoder"]["input"] else "")
            + f"; layer {one['layer']}."
            for one in results["stores"]
        ),
        *dict.fromkeys(
            f"{one['store']}, {name}: {remark}."
            for one in results["stores"]
            for name, row in one["rows"].items()
            for remark in row["remarks"]
        ),
    ]
    if results["metadata"]:
        told = ", ".join(results["metadata"]["fields"])
        lines.append(f"With metadata: one-hot columns of {told} behind each frame's numbers; zeros where not known.")
    return lines + _looked(results) + list(dict.fromkeys(line for one in results["stores"] for line in noted(one)))


def _ceiling(ceiling: Mapping[str, Any]) -> str:
    values = ceiling["metrics"].items()
    reached = ", ".join(f"{name} {100 * v:.1f} ({between(low, high, '')})" for name, (v, low, high) in values)
    told = f"{ceiling['raters']:.3g} listeners an utterance (binomial votes around beta-distributed shares)"
    return f"Ceiling, what knowing every true share would reach with {told}: {reached}."


def _looked(results: Mapping[str, Any]) -> list[str]:
    stride = results["stores"][0]["settings"]["stride"]
    return [
        "Attention: the weight of each frame in the pool, mean over seeds, for every test utterance by the network of "
        f"its fold (attention.h5); of a network whose score may be 0 they say nothing. Frames are means of "
        f"{stride}. Rank correlations over an utterance's frames (pitch: "
        f"over voiced ones, {LEAST} at least), mean over utterances; given time: partial. Shown: the 95 % jackknife "
        "interval over units excludes 0 (other speakers, and the networks of their folds, would show it) and p is at "
        f"most 0.05 against {DRAWS} circular shifts of the weights within each utterance (these weights do). Energy is "
        f"loudness (Loudness_sma3), F0 in semitones, eGeMAPS by openSMILE {results['opensmile']}.",
        "Spread: over what part of the frames the weights spread (exponential of their entropy; 100 %: all alike). "
        "Seeds agree: rank correlation of two seeds' weights; where it is low, no single network's weights mean much. "
        "Behind the end: weight on frames whose centre is behind the recording's, as on silence that was put there.",
    ]


def _sections(results: Mapping[str, Any]) -> list[tuple[str, Rows]]:
    headline = results["stores"][0]["headline"]
    found = [(f"encoder x attention: {headline}", _ablation(results))]
    if any(store["each"] for store in results["stores"]):
        found.append((f"one network an emotion against one for all: {headline}", _each(results)))
    if len(results["stores"]) > 1:
        found.append((f"stores against {results['stores'][0]['store']}: {headline}", _stores(results)))
    if results["metadata"]:
        found.append((f"metadata: {headline}", _metadata(results)))
    return [*found, ("what attention goes with", _attention(results))]


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report as a page."""
    first = results["stores"][0]
    lines = [f"# Shares of listeners on {first['corpus']}", "", f"{preset_told(first['settings'])}.", ""]
    for title, rows in _sections(results):
        lines += [f"## {title[0].upper()}{title[1:]}", "", *markdown_table(*rows), ""]
    for store in results["stores"]:
        lines += [f"## Every metric on {store['store']}", "", *markdown_table(*_metrics(store)), ""]
    lines += [*(f"- {line}" for line in (*_said(results), *_legend(results))), ""]
    return "\n".join([*lines, "Settings: " + ", ".join(f"{k}={v}" for k, v in first["settings"].items())]) + "\n"


def show(results: Mapping[str, Any], console: Console) -> None:
    """The same on the terminal, narrow enough for it; every metric of every row is on the page."""
    for title, (heading, rows) in _sections(results):
        for name in dict.fromkeys(row[0] for row in rows):
            for narrow in _narrow(heading[1:], [row[1:] for row in rows if row[0] == name]):
                console.print(rich_table(f"{name}, {title}", *narrow))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
    for line in _said(results):
        console.print(line, style="bold", highlight=False, markup=False)


MOST, TURNED = 4, 2  # columns, and rows beside each other, that a terminal of 80 characters has room for


def _narrow(heading: list[str], rows: list[list[str]]) -> list[Rows]:
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


def draw(folder: Path, results: Mapping[str, Any]) -> None:
    """`figures/*.png`, and the same in TensorBoard."""
    figures = {"encoder x attention": _bars(results)}
    for store in results["stores"]:
        for model, found in store["examples"].items():
            if found:
                figures[f"attention of {model} on {store['store']}"] = _examples(model, store["store"], found)
    protocol = results["stores"][0]["protocol"]
    tensorboard.draw(folder, "shares", protocol["told"], protocol["marks"], figures)


def _bars(results: Mapping[str, Any]) -> Figure:
    """The headline of every store and row with its interval; dashed, the ceiling."""
    stores, first = results["stores"], results["stores"][0]
    names, headline = list(first["rows"]), first["headline"]
    figure = Figure(figsize=(3.0 + 1.6 * len(stores), 4.2), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(names):
        rows = [store["rows"][name] for store in stores]
        x = np.arange(len(stores)) + 0.8 * (index + 0.5) / len(names) - 0.4
        means = np.array([row["metrics"][headline]["mean"] for row in rows])
        ends = np.array([[row[end] for row in rows] for end in ("low", "high")], np.float64)
        bars = np.abs(ends - means) if np.isfinite(ends).all() else None
        marker = "o" if name in first["against_linear"] else "s"
        axes.errorbar(x, means, bars, fmt=marker, markersize=4, capsize=2, label=name)
    if results["ceiling"] and headline in results["ceiling"]["metrics"]:
        axes.axhline(results["ceiling"]["metrics"][headline][0], color="black", linestyle="dashed", label="ceiling")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(ylabel=headline, title=first["corpus"])
    axes.set_xticks(range(len(stores)), [store["store"] for store in stores], fontsize="small")
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _examples(model: str, store: str, found: Sequence[Mapping[str, Any]]) -> Figure:
    """Weights, loudness and pitch over time; each seed's weights in grey."""
    figure = Figure(figsize=(3.4 * len(found), 5.2), layout="constrained")
    figure.suptitle(f"{model} on {store}", fontsize="medium")
    panels = figure.subplots(3, len(found), squeeze=False, sharex="col")
    for column, one in zip(panels.T, found, strict=True):
        seconds, weights_ST = np.array(one["seconds"]), np.array(one["weights"], np.float64)
        column[0].plot(seconds, weights_ST.T, color="lightgrey", linewidth=0.8)
        column[0].plot(seconds, weights_ST.mean(0), color="tab:red", marker=".")
        column[0].set_title(f"{one['id']}: {one['rho']:+.2f} with energy", fontsize="small")
        column[1].plot(seconds, np.array(one["energy"], np.float64), color="tab:blue", marker=".")
        column[2].plot(seconds, np.array(one["pitch"], np.float64), color="tab:green", marker=".", linestyle="none")
        column[2].set_xlabel("seconds")
    for axes, label in zip(panels[:, 0], ("weight", "loudness (sone)", "F0 (semitones)"), strict=True):
        axes.set_ylabel(label)
    return figure
