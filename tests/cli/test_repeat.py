"""experiment.toml of a run's folder repeats the run, and the functions of `bas` do what the command line does."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from golden.verbs import SPACE, corpus
from rich.console import Console

import bas
import bas.api
from bas.cli.main import main
from bas.protocols import Protocol
from bas.report.results import write_results
from bas.runs.run import Inputs, Run
from bas.runs.workers import Workers

pytestmark = pytest.mark.slow

QUICK = ["--set", "epochs=2", "--set", "batch_size=8", "--seeds", "1", "--workers", "1"]
PLAIN = [*QUICK, "--set", "width=16", "--space", "four.py"]
SMALL = [*PLAIN, "--set", "strategy=gumbel"]
MEANT = {
    "compare": ("compare.study.train", ["--preset", "paper", *SMALL, "--layer", "middle", "--protocol-seed", "3"]),
    "audit": ("audit.study.train", [*PLAIN, "--strategy", "gumbel+warmup=1", "--variant", "none"]),
    "tune": ("tune.study.train", [*SMALL, "--trials", "3", "--tune", "search"]),
    "protocol cost": ("leak.study.measure", [*PLAIN, "--clean", "speaker:3", "--leaky", "id:3"]),
    "probe": ("probe.study.carry_out", [*QUICK, "--percent", "50"]),
    "dynamics": (
        "dynamics.study.carry_out",
        ["--set", "lr=0.1", "--preset", "paper", "--seed", "3", "--rotations", "1"],
    ),
    "words": (
        "words.study.carry_out",
        [*QUICK, "--text-encoder", "random", "--word", "hund", "--protocol", "split.json"],
    ),
    "shares": (
        "shares.study.carry_out",
        ["--set", "width=16", *QUICK, "--metadata", "sex", "--layer", "0"],
    ),
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A corpus, its features where they go by themselves, a space; the working directory."""
    folder = tmp_path_factory.mktemp("repeat")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        table = corpus(folder)
        Path("four.py").write_text(SPACE, encoding="utf-8")
        experiment = {"corpus": {"reader": "manifest", "root": str(table)}, "encoder": {"name": "log-mel"}}
        assert bas.extract(experiment) == Path("runs/features/cups-log-mel")
        assert main(["protocol", "make", "--corpus", "manifest", "--root", "cups.csv", "--to", "split.json"]) == 0
        Path("cups.toml").write_text(
            '[corpus]\nreader = "manifest"\nroot = "cups.csv"\n[encoder]\nname = "log-mel"\n', encoding="utf-8"
        )
        yield folder


def meaning(value: Any) -> Any:
    """What a study is given, without where it writes and what it shows."""
    if isinstance(value, Inputs):
        return value.plan
    if isinstance(value, Run):
        return value.plan, value.protocol.hash
    if isinstance(value, Protocol):
        return value.hash
    if isinstance(value, Workers):
        return value.count, value.part
    if isinstance(value, Mapping):
        return {key: meaning(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [meaning(one) for one in value if not isinstance(one, Console | Path)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [meaning(getattr(value, one.name)) for one in dataclasses.fields(value)]
    return value


@pytest.mark.parametrize("verb", MEANT)
def test_a_runs_own_file_means_the_same(verb: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, flags = MEANT[verb]
    given: list[Any] = []
    monkeypatch.setattr(f"bas.studies.{study}", lambda *values, **more: given.append((meaning(values), more)))
    for name in ("compare", "audit", "tune"):  # nothing is trained
        monkeypatch.setattr(f"bas.studies.{name}.study.conclude", lambda *begun: None)
    monkeypatch.setattr("bas.cli.experiments.take", lambda result: ["board"])  # there is no result
    name = verb.replace(" ", "-")
    assert main([*verb.split(), "cups.toml", *flags, "--name", name]) == 0
    assert main([*verb.split(), f"runs/{name}/experiment.toml", "--name", f"{name}-again"]) == 0
    assert given[0] == given[1]
    files = [tomllib.loads(Path(f"runs/{one}/experiment.toml").read_text()) for one in (name, f"{name}-again")]
    assert files[0].pop("name") == name
    assert files[1].pop("name") == f"{name}-again"
    assert files[0] == files[1]


def test_the_same_numbers(work: Path) -> None:
    flags = ["--set", "stride=2", "--set", "committee=1", "--protocol", "speaker:2"]
    assert main(["compare", "cups.toml", *SMALL, *flags, "--name", "one"]) == 0
    assert main(["compare", "runs/one/experiment.toml", "--name", "two"]) == 0
    settings = {"epochs": 2, "batch_size": 8, "width": 16, "strategy": "gumbel", "stride": 2, "committee": 1}
    results = bas.compare(
        "cups.toml",
        name="three",
        spaces="four.py",
        seeds=1,
        workers=1,
        settings=settings,
        protocol={"rule": "speaker:2"},
    )
    jobs = [
        {path.name: json.loads(path.read_text())["test"] for path in Path(f"runs/{name}/jobs").glob("[bl]*.json")}
        for name in ("one", "two", "three")
    ]
    assert len(jobs[0]) == 8
    assert jobs[0] == jobs[1] == jobs[2]
    # In a file no interval is null, which is read as NaN: written again, both are the same file.
    for name, of in (("read", bas.load_results("runs/three")), ("returned", results)):
        (work / name).mkdir()
        write_results(work / name, of)
        assert (work / name / "results.json").read_bytes() == Path("runs/three/results.json").read_bytes()
    choices = bas.api.search("runs/three/experiment.toml")
    assert {key: len(of) for key, of in choices.items()} == {"four": 2}
    retrained = bas.retrain("runs/three/experiment.toml")
    assert {key: result.architecture for key, result in retrained["four"].items()} == {
        key: result.architecture for key, result in choices["four"].items()
    }


def test_nothing_is_shown_unless_a_console_is_given(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bas.extract("cups.toml")
    assert capsys.readouterr().out == ""
    bas.extract("cups.toml", console=Console())
    assert "features: runs/features/cups-log-mel, complete" in capsys.readouterr().out


def test_a_refusal_leaves_nothing_and_restores_what_was(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(bas.UserError, match="speaker:99"):
        bas.compare("cups.toml", name="never", spaces="four.py", protocol={"rule": "speaker:99"})
    assert not Path("runs/never").exists()

    def refuse(*values: Any) -> None:
        raise bas.UserError("no")

    monkeypatch.setattr("bas.studies.leak.study.measure", refuse)
    with pytest.raises(bas.UserError, match=r"^no$"):
        bas.cost("cups.toml", name="never", spaces="four.py")
    assert not Path("runs/never").exists()
    Path("runs/there").mkdir()
    Path("runs/there/experiment.toml").write_text("seeds = 1\n")
    with pytest.raises(bas.UserError, match=r"^no$"):
        bas.cost("cups.toml", name="there", spaces="four.py")
    assert Path("runs/there/experiment.toml").read_text() == "seeds = 1\n"


def test_one_store_and_one_layer_where_one_is_taken(work: Path) -> None:
    with pytest.raises(bas.UserError, match=r"^compare: takes one store of a, b; name it with --features"):
        bas.compare({"features": ["a", "b"]})
    with pytest.raises(bas.UserError, match=r"^compare: takes one layer of 0, best; name it with --layer"):
        bas.compare("cups.toml", layer=[0, "best"])
    with pytest.raises(bas.UserError, match=r"^compare: needs features \(--features\), a store made by extract, or"):
        bas.compare({})


def test_results_of_a_folder_without(work: Path) -> None:
    with pytest.raises(bas.UserError, match=r"results.json: no such file"):
        bas.load_results(work)


def test_every_name_that_bas_offers_is_there() -> None:
    for name in bas.__all__:
        assert getattr(bas, name) is not None
    assert set(bas.__all__) <= set(dir(bas))
    with pytest.raises(AttributeError, match="'bas' has no attribute 'comparison'"):
        _ = bas.comparison
