"""The text beside a table: what is about to be trained, the marks and notes of its split, layer and corpus."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol as Shape

import numpy as np
from rich.console import Console
from rich.text import Text

from bas.protocols import Protocol
from bas.report.format import counted, points
from bas.runs.plan import ALL, BEST, SEARCH
from bas.runs.results import Context
from bas.runs.run import Run
from bas.stats import MIN_UNITS, FalseVerdicts, Paired, between, holm
from bas.stats.shares import Ceiling
from bas.training.settings import PRESETS, Settings

LEVEL = 0.05
NAMED = 8  # verdicts at most; of more, only the number is given
NEAR = 1.1  # so many seeds are enough that see a difference at most this times what any number of them sees


class Design(Shape):
    """What a table's verdicts are over: `Context`, and the results of a study without one."""

    @property
    def unit(self) -> str: ...

    @property
    def seeds(self) -> tuple[int, ...]: ...


def announce(run: Run, workers: int, console: Console) -> None:
    """Print what is about to be trained, and on what."""
    plan, info, settings = run.plan, run.store.info, run.plan.settings
    console.print(
        Text.assemble(
            (str(run.folder), "bold"),
            f": task {run.task.name} on {run.corpus.name}, {len(run.utterances)} utterances, "
            f"{len(run.outputs)} outputs; {info.encoder['name']} layer {plan.layer}",
        )
    )
    console.print(
        f"protocol {run.protocol.description}: {len(run.protocol.folds)} folds x {counted(len(plan.seeds), 'seed')}; "
        f"{workers} workers of one thread on {plan.device}"
    )
    console.print("settings: " + ", ".join(f"{k}={v}" for k, v in settings.to_dict().items()))
    tell_protocol(run.protocol, console)
    if run.corpus.note:
        console.print(f"note: {run.corpus.note}", style="bold yellow", markup=False)


def announce_study(run: Run, name: Path, reads: str, console: Console) -> None:
    """Print the same for a store that a study reads. name: the run's folder, or the one it is in."""
    line = f"task {run.task.name} on {run.corpus.name}, {len(run.utterances)} utterances"
    line += f"; {run.store.info.encoder['name']}, {reads}; seeds {len(run.plan.seeds)}"
    console.print(Text.assemble((str(name), "bold"), f": {line}"))
    tell_protocol(run.protocol, console)
    if run.corpus.note:
        console.print(f"note: {run.corpus.note}", style="bold yellow", markup=False)


def tell_protocol(protocol: Protocol, console: Console) -> None:
    """Print marks and notes, a line each."""
    for mark in protocol.marks:
        console.print(f"mark: {mark}", style="bold yellow", highlight=False, markup=False)
    for note in protocol.notes:
        console.print(f"note: {note}", style="dim", highlight=False, markup=False)


def over_folds(of: Context) -> str:
    """How a metric combines the folds."""
    return f"pooled over {of.folds} folds" if of.pooled else f"within each of {of.folds} folds, then averaged"


def about(of: Context) -> list[str]:
    """What a table of any kind must say of its split, its layer and its corpus."""
    lines = []
    if of.without_unit:
        lines.append(f"{of.without_unit} utterances of no known {of.unit} count as one.")
    lines += [f"Mark: {mark}." for mark in of.protocol.marks]
    lines += [f"Of the split: {note}." for note in of.protocol.notes]
    if of.layer == BEST:
        lines.append(f"Layer {BEST}: by cross-validation over the training part, by fold {list(of.layers)}.")
    if of.layer in ALL:
        states = f"states {', '.join(map(str, of.layers))}"
        mix = (
            "summed with softmax weights that are learned with each network, mean ± sd over folds and seeds where "
            f"given; the {of.linear} sees the states' means side by side."
        )
        searched = f"Layer search: each search chooses of {states}; rows without a search read their mix: {mix}"
        lines.append(searched if of.layer == SEARCH else f"Layer mix of {states}: {mix}")
    if of.note:
        lines.append(f"Note: {of.note}.")
    return lines


def ceiling_line(of: Ceiling) -> str:
    """The ceiling that the targets' own noise sets, in one line."""
    reached = ", ".join(f"{n} {points(v)} ({between(low, high, '')})" for n, (v, low, high) in of.metrics.items())
    listeners = f"{of.raters:.3g} listeners an utterance (binomial votes around beta-distributed shares)"
    return f"Ceiling, what knowing every true share would reach with {listeners}: {reached}."


def intervals_line(of: Context) -> str:
    """What every interval and verdict of a table means."""
    trainings = f"{of.folds} folds x {len(of.seeds)} seeds" if len(of.seeds) > 1 else f"{of.folds} folds"
    return (
        f"Intervals: 95 %, for other units ({of.units}: {of.unit}) and other trainings ({trainings}). Better or worse: "
        "the interval of the difference excludes 0 (p below 0.05); a tie: these units and trainings do not tell the "
        "two apart."
    )


def verdict_lines(of: Design, compared: Mapping[str, Paired], check: FalseVerdicts | None) -> list[str]:
    """What to know of all comparisons of a table: power, their number, and how often equals were told apart.

    compared: by a name for it, as "BAS ser_bas3 against the 4L transformer".
    """
    return [*power_lines(of, compared.values()), *many_line(compared), false_verdicts_line(check)]


def power_lines(of: Design, compared: Collection[Paired]) -> list[str]:
    """The true difference that the comparisons could have seen, and how many seeds would see smaller ones."""
    known = [one for one in compared if one.detectable is not None]
    if not known:
        return []
    lines = []
    if folds := [one.units for one in known if one.by_fold]:
        if len(of.seeds) == 1:
            lines.append(
                "With one seed, only the differences between folds show the noise of training: these intervals are "
                f"over {min(folds)} folds. With three seeds they are over {of.unit}s and narrower."
            )
        else:
            lines.append(f"{len(folds)} intervals are over {min(folds)} folds: those seeds do not train all anew.")

    def seen(times: float) -> list[float]:
        return [value for one in known if (value := one.detectable_with(times)) is not None]

    now, least = seen(1), float(np.median(seen(math.inf)))
    reach = f" ({points(min(now))} to {points(max(now))})" if len(now) > 1 else ""
    median = points(float(np.median(now)))
    line = f"Power: a true difference of {median} points{reach} is seen in four of five such tables."
    seeds = len(of.seeds)
    if any(one.seeds_se for one in known):
        enough = next((n for n in range(seeds, 1000) if np.median(seen(n / seeds)) <= NEAR * least), None)
        if enough is None:  # all the noise is that of seeds
            line += f" With {2 * seeds} seeds, {points(float(np.median(seen(2))))}."
        elif enough == seeds:
            line += f" With any number of seeds, {points(least)}: more of them would gain little."
        else:
            reached = points(float(np.median(seen(enough / seeds))))
            line += f" With {enough} seeds, {reached}; with any number of them, {points(least)}."
    return [*lines, line]


def many_line(compared: Mapping[str, Paired]) -> list[str]:
    """How many comparisons there are, and which verdicts stay if they are corrected for their number."""
    claims = {name: one for name, one in compared.items() if one.significant is not None}
    if len(claims) < 2:
        return []
    told = sum(bool(one.significant) for one in claims.values())
    left = corrected(claims.values())
    stay = [f"{name} ({one.verdict})" for name, one in claims.items() if one in left]
    line = f"{len(claims)} comparisons, not corrected for their number: {told} are better or worse"
    if told:
        line += f"; corrected (Holm), {len(stay)}" + (f": {', '.join(stay)}" if 0 < len(stay) <= NAMED else "")
    return [f"{line}."]


def corrected(compared: Collection[Paired]) -> set[Paired]:
    """Those that are better or worse also once all are corrected for their number (Holm)."""
    claims = [one for one in compared if one.significant is not None]
    return {one for one, p in zip(claims, holm([one.p for one in claims]), strict=True) if p <= LEVEL}


def uncorrected_line(compared: Collection[Paired]) -> list[str]:
    """What the mark of a table's cells means, where there is one."""
    if not any(one.significant for one in {*compared} - corrected(compared)):
        return []
    return ["Uncorrected, in a table: better or worse by itself, and no longer once all are corrected (Holm)."]


def false_verdicts_line(of: FalseVerdicts | None) -> str:
    """How often rows were told apart from themselves."""
    name = "A/A check, each seed of a row against its other seeds"
    if of is None:
        return f"{name}: needs three seeds and {MIN_UNITS} units."
    return f"{name}: {of.count} of {of.total} verdicts are false ({points(of.rate)} %; 5 % are expected)."


def remark_lines(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """By row what is to say of it: a line for each remark, with the rows that it is of."""
    rows_of: dict[str, list[str]] = {}
    for row, of_row in remarks.items():
        for remark in of_row:
            rows_of.setdefault(remark, []).append(row)
    return [
        f"{', '.join(rows) if len(rows) <= NAMED else f'{len(rows)} of {len(remarks)} rows'}: {remark}."
        for remark, rows in rows_of.items()
    ]


def preset_line(settings: Settings) -> str:
    """The preset, and what was changed of it; a precision that the preset leaves to the machine is no change."""
    preset = PRESETS[settings.preset].to_dict()
    if preset["precision"] == "auto":
        preset["precision"] = settings.precision
    changes = [f"{name}={value}" for name, value in settings.to_dict().items() if preset[name] != value]
    return f"preset {settings.preset}" + (f" with {', '.join(changes)}" if changes else "")


def settings_line(settings: Settings) -> str:
    """All settings, for a page's end."""
    return "Settings: " + ", ".join(f"{name}={value}" for name, value in settings.to_dict().items())
