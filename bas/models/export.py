"""From a comparison to a model that is taken away.

Axes: S seeds, N test utterances, O classes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bas.blocks import MeanPool
from bas.encoders import EncoderInfo, files_of
from bas.errors import UserError
from bas.features.store import StoreInfo
from bas.models import folder as on_disk
from bas.models.description import FORMAT, Activation, Calibration, Description, Honest, Size
from bas.models.layout import Block, Layout, layout_of, modules
from bas.networks.costs import multiply_adds
from bas.protocols import field_of
from bas.report.answer import answer
from bas.report.closely import Said
from bas.report.comparison import own_name
from bas.report.results import Comparison
from bas.runs.plan import ALL
from bas.runs.results import UNKNOWN, folds_of, results_of, tested
from bas.runs.run import Run
from bas.runs.start import check_jobs
from bas.runs.whole import Whole, epochs, fit_whole, whole
from bas.space import Architecture
from bas.speech.audio import SAMPLE_RATE
from bas.stats.calibration import before_and_after, temperature
from bas.tasks import Classification, Regression, Shares, has_logits
from bas.util.device import choose_device
from bas.util.progress import bar
from bas.util.versions import versions

WORK = "exporting"
"""In a run's folder: what an export has trained so far; deleted when its model is complete."""


SPEECH = 5.0
"""Seconds for which multiply-adds are counted."""


@dataclass(frozen=True)
class Chosen:
    """A row to export: its own name (of a space, a baseline, a linear row), and that of the table."""

    name: str
    label: str
    seed: int


def check(run: Run, comparison: Comparison, row: str | None, seed: int) -> Chosen:
    """The row to export, as the table names it, or the space of a searched row; None: the one that the answer names.

    Raises UserError for a row or a seed that the table does not have, and for a run of which nothing can be exported.
    """
    if run.store.info.derived:
        why = f"its features are derived ({run.store.info.derived}), which a recording alone does not give"
        raise UserError(f"{run.folder}: cannot be exported: {why}")
    if run.store.info.imported:
        why = f"its features ({run.store.info.encoder['name']}) were imported, which a recording alone does not give"
        raise UserError(f"{run.folder}: cannot be exported: {why}")
    if not isinstance(run.task, Classification | Regression | Shares):
        raise UserError(f"{run.folder}: cannot be exported: task {run.task.name} is not of bas")
    choose_device(run.plan.device)
    labels = [one.row for one in comparison.rows]
    label = answer(comparison).row if row is None else row
    if label is None:
        raise UserError(f"{run.folder}: no row is shown to be above chance; name one with --row: {', '.join(labels)}")
    if label not in labels and f"BAS {label}" in labels:
        label = f"BAS {label}"
    if label not in labels:
        raise UserError(f"--row {row!r}: not a row of {run.folder}; it has {', '.join(labels)}")
    if seed not in comparison.seeds:
        raise UserError(f"--seed {seed}: not one of {run.folder}'s, {', '.join(map(str, comparison.seeds))}")
    return Chosen(own_name(run, label), label, seed)


def export(run: Run, comparison: Comparison, chosen: Chosen, into: Path, console: Console) -> Description:
    """Fit a row on all that the folds of a run train on, and write it as a model's folder.

    The caller holds the lock of the run's folder. A killed call goes on with what it has trained.
    """
    on_disk.prepare(into)
    run.plan = run.plan.with_seeds(comparison.seeds)  # a search may have added some that the table does not have
    scored = calibrated(run, chosen.name)
    work = whole(run, run.folder / WORK / on_row(chosen))
    check_jobs(work.folder / "jobs", work.protocol)
    work.folder.mkdir(parents=True, exist_ok=True)
    with bar(console, "epochs") as progress:
        total = epochs(work, chosen.name)
        task = progress.add_task(f"fit {chosen.label} on all training {run.unit}s", total=total)
        fitted = fit_whole(
            work, chosen.name, chosen.seed, lambda: None if progress.finished else progress.advance(task)
        )
        progress.update(task, completed=total)
    made = describe(run, work, comparison, chosen, fitted, scored)
    files = [run.spaces[name].path for name in made.spaces]
    on_disk.write(into, made, fitted.network, files)
    shutil.rmtree(work.folder)
    with suppress(OSError):  # another export's
        work.folder.parent.rmdir()
    return made


def on_row(chosen: Chosen) -> str:
    """A folder's name."""
    return f"{chosen.name.replace(' ', '-')}-seed{chosen.seed}"


def describe(
    run: Run,
    work: Run,
    comparison: Comparison,
    chosen: Chosen,
    fitted: Whole,
    scored: tuple[float, Calibration | None],
) -> Description:
    """The description of a fitted row. work: the run that it was fitted in. scored: from `calibrated`."""
    info, settings = run.store.info, run.plan.settings
    (fold,) = work.protocol.folds
    ids, (heat, calibration) = (*fold.fit, *fold.valid), scored
    row = next(one for one in comparison.rows if one.row == chosen.label)
    units = {field_of(run.utterances[run.position[i]], run.unit) or UNKNOWN for i in ids}
    layout = _layout(fitted, run)
    own = {block.module for block in layout.blocks} - {MeanPool.__module__}
    files = [file for file in run.spaces.values() if own & modules(file)]
    return Description(
        format=FORMAT,
        name=f"{run.folder.name}-{chosen.name.replace(' ', '-')}",
        task=run.task.name,
        outputs=run.outputs,
        activation=_activation(run, chosen.name),
        temperature=heat,
        calibration=calibration,
        device=run.plan.device,
        encoder=EncoderInfo(**info.encoder),
        layers=tuple(info.layers) if fitted.layer in ALL else (int(fitted.layer),),
        dtype=info.dtype,
        stride=fitted.stride,
        network=layout,
        members=fitted.members,
        spaces={file.name: file.digest for file in files},
        shortest=min(info.recordings[i][1] for i in ids) / SAMPLE_RATE,
        longest=max(info.recordings[i][1] for i in ids) / SAMPLE_RATE,
        honest=Honest(
            run=run.folder.name,
            row=row.row,
            metrics=row.metrics,
            headline=comparison.headline,
            interval=row.interval,
            folds=comparison.folds,
            seeds=row.seeds,
            utterances=comparison.tested,
            unit=comparison.unit,
            units=comparison.units,
            protocol=comparison.protocol,
        ),
        trained={
            "corpus": run.corpus.name,
            "note": run.corpus.note,
            "utterances": len(ids),
            "units": len(units),
            "unheard": len(run.protocol.test_ids) - len({*run.protocol.test_ids} & {*ids}),
            "seed": chosen.seed,
            "settings": asdict(settings),
            "versions": versions(),
            "date": date.today().isoformat(),
        },
        license=licenses(info),
        size=_size(fitted, info),
        ranges=tuple(run.task.ranges[name] for name in run.outputs) if isinstance(run.task, Regression) else (),
    )


def _size(fitted: Whole, info: StoreInfo) -> Size:
    frames = math.ceil(math.ceil(SPEECH * info.encoder["frame_rate"]) / fitted.stride)
    width = info.dim * (len(info.layers) if fitted.layer in ALL else 1)
    parameters = sum(p.numel() for p in fitted.network.parameters())
    return Size(parameters=parameters, multiply_adds=multiply_adds(fitted.network, width, frames), seconds=SPEECH)


def _layout(fitted: Whole, run: Run) -> Layout:
    if fitted.space is None:
        return Layout(kind="linear", pool=Block(module=MeanPool.__module__, name=MeanPool.__qualname__))
    dim, settings, space = run.store.info.dim, run.plan.settings, fitted.space
    if len(fitted.members) == 1:
        return layout_of(fitted.network, space, Architecture.of(fitted.members[0].architecture), settings, dim)
    pairs = zip(fitted.network.networks, fitted.members, strict=True)  # type: ignore[arg-type]
    members = tuple(layout_of(one, space, Architecture.of(m.architecture), settings, dim) for one, m in pairs)
    return Layout(kind="mean", members=members, weights=tuple(m.weight for m in fitted.members))


def _activation(run: Run, row: str) -> Activation:
    if has_logits(run.task):
        return "softmax"
    if row in run.task.linears:
        return "none"
    return "range" if isinstance(run.task, Regression) else "sigmoid"


def calibrated(run: Run, row: str) -> tuple[float, Calibration | None]:
    """The temperature of a row, fitted on the test parts of its folds with all seeds, and how far it helps.

    1.0 where temperatures fitted on the other folds do not lower the log loss, with a single fold, and without classes,
    where there is no calibration either. No choice hangs on it, nor any metric: it does not change which class
    is the most probable.
    """
    if not has_logits(run.task):
        return 1.0, None
    jobs = results_of(run, row)
    logits_SNO, targets_N = Said.of(jobs).logits_SNO, tested(run)[0]
    if logits_SNO is None:
        raise UserError(f"--row {row}: a model of the task's own kind, whose probabilities are not known here")
    before, after = before_and_after(logits_SNO, targets_N, folds_of(jobs[0]))
    heat = 1.0
    if after and after.loss < before.loss:
        heat = temperature(np.concatenate(logits_SNO), np.tile(targets_N, len(logits_SNO)))
    return heat, Calibration(utterances=len(targets_N), uncalibrated=before, calibrated=after)


def licenses(info: StoreInfo) -> Mapping[str, str]:
    """What is known of the licences of encoder and corpus: the line of the encoder's own card, where it is here."""
    card = Path(files_of(info.encoder["name"])) / "README.md"
    found: dict[str, Any] = {}
    if card.is_file():
        lines = card.read_text(encoding="utf-8", errors="replace").split("\n---")[0].splitlines()
        given = [line.partition(":")[2].strip() for line in lines if line.startswith("license:")]
        found = {"encoder": given[0]} if given else {}
    unknown = "not known to bas; see where it came from"
    return {"encoder": unknown, "corpus": unknown, **found}
