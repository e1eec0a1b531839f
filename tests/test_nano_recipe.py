"""The recipe of `bas-hubert-nano`: drawn from a seed, held-out speech kept apart, and a killed run goes on."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import refusal

TOOLS = Path(__file__).parents[1] / "tools" / "nano"
sys.path.insert(0, str(TOOLS))
import augment  # noqa: E402
import pretrain  # noqa: E402
import speech  # noqa: E402
import targets  # noqa: E402

CPU = torch.device("cpu")
SPOKEN = all(importlib.util.find_spec(name) for name in ("espeakng_loader", "babel"))
needs_speech = pytest.mark.skipif(not SPOKEN, reason="espeak-ng and Babel: pip install 'bas[nano]'")


def libri(folder: Path, speakers: tuple[int, ...] = (19, 40, 61), seconds: float = 1.3) -> Path:
    """Noise under LibriSpeech's names."""
    for number in speakers:
        path = folder / str(number) / f"{number}-1-0000.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(int(seconds * 16_000)), 16_000)
    return folder


@needs_speech
def test_an_item_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    pool, other = (speech.pool(libri(tmp_path / str(seed)), variants=3, spoken=4, seed=seed) for seed in (0, 1))
    assert len(pool) == 13
    again = [pool.make(item) for item in reversed(range(13))][::-1]
    for item, wave in enumerate(again):
        assert wave.dtype == np.float32
        assert np.array_equal(wave, pool.make(item))
    assert not np.array_equal(again[3], other.make(3)), "another variant"
    assert len({wave.tobytes() for wave in again}) == 11, "speaker 40 is held out, thrice as recorded"


def test_a_speaker_is_held_out_with_all_variants_and_unchanged(tmp_path: Path) -> None:
    pool = speech.pool(libri(tmp_path), variants=4, spoken=40, seed=0)
    recorded = [speech.speaker(pool.recordings[item % 3]) for item in range(12)]
    assert [recorded[item] for item in range(12) if pool.held_out(item)] == ["40"] * 4
    assert 0 < sum(pool.held_out(item) for item in range(12, len(pool))) < 10
    (first, *others) = [pool.make(item) for item in range(12) if pool.held_out(item)]
    assert all(np.array_equal(first, other) for other in others)


def test_a_folder_without_librispeech_is_refused(tmp_path: Path) -> None:
    (tmp_path / "song.flac").touch()
    assert "no LibriSpeech here" in refusal(speech.pool, tmp_path, 1, 1, 0)


def test_pitch_and_speed_do_what_they_say() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
    for pitch, speed in ((1.25, 1.0), (0.8, 1.0), (1.0, 1.25), (0.8, 0.8)):
        changed = augment.pitch_and_speed(tone, pitch, speed)
        assert changed.size == pytest.approx(32_000 / speed, rel=0.03)
        middle = changed[4_000:-4_000] * np.hanning(changed.size - 8_000)
        assert np.abs(np.fft.rfft(middle)).argmax() * 16_000 / middle.size == pytest.approx(440 * pitch, rel=0.01)


def test_every_change_keeps_the_length_and_the_noise_its_level() -> None:
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    for changed in (
        augment.tilt(wave, -6.0),
        augment.room(wave, 0.3, 3.0, rng),
        *(augment.codec(wave, kind) for kind in ("telephone", "MP3", "OGG")),
    ):
        assert changed.shape == wave.shape
        assert changed.dtype == np.float32
        assert np.isfinite(changed).all()
        assert not np.array_equal(changed, wave)
    added = augment.noise(wave, 10.0, 1.0, rng) - wave
    assert 10 * np.log10(np.mean(wave**2) / np.mean(added**2)) == pytest.approx(10, abs=0.1)


def items(count: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Items whose samples say what item and what frame they are of, and targets that say the same."""
    rng = np.random.default_rng(0)
    lengths = [int(n) for n in rng.integers(6_000, 60_000, count)]
    waves = [(1000 * (i + 1) + np.arange(n) // targets.HOP % 100).astype(np.int16) for i, n in enumerate(lengths)]
    labels = [(1000 * (i + 1) + np.arange(targets.num_frames(n)) % 100) for i, n in enumerate(lengths)]
    return waves, [x.astype(np.uint16) for x in labels]


def test_targets_stay_with_their_frames() -> None:
    recipe = pretrain.Recipe(steps=1, seed=3, mixed=0.0)
    waves_BS, targets_BT, hidden_BT = pretrain.Speech(*items(), recipe).batch(0)
    assert waves_BS.shape == (20, 51_200)
    assert targets_BT.shape == hidden_BT.shape == (20, 159)
    first_BT = torch.round(waves_BS[:, :: targets.HOP] * 32768)[:, :159].long()
    seam_BT = first_BT != targets_BT  # only a frame that hears two items may go with the one before
    assert seam_BT.float().mean() < 0.02
    assert (seam_BT.sum(1) <= 8).all()


def test_batches_depend_on_the_seed_and_the_step_alone() -> None:
    made = [pretrain.Speech(*items(), pretrain.Recipe(steps=9, seed=s)) for s in (0, 0, 1)]
    same, again, other = [[one.batch(step) for step in (4, 5)] for one in made]
    for x, y in zip((*same[0], *same[1]), (*again[0], *again[1]), strict=True):
        assert torch.equal(x, y)
    assert not torch.equal(same[0][0], same[1][0])
    assert not torch.equal(same[0][0], other[0][0])
    share = float(torch.stack([same[0][2], same[1][2]]).float().mean())
    assert share == pytest.approx(1 - (1 - 0.065) ** 10, abs=0.05)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    front = {"conv_dim": (8,) * 7, "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
    monkeypatch.setattr(pretrain, "CONFIG", {**pretrain.CONFIG, **shrunk, **front})


def train(folder: Path, steps: int, stop: int | None = None, lr: float = 1e-3) -> tuple[Any, list[dict[str, float]]]:
    """Five tones, each a unit of its own."""
    recipe = pretrain.Recipe(steps=steps, seed=0, lr=lr, batch=4, seconds=1.0, checkpoint_every=2)
    waves = [8000 * np.sin(2 * np.pi * 200 * 2**i * np.arange(24_000) / 16_000) for i in range(5)]
    units = [np.full(targets.num_frames(24_000), i, np.uint16) for i in range(5)]
    data = pretrain.Speech([wave.astype(np.int16) for wave in waves], units, recipe)
    model, said = pretrain.new_model(0), []
    torch.manual_seed(1)
    head = pretrain.Units(16, 5)

    def told(step: int, found: dict[str, float]) -> None:
        said.append(found)
        if step == stop:
            raise KeyboardInterrupt

    pretrain.learn(model, head, data, data, recipe, folder / "checkpoint.pt", CPU, told)
    return model, said


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, small: None) -> None:
    torch.set_num_threads(1)
    whole, _ = train(tmp_path / "whole", 6)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", 6, stop=5)
    resumed, said = train(tmp_path / "killed", 6)
    assert len(said) == 2, "from step 4 on"
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_masked_prediction_learns(tmp_path: Path, small: None) -> None:
    _, said = train(tmp_path, 60, lr=1e-2)
    assert said[-1]["held-out loss"] < 0.5 * said[1]["held-out loss"]
    assert said[-1]["held-out right"] > 0.8


def test_a_perfect_student_explains_everything() -> None:
    wanted_BTMD = torch.randn(3, 7, 2, 4, generator=torch.Generator().manual_seed(0))
    head = pretrain.Teacher(4, (0, 1), torch.zeros(2, 4), torch.ones(2, 4))
    head.heads = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    states, hidden = [wanted_BTMD[:, :, 0], wanted_BTMD[:, :, 1]], torch.zeros(3, 7, dtype=torch.bool)
    loss, explained = head(states, wanted_BTMD, hidden)
    assert explained == pytest.approx(1)
    assert float(loss) == pytest.approx(-float(torch.nn.functional.logsigmoid(torch.tensor(1.0))))
    _, none = head([torch.zeros(3, 7, 4)] * 2, wanted_BTMD, hidden)
    assert none == pytest.approx(0)


@needs_speech
def test_the_whole_recipe_runs_and_takes_up_what_is_there(tmp_path: Path, hubert: Path) -> None:
    command = [sys.executable, str(TOOLS / "recipe.py"), "--speech", str(libri(tmp_path / "libri", (19, 20, 40)))]
    command += ["--variants", "1", "--spoken", "22", "--steps", "2", "2", "2", "--work", str(tmp_path / "work")]
    command += ["--teacher", str(hubert), "--teacher-states", "1", "2", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = tmp_path / "work" / "bas-hubert-nano"
    assert f"ENCODER={made}" in done.stdout.replace("\n", "")
    training = json.loads((made / "training.json").read_text())
    assert list(training["stages"]) == ["1-mfcc", "2-own", "3-teacher"]
    weights = (made / "model.safetensors").read_bytes()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert (made / "model.safetensors").read_bytes() == weights
    other = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True)
    assert other.returncode == 2
    assert other.stderr == (
        f"nano: {tmp_path / 'work'}: made with --seed 0, now 1; give another --work, or delete that folder\n"
    )
    wrong = subprocess.run([*command, "--teacher-states", "1", "7"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (2, f"nano: --teacher-states 7: {hubert} has states 0 to 2\n")


def test_units_and_frames_have_one_number_for_each_frame(tmp_path: Path) -> None:
    assert dataclasses.asdict(targets.Source()) == {"encoder": "", "states": (0,), "real_length": False}
    for samples in (400, 719, 720, 16_000):
        wave = (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)
        assert targets.Source().of(wave).shape == (1, targets.num_frames(samples), 39)
