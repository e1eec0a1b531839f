"""The report of a run: everything is in one file, true to the run, and readable where it is narrow."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from heard import FEATURES, SHARES, heard
from PIL import Image
from places import PATIENCE
from webpages import Reader

from bas.cli.main import main
from bas.encoders import NANO
from bas.report import webpage
from bas.report.answer import Answer, answer
from bas.report.comparison import jobs_of
from bas.report.results import Comparison
from bas.runs.results import NOT_ABOVE_CHANCE
from bas.runs.run import Run
from bas.studies import load_results
from bas.util.pages import Grid, Words, to_html

pytestmark = pytest.mark.slow

SMALL = ["--set=width=8", "--set=epochs=1", "--set=committee=2", "--set=budget=4", "--protocol", "speaker:2"]
SPACE = """
from bas.blocks import FFN, MSA, MeanPool, Skip, StatisticsPool
from bas.space import SearchSpace

layer = {"none": Skip, "FFN": FFN}
space = SearchSpace({"layer1": layer, "layer2": layer}, {"mean": MeanPool, "statistics": StatisticsPool})
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two comparisons: of classes with `layer=best`, and of shares."""
    folder = tmp_path_factory.mktemp("webpage")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        heard(utterances=32, speakers=4, labelled=True)
        Path("small.py").write_text(SPACE, encoding="utf-8")
        Path("shares.py").write_text(SHARES, encoding="utf-8")
        assert main(["extract", "--corpus", "manifest", "--root", "heard.jsonl", "--encoder", NANO]) == 0
        for name, features, space, more in (
            ("classes", f"runs/features/heard-{NANO}", "small.py", ["--layer", "best", "--seeds", "2"]),
            ("shares", FEATURES, "shares.py", ["--seeds", "1"]),
        ):
            words = ["--features", features, "--space", space, "--workers", "1", "--name", name]
            assert main(["compare", *words, *SMALL, *more]) == 0
        yield folder


def page(name: str) -> Reader:
    return Reader((Path("runs") / name / "report.html").read_text(encoding="utf-8"))


def loaded(name: str) -> Comparison:
    results = load_results(Path("runs") / name)
    assert isinstance(results, Comparison)
    return results


@pytest.mark.parametrize("name", ["classes", "shares"])
def test_the_report_says_what_the_table_says(home: Path, name: str) -> None:
    read, table = page(name), (Path("runs") / name / "table.md").read_text(encoding="utf-8")
    shown = "|".join(text for tag, text in read.texts if tag in ("td", "th"))
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) >= 6
    assert all("|".join(cell.strip() for cell in line.strip("|").split("|")) in shown for line in rows)
    assert ("p", answer(loaded(name)).text) in read.texts


def test_the_report_shows_the_run(home: Path) -> None:
    read, run = page("classes"), Run.open(Path("runs/classes"))
    texts = [text for _, text in read.texts]
    for fold in run.protocol.folds:
        units = ", ".join(sorted({str(run.utterances[run.position[i]].speaker) for i in fold.test}))
        at = texts.index(units)
        assert texts[at - 3 : at] == [str(len(ids)) for ids in (fold.fit, fold.valid, fold.test)]
    assert "bas compare runs/classes/experiment.toml" in "\n".join(texts)
    at = texts.index("budget")
    assert texts[at + 1] == "4"
    headings = [text for tag, text in read.texts if tag == "h2"]
    assert headings == [
        "What the searches chose",
        "Where it is right and wrong",
        "The encoder's states",
        "The split",
        "Settings",
        "Do it again, or go on",
    ]
    assert "Recall by class, in points" in [text for tag, text in read.texts if tag == "h3"]
    assert "Where it is right and wrong" not in [text for _, text in page("shares").texts], "no classes"


@pytest.mark.parametrize("name", ["classes", "shares"])
def test_figures_are_in_the_page_and_beside_it(home: Path, name: str) -> None:
    sources = [value for tag, key, value in page(name).attributes if (tag, key) == ("img", "src")]
    inside = {base64.b64decode(source.partition("base64,")[2]) for source in sources}
    beside = {path.name: path.read_bytes() for path in (Path("runs") / name / "figures").iterdir()}
    assert inside == set(beside.values())
    assert len(sources) == len(beside)
    assert {"scores.svg", "seconds.svg", "parameters.svg"} < set(beside)
    assert ({"states.svg", "reliability.svg"} < set(beside)) == (name == "classes")
    for data in inside:
        ElementTree.fromstring(data)


def test_files_that_the_report_names_are_there(home: Path) -> None:
    for name in ("classes", "shares"):
        linked = [value for tag, key, value in page(name).attributes if (tag, key) == ("a", "href")]
        assert "predictions.csv" in linked
        assert all((Path("runs") / name / link).exists() for link in linked)


def test_no_command_is_given_for_a_row_that_nothing_is_shown_of(home: Path) -> None:
    run, results = Run.open(Path("runs/classes")), loaded("classes")
    for low in (False, True):
        remarks = (f"{NOT_ABOVE_CHANCE}: so it is",) if low else ()
        of = replace(results, rows=tuple(replace(row, remarks=remarks) for row in results.rows))
        (words,) = (part for part in webpage.parts(run, of, jobs_of(run)) if isinstance(part, Words))
        assert any(line.startswith("bas export runs/classes --row ") for line in words.lines) != low


def test_more_epochs_are_a_command_where_they_may_change_the_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, results = Run.open(Path("runs/classes")), loaded("classes")
    for early in (False, True):
        said = Answer("logistic regression", "so", early)
        monkeypatch.setattr(webpage, "answer", lambda _, said=said: said)
        whole = webpage.parts(run, results, jobs_of(run))
        (words,) = (part for part in whole if isinstance(part, Words))
        line = "bas compare runs/classes/experiment.toml --set epochs=2 --name classes-2-epochs"
        assert (line in words.lines) == early
        assert next(part.marked for part in whole if isinstance(part, Grid)) == "logistic regression"
    page = to_html("", [Grid(["model"], [["a"], ["b"]], marked="b")])
    assert '<tr><td class="short">a</td></tr>' in page
    assert '<tr class=marked><td class="short">b</td></tr>' in page


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
def test_a_table_that_goes_on_has_a_shadow_there(tmp_path: Path) -> None:
    """On a phone nothing else shows that it can be scrolled; only the edge behind which there is more is dark."""
    dark = {}
    for name, columns in (("wide", 30), ("narrow", 1)):
        html = to_html("", [Grid(["w" * 12] * columns, [[""] * columns])])
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
        picture = tmp_path / f"{name}.png"
        words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser"]
        words += ["--hide-scrollbars", "--no-first-run", "--window-size=600,300", f"--screenshot={picture}"]
        words.append((tmp_path / f"{name}.html").as_uri())
        subprocess.run(["chromium", *words], capture_output=True, timeout=120, check=True)
        grey_YX = np.asarray(Image.open(picture).convert("L"))
        rows_Y = grey_YX[40:60]  # of the table; its margins are 32 and 16 pixels wide
        dark[name] = [bool((rows_Y[:, at] < 250).all()) for at in (17, 582)]
    assert dark == {"wide": [False, True], "narrow": [False, False]}


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium")
@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_a_browser(home: Path, tmp_path: Path, width: int) -> None:
    """In a frame, for a window has a least width. The script is the test's own: it says how wide the page is."""
    page = Path("runs/classes/report.html").absolute().as_uri()
    script = "document.title = document.getElementById('of').contentDocument.documentElement.scrollWidth"
    frame = (
        f'<body onload="{script}"><iframe id="of" style="border: 0" width="{width}" height="900" src="{page}"></iframe>'
    )
    (tmp_path / "page.html").write_text(f"<title></title>{frame}", encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser", "--dump-dom"]
    words += ["--allow-file-access-from-files", "--hide-scrollbars"]
    words += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    words += [f"--window-size={width},900", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(["chromium", *words], capture_output=True, text=True, timeout=PATIENCE, check=True)
    found = re.search(r"<title>(\d+)</title>", done.stdout)
    assert found
    assert int(found[1]) == width
