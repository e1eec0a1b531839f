"""The text beside a table: what is about to be trained, the marks and notes of its split, layer and corpus."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from bas.protocols import Protocol
from bas.report.format import points
from bas.runs.plan import BEST, MIX
from bas.runs.results import Context
from bas.runs.run import Run
from bas.stats import between
from bas.stats.shares import Ceiling
from bas.training.settings import PRESETS, Settings


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
        f"protocol {run.protocol.description}: {len(run.protocol.folds)} folds x {len(plan.seeds)} seeds; "
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
    if of.layer == MIX:
        lines.append(
            f"Layer mix of states {', '.join(map(str, of.layers))}: summed with softmax weights that are learned with "
            f"each network, mean ± sd over folds and seeds where given; the {of.linear} sees the states' means side by "
            "side."
        )
    if of.note:
        lines.append(f"Note: {of.note}.")
    return lines


def ceiling_line(of: Ceiling) -> str:
    """The ceiling that the targets' own noise sets, in one line."""
    reached = ", ".join(f"{n} {points(v)} ({between(low, high, '')})" for n, (v, low, high) in of.metrics.items())
    listeners = f"{of.raters:.3g} listeners an utterance (binomial votes around beta-distributed shares)"
    return f"Ceiling, what knowing every true share would reach with {listeners}: {reached}."


def preset_line(settings: Settings) -> str:
    """The preset, and what was changed of it."""
    preset = PRESETS[settings.preset].to_dict()
    changes = [f"{name}={value}" for name, value in settings.to_dict().items() if preset[name] != value]
    return f"preset {settings.preset}" + (f" with {', '.join(changes)}" if changes else "")


def settings_line(settings: Settings) -> str:
    """All settings, for a page's end."""
    return "Settings: " + ", ".join(f"{name}={value}" for name, value in settings.to_dict().items())
