"""Every number of a fine-tuning, in one place, see `bas.studies.dynamics`. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, get_type_hints

from bas.errors import UserError
from bas.training.settings import parse_settings


@dataclass(frozen=True)
class Tuning:
    """The numbers of a fine-tuning; the defaults are the paper's.

    batch: the paper says 16; but its 350 steps are 9.6 epochs of 4,662 utterances, and its 50 steps 1.4, so we infer
    that a step took 8 batches of 16 together. micro_batch: without dropout, layer drop or SpecAugment it changes
    numbers only by rounding; with them, each micro-batch has its own draws, so another size gives another sample.
    improvement, patience: training stops once the validation loss has not been lower than the lowest before by
    `improvement` for `patience` evaluations.
    """

    lr: float = 1e-5  # of AdamW, constant
    weight_decay: float = 0.01  # ours
    epochs: int = 50  # at most
    batch: int = 128  # utterances of a step
    micro_batch: int = 16  # utterances that go through the encoder together: memory and time
    evaluate_every: int = 10  # steps
    checkpoint_every: int = 50  # steps
    improvement: float = 0.025  # of the validation loss, to count as one
    patience: int = 5  # evaluations

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (math.isfinite(value) and (value > 0 or (value == 0 and name in ("weight_decay", "improvement")))):
                raise UserError(f"setting {name}={value}: must be a number above 0")
        if self.checkpoint_every % self.evaluate_every:
            message = f"must be a multiple of evaluate_every={self.evaluate_every}"
            raise UserError(f"setting checkpoint_every={self.checkpoint_every}: {message}")


PRESETS = {
    "paper": Tuning(),
    "cpu": Tuning(lr=1e-4, epochs=4, batch=32, evaluate_every=5, checkpoint_every=10),
}
"""`cpu` is for two cores and a corpus of hundreds of utterances. Its rate is the better of two tried (5e-5, 1e-4), by
the validation loss of Whisper tiny.en in steps 35 to 45 of two folds of EmoDB (speaker:5, seed 0); batch and epochs are
what half an hour allows. Those speakers are in the third part of other folds, so a figure on EmoDB under this preset is
not free of that choice. Weights that were not pretrained want a higher rate.
"""


KINDS: Mapping[str, Any] = get_type_hints(Tuning)
"""The kind of each setting's value, see `bas.util.values`."""


def settings(preset: str, changes: Mapping[str, str]) -> Tuning:
    """A preset with some of its numbers changed, each given as text.

    Raises UserError for another preset or name, and a value of the wrong kind or out of range.
    """
    if preset not in PRESETS:
        raise UserError(f"preset {preset!r}: must be one of {', '.join(PRESETS)}")
    return replace(PRESETS[preset], **parse_settings(KINDS, changes))
