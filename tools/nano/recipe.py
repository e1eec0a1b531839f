"""The whole recipe of `bas-hubert-nano`: speech, three stages, a folder in the layout of `transformers`.

    python tools/nano/recipe.py --speech LIBRISPEECH --teacher openai/whisper-tiny.en --real-length

It takes about 6 GB of disk and 5 of memory; `--recordings` that list more take more.

1. masked prediction of k-means units of MFCC;
2. masked prediction of k-means units of the model's own states, as stage 1 left them (with 1: HuBERT's recipe);
3. regression of a teacher's states from masked speech (DistilHuBERT's loss).

Every stage begins with the weights of the one before. Speech, targets, weights after each stage and what held-out
speech says of them stay in the work folder; a killed run goes on from there. From a seed all is drawn again alike.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from augment import torchaudio
from pretrain import CONFIG, Recipe, Speech, Teacher, Units, learn, learnt, new_model
from rich.console import Console
from speech import Pool, make_speech, pool, read_part, speaker
from targets import HOP, Source, cluster, measure, num_frames
from transformers import HubertModel, Wav2Vec2FeatureExtractor
from transformers.utils import logging

from bas.corpora.readers import espeak
from bas.encoders import EncoderInfo, load_encoder
from bas.errors import UserError
from bas.speech.audio import SAMPLE_RATE
from bas.util.device import DEVICES, choose_device
from bas.util.files import locked, read_json, write_json
from bas.util.progress import bar
from bas.util.terminal import Terminal, printable

CLUSTERS = (100, 250)  # units of stage 1 and of stage 2
OWN_STATE = 4  # the state of stage 1 that stage 2's units are of, out of 0 to 6
STUDENT_STATES = (4, 6)  # that are to tell the teacher's states, in stage 3
STARTS = 0.03  # of masks in stage 3: about a quarter of the frames are hidden
CODE = ("speech.py", "augment.py", "targets.py", "pretrain.py")


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

    def run(self, stage: Stage, model: HubertModel) -> dict[str, float]:
        """Train the model in place by the stage, or load what the stage left; what held-out speech says of it."""
        folder = self.folder / stage.name
        checkpoint, weights = folder / "checkpoint.pt", folder / "model"
        if not weights.exists():  # the last thing that a stage writes
            folder.mkdir(parents=True, exist_ok=True)
            frames = self._measured(stage, folder)
            items, targets = self._items(stage, frames)
            head = self._head(stage, model.config.hidden_size, frames)
            train, held_out = (self._part(items, targets, stage.recipe, held) for held in (False, True))
            with bar(self.console, "steps") as progress:
                task = progress.add_task(stage.name, total=stage.recipe.steps)

                def on_step(step: int) -> None:
                    progress.update(task, completed=step)

                learn(model, head, train, held_out, stage.recipe, checkpoint, self.device, on_step)
            model.to("cpu")
            save(model, weights)
        state, said = learnt(checkpoint)
        model.load_state_dict(state)
        return said[-1]

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

    def _part(self, items: Sequence[Any], targets: Sequence[Any], recipe: Recipe, held_out: bool) -> Speech:
        """What is trained on, or what is held out."""
        of = [i for i in range(len(self.pool)) if self.pool.held_out(i) == held_out]
        return Speech([items[i] for i in of], [targets[i] for i in of], recipe)

    def _head(self, stage: Stage, dim: int, frames: Sequence[Path]) -> Units | Teacher:
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


def made_of(a: argparse.Namespace, spoken: Pool, teacher: EncoderInfo | None) -> dict[str, Any]:
    """All that decides what the work folder holds."""
    names = "".join(f"{path.name} {path.stat().st_size} " for path in spoken.recordings)
    code = b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)
    return {
        "variants": a.variants,
        "spoken": a.spoken,
        "steps": a.steps,
        "seed": a.seed,
        "teacher": [teacher.revision, teacher.input] if teacher else None,
        "teacher-states": a.teacher_states,
        "speech": hashlib.sha256(names.encode()).hexdigest()[:16],
        "constants": [CONFIG, CLUSTERS, OWN_STATE, STUDENT_STATES, STARTS, asdict(Recipe(1, 0))],
        "code": hashlib.sha256(code).hexdigest()[:16],
        "versions": {name: version(name) for name in ("babel", "espeakng-loader", "torchaudio")},
    }


def check_same(folder: Path, made: dict[str, Any]) -> None:
    """Raise UserError if the work folder was made with anything else."""
    path = folder / "made_of.json"
    made = json.loads(json.dumps(made))
    remedy = "give another --work"
    if path.exists():
        there = read_json(path, remedy)
        if wrong := [name for name in made if there.get(name) != made[name]]:
            message = f"made with {wrong[0]} {there.get(wrong[0])}, now {made[wrong[0]]}"
            raise UserError(f"{folder}: {message}; {remedy}")
    elif any(path.name != ".lock" for path in folder.iterdir()):
        raise UserError(f"{folder}: holds something, but no made_of.json; {remedy}")
    write_json(path, made)


def asked(a: argparse.Namespace) -> EncoderInfo | None:
    """The teacher, with its states put in; UserError, before hours of work, for whatever cannot be."""
    for name in ("variants", "workers"):
        if getattr(a, name) < 1:
            raise UserError(f"--{name} {getattr(a, name)}: must be 1 or more")
    for name in ("spoken", "seed"):
        if getattr(a, name) < 0:
            raise UserError(f"--{name} {getattr(a, name)}: must be 0 or more")
    stages = 3 if a.teacher else 2
    if len(a.steps) < stages or min(a.steps[:stages]) < 1:
        raise UserError(f"--steps {' '.join(map(str, a.steps))}: must be {stages} numbers of 1 or more")
    a.steps = a.steps[:stages]
    if not importlib.util.find_spec("babel"):
        raise UserError("what espeak-ng is to say comes from Babel: pip install 'bas[nano]'")
    espeak.find()
    torchaudio()
    if not a.teacher:
        if a.real_length or a.teacher_states:
            raise UserError("--real-length and --teacher-states are of a --teacher; name one, or leave them out")
        return None
    info = load_encoder(a.teacher, torch.device("cpu"), real_length=a.real_length).info
    last = info.num_states - 1
    a.teacher_states = a.teacher_states or [info.num_states // 2, last]
    if wrong := [s for s in a.teacher_states if not 0 <= s <= last]:
        raise UserError(f"--teacher-states {wrong[0]}: {a.teacher} has states 0 to {last}")
    if len(a.teacher_states) != len(STUDENT_STATES):
        raise UserError(f"--teacher-states: name {len(STUDENT_STATES)}, the earlier first")
    if info.frame_rate != SAMPLE_RATE / HOP:
        raise UserError(f"--teacher {a.teacher}: {info.frame_rate:g} frames a second; must be {SAMPLE_RATE / HOP:g}")
    return info


def carry_out(a: argparse.Namespace, teacher: EncoderInfo | None, console: Console) -> None:
    device = choose_device(a.device)
    spoken = pool(a.speech, a.recordings, a.variants, a.spoken, a.seed)
    check_same(a.work, made_of(a, spoken, teacher))
    with bar(console, "utterances") as progress:
        task = progress.add_task("speech", total=len(spoken))
        files = make_speech(spoken, a.work / "speech", a.workers, lambda n: progress.advance(task, n))
    work = Work(a.work, spoken, files, device, a.workers, console)
    own = Source(str(a.work / "1-mfcc" / "model"), (OWN_STATE,))
    stages = [
        Stage("1-mfcc", Source(), CLUSTERS[0], Recipe(steps=a.steps[0], seed=a.seed)),
        Stage("2-own", own, CLUSTERS[1], Recipe(steps=a.steps[1], seed=a.seed)),
    ]
    if teacher:
        states = Source(a.teacher, tuple(a.teacher_states), a.real_length)
        stages.append(Stage("3-teacher", states, 0, Recipe(steps=a.steps[2], seed=a.seed, starts=STARTS)))
    model = new_model(a.seed)
    said = {stage.name: work.run(stage, model) for stage in stages}
    out = a.work / "hubert-nano"
    save(model, out)
    held = [i for i in range(len(spoken)) if spoken.held_out(i)]
    seconds = [num_frames(len(x)) * HOP / SAMPLE_RATE for file in files for x in read_part(file)]
    write_json(
        out / "training.json",
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "hours trained on": round((sum(seconds) - sum(seconds[i] for i in held)) / 3600, 2),
            "LibriSpeech utterances": len(spoken.recordings),
            "LibriSpeech speakers held out": len({speaker(r) for i, r in enumerate(spoken.recordings) if i in held}),
            "variants": spoken.variants,
            "espeak-ng utterances": spoken.spoken,
            "seed": a.seed,
            "teacher": [Path(a.teacher).name, teacher.revision, teacher.input, a.teacher_states] if teacher else None,
            "stages": said,
            "hardware": f"{device.type}, {a.workers} workers, {platform.machine()}",
            "versions": {name: version(name) for name in ("torch", "transformers", "scikit-learn", "espeakng-loader")},
        },
    )
    console.print(f"model: {out}", highlight=False, soft_wrap=True)
    command = f"bas extract --corpus emodb --root path/to/emodb --encoder {out}"
    console.print(f"next: {command}", highlight=False, soft_wrap=True)


def main() -> int:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--speech", type=Path, required=True, help="LibriSpeech's folder, or one with the recordings listed")
    listed = Path(__file__).with_name("librispeech.txt")
    p.add_argument("--recordings", type=Path, default=listed, help="their names; default: %(default)s")
    p.add_argument("--teacher", default="", help="an encoder, by hub name or folder; default: no third stage")
    p.add_argument("--teacher-states", type=int, nargs="+", help="two; default: its middle and its last")
    p.add_argument("--real-length", action="store_true", help="for Whisper: without the padding to 30 s")
    p.add_argument("--variants", type=int, default=6, help="of each utterance, one unchanged; default: %(default)s")
    p.add_argument("--spoken", type=int, default=5000, help="utterances by espeak-ng; default: %(default)s")
    p.add_argument("--steps", type=int, nargs="+", default=[800, 800, 2000], help="of each stage; default: %(default)s")
    p.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    p.add_argument("--device", default="auto", choices=DEVICES, help="default: cuda where there is one")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    p.add_argument("--workers", type=int, default=cores, help="processes that make speech and targets; default: cores")
    p.add_argument("--work", type=Path, default=Path("runs/nano"), help="default: %(default)s")
    a = p.parse_args()
    logging.disable_progress_bar()  # of a file that takes no time
    try:
        teacher = asked(a)
        with locked(a.work, "training"):
            carry_out(a, teacher, Terminal(soft_wrap=not sys.stdout.isatty()))
    except (UserError, OSError) as error:
        print(f"nano: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nano: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
