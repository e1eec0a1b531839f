"""Pages of parts: as Markdown, and as HTML in which nothing is taken for markup."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree

from matplotlib.figure import Figure
from webpages import Reader

from bas.util.pages import (
    Aside,
    Files,
    Grid,
    Heading,
    Items,
    Part,
    Picture,
    Pictures,
    Text,
    Words,
    Written,
    to_html,
    to_markdown,
)

EVIL = '<script>alert("1")</script> & \x1b[31m'
SHOWN = r'<script>alert("1")</script> & \x1b[31m'


def drawn(name: str) -> Picture:
    figure = Figure()
    figure.subplots().set_title(name)
    return Picture(name, figure, f"of {name}")


def test_whatever_a_name_holds_is_text() -> None:
    parts: list[Part] = [
        Heading(EVIL),
        Text(EVIL, strong=True),
        Items([EVIL]),
        Grid([EVIL], [[EVIL]]),
        Words([EVIL]),
        Files([(EVIL, EVIL)]),
        Pictures([drawn(EVIL)]),
        Aside(EVIL, [Text(EVIL)]),
    ]
    read = Reader(to_html(EVIL, parts))
    held = [tag for tag, text in read.texts if text == SHOWN]
    assert held == ["title", "h2", "p", "li", "th", "td", "pre", "a", "summary", "p"]
    assert not any(tag == "script" for tag, *_ in read.attributes)
    assert ("figcaption", f"of {SHOWN}") in read.texts
    assert ("img", "alt", f"of {SHOWN}") in read.attributes


def test_a_page_loads_nothing() -> None:
    read = Reader(to_html("page", [Pictures([drawn("a"), drawn("b")]), Files([("table.csv", "all")])]))
    places = [value for _, name, value in read.attributes if name in ("src", "href")]
    assert [place.split(",")[0] for place in places] == [
        "data:image/svg+xml;base64",
        "data:image/svg+xml;base64",
        "table.csv",
    ]
    (policy,) = (value for tag, name, value in read.attributes if name == "content" and "default-src" in value)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_a_picture_is_the_same_svg_each_time_and_its_letters_are_letters() -> None:
    first, second = drawn("cost in $ of a & b"), drawn("cost in $ of a & b")
    assert first.svg == second.svg
    root = ElementTree.fromstring(first.svg)
    assert "cost in $ of a & b" in ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    page = to_html("page", [Pictures([first])])
    found = re.search(r"base64,([^\"]+)", page)
    assert found
    assert base64.b64decode(found[1]) == first.svg


def test_as_markdown_a_blank_line_is_between_parts() -> None:
    parts: list[Written] = [
        Heading("a", 1),
        Text("1. b", strong=True),
        Grid(["c", "d"], [["|", "e"]]),
        Items(["f", "g"]),
        Text("h"),
    ]
    page = "# a\n\n**1\\. b**\n\n| c | d |\n| --- | --- |\n| \\| | e |\n\n- f\n- g\n\nh\n"
    assert to_markdown(parts) == page
