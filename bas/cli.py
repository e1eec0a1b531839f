"""One verb a stage: extract, features, search, retrain, compare, board, demo. Thin: each hands over to its room."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console

from bas import __version__
from bas.cli_features import DEVICES, RUNS, above_0, add_verbs, choose_device, fill, tell_next
from bas.errors import UserError
from bas.settings import LAYERS, PRESETS, settings

if TYPE_CHECKING:
    import torch  # seconds to import: --help does without


def main(argv: Sequence[str] | None = None) -> int:
    """The console command. 0: done; 2: the user's input was refused, one line says why; 130: interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = _parser().parse_args(words, argparse.Namespace(words=words))
        # In a log file a sentence is one line.
        result: int = arguments.verb(arguments, Console(soft_wrap=not sys.stdout.isatty()))
        return result
    except UserError as error:
        print(f"bas: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written: what is finished stays
        print(f"bas: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bas: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def run_verb(arguments: argparse.Namespace, console: Console) -> int:
    from bas.compare import carry_out
    from bas.features.store import StoreInfo
    from bas.files import locked
    from bas.run import Plan, common_task, start
    from bas.space import load_space
    from bas.train import check_networks

    chosen = settings(arguments.preset, dict(_pair(text) for text in arguments.set))
    if arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: must be 1 or more")
    features = arguments.features.resolve()
    info = StoreInfo.read(features)
    layer = _layer(arguments.layer or LAYERS[arguments.preset], info.layers, info.encoder["num_states"])
    spaces = [load_space(name) for name in arguments.space or ["ser_bas3", "ser_bas4"]]
    check_networks(spaces, info.dim, chosen)
    device = choose_device(arguments.device)
    workers = _workers(arguments.workers, device)
    task = common_task(spaces)
    suffix = "" if task.name == "emotion" else f"-{task.name}"
    folder = RUNS / (arguments.name or f"{features.name}-layer{layer}-{arguments.preset}{suffix}")
    paths = tuple(str(s.path) for s in spaces)
    plan = Plan(str(features), paths, layer, chosen, tuple(range(arguments.seeds)), device.type)
    with locked(folder, "searching or training"):
        run = start(folder, plan, arguments.protocol, arguments.protocol_seed)
        carry_out(run, arguments.command, workers, console, arguments.memory)
    following = {"search": "retrain", "retrain": "compare"}.get(arguments.command)
    if following:
        program = sys.argv[0] if Path(sys.argv[0]).name == "bas" else "bas"
        tell_next(console, shlex.join([program, following, *arguments.words[1:]]))
    else:
        console.print(f"table: {folder}/table.md, as data: {folder}/results.json", highlight=False, soft_wrap=True)
        tell_next(console, "make board")
    return 0


def board(arguments: argparse.Namespace, console: Console) -> int:
    if not arguments.runs.is_dir():
        raise UserError(f"{arguments.runs}: no such folder; `make demo` makes a first run")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(arguments.runs), "--port", str(arguments.port)]
    os.execv(sys.executable, command)  # TensorBoard takes this process's place, and its signals


def demo(arguments: argparse.Namespace, console: Console) -> int:
    from bas.corpora.synthetic import synthesise
    from bas.progress import bar

    root = RUNS / "corpora" / "demo"
    console.print("[bold]This demo's speech is synthetic (espeak-ng): its figures say nothing about real emotion.")
    with bar(console, "utterances") as progress:
        task = progress.add_task("synthesise", total=None)
        synthesise(root, on_progress=lambda done, total: progress.update(task, completed=done, total=total))
    workers = ["--workers", str(arguments.workers)] if arguments.workers else []
    features = fill(_parser().parse_args(["extract", "--corpus=demo", f"--root={root}", "--encoder=log-mel"]), console)
    # Narrower and shorter than the preset: the demo is to end within minutes on two cores.
    changes = ["--set", "width=64", "--set", "epochs=12", "--name", "demo"]
    return main(["compare", "--features", str(features), *changes, *workers])


def _workers(asked: int | None, device: torch.device) -> int:
    if asked is not None and asked < 1:
        raise UserError(f"--workers {asked}: must be 1 or more")
    if device.type == "cuda":
        if asked and asked > 1:
            raise UserError(f"--workers {asked}: one process has the GPU to itself; leave it out or give 1")
        return 1
    if asked:
        return asked
    # Where the system tells it, the cores this process may use, which in a container are fewer than the machine's.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _layer(text: str, stored: Sequence[int], states: int) -> int | str:
    """Which of the encoder's states (not of those stored) is meant; "best" stays for each fold to choose."""
    if text == "best":
        return text
    named = {"last": states - 1, "middle": states // 2}
    if text in named:
        if named[text] not in stored:
            raise UserError(
                f"--layer {text}: state {named[text]} is not stored; there is {', '.join(map(str, stored))}"
            )
        return named[text]
    if not text.isdecimal():
        raise UserError(f"--layer {text!r}: must be last, middle, best, or one of {', '.join(map(str, stored))}")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text!r}: must be NAME=VALUE, such as epochs=30")
    return name, value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other refusal."""
        raise UserError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("bas", description="Which downstream model should sit on frozen speech features?")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="command", required=True, metavar="VERB")

    def add(verb: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(verb, help=text, description=text)

    add_verbs(add)
    told = {
        "search": "search each space in every fold; print the chosen blocks",
        "retrain": "search, then train what was found from scratch and score it",
        "compare": "search, retrain, train the baselines; the table with its statistics",
    }
    names = ", ".join(name for name in PRESETS["cpu"].as_dict() if name != "preset")
    for verb, text in told.items():
        p = add(verb, text)
        p.add_argument("--features", required=True, type=Path, help="a store made by extract")
        layers = "a stored state: a number, last, middle, or best (chosen in each fold); default: the preset's"
        p.add_argument("--layer", help=layers)
        p.add_argument(
            "--space", action="append", help="shipped name or .py path; repeatable; default: ser_bas3 ser_bas4"
        )
        p.add_argument("--preset", default="cpu", help=f"{' or '.join(PRESETS)}; default: %(default)s")
        p.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"change one setting; repeatable; one of {names}",
        )
        p.add_argument("--seeds", type=int, default=3, help="how many; default: %(default)s")
        p.add_argument("--protocol", help="own, FIELD or FIELD:FOLDS; default: the task's, else the corpus's")
        p.add_argument("--protocol-seed", type=int, default=0, help="which units share a fold; default: %(default)s")
        p.add_argument("--workers", type=int, help="processes of one thread each; default: one a core")
        most = "that features may take in all processes, else they are streamed; default: half of what is free"
        p.add_argument("--memory", type=above_0, metavar="GIB", help=most)
        p.add_argument("--device", default="auto", choices=DEVICES, help="default: cuda where there is one")
        p.add_argument("--name", help="the run's folder under runs/; default: from features, layer and preset")
        p.set_defaults(verb=run_verb)

    p = add("board", "TensorBoard over all runs")
    p.add_argument("--runs", type=Path, default=RUNS, help="default: %(default)s")
    p.add_argument("--port", type=int, default=6006, help="default: %(default)s")
    p.set_defaults(verb=board)

    p = add("demo", "the main job on synthetic speech: no data, no network")
    p.add_argument("--workers", type=int, help="processes of one thread each; default: one a core")
    p.set_defaults(verb=demo)
    return parser


if __name__ == "__main__":
    sys.exit(main())
