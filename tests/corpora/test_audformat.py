"""Databases of the audformat package, read as others publish them and written for them."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import audformat as package
import pandas as pd
import pytest
from refusals import refusal
from tables import rich

from bas.corpora import Corpus, Utterance, audformat, open_corpus


def published(folder: Path, kind: str = "csv") -> package.Database:
    """EmoDB as audEERING publishes it: its tables, schemes and misc table, with two recordings."""
    db = package.Database("emodb", usage="unrestricted", languages=["de"])
    db.schemes["emotion"] = package.Scheme(labels=["anger", "happiness"])
    db.schemes["confidence"] = package.Scheme("float", minimum=0, maximum=1)
    db.schemes["age"] = package.Scheme("int", minimum=0)
    db.schemes["gender"] = package.Scheme(labels=["female", "male"])
    db.schemes["language"] = package.Scheme("str")
    db.schemes["duration"] = package.Scheme("time")
    db.schemes["transcription"] = package.Scheme(labels={"a01": "Der Lappen.", "a02": "Das will sie."})
    db["speaker"] = package.MiscTable(pd.Index([3, 8], name="speaker"))
    about = {"age": [31, 34], "gender": ["male", "female"], "language": ["deu", "deu"]}
    for name, values in about.items():
        db["speaker"][name] = package.Column(scheme_id=name)
        db["speaker"][name].set(values)
    db.schemes["speaker"] = package.Scheme("int", labels="speaker")
    db.raters["gold"] = package.Rater()
    files = ["wav/03a01Fa.wav", "wav/08a02Wb.wav"]
    fill(db, "files", files, speaker=[3, 8], transcription=["a01", "a02"], duration=pd.to_timedelta([1.5, 2], unit="s"))
    fill(db, "emotion", files, emotion=["happiness", "anger"])
    for split, i in (("train", 0), ("test", 1)):
        db.splits[split] = package.Split(split)
        table = f"emotion.categories.{split}.gold_standard"
        fill(db, table, files[i : i + 1], split, emotion=["happiness", "anger"][i : i + 1])
        db[table]["emotion.confidence"] = package.Column(scheme_id="confidence", rater_id="gold")
        db[table]["emotion.confidence"].set([0.9])
    return save(db, folder, kind)


def fill(db: Any, table: Any, rows: Any, split: Any = None, **columns: Any) -> None:
    """A table; rows: files, or files with start and end in seconds."""
    index = (
        package.filewise_index(rows) if isinstance(rows[0], str) else package.segmented_index(*zip(*rows, strict=True))
    )
    db[table] = package.Table(index, split_id=split)
    for name, values in columns.items():
        db[table][name] = package.Column(scheme_id=name if name in db.schemes else None)
        db[table][name].set(values)


def save(db: Any, folder: Path, kind: Any = "csv") -> Any:
    db.save(str(folder), storage_format=kind)
    for file in db.files:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).touch()
    return db


@pytest.fixture
def small() -> Any:
    db = package.Database("small")
    db.schemes["emotion"] = package.Scheme("str")
    for split, kind in (("a", "train"), ("b", "dev"), ("c", "other")):
        db.splits[split] = package.Split(kind)
    return db


def read(folder: Path) -> dict[str, Utterance]:
    return {u.id: u for u in open_corpus("audformat", folder).utterances}


def refused(folder: Path, *parts: str) -> None:
    message = refusal(open_corpus, "audformat", folder)
    assert [part for part in (str(folder), *parts) if part not in message] == [], message


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_published_emodb_is_read(tmp_path: Path, kind: Any) -> None:
    published(tmp_path, kind)
    corpus = open_corpus("audformat", tmp_path)
    one = Utterance(
        *("wav/03a01Fa", tmp_path / "wav/03a01Fa.wav", "happiness", "3"),
        **{"split": "train", "language": "deu", "text": "Der Lappen.", "sex": "male"},
    )
    two = replace(one, id="wav/08a02Wb", audio=tmp_path / "wav/08a02Wb.wav", label="anger", speaker="8", sex="female")
    assert corpus.utterances == (one, replace(two, split="test", text="Das will sie."))
    assert (corpus.name, corpus.protocol, corpus.unit, corpus.note) == ("emodb", "own", "speaker", "")


def test_speakers_may_be_told_of_in_the_header(tmp_path: Path, small: Any) -> None:
    small.schemes["speaker"] = package.Scheme(labels={"s1": {"gender": "female"}, "s2": {"gender": "child"}, "s3": {}})
    small.languages = ["eng"]
    fill(small, "t", ["a.wav", "b.wav", "c.wav"], emotion=["joy", None, "joy"], speaker=["s1", "s2", "s3"])
    save(small, tmp_path)
    assert {(u.id, u.label, u.sex, u.language) for u in read(tmp_path).values()} == {
        ("a", "joy", "female", "eng"),
        ("b", None, None, "eng"),
        ("c", "joy", None, "eng"),
    }


def test_segments_have_from_their_file_what_they_do_not_say(tmp_path: Path, small: Any) -> None:
    fill(small, "files", ["a.wav", "b.wav"], "a", session=["d1", "d2"], gender=["male", "other"])
    segments = [("a.wav", 0.5, 1.25), ("a.wav", 1.25, None), ("b.wav", 0, None)]
    fill(small, "segments", segments, emotion=["joy", None, "fear"], session=[None, "d3", None])
    save(small, tmp_path)
    assert {id_: (u.start, u.end, u.label, u.session, u.split, u.sex) for id_, u in read(tmp_path).items()} == {
        "a-0.5-1.25": (0.5, 1.25, "joy", "d1", "train", "male"),
        "a-1.25-": (1.25, None, None, "d3", "train", "male"),
        "b-0.0-": (0.0, None, "fear", "d2", "train", None),
    }


def test_the_gold_standard_counts_before_what_single_raters_said(tmp_path: Path, small: Any) -> None:
    fill(small, "emotion.desired", ["a.wav", "b.wav"], emotion=["fear", "joy"])
    fill(small, "emotion.gold_standard", ["a.wav"], emotion=["joy"])
    save(small, tmp_path)
    assert {u.label for u in read(tmp_path).values()} == {"joy"}


@pytest.mark.parametrize("column", ["emotion", "label"])
def test_a_column_without_a_scheme_is_taken_by_its_name(tmp_path: Path, column: Any) -> None:
    db = package.Database("plain")
    fill(db, "t", ["a.wav"], **{column: ["joy"], "speaker": ["s"], "id": ["x"], "text": ["Yes."]})
    save(db, tmp_path)
    assert read(tmp_path)["x"] == Utterance("x", tmp_path / "a.wav", "joy", "s", text="Yes.")


def test_files_without_an_emotion_are_left_out_and_told(tmp_path: Path, small: Any) -> None:
    fill(small, "files", ["a.wav", "b.wav", "c.wav"], speaker=["1", "2", "3"])
    fill(small, "emotion", ["b.wav"], "c", emotion=["joy"])
    save(small, tmp_path)
    corpus = open_corpus("audformat", tmp_path)
    assert [(u.id, u.speaker, u.split) for u in corpus.utterances] == [("b", "2", None)]
    assert corpus.note == "2 of 3 files are in no table of emotions and left out, a.wav the first"


def test_missing_media_are_counted(tmp_path: Path, small: Any) -> None:
    fill(small, "emotion", [f"{i}.wav" for i in range(5)], emotion=["joy"] * 5)
    save(small, tmp_path)
    for i in (1, 3, 4):
        (tmp_path / f"{i}.wav").unlink()
    refused(tmp_path, "table 'emotion'", "'1.wav'", "3 of 5 recordings are missing", "'3.wav', '4.wav'")


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        pytest.param({"t": {"speaker": ["s"]}}, ("no column of emotions", "emotion or label"), id="no-emotion"),
        pytest.param({"t": {"emotion": [0.5]}}, ("table 't'", "emotion 0.5 is no text"), id="a-number"),
        pytest.param(
            {"t": {"emotion": ["joy"]}, "u": {"emotion": ["fear"]}},
            ("label of 'a'", "'joy' in column 'emotion' of table 't'", "'fear'", "table 'u'", "drop_tables"),
            id="two-labels",
        ),
        pytest.param(
            {"t": {"emotion": ["joy"], "session": ["d"]}, "u": {"session": ["e"]}},
            ("session of 'a'",),
            id="two-sessions",
        ),
        pytest.param({"t": {"emotion": ["joy"], "sex": ["f"]}}, ("gender 'f'", "female, male, child"), id="gender"),
        pytest.param({"t": {"emotion": ["joy"], "shares": ["{"]}}, ("a.wav", "malformed JSON"), id="shares"),
    ],
)
def test_a_bad_table_is_one_line(tmp_path: Path, tables: Any, said: Any) -> None:
    db = package.Database("bad")
    for name, columns in tables.items():
        fill(db, name, ["a.wav"], **columns)
    save(db, tmp_path)
    refused(tmp_path, *said)


def test_a_file_in_two_splits_is_refused(tmp_path: Path, small: Any) -> None:
    fill(small, "t", ["a.wav"], "a", emotion=["joy"])
    fill(small, "u", ["a.wav"], "b")
    save(small, tmp_path)
    refused(tmp_path, "split of 'a'", "'train' in table 't'", "'valid' in table 'u'", "drop_tables")


def test_doubled_rows_and_ids_are_refused(tmp_path: Path, small: Any) -> None:
    fill(small, "emotion", ["a.wav", "b.wav"], emotion=["joy", "joy"], id=["x", "x"])
    save(small, tmp_path)
    refused(tmp_path, "'b.wav'", "the id 'x'", "a.wav", "its own")
    (tmp_path / "db.emotion.csv").write_text("file,emotion,id\na.wav,joy,x\na.wav,fear,y\n")
    refused(tmp_path, "table 'emotion'", "'a' is there twice")


HEADER = "name: x\nsource: ''\nusage: other\ntables:\n  t: {type: filewise, columns: {emotion: {}}}\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        pytest.param({}, ("no db.yaml", "an audformat database is a folder"), id="no-header"),
        pytest.param({"db.yaml": "tables: {"}, ("db.yaml", "YAML"), id="broken-yaml"),
        pytest.param({"db.yaml": b"\xff"}, ("db.yaml", "YAML"), id="not-utf-8"),
        pytest.param({"db.yaml": "[" * 10_000}, ("db.yaml", "YAML"), id="deep"),
        pytest.param({"db.yaml": "expires: 2030-13-01\n"}, ("db.yaml", "YAML", "month"), id="no-date"),
        pytest.param({"db.yaml": "- 1\n- 2\n"}, ("db.yaml", "no audformat header"), id="a-list"),
        pytest.param({"db.yaml": ""}, ("db.yaml", "no audformat header"), id="empty-header"),
        pytest.param({"db.yaml": "name: x\nusage: other\n"}, ("db.yaml", "no audformat header"), id="no-source"),
        pytest.param(
            {"db.yaml": "name: !!python/object/apply:os.mkdir [ran]\n"}, ("db.yaml", "YAML", "python"), id="code"
        ),
        pytest.param({"db.yaml": HEADER}, ("table 't'", "no db.t.parquet and no db.t.csv"), id="no-table"),
        pytest.param({"db.yaml": HEADER, "db.t.pkl": b"x"}, ("table 't'", "no db.t.parquet"), id="only-a-pickle"),
        pytest.param({"db.yaml": HEADER, "db.t.parquet": "x"}, ("db.t.parquet", "Arrow"), id="broken-parquet"),
        pytest.param({"db.yaml": HEADER, "db.t.csv": "a,b,c\n1,2,3\n"}, ("db.t.csv", "db.yaml"), id="other-columns"),
    ],
)
def test_a_broken_database_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any, said: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(tmp_path, *said)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_a_table_is_not_opened(tmp_path: Path, small: Any) -> None:
    fill(small, "emotion", ["a.wav"], emotion=["joy"])
    save(small, tmp_path)
    (tmp_path / "db.emotion.pkl").write_bytes(b"\x80\x04c")
    assert read(tmp_path)["a"].label == "joy"


def test_a_database_is_read_by_the_package_as_it_is_meant(tmp_path: Path) -> None:
    corpus = rich(tmp_path)
    audformat.write(corpus, tmp_path / "database")
    db = package.Database.load(str(tmp_path / "database"))
    assert (db.name, db.usage, db.description, db.languages) == ("rich", "other", "a note", [])
    assert {name: split.type for name, split in db.splits.items()} == {"dev": "dev", "test": "test", "train": "train"}
    assert sorted(db.tables) == ["dev", "emotion", "segments", "test", "train"]
    assert sorted(db["emotion"]["emotion"].get().dropna()) == ["joy", "no"]
    assert db["segments"].get(map={"speaker": "gender"})["gender"].dropna().tolist() == ["male"]
    assert package.index_type(db["train"].index) == "segmented"


def test_a_speaker_of_one_sex_and_language_has_them_in_the_speakers_table(tmp_path: Path) -> None:
    made = []
    for i, (speaker, sex) in enumerate((("s1", "female"), ("s1", "female"), ("s2", "male"), ("s2", None))):
        (tmp_path / f"{i}.wav").touch()
        made.append(Utterance(str(i), tmp_path / f"{i}.wav", speaker=speaker, sex=sex, language="de"))
    audformat.write(Corpus("c", tuple(made), protocol="own", unit="speaker"), tmp_path / "new/database")
    db = package.Database.load(str(tmp_path / "new/database"))
    assert db["speaker"]["gender"].get().dropna().to_dict() == {"s1": "female"}
    assert db["speaker"]["language"].get().to_dict() == {"s1": "de", "s2": "de"}
    assert db["files"]["gender"].get().dropna().tolist() == ["male"]
    assert "language" not in db["files"].columns
    assert db.languages == ["deu"]


def test_recordings_beneath_the_database_are_named_relative(tmp_path: Path) -> None:
    corpus = Corpus("c", (Utterance("a", tmp_path / "db/wav/a.wav"),), protocol="own", unit="speaker")
    audformat.write(corpus, tmp_path / "db")
    assert list(package.Database.load(str(tmp_path / "db")).files) == ["wav/a.wav"]


def test_a_database_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = rich(tmp_path)
    message = refusal(audformat.write, corpus, tmp_path / "in")
    assert f"{tmp_path}/in" in message
    assert "not empty" in message
    same = replace(corpus.utterances[-1], id="y")
    twice = replace(corpus, utterances=(*corpus.utterances, same))
    assert "'x/1' and 'y' are the same part" in refusal(audformat.write, twice, tmp_path / "out")
    lined = replace(corpus, utterances=(replace(corpus.utterances[0], label="a\x85b"),))
    assert "a label is one line" in refusal(audformat.write, lined, tmp_path / "out")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(package.Table, "save", full)
    with pytest.raises(OSError, match="No space"):
        audformat.write(corpus, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["beside.wav", "in"]
