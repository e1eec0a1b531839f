"""`report.html`: a comparison as one file for people, which opens from disk in any browser and needs nothing else.

Axes: S seeds, N test utterances, O classes.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from scipy.special import softmax

from bas.protocols import Fold, field_of, slug
from bas.report import closely, pictures
from bas.report.answer import answer
from bas.report.closely import Jobs, Said
from bas.report.comparison_page import decisions, differences, legend, numbers, subject
from bas.report.format import points
from bas.report.results import Comparison, Row
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import UNKNOWN, LayerResult, read_result, searched
from bas.runs.run import Run
from bas.tasks import has_logits
from bas.util.files import replacing, write_text
from bas.util.pages import Aside, Files, Grid, Heading, Items, Part, Picture, Pictures, Text, Words, to_html
from bas.util.versions import versions

FILE = "report.html"
MOST_NAMES = 12  # units of a part that are named


def write(run: Run, results: Comparison, jobs: Jobs) -> None:
    """Write the report into the run's folder, and each of its figures as `figures/NAME.svg`."""
    with pictures.letters():
        whole = parts(run, results, jobs)
        for picture in (one for part in whole if isinstance(part, Pictures) for one in part.pictures):
            with replacing(run.folder / "figures" / f"{slug(picture.name)}.svg") as temporary:
                temporary.write_bytes(picture.svg)
        write_text(run.folder / FILE, to_html(f"{run.folder.name}: bas", whole))


def parts(run: Run, results: Comparison, jobs: Jobs) -> list[Part]:
    """The whole report, from the answer to the command that repeats it."""
    said = answer(results)
    against = pictures.differences(results)
    drawn = [Picture("scores", pictures.scores(results, said.row), _caption(results))]
    if against:
        drawn.append(
            Picture("differences", against, f"Against the {results.linear}, with 95 % intervals; blue: told from it.")
        )
    time, size = "seconds of a fold, search included", "parameters"
    drawn += [
        Picture("seconds", pictures.costs(results, _seconds, time), "What a row reaches, and what its training costs."),
        Picture("parameters", pictures.costs(results, lambda row: row.parameters, size), "And against its size."),
    ]
    return [
        Heading(f"{results.corpus}: which downstream model?", 1),
        Text(f"{subject(results)}."),
        Text(said.text, strong=True),
        *(Text(f"Mark: {mark}.", strong=True) for mark in results.protocol.marks),
        Grid(*numbers(results)),
        Grid(*differences(results)),
        Aside("What these numbers are, and how to read them", [Items(legend(results))]),
        Pictures(drawn),
        Heading("What the searches chose"),
        *(_chosen(run, name) for name in run.spaces),
        Items([*decisions(results), *results.verdicts]),
        *_looked_at(run, results, jobs, said.row),
        *_states(run, results),
        Heading("The split"),
        *_split(run),
        Heading("Settings"),
        Grid(["setting", "value"], [[name, str(value)] for name, value in _settings(run).items()]),
        Heading("Do it again, or go on"),
        Words(_commands(run, said.row)),
        Files(_files(run)),
    ]


def _caption(results: Comparison) -> str:
    name = results.headline
    always = f" Always the most frequent class: {points(results.majority[name])}." if results.majority else ""
    return f"{name} of each row with its 95 % interval; blue: the row to take.{always}"


def _seconds(row: Row) -> float:
    return row.train_seconds + (row.search_seconds or 0.0)


def _chosen(run: Run, name: str) -> Pictures:
    """What each search of a space chose; of an ensemble, what it is made of, too."""
    searches, looks = searched(run, name), pictures.looks_of(run.spaces[name].space)
    of_search = {pair: result.architecture for pair, result in searches.items()}
    caption = f"{name}: the choice of each search, slot by slot from input to output. Pale: no block."
    drawn = [Picture(f"chosen {name}", pictures.chosen(of_search, looks), caption)]
    if run.plan.settings.averages:
        shares: dict[str, defaultdict[str, float]] = {
            slot: defaultdict(float) for slot in next(iter(of_search.values()))
        }
        for member in (member for result in searches.values() for member in result.members):
            for slot, block in member.architecture.items():
                shares[slot][block] += member.weight / len(searches)
        caption = (
            f"BAS {name} is a weighted mean of several architectures: the weight of each block, mean over searches."
        )
        drawn.append(Picture(f"made {name}", pictures.made(shares, looks), caption))
    return Pictures(drawn)


def _looked_at(run: Run, results: Comparison, jobs: Jobs, taken: str | None) -> list[Part]:
    """Where rows are right and wrong; nothing for a task without classes."""
    if not has_logits(run.task):
        return []
    targets_N, rows = closely.truth_of(run), closely.looked_at(jobs, taken)
    said = {label: Said.of(jobs[label]) for label in rows}
    drawn = [
        Picture(
            f"confusion {label}",
            pictures.confusion(of.confusion_OO(targets_N, len(run.outputs)), run.outputs, label),
            f"{label}: of 100 utterances of a class, how many are taken for which; means over seeds.",
        )
        for label, of in said.items()
    ]
    sure = {label: softmax(of.logits_SNO, axis=-1) for label, of in said.items() if of.logits_SNO is not None}
    if sure:
        caption = "Is it as sure as it is right? Large dots: many utterances; dashed: as sure as right."
        drawn.append(Picture("reliability", pictures.reliability(sure, targets_N), caption))
    return [Heading("Where it is right and wrong"), Pictures(drawn), *_beneath(closely.parts(run, jobs, taken))]


def _beneath(parts: Sequence[Part]) -> list[Part]:
    """The parts of a page as those of a section."""
    return [replace(part, level=part.level + 1) if isinstance(part, Heading) else part for part in parts]


def _states(run: Run, results: Comparison) -> list[Part]:
    """How the encoder's states compare, where a run has looked at several."""
    drawn = []
    if run.plan.layer == BEST:
        folds = range(len(run.protocol.folds))
        every = [read_result(run, Job(Kind.LAYER, BEST, fold, 0), LayerResult) for fold in folds]
        figure = pictures.layers([of.cross_validated for of in every], [of.layer for of in every], results.headline)
        caption = (
            "A linear model on each state, cross-validated on training units: a line a fold, the mean bold. Dots: "
        )
        drawn.append(Picture("states", figure, f"{caption}what each fold reads."))
    drawn += [
        Picture(f"mix {label}", pictures.mix(weights, label), f"{label}: the weight of each state, mean and deviation.")
        for label, weights in results.mix.items()
    ]
    return [Heading("The encoder's states"), Pictures(drawn)] if drawn else []


def _split(run: Run) -> list[Part]:
    protocol = run.protocol
    rows = [
        [str(index), *(str(len(ids)) for ids in fold.parts().values()), _units(run, fold)]
        for index, fold in enumerate(protocol.folds)
    ]
    parts = list(protocol.folds[0].parts())
    return [
        Text(f"Protocol {protocol.description}. No {protocol.unit} is in two parts of a fold, unless a mark says so."),
        Grid(["fold", *(f"{part} utterances" for part in parts), f"{protocol.unit}s of the test part"], rows),
        Items([f"Note: {note}." for note in protocol.notes]),
    ]


def _units(run: Run, fold: Fold) -> str:
    """Names of the units of a test part."""
    of = {field_of(run.utterances[run.position[i]], run.unit) or UNKNOWN for i in fold.test}
    names = sorted(of)
    more = f", and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _settings(run: Run) -> dict[str, object]:
    """Everything that a number of the run depends on."""
    info, plan = run.store.info, run.plan
    return {
        "corpus": run.corpus.name,
        "encoder": info.encoder["name"],
        "features": f"{plan.features} ({info.identity})",
        "layer": plan.layer,
        "seeds": ", ".join(map(str, plan.seeds)),
        "device": plan.device,
        "spaces": ", ".join(f"{name} ({file.digest})" for name, file in run.spaces.items()),
        **plan.settings.to_dict(),
        **versions(),
    }


def _files(run: Run) -> list[tuple[str, str]]:
    """What lies beside the report."""
    every = {
        "predictions.csv": "every prediction of every row and seed",
        "table.csv": "the table, a column for each number",
        "table.tex": "the table for a paper",
        "table.md": "the table and its notes as text",
        closely.PAGE: "where rows are right and wrong, as text",
        "results.json": "every number, for other programs",
        "protocol.json": "the split, for `--protocol`",
        "experiment.toml": "the experiment, for `bas compare`",
    }
    there = [(name, what) for name, what in every.items() if (run.folder / name).is_file()]
    return [*there, ("figures", "each figure of this page, of the width of a paper's column")]


def _commands(run: Run, row: str | None) -> list[str]:
    """What repeats the run, and what comes next. row: which to take; None: none."""
    folder, experiment = (shlex.quote(str(path)) for path in (run.folder, run.folder / "experiment.toml"))
    export = [] if row is None else [f"bas export {folder} --row {shlex.quote(row)}"]
    return [f"bas compare {experiment}", *export, "bas board"]
