"""Word times from annotation files: TextGrids in every form that Praat writes as text, and CTM files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from refusals import refusal
from sounds import tone

from bas.corpora import Word, export, manifest
from bas.corpora.intervals import TEXTGRID_BYTES, Intervals, Left, read_ctm, read_textgrid
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
    assert read_textgrid(path, Left()) == WORDS


@pytest.mark.parametrize("name", ["words", "WORDS", "word", "Speaker 1 - words", "x - Word"])
def test_tiers_of_words(name: str, tmp_path: Path) -> None:
    assert read_textgrid(write(tmp_path / "a.TextGrid", SHORT.replace("anna b. - words", name)), Left()) == WORDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(LONG.replace('"Word"', '"wordlist"'), "'phones', 'Words' (points), 'wordlist'", id="no-tier"),
        pytest.param(LONG.replace('"phones"', '"words"'), "several tiers of words", id="two-tiers"),
        pytest.param(SHORT.replace("<exists>", "<absent>"), "its tiers are: none", id="no-tiers"),
        pytest.param(SHORT.replace("0.5\n0.75\n", "0.5\n0.4\n"), "line 20: the interval 'straße [2]' is", id="back"),
        pytest.param(SHORT.replace("0.5\n0.75\n", "-1\n0.75\n"), "line 20: the interval 'straße [2]' is", id="minus"),
        pytest.param(SHORT.replace('"sp"', '"sp'), "line 24: text: a text without its closing quote", id="unclosed"),
        pytest.param(SHORT.replace('0.25\n0.5\n"', '0.25\n"'), "line 17: xmax: found text 'say", id="lost-number"),
        pytest.param(SHORT[: SHORT.index("0.75\n1.0")], "line 21: xmin: found the end of the file", id="cut-off"),
        pytest.param(SHORT.replace("\n4\n", "\n2.5\n"), "line 12: size: 2.5; expected a whole", id="half-an-interval"),
        pytest.param(SHORT.replace('"TextGrid"', '"PitchTier"'), "no TextGrid", id="pitch"),
        pytest.param("ooBinaryFile\x08TextGrid", "line 1: file type: found the end", id="binary"),
        pytest.param("", "line 1: file type: found the end", id="nothing"),
        pytest.param(SHORT.replace("\n4\n", "\n3\n"), "line 22: size: found number '0.75', expected the end", id="few"),
        pytest.param(SHORT.replace("\n4\n", "\n0\n"), "line 13: size: found number '0', expected the end", id="none"),
        pytest.param(SHORT + '"more"\n', "line 25: size: found text 'more', expected the end", id="more"),
        pytest.param(SHORT + '"more\n', "line 25: size: a text without its closing quote", id="more-unclosed"),
        pytest.param(LONG.replace("size = 4", "size = 2"), "expected the end of the file, as the sizes", id="few-long"),
        pytest.param(
            LONG.replace("size = 3", "size = 2"), "expected the end of the file, as the sizes", id="few-tiers"
        ),
        pytest.param(
            LONG.replace("points: size = 1", "points: size = 0"), "class: found number '0.5'", id="few-points"
        ),
        pytest.param(SHORT.encode("latin-1"), "neither UTF-8 nor UTF-16", id="latin-1"),
    ],
)
def test_what_is_no_textgrid_of_words_is_refused(text: str | bytes, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.TextGrid", text)
    message = refusal(read_textgrid, path, Left())
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
    words_of = read_ctm(write(tmp_path / "a.ctm", CTM), Left())
    assert {id_: [(w.start, round(w.end, 9), w.text) for w in words] for id_, words in words_of.items()} == {
        "u1": [(0.1, 0.3, "hello"), (0.4, 0.5, "you")],
        "u2": [(0.5, 0.75, "there")],
        "u3": [],
    }


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("u1 1 0.1 0.2", "line 8: 4 cells; expected file, channel"),
        ("u1 1 0.1 0.2 a 0.5 lex spk more", "line 8: 9 cells"),
        ("u1 1 0.1 0.2 ice cream 0.5", "line 8: confidence: 'cream'; expected a number or NA, and words without"),
        ("u1 1 0.1 0.2 a 0.5 lexeme spk", "line 8: type: unknown 'lexeme'; allowed: lex, frag, fp, un-lex"),
        ("u1 1 * * <ALT>", "line 8: <ALT> without the one before it"),
        ("u1 1 * * <ALT_END>", "line 8: <ALT_END> without the one before it"),
        ("u1 1 * * <ALT_BEGIN>\nu1 1 * * <ALT_BEGIN>", "line 9: <ALT_BEGIN> without"),
        ("u1 1 x 0.2 a", "line 8: start: 'x'"),
        ("u1 1 -0.1 0.2 a", "line 8: start: '-0.1'"),
        ("u1 1 0.1 nan a", "line 8: duration: 'nan'"),
        ("u1 1 0.1 -0.2 a", "line 8: duration: '-0.2'"),
        ("u1 2 0.6 0.1 a", "line 8: channel: 'u1' has a second one, '2' beside '1'"),
    ],
)
def test_a_bad_line_of_a_ctm_file_is_named(line: str, expected: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ctm", CTM + line + "\n")
    message = refusal(read_ctm, path, Left())
    assert message.startswith(f"{path} ")
    assert expected in message


def test_a_ctm_file_is_read_once_and_names_who_is_not_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "A.CTM", CTM)
    read: list[Path] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: (read.append(path), real(path, *how))[1])
    annotations = Intervals(tmp_path)
    assert annotations.words("A.CTM", "u2", "") == (Word(0.5, 0.75, "there"),)
    assert annotations.words("A.CTM", "u3", "") == ()
    assert annotations.words("A.CTM", "u9", "") == ()
    annotations.check()
    assert annotations.remarks[0] == "no line in the files of words for 1 utterances: 'u9'"
    assert len(read) == 1


FORMS = {
    "sctk": "{i} 1 {a} {d} {w} 0.98",
    "kaldi": "{i} 1 {a} {d} {w}",
    "nemo": "{i} 1 {a} {d} {w} NA lex NA",
    "evaluation": "{i} 1 {a} {d} {w} 0.98 lex spk1",
    "type-alone": "{i} A {a} {d} {w} 1e-3 LEX",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_ctm_file_of_every_tool(form: str, tmp_path: Path) -> None:
    rows = [("u1", 0.5, 0.25, "you"), ("u1", 0.25, 0.25, "hello"), ("u2", 0, 1, "straße")]
    lines = [FORMS[form].format(i=i, a=a, d=d, w=w) for i, a, d, w in rows]
    words = read_ctm(write(tmp_path / "a.ctm", "\r\n".join([";; made by a tool", *lines])), left := Left())
    assert words == {"u1": (Word(0.25, 0.5, "hello"), Word(0.5, 0.75, "you")), "u2": (Word(0, 1, "straße"),)}
    assert left.remarks == ()


def test_what_is_no_word_of_a_ctm_file_is_left_out_and_counted(tmp_path: Path) -> None:
    lines = (
        *("u1 1 0.0 0.1 <eps> NA", "u1 1 0.0 0.1 @ NA", "u1 1 0.0 0.1 SIL", "u1 1 0.0 0.1 <sil> 1 lex"),
        *("u1 1 0.1 0.1 [noise]", "u1 1 0.1 0.1 <Laugh> 1 lex a", "u1 1 0.1 0.1 %hesitation", "u1 1 0.1 0.1 [noise]"),
        *("u1 1 0.2 0.1 breath 1 non-lex a", "u1 1 0.3 0 it", "u1 1 0.3 0.0 it", "u1 1 1e9 1e-9 so"),
        *("u1 1 0.4 0.1 <unk>", "u1 1 0.5 0.1 well- 1 frag a", "u1 1 0.6 0.1 uh 1 fp a", "u2 1 0.1 0 alone"),
        *("u1 1 * * <ALT_BEGIN>", "u1 1 0.7 0.1 one", "u1 1 * * <ALT>", "u1 1 0.7 0.1 won", "u1 1 * * <ALT_END>"),
        *("u1 1 * * <alt_begin>", "u1 1 0.8 0.1 @", "u1 1 * * <alt>", "u1 1 0.8 0.1 um", "u1 1 * * <alt_end>"),
    )
    words = read_ctm(write(tmp_path / "a.ctm", "\n".join(lines)), left := Left())
    assert [word.text for word in words["u1"]] == ["<unk>", "well-", "uh", "one"]
    assert words["u2"] == ()
    assert left.remarks == (
        "left out: 4 words without a duration, it (2), so (1), alone (1)",
        "left out: 5 marks that are no words, [noise] (2), <Laugh> (1), %hesitation (1) and 1 others",
        "of 2 alternatives (<ALT_BEGIN>) the first is taken",
    )


def test_what_is_no_word_of_a_textgrid_is_left_out_and_counted(tmp_path: Path) -> None:
    text = SHORT.replace("0.5\n0.75\n", "0.5\n0.5\n").replace('"sp"', '"<laugh>"')
    assert read_textgrid(write(tmp_path / "a.TextGrid", text), left := Left()) == WORDS[:1]
    assert left.remarks == (
        "left out: 1 words without a duration, straße [2] (1)",
        "left out: 1 marks that are no words, <laugh> (1)",
    )


def test_a_broken_textgrid_ends_in_time_and_memory(tmp_path: Path) -> None:
    """An unclosed quote was searched for anew from every quote, with a step of backtracking for each character."""
    many = SHORT.replace('"sp"', '"' + 'x "" ' * 500_000)
    assert "a text without its closing quote" in refusal(read_textgrid, write(tmp_path / "a.TextGrid", many), Left())
    with (tmp_path / "b.TextGrid").open("wb") as file:
        file.truncate(TEXTGRID_BYTES + 1)
    assert "64 MiB that such a file may have" in refusal(read_textgrid, tmp_path / "b.TextGrid", Left())


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


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_words_without_a_duration_are_left_out_with_a_remark(suffix: str, folder: Path) -> None:
    write(folder / "notes" / "zero.ctm", "u1 1 0.1 0 a\nu1 1 0.2 0.1 b\n")
    rows = [("u1", "notes/zero.ctm"), ("u2", '[[0, 0, "x"], [0.5, 0.75, "y"]]')]
    if suffix == ".csv":
        table = "id,audio,words\n" + "".join(f'{i},wav/{i}.wav,"{w.replace(chr(34), chr(34) * 2)}"\n' for i, w in rows)
    else:
        table = "\n".join(json.dumps({"id": i, "audio": f"wav/{i}.wav", "words": w}) for i, w in rows)
    corpus = manifest.read(write(folder / f"m{suffix}", table))
    assert [[w.text for w in u.words] for u in corpus.utterances] == [["b"], ["y"]]
    assert corpus.remarks == ("left out: 2 words without a duration, a (1), x (1)",)


NAMES = [
    pytest.param("u1", "wav/u1.wav", "U1", id="case"),
    pytest.param("u1", "wav/u1.wav", "u1.wav", id="suffix"),
    pytest.param("u1", "wav/u1.wav", "U1.WAV", id="suffix-in-capitals"),
    pytest.param("a.1", "wav/u1.wav", "u1", id="recording"),
    pytest.param("a.1", "wav/u1.wav", "U1.flac", id="recording-of-another-format"),
    pytest.param("one/U1.wav", "wav/u1.wav", "one/u1", id="id-with-suffix"),
]


@pytest.mark.parametrize(("id_", "audio", "name"), NAMES)
def test_a_ctm_file_may_name_an_utterance_in_another_way(id_: str, audio: str, name: str, folder: Path) -> None:
    write(folder / "b.ctm", f"{name} 1 0.1 0.2 hello\nv2 1 0.1 0.2 you\n")
    table = f"id,audio,words\n{id_},{audio},b.ctm\nv2,wav/u2.wav,b.ctm\nv4,wav/u4.wav,b.ctm\n"
    corpus = manifest.read(write(folder / "m.csv", table))
    assert {u.id: [w.text for w in u.words] for u in corpus.utterances} == {id_: ["hello"], "v2": ["you"], "v4": []}
    assert corpus.remarks == (
        f"1 utterances have another name in the files of words: {id_!r} is {name!r}, the first",
        "no line in the files of words for 1 utterances: 'v4'",
    )


def test_what_an_utterance_is_called_comes_before_what_it_is_nearly_called(folder: Path) -> None:
    write(folder / "b.ctm", "".join(f"{name} 1 0.1 0.2 {name}\n" for name in ("U1", "u1", "u1.wav")))
    (u1,) = manifest.read(write(folder / "m.csv", "id,audio,words\nu1,wav/u1.wav,b.ctm\n")).utterances
    assert [w.text for w in u1.words] == ["u1"]
    path = write(folder / "m.csv", "id,audio,words\nu2,wav/u1.wav,b.ctm\n")
    assert "'U1' and 'u1' may both be 'u2'; name one of them as the id" in refusal(manifest.read, path)


@pytest.mark.parametrize("ids", [("U1", "u1"), ("u1", "U1"), ("x", "y")])
def test_no_two_utterances_have_the_words_of_one(ids: tuple[str, str], folder: Path) -> None:
    write(folder / "b.ctm", "u1 1 0.1 0.2 hello\n")
    path = write(folder / "m.csv", "id,audio,words\n" + "".join(f"{id_},wav/u1.wav,b.ctm\n" for id_ in ids))
    message = refusal(manifest.read, path)
    assert f"line 3: words: {folder / 'b.ctm'}: 'u1' has the words of {ids[0]!r}, and may be {ids[1]!r} too" in message


@pytest.mark.parametrize("times", ["0,0.5", "0.5,"])
def test_a_part_of_a_recording_has_not_the_words_of_the_whole(times: str, folder: Path) -> None:
    write(folder / "b.ctm", "u1 1 0.1 0.2 hello\nv2 1 0.1 0.2 you\n")
    table = f"id,audio,words,start,end\nx,wav/u1.wav,b.ctm,{times}\nv2,wav/u2.wav,b.ctm,,\n"
    corpus = manifest.read(write(folder / "m.csv", table))
    assert {u.id: len(u.words) for u in corpus.utterances} == {"x": 0, "v2": 1}


@pytest.mark.parametrize("content", ["", ";; a comment\n", "x 1 0.1 0.2 hello\n", "u 1 0.1 0.2 hello\n"])
def test_a_ctm_file_of_other_utterances_is_refused(content: str, folder: Path) -> None:
    write(folder / "b.ctm", content)
    path = write(folder / "m.csv", "id,audio,words\na,wav/u1.wav,b.ctm\nb,wav/u2.wav,b.ctm\n")
    has = f"it has {content[0]!r}" if content and content[0] != ";" else "it has no line at all"
    message = (
        f"{path} line 2: words: {folder / 'b.ctm'}: no line of 'a' nor of any other that names this file; its first "
    )
    assert refusal(manifest.read, path) == f"{message}column holds the utterances' ids or recordings' names, {has}"


def test_a_ctm_file_of_its_own_may_be_empty(folder: Path) -> None:
    """As an aligner writes it where nothing was said."""
    write(folder / "a.ctm", "a 1 0.1 0.2 hello\n")
    write(folder / "b.ctm", "")
    corpus = manifest.read(write(folder / "m.csv", "id,audio,words\na,wav/u1.wav,a.ctm\nb,wav/u2.wav,b.ctm\n"))
    assert [len(u.words) for u in corpus.utterances] == [1, 0]
    assert corpus.remarks == ("no line in the files of words for 1 utterances: 'b'",)
    write(folder / "b.ctm", "c 1 0.1 0.2 hello\n")
    assert "line 3: words" in refusal(manifest.read, folder / "m.csv")


def test_the_id_of_an_audio_folder_s_row_is_its_recording_s(folder: Path) -> None:
    write(folder / "notes" / "b.ctm", "wav/u1 1 0.1 0.2 hello\n")
    (u1,) = manifest.read(write(folder / "m.csv", "file_name,words\nwav/u1.wav,notes/b.ctm\n")).utterances
    assert [w.text for w in u1.words] == ["hello"]


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("words", "notes/none.ctm", "words: {folder}/notes/none.ctm: cannot be read: No such file"),
        ("words", "notes/all.ctm", "words: {folder}/notes/all.ctm: no line of 'u4'"),
        ("words", "notes/u5.textgrid", "words: {folder}/notes/u5.textgrid: cannot be read"),
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
