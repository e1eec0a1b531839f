"""The pictures of a run's report, by what they are of: the table, a space's searches, rows, the encoder's states.

Axes: S seeds, N test utterances, O classes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import softmax

from bas.report import pictures
from bas.report.closely import Jobs, Said, truth_of
from bas.report.format import points
from bas.report.results import Comparison, Row
from bas.runs.plan import BEST, Job, Kind
from bas.runs.results import LayerResult, SearchResult, read_result, searched
from bas.runs.run import Run
from bas.space import NO_BLOCK, SearchSpace
from bas.util.pages import Picture


def of_table(results: Comparison, taken: str | None) -> list[Picture]:
    """Scores, differences and costs of the rows. taken: the row of the answer."""
    name, linear = results.headline, results.linear
    always = f" Always the most frequent class: {points(results.majority[name])}." if results.majority else ""
    blue = "; blue: the row to take" if taken else ""
    caption = f"{name} of each row with its 95 % interval{blue}.{always}"
    drawn = [Picture("scores", pictures.scores(results, taken), caption)]
    told = "black: told from it, also corrected for all comparisons"
    if against := pictures.differences(results):
        drawn.append(Picture("differences", against, f"Against the {linear}, with 95 % intervals; {told}."))
    time = pictures.costs(results, _seconds, "seconds of a fold, search included")
    size = pictures.costs(results, lambda row: row.parameters, "parameters")
    empty = ", ".join(row.row for row in results.rows if not row.parameters)
    return [
        *drawn,
        Picture("seconds", time, "What a row reaches, and what its training costs."),
        Picture(
            "parameters",
            size,
            f"What a row reaches, and how large it is.{f' Without parameters: {empty}.' if empty else ''}",
        ),
    ]


def _seconds(row: Row) -> float:
    return row.train_seconds + (row.search_seconds or 0.0)


def of_space(run: Run, name: str) -> list[Picture]:
    """What the searches of a space chose, what an ensemble is made of, and what a strategy of a supernet went by."""
    searches, space = searched(run, name), run.spaces[name].space
    looks, every = pictures.looks_of(space), list(searches.values())
    choices = {pair: result.architecture for pair, result in searches.items()}
    pale = " Pale: no block." if any(NO_BLOCK in of.values() for of in choices.values()) else ""
    caption = f"{name}: the choice of each search, slot by slot from input to output.{pale}"
    drawn = [Picture(f"chosen {name}", pictures.chosen(choices, looks), caption)]
    if run.plan.settings.averages:
        caption = (
            f"BAS {name} is a weighted mean of several architectures: the weight of each block, mean over searches."
        )
        drawn.append(Picture(f"made {name}", pictures.made(_shares(every), looks), caption))
    if all(result.probabilities and len(result.epochs) > 1 for result in every):
        figure = pictures.ribbons([[epoch.probabilities for epoch in result.epochs] for result in every], looks)
        caption = f"{name}: the probability of each block over the search, mean over searches."
        drawn.append(Picture(f"probabilities {name}", figure, caption))
    if all(result.paths for result in every):
        frequent = {slot: Counter(of[slot] for of in choices.values()).most_common(1)[0][0] for slot in space.searched}
        caption = f"{name}: the loss of the paths through each block, mean over searches; ringed: chosen most often."
        drawn.append(Picture(f"paths {name}", pictures.paths(_losses(every, space), frequent, looks), caption))
    return drawn


def _shares(searches: Sequence[SearchResult]) -> dict[str, dict[str, float]]:
    """Of each slot, the weight of each block in the ensembles, mean over searches."""
    shares: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for member in (member for search in searches for member in search.members):
        for slot, block in member.architecture.items():
            shares[slot][block] += member.weight / len(searches)
    return {slot: dict(of) for slot, of in shares.items()}


def _losses(searches: Sequence[SearchResult], space: SearchSpace) -> dict[str, dict[str, float]]:
    """Of each slot and block, the mean validation loss of the paths through it, over searches."""
    found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for search in searches:
        for architecture, path in zip(space.architectures(), search.paths or (), strict=True):
            for slot, block in architecture.blocks:
                found[slot][block].append(path["loss"])
    return {slot: {block: float(np.mean(losses)) for block, losses in of.items()} for slot, of in found.items()}


def of_rows(run: Run, jobs: Jobs, rows: Sequence[str]) -> tuple[dict[str, Picture], list[Picture]]:
    """The confusion of each of these rows, and how reliable those with logits are; of a task with classes."""
    targets_N, said = truth_of(run), {label: Said.of(jobs[label]) for label in rows}
    confusions = {
        label: Picture(
            f"confusion {label}",
            pictures.confusion(of.confusion_OO(targets_N, len(run.outputs)), run.outputs, label),
            f"{label}: of 100 utterances of a class (a line), how many are taken for which; means over seeds.",
        )
        for label, of in said.items()
    }
    sure = {label: softmax(of.logits_SNO, axis=-1) for label, of in said.items() if of.logits_SNO is not None}
    if not sure:
        return confusions, []
    caption = "Is it as sure as it is right? Large dots: many utterances; dashed: as sure as right."
    return confusions, [Picture("reliability", pictures.reliability(sure, targets_N), caption)]


def of_states(run: Run, results: Comparison) -> list[Picture]:
    """How the encoder's states compare, where a run has looked at several."""
    drawn = []
    if run.plan.layer == BEST:
        folds = range(len(run.protocol.folds))
        every = [read_result(run, Job(Kind.LAYER, BEST, fold, 0), LayerResult) for fold in folds]
        scores: list[Mapping[int, float]] = [of.cross_validated for of in every]
        figure = pictures.layers(scores, [of.layer for of in every], results.headline)
        caption = (
            "A linear model on each state, cross-validated on training units: a line a fold, the mean bold. Dots: "
        )
        drawn.append(Picture("states", figure, f"{caption}what each fold reads."))
    return drawn + [
        Picture(f"mix {label}", pictures.mix(weights, label), f"{label}: the weight of each state, mean and deviation.")
        for label, weights in results.mix.items()
    ]
