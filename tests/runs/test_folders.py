"""A run's folder: what it may be gone on with, what it is refused for, and who works in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from golden.verbs import corpus
from records import rewrite

import bas
from bas.cli.main import main
from bas.errors import Diverged
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.util.files import locked

pytestmark = pytest.mark.slow

SPACE = """from helper import BLOCKS
from bas.blocks import FFN, MeanPool, SimpleFFN
from bas.space import SearchSpace

space = SearchSpace(slots={"a": BLOCKS, "b": BLOCKS}, pool=MeanPool)
"""
HELPER = 'from bas.blocks import FFN, SimpleFFN\nBLOCKS = {"One": FFN, "Two": SimpleFFN}\n'
OTHER_HELPER = 'from bas.blocks import FFN, SimpleFFN\nBLOCKS = {"One": SimpleFFN, "Two": FFN}\n'
BASELINE = 'baselines = {{"mine": SearchSpace(slots={{"x": {{"B": {block}}}}}, pool=MeanPool)}}\n'
QUICK = ["cups.toml", "--set", "epochs=1", "--set", "width=8", "--set", "stride=4", "--workers", "1", "--seeds", "1"]
SEARCH = [*QUICK, "--set", "strategy=random", "--set", "committee=1", "--protocol", "speaker:2", "--space"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A corpus, its features, spaces that import a module beside them, and a finished comparison."""
    folder = tmp_path_factory.mktemp("folders")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        table = corpus(folder)
        source = f'[corpus]\nreader = "manifest"\nroot = "{table.name}"\n[encoder]\nname = "log-mel"\n'
        Path("cups.toml").write_text(source, encoding="utf-8")
        Path("helper.py").write_text(HELPER, encoding="utf-8")
        for name, block in (("one", "FFN"), ("two", "SimpleFFN")):
            Path(f"{name}.py").write_text(SPACE + BASELINE.format(block=block), encoding="utf-8")
        assert main(["extract", "cups.toml"]) == 0
        assert main(["compare", *SEARCH, "one.py", "--name", "whole"]) == 0
        yield folder


@pytest.fixture
def work(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory; runs/again is a copy of the comparison."""
    monkeypatch.chdir(made)
    monkeypatch.syspath_prepend(made)
    shutil.copytree("runs/whole", "runs/again")
    yield made
    shutil.rmtree("runs/again")
    Path("helper.py").write_text(HELPER, encoding="utf-8")
    sys.modules.pop("helper", None)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    return capsys.readouterr().err


def test_other_baselines_are_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their rows have the same names: the table would compare with the first file's."""
    assert "made with baseline mine" in refusal(capsys, "compare", *SEARCH, "two.py", "--name", "again")


def test_an_edited_module_of_the_space_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("helper.py").write_text(OTHER_HELPER, encoding="utf-8")
    sys.modules.pop("helper", None)
    assert "made with space one" in refusal(capsys, "compare", *SEARCH, "one.py", "--name", "again")


@pytest.mark.parametrize("name", ["setting lr", "version of bas", "baseline mine"])
def test_what_the_folder_does_not_say_is_not_taken_for_equal(
    name: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("runs/again/run.json")
    record = json.loads(path.read_text())
    del record["made_of"][name]
    rewrite(path, record)
    assert f"made with {name} None" in refusal(capsys, "compare", *SEARCH, "one.py", "--name", "again")


def test_a_result_under_another_jobs_name_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Path("runs/again/jobs")
    shutil.copy(jobs / "baseline-mine-fold0-seed0.json", jobs / "baseline-mine-fold1-seed0.json")
    message = refusal(capsys, "compare", *SEARCH, "one.py", "--name", "again")
    assert "baseline-mine-fold1-seed0.json: the result of another job, baseline-mine-fold0-seed0" in message


def test_a_search_that_is_done_again_and_chooses_otherwise_is_trained_again(work: Path) -> None:
    run = Run.open(Path("runs/again"))
    search, retrain = (Job(kind, "one", 0, 0) for kind in (Kind.SEARCH, Kind.RETRAIN))
    other = {
        slot: {"One": "Two", "Two": "One"}[block] for slot, block in run.result(search.name)["architecture"].items()
    }
    path = run.job_path(search.name)
    rewrite(path, {**run.result(search.name), "architecture": other})
    results = bas.compare("runs/again/experiment.toml", name="again")
    assert run.result(retrain.name)["architecture"] == other
    assert " > ".join(other.values()) in results.sequences["one"]


@pytest.mark.parametrize("verb", ["tune", "audit", "probe"])
def test_a_folder_is_of_one_study(verb: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("runs/again").rglob("*.*") if path.name != ".lock"}
    quick = QUICK[:3] + QUICK[7:] if verb == "probe" else [*QUICK, "--space", "one.py"]
    message = refusal(capsys, verb, *quick, "--protocol", "speaker:2", "--name", "again")
    assert message == "bas: runs/again: holds what `bas compare` made; give another --name\n"
    assert {path: path.stat().st_mtime_ns for path in Path("runs/again").rglob("*.*") if path.name != ".lock"} == before


def test_a_search_leaves_the_experiment_of_the_table(work: Path) -> None:
    before = Path("runs/again/experiment.toml").read_text()
    assert main(["search", *SEARCH, "one.py", "--name", "again"]) == 0
    assert Path("runs/again/experiment.toml").read_text() == before


@pytest.mark.parametrize(
    ("key", "value"), [("encoder.name", "openai/whisper-tiny"), ("corpus.reader", "emodb"), ("corpus.root", "mugs.csv")]
)
def test_another_corpus_or_encoder_than_the_stores_is_refused(
    key: str, value: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--features", "runs/features/cups-log-mel", "--set", f"{key}={value}"]
    assert f"{key}={value}: but " in refusal(capsys, "search", *SEARCH, "one.py", *store, "--name", "never")
    assert not Path("runs/never").exists()


def test_a_training_that_diverges_is_no_refusal(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was changed: its experiment.toml says so."""

    def diverge(*_: object) -> None:
        raise Diverged("training diverged")

    monkeypatch.setattr("bas.studies.compare.study.train", diverge)
    with pytest.raises(Diverged):
        bas.compare("runs/again/experiment.toml", name="again", seeds=2)
    assert tomllib.loads(Path("runs/again/experiment.toml").read_text())["seeds"] == 2
    assert json.loads(Path("runs/again/run.json").read_text())["plan"]["seeds"] == [0, 1]


@pytest.mark.parametrize("verb", ["compare", "audit", "tune", "protocol cost", "probe", "dynamics"])
def test_one_process_works_in_a_folder(verb: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {"dynamics": ["cups.toml", "--encoder", "bas-hubert-nano"], "probe": QUICK[:1]}
    name = f"busy-{verb.replace(' ', '-')}"
    with locked(Path("runs") / name, "at work"):
        message = refusal(capsys, *verb.split(), *words.get(verb, [*QUICK, "--space", "one.py"]), "--name", name)
        assert "another process is at work here" in message
        assert [path.name for path in Path("runs", name).iterdir()] == [".lock"]


def test_a_script_needs_no_guard(work: Path) -> None:
    """Processes of a pool do not run the user's script once more."""
    Path("script.py").write_text(
        "import bas\nprint('begun')\n"
        "settings = {'epochs': 1, 'width': 8, 'stride': 4, 'strategy': 'random', 'committee': 1}\n"
        "print(bas.compare('cups.toml', name='script', spaces='one.py', seeds=1, workers=2, settings=settings,\n"
        "    protocol={'rule': 'speaker:2'}).run)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(work), *sys.path])}
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["begun", "script"], done.stderr


@pytest.mark.parametrize("kind", ["a link", "a pipe"])
@pytest.mark.parametrize(
    "name", ["jobs", "tb", "tb/rows/BAS-one", "spaces/one.py", "run.json", "experiment.toml", "jobs/search.checkpoint"]
)
def test_what_is_not_the_folder_s_own_is_refused(
    name: str, kind: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through a link files of the user's would be swept, replaced or deleted; a pipe would be waited for."""
    mine = tmp_path / "events.mine"
    for left in (mine, tmp_path / "x.1.tmp"):
        left.write_text("years of work", encoding="utf-8")
    path = Path("runs/again", name)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(tmp_path) if kind == "a link" else os.mkfifo(path)
    said = refusal(capsys, "compare", *SEARCH, "one.py", "--name", "again")
    assert said.startswith(f"bas: {path}: {kind}, where a file or folder belongs that is this folder's own; move it")
    assert sorted(os.listdir(tmp_path)) == ["events.mine", "x.1.tmp"]
    assert mine.read_text(encoding="utf-8") == "years of work"
