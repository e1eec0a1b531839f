"""The cost of one pass over the data that probes every state and mix, against one state; writes probing.md.

Takes a feature store. The arms take turns, round after round; a figure is the median over rounds, with the lowest and
highest.
"""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path

import numpy as np
import torch
from features import commit, machine
from reading import ratio, take_turns

from bas.errors import UserError
from bas.features.store import FeatureStore
from bas.runs.losses import Losses
from bas.studies.probe.heads import input_names
from bas.studies.probe.jobs import train_heads
from bas.tasks import EMOTION
from bas.training.batches import load
from bas.training.settings import settings

PAGE = Path(__file__).with_suffix(".md")
CLASSES = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", required=True, type=Path, help="a store of several states")
    parser.add_argument("--epochs", type=int, default=2, help="of a training; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s, as in a probe's workers")
    arguments = parser.parse_args()
    try:
        page = measure(arguments)
    except UserError as error:
        sys.exit(f"benchmarks/probing.py: {error}")
    PAGE.write_text(page, encoding="utf-8")
    print(page, f"\nwritten: {PAGE}", sep="")


def measure(arguments: argparse.Namespace) -> str:
    torch.set_num_threads(arguments.threads)
    store = FeatureStore(arguments.features)
    states, ids = store.info.layers, list(store.ids)
    chosen = settings("cpu", {"epochs": str(arguments.epochs)})
    targets = np.random.default_rng(0).integers(0, CLASSES, len(ids))
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    fit, valid = order[: 4 * len(ids) // 5], order[4 * len(ids) // 5 :]

    def probe(some: tuple[int, ...]) -> None:
        """Read these states from the store, train their heads and mixes."""
        data = load(store, ids, some, chosen.stride, targets, "memory", torch.device("cpu"))
        train_heads(data, some, Losses(EMOTION.loss, EMOTION.loss), CLASSES, fit, valid, chosen, (0, 0), lambda: None)

    def every_state() -> None:
        for state in states:
            probe((state,))

    middle = states[len(states) // 2]
    arms = {"all": lambda: probe(states), "one": lambda: probe((middle,)), "each": every_state}
    seconds = take_turns(arms, arguments.rounds)
    words = [f"--{name} {getattr(arguments, name)}" for name in ("epochs", "rounds", "threads")]
    return PAGE_TEXT.format(
        command=" ".join(["python benchmarks/probing.py --features STORE", *words]),
        date=date.today().isoformat(),
        commit=commit(),
        machine=machine(torch.device("cpu")),
        encoder=str(store.info.encoder["name"]).rstrip("/").rpartition("/")[2],
        utterances=len(ids),
        states=len(states),
        inputs=len(input_names(states)),
        mixes=len(input_names(states)) - len(states),
        rounds=arguments.rounds,
        one=ratio(seconds, "all", "one"),
        each=ratio(seconds, "all", "each"),
    )


PAGE_TEXT = """# Probing: all states in one pass

`{command}`, {date}, commit {commit}, on {machine}.
{encoder}, {states} states of {utterances} utterances, preset `cpu`. Medians over {rounds} rounds in which the arms took
turns, with the lowest and highest; a round before them warmed up. Reading from the store is counted.

One pass trains a linear and a dense head on each of {inputs} inputs: {states} states and {mixes} mixes of them.

| one pass, against | its time |
| --- | --- |
| one state alone (1 input of {inputs}) | {one} |
| each state alone, one after the other ({states} inputs of {inputs}) | {each} |

A pass reads every frame once, however many mixes there are; one run for each input would read all states again for each
mix. On a CPU the arithmetic of the dense heads is nearly all of the time, and it grows with the inputs.
"""


if __name__ == "__main__":
    main()
