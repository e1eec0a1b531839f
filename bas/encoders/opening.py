"""What is looked at before a model of `transformers` is built, and where its files come from.

A configuration from elsewhere may describe anything: a stride of 0, ten million layers, more weights than memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from bas.errors import UserError, first_line
from bas.util.faults import raise_memory

POINTER = b"version https://git-lfs"
SIZES: Sequence[tuple[str, int, int]] = (
    (r"(conv_stride|conv_kernel|adapter_stride|adapter_kernel_size|squeeze_factor)", 1, 10_000),
    (r"(num_hidden_layers|encoder_layers|n_layers?)", 1, 200),
    (r"(.*_)?layers?|num_hidden_groups|inner_group_num|.*block_(sizes|repeats)|num_blocks", -1, 200),
    (r"num_conv_pos_embeddings", 1, 1024),  # a kernel; of data2vec-audio, a number of layers
    (r"(hidden_size|hidden_dim|d_model|dim|n_embd|embedding_size|intermediate_size|conv_dim|.*ffn_dim)", 1, 2**17),
    (r"(num_attention_heads|encoder_attention_heads|n_heads?)", 1, 2**10),
    (r".*(heads?|groups)", -1, 2**10),
    (r".*(positions|position_embeddings|pos_embeddings)", -1, 2**18),
    (r".*(size|dims?|channels|bins|width|vectors_per_group)", -1, 10**7),
)
"""Which sizes of a configuration, and their least and largest values: the first that fits a key counts."""
LISTED = 100  # sizes in a list, as of the convolutions
PARAMETERS_PER_BYTE = 16
"""More parameters than this for each byte of the weights are no model's, even of one saved without its decoder."""
SPARE = 10**7  # parameters that are no danger, whatever the files

T = TypeVar("T")


def cached_first(name: str, load: Callable[[bool], T]) -> T:
    """Load from the cache on disk, and from the hub only where something is missing there.

    load: takes whether to use local files alone. A network that does not answer would otherwise be tried again and
    again for each file of a model that is here.
    """
    try:
        return load(True)
    except UserError:
        raise
    except Exception as error:  # transformers may fail in any way on missing files; the second attempt says why
        raise_memory(error)
        if Path(name).is_dir():
            raise
        return load(False)


def refuse_pointers(what: str, name: str) -> None:
    """Raise UserError for a folder in which git has left pointers in place of large files."""
    folder = Path(name)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(POINTER):
            message = "a git-lfs pointer, not the file itself; run `git lfs pull` in that folder"
            raise UserError(f"{what} {name!r}: {path.name}: {message}")


def check_config(what: str, name: str, config: Any) -> None:
    """Raise UserError for a configuration that no model can have, or that its weights do not fill."""
    for key, value in _sizes(config.to_dict()):
        for pattern, least, most in SIZES:
            if re.fullmatch(pattern, key):
                if isinstance(value, bool) or not isinstance(value, int):
                    raise UserError(f"{what} {name!r}: config.json: {key}: {value!r}: must be a whole number")
                if not least <= value <= most:
                    raise UserError(f"{what} {name!r}: config.json: {key}: {value}: must be {least} to {most:,}")
                break
    from transformers import AutoModel

    try:
        with torch.device("meta"):  # without memory for its weights
            model = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    except NotImplementedError:  # a model that must see numbers while it is built
        return
    except Exception as error:  # transformers may fail in any way on a broken configuration
        raise_memory(error)
        raise UserError(f"{what} {name!r}: config.json describes no model: {first_line(error)}") from error
    parameters, held = sum(p.numel() for p in model.parameters()), _bytes_of_weights(name)
    if held and parameters > PARAMETERS_PER_BYTE * held + SPARE:
        message = f"config.json describes {parameters:,} parameters, its weights have {held:,} bytes"
        raise UserError(f"{what} {name!r}: {message}; they are not of one model")


def _sizes(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every number of the configuration with its key, those of its parts and its lists among them."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _sizes({str(k): v for k, v in value.items()})
        elif isinstance(value, list | tuple):
            yield from ((key, one) for one in value[:LISTED] if not isinstance(one, str | list | tuple | Mapping))
            if len(value) > LISTED:
                yield key, f"a list of {len(value)}"
        elif value is not None:
            yield key, value


def _bytes_of_weights(name: str) -> int:
    """Of a folder; 0 where it has none, and for a hub name."""
    folder = Path(name)
    if not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
