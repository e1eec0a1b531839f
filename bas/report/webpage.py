"""`report.html`: a comparison as one file for people, which opens from disk in any browser and needs nothing else."""

from __future__ import annotations

import shlex
from dataclasses import replace

from bas.protocols import Fold, field_of, slug
from bas.report import closely, drawn, pictures
from bas.report.answer import Answer, answer
from bas.report.cited import TITLE, cited
from bas.report.closely import Jobs
from bas.report.comparison_page import decisions, differences, legend, numbers, subject
from bas.report.results import Comparison
from bas.runs.results import UNKNOWN
from bas.runs.run import Run
from bas.tasks import has_logits
from bas.util.files import replacing, write_text
from bas.util.pages import Aside, Files, Grid, Heading, Items, Part, Pictures, Text, Words, to_html
from bas.util.versions import versions

FILE = "report.html"
MOST_NAMES = 12  # units of a part that are named


def write(run: Run, results: Comparison, jobs: Jobs) -> None:
    """Write the report into the run's folder, and each of its figures as `figures/NAME.svg`."""
    with pictures.letters():
        whole = parts(run, results, jobs)
        drawings = [one for part in whole if isinstance(part, Pictures) for one in part.pictures]
        paths = {run.folder / "figures" / f"{slug(picture.name)}.svg": picture for picture in drawings}
        for path, picture in paths.items():
            with replacing(path) as temporary:
                temporary.write_bytes(picture.svg)
        for old in {*(run.folder / "figures").glob("*.svg")} - {*paths}:  # of other spaces or rows
            if old.name.startswith(("chosen-", "made-", "probabilities-", "paths-", "confusion-", "mix-")):
                old.unlink()
        write_text(run.folder / FILE, to_html(f"{run.folder.name}: bas", whole))


def parts(run: Run, results: Comparison, jobs: Jobs) -> list[Part]:
    """The whole report, from the answer to the command that repeats it."""
    said = answer(results)
    states = drawn.of_states(run, results)
    seen: list[Part] = [Heading("The encoder's states"), Pictures(states)] if states else []
    return [
        Heading(f"{results.corpus}: which downstream model?", 1),
        Text(f"{subject(results)}."),
        Text(said.text, strong=True),
        *(Text(f"Mark: {mark}.", strong=True) for mark in results.protocol.marks),
        *([Text(f"Note: {results.note}.")] if results.note else []),
        Grid(*numbers(results), marked=said.row),
        Grid(*differences(results)),
        Aside("What these numbers are, and how to read them", [Items(legend(results))]),
        *([Aside(TITLE, of)] if (of := cited(results)) else []),
        Pictures(drawn.of_table(results, said.row)),
        Heading("What the searches chose"),
        *(Pictures(drawn.of_space(run, name)) for name in run.spaces),
        Items([*decisions(results), *results.verdicts]),
        *_looked_at(run, jobs, said.row),
        *seen,
        Heading("The split"),
        *_split(run),
        Heading("Settings"),
        Grid(["setting", "value"], [[name, str(value)] for name, value in _settings(run).items()]),
        Heading("Do it again, or go on"),
        Words(_commands(run, said)),
        Files(_files(run)),
    ]


def _looked_at(run: Run, jobs: Jobs, taken: str | None) -> list[Part]:
    """Where rows are right and wrong; nothing for a task without classes."""
    if not has_logits(run.task):
        return []
    confusions, reliability = drawn.of_rows(run, jobs, closely.looked_at(jobs, taken))
    page = closely.parts(run, jobs, taken)
    beneath = [replace(part, level=part.level + 1) if isinstance(part, Heading) else part for part in page]
    return [Heading("Where it is right and wrong"), Pictures([*confusions.values(), *reliability]), *beneath]


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
        "headline": run.headline,
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


def _commands(run: Run, said: Answer) -> list[str]:
    """What repeats the run, and what comes next."""
    folder, experiment = (shlex.quote(str(path)) for path in (run.folder, run.folder / "experiment.toml"))
    export = []
    if said.row is not None and run.store.info.from_recordings:
        export = [f"bas export {folder} --row {shlex.quote(said.row)}"]
    epochs = 2 * run.plan.settings.epochs
    more = f"bas compare {experiment} --set epochs={epochs} --name {shlex.quote(f'{run.folder.name}-{epochs}-epochs')}"
    return [f"bas compare {experiment}", *([more] if said.early else []), *export, "bas board"]
