"""Values that are nearly equal, missing values, names of columns that are nearly right, blanks: in every table."""

# mypy: disable-error-code="var-annotated"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import audformat as package
import pytest
from refusals import refusal

from bas.corpora import Corpus, Utterance, audformat, manifest, open_corpus
from bas.corpora.values import is_missing

FORMS = ("csv", "tsv", "txt", "jsonl", "audformat")


def read(folder: Path, form: str, rows: list[dict[str, Any]], **options: Any) -> Corpus:
    """A corpus of these rows, their recordings beside it, in a table of this form."""
    rows = [{"file_name": f"{i}.wav", **row} for i, row in enumerate(rows)]
    for row in rows:
        (folder / row["file_name"].strip()).touch()
    names = list(dict.fromkeys(name for row in rows for name in row))
    if form == "audformat":
        db = package.Database("cups")
        db["t"] = package.Table(package.filewise_index([row["file_name"] for row in rows]))
        for name in names[1:]:
            db["t"][name] = package.Column()
            db["t"][name].set([row.get(name) for row in rows])
        db.save(str(folder), storage_format="parquet")
        return audformat.read(folder, **options)
    path = folder / f"cups.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        mark = "," if form == "csv" else "\t"
        table = [names, *([str(row.get(name, "")) for name in names] for row in rows)]
        path.write_text("".join(mark.join(cells) + "\n" for cells in table), encoding="utf-8")
    return manifest.read(path, **options)


def values(corpus: Corpus, field: str) -> list[str | None]:
    return [getattr(u, field) for u in corpus.utterances]


# --- two spellings of one value ---

ALIKE = [
    pytest.param("calm", "Calm", id="case"),
    pytest.param("calm", "CALM", id="capitals"),
    pytest.param("spk0", "SPK0", id="speaker"),
    pytest.param("3", "3.0", id="number"),
    pytest.param("3", "03", id="zeros"),
    pytest.param("-1", "-1.0", id="negative"),
    pytest.param("spk1", "spk01", id="zeros-in-a-name"),
    pytest.param("spk1", "SPK001", id="zeros-in-capitals"),
    pytest.param("spk_1_a", "spk 01 a", id="zeros-between"),
    pytest.param("s0", "s00", id="nought"),
    pytest.param("1-2", "01-02", id="zeros-twice"),
    pytest.param("spk 0", "spk0", id="blank"),
    pytest.param("very calm", "very  calm", id="blanks"),
    pytest.param("very calm", "very_calm", id="underscore"),
    pytest.param("very_calm", "very-calm", id="hyphen"),
    pytest.param("anna\u00a0b", "anna b", id="no-break"),
    pytest.param("calm", "\uff43\uff41\uff4c\uff4d", id="full-width"),
    pytest.param("3", "\uff13", id="full-width-digit"),
    pytest.param("calm", "ca\u200blm", id="no-width"),
    pytest.param("stra\u00dfe", "STRASSE", id="sharp-s"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
@pytest.mark.parametrize("field", ["label", "speaker", "session", "script", "language"])
def test_two_spellings_are_one_value_which_the_note_names(tmp_path: Path, field: str, one: str, other: str) -> None:
    rows: Any = [{field: one}, {field: other}, {field: one}, {field: "another"}]
    corpus = read(tmp_path, "csv", rows)
    assert values(corpus, field) == [one, one, one, "another"]
    assert f"{field} {other!r} (1) is taken as {one!r} (2)" in corpus.note


@pytest.mark.parametrize("form", FORMS)
def test_every_table_joins_them(tmp_path: Path, form: str) -> None:
    corpus = read(tmp_path, form, [{"label": "joy", "speaker": "S1"}, {"label": "Joy", "speaker": "s1"}] * 2)
    assert {(u.label, u.speaker) for u in corpus.utterances} == {("joy", "s1")}
    assert corpus.note == "label 'Joy' (2) is taken as 'joy' (2); speaker 'S1' (2) is taken as 's1' (2)"


def test_a_corpus_from_anywhere_joins_them(tmp_path: Path) -> None:
    people = ("Anna", "anna", "ANNA", "Berta")
    utterances = tuple(Utterance(str(i), tmp_path / f"{i}.wav", "joy", name) for i, name in enumerate(people))
    corpus = Corpus("cups", utterances, "speaker:5", "speaker", note="small")
    assert values(corpus, "speaker") == ["anna", "anna", "anna", "Berta"]
    assert corpus.note == "small; speaker 'ANNA' (1) is taken as 'anna' (1), 'Anna' (1) is taken as 'anna' (1)"


@pytest.mark.parametrize(
    "different",
    [
        *[("a1", "a11"), ("s1_1", "s11"), ("1.1", "1.10"), ("-1", "1"), ("Jose", "Jos\u00e9"), ("10", "1"), ("a", "b")],
        *[("1.05", "1.5"), ("s1.02", "s1.2"), ("a10", "a1"), ("a0", "a"), ("a0b", "ab"), ("s01", "s10")],
    ],
)
def test_what_differs_in_more_stays_apart(tmp_path: Path, different: Any) -> None:
    corpus = read(tmp_path, "csv", [{"speaker": one} for one in different])
    assert (values(corpus, "speaker"), corpus.note) == ([*different], "")


def test_many_joined_values_are_counted(tmp_path: Path) -> None:
    corpus = read(tmp_path, "csv", [{"speaker": f"{s}{i}"} for s in "aA" for i in range(9)])
    assert len(set(values(corpus, "speaker"))) == 9
    assert corpus.note.endswith(" and 6 more")


def test_a_text_is_left_as_it_was_spoken(tmp_path: Path) -> None:
    corpus = read(tmp_path, "csv", [{"text": "Ja."}, {"text": "ja. "}])
    assert (values(corpus, "text"), corpus.note, corpus.remarks) == (["Ja.", "ja. "], "", ())


# --- missing values ---


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "NAN", "NA", "N/A", "n/a", "None", "null", "NULL", "<NA>", "NaT", "#N/A"]
)
@pytest.mark.parametrize("form", FORMS)
def test_what_pandas_writes_is_missing_and_counted(tmp_path: Path, form: str, word: str) -> None:
    rows = [{"label": word, "speaker": "a"}, {"label": "joy", "speaker": f" {word}"}, {"label": word, "speaker": "b"}]
    corpus = read(tmp_path, form, rows)
    assert values(corpus, "label") == [None, "joy", None]
    assert values(corpus, "speaker") == ["a", None, "b"]
    assert corpus.note == f"taken for missing: label {word!r} (2), speaker {word!r} (1)"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("word", ["none", "na", "unknown", "nano"])
def test_a_class_may_be_called_none(tmp_path: Path, form: str, word: str) -> None:
    corpus = read(tmp_path, form, [{"label": word}, {"label": "joy"}])
    assert (values(corpus, "label"), corpus.note) == ([word, "joy"], "")


def test_empty_cells_are_missing_without_a_word(tmp_path: Path) -> None:
    assert read(tmp_path, "csv", [{"label": ""}, {"label": "  "}, {"label": "joy"}]).note == ""


def test_missing_times_and_numbers(tmp_path: Path) -> None:
    rows = [{"start": "nan", "end": "NaN", "raters": "<NA>", "shares": "null", "words": "None", "sex": "nan"}]
    (u,) = read(tmp_path, "csv", rows).utterances
    assert (u.start, u.end, u.raters, u.shares, u.words, u.sex) == (0.0, None, None, (), (), None)


def test_json_has_a_number_that_is_none(tmp_path: Path) -> None:
    corpus = read(tmp_path, "jsonl", [{"label": float("nan"), "speaker": 3.0}, {"label": "joy", "speaker": 4.0}])
    assert (values(corpus, "label"), values(corpus, "speaker")) == ([None, "joy"], ["3", "4"])
    assert corpus.note == "taken for missing: label 'NaN' (1)"


def test_a_spoken_word_is_no_missing_value(tmp_path: Path) -> None:
    corpus = read(tmp_path, "csv", [{"text": "null"}, {"text": "None"}, {"text": "nan"}])
    assert values(corpus, "text") == ["null", "None", None]


def test_an_id_may_not_be_missing(tmp_path: Path) -> None:
    assert "line 2: id: empty, or a word for a missing value" in refusal(read, tmp_path, "csv", [{"id": "NaN"}])


def test_infinity_is_not_missing() -> None:
    assert [word for word in ("inf", "-", "?", "0", "nothing") if is_missing(word)] == []


def test_a_reader_of_a_distribution_says_so(tmp_path: Path) -> None:
    """MELD's list has free names of speakers."""
    for part, clips in (
        ("train", "train_splits"),
        ("dev", "dev_splits_complete"),
        ("test", "output_repeated_splits_test"),
    ):
        (tmp_path / clips).mkdir()
        (tmp_path / clips / "dia0_utt0.wav").touch()
        row = f"Hi.,{'nan' if part == 'dev' else ' Ross'},joy,0,0\n"
        (tmp_path / f"{part}_sent_emo.csv").write_text(f"Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n{row}")
    corpus = open_corpus("meld", tmp_path)
    assert sorted(map(str, values(corpus, "speaker"))) == ["None", "Ross", "Ross"]
    assert "taken for missing: speaker 'nan' (1)" in corpus.note
    assert corpus.remarks == ("blanks trimmed around cells: speaker 2",)


# --- blanks ---


@pytest.mark.parametrize("form", FORMS)
def test_blanks_around_cells_are_trimmed_and_counted(tmp_path: Path, form: str) -> None:
    corpus = read(tmp_path, form, [{"id": "x ", "label": " joy"}, {"id": "y", "label": "\u00a0joy\u3000"}])
    assert [(u.id, u.label) for u in corpus.utterances] == [("x", "joy"), ("y", "joy")]
    assert corpus.remarks == ("blanks trimmed around cells: id 1, label 2",)


def test_blanks_behind_commas(tmp_path: Path) -> None:
    (tmp_path / "0.wav").touch()
    (tmp_path / "cups.csv").write_text("id, audio, label, sex\nx, 0.wav, joy, male\n")
    (u,) = manifest.read(tmp_path / "cups.csv").utterances
    assert u == Utterance("x", tmp_path / "0.wav", "joy", sex="male")


def test_a_recording_may_be_called_with_a_blank(tmp_path: Path) -> None:
    for name in ("0.wav ", "1.wav"):
        (tmp_path / name).touch()
    (tmp_path / "cups.csv").write_text("id,audio\nx,0.wav \ny,1.wav \n")
    corpus = manifest.read(tmp_path / "cups.csv")
    assert [u.audio.name for u in corpus.utterances] == ["0.wav ", "1.wav"]
    assert corpus.remarks == ("blanks trimmed around cells: audio 1",)


def test_ids_that_are_equal_but_for_blanks_are_refused(tmp_path: Path) -> None:
    assert "line 3: id: 'x' is on line 2 already" in refusal(read, tmp_path, "csv", [{"id": "x"}, {"id": "x "}])


def test_accents_in_two_pieces_are_told(tmp_path: Path) -> None:
    corpus = read(tmp_path, "csv", [{"speaker": "Jos\u00e9"}, {"speaker": "Jose\u0301"}])
    assert values(corpus, "speaker") == ["Jos\u00e9", "Jos\u00e9"]
    assert corpus.remarks == ("accents in two pieces made one: speaker 1",)


# --- columns ---


@pytest.mark.parametrize(
    "names",
    [
        ("label", "speaker_id"),
        ("Emotion", "Speaker_ID"),
        (" emotion", "speaker id "),
        ("EMOTION", "Speaker-ID"),
        ("\ufeffemotion", "SpeakerID"),
        ("\uff45motion", "speaker"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_columns_are_compared_without_case_and_blanks(tmp_path: Path, form: str, names: Any) -> None:
    (u,) = read(tmp_path, form, [{names[0]: "joy", names[1]: "s1", "Valence": "3", "file id": "9"}]).utterances
    assert (u.label, u.speaker, u.id) == ("joy", "s1", "0")
    corpus = read(tmp_path, form, [{names[0]: "joy", names[1]: "s1", "Valence": "3", "file id": "9"}])
    of = " of t" if form == "audformat" else ""
    assert corpus.remarks == (f"columns not read: Valence{of}, file id{of}",)


def test_a_heading_of_our_own_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "0.wav").touch()
    (tmp_path / "cups.csv").write_bytes("\ufeffID,Audio ,Emotion,Speaker_ID,raw_text\nx,0.wav,joy,s,Ja.\n".encode())
    (u,) = manifest.read(tmp_path / "cups.csv").utterances
    assert u == Utterance("x", tmp_path / "0.wav", "joy", "s", text="Ja.")


@pytest.mark.parametrize("names", [("emotion", "Emotion"), ("label", " label"), ("speaker_id", "Speaker-ID")])
def test_a_column_in_two_spellings_is_refused(tmp_path: Path, names: Any) -> None:
    told = refusal(read, tmp_path, "csv", [dict.fromkeys(names, "x")])
    assert f"line 1: {names[0]}: the column is there twice, also as {names[1]!r}" in told


def test_two_columns_for_one_field(tmp_path: Path) -> None:
    """In a foreign table the first that has a value counts, which is said; in our own one is meant."""
    corpus = read(tmp_path, "csv", [{"label": "", "emotion": "joy"}, {"label": "fear", "emotion": "joy"}])
    assert values(corpus, "label") == ["joy", "fear"]
    assert corpus.remarks == ("label is read from label, where that is empty from emotion",)
    (tmp_path / "own.csv").write_text("id,audio,label,emotion\nx,0.wav,a,b\n")
    told = refusal(manifest.read, tmp_path / "own.csv")
    assert "label and emotion: two columns for label; say which one is meant: --map label=label" in told


def test_many_columns_that_are_not_read(tmp_path: Path) -> None:
    corpus = read(tmp_path, "csv", [{f"c{i}": "1" for i in range(20)}])
    assert corpus.remarks == (f"columns not read: {', '.join(f'c{i}' for i in range(12))} and 8 more",)


# --- names that the user says ---


@pytest.mark.parametrize("form", FORMS)
def test_a_map_names_the_columns(tmp_path: Path, form: str) -> None:
    rows = [{"Mood": "joy", "who": "s1", "label": "1"}, {"Mood": "fear", "who": "s2", "label": "2"}]
    corpus = read(tmp_path, form, rows, columns={"label": "mood", "speaker": "who"})
    assert (values(corpus, "label"), values(corpus, "speaker")) == (["joy", "fear"], ["s1", "s2"])
    assert corpus.remarks == (f"columns not read: label{' of t' if form == 'audformat' else ''}",)


def test_one_column_may_serve_twice(tmp_path: Path) -> None:
    corpus = read(tmp_path, "csv", [{"who": "s1"}], columns={"speaker": "who", "session": "who"})
    assert (values(corpus, "speaker"), values(corpus, "session")) == (["s1"], ["s1"])


def test_a_published_table_with_tabs_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "0.wav").touch()
    text = "file_id\taudio_path\temotion\traw_text\tvalence\n x \t0.wav\tjoy\tJa, nein.\t3,5\n"
    (tmp_path / "cups.tsv").write_text(text)
    corpus = manifest.read(tmp_path / "cups.tsv", {"id": "file_id", "audio": "audio_path"})
    assert corpus.utterances == (Utterance("x", tmp_path / "0.wav", "joy", text="Ja, nein."),)
    assert corpus.remarks == ("columns not read: valence", "blanks trimmed around cells: id 1")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": "mood"}, "--map label=mood: no such"),
        ({"lable": "mood"}, "--map lable=mood: no such field; allowed: "),
    ],
)
def test_a_map_that_names_nothing_is_refused(tmp_path: Path, form: str, columns: Any, said: str) -> None:
    assert said in refusal(read, tmp_path, form, [{"emotion": "joy"}], columns=columns)


def test_a_map_is_for_tables_of_any_names(tmp_path: Path) -> None:
    told = refusal(open_corpus, "emodb", tmp_path, columns={"label": "mood"})
    assert told == "--map label=mood: corpus emodb has columns of its own; it is for manifest and audformat"


def test_an_unknown_column_is_refused_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("id,audio,speeker\nx,0.wav,s\n")
    told = refusal(manifest.read, tmp_path / "own.csv")
    assert "'speeker': unknown column, rename it, or say what it is, such as --map speaker=speeker" in told
    assert "for speaker also speaker_id" in told


# --- what a table names stays beneath it ---


@pytest.mark.parametrize("words", ["../x.TextGrid", "a/../../x.ctm"])
def test_word_files_stay_in_the_folder(tmp_path: Path, words: str) -> None:
    (tmp_path / "in").mkdir()
    told = refusal(read, tmp_path / "in", "csv", [{"words": words}])
    assert f"line 2: words: {words!r} leaves the folder" in told
    assert "write an absolute path" in told


def test_a_name_that_no_folder_can_have_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "0.wav").touch()
    for name, said in (
        ("x" * 101, "more than 100 bytes"),
        ("a\nb", "cannot be shown"),
        ("a\x1b[31m", "cannot be shown"),
    ):
        path = tmp_path / f"{name}.csv"
        path.write_text("id,audio\nx,0.wav\n")
        assert said in refusal(manifest.read, path)
