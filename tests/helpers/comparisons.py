"""A comparison by hand: two rows, two searches."""

from __future__ import annotations

from bas.encoders import EncoderInfo
from bas.report.results import Comparison, Ensembles, Races, Row
from bas.runs.results import Split
from bas.stats import FalseVerdicts, Interval, Paired, Spread
from bas.stats.decisions import summarise
from bas.training.settings import PRESETS

SPLIT = Split("p", "cups", "emotion", "speaker:2", 0, "speaker", "", False, (), ("a note",), "abc", "p (speaker:2)")


def row(name: str, against: Paired | None = None) -> Row:
    return Row(
        metrics={"WA": Spread(0.5, 0.1), "UA": Spread(0.4, 0.0)},
        interval=Interval(0.3, 0.7),
        row=name,
        seeds=2,
        remarks=(),
        by_seed={"WA": {"0": 0.6, "1": 0.4}, "UA": {"0": 0.4, "1": 0.4}},
        fold_mean={"WA": 0.5, "UA": 0.4},
        parameters=12.0,
        train_seconds=1.0,
        search_seconds=None,
        against_reference=against,
        against_linear=against,
    )


RACES = Races(
    searches=2,
    trainings=30.0,
    architectures=17.5,
    probability=0.4,
    regret=0.02,
    gain=0.01,
    noise=0.05,
    solved=3.0,
    diverged=2,
    alike=1,
    early=0,
)


def comparison() -> Comparison:
    searches = [{"layer1": {"a": 0.75, "b": 0.25}}] * 2
    return Comparison(
        run="r",
        corpus="cups",
        note="",
        encoder=EncoderInfo("log-mel", "1", "log-mel", 1, 80, 100.0),
        layer="mix",
        layers=(0, 1),
        protocol=SPLIT,
        settings=PRESETS["cpu"],
        device="cpu",
        folds=2,
        seeds=(0, 1),
        tested=16,
        unit="speaker",
        units=8,
        without_unit=0,
        headline="WA",
        pooled=True,
        reference="4L",
        linear="lr",
        majority={"WA": 0.25, "UA": 0.2},
        rows=(row("4L"), row("lr", Paired(0.1, 0.02, 0.2, 0.01, 0.04, 7.0, 8, False, (2, 1), 0.02))),
        ceiling=None,
        false_verdicts=FalseVerdicts(1, 20),
        verdicts=("so",),
        decisions={"four": summarise(searches, [{"layer1": "a"}, {"layer1": "b"}])},
        sequences={"four": ("a", "b")},
        mix={"4L": {"0": Spread(0.25, 0.0)}},
        races={"four": RACES},
        ensembles={"four": Ensembles(members=2.5, weights={"a": 0.6, "b": 0.4})},
    )
