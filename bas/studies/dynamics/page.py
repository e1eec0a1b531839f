"""The page of the study, from its results (`bas.studies.dynamics.numbers.tabulate`)."""

from __future__ import annotations

import math

from bas.report.format import NONE, encoder_name, spread, verdict
from bas.report.table import Table
from bas.stats import MIN_UNITS, Spread
from bas.studies.dynamics.classifiers import MARK
from bas.studies.dynamics.figures import medians
from bas.studies.dynamics.numbers import KINDS, LAST, SPLITS
from bas.studies.dynamics.results import CkaRows, Likeness, Measured, ProbeRows, Refused, RidgeRows
from bas.util.markdown import bullets, markdown_table, paragraph

SIDES = {"egemaps": "eGeMAPS", "start": "step 0"}


def markdown(results: Measured, text_encoder: str | None) -> str:
    """The tables and their legend. text_encoder: see `Setting`."""
    sections = [
        ("Fine-tuning", markdown_table(*_fine_tuning(results))),
        ("Likeness of the states", markdown_table(*_likeness(results))),
        ("Emotion in each state", markdown_table(*_scores(results))),
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


def _scores(results: Measured) -> Table:
    heading, columns = ["state"], []
    labels = [*map(str, range(results.states)), "eGeMAPS"]
    for kind in KINDS:
        for split in SPLITS:
            of = results.probes[kind][split]
            if isinstance(of, Refused):
                continue
            for row, name in ((0, "step 0"), (-1, LAST)):
                heading.append(f"{kind}, {split}, {name}")
                cells = map(_spread, of.states.mean[row], of.states.sd[row])
                columns.append([*cells, spread(of.egemaps)])
            if of.against_start:
                heading.append(f"{kind}, {split}, {LAST} against step 0")
                columns.append([*map(verdict, of.against_start), NONE])
    return heading, [[label, *(column[i] for column in columns)] for i, label in enumerate(labels)]


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
    against = zip(*(map(verdict, cut.against_whole[head]) for head in ("own", "refitted")), strict=True)
    rows = [[str(state), *a, *b] for state, (a, b) in enumerate(zip(scores, against, strict=True))]
    heading = ["state", "own head", "refitted, step 0", "refitted, last", "own head against the whole"]
    return [*heading, "refitted against the whole"], rows


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
        "is a mean that is not above it. Change: mean ± sd over rotations; no test is made of it."
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
        f"Emotion: macro F1 in points of a classifier on a state, mean ± sd over {settings.seeds} seeds; linear, "
        f"and relu with one hidden layer of {settings.hidden}. Grouped: {notes['grouped']}."
    )
    if notes["published"]:
        lines.append(f"Mark, published: 80/10/10 at random, {MARK}; its scores say little of new speakers.")
    if "grouped" in linear and linear["grouped"].against_start:
        lines.append(
            "Against step 0: points, 95 % jackknife-t interval, sign-flip p over "
            f"{linear['grouped'].against_start[0].units} speakers; of the predictions "
            "of all rotations together, so it is not quite the difference of the means. No claim below "
            f"{MIN_UNITS} speakers. Nothing is corrected for the number of states."
        )
    ridge_notes = "; ".join(results.ridge.notes) if isinstance(results.ridge, RidgeRows) else ""
    return [
        *lines,
        "Acoustic features: R² for speakers who were not fitted on, of a family the median over its features; below 0 "
        f"is worse than the mean. Ridge regression; {ridge_notes}.",
        "Cut off: WA in points. Own head: the fine-tuned model ends with this state, and its head, trained on the "
        "last one, reads it. Refitted: a logistic regression on the state, of subset 1. The whole: the fine-tuned "
        "model as it is.",
    ]
