"""How often a comparison says better or worse where there is nothing to learn; writes random_labels.md.

Features of real corpora, labels drawn at random: four classes of equal size, independent of speaker and recording. So
no row knows anything, and a verdict is false but for what equal classes do (see the page). Each draw is a run as
`bas compare` makes it, with a tiny setting. The same command with the same --runs goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from features import QUIET, commit, machine
from scipy.stats import beta
from scipy.stats import t as student_t

from bas.corpora import open_corpus
from bas.encoders import NANO, load_encoder
from bas.errors import UserError
from bas.features.extract import extract
from bas.features.plan import Request
from bas.runs.plan import Plan
from bas.runs.results import pooled, results_of, tested
from bas.runs.run import Inputs, Run
from bas.runs.spaces import load_space
from bas.runs.start import split, start
from bas.stats import Metric, Predictions, paired
from bas.studies.compare.study import compare
from bas.training.settings import Settings, settings
from bas.util.files import write_text

PAGE = Path(__file__).with_suffix(".md")
SPACE, LAYER, SEEDS = "ser_bas3", 6, (0, 1, 2)
CLASSES = "abcd"
AGAIN = 12  # times that the labels are drawn once more after the training
TINY = {"width": "16", "stride": "32", "epochs": "4", "batch_size": "64", "lr": "0.005"}


@dataclass(frozen=True)
class Draw:
    """What one drawing of the labels gave. verdicts, earlier: for each comparison, whether it said better or worse."""

    verdicts: tuple[bool, ...]
    earlier: tuple[bool, ...]  # by the rule of version 0.5.0, on the same predictions
    again: tuple[bool, ...]  # of the same predictions against labels drawn AGAIN
    against_itself: tuple[int, int]  # false verdicts of the A/A check, of how many
    scores: dict[str, tuple[float, ...]]  # by row: WA, UA; the mean over folds of both
    remarked: tuple[bool, ...]  # by row, whether the table says that it is not shown to be above chance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", action="append", required=True, metavar="READER=ROOT", help="may be given again")
    parser.add_argument("--runs", required=True, type=Path, help="a folder for features and runs, which are kept")
    parser.add_argument("--draws", type=int, default=80, help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        named = [text.partition("=") for text in arguments.corpus]
        measured = [measure(reader, root, arguments.runs, arguments.draws) for reader, _, root in named]
    except UserError as error:
        sys.exit(f"benchmarks/random_labels.py: {error}")
    names = " ".join(f"--corpus {reader}=ROOT" for reader, _, _ in named)
    page = PAGE_TEXT.format(
        command=f"python benchmarks/random_labels.py {names} --runs FOLDER --draws {arguments.draws}",
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device("cpu")),
        settings=", ".join(f"{name} {value}" for name, value in TINY.items()),
        space=SPACE,
        layer=LAYER,
        encoder=NANO,
        seeds=len(SEEDS),
        times=AGAIN,
        counts=counts([draw for _, draws in measured for draw in draws]),
        sections="\n".join(section(run, draws) for run, draws in measured),
    )
    write_text(PAGE, page)
    print(page, f"\nwritten: {PAGE}", sep="")


def measure(reader: str, root: str, runs: Path, draws: int) -> tuple[Run, list[Draw]]:
    """All draws of one corpus, and the run of the last of them."""
    corpus = open_corpus(reader, Path(root))
    features = runs / f"features-{corpus.name}"
    request = Request(reader, Path(root), layers=[LAYER])
    extract(corpus, load_encoder(NANO, torch.device("cpu")), features, request, QUIET)
    plan = Plan(str(features), (str(load_space(SPACE).path),), LAYER, tiny(), SEEDS, "cpu")
    inputs = Inputs.open(plan)
    done = []
    for number in range(draws):
        begun = time.monotonic()
        drawn = draw_labels(inputs, number)
        run = start(runs / f"{corpus.name}-draw{number:02}", drawn, split(drawn, None, 0))
        done.append(judge(run))
        print(f"{corpus.name}, draw {number}: {time.monotonic() - begun:.0f} s", done[-1], file=sys.stderr, flush=True)
    return run, done


def tiny() -> Settings:
    return settings("cpu", TINY)


def draw_labels(inputs: Inputs, number: int) -> Inputs:
    """The same utterances; CLASSES in equal numbers, shuffled over them."""
    utterances = inputs.corpus.labelled("label")
    labels = np.random.default_rng(number).permutation(np.arange(len(utterances)) % len(CLASSES))
    changed = tuple(replace(u, label=CLASSES[k]) for u, k in zip(utterances, labels, strict=True))
    return replace(inputs, corpus=replace(inputs.corpus, utterances=changed))


def judge(run: Run) -> Draw:
    """Train what is not trained yet, and count what the table says."""
    table = compare(run, 1, QUIET)
    (targets_N, units_N), metric = tested(run), run.metrics[run.headline]
    predictions = {row.row: pooled(results_of(run, row.row.removeprefix("BAS "))) for row in table.rows}
    rng, verdicts, earlier, again = np.random.default_rng(0), list[bool](), list[bool](), list[bool]()
    drawn = [rng.permutation(targets_N) for _ in range(AGAIN)]
    for row in table.rows:
        for other, difference in ((run.reference, row.against_reference), (run.linear, row.against_linear)):
            # The linear row against the reference is the reference against it, and is counted once.
            if difference and (row.row, other) != (run.linear, run.reference):
                pair = predictions[row.row], predictions[other]
                verdicts.append(bool(difference.significant))
                earlier.append(earlier_rule(targets_N, *pair, units_N, metric))
                again += [bool(paired(other_N, *pair, units_N, metric).significant) for other_N in drawn]
    check = table.false_verdicts
    assert check, "three seeds"
    scores = {
        row.row: (
            *(row.metrics[name].mean for name in ("WA", "UA")),
            *(row.fold_mean[name] for name in ("WA", "UA")),
        )
        for row in table.rows
    }
    remarked = tuple(any("chance" in remark for remark in row.remarks) for row in table.rows)
    return Draw(tuple(verdicts), tuple(earlier), tuple(again), (check.count, check.total), scores, remarked)


def earlier_rule(targets_N: np.ndarray, a: Predictions, b: Predictions, units_N: np.ndarray, metric: Metric) -> bool:
    """Whether version 0.5.0 said better or worse: a jackknife-t interval over units, and an exact sign-flip test."""
    seeds = max(a.seeds, b.seeds)
    a_SN, b_SN = (np.concatenate([x.rows_SN] * (seeds // x.seeds)) for x in (a, b))
    unit_N = np.unique(units_N, return_inverse=True)[1]
    units = int(unit_N.max()) + 1

    def difference(kept_N: np.ndarray, a_SN: np.ndarray, b_SN: np.ndarray) -> float:
        targets = targets_N[kept_N]
        pairs = zip(a_SN[:, kept_N], b_SN[:, kept_N], strict=True)
        return float(np.mean([metric(targets, x_N) - metric(targets, y_N) for x_N, y_N in pairs]))

    everyone_N = np.ones(len(unit_N), bool)
    whole = difference(everyone_N, a_SN, b_SN)
    pseudo_U = [units * whole - (units - 1) * difference(unit_N != u, a_SN, b_SN) for u in range(units)]
    half_width = student_t.ppf(0.975, units - 1) * np.std(pseudo_U, ddof=1) / np.sqrt(units)
    flips_PN = ((np.arange(2 ** (units - 1))[:, None] >> np.arange(units)) & 1 == 1)[:, unit_N]
    swapped = [difference(everyone_N, np.where(f, b_SN, a_SN), np.where(f, a_SN, b_SN)) for f in flips_PN]
    p = np.mean(np.abs(swapped) >= abs(whole) - 1e-12)
    return bool(abs(whole) > half_width and p <= 0.05)


def section(run: Run, draws: Sequence[Draw]) -> str:
    """A corpus's part of the page."""
    rows = list(draws[0].scores)
    scores_DRM = np.array([[draw.scores[row] for row in rows] for draw in draws])
    means_RM, errors_RM = scores_DRM.mean(0), scores_DRM.std(0, ddof=1) / np.sqrt(len(draws))
    lines = [
        f"| {row} | " + " | ".join(f"{100 * m:.1f} ± {100 * e:.1f}" for m, e in zip(means, errors, strict=True)) + " |"
        for row, means, errors in zip(rows, means_RM, errors_RM, strict=True)
    ]
    remarked = np.array([draw.remarked for draw in draws])
    return SECTION.format(
        corpus=run.corpus.name,
        utterances=len(run.utterances),
        units=len(set(tested(run)[1])),
        unit=run.unit,
        folds=len(run.protocol.folds),
        rule=run.protocol.rule,
        headline=run.headline,
        draws=len(draws),
        each=len(draws[0].verdicts),
        counts=counts(draws) + halves(draws),
        scores="\n".join(lines),
        remarked=of(int(remarked.sum()), remarked.size),
    )


def counts(draws: Sequence[Draw]) -> str:
    """The table of false verdicts."""
    each = {
        "better or worse": [(sum(draw.verdicts), len(draw.verdicts)) for draw in draws],
        "labels drawn again": [(sum(draw.again), len(draw.again)) for draw in draws],
        "better or worse, version 0.5.0": [(sum(draw.earlier), len(draw.earlier)) for draw in draws],
        "A/A check": [draw.against_itself for draw in draws],
    }
    lines = ["| | comparisons | by draw | draws with any |", "| --- | --- | --- | --- |"]
    for name, of_draw in each.items():
        false, total = (sum(column) for column in zip(*of_draw, strict=True))
        any_false = sum(count > 0 for count, _ in of_draw)
        by_draw = over_draws([count / among for count, among in of_draw])
        lines.append(f"| {name} | {of(false, total)} | {by_draw} | {of(any_false, len(draws))} |")
    return "\n".join(lines)


def halves(draws: Sequence[Draw]) -> str:
    """Rows of the same table: the verdicts of the first and the second half of the draws."""
    middle = len(draws) // 2
    lines = []
    for first, last, part in ((0, middle, draws[:middle]), (middle, len(draws), draws[middle:])):
        false, total = sum(sum(draw.verdicts) for draw in part), sum(len(draw.verdicts) for draw in part)
        by_draw = over_draws([float(np.mean(draw.verdicts)) for draw in part])
        any_false = of(sum(any(draw.verdicts) for draw in part), len(part))
        lines.append(f"| better or worse, draws {first} to {last - 1} | {of(false, total)} | {by_draw} | {any_false} |")
    return "\n" + "\n".join(lines)


def over_draws(shares: Sequence[float]) -> str:
    """The interval of the mean share, in percent: Student's t over the draws."""
    mean, error = np.mean(shares), np.std(shares, ddof=1) / np.sqrt(len(shares))
    half_width = student_t.ppf(0.975, len(shares) - 1) * error
    return f"{100 * max(0.0, mean - half_width):.1f} to {100 * (mean + half_width):.1f} %"


def of(count: int, total: int) -> str:
    """Such as "3 of 40, 7.5 % (1.6 to 20.4)": with the interval of Clopper and Pearson (*Biometrika* 26:404, 1934)."""
    low = beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return f"{count} of {total}, {100 * count / total:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


SECTION = """## {corpus}

{utterances} utterances of {units} {unit}s, protocol {rule} ({folds} folds), verdicts by {headline}; {draws} draws of
{each} comparisons each.

{counts}

Metrics in points where chance is 25; mean over draws, ± its standard error:

| row | WA, pooled | UA, pooled | WA, mean of folds | UA, mean of folds |
| --- | --- | --- | --- | --- |
{scores}

Rows of which the table says that they are not shown to be above chance: {remarked}.
"""

PAGE_TEXT = """# Random labels: verdicts where there is nothing to learn

`{command}`, {date}, commit {commit}, on {machine}.
State {layer} of {encoder}; preset `cpu` with {settings};
space `{space}`, {seeds} seeds.

Labels: four classes of equal size, drawn anew for each run and independent of everything else, so there is
nothing to learn. Were all rows equal, 5 % of the comparisons would say better or worse. They are not quite: where
classes are equal over all folds, a row that follows the frequencies of its training part comes out below chance (last
paragraph), and rows differ in how far they follow. All corpora together:

{counts}

- **Better or worse**: the verdicts of the tables. Draws 40 to 79 were added when the first 40 of one corpus came out
  above 5 %; they are a fresh sample.
- **Labels drawn again**: the same predictions against {times} other drawings, which share nothing with the labels
  trained on: here all rows are equal, and every verdict is false.
- **Version 0.5.0**: the same predictions, judged by a jackknife-t over speakers and a sign-flip test.
- **A/A check**: a seed against its row's other seeds.

In brackets: the interval of Clopper and Pearson. It takes all as independent. Draws are; the comparisons of one draw
share labels, speakers and rows, so theirs is too narrow. **By draw**: Student's t over the draws, each with its share
of false verdicts. **Draws with any**: in how many a false verdict is among the comparisons.

{sections}
Pooled over the folds, a row that has learned nothing comes out below chance where it follows the frequencies of its
training part: all folds together have a class as often as every other, so a fold that tests more of one trains on less.
The mean over folds of UA is free of this, as a constant prediction has a UA of exactly one class's share in each fold;
that of WA is not.
"""


if __name__ == "__main__":
    main()
