"""The languages an encoder was pretrained on, by its name."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

PRETRAINED: Mapping[str, str] = {
    "wav2vec2-xls-r-*": "128 languages",
    "wav2vec2-large-xlsr-53": "53 languages",
    "mhubert-147": "147 languages",
    "whisper-*[.-]en": "English",
    "whisper-*": "99 languages",
    "wav2vec2-base": "English",
    "wav2vec2-base-960h": "English",
    "wav2vec2-large": "English",
    "wav2vec2-large-lv60": "English",
    "hubert-*-ls960*": "English",
    "hubert-*-ll60k*": "English",
    "wavlm-*": "English",
    "unispeech-sat-*": "English",
    "data2vec-audio-*": "English",
    "bas-hubert-nano": "English, synthetic speech of 50 languages",
    "log-mel": "nothing",
}
"""Languages by a pattern of checkpoint names; the first pattern that matches counts."""


def pretraining(encoder: str) -> str:
    """The languages an encoder was pretrained on; "unknown" for a name that no pattern matches."""
    name = encoder.rstrip("/").rpartition("/")[2].lower()
    return next((languages for pattern, languages in PRETRAINED.items() if fnmatchcase(name, pattern)), "unknown")
