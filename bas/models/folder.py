"""The folder of a model: model.json, model.safetensors, and README.md, a card in the layout of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from bas.errors import UserError, first_line
from bas.models.card import card
from bas.models.description import FORMAT, Description
from bas.models.layout import make
from bas.runs.spaces import SpaceFile, load_space
from bas.util.files import read_record, write_json, write_text
from bas.util.reading import read_bytes
from bas.util.temporary import temporary_of
from bas.util.typed import from_plain, to_plain

JSON, WEIGHTS, CARD = "model.json", "model.safetensors", "README.md"
REMEDY = "get the folder again, or export it again"


def prepare(folder: Path) -> None:
    """Raise UserError where there is something already, OSError where nothing can be written."""
    if folder.exists():
        raise UserError(f"{folder}: is there already; delete it, or give another --into")
    temporary = temporary_of(folder)
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had this one's number
    temporary.mkdir(parents=True)
    temporary.rmdir()


def write(folder: Path, description: Description, network: nn.Module, spaces: Sequence[Path]) -> None:
    """Write the folder, complete or not at all, and read back before it has its name.

    spaces: the files of the blocks that are not of `bas`. Raises UserError where there is something already, and for
    such a block that cannot be made again from its name.
    """
    prepare(folder)
    temporary = temporary_of(folder)
    try:
        temporary.mkdir(parents=True)
        state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        (temporary / WEIGHTS).write_bytes(save(state, {"format": "pt"}))  # `save_file` lets nobody else read it
        write_text(temporary / CARD, card(description))
        write_json(temporary / JSON, to_plain(description))
        read(temporary, spaces)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read(folder: Path, spaces: Sequence[str | Path] = ()) -> tuple[Description, nn.Module]:
    """A model's description, and its network on the CPU, in eval mode.

    spaces: files with blocks that are not of `bas`; their code is run. No other code of the folder or its makers is.
    Raises UserError for a folder that holds no model, one that is damaged or of another version, and unknown blocks.
    """
    path = folder / JSON
    if not path.exists():
        raise UserError(f"{folder}: no model here (no {JSON}); make one with `bas export`")
    try:
        raw = read_record(path, REMEDY)
        if raw.get("format") != FORMAT:
            raise UserError(f"{path}: format: must be {FORMAT}, not {raw.get('format')!r}: of another version of bas")
        description = from_plain(Description, raw, path, REMEDY)
    except RecursionError as error:
        raise UserError(f"{path}: network: nested too deeply; {REMEDY}") from error
    files = [_own(str(file), description, path) for file in spaces]
    dims = description.encoder.dim, len(description.outputs), len(description.layers)
    try:
        # Blocks of bas take no memory until their weights are known to be in the file; others may not bear that.
        with torch.device("cpu" if files else "meta"):
            network = make(description.network, *dims, files).eval()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    _load(network, folder / WEIGHTS)
    _try(network, description, path)
    return description, network


def _try(network: nn.Module, description: Description, path: Path) -> None:
    """Raise UserError unless two frames give a number for each output."""
    x_1TI, mask_1T = torch.zeros(1, 2, len(description.layers) * description.encoder.dim), torch.ones(1, 2).bool()
    try:
        with torch.inference_mode():
            outputs_1O = network(x_1TI, mask_1T)
    except Exception as error:  # of parts that do not go together
        raise UserError(f"{path}: network: fails: {type(error).__name__}: {first_line(error)}; {REMEDY}") from error
    if outputs_1O.shape != (1, len(description.outputs)) or not outputs_1O.isfinite().all():
        raise UserError(f"{path}: network: gives {list(outputs_1O.shape)}, or no numbers; {REMEDY}")


def identity(folder: Path) -> str:
    """A hash of a model's weights and description: equal for equal predictions."""
    digest = hashlib.sha256()
    for name in (JSON, WEIGHTS):
        digest.update(read_bytes(folder / name))
    return digest.hexdigest()


def _own(file: str, description: Description, path: Path) -> SpaceFile:
    """A space file of the user's, which must be the one that the model was made with."""
    space = load_space(file)
    wanted = description.spaces.get(space.name)
    if wanted is None:
        known = ", ".join(description.spaces) or "none"
        raise UserError(f"--space {file}: {path} was made without {space.name}; it names {known}")
    if wanted != space.digest:
        raise UserError(f"--space {file}: edited since: {path} was made with {wanted}, this is {space.digest}")
    return space


def _load(network: nn.Module, path: Path) -> None:
    """Fill a network with the weights of a file, which must have just these."""
    wanted = network.state_dict()
    try:
        # Not `load_file`, which maps the file: one that is replaced later would change the network, or end the process.
        state = load(read_bytes(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; {REMEDY}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged: {first_line(error)}; {REMEDY}") from error
    for name in sorted(wanted.keys() ^ state.keys()):
        raise UserError(f"{path}: {name}: {'missing' if name in wanted else 'unknown'}; {REMEDY}")
    for name, value in wanted.items():
        found = state[name]
        for what, of, there in (("shape", value.shape, found.shape), ("type", value.dtype, found.dtype)):
            if of != there:
                shown = [list(one) if isinstance(one, torch.Size) else str(one) for one in (there, of)]
                raise UserError(f"{path}: {name}: {what} {shown[0]}, model.json makes {shown[1]}; {REMEDY}")
        if not found.isfinite().all():
            raise UserError(f"{path}: {name}: holds NaN or infinite numbers; {REMEDY}")
    network.load_state_dict(state, assign=True)
