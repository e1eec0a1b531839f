"""A figure's texts are drawn as they are, with fonts that have their letters."""

from __future__ import annotations

import warnings
from io import BytesIO

import pytest
from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from bas.util.figures import legible


def figure_of(name: str) -> Figure:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=name)
    axes.set(title=name, xlabel=name)
    axes.set_xticks([0, 1], [name, name])
    axes.text(0, 0, name)
    axes.legend(title=name)
    figure.suptitle(name)
    return figure


def pixels(figure: Figure) -> bytes:
    stream = BytesIO()
    figure.savefig(stream, format="raw")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["$x_1$", "$\\frac$", "a $ b $", "$}$"])
def test_a_dollar_is_no_mathematics(name: str) -> None:
    figure, same = figure_of(name), figure_of(name.replace("$", "\\$"))
    with legible(figure):
        drawn = pixels(figure)
    assert drawn == pixels(same)  # with every $ escaped, matplotlib draws the text as it is
    assert rcParams["text.parse_math"]


def test_letters_of_another_font_are_taken_from_it() -> None:
    usual = set(get_font(findfont(FontProperties(family=["sans-serif"]))).get_charmap())
    other = set(get_font(findfont(FontProperties(family=["STIXGeneral"]))).get_charmap())
    letter = chr(min(one for one in other - usual if chr(one).isprintable()))
    figure = figure_of(f"a {letter}")
    with warnings.catch_warnings(action="error"), legible(figure) as missing:
        pixels(figure)
        assert not missing


def test_letters_of_no_font_are_named_and_draw_no_flood_of_warnings() -> None:
    figure = figure_of("a \U0010fa23\U0010fffd 1")  # fonts may draw signs of the first private area
    with warnings.catch_warnings(action="error"), legible(figure) as missing:
        pixels(figure)
    assert missing == {"\U0010fa23", "\U0010fffd"}
