"""The whole recipe of `bas-hubert-nano`: speech, three stages, a folder in the layout of `transformers`.

    python tools/nano/recipe.py --speech LIBRISPEECH --teacher openai/whisper-tiny.en --real-length

1. masked prediction of k-means units of MFCC;
2. masked prediction of k-means units of the model's own states, as stage 1 left them (with 1: HuBERT's recipe);
3. regression of a teacher's states from masked speech (DistilHuBERT's loss).

Every stage begins with the weights of the one before. Speech, targets, weights after each stage and what held-out
speech says of them stay in the work folder; a killed run goes on from there. From a seed all is drawn again alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pretrain import Recipe, Speech, Teacher, Units, learn, new_model
from rich.console import Console
from speech import Pool, make_speech, pool, read_part
from targets import HOP, Source, cluster, measure, num_frames
from torch import nn
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from bas.audio import SAMPLE_RATE
from bas.cli_features import choose_device
from bas.encoders import load_encoder
from bas.errors import UserError
from bas.files import locked, read_json, write_json
from bas.progress import bar

CLUSTERS = (100, 250)  # units of stage 1 and of stage 2
OWN_STATE = 4  # the state of stage 1 that stage 2's units are of, out of 0 to 6
STUDENT_STATES = (4, 6)  # that are to tell the teacher's states, in stage 3
STARTS = 0.03  # of masks in stage 3: about a quarter of the frames are hidden


@dataclass(frozen=True)
class Stage:
    """One stage: where its targets come from, how many units they are made into (0: none), how it learns."""

    name: str
    source: Source
    clusters: int
    recipe: Recipe


@dataclass(frozen=True)
class Work:
    """What all stages share."""

    folder: Path
    pool: Pool
    speech: list[Path]
    device: torch.device
    workers: int
    console: Console

    def run(self, stage: Stage, model: HubertModel) -> dict[str, object]:
        """Train the model in place by the stage, or load what the stage left; what held-out speech says of it."""
        folder = self.folder / stage.name
        said, weights = folder / "said.json", folder / "model"
        if said.exists():
            model.load_state_dict(HubertModel.from_pretrained(weights, dtype=torch.float32).state_dict())
            return dict(json.loads(said.read_text(encoding="utf-8")))
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        frames = self._measured(stage, folder)
        items, targets = self._items(stage, frames)
        head = self._head(stage, model.config.hidden_size, frames)
        out = [self.pool.held_out(i) for i in range(len(self.pool))]
        parts = [
            Speech(*([x for x, o in zip(xs, out, strict=True) if o == held] for xs in (items, targets)), stage.recipe)
            for held in (False, True)
        ]
        history: list[dict[str, float]] = []
        with bar(self.console, "steps") as progress:
            task = progress.add_task(stage.name, total=stage.recipe.steps)

            def told(step: int, found: dict[str, float]) -> None:
                progress.update(task, completed=step)
                if "held-out loss" in found:
                    history.append({"step": step, **{k: round(v, 4) for k, v in found.items()}})
                    with (folder / "history.jsonl").open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps(history[-1]) + "\n")

            learn(model, head, parts[0], parts[1], stage.recipe, folder / "checkpoint.pt", self.device, told)
        model.to("cpu")
        save(model, weights)
        found = {"minutes": round((time.monotonic() - began) / 60, 1), "steps": stage.recipe.steps, **history[-1]}
        write_json(said, found)
        return dict(found)

    def _measured(self, stage: Stage, folder: Path) -> list[Path]:
        with bar(self.console, "parts") as progress:
            task = progress.add_task(f"{stage.name}: targets", total=len(self.speech))
            return measure(stage.source, self.speech, folder, self.workers, lambda: progress.advance(task))

    def _items(self, stage: Stage, frames: Sequence[Path]) -> tuple[list[npt.NDArray[np.int16]], list[np.ndarray]]:
        """Each item's samples and its frames' targets."""
        items: list[npt.NDArray[np.int16]] = []
        targets: list[np.ndarray] = []
        for file, of_part in zip(self.speech, self._targets(stage, frames), strict=True):
            there = read_part(file)
            items += there
            targets += np.split(of_part, np.cumsum([num_frames(len(x)) for x in there])[:-1])
        return items, targets

    def _targets(self, stage: Stage, frames: Sequence[Path]) -> Iterator[np.ndarray]:
        """Of each part, by frames: units `(T,)`, or states `(T, M, D)`, read from disk as they are wanted."""
        if stage.clusters:
            return cluster(frames, stage.clusters, stage.recipe.seed)
        return (np.load(file, mmap_mode="r").swapaxes(0, 1) for file in frames)

    def _head(self, stage: Stage, dim: int, frames: Sequence[Path]) -> nn.Module:
        torch.manual_seed(stage.recipe.seed + 1)
        if stage.clusters:
            return Units(dim, stage.clusters)
        some = np.concatenate([np.load(file, mmap_mode="r")[:, ::50] for file in frames], axis=1).astype(np.float32)
        mean_MD, scale_MD = torch.from_numpy(some.mean(1)), torch.from_numpy(some.std(1) + 1e-5)
        return Teacher(dim, STUDENT_STATES, mean_MD, scale_MD)


def save(model: HubertModel, folder: Path) -> None:
    """As half-precision weights, with the preprocessor: zero mean and unit variance. Whole or not at all."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    halved = HubertModel(model.config)
    halved.load_state_dict(model.state_dict())
    halved.half().save_pretrained(temporary)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def check_same(a: argparse.Namespace) -> None:
    """UserError where the work folder was made with other arguments."""
    path, now = a.work / "arguments.json", {k: v for k, v in vars(a).items() if k not in ("work", "device")}
    now |= {"speech": str(a.speech.resolve())}
    there = read_json(path) if path.exists() else now
    if wrong := [k for k in now if now[k] != there.get(k)]:
        told = f"made with --{wrong[0].replace('_', '-')} {there.get(wrong[0])}, now {now[wrong[0]]}"
        raise UserError(f"{a.work}: {told}; give another --work, or delete that folder")
    write_json(path, now)


def carry_out(a: argparse.Namespace, console: Console) -> None:
    device = choose_device(a.device)
    workers = os.cpu_count() or 1
    if a.teacher:  # before hours of work: can it be loaded, and has it such states?
        known = load_encoder(a.teacher, torch.device("cpu"), real_length=a.real_length).info
        if wrong := [s for s in a.teacher_states if not 0 <= s < known.num_states]:
            raise UserError(f"--teacher-states {wrong[0]}: {a.teacher} has states 0 to {known.num_states - 1}")
        if len(a.teacher_states) != len(STUDENT_STATES):
            raise UserError(f"--teacher-states: name {len(STUDENT_STATES)}, the earlier first")
    spoken = pool(a.speech, a.variants, a.spoken, a.seed)
    check_same(a)
    with bar(console, "utterances") as progress:
        task = progress.add_task("speech", total=len(spoken))
        files = make_speech(spoken, a.work / "speech", workers, lambda n: progress.advance(task, n))
    work = Work(a.work, spoken, files, device, workers, console)
    recipes = [Recipe(steps=steps, seed=a.seed) for steps in a.steps]
    model = new_model(a.seed)
    own = Source(str(a.work / "1-mfcc" / "model"), (OWN_STATE,))
    stages = [
        Stage("1-mfcc", Source(), CLUSTERS[0], recipes[0]),
        Stage("2-own", own, CLUSTERS[1], recipes[1]),
    ]
    if a.teacher:
        teacher = Source(a.teacher, tuple(a.teacher_states), a.real_length)
        light = Recipe(steps=a.steps[2], seed=a.seed, starts=STARTS)
        stages.append(Stage("3-teacher", teacher, 0, light))
    said = {stage.name: work.run(stage, model) for stage in stages}
    out = a.work / "bas-hubert-nano"
    save(model, out)
    frames = sum(num_frames(len(x)) for file in files for x in read_part(file))
    write_json(
        out / "training.json",
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "hours of speech": round(frames * HOP / SAMPLE_RATE / 3600, 2),
            "LibriSpeech utterances": len(spoken.recordings),
            "variants of each": spoken.variants,
            "espeak-ng utterances": spoken.spoken,
            "seed": a.seed,
            "teacher": f"{Path(a.teacher).name}, states {a.teacher_states}" if a.teacher else None,
            "stages": said,
            "hardware": f"{device.type}, {workers} cores, {platform.machine()}",
            "versions": {name: version(name) for name in ("torch", "transformers", "scikit-learn", "espeakng-loader")},
        },
    )
    console.print(f"model: {out}", highlight=False, soft_wrap=True)
    console.print(f"[bold]next:[/] make extract CORPUS=emodb ROOT=path/to/emodb ENCODER={out}", soft_wrap=True)


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--speech", type=Path, required=True, help="LibriSpeech's folder, or a sample of it")
    p.add_argument("--teacher", default="", help="an encoder, by hub name or folder; default: no third stage")
    p.add_argument("--teacher-states", type=int, nargs="+", default=[2, 4], help="default: %(default)s")
    p.add_argument("--real-length", action="store_true", help="for Whisper: without the padding to 30 s")
    p.add_argument("--variants", type=int, default=6, help="of each utterance, one unchanged; default: %(default)s")
    p.add_argument("--spoken", type=int, default=5000, help="utterances by espeak-ng; default: %(default)s")
    p.add_argument("--steps", type=int, nargs=3, default=[800, 800, 2000], help="a stage; default: %(default)s")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--device", default="auto")
    p.add_argument("--work", type=Path, default=Path("runs/nano"), help="default: %(default)s")
    a = p.parse_args()
    try:
        with locked(a.work, "training"):
            carry_out(a, Console(soft_wrap=not sys.stdout.isatty()))
    except UserError as error:
        print(f"nano: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nano: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
