"""The verbs that hold a user's Python file to its contracts: check-space, check-encoder."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping
from typing import Any

from rich.console import Console


def check_space(arguments: argparse.Namespace, console: Console) -> int:
    """0: every contract holds; 1: one is broken, its line says how."""
    from bas.testing import CONTRACTS, Subject

    return _hold(Subject.load(arguments.file, arguments.width), CONTRACTS, arguments.file, console)


def check_encoder(arguments: argparse.Namespace, console: Console) -> int:
    """As `check_space`."""
    from bas.testing import ENCODER_CONTRACTS, EncoderSubject

    return _hold(
        EncoderSubject.load(arguments.file), ENCODER_CONTRACTS, arguments.file, console, needed=("shape", "again")
    )


def _hold(
    subject: Any,
    contracts: Mapping[str, Callable[[Any], None]],
    file: str,
    console: Console,
    needed: Collection[str] = (),
) -> int:
    """needed: contracts without which the later ones would say the same again; the first that is broken is the last."""
    from bas.testing import BrokenContractError

    broken = tried = 0
    for name, contract in contracts.items():
        assert contract.__doc__ is not None
        try:
            subject.hold_to(contract)
            line = f"pass {name:10} {contract.__doc__}"
        except BrokenContractError as error:
            broken += 1
            line = f"FAIL {name:10} {error}"
        tried += 1
        console.print(line, highlight=False, markup=False, soft_wrap=True)
        if line.startswith("FAIL") and name in needed:
            break
    if broken:
        untried = f"; {len(contracts) - tried} not tried, which need {name}" if tried < len(contracts) else ""
        message = f"{file}: {broken} of {len(contracts)} contracts broken{untried}"
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    return int(broken > 0)


def add_verbs(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """add: makes the parser of a verb from its name and what it does."""
    p = add(
        "check-space", "hold a search-space file to its contracts: padding, gradients, signature, loss and the like"
    )
    p.add_argument("file", metavar="FILE", help="shipped name or .py path")
    p.add_argument("--width", type=int, help="of the networks that are tried; default: that of the preset cpu")
    p.set_defaults(verb=check_space)

    p = add("check-encoder", "hold an encoder's Python file to its contracts: shape, frames, the same again")
    p.add_argument("file", metavar="FILE", help="my_encoder.py or my_encoder.py:Class; its code is run")
    p.set_defaults(verb=check_encoder)
