"""The presets, the two schedules, and what a changed setting may be."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from typing import Any, get_args

import pytest

from bas.errors import UserError
from bas.training.settings import (
    KINDS,
    PRESETS,
    SEARCH_ONLY,
    STRATEGIES,
    Settings,
    search_settings,
    settings,
)

OPTIMISERS, SCHEDULES, NOISES, COSTS = (get_args(KINDS[n]) for n in ("optimiser", "schedule", "noise", "cost"))
NUMBERS = [f.name for f in dataclasses.fields(Settings) if "float" in str(f.type)]


def refused(preset: str, changes: dict[str, str], *parts: str) -> None:
    with pytest.raises(UserError) as caught:
        settings(preset, changes)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert [part for part in parts if part not in message] == [], message


# --- presets ---


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_named_and_survive_a_file(name: str) -> None:
    preset = settings(name)
    assert preset.preset == name
    assert Settings(**json.loads(json.dumps(preset.to_dict()))) == preset


@pytest.mark.parametrize(
    ("preset", "lr", "batch_size", "epochs"),
    [("decoding-emotions", 1e-3, 32, 20), ("word-embeddings", 1e-3, 32, 50), ("emotion-shares", 1e-4, 128, 150)],
)
def test_the_papers_of_studies_have_presets(preset: str, lr: float, batch_size: int, epochs: int) -> None:
    of = settings(preset)
    assert of.preset == preset
    assert (of.lr, of.theta_lr, of.batch_size, of.epochs) == (lr, lr, batch_size, epochs)
    assert (of.optimiser, of.weight_decay, of.schedule) == ("adamw", 0, "constant"), "Adam"
    assert (of.width, of.stride, of.normalise, of.committee, of.refit) == (None, 1, "none", 1, False)


def test_paper_is_the_papers() -> None:
    paper = settings("paper")
    assert (paper.width, paper.stride, paper.normalise) == (None, 1, "none")
    assert (paper.epochs, paper.batch_size, paper.optimiser) == (100, 32, "sgd")
    assert paper.lr == paper.theta_lr == 0.005
    assert paper.dropout == 0
    assert (paper.strategy, paper.warmup, paper.noise, paper.cost_weight) == ("gumbel", 0, "batch", 0)
    assert paper.refit, "all but the session left out trains"
    for epoch in range(100):
        for step in (0, 6):
            assert paper.temperature(epoch, step, 7) == pytest.approx(5 * math.exp(-0.045 * epoch), rel=1e-12)
            assert paper.rate(epoch, step, 7) == 1.0


# --- schedules ---


@pytest.mark.parametrize("epochs", [1, 2, 3, 20, 100, 999])
@pytest.mark.parametrize("steps", [2, 3, 7, 40])
def test_cpu_temperature_goes_all_the_way(epochs: Any, steps: Any) -> None:
    cpu = settings("cpu", {"epochs": str(epochs)})
    taus = [cpu.temperature(epoch, step, steps) for epoch in range(epochs) for step in range(steps)]
    assert taus[0] == 5.0
    assert taus[-1] == 0.1
    assert all(a > b for a, b in pairwise(taus))


def test_cpu_temperature_of_a_single_step() -> None:
    assert settings("cpu", {"epochs": "1"}).temperature(0, 0, 1) == 5.0


@pytest.mark.parametrize("epochs", [1, 2, 20, 200])
@pytest.mark.parametrize("steps", [1, 2, 11])
def test_one_cycle(epochs: Any, steps: Any) -> None:
    cpu = settings("cpu", {"epochs": str(epochs)})
    assert cpu.schedule == "one-cycle"
    rates = [cpu.rate(epoch, step, steps) for epoch in range(epochs) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if len(rates) >= 20:
        assert max(rates) > 0.95
        assert rates[-1] < 0.01
        assert peak / len(rates) == pytest.approx(0.3, abs=0.06)


# --- changes ---


def test_values_are_parsed_by_kind() -> None:
    changed = settings(
        "paper",
        {
            "epochs": "5",
            "lr": "1e-2",
            "width": "64",
            "normalise": "speaker",
            "optimiser": "adamw",
            "schedule": "one-cycle",
            "tau_rate": "none",
            "tau_end": "0.2",
        },
    )
    assert (changed.epochs, changed.lr, changed.width, changed.normalise) == (5, 0.01, 64, "speaker")
    assert (changed.optimiser, changed.schedule, changed.tau_rate, changed.tau_end) == ("adamw", "one-cycle", None, 0.2)
    assert settings("cpu", {"width": "None", "normalise": "none"}).width is None
    assert settings("cpu", {"normalise": "none"}).normalise == "none"
    assert settings("cpu", {"epochs": "5"}) == dataclasses.replace(settings("cpu"), epochs=5)
    assert settings("cpu", {}) == settings("cpu", None) == PRESETS["cpu"]


def test_unknown_names_are_told_the_known() -> None:
    refused("gpu", {}, "'gpu'", *PRESETS)
    known = [f.name for f in dataclasses.fields(Settings) if f.name != "preset"]
    refused("cpu", {"epoch": "5"}, "'epoch'", *known)
    refused("cpu", {"preset": "paper"}, "'preset'", *known)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("epochs", "many", "must be a whole number"),
        ("epochs", "2.5", "must be a whole number"),
        ("epochs", "", "must be a whole number"),
        ("epochs", "none", "must be a whole number"),
        ("width", "wide\n", "must be a whole number or none"),
        ("lr", "fast", "must be a number"),
        ("lr", "none", "must be a number"),
        ("tau_end", "cold", "must be a number or none"),
    ],
)
def test_a_value_of_the_wrong_kind(name: str, text: str, kind: Any) -> None:
    refused("cpu", {name: text}, f"{name}={text!r}", kind)


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        *[
            (name, "0", "above 0")
            for name in ("stride", "epochs", "batch_size", "lr", "theta_lr", "tau_start", "width")
        ],
        *[(name, "-1", "above 0") for name in ("stride", "epochs", "batch_size", "lr", "theta_lr", "tau_start")],
        *[(name, "1", "below 1") for name in ("dropout", "momentum", "label_smoothing")],
        *[(name, "-0.1", "below 1") for name in ("dropout", "momentum", "label_smoothing")],
        ("weight_decay", "-1e-9", "negative"),
        ("tau_end", "0", "above 0"),
        ("tau_end", "-1", "above 0"),
        ("tau_end", "none", "one of them"),
        ("tau_rate", "0.045", "one of them"),
        ("optimiser", "adam", OPTIMISERS[0]),
        ("schedule", "none", SCHEDULES[1]),
        ("warmup", "-1", "from 0 to below epochs=20"),
        ("warmup", "20", "from 0 to below epochs=20"),
        ("cost_weight", "-0.1", "negative"),
        *[("strategy", "snas", allowed) for allowed in STRATEGIES],
        *[("noise", "frame", allowed) for allowed in NOISES],
        *[("cost", "seconds", allowed) for allowed in COSTS],
        ("class_weights", "equal", "must be one of none, balanced"),
        ("normalise", "true", "'true': must be one of none, corpus, speaker"),
        ("normalise", "Speaker", "must be one of none, corpus, speaker"),
    ],
)
def test_a_value_out_of_range(name: str, text: str, part: Any) -> None:
    refused("cpu", {name: text}, name, part)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_no_setting_is_nan_or_infinite(name: str, text: str) -> None:
    for preset in PRESETS:
        refused(preset, {name: text}, name, "finite")


def test_direct_construction_is_checked_too() -> None:
    for name in NUMBERS:
        with pytest.raises(UserError, match=name):
            dataclasses.replace(PRESETS["cpu"], **{name: math.nan})  # type: ignore[arg-type]


def test_a_run_of_an_older_bas_is_refused_by_its_setting() -> None:
    """It had true or false."""
    for value in (True, False):
        with pytest.raises(UserError, match=r"normalise=.*must be one of none, corpus, speaker"):
            Settings(**{**PRESETS["cpu"].to_dict(), "normalise": value})


# --- a search's own ---


def test_a_strategy_changes_the_settings_that_it_names() -> None:
    cpu = settings("cpu", {"strategy": "gumbel", "tau_start": "3"})
    assert search_settings(cpu, "") == cpu
    assert search_settings(cpu, "gumbel") == cpu
    for name in STRATEGIES:
        assert search_settings(cpu, name) == dataclasses.replace(cpu, strategy=name)
    changed = search_settings(cpu, "bilevel+warmup=5+theta_lr=0.05+tau_rate=0.045+tau_end=none")
    expected = {"strategy": "bilevel", "warmup": 5, "theta_lr": 0.05, "tau_rate": 0.045, "tau_end": None}
    assert changed == dataclasses.replace(cpu, **expected)  # type: ignore[arg-type]
    assert set(SEARCH_ONLY) < {f.name for f in dataclasses.fields(Settings)}


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("snas", STRATEGIES),
        ("warmup=5", STRATEGIES),
        ("gumbel+lr=0.1", SEARCH_ONLY),
        ("gumbel+epochs=5", SEARCH_ONLY),
        ("gumbel+preset=paper", SEARCH_ONLY),
        ("gumbel+", ("'' must be NAME=VALUE",)),
        ("gumbel+warmup", ("'warmup' must be NAME=VALUE",)),
        ("single-path+noise=utterance", ("noise='utterance'", "one path")),
        ("gumbel+warmup=99", ("warmup=99", "below epochs=20")),
        ("gumbel+noise=frame", NOISES),
        ("gumbel+warmup=1+warmup=2", ("twice",)),
        ("gumbel+strategy=darts", ("twice",)),
    ],
)
def test_a_strategy_that_cannot_be(spec: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        search_settings(settings("cpu"), spec)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert [part for part in (repr(spec), *parts) if part not in message] == [], message
