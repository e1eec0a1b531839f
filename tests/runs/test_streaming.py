"""Where features lie changes no number: streamed is resident, within the memory allowed."""

# mypy: disable-error-code="assignment,attr-defined,misc"

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile
import torch
from records import record, rewrite
from torch import Tensor, nn
from torch.nn import functional as F

from bas.cli.main import main
from bas.corpora import Corpus, Utterance
from bas.features.shard import Contents, shard_path, write_shard
from bas.features.store import FeatureStore, StoreInfo
from bas.protocols import Fold, Protocol
from bas.runs.jobs import run_job
from bas.runs.plan import BEST, Job, Kind, Plan
from bas.runs.run import Inputs, Run
from bas.runs.session import Session
from bas.runs.spaces import load_space
from bas.runs.start import _made_of
from bas.studies.compare import study
from bas.training.batches import AHEAD, CPU, Data, Stored, by_speaker, load, sizes
from bas.training.loop import optimise, outputs, seed_everything
from bas.training.placement import Placement
from bas.training.settings import KINDS, PRESETS

pytestmark = pytest.mark.slow

ANYONE = """from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace
from bas.tasks import Classification

space = SearchSpace(slots={"a": {"FFN": FFN}}, pool=MeanPool)
task = Classification(disjoint=())
"""

ENCODER = {"name": "made", "revision": "1", "input": "made", "precision": "float32", "frame_rate": 50.0}


def write_store(
    folder: Path, lengths: list[int], dim: int, dtype: str, per_shard: int, layers: tuple[int, ...]
) -> Path:
    """Random frames, far from zero."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    encoder = {**ENCODER, "dim": dim, "num_states": 4, "sample_rate": 16_000, "model_type": "made"}
    ids = [f"u{i:04d}" for i in range(len(lengths))]
    shards = [tuple(ids[i : i + per_shard]) for i in range(0, len(ids), per_shard)]
    recordings = {id_: (f"hash of {id_}", 320 * n) for id_, n in zip(ids, lengths, strict=True)}
    for index, held in enumerate(shards):
        frames = [recordings[i][1] // 320 for i in held]
        blocks = [[rng.normal(3 + layer, 2, (n, dim)).astype(dtype) for n in frames] for layer in layers]
        crc32 = np.array([[zlib.crc32(b.tobytes()) for b in row] for row in blocks], np.uint32)
        digests = tuple(recordings[i][0] for i in held)
        contents = Contents(encoder, dtype, layers, held, np.cumsum([0, *frames]), crc32, digests, {})
        write_shard(shard_path(folder, index), contents, lambda layer, u, blocks=blocks: blocks[layers.index(layer)][u])
    info = StoreInfo("made", ".", encoder, layers, tuple(shards), recordings, {}, "cpu", dtype)
    rewrite(folder / "store.json", info.to_dict())
    return folder


LENGTHS = np.random.default_rng(1).integers(1, 60, 43).tolist()


@pytest.fixture(scope="module", params=["float16", "float32"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return FeatureStore(write_store(tmp_path_factory.mktemp("store") / "made", LENGTHS, 6, request.param, 5, (0, 3)))


def both(store: FeatureStore, stride: int = 1) -> tuple[Data, Data]:
    """The resident and the streamed; more utterances than one piece holds, in an order that is not the store's."""
    ids = store.ids[::-1]
    targets = np.arange(len(ids)) % 2
    resident, streamed = (load(store, ids, [3], stride, targets, where, CPU) for where in ("memory", "store"))
    assert isinstance(resident.frames_ND, Tensor)
    assert isinstance(streamed.frames_ND, Stored)
    return resident, streamed


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("bas.training.batches.PIECE_BYTES", 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- streamed is resident ---


@pytest.mark.parametrize("stride", [1, 4, 9])
def test_streamed_is_resident_bit_for_bit(store: FeatureStore, stride: int) -> None:
    resident, streamed = both(store, stride)
    assert torch.equal(resident.means_UD, streamed.means_UD)
    assert torch.equal(resident.lengths_U, streamed.lengths_U)
    assert resident.dim == streamed.dim == 6
    for seed in range(5):
        members = torch.randperm(43, generator=torch.Generator().manual_seed(seed))[: 1 + 8 * seed]
        for one, other in zip(resident.batch(members), streamed.batch(members), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
        for one, other in zip(resident.moments(members), streamed.moments(members), strict=True):
            assert torch.equal(one, other)


def test_both_are_what_the_store_holds(store: FeatureStore) -> None:
    for data in both(store):
        x_BTD, mask_BT, targets_B = data.batch(torch.tensor([4, 0, 17]))
        for row, u in enumerate((4, 0, 17)):
            x_TD = store.read(store.ids[::-1][u], 3)
            assert np.array_equal(x_BTD[row, : len(x_TD)].numpy(), x_TD.astype(np.float32))
            assert bool((x_BTD[row, len(x_TD) :] == 0).all())
            assert int(mask_BT[row].sum()) == len(x_TD)
            assert torch.equal(
                data.means_UD[u], torch.from_numpy(x_TD.astype(np.float32).mean(axis=0, dtype=np.float32))
            )
        assert targets_B.tolist() == [0, 0, 1]


def test_moments_are_those_of_earlier_runs(store: FeatureStore) -> None:
    """Utterance by utterance in float64: `corpus` is bit for bit what `normalise=True` was."""
    members = torch.randperm(43)[:30]
    for data in both(store, 4):
        count, total, squares = 0, 0.0, 0.0
        for x_TD in data._frames(members):
            x_TD = x_TD.double()
            count, total, squares = count + len(x_TD), total + x_TD.sum(0), squares + x_TD.square().sum(0)
        mean_D = total / count
        deviation_D = (squares / count - mean_D.square()).clamp_min(0).sqrt()
        assert all(map(torch.equal, data.moments(members), (mean_D.float(), deviation_D.float())))


class Small(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Linear(dim, 8), nn.Dropout(0.2), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        out: Tensor = self.map(x_BTD.sum(1) / mask_BT.sum(1, keepdim=True))
        return out


def trained(data: Data, **more: Any) -> tuple[Small, list[dict[str, Any]], Tensor]:
    members = torch.arange(0, len(data.lengths_U), 2)
    seed_everything(0)
    model = Small(data.dim)

    def forward(x_BTD: Tensor, mask_BT: Tensor, temperature: float) -> Tensor:
        return model(x_BTD, mask_BT)

    setting = replace(PRESETS["cpu"], epochs=3, batch_size=4)
    records, _ = optimise(
        model, forward, F.cross_entropy, data, members, setting, 0, lambda epoch: {"loss": epoch.loss}, **more
    )
    return model, records, outputs(model, data, members.flip(0), 5)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_training_ends_with_the_same_bits(store: FeatureStore, stride: int) -> None:
    resident, streamed = both(store, stride)
    (one, one_records, one_out), (other, other_records, other_out) = trained(resident), trained(streamed)
    assert one_records == other_records
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    assert torch.equal(one_out, other_out)


# --- reading ahead ---


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("ThreadPoolExecutor")]


def test_a_thread_reads_two_batches_ahead_and_ends(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, streamed = both(store)
    read: list[int] = []
    real = Data.batch

    def batch(self: Data, members_B: Tensor) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        read.append(int(members_B[0]))
        return real(self, members_B)

    monkeypatch.setattr(Data, "batch", batch)
    planned = [torch.tensor([u, u + 1]) for u in range(20)]
    given = streamed.batches(planned)
    for seen, (x_BTD, _, _) in enumerate(given, 1):
        time.sleep(0.02)
        assert seen <= len(read) <= seen + AHEAD, "bounded"
        assert seen > 17 or len(read) > seen, "but ahead"
        assert torch.equal(x_BTD, real(streamed, planned[seen - 1])[0])
    assert read == list(range(20))
    assert not readers()

    given = streamed.batches(planned)
    next(given)
    given.close()
    assert not readers()


def test_an_error_while_reading_reaches_the_caller(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    _, streamed = both(store)
    real, calls = FeatureStore.gather, []

    def gather(self: FeatureStore, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 20:
            raise OSError("the disk is gone")
        return real(self, *arguments)

    monkeypatch.setattr(FeatureStore, "gather", gather)
    with pytest.raises(OSError, match="the disk is gone"):
        trained(streamed)
    assert not readers()


def test_an_error_while_training_ends_the_thread(store: FeatureStore) -> None:
    def stops(*_: Any) -> Tensor:
        raise RuntimeError("no gradient")

    _, streamed = both(store)
    with pytest.raises(RuntimeError, match="no gradient"):
        optimise(Small(6), stops, F.cross_entropy, streamed, torch.arange(43), PRESETS["cpu"], 0, lambda epoch: {})
    assert not readers()


def test_what_is_resident_needs_no_thread(store: FeatureStore) -> None:
    resident, _ = both(store)
    given = resident.batches([torch.arange(3), torch.arange(4)])
    next(given)
    assert not readers()


# --- the memory it takes ---

CHILD = """
import re, sys
from pathlib import Path
import numpy as np, torch
from bas.training.placement import place
from test_streaming import CPU, FeatureStore, load, outputs, sizes, trained
torch.set_num_threads(1)

def memory(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

folder, small, allowed, bounded = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "bounded"
trained(load(FeatureStore(small), FeatureStore(small).ids, [3], 1, np.zeros(40, int), "store", CPU))  # what torch loads
store = FeatureStore(folder)
placed, line = place(*sizes(store, store.ids, 1, 4), CPU, 1, allowed / 2**30)
assert placed.where == "store", line
store.mapped_bytes = placed.mapped if bounded else 2**40
before = memory("VmRSS")
data = load(store, store.ids, [3], 1, np.arange(len(store.ids)) % 2, placed.where, CPU)
loaded = memory("VmHWM") - before
everyone = torch.arange(len(store.ids))
data.moments(everyone)
model, _, _ = trained(data)
outputs(model, data, everyone)
print(loaded, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak")
def test_a_store_larger_than_what_is_allowed_stays_within_it(tmp_path: Path) -> None:
    """Mapped pages of files count. Unbounded they do not stay within it: else this would measure nothing."""
    lengths = np.random.default_rng(2).integers(50, 100, 1600).tolist()
    large = write_store(tmp_path / "large", lengths, 256, "float32", 100, (3,))
    small = write_store(tmp_path / "small", lengths[:40], 256, "float32", 5, (3,))
    allowed = 80 * 2**20
    layer = 4 * 256 * sum(lengths)
    assert layer > 1.4 * allowed
    peaks = {}
    for how in ("bounded", "unbounded"):
        command = [sys.executable, "-c", CHILD, str(large), str(small), str(allowed), how]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        peaks[how] = [int(n) for n in done.stdout.split()]
    assert max(peaks["bounded"]) <= allowed
    assert min(peaks["unbounded"]) > allowed


def test_sizes_are_of_the_frames_after_the_stride(store: FeatureStore) -> None:
    item = 2 if store.info.dtype == "float16" else 4
    means = 43 * 6 * 4
    assert sizes(store, store.ids, 1, 32)[0] == sum(LENGTHS) * 6 * item + means
    assert sizes(store, store.ids, 4, 32)[0] == sum(-(-n // 4) for n in LENGTHS) * 6 * item + means
    assert sizes(store, store.ids, 4, 32)[1] < sizes(store, store.ids, 1, 32)[1] < sizes(store, store.ids, 1, 99)[1]


def test_streamed_by_speaker_is_resident_by_speaker(store: FeatureStore) -> None:
    speakers = [f"s{u % 5}" for u in range(43)]
    one, other = (by_speaker(data, torch.arange(2, 30), speakers) for data in both(store, 4))
    members = torch.arange(1, 43, 3)
    assert torch.equal(one.batch(members)[0], other.batch(members)[0])
    assert not torch.equal(one.batch(members)[0], both(store, 4)[0].batch(members)[0])
    assert all(map(torch.equal, one.moments(members), other.moments(members)))
    assert torch.equal(trained(one)[2], trained(other)[2])


# --- a whole run ---


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers, 36 short tones of two classes, extracted."""
    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    lines = []
    for speaker in range(6):
        for take in range(6):
            name, high = f"s{speaker}t{take}", take % 2
            time_N = np.arange(int(16_000 * rng.uniform(0.2, 0.4))) / 16_000
            wave_N = 0.3 * np.sin(2 * np.pi * (300 + 400 * high + 40 * speaker) * time_N)
            soundfile.write(folder / f"{name}.wav", wave_N + 0.05 * rng.standard_normal(len(time_N)), 16_000)
            row = {"id": name, "audio": f"{name}.wav", "label": "ab"[high], "speaker": f"s{speaker}"}
            lines.append(json.dumps(row))
    (folder / "tones.jsonl").write_text("\n".join(lines))
    extract = ["extract", "--corpus", "manifest", "--root", str(folder / "tones.jsonl"), "--encoder", "log-mel"]
    assert main([*extract, "--features", str(folder / "features")]) == 0
    return folder


def results(folder: Path) -> dict[str, Any]:
    of_jobs = {path.stem: record(path) for path in sorted((folder / "jobs").glob("*.json"))}
    return {name: {key: value for key, value in job.items() if key != "seconds"} for name, job in of_jobs.items()}


@pytest.mark.parametrize(("normalise", "workers"), [("corpus", "2"), ("speaker", "1")])
def test_a_run_that_streams_is_one_that_does_not(
    tones: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], normalise: str, workers: str
) -> None:
    monkeypatch.chdir(tones)
    small = ["--set", "epochs=2", "--set", "width=8", "--set", "stride=4", "--set", f"normalise={normalise}"]
    small += ["--set", "strategy=single-path", "--set", "committee=1"]
    more = ["--layer", "0", "--seeds", "1", "--space", "ser_bas3", "--protocol", "speaker:2"]
    run = ["compare", "--features", str(tones / "features"), *small, *more]
    assert main([*run, "--name", f"{normalise}-resident", "--workers", "1", "--memory", "2"]) == 0
    out = capfd.readouterr().out
    assert "in the memory of each process" in out
    assert "2.0 GiB (--memory)" in " ".join(out.split())

    share = 2**26
    monkeypatch.setattr(study, "place_features", lambda *_: (Placement("store", share), "features: streamed"))
    assert main([*run, "--name", f"{normalise}-streamed", "--workers", workers]) == 0
    assert capfd.readouterr().out.count("features: streamed") == 1, "told once, by the parent"
    folder = tones / f"runs/{normalise}-streamed"
    assert results(folder) == results(tones / f"runs/{normalise}-resident")

    session = Session(folder, placement=Placement("store", share))
    assert session.run.store.mapped_bytes == share // 4
    assert isinstance(session.data(0, session.run.plan.settings.stride).frames_ND, Stored)
    if normalise == "corpus":
        return

    def choice(data: Data, fit: Tensor, speakers: list[str]) -> Data:
        assert torch.equal(fit, session.members(session.run.protocol.folds[1].fit)), "the training part alone"
        assert speakers == [u.speaker for u in session.run.utterances]
        raise LookupError("asked")

    monkeypatch.setattr("bas.runs.session.by_speaker", choice)
    rows = {"retrain": "ser_bas3", "search": "ser_bas3", "baseline": "simple FFN", "linear": "logistic regression"}
    rows["layer"] = BEST
    for kind, row in rows.items():
        session.run.job_path(Job(Kind(kind), row, 1, 0).name).unlink(missing_ok=True)
        with pytest.raises(LookupError, match="asked"):
            run_job(session, Job(Kind(kind), row, 1, 0))


def test_speakers_are_part_of_what_such_a_run_is_made_of(store: FeatureStore, tmp_path: Path) -> None:
    """Also where neither the task nor the folds ask for them."""
    made = {}
    (tmp_path / "any.py").write_text(ANYONE, encoding="utf-8")
    spaces = (load_space(str(tmp_path / "any.py")),)
    for how in get_args(KINDS["normalise"]):
        plan = Plan("features", (), 0, replace(PRESETS["cpu"], normalise=how), (0,), "cpu")
        for speaker in ("p", "q"):
            utterances = tuple(Utterance(id_, Path("x.wav"), label=id_, speaker=speaker) for id_ in ("u", "v"))
            corpus = Corpus("few", utterances, "own", "text")
            protocol = Protocol("few", "few", "emotion", "own", 0, (Fold(("u",), ("u",), ("u",)),), "text")
            inputs = Inputs(plan, store, corpus, spaces)
            made[how, speaker] = _made_of(Run(tmp_path, inputs, protocol))
    assert made["speaker", "p"]["labels"] != made["speaker", "q"]["labels"]
    assert made["corpus", "p"] == made["corpus", "q"]
    assert made["corpus", "p"] != made["none", "p"]
    assert not [name for name in made["corpus", "p"] if "memory" in name or "place" in name]
