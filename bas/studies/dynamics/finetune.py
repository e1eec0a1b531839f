"""Fine-tuning of an encoder: the mean over time of its output feeds one linear layer; all but its front is trained.

Wagner et al., *Dawn of the transformer era in speech emotion recognition*, IEEE TPAMI 2023, as taken up by *What
Happens To WavLM Embeddings During Speech Emotion Recognition Fine-tuning?* (section 2.3.2), called the paper below.
Numbers that the paper leaves open are marked "ours".

Everything random depends on the seed and the step alone, so a fine-tuning that was killed resumes from its last state
and, on the CPU, ends with the same bits. It gets the utterances to train on and those to validate on, and no others.

`training.loop` does not train it: here evaluation, checkpoints and counting go by steps, not epochs; a step sums the
gradients of several micro-batches of waves; and early stopping ends the training, where the loop keeps the best epoch.

Axes: U utterances, B those of a micro-batch, T frames, D width, O outputs.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.tensorboard.writer import SummaryWriter

from bas.corpora import Utterance
from bas.encoders import Tunable
from bas.encoders.base import revision_of
from bas.errors import Diverged, UserError
from bas.speech import audio
from bas.studies.dynamics.results import Evaluation, FineTuned
from bas.tasks import Task
from bas.training.loop import Record, seed_everything
from bas.training.tuning import Tuning
from bas.util.faults import judging
from bas.util.files import check_archive, read_record, replacing, write_json
from bas.util.progress import bar
from bas.util.typed import from_plain, to_plain

STATE_SECONDS = 30.0
"""A state is written at every checkpoint, and at an evaluation when the last state is older than this."""
STATE = ("of", "step", "trunk", "head", "optimiser", "records", "seconds")


def checkpoint_of(folder: Path, step: int) -> Path:
    """The folder of the encoder after so many steps, in the layout of `transformers`; its head lies beside it."""
    return folder / "checkpoints" / f"step-{step:05}"


def read_head(folder: Path, step: int) -> tuple[np.ndarray, np.ndarray, str]:
    """The linear layer of a checkpoint, weight `(O, D)` and bias `(O,)`, and the revision of the encoder beside it.

    Raises UserError where the file is damaged.
    """
    path = checkpoint_of(folder, step).with_suffix(".npz")
    with judging(path, f"damaged; delete {folder}: it is made again"), np.load(path, allow_pickle=False) as arrays:
        return arrays["weight_OD"], arrays["bias_O"], str(arrays["revision"])


def read_finished(folder: Path) -> FineTuned | None:
    """What `finetune` returned for this folder; None: it has not ended."""
    path, remedy = folder / "finetune.json", f"delete {folder}: it is made again"
    return from_plain(FineTuned, read_record(path, remedy), path, remedy) if path.exists() else None


@dataclass(frozen=True)
class Classifier:
    """An encoder, and the linear layer on the mean of its output over the real frames."""

    encoder: Tunable
    head: nn.Linear
    task: Task
    outputs: tuple[str, ...]
    micro_batch: int

    def passes(self, utterances: Sequence[Utterance]) -> Iterator[tuple[list[int], Tensor]]:
        """The positions and the `(B, O)` outputs of each micro-batch."""
        encoder, device = self.encoder, self.encoder.device.type
        waves = [audio.load(u) for u in utterances]
        for members in micro_batches(encoder, [len(wave) for wave in waves], self.micro_batch):
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                outputs = encoder.outputs([encoder.prepare(waves[i]) for i in members])
            yield members, self.head(torch.stack([x_TD.float().mean(0) for x_TD in outputs]))

    def backward(self, utterances: Sequence[Utterance]) -> float:
        """Add the gradient of the mean loss over the utterances, in micro-batches; return the loss."""
        targets_U = torch.from_numpy(self.task.targets(utterances, self.outputs))
        total = 0.0
        for members, logits_BO in self.passes(utterances):
            targets_B = targets_U[members].to(logits_BO.device)
            loss = self.task.loss(logits_BO, targets_B) * (len(members) / len(utterances))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        return total

    @torch.no_grad()
    def score(self, utterances: Sequence[Utterance], size: int) -> dict[str, float]:
        """Loss and metrics in eval mode, with `size` utterances in memory at a time."""
        targets_U = self.task.targets(utterances, self.outputs)
        logits_UO = torch.empty(len(utterances), len(self.outputs))
        for start in range(0, len(utterances), size):
            for members, logits_BO in self.passes(utterances[start : start + size]):
                logits_UO[[start + i for i in members]] = logits_BO.cpu()
        predictions_U = self.task.predict(logits_UO)
        metrics = {name: metric(targets_U, predictions_U) for name, metric in self.task.metrics(self.outputs).items()}
        return {"loss": float(self.task.loss(logits_UO, torch.from_numpy(targets_U))), **metrics}

    def save(self, folder: Path) -> None:
        """Write a checkpoint, over one that a killed process left: on a GPU its numbers may differ."""
        if folder.is_dir():
            shutil.rmtree(folder)
        self.encoder.save(folder)
        weight_OD, bias_O = (p.detach().cpu().numpy() for p in (self.head.weight, self.head.bias))
        with replacing(folder.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
            np.savez(stream, weight_OD=weight_OD, bias_O=bias_O, revision=np.array(revision_of(str(folder), None)))


def micro_batches(encoder: Tunable, samples: Sequence[int], size: int) -> Iterator[list[int]]:
    """Positions of the waves that go through the encoder together: those of similar lengths, longest first.

    samples: the length of each wave. size: waves of a micro-batch, at most.
    """
    groups: dict[object, list[int]] = {}
    for i in sorted(range(len(samples)), key=lambda i: -samples[i]):
        groups.setdefault(encoder.batch_key(samples[i]), []).append(i)
    for group in groups.values():
        yield from (group[start : start + size] for start in range(0, len(group), size))


def finetune(
    encoder: Tunable,
    task: Task,
    fit: Sequence[Utterance],
    valid: Sequence[Utterance],
    settings: Tuning,
    seed: int,
    folder: Path,
    board: SummaryWriter,
    console: Console,
) -> FineTuned:
    """Train the encoder in place; write a checkpoint at step 0, every `checkpoint_every` steps and at the last step.

    A step updates the weights once, by the mean loss over its `batch` utterances. An evaluation scores `valid` without
    dropout. On CUDA, autocast chooses where to compute in bfloat16. A fine-tuning that was killed is resumed.

    The result is written as `finetune.json`.

    Raises Diverged when a loss is not finite; UserError where the GPU's memory is short, or the state in `folder` is of
    another fine-tuning.
    """
    seed_everything(seed, "head")
    head = nn.Linear(encoder.info.dim, len(task.outputs(fit))).to(encoder.device)
    classifier = Classifier(encoder, head, task, task.outputs(fit), settings.micro_batch)
    model = nn.ModuleDict({"trunk": encoder.trunk, "head": head}).requires_grad_(True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    identity = _identity(encoder, fit, valid, settings, seed)
    step, records, before, begun = 0, list[Record](), 0.0, time.monotonic()
    state, written = folder / "finetune.state", begun
    if state.exists():
        step, records, before = _restore(state, identity, model, optimiser)
    per_epoch = math.ceil(len(fit) / settings.batch)
    last, losses = settings.epochs * per_epoch, list[float]()

    with bar(console, "steps") as progress:
        line = progress.add_task("fine-tune", total=last)
        while True:
            progress.update(line, completed=step)
            if step % settings.evaluate_every == 0 or step == last:
                if not records or records[-1]["step"] < step:  # else the record was restored
                    model.eval()
                    trained = float(np.mean(losses)) if losses else None
                    scores = {"loss": trained, "valid": classifier.score(valid, settings.batch)}
                    records.append({"step": step, "epoch": step / per_epoch, **scores})
                    _show(board, records[-1])
                stopped, losses = _why_stopped(records, settings, step == last), []
                at_checkpoint = step % settings.checkpoint_every == 0 or bool(stopped)
                if at_checkpoint:
                    classifier.save(checkpoint_of(folder, step))
                if stopped:
                    break
                if at_checkpoint or time.monotonic() - written > STATE_SECONDS:
                    parts = encoder.trunk.state_dict(), head.state_dict(), optimiser.state_dict()
                    spent = before + time.monotonic() - begun
                    with replacing(state) as temporary, temporary.open("wb") as stream:
                        torch.save(dict(zip(STATE, (identity, step, *parts, records, spent), strict=True)), stream)
                    written = time.monotonic()
            members = _members(len(fit), settings.batch, seed, step)
            step += 1
            seed_everything(seed, "step", step)
            # transformers draws the mask over input dimensions from NumPy's global generator.
            np.random.seed(int(torch.randint(2**31, ())))  # noqa: NPY002
            model.train()
            optimiser.zero_grad(set_to_none=True)
            try:
                losses.append(classifier.backward([fit[i] for i in members]))
            except torch.OutOfMemoryError as error:
                remedy = f"lower the setting micro_batch={settings.micro_batch}"
                raise UserError(f"fine-tuning: the GPU's memory is short; {remedy}") from error
            if not math.isfinite(losses[-1]):
                reason = f"loss {losses[-1]} in step {step}; lower the setting lr={settings.lr}"
                raise Diverged(f"fine-tuning diverged: {reason}")
            optimiser.step()
        progress.update(line, completed=last)
    model.eval().requires_grad_(False)
    result = FineTuned(
        steps=tuple(sorted({*range(0, step, settings.checkpoint_every), step})),
        stopped=stopped,
        epochs=step / per_epoch,
        seconds=before + time.monotonic() - begun,
        parameters=sum(p.numel() for p in model.parameters()),
        outputs=tuple(classifier.outputs),
        records=tuple(from_plain(Evaluation, record, state) for record in records),
    )
    write_json(folder / "finetune.json", to_plain(result))
    state.unlink(missing_ok=True)
    return result


def _members(count: int, batch: int, seed: int, step: int) -> list[int]:
    """The positions of the utterances in the step after `step`. An epoch has each once; its last batch may be short."""
    epoch, index = divmod(step, math.ceil(count / batch))
    seed_everything(seed, "epoch", epoch)
    return torch.randperm(count)[index * batch : (index + 1) * batch].tolist()


def _why_stopped(records: Sequence[Record], settings: Tuning, last: bool) -> str:
    """Why the fine-tuning ends here; empty: it continues."""
    best, since = math.inf, 0
    for record in records:
        lower = record["valid"]["loss"] < best - settings.improvement
        best, since = (record["valid"]["loss"], 0) if lower else (best, since + 1)
    if since >= settings.patience:
        return f"{settings.patience} evaluations without a validation loss {settings.improvement:g} below {best:.3f}"
    return f"{settings.epochs} epochs are over" if last else ""


def _identity(
    encoder: Tunable, fit: Sequence[Utterance], valid: Sequence[Utterance], settings: Tuning, seed: int
) -> str:
    parts = [[u.id for u in part] for part in (fit, valid)]
    return hashlib.sha256(json.dumps([encoder.info.to_dict(), parts, asdict(settings), seed]).encode()).hexdigest()


def _restore(
    path: Path, identity: str, model: nn.ModuleDict, optimiser: torch.optim.Optimizer
) -> tuple[int, list[Record], float]:
    message = "damaged, or not of this fine-tuning; delete it: it starts over"
    with judging(path, message), warnings.catch_warnings(action="ignore"):  # about pickles that torch did not write
        check_archive(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["of"] != identity:
            raise ValueError("of other utterances, settings or weights, or from another seed")
        model["trunk"].load_state_dict(state["trunk"])
        model["head"].load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"]), list(state["records"]), float(state["seconds"])


def _show(board: SummaryWriter, record: Record) -> None:
    if record["loss"] is not None:
        board.add_scalar("loss/train", record["loss"], record["step"])
    for name, value in record["valid"].items():
        board.add_scalar("loss/valid" if name == "loss" else f"valid/{name}", value, record["step"])
