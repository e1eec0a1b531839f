"""`bas probe` of tasks without classes, shares of listeners and numbers: what tells is found, and each number is right.

The corpus has four states of noise, of which one tells how bright an utterance is; twenty listeners heard how bright,
and its age follows from that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from records import record, rewrite
from scipy.stats import spearmanr
from stores import quiet, store
from test_probing import CHANGES, Informative

from bas.cli.main import main
from bas.runs.plan import Plan
from bas.runs.run import Inputs, Run
from bas.runs.session import Session
from bas.runs.start import split
from bas.studies import load_results
from bas.studies.probe import few, figures, study
from bas.studies.probe import jobs as probing
from bas.studies.probe.heads import FREE, KINDS, MEAN, SOFTMAX
from bas.studies.probe.jobs import probe_job, run_probe
from bas.studies.probe.numbers import AGGREGATES, CHOSEN, ON_VALID, WHOSE
from bas.studies.probe.results import Probe
from bas.studies.probe.study import StoreChoice, carry_out
from bas.studies.probe.transfer import groups
from bas.training.settings import settings

pytestmark = pytest.mark.slow

INFORMATIVE, STATES, SPEAKERS, TAKES = 1, (0, 1, 2, 3), 8, 12
EPOCHS = "20"
SPACE = """
from bas.blocks import FFN, MeanPool, Skip
from bas.space import SearchSpace
from bas.tasks import Regression, Shares

space = SearchSpace({"layer1": {"none": Skip, "FFN": FFN}}, MeanPool)
task = TASK
baselines = {"simple": SearchSpace({"layer1": {"FFN": FFN}}, MeanPool)}
"""
TASKS = {"shares": "Shares()", "ages": "Regression({'age': (0, 100)}, 'mse', name='ages')"}
KEPT = ["--labels", "ages.csv", "--keep", "age"]
HEADLINES = {"shares": "Spearman", "ages": "CCC"}


def spoken(root: Path, name: str, seed: int = 0) -> Path:
    """The folder of a store: each state says noise, the first dimension of state INFORMATIVE also how bright it is."""
    rng, lines, ages = np.random.default_rng(seed), [], ["id,age"]
    root.mkdir(parents=True, exist_ok=True)
    for index in range(SPEAKERS * TAKES):
        bright = float(rng.random())
        x_TLD = 0.2 * rng.standard_normal((int(rng.integers(2, 6)), len(STATES), 4))
        x_TLD[:, INFORMATIVE, 0] += 2 * bright - 1
        wave = np.repeat(x_TLD.ravel(), 320 // (len(STATES) * 4))
        soundfile.write(root / f"{name}{index:02}.wav", wave, 16_000, subtype="FLOAT")
        heard = float(rng.binomial(20, bright) / 20)
        row = {"id": f"{name}{index:02}", "audio": f"{name}{index:02}.wav", "speaker": f"s{index % SPEAKERS}"}
        shares = {"bright": heard, "dull": round(1 - heard, 2)}
        lines.append(json.dumps(row | {"shares": shares, "raters": 20}))
        ages.append(f"{name}{index:02},{20 + 60 * bright:.1f}")
    (root / "ages.csv").write_text("\n".join(ages), encoding="utf-8")
    (root / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    encoder = Informative(num_states=len(STATES), dim=4)
    store(root / f"{name}.jsonl", root / name, encoder, shard_bytes=10**6)
    return root / name


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store, and finished probes of it for both tasks."""
    root, here = tmp_path_factory.mktemp("reals"), Path.cwd()
    spoken(root, "cups")
    os.chdir(root)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(few, "DRAWS", 2)
            for name, task in TASKS.items():
                Path(f"{name}.py").write_text(SPACE.replace("TASK", task), encoding="utf-8")
                with redirect_stdout(StringIO()) as said:
                    assert main(words(name)) == 0
                Path(f"{name}.txt").write_text(said.getvalue(), encoding="utf-8")
        yield root
    finally:
        os.chdir(here)


def words(name: str) -> list[str]:
    small = [f"--set={setting}={value}" for setting, value in (CHANGES | {"epochs": EPOCHS}).items()]
    command = ["probe", "--features", "cups", "--space", f"{name}.py", "--seeds", "2", "--protocol", "speaker:3"]
    kept = KEPT if name == "ages" else []
    return [*command, *kept, "--percent", "50", "--workers", "1", "--name", name, *small]


def found(work: Path, name: str) -> dict[str, Any]:
    """The report of the one store, as data."""
    (probed,) = json.loads((work / f"runs/{name}/results.json").read_text())["stores"]
    return dict(probed)


def run_of(work: Path, name: str, protocol: str = "disjoint") -> Run:
    return Run.open(work / f"runs/{name}/cups/{protocol}")


def headline(name: str, truth_NO: np.ndarray, predicted_NO: np.ndarray) -> float:
    """Of one test part, as its definition says, the mean over outputs."""
    pairs = list(zip(truth_NO.T, predicted_NO.T, strict=True))
    if name == "shares":
        return float(np.mean([spearmanr(t_N, p_N).statistic for t_N, p_N in pairs]))
    agreed = [2 * np.cov(t, p, ddof=0)[0, 1] / (t.var() + p.var() + (t.mean() - p.mean()) ** 2) for t, p in pairs]
    return float(np.mean(agreed))


def reached(name: str, run: Run, head: str, by_fold: Sequence[int] | None = None, percent: int = 100) -> float:
    """The headline within each fold, averaged over folds by their utterances, then over seeds. by_fold: of the heads of
    a kind, each fold reading a state of its own."""
    total = 0.0
    for seed in run.plan.seeds:
        for fold, parts in enumerate(run.protocol.folds):
            of = head if by_fold is None else f"{head} state {by_fold[fold]}"
            predicted = run.result(probe_job(fold, seed, percent).name)["heads"][of]["test"]["predictions"]
            truth_NO = run.targets[[run.position[i] for i in parts.test]]
            total += len(parts.test) * headline(name, truth_NO, np.array(predicted))
    return total / len(run.plan.seeds) / len(run.protocol.test_ids)


def on_valid(run: Run, kind: str, metric: str) -> list[int]:
    """By fold the state of the best mean headline on valid."""
    chosen = []
    for fold in range(len(run.protocol.folds)):
        heads = [run.result(probe_job(fold, seed).name)["heads"] for seed in run.plan.seeds]
        scores = [np.mean([of[f"{kind} state {s}"]["valid"][metric] for of in heads]) for s in STATES]
        chosen.append(STATES[int(np.argmax(scores))])
    return chosen


# --- what is found ---


@pytest.mark.parametrize("name", TASKS)
def test_the_state_that_tells_is_found(work: Path, name: str) -> None:
    probed = found(work, name)
    metric = HEADLINES[name]
    assert probed["headline"] == metric
    assert (probed["classes"], probed["tested"], probed["pooled"]) == ([], SPEAKERS * TAKES, False)
    for chosen in probed["choice"]["chosen"].values():
        assert chosen == [INFORMATIVE] * 3
    for kind in KINDS:
        rows = probed["heads"][kind]
        assert rows[CHOSEN] == rows[ON_VALID] == rows[f"state {INFORMATIVE}"]
        assert rows[CHOSEN]["metrics"][metric]["mean"] > 0.6
        assert all(abs(rows[f"state {s}"]["metrics"][metric]["mean"]) < 0.4 for s in STATES if s != INFORMATIVE)
        assert rows[CHOSEN]["against_last"]["verdict"] == "better"
        assert probed["choice"]["biases"][kind]["best"] == {"disjoint": INFORMATIVE, "random": INFORMATIVE}
        assert probed["choice"]["few"][kind]["best_state"] == INFORMATIVE
        interval = rows[CHOSEN]["interval"]
        assert interval["low"] < rows[CHOSEN]["metrics"][metric]["mean"] < interval["high"] <= 1
    columns = {
        "shares": ["Spearman", "Spearman bright", "Spearman dull", "Pearson", "1-MAE"],
        "ages": ["CCC", "Pearson", "1-NMAE"],
    }
    assert list(probed["heads"]["linear"]["state 0"]["metrics"]) == columns[name]
    job = run_of(work, name).result(probe_job(0, 0).name)
    predicted = np.array(job["heads"]["dense state 1"]["test"]["predictions"])
    if name == "shares":
        assert predicted.min() > 0
        assert predicted.max() < 1
    else:
        assert 20 < predicted.mean() < 80, "in years"


@pytest.mark.parametrize("name", TASKS)
def test_rows_claims_and_gains_are_those_of_the_predictions(work: Path, name: str) -> None:
    probed, ours, theirs = found(work, name), run_of(work, name), run_of(work, name, "random")
    for kind in KINDS:
        for head in (*(f"state {s}" for s in STATES), *AGGREGATES, "first 2"):
            expected = reached(name, ours, f"{kind} {head}")
            assert probed["heads"][kind][head]["metrics"][HEADLINES[name]]["mean"] == pytest.approx(expected)
            assert probed["curves"]["100"][f"{kind} {head}"]["mean"] == pytest.approx(expected)
            half = reached(name, ours, f"{kind} {head}", percent=50)
            assert probed["curves"]["50"][f"{kind} {head}"]["mean"] == pytest.approx(half)
        claims = {of: claim["claims"] for of, claim in probed["choice"]["biases"][kind]["claims"].items()}
        searched = probed["choice"]["chosen"][CHOSEN]
        assert claims["disjoint, training"] == pytest.approx(reached(name, ours, kind, searched))
        for which, run in (("disjoint", ours), ("random", theirs)):
            of_state = [reached(name, run, f"{kind} state {s}") for s in STATES]
            assert claims[f"{which}, test"] == pytest.approx(max(of_state))
            chosen = on_valid(run, kind, HEADLINES[name])
            assert claims[f"{which}, valid"] == pytest.approx(reached(name, run, kind, chosen))
        assert probed["choice"]["reduction"] == {}, "a correlation has no errors to save"
        for aggregate in AGGREGATES:
            for whose, single, run in (("ours", "disjoint, training", ours), ("paper", "random, test", theirs)):
                gain = probed["choice"]["gain"][kind][whose][aggregate]
                assert gain["value"] == pytest.approx(claims[single] - reached(name, run, f"{kind} {aggregate}"))
                assert gain["low"] < gain["value"] < gain["high"]


@pytest.mark.parametrize("name", TASKS)
def test_few_labels_are_so_many_utterances_in_all(work: Path, name: str) -> None:
    probed, run = found(work, name), run_of(work, name)
    jobs = [run.result(f"few-best-fold{fold}-seed0")["layers"] for fold in range(3)]
    for kind in KINDS:
        few_labels = probed["choice"]["few"][kind]
        assert list(few_labels["rows"]) == ["0", "20", "40", "all"], "80 there are not"
        assert few_labels["rows"]["0"]["score"]["mean"] == pytest.approx(reached(name, run, f"{kind} state 2"))
        for count, row in list(few_labels["rows"].items())[1:]:
            draws = list(zip(*(job[count] for job in jobs), strict=True))
            assert row["draws"] == len(draws) == (1 if count == "all" else 2)
            assert row["score"]["mean"] == pytest.approx(np.mean([reached(name, run, kind, draw) for draw in draws]))
        assert few_labels["all"] == few_labels["rows"]["all"]["score"]["mean"]


def test_few_labels_that_are_all_alike_name_the_middle_state(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare emotion: nobody heard it in all but two utterances, and of some draws it is in none."""
    session, kept = Session(run_of(work, "shares")), []
    x_ULD, targets_UO, units_U = session.training_means(0)
    rare_UO = np.zeros_like(targets_UO)
    rare_UO[[0, next(u for u in range(len(units_U)) if units_U[u] != units_U[0])]] = 0.5
    monkeypatch.setattr(Session, "training_means", lambda *_: (x_ULD, rare_UO, units_U))
    monkeypatch.setattr(few, "DRAWS", 10)
    drawn: list[np.ndarray] = []
    draw = few._draw
    monkeypatch.setattr(few, "_draw", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    monkeypatch.setattr(few, "keep", lambda _, __, result: kept.append(result))
    few.run_few(session, few.few_job(0))
    named = [layer for count in ("20", "40") for layer in kept[0].layers[count]]
    flat = [layer for layer, of in zip(named, drawn, strict=True) if not rare_UO[of].any()]
    assert flat
    assert set(flat) == {2}
    assert [len(of) for of in drawn] == [20] * 10 + [40] * 10
    assert all(set(small) < set(large) for small, large in zip(drawn[:10], drawn[10:], strict=True)), "nested"


@pytest.mark.parametrize("name", TASKS)
def test_heads_begin_at_the_mean_of_the_fit_part(
    work: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets far from the middle, and a rate at which nothing is learnt: all that is said is the level."""
    session, kept = Session(run_of(work, name)), []
    run, parts = session.run, session.run.protocol.folds[0]
    low, high = (0.0, 1.0) if name == "shares" else (0.0, 100.0)
    monkeypatch.setattr(run, "targets", low + (high - low) * (0.85 + 0.1 * (run.targets - low) / (high - low)))
    still = replace(run.plan.settings, lr=1e-9, theta_lr=1e-9, epochs=1)
    monkeypatch.setattr(run, "plan", replace(run.plan, settings=still))
    monkeypatch.setattr(probing, "checkpoint", lambda *_: None)
    monkeypatch.setattr(probing, "keep", lambda _, __, result: kept.append(result))
    run_probe(session, probe_job(0, 0))
    mean_O = run.targets[session.members(parts.fit).numpy()].mean(0)
    for head, result in kept[0].heads.items():
        level_O = result.test.predictions.mean(0)
        assert np.abs(level_O - mean_O).max() < 0.25 * (high - low), head  # a dense head has random features too


# --- what is drawn ---


def test_a_share_of_the_fit_part_is_drawn_whatever_the_targets(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(run_of(work, "ages"))
    seen: dict[str, set[int]] = {}

    class EnoughError(Exception):
        pass

    def watch(*given: Any) -> None:
        seen[job.name] = set(given[4].tolist())
        raise EnoughError

    monkeypatch.setattr(probing, "train_heads", watch)
    for seed in (0, 1):
        for percent in (10, 30, 100):
            job = probe_job(0, seed, percent)
            with pytest.raises(EnoughError):
                run_probe(session, job)
    whole = seen[probe_job(0, 0).name]
    tenth, third, other = (seen[probe_job(0, *of).name] for of in ((0, 10), (0, 30), (1, 30)))
    assert tenth < third < whole
    assert [len(tenth), len(third)] == [round(len(whole) * share) for share in (0.1, 0.3)]
    assert len(other) == len(third)
    assert other != third, "another seed draws others, as no target decides"


def test_the_random_split_is_drawn_over_utterances_and_marked(work: Path) -> None:
    run = run_of(work, "ages")
    drawn = study._random(run)
    assert sorted(drawn.test_ids) == sorted(u.id for u in run.utterances)
    assert "MARKED" in drawn.description
    size = min(len(fold.fit) for fold in run.protocol.folds)
    assert {len(fold.fit) for fold in drawn.folds} == {min(size, round(0.6 * len(run.utterances)))}
    assert drawn == study._random(run)
    assert all(not {*fold.fit} & {*fold.valid, *fold.test} for fold in drawn.folds)
    speaker = {u.id: u.speaker for u in run.utterances}
    assert all({speaker[i] for i in fold.test} & {speaker[i] for i in fold.fit} for fold in drawn.folds)


# --- the page ---


def tables(page: str) -> dict[str, list[dict[str, str]]]:
    """By title, the rows of each table by column."""
    made: dict[str, list[dict[str, str]]] = {}
    for part in page.split("\n### ")[1:]:
        lines = [[c.strip() for c in line[1:-1].split("|")] for line in part.splitlines() if line.startswith("|")]
        made[part.splitlines()[0]] = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
    return made


def shown(number: float, sign: str = "") -> str:
    return f"{100 * number:{sign}.1f}"


def spread(of: Mapping[str, float]) -> str:
    return shown(of["mean"]) + (f" ± {shown(of['sd'])}" if of["sd"] else "")


def estimated(value: float, low: float, high: float) -> str:
    return f"{shown(value, '+')} ({shown(low, '+')} to {shown(high, '+')})"


@pytest.mark.parametrize("name", TASKS)
def test_every_number_of_the_page_is_of_the_data(work: Path, name: str) -> None:
    page, probed, metric = (work / f"runs/{name}/table.md").read_text(), found(work, name), HEADLINES[name]
    of, choice = tables(page), probed["choice"]
    for kind in KINDS:
        rows = of[f"{kind.capitalize()} heads"]
        assert [row["reads"] for row in rows] == list(probed["heads"][kind])
        for row, head in zip(rows, probed["heads"][kind].values(), strict=True):
            assert {m: row[m] for m in head["metrics"]} == {m: spread(s) for m, s in head["metrics"].items()}
            low, high = head["interval"].values()
            assert row[f"interval of {metric}"] == f"{shown(low)} to {shown(high)}"
        for row, claim in zip(
            of["What each way of choosing claims"], choice["biases"][kind]["claims"].values(), strict=True
        ):
            assert row[kind] == shown(claim["claims"])
        gains = of[f"One layer, {CHOSEN}, beside the mixes"]
        assert [row["points above the"] for row in gains] == [MEAN, SOFTMAX, FREE]
        for row in gains:
            for whose, column in zip(WHOSE, (kind, f"{kind}, the paper's way (MARKED)"), strict=True):
                gain = choice["gain"][kind][whose][row["points above the"]]
                assert row[column] == estimated(gain["value"], gain["low"], gain["high"])
        for row, (count, number) in zip(
            of["The layer from few labels"], choice["few"][kind]["rows"].items(), strict=True
        ):
            assert row["labelled utterances"] == ("none: the middle state" if count == "0" else count)
            assert row[f"{kind}: {metric}"] == spread(number["score"])
        for row in of[f"Learning curves, {kind}"]:
            head = row[f"{kind}, {metric}"]
            for percent in ("50", "100"):
                assert row[f"{percent} % to train on"] == spread(probed["curves"][percent][f"{kind} {head}"])
    for text in (
        f"{SPEAKERS * TAKES} test utterances, within each of 3 folds, then averaged.",
        "20, 40, 80 are as many as 5, 10, 20 of each of four classes",
        f"in points of {metric}",
        "is not of the leak alone",
    ):
        assert text in page, text
    assert not [word for word in ("nan", "fewer errors", "errors saved", "a class |", "transfer") if word in page]
    assert ("Ceiling, what knowing every true share would reach with 20 listeners" in page) == (name == "shares")
    assert (probed["ceiling"] is None) == (name != "shares")


@pytest.mark.parametrize("name", TASKS)
def test_the_terminal_says_what_comes_next(work: Path, name: str) -> None:
    said = (work / f"{name}.txt").read_text()
    assert f"cups, fake: {HEADLINES[name]}" in said
    task = " ".join([f"--space {name}.py", *(KEPT if name == "ages" else [])])
    assert said.strip().splitlines()[-1] == f"next: bas search {task} --features cups --layer best"


def test_a_second_call_does_nothing_new(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)
    monkeypatch.setattr("bas.studies.probe.jobs.train_heads", None)
    monkeypatch.setattr(few, "cross_validate", None)
    before = (work / "runs/shares/results.json").read_text(), (work / "runs/shares/table.md").read_text()
    assert main(words("shares")) == 0
    after = (work / "runs/shares/results.json").read_text(), (work / "runs/shares/table.md").read_text()
    assert after == before


def test_results_from_before_gains_are_read(work: Path, tmp_path: Path) -> None:
    raw = record(work / "runs/shares/results.json")
    del raw["stores"][0]["ceiling"], raw["stores"][0]["choice"]["gain"]
    rewrite(tmp_path / "results.json", raw)
    read = load_results(tmp_path)
    assert isinstance(read, Probe)
    (probed,) = read.stores
    assert probed.choice is not None
    assert (probed.ceiling, probed.choice.gain) == (None, {})


# --- several corpora ---


def test_between_corpora_gains_are_averaged_and_nothing_is_transferred(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(few, "DRAWS", 1)
    monkeypatch.setattr(figures, "draw", lambda folder, results, console: None)
    choices = []
    for name, features in (("cups", work / "cups"), ("mugs", spoken(tmp_path, "mugs", 1))):
        small = settings("cpu", CHANGES | {"epochs": "1"})
        inputs = Inputs.open(Plan(str(features), (str(work / "shares.py"),), "mix", small, (0,), "cpu"))
        choices.append(StoreChoice(name, inputs, split(inputs, "speaker:3", 0)))
    results = carry_out(tmp_path / "run", choices, (), 1, quiet())
    assert results.transfer == ()
    page = (tmp_path / "run/table.md").read_text()
    assert page.count("No transfer between corpora: ") == 1
    assert "task emotion-share has none" in page
    for kind in KINDS:
        for whose in WHOSE:
            for name in AGGREGATES:
                each = [s.choice.gain[kind][whose][name].value for s in results.stores if s.choice]
                spread_ = results.mean[kind][whose][name]
                assert (spread_.mean, spread_.sd) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    mean = page.partition("## Mean over corpora")[2]
    first = results.mean["linear"]["ours"][MEAN]
    assert f"| {MEAN} | {shown(first.mean, '+')} ± {shown(first.sd)} |" in mean
    assert "points above the" in mean
    runs = [Run.open(tmp_path / f"run/{name}/disjoint") for name in ("cups", "mugs")]
    for run in runs:
        run.corpus = replace(run.corpus, labels="common")
    assert groups(runs) == [], "a common scheme of labels says nothing of shares"
