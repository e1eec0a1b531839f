"""Probe jobs: each head ends at its own best epoch, whatever kills or shares the work, and no test label is seen."""

# mypy: disable-error-code="arg-type,index,type-arg"

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from places import ROOT
from running import begin, run_jobs
from stores import Fake, quiet, store
from torch import Tensor
from torch.nn import functional as F

from bas.runs.jobs import run_job
from bas.runs.losses import Losses
from bas.runs.plan import BEST, Job, Kind, Plan
from bas.runs.run import Run
from bas.runs.session import Session
from bas.studies.probe import few
from bas.studies.probe import jobs as probing
from bas.studies.probe.few import ALL, COUNTS, few_job, run_few
from bas.studies.probe.jobs import epochs_of, probe_job, run_probe, train_heads
from bas.training.heads import Watched
from bas.training.loop import optimise, outputs
from bas.training.settings import settings

pytestmark = pytest.mark.slow

SPACE = str(ROOT / "search_spaces/ser_bas3.py")
PLAIN = Losses(F.cross_entropy, F.cross_entropy)
CHANGES = {"epochs": "4", "stride": "1", "lr": "0.01", "batch_size": "16"}


# --- made-up stores, for other tests too ---


class Informative(Fake):
    """Hidden states that the recording spells out: each number is said by as many samples of a frame as it can have."""

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        shape = self.info.num_states, self.info.dim
        return [x.reshape(-1, *shape, 320 // (shape[0] * shape[1])).mean(3).transpose(0, 1) for x in inputs]


@dataclass(frozen=True)
class Corpus:
    """A made-up corpus: who says what how often; noise but for one state, whose first dimension tells the class.

    code: what it says of each class. voice: how loud in every state each speaker is known by. skew: every speaker says
    one class alone, but for one utterance.
    """

    name: str = "cups"
    speakers: int = 8
    code: tuple[tuple[str, float], ...] = (("a", -1.0), ("b", 1.0))
    takes: int = 3
    informative: int = 1
    states: int = 4
    dim: int = 4
    voice: float = 0.0
    skew: bool = False
    languages: tuple[str | None, ...] = (None,)

    def write(self, root: Path, seed: int = 0) -> Path:
        """The recordings and their manifest."""
        rng, path = np.random.default_rng(seed), root / f"{self.name}.csv"
        root.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["id", "audio", "label", "speaker", "language"])
            for s in range(self.speakers):
                voice = self.voice * rng.standard_normal((self.states, self.dim))
                for n, (label, tells) in enumerate(self.code):
                    takes = self.takes if not self.skew else 1 if (s + n) % len(self.code) else 2 * self.takes - 1
                    for take in range(takes):
                        id_ = f"{self.name}-s{s}{label}{take}"
                        x_TLD = 0.3 * rng.standard_normal((int(rng.integers(2, 6)), self.states, self.dim)) + voice
                        x_TLD[:, self.informative, 0] += tells
                        wave = np.repeat(x_TLD.ravel(), 320 // (self.states * self.dim))
                        soundfile.write(root / f"{id_}.wav", wave, 16_000, subtype="FLOAT")
                        language = self.languages[s % len(self.languages)] or ""
                        writer.writerow([id_, f"{id_}.wav", label, f"s{s}", language])
        return path

    def extract(self, root: Path, seed: int = 0, **request: Any) -> Path:
        """The folder of its store."""
        encoder = Informative(num_states=self.states, dim=self.dim)
        store(self.write(root, seed), root / self.name, encoder, shard_bytes=10**6, **request)
        return root / self.name


def plan(features: Path, seeds: tuple[int, ...] = (0,), labels: str | None = None, **changes: str) -> Plan:
    return Plan(str(features), (SPACE,), "mix", settings("cpu", CHANGES | changes), seeds, "cpu", labels)


def begun(folder: Path, of: Plan, rule: str = "speaker:3") -> Run:
    return begin(folder, of, rule)


def job_of(run: Run, job: Job) -> dict[str, Any]:
    """Its result but for what the clock says."""
    return run.result(job.name) | {"seconds": 0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("probing")
    return begun(root / "run", plan(Corpus(takes=4).extract(root), seeds=(0, 1)))


@pytest.fixture
def fresh(run: Run, tmp_path: Path) -> Run:
    """The same without any result."""
    return Run.open(
        shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.json.tmp", "probe-*"))
    )


def whole(run: Run, job: Job) -> dict[str, Any]:
    run_probe(Session(run.folder), job)
    return job_of(run, job)


# --- the training ---


def test_every_head_ends_with_the_weights_of_its_own_best_epoch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    session, parts = Session(run.folder), run.protocol.folds[0]
    data, fit, valid = session.data("mix", 1), session.members(parts.fit), session.members(parts.valid)
    seen: list[Tensor] = []
    keep = Watched.keep

    def watch(self: Watched, score_H: Tensor) -> None:
        seen.append(score_H.clone())
        keep(self, score_H)

    monkeypatch.setattr(Watched, "keep", watch)
    hasty = settings("cpu", CHANGES | {"epochs": "8", "lr": "0.05", "schedule": "constant"})
    states = run.store.info.layers
    trained = train_heads(data, states, PLAIN, 2, fit, valid, hasty, (0, 0), lambda: None)
    loss_EH = -torch.stack(seen)
    best = loss_EH.argmin(0)
    assert len(set(best.tolist())) > 2, "they do not agree when to stop"
    out_BHO = outputs(trained.heads, data, valid)
    for h, name in enumerate(trained.heads.names):
        loss = float(F.cross_entropy(out_BHO[:, h], data.targets_U[valid]))
        assert loss == pytest.approx(trained.valid_loss[name], rel=1e-5)
        assert loss == pytest.approx(float(loss_EH[best[h], h]), rel=1e-5)


def test_standardised_by_the_fit_part_alone(run: Run) -> None:
    session, parts = Session(run.folder), run.protocol.folds[0]
    data, fit, valid = session.data("mix", 1), session.members(parts.fit), session.members(parts.valid)
    states, short = run.store.info.layers, replace(run.plan.settings, epochs=1)
    heads = train_heads(data, states, PLAIN, 2, fit, valid, short, (0, 0), lambda: None).heads
    frames_ND = torch.cat([data.batch(u[None])[0][0] for u in fit])
    means_UD = torch.stack([data.batch(u[None])[0][0].mean(0) for u in fit])
    for standardise, x_ND in ((heads.standardise, frames_ND), (heads.standardise_mean, means_UD)):
        torch.testing.assert_close(standardise.mean_I, x_ND.mean(0), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(standardise.scale_I, 1 / x_ND.std(0, correction=0), rtol=1e-3, atol=1e-4)
    bare = train_heads(data, states, PLAIN, 2, fit, valid, replace(short, normalise="none"), (0, 0), int)
    assert (bare.heads.standardise.scale_I == 1).all()
    assert (bare.heads.standardise_mean.mean_I == 0).all()


# --- the job ---


def test_the_result_is_what_the_heads_say(run: Run) -> None:
    job = probe_job(0, 0)
    result, parts = whole(run, job), run.protocol.folds[0]
    assert result["fit"] == len(parts.fit)
    targets = {part: run.targets[[run.position[i] for i in ids]] for part, ids in parts.parts().items()}
    heads = result["heads"]
    assert len(heads) == 2 * (4 + 3 + 2)
    for name, of in heads.items():
        predictions = np.array(of["test"]["predictions"])
        assert of["test"]["metrics"]["WA"] == pytest.approx(float((predictions == targets["test"]).mean()))
        assert set(of["valid"]) == {"loss", "WA", "UA", "WF1", "MF1"}
        assert len(of["mix"]) == 4, name
    reached = [float(heads[f"linear state {s}"]["test"]["metrics"]["WA"]) for s in range(4)]
    assert reached[1] > 0.9
    assert max(reached[0], reached[2], reached[3]) < 0.8


def test_a_killed_job_goes_on_and_ends_with_the_same_numbers(run: Run, fresh: Run, monkeypatch: Any) -> None:
    job = probe_job(1, 1)
    expected = whole(run, job)
    monkeypatch.setattr("bas.training.loop.CHECKPOINT_SECONDS", 0.0)
    done: list[Any] = []

    def tick() -> None:
        done.append(None)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_probe(Session(fresh.folder, tick), job)
    checkpoint = fresh.folder / "jobs" / f"{job.name}.checkpoint"
    assert checkpoint.exists()
    again: list[None] = []
    run_probe(Session(fresh.folder, lambda: again.append(None)), job)
    assert len(again) == run.plan.settings.epochs - 2, "two epochs are not done again"
    assert job_of(fresh, job) == expected
    assert not checkpoint.exists()


def test_the_number_of_workers_changes_nothing(run: Run, fresh: Run) -> None:
    """Of two here, the second comes after the first; of two workers one has it alone, for the other is done."""
    jobs = [probe_job(f, 0) for f in (0, 1)]
    run_jobs(run, jobs, 4, 1, quiet(), "probes", work=run_probe)
    shutil.copy(run.job_path(jobs[0].name), fresh.job_path(jobs[0].name))
    run_jobs(fresh, jobs, 4, 2, quiet(), "probes", work=run_probe)
    assert job_of(fresh, jobs[1]) == job_of(run, jobs[1])
    assert fresh.result(jobs[1].name)["seconds"] != run.result(jobs[1].name)["seconds"], "trained again"


def test_a_smaller_share_is_part_of_a_larger(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[tuple[int, int], tuple[set[int], int]] = {}

    class Enough(Exception):  # nothing is to be trained
        pass

    def instead(data: Any, states: Any, loss: Any, outputs: int, fit: Tensor, valid: Tensor, *rest: Any) -> None:
        seen[seed, percent] = set(fit.tolist()), rest[0].epochs
        assert torch.equal(valid, session.members(run.protocol.folds[2].valid)), "the valid part is never thinned"
        raise Enough

    monkeypatch.setattr(probing, "train_heads", instead)
    session = Session(run.folder)
    for seed in (0, 1):
        for percent in (10, 25, 50):
            with pytest.raises(Enough):
                run_probe(session, probe_job(2, seed, percent))
    fit = set(session.members(run.protocol.folds[2].fit).tolist())
    for seed in (0, 1):
        tenth, quarter, half = (seen[seed, percent][0] for percent in (10, 25, 50))
        assert tenth < quarter < half < fit
        assert [len(part) for part in (tenth, quarter, half)] == [round(len(fit) * p) for p in (0.1, 0.25, 0.5)]
        assert abs(int(run.targets[list(half)].sum()) - len(half) / 2) <= 1, "each class keeps its share"
    assert seen[0, 50][0] != seen[1, 50][0], "each seed draws its own"
    assert [seen[0, p][1] for p in (10, 25, 50)] == [13, 8, 6], "epochs grow with the root"
    assert epochs_of(run.plan.settings, 100) == run.plan.settings.epochs


# --- what no choice may see ---


def test_the_labels_of_the_test_part_change_no_head_and_no_choice(tmp_path: Path, monkeypatch: Any) -> None:
    """One corpus twice; the second has the labels of fold 0's test utterances turned round."""
    monkeypatch.setattr(few, "DRAWS", 2)
    corpus, jobs = Corpus(speakers=6), (probe_job(0, 0), few_job(0))
    of_runs = []
    for name in ("as it is", "turned"):
        features = corpus.extract(tmp_path / name, layers=(0, 1))
        run = begun(tmp_path / name / "run", plan(features))
        if name == "turned":
            manifest, tested = tmp_path / name / "cups.csv", run.protocol.folds[0].test
            rows = list(csv.reader(manifest.read_text().splitlines()))
            for row in rows[1:]:
                row[2] = "ba"["ab".index(row[2])] if row[0] in tested else row[2]
            manifest.write_text("\n".join(map(",".join, rows)) + "\n")
        session = Session(run.folder)
        run_probe(session, jobs[0])
        run_few(session, jobs[1])
        of_runs.append([job_of(run, job) for job in jobs])
    (probe, layers), (turned, layers_turned) = of_runs
    assert layers == layers_turned
    for name, head in probe["heads"].items():
        other = turned["heads"][name]
        assert (head["valid"], head["mix"]) == (other["valid"], other["mix"])
        assert head["test"]["predictions"] == other["test"]["predictions"]
        assert head["test"]["metrics"]["WA"] == pytest.approx(1 - other["test"]["metrics"]["WA"]), "but the score"


@pytest.mark.parametrize("part", ["test", "valid"])
def test_what_other_features_of_a_part_change(run: Run, fresh: Run, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the test part nothing but its predictions; of the valid part which epoch is kept, and no training."""
    job, losses = probe_job(0, 0), []

    def noting(*arguments: Any) -> Any:
        records, seconds = optimise(*arguments)
        losses.append([record["loss"] for record in records])
        return records, seconds

    monkeypatch.setattr("bas.training.heads.optimise", noting)
    run.job_path(job.name).unlink(missing_ok=True)
    expected = whole(run, job)
    session = Session(fresh.folder)
    data = session.data("mix", 1)
    for u in session.members(getattr(run.protocol.folds[0], part)).tolist():
        span = slice(int(data.starts_U[u]), int(data.starts_U[u] + data.lengths_U[u]))
        data.frames_ND[span] = 3 - data.frames_ND[span]
    run_probe(session, job)
    result = job_of(fresh, job)
    now, before = ({name: head[part] for name, head in of["heads"].items()} for of in (result, expected))
    assert now != before
    assert losses[0] == losses[1]
    if part == "test":
        kept = [{n: (h["valid"], h["mix"]) for n, h in of["heads"].items()} for of in (result, expected)]
        assert kept[0] == kept[1]


def test_few_labels_are_of_fit_and_valid_alone(run: Run, fresh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def note(x_ULD: Any, targets_U: Any, units_U: Any, states: Any, *rest: Any) -> dict[int, float]:
        drawn.append((x_ULD, targets_U, units_U))
        return dict.fromkeys(states, 0.0)

    monkeypatch.setattr(few, "cross_validate", note)
    session = Session(fresh.folder)
    run_few(session, few_job(1))
    parts = run.protocol.folds[1]
    data = session.data("mix", 1)
    open_ = {i: data.mean_frames(session.members((i,))).numpy().tobytes() for i in (*parts.fit, *parts.valid)}
    known = {bytes_: run.utterances[run.position[i]] for i, bytes_ in open_.items()}
    assert len(drawn) == few.DRAWS * 2 + 1, "20 of a class there are not"
    ids = []
    for x_ULD, targets_U, units_U in drawn:
        utterances = [known[x_LD.tobytes()] for x_LD in x_ULD]
        assert [u.speaker for u in utterances] == units_U.tolist()
        assert [run.outputs[t] for t in targets_U] == [u.label for u in utterances]
        ids.append({u.id for u in utterances})
    assert ids[-1] == set(open_), "at last, all"
    five, ten = (ids[n * few.DRAWS : (n + 1) * few.DRAWS] for n in range(2))
    assert [len(i) for i in five + ten] == [10] * few.DRAWS + [20] * few.DRAWS
    assert all(a < b for a, b in zip(five, ten, strict=True)), "a draw grows"
    assert len({tuple(sorted(i)) for i in five}) > few.DRAWS // 2


def test_all_labels_name_the_layer_that_a_run_takes(fresh: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few, "DRAWS", 1)
    session = Session(fresh.folder)
    run_few(session, few_job(0))
    run_job(session, Job(Kind.LAYER, BEST, 0, 0))
    layers = fresh.result(few_job(0).name)["layers"]
    assert list(layers) == [*map(str, COUNTS[:2]), ALL], "20 of a class there are not"
    assert layers[ALL] == [fresh.result("layer-best-fold0-seed0")["layer"]] == [1]
    before = json.dumps(layers)
    run_few(session, few_job(0))
    assert json.dumps(fresh.result(few_job(0).name)["layers"]) == before
