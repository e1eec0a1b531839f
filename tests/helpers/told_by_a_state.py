"""Several states side by side, of which one alone tells the classes apart."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from arrays import as_npy, imported
from sounds import tone
from torch import Tensor, nn

from bas.blocks import FFN, MSA, MeanPool
from bas.features.store import FeatureStore
from bas.space import SearchSpace
from bas.training.batches import Data
from bas.training.loop import outputs
from bas.training.settings import PRESETS

DIM, STATES, TOLD = 4, 3, 1
SPACE = SearchSpace({"layer1": {"MSA": MSA, "FFN": FFN}}, MeanPool)
SETTINGS = replace(
    PRESETS["cpu"], strategy="gumbel", width=8, epochs=6, batch_size=12, lr=0.02, theta_lr=0.1, dropout=0.0
)


def planted(seed: int, utterances: int = 112) -> Data:
    """2 to 5 frames of three states; in state TOLD alone the first dimension's sign is the class, all else is noise."""
    generator = torch.Generator().manual_seed(seed)
    lengths_U = torch.randint(2, 6, (utterances,), generator=generator)
    targets_U = torch.randint(0, 2, (utterances,), generator=generator)
    frames_ND = torch.randn(int(lengths_U.sum()), STATES * DIM, generator=generator)
    frames_ND[:, TOLD * DIM] += (4.0 * targets_U - 2).repeat_interleave(lengths_U)
    starts_U, means_UD = lengths_U.cumsum(0) - lengths_U, torch.zeros(utterances, STATES * DIM)
    return Data(frames_ND, starts_U, lengths_U, targets_U, means_UD, states=STATES)


def accuracy(network: nn.Module, data: Data, members: Tensor) -> float:
    return float((outputs(network, data, members).argmax(1) == data.targets_U[members]).float().mean())


def planted_store(root: Path, folder: Path, speakers: int = 6, takes: int = 4) -> FeatureStore:
    """The same as a store of features of one's own: speakers s0, s1 ..., classes a and b."""
    rng, arrays = np.random.default_rng(0), {}
    with (root / "list.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker"])
        for number in range(speakers * 2 * takes):
            speaker, label = f"s{number % speakers}", "ab"[number // speakers % 2]
            id_, frames = f"u{number:02}", int(rng.integers(8, 15))
            tone(root / f"{id_}.wav", frames / 50, hertz=200 + 3 * number)
            writer.writerow([id_, f"{id_}.wav", label, speaker])
            x_LTD = rng.normal(size=(STATES, frames, DIM))
            x_LTD[TOLD, :, 0] += 2 if label == "b" else -2
            arrays[id_] = x_LTD.astype(np.float32)
    return imported(as_npy(root / "own", arrays), folder)
