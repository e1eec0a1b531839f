"""Tuning on a small corpus of tones: what a trial draws and may see, what a kill leaves, and what the page says."""

# mypy: disable-error-code="attr-defined,type-var"

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from places import PATIENCE
from sounds import tone
from stores import Fake, store
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import bas.studies.tune.trials
from bas.cli.main import main
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.stacked import run_stack
from bas.runs.tensorboard import FACTS
from bas.runs.workers import Workers
from bas.studies.tune.trials import TrialRecord, best_of, make_trial, record_path, records_of, run_study
from bas.training.batches import Data
from bas.training.settings import PRESETS, settings
from bas.util.files import locked, write_json
from bas.util.typed import to_plain

pytestmark = pytest.mark.slow

# A strategy with theta: most of what a search may draw is its own.
SMALL = [f"--set={setting}" for setting in ("epochs=2", "width=16", "stride=4", "strategy=gumbel")]
ONE_FOLD = ["--protocol", "speaker:60/20/20"]
THETA = {"theta_lr", "warmup"}
TEMPERATURES = {"tau_start", "tau_end"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with features of six speakers' tones in three classes, and one finished tuning."""
    folder = tmp_path_factory.mktemp("work")
    lines = ["id,audio,label,speaker"]
    for s in range(6):
        for k, label in enumerate(("high", "low", "middle")):
            for take in range(3):
                id_ = f"s{s}{label}{take}"
                tone(folder / f"{id_}.wav", 0.2 + 0.05 * take, hertz=(900, 200, 450)[k] * (0.8 + 0.08 * s))
                lines.append(f"{id_},{id_}.wav,{label},s{s}")
    (folder / "tones.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["extract", "--corpus", "manifest", "--root", "tones.csv", "--encoder", "log-mel"]) == 0
        assert main(tune("whole", "--seeds", "2")) == 0
        yield folder


def tune(name: str, *more: str, trials: int = 4) -> list[str]:
    features = ["--features", "runs/features/tones-log-mel", "--layer", "last", "--space", "ser_bas3"]
    rest = ["--workers", "1", "--seeds", "1", "--trials", str(trials), "--name", name]
    return ["tune", *features, *SMALL, "--protocol", "speaker:3", *rest, *more]


def trials_of(name: str, space: str = "ser_bas3") -> list[list[TrialRecord]]:
    """The trials of every fold that were made, in their order."""
    run = Run.open(Path("runs") / name)
    return [records_of(run.folder, space, fold) for fold in range(len(run.protocol.folds))]


def outcomes(name: str) -> list[list[TrialRecord]]:
    return [[replace(trial, seconds=0.0) for trial in of_fold] for of_fold in trials_of(name)]


def results(name: str) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((Path("runs") / name / "results.json").read_text())
    return raw


def test_the_first_trial_is_the_preset_and_the_best_is_chosen(work: Path) -> None:
    for fold, trials in enumerate(trials_of("whole")):
        assert len(trials) == 4
        assert trials[0].params == {
            **{"lr": 0.001, "dropout": 0.0, "width": 16, "stride": 4, "num_heads": 8},
            **{f"block layer{i}": "MSA+FFN" for i in (1, 2, 3)},
        }
        values = [t.value for t in trials if t.value is not None]
        tuned = results("whole")["tuning"]["ser_bas3"]["folds"][fold]
        assert tuned["value"] == min(values) <= tuned["preset"] == trials[0].value
        assert trials[0].value == min(trials[0].losses.values())
        for seed in (0, 1):
            job = json.loads(
                (work / f"runs/whole/jobs/tuned-ser_bas3-{tuned['best']:03}-fold{fold}-seed{seed}.json").read_text()
            )
            assert job["architecture"] == tuned["architecture"]
            assert {k: v for k, v in job["settings"].items() if k in tuned["params"]} == {
                k: v for k, v in tuned["params"].items() if k in job["settings"]
            }
            # Seed 0 is the trial's own: the same training again.
            assert (min(-e["score"] for e in job["networks"][0]["epochs"]) == pytest.approx(tuned["value"])) == (
                seed == 0
            )


def test_the_table_is_of_the_predictions(work: Path) -> None:
    table = results("whole")
    rows = {row["row"]: row for row in table["rows"]}
    assert list(rows) == ["tuned ser_bas3", "4L transformer", "simple FFN", "logistic regression"]
    run, accuracy = Run.open(work / "runs/whole"), []
    for seed in (0, 1):
        hits = []
        for index, fold in enumerate(run.protocol.folds):
            best = table["tuning"]["ser_bas3"]["folds"][index]["best"]
            job = run.result(f"tuned-ser_bas3-{best:03}-fold{index}-seed{seed}")
            hits += [
                run.targets[run.position[i]] == p for i, p in zip(fold.test, job["test"]["predictions"], strict=True)
            ]
        accuracy.append(np.mean(hits))
    assert len(hits) == table["tested"] == 54
    tuned = rows["tuned ser_bas3"]
    assert tuned["metrics"]["WA"] == pytest.approx({"mean": np.mean(accuracy), "sd": np.std(accuracy, ddof=1)})
    against = tuned["against_reference"]["difference"]
    assert against == pytest.approx(np.mean(accuracy) - rows["4L transformer"]["metrics"]["WA"]["mean"])
    assert rows["4L transformer"]["against_reference"] is None
    assert [line.split(" on tones")[0][:15] for line in table["verdicts"]] == ["tuned ser_bas3 "] * 2
    # Two seeds train one choice: only the folds, each with a choice of its own, show how lucky it was.
    assert (tuned["against_reference"]["by_fold"], tuned["against_reference"]["units"]) == (True, 3)
    assert (rows["simple FFN"]["against_linear"]["by_fold"], rows["simple FFN"]["against_linear"]["units"]) == (
        False,
        6,
    )
    page = (work / "runs/whole/table.md").read_text()
    assert "its intervals are over the folds, whose choices are independent" in page
    assert "no significance is claimed with 3 folds (needs 4)" in page
    assert "- Power: a true difference of " in page
    assert "- A/A check, each seed of a row against its other seeds: needs three seeds" in page
    assert "| tuned ser_bas3 |" in page
    assert "## ser_bas3: the best trial of each fold" in page
    assert "ser_bas3: 12 trials over 3 folds" in page
    assert "another number of trials" not in page
    assert all(verdict in page for verdict in table["verdicts"])


def test_tensorboard_shows_every_trial_and_no_test_figure(work: Path) -> None:
    folders = sorted((work / "runs/whole/tb/trials").iterdir())
    assert [f.name for f in folders] == [f"ser_bas3-fold{f}-{n:03}" for f in range(3) for n in range(4)]
    for folder in folders:
        events = EventAccumulator(str(folder)).Reload()
        assert {tag.partition("/")[0] for tag in events.Tags()["scalars"]} == {"valid"}
        assert "_hparams_/session_start_info" in events.summary_metadata
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        columns = HParamsPluginData.FromString(content).session_start_info.hparams
        assert set(columns) == {*FACTS, *(f"setting/{name}" for name in PRESETS["cpu"].to_dict())}, (
            "the same for all verbs, for TensorBoard takes those of one"
        )
        assert columns["row"].string_value == f"trial {int(folder.name[-3:])}"


def test_a_trial_that_was_cut_off_is_made_again_and_only_what_is_missing(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int]] = []

    def spied(session: Session, mode: str, space: str, fold: int, before: Sequence[TrialRecord]) -> TrialRecord:
        made.append((fold, len(before)))
        trial = make_trial(session, mode, space, fold, before)
        if dies and made[-1] == (1, 2):
            raise ZeroDivisionError  # it is trained, and not yet written down
        return trial

    monkeypatch.setattr("bas.studies.tune.trials.make_trial", spied)
    dies = True
    with pytest.raises(ZeroDivisionError):
        main(tune("cut", "--seeds", "2"))
    assert made == [(0, n) for n in range(4)] + [(1, n) for n in range(3)]
    made.clear()
    dies = False
    assert main(tune("cut", "--seeds", "2")) == 0
    assert made == [(1, n) for n in (2, 3)] + [(2, n) for n in range(4)]
    assert outcomes("cut") == outcomes("whole")


def test_a_process_that_was_only_slow_writes_what_its_heir_has_written(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heirs: list[Session] = []

    def slow(session: Session, mode: str, space: str, fold: int, before: Sequence[TrialRecord]) -> TrialRecord:
        if (fold, len(before)) == (1, 2) and not heirs:
            heirs.append(Session(session.run.folder))
            run_study(mode, heirs[0], Job(Kind.STUDY, space, fold, 0, 4))
            assert len(records_of(session.run.folder, space, fold)) == 4
        return make_trial(session, mode, space, fold, before)

    monkeypatch.setattr("bas.studies.tune.trials.make_trial", slow)
    assert main(tune("slow", "--seeds", "2")) == 0
    assert heirs
    assert outcomes("slow") == outcomes("whole")
    assert timeless(results("slow")["rows"]) == timeless(results("whole")["rows"])


def test_the_record_of_an_heir_stays_and_what_it_chose_is_trained(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor that gives other bits another trial may be the best."""

    def heir(session: Session, mode: str, space: str, fold: int, before: Sequence[TrialRecord]) -> TrialRecord:
        made = make_trial(session, mode, space, fold, before)
        assert made.value is not None
        theirs = record_path(session.run.folder, space, fold, len(before))
        theirs.parent.mkdir(parents=True, exist_ok=True)
        write_json(theirs, to_plain(replace(made, value=made.value / 2)))
        return made

    with monkeypatch.context() as patch:
        patch.setattr("bas.studies.tune.trials.make_trial", heir)
        assert main(tune("heir", trials=2)) == 0
    assert all(t.value == min(t.losses.values()) / 2 for of_fold in trials_of("heir") for t in of_fold)
    other = record_path(Path("runs/heir"), "ser_bas3", 0, 1 - results("heir")["tuning"]["ser_bas3"]["folds"][0]["best"])
    record = json.loads(other.read_text())
    write_json(other, {**{name: of for name, of in record.items() if name != "sha256"}, "value": 0.0})
    before = results("heir")
    assert main(tune("heir", trials=2)) == 0
    assert results("heir")["rows"] == before["rows"]


@pytest.mark.parametrize("left", ["001.json", "000.json"])
def test_no_two_modes_mix_where_a_trial_is_gone(work: Path, capsys: pytest.CaptureFixture[str], left: str) -> None:
    name = f"mixed-{left[2]}"
    session = Session(fresh(name))
    path = record_path(session.run.folder, "ser_bas3", 1, 0).with_name(left)
    path.parent.mkdir(parents=True)
    write_json(path, to_plain(make_trial(session, "blocks", "ser_bas3", 1, [])))
    assert main(tune(name, "--tune", "search")) == 2
    assert "made with tune blocks, now search; give another --name" in capsys.readouterr().err


def test_the_first_trials_count_whatever_was_made_before_or_since(work: Path) -> None:
    """Also after a tuning with more trials that was killed."""
    assert main(tune("few", trials=2)) == 0
    two = timeless(results("few")["rows"]), results("few")["tuning"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bas.studies.tune.study.score", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            main(tune("few", trials=4))
    assert [len(trials) for trials in trials_of("few")] == [4, 4, 4]
    for path in Path("runs/few/jobs").glob("*.json"):
        if path.name.startswith(("study-ser_bas3-004-fold2", "study-ser_bas3-002")):  # as if fewer came later
            path.unlink()
    assert any(fold["best"] > 1 for fold in results("whole")["tuning"]["ser_bas3"]["folds"]), "else nothing is told"
    assert main(tune("few", trials=2)) == 0
    assert (timeless(results("few")["rows"]), results("few")["tuning"]) == two
    assert main(tune("few", "--seeds", "2", trials=2)) == 0
    assert main(tune("few", "--seeds", "2")) == 0
    assert timeless(results("few")["rows"]) == timeless(results("whole")["rows"])
    assert outcomes("few") == outcomes("whole")


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def is_there(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_killed_outright_and_taken_up_by_one_process(work: Path) -> None:
    command = [sys.executable, "-m", "bas", *tune("killed", "--seeds", "2", "--workers", "2")]
    none = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=none, stderr=none, start_new_session=True)
    started = time.monotonic()
    while len(list(Path("runs/killed/studies").glob("*/*/*.json"))) < 5:
        assert time.monotonic() - started < 300
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while is_there(process.pid):  # orphans notice by themselves; on a loaded machine it takes a while
        assert time.monotonic() - started < 300
        time.sleep(0.05)
    assert main(tune("killed", "--seeds", "2")) == 0
    assert outcomes("killed") == outcomes("whole"), "whatever the number of processes"
    assert timeless(results("killed")["rows"]) == timeless(results("whole")["rows"])


def test_more_trials_are_told_where_the_test_part_was_scored_before(work: Path) -> None:
    for trials in (1, 3):
        assert main(tune("more", "--set", "lr=1e-7", trials=trials)) == 0
    changed = [f for f in results("more")["tuning"]["ser_bas3"]["folds"] if f["best"] != 0]
    assert changed, "the preset learns nothing"
    assert all(fold["scored_before"] for fold in changed)
    note = "Note: ser_bas3: the best of another number of trials was scored on the test parts of folds "
    assert note in Path("runs/more/table.md").read_text()


def test_no_trial_reads_a_test_utterance(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    batches, moments = Data.batches, Data.moments

    def spied_batches(self: Data, members_of: Any) -> Any:
        members_of = list(members_of)
        seen.update(int(u) for batch in members_of for u in batch)
        return batches(self, members_of)

    def spied_moments(self: Data, members: Any) -> Any:
        seen.update(members.tolist())
        return moments(self, members)

    monkeypatch.setattr(Data, "batches", spied_batches)
    monkeypatch.setattr(Data, "moments", spied_moments)
    session = Session(fresh("spied"))
    fold = session.run.protocol.folds[2]
    first = make_trial(session, "blocks", "ser_bas3", 2, [])
    make_trial(session, "blocks", "ser_bas3", 2, [first])
    assert seen == set(session.members((*fold.fit, *fold.valid)).tolist())


def fresh(name: str, *more: str) -> Path:
    """A run's folder that holds no study yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bas.studies.tune.study.train", lambda *_: None)
        patch.setattr("bas.studies.tune.study.conclude", lambda *_: None)
        assert main(tune(name, *more)) == 0
    return Path("runs") / name


@pytest.mark.filterwarnings("error::optuna.exceptions.ExperimentalWarning")
def test_what_learns_nothing_is_pruned_and_what_diverges_too(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bas.studies.tune.trials, "STARTUP", 2)
    session, given = Session(fresh("pruned", "--set", "epochs=4")), bas.studies.tune.trials.apply_params
    preset = make_trial(session, "blocks", "ser_bas3", 0, [])
    records = [preset, preset]
    for lr in (1e-12, 1e30):
        monkeypatch.setattr(
            bas.studies.tune.trials,
            "apply_params",
            lambda *a, lr=lr: (settings("cpu", {"lr": str(lr), "width": "16"}), given(*a)[1]),
        )
        records.append(make_trial(session, "blocks", "ser_bas3", 0, records))
    slow, broken = records[2:]
    assert preset.value is not None
    assert (slow.value, broken.value) == (None, None)
    assert list(slow.losses) == ["0", "1"]  # the first quarter is spared
    assert broken.broken.startswith("training diverged")
    assert best_of([preset, slow, broken], "") == 0


def test_equal_losses_choose_the_first_trial() -> None:
    trials = [
        TrialRecord(made_of={}, params={}, losses={}, value=value, seconds=0.0) for value in (None, 2.0, 1.0, 1.0)
    ]
    assert best_of(trials, "") == 2


def test_studies_are_shared_by_processes_and_end_as_of_one(work: Path) -> None:
    assert main(tune("shared", "--seeds", "2", "--prepare")) == 0
    assert not Path("runs/shared/studies").exists()
    command = [sys.executable, "-m", "bas", "work", "runs/shared", "--workers", "1"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [one.communicate(timeout=PATIENCE)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    made = {job.name: job.read_bytes() for job in Path("runs/shared/jobs").glob("*.json")}
    assert main(tune("shared", "--seeds", "2")) == 0
    assert {job.name: job.read_bytes() for job in Path("runs/shared/jobs").glob("*.json")} == made, "nothing was left"
    assert outcomes("shared") == outcomes("whole")
    assert timeless(results("shared")["rows"]) == timeless(results("whole")["rows"])


def test_parts_of_a_tuning_make_the_whole(work: Path) -> None:
    assert main(tune("parts", "--prepare")) == 0
    for part in ("1/2", "0/2"):
        assert main(["work", "runs/parts", "--part", part, "--workers", "1"]) == 0
    before = sorted(os.listdir("runs/parts/jobs"))
    assert main(tune("parts")) == 0
    assert sorted(os.listdir("runs/parts/jobs")) == before
    assert outcomes("parts") == outcomes("whole")


def test_on_a_gpu_trials_are_made_one_after_another_and_baselines_together(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacked: list[int] = []
    monkeypatch.setattr("bas.runs.workers.Workers", partial(Workers, stacked=True))
    monkeypatch.setattr("bas.runs.claimed.run_stack", lambda *a: (stacked.append(len(a[1])), run_stack(*a)))
    assert main(tune("stacked")) == 0
    assert stacked == [3, 3], "a baseline's folds"
    assert outcomes("stacked") == outcomes("whole")


def test_the_search_can_choose_the_blocks(work: Path) -> None:
    assert main(tune("searched", *ONE_FOLD, "--tune", "search", trials=2)) == 0
    (trials,) = trials_of("searched")
    names = {"lr", "dropout", "width", "stride", "num_heads", *THETA, *TEMPERATURES}
    assert set(trials[0].params) == names
    assert list(trials[1].architecture or ()) == ["layer1", "layer2", "layer3"]
    assert "blocks by the search in each trial" in Path("runs/searched/table.md").read_text()


def test_without_architecture_parameters_nothing_of_the_search_is_drawn(work: Path) -> None:
    session = Session(fresh("paths", *ONE_FOLD, "--set", "strategy=single-path", "--tune", "search"))
    trial = make_trial(session, "search", "ser_bas3", 0, [])
    assert trial.architecture is not None
    assert set(trial.params) == {"lr", "dropout", "width", "stride", "num_heads"}
    assert list(trial.architecture) == ["layer1", "layer2", "layer3"]


def test_a_layer_mix_is_tuned_too(work: Path) -> None:
    store(work / "tones.csv", work / "two", Fake(), layers=(0, 2))
    assert main(tune("mixed", "--features", "two", "--layer", "mix", *ONE_FOLD, "--tune", "search", trials=1)) == 0
    mixes = results("mixed")["mix"]
    assert list(mixes) == ["tuned ser_bas3", "4L transformer", "simple FFN"]
    assert all(list(of_row) == ["0", "2"] for of_row in mixes.values())
    assert all(sum(w["mean"] for w in of_row.values()) == pytest.approx(1) for of_row in mixes.values())
    assert "Layer mix, tuned ser_bas3: state 0" in Path("runs/mixed/table.md").read_text()


def test_what_depends_on_a_trial_outlives_it_not(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree("runs/whole", "runs/again"))
    record_path(folder, "ser_bas3", 1, 3).unlink()
    assert main(tune("again", "--seeds", "2")) == 2
    line = capsys.readouterr().err.strip()
    gone, left = "runs/again/studies/ser_bas3/fold1/003.json", "study-ser_bas3-004-fold1-seed0.json"
    assert line.startswith(f"bas: {gone}: gone; put it back, or delete what depends on it in jobs/: {left}")
    searched = tune("again", "--seeds", "2", "--tune", "search", trials=1)
    assert main(searched) == 2
    assert "made with tune blocks, now search" in capsys.readouterr().err
    shutil.rmtree(folder / "studies")
    for path in [*(folder / "jobs").glob("tuned-*"), *(folder / "jobs").glob("study-*")]:
        path.unlink()
    assert main(searched) == 0
    for job in (folder / "jobs").glob("tuned-*.json"):
        assert set(json.loads(job.read_text())["params"]) >= THETA


def test_a_space_is_not_taken_for_another_that_its_name_begins(work: Path) -> None:
    for name in ("one", "one-2"):
        Path(f"{name}.py").write_text(
            "from bas.blocks import FFN, MeanPool\nfrom bas.space import SearchSpace\n"
            'space = SearchSpace({"a": {"FFN": FFN}}, MeanPool)\n'
        )
    words = [word if word != "ser_bas3" else "one-2.py" for word in tune("names", *ONE_FOLD, trials=1)]
    assert main(words) == 0
    at = words.index("one-2.py")
    assert main([*words[:at], "one-2.py", "one.py", *words[at + 1 :]]) == 0
    assert not results("names")["tuning"]["one"]["folds"][0]["scored_before"]


def test_a_mark_is_on_the_page(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tune("marked", "--protocol", "id:2", "--allow-overlap", "speaker", trials=1)) == 0
    page = Path("runs/marked/table.md").read_text()
    assert "MARKED" in page.splitlines()[0]
    assert "- Mark: allowed by --allow-overlap, with speaker on both sides" in page
    assert all("MARKED" in line for line in capsys.readouterr().out.splitlines() if "(protocol " in line)
    assert os.listdir("runs/marked/tb") == ["MARKED"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trials", "0"], ["--trials 0", "1 or more"]),
        (["--trials", "many"], ["--trials many", "a whole number"]),
        (["--tune", "everything"], ["--tune everything", "one of blocks, search"]),
        (
            ["--tune", "search", "--set", "strategy=race"],
            ["strategy=race", "tune.choose=search", "one of gumbel, bilevel"],
        ),
        (["--name", "whole", "--tune", "search"], ["made with tune blocks, now search", "another --name"]),
    ],
)
def test_refused(work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]) -> None:
    runs = sorted(os.listdir("runs"))
    assert main(tune("refused", *arguments)) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("bas: ")
    assert "\n" not in line
    assert all(word in line for word in words), line
    assert sorted(os.listdir("runs")) == runs


def test_refused_while_another_is_at_work_or_with_other_ranges(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(Path("runs/whole"), "tuning"):
        assert main(tune("whole")) == 2
    assert "another process is" in capsys.readouterr().err
    monkeypatch.setattr("bas.studies.tune.ranges.DROPOUT", 0.6)
    assert main(tune("whole")) == 2
    assert "made with range of dropout" in capsys.readouterr().err


@pytest.mark.parametrize("junk", [b"junk\n", b'{"value": 4}\n', b"[]\n"])
def test_a_damaged_trial_is_refused(work: Path, capsys: pytest.CaptureFixture[str], junk: bytes) -> None:
    name = f"damaged{len(junk)}"
    path = record_path(fresh(name), "ser_bas3", 1, 0)
    path.parent.mkdir(parents=True)
    path.write_bytes(junk)
    assert main(tune(name)) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"bas: runs/{name}/studies/ser_bas3/fold1/000.json: ")
    assert line.endswith("delete it, and what depends on it in jobs/: it is made again\n")
    assert line.count("\n") == 1


def test_a_space_without_heads(work: Path) -> None:
    Path("flat.py").write_text(
        "from bas.blocks import FFN, MeanPool\nfrom bas.space import Choices, SearchSpace\n"
        'space = SearchSpace({"a": {"FFN": FFN}}, MeanPool)\n'
    )
    words = [w if w != "ser_bas3" else "flat.py" for w in tune("flat", *ONE_FOLD, trials=2)]
    assert main(words) == 0
    assert set(trials_of("flat", "flat")[0][1].params) == {"lr", "dropout", "width", "stride", "block a"}


def test_studies_that_all_diverge_are_told(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    assert main(tune("hot", "--set", "lr=1e30", *ONE_FOLD, trials=1)) == 2
    line = capsys.readouterr().err
    assert "ser_bas3, fold 0: no trial was completed (training diverged" in line
    assert line.endswith("; lower lr or batch_size, under another --name\n")
