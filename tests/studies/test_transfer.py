"""Probes across corpora and languages: who is trained and tested on whom, and what no choice may see."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from records import record
from refusals import refusal
from stores import quiet, store
from test_probing import Corpus, Informative, begun, plan

from bas.protocols import field_of
from bas.runs.layers import best, cross_validate
from bas.runs.plan import Job, Kind
from bas.runs.run import Inputs, Run
from bas.runs.session import Session
from bas.runs.start import split
from bas.runs.workers import Workers
from bas.stats import ua
from bas.studies.probe import few, figures
from bas.studies.probe.heads import KINDS
from bas.studies.probe.pretraining import pretraining
from bas.studies.probe.results import TargetPredictions, Transfer, TransferResult
from bas.studies.probe.study import StoreChoice
from bas.studies.probe.study import carry_out as probe_all
from bas.studies.probe.transfer import (
    Pool,
    Source,
    _cell,
    carry_out,
    check,
    groups,
    name_of,
    open_pool,
    run_transfer,
)
from bas.util.typed import to_plain

pytestmark = pytest.mark.slow

INFORMATIVE = 1
EPOCHS = "15"
# The second says the classes as the first does, in other words and with one more; the third the other way round.
CORPORA = {
    "alpha": Corpus("alpha", code=(("anger", -1.5), ("sadness", 1.5), ("boredom", 0.0)), languages=("de",)),
    "beta": Corpus("beta", code=(("angry", -1.5), ("sad", 1.5), ("fear", 0.0)), languages=("en", "en", None)),
    "gamma": Corpus("gamma", code=(("anger", 1.5), ("sadness", -1.5)), languages=("fr",)),
}
CLASSES = ("anger", "sadness")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora with a run each, and the finished transfers between them."""
    root = tmp_path_factory.mktemp("transfer")
    for seed, (name, corpus) in enumerate(CORPORA.items()):
        features = corpus.extract(root, seed, layers=(0, INFORMATIVE))
        begun(root / name / "disjoint", plan(features, labels="common", epochs=EPOCHS))
    matrix = transferred(root / "transfer", runs(root))
    (root / "matrix.json").write_text(json.dumps(to_plain(matrix)))
    return root


def transferred(folder: Path, runs: Sequence[Run], stacked: bool | None = None) -> Transfer:
    with Workers(1, quiet(), stacked) as workers:
        return carry_out(folder, runs, workers)


def runs(root: Path) -> list[Run]:
    return [Run.open(root / name / "disjoint") for name in CORPORA]


@pytest.fixture(scope="module")
def transfer(work: Path) -> dict[str, Any]:
    matrix: dict[str, Any] = json.loads((work / "matrix.json").read_text())
    return matrix


@pytest.fixture
def pool(work: Path) -> Pool:
    return open_pool(work / "transfer", lambda: None, None)


def job_of(work: Path, source: str, fold: int) -> dict[str, Any]:
    return record(work / f"transfer/jobs/{Job(Kind.TRANSFER, source, fold, 0).name}.json")


def said(pool: Pool, members: Any) -> list[tuple[str, str]]:
    """Corpus and id of each member."""
    ids = {
        u: (run.corpus.name, id_) for run, where in zip(pool.runs, pool.where, strict=True) for id_, u in where.items()
    }
    return [ids[int(u)] for u in members]


# --- the pool ---


def test_all_utterances_keep_their_frames_and_labels(work: Path, pool: Pool, transfer: dict[str, Any]) -> None:
    assert pool.classes == CLASSES == tuple(transfer["classes"])
    data = pool.data()
    assert (data.states, data.dim) == (2, 4)
    assert len(data.lengths_U) == sum(map(len, pool.where)) == 3 * 8 * 6, "what not all can say is left out"
    for run, where in zip(pool.runs, pool.where, strict=True):
        assert {u.id for u in run.utterances if u.label in CLASSES} == set(where)
        for id_, u in where.items():
            x_BTD, mask_BT, targets_B = data.batch(torch.tensor([u]))
            frames_LTD = np.stack([run.store.read(id_, layer) for layer in run.store.info.layers])
            assert mask_BT.all()
            assert np.array_equal(x_BTD[0].numpy(), np.concatenate(list(frames_LTD), 1).astype(np.float32))
            assert CLASSES[int(targets_B[0])] == run.utterances[run.position[id_]].label
            torch.testing.assert_close(data.mean_frames(torch.tensor([u]))[0], x_BTD[0].mean(0), rtol=1e-4, atol=1e-5)
            speaker = run.utterances[run.position[id_]].speaker
            assert pool.unit_U[u] == pool.speaker_U[u] == f"{run.corpus.name}/{speaker}"


def test_a_source_trains_on_its_own_folds_and_on_no_one_it_is_tested_on(work: Path, pool: Pool) -> None:
    sources = pool.sources()
    assert [s.name for s in sources] == [*CORPORA, "all but de", "all but en", "all but fr"]
    for source in sources:
        assert pool.folds(source) == 3
        for fold in range(3):
            fit, valid = pool.training(source, fold)
            parts = [run.protocol.folds[fold] for run in pool.runs]
            for members, ids in (
                (fit, {i for p in parts for i in p.fit}),
                (valid, {i for p in parts for i in p.valid}),
            ):
                expected = {
                    u for u in range(len(pool.corpus_U)) if pool.contains(source, u) and said(pool, [u])[0][1] in ids
                }
                assert set(members.tolist()) == expected
                assert len(members) == len(expected) > 0
            trained = {pool.speaker_U[u] for u in (*fit.tolist(), *valid.tolist())}
            for target, tested in pool.tests(source, fold).items():
                assert not trained & {pool.speaker_U[u] for u in tested.tolist()}, (source, target)
            assert job_of(work, source.name, fold)["fit"] == len(fit)


def test_all_but_a_language_trains_on_nothing_that_may_be_in_it(pool: Pool) -> None:
    for source in pool.sources()[3:]:
        language = source.left_out
        for fold in range(3):
            trained = [u for part in pool.training(source, fold) for u in part.tolist()]
            heard = {pool.language_U[u] for u in trained}
            assert heard == {"de", "en", "fr"} - {language}, "of the others, all; of the unknown, none"
            (target,) = pool.tests(source, fold)
            assert target == f"all {language}"
            assert {pool.language_U[u] for u in pool.tests(source, fold)[target].tolist()} == {language}
            assert len(pool.tests(source, fold)[target]) == pool.language_U.count(language)
    assert None in {pool.language_U[u] for u in pool.training(Source("beta", corpus="beta"), 0)[0].tolist()}


def test_who_speaks_the_language_is_left_out_with_it(pool: Pool) -> None:
    """Also what they say in another language: no speaker stands on both sides."""
    source = next(source for source in pool.sources() if source.left_out == "de")
    bilingual = pool.speaker_U[pool.language_U.index("de")]
    others = [u for u, (s, c) in enumerate(zip(pool.speaker_U, pool.corpus_U, strict=True)) if s == bilingual]
    for u in others[1:]:
        pool.language_U[u] = "fr"
    assert not any(pool.contains(source, u) for u in others)
    trained = {pool.speaker_U[u] for part in pool.training(source, 0) for u in part.tolist()}
    tested = {pool.speaker_U[u] for u in pool.tests(source, 0)["all de"].tolist()}
    assert bilingual in tested
    assert not trained & tested


def test_a_source_that_no_one_can_be_trained_on_is_left_out(pool: Pool) -> None:
    """Of beta one speaker's language is known; of the two others none, so nothing is left beside them."""
    pool.language_U = [
        language if speaker == "beta/s1" else "xx" if corpus == "alpha" else None
        for language, speaker, corpus in zip(pool.language_U, pool.speaker_U, pool.corpus_U, strict=True)
    ]
    pool.speakers_of = {"xx": {s for s in pool.speaker_U if s.startswith("alpha/")}, "en": {"beta/s1"}}
    left_out = [source for source in pool.candidates() if not pool.usable(source)]
    assert left_out
    assert all(source.left_out for source in left_out)
    assert pool.sources() == [source for source in pool.candidates() if source not in left_out]


def test_on_a_gpu_the_same(work: Path, tmp_path: Path) -> None:
    """Jobs of several runs as one are never stacked."""
    shutil.copytree(work / "transfer", tmp_path / "transfer")
    next((tmp_path / "transfer/jobs").glob("*.json")).unlink()
    matrix = transferred(tmp_path / "transfer", runs(work), stacked=True)
    assert to_plain(matrix) == json.loads((work / "matrix.json").read_text())


def test_other_languages_are_other_transfers(work: Path) -> None:
    before = name_of(runs(work))
    alpha, *others = runs(work)
    alpha.utterances = tuple(replace(u, language="nl") for u in alpha.utterances)
    assert name_of([alpha, *others]) != before


def test_other_settings_are_other_transfers(work: Path, tmp_path: Path) -> None:
    of = [work / name / "disjoint" for name in ("alpha", "gamma")]
    begun(tmp_path / "alpha/disjoint", plan(work / "alpha", labels="common", epochs="3"))
    names = [name_of([Run.open(one), Run.open(of[1])]) for one in (of[0], of[0], tmp_path / "alpha/disjoint")]
    assert names[0] == names[1] != names[2]


def test_two_corpora_of_one_name_are_refused(work: Path) -> None:
    alpha, _, gamma = runs(work)
    gamma.corpus = replace(gamma.corpus, name="alpha")
    assert refusal(groups, [alpha, gamma]).startswith("transfer: two corpora of one encoder are named alpha; rename")


def test_a_corpus_is_tested_on_itself_by_its_own_folds(work: Path, pool: Pool) -> None:
    for run, where in zip(pool.runs, pool.where, strict=True):
        tested = []
        for fold, parts in enumerate(run.protocol.folds):
            tests = job_of(work, run.corpus.name, fold)["tests"]
            assert set(tests) == set(CORPORA)
            own = said(pool, tests[run.corpus.name]["members"])
            assert [id_ for _, id_ in own] == [i for i in parts.test if i in where]
            tested += own
            for other in set(CORPORA) - {run.corpus.name}:
                assert {name for name, _ in said(pool, tests[other]["members"])} == {other}
                assert len(tests[other]["members"]) == pool.corpus_U.count(other), "all of another"
        assert sorted(id_ for _, id_ in tested) == sorted(where), "each once"


# --- the matrix ---


def test_what_two_corpora_share_is_carried_over(transfer: dict[str, Any]) -> None:
    for kind in KINDS:
        mean = {
            source: {t: cell["mean"] for t, cell in row.items()} for source, row in transfer["matrix"][kind].items()
        }
        for name in CORPORA:
            assert mean[name][name] > 0.8
        assert min(mean["alpha"]["beta"], mean["beta"]["alpha"]) > 0.8
        wrong = [mean["alpha"]["gamma"], mean["beta"]["gamma"], mean["gamma"]["alpha"], mean["gamma"]["beta"]]
        assert max(wrong) < 0.3
        assert mean["all but fr"] == {"all fr": pytest.approx(0, abs=0.3)}
        for source, row in transfer["matrix"][kind].items():
            for cell in row.values():
                assert source.startswith("all but") or cell["chosen"] == [INFORMATIVE] * 3
                assert cell["by_state"].keys() == {"0", "1"}
                assert cell["low"] <= cell["mean"] <= cell["high"]
    assert transfer["metric"] == "UA"
    assert transfer["languages"] == {
        "alpha": ["de"],
        "beta": ["en"],
        "gamma": ["fr"],
    }


def test_the_cells_are_those_of_the_predictions(work: Path, pool: Pool, transfer: dict[str, Any]) -> None:
    for kind in KINDS:
        for source in pool.sources():
            jobs = [job_of(work, source.name, fold) for fold in range(3)]
            for target, cell in transfer["matrix"][kind][source.name].items():
                tests = [job["tests"][target] for job in jobs]
                for states, expected in ((cell["chosen"], cell["mean"]), ([0] * 3, cell["by_state"]["0"])):
                    predicted = [np.array(t["heads"][f"{kind} state {s}"]) for t, s in zip(tests, states, strict=True)]
                    targets = [pool.targets_U[t["members"]] for t in tests]
                    if target == source.name:
                        mean = ua(np.concatenate(targets), np.concatenate(predicted))
                    else:
                        mean = float(np.mean([ua(t, p) for t, p in zip(targets, predicted, strict=True)]))
                    assert expected == pytest.approx(mean)
            for cell in transfer["matrix"][kind][source.name].values():
                assert cell["chosen"] == [job["layer"] for job in jobs]


def test_a_fold_is_one_training_of_a_source_whatever_its_seeds(pool: Pool) -> None:
    """One fold of three is right of all that another corpus says: its speakers alone, all alike, would be certain."""
    (tested,) = (
        members for target, members in pool.tests(Source("alpha", corpus="alpha"), 0).items() if target == "gamma"
    )
    members_N = tested.numpy()
    truth_N = pool.targets_U[members_N]

    def of_fold(fold: int) -> TransferResult:
        said = TargetPredictions(members_N, {"linear state 0": truth_N if fold == 0 else 1 - truth_N})
        return TransferResult(fit=1, seconds=0.0, layer=0, tests={"gamma": said})

    pool.states = (0,)
    seed = [of_fold(fold) for fold in range(3)]
    one, three = (_cell(pool, [seed] * seeds, "gamma", "linear", [0] * 3, "UA") for seeds in (1, 3))
    assert one.mean == pytest.approx(1 / 3)
    assert (one.low, one.high) == (0, 1)
    ends = ((of.mean, of.low, of.high) for of in (one, three))
    assert next(ends) == pytest.approx(next(ends)), "seeds of one fold share its training speakers"


def test_the_layer_is_the_one_that_the_sources_own_speakers_name(work: Path, pool: Pool) -> None:
    session = Session(work / "alpha/disjoint")
    for fold in range(3):  # alpha's own run has a class more; its two others carry the same state
        scores = cross_validate(*session.training_means(fold), pool.states, pool.task, pool.runs[0].metrics["WA"])
        assert job_of(work, "alpha", fold)["layer"] == best(scores) == INFORMATIVE


def test_no_label_of_a_target_changes_a_head_or_the_choice(work: Path, tmp_path: Path) -> None:
    shutil.copytree(work / "transfer", tmp_path / "transfer", ignore=shutil.ignore_patterns("jobs"))
    turned = open_pool(tmp_path / "transfer", lambda: None, None)
    others = np.array(turned.corpus_U) != "alpha"
    turned.targets_U[others] = 1 - turned.targets_U[others]
    for source, fold in (("alpha", 1), ("all but fr", 0)):
        if source != "alpha":  # here the target is gamma alone
            turned.targets_U[np.array(turned.corpus_U) == "beta"] ^= 1
            turned._data = None
        run_transfer(turned, Job(Kind.TRANSFER, source, fold, 0))
        name = Job(Kind.TRANSFER, source, fold, 0).name
        now, before = record(tmp_path / f"transfer/jobs/{name}.json"), job_of(work, source, fold)
        assert {**now, "seconds": 0} == {**before, "seconds": 0}


def test_a_killed_transfer_goes_on_and_a_finished_one_rests(work: Path, tmp_path: Path, monkeypatch: Any) -> None:
    shutil.copytree(work / "transfer", tmp_path / "transfer")
    job = Job(Kind.TRANSFER, "all but de", 2, 0)
    path = tmp_path / f"transfer/jobs/{job.name}.json"
    path.unlink()
    monkeypatch.setattr("bas.training.loop.CHECKPOINT_SECONDS", 0.0)
    ticks: list[None] = []

    def tick() -> None:
        ticks.append(None)
        if len(ticks) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_transfer(open_pool(tmp_path / "transfer", tick, None), job)
    assert path.with_suffix(".checkpoint").exists()
    before = {p: p.stat().st_mtime_ns for p in path.parent.glob("*.json")}
    again = transferred(tmp_path / "transfer", runs(work))
    assert record(path) | {"seconds": 0} == job_of(work, "all but de", 2) | {"seconds": 0}
    assert to_plain(again) == json.loads((work / "matrix.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert not path.with_suffix(".checkpoint").exists()


# --- what is compared ---


def test_only_stores_of_one_encoder_under_common_labels_are_compared(work: Path, tmp_path: Path) -> None:
    alpha, beta, gamma = runs(work)
    assert [[r.corpus.name for r in g] for g in groups([gamma, alpha, beta])] == [["alpha", "beta", "gamma"]], (
        "in whatever order"
    )
    assert groups([alpha]) == []
    plain = [begun(tmp_path / name, plan(work / name)) for name in ("alpha", "gamma")]
    assert groups(plain) == [], "each has its own words"
    info = beta.store.info
    beta.store.info = replace(info, encoder={**info.encoder, "revision": "2"})
    assert [[r.corpus.name for r in g] for g in groups([alpha, beta, gamma])] == [["alpha", "gamma"]]
    beta.store.info = replace(info, layers=(0,))
    assert [[r.corpus.name for r in g] for g in groups([alpha, beta])] == []


def test_too_few_common_classes_are_refused(work: Path, tmp_path: Path) -> None:
    features = Corpus("delta", code=(("anger", 0.0), ("joy", 1.5)), speakers=6).extract(
        tmp_path, layers=(0, INFORMATIVE)
    )
    delta = begun(tmp_path / "delta-run/disjoint", plan(features, labels="common"))
    line = refusal(check, [runs(work)[2], delta], 1, None)
    assert "fewer than two classes are common to gamma (anger, sadness), delta (anger, happiness)" in line


def test_one_recording_in_two_corpora_is_refused(work: Path, tmp_path: Path) -> None:
    shutil.copytree(
        work, tmp_path / "copy", ignore=shutil.ignore_patterns("transfer", "disjoint", "alpha", "beta", "gamma")
    )
    rows = list(csv.reader((work / "gamma.csv").read_text().splitlines()))
    rows[3][0] = "another-name"
    (tmp_path / "copy/delta.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    for row in rows[1:3] + rows[4:]:  # the others are none of gamma's
        shutil.copy(work / row[1].replace("gamma", "alpha"), tmp_path / "copy" / row[1])
    store(tmp_path / "copy/delta.csv", tmp_path / "delta", Informative(num_states=4, dim=4), layers=(0, INFORMATIVE))
    delta = begun(tmp_path / "run/disjoint", plan(tmp_path / "delta", labels="common"))
    line = refusal(check, [runs(work)[2], delta], 1, None)
    assert line == "transfer: another-name of delta is a recording of gamma too; leave one of the two out"


def test_a_probe_of_several_corpora_reports_the_transfer(work: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(few, "DRAWS", 1)
    monkeypatch.setattr(figures, "draw", lambda folder, results, console: None)
    plans = [plan(work / name, labels="common", epochs="1") for name in ("alpha", "gamma")]
    opened = [Inputs.open(plan) for plan in plans]
    choices = [StoreChoice(i.store.folder.name, i, split(i, "speaker:3", 0)) for i in opened]
    results = probe_all(tmp_path / "run", choices, (), 1, quiet())
    (between,) = results.transfer
    for kind in KINDS:
        assert {source: list(row) for source, row in between.matrix[kind].items()} == {
            "alpha": ["alpha", "gamma"],
            "gamma": ["alpha", "gamma"],
            "all but de": ["all de"],
            "all but fr": ["all fr"],
        }
    page = (tmp_path / "run/table.md").read_text()
    assert (
        "## Transfer, fake\n\nUA on anger, sadness (labels common); 95 % intervals over the target's units and the "
        "source's trainings, of which those of one fold count as one.\n" in page
    )
    assert "\n| trained on | encoder pretrained on | alpha | gamma | all de | all fr |\n" in page
    assert "\n| all but de | unknown |  |  | " in page
    assert json.loads((tmp_path / "run/results.json").read_text())["transfer"][0]["labels"] == "common"
    assert len(list((tmp_path / "run").glob("transfer-*/jobs/*.json"))) == 4 * 3


def test_units_are_of_the_corpus(pool: Pool) -> None:
    """Speakers of two corpora have one name here, and are not one."""
    speakers = [field_of(u, "speaker") for run in pool.runs for u in run.utterances if u.id.endswith("s1anger0")]
    assert len(speakers) == 2
    assert len(set(speakers)) == 1
    assert len(set(pool.unit_U)) == 3 * 8
    assert pretraining("openai/whisper-tiny.en") == "English"
    assert pretraining("facebook/wav2vec2-xls-r-300m") == "128 languages"
    assert pretraining("facebook/hubert-large-ll60k") == "English"
    assert pretraining("utter-project/mHuBERT-147") == "147 languages"
    for other in ("someone/else", "rinna/japanese-hubert-base", "facebook/wav2vec2-base-10k-voxpopuli", "./hubert"):
        assert pretraining(other) == "unknown"
