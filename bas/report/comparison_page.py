"""How a comparison reads: the page, and what the terminal shows of it."""

from __future__ import annotations

from collections import Counter

from rich.console import Console

from bas.report.answer import answer, compared
from bas.report.cited import TITLE, cited
from bas.report.format import encoder_name, ends, over_seeds, points, spread, verdict
from bas.report.notes import (
    about,
    ceiling_line,
    corrected,
    intervals_line,
    over_folds,
    preset_line,
    settings_line,
    uncorrected_line,
    verdict_lines,
)
from bas.report.results import Comparison, Ensembles, Races
from bas.report.table import Table, rich_table
from bas.space import told
from bas.util.pages import Grid, Heading, Items, Text, Written, to_markdown

MOST_MEMBERS = 8  # architectures of an ensemble that are listed
MOST = 3  # metrics beside each other on a terminal


def numbers(results: Comparison, most: int | None = None) -> Table:
    """Metrics in points as mean ± deviation over seeds, and what a row costs.

    most: metrics that there is room for, the headline first; None: all, in the task's order.
    """
    headline, names = results.headline, list(results.rows[0].metrics)
    if most and len(names) > most:
        names = list(dict.fromkeys([headline, *names]))[:most]
    intervals = [] if most else [f"interval of {headline}"]
    heading = ["model", *names, *intervals, f"{headline} by fold", "params", "s"]
    rows = []
    for row in results.rows:
        seconds = f"{row.train_seconds:.1f}" + (f" + {row.search_seconds:.1f}" if row.search_seconds else "")
        scores = [spread(row.metrics[name]) for name in names]
        if not most:
            scores.append(ends(row.interval))
        rows.append([row.row, *scores, points(row.fold_mean[headline]), f"{row.parameters:,.0f}", seconds])
    return heading, rows


def differences(results: Comparison) -> Table:
    """The headline metric against the reference and against the linear row."""
    heading = ["model", *(f"{results.headline} against the {name}" for name in (results.reference, results.linear))]
    every = compared(results)
    stay = corrected(every.values())
    rows = []
    for row in results.rows:
        both = row.against_reference, row.against_linear
        if row.row == results.linear and every.get(f"{results.reference} against the {results.linear}") in stay:
            stay |= {one for one in both if one}  # the same comparison, from its other side
        rows.append([row.row, *(verdict(one, stay) for one in both)])
    return heading, rows


def _metrics_line(results: Comparison) -> str:
    return (
        f"Metrics in points on {results.tested} test utterances {over_folds(results)} "
        f"(protocol {results.protocol.description}), {over_seeds(len(results.seeds))}; "
        f"the {results.linear} has no seed."
    )


def legend(results: Comparison) -> list[str]:
    """What the numbers are, and all that must be known of them."""
    lines = [
        _metrics_line(results),
        intervals_line(results),
        f"{results.headline} by fold: the mean over folds. s: seconds of one training of one fold "
        f"({results.device}, one thread); a searched row adds its search. params: median over folds and seeds.",
    ]
    if results.settings.refit:
        lines.append(
            "Refit: each row is trained once more from its beginning, on fit and valid part together, for as many "
            f"epochs as the valid part chose; the {results.linear} is fitted on both with the strength that it chose."
        )
    if results.majority:
        reached = ", ".join(f"{name} {points(value)}" for name, value in results.majority.items())
        lines.append(f"Knowing nothing of the recordings, the most frequent class of each training part: {reached}.")
    if any(of.margin is not None for one in results.decisions.values() for of in one.slots.values()):
        lines.append(
            "Margin: the first block's probability minus the second's; entropy: 1 is undecided; means over searches."
        )
    lines += verdict_lines(results, compared(results), results.false_verdicts)
    lines += uncorrected_line(compared(results).values())
    lines += [f"{row.row}: {remark}." for row in results.rows for remark in row.remarks]
    if results.ceiling:
        lines.append(ceiling_line(results.ceiling))
    return [*lines, *about(results), *_mix(results)]


def _mix(results: Comparison) -> list[str]:
    """Of a layer mix, a line a row: the weight of each state, mean and deviation over folds and seeds."""
    return [
        f"Layer mix, {label}: "
        + ", ".join(f"state {s} {points(w.mean)} ± {points(w.sd)} %" for s, w in weights.items())
        for label, weights in results.mix.items()
    ]


def decisions(results: Comparison) -> list[str]:
    """For each space and slot, how often each block was chosen over folds and seeds, and how surely; the warnings."""
    lines = []
    for name, selection in results.decisions.items():
        often, count = Counter(results.sequences[name]).most_common(1)[0]
        top = shown(results, name, often)
        each = []
        for slot, of in selection.slots.items():
            shares = ", ".join(f"{block} {100 * share:.0f} %" for block, share in of.frequency.items())
            surely = "" if of.margin is None else f" (margin {of.margin:.2f}, entropy {of.entropy:.2f})"
            each.append(f"{slot}: {shares}{surely}")
        lines.append(
            f"{name}, chosen over {selection.searches} searches: {'; '.join(each)}. Most often ({count}): {top}."
        )
        lines += [f"{name}: {warning}" for warning in selection.warnings]
    lines += [line for name, races in results.races.items() for line in _race(name, races)]
    solved = " Without a block, a pool of the mean, the statistics or the quantiles stands for a solved linear model."
    solved = solved if results.majority else ""
    made = [_ensemble(results, name, of, solved) for name, of in results.ensembles.items()]
    return lines + made


def shown(results: Comparison, space: str, sequence: str) -> str:
    """A sequence of a space's choices without its empty slots."""
    return told(dict(zip(results.decisions[space].slots, sequence.split(" > "), strict=True)))


def _ensemble(results: Comparison, name: str, of: Ensembles, solved: str) -> str:
    """What a row averages, the heaviest first. solved: what to say of architectures without a block."""
    heaviest = list(of.weights.items())[:MOST_MEMBERS]
    listed = [f"{shown(results, name, blocks)} {100 * weight:.0f} %" for blocks, weight in heaviest]
    more = "" if len(of.weights) == len(listed) else f", and {len(of.weights) - len(listed)} with less"
    return (
        f"{name}: its row is not the choice alone, but the mean of {of.members:.1f} architectures, weighted by what "
        f"they predict of held-out units; mean weights: {', '.join(listed)}{more}.{solved}"
    )


def _race(name: str, of: Races) -> list[str]:
    """What a race spent, how sure it is, and what more of the budget would buy."""
    spent = f"{of.trainings:.0f} trainings of {of.architectures:.0f} architectures on inner folds"
    spent += f" beside {of.solved:.0f} linear models" if of.solved else ""
    lines = [
        f"{name}, a race of {spent} (means over {of.searches} searches): the choice is the best of them with "
        f"probability {of.probability:.2f} and is expected to lose {of.regret:.3f} of validation loss to the best of "
        f"them; the noise of one training is {of.noise:.3f}. The most promising architecture was expected to gain "
        f"{of.gain:.4f} in another round: what a larger setting budget would buy."
    ]
    if of.diverged:
        lines.append(f"{name}: {of.diverged} of the searches' trainings diverged: these architectures were not taken.")
    if of.alike:
        lines.append(
            f"{name}: in {of.alike} of {of.searches} searches a cheaper architecture could not be told from the "
            "best, or was hardly worse, and was taken."
        )
    if of.early:
        lines.append(f"{name}: {of.early} of {of.searches} searches ended early, as no architecture promised more.")
    return lines


def parts(results: Comparison) -> list[Written]:
    """The tables, their legend, the verdicts and the chosen blocks."""
    return [
        Heading(subject(results), 1),
        Text(answer(results).text, strong=True),
        Grid(*numbers(results)),
        Grid(*differences(results)),
        Items([*legend(results), *decisions(results), *results.verdicts]),
        *([Heading(TITLE, 2), *of] if (of := cited(results)) else []),
        Text(settings_line(results.settings)),
    ]


def markdown(results: Comparison) -> str:
    return to_markdown(parts(results))


def subject(results: Comparison) -> str:
    """What was compared on what."""
    return (
        f"{results.corpus}, {encoder_name(results.encoder.name)}, layer {results.layer}, "
        f"{preset_line(results.settings)}, protocol {results.protocol.description}"
    )


def show(results: Comparison, console: Console) -> None:
    """The tables on the terminal, what must not be overlooked, and the answer; the page explains."""
    title = f"{results.corpus}: which downstream model? (protocol {results.protocol.description})"
    for heading, rows in (numbers(results, MOST), differences(results)):
        console.print(rich_table(title, heading, rows))
        title = f"against the baselines (protocol {results.protocol.description})"
    remarks = [f"{row.row}: {remark}." for row in results.rows for remark in row.remarks]
    for line in (_metrics_line(results), *remarks, *about(results), *decisions(results), *results.verdicts):
        console.print(line, highlight=False)
    console.print(answer(results).text, style="bold", highlight=False)
