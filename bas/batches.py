"""Features resident in memory or on the GPU, cut into length-bucketed batches with masks.

Axes: N frames of all utterances end to end, U utterances, B of a batch, T frames of its longest, D width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bas.errors import UserError
from bas.features.store import FeatureStore


@dataclass(frozen=True)
class Data:
    """One layer of a store for the utterances of a task, with their targets."""

    frames_ND: Tensor  # as stored, float16 or float32; float32 in a batch
    starts_U: Tensor
    lengths_U: Tensor
    targets_U: Tensor
    means_UD: Tensor  # each utterance's mean frame, float32: what the linear row sees

    @property
    def dim(self) -> int:
        return self.frames_ND.shape[1]

    def to(self, device: torch.device) -> Data:
        return Data(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    def batch(self, members_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`x_BTD` float32 with zeros on padding, `mask_BT`, targets."""
        lengths_B = self.lengths_U[members_B]
        within_T = torch.arange(int(lengths_B.max()), device=members_B.device)
        mask_BT = within_T < lengths_B[:, None]
        index_BT = (self.starts_U[members_B][:, None] + within_T).clamp_max(len(self.frames_ND) - 1)
        x_BTD = self.frames_ND[index_BT].float().masked_fill(~mask_BT[..., None], 0.0)
        return x_BTD, mask_BT, self.targets_U[members_B]

    def moments(self, members_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over all frames of these utterances, each `(D,)`; summed in float64."""
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        starts, lengths = self.starts_U[members_B].tolist(), self.lengths_U[members_B].tolist()
        for start, length in zip(starts, lengths, strict=True):
            x_TD = self.frames_ND[start : start + length].double()
            count += len(x_TD)
            total = total.to(x_TD) + x_TD.sum(0)
            squares = squares.to(x_TD) + x_TD.square().sum(0)
        mean_D = total / count
        return mean_D.float(), (squares / count - mean_D.square()).clamp_min(0).sqrt().float()


def free_memory() -> int:
    """Bytes that can be had without swapping, the page cache's among them; the machine's whole memory off Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def load(
    store: FeatureStore, ids: Sequence[str], layer: int, stride: int, targets: np.ndarray, sharers: int = 1
) -> Data:
    """Read one layer of these utterances into memory, `stride` frames averaged into one.

    sharers: how many processes do the same at the same time, each into its own memory.

    Raises UserError when an utterance is not in the store or the layer would not fit into the free memory.
    """
    frames = [store.num_frames(i) for i in ids]
    lengths = [-(-n // stride) for n in frames]
    need = sum(lengths) * store.info.dim * np.dtype(store.info.dtype).itemsize
    free = free_memory()
    if need * sharers > free:
        raise UserError(
            f"{store.folder}: layer {layer} needs {need / 2**30:.1f} GiB in each of {sharers} processes, "
            f"{free / 2**30:.1f} GiB are free; use fewer --workers or raise the setting stride (now {stride})"
        )
    out_ND = np.empty((sum(lengths), store.info.dim), dtype=store.info.dtype)
    means_UD = np.empty((len(ids), store.info.dim), dtype=np.float32)
    starts = np.cumsum([0, *lengths])
    for u, id_ in enumerate(ids):
        x_TD = store.read(id_, layer)
        means_UD[u] = x_TD.mean(axis=0, dtype=np.float32)
        # The last group may be short: its mean is over the frames it has.
        edges = np.arange(0, len(x_TD), stride)
        sums = np.add.reduceat(x_TD.astype(np.float32), edges, axis=0)
        out_ND[starts[u] : starts[u + 1]] = sums / np.diff(np.append(edges, len(x_TD)))[:, None]
    return Data(
        torch.from_numpy(out_ND),
        torch.from_numpy(starts[:-1]),
        torch.tensor(lengths),
        torch.from_numpy(targets),
        torch.from_numpy(means_UD),
    )


def training_batches(data: Data, members: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """One epoch in random order: utterances of like length stand together, so that little is padding.

    The order depends on the generator alone. No batch holds a single utterance unless there is only one, or `size` is
    1: one left over joins the batch before it.
    """
    shuffled = members[torch.randperm(len(members), generator=generator).to(members.device)]
    batches: list[Tensor] = []
    for pool in torch.split(shuffled, size * 8):
        batches.extend(torch.split(pool[data.lengths_U[pool].argsort(stable=True)], size))
    if len(batches) > 1 and len(batches[-1]) == 1 < size:
        batches[-2:] = [torch.cat(batches[-2:])]
    order = torch.randperm(len(batches), generator=generator)
    return [batches[int(i)] for i in order]


def scoring_batches(data: Data, members: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Fixed batches by length: `(positions in members, members)`."""
    order = data.lengths_U[members].argsort(stable=True)
    for positions in torch.split(order, size):
        yield positions, members[positions]
