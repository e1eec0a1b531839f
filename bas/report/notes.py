"""What is said beside a table: what is about to be trained, the marks and notes of its split, layer and corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from bas.protocols import Protocol
from bas.runs.plan import BEST, MIX
from bas.runs.run import Run
from bas.training.settings import PRESETS


def announce(run: Run, workers: int, console: Console) -> None:
    """What is about to be trained, on what."""
    plan, info, settings = run.plan, run.store.info, run.plan.settings
    console.print(
        f"[bold]{run.folder}[/bold]: task {run.task.name} on {run.corpus.name}, {len(run.utterances)} utterances, "
        f"{len(run.outputs)} outputs; {info.encoder['name']} layer {plan.layer}"
    )
    console.print(
        f"protocol {run.protocol.told}: {len(run.protocol.folds)} folds x {len(plan.seeds)} seeds; "
        f"{workers} workers of one thread on {plan.device}"
    )
    console.print("settings: " + ", ".join(f"{k}={v}" for k, v in settings.as_dict().items()))
    tell_protocol(run.protocol, console)
    if run.corpus.note:
        console.print(f"note: {run.corpus.note}", style="bold yellow", markup=False)


def announce_study(run: Run, name: Path, reads: str, console: Console) -> None:
    """Likewise of a store that a study reads. name: of the run's folder, or the one it is in."""
    told = f"task {run.task.name} on {run.corpus.name}, {len(run.utterances)} utterances"
    told += f"; {run.store.info.encoder['name']}, {reads}; seeds {len(run.plan.seeds)}"
    console.print(f"[bold]{name}[/bold]: {told}")
    tell_protocol(run.protocol, console)
    if run.corpus.note:
        console.print(f"note: {run.corpus.note}", style="bold yellow", markup=False)


def tell_protocol(protocol: Protocol, console: Console) -> None:
    """Marks and notes, a line each."""
    for mark in protocol.marks:
        console.print(f"mark: {mark}", style="bold yellow", highlight=False, markup=False)
    for note in protocol.notes:
        console.print(f"note: {note}", style="dim", highlight=False, markup=False)


def over_folds(results: Mapping[str, Any]) -> str:
    """How the folds come together in a metric."""
    folds = results["folds"]
    return f"pooled over {folds} folds" if results["pooled"] else f"within each of {folds} folds, then averaged"


def noted(results: dict[str, Any]) -> list[str]:
    """What a table of any kind must say of its split, its layer and its corpus; see `results.context`."""
    protocol, without = results["protocol"], results["without_unit"]
    mixed = ", ".join(map(str, results["layers"])) if results["layer"] == MIX else ""
    return [
        *([f"{without} utterances of no known {results['unit']} count as one."] if without else []),
        *(f"Mark: {m}." for m in protocol["marks"]),
        *(f"Of the split: {n}." for n in protocol["notes"]),
        *(
            [f"Layer {BEST}: by cross-validation over the training part, by fold {results['layers']}."]
            * (results["layer"] == BEST)
        ),
        *(
            [
                f"Layer mix of states {mixed}: summed with softmax weights that are learned with each network, "
                f"mean ± sd over folds and seeds where given; the {results['linear']} sees the states' means side by "
                "side."
            ]
            * bool(mixed)
        ),
        *([f"Note: {results['note']}."] if results["note"] else []),
    ]


def preset_told(settings: Mapping[str, Any]) -> str:
    """The preset, and what was changed of it."""
    preset = PRESETS[settings["preset"]].as_dict()
    changes = [f"{k}={v}" for k, v in settings.items() if preset[k] != v]
    return f"preset {settings['preset']}" + (f" with {', '.join(changes)}" if changes else "")
