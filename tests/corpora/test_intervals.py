"""Word times from annotation files: TextGrids in every form that Praat writes as text, and CTM files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from refusals import refusal
from sounds import tone

from bas.corpora import Word, export, manifest
from bas.corpora.intervals import Intervals, read_ctm, read_textgrid
from bas.speech.words import word_segments

WORDS = (Word(0.25, 0.5, 'say "ja"'), Word(0.5, 0.75, "straße [2]"))
LONG = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.0
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.0
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 1.0
            text = "words"
    item [2]:
        class = "TextTier"
        name = "Words"
        xmin = 0
        xmax = 1.0
        points: size = 1
        points [1]:
            number = 0.5
            mark = "peak"
    item [3]:
        class = "IntervalTier"
        name = "Word"
        xmin = 0
        xmax = 1.0
        intervals: size = 4
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 5e-1
            text = "say ""ja"""
        intervals [3]:
            xmin = 0.5
            xmax = 0.75
            text = " straße [2] "
        intervals [4]:
            xmin = 0.75
            xmax = 1.0
            text = "SIL" 
'''
SHORT = '''File type = "ooTextFile"
Object class = "TextGrid"

0
1.0
<exists>
1
"IntervalTier"
"anna b. - words"
0
1.0
4
0
0.25
"<eps>"
0.25
0.5
"say ""ja"""
0.5
0.75
"straße [2]"
0.75
1.0
"sp"
'''


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [LONG, LONG.replace("\n", " \n"), SHORT, SHORT.replace('"ooTextFile"\nObject class =', '"ooTextFile short"\n')],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_textgrid_is_read_in_every_form(text: str, encoding: str, end: str, tmp_path: Path) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    path = write(tmp_path / "a.TextGrid", mark + text.replace("\n", end).encode(encoding))
    assert read_textgrid(path) == WORDS


@pytest.mark.parametrize("name", ["words", "WORDS", "word", "Speaker 1 - words", "x - Word"])
def test_tiers_of_words(name: str, tmp_path: Path) -> None:
    assert read_textgrid(write(tmp_path / "a.TextGrid", SHORT.replace("anna b. - words", name))) == WORDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(LONG.replace('"Word"', '"wordlist"'), "'phones', 'Words' (points), 'wordlist'", id="no-tier"),
        pytest.param(LONG.replace('"phones"', '"words"'), "several tiers of words", id="two-tiers"),
        pytest.param(SHORT.replace("<exists>", "<absent>"), "its tiers are: none", id="no-tiers"),
        pytest.param(SHORT.replace("0.5\n0.75\n", "0.5\n0.5\n"), "line 20: the interval 'straße [2]' is", id="empty"),
        pytest.param(SHORT.replace('0.25\n0.5\n"', '0.25\n"'), "line 17: xmax: found text 'say", id="lost-number"),
        pytest.param(SHORT[: SHORT.index("0.75\n1.0")], "line 21: xmin: found the end of the file", id="cut-off"),
        pytest.param(SHORT.replace("\n4\n", "\n2.5\n"), "line 12: size: 2.5; expected a whole", id="half-an-interval"),
        pytest.param(SHORT.replace('"TextGrid"', '"PitchTier"'), "no TextGrid", id="pitch"),
        pytest.param("ooBinaryFile\x08TextGrid", "line 1: file type: found the end", id="binary"),
        pytest.param("", "line 1: file type: found the end", id="nothing"),
        pytest.param(SHORT.encode("latin-1"), "neither UTF-8 nor UTF-16", id="latin-1"),
    ],
)
def test_what_is_no_textgrid_of_words_is_refused(text: str | bytes, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.TextGrid", text)
    message = refusal(read_textgrid, path)
    assert message.startswith(str(path))
    assert expected in message


CTM = """;; file channel start duration word confidence
u1 1 0.10 0.20 hello 0.98
u2 A 0.5 0.25 there

u1 1 0.05 0.05 <eps> 0.2
u1 1 0.40 0.10 you
u3 1 0.00 1.00 sil
"""


def test_a_ctm_file_holds_many_utterances(tmp_path: Path) -> None:
    words_of = read_ctm(write(tmp_path / "a.ctm", CTM))
    assert {id_: [(w.start, round(w.end, 9), w.text) for w in words] for id_, words in words_of.items()} == {
        "u1": [(0.1, 0.3, "hello"), (0.4, 0.5, "you")],
        "u2": [(0.5, 0.75, "there")],
        "u3": [],
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("u1 1 0.1 0.2", "line 8: 4 cells; expected file, channel"),
        ("u1 1 0.1 0.2 a 0.5 lex", "line 8: 7 cells"),
        ("u1 1 x 0.2 a", "line 8: start: 'x'"),
        ("u1 1 -0.1 0.2 a", "line 8: start: '-0.1'"),
        ("u1 1 0.1 nan a", "line 8: duration: 'nan'"),
        ("u1 1 0.1 0 a", "line 8: duration: '0'; expected seconds above 0"),
        ("u1 2 0.6 0.1 a", "line 8: channel: 'u1' has a second one, '2' beside '1'"),
    ],
)
def test_a_bad_line_of_a_ctm_file_is_named(line: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ctm", CTM + line + "\n")
    message = refusal(read_ctm, path)
    assert message.startswith(f"{path} ")
    assert expected in message


def test_a_ctm_file_is_read_once_and_names_who_is_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "A.CTM", CTM)
    read: list[Path] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), real(path))[1])
    annotations = Intervals(tmp_path)
    assert annotations.words("A.CTM", "u2") == (Word(0.5, 0.75, "there"),)
    assert annotations.words("A.CTM", "u3") == ()
    assert "A.CTM: no line of 'u9'; its first column" in refusal(annotations.words, "A.CTM", "u9")
    assert len(read) == 1


# In a manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("u1", "u2", "u4"):
        tone(tmp_path / "wav" / f"{name}.wav", 1.0)
    (tmp_path / "notes").mkdir()
    write(tmp_path / "notes" / "all.ctm", CTM)
    write(tmp_path / "notes" / "u4.TextGrid", LONG)
    return tmp_path


def test_a_manifest_may_name_annotation_files(folder: Path) -> None:
    table = "words,id,audio,raters\n" + "".join(
        f"{words},{id_},wav/{id_}.wav,{raters}\n"
        for id_, words, raters in (
            ("u1", "notes/all.ctm", ""),
            ("u2", '"[[0, 0.5, ""x""]]"', 20),
            ("u4", folder / "notes" / "u4.TextGrid", 1),
        )
    )
    corpus = manifest.read(write(folder / "m.csv", table))
    u1, u2, u4 = corpus.utterances
    assert [w.text for w in u1.words] == ["hello", "you"]
    assert u2.words == (Word(0, 0.5, "x"),)
    assert u4.words == WORDS
    assert (u1.raters, u2.raters, u4.raters) == (None, 20, 1)
    assert set(word_segments(corpus.utterances).source.values()) == {"corpus"}
    for name in ("n.csv", "n.jsonl"):
        export.write(corpus, folder / name)
        assert manifest.read(folder / name).utterances == corpus.utterances
    rows = [{"id": "u4", "audio": "wav/u4.wav", "words": "notes/u4.TextGrid", "raters": 3}]
    (u4,) = manifest.read(write(folder / "m.jsonl", "\n".join(map(json.dumps, rows)))).utterances
    assert (u4.words, u4.raters) == (WORDS, 3)


def test_the_id_of_an_audio_folder_s_row_is_its_recording_s(folder: Path) -> None:
    write(folder / "notes" / "b.ctm", "wav/u1 1 0.1 0.2 hello\n")
    (u1,) = manifest.read(write(folder / "m.csv", "file_name,words\nwav/u1.wav,notes/b.ctm\n")).utterances
    assert [w.text for w in u1.words] == ["hello"]


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("words", "notes/none.ctm", "words: {folder}/notes/none.ctm: cannot be read: No such file"),
        ("words", "notes/all.ctm", "words: {folder}/notes/all.ctm: no line of 'u4'"),
        ("words", "notes/u4.textgrid", "words: {folder}/notes/u4.textgrid: cannot be read"),
        ("words", "notes/u4.txt", "words: malformed JSON"),
        ("words", "notes/u4.txt", "the name of a .TextGrid or .ctm file"),
        ("raters", "0", "raters: '0' is not a number of listeners; expected a whole number from 1 on"),
        ("raters", "2.5", "raters: '2.5'"),
        ("raters", "²", "raters: '²'"),
        ("raters", "-1", "raters: '-1'"),
    ],
)
def test_a_bad_cell_is_one_line(column: str, cell: str, expected: str, folder: Path) -> None:
    path = write(folder / "m.csv", f"id,audio,{column}\nu4,wav/u4.wav,{cell}\n")
    message = refusal(manifest.read, path)
    assert message.startswith(f"{path} line 2: ")
    assert expected.format(folder=folder) in message


@pytest.mark.parametrize("value", [True, 1.0, [1], 0])
def test_raters_in_json_are_whole_numbers(value: object, folder: Path) -> None:
    row = json.dumps({"id": "u4", "audio": "wav/u4.wav", "raters": value})
    assert " line 1: raters: " in refusal(manifest.read, write(folder / "m.jsonl", row))
