"""A probe's report: the page, and what the terminal shows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from bas.report.format import points
from bas.report.old import noted, preset_told
from bas.report.table import markdown_table, rich_table
from bas.runs.layers import middle
from bas.stats import between
from bas.studies.probe.heads import KINDS, MEAN, SOFTMAX
from bas.studies.probe.numbers import AGGREGATES, CHOSEN, ON_VALID, WHOSE
from bas.studies.probe.transfer import UNUSABLE
from bas.training.heads import state_name
from bas.training.settings import PROBED

Rows = tuple[list[str], list[list[str]]]

CLAIMS = {
    "disjoint, training": "LAYER=best",
    "disjoint, valid": "on valid",
    "disjoint, test": "on test",
    "random, valid": "on valid, MARKED",
    "random, test": "on test, MARKED",
}
"""The last is the paper's way; marked: speakers on both sides."""


def _spread(found: Mapping[str, float]) -> str:
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['sd']:.1f}" if found["sd"] else "")  # 0: one seed


def _against(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "–"
    ends = between(found["low"], found["high"])
    return f"{100 * found['difference']:+.1f} ({ends}), p {found['p']:.2g}: {found['verdict']}"


def _encoder(store: Mapping[str, Any]) -> str:
    return str(store["encoder"]["name"]).rstrip("/").rpartition("/")[2]


def title_of(store: Mapping[str, Any]) -> str:
    return f"{store['corpus']}, {_encoder(store)}"


def _layers(store: Mapping[str, Any], kind: str) -> Rows:
    metrics, headline = list(store["heads"][kind][state_name(store["states"][0])]["metrics"]), store["headline"]
    last = store["states"][-1]
    heading = ["reads", *metrics, f"interval of {headline}", f"against state {last}", f"against the {SOFTMAX}"]
    rows = []
    for name, row in store["heads"][kind].items():
        cells = [_spread(row["metrics"][m]) for m in metrics]
        against = [_against(row["against"].get(other)) for other in ("last", "softmax")]
        rows.append([name, *cells, between(row["low"], row["high"], ""), *against])
    return heading, rows


def _claims(store: Mapping[str, Any]) -> Rows:
    heading, rows = ["layer chosen"], [[told] for told in CLAIMS.values()]
    for kind in KINDS:
        heading += [kind, "more"]
        for cells, name in zip(rows, CLAIMS, strict=True):
            found = store["biases"][kind]["claims"][name]
            more = f"{100 * found['bias']:+.1f} ({between(found['low'], found['high'])})"
            cells += [points(found["claims"]), "–" if name == next(iter(CLAIMS)) else more]
    return heading, rows


def _reductions(found: Mapping[str, Any]) -> Rows:
    def cell(one: Mapping[str, float]) -> str:
        if not math.isfinite(next(iter(one.values()))):
            return "–"
        if "sd" in one:
            return f"{100 * one['mean']:+.0f} % ± {100 * one['sd']:.0f}"
        return f"{100 * one['reduction']:+.0f} % ({between(one['low'], one['high'], digits=0)})"

    told = {"ours": "{}", "paper": "{}, the paper's way (MARKED)"}
    heading = ["errors less than of the", *(told[whose].format(kind) for whose in WHOSE for kind in KINDS)]
    return heading, [
        [name, *(cell(found[kind][whose][name]) for whose in WHOSE for kind in KINDS)] for name in AGGREGATES
    ]


def _few(store: Mapping[str, Any]) -> Rows:
    heading = ["labelled utterances a class", "states it picks", *(f"{kind}: {store['headline']}" for kind in KINDS)]
    heading += [f"{kind}: less than by all" for kind in KINDS]
    found, told = {kind: store["few"][kind] for kind in KINDS}, {"0": "none: the middle state"}
    rows = []
    for count, row in found[KINDS[0]]["rows"].items():
        picks = ", ".join(f"{state} × {n}" for state, n in row["picks"].items() if n)
        reached = [found[kind]["rows"][count] for kind in KINDS]
        cells = [_spread(r) if r["draws"] > 1 else points(r["mean"]) for r in reached]
        lost = [f"{100 * (found[kind]['all'] - r['mean']):.1f}" for kind, r in zip(KINDS, reached, strict=True)]
        rows.append([told.get(count, count), picks, *cells, *lost])
    return heading, rows


def _curves(store: Mapping[str, Any], kind: str) -> Rows:
    curves = store["curves"]
    names = [head for head in next(iter(curves.values())) if head.startswith(kind)]
    rows = [[name.removeprefix(f"{kind} "), *(_spread(found[name]) for found in curves.values())] for name in names]
    return [f"{kind}, {store['headline']}", *(f"{percent} % to train on" for percent in curves)], rows


def _listed(states: Sequence[int]) -> str:
    return ", ".join(map(str, states))


def _said(store: Mapping[str, Any]) -> list[str]:
    """What the tables come to, in sentences."""
    if "chosen" not in store:
        return ["One state is stored: there is no layer to choose."]
    lines = []
    states = store["states"]
    centre, last = middle(states), states[-1]
    for kind in KINDS:
        rows = store["heads"][kind]
        found = rows[state_name(centre)]["against"].get("last")
        if found:
            verb = {"better": "is better than", "worse": "is worse than"}.get(
                found["verdict"], "is not shown to differ from"
            )
            lines.append(f"{kind}: the middle state {centre} {verb} the last, {last}: {_against(found)}.")
        lines.append(
            f"{kind}: {ON_VALID}, by fold: {_listed(store['chosen'][kind])}; best on test: "
            f"{store['biases'][kind]['best']['disjoint']}."
        )
    for kind in KINDS:
        for name, weights in store["mixes"][kind].items():
            lines.append(f"{kind}, weights of the {name}: {', '.join(f'{weight:.2f}' for weight in weights)}.")
    lines.append(f"{CHOSEN} takes, by fold: {_listed(store['chosen'][CHOSEN])}.")
    return lines


def _legend(store: dict[str, Any]) -> list[str]:
    headline, fit, count = store["headline"], store["fit"], len(store["seeds"])
    return [
        f"Protocol {store['protocol']['told']}; {store['folds']} folds, {count} seed{'s' * (count > 1)}, "
        f"{fit['ours']:.0f} training utterances a fold. Metrics in points, mean ± deviation over seeds, on "
        f"{store['tested']} test utterances; 95 % intervals: jackknife-t over {store['units']} units "
        f"({store['unit']}); better, worse or tie by interval and sign-flip test (p).",
        "linear: the mean frame into a linear layer. dense: two pointwise layers of 256 with ReLU over the frames, "
        "their mean, a linear layer. Each keeps its epoch of the lowest validation loss.",
        f"{MEAN}: of all states; {SOFTMAX}: SUPERB's; 1x1 mix: free weights, the paper's; first k: a softmax mix.",
        f"{CHOSEN}: in each fold the state whose linear model does best in cross-validation over whole speakers of fit "
        f"and valid; {ON_VALID}: the state whose head has the best {headline} there, over seeds.",
        f"MARKED: {store['random']['rule']}, drawn over utterances, speakers on both sides, {fit['random']:.0f} to "
        "train on; with a choice on test the paper's protocol. On test one state is chosen for all folds, for an "
        "interval anew without each unit, which still makes it too narrow; else each fold has its own. More: than the "
        "first row claims.",
        "Nothing is corrected for the number of rows; the middle against the last was the question asked beforehand. A "
        "learning curve thins the fit part alone: the valid part is whole at every share.",
        *noted(store),
    ]


def _sections(store: dict[str, Any]) -> list[tuple[str, Rows]]:
    found = [(f"{kind} heads", _layers(store, kind)) for kind in KINDS]
    if "chosen" in store:
        found.append(("what each way of choosing claims", _claims(store)))
        found.append((f"errors that one layer, {CHOSEN}, saves", _reductions(store["reduction"])))
        found.append(("the layer from few labels", _few(store)))
    if len(store["curves"]) > 1:
        found += [(f"learning curves, {kind}", _curves(store, kind)) for kind in KINDS]
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """The whole report as a page."""
    lines = ["# Which layer?", ""]
    for store in results["stores"]:
        lines += [f"## {title_of(store)}", "", f"{preset_told(store['settings'])}.", ""]
        for title, rows in _sections(store):
            lines += [f"### {title[0].upper()}{title[1:]}", "", *markdown_table(*rows), ""]
        lines += [*(f"- {line}" for line in (*_said(store), *_legend(store))), ""]
        lines += ["Settings: " + ", ".join(f"{name}={store['settings'][name]}" for name in ("preset", *PROBED)), ""]
    for found in results["transfer"]:
        lines += [f"## Transfer, {_encoder(found)}", ""]
        told = f"{found['metric']} on {', '.join(found['classes'])} (labels {found['labels']})"
        lines += [f"{told}; 95 % intervals over the target's units.", ""]
        said = [f"- Mark: {mark}." for mark in found["marks"]]
        if found["left_out"]:
            said.append(f"- Not trained on, for {UNUSABLE}: {', '.join(found['left_out'])}.")
        lines += [*said, ""] if said else []
        for kind in KINDS:
            lines += [f"### {kind[0].upper()}{kind[1:]} heads", "", *markdown_table(*_transfer(found, kind)), ""]
    if results["mean"]:
        lines += ["## Mean over corpora", "", *markdown_table(*_reductions(results["mean"])), ""]
    return "\n".join(lines)


def show(results: Mapping[str, Any], console: Console) -> None:
    """What answers the question, narrow enough for a terminal; the rest is on the page."""
    for store in results["stores"]:
        console.print(rich_table(f"{title_of(store)}: {store['headline']}", *_brief(store)))
        if "biases" in store:
            title = "what each way to choose the layer claims (MARKED: speakers on both sides)"
            console.print(rich_table(title, *_claims(store)))
        for line in _said(store):
            console.print(line, highlight=False, markup=False)
    for found in results["transfer"]:
        for mark in found["marks"]:
            console.print(f"mark: {mark}", style="bold yellow", highlight=False, markup=False)
        for kind in KINDS:
            console.print(rich_table(f"{_encoder(found)}, {kind}: {found['metric']}", *_transfer(found, kind)))


def _brief(store: Mapping[str, Any]) -> Rows:
    heading, rows = ["reads"], [[name] for name in store["heads"][KINDS[0]]]
    for kind in KINDS:
        heading += [kind, "interval"]
        for cells, row in zip(rows, store["heads"][kind].values(), strict=True):
            cells += [_spread(row["metrics"][store["headline"]]), between(row["low"], row["high"], "")]
    return heading, rows


def _transfer(found: Mapping[str, Any], kind: str) -> Rows:
    """Source x target: the corpora, then each language by probes of all the others."""
    matrix = found["matrix"][kind]
    targets = list(dict.fromkeys(target for row in matrix.values() for target in row))
    rows = []
    for source, row in matrix.items():
        cells = [row.get(target) for target in targets]
        told = [f"{points(c['mean'])} ({between(c['low'], c['high'], '')})" if c else "" for c in cells]
        rows.append([source, found["pretraining"], *told])
    return ["trained on", "encoder pretrained on", *targets], rows
