"""How fast many small trainings are, each figure a ratio within one run; writes trainings.md.

Needs no data: recordings of noise as long as EmoDB's and random features. The arms of a comparison take turns, round
after round; a figure is the median over rounds, with the lowest and highest. On a GPU where there is one, else the CPU.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from pathlib import Path

import torch
from features import QUIET, commit, machine, recordings
from reading import ratio, take_turns
from torch import Tensor

from bas.corpora import open_corpus
from bas.encoders import EncoderInfo
from bas.errors import UserError
from bas.features.extract import extract
from bas.features.plan import Request
from bas.runs.fit import fit
from bas.runs.plan import Plan
from bas.runs.run import Inputs
from bas.runs.session import Session
from bas.runs.spaces import load_space
from bas.runs.stacked import fit_stack
from bas.runs.start import split, start
from bas.speech import audio
from bas.training.settings import settings

PAGE = Path(__file__).with_suffix(".md")
SPACE = "ser_bas4"
SPEAKERS, SEEDS = 10, 3
WORKERS = 2
_session: Session | None = None


class Noise:
    """One state of random numbers at 50 frames a second, as wide as Whisper tiny's."""

    min_samples = 320
    max_samples: int | None = None
    device = torch.device("cpu")
    info = EncoderInfo(name="noise", revision="1", model_type="noise", num_states=1, dim=384, frame_rate=50.0)

    def batch_key(self, num_samples: int) -> Hashable:
        return num_samples

    def cost(self, num_samples: int) -> int:
        return num_samples

    def prepare(self, wave: audio.Wave) -> Tensor:
        return torch.from_numpy(wave)

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        return [torch.randn(1, len(x) // 320, self.info.dim) for x in inputs]


def new_run(folder: Path, count: int, epochs: int, width: int, device: str) -> Path:
    """A run on noise: the preset `cpu`, ten speakers in five folds, seven classes."""
    (folder / "recordings").mkdir()
    with (folder / "noise.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["id", "audio", "label", "speaker"])
        for i, u in enumerate(recordings(folder / "recordings", count).utterances):
            rows.writerow([u.id, u.audio, f"class{i // SPEAKERS % 7}", f"speaker{i % SPEAKERS}"])
    extract(
        open_corpus("manifest", folder / "noise.csv"),
        Noise(),
        folder / "store",
        Request("manifest", folder / "noise.csv"),
        QUIET,
    )
    run_settings = settings("cpu", {"epochs": str(epochs), "width": str(width)})
    plan = Plan(str(folder / "store"), (SPACE,), 0, run_settings, tuple(range(SEEDS)), device)
    inputs = Inputs.open(plan)
    return start(folder / "run", inputs, split(inputs, None, 0)).folder


# One training after another, in processes


def _open(folder: Path, threads: int) -> None:
    global _session
    torch.set_num_threads(threads)
    _session = Session(folder)


def train(number: int, fold: int, seed: int, session: Session | None = None) -> None:
    """One architecture, by its number, in one fold from one seed."""
    session = session or _session
    assert session is not None
    space = load_space(SPACE).space
    fit(session, space, list(space.architectures())[number], session.run.plan.settings, fold, seed, lambda _: None)


def processes(folder: Path, trainings: int, rounds: int) -> str:
    """Processes of one thread each against one of as many threads: the same trainings, started and warm beforehand."""
    numbers = [80 * i // max(1, trainings - 1) for i in range(trainings)]
    jobs = [(number, i % 5, i // 5 % SEEDS) for i, number in enumerate(numbers)]
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(WORKERS, context, _open, (folder, 1)) as several,
        ProcessPoolExecutor(1, context, _open, (folder, WORKERS)) as one,
    ):
        arms = {
            "several": lambda: list(several.map(train, *zip(*jobs, strict=True))),
            "one": lambda: list(one.map(train, *zip(*jobs, strict=True))),
        }
        return ratio(take_turns(arms, rounds), "one", "several")


# Together


def together(session: Session, number: int, members: Sequence[tuple[int, int]], rounds: int) -> str:
    """The members one by one, against all of them in one stack."""
    space = load_space(SPACE).space
    architecture = list(space.architectures())[number]

    def one_by_one() -> None:
        for fold, seed in members:
            train(number, fold, seed, session)

    def stacked() -> None:
        fit_stack(session, space, architecture, session.run.plan.settings, members, lambda: None)

    figure = ratio(take_turns({"one by one": one_by_one, "stacked": stacked}, rounds), "one by one", "stacked")
    return f"| {architecture} | {figure} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=535, help="default: %(default)s, as many as EmoDB's")
    parser.add_argument("--epochs", type=int, default=2, help="of a training; default: %(default)s")
    parser.add_argument("--width", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--members", type=int, default=15, help="of a stack; default: %(default)s")
    parser.add_argument("--trainings", type=int, default=20, help="for the processes; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as name:
            page = measure(arguments, Path(name))
    except UserError as error:
        sys.exit(f"benchmarks/trainings.py: {error}")
    PAGE.write_text(page, encoding="utf-8")
    print(page, f"\nwritten: {PAGE}", sep="")


def measure(arguments: argparse.Namespace, folder: Path) -> str:
    given = ("utterances", "epochs", "width", "members", "trainings", "rounds", "device")
    words = [f"--{name} {getattr(arguments, name)}" for name in given]
    run = new_run(folder, arguments.utterances, arguments.epochs, arguments.width, arguments.device)
    by_processes = "(not measured: one process has the GPU to itself)"
    if arguments.device == "cpu":
        print("processes …", file=sys.stderr, flush=True)
        by_processes = processes(run, arguments.trainings, arguments.rounds)
    members = [(i % 5, i // 5) for i in range(arguments.members)]
    session, rows = Session(run), []
    for number in (0, 40, 80):  # MSA+FFN, MSA and FFN in all four layers
        print(f"architecture {number} …", file=sys.stderr, flush=True)
        rows.append(together(session, number, members, arguments.rounds))
    return PAGE_TEXT.format(
        command=" ".join(["python", "benchmarks/trainings.py", *words]),
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device(arguments.device)),
        threads=f"{torch.get_num_threads()} of {os.cpu_count()}",
        processes=by_processes,
        rows="\n".join(rows),
        **{name: getattr(arguments, name) for name in given},
        workers=WORKERS,
    )


PAGE_TEXT = """# Trainings: many small ones

`{command}`, {date}, commit {commit}, on {machine}.
{utterances} recordings of noise as long as EmoDB's, random features 384 wide; preset `cpu` at width {width}, {epochs}
epochs, space `ser_bas4`. Medians over {rounds} rounds in which the arms took turns, with the lowest and highest; a
round before them warmed up, and starting processes is not timed.

## Over processes

{trainings} trainings from all over the space, shared by {workers} processes of one thread. With their time as 1, one
process of {workers} threads takes {processes}.

## Together

{members} members of one architecture, folds and seeds: one by one, in one process on {device}, they take, stacked = 1:

| architecture | one by one, stacked = 1 |
| --- | --- |
{rows}

Whole trainings, validation after every epoch included; above 1, stacking is faster. {threads} CPU threads in both arms.
An audit stacks on a GPU only, by what this table says of a CPU.
"""


if __name__ == "__main__":
    main()
