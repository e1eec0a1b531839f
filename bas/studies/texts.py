"""What is said, as vectors: the mean over tokens of a text encoder's last hidden state.

Axes: U texts, B of a batch, K tokens, E width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bas.encoders.base import first_line
from bas.errors import UserError

BATCH = 32


@torch.inference_mode()
def embed_texts(name: str, texts: Sequence[str], device: torch.device) -> np.ndarray:
    """`(U, E)` float32. name: any text encoder of `transformers` with a tokenizer, by hub name or local folder.

    Each text is embedded once, however often it is said. Raises UserError when it cannot be loaded.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModel.from_pretrained(name, trust_remote_code=False).to(device).eval()
    except Exception as error:  # transformers makes a model of whatever the files say
        raise UserError(f"text encoder {name!r}: cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token is None or model.config.is_encoder_decoder:
        raise UserError(f"text encoder {name!r}: has a decoder, or no padding; name an encoder such as BERT")
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
