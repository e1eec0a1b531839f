"""The attention weights of every frame of every test utterance, in the network of the fold that tests it.

A pool gives weights if it has a method `weights(x_BTD, mask_BT) -> (B, T)`, like `bas.blocks.LastStateAttention`. A
baseline with one network for each output has one pool for each; each counts as a model.

attention.h5, in the run's folder:

    weights   (M, S, N)  float32, by model and seed; those of an utterance sum to 1
    seconds   (N,)       the centre of each frame, from the start of the utterance
    ids       (U,)       the tested utterances, fold after fold
    fold      (U,)       the fold that tests each utterance
    offsets   (U + 1,)   utterance u has the frames offsets[u] to offsets[u + 1]
    attributes           models (M,), seeds (S,), protocol (its hash), features (the store's identity)

Axes: B utterances of a batch, T frames, D width, U utterances, N frames of all of them end to end, M models, S seeds,
P pools of a network.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from bas.features.shard import offsets
from bas.networks.network import Network, PerOutput
from bas.runs.fit import Fitted
from bas.runs.plan import Job, Kind
from bas.runs.run import Run
from bas.runs.session import Session
from bas.space import SearchSpace
from bas.training.batches import SCORED, Data, scoring_batches
from bas.util.faults import judging
from bas.util.files import replacing

WEIGHTS = "attention.h5"


def attends(space: SearchSpace, dim: int) -> bool:
    """Whether the pool of a baseline gives weights. dim: a width that its factory takes."""
    factory = next(iter(space.pool.values())) if isinstance(space.pool, Mapping) else space.pool
    return hasattr(factory(dim), "weights")


def pools(network: Network) -> list[Any]:
    """The pools that give weights: at most one, or one for each output where each has its own network."""
    networks: Sequence[nn.Module] = list(network.networks) if isinstance(network, PerOutput) else [network]
    candidates = [one.parts["pool"] for one in networks if isinstance(one, Network)]
    return [pool for pool in candidates if hasattr(pool, "weights")]


@torch.inference_mode()
def weights(network: Network, data: Data, members: Tensor) -> list[np.ndarray]:
    """The weights of each utterance, in the order of `members`: `(P, T)` float32 over its real frames.

    The network must be in eval mode. Padding and batch size do not change the weights.
    """
    assert not network.training
    attentive = pools(network)
    caught: list[list[Tensor]] = [[] for _ in attentive]

    def catch(into: list[Tensor]) -> Any:
        return lambda pool, inputs: into.append(pool.weights(*inputs).float())

    hooks = [pool.register_forward_pre_hook(catch(into)) for pool, into in zip(attentive, caught, strict=True)]
    weights_of: list[np.ndarray] = [np.empty(0)] * len(members)
    positions, batches = zip(*scoring_batches(data, members, SCORED), strict=True)
    try:
        with closing(data.batches(batches)) as read:
            for positions_B, (x_BTD, mask_BT, _) in zip(positions, read, strict=True):
                for into in caught:
                    into.clear()
                with torch.autocast(data.device.type, torch.bfloat16, enabled=data.device.type == "cuda"):
                    network(x_BTD, mask_BT)
                weights_PBT = np.stack([into[0].cpu().numpy() for into in caught])
                for row, position in enumerate(positions_B.tolist()):
                    weights_of[position] = weights_PBT[:, row, : int(mask_BT[row].sum())]
    finally:
        for hook in hooks:
            hook.remove()
    return weights_of


class SharesSession(Session):
    """A run of the shares study, open in this process; a baseline's job also keeps the weights of its pools."""

    def keep_beside(self, job: Job, fitted: Fitted) -> None:
        assert isinstance(fitted.network, Network), "this study trains no committee"
        if job.kind != Kind.BASELINE or not pools(fitted.network):
            return
        test = self.members(self.run.protocol.folds[job.fold].test)
        kept = weights(fitted.network, fitted.data, test)
        with replacing(_kept(self.run, job)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, frames=[w_PT.shape[1] for w_PT in kept], weights=np.concatenate(kept, axis=1))


def _kept(run: Run, job: Job) -> Path:
    return run.folder / "jobs" / f"{job.name}.attention.npz"


@dataclass(frozen=True)
class Attention:
    """The content of attention.h5."""

    models: tuple[str, ...]
    ids: tuple[str, ...]
    offsets: np.ndarray  # (U + 1,)
    seconds_N: np.ndarray
    weights_MSN: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Attention:
        with h5py.File(path, "r") as file:
            ids = tuple(i.decode() for i in file["ids"][:])
            models = tuple(map(str, file.attrs["models"]))
            return cls(models, ids, file["offsets"][:], file["seconds"][:], file["weights"][:])


def model_names(run: Run, row: str) -> list[str]:
    """The names of a baseline's models: the row; with one network for each output, the row and each output."""
    return [f"{row}: {output}" for output in run.outputs] if run.baselines[row].each_output else [row]


def export(run: Run, rows: Sequence[str]) -> Attention:
    """Join the weights that the jobs of these rows kept, over all folds and seeds, and write attention.h5 atomically.

    Raises UserError where a finished job kept none, for example that of another verb.
    """
    folds, seeds = run.protocol.folds, run.plan.seeds
    frames_U, of_rows = np.zeros(0, int), []
    for row in rows:
        kept = [[_read(_kept(run, Job(Kind.BASELINE, row, f, s))) for f in range(len(folds))] for s in seeds]
        of_rows.append(np.stack([np.concatenate([w_PN for _, w_PN in of_seed], axis=1) for of_seed in kept], axis=1))
        frames_U = np.concatenate([frames for frames, _ in kept[0]])
    ids, edges, rate = run.protocol.test_ids, offsets(frames_U.tolist()), run.store.info.encoder["frame_rate"]
    models = tuple(name for row in rows for name in model_names(run, row))
    seconds = [centres(run.store.num_frames(id_), rate, run.plan.settings.stride) for id_ in ids]
    attention = Attention(models, ids, edges, np.concatenate(seconds), np.concatenate(of_rows))
    shape = attention.weights_MSN.shape
    assert shape == (len(models), len(seeds), len(attention.seconds_N)), shape
    raw = io.BytesIO()  # HDF5 would crash the process where the disk is full
    with h5py.File(raw, "w") as file:
        file["weights"], file["seconds"], file["offsets"] = attention.weights_MSN, attention.seconds_N, edges
        file["ids"] = np.array(ids, dtype=h5py.string_dtype())
        file["fold"] = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
        origin = {"protocol": run.protocol.hash, "features": run.store.info.identity}
        file.attrs.update(models=models, seeds=seeds, **origin)
    with replacing(run.folder / WEIGHTS) as temporary:
        temporary.write_bytes(raw.getvalue())
    return attention


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The frames of each utterance, and the weights `(P, N)`. Raises UserError where the file is missing or damaged."""
    job = path.with_name(path.name.replace(".attention.npz", ".json"))
    with judging(path, f"damaged; delete {job}: its job is done again"), np.load(path, allow_pickle=False) as arrays:
        return arrays["frames"], arrays["weights"]


def centres(num_frames: int, frame_rate: float, stride: int) -> np.ndarray:
    """`(T,)`: the centre in seconds of each group of `stride` averaged frames; the last group may be shorter."""
    starts_T = np.arange(0, num_frames, stride)
    centres_T: np.ndarray = (starts_T + np.minimum(starts_T + stride, num_frames)) / 2 / frame_rate
    return centres_T
