"""A part of a corpus by its fields: what is selected, refused, extracted, and trained on."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from sounds import tone

from bas.cli.main import main
from bas.corpora import Corpus, Utterance
from bas.corpora.selection import select
from bas.errors import UserError
from bas.features.store import FeatureStore, StoreInfo

RUN = "--layer=0 --space=ser_bas3 --seeds=1 --workers=1 --protocol=speaker:2"
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
