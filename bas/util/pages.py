"""A page as parts, in which no name is taken for markup: as Markdown, or as one HTML file that needs nothing else."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO

from matplotlib import rc_context
from matplotlib.figure import Figure

from bas.util.figures import legible
from bas.util.markdown import bullets, markdown_table, paragraph, section
from bas.util.terminal import printable


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str
    strong: bool = False


@dataclass(frozen=True)
class Items:
    """A list: an item for each line."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table. marked: the row, by its first cell, that stands out in HTML."""

    heading: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: str | None = None


@dataclass(frozen=True)
class Picture:
    """A figure, drawn as SVG. name: its own on the page. caption: what it shows, also for those who do not see it."""

    name: str
    figure: Figure
    caption: str

    @cached_property
    def svg(self) -> bytes:
        """The same bytes each time; letters stay letters."""
        stream = BytesIO()
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "bas"}), legible(self.figure):
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return printable(stream.getvalue().decode()).encode()  # XML has no control characters


@dataclass(frozen=True)
class Pictures:
    """Figures side by side where there is room."""

    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Words:
    """Something to type."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Files:
    """Files beside the page, by name, and what is in each."""

    names: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Aside:
    """Parts that show once their title is clicked."""

    title: str
    parts: Sequence[Part]


Written = Heading | Text | Items | Grid
"""Parts that a page in Markdown has."""
Part = Written | Pictures | Words | Files | Aside


def to_markdown(parts: Iterable[Written]) -> str:
    return "\n\n".join("\n".join(_lines(part)) for part in parts) + "\n"


def _lines(part: Written) -> list[str]:
    if isinstance(part, Heading):
        return [section(part.level, part.text)]
    if isinstance(part, Text):
        return [f"**{paragraph(part.text)}**" if part.strong else paragraph(part.text)]
    if isinstance(part, Items):
        return bullets(part.lines)
    return markdown_table(part.heading, part.rows)


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; line-height: 1.25; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 2rem 0 0.3rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.5rem; border-top: 1px solid #bbb; padding-top: 1rem; }
.answer { font-size: 1.1rem; border-left: 0.3rem solid #0072b2; padding: 0.5rem 0 0.5rem 1rem; }
/* Shadows at the edges behind which a table goes on; white that moves with the table covers them at its ends. */
.scroll { overflow-x: auto; margin: 1rem 0; background-color: #fff; background-repeat: no-repeat;
  background-image: linear-gradient(to right, #fff 35%, #fff0), linear-gradient(to left, #fff 35%, #fff0),
    linear-gradient(to right, #0005, #0000), linear-gradient(to left, #0005, #0000);
  background-position: left, right, left, right; background-attachment: local, local, scroll, scroll;
  background-size: 2.5rem 100%, 2.5rem 100%, 0.8rem 100%, 0.8rem 100%; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #888; }
.marked { font-weight: bold; }
.short { white-space: nowrap; }
.long { min-width: 18rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
figure { margin: 1rem 0; width: min(100%, 27rem); }
figure img { width: 100%; height: auto; }
figcaption, li, .note { font-size: 0.9rem; overflow-wrap: anywhere; }
pre { background: #f2f2f2; padding: 0.7rem 1rem; overflow-x: auto; font-size: 0.9rem; }
summary { cursor: pointer; margin: 1rem 0; }
@media print { body { max-width: none; } .scroll { overflow: visible; background: none; } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What the browser may load: nothing but what the page holds."""
SHORT = 40  # letters of a cell that is never broken


def to_html(title: str, parts: Iterable[Part]) -> str:
    """The whole file: no script, nothing from elsewhere."""
    body = "\n".join(_html(part) for part in parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(printable(text))


def _html(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h{part.level}>{_text(part.text)}</h{part.level}>"
    if isinstance(part, Text):
        return f'<p class="{"answer" if part.strong else "note"}">{_text(part.text)}</p>'
    if isinstance(part, Items):
        return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in part.lines) + "</ul>"
    if isinstance(part, Grid):
        head = "".join(f'<th class="short">{_text(cell)}</th>' for cell in part.heading)
        rows = "\n".join(
            f"<tr{' class=marked' if row[0] == part.marked else ''}>{''.join(map(_cell, row))}</tr>"
            for row in part.rows
        )
        return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>'
    if isinstance(part, Pictures):
        return f'<div class="pictures">{"".join(map(_figure, part.pictures))}</div>'
    if isinstance(part, Words):
        return f"<pre>{_text(chr(10).join(part.lines))}</pre>"
    if isinstance(part, Files):
        lines = (f'<li><a href="{_text(name)}">{_text(name)}</a>: {_text(what)}</li>' for name, what in part.names)
        return f"<ul>{''.join(lines)}</ul>"
    inner = "\n".join(map(_html, part.parts))
    return f"<details>\n<summary>{_text(part.title)}</summary>\n{inner}\n</details>"


def _cell(text: str) -> str:
    return f'<td class="{"short" if len(text) <= SHORT else "long"}">{_text(text)}</td>'


def _figure(picture: Picture) -> str:
    data = b64encode(picture.svg).decode()
    caption = _text(picture.caption)
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption>'
        "</figure>"
    )
