"""Features and labels belong together: a run looks before it writes anything, and options are refused in one line."""

from __future__ import annotations

import csv
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch
from extracting import ALONE, ONE, Fake, extract
from refusals import refusal
from sounds import tone, tones

from bas.cli.main import main
from bas.corpora import Corpus
from bas.encoders import base
from bas.experiment import KEYS
from bas.features import spool as spools
from bas.features.extract import Group
from bas.features.shard import Shard, shard_path


def manifest(folder: Path, count: int, shift: int = 0) -> Path:
    """Tones of two labels and four speakers; `shift`: each row names the recording of so many rows further."""
    rows = []
    for i in range(count):
        tone(folder / f"{i:02d}.wav", 0.2, hertz=200 + 10 * i)
        rows.append((f"u{i:02d}", f"{(i + shift) % count:02d}.wav", "ab"[i % 2], f"s{i // 2 % 4}"))
    with (folder / "all.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("id", "audio", "label", "speaker"), *rows])
    return folder / "all.csv"


@pytest.fixture
def run_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Carries out a verb; the exit code, and what was printed."""
    monkeypatch.chdir(tmp_path)

    def run(verb: str, *more: str) -> tuple[int, str]:
        given = {"extract": ["--corpus", "manifest", "--root", "all.csv", "--encoder", "log-mel", "--features", "f"]}
        small = ["--features", "f", "--layer", "0", "--seeds", "1", "--space", "ser_bas3", "--workers", "1"]
        quick = ["--protocol", "speaker:2", "--set", "epochs=1", "--set", "width=8", "--name", "r"]
        quick += ["--set", "strategy=single-path", "--set", "committee=1"]
        try:
            code = main([verb, *given.get(verb, [*small, *quick]), *more])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out = capfd.readouterr()
        return code, " ".join((out.out + out.err).split())

    return run


def test_a_run_refuses_features_of_other_recordings(
    tmp_path: Path, run_command: Callable[..., tuple[int, str]]
) -> None:
    manifest(tmp_path, 16)
    assert run_command("extract")[0] == 0
    manifest(tmp_path, 16, shift=1)
    code, line = run_command("search")
    assert code == 2
    assert "f: 16 utterances of all have another recording than was extracted, u00 the first" in line
    assert not (tmp_path / "runs/r/run.json").exists()


@pytest.mark.slow
def test_a_corpus_that_grew_is_told_before_anything_is_written(
    tmp_path: Path, run_command: Callable[..., tuple[int, str]]
) -> None:
    manifest(tmp_path, 16)
    assert run_command("extract")[0] == 0
    manifest(tmp_path, 18)
    code, line = run_command("search")
    assert code == 2
    assert "2 utterances of all are not in the store, u16 the first; run the same `bas extract` again" in line
    assert not (tmp_path / "runs/r/run.json").exists()
    assert run_command("extract")[0] == 0
    assert run_command("search")[0] == 0


def test_a_run_says_how_many_utterances_its_store_skipped(
    tmp_path: Path, run_command: Callable[..., tuple[int, str]]
) -> None:
    manifest(tmp_path, 16)
    (tmp_path / "03.wav").write_text("no sound")
    code, line = run_command("extract")
    assert code == 0
    assert "skipped: 1 utterances" in line
    assert "u03: " in line
    code, line = run_command("search")
    assert code == 0
    assert "1 of 16 utterances are not in the feature store" in line
    folds = json.loads((tmp_path / "runs/r/protocol.json").read_text())
    assert "u03" not in json.dumps(folds)


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "abc"])
@pytest.mark.parametrize("option", ["--batch-seconds", "--longest"])
def test_a_number_that_is_none_is_refused(
    option: str, value: str, tmp_path: Path, run_command: Callable[..., tuple[int, str]]
) -> None:
    manifest(tmp_path, 16)
    code, line = run_command("extract", f"{option}={value}")
    assert code == 2
    assert line == f"bas: {option} {value}: must be {'a number or none' if value == 'abc' else 'above 0'}"
    assert not (tmp_path / "f").exists()


def test_a_layer_is_plain_digits(tmp_path: Path, run_command: Callable[..., tuple[int, str]]) -> None:
    manifest(tmp_path, 16)
    assert run_command("extract", "--layers", "²") == (
        2,
        "bas: --layers '²': must be all or a list, each a whole number",
    )


def test_who_joins_an_extraction_brings_its_encoder(corpus: Corpus, tmp_path: Path) -> None:
    class Stops(Fake):
        def encode(self, inputs: object) -> list[torch.Tensor]:
            raise KeyboardInterrupt

    group, folder = Group(1, 2, 1, 4096, "together"), tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        extract(corpus, folder, Stops(), group=group)
    with (folder / ".session").open() as session:  # as if that process were alive
        fcntl.flock(session, fcntl.LOCK_SH)
        assert "(revision: fake 1 there, fake 2 asked)" in refusal(
            extract, corpus, folder, Fake(revision="2"), group=group
        )
        assert "(precision: " in refusal(extract, corpus, folder, Fake(precision="bfloat16"), group=group)
        assert len(extract(corpus, folder, Fake(), group=group).ids) == 8


def test_a_shard_whose_layers_came_at_two_times_names_the_versions_of_both(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layer, version in ((1, "1.0"), (0, "2.0"), (2, "2.0")):
        monkeypatch.setattr(spools, "versions", lambda version=version: {"torch": version, "bas": "0"})
        store = extract(corpus, tmp_path / "store", layers=[layer], shard_bytes=ONE)
    held = Shard(shard_path(store.folder, 0), store.info.encoder).contents
    assert held.versions == {"torch": "1.0, 2.0", "bas": "0"}


@pytest.mark.parametrize("where", ["encode", "cast"])
def test_a_gpu_that_is_too_small_is_told(where: str, corpus: Corpus, tmp_path: Path) -> None:
    def short(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    class Short(Fake):
        def states(self, x: torch.Tensor) -> torch.Tensor:
            if where == "encode":
                return short()
            states = super().states(x).clone()
            states.isfinite = short  # type: ignore[method-assign]
            return states

    assert "the GPU's memory is short; lower --longest" in refusal(
        extract, corpus, tmp_path / "a", Short(), batch_seconds=0.1, group=ALONE
    )
    assert "lower --batch-seconds" in refusal(
        extract, tones(tmp_path / "two", (0.3, 0.3)), tmp_path / "b", Short(), group=ALONE
    )


def test_extraction_leaves_the_number_of_threads_as_it_was(corpus: Corpus, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        extract(corpus, tmp_path / "store", group=ALONE)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_choices_of_the_command_are_those_of_the_encoders() -> None:
    assert get_args(KEYS["encoder.precision"].kind) == tuple(base.PRECISIONS)
