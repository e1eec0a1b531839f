"""docs/papers.md: every command of its tables, run on a small corpus, writes a page that says what the table says."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import soundfile
from golden.verbs import corpus
from places import ROOT

from bas.cli.main import main
from bas.encoders import NANO
from bas.training.settings import PRESETS

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "papers.md"
STANDINS = {
    "microsoft/wavlm-large": NANO,
    "bert-base-uncased": "random",
    "emodb.toml": "my.toml",
    "esd.toml": "my.toml",
    "other": "backwards",
}
ONE = ["--seeds=1", "--workers=1"]
SHORT = {
    "compare": [*ONE, "--set=epochs=2", "--set=stride=4"],
    "search": [*ONE, "--set=epochs=2", "--set=stride=4"],
    "audit": [*ONE, "--set=epochs=1", "--set=stride=4", "--space=four.py", "--strategy=gumbel", "--variant=none"],
    "probe": [*ONE, "--set=epochs=2", "--set=stride=4"],
    "words": [*ONE, "--set=epochs=2", "--set=stride=4"],
    "shares": [*ONE, "--set=epochs=2", "--set=stride=4", "--set=batch_size=8"],
    "dynamics": [
        *("--protocol=speaker:3", "--rotations=1", f"--encoder={NANO}", "--set=batch=16", "--set=micro_batch=8"),
        *("--set=epochs=1", "--set=evaluate_every=1", "--set=checkpoint_every=1"),
    ],
    "extract": [],
}
"""By verb, what makes it short."""

SPACE = """
from functools import partial
from bas.blocks import FFN, MSA, MeanPool
from bas.space import SearchSpace

layer = {"MSA": partial(MSA, num_heads=2), "FFN": FFN}
space = SearchSpace(slots={"layer1": layer, "layer2": layer}, pool=MeanPool)
"""


def rows() -> Iterator[tuple[str, ...]]:
    """The cells of each row of a paper's table: in the paper, here, its page says, differs."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if line.startswith("| ") and len(cells) == 4 and cells[0] != "in the paper":
            yield cells


ROWS = [row for row in rows() if not row[0].startswith("---")]
RUN = [(paper, *re.findall("`([^`]*)`", here)[:1], says) for paper, here, says, _ in ROWS if here.startswith("`")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """By command, the page that it wrote; each is run once, where it is first asked for."""
    root = tmp_path_factory.mktemp("papers")
    path = corpus(root)
    with path.open(encoding="utf-8") as stream:
        spoken = [row | {"label": {"a": "angry", "b": "sad"}[row["label"]]} for row in csv.DictReader(stream)]
    for row in spoken:
        row["language"] = "de" if row["speaker"] in ("s0", "s1", "s2", "s3") else "en"
    write(path, spoken)
    (root / "other").mkdir()
    for row in spoken:  # backwards it is another recording
        wave, rate = soundfile.read(root / row["audio"])
        soundfile.write(root / "other" / row["audio"], wave[::-1], rate)
    write(root / "other" / "mugs.csv", spoken)
    table = '[corpus]\nreader = "manifest"\nroot = "cups.csv"\n[protocol]\nrule = "speaker:3"\n'
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        Path("my.toml").write_text(table, encoding="utf-8")
        Path("four.py").write_text(SPACE, encoding="utf-8")
        quietly("extract", "my.toml", f"--encoder={NANO}", "--features=hubert", "--layers=0,3,6")
        quietly("extract", "my.toml", "--encoder=log-mel", "--features=mel")
        more = [f"--encoder={NANO}", "--features=backwards", "--layers=0,3,6"]
        quietly("extract", "--corpus=manifest", "--root=other/mugs.csv", *more)
        yield {}


def write(path: Path, spoken: list[dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(spoken[0]))
        writer.writeheader()
        writer.writerows(spoken)


def quietly(*words: str) -> str:
    said = StringIO()
    with redirect_stdout(said):
        code = main(list(words))
    assert code == 0, (words, said.getvalue())
    return said.getvalue()


@pytest.mark.parametrize(
    ("paper", "command", "says"), RUN, ids=[f"{n}-{paper[:40]}" for n, (paper, *_) in enumerate(RUN)]
)
def test_a_command_writes_what_its_row_says(done: dict[str, str], paper: str, command: str, says: str) -> None:
    if command not in done:
        program, verb, *words = [STANDINS.get(word, word) for word in shlex.split(command)]
        assert program == "bas"
        words = [word for word in words if word != "my.toml" or "backwards" not in words]
        encoder = [f"--encoder={NANO}"] if verb == "extract" and "--encoder" not in words else []
        store = ["--features=hubert"] if verb not in ("extract", "dynamics") and "--features" not in words else []
        name = [] if verb == "extract" else [f"--name=run-{len(done)}"]
        said = quietly(verb, *words, *encoder, *store, *SHORT[verb], *name)
        page = Path(f"runs/run-{len(done)}/table.md")
        done[command] = page.read_text(encoding="utf-8") if page.exists() else said
    for phrase in re.findall("`([^`]*)`", says):
        assert phrase in done[command], f"{paper}: {command}"


def test_a_row_without_a_command_says_why() -> None:
    for paper, here, *_ in ROWS:
        assert here.startswith("`bas ") or re.match(r"no: \w.{20}", here), paper
        for test in re.findall(r"`(tests/[^`]*)`", here):
            assert (ROOT / test).is_file(), test


def test_every_preset_of_a_paper_is_named() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert all(f'`preset = "{name}"`' in page for name in PRESETS if name != "cpu")
    assert len(ROWS) > 35
