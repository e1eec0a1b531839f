"""Where to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bas.errors import UserError

if TYPE_CHECKING:
    import torch  # seconds to import: --help does without

DEVICES = ("auto", "cpu", "cuda")


def choose_device(name: str, index: int = 0) -> torch.device:
    """One of DEVICES; index: which GPU, where several processes want one each."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch finds no CUDA device here; use cpu or auto")
    if name == "cpu":
        return torch.device(name)
    if index >= torch.cuda.device_count():
        raise UserError(
            f"{index + 1} processes on this machine want a GPU each; torch finds {torch.cuda.device_count()}"
        )
    return torch.device("cuda", index)
