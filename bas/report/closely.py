"""Where a comparison's rows are right and wrong: classes, units, confidence, single utterances; and all predictions.

`closely.md` and `predictions.csv` in the run's folder are made of the jobs' results alone, so they can be made again.

Axes: S seeds, N test utterances (fold after fold), O classes.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from bas.protocols import field_of
from bas.report.format import points
from bas.runs.results import DIGITS, Scored, folds_of, tested
from bas.runs.run import Run
from bas.stats.calibration import before_and_after
from bas.tasks import has_logits
from bas.util.files import replacing, write_text
from bas.util.pages import Grid, Heading, Items, Text, Written, to_markdown
from bas.util.spreadsheet import defuse

PAGE, TABLE = "closely.md", "predictions.csv"
WORST = 10  # utterances that are listed
MOST_UNITS = 30  # of which a line is shown, those with the lowest means

Jobs = Mapping[str, Sequence[Sequence[Scored]]]
"""The trainings of each row, by its label; of a row by seed and fold."""


@dataclass(frozen=True)
class Said:
    """What a row predicted of the test utterances. logits_SNO: None where they are not known."""

    predicted_SN: np.ndarray
    logits_SNO: np.ndarray | None

    @classmethod
    def of(cls, jobs: Sequence[Sequence[Scored]]) -> Said:
        predicted_SN = np.array([np.concatenate([np.asarray(r.test.predictions) for r in of]) for of in jobs])
        if any(result.test.logits is None for of in jobs for result in of):
            return cls(predicted_SN, None)
        return cls(predicted_SN, np.array([np.concatenate([np.asarray(r.test.logits) for r in of]) for of in jobs]))

    def loss_N(self, targets_N: np.ndarray) -> np.ndarray:
        """The log loss of each utterance, the mean over seeds."""
        assert self.logits_SNO is not None
        log_SNO = log_softmax(self.logits_SNO, axis=-1)
        return np.asarray(-log_SNO[:, np.arange(len(targets_N)), targets_N].mean(0))

    def confusion_OO(self, targets_N: np.ndarray, classes: int) -> np.ndarray:
        """Utterances by truth and by prediction, the mean over seeds."""
        counted_OO = np.zeros((classes, classes))
        for predicted_N in self.predicted_SN:
            np.add.at(counted_OO, (targets_N, predicted_N), 1)
        return counted_OO / len(self.predicted_SN)


def write(run: Run, jobs: Jobs, taken: str | None) -> None:
    """Write the page, for tasks whose models have logits, and the table of all predictions."""
    if has_logits(run.task):
        write_text(run.folder / PAGE, markdown(run, jobs, taken))
    with replacing(run.folder / TABLE) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(_lines(run, jobs))


def markdown(run: Run, jobs: Jobs, taken: str | None) -> str:
    """The page: its heading, then `parts`."""
    return to_markdown([Heading(f"{run.folder.name}, looked at closely", 1), *parts(run, jobs, taken)])


def looked_at(jobs: Jobs, taken: str | None) -> list[str]:
    """The rows that are looked at: the one that the table's answer names, and the first searched one."""
    found = next((label for label in jobs if label.startswith("BAS ")), next(iter(jobs)))
    return list(dict.fromkeys([*([taken] if taken else []), found]))


def parts(run: Run, jobs: Jobs, taken: str | None) -> list[Written]:
    """Recall by class, confusion, units, confidence, and the utterances that are predicted worst.

    taken: the row that the table's answer names.
    """
    said = {label: Said.of(of_row) for label, of_row in jobs.items()}
    targets_N, folds_N = truth_of(run), folds_of(next(iter(jobs.values()))[0])
    rows = looked_at(jobs, taken)
    return [
        Text(
            f"Test utterances under {run.protocol.description}; means over seeds. Looked at: {' and '.join(rows)}. "
            f"Every single prediction is in {TABLE}."
        ),
        Heading("Recall by class, in points"),
        _recalls(run, said, targets_N),
        *(part for label in rows for part in _confusion(run, said[label], label, targets_N)),
        Heading(f"Correct by {run.unit}, in points"),
        *_units(run, said, rows[0], targets_N),
        Heading("Is it as sure as it is right?"),
        *_confidence(said, targets_N, folds_N),
        *(part for label in rows for part in _worst(run, said[label], label, targets_N)),
    ]


def truth_of(run: Run) -> np.ndarray:
    """The classes of the test utterances, `(N,)`, or their shares `(N, O)`."""
    return np.asarray(run.targets[[run.position[i] for i in run.protocol.test_ids]])


def _recalls(run: Run, said: Mapping[str, Said], targets_N: np.ndarray) -> Grid:
    rows = []
    for index, name in enumerate(run.outputs):
        here_N = targets_N == index
        means = [
            points(float((of.predicted_SN[:, here_N] == index).mean())) if here_N.any() else "–" for of in said.values()
        ]
        rows.append([name, str(int(here_N.sum())), *means])
    return Grid(["class", "utterances", *said], rows)


def _confusion(run: Run, said: Said, label: str, targets_N: np.ndarray) -> list[Written]:
    counted_OO = said.confusion_OO(targets_N, len(run.outputs))
    digits = 0 if len(said.predicted_SN) == 1 else 1
    rows = [
        [name, *(f"{count:.{digits}f}" for count in row)] for name, row in zip(run.outputs, counted_OO, strict=True)
    ]
    return [
        Heading(f"What {label} takes for what"),
        Grid(["truth / predicted, utterances", *run.outputs], rows),
    ]


def _units(run: Run, said: Mapping[str, Said], leading: str, targets_N: np.ndarray) -> list[Written]:
    _, units_N = tested(run)
    right = {label: (of.predicted_SN == targets_N).mean(0) for label, of in said.items()}
    names = sorted(set(units_N), key=lambda unit: (right[leading][units_N == unit].mean(), unit))
    rows = [
        [
            str(unit),
            str(int((units_N == unit).sum())),
            *(points(float(of[units_N == unit].mean())) for of in right.values()),
        ]
        for unit in names[:MOST_UNITS]
    ]
    more = [] if len(names) <= MOST_UNITS else [Text(f"And {len(names) - MOST_UNITS} more with a higher mean.")]
    return [Grid([run.unit, "utterances", *said], rows), *more, Text(f"Sorted by {leading}, the lowest first.")]


def _confidence(said: Mapping[str, Said], targets_N: np.ndarray, folds_N: np.ndarray) -> list[Written]:
    rows = []
    for label, of in said.items():
        if of.logits_SNO is None:
            rows.append([label, *["–"] * 4])
            continue
        every = [one for one in before_and_after(of.logits_SNO, targets_N, folds_N) if one]
        cells = [cell for one in every for cell in (f"{one.loss:.3f}", points(one.error))]
        rows.append([label, *cells, *["–"] * (4 - len(cells))])
    heading = ["model", "log loss", "calibration error, points", "log loss, scaled", "calibration error, scaled"]
    return [
        Grid(heading, rows),
        Items(
            [
                "Calibration error: over 15 bins, how far the mean of the highest probability is from the share of "
                "right answers (Guo et al., ICML 2017). Scaled: logits divided by a temperature, that of each fold "
                "fitted on the other folds."
            ]
        ),
    ]


def _worst(run: Run, said: Said, label: str, targets_N: np.ndarray) -> list[Written]:
    if said.logits_SNO is None:
        return []
    loss_N, (_, units_N) = said.loss_N(targets_N), tested(run)
    mean_NO = softmax(said.logits_SNO, axis=-1).mean(0)
    rows = []
    for n in (-loss_N).argsort(kind="stable")[:WORST]:
        utterance = run.utterances[run.position[run.protocol.test_ids[n]]]
        taken = int(mean_NO[n].argmax())
        sure = f"{run.outputs[taken]} ({mean_NO[n, taken]:.2f})"
        rows.append([utterance.id, str(units_N[n]), run.outputs[targets_N[n]], sure, f"{loss_N[n]:.2f}"])
    return [
        Heading(f"What {label} is most wrong about"),
        Grid(["utterance", run.unit, "truth", "predicted (probability)", "log loss"], rows),
    ]


def _lines(run: Run, jobs: Jobs) -> Iterator[list[object]]:
    """Every prediction: a heading, then a line for each row, seed and utterance."""
    utterances = [run.utterances[run.position[i]] for i in run.protocol.test_ids]
    said = {label: Said.of(of_row) for label, of_row in jobs.items()}
    if has_logits(run.task):
        heading = ["truth", "predicted", *(f"probability of {name}" for name in run.outputs)]
    else:
        each = [*run.outputs] if np.ndim(truth_of(run)) > 1 else [""]
        heading = [f"{which} {name}".strip() for which in ("truth", "predicted") for name in each]
    yield list(map(defuse, ["row", "seed", "fold", "id", run.unit, *heading]))
    for label, of_row in jobs.items():
        folds_N = folds_of(of_row[0])
        for s, seed in enumerate(run.plan.seeds[: len(of_row)]):
            for n, values in enumerate(_values(run, said[label], s)):
                where = [label, seed, int(folds_N[n]), utterances[n].id, field_of(utterances[n], run.unit) or ""]
                yield [defuse(cell) for cell in (*where, *values)]


def _values(run: Run, said: Said, s: int) -> Iterator[list[object]]:
    """Of each utterance what is so, and what a row says of it with one of its seeds."""
    targets, predicted, names = truth_of(run), said.predicted_SN[s], run.outputs
    if not has_logits(run.task):
        for both in zip(targets.reshape(len(targets), -1), predicted.reshape(len(targets), -1), strict=True):
            yield [value for part in both for value in part.tolist()]
        return
    for n, (truth, answer) in enumerate(zip(targets, predicted, strict=True)):
        sure = [""] * len(names) if said.logits_SNO is None else softmax(said.logits_SNO[s, n]).round(DIGITS).tolist()
        yield [names[truth], names[answer], *sure]
