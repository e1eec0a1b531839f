"""Fine-tuning: what a step is, when it stops, what is left behind, and that a kill changes no bit of it.

Run as a program, `test_finetune.py FOLDER`, it is the process that is killed: it forks, and so has no thread.
"""

# mypy: disable-error-code="arg-type,attr-defined"

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from families import NAMES, save, still
from models import SMALL
from places import PATIENCE
from refusals import refusal
from rich.console import Console
from torch import nn
from torch.testing import assert_close
from torch.utils.tensorboard.writer import SummaryWriter

from bas.corpora import Utterance
from bas.encoders import Tunable, load_encoder, tunable
from bas.studies.dynamics import finetune as module
from bas.studies.dynamics.finetune import (
    Classifier,
    checkpoint_of,
    finetune,
    micro_batches,
    read_finished,
    read_head,
)
from bas.tasks import EMOTION
from bas.training.tuning import PRESETS, Tuning, settings
from bas.util.temporary import sweep
from bas.util.typed import to_plain

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
QUICK = Tuning(lr=3e-3, epochs=6, batch=8, micro_batch=3, evaluate_every=2, checkpoint_every=4, patience=99)
SECONDS = (0.3, 0.5, 0.41, 0.35, 0.6)


def hisses(folder: Path, count: int, name: str) -> list[Utterance]:
    """Noise, of one class low and of the other high, so that any encoder can tell them apart."""
    folder.mkdir(exist_ok=True)
    made = []
    for i in range(count):
        rng = np.random.default_rng([i, *name.encode()])
        wave = 0.1 * rng.standard_normal(round(SECONDS[i % len(SECONDS)] * 16_000))
        wave = wave + np.roll(wave, 1) * (0.9 if i % 2 else -0.9)
        soundfile.write(folder / f"{name}{i}.wav", wave, 16_000, subtype="FLOAT")
        made.append(Utterance(f"{name}{i}", folder / f"{name}{i}.wav", "ab"[i % 2], f"{name} speaks"))
    return made


def model(folder: Path, drops: bool = True) -> Path:
    """A small HuBERT; without drops it is in training as it is at rest."""
    from transformers import HubertConfig, HubertModel

    torch.manual_seed(0)
    how = {"mask_feature_prob": 0.1} if drops else dict.fromkeys((*NAMES, "mask_time_prob"), 0.0)
    HubertModel(HubertConfig(**SMALL, **how)).save_pretrained(folder)
    return folder


def load(folder: Path) -> Tunable:
    return tunable(load_encoder(str(folder), CPU))


def run(folder: Path, given: Path, how: Tuning = QUICK, seed: int = 0) -> dict[str, Any]:
    """Fine-tune the model under `given` on hisses; they are made once."""
    fit, valid = hisses(given / "fit", 20, "fit"), hisses(given / "valid", 7, "valid")
    board = SummaryWriter(str(folder / "tb"))
    console = Console(file=StringIO())
    result = finetune(load(given / "model"), EMOTION, fit, valid, how, seed, folder, board, console)
    board.close()
    plain: dict[str, Any] = to_plain(result)
    return plain


def finished(folder: Path) -> dict[str, Any]:
    result = read_finished(folder)
    assert result is not None
    plain: dict[str, Any] = to_plain(result)
    return plain


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in ("seconds", "sha256")}


def weights(folder: Path) -> dict[str, bytes]:
    """Of every checkpoint; and the heads."""
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("checkpoints/*/*")}
    for path in folder.glob("checkpoints/*.npz"):
        with np.load(path) as held:
            files[path.name] = b"".join(held[name].tobytes() for name in held.files if name != "revision")
    return files


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("given")
    model(root / "model")
    return root


@pytest.fixture(scope="module")
def done(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("done")
    run(folder, given)
    return folder


def gradients(
    encoder: Tunable, utterances: Sequence[Utterance], size: int
) -> tuple[float, dict[str, torch.Tensor | None]]:
    torch.manual_seed(0)
    head = nn.Linear(encoder.info.dim, 2)
    both = nn.ModuleDict({"trunk": encoder.trunk, "head": head}).requires_grad_(True).train()
    both.zero_grad(set_to_none=True)
    loss = Classifier(encoder, head, EMOTION, ("a", "b"), size).backward(utterances)
    return loss, {name: p.grad for name, p in both.named_parameters()}


@pytest.mark.parametrize("family", ["hubert", "whisper"])
def test_micro_batches_make_the_step_of_one_batch(family: str, tmp_path: Path) -> None:
    """With a short last one; each utterance weighs the same, whatever it is padded to."""
    if family == "hubert":
        encoder = load(model(tmp_path / "model", drops=False))
    else:
        encoder = tunable(load_encoder(str(save(tmp_path / "model", "whisper")), CPU, real_length=True))
    utterances = hisses(tmp_path / "audio", 10, "x")
    whole, expected = gradients(encoder, utterances, 10)
    for size in (1, 4):
        loss, summed = gradients(encoder, utterances, size)
        assert loss == pytest.approx(whole, rel=1e-5)
        for name, gradient in summed.items():
            assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6, msg=name)
    unequal = sum(gradients(encoder, part, 4)[0] for part in (utterances[:8], utterances[8:])) / 2
    assert unequal != pytest.approx(whole, rel=1e-5)  # what weighing by micro-batches would have made


def test_neither_padding_nor_batching_changes_a_score(given: Path) -> None:
    encoder, utterances = load(given / "model"), hisses(given / "fit", 11, "fit")
    torch.manual_seed(0)
    head = nn.Linear(encoder.info.dim, 2)
    scores = [
        Classifier(encoder, head, EMOTION, ("a", "b"), micro).score(utterances, size)
        for micro, size in ((1, 1), (4, 11), (16, 5))
    ]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], abs=1e-5)
    assert scores[0]["loss"] == pytest.approx(scores[2]["loss"], abs=1e-5)
    assert scores[0].keys() == {"loss", "WA", "UA", "WF1", "MF1"}


def test_what_may_share_a_batch_does() -> None:
    class Picky:
        def batch_key(self, samples: int) -> int:
            return samples // 100

    encoder: Any = Picky()
    batches = list(micro_batches(encoder, [150, 320, 199, 310, 120, 305], 2))
    assert batches == [[1, 3], [5], [2, 0], [4]]


def test_it_learns(given: Path, tmp_path: Path) -> None:
    encoder = load(still(save(tmp_path / "model", "hubert-layer")))
    parts, how = (hisses(given / "fit", 20, "fit"), hisses(given / "valid", 7, "valid")), replace(QUICK, lr=1e-3)
    board = SummaryWriter(str(tmp_path / "tb"))
    records = finetune(encoder, EMOTION, *parts, how, 0, tmp_path, board, Console(file=StringIO())).records
    board.close()
    assert min(r.valid["loss"] for r in records) < 0.75 * records[0].valid["loss"]
    losses = [r.loss for r in records[1:] if r.loss is not None]
    assert min(losses) < 0.75 * losses[0]
    assert max(r.valid["WA"] for r in records) >= 6 / 7


def test_it_says_what_it_did(done: Path) -> None:
    result = finished(done)
    records = result["records"]
    assert [r["step"] for r in records] == list(range(0, records[-1]["step"] + 1, 2))
    assert records[0]["loss"] is None
    assert records[3]["epoch"] == pytest.approx(6 / 3)  # 20 utterances by 8: three steps, the last of four utterances
    assert result["steps"] == [0, 4, 8, 12, 16, 18] == sorted({*range(0, 18, 4), records[-1]["step"]})
    assert result["stopped"] == "6 epochs are over"
    assert result["outputs"] == ["a", "b"]
    assert {p.name for p in done.iterdir()} == {"finetune.json", "checkpoints", "tb"}


def test_a_checkpoint_is_the_model_that_was_scored(done: Path, given: Path) -> None:
    result = finished(done)
    valid = hisses(given / "valid", 7, "valid")
    for step in (0, 8, 18):
        weight_OD, bias_O, _ = read_head(done, step)
        encoder = load(checkpoint_of(done, step))
        head = nn.Linear(*weight_OD.shape[::-1])
        head.load_state_dict({"weight": torch.from_numpy(weight_OD), "bias": torch.from_numpy(bias_O)})
        scores = Classifier(encoder, head, EMOTION, ("a", "b"), QUICK.micro_batch).score(valid, QUICK.batch)
        assert scores == next(r["valid"] for r in result["records"] if r["step"] == step)
    start, pretrained = load(checkpoint_of(done, 0)), load(given / "model")
    inputs = [start.prepare(np.ones(9_000, np.float32))]
    assert torch.equal(start.encode(inputs)[0], pretrained.encode(inputs)[0])


def test_the_seed_decides(given: Path, done: Path, tmp_path: Path) -> None:
    short = replace(QUICK, epochs=2)
    one, again, other = (run(tmp_path / str(i), given, short, seed) for i, seed in enumerate((1, 1, 2)))
    assert numbers(one) == numbers(again)
    assert weights(tmp_path / "0") == weights(tmp_path / "1")
    assert one["records"] != other["records"]


def test_it_stops_when_validation_does_not_improve(given: Path, tmp_path: Path) -> None:
    result = run(tmp_path, given, replace(QUICK, improvement=9.0, patience=2, epochs=50, checkpoint_every=2))
    assert [r["step"] for r in result["records"]] == result["steps"] == [0, 2, 4]
    loss = result["records"][0]["valid"]["loss"]
    assert result["stopped"] == f"2 evaluations without a validation loss 9 below {loss:.3f}"


def test_divergence_is_told(given: Path, tmp_path: Path) -> None:
    with np.errstate(all="ignore"):
        message = refusal(run, tmp_path, given, replace(QUICK, lr=1e30))
    assert message.startswith("fine-tuning diverged")
    assert "lower the setting lr=1e+30" in message


def test_settings() -> None:
    assert settings("paper", {"lr": "3e-5", "batch": "64"}) == replace(Tuning(), lr=3e-5, batch=64)
    assert PRESETS["paper"] == Tuning()
    assert "setting 'epoch': must be one of lr, weight_decay, epochs" in refusal(settings, "cpu", {"epoch": "3"})
    assert refusal(settings, "cpu", {"batch": "x"}) == "setting batch='x': must be a whole number"
    assert refusal(settings, "papier", {}) == "preset 'papier': must be one of paper, cpu"
    assert refusal(settings, "paper", {"lr": "-1"}) == "setting lr=-1.0: must be a number above 0"
    assert "multiple of evaluate_every=10" in refusal(settings, "paper", {"checkpoint_every": "25"})
    assert settings("paper", {"weight_decay": "0"}).weight_decay == 0


def test_a_state_of_something_else_is_refused(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Classifier, "backward", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, given)
    monkeypatch.undo()
    state = tmp_path / "finetune.state"
    for change in ({"seed": 1}, {"how": replace(QUICK, lr=1e-3)}):
        assert refusal(run, tmp_path, given, **change) == (
            f"{state}: damaged, or not of this fine-tuning; delete it: it starts over"
        )
    state.write_bytes(b"no state")
    assert str(state) in refusal(run, tmp_path, given)
    state.unlink()
    assert run(tmp_path, given)["stopped"]


def test_a_kill_at_any_moment_changes_nothing(given: Path, done: Path, tmp_path: Path) -> None:
    """Bit by bit: the records, every checkpoint and every head; a kill costs the steps since the last evaluation."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, __file__, str(tmp_path), str(given)]
    ended = subprocess.run(program, capture_output=True, text=True, env=environment, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    kills = int(ended.stdout)
    assert kills >= 4
    assert numbers(json.loads((tmp_path / "finetune.json").read_text())) == numbers(finished(done))
    assert weights(tmp_path) == weights(done)
    assert {p.name for p in tmp_path.iterdir()} == {"finetune.json", "checkpoints", "tb"}
    assert not list(tmp_path.glob("**/*.tmp"))


def be_killed(folder: Path, given: Path) -> int:
    """Fork, die at some write, fork again, until one ends by itself; how many were killed."""
    torch.set_num_threads(1)
    module.STATE_SECONDS = 0.0
    load(given / "model")  # what it imports is not imported by each child
    chance, kills = random.Random(0), 0
    while True:
        child = os.fork()
        if child == 0:
            die_at(chance.randrange(8, 30))
            code = 1
            try:
                sweep(folder, beneath=True)  # as a verb does that has the folder's lock
                run(folder, given)
                code = 0
            finally:
                os._exit(code)
        chance.randrange(8, 30)  # the child's draw
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0, "it failed by itself"
            return kills
        kills += 1


def die_at(moment: int) -> None:
    """SIGKILL this process before its n-th fsync, rename or replacement."""
    left = iter(range(moment))

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return wrapped

    for where, name in ((os, "fsync"), (Path, "replace"), (Path, "rename")):
        setattr(where, name, deadly(getattr(where, name)))


if __name__ == "__main__":
    print(be_killed(Path(sys.argv[1]), Path(sys.argv[2])))
