"""The texts of a figure as they are: `$` is no mathematics; each letter is of a font that has it, where any has."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text


@contextmanager
def legible(figure: Figure) -> Iterator[frozenset[str]]:
    """Draw the figure in the block with its texts as they are. Yields the characters that no installed font has."""
    texts: list[Text] = figure.findobj(Text)
    families, missing = _fonts_for(frozenset("".join(text.get_text() for text in texts)))
    for text in texts:
        text.set(parse_math=False, usetex=False, fontfamily=families)
    with (
        rc_context(
            {"text.parse_math": False, "text.usetex": False, "font.family": families}
        ),  # of ticks yet to be made
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # a line a glyph; said once, by `tensorboard.draw`
        yield missing


@cache
def _fonts_for(characters: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """The usual font's family, then those of installed fonts with what it lacks, and what none has."""
    usual = list(rcParams["font.family"])
    families, left = usual, {ord(one) for one in characters if not one.isspace()}
    left -= _characters(findfont(FontProperties(family=usual)))
    fonts = {font.name: font.fname for font in fontManager.ttflist if font.style == "normal"} if left else {}
    held = {name: _characters(path) for name, path in sorted(fonts.items()) if not name.startswith("Last")}
    while left and (best := max(held, key=lambda name: len(left & held[name]), default=None)):
        if not left & held[best]:
            break
        families, left = [*families, best], left - held[best]
    return families, frozenset(map(chr, left))


def _characters(path: str) -> set[int]:
    """Those that a font can draw; none of a font that matplotlib cannot scale, as of coloured pictures."""
    try:
        font = get_font(path)
        return set(font.get_charmap()) if font.scalable else set()
    except (OSError, RuntimeError):
        return set()
