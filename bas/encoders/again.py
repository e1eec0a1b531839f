"""The encoder that made what is there: a feature store, or a model's training data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bas.encoders import LOG_MEL, Encoder, files_of, load_encoder, padded_as
from bas.errors import UserError


def load_again(described: Mapping[str, Any], name: str, device: torch.device, owner: str) -> Encoder:
    """The encoder that `EncoderInfo.to_dict` describes. UserError for any other, even one of the same name.

    name: where it lies today, see `load_encoder`. owner: what was made with it ("store"), for messages.
    """
    local = described["revision"].startswith("sha256:")
    if local and not Path(files_of(name)).is_dir():
        raise UserError(f"encoder {name!r}: the {owner} was made with a folder of files, and it is not here")
    plain = load_encoder(
        name,
        device,
        None if local or name == LOG_MEL or Path(name).is_dir() else described["revision"],
        precision=described["precision"],
        real_length="real length" in described["input"],
    )
    encoder = padded_as(plain, described["input"])
    new = encoder.info.to_dict()
    for field in ("revision", "input", "precision", "dim", "frame_rate", "num_states"):
        if new[field] != described[field]:
            there, here = described[field], new[field]
            raise UserError(f"encoder {name!r}: another than the {owner}'s ({field}: {there} there, {here} here)")
    return encoder
