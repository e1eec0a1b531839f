"""The page of the study, from its results (`bas.studies.dynamics.numbers.tabulate`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bas.report.table import markdown_table
from bas.stats import MIN_UNITS, between
from bas.studies.dynamics.classifiers import MARK
from bas.studies.dynamics.figures import medians
from bas.studies.dynamics.numbers import KINDS, LAST, SPLITS

SIDES = {"egemaps": "eGeMAPS", "start": "step 0"}

Table = tuple[list[str], list[list[str]]]
"""Heading and rows."""


def markdown(results: Mapping[str, Any]) -> str:
    """The tables and what is to be known of them."""
    found = [
        ("Fine-tuning", _fine_tuning(results)),
        ("Likeness of the states", _likeness(results)),
        ("Emotion in each state", _scores(results)),
        ("Acoustic features in each state", _told(results)),
        ("The model cut off after a state", _cuts(results)),
    ]
    lines: list[str] = []
    for title, table in found:
        lines += [f"## {title}", "", *(table if isinstance(table, list) else markdown_table(*table)), ""]
    return "\n".join([*lines, *(f"- {line}" for line in _legend(results))]) + "\n"


def _points(mean: float, sd: float = 0.0) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * sd:.1f}" if sd else "")


def _verdict(value: Mapping[str, Any]) -> str:
    ends = between(value["low"], value["high"])
    return f"{100 * value['difference']:+.1f} ({ends}), p {value['p']:.2g}: {value['verdict']}"


def _fine_tuning(results: Mapping[str, Any]) -> Table:
    heading = ["rotation", "third part", "checkpoints at step", "epochs", "valid loss, at first → best", "ended"]
    rows = [
        [
            str(of["rotation"]),
            f"{of['utterances']} of {of['speakers']} speakers",
            ", ".join(map(str, of["steps"])),
            f"{of['epochs']:.1f}",
            f"{of['valid_loss'][0]:.3f} → {of['valid_loss'][1]:.3f}",
            of["stopped"],
        ]
        for of in results["rotations"]
    ]
    return heading, rows


def _likeness(results: Mapping[str, Any]) -> Table:
    """By state, CKA at step 0 and at the last; `×`: not above chance."""
    known = {name: of for name, of in results["cka"].items() if "refused" not in of}
    names = [name for name in known if name not in ("egemaps", "start")]
    egemaps = ["eGeMAPS", "change", "by chance", "eGeMAPS, plain", "by chance"] if "egemaps" in known else []
    rows = []
    for state in range(results["states"]):

        def pair(name: str, kind: str, state: int = state) -> str:
            of = known[name][kind]
            ends = [f"{of['mean'][row][state]:.3f}" + " ×" * of["by_chance"][row][state] for row in (0, -1)]
            return " → ".join(ends)

        cells = []
        if egemaps:
            of = known["egemaps"]
            change, count = of["debiased"]["change"], of["rotations"]
            sd = f" ± {change['sd'][state]:.3f}" if count > 1 else ""
            cells = [
                pair("egemaps", "debiased"),
                f"{change['mean'][state]:+.3f}{sd}, fell in {change['fell'][state]} of {count}",
                f"{of['debiased']['chance'][-1][state]:.3f}",
                pair("egemaps", "plain"),
                f"{of['plain']['chance'][-1][state]:.3f}",
            ]
        cells += [*(pair(name, "debiased") for name in names), f"{known['start']['debiased']['mean'][-1][state]:.3f}"]
        rows.append([str(state), *cells])
    return ["state", *egemaps, *names, "with step 0"], rows


def _scores(results: Mapping[str, Any]) -> Table:
    heading, columns = ["state"], []
    labels = [*map(str, range(results["states"])), "eGeMAPS"]
    for kind in KINDS:
        for split in SPLITS:
            of = results["probes"][kind][split]
            if "refused" in of:
                continue
            for row, told in ((0, "step 0"), (-1, LAST)):
                heading.append(f"{kind}, {split}, {told}")
                cells = map(_points, of["states"]["mean"][row], of["states"]["sd"][row])
                columns.append([*cells, _points(**of["egemaps"])])
            if split == "grouped":
                heading.append(f"{kind}, {split}, {LAST} against step 0")
                columns.append([*map(_verdict, of["against_start"]), "–"])
    return heading, [[label, *(column[i] for column in columns)] for i, label in enumerate(labels)]


def _told(results: Mapping[str, Any]) -> Table | list[str]:
    ridge = results["ridge"]
    if "refused" in ridge:
        return [f"None: {ridge['refused']}."]
    first, last = (medians(ridge, row) for row in (0, -1))
    rows = [
        [str(state), *(_ends(first[name][state], last[name][state]) for name in first)]
        for state in range(results["states"])
    ]
    return ["state", *first], rows


def _ends(first: float, last: float) -> str:
    """NaN: a feature that does not vary."""
    return "–" if math.isnan(first) else f"{first:.2f} → {last:.2f}"


def _cuts(results: Mapping[str, Any]) -> Table:
    cut = results["cut"]
    heads = {"refitted, step 0": ("0", "refitted"), "refitted, last": (LAST, "refitted")}
    heading = ["state", "own head", *heads, "own head against the whole", "refitted against the whole"]
    rows = []
    for state in range(results["states"]):
        own = cut["own"]["WA"]
        rows.append(
            [
                str(state),
                _points(own["mean"][-1][state], own["sd"][-1][state]),
                *(
                    _points(cut["refitted"][name]["WA"]["mean"][state], cut["refitted"][name]["WA"]["sd"][state])
                    for name, _ in heads.values()
                ),
                *(_verdict(cut["against_whole"][head][state]) for head in ("own", "refitted")),
            ]
        )
    return heading, rows


def _legend(results: Mapping[str, Any]) -> list[str]:
    """What the numbers are, of how many, and what was refused."""
    settings, count, probes = results["analysis"], len(results["rotations"]), results["probes"]
    fewer = [f"{row['step']} ({row['rotations']})" for row in results["rows"] if row["rotations"] < count]
    grouped = probes["linear"]["grouped"]
    units = grouped["against_start"][0]["units"] if "refused" not in grouped else 0
    notes = {split: "; ".join(probes["linear"][split].get("notes", ())) for split in SPLITS}
    parts = {f"CKA with {name}": of for name, of in results["cka"].items()}
    parts |= {f"{kind} probes, {split}": probes[kind][split] for kind in KINDS for split in SPLITS}
    parts |= {"ridge": results["ridge"]}
    partial = [(name, of, why) for name, of in parts.items() if (why := of.get("refused") or of["others"])]
    missing = ", ".join(f"{name} ({n})" for name, n in results["missing"].items())
    encoder = (results["text_encoder"] or "").rstrip("/").rpartition("/")[2]
    text = f"text: embeddings of {encoder}." if encoder else "text: which sentence it is."
    lines = [
        f"Means over {count} rotations, each on its own third part; → leads from step 0 to the last checkpoint.",
        f"Not every rotation has step {', '.join(fewer)}: its mean is over those." if fewer else "",
        "Likeness: linear CKA of standardised means over time, debiased (0 for unrelated data) and plain (never 0: it "
        "rises with the width of a state and falls with the utterances). By chance: the 95th percentile of "
        f"{settings['permutations']} permutations of the utterances, mean over rotations, at the last checkpoint; a × "
        "is a mean that is not above it. Change: mean ± sd over rotations; no test is made of it.",
        text * ("refused" not in results["cka"]["text"]),
        *(f"{name}: {of.get('rotations', 0)} of {count} rotations; the others: {why}." for name, of, why in partial),
        *(
            f"SVCCA with {SIDES[name]} is refused: {of['refused']}."
            if of["refused"]
            else f"SVCCA with {SIDES[name]} at the last checkpoint, by state: "
            + ", ".join(f"{value:.3f}" for value in of["mean"][-1])
            + "."
            for name, of in results["svcca"].items()
        ),
        "Acoustic features that some utterances do not have, filled with their mean, in probes and ridge with that of "
        f"the fitted: {missing}." * bool(missing),
        f"Utterances beyond full scale, where openSMILE clips: {results['clipped']}." * bool(results["clipped"]),
        f"Emotion: macro F1 in points of a classifier on a state, mean ± sd over {settings['seeds']} seeds; linear, "
        f"and relu with one hidden layer of {settings['hidden']}. Grouped: {notes['grouped']}.",
        f"Mark, published: 80/10/10 at random, {MARK}; its scores say little of new speakers."
        * bool(notes["published"]),
        f"Against step 0: points, 95 % jackknife-t interval, sign-flip p over {units} speakers; of the predictions "
        "of all rotations together, so it is not quite the difference of the means. No claim below "
        f"{MIN_UNITS} speakers. Nothing is corrected for the number of states." * bool(units),
        "Acoustic features: R² for speakers who were not fitted on, of a family the median over its features; below 0 "
        f"is worse than the mean. Ridge regression; {'; '.join(results['ridge'].get('notes', ()))}.",
        "Cut off: WA in points. Own head: the fine-tuned model ends with this state, and its head, trained on the "
        "last one, reads it. Refitted: a logistic regression on the state, of subset 1. The whole: the fine-tuned "
        "model as it is.",
    ]
    return [line for line in lines if line]
