"""How often verdicts are false and intervals cover, in simulated comparisons of equals; writes verdicts.md.

`python benchmarks/verdicts.py` needs no data; about an hour on two cores. What is done is kept in --folder, so that it
goes on after Ctrl-C.

The difference between two rows is, in points, for a unit u that fold f tests, with the training of seed s:

    difference = unit[u] + training[f, s] + rest[u, s]

all normal: units have a deviation of 3; the trainings of the two rows together 0, 1.5 or 3, the rest 0 or 3. The number
compared is a mean, whose values without a unit and with other trainings are sums; so `bas.stats.conclude` gets them
from `sample_means` here, much faster than from `bas.stats.sample`. In every cell the first comparisons are made by
`bas.stats.paired`, too, and must be the same. Those of classes are by `sample`.
Axes: N utterances, U units, F folds, C cells, S seeds.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.stats import t as student_t

from bas.stats import Conclusion, Paired, Predictions, Sampled, a_against_a, conclude, mean_metric, paired, sample, ua
from bas.stats.sampling import Training
from bas.util.files import read_json, write_json, write_text
from bas.util.markdown import bullets, markdown_table, paragraph, section
from bas.util.progress import bar

PAGE = Path(__file__).with_suffix(".md")
UNIT_SD, POINTS = 3.0, 100
UNITS, SEEDS, NOISE = (6, 10, 24, 91), (1, 3, 5, 10), (0.0, 1.5, 3.0)
ALL = 0  # folds: each unit is left out alone
CLASSES, EACH = 4, 20  # of the comparisons of classes: utterances a unit
SHOWN = 1000  # comparisons whose detectable difference is computed, for its median
CHECKED = 20  # comparisons of each cell that `paired` makes, too, and rows that are compared with themselves
SLOWER = 40  # Of classes there are so many times fewer comparisons.
LEAST = 3  # seeds that a verdict should have
MOST = 5.5  # percent of false verdicts


@dataclass(frozen=True)
class Cell:
    """One kind of comparison."""

    kind: str = "mean"  # classes: WA would be a mean again, so UA
    units: int = 24
    ratio: int = 1  # utterances of the largest unit to those of the smallest
    folds: int = 5  # ALL: as many as units
    seeds: int = 3
    noise: float = 3.0
    rest: float = 0.0
    true: float = 0.0  # the difference that there is

    @property
    def name(self) -> str:
        return "-".join(map(str, asdict(self).values()))


def sizes_of(cell: Cell) -> np.ndarray:
    """Utterances of each unit, from one to `ratio` of them, evenly by logarithm."""
    if cell.kind == "classes":
        return np.full(cell.units, EACH)
    return np.rint(np.geomspace(1, cell.ratio, cell.units)).astype(int)


def fold_of_units(sizes_U: np.ndarray, folds: int) -> np.ndarray:
    """Folds of about one size: the largest units first, each to the smallest fold."""
    if folds == ALL:
        return np.arange(len(sizes_U))
    load_F, fold_U = np.zeros(folds), np.zeros(len(sizes_U), int)
    for u in np.argsort(-sizes_U, kind="stable"):
        fold_U[u] = load_F.argmin()
        load_F[fold_U[u]] += sizes_U[u]
    return fold_U


Drawn = tuple[np.ndarray, Predictions, Predictions, np.ndarray]


def draw(cell: Cell, rng: np.random.Generator) -> Drawn:
    """Targets, the two rows and units of one comparison."""
    sizes_U = sizes_of(cell)
    unit_N = np.repeat(np.arange(cell.units), sizes_U)
    fold_N = fold_of_units(sizes_U, cell.folds)[unit_N]

    def row(unit_sd: float) -> np.ndarray:
        """`(S, N)` points; half of the variance of the difference is this row's."""
        shape = cell.seeds, cell.units
        of_unit_U = rng.normal(0, unit_sd, cell.units)
        training_SF = rng.normal(0, cell.noise / np.sqrt(2), (cell.seeds, fold_N.max() + 1))
        rest_SU = rng.normal(0, cell.rest / np.sqrt(2), shape)
        points_SN: np.ndarray = of_unit_U[unit_N] + training_SF[:, fold_N] + rest_SU[:, unit_N]
        return points_SN

    a_SN, b_SN = row(UNIT_SD / np.sqrt(2)) + cell.true, row(UNIT_SD / np.sqrt(2))
    if cell.kind == "mean":
        return np.zeros(len(unit_N), int), Predictions(a_SN, fold_N), Predictions(b_SN, fold_N), unit_N
    # Accuracies of about 70 %; an utterance that is hard for one seed is hard for all.
    targets_N, hard_N = rng.integers(0, CLASSES, len(unit_N)), rng.uniform(0, 1, len(unit_N))

    def answers(points_SN: np.ndarray) -> Predictions:
        right_SN = hard_N < 0.7 + points_SN / POINTS
        wrong_SN = (targets_N + rng.integers(1, CLASSES, points_SN.shape)) % CLASSES
        return Predictions(np.where(right_SN, targets_N, wrong_SN), fold_N)

    return targets_N, answers(a_SN), answers(b_SN), unit_N


def mean(_: np.ndarray, points_N: np.ndarray) -> float:
    return float(points_N.mean())


def sample_means(row: Predictions, unit_N: np.ndarray, by_fold: bool) -> Sampled:
    """What `bas.stats.sample` makes of the mean of a row. by_fold: with one seed, folds are the units."""
    n, unit_N = len(unit_N), row.folds_N if by_fold else unit_N
    cell_N = np.unique(row.folds_N * (unit_N.max() + 1) + unit_N, return_inverse=True)[1]

    def sums(part_N: np.ndarray) -> np.ndarray:
        return np.array([np.bincount(part_N, of_seed) for of_seed in row.rows_SN]).T

    def swapped(sums_PS: np.ndarray) -> np.ndarray:
        changed: np.ndarray = whole + (sums_PS - sums_PS.mean(1, keepdims=True)) / n
        return changed

    whole, sizes_U = row.rows_SN.mean(), np.bincount(unit_N)
    without_U = (n * whole - sums(unit_N).mean(1)) / (n - sizes_U)
    sizes = np.bincount(row.folds_N), np.bincount(cell_N)
    training = Training(swapped(sums(row.folds_N)), swapped(sums(cell_N)), *sizes, row.seeds, more=True)
    return Sampled(np.array(whole), without_U, sizes_U, () if by_fold else (training,), by_fold)


def compare(cell: Cell, drawn: Drawn, check: bool) -> tuple[Conclusion, float]:
    """A comparison's conclusion, and its standard error over units alone, as before version 0.6."""
    targets_N, a, b, unit_N = drawn
    if cell.kind == "classes":
        sampled = [sample(partial(mean_metric, ua, targets_N), unit_N, (row,), (a, b)) for row in (a, b)]
    else:
        sampled = [sample_means(row, unit_N, cell.seeds == 1) for row in (a, b)]
    of = conclude(sampled[0].minus(sampled[1]))
    if check and cell.kind == "mean":
        real = paired(targets_N, a, b, unit_N, mean)
        known = real.difference, real.low, real.high, real.p, real.degrees, real.seeds_se
        assert np.allclose(known, (of.value, of.low, of.high, of.p, of.degrees, of.seeds_se)), (cell, real, of)
    if cell.seeds == 1:
        sampled = [sample_means(row, unit_N, by_fold=False) for row in (a, b)]
    alone = [replace(of_row, trainings=()) for of_row in sampled]
    return of, conclude(alone[0].minus(alone[1])).se


def scale(cell: Cell) -> float:
    """The true difference, in the metric's unit."""
    return cell.true / (POINTS if cell.kind == "classes" else 1)


def measure(cell: Cell, draws: int) -> dict[str, float]:
    """Counts over comparisons, drawn from the cell's own seed."""
    rng = np.random.default_rng(list(cell.name.encode()))
    metric = ua if cell.kind == "classes" else mean
    covered = verdicts = alone = false = checks = 0
    halves, detectable = [], []
    quantile = float(student_t.ppf(0.975, cell.units - 1))
    for index in range(draws):
        drawn = draw(cell, rng)
        targets_N, a, _, unit_N = drawn
        (of, se_alone), true = compare(cell, drawn, index < CHECKED), scale(cell)
        verdict = Paired.of(of, (cell.seeds, cell.seeds))
        covered += of.low <= true <= of.high
        verdicts += verdict.verdict in ("better", "worse")
        alone += abs(of.value - true) <= quantile * se_alone
        halves.append((of.high - of.low) / 2)
        if index < SHOWN and verdict.detectable is not None:
            detectable.append(verdict.detectable)
        if index < CHECKED and (check := a_against_a(targets_N, [a], unit_N, metric)):
            false, checks = false + check.count, checks + check.total
    points = POINTS if cell.kind == "classes" else 1
    return {
        "draws": draws,
        "covered": covered,
        "verdicts": verdicts,
        "alone": alone,
        "half": points * float(np.median(halves)),
        "detectable": points * float(np.median(detectable)) if detectable else 0.0,
        "false_checks": false,
        "checks": checks,
    }


GRID = tuple(
    Cell(units=units, ratio=ratio, folds=folds, seeds=seeds, noise=noise)
    for units, ratio, folds, seeds, noise in itertools.product(UNITS, (1, 10), (5, ALL), SEEDS, NOISE)
)
OTHERS = {
    "Each seed has luck of its own with each unit, too (rest 3)": tuple(
        Cell(units=units, noise=noise, rest=3.0) for units in UNITS for noise in (0.0, 3.0)
    ),
    "Units of very unequal size (the largest has 20 times the smallest)": tuple(
        Cell(units=units, ratio=20, folds=folds, noise=noise)
        for units in (10, 29)
        for folds in (5, ALL)
        for noise in NOISE
    ),
    "Five units, as the sessions of IEMOCAP, and four": tuple(
        Cell(units=units, folds=ALL, seeds=seeds, noise=noise)
        for units in (4, 5)
        for seeds in (1, 3)
        for noise in (0.0, 3.0)
    ),
    "One split into training and test": tuple(Cell(units=91, folds=1, seeds=seeds) for seeds in (2, 3, 5, 10)),
    "Classes, judged by UA": tuple(
        Cell("classes", units=units, folds=folds, noise=noise)
        for units in UNITS
        for folds in (5, ALL)
        for noise in (0.0, 3.0)
    ),
}
POWER = tuple(Cell(units=units, seeds=seeds) for units in (10, 24, 91) for seeds in (1, 3, 10))


def draws_of(cell: Cell, draws: int) -> int:
    return draws // SLOWER if cell.kind == "classes" else draws


def measured(cells: Iterable[Cell], draws: int, folder: Path, workers: int, what: str) -> dict[Cell, dict[str, float]]:
    """The counts of every cell, from the folder where they are there."""
    done = {cell: read_json(path) for cell in cells if (path := folder / f"{cell.name}.json").exists()}
    done = {cell: counts for cell, counts in done.items() if counts["draws"] == draws_of(cell, draws)}
    missing = sorted((cell for cell in cells if cell not in done), key=lambda cell: cell.units * cell.seeds)
    with ProcessPoolExecutor(workers) as pool, bar(Console(), what) as progress:
        task = progress.add_task(what, total=len(missing))
        futures = {pool.submit(measure, cell, draws_of(cell, draws)): cell for cell in missing}
        for future in as_completed(futures):
            cell = futures[future]
            write_json(folder / f"{cell.name}.json", future.result())
            done[cell] = future.result()
            progress.advance(task)
    return done


def percent(count: float, of: float) -> str:
    return f"{100 * count / of:.1f}" if of else "–"


HEADING = (
    *("draws", "units", "sizes", "folds", "seeds", "noise", "covers", "false"),
    *("units alone", "half width", "detectable", "A/A false"),
)


def line(cell: Cell, counts: Mapping[str, float]) -> list[str]:
    return [
        f"{counts['draws']:,}",
        str(cell.units),
        "equal" if cell.ratio == 1 else f"1 to {cell.ratio}",
        "each unit" if cell.folds == ALL else str(cell.folds),
        str(cell.seeds),
        f"{cell.noise:g}" + (f", rest {cell.rest:g}" if cell.rest else ""),
        percent(counts["covered"], counts["draws"]),
        percent(counts["verdicts"], counts["draws"]),
        percent(counts["alone"], counts["draws"]),
        f"{counts['half']:.1f}",
        f"{counts['detectable']:.1f}" if counts["detectable"] else "–",
        percent(counts["false_checks"], counts["checks"]) if cell.noise or cell.rest else "–",  # the seeds are equal
    ]


def worst(cells: Mapping[Cell, Mapping[str, float]]) -> str:
    """The extremes over cells with LEAST seeds or more."""
    some = {cell: counts for cell, counts in cells.items() if cell.seeds >= LEAST}
    covers = sorted(100 * counts["covered"] / counts["draws"] for counts in some.values())
    false = sorted(100 * counts["verdicts"] / counts["draws"] for counts in some.values())
    noisy = [counts for cell, counts in some.items() if cell.noise]
    checks = 100 * sum(c["false_checks"] for c in noisy) / sum(c["checks"] for c in noisy)
    inside = sum(93 <= value <= 97 for value in covers)
    over = sum(value > MOST for value in false)
    return (
        f"{len(some)} cells with {LEAST} seeds or more: intervals cover {covers[0]:.1f} to {covers[-1]:.1f} % (median "
        f"{np.median(covers):.1f}; {inside} of {len(some)} between 93 and 97); verdicts are false in {false[0]:.1f} to "
        f"{false[-1]:.2f} % (mean {np.mean(false):.2f}; {over} cells above {MOST}); A/A "
        f"checks in {checks:.1f} %, over all cells with noise."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20_000, help="comparisons of each cell (%(default)s)")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/verdicts"), help="where counts are kept (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    draws = arguments.draws
    arguments.folder.mkdir(parents=True, exist_ok=True)

    def run(cells: Iterable[Cell], what: str) -> dict[Cell, dict[str, float]]:
        return measured(tuple(cells), draws, arguments.folder, arguments.workers, what)

    grid = run(GRID, "grid")
    others = {title: run(cells, title) for title, cells in OTHERS.items()}
    raised = {replace(cell, true=round(grid[cell]["detectable"], 1)): cell for cell in POWER}
    power = run(raised, "power")
    error = 100 * np.sqrt(0.05 * 0.95 / draws)
    lines = [
        section(1, "How often verdicts are false"),
        "",
        paragraph(
            f"By python benchmarks/verdicts.py --draws {draws}. Comparisons of two rows that are equal, in points: "
            f"units differ with a deviation of {UNIT_SD:g}, the trainings of each fold and seed with that of noise. "
            f"Each cell is {draws:,} comparisons, of classes {draws // SLOWER:,}; by chance a percentage has a "
            f"deviation of {error:.2f}, of classes {error * SLOWER**0.5:.1f}. The first {CHECKED} are made by "
            "bas.stats.paired, too, with the same outcome."
        ),
        "",
        *bullets(
            (
                worst(grid),
                "covers: how often the 95 % interval holds the true difference. false: verdicts better or worse. units "
                "alone: how often an interval covers that is over units alone, as bas had it before version 0.6.",
                "half width: of the interval, median. detectable: the true difference that the tables call detectable, "
                f"median. A/A false: each seed against the others of its row, in the first {CHECKED} comparisons.",
                "With one seed, intervals are over the folds.",
            )
        ),
        "",
        *markdown_table(HEADING, [line(cell, grid[cell]) for cell in GRID]),
    ]
    for title, cells in others.items():
        lines += ["", section(2, title), "", *markdown_table(HEADING, [line(cell, c) for cell, c in cells.items()])]
    rows = []
    for cell in raised:
        seen = percent(power[cell]["verdicts"], power[cell]["draws"])
        rows.append([str(cell.units), str(cell.seeds), f"{cell.true:g}", seen])
    lines += ["", section(2, "Power: how often a detectable difference is seen"), ""]
    lines += [paragraph("A true difference of the size that the cell above calls detectable; 80 % are meant."), ""]
    lines += markdown_table(["units", "seeds", "true difference", "verdicts"], rows)
    write_text(PAGE, "\n".join(lines) + "\n")
    print(worst(grid))
    print(f"page: {PAGE}")


if __name__ == "__main__":
    main()
