"""A comparison of tones, its model, and one with a block of the user's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from foreign import OWN
from heard import FEATURES, heard

import bas
from bas.cli.main import main
from bas.models.predict import Model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A comparison of tones, its model and one with a block of the user's own."""
    folder = tmp_path_factory.mktemp("predicting")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        heard(utterances=24, speakers=4, labelled=True)
        small = [f"--set={setting}" for setting in ("epochs=1", "width=8", "stride=2", "committee=1")]
        Path("own.py").write_text(OWN)
        words = ["--features", FEATURES, *small, "--set=strategy=random", "--seeds", "1", "--workers", "1"]
        rule = ["--protocol", "speaker:2"]
        for name, space in (("own", "own.py"), ("run", "ser_bas3")):
            assert main(["compare", *words, *rule, "--space", space, "--name", name]) == 0
            row = f"BAS {Path(space).stem}"
            assert main(["export", f"runs/{name}", "--row", row, "--into", f"{name}-model"]) == 0
        yield folder


@pytest.fixture
def model(home: Path) -> Model:
    return bas.load("run-model", device="cpu")


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A copy of the model, to be damaged."""
    return Path(shutil.copytree("run-model", tmp_path / "copy"))
