"""Info and verify: a whole store passes, and each way of breaking one is found and named, beside all others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from records import rewrite
from refusals import refusal
from sounds import tone
from stores import Fake, flip, forge, manifest, names, quiet, store
from torch import Tensor

from bas.cli.main import main
from bas.encoders import load_encoder
from bas.errors import UserError
from bas.features import verify as room
from bas.features.info import describe
from bas.features.shard import as_bytes, shard_path
from bas.features.store import FeatureStore
from bas.features.verify import TOLERANCE, Finding, difference, verify

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return manifest(tmp_path / "list.csv", names())


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A whole store of three shards or more; loading an encoder gives `Fake`."""
    monkeypatch.setattr("bas.encoders.again.load_encoder", lambda *_, **__: Fake())
    made = store(root, tmp_path / "store").folder
    assert len(list(made.glob("shard-*.h5"))) >= 3
    return made


def checked(folder: Path, **choices: Any) -> dict[str, Finding]:
    return {finding.check: finding for finding in verify(folder, quiet(), CPU, **choices)}


def wrong(folder: Path, **choices: Any) -> dict[str, list[str]]:
    return {name: list(finding.problems) for name, finding in checked(folder, **choices).items() if finding.problems}


def edit_json(folder: Path, **changes: Any) -> None:
    path = folder / "store.json"
    rewrite(path, {**json.loads(path.read_text()), **changes})


def test_a_whole_store_passes(folder: Path) -> None:
    findings = checked(folder)
    assert list(findings) == ["files", "entries", "shards", "labels", "encoder"]
    assert not any(f.problems or f.advice for f in findings.values())
    assert "6 of 6 utterances are as they were computed" in findings["shards"].summary
    assert "3 utterances encoded again on cpu" in findings["encoder"].summary
    assert list(checked(folder, sample=0)) == ["files", "entries", "shards", "labels"]


@pytest.mark.parametrize("name", ["log-mel", "hubert"])
def test_real_encoders_pass_in_each_dtype(name: str, hubert: Path, root: Path, tmp_path: Path) -> None:
    for dtype in ("float16", "float32"):
        encoder: Any = load_encoder(name if name == "log-mel" else str(hubert), CPU)
        made = store(root, tmp_path / dtype, encoder, dtype=dtype)
        assert not wrong(made.folder, sample=6)


# What is broken is found


@pytest.mark.parametrize("layer", [0, 2])
def test_a_flipped_bit_is_found_and_only_its_shard_is_made_again(layer: int, folder: Path, root: Path) -> None:
    whole = {p.name: p.read_bytes() for p in folder.glob("shard-*.h5")}
    id_ = flip(shard_path(folder, 1), layer)
    findings = checked(folder, sample=6)
    assert findings["shards"].problems == (f"shard-00001.h5: {id_}: layer {layer}: other bytes than were computed",)
    assert "move shard-00001.h5 out of the folder and run the same `bas extract` again" in findings["shards"].advice
    assert not findings["encoder"].problems  # drawn from what is intact
    shard_path(folder, 1).unlink()
    assert wrong(folder) == {"files": ["shard-00001.h5: missing"]}
    encoder = Fake()
    again = store(root, folder, encoder)
    assert encoder.encoded == len(again.info.shards[1])
    assert {p.name: p.read_bytes() for p in folder.glob("shard-*.h5") if p.name != "shard-00001.h5"} == {
        name: raw for name, raw in whole.items() if name != "shard-00001.h5"
    }
    assert wrong(folder) == {}


def test_every_damaged_shard_is_told(folder: Path) -> None:
    a, b = flip(shard_path(folder, 0)), flip(shard_path(folder, 2))
    finding = checked(folder)["shards"]
    assert [line.split(": ")[:2] for line in finding.problems] == [["shard-00000.h5", a], ["shard-00002.h5", b]]
    assert "move shard-00000.h5, shard-00002.h5 out" in finding.advice


@pytest.mark.parametrize("left", [0, 100, 0.5, 0.99])
def test_a_truncated_shard_is_found(left: float, folder: Path) -> None:
    path = shard_path(folder, 0)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(left * len(raw) if left < 1 else left)])
    (line,) = wrong(folder)["shards"]
    assert line.startswith("shard-00000.h5: ")


def test_swapped_shards_are_found(folder: Path) -> None:
    a, b = shard_path(folder, 0), shard_path(folder, 1)
    shutil.move(a, folder / "aside")
    shutil.move(b, a)
    shutil.move(folder / "aside", b)
    assert [line.split(": ")[0] for line in wrong(folder)["shards"]] == ["shard-00000.h5", "shard-00001.h5"]


def test_nan_under_a_right_checksum_is_found(folder: Path) -> None:
    def poison(file: h5py.File) -> None:
        file["states"][1, 0, 2] = np.nan
        crc32 = file["crc32"][:]
        crc32[1, 0] = zlib.crc32(as_bytes(file["states"][1, : file["offsets"][1]]))
        file["crc32"][:] = crc32

    forge(shard_path(folder, 0), poison)
    (line,) = wrong(folder)["shards"]
    assert line.endswith("layer 1: NaN or infinite values")


def test_frames_that_cannot_be_are_found(folder: Path) -> None:
    raw = json.loads((folder / "store.json").read_text())
    id_ = raw["shards"][0][0]
    raw["recordings"][id_][1] *= 2
    edit_json(folder, recordings=raw["recordings"])
    (line,) = wrong(folder)["shards"]
    assert line == f"shard-00000.h5: {id_}: 30 frames, but 1.20 s make about 60"


def test_offsets_that_do_not_cut_are_found(folder: Path) -> None:
    def shift(file: h5py.File) -> None:
        file["offsets"][0] = 1

    forge(shard_path(folder, 1), shift)
    (line,) = wrong(folder)["shards"]
    assert line.startswith("shard-00001.h5: not readable as a shard (offsets do not cut")


def test_an_utterance_twice_and_one_held_and_skipped_are_found(folder: Path) -> None:
    raw = json.loads((folder / "store.json").read_text())
    first, last = raw["shards"][0][0], raw["shards"][-1][0]
    edit_json(folder, shards=[[*raw["shards"][0], last], *raw["shards"][1:]], skipped={first: "why"})
    problems = wrong(folder)
    assert problems["entries"] == [f"{last}: listed 2 times", f"{first}: both held and skipped"]
    assert problems["shards"][0].startswith("shard-00000.h5: belongs to another store")


def test_an_utterance_without_a_recording_is_found(folder: Path) -> None:
    raw = json.loads((folder / "store.json").read_text())
    id_ = raw["shards"][1][0]
    del raw["recordings"][id_]
    edit_json(folder, recordings=raw["recordings"])
    problems = wrong(folder)
    assert problems["entries"] == [f"{id_}: held, but no recording is named for it"]
    assert problems["shards"][0].startswith("shard-00001.h5: ")


def test_stray_files_and_an_extraction_under_way_are_told(folder: Path) -> None:
    (folder / "shard-00099.h5").touch()
    findings = checked(folder)
    assert "left behind: shard-00099.h5" in findings["files"].summary
    assert not findings["files"].problems
    shutil.copy(folder / "store.json", folder / "plan.json")
    assert (
        "plan.json: `bas extract` adds to it or was stopped (1 files beyond the store)"
        in checked(folder)["files"].summary
    )
    assert "the same command goes on" in describe(folder, quiet())["under way"]


# The corpus


def test_ids_that_the_labels_have_and_the_store_has_not_and_the_reverse(folder: Path, root: Path) -> None:
    text = root.read_text()
    root.write_text(text.replace("u2,wav", "new,wav"))
    finding = checked(folder)["labels"]
    assert finding.problems == (
        "new: in the corpus, but neither held nor skipped",
        "u2: held, but the corpus has it no more",
    )
    assert "extract into another folder" in finding.advice  # the same command would refuse
    root.write_text(text + "u9,wav/u1.wav,a,s\n")
    finding = checked(folder)["labels"]
    assert finding.problems == ("u9: in the corpus, but neither held nor skipped",)
    store(root, folder)  # what it advises
    assert "run the same `bas extract` again" in finding.advice
    assert wrong(folder) == {}


def test_a_recording_that_changed_is_found_and_not_encoded(folder: Path, tmp_path: Path) -> None:
    tone(tmp_path / "wav" / "u3.wav", 0.6, hertz=999)
    findings = checked(folder, sample=6)
    assert findings["labels"].problems == (f"u3: {tmp_path / 'wav' / 'u3.wav'} changed since",)
    assert findings["encoder"].summary.startswith("5 utterances")
    assert not findings["encoder"].problems


def test_without_its_corpus_the_other_checks_go_on(folder: Path, root: Path) -> None:
    root.unlink()
    flip(shard_path(folder, 0))
    problems = wrong(folder)
    assert set(problems) == {"shards", "labels", "encoder"}
    assert str(root) in problems["labels"][0]
    assert set(wrong(folder, sample=0)) == {"shards", "labels"}


# The encoder


class Off(Fake):
    """Another encoder under the same revision: one state is a little off."""

    def encode(self, inputs: Any) -> list[Tensor]:
        encoded = super().encode(inputs)
        for states in encoded:
            states[1] *= 1.01
        return encoded


def test_states_of_another_encoder_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bas.encoders.again.load_encoder", lambda *_, **__: Off())
    finding = checked(folder, sample=2)["encoder"]
    assert len(finding.problems) == 2
    assert all(": layer 1 differs by 0.00" in line for line in finding.problems)


def test_states_of_another_utterance_under_right_checksums_are_found(folder: Path) -> None:
    def swap(file: h5py.File) -> None:
        file["states"][:, :10] = file["states"][:, 10:20][:, ::-1]
        edges = file["offsets"][:]
        states = file["states"][:]
        file["crc32"][:] = [[zlib.crc32(as_bytes(layer[a:b])) for a, b in pairwise(edges)] for layer in states]

    forge(shard_path(folder, 0), swap)
    problems = wrong(folder, sample=6)
    assert set(problems) == {"encoder"}


@pytest.mark.parametrize(
    ("field", "value"), [("revision", "2"), ("input", "other"), ("precision", "bfloat16"), ("dim", 5)]
)
def test_another_encoder_is_not_taken_for_the_store_s(
    field: str, value: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bas.encoders.again.load_encoder", lambda *_, **__: Fake(**{field: value}))
    (line,) = wrong(folder)["encoder"]
    assert f"({field}: " in line


def test_the_encoder_is_loaded_as_the_store_says(
    folder: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def load(name: str, device: torch.device, revision: str | None, **more: Any) -> Fake:
        seen.append((name, device, revision, more))
        return Fake()

    monkeypatch.setattr("bas.encoders.again.load_encoder", load)
    checked(folder)
    checked(folder, encoder=str(tmp_path))
    more = {"precision": "float32", "real_length": False}
    assert seen == [("fake", CPU, "1", more), (str(tmp_path), CPU, None, more)]
    real = Fake(input="log-mel of the real length", revision="sha256:12", precision="bfloat16")
    made = store(root, tmp_path / "real", real).folder
    assert "is not here" in wrong(made)["encoder"][0]
    checked(made, encoder=str(tmp_path))
    assert seen[2:] == [(str(tmp_path), CPU, None, {"precision": "bfloat16", "real_length": True})]


def test_a_moved_encoder_is_found_with_the_option(hubert: Path, root: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(hubert, tmp_path / "models" / "moved")
    encoder: Any = load_encoder(str(moved), CPU)
    folder = store(root, tmp_path / "store", encoder).folder
    shutil.rmtree(moved)
    finding = checked(folder)["encoder"]
    assert "is not here" in finding.problems[0]
    assert "--encoder" in finding.advice
    assert not wrong(folder, encoder=str(hubert))


def test_the_sample_is_the_seed_s(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "TOLERANCE", {"float32": -1.0})  # so that each utterance is told
    drawn = [{line.split(":")[0] for line in wrong(folder, seed=seed)["encoder"]} for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len({frozenset(d) for d in drawn}) > 1
    assert len(wrong(folder, sample=99)["encoder"]) == 6 * 3


def test_the_difference_sees_one_frame_and_any_width() -> None:
    chance = np.random.default_rng(0)
    a = chance.normal(size=(50, 64)).astype(np.float32)
    a[:, 3] *= 300  # an outlier dimension, as encoders have them
    assert difference(a.astype(np.float16), a) < TOLERANCE["float32"]
    b = a.copy()
    b[7] = a[8]
    assert difference(b, a) > 5 * TOLERANCE["bfloat16"]
    assert difference(a[:-1], a) == np.inf
    b[7, 0] = np.nan
    assert difference(b, a) == np.inf
    assert difference(0 * a, 0 * a) == 0


# The commands


def test_the_command_tells_each_check_and_ends_with_the_first_problem(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["features", "verify", str(folder), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("ok ")] == [
        "files:",
        "entries:",
        "shards:",
        "labels:",
        "encoder:",
    ]
    id_ = flip(shard_path(folder, 1))
    shard_path(folder, 2).unlink()
    assert main(["features", "verify", str(folder), "--sample", "0"]) == 2
    shown = capsys.readouterr()
    assert f"bas: {folder}: 2 problems, the first: files: shard-00002.h5: missing\n" == shown.err
    assert f"  shard-00001.h5: {id_}: layer 0: other bytes than were computed\n" in shown.out
    assert "WRONG  shards: " in shown.out


@pytest.mark.parametrize("text", ["-1", "x", "1.5"])
def test_a_bad_sample_is_refused(text: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features", "verify", str(folder), f"--sample={text}"]) == 2
    message = f"bas: argument --sample: {text!r}: must be a number, 0 or more; see bas features verify --help\n"
    assert capsys.readouterr().err == message


def test_a_long_list_is_cut(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bas.util.progress.SHOWN", 1)
    flip(shard_path(folder, 0))
    flip(shard_path(folder, 1))
    assert main(["features", "verify", str(folder), "--sample", "0"]) == 2
    assert "  and 1 more\n" in capsys.readouterr().out


def test_no_store_is_refused(tmp_path: Path) -> None:
    assert "no feature store here" in refusal(lambda: list(verify(tmp_path, quiet(), CPU)))
    assert "no feature store here" in refusal(describe, tmp_path, quiet())


def test_info_says_what_a_store_holds(folder: Path, root: Path, tmp_path: Path) -> None:
    description = describe(folder, quiet())
    opened = FeatureStore(folder)
    frames = sum(opened.num_frames(i) for i in opened.ids)
    assert description["corpus"] == f"manifest, {root}"
    assert description["held"] == f"6 utterances, 0.00 h, {frames} frames"
    assert description["encoder"] == "fake (fake)"
    assert description["revision"] == "1"
    assert description["layers"] == "0, 1, 2 of 0 to 2"
    assert description["frames"] == "4 wide, 50 a second"
    assert description["computed"] == "in float32 on cpu, stored as float16"
    assert description["size"].startswith(f"{sum(p.stat().st_size for p in folder.glob('*.h5')):,} bytes in ")
    assert description["made by"] == "bas extract"
    assert description["identity"] == opened.info.identity
    assert description["skipped"] == "none"
    assert f"torch {torch.__version__.partition('+')[0]}" in description["versions"]
    assert "under way" not in description
    edit_json(folder, skipped={f"x{i}": "too long" for i in range(5)})
    assert describe(folder, quiet())["skipped"].splitlines() == [
        "5 utterances",
        *(f"x{i}: too long" for i in range(3)),
        "and 2 more: store.json",
    ]


def test_info_says_where_versions_differ(folder: Path) -> None:
    with h5py.File(shard_path(folder, 0), "r+") as file:
        file.attrs["versions"] = json.dumps({"torch": "1.0"})
    lines = describe(folder, quiet())["versions"].splitlines()
    assert lines[0] == "they differ:"
    assert lines[-1] == "1 shards: torch 1.0"


def test_info_refuses_a_damaged_shard(folder: Path) -> None:
    shard_path(folder, 0).write_bytes(b"")
    with pytest.raises(UserError, match=r"shard-00000\.h5"):
        describe(folder, quiet())


def test_the_info_command_needs_no_torch(folder: Path) -> None:
    script = f"from bas.cli.main import main; assert main(['features', 'info', {str(folder)!r}]) == 0"
    check = "import sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", f"{script}; {check}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fake (fake)" in done.stdout
