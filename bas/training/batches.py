"""The features of one or several layers as masked batches of similar length: on the GPU, in memory, or streamed.

The frames of several layers are side by side: every later step treats each dimension separately.

Axes: N frames of all utterances end to end, U utterances, B of a batch, T frames of one or of a batch's longest,
D width (of L layers, L times a layer's), G groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bas.features.shard import States
from bas.features.store import FeatureStore
from bas.networks.network import varying

AHEAD = 2  # batches that are read ahead while one trains
SCORED = 64  # utterances in a batch that is only scored
MOVED = 0.75  # batches by which an utterance moves in the order of lengths, at most
PIECE_BYTES = 2**22  # bytes of frames, as stored, that are read at a time
CPU = torch.device("cpu")

Batch = tuple[Tensor, Tensor, Tensor]
"""`x_BTD` float32 with zeros on padding, `mask_BT`, targets."""


class Batched(Protocol):
    """What a training loop needs from its data."""

    @property
    def lengths_U(self) -> Tensor: ...
    @property
    def device(self) -> torch.device: ...
    def batches(self, members: Iterable[Tensor]) -> Generator[Batch, None, None]: ...


@dataclass(frozen=True)
class Stored:
    """Layers of some utterances in a store, read on demand, with `stride` frames averaged into one."""

    store: FeatureStore
    ids: tuple[str, ...]
    layers: tuple[int, ...]
    stride: int
    device = CPU

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.store.info.dtype)
        return dtype

    def frames(self, members: Sequence[int]) -> Iterator[Tensor]:
        """Each utterance's `(T, D)`, after the stride."""
        return (average(x_TD, self.stride) for x_TD in self.raw(members))

    def raw(self, members: Sequence[int]) -> Iterator[States]:
        """Each utterance's `(T, D)`, before the stride; PIECE_BYTES of them are in memory at a time."""
        piece: list[str] = []
        size = 0
        for id_ in (self.ids[u] for u in members):
            more = len(self.layers) * self.store.info.frame_bytes * self.store.num_frames(id_)
            if piece and size + more > PIECE_BYTES:
                yield from self._gather(piece)
                piece, size = [], 0
            piece.append(id_)
            size += more
        yield from self._gather(piece)

    def _gather(self, ids: Sequence[str]) -> Iterator[States]:
        x_LND, lengths = self.store.gather(ids, self.layers)
        x_ND = x_LND.swapaxes(0, 1).reshape(x_LND.shape[1], -1)
        return (x_ND[start:stop] for start, stop in pairwise(np.cumsum([0, *lengths]).tolist()))


def average(x_TD: States, stride: int) -> Tensor:
    """The mean of every `stride` frames, in the same dtype; the last group may have fewer frames."""
    frames_TD = torch.from_numpy(x_TD)
    if stride == 1:
        return frames_TD
    x_TD, dtype = frames_TD.float().numpy(), x_TD.dtype  # torch converts many times as fast as NumPy
    count_T = np.full(-(-len(x_TD) // stride), stride)
    count_T[-1] -= len(count_T) * stride - len(x_TD)
    rest_TD = np.zeros((len(count_T), x_TD.shape[1]), np.float32)
    for later in range(1, min(stride, len(x_TD))):
        next_TD = x_TD[later::stride]
        rest_TD[: len(next_TD)] += next_TD
    return torch.from_numpy(((x_TD[::stride] + rest_TD) / count_T[:, None]).astype(dtype))


@dataclass(frozen=True)
class Moved:
    """A scale and an offset of each dimension for each group of utterances."""

    group_U: Tensor
    scale_GD: Tensor
    offset_GD: Tensor

    def __call__(self, x_BTD: Tensor, members_B: Tensor) -> Tensor:
        group_B = self.group_U[members_B].to(self.scale_GD.device)
        scale_BD, offset_BD = self.scale_GD[group_B].to(x_BTD.device), self.offset_GD[group_B].to(x_BTD.device)
        return (x_BTD * scale_BD[:, None]).add_(offset_BD[:, None])


@dataclass(frozen=True)
class Data:
    """One or several layers of a store for the utterances of a task, with their targets.

    Members are indices of utterances, on the CPU like all that plans a batch; batches are on the targets' device.
    """

    frames_ND: Tensor | Stored  # as stored, float16 or float32, on any device; or the source that streams them
    starts_U: Tensor
    lengths_U: Tensor
    targets_U: Tensor
    means_UD: Tensor  # each utterance's mean frame, float32, before the stride and `moved`
    moved: Moved | None = None  # applied to the frames before anything else sees them
    states: int = 1  # layers side by side in a frame

    @property
    def dim(self) -> int:
        """The width of one layer."""
        return self.means_UD.shape[1] // self.states

    @property
    def device(self) -> torch.device:
        return self.targets_U.device

    def of_state(self, index: int) -> Data:
        """One of the states alone, by its place."""
        here = slice(index * self.dim, (index + 1) * self.dim)
        moved, given = self.moved, self.frames_ND
        frames = replace(given, layers=(given.layers[index],)) if isinstance(given, Stored) else given[:, here]
        if moved:
            moved = Moved(moved.group_U, moved.scale_GD[:, here], moved.offset_GD[:, here])
        return replace(self, frames_ND=frames, means_UD=self.means_UD[:, here], moved=moved, states=1)

    def batch(self, members_B: Tensor) -> Batch:
        lengths_B = self.lengths_U[members_B]
        within_T = torch.arange(int(lengths_B.max()))
        mask_BT = self._here(within_T < lengths_B[:, None])
        if isinstance(self.frames_ND, Tensor) and self.frames_ND.is_cuda:
            x_BTD = gathered(self.frames_ND, self._here(self.starts_U[members_B]), mask_BT)
            x_BTD.masked_fill_(~mask_BT[..., None], 0.0)
        else:
            x_BTD = self._copied(members_B, mask_BT)
        if self.moved:
            x_BTD = self.moved(x_BTD, members_B)
            x_BTD.masked_fill_(~mask_BT[..., None], 0.0)
        return x_BTD, mask_BT, self.targets_U[self._here(members_B)]

    def _copied(self, members_B: Tensor, mask_BT: Tensor) -> Tensor:
        """The frames of a batch, copied row by row: on a CPU as fast as gathering them, and a store has only rows."""
        pinned = self.frames_ND.device != self.device
        x_BTD = torch.zeros(
            (*mask_BT.shape, self.means_UD.shape[1]),
            dtype=self.frames_ND.dtype,
            device=self.frames_ND.device,
            pin_memory=pinned,
        )
        for row_TD, frames_TD in zip(x_BTD, self._frames(members_B), strict=True):
            row_TD[: len(frames_TD)] = frames_TD
        return x_BTD.to(self.device, non_blocking=True).float()

    def batches(self, members: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """One batch for each tensor of members, in order. Unless the frames are on the device, a thread reads ahead.

        Close the iterator to end the thread. An error in the thread is raised here.
        """
        if self.frames_ND.device == self.device and isinstance(self.frames_ND, Tensor):
            yield from map(self.batch, members)
            return
        reader = ThreadPoolExecutor(1)
        coming: deque[Future[Batch]] = deque()
        try:
            for members_B in members:
                coming.append(reader.submit(self.batch, members_B))
                if len(coming) > AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)

    def mean_frames(self, members_B: Tensor) -> Tensor:
        """The input of the linear row, `(B, D)` float32 on the CPU."""
        x_BD = self.means_UD[members_B]
        return self.moved(x_BD[:, None], members_B)[:, 0] if self.moved else x_BD

    def moments(self, members_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation over all frames of these utterances, each `(D,)`; summed in float64.

        The deviation of a constant dimension is 0.0 (see `varying`); `moved`, which adds in float32, leaves rounding of
        its offset's size in it.
        """
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for member, frames_TD in zip(members_B, self._frames(members_B), strict=True):
            x_TD = frames_TD.to(self.device).float()
            x_TD = (self.moved(x_TD[None], member[None])[0] if self.moved else x_TD).double()
            count += len(x_TD)
            total = total.to(x_TD) + x_TD.sum(0)
            squares = squares.to(x_TD) + x_TD.square().sum(0)
        mean_D = total / count
        size_D = (squares / count).sqrt()
        if self.moved:
            size_D += self.moved.offset_GD.abs().amax(0).to(size_D)
        std_D = (squares / count - mean_D.square()).clamp_min(0).sqrt()
        return mean_D.float(), varying(std_D, size_D).float()

    def _frames(self, members_B: Tensor) -> Iterator[Tensor]:
        """The frames of each utterance as they are kept, `(T, D)`."""
        if isinstance(self.frames_ND, Stored):
            return self.frames_ND.frames(members_B.tolist())
        spans = zip(self.starts_U[members_B].tolist(), self.lengths_U[members_B].tolist(), strict=True)
        return (self.frames_ND[start : start + length] for start, length in spans)

    def _here(self, x: Tensor) -> Tensor:
        return x if x.device == self.device else x.pin_memory().to(self.device, non_blocking=True)


def gathered(frames_ND: Tensor, starts: Tensor, mask: Tensor) -> Tensor:
    """Utterances from their first frames `(..., )` on, `(..., T, D)` float32, in one kernel for which nothing waits.

    mask: `(..., T)`; what is on padding is any frame.
    """
    frame = (starts[..., None] + torch.arange(mask.shape[-1], device=starts.device)).masked_fill_(~mask, 0)
    return frames_ND[frame].float()


def load(
    store: FeatureStore,
    ids: Sequence[str],
    layers: Sequence[int],
    stride: int,
    targets: np.ndarray,
    where: str,
    device: torch.device,
) -> Data:
    """These layers of these utterances, with `stride` frames averaged into one; read once, a piece at a time.

    where: one of `bas.training.placement.PLACES`. device: of the batches.
    Raises UserError if an utterance or a layer is not in the store.
    """
    stored = Stored(store, tuple(ids), tuple(layers), stride)
    width = len(layers) * store.info.dim
    lengths = [-(-store.num_frames(i) // stride) for i in ids]
    starts = np.cumsum([0, *lengths])
    means_UD = torch.empty((len(ids), width))
    kept: Tensor | None = None
    if where != "store":
        keeper = device if where == "gpu" else CPU
        kept = torch.empty((int(starts[-1]), width), dtype=stored.dtype, device=keeper)
    for u, x_TD in enumerate(stored.raw(range(len(ids)))):
        # NumPy's mean, which adds frame after frame: another order would change the numbers of earlier runs.
        means_UD[u] = torch.from_numpy(torch.from_numpy(x_TD).float().numpy().mean(axis=0))
        if kept is not None:
            kept[starts[u] : starts[u + 1]] = average(x_TD, stride)
    return Data(
        stored if kept is None else kept,
        torch.from_numpy(starts[:-1]),
        torch.tensor(lengths),
        torch.from_numpy(targets).to(device),
        means_UD,
        states=len(layers),
    )


def sizes(store: FeatureStore, ids: Sequence[str], stride: int, batch_size: int, states: int = 1) -> tuple[int, int]:
    """Bytes of memory in a process: with all frames resident, and when streaming. states: the number of layers."""
    dim, frame_bytes = states * store.info.dim, states * store.info.frame_bytes
    frames = [store.num_frames(i) for i in ids]
    lengths = [-(-n // stride) for n in frames]
    means = 4 * dim * len(ids)
    batch = 4 * dim * max(lengths) * max(batch_size, SCORED)
    # A piece as stored, and one utterance of it in float32; the batch that trains, those ahead, and one in the making.
    # A piece of several layers is there twice: before and after they are put side by side.
    reading = (4 + (states > 1)) * max(PIECE_BYTES, frame_bytes * max(frames))
    return frame_bytes * sum(lengths) + means, (AHEAD + 3) * batch + reading + means


def by_speaker(data: Data, fit: Tensor, speakers: Sequence[str | None]) -> Data:
    """`data` with every speaker of `fit` mapped to the average speaker, by mean and deviation of each dimension.

    The average speaker has the mean of the training speakers' means and the mean of their deviations, all over frames
    in `fit` alone. Other speakers are not changed, as if each were the average speaker: a trained network needs no
    statistics of an unknown voice.
    """
    named = [speakers[u] for u in fit.tolist()]
    groups = {name: g for g, name in enumerate(dict.fromkeys(named))}
    group_B = torch.tensor([groups[name] for name in named])
    moments = [data.moments(fit[group_B == g]) for g in groups.values()]
    mean_GD, std_GD = (torch.stack(column) for column in zip(*moments, strict=True))
    mean_D, std_D = mean_GD.mean(0), std_GD.mean(0)
    # A dimension that is constant, or nearly so beside the other speakers, is only shifted.
    scale_GD = torch.where(varying(std_GD, std_D) > 0, std_D / std_GD, 1.0)
    offset_GD = mean_D - mean_GD * scale_GD
    # The last group: all other speakers.
    group_U = torch.tensor([groups.get(name, len(groups)) for name in speakers])
    scale_GD = torch.cat([scale_GD, torch.ones_like(mean_D)[None]])
    offset_GD = torch.cat([offset_GD, torch.zeros_like(mean_D)[None]])
    return replace(data, moved=Moved(group_U, scale_GD, offset_GD))


def training_batches(data: Batched, members: Tensor, size: int, generator: torch.Generator) -> list[Tensor]:
    """The batches of one epoch in random order, each of utterances of like length, so that there is little padding.

    Each utterance moves by up to MOVED batches in the order of lengths, so that who is together changes from epoch to
    epoch, in a small corpus as in a large one. That order is cut into as many batches as if each had `size`, all of one
    size but for one utterance, so that utterances count alike; none is of a single one, unless `size` is 1 or there is
    no other. All depends on the generator alone.
    """
    count = len(members)
    shuffled = members[torch.randperm(count, generator=generator)]
    ordered = shuffled[data.lengths_U[shuffled].argsort(stable=True)]
    place_U = torch.arange(count) + MOVED * size * torch.rand(count, generator=generator, dtype=torch.float64)
    number = max(1, min(-(-count // size), count // min(2, size)))
    batches = torch.tensor_split(ordered[place_U.argsort(stable=True)], number)
    return [batches[int(i)] for i in torch.randperm(number, generator=generator)]


def scoring_batches(data: Batched, members: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Fixed batches by length: `(positions in members, members)`."""
    order = data.lengths_U[members].argsort(stable=True)
    for positions in torch.split(order, size):
        yield positions, members[positions]
