"""A part of a corpus by its fields: what is selected, refused, extracted, and trained on."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sounds import tone

from bas.cli.main import main
from bas.corpora import Corpus, Utterance
from bas.corpora.selection import select
from bas.errors import UserError
from bas.features.store import FeatureStore, StoreInfo

RUN = "--layer=0 --space=ser_bas3 --seeds=1 --workers=1 --protocol=speaker:2"
EPOCH = "--set epochs=1"
SMALL = " ".join(f"--set={one}" for one in ("epochs=1", "width=8", "strategy=random", "committee=1"))


def corpus() -> Corpus:
    rows = [
        Utterance(f"u{n}", Path(f"u{n}.wav"), "ab"[n % 2], f"s{n // 2}", language=("en", "zh")[n // 4], session=None)
        for n in range(8)
    ]
    return Corpus(
        "cups", tuple(replace(u, others=(("room", "12"),)) if u.id == "u0" else u for u in rows), "own", "speaker"
    )


def ids(of: Corpus) -> list[str]:
    return [u.id for u in of.utterances]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ((), "01234567"),
        (("language=en",), "0123"),
        (("language=en|zh",), "01234567"),
        (("language=en", "label=b"), "13"),
        (("speaker=s0|s3", "label=a"), "06"),
        (("room=12",), "0"),
    ],
)
def test_what_has_the_values_is_selected(where: tuple[str, ...], expected: str) -> None:
    assert ids(select(corpus(), where)) == [f"u{n}" for n in expected]


def test_the_parts_of_a_field_are_the_corpus_and_the_note_counts() -> None:
    parts = [select(corpus(), (f"language={one}",)) for one in ("en", "zh")]
    assert sorted(ids(parts[0]) + ids(parts[1])) == ids(corpus())
    assert parts[0].note == "selected by language=en: 4 of 8 utterances"
    assert (parts[0].protocol, parts[0].unit) == (corpus().protocol, corpus().unit)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("language",), "--where language: must be FIELD=VALUE"),
        (("language=",), "--where language=: must be FIELD=VALUE"),
        (("tongue=en",), "no such field of corpus cups; it has id, label, speaker, .*, room"),
        (("language=fr",), "no utterance of corpus cups has the language fr; it has en, zh"),
        (("session=1",), "has the session 1; none has any"),
        (("language=en", "language=zh"), "language is given twice"),
        (("language=en", "speaker=s3"), "no utterance of corpus cups has all of these together"),
    ],
)
def test_what_cannot_be_selected_is_refused(where: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        select(corpus(), where)


@pytest.fixture(scope="module")
def cups(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight speakers, every other one of either language."""
    root = tmp_path_factory.mktemp("cups")
    with (root / "cups.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["id", "audio", "label", "speaker", "language"])
        for s in range(8):
            for n, label in enumerate("abab"):
                tone(root / f"s{s}n{n}.wav", 0.3, hertz=200 + 80 * n + 9 * s)
                writer.writerow([f"s{s}n{n}", f"s{s}n{n}.wav", label, f"s{s}", ("en", "zh")[s % 2]])
    return root


def do(line: str) -> None:
    assert main(line.split()) == 0, line


def test_extracting_a_part_and_studying_a_part_of_the_whole_are_the_same(
    cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cups)
    table = "--corpus manifest --root cups.csv --encoder log-mel"
    do(f"extract {table} --features whole")
    do(f"extract {table} --features half --where language=en")
    assert "skipped" not in capsys.readouterr().out, "what was not asked for is no fault"
    info = StoreInfo.read(Path("half"))
    assert info.num_utterances == 16
    assert set(info.skipped.values()) == {"not selected: --where language=en"}
    do("features verify half")
    do(f"retrain --features whole --name of-whole --where language=en {RUN} {SMALL}")
    do(f"retrain --features half --name of-half --where language=en {RUN} {SMALL}")
    do(f"retrain --features half --name without {RUN} {SMALL}")
    runs = [Path("runs") / name for name in ("of-whole", "of-half", "without")]
    folds = [json.loads((run / "protocol.json").read_text())["folds"] for run in runs]
    assert folds[0] == folds[1] == folds[2]
    assert {id_ for fold in folds[0] for part in fold.values() for id_ in part} == set(FeatureStore("half").ids)
    tests = [json.loads(next((run / "jobs").glob("retrain-*.json")).read_text())["test"] for run in runs]
    assert tests[0] == tests[1] == tests[2]
    assert tomllib.loads((runs[0] / "experiment.toml").read_text())["corpus"]["where"] == ["language=en"]
    do("retrain runs/of-whole/experiment.toml")
    assert main(f"retrain --features whole --name of-whole --where language=zh {RUN} {SMALL}".split()) == 2


def test_the_other_part_completes_a_store(cups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cups)
    table = "--corpus manifest --root cups.csv --encoder log-mel --features grown"
    do(f"extract {table} --where language=en")
    do(f"extract {table} --where language=zh")
    info = StoreInfo.read(Path("grown"))
    assert (info.num_utterances, dict(info.skipped)) == (32, {})
    do("features verify grown")


def test_other_verbs_take_the_same_part(
    cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cups)
    table = "--corpus manifest --root cups.csv --where language=zh speaker=s1|s3|s5"
    do(f"protocol make {table} --protocol speaker:2 --to split.json")
    folds = json.loads(Path("split.json").read_text())["folds"]
    assert {id_ for fold in folds for part in fold.values() for id_ in part} == {
        f"s{s}n{n}" for s in (1, 3, 5) for n in range(4)
    }
    capsys.readouterr()
    do(f"corpus show {table}")
    assert "12 of 32 utterances" in capsys.readouterr().out


@pytest.fixture(scope="module")
def esd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ESD's layout: two Mandarin and two English speakers, five emotions, two utterances of each."""
    root = tmp_path_factory.mktemp("esd")
    for speaker in (1, 2, 11, 12):
        for block, emotion in enumerate(("Neutral", "Angry", "Happy", "Sad", "Surprise")):
            for sentence in (1, 51):
                name = f"{speaker:04}_{350 * block + sentence:06}"
                tone(
                    root / f"esd/{speaker:04}/{emotion}/{name}.wav",
                    0.3,
                    hertz=150 + 60 * block + 7 * speaker + sentence,
                )
    return root


ESD = "extract --corpus esd --root esd --encoder log-mel"


def test_the_halves_of_esd_are_all_of_it(esd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(esd)
    do(f"{ESD} --features whole")
    for language in ("en", "zh"):
        Path("half.toml").write_text(f'[corpus]\nreader = "esd"\nroot = "esd"\nwhere = "language={language}"\n')
        do(f"extract half.toml --encoder log-mel --features {language}")
    whole, english, mandarin = (set(FeatureStore(name).ids) for name in ("whole", "en", "zh"))
    assert {id_[:4] for id_ in english} == {"0011", "0012"}
    assert (english | mandarin, english & mandarin) == (whole, set())
    do(f"probe --features whole --name p --where language=en label=angry|happy --protocol speaker:2 --seeds 1 {EPOCH}")
    folds = json.loads(Path("runs/p/whole/disjoint/protocol.json").read_text())["folds"]
    probed = {id_ for fold in folds for part in fold.values() for id_ in part}
    assert probed == {f"{s:04}_{350 * b + n:06}" for s in (11, 12) for b in (1, 2) for n in (1, 51)}


def test_a_store_of_the_other_part_is_refused(
    esd: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(esd)
    do(f"{ESD} --features english --where language=en")
    capsys.readouterr()
    assert main(f"retrain --features english --name none --where language=zh {RUN} {SMALL}".split()) == 2
    said = "the feature store has none of these 20 utterances; extract them, or select others"
    assert capsys.readouterr().err.strip() == f"bas: --where language=zh: {said}"


NANO = "extract --corpus esd --root esd --encoder bas-hubert-nano"


def test_a_layer_is_added_to_all_that_is_stored(esd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(esd)
    do(f"{NANO} --features nano --layers 0 --where language=zh")
    do(f"{NANO} --features nano --layers 1 --where speaker=0011")
    store = FeatureStore("nano")
    assert {id_[:4] for id_ in store.ids} == {"0001", "0002", "0011"}
    assert {len(store.read(id_, layer)) > 0 for id_ in store.ids for layer in (0, 1)} == {True}
    assert {id_[:4] for id_ in store.info.skipped} == {"0012"}
    do("features verify nano")


def test_a_stopped_part_is_completed_with_another(esd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(esd)
    do(f"{ESD} --features stopped --where language=en --part 1/2")
    do(f"{ESD} --features stopped --where speaker=0001")
    assert {id_[:4] for id_ in FeatureStore("stopped").ids} == {"0001", "0011", "0012"}


def test_a_recording_that_is_stored_and_not_selected_may_not_change(
    cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cups)
    table = "--corpus manifest --root cups.csv --encoder log-mel --features changed"
    do(f"extract {table} --where speaker=s0")
    before = Path("s0n0.wav").read_bytes()
    tone(Path("s0n0.wav"), 0.3, hertz=999)
    capsys.readouterr()
    assert main(f"extract {table} --where speaker=s1".split()) == 2
    Path("s0n0.wav").write_bytes(before)
    assert "s0n0 was extracted from another recording" in capsys.readouterr().err


def test_arrays_of_what_is_not_selected_are_of_the_corpus(
    cups: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(cups)
    Path("arrays").mkdir()
    for s in range(8):
        for n in range(4):
            np.save(f"arrays/s{s}n{n}.npy", np.full((2, 30, 3), s + n, np.float32))
    table = "--corpus manifest --root cups.csv --encoder mine --source arrays --frame-rate 100"
    capsys.readouterr()
    do(f"features import {table} --features mine --where language=en")
    assert "no utterance" not in capsys.readouterr().out
    assert len(FeatureStore("mine").ids) == 16
