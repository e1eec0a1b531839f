"""A probe's report: the page, and what the terminal shows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console

from bas.report.format import NONE, counted, encoder_name, ends, estimate, over_seeds, points, spread, verdict
from bas.report.notes import (
    about,
    ceiling_line,
    corrected,
    intervals_line,
    over_folds,
    preset_line,
    remark_lines,
    uncorrected_line,
    verdict_lines,
)
from bas.report.table import Table, rich_table
from bas.runs.layers import middle
from bas.stats import Estimate, Paired, Spread
from bas.studies.probe.few import COUNTS, IN_ALL
from bas.studies.probe.heads import KINDS, MEAN, SOFTMAX
from bas.studies.probe.numbers import AGGREGATES, CHOSEN, ON_VALID, WHOSE
from bas.studies.probe.results import Choice, FewLabels, Probe, StoreProbe, Transfer
from bas.studies.probe.transfer import CLASSLESS, UNUSABLE
from bas.training.heads import state_name
from bas.training.settings import PROBED
from bas.util.markdown import bullets, markdown_table, paragraph, section

CLAIMS = {
    "disjoint, training": "LAYER=best",
    "disjoint, valid": "on valid",
    "disjoint, test": "on test",
    "random, valid": "on valid, MARKED",
    "random, test": "on test, MARKED",
}
"""The last is the paper's way; marked: speakers on both sides."""


def title_of(store: StoreProbe) -> str:
    return f"{store.corpus}, {encoder_name(store.encoder.name)}"


def _compared(store: StoreProbe) -> dict[str, Paired]:
    """Every difference of a store's tables, by "linear state 2 against state 4"."""
    return {
        f"{kind} {name} {other}": of
        for kind, rows in store.heads.items()
        for name, row in rows.items()
        for other, of in zip(_others(store), (row.against_last, row.against_softmax), strict=True)
        if of
    }


def _others(store: StoreProbe) -> tuple[str, str]:
    return f"against state {store.states[-1]}", f"against the {SOFTMAX}"


def _layers(store: StoreProbe, kind: str) -> Table:
    metrics, headline = list(store.heads[kind][state_name(store.states[0])].metrics), store.headline
    stay = corrected(_compared(store).values())
    rows = []
    for name, row in store.heads[kind].items():
        scores = [spread(row.metrics[m]) for m in metrics]
        against = [verdict(row.against_last, stay), verdict(row.against_softmax, stay)]
        rows.append([name, *scores, ends(row.interval), *against])
    return ["reads", *metrics, f"interval of {headline}", *_others(store)], rows


def _claims(choice: Choice) -> Table:
    heading, rows = ["layer chosen"], [[name] for name in CLAIMS.values()]
    for kind in KINDS:
        heading += [kind, "more"]
        for cells, name in zip(rows, CLAIMS, strict=True):
            claim = choice.biases[kind].claims[name]
            more = NONE if name == next(iter(CLAIMS)) else estimate(claim.bias, claim)
            cells += [points(claim.claims), more]
    return heading, rows


def _reductions(by_kind: Mapping[str, Mapping[str, Mapping[str, Estimate | Spread]]], classes: bool) -> Table:
    """Of errors in percent; without classes gains, in points."""

    def cell(of: Estimate | Spread) -> str:
        if not classes:
            sd = f" ± {points(of.sd)}" if isinstance(of, Spread) else ""
            return estimate(of.value, of) if isinstance(of, Estimate) else points(of.mean, "+") + sd
        if isinstance(of, Spread):
            return f"{100 * of.mean:+.0f} % ± {100 * of.sd:.0f}" if math.isfinite(of.mean) else NONE
        return f"{100 * of.value:+.0f} % ({ends(of, '+', digits=0)})" if math.isfinite(of.value) else NONE

    ways = {"ours": "{}", "paper": "{}, the paper's way (MARKED)"}
    heading = [
        "fewer errors than the" if classes else "points above the",
        *(ways[whose].format(kind) for whose in WHOSE for kind in KINDS),
    ]
    return heading, [
        [name, *(cell(by_kind[kind][whose][name]) for whose in WHOSE for kind in KINDS)] for name in AGGREGATES
    ]


def _few(few: Mapping[str, FewLabels], store: StoreProbe) -> Table:
    headline, labelled = store.headline, f"labelled utterances{' a class' if store.classes else ''}"
    heading = [labelled, "states it picks", *(f"{kind}: {headline}" for kind in KINDS)]
    heading += [f"{kind}: below all labels" for kind in KINDS]
    names = {"0": "none: the middle state"}
    rows = []
    for count, row in few[KINDS[0]].rows.items():
        picks = ", ".join(f"{state} × {n}" for state, n in row.picks.items() if n)
        scores = [few[kind].rows[count].score for kind in KINDS]
        lost = [points(few[kind].all - score.mean) for kind, score in zip(KINDS, scores, strict=True)]
        rows.append([names.get(count, count), picks, *map(spread, scores), *lost])
    return heading, rows


def _curves(store: StoreProbe, kind: str) -> Table:
    names = [head for head in next(iter(store.curves.values())) if head.startswith(kind)]
    rows = [[name.removeprefix(f"{kind} "), *(spread(of[name]) for of in store.curves.values())] for name in names]
    return [f"{kind}, {store.headline}", *(f"{percent} % to train on" for percent in store.curves)], rows


def _listed(states: Sequence[int]) -> str:
    return ", ".join(map(str, states))


def _remarks(store: StoreProbe) -> list[str]:
    heads = [(f"{kind} {name}", row) for kind, of in store.heads.items() for name, row in of.items()]
    return remark_lines({name: row.remarks for name, row in heads})


def _said(store: StoreProbe) -> list[str]:
    """What the tables show, in sentences."""
    choice = store.choice
    if choice is None:
        return ["One state is stored: there is no layer to choose."]
    lines = []
    centre, last = middle(store.states), store.states[-1]
    for kind in KINDS:
        difference = store.heads[kind][state_name(centre)].against_last
        if difference:
            verbs = {"better": "is better than", "worse": "is worse than"}
            verb = verbs.get(difference.verdict, "is not shown to differ from")
            lines.append(f"{kind}: the middle state {centre} {verb} the last, {last}: {verdict(difference)}.")
        lines.append(
            f"{kind}: {ON_VALID}, by fold: {_listed(choice.chosen[kind])}; best on test: "
            f"{choice.biases[kind].best['disjoint']}."
        )
    for kind in KINDS:
        for name, weights in choice.mixes[kind].items():
            lines.append(f"{kind}, weights of the {name}: {', '.join(f'{weight:.2f}' for weight in weights)}.")
    lines.append(f"{CHOSEN} takes, by fold: {_listed(choice.chosen[CHOSEN])}.")
    return lines


def _legend(store: StoreProbe) -> list[str]:
    count, compared = len(store.seeds), _compared(store)
    lines = [
        f"Protocol {store.protocol.description}; {store.folds} folds, {counted(count, 'seed')}, "
        f"{store.fit:.0f} training utterances a fold. Metrics in points, {over_seeds(count)}, on "
        f"{store.tested} test utterances{'' if store.pooled else f', {over_folds(store)}'}.",
        intervals_line(store),
        *verdict_lines(store, compared, store.false_verdicts),
        *uncorrected_line(compared.values()),
        "linear: the mean frame into a linear layer. dense: two pointwise layers of 256 with ReLU over the frames, "
        "their mean, a linear layer. Each keeps its epoch of the lowest validation loss. One training of a "
        "fold and seed makes all heads.",
        f"{MEAN}: of all states; {SOFTMAX}: SUPERB's; 1x1 mix: free weights, the paper's; first k: a softmax mix.",
    ]
    if store.ceiling:
        lines.append(ceiling_line(store.ceiling))
    return [*lines, *(_legend_of_choice(store) if store.choice else ()), *about(store)]


def _legend_of_choice(store: StoreProbe) -> list[str]:
    lines = [
        f"{CHOSEN}: in each fold the state whose linear model does best in cross-validation over whole speakers of fit "
        f"and valid; {ON_VALID}: the state whose head has the best {store.headline} there, over seeds. Either is "
        "taken as it was made: that other training speakers would have made another choice is in no interval.",
        f"MARKED: {store.random.rule}, drawn over utterances, speakers on both sides, {store.random.fit:.0f} to "
        "train on; with a choice on test it is the paper's protocol. A choice on test takes one state for all folds; "
        "its interval repeats the choice without each unit and with other trainings; it may still be too narrow. Every "
        "other choice is made in each fold. More: the excess over the first row's claim.",
        "The middle state against the last is the one comparison that was planned: its p needs no correction. The "
        f"excess of a claim and the {'errors saved' if store.classes else 'points above the mixes'} are not corrected "
        "for their number.",
        "Few labels: mean ± deviation over draws of the labels. No interval: speakers and trainings stay the same.",
    ]
    if not store.classes:
        lines.append(
            f"Task {store.protocol.task} has no classes. Heads begin at the mean of the fit part. Few labels: so many "
            f"utterances in all, of whatever value: {_listed(IN_ALL)} are as many as {_listed(COUNTS)} of each of four "
            "classes. Errors can be counted of classes alone: here one layer stands beside the mixes in points of "
            f"{store.headline}."
        )
    if not store.pooled:
        lines.append(
            "A metric within folds depends on whose utterances a test part has. MARKED, each has those of all "
            "speakers, so what that claims more is not of the leak alone."
        )
    if len(store.seeds) == 1:
        lines.append(
            "With one seed, what a choice claims beyond the first has no interval: the two splits' folds overlap, so "
            "nothing shows the noise of training. Three seeds do."
        )
    return lines


def _sections(store: StoreProbe) -> list[tuple[str, Table]]:
    sections = [(f"{kind} heads", _layers(store, kind)) for kind in KINDS]
    if choice := store.choice:
        sections.append(("what each way of choosing claims", _claims(choice)))
        saved = f"errors that one layer, {CHOSEN}, saves" if store.classes else f"one layer, {CHOSEN}, beside the mixes"
        sections.append((saved, _reductions(choice.reduction or choice.gain, bool(store.classes))))
        sections.append(("the layer from few labels", _few(choice.few, store)))
    if len(store.curves) > 1:
        sections += [(f"learning curves, {kind}", _curves(store, kind)) for kind in KINDS]
    return sections


def markdown(results: Probe) -> str:
    """The whole report as a page."""
    lines = ["# Which layer?", ""]
    for store in results.stores:
        lines += [section(2, title_of(store)), "", paragraph(f"{preset_line(store.settings)}."), ""]
        for title, rows in _sections(store):
            lines += [section(3, f"{title[0].upper()}{title[1:]}"), "", *markdown_table(*rows), ""]
        lines += [*bullets((*_remarks(store), *_said(store), *_legend(store))), ""]
        settings = store.settings.to_dict()
        lines += [paragraph("Settings: " + ", ".join(f"{name}={settings[name]}" for name in ("preset", *PROBED))), ""]
    for between in results.transfer:
        lines += [section(2, f"Transfer, {encoder_name(between.encoder.name)}"), ""]
        line = f"{between.metric} on {', '.join(between.classes)} (labels {between.labels})"
        over = "the target's units and the source's trainings, of which those of one fold count as one"
        lines += [paragraph(f"{line}; 95 % intervals over {over}."), ""]
        notes = [f"Mark: {mark}." for mark in between.marks]
        if between.left_out:
            notes.append(f"Not trained on, for {UNUSABLE}: {', '.join(between.left_out)}.")
        lines += [*bullets(notes), ""] if notes else []
        for kind in KINDS:
            lines += [
                section(3, f"{kind[0].upper()}{kind[1:]} heads"),
                "",
                *markdown_table(*_transfer(between, kind)),
                "",
            ]
    lines += [line for text in _left_out(results) for line in (paragraph(text), "")]
    if results.mean:
        classes = bool(results.stores[0].classes)
        lines += ["## Mean over corpora", "", *markdown_table(*_reductions(results.mean, classes)), ""]
    return "\n".join(lines)


def show(results: Probe, console: Console) -> None:
    """What answers the question, narrow enough for a terminal; the rest is on the page."""
    for store in results.stores:
        console.print(rich_table(f"{title_of(store)}: {store.headline}", *_brief(store)))
        if store.choice:
            title = "what each way to choose the layer claims (MARKED: speakers on both sides)"
            console.print(rich_table(title, *_claims(store.choice)))
        for line in _said(store):
            console.print(line, highlight=False, markup=False)
    for between in results.transfer:
        for mark in between.marks:
            console.print(f"mark: {mark}", style="bold yellow", highlight=False, markup=False)
        for kind in KINDS:
            title = f"{encoder_name(between.encoder.name)}, {kind}: {between.metric}"
            console.print(rich_table(title, *_transfer(between, kind)))
    for line in _left_out(results):
        console.print(line, highlight=False, markup=False)


def _left_out(results: Probe) -> list[str]:
    """Why there is no transfer, where several corpora and no classes were probed."""
    first = results.stores[0]
    several = len({store.corpus for store in results.stores}) > 1
    return [CLASSLESS.format(first.protocol.task)] if several and not first.classes else []


def _brief(store: StoreProbe) -> Table:
    heading, rows = ["reads"], [[name] for name in store.heads[KINDS[0]]]
    for kind in KINDS:
        heading += [kind, "interval"]
        for cells, row in zip(rows, store.heads[kind].values(), strict=True):
            cells += [spread(row.metrics[store.headline]), ends(row.interval)]
    return heading, rows


def _transfer(between: Transfer, kind: str) -> Table:
    """Source x target: the corpora, then each language by probes of all the others."""
    matrix = between.matrix[kind]
    targets = list(dict.fromkeys(target for row in matrix.values() for target in row))
    rows = []
    for source, row in matrix.items():
        cells = [row.get(target) for target in targets]
        numbers = [f"{points(cell.mean)} ({ends(cell)})" if cell else "" for cell in cells]
        rows.append([source, between.pretraining, *numbers])
    return ["trained on", "encoder pretrained on", *targets], rows
