"""The results of a tuning as a page and on the terminal."""

from __future__ import annotations

from rich.console import Console

from bas.report import comparison_page
from bas.report.format import NONE
from bas.report.table import Table, rich_table
from bas.space import told
from bas.studies.tune.ranges import BLOCK
from bas.studies.tune.results import Tuning
from bas.util.pages import Grid, Heading, Items, to_markdown

MODES = {
    "blocks": "blocks and settings by Optuna (TPE)",
    "search": "settings by Optuna (TPE), blocks by the search in each trial",
}


def _chosen(results: Tuning, space: str) -> Table:
    """The best trial of each fold, beside the preset's."""
    tuned = results.tuning[space]
    names = [name for name in tuned.ranges if not name.startswith(BLOCK)]
    rows = []
    for index, fold in enumerate(tuned.folds):
        values = [fold.params[name] for name in names]
        shown = [f"{value:.2g}" if isinstance(value, float) else str(value) for value in values]
        losses = [f"{fold.value:.3f}", NONE if fold.preset is None else f"{fold.preset:.3f}"]
        rows.append([str(index), str(fold.best), *losses, *shown, told(fold.architecture)])
    return ["fold", "trial", "valid loss", "preset's", *names, "blocks"], rows


def _legend(results: Tuning) -> list[str]:
    seed = results.seeds[0]
    lines = [
        f"Tuned: {MODES[results.mode]}. A study of its own in every fold, all trials with seed {seed}; a trial's "
        "value is its lowest validation loss over the epochs, and none saw a test part. Trial 0 is the preset, in mode "
        "blocks with the first candidate of every slot. Deviations of a tuned row are over trainings of the one trial "
        "that was chosen in a fold, not over studies; its intervals are over the folds, whose choices are independent: "
        "the luck of choosing is in them.",
        "s of a tuned row: one training of what was chosen, and the trials of one fold.",
    ]
    for space, tuned in results.tuning.items():
        folds = tuned.folds
        trials, complete = sum(fold.trials for fold in folds), sum(fold.complete for fold in folds)
        broken = sum(fold.broken for fold in folds)
        lines.append(
            f"{space}: {trials} trials over {len(folds)} folds in {sum(fold.seconds for fold in folds):,.0f} s: "
            f"{complete} complete, {trials - complete - broken} pruned, {broken} diverged or too large."
        )
        lines.append(f"{space}, drawn from: {'; '.join(f'{n} {of}' for n, of in tuned.ranges.items())}.")
        if tuned.importances:
            order = sorted(tuned.importances.items(), key=lambda item: -item[1])
            shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in order)
            lines.append(f"{space}, what mattered (PED-ANOVA over the complete trials, mean over folds): {shares}.")
        before = [str(index) for index, fold in enumerate(folds) if fold.scored_before]
        if before:
            note = f"the best of another number of trials was scored on the test parts of folds {', '.join(before)}"
            lines.append(f"Note: {space}: {note}; those scores are in jobs/.")
    return lines


def markdown(results: Tuning) -> str:
    """The parts of `comparison_page`, then the best trial of each fold and a legend."""
    best = [
        part
        for space in results.tuning
        for part in (Heading(f"{space}: the best trial of each fold"), Grid(*_chosen(results, space)))
    ]
    return to_markdown([*comparison_page.parts(results), *best, Items(_legend(results))])


def show(results: Tuning, console: Console) -> None:
    """The same on the terminal."""
    comparison_page.show(results, console)
    for space in results.tuning:
        heading, rows = _chosen(results, space)
        narrow = [[*r[:4], ", ".join(map(" ".join, zip(heading[4:], r[4:], strict=True)))] for r in rows]
        title = f"{space}: the best trial of each fold (protocol {results.protocol.description})"
        console.print(rich_table(title, [*heading[:4], "drawn"], narrow))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
