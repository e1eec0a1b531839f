"""What a table comes to: which row to take, why, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

from bas.report.format import counted, difference, points
from bas.report.notes import corrected
from bas.report.results import Comparison
from bas.runs.results import LAST_EPOCH, NOT_ABOVE_CHANCE
from bas.stats import Paired


def compared(results: Comparison) -> dict[str, Paired]:
    """Every comparison of the table once, by name."""
    return {
        f"{row.row} against the {other}": of
        for row in results.rows
        for other, of in ((results.reference, row.against_reference), (results.linear, row.against_linear))
        if of and (row.row, other) != (results.linear, results.reference)
    }


@dataclass(frozen=True)
class Answer:
    """row: which to take; None: none of them. text: that, why and how sure it is, in two sentences.

    early: more epochs may change it.
    """

    row: str | None
    text: str
    early: bool = False


def answer(results: Comparison) -> Answer:
    """The linear row, which takes seconds and no search, until another is shown to be better than it.

    Shown means: also corrected for the number of comparisons in the table.
    """
    linear, headline = results.linear, results.headline
    if all(any(remark.startswith(NOT_ABOVE_CHANCE) for remark in row.remarks) for row in results.rows):
        return Answer(None, "Take none of these rows: of none is it shown that it is above chance.")
    against = [(row.row, row.against_linear) for row in results.rows if row.against_linear]
    known = [(row, of) for row, of in against if of.significant is not None]
    if not known:
        seeds = counted(len(results.seeds), "seed")
        why = f"with {results.units} units ({results.unit}), {results.folds} folds and {seeds}"
        text = f"This table tells no row from another, for there is no verdict {why}."
        return Answer(linear, f"{text} Until one does, take the {linear}, the simplest row.")
    stay = corrected(compared(results).values())
    better = [(row, of) for row, of in known if of in stay and of.difference > 0]
    if not better:
        row, most = max(known, key=lambda pair: pair[1].difference)
        seen = points(most.detectable)
        text = (
            f"Take the {linear}, the simplest row: no other is shown to be better. Of the others {row} is the highest, "
        )
        text += (
            f"{headline} {difference(most)} against it; a true difference of {seen} points between these two would be "
        )
        text += f"seen in four of five such tables, before correction.{_chance(results)}{_unfinished(results)}"
        return Answer(linear, text, early=bool(_unfinished(results)))
    best, gap = max(better, key=lambda pair: pair[1].low)
    others = [row for row, _ in better if row != best]
    text = f"Take {best}: {headline} {difference(gap)}, against the {linear}, and so also corrected for the number of "
    text += "comparisons. "
    if others:
        return Answer(best, f"{text}Better than it, too: {', '.join(others)}; which of these is best is not shown.")
    return Answer(best, f"{text}Of no other row is that shown.")


def _unfinished(results: Comparison) -> str:
    """A sentence where most of the other rows had not learnt to an end."""
    others = [row for row in results.rows if row.row != results.linear]
    early = sum(any(LAST_EPOCH in remark for remark in row.remarks) for row in others)
    if 2 * early <= len(others):
        return ""
    return f" But {early} of {len(others)} other rows had not learnt to an end: more epochs may change this."


def _chance(results: Comparison) -> str:
    """A sentence where the linear row may have learnt nothing."""
    linear = next(row for row in results.rows if row.row == results.linear)
    if any(remark.startswith(NOT_ABOVE_CHANCE) for remark in linear.remarks):
        return " It is itself not shown to be above chance."
    for row in results.rows:
        if row.parameters == 0 and (of := row.against_linear) and not (of.significant and of.difference < 0):
            return f" It is itself not shown to be better than {row.row}, which says the same of every recording."
    return ""
