"""An encoder in a Python file: what it must be, what it is known by, and that nobody else's file is ever run."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from extracting import ALONE, ONE, extract, quiet
from records import record, rewrite
from refusals import refusal
from sounds import tone
from stores import manifest, names

import bas
from bas.cli.main import main
from bas.corpora import open_corpus
from bas.encoders import Padded, is_own, load_encoder, one_at_a_time, tunable
from bas.encoders.again import load_again
from bas.encoders.own import Own
from bas.features.store import FeatureStore
from bas.features.verify import verify
from bas.models.card import card
from bas.runs.choose import store_folder
from bas.testing import ENCODER_CONTRACTS, BrokenContractError, check_encoder

CPU = torch.device("cpu")
SOUND = """
import os
import numpy as np
import torch

open("opened", "a").write("x")

class Bands:
    num_states, dim, frame_rate, min_samples = 2, 4, 50.0, 320
    # more

    def __init__(self, device):
        assert device == "cpu"
        pass  # init

    def encode(self, wave):
        assert wave.dtype == np.float32 and wave.ndim == 1
        frames = wave[: len(wave) // 320 * 320].reshape(-1, 4, 80)
        states = np.stack([frames.mean(2), np.abs(frames).mean(2)])
        return states
"""
RETURN, INIT, MORE = "return states", "pass  # init", "# more"


def write(path: Path, old: str = "", new: str = "") -> str:
    assert old in SOUND
    path.write_text(SOUND.replace(old, new, 1) if old else SOUND)
    return str(path)


@pytest.fixture(autouse=True)
def within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def runs() -> int:
    """How often a file was run."""
    return len(Path("opened").read_text()) if Path("opened").exists() else 0


def states(encoder: Any, wave: np.ndarray) -> torch.Tensor:
    (found,) = encoder.encode([encoder.prepare(wave)])
    return found


def noise(samples: int = 6_500) -> np.ndarray:
    return (0.1 * np.random.default_rng(samples).standard_normal(samples)).astype(np.float32)


# What it is


def test_a_class_in_a_file_is_an_encoder() -> None:
    encoder = load_encoder(write(Path("mine.py")), CPU)
    info = encoder.info
    assert (info.name, info.num_states, info.dim, info.frame_rate) == ("mine.py", 2, 4, 50.0)
    assert re.fullmatch(r"py:[0-9a-f]{16}:Bands", info.revision)
    assert encoder.min_samples == 320
    wave = noise()
    found, before = states(encoder, wave), wave.copy()
    assert torch.equal(found[0], torch.from_numpy(wave[:6400].reshape(-1, 4, 80).mean(2)))
    assert np.array_equal(wave, before)


def test_it_may_change_the_wave_that_it_gets() -> None:
    encoder: Any = load_encoder(write(Path("mine.py"), RETURN, "wave[:] = 0; return states"), CPU)
    wave = noise()
    prepared = encoder.prepare(wave)
    assert torch.equal(encoder.encode([prepared])[0], encoder.encode([prepared])[0])
    assert wave.any()


@pytest.mark.parametrize(
    "given", ["torch.from_numpy(states)", "states.astype('>f8')", "states.astype('f2')", "states[:, ::-1]"]
)
def test_arrays_and_tensors_of_any_float(given: str) -> None:
    found = states(load_encoder(write(Path("mine.py"), RETURN, f"return {given}"), CPU), noise())
    assert found.is_floating_point()
    assert found.shape == (2, 20, 4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.py", True), ("~/b/a.py", True), ("a.py:Class", True), ("a.py:", False), ("a.pyc", False), ("py", False)],
)
def test_names(name: str, expected: bool) -> None:
    assert is_own(name) is expected


def test_one_class_of_several_is_named() -> None:
    two = (
        SOUND + "\nclass Other(Bands):\n    dim = 2\n    def encode(self, wave): return super().encode(wave)[..., :2]\n"
    )
    Path("two.py").write_text(two + "from os import DirEntry\nclass Helper: pass\n")
    assert load_encoder("two.py:Other", CPU).info.dim == 2
    message = "encoder 'two.py': needs one class with a method encode; it has Bands, Other; name one as my_encoder.py:C"
    assert message in refusal(load_encoder, "two.py", CPU)
    message = "no class Helper with a method encode in this file; it has Bands, Other"
    assert message in refusal(load_encoder, "two.py:Helper", CPU)
    revisions = {load_encoder(f"two.py:{name}", CPU).info.revision for name in ("Bands", "Other")}
    assert len(revisions) == 2


def test_its_identity_is_of_the_bytes_and_the_version() -> None:
    first = load_encoder(write(Path("a.py")), CPU).info.revision
    assert load_encoder(write(Path("b.py")), CPU).info.revision == first
    edited = load_encoder(write(Path("a.py"), MORE, "# some more"), CPU).info.revision
    versions = [load_encoder(write(Path("a.py"), MORE, f"version = 'weights {v}'"), CPU).info.revision for v in "12"]
    assert len({first, edited, *versions}) == 4
    assert versions[0].endswith(":Bands weights 1")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("class Bands:", "class Bands", "cannot be imported: SyntaxError: "),
        ("import os", "import oss", "cannot be imported: ModuleNotFoundError: No module named 'oss'"),
        ("import os", "raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
        ("def encode", "def encod", "needs one class with a method encode; it has none"),
        ("(self, device)", "(self)", "cannot be made: TypeError: "),
        (INIT, "open('weights')", "cannot be made: FileNotFoundError: "),
        (INIT, "raise SystemExit(0)", "cannot be made: SystemExit: 0"),
        (", dim, ", ", width, ", "dim: missing; must be a whole number, 1 to 100,000"),
        ("= 2, 4,", "= 0, 4,", "num_states: 0; must be a whole number, 1 to 1,000"),
        ("= 2, 4,", "= 2, 4.0,", "dim: 4.0; must be a whole number"),
        ("50.0", "'50'", "frame_rate: '50'; must be a number above 0, at most 16,000"),
        ("50.0", "float('nan')", "frame_rate: nan; must be a number above 0"),
        (", 320\n", ", True\n", "min_samples: True; must be a whole number"),
        (MORE, "version = 3", "version = 3: must be a text, or be left out"),
    ],
)
def test_what_is_no_encoder_is_refused(old: str, new: str, message: str) -> None:
    assert refusal(load_encoder, write(Path("bad.py"), old, new), CPU).startswith(f"encoder 'bad.py': {message}")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ("return states[0]", "encode gives the shape (20, 4) for 6500 samples, not (2, frames, 4)"),
        ("return states[:1]", "encode gives the shape (1, 20, 4) for 6500 samples, not (2, frames, 4)"),
        ("return states[:, :0]", "encode gives the shape (2, 0, 4)"),
        ("return states[:, :10]", "encode gives 10 frames, but 0.41 s make about 20 at its frame_rate, 50"),
        ("return (states * 100).astype(int)", "encode gives int64, not floats"),
        ("return np.array([[['x']]])", "encode gives <U1, not floats"),
        ("return states.tolist()", "encode gives list, not an array or a tensor"),
        ("raise SystemExit(1)", "encode fails for 6500 samples: SystemExit: 1"),
        ("return states + unknown", "encode fails for 6500 samples: NameError: name 'unknown' is not defined"),
    ],
)
def test_what_encode_may_not_give(new: str, message: str) -> None:
    encoder = Own(write(Path("bad.py"), RETURN, new), CPU)
    assert refusal(states, encoder, noise()).startswith(f"encoder 'bad.py': {message}")


def test_what_fails_always_fails_before_anything_is_written(tmp_path: Path) -> None:
    corpus_of(tmp_path)
    table = {"corpus": {"reader": "manifest", "root": "list.csv"}, "encoder": {"name": "bad.py"}}
    write(Path("bad.py"), RETURN, "return states[..., :3]")
    message = "encoder 'bad.py': encode gives the shape (2, 1, 3) for 320 samples, not (2, frames, 4)"
    assert refusal(bas.extract, table) == message
    assert not Path("runs").exists()
    write(Path("bad.py"), RETURN, "return states if len(wave) < 8000 else states[..., :3]")
    assert "(2, 30, 3) for 9600 samples" in refusal(bas.extract, table)  # later, what is finished is kept
    assert "incomplete" in refusal(FeatureStore, "runs/features/list-bad")


def test_what_is_for_other_encoders_is_refused() -> None:
    file = write(Path("mine.py"))
    for options in ({"revision": "main"}, {"precision": "bfloat16"}, {"real_length": True}):
        (option,) = options
        message = refusal(load_encoder, file, CPU, **options)
        assert f"{option} {options[option]!r} asked, but a Python file sees to that itself" in message
    assert runs() == 0
    assert "no weights to train" in refusal(tunable, load_encoder(file, CPU))
    assert "cannot be read: No such file" in refusal(load_encoder, "none.py", CPU)
    assert "a folder, not a file" in refusal(load_encoder, os.mkdir("x.py") or "x.py", CPU)


# A store


def corpus_of(folder: Path) -> Any:
    return open_corpus("manifest", manifest(folder / "list.csv", names()))


def test_it_encodes_one_wave_at_a_time(tmp_path: Path) -> None:
    """Whatever threads there are, and whatever they give it."""
    busy = "global inside; inside += 1; import time; time.sleep(0.002); assert inside == 1; inside -= 1; return states"
    Path("mine.py").write_text(SOUND.replace(RETURN, busy) + "\ninside = 0\n")
    encoder: Any = load_encoder("mine.py", CPU)
    threads = [threading.Thread(target=states, args=(encoder, noise(3200 + i))) for i in range(8)]
    failures: list[Any] = []
    threading.excepthook, before = failures.append, threading.excepthook
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert failures == []
    assert one_at_a_time(encoder)
    assert one_at_a_time(Padded(encoder, 1.0))
    assert not one_at_a_time(load_encoder("log-mel", CPU))


def test_a_store_is_of_one_state_of_the_file(tmp_path: Path) -> None:
    corpus, root = corpus_of(tmp_path), tmp_path / "list.csv"
    how: dict[str, Any] = {"root": root, "shard_bytes": ONE, "group": ALONE, "reader": "manifest"}
    made = extract(corpus, tmp_path / "store", load_encoder(write(Path("mine.py")), CPU), **how)
    one = {u.id: u for u in corpus.utterances}["u3"]
    alone = states(load_encoder("mine.py", CPU), bas_wave(one))
    assert np.array_equal(made.read("u3", 1), alone[1].to(torch.float16).numpy())
    assert extract(corpus, tmp_path / "store", load_encoder("mine.py", CPU), **how).info == made.info
    write(Path("mine.py"), MORE, "# edited")
    assert "holds another store (revision: mine.py py:" in refusal(
        extract, corpus, tmp_path / "store", load_encoder("mine.py", CPU), **how
    )


def bas_wave(utterance: Any) -> np.ndarray:
    from bas.speech import audio

    return audio.load(utterance)


def test_the_usual_folder_is_named_by_the_file(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path)
    assert store_folder(corpus, "~/x/mine.py").name == "list-mine"
    assert store_folder(corpus, "mine.py:Bands").name == "list-mine-Bands"
    assert store_folder(corpus, "facebook/hubert").name == "list-hubert"


def test_verify_runs_no_file_that_only_the_store_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus_of(tmp_path)
    table = 'corpus = {reader = "manifest", root = "list.csv"}\nencoder = {name = "mine.py"}\nfeatures = "store"\n'
    Path("cups.toml").write_text(table)
    write(Path("mine.py"))
    assert main(["extract", "cups.toml"]) == 0
    before = runs()

    def found(encoder: str | None) -> tuple[str, ...]:
        checks = verify(Path("store"), quiet(), CPU, sample=99, encoder=encoder)
        return next(one.problems for one in checks if one.check == "encoder")

    assert found(None) == ()
    capsys.readouterr()
    assert main(["features", "verify", "store"]) == 0, "what bas may not check is no fault of the store"
    said = capsys.readouterr().out
    assert "not checked  encoder: mine.py is Python, which is run only if you name it" in said
    assert "name it: --encoder mine.py" in said
    assert main(["features", "verify", "store", "--sample", "0"]) == 0
    assert "not checked" not in capsys.readouterr().out, "it was not asked for"
    assert runs() == before
    assert found("mine.py") == ()
    for named in (["store", "--encoder", "mine.py"], ["cups.toml"]):  # which names the file, and is the user's
        assert main(["features", "verify", *named]) == 0
        said = capsys.readouterr().out
        assert "ok     encoder: " in said
        assert "not checked" not in said
    before = runs()
    write(Path("mine.py"), MORE, "# edited")
    assert re.search(r"edited since, or another: its hash is \w{16}, not \w{16}; not run", found("mine.py")[0])
    assert runs() == before


def test_a_file_is_not_run_for_another_kind_of_encoder_nor_another_for_a_file() -> None:
    own = load_encoder(write(Path("mine.py")), CPU).info.to_dict()
    mel = load_encoder("log-mel", CPU).info.to_dict()
    before = runs()
    message = "encoder 'mine.py': another than the model's (log-mel, 1), which is no Python file"
    assert message in refusal(load_again, mel, "mine.py", CPU, "model")
    for name in ("mine.py", "./mine.py:Bands"):
        assert "run only if you name it" in refusal(load_again, {**mel, "name": name}, None, CPU, "model")
        assert "run only if you name it" in refusal(load_again, {**own, "name": name}, None, CPU, "model")
    assert "name that with --encoder FILE.py" in refusal(load_again, own, "log-mel", CPU, "model")
    assert "name that with --encoder FILE.py" in refusal(load_again, {**own, "name": "log-mel"}, None, CPU, "model")
    assert runs() == before
    assert load_again(own, "mine.py", CPU, "model").info.revision == own["revision"]
    assert "(revision: " in refusal(load_again, {**own, "revision": own["revision"] + " 2"}, "mine.py", CPU, "model")


# A model


@pytest.mark.slow
def test_a_model_runs_the_file_only_where_the_user_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["id,audio,label,speaker"]
    for i in range(16):
        tone(tmp_path / f"wav/a{i}.wav", 0.3, hertz=200 + 200 * (i % 2) + 7 * i)
        rows.append(f"a{i},wav/a{i}.wav,{'joy' if i % 2 else 'anger'},s{i // 4}")
    Path("cups.csv").write_text("\n".join(rows))
    write(Path("mine.py"))
    small = {"epochs": 1, "width": 8, "budget": 2, "committee": 1, "ensemble": 1}
    table = {"corpus": {"reader": "manifest", "root": "cups.csv"}, "encoder": {"name": "mine.py"}, "settings": small}
    store = bas.extract(table)
    assert FeatureStore(store).info.encoder["name"] == "mine.py"
    bas.compare(table, name="own", seeds=1, workers=1, layer=[1], protocol={"rule": "speaker:2"})
    capsys.readouterr()
    assert main(["export", "runs/own", "--row", "logistic regression", "--into", "model"]) == 0
    assert capsys.readouterr().out.endswith("predict model recording.wav --encoder mine.py\n")
    assert sorted(p.name for p in Path("model").iterdir()) == ["README.md", "model.json", "model.safetensors"]
    page = Path("model/README.md").read_text()
    assert "bas predict FOLDER recording.wav --encoder mine.py" in page
    assert "The encoder is a Python file, which is not in this folder" in page
    assert "base_model" not in page
    before = runs()
    predict = ["predict", "model", "wav/a1.wav"]
    assert main(predict) == 2
    message = "bas: encoder 'mine.py': the model's encoder is Python, which is run only if you name it; read it, then "
    assert capsys.readouterr().err == f"{message}name it with --encoder FILE.py\n"
    assert runs() == before
    assert main([*predict, "--encoder", "mine.py"]) == 0
    said = capsys.readouterr().out
    Path("mine.py").rename("moved.py")
    assert main([*predict, "--encoder", "moved.py:Bands"]) == 0
    assert capsys.readouterr().out == said
    before = runs()
    write(Path("mine.py"), MORE, "# edited")
    assert main([*predict, "--encoder", "mine.py"]) == 2
    assert "edited since, or another" in capsys.readouterr().err
    # A stranger's model names a file that lies here, as one of another kind.
    raw = record(Path("model/model.json"))
    rewrite(Path("model/model.json"), raw | {"encoder": raw["encoder"] | {"revision": "1", "model_type": "log-mel"}})
    assert main(predict) == 2
    assert "run only if you name it" in capsys.readouterr().err
    assert main([*predict, "--encoder", "mine.py"]) == 2
    assert "which is no Python file" in capsys.readouterr().err
    assert runs() == before
    assert "bas predict FOLDER recording.wav\n" in card(bas.load(plain_model(tmp_path)).description)


def plain_model(folder: Path) -> Path:
    """The same model, said to be of log-mel."""
    path = folder / "model/model.json"
    raw = record(path)
    rewrite(path, raw | {"encoder": raw["encoder"] | {"name": "log-mel"}})
    return folder / "model"


# The contracts that ship

BROKEN = {
    "another shape": (RETURN, "return states[:, :, :3]", "shape frames least finite again fresh"),
    "no number": (RETURN, "return np.log(states)", "shape finite again fresh"),
    "no sound": (RETURN, "return np.ones_like(states)", "shape"),
    "another rate": (RETURN, "return states[:, : len(wave) // 400]", "shape frames least finite again fresh"),
    "too short a least": (", 320\n", ", 100\n", "least"),
    "divided by 0": (RETURN, "return states / wave.std()", "finite"),
    "noise": (RETURN, "return states + np.random.randn(2, 1, 1)", "again fresh"),
    "a memory": (RETURN, "self.last = getattr(self, 'last', 0) + 1; return states + self.last", "again"),
    "untrained": (INIT, "self.w = np.random.randn()", "fresh"),
    "an error": (RETURN, "return states.no", "shape frames least finite again fresh"),
}


def broken_by(file: str) -> list[str]:
    names = []
    for name in ENCODER_CONTRACTS:
        try:
            check_encoder(file, name)
        except BrokenContractError:
            names.append(name)
    return names


@pytest.mark.parametrize("case", BROKEN)
def test_an_encoder_that_breaks_a_contract_is_told_so(case: str) -> None:
    old, new, expected = BROKEN[case]
    text = SOUND.replace(old, new, 1)
    if case == "untrained":
        text = text.replace(RETURN, "return states * self.w")
    Path("bad.py").write_text(text)
    with np.errstate(all="ignore"):
        assert " ".join(broken_by("bad.py")) == expected


def test_the_verb_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-encoder", write(Path("mine.py"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["pass", name] for name in ENCODER_CONTRACTS]
    assert main(["check-encoder", write(Path("mine.py"), INIT, "self.encode = None")]) == 1
    fault, end = capsys.readouterr().out.splitlines()
    assert fault.startswith("FAIL shape")
    assert end == "mine.py: 1 of 6 contracts broken; 5 not tried, which need shape"
    assert main(["check-encoder", write(Path("mine.py"), RETURN, "return states + np.random.randn(2, 1, 1)")]) == 1
    *_, fault, end = capsys.readouterr().out.splitlines()
    assert fault.startswith("FAIL again")
    assert end == "mine.py: 1 of 6 contracts broken; 1 not tried, which need again"
    with np.errstate(all="ignore"):
        assert main(["check-encoder", write(Path("mine.py"), RETURN, "return states / wave.std()")]) == 1
    assert capsys.readouterr().out.endswith("mine.py: 1 of 6 contracts broken\n"), "all were tried"
    assert main(["check-encoder", "log-mel"]) == 2
    assert "encoder 'log-mel': must be a Python file" in capsys.readouterr().err
    assert isinstance(load_encoder(write(Path("mine.py")), CPU), Own)
