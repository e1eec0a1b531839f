"""Embeddings of texts: the mean over tokens of a text encoder's last hidden state.

Axes: U texts, B texts of a batch, K tokens, E width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bas.encoders.opening import cached_first, check_config, refuse_pointers
from bas.errors import UserError, first_line
from bas.util.faults import raise_memory
from bas.util.reading import check_folder

BATCH = 32


def load_text_encoder(name: str, device: torch.device, *, words: bool = False) -> tuple[Any, Any]:
    """The tokenizer and the frozen model of a text encoder of `transformers`, by hub name or local folder.

    words: the tokenizer will be given sentences that are already split into words. A byte-level one (RoBERTa's) then
    needs a space before each word, else it reads the sentence as one word.
    Raises UserError when it cannot be loaded, is no encoder, or lacks weights (`transformers` would draw them).
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # missing weights are refused below, in one line
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    given = {"add_prefix_space": True} if words else {}
    what = "text encoder"

    def load(local: bool) -> Any:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, local_files_only=local)
        check_config(what, name, config)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, local_files_only=local, **given)
        return tokenizer, AutoModel.from_pretrained(
            name, trust_remote_code=False, local_files_only=local, output_loading_info=True
        )

    check_folder(Path(name))
    refuse_pointers(what, name)
    try:
        tokenizer, (model, report) = cached_first(name, load)
    except UserError:
        raise
    except Exception as error:  # transformers may fail in any way on broken files
        raise_memory(error)
        raise UserError(f"text encoder {name!r}: cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token is None or model.config.is_encoder_decoder or model.main_input_name != "input_ids":
        raise UserError(f"text encoder {name!r}: has a decoder, or no padding; name an encoder such as BERT")
    missing = sorted(k for k in report["missing_keys"] if not k.startswith("pooler."))  # the pooler is not used
    if missing:
        raise UserError(
            f"text encoder {name!r}: {len(missing)} weights are missing from its files, {missing[0]} the first"
        )
    return tokenizer, model.to(device).eval().requires_grad_(False)


@torch.inference_mode()
def embed_texts(name: str, texts: Sequence[str], device: torch.device) -> np.ndarray:
    """`(U, E)` float32. name: any text encoder of `transformers` with a tokenizer, by hub name or local folder.

    Equal texts are embedded once. Raises UserError when the encoder cannot be loaded.
    """
    tokenizer, model = load_text_encoder(name, device)
    rows: dict[str, np.ndarray] = {}
    unique = sorted(set(texts), key=len)
    for start in range(0, len(unique), BATCH):
        some = unique[start : start + BATCH]
        given = tokenizer(some, return_tensors="pt", padding=True, truncation=True).to(device)
        states_BKE = model(**given).last_hidden_state.float()
        mask_BK1 = given["attention_mask"][..., None]
        means_BE = (states_BKE * mask_BK1).sum(1) / mask_BK1.sum(1)
        rows |= dict(zip(some, means_BE.cpu().numpy(), strict=True))
    return np.stack([rows[text] for text in texts])
