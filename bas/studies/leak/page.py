"""The results of a leak study as a page and on the terminal."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console

from bas.report.format import NONE, counted, encoder_name, ends, over_seeds, points, spread
from bas.report.notes import preset_line, settings_line, verdict_lines
from bas.report.table import Table, rich_table
from bas.studies.leak.results import Leak, LeakScore
from bas.util.markdown import bullets, markdown_table, paragraph, section

LEAK_VERDICTS = {"better": "inflated", "worse": "deflated"}
"""The words for a verdict on the leaky split."""

ONE_SEED = (
    "With one seed nothing shows the noise of training, as the folds of the two splits overlap: there is no interval "
    "and no verdict. Three seeds have one."
)


def _title(results: Leak) -> str:
    return f"{results.corpus}: what the leak of {results.leaky.rule} (MARKED) is worth, against {results.clean.rule}"


def _cells(results: Leak, metrics: Collection[str]) -> Table:
    """These metrics under both splits, in points, and what the leak added."""
    rules = [results.clean.rule, f"{results.leaky.rule} (MARKED)"]
    heading = ["model", "metric", *rules, "leak", "sd", "95 % interval", "p", "verdict"]

    def cells(score: LeakScore) -> list[str]:
        leak = score.leak
        sd = points(score.sd) if len(results.seeds) > 1 else NONE
        estimates = [points(leak.difference, "+"), sd, ends(leak, "+"), f"{leak.p:.2g}"]
        return [spread(score.clean), spread(score.leaky), *estimates, LEAK_VERDICTS.get(leak.verdict, leak.verdict)]

    return heading, [[row.row, name, *cells(row.metrics[name])] for row in results.rows for name in metrics]


def _legend(results: Leak) -> list[str]:
    sides = {"clean": results.clean, "leaky": results.leaky}
    lines = [
        f"Points on the {results.tested} of {results.of} utterances that both splits test; "
        f"{over_seeds(len(results.seeds))}; a seed draws both splits, where their rules are random, and the initial "
        "weights.",
        *(
            f"{name}: {side.rule}, {side.fit:.0f} training utterances a fold, hashes {', '.join(side.hashes)}."
            for name, side in sides.items()
        ),
        f"Leak: leaky minus clean; sd: of the difference over seeds. Interval: 95 %, for other units ({results.units}: "
        f"{results.unit}) and other trainings ({counted(len(results.seeds), 'seed')}, each of which draws its own "
        "folds and so is one training). Inflated or deflated: it excludes 0 (p below 0.05); a tie: these units and "
        "trainings do not tell the two apart.",
        *([ONE_SEED] if len(results.seeds) == 1 else verdict_lines(results, results.compared, results.false_verdicts)),
        *(f"Mark of the leaky split: {mark}." for mark in results.leaky.marks),
        *(
            f"Of the {name} split of seed {results.seeds[0]}: {note}."
            for name, side in sides.items()
            for note in side.notes
        ),
    ]
    return [*lines, f"Note: {results.note}."] if results.note else lines


def markdown(results: Leak) -> str:
    """The table and its legend as a page."""
    lines = [
        section(1, _title(results)),
        "",
        paragraph(f"{encoder_name(results.encoder.name)}, layer {results.layer}, {preset_line(results.settings)}."),
        "",
        *markdown_table(*_cells(results, results.rows[0].metrics)),
        "",
        *bullets(_legend(results)),
        "",
        paragraph(settings_line(results.settings)),
    ]
    return "\n".join(lines) + "\n"


def show(results: Leak, console: Console) -> None:
    """The headline's table and the legend on the terminal."""
    heading, rows = _cells(results, (results.headline,))
    shown = [heading.index(name) for name in heading if name not in ("metric", "sd", "p")]  # for 80 columns
    narrow = [[row[i] for i in shown] for row in (heading, *rows)]
    console.print(rich_table(f"{_title(results)} ({results.headline})", narrow[0], narrow[1:]))
    for line in _legend(results):
        console.print(line, highlight=False, markup=False)
