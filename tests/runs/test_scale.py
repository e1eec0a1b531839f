"""A factor on all features changes nothing: a deviation is judged by its dimension's own size.

A power of two only changes the exponents of floating-point numbers, so the whole result must be the same bits.
"""

# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stacking import eight_speakers, new_run
from stores import Fake, store
from torch import Tensor
from torch.nn import functional as F

from bas.networks.network import Standardise, varying
from bas.runs.jobs import run_job
from bas.runs.losses import Losses
from bas.runs.plan import Job, Kind
from bas.runs.session import Session
from bas.studies.probe.jobs import train_heads
from bas.training.batches import Data, by_speaker
from bas.training.settings import PRESETS

PLAIN = Losses(F.cross_entropy, F.cross_entropy)

JOBS = [
    Job(Kind.LINEAR, "logistic regression", 0, 0),
    Job(Kind.SEARCH, "ser_bas3", 0, 0),
    Job(Kind.ALONE, "ser_bas3", 0, 0, 5),
]
FACTORS = {"1e-6": 1e-6, "1e6": 1e6, "2^-40": 2.0**-40, "2^20": 2.0**20}


class Scaled(Fake):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [x * self.factor for x in super().encode(inputs)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)  # as a job has it
    return eight_speakers(tmp_path_factory.mktemp("scale")).parent / "cups.csv"


def results(corpus: Path, folder: Path, factor: float, normalise: str) -> list[dict[str, Any]]:
    store(corpus, folder / "store", Scaled(factor), dtype="float32")
    run = new_run(folder / "run", folder / "store", normalise=normalise)
    session = Session(run.folder)
    for job in JOBS:
        run_job(session, job)
    return [timeless(run.result(job.name)) for job in JOBS]


def timeless(x: Any) -> Any:
    if isinstance(x, dict):
        return {key: timeless(value) for key, value in x.items() if key != "seconds"}
    return [timeless(value) for value in x] if isinstance(x, list) else x


def rounded(x: Any) -> Any:
    """Losses and probabilities to four digits; all else, predictions among it, as it is."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return pytest.approx(x, rel=1e-3, abs=1e-4) if isinstance(x, float) else x


@pytest.mark.parametrize("normalise", ["corpus", "speaker"])
def test_every_row_is_the_same_whatever_the_features_are_multiplied_by(
    corpus: Path, tmp_path: Path, normalise: str
) -> None:
    plain = results(corpus, tmp_path / "plain", 1.0, normalise)
    for name, factor in FACTORS.items():
        other = results(corpus, tmp_path / name, factor, normalise)
        assert other == (plain if name.startswith("2") else rounded(plain)), name


# --- what is constant, and what only nearly is ---


def data_of(x_ND: np.ndarray, utterances: int = 4) -> Data:
    frames = torch.from_numpy(x_ND)
    lengths = torch.full((utterances,), len(x_ND) // utterances)
    means = torch.from_numpy(np.stack([x.astype(np.float32).mean(0) for x in np.split(x_ND, utterances)]))
    targets = torch.arange(utterances) % 2
    return Data(frames, lengths.cumsum(0) - lengths, lengths, targets, means)


CONSTANTS = [0.0, 0.1, -3.7, 1e-7, 5e-6, 1234.5, 6e4]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("factor", [1.0, 1e-3])
def test_a_constant_dimension_is_never_blown_up(dtype: type, factor: float) -> None:
    x_ND: np.ndarray = np.tile(np.array(CONSTANTS) * factor, (4000, 1)).astype(dtype)
    data, everyone = data_of(x_ND), torch.arange(4)
    assert not data.moments(everyone)[1].any()
    standardise = Standardise(len(CONSTANTS))
    standardise.set(*data.moments(everyone))
    assert (standardise.scale_I == 1).all()
    assert not data.moments(everyone)[1].any()
    moved = by_speaker(data, everyone, list("abab"))
    assert (moved.moved.scale_GD == 1).all()


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_constants_of_each_speaker_leave_only_rounding_behind(factor: float) -> None:
    """Shifted to one mean in float32, the speakers' constants differ by rounding, even where their mean is near 0."""
    constants_4D = np.random.default_rng(0).normal(0, 3, (4, 50))
    constants_4D[3] = -constants_4D[:3].sum(0) + 1e-6
    x_ND = np.repeat(constants_4D * factor, 300, axis=0).astype(np.float32)
    everyone = torch.arange(4)
    moved = by_speaker(data_of(x_ND), everyone, list("abcd"))
    assert not moved.moments(everyone)[1].any()
    settings = replace(PRESETS["cpu"], epochs=1, width=4)
    found = train_heads(moved, (0,), PLAIN, 2, everyone, everyone, settings, (0, 0), lambda: None).heads
    assert (found.standardise.scale_I == 1).all()
    assert (found.standardise_mean.scale_I == 1).all()


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6])
def test_what_varies_is_scaled_and_what_is_rounding_is_not(size: float) -> None:
    share = torch.tensor([0.0, 6e-8, 5e-7, 2e-6, 1e-3, 1.0])
    assert (varying(share * size, torch.full((6,), size)) > 0).tolist() == [False] * 3 + [True] * 3
    assert not varying(torch.tensor([1e-39]), torch.tensor([0.0])).any()  # its inverse is infinite in float32


def test_the_mean_frames_of_constants_differ_by_rounding_alone() -> None:
    """The mean of n frames of 0.1 in float32 is 0.1 to 1e-5 or so, by n: no dimension to learn from."""
    lengths = torch.tensor([7, 300, 5000, 900])
    frames_ND = torch.full((int(lengths.sum()), 3), 0.1)
    means_UD = torch.from_numpy(np.stack([np.full((n, 3), 0.1, np.float32).mean(0) for n in lengths]))
    assert float(means_UD.std(0)[0] / 0.1) > 1e-6
    data = Data(frames_ND, lengths.cumsum(0) - lengths, lengths, torch.tensor([0, 1, 0, 1]), means_UD)
    settings, everyone = replace(PRESETS["cpu"], epochs=1, width=4), torch.arange(4)
    found = train_heads(data, (0,), PLAIN, 2, everyone, everyone, settings, (0, 0), lambda: None).heads
    assert (found.standardise_mean.scale_I == 1).all()
