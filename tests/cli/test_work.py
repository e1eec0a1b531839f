"""A run that several processes share, and a store in parts: the end is that of one process.

Hosts are told apart by what they lack: one has no file locks, a clock that is an hour ahead and no home.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from golden.verbs import SPACE, WIDE, corpus
from killing_tasks import tasks_of
from killing_verbs import timeless
from places import PATIENCE, ROOT
from rich.console import Console

import bas
from bas import cluster
from bas.cli.main import main
from bas.cluster import Task
from bas.errors import EndedError
from bas.experiment.keys import ClusterTable
from bas.features.store import FeatureStore
from bas.runs.plan import Job
from bas.util.claims import Owner
from bas.util.part import Part

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("BAS_KILLS", "10"))
"""Of each: of processes that share a run, and of those that share a store."""
SETTINGS = {"width": 8, "epochs": 8, "batch_size": 8, "budget": 6, "committee": 2}
EXPERIMENT: dict[str, Any] = {
    "features": ["mel"],
    "spaces": ["wide.py"],
    "layer": ["best"],
    "seeds": 2,
    "workers": 1,
    "device": "cpu",
    "protocol": {"rule": "speaker:3"},
    "settings": SETTINGS,
}
AUDIT = {**EXPERIMENT, "spaces": ["four.py"], "settings": {"width": 8, "epochs": 2, "batch_size": 8}}
AUDIT["audit"] = {"strategies": ["gumbel"], "variants": ["residual=every"]}
OTHER_HOST = """
import errno, fcntl, time
from bas.util import hosts

def refused(*_):
    raise OSError(errno.ENOLCK, "No locks available")

real = time.time
fcntl.flock = refused
time.time = lambda: real() + 3600.0
hosts.machine = lambda: "0123ab"
from bas.util import claims, temporary
claims.machine = temporary.machine = hosts.machine
from bas.cli.main import main
import sys
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A corpus of six speakers and its features; the working directory. runs/alone: the work of one process."""
    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        corpus(folder)
        Path("wide.py").write_text(WIDE, encoding="utf-8")
        Path("four.py").write_text(SPACE, encoding="utf-8")
        table = {"reader": "manifest", "root": "cups.csv"}
        bas.extract({"corpus": table, "encoder": {"name": "log-mel"}, "features": ["mel"]})
        bas.compare(EXPERIMENT, name="alone")
        bas.audit(AUDIT, name="audited")
        yield folder


def begin(*words: str, script: str | None = None, **environment: str) -> subprocess.Popen[str]:
    code = ["-m", "bas"] if script is None else ["-c", script]
    given = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, *code, *words]
    return subprocess.Popen(command, env=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def results(name: str) -> dict[str, Any]:
    """What the results of all jobs of a run say, but for times."""
    paths = sorted(Path("runs", name).rglob("jobs/*.json"))
    return {str(path.relative_to(Path("runs", name))): timeless(json.loads(path.read_text())) for path in paths}


def table(name: str) -> Any:
    return timeless({**json.loads(Path("runs", name, "results.json").read_text()), "run": ""})


def test_three_processes_share_a_comparison(work: Path) -> None:
    assert bas.prepare("compare", EXPERIMENT, name="shared") == Path("runs/shared")
    assert results("shared") == {}
    said = [ended(one) for one in [begin("work", "runs/shared", "--workers", str(n)) for n in (1, 1, 2)]]
    assert all("runs/shared: all jobs have a result" in one for one in said)
    assert all("next: " in one and "compare runs/shared/experiment.toml" in one for one in said)
    assert results("shared") == results("alone")
    before = {path: path.stat().st_mtime_ns for path in Path("runs/shared").rglob("jobs/*.json")}
    bas.compare("runs/shared/experiment.toml")
    assert {path: path.stat().st_mtime_ns for path in Path("runs/shared").rglob("jobs/*.json")} == before
    assert table("shared") == table("alone")
    assert not Path("runs/shared/claims").exists()


def test_parts_in_any_order_are_the_whole_and_each_ends_by_itself(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[Job] = []
    monkeypatch.setattr("bas.studies.compare.study.drop_checkpoints", lambda run, job: dropped.append(job))
    bas.prepare("compare", EXPERIMENT, name="parts")
    counts = []
    for i in (2, 0, 1):
        assert bas.work("runs/parts", part=f"{i}/3", workers=1) == Path("runs/parts")
        counts.append(len(results("parts")))
        assert all(name in results("parts") for name in (f"jobs/{job.name}.json" for job in dropped)), "nobody else's"
    assert counts[0] < counts[1] < counts[2]
    assert len(dropped) == len(set(dropped)) == 6
    assert results("parts") == results("alone")


def test_an_audit_is_shared_with_its_variants(work: Path) -> None:
    assert main(["audit", "runs/audited/experiment.toml", "--name", "parted", "--prepare"]) == 0
    ended(begin("work", "runs/parted", "--part", "1/2", "--workers", "1"))
    for one in [begin("work", "runs/parted", "--workers", "1") for _ in range(2)]:
        ended(one)
    assert results("parted") == results("audited")
    assert any(name.startswith("variants/residual=every/jobs/") for name in results("parted"))
    bas.audit("runs/parted/experiment.toml")
    assert table("parted") == table("audited")


def test_a_host_without_locks_with_another_clock_and_no_home_shares_it_too(work: Path) -> None:
    bas.prepare("compare", EXPERIMENT, name="hosts")
    lacking = {"HOME": "/proc/none", "TMPDIR": str(work), "script": OTHER_HOST}
    both = [begin("work", "runs/hosts", "--workers", "1"), begin("work", "runs/hosts", "--workers", "1", **lacking)]
    for one in both:
        ended(one)
    assert results("hosts") == results("alone")
    refused = begin("compare", "runs/hosts/experiment.toml", "--workers", "1", **lacking)
    said, _ = refused.communicate(timeout=PATIENCE)
    assert refused.returncode == 2
    assert "runs/hosts: its disk has no file locks" in said.splitlines()[-1]


def test_a_complete_run_submits_nothing(work: Path) -> None:
    bas.compare("runs/alone/experiment.toml", cluster={"kind": "local"})
    bas.audit("runs/audited/experiment.toml", cluster={"kind": "local"})
    assert not list(Path("runs").glob("a*/cluster"))


def test_tasks_of_this_machine_do_the_jobs_and_are_replaced(work: Path) -> None:
    process = begin("compare", "runs/alone/experiment.toml", "--name", "tasks", "--cluster", "local", "--tasks", "2")
    end = time.monotonic() + PATIENCE
    while not (victims := tasks_of()) and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(victims[0], signal.SIGKILL)
    said = ended(process)
    assert said.count("a task died, another takes its place: ") == 1
    assert "Traceback" not in said
    assert results("tasks") == results("alone")
    assert table("tasks") == table("alone")


def test_tasks_tune_too_and_submit_nothing_once_all_is_made(work: Path) -> None:
    tuned = {**AUDIT, "tune": {"trials": 2}, "audit": {}}
    bas.tune(tuned, name="tuned")
    over = {**tuned, "cluster": {"kind": "local", "tasks": 2}}
    for _ in range(2):
        bas.tune(over, name="tuned-over")
        assert len(os.listdir("runs/tuned-over/cluster")) == 1
    assert results("tuned-over") == results("tuned")
    assert table("tuned-over") == table("tuned")


def test_tasks_that_die_now_and_then_end_nothing_while_jobs_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also jobs that were not known at the beginning, as the trainings of what studies choose."""
    looks, submitted = iter(range(10)), list[int]()

    class Stub:
        folder, running = tmp_path, (1,)

        def __init__(self, *_: Any) -> None:
            pass

        def submit(self, count: int) -> None:
            submitted.append(count)

        def ended(self) -> tuple[list[str], bool]:
            look = next(looks)
            (tmp_path / f"{look}.json").touch()
            return (["shot"] if look % 3 == 0 else []), look == 9

        def wait(self) -> None:
            pass

        cancel = wait

    monkeypatch.setattr(cluster, "Tasks", Stub)
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "LIVES", 2)

    def expected() -> tuple[list[Path], bool]:
        made = len(list(tmp_path.glob("*.json")))
        return [tmp_path / f"{i}.json" for i in range(made + 1)], made == 10

    of = ClusterTable(kind="local", tasks=3)
    cluster.carry_out(tmp_path, of, expected, None, Console(file=StringIO()))
    assert submitted == [1, 1, 1, 1]
    cluster.carry_out(tmp_path, of, lambda: ([tmp_path / "1.json"], True), None, Console(file=StringIO()))
    assert submitted == [1, 1, 1, 1], "all is made"


def test_what_is_wrong_with_a_task_is_raised_and_what_is_wrong_with_the_run_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(error: Exception) -> None:
        def work(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr("bas.cluster.work", work)

    task = Task("runs/x", 1, None)
    fails(bas.UserError("runs/x: made with labels a, now b"))
    assert task() == "runs/x: made with labels a, now b"
    for error in (EndedError("a worker was killed"), OSError(28, "No space left on device")):
        fails(error)
        with pytest.raises(type(error)):
            task()


def test_where_to_train_is_what_the_tasks_have(work: Path) -> None:
    with pytest.raises(bas.UserError, match=r"device=cuda: the tasks have no GPU; give cluster.gpus=1"):
        bas.prepare("compare", {**EXPERIMENT, "device": "cuda"}, name="never", cluster={"kind": "local"})
    given = {**EXPERIMENT, "device": "auto", "cluster": {"kind": "local", "gpus": 1}}
    bas.prepare("compare", given, name="gpu")
    assert json.loads(Path("runs/gpu/run.json").read_text())["plan"]["device"] == "cuda"
    if not torch.cuda.is_available():
        with pytest.raises(bas.UserError, match="--device cuda: torch finds no CUDA device here"):
            bas.work("runs/gpu")


def test_what_a_killed_process_had_is_taken_up_and_what_another_host_has_is_left(work: Path) -> None:
    bas.prepare("compare", {**EXPERIMENT, "settings": {**SETTINGS, "epochs": 400}}, name="killed")
    first = begin("work", "runs/killed", "--workers", "1")
    end = time.monotonic() + PATIENCE
    while not list(Path("runs/killed/claims").glob("search-*")) and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    (claim,) = Path("runs/killed/claims").glob("search-*")
    mine = claim.name.split(".")[0]
    elsewhere = next(f"baseline-4L-transformer-fold{f}-seed1" for f in range(3))
    Path(f"runs/killed/claims/{elsewhere}.0.claim").write_text(Owner("far", "0123ab", 7, "9").line(3))
    again = begin("work", "runs/killed", "--workers", "1")
    while not Path(f"runs/killed/jobs/{mine}.json").exists() and time.monotonic() < end:
        assert again.poll() is None, again.communicate()[0]
        time.sleep(0.05)
    assert Path(f"runs/killed/jobs/{mine}.json").exists()
    assert not Path(f"runs/killed/jobs/{elsewhere}.json").exists()
    again.kill()
    again.communicate()


def test_killed_tasks_parts_and_submitting_processes_end_as_undisturbed_ones(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests/helpers/killing_tasks.py"), str(tmp_path / "kills"), str(KILLS), "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE + 30 * KILLS)
    assert done.returncode == 0, done.stderr + done.stdout
    kills = dict(re.findall(r"^(\w+): (\d+) kills", done.stdout, re.MULTILINE))
    assert {name: int(count) for name, count in kills.items()} == {"run": KILLS, "store": KILLS}


def test_two_parts_of_an_extraction_at_a_time_are_as_one_process_writes_them(work: Path) -> None:
    words = ["extract", "--corpus", "manifest", "--root", "cups.csv", "--encoder", "log-mel"]
    for i in (1, 0):
        ended(begin(*words, "--features", "one", "--part", f"{i}/2"))
    both = [ended(one) for one in [begin(*words, "--features", "both", "--part", f"{i}/2") for i in range(2)]]
    assert any("features: both, complete" in said for said in both)
    one, other = FeatureStore(Path("one")), FeatureStore(Path("both"))
    assert one.info.shards == other.info.shards
    paths = sorted(path.name for path in Path("one").glob("shard-*"))
    assert len(paths) >= 16
    for name in paths:
        assert Path("one", name).read_bytes() == Path("both", name).read_bytes()
    assert sorted(os.listdir("one")) == sorted(os.listdir("both"))
    assert "claims" not in os.listdir("both")


def test_a_part_says_what_comes_next_and_the_plain_command_completes(work: Path) -> None:
    words = ["extract", "--corpus", "manifest", "--root", "cups.csv", "--encoder", "log-mel", "--features", "rest"]
    said = ended(begin(*words, "--part", "0/4"))
    assert "features: rest, part 0/4 is done; the last part, or the command without it, completes it" in said
    following = said.splitlines()[-1]
    assert following.startswith("next: ")
    assert " extract " in following
    assert "--features rest" in following
    assert "--part" not in following
    assert not Path("rest/store.json").exists()
    assert "features: rest, complete" in ended(begin(*words))


@pytest.mark.parametrize("text", ["", "1", "1/1", "2/2", "-1/2", "1/2/3", "a/b", "1/0", "²/3"])
def test_a_part_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(bas.UserError, match=r"--part .*: must be i/N"):
        Part.of_text(text)


def test_what_is_no_run_to_work_on_is_refused(work: Path) -> None:
    for name, why in {"none": "no run that is begun", "mel": "no run that is begun"}.items():
        with pytest.raises(bas.UserError, match=f"^{name}: {why}; `bas compare EXPERIMENT.toml --prepare` begins one"):
            bas.work(name)
    probed = {name: EXPERIMENT[name] for name in ("features", "workers", "device", "protocol")}
    bas.probe({**probed, "spaces": ["four.py"], "seeds": 1, "settings": {"epochs": 1, "width": 8}}, name="probed")
    with pytest.raises(bas.UserError, match="runs/probed: holds what `bas probe` made; work does that of search, "):
        bas.work("runs/probed")
    with pytest.raises(bas.UserError, match="prepare 'probe': must be one of search, retrain, compare, audit, tune"):
        bas.prepare("probe", EXPERIMENT)
    for wrong in ({"workers": 0}, {"workers": 1.5}, {"memory": -1.0}, {"part": 3}):
        with pytest.raises(bas.UserError, match=f"{next(iter(wrong))}.* must be "):
            bas.work("runs/alone", **wrong)
    (Path("runs/alone/tb")).rename("elsewhere")
    Path("runs/alone/tb").symlink_to(work / "elsewhere")
    with pytest.raises(bas.UserError, match="runs/alone/tb: a link"):
        bas.work("runs/alone")
    Path("runs/alone/tb").unlink()
    Path("elsewhere").rename("runs/alone/tb")
    run = json.loads(Path("runs/alone/run.json").read_text())
    assert run["made_of"]["version of bas"] == bas.NUMBERS
