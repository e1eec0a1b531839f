"""The verb that fine-tunes an encoder and watches its embeddings. Thin."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console

from bas.cli.options import RUNS, add_encoder_arguments, pair, tell_next
from bas.corpora.labels import SCHEMES
from bas.errors import UserError
from bas.util.device import DEVICES, choose_device

PRESETS = ("paper", "cpu")
SETTINGS = (
    *("lr", "weight_decay", "epochs", "batch", "micro_batch"),
    *("evaluate_every", "checkpoint_every", "improvement", "patience"),
)
"""The fields of `finetune.Tuning`, which imports torch."""


def run_dynamics(arguments: argparse.Namespace, console: Console) -> int:
    from bas.studies.dynamics.finetune import settings
    from bas.studies.dynamics.study import LOUDNESS, Plan, carry_out

    if arguments.seed < 0:
        raise UserError(f"--seed {arguments.seed}: must be 0 or more")
    chosen = settings(arguments.preset, dict(pair(text) for text in arguments.set))
    root = arguments.root.expanduser()
    plan = Plan(
        arguments.corpus,
        str(root),
        arguments.encoder,
        arguments.revision,
        arguments.real_length,
        arguments.labels,
        arguments.protocol,
        arguments.protocol_seed,
        None if arguments.as_recorded else LOUDNESS,
        arguments.text_encoder,
        arguments.preset,
        chosen,
        arguments.seed,
        choose_device(arguments.device).type,
    )
    corpus = root.stem if arguments.corpus == "manifest" else arguments.corpus
    encoder = arguments.encoder.rstrip("/").rpartition("/")[2]
    folder = RUNS / (arguments.name or f"dynamics-{corpus}-{encoder}-{arguments.preset}")
    carry_out(folder, plan, console, rotations=arguments.rotations, keep_weights=arguments.keep_weights)
    told = f"table: {folder}/table.md, figures: {folder}/figures/, as data: {folder}/results.json"
    console.print(told, highlight=False, markup=False, soft_wrap=True)
    tell_next(console, "make board")
    return 0


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add("dynamics", "fine-tune an encoder and tell what becomes of its embeddings, checkpoint by checkpoint")
    add_encoder_arguments(p, "a hub name or a local model folder")
    p.add_argument("--labels", choices=SCHEMES, help="map them to a common scheme; default: the corpus's own words")
    p.add_argument("--as-recorded", action="store_true", help="leave the loudness; default: all at -23 LUFS")
    texts = (
        "a text encoder, by hub name or local folder: likeness to vectors of the texts; default: to which text it is"
    )
    p.add_argument("--text-encoder", metavar="NAME", help=texts)
    rules = "speaker:5, speaker:64/20/16, own, a protocol's FILE.json, ... (README)"
    p.add_argument(
        "--protocol", metavar="RULE", help=f"{rules}; default: speaker:64/20/16, below 30 speakers speaker:5"
    )
    p.add_argument("--protocol-seed", type=int, default=0, help="which speakers share a fold; default: %(default)s")
    p.add_argument("--rotations", type=int, metavar="N", help="the first N folds alone; default: all")
    p.add_argument("--preset", default="cpu", choices=PRESETS, help="of the fine-tuning; default: %(default)s")
    change = f"change one setting, such as lr=1e-4; repeatable; one of {', '.join(SETTINGS)}"
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=change)
    p.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    p.add_argument("--device", default="auto", choices=DEVICES, help="default: cuda where there is one")
    p.add_argument("--keep-weights", action="store_true", help="of every checkpoint; default: of the last alone")
    p.add_argument("--name", help="the run's folder under runs/; default: from corpus, encoder and preset")
    p.set_defaults(verb=run_dynamics)
