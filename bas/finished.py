"""What is done with a finished run: its results again, two runs side by side, a model of a row, and its use.

Part of `bas.api`. Imports nothing heavy: each function does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bas.errors import UserError
from bas.util.terminal import console_of, say

if TYPE_CHECKING:
    from bas.models.predict import Model
    from bas.report.between import Between
    from bas.report.results import Comparison, Results


def export(
    run: str | os.PathLike[str],
    *,
    row: str | None = None,
    into: str | os.PathLike[str] | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> Path:
    """Fit a row of a comparison on all that its folds train on, and write it as a model's folder, which is returned.

    row: as the table names it; None: the one that the table's answer names. into: None: `models/` in the run's folder.
    seed: one of the run's.
    """
    from bas.models import export as exporting
    from bas.runs.start import reopen
    from bas.util.files import locked

    folder, console = Path(run), console_of(console)
    results = _comparison(folder)
    with locked(folder, "at work"):
        opened = reopen(folder)
        chosen = exporting.check(opened, results, row, seed)
        place = folder / "models" / exporting.on_row(chosen) if into is None else Path(into).expanduser()
        exporting.export(opened, results, chosen, place, console)
    say(console, f"model: {place}")
    return place


def between(
    first: str | os.PathLike[str], second: str | os.PathLike[str], *, console: Console | None = None
) -> tuple[Between, ...]:
    """The rows that two comparisons share, paired on the same test utterances: another encoder, state or setting.

    Raises UserError unless both have the same folds and labels.
    """
    from bas.report import between as pairing
    from bas.runs.start import reopen

    comparisons = [_comparison(Path(folder)) for folder in (first, second)]
    runs = [reopen(Path(folder), trains=False) for folder in (first, second)]
    rows = pairing.between(runs, comparisons)
    pairing.show(runs, comparisons, rows, console_of(console))
    return rows


def _comparison(folder: Path) -> Comparison:
    """The results of a finished `bas compare`. Raises UserError for any other folder."""
    from bas.report.results import Comparison

    if not (folder / "results.json").exists():
        why = "not the folder of a comparison that is complete; `bas compare` makes one"
        raise UserError(f"{folder}: no results.json: {why}")
    results = load_results(folder)
    if not isinstance(results, Comparison) or results.study != "compare":
        raise UserError(f"{folder}: is of `bas {results.study}`; name the folder of a `bas compare`")
    return results


def load(
    folder: str | os.PathLike[str],
    *,
    encoder: str | None = None,
    device: str = "auto",
    spaces: Sequence[str | os.PathLike[str]] = (),
) -> Model:
    """Open a model that `export` wrote, to predict with: `bas.load(FOLDER).predict("recording.wav")`.

    encoder: where its encoder lies today, if not under the name that it had. spaces: files that define blocks which are
    not of `bas`; their code is run.
    """
    from bas.models.predict import Model
    from bas.util.device import choose_device

    return Model.load(Path(folder), choose_device(device), encoder, [Path(file) for file in spaces])


def to_onnx(
    folder: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    with_encoder: bool = False,
    encoder: str | None = None,
    spaces: Sequence[str | os.PathLike[str]] = (),
    console: Console | None = None,
) -> Path:
    """Write a model that `export` wrote as an ONNX graph, for runtimes without Python; its file.

    out: None: `model.onnx` in the folder, or `with-encoder.onnx`. with_encoder: the graph takes a wave in place of the
    encoder's states. encoder, spaces: as in `load`.
    """
    from bas.models import onnx

    if encoder is not None and not with_encoder:
        raise UserError("--encoder: only a graph --with-encoder has one; leave it out, or ask for both")
    default = Path(folder) / (onnx.WHOLE if with_encoder else onnx.NAME)
    place = default if out is None else Path(out).expanduser()
    difference = onnx.write(Path(folder), place, with_encoder, encoder, [Path(file) for file in spaces])
    say(console_of(console), f"graph: {place}; it differs from the model by {difference:.1g} at most")
    return place


def load_results(folder: str | os.PathLike[str]) -> Results:
    """The results of a finished run, as its verb returned them: typed, with `.frame()` for its main table.

    Raises UserError where there is no result, and for a file of another version of bas.
    """
    from bas.studies import load_results as load

    return load(Path(folder))
