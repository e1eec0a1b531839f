"""Corpora written as tables come back as they were; and the verbs of `bas corpus`."""

from __future__ import annotations

import csv
import tempfile
import tomllib
import unicodedata
from dataclasses import fields as fields_of
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from refusals import refusal
from sounds import tone
from tables import rich

from bas.cli.main import main
from bas.corpora import Corpus, Utterance, Word, audformat, export, open_corpus
from bas.corpora.values import is_missing
from bas.studies.audit.trained import write_frame

# --- out and in again ---


def into(kind: str, corpus: Corpus, folder: Path) -> Corpus:
    if kind == "audformat":
        audformat.write(corpus, folder / "database")
        return open_corpus("audformat", folder / "database")
    export.write(corpus, folder / f"rich.{kind}")
    return open_corpus("manifest", folder / f"rich.{kind}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "audformat"])
def test_a_rich_corpus_comes_back_as_it_was(tmp_path: Path, kind: Any) -> None:
    corpus = rich(tmp_path)
    if kind == "csv":  # each of whose rows is one line
        one_line = [replace(u, text=u.text and " ".join(u.text.splitlines())) for u in corpus.utterances]
        corpus = replace(corpus, utterances=tuple(one_line))
    back = into(kind, corpus, tmp_path)
    assert back.utterances == corpus.utterances
    assert (back.name, back.protocol, back.unit, back.note) == ("rich", "speaker:5", "session", "")
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
drawn_texts = st.text(letters, min_size=1, max_size=6).map(partial(unicodedata.normalize, "NFC"))  # as readers give
keys = drawn_texts.map(lambda text: text.strip() or "x").filter(lambda text: not is_missing(text))
texts = drawn_texts.filter(lambda text: not is_missing(text, spoken=True))
nanoseconds = st.integers(0, 10**13)


@st.composite
def utterances(draw: st.DrawFn) -> dict[str, object]:
    start, length = draw(nanoseconds), draw(st.none() | st.integers(1, 10**13))
    return {
        **{name: draw(st.none() | keys) for name in ("speaker", "session", "script")},
        "label": draw(st.none() | keys.map(lambda key: " ".join(key.splitlines()).strip() or "x")),
        "split": draw(st.sampled_from([None, "train", "valid", "test"])),
        "sex": draw(st.sampled_from([None, "female", "male"])),
        "language": draw(st.sampled_from([None, "de", "en", "Swiss German"])),
        "text": draw(st.none() | texts),
        "shares": tuple(draw(st.dictionaries(keys, st.floats(0, 1), max_size=3)).items()),
        "words": tuple(draw(st.lists(st.builds(Word, st.floats(0, 9), st.floats(10, 99), texts), max_size=2))),
        "start": start / 1e9,
        "end": None if length is None else (start + length) / 1e9,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl", "audformat"])
@settings(max_examples=40, deadline=None)
@given(st.dictionaries(keys, utterances(), min_size=1, max_size=5), st.booleans())
def test_any_corpus_comes_back_as_it_was(kind: Any, drawn: Any, whole: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = []
        for i, (id_, fields) in enumerate(drawn.items()):
            (folder / f"{i}.wav").touch()
            fields = fields | {"start": 0.0, "end": None} if whole else fields
            made.append(Utterance(id_, folder / f"{i}.wav", **fields))
        corpus = Corpus("any", tuple(made), protocol="own", unit="speaker")
        values = [getattr(u, f.name) for u in made for f in fields_of(Utterance)]
        if kind == "csv" and any(isinstance(v, str) and set(v) & set("\r\n") for v in values):
            assert "has several lines, a row of a .csv has one; write a .jsonl" in refusal(into, kind, corpus, folder)
            return
        assert into(kind, corpus, folder).utterances == corpus.utterances


def test_an_export_names_what_lies_beneath_it_relative_and_the_rest_absolute(tmp_path: Path) -> None:
    corpus = rich(tmp_path)
    export.write(corpus, tmp_path / "in/out.jsonl")
    text = (tmp_path / "in/out.jsonl").read_text(encoding="utf-8")
    assert '"audio": "a b.wav"' in text
    assert f'"audio": "{tmp_path}/beside.wav"' in text
    turned = replace(corpus, utterances=(replace(corpus.utterances[0], audio=tmp_path / "in/../beside.wav"),))
    export.write(turned, tmp_path / "in/out.jsonl")
    assert open_corpus("manifest", tmp_path / "in/out.jsonl").utterances[0].audio.samefile(tmp_path / "beside.wav")


def test_an_export_has_only_columns_with_a_value(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    corpus = Corpus("c", (Utterance("a", tmp_path / "a.wav", label="joy"),), protocol="own", unit="speaker")
    export.write(corpus, tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_text() == "id,audio,label\na,a.wav,joy\n"


FORMULAS = ("=HYPERLINK(1)", "+1", "-1+2", "@SUM(A1)", "\t=1", "\uff1d1")


@pytest.mark.parametrize("text", ["two\nlines", "two\r\nlines", "two\rlines", "end\n"])
@pytest.mark.parametrize("field", ["text", "speaker"])
def test_a_csv_of_which_a_value_has_several_lines_is_not_written(text: str, field: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    fields: dict[str, Any] = {field: text}
    corpus = Corpus("c", (Utterance("a", tmp_path / "a.wav", **fields),), protocol="speaker:5", unit="session")
    message = f"{tmp_path / 'm.csv'}: {field} of 'a' has several lines, a row of a .csv has one; write a .jsonl"
    assert refusal(export.write, corpus, tmp_path / "m.csv") == message
    assert not (tmp_path / "m.csv").exists()
    export.write(corpus, tmp_path / "m.jsonl")


@pytest.mark.parametrize("formula", FORMULAS)
def test_an_export_keeps_what_looks_like_a_formula_and_says_so(formula: str, tmp_path: Path) -> None:
    """An apostrophe before it would be another label when it is read again."""
    (tmp_path / "a.wav").touch()
    utterance = Utterance("a", tmp_path / "a.wav", text=formula, start=0.5, end=1.0)
    corpus = Corpus("c", (utterance, replace(utterance, id="b", text="a=1")), protocol="speaker:5", unit="session")
    (remark,) = export.write(corpus, tmp_path / "m.csv")
    assert remark.startswith(f"1 cells begin as a spreadsheet's formula does, {formula!r} the first; open it with")
    assert open_corpus("manifest", tmp_path / "m.csv").utterances == corpus.utterances
    assert export.write(corpus, tmp_path / "m.jsonl") == ()
    assert export.write(replace(corpus, utterances=corpus.utterances[1:]), tmp_path / "m.csv") == ()


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "m.jsonl").write_text('{"id": "a", "audio": "a.wav", "label": "=1+1", "speaker": "@x"}\n')
    command = ["corpus", "export", "--corpus", "manifest", "--root", str(tmp_path / "m.jsonl")]
    assert main([*command, "--to", str(tmp_path / "out.csv")]) == 0
    assert "note: 2 cells begin as a spreadsheet's formula does, '=1+1' the first;" in capsys.readouterr().out


def test_a_table_for_people_has_no_formula(tmp_path: Path) -> None:
    texts = [*FORMULAS, "a-b", "", None]
    frame = pd.DataFrame({"block": texts, "loss": np.linspace(-2, 1, len(texts)), "=n": range(len(texts))})
    write_frame(frame, tmp_path, "space")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "space.parquet"), frame, check_dtype=False)
    with (tmp_path / "space.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["block", "loss", "'=n"]
    assert [row[0] for row in rows[1:]] == [*(f"'{formula}" for formula in FORMULAS), "a-b", "", ""]
    assert [float(row[1]) for row in rows[1:]] == frame["loss"].tolist()


def test_an_export_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    corpus = rich(tmp_path)
    path = tmp_path / "m.csv"
    path.write_text("old")
    bad = replace(corpus, utterances=(replace(corpus.utterances[0], text="half \ud83d"),))
    assert "UTF-8" in refusal(export.write, bad, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside.wav", "in", "m.csv"]
    assert path.read_text() == "old"
    assert ".csv, .jsonl" in refusal(export.write, corpus, tmp_path / "m.tsv")


# --- the verbs ---


@pytest.fixture
def listed(tmp_path: Path) -> Any:
    rows = "id,audio,label,speaker,sex,start\na,a.wav,angry,s1,female,\nb,b.wav,[boredom],s2,male,\nc,a.wav,angry,,,1\n"
    for name in "ab":
        (tmp_path / f"{name}.wav").touch()
    (tmp_path / "mine.csv").write_text(rows)
    return tmp_path / "mine.csv"


def test_show_tells_what_is_there_and_what_is_missing(listed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpus", "show", "--corpus", "manifest", "--root", str(listed)]) == 0
    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "mine: 3 utterances in 2 recordings"
    expected = (
        "label 3 2 [boredom] 1, angry 2",
        "speaker 2 2 female 1, male 1",
        "sex 2 2 female 1, male 1",
        "session 0 0",
        "angry 2 1 0 1",
        "[boredom] 1 0 1 0",
        "not scored yet: corpus mine: speaker is unknown for 1 utterances, e.g. 'c'; a split by speaker needs it for "
        "all: add it where the corpus names it; the features stay",
        "duration: not known, no recording was opened",
        "missing: 1 utterances with a label have no speaker; emotion is not scored until they do",
    )
    assert [line for line in expected if line not in lines] == []


@pytest.mark.parametrize(
    ("speakers", "told"),
    [
        (1, "not scored yet: protocol speaker:5: corpus cups has only 1 value of speaker; 5 folds need one each; "),
        (2, "scored by: speaker (leave one speaker out), WA, compared over speakers"),
        (4, "scored by: speaker (leave one speaker out), WA, compared over speakers"),
        (5, "scored by: speaker:5 (5 folds of whole speakers), WA, compared over speakers"),
    ],
)
def test_show_promises_what_protocol_make_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, speakers: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [(f"s{s}n{n}", "ab"[n % 2], f"s{s}") for s in range(speakers) for n in range(4)]
    for index, (name, _, _) in enumerate(names):
        tone(tmp_path / f"{name}.wav", hertz=200 + 11 * index)
    table = "".join(f"{name},{name}.wav,{label},{speaker}\n" for name, label, speaker in names)
    (tmp_path / "cups.csv").write_text(f"id,audio,label,speaker\n{table}")
    assert main(["corpus", "show", "--corpus", "manifest", "--root", "cups.csv"]) == 0
    assert told in capsys.readouterr().out
    assert main(["protocol", "make", "--corpus", "manifest", "--root", "cups.csv"]) == (2 if speakers == 1 else 0)


def test_verbs_say_which_columns_were_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And `extract` that nothing can be trained; a store keeps the map that a later extraction names."""
    monkeypatch.chdir(tmp_path)
    names = [(f"s{s}n{n}", "ab"[n % 2], f"s{s}") for s in range(3) for n in range(4)]
    for index, (name, _, _) in enumerate(names):
        tone(tmp_path / f"{name}.wav", hertz=200 + 11 * index)
    table = "".join(f"{name}.wav\t{label}\t{speaker}\t1\n" for name, label, speaker in names)
    (tmp_path / "cups.tsv").write_text(f"file_name\tMood\twho\tAge\n{table}")
    given, mapped = ["--corpus", "manifest", "--root", "cups.tsv"], ["--map", "label=mood,speaker=who"]
    extracting = ["extract", *given, "--encoder", "log-mel"]
    assert main(extracting) == 0
    out = capsys.readouterr().out
    assert "cups: columns not read: Mood, who, Age\n" in out
    assert "cups: no utterance has a label; nothing is trained until they do, and extracted features stay\n" in out
    store = tmp_path / "runs/features/cups-log-mel"
    before = (store / "shard-00000.h5").read_bytes()
    comparing = ["compare", "--features", str(store), "--seeds", "1", "--workers", "1", "--space", "ser_bas3", "--set"]
    comparing += ["strategy=random", "--set", "committee=1", "--set", "epochs=1", "--set", "width=8"]
    assert main([*comparing, *mapped]) == 2
    assert "with none; the same `bas extract` with it keeps the features" in capsys.readouterr().err
    assert main([*extracting, *mapped]) == 0
    assert "cups: columns not read: Age\n" in capsys.readouterr().out
    assert (store / "shard-00000.h5").read_bytes() == before
    for verb in (["corpus", "show"], ["protocol", "make"]):
        assert main([*verb, *given, *mapped]) == 0
        assert "columns not read: Age\n" in capsys.readouterr().out
    assert main(["features", "info", str(store)]) == 0
    assert "label is mood, speaker is who" in capsys.readouterr().out
    (tmp_path / "cups.toml").write_text(
        f'features = "{store}"\n[corpus]\nreader = "manifest"\nroot = "cups.tsv"\n'
        'map = {label = "mood", speaker = "who"}\n'
    )
    comparing[1:3] = ["cups.toml"]
    assert main([*comparing, "--name", "c"]) == 0
    recorded = tomllib.loads((tmp_path / "runs/c/experiment.toml").read_text())
    assert recorded["corpus"]["map"] == {"label": "mood", "speaker": "who"}
    assert main(["compare", "runs/c/experiment.toml"]) == 0


@pytest.mark.parametrize("out", ["new/out.csv", "out.jsonl", "database"])
def test_export_writes_what_the_reader_reads(
    listed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: Any
) -> None:
    assert main(["corpus", "export", "--corpus", "manifest", "--root", str(listed), "--to", str(tmp_path / out)]) == 0
    shown = capsys.readouterr().out
    reader = "manifest" if "." in out else "audformat"
    assert f"{reader}: {tmp_path / out}, 3 utterances of mine" in shown
    assert f"next: bas corpus show --corpus {reader} --root {tmp_path / out}" in shown
    assert open_corpus(reader, tmp_path / out).utterances == open_corpus("manifest", listed).utterances
    assert main(["corpus", "export", "--corpus", "manifest", "--root", str(listed), "--to", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err == f"bas: --to {tmp_path / out}: is there already; name another, or move it away\n"


def test_labels_are_mapped_where_asked(listed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed.write_text(listed.read_text().replace("[boredom]", "boredom"))
    assert main(["corpus", "show", "--corpus", "manifest", "--root", str(listed), "--labels", "four"]) == 0
    assert "note: labels four: 1 boredom left out" in capsys.readouterr().out
    out = tmp_path / "out.csv"
    assert (
        main(
            ["corpus", "export", "--corpus", "manifest", "--root", str(listed), "--labels", "common", "--to", str(out)]
        )
        == 0
    )
    assert {u.label for u in open_corpus("manifest", out).utterances} == {"anger", None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "--corpus", "manifest", "--root", "none.csv"], "none.csv"),
        (["show", "--corpus", "nothing", "--root", "."], "'nothing'"),
        (
            ["export", "--corpus", "manifest", "--root", "mine.csv", "--to", "out.cvs"],
            "--to out.cvs: must end in .csv or .jsonl, or be",
        ),
        (["export", "--corpus", "manifest", "--root", "mine.csv"], "--to"),
        (["export", "--corpus", "manifest", "--root", "mine.csv", "--to", "out", "--labels", "five"], "five"),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    listed: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: Any,
    said: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["corpus", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bas: ")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
