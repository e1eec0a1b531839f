"""The verb that holds a search-space file to its contracts."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.console import Console


def check_space(arguments: argparse.Namespace, console: Console) -> int:
    """0: every contract holds; 1: one is broken, its line says how."""
    from bas.testing import CONTRACTS, BrokenContractError, Subject

    subject = Subject.load(arguments.file, arguments.width)
    broken = 0
    for name, contract in CONTRACTS.items():
        assert contract.__doc__ is not None
        try:
            subject.hold_to(contract)
            line = f"pass {name:10} {contract.__doc__}"
        except BrokenContractError as error:
            broken += 1
            line = f"FAIL {name:10} {error}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if broken:
        message = f"{arguments.file}: {broken} of {len(CONTRACTS)} contracts broken"
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
