"""Jobs of the words study: where units stand, what each input is, and that nothing but the fit part is learnt from."""

# mypy: disable-error-code="attr-defined,index"

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from records import rewrite
from running import begin, run_jobs
from stores import quiet, store
from test_probing import SPACE, Informative

from bas.features.derive import beside, derive, frame_times
from bas.features.store import FeatureStore
from bas.runs.plan import Plan
from bas.runs.run import Run
from bas.speech.words import random_like, word_segments
from bas.studies.words import jobs as words_training
from bas.studies.words.heads import ALONE, TEXT, WordHeads
from bas.studies.words.jobs import (
    ATTENTION,
    DERIVED,
    FRAMES,
    INSIDE,
    LEXICON,
    RANDOM,
    RAW,
    RECORD,
    WORDS,
    Record,
    WordsSession,
    middles,
    parts_of,
    rows,
    run_words,
    words_job,
)
from bas.studies.words.lexicon import lexicon
from bas.training.loop import outputs
from bas.training.placement import Placement
from bas.training.settings import settings

pytestmark = pytest.mark.slow

CHANGES = {"epochs": "3", "stride": "2", "lr": "0.01", "batch_size": "16"}
FRAME = 320  # samples

SENTENCES = (
    "der hund bellt laut",
    "die katze schläft heute lange",
    "das auto fährt schnell",
    "wir essen gern kuchen",
    "morgen regnet wieder alles",
    "ein vogel singt draussen",
)
"""No two share a word, so every word has neighbours."""


@dataclass(frozen=True)
class Spoken:
    """A made-up corpus: who says which sentence how. The words' frames tell it in one state, the pauses mislead.

    times: whether it knows when each word is said.
    """

    name: str = "talk"
    speakers: int = 6
    states: int = 2
    dim: int = 4
    informative: int = 1
    texts: bool = True
    times: bool = True

    def write(self, root: Path) -> Path:
        rng, path = np.random.default_rng(0), root / f"{self.name}.csv"
        root.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "audio", "label", "speaker", "text", "words"])
            for s in range(self.speakers):
                voice = rng.standard_normal((self.states, self.dim)) * np.arange(self.dim) / self.dim
                for n, sentence in enumerate(SENTENCES):
                    for label, tells in (("a", -1.0), ("b", 1.0)):
                        frames: list[np.ndarray] = []
                        words: list[list[Any]] = []
                        for word in sentence.split():
                            silent, said = (int(rng.integers(1, 4)) for _ in range(2))
                            x_TLD = 0.3 * rng.standard_normal((silent + said, self.states, self.dim)) + voice
                            x_TLD[silent:, :, 1] += rng.standard_normal() * 0.1 + len(word) % 3
                            x_TLD[:silent, self.informative, 0] -= tells
                            x_TLD[silent:, self.informative, 0] += tells
                            begin = len(frames) + silent
                            words.append([begin * 0.02, (begin + said) * 0.02, word])
                            frames += list(x_TLD)
                        id_ = f"{self.name}-s{s}t{n}{label}"
                        wave = np.repeat(np.stack(frames).ravel(), FRAME // (self.states * self.dim)) / 8
                        soundfile.write(root / f"{id_}.wav", wave, 16_000, subtype="FLOAT")
                        text = sentence if self.texts else ""
                        word_cell = json.dumps(words) if self.times else ""
                        writer.writerow([id_, f"{id_}.wav", label, f"s{s}", text, word_cell])
        return path

    def extract(self, root: Path, **request: Any) -> Path:
        """The folder of its store."""
        encoder = Informative(num_states=self.states, dim=self.dim)
        store(self.write(root), root / self.name, encoder, shard_bytes=10**6, **request)
        return root / self.name


def plan(features: Path, seeds: tuple[int, ...] = (0,), **changes: str) -> Plan:
    layer: int | str = "mix" if len(FeatureStore(features).info.layers) > 1 else FeatureStore(features).info.layers[0]
    return Plan(str(features), (SPACE,), layer, settings("cpu", CHANGES | changes), seeds, "cpu")


def begun(folder: Path, of: Plan) -> Run:
    """What `words.carry_out` makes before it trains."""
    run = begin(folder / "emotion", of, "speaker:3")
    features, utterances = Path(of.features), run.corpus.utterances
    words = word_segments(utterances)
    seconds = {u.id: run.store.info.recordings[u.id][1] / 16_000 for u in utterances}
    segments = {"words": words, "random": random_like(words, seconds)}
    inputs = {name: str(beside(features, *how)) for name, how in DERIVED.items()}
    for name, (whose, pooling) in DERIVED.items():
        derive(features, Path(inputs[name]), segments[whose], pooling, quiet())
    lexical = lexicon("random", utterances, words, torch.device("cpu"))
    ids, starts = list(lexical.starts), list(lexical.starts.values())
    np.savez(folder / LEXICON, vectors=lexical.vectors_WE, ids=np.array(ids), starts=np.array(starts))
    record = Record(inputs, words.digest, segments["random"].digest, "random", True)
    rewrite(folder / RECORD, record.to_dict())
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("words")
    return begun(root / "run", plan(Spoken().extract(root), seeds=(0, 1)))


@pytest.fixture
def fresh(run: Run, tmp_path: Path) -> Run:
    """The same without any result."""
    whole = shutil.copytree(run.folder.parent, tmp_path / "run", ignore=shutil.ignore_patterns("words-*"))
    return Run.open(whole / "emotion")


def result(run: Run, row: str, fold: int = 0, seed: int = 0) -> dict[str, Any]:
    """Of a job that is done here, but for what the clock says."""
    job = words_job(row, fold, seed)
    run_words(WordsSession(run.folder), job)
    return run.result(job.name) | {"seconds": 0}


# --- the inputs ---


def test_rows() -> None:
    assert len(rows(True)) == 6 + 9 + 1
    assert rows(False) == ["raw", "inside", "words", "random", "centre", "attention"]
    assert parts_of("words+speech asks") == ("words", "speech asks")
    assert parts_of("raw") == ("raw", ALONE)
    assert parts_of("text") == ("text", TEXT)


def test_a_unit_stands_where_the_middle_of_its_frames_does() -> None:
    assert middles(9, 4).tolist() == [1, 5, 8]
    assert middles(8, 3).tolist() == [1, 4, 6]
    assert middles(3, 1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_unit_knows_its_word(run: Run, stride: int) -> None:
    session = WordsSession(run.folder)
    session.run.plan = replace(run.plan, settings=replace(run.plan.settings, stride=stride))
    fold = run.protocol.folds[0]
    for name in (RAW, INSIDE, ATTENTION, WORDS, RANDOM):
        placed = session.units(name, fold)
        for u, utterance in enumerate(run.utterances):
            span = slice(int(placed.data.starts_U[u]), int(placed.data.starts_U[u] + placed.data.lengths_U[u]))
            held, words = placed.holder_N[span].tolist(), utterance.words
            frames = run.store.num_frames(utterance.id)
            if name == RANDOM:
                assert held == [0] * len(words)
            elif name == WORDS:
                assert held == list(range(1, len(words) + 1))
            elif name == RAW:
                centres = frame_times(frames, 50.0)[middles(frames, stride)]
                expected = [1 + next((w for w, x in enumerate(words) if x.start <= t < x.end), -1) for t in centres]
                assert held == expected
                assert {0, 1} < set(held) or stride > 1
            else:
                inside = [1 + w for w, x in enumerate(words) for _ in range(round((x.end - x.start) * 50))]
                assert held == [inside[m] for m in middles(len(inside), stride)]
                assert 0 not in held


def test_columns_behind_a_unit(run: Run) -> None:
    session, fold = WordsSession(run.folder), run.protocol.folds[0]
    placed, members = session.units(INSIDE, fold), session.members(fold.fit)[:3]
    (x_BTC, mask_BT, _), *_ = placed.batches([members])
    (plain_BTD, _, _), *_ = placed.data.batches([members])
    assert torch.equal(x_BTC[..., :-2], plain_BTD)
    assert not x_BTC[~mask_BT].any()
    assert (~mask_BT).any()
    for b, u in enumerate(members.tolist()):
        start, length = int(placed.data.starts_U[u]), int(placed.data.lengths_U[u])
        assert x_BTC[b, :length, -2].tolist() == placed.holder_N[start : start + length].tolist()
        assert set(x_BTC[b, :length, -1].tolist()) == {float(u)}


@pytest.mark.parametrize("row", rows(True))
def test_neither_company_nor_streaming_changes_an_output(run: Run, row: str) -> None:
    name, fusion = parts_of(row)
    of_sizes = []
    for where, size in (("memory", 64), ("memory", 1), ("store", 5)):
        session = WordsSession(run.folder, placement=Placement(where, 2**30))
        parts = run.protocol.folds[0]
        fit, test, placed = session.members(parts.fit), session.members(parts.test), session.units(name, parts)
        torch.manual_seed(0)
        states = () if fusion == TEXT else run.store.info.layers
        texts = None if fusion == ALONE else session.texts_of(fit)
        heads = WordHeads(states, placed.data.dim, 2, fusion, texts, name == ATTENTION).eval()
        for p in heads.parameters():
            torch.nn.init.normal_(p, std=0.3)
        if states:
            heads.standardise.set(*placed.data.moments(fit))
        of_sizes.append(outputs(heads, placed, test, size))
    assert float(of_sizes[0].std(0).min()) > 1e-3
    for other in of_sizes[1:]:
        torch.testing.assert_close(other, of_sizes[0], rtol=1e-4, atol=1e-4)


def test_one_input_is_held_at_a_time_and_the_words(run: Run) -> None:
    session, fold = WordsSession(run.folder), run.protocol.folds[0]
    for name in (RAW, INSIDE, RANDOM, WORDS):
        session.units(name, fold)
    assert list(session._units) == [RANDOM, WORDS]
    session.units(RAW, fold)
    assert list(session._units) == [WORDS, RAW]


def test_lexical_vectors_are_standardised_by_the_fit_part(run: Run) -> None:
    session, fit = WordsSession(run.folder), WordsSession(run.folder).members(run.protocol.folds[1].fit)
    made, raw = session.texts_of(fit), session.texts
    text_BWE, mask_BW = made.of(fit)
    fit_NE = text_BWE[mask_BW]
    torch.testing.assert_close(fit_NE.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(fit_NE.std(0, correction=0), torch.ones(64), atol=1e-3, rtol=0)
    unknown = replace(raw, vectors_NE=raw.vectors_NE.clone())
    unknown.vectors_NE[:3] = 0
    session.texts = unknown
    assert not session.texts_of(fit).vectors_NE[:3].any(), "a word that nobody knows is the average word"
    session.run.plan = replace(run.plan, settings=replace(run.plan.settings, normalise="none"))
    assert session.texts_of(fit) is unknown


# --- the job ---


@pytest.mark.parametrize("row", ["words", "raw+speech asks", "attention", "text"])
def test_the_result_is_what_the_heads_say(run: Run, row: str) -> None:
    job_result, parts = result(run, row), run.protocol.folds[0]
    assert job_result["fit"] == len(parts.fit)
    targets = run.targets[[run.position[i] for i in parts.test]]
    assert list(job_result["heads"]) == (["text"] if row == "text" else ["state 0", "state 1"])
    for of in job_result["heads"].values():
        predictions = np.array(of["test"]["predictions"])
        assert of["test"]["metrics"]["WA"] == pytest.approx(float((predictions == targets).mean()))
        assert set(of["valid"]) == {"loss", "WA", "UA", "WF1", "MF1"}
    assert job_result["units"] == pytest.approx(
        {"words": 4.17, "text": 4.17, "attention": 4.4, "raw+speech asks": 8.6}[row], abs=0.6
    )


def test_words_tell_what_pauses_hide(run: Run) -> None:
    heads_of = {row: result(run, row)["heads"] for row in ("raw", "inside", "words", "attention", "text")}
    reached = {row: heads["state 1"]["test"]["metrics"]["WA"] for row, heads in heads_of.items() if row != "text"}
    assert min(reached["words"], reached["inside"], reached["attention"]) > 0.85, reached
    assert heads_of["words"]["state 0"]["test"]["metrics"]["WA"] < 0.75
    assert heads_of["text"]["text"]["test"]["metrics"]["WA"] == pytest.approx(0.5), (
        "both labels are said in every sentence"
    )


@pytest.mark.parametrize("row", ["words+text asks", "attention"])
def test_a_killed_job_goes_on_and_ends_with_the_same_numbers(run: Run, fresh: Run, row: str, monkeypatch: Any) -> None:
    expected, job = result(run, row, 1, 1), words_job(row, 1, 1)
    monkeypatch.setattr("bas.training.loop.CHECKPOINT_SECONDS", 0.0)
    done: list[Any] = []

    def tick() -> None:
        done.append(None)
        if len(done) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_words(WordsSession(fresh.folder, tick), job)
    checkpoint = fresh.folder / "jobs" / f"{job.name}.checkpoint"
    assert checkpoint.exists()
    again: list[None] = []
    run_words(WordsSession(fresh.folder, lambda: again.append(None)), job)
    assert len(again) == run.plan.settings.epochs - 1, "an epoch is not done again"
    assert fresh.result(job.name) | {"seconds": 0} == expected
    assert not checkpoint.exists()


def test_the_number_of_workers_changes_nothing(run: Run, fresh: Run) -> None:
    jobs = [words_job("words+concatenated", f, 0) for f in (0, 1)]
    expected = [result(run, "words+concatenated", f) for f in (0, 1)]
    run_jobs(fresh, jobs, 3, 2, quiet(), "words", work=run_words, open=WordsSession)
    assert [fresh.result(job.name) | {"seconds": 0} for job in jobs] == expected


@pytest.mark.parametrize("part", ["test", "valid"])
@pytest.mark.parametrize("row", ["words+speech asks", "attention"])
def test_what_other_features_of_a_part_change(
    run: Run, fresh: Run, part: str, row: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the test part nothing but its predictions; of the valid part which epoch is kept, and no training."""
    kept: list[Any] = []
    train = words_training.train

    def noting(*arguments: Any) -> Any:
        kept.append(train(*arguments))
        return kept[-1]

    monkeypatch.setattr(words_training, "train", noting)
    run.job_path(words_job(row, 0, 0).name).unlink(missing_ok=True)
    expected, session = result(run, row), WordsSession(fresh.folder)
    for name in {parts_of(row)[0], WORDS}:
        data = session.units(name, run.protocol.folds[0]).data
        for u in session.members(getattr(run.protocol.folds[0], part)).tolist():
            span = slice(int(data.starts_U[u]), int(data.starts_U[u] + data.lengths_U[u]))
            data.frames_ND[span] = 3 - 4 * data.frames_ND[span]
    job = words_job(row, 0, 0)
    run_words(session, job)
    changed = fresh.result(job.name)
    now, before = ({name: head[part] for name, head in of["heads"].items()} for of in (changed, expected))
    assert now != before
    for own, other in zip(*(trained.heads.buffers() for trained in kept), strict=True):
        assert torch.equal(own, other), "standardised by the fit part alone"
    if part == "test":
        valid = [{name: head["valid"] for name, head in of["heads"].items()} for of in (changed, expected)]
        assert valid[0] == valid[1]
        for own, other in zip(*(trained.heads.parameters() for trained in kept), strict=True):
            assert torch.equal(own, other)


def test_attention_is_standardised_as_the_means_are(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, WordHeads] = {}

    class Enough(Exception):  # nothing is to be trained
        pass

    def instead(heads: WordHeads, *rest: Any) -> None:
        made[row] = heads
        raise Enough

    monkeypatch.setattr(words_training, "train", instead)
    for row in ("words", "attention", "inside"):
        with pytest.raises(Enough):
            run_words(WordsSession(run.folder), words_job(row, 2, 0))
    scales = {row: heads.standardise.scale_I for row, heads in made.items()}
    assert torch.equal(scales["words"], scales["attention"])
    assert not torch.allclose(scales["words"], scales["inside"], rtol=0.02)


def test_by_speaker(run: Run, fresh: Run) -> None:
    """A training speaker's units have the mean and deviation of the average one."""
    session, fold = WordsSession(fresh.folder), run.protocol.folds[0]
    plain = session.units(WORDS, fold)
    session.run.plan = replace(run.plan, settings=replace(run.plan.settings, normalise="speaker"))
    moved = session.units(WORDS, fold)
    speakers = sorted({run.utterances[int(u)].speaker or "" for u in session.members(fold.fit)})
    means = []
    for data in (plain.data, moved.data):
        own = [
            data.moments(
                torch.tensor([u for u in session.members(fold.fit).tolist() if run.utterances[u].speaker == s])
            )
            for s in speakers
        ]
        means.append(torch.stack([mean_D for mean_D, _ in own]).std(0).max())
    assert float(means[0]) > 0.01
    assert float(means[1]) < 0.01 * float(means[0])
    assert moved.holder_N is plain.holder_N


def test_frames_alone_are_averaged(run: Run) -> None:
    session, fold = WordsSession(run.folder), run.protocol.folds[0]
    for name in (*FRAMES, WORDS, RANDOM):
        lengths = [session.stores[name].num_frames(u.id) for u in run.utterances]
        halved = [-(-n // 2) for n in lengths] if name in FRAMES else lengths
        assert session.units(name, fold).data.lengths_U.tolist() == halved
    assert session.units(TEXT, fold).data.lengths_U.tolist() == [len(u.words) for u in run.utterances]
