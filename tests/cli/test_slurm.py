"""A real SLURM of two nodes: a comparison, an audit and an extraction over both are as those of one machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cluster import slurm
from golden.verbs import SPACE
from killing_tasks import tasks_of
from killing_verbs import differences, state
from places import EMODB, PATIENCE

from bas.corpora.readers.synthetic import synthesise
from bas.features.store import FeatureStore

pytestmark = pytest.mark.slow

SMALL = ["--device", "cpu", "--seeds", "1", "--set", "width=8", "--set", "epochs=12"]
COMPARE = ["compare", "--features", "store", "--layer", "best", *SMALL, "--set", "budget=6", "--set", "committee=2"]
COMPARE += ["--set", "epochs=120"]  # long enough for a task to be ended and replaced
AUDIT = ["audit", "--features", "store", "--space", "four.py", "--strategy", "gumbel", "--variant", "none", *SMALL]
ON_BOTH = ["--cluster", "slurm", "--tasks", "2"]
Environment = dict[str, str]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield {**environment, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def work(nodes: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's corpus and its features; the working directory."""
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        synthesise(folder / "demo", speakers=6, sentences=4)
        Path("four.py").write_text(SPACE, encoding="utf-8")
        done(["extract", "--corpus", "demo", "--root", "demo", *["--encoder", "log-mel", "--features", "store"]], nodes)
        yield folder


def begin(words: list[str], environment: Environment) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bas", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def done(words: list[str], environment: Environment) -> str:
    """What a command said that ended well."""
    process = begin(words, environment)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def asked(environment: Environment, *words: str) -> list[str]:
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.split()


def results(name: str) -> int:
    return len(list(Path("runs", name, "jobs").glob("*.json")))


def wait_until(what: str, is_so: object, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():  # type: ignore[operator]
        assert process.poll() is None, f"it ended before {what}: {process.communicate()[0]}"
        assert time.monotonic() < end, what
        time.sleep(0.1)


def said_by(name: str) -> dict[str, str]:
    """What a run's files say, but for the tasks' logs, TensorBoard's files, and who was to do it."""
    values = state(Path("runs", name))
    out = re.compile(r"^cluster/|(^|/)tb/|experiment\.toml$|run\.json$|study\.json$")
    kept = {path: of for path, of in values.items() if not out.search(path)}
    return {path: repr(of).replace(f"runs/{name}/", "").replace(f"'run': '{name}'", "") for path, of in kept.items()}


def same(one: str, other: str) -> None:
    first, second = said_by(one), said_by(other)
    assert len(first) > 20
    assert not list(differences(first, second))


def test_a_comparison_over_both_nodes_is_that_of_one_machine_whoever_is_ended(nodes: Environment, work: Path) -> None:
    done([*COMPARE, "--name", "alone", "--workers", "2"], nodes)
    process = begin([*COMPARE, "--name", "over", *ON_BOTH], nodes)
    wait_until("a result", lambda: results("over") > 2, process)
    running = asked(nodes, "squeue", "--noheader", "--array", "--states", "RUNNING", "--format", "%i %N")
    assert set(running[1::2]) == {"n1", "n2"}
    asked(nodes, "scancel", running[0])
    wait_until(
        "another task",
        lambda: len(set(asked(nodes, "squeue", "--noheader", "--array", "--format", "%i")) - {running[0]}) > 1,
        process,
    )
    before = results("over")
    wait_until("another result", lambda: results("over") > before, process)
    for victim in tasks_of()[:1]:
        os.kill(victim, signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    assert said.count("a task died, another takes its place") >= 1, said
    assert "report: runs/over/report.html" in said
    same("alone", "over")
    assert not Path("runs/over/claims").exists()


def test_an_audit_over_both_nodes_is_that_of_one_machine(nodes: Environment, work: Path) -> None:
    done([*AUDIT, "--name", "audited", "--workers", "2"], nodes)
    said = done([*AUDIT, "--name", "audited-over", *ON_BOTH], nodes)
    assert "slurm: 2 tasks" in said
    same("audited", "audited-over")
    next(Path("runs/audited-over/jobs").glob("alone-*")).unlink()
    done([*AUDIT, "--name", "audited-over", *ON_BOTH], nodes)  # beside what submitit has left there
    same("audited", "audited-over")


def test_what_every_task_would_refuse_is_said_in_one_line(nodes: Environment, work: Path) -> None:
    process = begin([*COMPARE, "--name", "never", *ON_BOTH, "--set", "cluster.partition=none-such"], nodes)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    assert "cluster.kind=slurm: not submitted: " in said.splitlines()[-1]
    assert "partition" in said.splitlines()[-1]
    process = begin([*COMPARE, "--name", "diverges", *ON_BOTH, "--set", "lr=1e30", "--set", "optimiser=sgd"], nodes)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2, said
    assert "diverged" in said.splitlines()[-1]
    end = time.monotonic() + PATIENCE
    while asked(nodes, "squeue", "--noheader"):  # what is cancelled takes a moment to end
        assert time.monotonic() < end
        time.sleep(0.2)


def test_parts_of_an_extraction_on_both_nodes_are_as_one_process_writes_them(nodes: Environment, work: Path) -> None:
    corpus = ["--corpus", "emodb", "--root", str(EMODB)] if EMODB.is_dir() else ["--corpus", "demo", "--root", "demo"]
    extract = ["extract", *corpus, "--encoder", "bas-hubert-nano", "--device", "cpu"]
    for i in range(2):
        done([*extract, "--features", "one", "--part", f"{i}/2"], nodes)
    words = " ".join([sys.executable, "-m", "bas", *extract, "--features", "both", "--part", "$SLURM_ARRAY_TASK_ID/2"])
    asked(nodes, "sbatch", "--wait", "--array=0-1", "--output=part-%a.log", "--wrap", words)
    logs = [Path(f"part-{i}.log").read_text() for i in range(2)]
    assert sum("features: both, complete" in log for log in logs) >= 1, logs
    one, both = FeatureStore(Path("one")), FeatureStore(Path("both"))
    assert one.info.shards == both.info.shards
    assert len(one.info.shards) >= 16
    for id_ in one.ids:
        for layer in one.info.layers:
            assert np.array_equal(one.read(id_, layer), both.read(id_, layer))
