"""The main job end to end on a small corpus of tones: its results, their repeatability, and what no job may see."""

# mypy: disable-error-code="index"

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from records import record
from rich.console import Console
from running import run_jobs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import bas.training.loop
from bas.cli.main import main
from bas.corpora import open_corpus
from bas.protocols import read
from bas.runs.baselines import BASELINES
from bas.runs.jobs import run_job
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.spaces import load_space
from bas.training.loop import read_checkpoint
from bas.util.files import locked
from bas.util.progress import bar

pytestmark = pytest.mark.slow

SMALL = [
    "--set",
    "strategy=gumbel",
    "--set",
    "committee=1",
    "--set",
    "epochs=3",
    "--set",
    "width=16",
    "--set",
    "stride=4",
    "--set",
    "dropout=0.1",
    "--seeds",
    "2",
]
OWN_SPACE = '''"""A user's block and task."""
import torch
from torch import nn
from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace
from bas.tasks import Classification

class Gate(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gate = nn.Linear(dim, dim)
    def forward(self, x_BTD, mask_BT):
        return x_BTD * torch.sigmoid(self.gate(x_BTD))

layer = {"Gate": Gate, "FFN": FFN}
space = SearchSpace(slots={"a": layer, "b": layer}, pool=MeanPool)
task = Classification(label="speaker", disjoint=("text",), protocol="text:3", name="who")
'''


def write_corpus(folder: Path) -> Path:
    """Eight speakers, three sentences, three classes that differ in pitch: 72 short tones with noise."""
    rng = np.random.default_rng(0)
    lines = []
    for speaker in range(8):
        for text in range(3):
            for index, label in enumerate(("high", "low", "middle")):
                name = f"s{speaker}t{text}{label}"
                time_N = np.arange(int(16_000 * rng.uniform(0.25, 0.5))) / 16_000
                pitch = (900, 200, 450)[index] * rng.uniform(0.7, 1.4)
                wave_N = 0.3 * np.sin(2 * np.pi * pitch * time_N) + 0.05 * rng.standard_normal(len(time_N))
                soundfile.write(folder / f"{name}.wav", wave_N, 16_000)
                row = {"id": name, "audio": f"{name}.wav", "label": label, "speaker": f"s{speaker}", "text": f"t{text}"}
                lines.append(json.dumps(row))
    (folder / "tones.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "tones.jsonl"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with extracted features and one finished comparison, made by the command line in one process."""
    folder = tmp_path_factory.mktemp("work")
    here = Path.cwd()
    os.chdir(folder)
    try:
        manifest = write_corpus(folder)
        assert main(["extract", "--corpus", "manifest", "--root", str(manifest), "--encoder", "log-mel"]) == 0
        assert main(compare("whole", "--workers", "1")) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(work)
    return work


def compare(name: str, *more: str, verb: str = "compare") -> list[str]:
    features = ["--features", "runs/features/tones-log-mel", "--layer", "last"]
    return [verb, *features, "--space", "ser_bas3", *SMALL, "--name", name, *more]


def jobs(folder: Path) -> dict[str, Any]:
    """Every job's result without the seconds it took."""
    results = {}
    for path in sorted((folder / "jobs").glob("*.json")):
        result = record(path)
        result.pop("seconds", None)
        results[path.stem] = result
    return results


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith("bas: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_results(inside: Path) -> None:
    results = json.loads((inside / "runs/whole/results.json").read_text())
    rows = {row["row"]: row for row in results["rows"]}
    assert list(rows) == [*BASELINES, "BAS ser_bas3", "logistic regression"]
    assert results["tested"] == 72
    assert (results["folds"], results["seeds"], results["units"], results["unit"]) == (5, [0, 1], 8, "speaker")
    assert rows["4L transformer"]["against_reference"] is None
    assert rows["logistic regression"]["metrics"]["WA"]["mean"] > 0.6  # chance is 0.33
    assert rows["3L transformer"]["parameters"] < rows["4L transformer"]["parameters"]
    for slot in ("layer1", "layer2", "layer3"):
        choice = results["decisions"]["ser_bas3"]["slots"][slot]
        assert sum(choice["frequency"].values()) == pytest.approx(1.0)
        assert 0 <= choice["margin"] <= 1
        assert 0 <= choice["entropy"] <= 1
    assert results["protocol"]["notes"], "the sentences stand on both sides, and the table says so"


def test_table_is_what_the_predictions_say(inside: Path) -> None:
    results = json.loads((inside / "runs/whole/results.json").read_text())
    folds = json.loads((inside / "runs/whole/protocol.json").read_text())["folds"]
    labels = {r["id"]: r["label"] for r in map(json.loads, (inside / "tones.jsonl").read_text().splitlines())}
    accuracy = []
    for seed in (0, 1):
        hits = []
        for index, fold in enumerate(folds):
            done = json.loads((inside / f"runs/whole/jobs/retrain-ser_bas3-fold{index}-seed{seed}.json").read_text())
            predicted = [("high", "low", "middle")[p] for p in done["test"]["predictions"]]
            hits += [labels[i] == p for i, p in zip(fold["test"], predicted, strict=True)]
        accuracy.append(np.mean(hits))
    row = next(r for r in results["rows"] if r["row"] == "BAS ser_bas3")
    assert row["metrics"]["WA"]["mean"] == pytest.approx(np.mean(accuracy))
    assert row["metrics"]["WA"]["sd"] == pytest.approx(np.std(accuracy, ddof=1))
    assert row["by_seed"]["WA"] == pytest.approx({"0": accuracy[0], "1": accuracy[1]})
    page = (inside / "runs/whole/table.md").read_text()
    assert f"{100 * np.mean(accuracy):.1f} ± {100 * np.std(accuracy, ddof=1):.1f}" in page


def test_the_retrained_is_what_was_found(inside: Path) -> None:
    results = jobs(inside / "runs/whole")
    for name, result in results.items():
        if name.startswith("retrain-ser_bas3"):
            assert result["architecture"] == results[name.replace("retrain", "search")]["architecture"]
            last = results[name.replace("retrain", "search")]["epochs"][-1]
            best = {part: max(p, key=p.get) for part, p in last["probabilities"].items()}
            assert best == result["architecture"]
            assert (inside / "runs/whole/jobs" / f"{name}.pt").exists()


def test_workers_and_stages_change_nothing(inside: Path) -> None:
    for verb in ("search", "retrain", "compare"):
        assert main(compare("staged", "--workers", "2", verb=verb)) == 0
    assert jobs(inside / "runs/staged") == jobs(inside / "runs/whole")


def test_a_finished_run_is_not_computed_again(inside: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (inside / "runs/whole/jobs").iterdir()}
    assert main(compare("whole", "--workers", "1")) == 0
    assert {p: p.stat().st_mtime_ns for p in (inside / "runs/whole/jobs").iterdir()} == before


OFTEN = "from bas.training import loop\nloop.CHECKPOINT_SECONDS = 0.0\n"
"""As a sitecustomize.py, for the workers too."""


def kill_at_work(command: list[str], environment: dict[str, str], folder: Path, whole_group: bool) -> None:
    """Kill it as soon as a job of the run has written a checkpoint; whole_group: its workers at the same moment."""

    def checkpoints() -> set[tuple[str, int]]:
        written = set()
        for path in (folder / "jobs").glob("*.checkpoint"):
            with suppress(FileNotFoundError):  # its job ends
                written.add((path.name, path.stat().st_mtime_ns))
        return written

    before, begun = checkpoints(), time.monotonic()
    none = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=none, stderr=none, env=environment, start_new_session=True)
    while not checkpoints() - before:
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() - begun < 300
        time.sleep(0.002)
    assert process.poll() is None
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    time.sleep(1.5)  # orphaned workers notice within half a second


def resume(folder: Path, path: Path) -> tuple[int, int]:
    """Do the job that the checkpoint is of: the epochs that the checkpoint holds, and those that are done now."""
    name = path.stem
    held, ticks = len(read_checkpoint(path)["records"]), []
    kind, row, fold, seed = re.fullmatch(r"([a-z]+)-(.+)-fold(\d+)-seed(\d+)", name).groups()  # type: ignore[union-attr]
    row = next(r for r in ("ser_bas3", *BASELINES) if r.replace(" ", "-") == row)
    run_job(Session(folder, tick=lambda: ticks.append(1)), Job(Kind(kind), row, int(fold), int(seed)))
    return held, len(ticks)


def test_killed_while_it_trains(inside: Path) -> None:
    """By itself, and with its workers, as when the power goes: what a checkpoint holds is not done again."""
    folder = inside / "runs/killed"
    (inside / "often").mkdir()
    (inside / "often/sitecustomize.py").write_text(OFTEN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(inside / "often"), *sys.path])}
    command = [sys.executable, "-m", "bas", *compare("killed", "--workers", "2")]
    kill_at_work(command, environment, folder, whole_group=False)
    resumed: list[int] = []
    for _ in range(8):  # a kill between two jobs leaves no checkpoint
        kill_at_work(command, environment, folder, whole_group=True)
        for path in sorted((folder / "jobs").glob("*.checkpoint")):
            held, done = resume(folder, path)
            assert done == 3 - held, path.name
            resumed.append(held)
        if len(resumed) >= 2:
            break
    assert len(resumed) >= 2, "no kill left a checkpoint"
    assert all(held > 0 for held in resumed)
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert jobs(folder) == jobs(inside / "runs/whole")
    assert not list((folder / "jobs").glob("*.checkpoint"))


def test_a_search_goes_on_from_its_checkpoint(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bas.training.loop, "CHECKPOINT_SECONDS", 0.0)
    shutil.copytree(inside / "runs/whole", inside / "runs/resumed")
    name = Job(Kind.SEARCH, "ser_bas3", 0, 1).name
    whole = jobs(inside / "runs/resumed")[name]
    (inside / f"runs/resumed/jobs/{name}.json").unlink()
    done: list[int] = []
    session = Session(inside / "runs/resumed", tick=lambda: done.append(1))
    epochs = []

    def dies(*arguments: Any) -> None:
        epochs.append(arguments)
        if len(epochs) == 3:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("bas.runs.tensorboard.search_epoch", dies)
        with pytest.raises(RuntimeError, match="killed"):
            run_job(session, Job(Kind.SEARCH, "ser_bas3", 0, 1))
    assert (inside / f"runs/resumed/jobs/{name}.checkpoint").exists()
    assert len(done) == 2
    run_job(session, Job(Kind.SEARCH, "ser_bas3", 0, 1))
    assert len(done) == 3, "what the checkpoint holds is not done again"
    assert jobs(inside / "runs/resumed")[name] == whole


@pytest.mark.parametrize("kind", ["search", "retrain", "linear", "layer"])
def test_no_choice_sees_the_test_part(inside: Path, kind: str) -> None:
    """Other test features change the test predictions and nothing else; other valid features train nothing."""
    row = {"linear": "logistic regression", "layer": "best"}.get(kind, "ser_bas3")
    job = Job(Kind(kind), row, 1, 0)
    seen = {}
    for part in ("as it is", "test", "valid"):
        folder = inside / f"runs/{kind}-{part.replace(' ', '-')}"
        shutil.copytree(inside / "runs/whole", folder)
        (folder / "jobs" / f"{job.name}.json").unlink(missing_ok=True)
        session = Session(folder)
        data = session.data(session.layer(1), session.run.plan.settings.stride)
        if part != "as it is":
            for u in session.members(getattr(session.run.protocol.folds[1], part)).tolist():
                span = slice(int(data.starts_U[u]), int(data.starts_U[u] + data.lengths_U[u]))
                data.frames_ND[span] = torch.flip(data.frames_ND[span], dims=(1,)) + 3
                data.means_UD[u] = data.frames_ND[span].float().mean(0)
        run_job(session, job)
        seen[part] = jobs(folder)[job.name]
    scored = [(seen[part].pop("test", None), seen[part].pop("again", None)) for part in seen]
    assert seen["as it is"] == seen["test"]
    if kind in ("retrain", "linear"):
        assert scored[0] != scored[1]
    assert seen["as it is"] != seen["valid"], "the valid part is looked at"
    if kind in ("search", "retrain"):  # the linear row's strength is chosen on it
        curves = [seen[part].get("networks", [seen[part]])[0]["epochs"] for part in ("as it is", "valid")]
        losses = [[epoch["loss"] for epoch in curve] for curve in curves]
        assert losses[0] == losses[1], "but never trained on"


def test_best_layer_is_chosen_by_the_training_part(inside: Path, hubert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = str(inside / "tones.jsonl")
    store = ["--features", "runs/features/hubert"]
    assert main(["extract", "--corpus", "manifest", "--root", manifest, "--encoder", str(hubert), *store]) == 0
    arguments = ["search", *store, "--layer", "best", "--space", "ser_bas3", *SMALL, "--seeds", "1", "--workers", "1"]
    assert main([*arguments, "--name", "best"]) == 0
    results = jobs(inside / "runs/best")
    for fold in range(5):
        chosen = results[f"layer-best-fold{fold}-seed0"]
        scores = {int(layer): score for layer, score in chosen["cross_validated"].items()}
        assert set(scores) == {0, 1, 2}
        winners = [layer for layer, score in scores.items() if score == max(scores.values())]
        assert chosen["layer"] == (1 if 1 in winners else winners[0]), "of equals the middle one"
        assert results[f"search-ser_bas3-fold{fold}-seed0"]["layer"] == chosen["layer"]


def test_own_block_and_task_in_one_file(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "mine.py").write_text(OWN_SPACE)
    assert len(OWN_SPACE.splitlines()) < 30
    features = ["--features", "runs/features/tones-log-mel", "--layer", "0"]
    assert main(["compare", *features, "--space", "mine.py", *SMALL, "--workers", "1"]) == 0
    results = json.loads((inside / "runs/tones-log-mel-layer0-cpu-who/results.json").read_text())
    assert results["protocol"]["rule"] == "text:3"
    assert set(results["decisions"]["mine"]["slots"]) == {"a", "b"}
    assert "BAS mine" in capsys.readouterr().out
    # The folds keep sentences whole, so sentences are the units: the speakers are the classes here.
    assert (results["unit"], results["units"]) == ("text", 3)
    assert {r["against_reference"]["verdict"] for r in results["rows"] if r["against_reference"]} == {"no claim"}


def test_the_default_strategy_chooses_by_valid(inside: Path) -> None:
    """single-path: the path of the lowest validation loss; TensorBoard shows paths, and no probabilities."""
    assert main(compare("paths", "--set", "strategy=single-path", "--seeds", "1", "--workers", "1", verb="search")) == 0
    for fold in range(5):
        result = json.loads((inside / f"runs/paths/jobs/search-ser_bas3-fold{fold}-seed0.json").read_text())
        numbers = list(load_space("ser_bas3").space.architectures())
        best = min(zip(result["paths"], numbers, strict=True), key=lambda pair: pair[0]["loss"])[1]
        assert result["architecture"] == best.to_dict()
        assert result["probabilities"] is None
        assert len(result["epochs"]) == 3 * 3, "each of three blocks learns as long as alone"
    events = EventAccumulator(str(inside / "runs/paths/tb/search-ser_bas3-fold0-seed0"))
    events.Reload()
    assert events.Tags()["images"] == ["layers x blocks, valid loss of paths"]
    assert not any(tag.startswith(("probability", "entropy")) for tag in events.Tags()["scalars"])
    assert len(events.Tensors("architecture/text_summary")) == 1


def test_tensorboard(inside: Path) -> None:
    events = EventAccumulator(str(inside / "runs/whole/tb/search-ser_bas3-fold0-seed0"))
    events.Reload()
    tags = events.Tags()
    steps = [e.step for e in events.Scalars("probability/layer2/FFN")]
    assert steps == [0, 1, 2]
    for tag in ("temperature", "entropy/layer1", "loss/train", "loss/valid", "valid/WA"):
        assert tag in tags["scalars"]
    assert "layers x blocks" in tags["images"]
    assert len(events.Tensors("architecture/text_summary")) == 3 + 1  # epochs, and what was chosen in the end
    row = EventAccumulator(str(inside / "runs/whole/tb/rows/BAS-ser_bas3"))
    row.Reload()
    assert "_hparams_/session_start_info" in row.summary_metadata
    assert row.Tags()["images"] == ["chosen", "probabilities", "paths", "confusion"]
    trainings = [json.loads(path.read_text()) for path in (inside / "runs/whole/jobs").glob("retrain-ser_bas3-*.json")]
    losses = [curve["epochs"][1]["loss"] for of in trainings for curve in of["networks"]]
    assert row.Scalars("loss/train")[1].value == pytest.approx(np.mean(losses))
    table = EventAccumulator(str(inside / "runs/whole/tb/rows/table")).Reload()
    (said,) = table.Tensors("answer and table/text_summary")
    assert said.tensor_proto.string_val[0].decode() == (inside / "runs/whole/table.md").read_text()
    results = json.loads((inside / "runs/whole/results.json").read_text())
    pooled = next(r for r in results["rows"] if r["row"] == "BAS ser_bas3")["metrics"]["WA"]["mean"]
    assert row.Scalars("pooled/WA")[-1].value == pytest.approx(pooled)
    trained = EventAccumulator(str(inside / "runs/whole/tb/retrain-ser_bas3-fold0-seed0"))
    trained.Reload()
    assert "test/WA" in trained.Tags()["scalars"]


def test_progress_in_a_log_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(Console(), "things") as progress:
        task = progress.add_task("doing", total=40)
        for _ in range(40):
            progress.advance(task)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "doing 1/40"
    assert lines[-1] == "doing 40/40"
    assert len(lines) == 11


def test_a_misspelt_corpus_is_one_line(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["extract", "--corpus", "emobd", "--root", ".", "--encoder", "log-mel"], "emobd", "emodb")


def test_another_setting_needs_another_name(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (inside / "runs/whole/run.json").read_text()
    refused(capsys, [*compare("whole"), "--set", "epochs=4"], "setting epochs 3", "now 4", "--name")
    assert (inside / "runs/whole/run.json").read_text() == before


def test_an_edited_space_needs_another_name(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (inside / "edited.py").write_text(OWN_SPACE)
    arguments = ["search", "--features", "runs/features/tones-log-mel", "--space", "edited.py", *SMALL]
    assert main([*arguments, "--name", "edited"]) == 0
    (inside / "edited.py").write_text(OWN_SPACE + "# changed\n")
    capsys.readouterr()
    refused(capsys, [*arguments, "--name", "edited"], "space edited", "--name")


def test_other_labels_need_another_name(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A class that changes its name changes what the numbers in finished predictions mean."""
    manifest = inside / "tones.jsonl"
    before = manifest.read_text()
    manifest.write_text(before.replace('"label": "low"', '"label": "zero"'))
    try:
        refused(capsys, compare("whole", "--workers", "1"), "labels", "--name")
    finally:
        manifest.write_text(before)


def test_jobs_are_built_from_the_runs_own_copy(inside: Path) -> None:
    (inside / "moving.py").write_text(OWN_SPACE)
    arguments = ["search", "--features", "runs/features/tones-log-mel", "--space", "moving.py", *SMALL]
    assert main([*arguments, "--name", "moving", "--workers", "1"]) == 0
    (inside / "moving.py").write_text(OWN_SPACE.replace('"b": layer', '"b": layer, "c": layer'))
    assert list(Session(inside / "runs/moving").run.spaces["moving"].space.slots) == ["a", "b"]


def test_a_second_process_changes_nothing(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (inside / "runs/whole/run.json").read_bytes()
    with locked(inside / "runs/whole", "testing"):
        refused(capsys, [*compare("whole"), "--seeds", "5"], "runs/whole", "another process")
    assert (inside / "runs/whole/run.json").read_bytes() == before


def test_a_killed_worker_is_one_line(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dies = "import multiprocessing, os; multiprocessing.parent_process() and os._exit(9); return x_BTD * "
    (inside / "dying.py").write_text(OWN_SPACE.replace("return x_BTD * ", dies))
    arguments = ["search", "--features", "runs/features/tones-log-mel", "--space", "dying.py", *SMALL]
    arguments += ["--name", "dying", "--workers", "2"]
    refused(capsys, arguments, "a worker ended with exit code 9", "the same command goes on")


def test_more_seeds_go_on(inside: Path) -> None:
    shutil.copytree(inside / "runs/whole", inside / "runs/more")
    assert main([*compare("more", "--workers", "1", verb="search"), "--seeds", "3"]) == 0
    results = jobs(inside / "runs/more")
    assert "search-ser_bas3-fold0-seed2" in results
    assert results["search-ser_bas3-fold0-seed2"] != results["search-ser_bas3-fold0-seed1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--set", "epochs"], ["NAME=VALUE"]),
        (["--set", "epoch=3"], ["epoch", "epochs"]),
        (["--set", "optimiser=adam"], ["optimiser", "sgd, adamw"]),
        (["--layer", "7"], ["layer 7", "0"]),
        (["--layer", "top"], ["last, middle, best"]),
        (["--space", "nowhere"], ["nowhere", "ser_bas4"]),
        (["--space", "speaker_id"], ["speaker-id", "apart"]),
        (["--protocol", "speaker:9"], ["8 values of speaker"]),
        (["--protocol", "text:3"], ["speaker", "forbids"]),
        (["--protocol", "own"], ["no split"]),
        (["--protocol", "speeker"], ["speeker", "speaker"]),
        (["--features", "runs/features/none"], ["runs/features/none", "bas extract"]),
        (["--seeds", "0"], ["--seeds 0"]),
        (["--workers", "0"], ["--workers 0"]),
        (["--set", "width=12"], ["num_heads=8", "12"]),
        (["--space", "wrong_call.py"], ["wrong_call.py", "a Bad", "factory(16)"]),
        (["--space", "wrong_shape.py"], ["wrong_shape.py", "a Bad", "(2, 7, 16)"]),
        (["--space", "leaky.py"], ["leaky.py", "a Bad", "padding changes its output"]),
        (["--preset", "papier"], ["papier", "paper, cpu"]),
    ],
)
def test_bad_input_is_one_line(
    inside: Path, capsys: pytest.CaptureFixture[str], change: list[str], words: list[str]
) -> None:
    bad = "from torch import nn\nfrom bas.blocks import MeanPool\nfrom bas.space import SearchSpace\n"
    space = "space = SearchSpace(slots={'a': {'Bad': Bad}}, pool=MeanPool)\n"
    (inside / "wrong_call.py").write_text(f"{bad}class Bad(nn.Module):\n    pass\n{space}")
    shape = "class Bad(nn.Linear):\n    def __init__(self, dim):\n        super().__init__(dim, dim + 1)\n"
    shape += "    def forward(self, x, mask):\n        return super().forward(x)\n"
    (inside / "wrong_shape.py").write_text(bad + shape + space)
    leaky = "class Bad(nn.Identity):\n    def forward(self, x, mask):\n        return x - x.mean(1, keepdim=True)\n"
    (inside / "leaky.py").write_text(bad + leaky + space)
    runs = sorted((inside / "runs").iterdir())
    refused(capsys, [*compare("bad", "--workers", "1"), *change], *words)
    assert sorted((inside / "runs").iterdir()) == runs, "a refused run leaves nothing behind"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, [*compare("bad"), "--device", "cuda"], "--device cuda", "cpu or auto")


@pytest.mark.parametrize("text", ["{", '{"plan": {}}'])
def test_broken_run_folder(inside: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    shutil.rmtree(inside / "runs/broken", ignore_errors=True)
    shutil.copytree(inside / "runs/whole", inside / "runs/broken")
    (inside / "runs/broken/run.json").write_text(text)
    refused(capsys, compare("broken", "--workers", "1"), "run.json")


def test_a_failing_job_keeps_the_others(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(inside / "runs/whole", inside / "runs/failing")
    for name in ("search-ser_bas3-fold0-seed0", "search-ser_bas3-fold1-seed0"):
        (inside / f"runs/failing/jobs/{name}.json").unlink()
    todo = [Job(Kind.SEARCH, "ser_bas3", 0, 0), Job(Kind.SEARCH, "ser_bas3", 1, 0)]
    real = bas.training.loop.optimise

    def once(*arguments: Any, **more: Any) -> Any:
        monkeypatch.setattr("bas.search.search.optimise", fails)
        return real(*arguments, **more)

    def fails(*arguments: Any, **more: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("bas.search.search.optimise", once)
    with pytest.raises(MemoryError):
        run_jobs(Run.open(inside / "runs/failing"), todo, 3, 1, Console(), "searches")
    assert jobs(inside / "runs/failing")[todo[0].name] == jobs(inside / "runs/whole")[todo[0].name]
    assert todo[1].name not in jobs(inside / "runs/failing")


def test_what_needs_no_recording_and_what_had_not_learnt_is_said(inside: Path) -> None:
    """The majority class by hand; and the networks that were best in their last epoch."""
    folder = inside / "runs/whole"
    results, protocol = record(folder / "results.json"), read(folder / "protocol.json")
    label = {u.id: str(u.label) for u in open_corpus("manifest", inside / "tones.jsonl").utterances}
    right = 0
    for fold in protocol.folds:
        most = Counter(label[i] for i in (*fold.fit, *fold.valid)).most_common()
        names = [name for name, count in most if count == most[0][1]]
        right += sum(label[i] == min(names) for i in fold.test)
    assert results["majority"]["WA"] == pytest.approx(right / len(protocol.test_ids))
    assert "the most frequent class of each training part: WA" in (folder / "table.md").read_text()
    for row in results["rows"]:
        jobs = [record(path) for path in (folder / "jobs").glob(f"baseline-{row['row'].replace(' ', '-')}-*.json")]
        curves = [curve for job in jobs for curve in job["networks"]]
        last = sum(curve["kept_epoch"] == curve["epochs"][-1]["epoch"] for curve in curves)
        if curves:
            told = f"{last} of {len(curves)} networks were best in their last epoch" in " ".join(row["remarks"])
            assert told == (2 * last >= len(curves))
