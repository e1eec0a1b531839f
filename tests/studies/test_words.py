"""`bas words`: what its report claims, worked out again from the jobs; what it marks, says, writes and refuses."""

# mypy: disable-error-code="arg-type,assignment,attr-defined,union-attr"

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import record, rewrite
from stores import store as extracted
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_words_training import CHANGES, SENTENCES, Spoken

from bas.cli.main import main
from bas.encoders.logmel import LogMel
from bas.experiment.keys import WORDS_CPU
from bas.report import comparison
from bas.runs.run import Run
from bas.stats import FalseVerdicts, Predictions, over_models, paired
from bas.studies import load_results
from bas.studies.words import page as words_page
from bas.studies.words.heads import FUSIONS, TEXT
from bas.studies.words.jobs import FUSED, RAW, WORDS, rows, words_job
from bas.studies.words.neighbours import similarity
from bas.studies.words.numbers import CONTROLS, tabulate
from bas.studies.words.page import MARK
from bas.studies.words.results import MEAN, TextEncoder, Words

pytestmark = pytest.mark.slow

HEADS = ("state 0", "state 1")
FEWER = partial(similarity, draws=19)
"""What is drawn here is tested elsewhere."""


def words(features: Sequence[Path | str], name: str, *more: str) -> list[str]:
    small = [f"--set={setting}={value}" for setting, value in (CHANGES | {"epochs": "2"}).items()]
    run = ["words", "--features", *map(str, features), "--name", name, "--text-encoder", "random"]
    return [*run, "--seeds", "2", "--workers", "1", *small, *more]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sentences by each of six speakers, in two states and as log-mel; one finished study, and what it said."""
    root = tmp_path_factory.mktemp("study")
    features, said, here = Spoken().extract(root), StringIO(), Path.cwd()
    extracted(root / "talk.csv", root / "mel", LogMel(), shard_bytes=10**6)
    os.chdir(root)
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
            patch.setattr("bas.studies.words.study.similarity", FEWER)
            more = ("--protocol", "speaker:3", "--word", "Hund")
            assert main(words([features, root / "mel"], "whole", *more)) == 0
    finally:
        os.chdir(here)
    (root / "said.txt").write_text(said.getvalue())
    return root


@pytest.fixture(scope="module")
def results(work: Path) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((work / "runs/whole/results.json").read_text())
    return raw


def predictions(run: Run, row: str, head: str) -> np.ndarray:
    """`(S, N)`, fold after fold."""
    folds = range(len(run.protocol.folds))
    return np.array(
        [
            [p for f in folds for p in run.result(words_job(row, f, s).name)["heads"][head]["test"]["predictions"]]
            for s in run.plan.seeds
        ]
    )


# --- what is written ---


def test_the_report_is_a_page_data_figures_and_tensorboard(work: Path) -> None:
    folder, said = work / "runs/whole", (work / "said.txt").read_text()
    figures = {f"states of {s}, {t}" for s in ("talk", "mel") for t in ("emotion", "speaker-id")}
    figures |= {f"{what} {s}" for s in ("talk", "mel") for what in ("neighbourhoods of",)}
    figures |= {f"text with {s}, emotion" for s in ("talk", "mel")}
    files = sorted((folder / "figures").iterdir())
    assert [path.name for path in files] == sorted(f"{f.replace(', ', '-').replace(' ', '-')}.png" for f in figures)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    board = EventAccumulator(str(folder / "tb/MARKED/words"))
    board.Reload()
    assert set(board.Tags()["images"]) == figures
    assert said.strip().splitlines()[-1] == f"next: bas compare --features {work / 'talk-words-mean'} --layer best"
    assert "report: runs/whole/table.md" in said
    assert "talk: 300 words in 72 utterances: 72 corpus, 0 aligned, 0 pseudo" in said
    for store in ("talk", "mel"):
        for suffix in ("words-mean", "words-centre", "words-inside", "random-mean"):
            assert (work / f"{store}-{suffix}/store.json").exists()
    page = (folder / "table.md").read_text()
    assert "300 words in 72 utterances; word times: 72 corpus, 0 aligned, 0 pseudo." in page
    assert "whose query is each acoustic unit" in page
    assert "the query is each word as text" in page
    assert "leaves the pooling open" in page
    assert "No state is chosen" in page
    assert "\n| hund | 12 | " in page
    for row in ("talk", "mel"):
        assert page.count(f"\n| {row} | ") == 2, "in one table for each task"
    assert not list(folder.rglob("*.tmp")) + list(folder.rglob("*.checkpoint"))


def test_a_second_call_does_nothing_new(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    folder = work / "runs/whole"
    before = {path: path.stat().st_mtime_ns for path in (*folder.rglob("jobs/*"), *work.glob("*-mean/*.h5"))}
    data, page = (folder / "results.json").read_text(), (folder / "table.md").read_text()
    assert len(before) == 2 * 2 * (16 * 3 + 6 * 5) + 4
    with monkeypatch.context() as patch:
        patch.setattr("bas.studies.words.jobs.train", None)
        patch.setattr("bas.studies.words.study.similarity", FEWER)
        more = ("--protocol", "speaker:3", "--word", "Hund")
        assert main(words([work / "talk", work / "mel"], "whole", *more)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((folder / "tb").rglob("events.*"))) == 1
    assert ((folder / "results.json").read_text(), (folder / "table.md").read_text()) == (data, page)


# --- what is claimed ---


@pytest.mark.parametrize(("task", "fused"), [("emotion", True), ("speaker-id", False)])
def test_rows_are_those_of_the_predictions(work: Path, results: dict[str, Any], task: str, fused: bool) -> None:
    run = Run.open(work / "runs/whole/talk" / task)
    targets_N, units_N = comparison.tested(run)
    (of_task,) = (t for t in results["stores"][0]["tasks"] if t["task"] == task)
    assert list(of_task["rows"]) == rows(fused)
    assert of_task["tested"] == 72
    for row, of_row in of_task["rows"].items():
        heads = of_row["states"] | ({MEAN: of_row["mean"]} if of_row["mean"] else {})
        assert list(heads) == ([TEXT] if row == TEXT else [*HEADS, MEAN])
        accuracy = {h: float((predictions(run, row, h) == targets_N).mean()) for h in of_row["states"]}
        for head, of_head in heads.items():
            expected = accuracy[head] if head != MEAN else np.mean(list(accuracy.values()))
            assert of_head["metrics"]["WA"]["mean"] == pytest.approx(expected)
            assert of_head["interval"]["low"] <= expected <= of_head["interval"]["high"]
    wa, sizes = run.metrics["WA"], [len(fold.test) for fold in run.protocol.folds]
    folds_N = np.repeat(np.arange(len(sizes)), sizes)
    for pair, of_pair in of_task["pairs"].items():
        heads = of_pair["states"] | {MEAN: of_pair["mean"]}
        a, b = pair.split(" against ")
        both = [{h: predictions(run, row, h) for h in HEADS} for row in (a, b)]
        for of in both:
            of[MEAN] = np.stack([of[h] for h in HEADS], axis=2)
        for head, of_head in heads.items():
            metric = over_models(wa) if head == MEAN else wa
            a_row, b_row = (Predictions(of[head], folds_N) for of in both)
            expected = paired(targets_N, a_row, b_row, units_N, metric)
            numbers = (expected.difference, expected.low, expected.p, expected.verdict)
            assert (of_head["difference"], of_head["low"], of_head["p"], of_head["verdict"]) == numbers
    assert of_task["comparisons"] == len(of_task["pairs"]) * len([*HEADS, MEAN])
    assert set(of_task["pairs"]) == {f"words against {c}" for c in CONTROLS} | (
        {f"{n}+{f} against {n}" for n in FUSED for f in FUSIONS} | {f"words+{f} against raw+{f}" for f in FUSIONS}
        if fused
        else set()
    )


def test_a_lucky_seed_lets_no_word_means_beat_raw_frames(work: Path, tmp_path: Path) -> None:
    """Word means are right of a quarter more with seed 0, in all states and for all speakers alike: these alone,
    without the noise of training, would make it a verdict."""
    shutil.copytree(work / "runs/whole/talk", tmp_path / "talk")
    run = Run.open(tmp_path / "talk/emotion")
    for row, seed in itertools.product((WORDS, RAW), run.plan.seeds):
        for fold, parts in enumerate(run.protocol.folds):
            path = run.job_path(words_job(row, fold, seed).name)
            raw, truth_N = record(path), run.targets[[run.position[i] for i in parts.test]]
            right = 3 if (row, seed) == (WORDS, 0) else 2
            said_N = np.where(np.arange(len(truth_N)) % 4 < right, truth_N, 1 - truth_N)  # each speaker says 12
            for head in raw["heads"].values():
                head["test"]["predictions"] = said_N.tolist()
            rewrite(path, raw)
    lucky = tabulate(run, True)
    for difference in lucky.pairs[f"{WORDS} against {RAW}"].lines.values():
        assert difference.difference == pytest.approx(1 / 8)
        assert difference.verdict == "tie"
    assert "AWE beat raw frames, on talk, task emotion: not shown, a tie (mean over states 0, 1" in lucky.verdicts[0]


def test_the_page_says_what_its_verdicts_are_worth(work: Path) -> None:
    page, there = (work / "runs/whole/table.md").read_text(), load_results(work / "runs/whole")
    assert "sign-flip" not in page
    assert isinstance(there, Words)
    talk = there.stores[0].tasks[0]
    of_talk = page.partition("#### Word means against the rest")[2].partition("### speaker-id")[0]
    for text in (
        "- Intervals: 95 %, for other units (6: speaker) and other trainings (3 folds x 2 seeds).",
        "- Power: a true difference of ",
        f"- {len(talk.pairs)} comparisons, not corrected for their number: ",
        "- A/A check, each seed of a row against its other seeds: needs three seeds and 4 units.",
        f"The other {2 * len(talk.pairs)}, by state, show a course over the states: none is corrected",
    ):
        assert text in of_talk, text
    for line in (line for line in of_talk.splitlines() if line.startswith("| state ")):
        assert not any(line.count(f": {verdict} |") for verdict in ("better", "worse")), line
    assert "better, uncorrected" in of_talk
    checked = replace(talk, false_verdicts=FalseVerdicts(2, 42))
    stores = (replace(there.stores[0], tasks=(checked,)),)
    assert "2 of 42 verdicts are false (4.8 %;" in words_page.markdown(replace(there, stores=stores))


def test_the_verdicts_are_those_of_the_differences(results: dict[str, Any], work: Path) -> None:
    """The made-up words tell in state 1 what raw frames hide; inside words nothing is hidden."""
    emotion = results["stores"][0]["tasks"][0]
    raw, inside, random = emotion["verdicts"]
    compared = emotion["pairs"]["words against raw"]
    assert compared["states"]["state 1"]["difference"] > 0.2
    assert compared["states"]["state 1"]["verdict"] == "better"
    assert raw.startswith("AWE beat raw frames, on talk, task emotion: yes")
    assert "(mean over states 0, 1: WA +" in raw
    assert "; by state, uncorrected: " in raw
    mean = compared["mean"]
    assert f"WA {100 * mean['difference']:+.1f} ({100 * mean['low']:+.1f} to {100 * mean['high']:+.1f})" in raw
    assert "AWE beat frames inside words, the control for silence, on talk, task emotion: not shown, a tie" in inside
    assert "AWE beat random segments of the same lengths" in random
    mel = results["stores"][1]["tasks"][0]["verdicts"][0]
    assert "(state 0: WA " in mel, "one state has no mean"
    page, said = (work / "runs/whole/table.md").read_text(), (work / "said.txt").read_text()
    for line in (raw, inside, random, mel):
        assert line in page
        assert line in said


def test_neighbourhoods_of_words(results: dict[str, Any]) -> None:
    talk, mel = results["stores"]
    types = {word for sentence in SENTENCES for word in sentence.split()}
    assert talk["neighbourhoods"]["lns"]["types"] == mel["neighbourhoods"]["lns"]["types"] == len(types)
    assert len(talk["neighbourhoods"]["lns"]["states"]) == 2
    (row,) = talk["neighbourhoods"]["shown"]
    assert (row["word"], row["tokens"]) == ("hund", 12)
    said = next(sentence for sentence in SENTENCES if "hund" in sentence).split()
    assert not {n["word"] for n in row["acoustic"]} & set(said), "none of its own sentence"


def test_an_untrained_text_encoder_marks_every_fused_row(work: Path, results: dict[str, Any]) -> None:
    page = (work / "runs/whole/table.md").read_text()

    def fused(page: str) -> list[str]:
        """The headings of tables with text."""
        lines = [line for line in page.splitlines() if line.startswith("| ") and any(f in line for f in FUSIONS)]
        assert len(lines) == 2 * (2 * len(FUSED) + 1)
        return lines

    for line in fused(page):
        columns = [cell for cell in line.strip("|").split("|") if any(f in cell for f in (*FUSIONS, "text"))]
        assert len(columns) >= 3
        assert all(MARK in cell for cell in columns), line
    assert (work / "said.txt").read_text().count(MARK) == 4
    there = load_results(work / "runs/whole")
    assert isinstance(there, Words)
    trained = replace(there, text_encoder=TextEncoder("bert", untrained=False))
    assert MARK not in words_page.markdown(trained)
    fused(words_page.markdown(trained))


# --- the verb ---


def test_what_the_corpus_has_no_room_for_is_told(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """No texts and no times: no aligner can help, nothing is a word, and no split by text is possible."""
    monkeypatch.chdir(tmp_path)
    features = Spoken(name="mute", speakers=3, texts=False, times=False).extract(tmp_path, layers=(1,))
    more = ("--set=epochs=1", "--protocol", "speaker:3")
    assert main(words([features], "mute", *more)) == 0
    said = capsys.readouterr().out
    assert "left out of mute: task speaker-id: " in said
    assert "mute: 36 of 36 utterances have no word times and no --aligner is given: they are cut" in said
    results = json.loads((tmp_path / "runs/mute/results.json").read_text())
    (store,) = results["stores"]
    assert store["sources"] == {"corpus": 0, "aligned": 0, "pseudo": 36}
    assert [task["task"] for task in store["tasks"]] == ["emotion"]
    assert store["neighbourhoods"] is None
    page = (tmp_path / "runs/mute/table.md").read_text()
    assert "Left out of mute: task speaker-id: " in page
    assert "Pseudo: equal stretches that are no words." in page
    assert "None: neighbours of words" in page
    assert f"| {MEAN} |" not in page
    assert main(words([features], "asked", "--space", "speaker_id")) == 2, "whoever asks for it is refused"
    assert capsys.readouterr().err.startswith("bas: ")


def test_the_stride_of_the_cpu_preset_is_no_half_word(work: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(work)
    strides: list[int] = []

    class Enough(Exception):
        pass

    def instead(folder: Path, stores: Any, *rest: Any) -> None:
        strides.extend(inputs.plan.settings.stride for _, inputs, _ in stores[0].tasks)
        raise Enough

    monkeypatch.setattr("bas.studies.words.study.carry_out", instead)
    base = ["words", "--features", str(work / "mel"), "--text-encoder", "random", "--name", "other", "--workers", "1"]
    for more in ([], ["--set", "stride=2"], ["--preset", "paper"]):
        with pytest.raises(Enough):
            main([*base, *more])
    assert strides == [WORDS_CPU["stride"]] * 2 + [2] * 2 + [1] * 2


@pytest.mark.parametrize(
    ("features", "more", "parts"),
    [
        (["talk"], ["--layer", "1"], ["unrecognized arguments: --layer"]),
        (["talk"], ["--set", "width=64"], ["--set width=64", "stride, normalise"]),
        (["talk"], ["--set", "theta_lr=1"], ["--set theta_lr=1", "stride, normalise"]),
        (["talk", "other/talk"], [], ["two stores are named talk"]),
        (["talk-words-mean"], [], ["talk-words-mean", "is itself derived"]),
        (["nowhere"], [], ["nowhere", "store.json"]),
        (["talk"], ["--text-encoder", "no/such"], ["text encoder 'no/such'", "cannot be loaded"]),
        (["talk"], ["--space", "ser_bas3", "--space", "ser_bas4"], ["--space ser_bas4", "emotion is named twice"]),
        (["talk"], ["--protocol", "id:3"], ["speaker on both sides", "--allow-overlap"]),
        (["talk"], ["--seeds", "0"], ["--seeds 0"]),
    ],
)
def test_what_is_refused_in_one_line(
    work: Path, features: list[str], more: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(work)
    assert main(words([str(work / f) for f in features], "never", *more)) == 2
    _, line = capsys.readouterr()
    assert line.startswith("bas: ")
    assert len(line.strip().splitlines()) == 1
    assert [part for part in parts if part not in line] == [], line
    assert not (work / "runs/never").exists()


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (["--text-encoder", "other"], ["made with text encoder random, now other", "--name"]),
        (["--word", "Hut"], ["--word Hut: no utterance has it"]),
        (["--protocol", "speaker:2"], ["--name"]),
    ],
)
def test_another_study_does_not_go_on_in_a_folder(
    work: Path, more: list[str], parts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(work)
    before = {path: path.stat().st_mtime_ns for path in (work / "runs/whole").rglob("jobs/*")}
    assert main(words([work / "talk", work / "mel"], "whole", "--protocol", "speaker:3", *more)) == 2
    _, line = capsys.readouterr()
    assert [part for part in parts if part not in line] == [], line
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_damaged_record_is_refused(work: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(work)
    path = work / "runs/whole/talk/words.json"
    whole = path.read_text()
    for text, message in (
        ("{", "not readable as JSON"),
        ('{"words": 1}', "sha256: missing"),
        ("[1]", "not a record of bas"),
    ):
        path.write_text(text)
        try:
            assert main(words([work / "talk", work / "mel"], "whole", "--protocol", "speaker:3")) == 2
        finally:
            path.write_text(whole)
        line = capsys.readouterr().err
        assert f"runs/whole/talk/words.json: {message}" in line
    vectors = work / "runs/whole/talk/lexicon.npz"
    raw = vectors.read_bytes()
    for damaged in (b"", raw[:100], b"PK" + raw[2:-50]):
        vectors.write_bytes(damaged)
        try:
            assert main(words([work / "talk", work / "mel"], "whole", "--protocol", "speaker:3")) == 2
        finally:
            vectors.write_bytes(raw)
        assert "talk/lexicon.npz: damaged; delete runs/whole/talk/words.json" in capsys.readouterr().err
