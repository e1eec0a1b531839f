"""Own columns: kept where they are named, refused where not, in every form that a table has, and beside any corpus."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from refusals import refusal
from sounds import tone

from bas.cli.main import main
from bas.corpora import Corpus, Utterance, audformat, export, open_corpus
from bas.corpora.columns import COLUMNS, kept
from bas.corpora.labels import relabel
from bas.protocols import make
from bas.tasks import Classification, Regression

ROWS = (
    ("a1", "anna", "3", "Young"),
    ("a2", "anna", "3.0", "young"),
    ("b1", "ben", "4.25", "old"),
    ("c1", "cy", "", ""),
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for index, (id_, *_) in enumerate(ROWS):
        tone(tmp_path / f"wav/{id_}.wav", hertz=200 + 50 * index)
    lines = [f"{id_},wav/{id_}.wav,{speaker},{age},{group}" for id_, speaker, age, group in ROWS]
    path = tmp_path / "cups.csv"
    path.write_text("\n".join(["id,audio,speaker,Arousal,age_group", *lines]), encoding="utf-8")
    return path


def opened(path: Path, *keep: str, reader: str = "manifest") -> Corpus:
    return open_corpus(reader, path, columns=kept(keep))


def others(corpus: Corpus) -> dict[str, dict[str, str]]:
    return {u.id: dict(u.others) for u in corpus.utterances}


EXPECTED = {
    "a1": {"arousal": "3", "age group": "young"},  # two spellings of one value are one, as of our own fields
    "a2": {"arousal": "3", "age group": "young"},
    "b1": {"arousal": "4.25", "age group": "old"},
    "c1": {},
}


@pytest.mark.parametrize("form", ["csv", "export.csv", "export.jsonl", "audformat"])
def test_values_survive_in_every_form(form: str, table: Path, tmp_path: Path) -> None:
    corpus = opened(table, "arousal", "age group")
    if form.startswith("export"):
        export.write(corpus, tmp_path / form)
        corpus = opened(tmp_path / form, "arousal", "age group")
    if form == "audformat":
        audformat.write(corpus, tmp_path / form)
        corpus = opened(tmp_path / form, "arousal", "age group", reader="audformat")
    assert others(corpus) == EXPECTED
    assert corpus.own == ("arousal", "age group")
    assert [u.id for u in corpus.labelled("arousal")] == ["a1", "a2", "b1"]
    assert corpus.utterances[0].get("speaker") == "anna"


def test_numbers_of_json_are_kept_as_they_are(tmp_path: Path) -> None:
    tone(tmp_path / "wav/a1.wav")
    for value, text in ((2.5, "2.5"), (3.0, "3"), (7, "7"), ("x", "x")):
        row = {"id": "a1", "audio": "wav/a1.wav", "v": value}
        (tmp_path / "t.jsonl").write_text(json.dumps(row), encoding="utf-8")
        assert others(opened(tmp_path / "t.jsonl", "v")) == {"a1": {"v": text}}
    for bad in (True, [1], {"a": 1}):
        (tmp_path / "t.jsonl").write_text(json.dumps({"id": "a1", "audio": "wav/a1.wav", "v": bad}), encoding="utf-8")
        assert "t.jsonl line 1: v: " in refusal(lambda: opened(tmp_path / "t.jsonl", "v"))


def test_a_misspelt_column_is_refused_as_before(table: Path) -> None:
    text = table.read_text().replace("speaker", "speeker")
    table.write_text(text)
    told = refusal(lambda: opened(table, "arousal", "age_group"))
    assert "'speeker': unknown column, rename it, or say what it is, such as --map speaker=speeker" in told
    assert "keep it as a column of your own: --keep speeker" in told


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        (["speaker"], "--keep speaker: no own column, it is read for the field speaker"),
        (["Gender"], "--keep Gender: no own column, it is read for the field sex"),
        (["a,b"], "--keep 'a,b': the name of an own column must be of letters"),
        (["a:5"], "--keep 'a:5': the name of an own column must be of letters"),
        (["age", "AGE"], "--keep AGE: there twice"),
        (["arousal", "age_group", "valence"], "cups.csv line 1: --keep valence: no such column; it has: id, audio"),
    ],
)
def test_what_cannot_be_kept(keep: list[str], said: str, table: Path) -> None:
    assert said in refusal(lambda: opened(table, *keep))


@pytest.mark.parametrize("name", COLUMNS)
def test_no_field_is_an_own_column(name: str) -> None:
    assert f"--keep {name}" in refusal(lambda: kept([name]))


def labelled(table: Path, text: str, keep: Sequence[str] = (), name: str = "more.csv") -> Corpus:
    path = table.with_name(name)
    path.write_text(text, encoding="utf-8")
    return relabel(opened(table, "arousal", "age_group"), str(path), keep)


def test_a_table_of_labels_stands_in_the_corpus_s_place(table: Path) -> None:
    corpus = labelled(table, "id,label,arousal,valence\na1,calm,5,1\nb1,,2,\nzz,calm,1,1\n", ["arousal", "valence"])
    assert others(corpus) == {
        "a1": {"age_group": "young", "arousal": "5", "valence": "1"},
        "a2": {"age_group": "young"},
        "b1": {"age_group": "old", "arousal": "2"},
        "c1": {},
    }
    assert {u.id: u.label for u in corpus.utterances} == {"a1": "calm", "a2": None, "b1": None, "c1": None}
    assert {u.speaker for u in corpus.utterances} == {"anna", "ben", "cy"}, "what it has no column for stays"
    assert (
        "labels of more.csv, which has no line for 2 of 4 utterances, and 1 for others, 'zz' the first" in corpus.note
    )
    corpus = labelled(table, "id,speaker\na1,zoe\n")
    assert [u.speaker for u in corpus.utterances] == ["zoe", None, None, None], "without a row nothing is known"


def test_a_manifest_is_a_table_of_labels_and_its_recordings_are_not_read(table: Path) -> None:
    corpus = labelled(table, "id,audio,end,v\na1,gone.wav,0.01,7\n", ["v"])
    first = corpus.utterances[0]
    assert (first.audio.name, first.end, dict(first.others)["v"]) == ("a1.wav", None, "7")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,v,w\na1,1,2\n", "more.csv line 1: 'w': unknown column"),
        ("v\n1\n", "more.csv line 1: id: the required column is missing"),
        ("id,v\n,1\n", "more.csv line 2: id: missing; a table of labels names each utterance by its id"),
        ("id,v\na1,1\na1,2\n", "more.csv line 3: id: 'a1' is there already"),
        ("id,v\nx,1\n", "more.csv: none of its 1 ids is of corpus cups, whose first is 'a1'"),
        ("id,label\na1,calm\n", "more.csv line 1: --keep v: no such column; it has: id, label"),
    ],
)
def test_a_table_of_labels_is_refused(text: str, said: str, table: Path) -> None:
    assert said in refusal(lambda: labelled(table, text, ["v"]))


def test_labels_are_of_a_scheme_or_of_a_table(table: Path) -> None:
    told = refusal(lambda: relabel(opened(table, "arousal", "age_group"), "comon"))
    assert "--labels comon: must be a scheme, common or four, or a table: .csv" in told


@pytest.mark.parametrize("command", ["show", "export"])
def test_the_verbs_on_corpora_know_them(
    command: str, table: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    to = ["--to", "out.csv"] if command == "export" else []
    given = ["--corpus", "manifest", "--root", "cups.csv", "--keep", "arousal", "age_group", *to]
    assert main(["corpus", command, *given]) == 0
    assert "arousal" in (Path("out.csv").read_text() if to else capsys.readouterr().out)


def test_a_corpus_without_a_table_takes_them_of_one_of_labels(tmp_path: Path) -> None:
    told = refusal(lambda: open_corpus("emodb", tmp_path, columns=kept(["age"])))
    assert "--keep age: corpus emodb has no columns of yours" in told
    assert "--labels TABLE.csv" in told


def houses(*names: str) -> Corpus:
    """Twelve utterances of three houses, of which these own columns are known."""
    utterances = []
    for i in range(12):
        values = {"house": "hij"[i % 3], "arousal": str(1 + i % 5), "group": "ab"[i // 3 % 2]}
        others = tuple((name, values[name]) for name in names)
        utterances.append(Utterance(f"u{i:02}", Path(f"u{i}.wav"), speaker=f"s{i}", others=others))
    return Corpus("houses", tuple(utterances), "speaker:5", "speaker")


def test_splits_and_tasks_name_them() -> None:
    corpus = houses("house", "group", "arousal")
    task = Classification("group", ("house",), name="of groups")
    protocol = make(corpus, task, "house", compare=None)
    assert (protocol.unit, len(protocol.folds), task.outputs(corpus.utterances)) == ("house", 3, ("a", "b"))
    told = refusal(lambda: make(corpus, task, "speaker:3", compare=None))
    assert "house on both sides: " in told
    told = refusal(lambda: make(houses("group"), task, "speaker:3", compare=None))
    assert "task of groups: an utterance has no field 'house'; must be one of id, audio, label" in told
    told = refusal(lambda: make(houses("house"), Regression({"arousal": (1, 5)}), "speaker:3"))
    assert "no utterance has arousal, which task regression predicts; own columns are read where they are named" in told


def test_its_name_is_a_rule_only_where_the_corpus_has_it() -> None:
    task = Regression({"arousal": (1, 5)})
    assert make(houses("arousal", "house"), task, "house", compare=None).rule == "house"
    assert "protocol 'house': must be" in refusal(lambda: make(houses("arousal"), task, "house"))


def test_another_split_of_a_table_is_no_published_one(tmp_path: Path) -> None:
    """A published split may share speakers, which no other may."""
    utterances = tuple(Utterance(f"u{i}", tmp_path / "a.wav", "ab"[i % 2], f"s{i}", split="train") for i in range(6))
    corpus = Corpus("meld", utterances, protocol="own", unit="session", published=True)
    table = tmp_path / "labels.csv"

    def under(rows: str) -> Corpus:
        table.write_text(rows)
        return relabel(corpus, str(table))

    same = under("id,label,speaker\n" + "".join(f"u{i},c,s{i}\n" for i in range(6)))
    assert (same.published, same.protocol, same.unit) == (True, "own", "session")
    assert {u.label for u in same.utterances} == {"c"}
    other = under("id,split\n" + "".join(f"u{i},{'train' if i else 'test'}\n" for i in range(6)))
    assert (other.published, other.protocol, other.unit) == (False, "own", "speaker")
    voices = under("id,speaker\n" + "".join(f"u{i},voice\n" for i in range(5)))
    assert not voices.published
    assert voices.utterances[5].speaker is None


def test_lines_without_a_value_are_counted(tmp_path: Path) -> None:
    utterances = tuple(Utterance(f"u{i}", tmp_path / "a.wav", "a", f"s{i}") for i in range(4))
    table = tmp_path / "ages.csv"
    table.write_text("id,age\nu0,20\nu1,\nu2,\n")
    note = relabel(Corpus("cups", utterances, "speaker:5", "speaker"), str(table), ("age",)).note
    assert "which has no line for 1 of 4 utterances, and 2 lines without a value" in note


@pytest.mark.parametrize("name", ["own", "emobox", "lists.json"])
def test_a_column_with_the_name_of_a_rule(name: str) -> None:
    assert f"--keep {name}: a rule of splits has that name" in refusal(kept, [name])
