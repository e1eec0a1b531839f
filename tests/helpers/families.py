"""A model of every family of encoders, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from models import SMALL
from torch import nn

LAYER: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
SEW: dict[str, Any] = {**SMALL, "conv_dim": (16,) * 13}
WHISPER: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "vocab_size": 64,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
BERT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "output_hidden_size": 32,
    "conv_depthwise_kernel_size": 5,
    "num_adapter_layers": 1,
    "left_max_position_embeddings": 8,
    "right_max_position_embeddings": 4,
    "vocab_size": 64,
}
PATCHES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_mel_bins": 40,
    "max_length": 256,
}
CONFIGS: dict[str, transformers.PretrainedConfig] = {
    "wav2vec2-group": transformers.Wav2Vec2Config(**SMALL),
    "wav2vec2-layer": transformers.Wav2Vec2Config(**SMALL, **LAYER),
    "hubert-group": transformers.HubertConfig(**SMALL),
    "hubert-layer": transformers.HubertConfig(**SMALL, **LAYER),
    "hubert-batch": transformers.HubertConfig(**SMALL, conv_pos_batch_norm=True),
    "wavlm-group": transformers.WavLMConfig(**SMALL),
    "wavlm-layer": transformers.WavLMConfig(**SMALL, **LAYER),
    "unispeech-group": transformers.UniSpeechConfig(**SMALL),
    "unispeech-layer": transformers.UniSpeechConfig(**SMALL, **LAYER),
    "unispeech-sat-group": transformers.UniSpeechSatConfig(**SMALL),
    "unispeech-sat-layer": transformers.UniSpeechSatConfig(**SMALL, **LAYER),
    "data2vec-audio": transformers.Data2VecAudioConfig(**{**SMALL, "num_conv_pos_embeddings": 2}),
    "sew": transformers.SEWConfig(**SEW),
    "sew-d": transformers.SEWDConfig(**SEW),
    "whisper": transformers.WhisperConfig(**WHISPER),
    "w2v-bert": transformers.Wav2Vec2BertConfig(**BERT),
    "w2v-bert-rotary": transformers.Wav2Vec2BertConfig(**BERT, position_embeddings_type="rotary"),
    "ast": transformers.ASTConfig(**PATCHES),
}
NAMES = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop")
DROPS = (*NAMES, "mask_time_prob")
WHISPER_DROPS = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop")


def save(folder: Path, name: str, seed: int = 0) -> Path:
    """A model folder with random weights."""
    torch.manual_seed(seed)
    model = transformers.AutoModel.from_config(CONFIGS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):  # as made it would leave zeros zeros
            nn.init.normal_(module.bias)
    model.save_pretrained(folder)
    return folder


def configured(folder: Path, **config: Any) -> Path:
    """The same model, configured otherwise."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def still(folder: Path) -> Path:
    """The same model, that drops nothing in training."""
    return configured(folder, **dict.fromkeys((*DROPS, *WHISPER_DROPS), 0.0), apply_spec_augment=False)
