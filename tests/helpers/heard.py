"""Short tones that listeners have heard: a corpus of shares, extracted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile

from bas.cli.main import main

FEATURES = "runs/features/heard-log-mel"
SHARES = """
from bas.blocks import FFN, LSTM, MeanPool, Skip, StatisticsPool
from bas.space import SearchSpace
from bas.tasks import Shares

layer = {"none": Skip, "FFN": FFN, "LSTM": LSTM}
space = SearchSpace({"layer1": layer, "layer2": layer}, {"mean": MeanPool, "statistics": StatisticsPool})
task = Shares()
baselines = {"one each": SearchSpace({"layer1": {"FFN": FFN}}, MeanPool, each_output=True)}
"""
"""A space file that predicts shares, with a baseline of a network for each."""


def heard(utterances: int, speakers: int, labelled: bool = False) -> None:
    """Tones in the working folder, and their features. The higher, the more of twenty listeners heard one as bright.

    None was heard as sad. labelled: with a label too, bright or dull.
    """
    rng = np.random.default_rng(0)
    lines = []
    for index in range(utterances):
        bright = float(rng.random())
        time_N = np.arange(int(16_000 * rng.uniform(0.25, 0.4))) / 16_000
        wave_N = 0.3 * np.sin(2 * np.pi * (200 + 1500 * bright) * time_N) + 0.02 * rng.standard_normal(len(time_N))
        soundfile.write(f"u{index:02}.wav", wave_N, 16_000)
        shares = {"bright": float(rng.binomial(20, bright) / 20), "sad": 0.0}
        row = {"id": f"u{index:02}", "audio": f"u{index:02}.wav", "speaker": f"s{index % speakers}", "shares": shares}
        label = {"label": "bright" if bright > 0.5 else "dull"} if labelled else {}
        lines.append(json.dumps(row | {"raters": 20} | label))
    Path("heard.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert main(["extract", "--corpus", "manifest", "--root", "heard.jsonl", "--encoder", "log-mel"]) == 0
