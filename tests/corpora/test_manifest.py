"""Manifests that people and their tools really write: each is read, or refused in one line that says how to mend it."""

# mypy: disable-error-code="var-annotated"

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from refusals import refusal

from bas.corpora import Utterance, manifest

needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """wav/a.wav and wav/b.wav, a folder wav/deep, a link to nowhere, and one that leads back to itself."""
    (tmp_path / "wav/deep").mkdir(parents=True)
    for name in ("a", "b"):
        (tmp_path / f"wav/{name}.wav").touch()
    (tmp_path / "wav/dangling.wav").symlink_to("nowhere.wav")
    (tmp_path / "wav/loop.wav").symlink_to("loop.wav")
    return tmp_path


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(path: Path, *parts: str) -> str:
    message = refusal(manifest.read, path)
    assert [part for part in (str(path), *parts) if part not in message] == [], message
    return message


def lines(*rows: Mapping[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = "id,audio,label\na,wav/a.wav,joy\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", ("line 1", "no heading", "id, audio, label"), id="empty"),
        pytest.param("id,audio,label\n", ("no utterance", "one line for each"), id="heading-only"),
        pytest.param("\n\n", ("line 1", "no heading"), id="blank-lines"),
        pytest.param("label,id\njoy,a\n", ("line 1", "audio", "required", "allowed: id"), id="no-audio-column"),
        pytest.param(GOOD + "a,wav/b.wav,joy\n", ("line 3", "id", "'a'", "line 2", "of its own"), id="doubled-id"),
        pytest.param("id,audio,split\na,wav/a.wav,dev1\n", ("line 2", "split", "'dev1'", "train, valid"), id="split"),
        pytest.param(
            "id,audio,sex\na,wav/a.wav,W\n", ("line 2", "sex", "'W'", "allowed: female, male, f, m"), id="sex"
        ),
        pytest.param(GOOD + "b,../b.wav,joy\n", ("line 3", "audio", "'../b.wav'", "absolute"), id="leaves-folder"),
        pytest.param(GOOD + "b,wav/../../b.wav,joy\n", ("line 3", "audio", "absolute"), id="leaves-folder-later"),
        pytest.param(GOOD + "b,wav/deep,joy\n", ("line 3", "audio", "wav/deep", "a folder", "recording"), id="folder"),
        pytest.param(GOOD + "b,wav/loop.wav,joy\n", ("line 3", "audio", "link", "back to itself"), id="loop"),
        pytest.param(GOOD + "b,/dev/null,joy\n", ("line 3", "audio", "no regular file"), id="device"),
        pytest.param(GOOD + "b,wav/dangling.wav,joy\n", ("line 3", "audio", "leads nowhere", "1 of 2"), id="dangling"),
        pytest.param(GOOD + "b,wav/a.wav/b.wav,joy\n", ("line 3", "no such file"), id="below-a-file"),
        pytest.param(GOOD + f"b,{'x' * 300},joy\n", ("line 3", "audio", "too long"), id="name-too-long"),
        pytest.param(GOOD + "b,wav\\b.wav,joy\n", ("line 3", "separate folders by /"), id="backslash"),
        pytest.param(GOOD.encode("utf-16"), ("line 1", "UTF-16", "UTF-8"), id="utf-16"),
        pytest.param(GOOD.encode("utf-16-le"), ("line 1", "NUL", "UTF-16", "UTF-8"), id="utf-16-without-mark"),
        pytest.param(GOOD.encode() + b"b,wav/b.wav,w\xfctend\n", ("line 3", "not UTF-8", "save"), id="latin-1"),
        pytest.param(GOOD.encode() + b"b,wav/b.wav,jo\0y\n", ("line 3", "NUL byte", "save"), id="nul"),
        pytest.param(
            "sep=;\nid;audio\n", ("line 1", "'sep='", "no heading", "put the line first"), id="separator-line"
        ),
        pytest.param("# by x\n" + GOOD, ("line 1", "'# by x'", "no heading", "put the line first"), id="comment"),
        pytest.param("\nMy cups,,\n" + GOOD, ("line 2", "'My cups'", "no heading"), id="title"),
        pytest.param(
            "a,wav/a.wav,joy\n", ("line 1", "'a wav/a.wav joy'", "no heading", "--map audio="), id="rows-only"
        ),
        pytest.param("id,audio\ra,wav/a.wav\r", ("line 1", "carriage return (CR)", "LF"), id="old-mac"),
        pytest.param(GOOD + 'b,wav/b.wav,"j\roy"\n', ("line 3", "carriage return (CR)"), id="carriage-return"),
        pytest.param(
            "id,audio,a,b\na,wav/a.wav,1,2",
            ("line 1", "'a'", "such as --map label=a, or keep it", "--keep a;"),
            id="unknown-column",
        ),
        pytest.param(
            "id,audio,my mood\na,wav/a.wav,1",
            ("line 1", "such as --map 'label=my mood', or", "--keep 'my mood';"),
            id="blank-in-column",
        ),
        pytest.param(
            'id,audio,"a,b"\na,wav/a.wav,1', ("'a,b': unknown column, rename it; allowed",), id="comma-in-column"
        ),
        pytest.param(GOOD + "b,wav/b.wav,joy,loud\n", ("line 3", "4 cells", "3", "quotes"), id="comma-in-cell"),
        pytest.param('id,audio,start\na,wav/a.wav,"1,5"\n', ("line 2", "start", "'1,5'", "1.5"), id="decimal-comma"),
        pytest.param('id,audio,shares\na,wav/a.wav,"{"\n', ("line 2", "shares", "JSON", "0.75"), id="shares-json"),
        pytest.param("id,audio,shares\na,wav/a.wav,0.5\n", ("line 2", "shares", "0.5", "object"), id="shares-number"),
        pytest.param(
            'id,audio,shares\na,wav/a.wav,"{""joy"": 2}"\n', ("line 2", "shares", "'joy': 2", "0 to 1"), id="share-of-2"
        ),
        pytest.param(
            'id,audio,shares\na,wav/a.wav,"{""joy"": 1, ""joy"": 0}"\n', ("line 2", "shares", "twice"), id="share-twice"
        ),
    ],
)
def test_a_bad_csv_is_one_line(folder: Path, text: str, said: Any) -> None:
    refused(write(folder / "m.csv", text), *said)


ROW = {"id": "a", "audio": "wav/a.wav"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", ("no utterance",), id="empty"),
        pytest.param(lines(ROW, ROW | {"label": "joy"}), ("line 2", "id", "'a'", "line 1"), id="doubled-id"),
        pytest.param(lines(ROW, {"audio": "wav/b.wav"}), ("line 2", "id", "required"), id="id-left-out-later"),
        pytest.param(lines(ROW, {"id": "b", "path": "wav/b.wav"}), ("line 2", "'path'", "unknown"), id="two-forms"),
        pytest.param(lines(ROW | {"label": ["joy"]}), ("line 1", "label", "['joy']", "no"), id="label-list"),
        pytest.param(lines(ROW | {"label": 0.5}), ("line 1", "label", "0.5", "text"), id="label-number"),
        pytest.param(lines(ROW | {"sex": "Fe male"}), ("line 1", "sex", "'Fe male'", "female, male"), id="sex"),
        pytest.param(lines(ROW | {"shares": [0.5]}), ("line 1", "shares", "[0.5]", "object"), id="shares-list"),
        pytest.param(lines(ROW | {"shares": {"joy": True}}), ("line 1", "'joy': True", "0 to 1"), id="share-true"),
        pytest.param(lines(ROW | {"shares": {"joy": "1"}}), ("line 1", "'joy': '1'", "number"), id="share-text"),
        pytest.param(lines(ROW | {"shares": {"joy": float("nan")}}), ("line 1", "nan", "0 to 1"), id="share-nan"),
        pytest.param(lines(ROW | {"shares": {"joy ": 1}}), ("line 1", "shares", "'joy '", "remove"), id="share-blank"),
        pytest.param(lines(ROW | {"id": "a\ud83d"}), ("line 1", "malformed JSON", "surrogate"), id="half-a-character"),
        pytest.param(lines(ROW | {"id": "a\0"}), ("line 1", "NUL"), id="nul"),
        pytest.param('{"id": "a", "id": "b", "audio": "wav/a.wav"}', ("line 1", "twice"), id="key-twice"),
        pytest.param("[" * 100_000, ("line 1", "malformed JSON", "one object a line"), id="deep"),
        pytest.param(json.dumps([ROW], indent=1), ("line 1", "malformed JSON", "one object a line"), id="pretty"),
        pytest.param(json.dumps([ROW]), ("line 1", "JSON list", "one object a line"), id="array"),
        pytest.param(lines(ROW).encode("utf-16"), ("line 1", "UTF-16", "UTF-8"), id="utf-16"),
    ],
)
def test_bad_json_lines_are_one_line(folder: Path, text: str, said: Any) -> None:
    refused(write(folder / "m.jsonl", text), *said)


def test_a_path_that_is_no_file_says_what_it_is(folder: Path) -> None:
    refused(folder, "a folder", ".csv, .jsonl, .json")
    refused(folder / "none.csv", "no such manifest file")
    (folder / "link.csv").symlink_to("nowhere.csv")
    refused(folder / "link.csv", "the link leads nowhere")
    (folder / "loop.csv").symlink_to("loop.csv")
    refused(folder / "loop.csv", "the link leads nowhere")


@needs_user
def test_what_may_not_be_read_is_named(folder: Path) -> None:
    path = write(folder / "m.csv", GOOD)
    (folder / "wav").chmod(0)
    refused(path, "line 2", "audio", "no permission", "let your user read it")
    (folder / "wav").chmod(0o700)
    path.chmod(0)
    refused(path, "cannot be read", "Permission denied")


def test_a_recording_that_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "a.wav")
    refused(write(folder / "m.csv", GOOD), "line 2", "audio", "a.wav", "no permission", "let your user read it")


def test_missing_recordings_are_counted_over_all_rows(folder: Path) -> None:
    rows = "".join(f"u{i},wav/{i % 40}.wav\n" for i in range(80))
    message = refused(
        write(folder / "m.csv", "id,audio\na,wav/a.wav\nx,wav/a.wav\n" + rows),
        *("line 4", "audio", "'wav/0.wav'", "40 of 41 recordings are missing", "'wav/1.wav', 'wav/2.wav'"),
    )
    assert "3.wav" not in message


def test_a_bad_row_is_named_before_missing_recordings_are(folder: Path) -> None:
    refused(write(folder / "m.csv", "id,audio,sex\na,wav/none.wav,male\nb,wav/b.wav,man\n"), "line 3", "'man'")


def test_each_recording_is_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder / "m.csv", "id,audio\n" + "".join(f"u{i},wav/{'ab'[i % 2]}.wav\n" for i in range(100)))
    looked = []
    real = os.access
    monkeypatch.setattr(os, "access", lambda file, mode: looked.append(file) or real(file, mode))
    corpus = manifest.read(path)
    assert looked == [folder / "wav/a.wav", folder / "wav/b.wav"]
    assert len({id(u.audio) for u in corpus.utterances}) == 2


def test_the_newer_columns_read_alike_in_both_forms(folder: Path) -> None:
    csv = 'id,audio,sex,script,shares\na,wav/a.wav,female,s1,"{""joy"": 0.75, ""anger"": 0}"\nb,wav/b.wav,male,,{}\n'
    one = manifest.read(write(folder / "m.csv", csv))
    first = ROW | {"sex": "female", "script": "s1", "shares": {"joy": 0.75, "anger": 0}}
    second = {"id": "b", "audio": "wav/b.wav", "sex": "male", "script": None, "shares": {}}
    two = manifest.read(write(folder / "m.jsonl", lines(first, second)))
    assert one == two
    a, b = one.utterances
    assert (a.sex, a.script, a.shares) == ("female", "s1", (("joy", 0.75), ("anger", 0.0)))
    assert (b.sex, b.script, b.shares) == ("male", None, ())


def test_a_spreadsheets_csv_is_read(folder: Path) -> None:
    """Byte order mark, CRLF, quotes, a name in capitals, blanks around a sentence, which is compared by nobody."""
    text = '\ufeffid,audio,text\r\na,wav/a.wav," ""Ja"", sagte sie. Dann ging sie. "\r\n\r\nb,wav/b.wav,\r\n'
    a, b = manifest.read(write(folder / "LIST.CSV", text)).utterances
    assert (a.text, b.text) == (' "Ja", sagte sie. Dann ging sie. ', None)


@pytest.mark.parametrize("inside", ["wav/a.wav", "./wav/a.wav", "wav/deep/../a.wav", "absolute"])
def test_a_recording_may_be_named_in_any_way_that_stays_or_is_absolute(folder: Path, inside: Any) -> None:
    name = str(folder / "wav/a.wav") if inside == "absolute" else inside
    (utterance,) = manifest.read(write(folder / "m.csv", f"id,audio\na,{name}\n")).utterances
    assert utterance.audio.samefile(folder / "wav/a.wav")


# --- what other tools write ---


def test_metadata_of_an_audio_folder_is_read(folder: Path) -> None:
    header = "file_name,emotion,speaker_id,gender,transcription,split,duration,\n"
    rows = "wav/a.wav,joy,7,female,Close the door.,train,1.5,\nwav/b.wav,,8,male,,test,2,\n"
    one = manifest.read(write(folder / "metadata.csv", header + rows))
    first = {"file_name": "wav/a.wav", "emotion": "joy", "speaker_id": 7, "gender": "female", "split": "train"}
    second = {"file_name": "wav/b.wav", "speaker_id": 8, "gender": "male", "split": "test", "duration": {"s": 2}}
    sentence = {"transcription": "Close the door."}
    two = manifest.read(write(folder / "metadata.jsonl", lines(first | sentence, second)))
    assert (one.remarks, two.remarks) == (
        ("columns not read: duration, (no name)",),
        ("columns not read: duration",),
    )
    assert one == replace(two, remarks=one.remarks)
    a = Utterance("wav/a", folder / "wav/a.wav", "joy", "7", split="train", text="Close the door.", sex="female")
    assert one.utterances == (a, Utterance("wav/b", folder / "wav/b.wav", None, "8", split="test", sex="male"))
    assert one.protocol == "own"


@pytest.mark.parametrize(
    ("heading", "row", "expected"),
    [
        ("path,label", "wav/a.wav,joy", {}),
        ("file,emotion", "wav/a.wav,joy", {}),
        ("audio,label,age", "wav/a.wav,joy,31", {}),
        ("audio,path,label,emotion", "wav/a.wav,elsewhere.wav,joy,3", {}),
        ("id,path,label", "x,wav/a.wav,joy", {"id": "x"}),
        ("file_name,label,sentence,speaker", "wav/a.wav,joy,Yes.,s", {"text": "Yes.", "speaker": "s"}),
        ("file_name,label,session,start,end", "wav/a.wav,joy,d,1,2", {"session": "d", "start": 1.0, "end": 2.0}),
    ],
)
def test_tables_of_datasets_are_read(folder: Path, heading: Any, row: Any, expected: Any) -> None:
    (u,) = manifest.read(write(folder / "m.csv", f"{heading}\n{row}\n")).utterances
    assert u == Utterance(**{"id": "wav/a", "audio": folder / "wav/a.wav", "label": "joy"} | expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("file_name\nwav/a.wav\nwav/a.wav\n", ("line 3", "id", "'wav/a'", "line 2", "own"), id="twice"),
        pytest.param("file_name,id\nwav/a.wav,\n", ("line 2", "id", "empty"), id="empty-id"),
        pytest.param("file_name,gender\nwav/a.wav,w\n", ("line 2", "gender", "'w'", "female, male"), id="gender"),
        pytest.param("file_name,split\nwav/a.wav,all\n", ("line 2", "split", "'all'", "train"), id="split"),
        pytest.param("path,label,label\nwav/a.wav,x,y\n", ("line 1", "label", "twice"), id="column-twice"),
        pytest.param("path\nwav/c.wav\n", ("line 2", "path", "'wav/c.wav'", "1 of 1"), id="missing"),
    ],
)
def test_a_bad_table_of_others_is_one_line_in_their_words(folder: Path, text: str, said: Any) -> None:
    refused(write(folder / "m.csv", text), *said)


def test_the_folders_of_an_audio_folder_say_no_split(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part).mkdir()
        (folder / part / "x.wav").touch()
    corpus = manifest.read(write(folder / "metadata.csv", "file_name\ntrain/x.wav\ntest/x.wav\n"))
    assert {(u.id, u.split) for u in corpus.utterances} == {("train/x", None), ("test/x", None)}


def test_emobox_lines_take_spk_where_speaker_is_null(folder: Path) -> None:
    row = {"key": "k", "wav": "wav/a.wav", "emo": "joy", "speaker": None, "spk": "03", "id": "other"}
    (u,) = manifest.read(write(folder / "wav/deep/m.jsonl", lines(row))).utterances
    assert (u.id, u.audio, u.label, u.speaker) == ("k", folder / "wav/a.wav", "joy", "03")


# --- a million rows ---

MEASURE = """
import resource, sys
from pathlib import Path
from bas.corpora import manifest
corpus = manifest.read(Path(sys.argv[1]))
if sys.platform == "darwin":
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
else:  # on Linux ru_maxrss begins with what the parent held
    (peak,) = (int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(len(corpus.utterances), peak // 1024)
"""


def rows(count: int) -> str:
    """Of 1000 recordings, in 5 sessions and by 300 speakers, each row another part of one."""
    labels = ("anger", "joy", "neutral", "sadness")
    return "id,audio,label,speaker,session,language,text,start,end\n" + "".join(
        f"u{i:07d},wav/{i % 1000:04d}.wav,{labels[i % 4]},s{i % 300},d{i % 5},en,text {i % 5000},{i // 1000},{i}.5\n"
        for i in range(count)
    )


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("many")
    (folder / "wav").mkdir()
    for i in range(1000):
        (folder / f"wav/{i:04d}.wav").touch()
    return folder


@pytest.mark.slow
def test_a_million_rows_fit_into_memory(thousand: Any) -> None:
    path = write(thousand / "million.csv", rows(1_000_000))
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    count, mebibytes = map(int, done.stdout.split())
    assert count == 1_000_000
    assert mebibytes < 800  # of which the imports take 100; measured: 428


@pytest.mark.slow
def test_a_bad_last_row_of_many_is_named(thousand: Any) -> None:
    text = rows(100_000)
    refused(write(thousand / "bad.csv", text + "bad,wav/0000.wav,joy,s,d,en,x,2,1\n"), "line 100002", "end", "1.0")
    doubled = text + "u0000007,wav/0000.wav,joy,s,d,en,x,0,1\n"
    refused(write(thousand / "doubled.csv", doubled), "line 100002", "id", "'u0000007'", "line 9")


def test_a_name_in_two_unicode_forms_is_one_speaker(tmp_path: Path) -> None:
    """macOS takes an accent apart; two speakers of one would stand on both sides of a split."""
    (tmp_path / "a.wav").touch()
    names = ("Jos\u00e9", "Jose\u0301")
    table = "id,audio,speaker\n" + "".join(f"{i},a.wav,{name}\n" for i, name in enumerate(names))
    assert [u.speaker for u in manifest.read(write(tmp_path / "cups.csv", table)).utterances] == ["José", "José"]


# --- marks between cells, lines in front, columns without a name ---


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_usual_mark_stands_between_cells(folder: Path, mark: str, suffix: str, end: str) -> None:
    others = "".join(sorted({",", ";", "|"} - {mark}))
    rows = [(), ("id", "audio", "text", "start"), ("a", "wav/a.wav", f'"one {mark} two"', "0.5")]
    rows += [("b", "wav/b.wav", f"x{others}y", "1")]
    table = "".join(mark.join(cells) + end for cells in rows)
    a, b = manifest.read(write(folder / f"m{suffix}", table)).utterances
    assert (a.text, a.start) == (f"one {mark} two", 0.5)
    assert b.text == f"x{others}y"


def test_a_decimal_comma_is_refused_between_semicolons_too(folder: Path) -> None:
    refused(write(folder / "m.csv", "id;audio;end\na;wav/a.wav;1,5\n"), "line 2", "end", "'1,5'", "such as 1.5")


STRAY = [
    pytest.param(["x", '"Come here', "y", 'she said "', "z"], 3, '"Come here', id="closed-later"),
    pytest.param(["x", '"Come here', "y", 'she "said" so', "z"], 3, '"Come here', id="closed-within-a-cell"),
    pytest.param(["x", "y", '"Come here'], 4, '"Come here', id="never-closed"),
    pytest.param(['"', "y", '"'], 2, '"', id="quotes-alone"),
    pytest.param(["x", '"two', 'lines"', "y"], 3, '"two', id="honest-lines"),
    pytest.param(["x", '"' + "a" * 300, '"'], 3, '"' + "a" * 40 + "...", id="long"),
]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize(("texts", "line", "cell"), STRAY)
def test_no_quote_swallows_rows(folder: Path, mark: str, texts: list[str], line: int, cell: str) -> None:
    rows = [["id", "audio", "text"], *([f"u{i}", "wav/a.wav", text] for i, text in enumerate(texts))]
    path = write(folder / "m.csv", "".join(mark.join(row) + "\n" for row in rows))
    refused(path, f"line {line}: text: {cell!r} opens a quote", "close", '"""No"" he said"', "join the lines")
    rows = [row[:1] + row[:0:-1] for row in rows]  # the text in front of another cell
    path = write(folder / "m.csv", "".join(mark.join(row) + "\n" for row in rows))
    refused(path, f"line {line}: text: ", "opens a quote")


def test_a_text_after_a_quoted_word_says_how_it_is_written(folder: Path) -> None:
    text = '"No" he said'
    refused(write(folder / "m.csv", f"id,audio,text\na,wav/a.wav,{text}\n"), "line 2", "malformed table", '"""No""')
    (u,) = manifest.read(write(folder / "m.csv", 'id,audio,text\na,wav/a.wav,"""No"" he said"\n')).utterances
    assert u.text == text


@pytest.mark.parametrize(
    ("heading", "row", "shown"),
    [
        pytest.param(",id,audio", "0,a,wav/a.wav", "(no name)", id="index"),
        pytest.param(" ,id,audio", "0,a,wav/a.wav", "(no name)", id="blank"),
        pytest.param("Unnamed: 0,id,audio", "0,a,wav/a.wav", "Unnamed: 0", id="read-twice"),
        pytest.param("unnamed:0,,id,audio", "0,1,a,wav/a.wav", "unnamed:0, (no name)", id="two"),
        pytest.param("id,audio,,", "a,wav/a.wav,,", "(no name)", id="at-the-end"),
        pytest.param(",file_name", "0,wav/a.wav", "(no name)", id="other-form"),
    ],
)
def test_a_column_without_a_name_is_not_read(folder: Path, heading: str, row: str, shown: str) -> None:
    corpus = manifest.read(write(folder / "m.csv", f"{heading}\n{row}\n"))
    assert [u.audio.name for u in corpus.utterances] == ["a.wav"]
    assert corpus.remarks == (f"columns not read: {shown}",)


def test_fields_of_json_without_a_name_are_not_read(folder: Path) -> None:
    corpus = manifest.read(write(folder / "m.jsonl", lines({"Unnamed: 0": 0, "": 1, **ROW})))
    assert corpus.remarks == ("columns not read: Unnamed: 0, (no name)",)


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        *[("sex", cell, "female") for cell in ("female", "Female", "FEMALE", "F", "f", " f ")],
        *[("gender", cell, "male") for cell in ("male", "Male", "M", "m")],
        *[("split", cell, "train") for cell in ("train", "Train", "TRAIN")],
        *[("split", cell, "valid") for cell in ("Valid", "DEV", "Val", "Validation")],
        ("split", "Test", "test"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_sex_and_split_are_read_in_any_case(folder: Path, form: str, column: str, cell: str, value: str) -> None:
    table = lines(ROW | {column: cell}) if form == "jsonl" else f"id,audio,{column}\na,wav/a.wav,{cell}\n"
    (u,) = manifest.read(write(folder / f"m.{form}", table)).utterances
    assert (u.split if column == "split" else u.sex) == value
