"""The page of the study, from its results (`bas.studies.dynamics.numbers.tabulate`)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bas.report.format import NONE, encoder_name, points, spread, verdict
from bas.report.notes import corrected, many_line, uncorrected_line
from bas.report.table import Table
from bas.stats import MIN_UNITS, Paired, Spread
from bas.studies.dynamics.classifiers import MARK
from bas.studies.dynamics.figures import TITLES, medians
from bas.studies.dynamics.numbers import KINDS, LAST, SPLITS
from bas.studies.dynamics.results import CkaRows, Likeness, Measured, ProbeRows, Refused, RidgeRows, Spreads
from bas.util.markdown import bullets, markdown_table, paragraph

SIDES = {"egemaps": "eGeMAPS", "start": "step 0"}
FEW_OF_A_CLASS = 5  # tested utterances of a class; below, macro F1 reads low


def markdown(results: Measured, text_encoder: str | None) -> str:
    """The tables and their legend. text_encoder: see `Setting`."""
    sections = [
        ("Fine-tuning", markdown_table(*_fine_tuning(results))),
        ("Likeness of the states", markdown_table(*_likeness(results))),
        ("Emotion in each state", _emotion(results)),
        ("Acoustic features in each state", _acoustics(results)),
        ("The model cut off after a state", markdown_table(*_cuts(results))),
    ]
    lines: list[str] = []
    for title, table in sections:
        lines += [f"## {title}", "", *table, ""]
    return "\n".join([*lines, *bullets(_legend(results, text_encoder))]) + "\n"


def _spread(mean: float | None, sd: float | None) -> str:
    return NONE if mean is None else spread(Spread(mean, sd or 0.0))


def _fine_tuning(results: Measured) -> Table:
    heading = ["rotation", "third part", "checkpoints at step", "epochs", "valid loss, at first → best", "ended"]
    rows = [
        [
            str(of.rotation),
            f"{of.utterances} of {of.speakers} speakers",
            ", ".join(map(str, of.steps)),
            f"{of.epochs:.1f}",
            f"{of.valid_loss[0]:.3f} → {of.valid_loss[1]:.3f}",
            of.stopped,
        ]
        for of in results.rotations
    ]
    return heading, rows


def _likeness(results: Measured) -> Table:
    """By state, CKA at step 0 and at the last; `×`: not above chance."""
    likeness = results.likeness
    names = [name for name in likeness if name not in ("egemaps", "start")]
    egemaps = likeness.get("egemaps")
    heading = ["eGeMAPS", "change", "by chance", "eGeMAPS, plain", "by chance"] if egemaps else []
    rows = []
    for state in range(results.states):
        cells = []
        if egemaps:
            change, count = egemaps.debiased.change, egemaps.rotations
            sd = f" ± {change.sd[state]:.3f}" if count > 1 else ""
            cells = [
                _ends(egemaps.debiased, state),
                f"{change.mean[state]:+.3f}{sd}, fell in {change.fell[state]} of {count}",
                _chance(egemaps.debiased, state),
                _ends(egemaps.plain, state),
                _chance(egemaps.plain, state),
            ]
        cells += [_ends(likeness[name].debiased, state) for name in names]
        rows.append([str(state), *cells, f"{likeness['start'].debiased.mean[-1][state]:.3f}"])
    return ["state", *heading, *names, "with step 0"], rows


def _ends(of: Likeness, state: int) -> str:
    """At step 0 and at the last."""
    marks = [" ×" if of.by_chance and of.by_chance[row][state] else "" for row in (0, -1)]
    return " → ".join(f"{of.mean[row][state]:.3f}{mark}" for row, mark in zip((0, -1), marks, strict=True))


def _chance(of: Likeness, state: int) -> str:
    return NONE if of.chance is None else f"{of.chance[-1][state]:.3f}"


def _emotion(results: Measured) -> list[str]:
    """A table for each probe and split that is not refused."""
    verdicts = _cells(_against_start(results))
    lines = []
    for kind in KINDS:
        for split in SPLITS:
            of = results.probes[kind][split]
            if isinstance(of, ProbeRows):
                title = f"**{kind} probe, {TITLES[split]}**"
                lines += [title, "", *markdown_table(*_scores(of, results.states, kind, verdicts)), ""]
    return lines[:-1]


def _scores(of: ProbeRows, states: int, kind: str, verdicts: Mapping[str, str]) -> Table:
    """By state, at step 0 and at the last: over initialisations and over splits."""
    heading, columns = ["state"], []
    for row, step in ((0, "step 0"), (-1, LAST)):
        for name in ("initialisations", "splits"):
            heading.append(f"{step}, over {name}")
            spreads: Spreads = getattr(of.states, name)
            columns.append([*map(_spread, spreads.mean[row], spreads.sd[row]), spread(getattr(of.egemaps, name))])
    if of.against_start:
        heading.append(f"{LAST} against step 0")
        columns.append([*(verdicts[_state(kind, state)] for state in range(states)), NONE])
    labels = [*map(str, range(states)), "eGeMAPS"]
    return heading, [[label, *(column[i] for column in columns)] for i, label in enumerate(labels)]


def _state(of: str, state: int) -> str:
    return f"{of} at state {state}"


def _against_start(results: Measured) -> dict[str, Paired]:
    """All comparisons of the tables of emotion."""
    rows = {kind: results.probes[kind]["grouped"] for kind in KINDS}
    return {
        _state(kind, state): one
        for kind, of in rows.items()
        if isinstance(of, ProbeRows)
        for state, one in enumerate(of.against_start or ())
    }


def _against_whole(results: Measured) -> dict[str, Paired]:
    """All comparisons of the table of the model cut off."""
    return {
        _state(head, state): one
        for head, of in results.cut.against_whole.items()
        for state, one in enumerate(of)
        if one is not None
    }


def _cells(compared: Mapping[str, Paired]) -> dict[str, str]:
    """Verdicts; one that does not stay if all of them are corrected for their number says "uncorrected"."""
    stay = corrected(compared.values())
    return {name: verdict(one, stay) for name, one in compared.items()}


def _acoustics(results: Measured) -> list[str]:
    ridge = results.ridge
    if isinstance(ridge, Refused):
        return [paragraph(f"None: {ridge.refused}.")]
    first, last = (medians(ridge, row) for row in (0, -1))

    def cell(name: str, state: int) -> str:
        """NaN: a feature that does not vary."""
        at_first, at_last = first[name][state], last[name][state]
        return NONE if math.isnan(at_first) else f"{at_first:.2f} → {at_last:.2f}"

    rows = [[str(state), *(cell(name, state) for name in first)] for state in range(results.states)]
    return markdown_table(["state", *first], rows)


def _cuts(results: Measured) -> Table:
    cut = results.cut
    columns = [
        zip(cut.own["WA"].mean[-1], cut.own["WA"].sd[-1], strict=True),
        *(zip(cut.refitted[name]["WA"].mean, cut.refitted[name]["WA"].sd, strict=True) for name in ("0", LAST)),
    ]
    scores = zip(*([_spread(*values) for values in column] for column in columns), strict=True)
    verdicts = _cells(_against_whole(results))
    rows = [
        [str(state), *of, *(verdicts.get(_state(head, state), NONE) for head in cut.against_whole)]
        for state, of in enumerate(scores)
    ]
    heading = ["state", "own head", "refitted, step 0", "refitted, last"]
    return [*heading, *(f"{head.replace('own', 'own head')} against the whole" for head in cut.against_whole)], rows


def _legend(results: Measured, text_encoder: str | None) -> list[str]:
    """The meaning of the numbers, their counts, and what was refused."""
    settings, count = results.analysis, len(results.rotations)
    fewer = [f"{row.step} ({row.rotations})" for row in results.rows if row.rotations < count]
    linear = {split: of for split, of in results.probes["linear"].items() if isinstance(of, ProbeRows)}
    notes = {split: "; ".join(linear[split].notes) if split in linear else "" for split in SPLITS}
    parts: dict[str, CkaRows | ProbeRows | RidgeRows | Refused] = {
        **{f"CKA with {name}": of for name, of in results.cka.items()},
        **{f"{kind} probes, {split}": results.probes[kind][split] for kind in KINDS for split in SPLITS},
        "ridge": results.ridge,
    }
    lines = [f"Means over {count} rotations, each on its own third part; → leads from step 0 to the last checkpoint."]
    if fewer:
        lines.append(f"Not every rotation has step {', '.join(fewer)}: its mean is over those.")
    lines.append(
        "Likeness: linear CKA of standardised means over time, debiased (0 for unrelated data) and plain (never 0: it "
        "rises with the width of a state and falls with the utterances). By chance: the 95th percentile of "
        f"{settings.permutations} permutations of the utterances, mean over rotations, at the last checkpoint; a × "
        "is a mean that is not above it. Not corrected for the number of states: up to one in twenty of the unrelated "
        "has no ×. Change: mean ± sd over rotations; no test is made of it."
    )
    if "text" in results.likeness:
        encoder = encoder_name(text_encoder or "")
        lines.append(f"text: embeddings of {encoder}." if encoder else "text: which sentence it is.")
    for name, of in parts.items():
        have, why = (0, of.refused) if isinstance(of, Refused) else (of.rotations, of.others)
        if why:
            lines.append(f"{name}: {have} of {count} rotations; the others: {why}.")
    for name, rows in results.svcca.items():
        if rows.refused:
            lines.append(f"SVCCA with {SIDES[name]} is refused: {rows.refused}.")
        else:
            values = ", ".join(f"{value:.3f}" for value in rows.mean[-1])
            lines.append(f"SVCCA with {SIDES[name]} at the last checkpoint, by state: {values}.")
    if results.missing:
        missing = ", ".join(f"{name} ({n})" for name, n in results.missing.items())
        lines.append(
            "Acoustic features that some utterances do not have, filled with their mean, in probes and ridge with that "
            f"of the fitted: {missing}."
        )
    if results.clipped:
        lines.append(f"Utterances beyond full scale, where openSMILE clips: {results.clipped}.")
    lines.append(
        f"Emotion: macro F1 in points of a classifier on a state; linear, and relu with one hidden layer of "
        f"{settings.hidden}. Over initialisations: mean ± sd of {settings.initialisations} probes on one split, which "
        "differ in first weights and order of utterances, as in the paper. Over splits: mean ± sd of "
        f"{settings.splits} splits with one probe each, of the same initialisation; its sd holds what a split changes "
        "and the luck of a training. Each score is a mean over rotations."
    )
    if notes["grouped"]:
        lines.append(f"Speakers apart: {notes['grouped']}.")
    if notes["published"]:
        lines.append(f"Mark, as published: 80/10/10 at random, {MARK}; its scores say little of new speakers.")
        lines += _few_tested(results)
    lines += _verdicts(results)
    ridge_notes = "; ".join(results.ridge.notes) if isinstance(results.ridge, RidgeRows) else ""
    return [
        *lines,
        "Acoustic features: R² for speakers who were not fitted on, of a family the median over its features; below 0 "
        f"is worse than the mean. Ridge regression; {ridge_notes}.",
        "Cut off: WA in points, mean ± sd over rotations. Own head: the fine-tuned model ends with this state, and its "
        "head, trained on the last one, reads it. Refitted: a logistic regression on the state, fitted on the "
        "utterances that the fine-tuning trained on. The whole: the fine-tuned model as it is.",
    ]


def _few_tested(results: Measured) -> list[str]:
    """Where the published split tests so few utterances that macro F1 reads low."""
    tested, classes = min(of.utterances for of in results.rotations) / 10, results.classes
    if tested >= FEW_OF_A_CLASS * classes:
        return []
    return [
        f"As published, about {tested:.0f} utterances of {classes} classes are tested at a time. Macro F1 of so few "
        "reads lower than of many, so these scores are too low beside those of speakers apart."
    ]


def _verdicts(results: Measured) -> list[str]:
    """What the comparisons are over, what they could have seen, and how many they are."""
    families = {"Against step 0": _against_start(results), "Against the whole": _against_whole(results)}
    units = sorted({one.units for compared in families.values() for one in compared.values()})
    lines = [
        "Against step 0 (mean over splits) and against the whole: points, 95 % interval and p (Student's t), of the "
        "predictions of all rotations together, so not quite the difference of the means. Better or worse: p below "
        "0.05; a tie: these rotations do not tell the two apart.",
        f"Units: {' or '.join(map(str, units))} whole rotations. Each is one fine-tuning, whose luck is in all its "
        "speakers at once; also where both sides read one fine-tuned encoder, as its luck may help one state more than "
        "another. So the intervals are for other third parts and other fine-tunings.",
    ]
    if units[0] < MIN_UNITS:
        lines.append(f"No claim: it needs {MIN_UNITS} rotations or more; protocol speaker:5 makes five.")
    for name, compared in families.items():
        seen = [one.detectable for one in compared.values() if one.detectable]
        if seen:
            lines.append(
                f"{name}, power: a true difference of {points(float(np.median(seen)))} points (by state "
                f"{points(min(seen))} to {points(max(seen))}) is seen in four of five such tables; more rotations see "
                "smaller ones."
            )
        lines += [f"{name}: {line}" for line in many_line(compared)]
    marked = [line for compared in families.values() for line in uncorrected_line(compared.values())]
    return [*lines, *marked[:1]]
