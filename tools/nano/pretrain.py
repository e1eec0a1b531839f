"""HuBERT's masked prediction, and a student's regression of a teacher's states, on crops of speech.

Axes: B crops, S samples, T frames, D width, C units, M teacher's states.

References
    Hsu et al., HuBERT, 2021: equations 1 to 3, masks of ten frames.
    Chen et al., *WavLM*, IEEE JSTSP 2022, section 3.2: another utterance mixed in, the targets stay the first one's.
    Chang et al., *DistilHuBERT*, ICASSP 2022: equation 1, the L1 and cosine loss of a student's heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from targets import HOP, num_frames
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel

from bas.util.files import replacing

CONFIG = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "conv_dim": (32, 48, 64, 96, 128, 192, 192),  # HuBERT's kernels and strides: 25 ms every 20 ms
    "feat_extract_norm": "group",
    "num_conv_pos_embeddings": 64,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": True,  # norms before the blocks: it learns at a higher rate, in fewer steps
    # Each frame is seen a handful of times: nothing is dropped but what the masks hide.
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
}
PROJECTED, TEMPERATURE = 128, 0.1  # of HuBERT's equation 3
# What hidden frames weigh in the loss. HuBERT takes 1 with poor units, which in so few steps learns next to nothing: it
# is the seen frames that teach the convolutions.
HIDDEN = 0.5
SPAN = 10  # frames that a mask hides at a time


@dataclass(frozen=True)
class Recipe:
    """How a stage learns."""

    steps: int
    seed: int
    lr: float = 1e-3
    warmup: float = 0.1  # of the steps; then down to nothing in a line
    weight_decay: float = 0.01
    clip: float = 1.0
    batch: int = 20
    seconds: float = 3.2  # of a crop
    starts: float = 0.065  # the chance of a frame to begin a mask: about half of all frames are hidden
    mixed: float = 0.2  # the chance of a crop to have another one mixed in
    checkpoint_every: int = 100  # steps

    def rate(self, step: int) -> float:
        """The learning rate as a share of `lr`."""
        up = (step + 1) / max(1.0, self.warmup * self.steps)
        return min(up, (self.steps - step) / (self.steps * (1 - self.warmup)))


class Speech:
    """Items with their targets, cut into crops. What crop comes when depends on the seed and the step alone."""

    def __init__(self, items: Sequence[npt.NDArray[np.int16]], targets: Sequence[np.ndarray], recipe: Recipe) -> None:
        assert all(len(t) == num_frames(len(x)) for x, t in zip(items, targets, strict=True))
        kept = [i for i, t in enumerate(targets) if len(t) > SPAN]
        self._items, self._targets = [items[i] for i in kept], [targets[i] for i in kept]
        self._recipe = recipe
        self._frames = int(recipe.seconds * 16_000) // HOP - 1

    def batch(self, step: int, *, mix: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Waves `(B, S)`, the targets of their frames `(B, T, ...)`, and which frames are hidden `(B, T)`."""
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, step])
        cut = [self._crop(rng) for _ in range(recipe.batch)]
        waves = np.stack([wave for wave, _ in cut])
        hidden = np.zeros((recipe.batch, self._frames), bool)
        starts = rng.random(hidden.shape) < recipe.starts
        for at in range(SPAN):
            hidden[:, at:] |= starts[:, : self._frames - at]
        for i in np.flatnonzero(rng.random(recipe.batch) < recipe.mixed * mix):
            waves[i] += self._other(waves[i], rng)
        targets = np.stack([target for _, target in cut])
        if targets.dtype == np.uint16:
            targets = targets.astype(np.int64)
        return torch.from_numpy(waves), torch.from_numpy(targets), torch.from_numpy(hidden)

    def _crop(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Items drawn at random, one behind the other until the crop is full; mostly one fills it."""
        wave = np.zeros((self._frames + 1) * HOP, np.float32)
        targets: list[np.ndarray] = []
        room = self._frames
        while room > 0:
            i = int(rng.integers(len(self._items)))
            item, target = self._items[i], self._targets[i]
            first = int(rng.integers(max(0, len(target) - room) + 1))
            part = target[first : first + room]
            piece = item[first * HOP : (first + len(part) + 1) * HOP]
            at = (self._frames - room) * HOP
            wave[at : at + len(piece)] = piece.astype(np.float32) / 32768
            # The frame on the seam hears both: it goes with the first.
            targets.append(np.concatenate([part, part[-1:]])[:room])
            room -= len(targets[-1])
        return wave, np.concatenate(targets)

    def _other(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Another crop over at most half of this one, 0 to 10 dB below it."""
        other, _ = self._crop(rng)
        length = int(rng.integers(1, wave.size // 2))
        at, start = (int(rng.integers(wave.size - length)) for _ in range(2))
        gain = np.sqrt(np.mean(wave**2) / max(float(np.mean(other**2)), 1e-8)) * 10 ** (-rng.uniform(0, 10) / 20)
        added = np.zeros_like(wave)
        added[at : at + length] = gain * other[start : start + length]
        return added


class Units(nn.Module):
    """Predicts the unit of a hidden frame: a softmax over cosines with one vector for each unit, at `TEMPERATURE`."""

    score_name = "right"

    def __init__(self, dim: int, units: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, PROJECTED)
        self.codes_CP = nn.Parameter(torch.randn(units, PROJECTED))

    def forward(self, states: Sequence[Tensor], targets_BT: Tensor, hidden_BT: Tensor) -> tuple[Tensor, float]:
        """The loss over hidden and seen frames (equation 2), and the share of hidden frames predicted right."""
        logits_BTC = F.normalize(self.project(states[-1]), dim=-1) @ F.normalize(self.codes_CP, dim=-1).T / TEMPERATURE
        loss_BT = F.cross_entropy(logits_BTC.mT, targets_BT, reduction="none")
        right_BT = logits_BTC.argmax(-1) == targets_BT
        loss = HIDDEN * loss_BT[hidden_BT].mean() + (1 - HIDDEN) * loss_BT[~hidden_BT].mean()
        return loss, float(right_BT[hidden_BT].float().mean())


class Teacher(nn.Module):
    """Predicts a teacher's standardised states from some of the student's states: the last from the last."""

    score_name = "explained"

    def __init__(self, dim: int, read: Sequence[int], mean_MD: Tensor, scale_MD: Tensor) -> None:
        super().__init__()
        self.read = tuple(read)
        self.heads = nn.ModuleList(nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mean_MD.shape[1])) for _ in read)
        self.register_buffer("mean_MD", mean_MD)
        self.register_buffer("scale_MD", scale_MD)

    def forward(self, states: Sequence[Tensor], targets_BTMD: Tensor, hidden_BT: Tensor) -> tuple[Tensor, float]:
        """L1 and cosine loss over all frames, hidden or not, and the share of the teacher's variance explained."""
        wanted_BTMD = (targets_BTMD.float() - self.mean_MD) / self.scale_MD
        predicted_BTMD = torch.stack([head(states[i]) for head, i in zip(self.heads, self.read, strict=True)], dim=2)
        near = F.logsigmoid(F.cosine_similarity(predicted_BTMD, wanted_BTMD, dim=-1)).mean()
        left = float((predicted_BTMD - wanted_BTMD).detach().square().mean())
        return F.l1_loss(predicted_BTMD, wanted_BTMD) - near, 1 - left / float(wanted_BTMD.square().mean())


def new_model(seed: int) -> HubertModel:
    torch.manual_seed(seed)
    return HubertModel(HubertConfig(**CONFIG))


def learn(
    model: HubertModel,
    head: Units | Teacher,
    train: Speech,
    held_out: Speech,
    recipe: Recipe,
    checkpoint: Path,
    device: torch.device,
    on_step: Callable[[int], None],
) -> list[dict[str, float]]:
    """Train the model in place; at each checkpoint its step, the seconds so far and the scores on held-out speech.

    Resumes from `checkpoint` if it exists; on a CPU the result has the same bits.
    """
    both = nn.ModuleList([model, head]).to(device).train()
    optimiser = torch.optim.AdamW(both.parameters(), recipe.lr, (0.9, 0.98), weight_decay=recipe.weight_decay)
    first, history, before = 0, [], 0.0
    if checkpoint.exists():
        there = torch.load(checkpoint, map_location=device, weights_only=True)
        assert there["recipe"] == asdict(recipe), f"{checkpoint} is of another recipe"
        both.load_state_dict(there["weights"])
        optimiser.load_state_dict(there["optimiser"])
        history = there["said"]
        first, before = int(history[-1]["step"]), history[-1]["seconds"]
    begun = time.monotonic()
    on_step(first)
    for step in range(first, recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * recipe.rate(step)
        loss, score = _judge(model, head, train.batch(step), device)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), recipe.clip)
        optimiser.step()
        if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
            on_others = validate(model, head, held_out, device)
            now = {
                "loss": float(loss.detach()),
                head.score_name: score,
                **{f"held-out {k}": v for k, v in on_others.items()},
            }
            seconds = before + time.monotonic() - begun
            history.append({"step": step + 1, "seconds": round(seconds), **{k: round(v, 4) for k, v in now.items()}})
            state = {"weights": both.state_dict(), "optimiser": optimiser.state_dict()}
            with replacing(checkpoint) as temporary:
                torch.save({**state, "recipe": asdict(recipe), "said": history}, temporary)
        on_step(step + 1)
    return history


def learnt(checkpoint: Path) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The model's weights at a checkpoint of `learn`, in full precision, and its history of scores."""
    there = torch.load(checkpoint, map_location="cpu", weights_only=True)
    return {k.removeprefix("0."): v for k, v in there["weights"].items() if k.startswith("0.")}, there["said"]


@torch.no_grad()
def validate(model: HubertModel, head: Units | Teacher, held_out: Speech, device: torch.device) -> dict[str, float]:
    """The loss and the score over the same five batches each time, with no speech mixed in."""
    results = [_judge(model, head, held_out.batch(step, mix=False), device) for step in range(5)]
    return {
        "loss": float(np.mean([float(loss) for loss, _ in results])),
        head.score_name: float(np.mean([score for _, score in results])),
    }


def _judge(
    model: HubertModel, head: nn.Module, batch: tuple[Tensor, Tensor, Tensor], device: torch.device
) -> tuple[Tensor, float]:
    waves_BS, targets, hidden_BT = (x.to(device) for x in batch)
    waves_BS = (waves_BS - waves_BS.mean(1, keepdim=True)) / (waves_BS.std(1, keepdim=True) + 1e-5)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        output = model(waves_BS, mask_time_indices=hidden_BT, output_hidden_states=True)
    states = [x.float() for x in output.hidden_states]
    loss: tuple[Tensor, float] = head(states, targets, hidden_BT)
    return loss
