"""Where to compute."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bas.errors import UserError

if TYPE_CHECKING:
    import torch  # seconds to import: --help does without

DEVICES = ("auto", "cpu", "cuda")


@cache
def model_of(device: torch.device) -> str:
    """The model of the processor that computes: numbers of one may differ from another's in their last digits."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    cpu = platform.processor() or platform.machine()
    if (told := Path("/proc/cpuinfo")).exists():
        lines = told.read_text(errors="replace").splitlines()
        cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), cpu)
    return cpu.strip()


def products_of(device: torch.device) -> Literal["float32", "bfloat16"]:
    """The precision in which this machine's device multiplies fastest: bfloat16 where it has instructions for it.

    On a CPU these are AVX512-BF16 or AMX; without them bfloat16 is computed by converting, slower than float32.
    """
    import torch

    if device.type == "cuda":
        # Where a cluster's tasks will have the GPU, this machine has none to ask.
        native = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        can = torch.cpu.get_capabilities()
        native = can.get("avx512_bf16", False) or can.get("amx_bf16", False)
    return "bfloat16" if native else "float32"


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
