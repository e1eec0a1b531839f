"""The recipe of `bas-hubert-nano`: drawn from a seed, held-out speech kept apart, and a killed run goes on."""

# mypy: disable-error-code="arg-type,index"

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from places import ROOT
from refusals import refusal
from rich.console import Console

TOOLS = ROOT / "tools" / "nano"
sys.path.insert(0, str(TOOLS))
import augment  # noqa: E402
import pretrain  # noqa: E402
import recipe  # noqa: E402
import speech  # noqa: E402
import targets  # noqa: E402

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SPOKEN = all(importlib.util.find_spec(name) for name in ("espeakng_loader", "babel"))
needs_speech = pytest.mark.skipif(not SPOKEN, reason="espeak-ng and Babel: pip install 'bas[nano]'")


def pooled(folder: Path, variants: int, spoken: int, seed: int = 0) -> speech.Pool:
    return speech.pool(folder, folder / "names.txt", variants, spoken, seed)


def libri(folder: Path, speakers: tuple[int, ...] = (19, 40, 61), seconds: float = 1.3) -> Path:
    """Noise under LibriSpeech's names."""
    for number in speakers:
        path = folder / str(number) / f"{number}-1-0000.flac"
        path.parent.mkdir(parents=True)
        soundfile.write(path, 0.1 * np.random.default_rng(number).standard_normal(int(seconds * 16_000)), 16_000)
    (folder / "names.txt").write_text("".join(f"{number}-1-0000\n" for number in speakers))
    return folder


@pytest.mark.torchaudio
@needs_speech
def test_an_item_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    pool, other = (pooled(libri(tmp_path / str(seed)), variants=3, spoken=4, seed=seed) for seed in (0, 1))
    assert len(pool) == 13
    again = [pool.make(item) for item in reversed(range(13))][::-1]
    for item, wave in enumerate(again):
        assert wave.dtype == np.float32
        assert np.array_equal(wave, pool.make(item))
    assert not np.array_equal(again[3], other.make(3)), "another variant"
    assert len({wave.tobytes() for wave in again}) == 11, "speaker 40 is held out, thrice as recorded"


@pytest.mark.torchaudio
def test_a_speaker_is_held_out_with_all_variants_and_unchanged(tmp_path: Path) -> None:
    pool = pooled(libri(tmp_path), variants=4, spoken=40)
    recorded = [speech.speaker(pool.recordings[item % 3]) for item in range(12)]
    assert [recorded[item] for item in range(12) if pool.held_out(item)] == ["40"] * 4
    assert 0 < sum(pool.held_out(item) for item in range(12, len(pool))) < 10
    (first, *others) = [pool.make(item) for item in range(12) if pool.held_out(item)]
    assert all(np.array_equal(first, other) for other in others)


def test_only_the_recordings_listed_are_taken(tmp_path: Path) -> None:
    folder = libri(tmp_path)
    listed = folder / "names.txt"
    listed.write_text("61-1-0000\n19-1-0000\n")
    assert [path.stem for path in pooled(folder, 1, 0).recordings] == ["61-1-0000", "19-1-0000"]
    listed.write_text("19-1-0000\n7-1-0000\n")
    assert refusal(pooled, folder, 1, 0) == (
        f"{folder}: 1 of the 2 recordings of names.txt are not here, 7-1-0000.flac the first; "
        "name LibriSpeech's folder, or other --recordings"
    )
    for text in ("song", "19-1-0000\n19-1-0000"):
        listed.write_text(text)
        message = f"{listed}: {text.split()[0]!r}: expected names as 1688-142285-0000, one a line, each once"
        assert refusal(pooled, folder, 1, 0) == message


def test_the_list_is_of_the_recordings_that_the_card_counts() -> None:
    names = (TOOLS / "librispeech.txt").read_text().split()
    assert len(set(names)) == len(names) == 351
    assert all(speech.NAME.fullmatch(name) for name in names)
    held_out = [name for name in names if int(name.split("-")[0]) % speech.HELD_OUT == 0]
    assert (len(held_out), len({name.split("-")[0] for name in held_out})) == (26, 17)


@pytest.mark.torchaudio
def test_pitch_and_speed_do_what_they_say() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000).astype(np.float32)
    for pitch, speed in ((1.25, 1.0), (0.8, 1.0), (1.0, 1.25), (0.8, 0.8)):
        changed = augment.pitch_and_speed(tone, pitch, speed)
        assert changed.size == pytest.approx(32_000 / speed, rel=0.03)
        middle = changed[4_000:-4_000] * np.hanning(changed.size - 8_000)
        assert np.abs(np.fft.rfft(middle)).argmax() * 16_000 / middle.size == pytest.approx(440 * pitch, rel=0.01)


@pytest.mark.torchaudio
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
    model = pretrain.new_model(0)
    torch.manual_seed(1)
    head = pretrain.Units(16, 5)

    def on_step(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    return model, pretrain.learn(model, head, data, data, recipe, folder / "checkpoint.pt", CPU, on_step)


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, small: None) -> None:
    torch.set_num_threads(1)
    whole, _ = train(tmp_path / "whole", 6)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", 6, stop=5)
    resumed, said = train(tmp_path / "killed", 6)
    assert [record["step"] for record in said] == [2, 4, 6]
    _, again = train(tmp_path / "killed", 6)
    assert again == said, "killed after the last checkpoint: nothing is left to do"
    weights, _ = pretrain.learnt(tmp_path / "killed" / "checkpoint.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(value, weights[name]), "what the next stage begins with"


def test_masked_prediction_learns(tmp_path: Path, small: None) -> None:
    _, said = train(tmp_path, 60, lr=1e-2)
    assert said[-1]["held-out loss"] < 0.5 * said[0]["held-out loss"]
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


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The recipe as a program of its own, on three recordings and 22 synthetic ones."""
    command = [sys.executable, str(TOOLS / "recipe.py"), "--variants", "1", "--spoken", "22", "--device", "cpu"]
    return subprocess.run([*command, "--workers", "1", *map(str, words)], capture_output=True, text=True)


@pytest.mark.torchaudio
@needs_speech
def test_the_whole_recipe_runs_and_takes_up_what_is_there(tmp_path: Path, hubert: Path) -> None:
    work = tmp_path / "work"
    folder = libri(tmp_path / "libri", (19, 21, 40))
    words = ["--speech", folder, "--recordings", folder / "names.txt", "--work", work]
    words += ["--teacher", hubert, "--steps", "2"]
    done = run(*words, "2", "2")
    assert (done.returncode, done.stderr) == (0, "")
    made = work / "hubert-nano"
    said = done.stdout.replace("\n", "")  # a long line is wrapped
    assert "--encoder" in said
    assert str(made) in said
    training = json.loads((made / "training.json").read_text())
    assert list(training["stages"]) == ["1-mfcc", "2-own", "3-teacher"]
    assert training["LibriSpeech speakers held out"] == 1
    weights = (made / "model.safetensors").read_bytes()
    # As if it had been killed between two stages: all after the second is done again, from what the second left.
    shutil.rmtree(work / "3-teacher")
    assert run(*words, "2", "2").returncode == 0
    assert (made / "model.safetensors").read_bytes() == weights
    other = run(*words, "2", "3")
    message = "made with steps [2, 2, 2], now [2, 2, 3]; give another --work"
    assert (other.returncode, other.stderr) == (2, f"nano: {work}: {message}\n")


@pytest.mark.torchaudio
@needs_speech
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--teacher TEACHER --teacher-states 1 7", "--teacher-states 7: TEACHER has states 0 to 2"),
        ("--teacher TEACHER --teacher-states 1", "--teacher-states: name 2, the earlier first"),
        ("--teacher log-mel", "--teacher log-mel: 100 frames a second; must be 50"),
        ("--real-length", "--real-length and --teacher-states are of a --teacher; name one, or leave them out"),
        ("--steps 2 0", "--steps 2 0: must be 2 numbers of 1 or more"),
        ("--teacher TEACHER --steps 2 2", "--steps 2 2: must be 3 numbers of 1 or more"),
        ("--variants 0", "--variants 0: must be 1 or more"),
        ("--seed -1", "--seed -1: must be 0 or more"),
        ("--speech .", "WORK: holds something, but no made_of.json; give another --work"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    words: str, message: str, tmp_path: Path, hubert: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "speech-0000.npz").touch()
    monkeypatch.chdir(libri(tmp_path / "libri"))
    given = words.replace("TEACHER", str(hubert)).split()
    monkeypatch.setattr(
        sys, "argv", ["recipe.py", "--speech", ".", "--recordings", "names.txt", "--work", str(work), *given]
    )
    assert recipe.main() == 2
    assert capsys.readouterr().err == f"nano: {message.replace('TEACHER', str(hubert)).replace('WORK', str(work))}\n"
    assert sorted(path.name for path in work.iterdir() if path.name != ".lock") == ["speech-0000.npz"]


def test_held_out_items_are_never_trained_on(tmp_path: Path) -> None:
    pool = pooled(libri(tmp_path), variants=2, spoken=20)
    work = recipe.Work(tmp_path, pool, [], CPU, 1, Console())
    every = [np.full(8_000, 100 * (i + 1), np.int16) for i in range(len(pool))]
    labels = [np.full(targets.num_frames(8_000), i, np.uint16) for i in range(len(pool))]
    how = pretrain.Recipe(steps=1, seed=0, mixed=1.0)
    seen = {}
    for held_out in (False, True):
        part = work._part(every, labels, how, held_out)
        seen[held_out] = {int(i) for step in range(20) for i in part.batch(step)[1].unique()}
    assert seen[True] == {i for i in range(len(pool)) if pool.held_out(i)}
    assert seen[False] == set(range(len(pool))) - seen[True]


def test_hidden_frames_are_hidden(small: None) -> None:
    """With all of them hidden the model cannot tell two waves apart; with none it can."""
    model, heard = pretrain.new_model(0).eval(), []

    def head(states: Any, *_: Any) -> tuple[torch.Tensor, float]:
        heard.append(states[-1])
        return torch.zeros(()), 0.0

    for all_hidden in (True, False):
        for seed in (0, 1):
            wave_BS = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, 16_000)).astype(np.float32))
            batch = wave_BS, torch.zeros(1, 49), torch.full((1, 49), all_hidden)
            with torch.no_grad():
                pretrain._judge(model, head, batch, CPU)
    assert torch.equal(heard[0], heard[1])
    assert not torch.allclose(heard[2], heard[3], atol=1e-3)


@pytest.mark.torchaudio
@pytest.mark.parametrize("at", [4_000, 8_111, 12_345])
def test_a_frame_of_mfcc_and_one_of_the_model_hear_the_same_samples(at: int) -> None:
    """A click shows in the frames whose window holds it, and in no others."""
    wave = (1e-4 * np.random.default_rng(0).standard_normal(16_000)).astype(np.float32)
    clicked = wave.copy()
    clicked[at] = 0.9
    frames = np.flatnonzero(np.abs(targets.mfcc(clicked)[:, 0] - targets.mfcc(wave)[:, 0]) > 5)
    hears = [t for t in range(targets.num_frames(16_000)) if targets.HOP * t <= at < targets.HOP * t + targets.WINDOW]
    assert set(frames) <= set(hears)  # a window weighs next to nothing at its ends
    assert len(frames) > 0
    front = pretrain.new_model(0).feature_extractor.eval()
    x_BS = torch.from_numpy(wave)[None].requires_grad_()
    weight_T = torch.zeros(49)
    weight_T[hears[0]] = 1.0
    # Without its norm over time, which lets every frame hear every other by a scale.
    front.conv_layers[0].layer_norm = torch.nn.Identity()
    (front(x_BS)[0].sum(0) * weight_T).sum().backward()
    heard = x_BS.grad[0].nonzero().flatten()
    assert (int(heard[0]), int(heard[-1])) == (targets.HOP * hears[0], targets.HOP * hears[0] + targets.WINDOW - 1)


@pytest.mark.torchaudio
def test_there_is_one_row_of_mfcc_for_each_frame_of_the_model() -> None:
    front = pretrain.new_model(0).feature_extractor
    for samples in (400, 719, 720, 16_000):
        wave = (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)
        assert targets.mfcc(wave).shape == (targets.num_frames(samples), 39)
        assert front(torch.from_numpy(wave)[None]).shape[-1] == targets.num_frames(samples)
