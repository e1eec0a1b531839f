"""The encoder that made what is there: a feature store, or a model's training data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bas.encoders import LOG_MEL, Encoder, files_of, load_encoder, padded_as
from bas.encoders.own import MARK, Own, is_own
from bas.errors import UserError


def load_again(described: Mapping[str, Any], place: str | None, device: torch.device, owner: str) -> Encoder:
    """The encoder that `EncoderInfo.to_dict` describes. UserError for any other, even one of the same name.

    place: where the user says that it lies today, see `load_encoder`; None: under the name by which it is described.
    owner: what was made with it ("store"), for messages.

    A Python file is run only where the user names it, and only if it is the one that is described: whoever made the
    store or the model wrote its description, too.
    """
    name = described["name"] if place is None else place
    if place is None and is_own(name):
        how = "is Python, which is run only if you name it"
        raise UserError(f"encoder {name!r}: the {owner}'s encoder {how}; read it, then name it with --encoder FILE.py")
    plain = _own(described, name, device, owner) if is_own(name) else _plain(described, name, device, owner)
    encoder = padded_as(plain, described["input"])
    new = encoder.info.to_dict()
    for field in ("revision", "input", "precision", "dim", "frame_rate", "num_states"):
        if new[field] != described[field]:
            there, here = described[field], new[field]
            raise UserError(f"encoder {name!r}: another than the {owner}'s ({field}: {there} there, {here} here)")
    return encoder


def _own(described: Mapping[str, Any], name: str, device: torch.device, owner: str) -> Encoder:
    """A file that the user has named. UserError, before anything of it is run, for another than is described."""
    mark, _, rest = described["revision"].partition(MARK)
    if mark or not rest:
        there = f"{described['name']}, {described['revision']}"
        raise UserError(f"encoder {name!r}: another than the {owner}'s ({there}), which is no Python file")
    return Own(name, device, rest.partition(":")[0])


def _plain(described: Mapping[str, Any], name: str, device: torch.device, owner: str) -> Encoder:
    if described["revision"].startswith(MARK):
        message = f"the {owner} was made with {described['name']}"
        raise UserError(f"encoder {name!r}: {message}, a Python file; name that with --encoder FILE.py")
    local = described["revision"].startswith("sha256:")
    if local and not Path(files_of(name)).is_dir():
        raise UserError(f"encoder {name!r}: the {owner} was made with a folder of files, and it is not here")
    return load_encoder(
        name,
        device,
        None if local or name == LOG_MEL or Path(name).is_dir() else described["revision"],
        precision=described["precision"],
        real_length="real length" in described["input"],
    )
