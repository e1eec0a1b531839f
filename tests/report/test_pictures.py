"""Each figure shows the numbers that it is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from comparisons import comparison, row
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from bas.blocks import FFN, MSA, MeanPool, Skip
from bas.report import pictures
from bas.space import SearchSpace
from bas.stats import Paired, Spread

SPACE = SearchSpace({"layer1": {"none": Skip, "FFN": FFN, "MSA": MSA}, "layer2": {"FFN": FFN, "none": Skip}}, MeanPool)


def lines(figure: Figure) -> list[list[tuple[float, float]]]:
    """The points of each line."""
    return [list(zip(*map(np.ravel, line.get_data()), strict=True)) for line in figure.axes[0].lines]


def bars(figure: Figure) -> list[tuple[float, float, float, str]]:
    """Left end, middle, width and colour of each bar."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return [
        (b.get_x(), b.get_y() + b.get_height() / 2, b.get_width(), to_hex(b.get_facecolor()).upper()) for b in found
    ]


def test_scores_are_means_and_intervals_from_the_first_row_down() -> None:
    whisker, mean = lines(pictures.scores(comparison(), "4L"))[:2]
    assert (whisker, mean) == ([(30, 0), (70, 0)], [(50, 0)])
    axes = pictures.scores(comparison(), "4L").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["lr", "4L"]
    assert [to_hex(line.get_color()).upper() for line in axes.lines] == [*["#555555"] * 2, *[pictures.COLOURS[0]] * 2]


def test_differences_are_those_that_have_an_interval() -> None:
    figure = pictures.differences(comparison())
    assert figure
    _, whisker, difference = lines(figure)
    assert np.allclose(whisker, [(2, 0), (20, 0)])
    assert np.allclose(difference, [(10, 0)])


def test_black_is_what_correction_leaves() -> None:
    """Of p 0.01, 0.04 and 0.045, Holm leaves the first alone."""
    ends = {"a": (0.02, 0.2, 0.01), "b": (0.001, 0.2, 0.04), "c": (0.001, 0.2, 0.045)}
    pairs = {
        name: Paired(0.1, low, high, p, 0.04, 7.0, 8, False, (2, 1), 0.02) for name, (low, high, p) in ends.items()
    }
    rows = [replace(row(name, of), against_reference=None) for name, of in pairs.items()]
    figure = pictures.differences(replace(comparison(), rows=(*rows, row("lr")), reference="4L"))
    assert figure
    colours = [line.get_color() for line in figure.axes[0].lines[1:]]
    assert colours == [*[pictures.LIGHT] * 4, *["black"] * 2], "from the last row up"


def test_costs_of_less_than_a_decade_have_numbers_and_rows_without_a_cost_are_left_out() -> None:
    made = (
        replace(row("a"), parameters=2_100.0),
        replace(row("b"), parameters=6_000.0),
        replace(row("c"), parameters=0.0),
    )
    figure = pictures.costs(replace(comparison(), rows=made), lambda row: row.parameters, "parameters")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    low, high = axes.get_xlim()
    shown = [t.label1.get_text() for t in axes.xaxis.get_major_ticks() if low <= t.get_loc() <= high]
    assert [text for text in shown if text] == ["2,000", "5,000"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["a", "b"]


def test_no_two_rows_look_the_same() -> None:
    many = tuple(row(f"row {n}") for n in range(20))
    figure = pictures.costs(replace(comparison(), rows=many), lambda row: row.parameters, "parameters")
    looks = [(line.get_color(), line.get_marker()) for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert len(looks) == len(set(looks)) == 20


@pytest.mark.parametrize(("cost", "at"), [(lambda row: row.parameters, 12.0), (lambda row: row.train_seconds, 1.0)])
def test_costs_are_beside_scores(cost: object, at: float) -> None:
    whisker, mean, *_ = lines(pictures.costs(comparison(), cost, "cost"))  # type: ignore[arg-type]
    assert (whisker, mean) == ([(at, 30), (at, 70)], [(at, 50)])


def test_a_search_is_a_column_and_a_choice_a_colour() -> None:
    looks = pictures.looks_of(SPACE)
    assert list(looks) == ["none", "FFN", "MSA"]
    assert len(set(looks.values())) == 3
    choices = {(0, 0): {"layer1": "MSA", "layer2": "none"}, (1, 0): {"layer1": "FFN", "layer2": "FFN"}}
    figure = pictures.chosen(choices, looks)
    middles = {(round(x + width / 2), round(y)): colour for x, y, width, colour in bars(figure)}
    assert middles == {
        (0, 1): looks["MSA"][0],
        (0, 0): looks["none"][0],
        (1, 1): looks["FFN"][0],
        (1, 0): looks["FFN"][0],
    }
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer2", "layer1"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]
    assert {text.get_text() for text in figure.legends[0].texts} == {"none", "FFN", "MSA"}


def test_more_choices_than_colours_differ_in_their_hatch() -> None:
    space = SearchSpace({"layer1": {f"b{n}": FFN for n in range(20)}}, MeanPool)
    assert len(set(pictures.looks_of(space).values())) == 21


def test_of_an_ensemble_widths_are_weights() -> None:
    looks = pictures.looks_of(SPACE)
    found = bars(pictures.made({"layer1": {"MSA": 0.75, "none": 0.25}, "layer2": {"FFN": 1.0}}, looks))
    wide = {(round(y), colour): width for _, y, width, colour in found if width}
    assert wide == {(1, looks["MSA"][0]): 75, (1, looks["none"][0]): 25, (0, looks["FFN"][0]): 100}


def test_a_confusion_is_of_each_hundred_of_a_class() -> None:
    figure = pictures.confusion(np.array([[3.0, 1.0], [0.0, 0.0]]), ("a", "b"), "row")
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "0", "0"]
    many = pictures.confusion(np.eye(11), [str(n) for n in range(11)], "row")
    assert not many.axes[0].texts


def test_reliability_is_how_often_the_sure_are_right() -> None:
    said_SNO = np.array([[[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]])
    figure = pictures.reliability({"row": said_SNO}, np.array([0, 1, 0, 1]))
    assert np.allclose(lines(figure)[1], [(60, 100), (90, 50)])
    (dots,) = figure.axes[0].collections
    assert isinstance(dots, PathCollection)
    assert np.allclose(dots.get_sizes(), [40, 40])


def test_each_state_has_its_score_in_each_fold() -> None:
    figure = pictures.layers([{0: 0.5, 1: 0.7}, {0: 0.7, 1: 0.8}], [1, 1], "WA")
    one, taken, other, taken_too, mean = lines(figure)
    assert np.allclose(one, [(0, 50), (1, 70)])
    assert np.allclose(other, [(0, 70), (1, 80)])
    assert np.allclose([*taken, *taken_too], [(1, 70), (1, 80)])
    assert np.allclose(mean, [(0, 60), (1, 75)])
    (bar,) = pictures.mix({"0": Spread(0.25, 0.1)}, "row").axes[0].patches
    assert isinstance(bar, Rectangle)
    assert bar.get_height() == pytest.approx(25)


def test_letters_have_eight_points() -> None:
    with pictures.letters():
        figure = pictures.costs(comparison(), lambda row: row.parameters, "parameters")
        figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *figure.legends[0].texts]
    assert {text.get_fontsize() for text in texts} == {8}
    assert figure.get_figwidth() == 3.5


def test_a_ribbon_is_as_high_as_a_mean_probability() -> None:
    looks = pictures.looks_of(SPACE)
    even, sure = (
        {"layer1": {"none": p, "FFN": 1 - p, "MSA": 0.0}, "layer2": {"FFN": 1.0, "none": 0.0}} for p in (0.5, 1.0)
    )
    figure = pictures.ribbons([[even, sure], [sure, sure]], looks)
    first, *_ = figure.axes[0].collections
    heights = {tuple(point) for point in np.asarray(first.get_paths()[0].vertices).tolist()}
    assert {(0.0, 75.0), (1.0, 100.0)} <= heights
    assert [axes.get_ylabel() for axes in figure.axes] == ["layer1", "layer2"]
    assert to_hex(np.asarray(first.get_facecolor())[0]).upper() == looks["none"][0]


def test_paths_are_losses_and_the_choice_has_a_ring() -> None:
    looks = pictures.looks_of(SPACE)
    figure = pictures.paths(
        {"layer1": {"FFN": 0.5, "MSA": 0.25}, "layer2": {"FFN": 1.0}}, {"layer1": "MSA", "layer2": "FFN"}, looks
    )
    assert lines(figure) == [[(1.0, 0)], [(0.5, 1)], [(0.25, 1)]]
    assert [line.get_markeredgecolor() for line in figure.axes[0].lines] == ["black", "none", "black"]
