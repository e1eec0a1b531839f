"""An experiment from files, mappings and texts: what stands over what, and what is refused."""

# mypy: disable-error-code="call-arg"

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from bas.errors import UserError
from bas.experiment import (
    KEYS,
    Experiment,
    Text,
    change,
    keys_of,
    load_experiment,
    read_experiment,
    read_texts,
    require,
    settings_of,
    tuning_of,
    write_experiment,
)
from bas.experiment.keys import OWN, RACED, READ_SETTINGS, TRAINED, settings_table, spaces_of
from bas.training import settings, tuning
from bas.util.device import DEVICES

EMODB = """
spaces = ["ser_bas3", "ser_bas4"]
layer = "best"
seeds = 3

[corpus]
reader = "emodb"
root = "~/emodb"

[encoder]
name = "microsoft/wavlm-large"

[settings]
epochs = 30
width = "none"

[dynamics.settings]
lr = 1e-3
"""


@pytest.fixture
def emodb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.chdir(tmp_path)
    Path("emodb.toml").write_text(EMODB, encoding="utf-8")
    return load_experiment("emodb.toml")


def refusal(text: str) -> str:
    Path("bad.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_experiment("bad.toml")
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def texts(*given: str) -> list[Text]:
    return [Text(*text.split("=", 1), f"--set {text}") for text in given]


# --- what is declared ---


def test_every_word_of_a_choice_is_known_where_it_is_used() -> None:
    assert get_args(KEYS["preset"].kind) == tuple(settings.PRESETS) == tuple(settings.LAYERS)
    assert set(tuning.PRESETS) < set(settings.PRESETS)
    assert get_args(KEYS["device"].kind) == DEVICES


def test_every_setting_is_a_key_and_has_no_other_keys_name() -> None:
    for table, names in (("settings", settings.KINDS), ("dynamics.settings", tuning.KINDS)):
        assert [key for key in KEYS if key.startswith(f"{table}.")] == [f"{table}.{name}" for name in names]
        assert not set(names) & set(KEYS)


@pytest.mark.parametrize("verb", ["extract", *TRAINED, "dynamics", "corpus", "protocol", "check"])
def test_no_flag_stands_twice(verb: str) -> None:
    flags = [key.flag for key in keys_of(verb).values() if key.flag]
    assert len(set(flags)) == len(flags) > 1


# --- files ---


def test_a_file(emodb: Experiment) -> None:
    assert emodb.spaces == ("ser_bas3", "ser_bas4")
    assert (emodb.layer, emodb.seeds, emodb.preset) == (("best",), 3, "cpu")
    assert (emodb.corpus.reader, emodb.encoder.name) == ("emodb", "microsoft/wavlm-large")
    assert emodb.settings == {"epochs": 30, "width": None}
    expected = dataclasses.replace(settings.PRESETS["cpu"], epochs=30, width=None)
    assert settings_of(emodb, "tune") == expected
    assert settings_of(emodb, "compare") == dataclasses.replace(expected, **RACED)
    assert tuning_of(emodb) == dataclasses.replace(tuning.PRESETS["cpu"], lr=1e-3)
    assert read_experiment(tomllib.loads(EMODB)) == read_experiment(emodb) == emodb


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "seed = 1",
            "bad.toml: seed: no such key, the nearest is seeds; allowed: features, spaces, layer, preset, seeds",
        ),
        (
            "[protocol]\nrul = 'own'",
            "bad.toml: protocol.rul: no such key, the nearest is rule; allowed: rule, seed, allow",
        ),
        (
            "[settings]\nepoch = 1",
            "bad.toml: settings.epoch: no such key, the nearest is epochs; allowed: width, stride",
        ),
        ("[corpora]\nroot = 'x'", "bad.toml: corpora: no such key, the nearest is corpus; allowed: features"),
        ("seeds = '3'", "bad.toml: seeds = '3': must be a whole number"),
        ("seeds = 0", "bad.toml: seeds = 0: must be 1 or more"),
        ("spaces = [1]", "bad.toml: spaces = [1]: must be a list, each a text"),
        ("corpus = 'emodb'", "bad.toml: corpus = 'emodb': is a table, [corpus]"),
        ("[settings]\nlr = 'x'", "bad.toml: settings.lr = 'x': must be a number"),
        ("[settings]\nstrategy = 'x'", "bad.toml: settings.strategy = 'x': must be one of race, gumbel, bilevel, hard"),
        ("[probe]\npercents = [100]", "bad.toml: probe.percents = [100]: must be above 0 and below 100"),
        ("seeds = ", "bad.toml: not readable as TOML (Invalid value (at end of document))"),
    ],
)
def test_what_is_no_key_or_no_value_is_refused(emodb: Experiment, text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_a_file_that_is_none(emodb: Experiment) -> None:
    for path, message in {"no.toml": "no.toml: no such file", ".": ".: a folder, not a file; save"}.items():
        with pytest.raises(UserError, match=message):
            load_experiment(path)


# --- what stands over what ---


def test_preset_below_file_below_command_line(emodb: Experiment) -> None:
    paper = read_texts(emodb, "compare", texts("preset=paper", "lr=0.1", "lr=0.2", "settings.stride=4"))
    expected = dataclasses.replace(settings.PRESETS["paper"], epochs=30, width=None, lr=0.2, stride=4)
    assert settings_of(paper, "compare") == expected
    assert change(emodb, "compare", {"preset": "paper", "settings": {"lr": 0.2, "stride": 4}}) == paper


def test_a_bare_setting_is_of_the_verbs_own_table(emodb: Experiment) -> None:
    assert read_texts(emodb, "compare", texts("epochs=7")).settings["epochs"] == 7
    tuned = read_texts(emodb, "dynamics", texts("epochs=7"))
    assert (tuned.dynamics.settings["epochs"], tuned.settings["epochs"]) == (7, 30)


def test_a_verb_passes_over_what_it_does_not_read_in_a_file(emodb: Experiment) -> None:
    assert settings_of(emodb, "probe").width == settings.PRESETS["cpu"].width
    assert settings_of(emodb, "probe").epochs == 30


def test_the_words_study_has_a_stride_of_its_own_under_cpu(emodb: Experiment) -> None:
    assert settings_of(emodb, "words").stride == 4
    assert settings_of(change(emodb, "words", {"preset": "paper"}), "words").stride == 1
    assert settings_of(change(emodb, "words", {"settings": {"stride": 8}}), "words").stride == 8


@pytest.mark.parametrize("verb", ["search", "retrain", "compare"])
def test_a_comparison_races_a_wide_space_under_cpu_and_is_the_papers_under_paper(emodb: Experiment, verb: str) -> None:
    assert {name: getattr(settings_of(emodb, verb), name) for name in RACED} == RACED
    alone = change(emodb, verb, {"settings": {"strategy": "single-path", "committee": 1}})
    assert (settings_of(alone, verb).strategy, settings_of(alone, verb).committee) == ("single-path", 1)
    paper = change(emodb, verb, {"preset": "paper"})
    assert settings_of(paper, verb).strategy == "gumbel"
    assert (spaces_of(verb, "cpu"), spaces_of(verb, "paper")) == (("ser_wide",), ("ser_bas3", "ser_bas4"))
    assert spaces_of("audit", "cpu") == spaces_of("audit", "paper") == ("ser_bas3",)
    assert set(OWN) == {("words", "cpu"), *((verb, "cpu") for verb in ("search", "retrain", "compare"))}


@pytest.mark.parametrize(
    ("verb", "text", "message"),
    [
        ("compare", "tune.trials=3", "--set tune.trials=3: compare does not read it; compare reads features, spaces"),
        ("probe", "layer=3", "--set layer=3: probe does not read it; probe reads features"),
        ("probe", "settings.width=3", "--set settings.width=3: probe does not read it; probe reads"),
        ("probe", "width=3", "--set width=3: probe does not read it; probe reads"),
        ("compare", "epoch=3", "--set epoch=3: no such key, the nearest is epochs; compare reads"),
        ("tune", "trials=3", "--set trials=3: no such key, the nearest is tune.trials; tune reads"),
        ("compare", "epochs=x", "--set epochs=x: must be a whole number"),
        ("extract", "preset=paper", "--set preset=paper: extract does not read it; extract reads features, device"),
    ],
)
def test_what_a_verb_does_not_read_is_refused_on_its_command_line(
    emodb: Experiment, verb: str, text: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_texts(emodb, verb, texts(text))
    assert str(caught.value).startswith(message)


def test_a_change_that_a_verb_does_not_read(emodb: Experiment) -> None:
    with pytest.raises(UserError, match=r"^probe: layer: probe does not read it; probe reads features"):
        change(emodb, "probe", {"layer": "best"})
    with pytest.raises(UserError, match=r"^compare: seeds = '3': must be a whole number"):
        change(emodb, "compare", {"seeds": "3"})


def test_values_that_do_not_go_together(emodb: Experiment) -> None:
    with pytest.raises(UserError, match=r"setting warmup=30: must be from 0 to below epochs=30"):
        settings_of(read_texts(emodb, "compare", texts("warmup=30")), "compare")


def test_what_is_needed_is_named_with_its_flag(emodb: Experiment) -> None:
    require(emodb, "extract", "corpus.reader", "encoder.name")
    with pytest.raises(
        UserError, match=r"^words: needs words.text_encoder \(--text-encoder\); in the experiment's file"
    ):
        require(emodb, "words", "words.text_encoder")


# --- the file that repeats a run ---


@pytest.mark.parametrize("verb", [*TRAINED, "dynamics"])
def test_what_is_written_is_read_again(emodb: Experiment, verb: str) -> None:
    write_experiment(Path("runs/x"), verb, emodb)
    again = load_experiment("runs/x/experiment.toml")
    read = [name for name in keys_of(verb) if not name.startswith(settings_table(verb))]
    value_of: dict[str, Any] = {}
    for name in read:
        one, other = emodb, again
        for part in name.split("."):
            one, other = getattr(one, part), getattr(other, part)
        assert one == other, name
        value_of[name] = one
    assert value_of["seeds" if verb != "dynamics" else "dynamics.seed"] in (3, 0)
    if verb == "dynamics":
        assert tuning_of(again) == tuning_of(emodb)
    else:
        assert settings_of(again, verb) == settings_of(emodb, verb)
        assert set(again.settings) == set(emodb.settings) & set(READ_SETTINGS[verb])
