"""Shares of listeners: EmoDB's perception test and CREMA-D's votes in their real layouts, and what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from places import EMODB
from refusals import refusal

from bas.corpora import Corpus, export, open_corpus

needs_emodb = pytest.mark.skipif(
    not (EMODB / "erkennung.txt").is_file(), reason=f"no EmoDB with erkennung.txt: {EMODB}"
)


def lay(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def shares(corpus: Corpus) -> dict[str, tuple[dict[str, float], int | None]]:
    return {u.id: (dict(u.shares), u.raters) for u in corpus.utterances}


# EmoDB

HEADING = "Nr.\tSatz\terkannt\tnatuerlich\n"
ROWS = (
    "3\xa0\xa0\t03a01Fa.wav\t90,00\xa0\xa0\xa0\xa0\xa0\t75,00\xa0\xa0\xa0\xa0\xa0\n"
    "4\xa0\xa0\t03a01Lb.wav\t70,00\xa0\xa0\xa0\xa0\xa0\t35,00\xa0\xa0\xa0\xa0\xa0\n"
    "5\xa0\xa0\t03b03Wc.wav\t95,24\xa0\xa0\xa0\xa0\xa0\t100,00\xa0\xa0\xa0\n"
)


def emodb(root: Path, table: str | None = HEADING + ROWS, newline: str = "\n") -> Path:
    lay(root, "wav/03a01Fa.wav", "wav/03b03Wc.wav", "wav/16b10Wb.wav")
    if table is not None:
        (root / "erkennung.txt").write_bytes(table.replace("\n", newline).encode("latin-1"))
    return root


@needs_emodb
def test_every_take_of_emodb_was_judged() -> None:
    corpus = open_corpus("emodb", EMODB)
    assert corpus.headlines == ("WA", "Spearman natural")
    shares_of = shares(corpus)
    assert shares_of["03a01Fa"] == ({"natural": 0.75, "recognised": 0.9}, 20)
    assert shares_of["16b10Wb"] == ({"natural": 0.75, "recognised": 1.0}, 20)
    assert shares_of["03b03Wc"] == ({"natural": 18 / 21, "recognised": 20 / 21}, 21)
    assert {tuple(name for name, _ in u.shares) for u in corpus.utterances} == {("natural", "recognised")}
    assert Counter(raters for _, raters in shares_of.values()) == {20: 483, 21: 52}
    assert {id_[2:5] for id_, (_, raters) in shares_of.items() if raters == 21} == {"b03"}
    assert min(shares_by_name["recognised"] for shares_by_name, _ in shares_of.values()) == 0.8  # what was distributed
    for shares_by_name, raters in shares_of.values():
        assert raters is not None
        assert all(abs(share * raters - round(share * raters)) < 1e-9 for share in shares_by_name.values())


@needs_emodb
def test_the_percentages_are_those_of_the_file() -> None:
    rows = (EMODB / "erkennung.txt").read_bytes().decode("latin-1").replace("\xa0", "").replace(",", ".").split("\n")
    percentages = {
        take[:-4]: (recognised, natural) for _, take, recognised, natural in (r.split("\t") for r in rows[1:-1])
    }
    for u in open_corpus("emodb", EMODB).utterances:
        by_name = dict(u.shares)
        assert (f"{100 * by_name['recognised']:.2f}", f"{100 * by_name['natural']:.2f}") == percentages[u.id]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_emodb_reads_shares_by_take(tmp_path: Path, newline: str) -> None:
    assert shares(open_corpus("emodb", emodb(tmp_path, newline=newline))) == {
        "03a01Fa": ({"natural": 0.75, "recognised": 0.9}, 20),
        "03b03Wc": ({"natural": 1.0, "recognised": 20 / 21}, 21),
        "16b10Wb": ({}, None),
    }
    assert shares(open_corpus("emodb", tmp_path / "wav")) == shares(open_corpus("emodb", tmp_path))


def test_emodb_without_the_table_has_no_shares(tmp_path: Path) -> None:
    assert set(map(str, shares(open_corpus("emodb", emodb(tmp_path, None))).values())) == {"({}, None)"}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "line 1: must be the columns Nr., Satz, erkannt, natuerlich"),
        (ROWS, "line 1: must be the columns"),
        (HEADING.replace("\t", ";") + ROWS, "line 1: must be the columns"),
        (HEADING + "1\t03a01Fa.wav\t90,00\n", "line 2: 3 fields; expected Nr., Satz, erkannt, natuerlich"),
        (HEADING + ROWS + "6\t03a01Nc.wav\tviele\t95,00\n", "line 5: erkannt is 'viele'; expected a percentage"),
        (HEADING + "6\t03a01Nc.wav\t100,00\t-5,00\n", "line 2: natuerlich is '-5,00'; expected a percentage"),
        (HEADING + "6\t03a01Nc.wav\t105,00\t5,00\n", "line 2: erkannt is '105,00'; expected a percentage"),
        (HEADING + "6\t03a01Nc.wav\tnan\t5,00\n", "line 2: erkannt is 'nan'; expected a percentage"),
        (
            HEADING + "6\t03a01Nc.wav\t93,00\t95,00\n",
            "erkannt 93,00 and natuerlich 95,00 are not the percentages of 20",
        ),
        (HEADING + "6\t03a01Nc.wav\t95,24\t95,00\n", "line 2: erkannt 95,24 and natuerlich 95,00 are not"),
        (HEADING + "6\t03a01Nc\t100,00\t95,00\n", "line 2: Satz is '03a01Nc'; expected a take such as 03a01Fa.wav"),
        (HEADING + ROWS + ROWS, "line 5: Satz is '03a01Fa.wav'; expected a take such as 03a01Fa.wav, each once"),
    ],
)
def test_emodb_refuses_a_table_that_is_none(tmp_path: Path, table: str, said: str) -> None:
    message = refusal(open_corpus, "emodb", emodb(tmp_path, table))
    assert message.startswith(f"{tmp_path / 'erkennung.txt'} line ")
    assert said in message


# CREMA-D

COLUMNS = '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
VOTES = (
    '"100001",0,0,0,1,10,0,"1001_IEO_NEU_XX",11,0.909090909090909,"N"\n'
    '"103000",0,0,2,0,0,6,"1040_ITH_SAD_XX",8,0.75,"S"\n'
    '"200001",5,0,0,0,0,0,"1001_IEO_NEU_XX",5,1,"A"\n'
    '"300001",0,0,0,0,5,5,"1001_IEO_NEU_XX",10,0.5,"N:S"\n'
)


def cremad(root: Path, table: str | None = COLUMNS + VOTES) -> Path:
    """With the one file that is named other than the distribution's lists name it, and one without a row."""
    names = ("1001_IEO_NEU_XX", "1040_ITH_SAD_X", "1001_DFA_ANG_XX")
    lay(root, *(f"AudioWAV/{name}.wav" for name in names))
    if table is not None:
        (root / "processedResults").mkdir()
        (root / "processedResults/tabulatedVotes.csv").write_text(table)
    return root


def test_cremad_counts_who_heard_the_voice_alone(tmp_path: Path) -> None:
    none = dict.fromkeys(("anger", "disgust", "fear", "happy", "neutral", "sad"), 0.0)
    expected = {
        "1001_IEO_NEU_XX": (none | {"happy": 1 / 11, "neutral": 10 / 11}, 11),
        "1040_ITH_SAD_X": (none | {"fear": 0.25, "sad": 0.75}, 8),
        "1001_DFA_ANG_XX": ({}, None),
    }
    assert shares(open_corpus("cremad", cremad(tmp_path))) == expected
    assert shares(open_corpus("cremad", tmp_path / "AudioWAV")) == expected


def test_cremad_without_the_votes_has_no_shares(tmp_path: Path) -> None:
    assert not open_corpus("cremad", cremad(tmp_path, None)).labelled("shares")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\n", "no column ''; needed: , fileName, numResponses, A, D, F"),
        (COLUMNS.replace('"H"', '"J"') + VOTES, "no column 'H'; needed: "),
        (COLUMNS + VOTES.replace(",10,0,", ",9,0,", 1), "row 100001 (1001_IEO_NEU_XX): numResponses is 11, the votes"),
        (COLUMNS + VOTES.replace(",10,0,", ",NA,0,", 1), "row 100001 (1001_IEO_NEU_XX): numResponses '11', votes 0, 0"),
        (COLUMNS + '"100001",0,0,0,0,0,0,"1001_IEO_NEU_XX",0,0,""\n', "numResponses is 0"),
        (COLUMNS + '"100001",1\n', "expected whole numbers"),
        (COLUMNS + VOTES + VOTES, "row 100001 (1001_IEO_NEU_XX): the second row of this clip's voice"),
    ],
)
def test_cremad_refuses_votes_that_are_none(tmp_path: Path, table: str, said: str) -> None:
    message = refusal(open_corpus, "cremad", cremad(tmp_path, table))
    assert message.startswith(f"{tmp_path / 'processedResults/tabulatedVotes.csv'}: ")
    assert said in message


# Written as a manifest


@pytest.mark.parametrize("suffix", export.SUFFIXES)
def test_shares_and_raters_come_back_from_a_manifest(tmp_path: Path, suffix: str) -> None:
    for name, made in (("emodb", emodb(tmp_path / "emodb")), ("cremad", cremad(tmp_path / "cremad"))):
        corpus = open_corpus(name, made)
        export.write(corpus, tmp_path / f"{name}{suffix}")
        again = open_corpus("manifest", tmp_path / f"{name}{suffix}")
        assert [(u.shares, u.raters) for u in again.utterances] == [(u.shares, u.raters) for u in corpus.utterances]
