"""The readers of AESDD, ShEMO, URDU and Hume-Prosody against trees in their real layouts, and the common labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from refusals import refusal

import bas.corpora
from bas.corpora import READERS, Corpus, Utterance, open_corpus
from bas.corpora.labels import SCHEMES, relabel
from bas.corpora.readers import synthetic
from bas.protocols.rules import make
from bas.tasks import Shares

HIDDEN = b"\x00\x05\x16\x07"  # what macOS writes into its ._ files


def put(root: Path, *names: str) -> Path:
    """Empty files, and beside each of their folders what does not belong to the corpus."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for folder in {(root / name).parent for name in names}:
        (folder / "._a.wav").write_bytes(HIDDEN)
        (folder / ".DS_Store").touch()
        (folder / "Readme.txt").touch()
    return root


def aesdd(root: Path) -> Path:
    folders = ("anger", "disgust", "fear", "happiness", "sadness")
    takes = {f"{e[0]}{s:02} ({n})": e for e in folders for s in range(1, 21) for n in range(1, 7)}
    for absent in ("d18 (5)", "f02 (4)", "h11 (3)"):
        del takes[absent]
    for plain in ("f10 (1)", "f11 (1)", "f12 (1)", "f13 (1)", "d03 (1)"):
        takes[plain.replace("(1)", "(01)")] = takes.pop(plain)
    for twice in ("a06", "d01", "d03", "d04", "f18", "s01", "s02", "s04"):
        takes[f"{twice} (5)b"] = takes[f"{twice} (5)"]
    takes["s01 (5)a"] = takes.pop("s01 (5)")
    return put(root, *(f"{folder}/{name}.wav" for name, folder in takes.items()))


SHEMO = {"A": 1059, "F": 38, "H": 201, "N": 1028, "S": 449, "W": 225}


def shemo(root: Path) -> Path:
    """The published count of each emotion, dealt out to the 87 speakers in turn."""
    speakers = [f"F{n:02}" for n in range(1, 32)] + [f"M{n:02}" for n in range(1, 57)]
    names = [f"{speakers[i % 87]}{letter}{i // 87 + 1:02}.wav" for letter, count in SHEMO.items() for i in range(count)]
    folders = {"F": "female", "M": "male"}
    return put(root, *(f"{folders[name[0]]}/{name}" for name in names))


URDU = {
    "Angry": "SM1 22, SM2 28, SM3 2, SM4 48",
    "Happy": "SF1 12, SF2 2, SF3 2, SF4 4, SF5 4, SF6 14, SF7 6, SF8 2, SM17 2, SM18 2, SM19 2, SM3 2, SM5 8, SM6 10, "
    "SM7 28",
    "Neutral": "SF9 4, SM20 10, SM21 4, SM22 2, SM3 8, SM5 72",
    "Sad": "SF10 2, SF11 4, SM23 6, SM24 38, SM25 40, SM26 2, SM27 4, SM6 4",
}


def urdu(root: Path) -> Path:
    names = []
    for folder, spoken in URDU.items():
        counts = [pair.split() for pair in spoken.split(", ")]
        takes = [f"{speaker}_F{take + 1}" for speaker, count in counts for take in range(int(count))]
        names += [f"{folder}/{take}_{folder[0]}0{number + 1}.wav" for number, take in enumerate(takes)]
    return put(root, *names)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By corpus, the folder that holds all of it. A test leaves it as it was."""
    return {build.__name__: build(tmp_path_factory.mktemp(build.__name__)) for build in (aesdd, shemo, urdu)}


@pytest.mark.parametrize(
    ("name", "labels", "speakers", "sexes", "language"),
    [
        ("aesdd", {"anger": 121, "disgust": 122, "fear": 120, "happiness": 119, "sadness": 123}, 6, {None: 605}, "el"),
        (
            "shemo",
            {"anger": 1059, "fear": 38, "happiness": 201, "neutral": 1028, "sadness": 449, "surprise": 225},
            87,
            {"female": 1141, "male": 1859},
            "fa",
        ),
        ("urdu", {"angry": 100, "happy": 100, "neutral": 100, "sad": 100}, 29, {"female": 56, "male": 344}, "ur"),
    ],
)
def test_a_complete_corpus_has_the_published_counts(
    complete: dict[str, Path],
    name: str,
    labels: dict[str, int],
    speakers: int,
    sexes: dict[str | None, int],
    language: str,
) -> None:
    corpus = open_corpus(name, complete[name])
    assert Counter(u.label for u in corpus.utterances) == labels
    assert len({u.speaker for u in corpus.utterances}) == speakers
    assert Counter(u.sex for u in corpus.utterances) == sexes
    assert {u.language for u in corpus.utterances} == {language}
    assert all(u.audio.is_file() and u.id == u.audio.stem for u in corpus.utterances)
    assert (corpus.name, corpus.protocol, corpus.unit, corpus.note) == (name, "speaker:5", "speaker", "")


@pytest.mark.parametrize(
    ("name", "file", "fields"),
    [
        ("aesdd", "f10 (01)", ("fear", "1", None, "10")),
        ("aesdd", "s01 (5)a", ("sadness", "5", None, "01")),
        ("aesdd", "h20 (6)", ("happiness", "6", None, None)),  # improvised
        ("shemo", "F31F01", ("fear", "F31", "female", None)),
        ("shemo", "M02W01", ("surprise", "M02", "male", None)),
        ("urdu", "SF9_F4_N04", ("neutral", "SF9", "female", None)),
        ("urdu", "SM4_F48_A0100", ("angry", "SM4", "male", None)),
    ],
)
def test_fields_are_those_of_the_file_name(
    complete: dict[str, Path], name: str, file: str, fields: tuple[str | None, ...]
) -> None:
    (one,) = [u for u in open_corpus(name, complete[name]).utterances if u.id == file]
    assert (one.label, one.speaker, one.sex, one.text) == fields


def test_shemo_may_lie_in_one_folder(tmp_path: Path) -> None:
    corpus = open_corpus("shemo", put(tmp_path, "F03N02.wav", "M01A01.wav"))
    assert [u.sex for u in corpus.utterances] == ["female", "male"]
    assert "F03N02.wav as well" in refusal(open_corpus, "shemo", put(tmp_path, "female/F03N02.wav"))


@pytest.mark.parametrize(
    ("name", "files", "note"),
    [
        ("aesdd", ["fear/f10 (01).wav"], "incomplete: 604 of 605 utterances; missing: f10 (1)"),
        ("aesdd", ["sadness/s01 (5)a.wav"], "incomplete: 604 of 605 utterances; missing: s01 (5)a"),
        ("shemo", ["male/M03F01.wav"], "incomplete: 2999 of 3000 utterances; missing: fear: 1 of 38"),
        ("urdu", ["Sad/SM24_F5_S017.wav"], "incomplete: 399 of 400 utterances; missing: SM24_F5_S017"),
        (
            "urdu",
            [f"Neutral/SM5_F{n}_N0{n + 28}.wav" for n in range(1, 8)],
            "incomplete: 393 of 400 utterances; missing: SM5_F1_N029, SM5_F2_N030, SM5_F3_N031, SM5_F4_N032, "
            "SM5_F5_N033 and 2 more",
        ),
    ],
)
def test_what_is_missing_is_told_by_name(complete: dict[str, Path], name: str, files: list[str], note: str) -> None:
    for file in files:
        (complete[name] / file).unlink()
    corpus = open_corpus(name, complete[name])
    put(complete[name], *files)
    assert corpus.note == note


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("aesdd", "anger/x01 (1).wav", "unknown emotion letter 'x'; allowed: a, d, f, h, s"),
        ("aesdd", "anger/a21 (1).wav", "unknown utterance number '21'; allowed: 01, 02"),
        ("aesdd", "anger/a01 (7).wav", "unknown speaker '7'; allowed: 1, 2, 3, 4, 5, 6"),
        ("aesdd", "fear/a01 (1).wav", "name says anger, its folder 'fear'"),
        ("aesdd", "anger/a1 (1).wav", "expected one like a03 (4).wav"),
        ("shemo", "male/M01X01.wav", "unknown emotion letter 'X'; allowed: A, F, H, N, S, W"),
        ("shemo", "male/M57N01.wav", "unknown speaker 'M57'; allowed: F01"),
        ("shemo", "female/M01N01.wav", "name says male, its folder 'female'"),
        ("shemo", "M1N01.wav", "expected one like F21N05.wav"),
        ("urdu", "Angry/SM1_F1_X01.wav", "unknown emotion letter 'X'; allowed: A, H, N, S"),
        ("urdu", "Angry/SM8_F1_A01.wav", "unknown speaker 'SM8'; allowed: SM1"),
        ("urdu", "Happy/SM1_F1_A01.wav", "name says angry, its folder 'Happy'"),
        ("urdu", "Angry/SM1_A01.wav", "expected one like SM24_F5_S017.wav"),
    ],
)
def test_a_reader_never_guesses(tmp_path: Path, name: str, file: str, said: str) -> None:
    message = refusal(open_corpus, name, put(tmp_path, file))
    assert message.startswith(f"{tmp_path / file}: ")
    assert said in message


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("aesdd", "anger/a01 (1).wav"),
        ("shemo", "female/F01A01.wav"),
        ("urdu", "Angry/SM1_F1_A01.wav"),
        ("hume", "wav/31746.wav"),
    ],
)
def test_nothing_at_all_is_refused(tmp_path: Path, name: str, holds: str) -> None:
    put(tmp_path, "wav/notes.md")
    message = refusal(open_corpus, name, tmp_path)
    assert message.startswith(f"{tmp_path}: no recording found; the folder holds ")
    assert holds in message


# --- Hume-Prosody ---

EMOTIONS = "Anger,Boredom,Calmness,Concentration,Determination,Excitement,Interest,Sadness,Tiredness"
HEARD = "0.0,0.0,0.1111111111111111,0.0,0.3333333333333333,1.0,0.0,0.0,0.0"
BLIND = ",".join("?" * 9)


def hume(root: Path, parts: dict[str, list[str]], heading: str = f"filename,{EMOTIONS}") -> Path:
    """The lists, and a recording for each of their rows."""
    for part, rows in parts.items():
        put(root, f"lab/{part}.csv", *(f"wav/{row.partition(',')[0]}" for row in rows))
        (root / f"lab/{part}.csv").write_text("\n".join((heading, *rows, "")))
    return root


UNKNOWN = "who speaks is unknown: each recording counts as a speaker of its own, so intervals are too narrow"
PARTS = {
    "train": [f"00001.wav,{HEARD}", f"00002.wav,{HEARD}"],
    "devel": [f"31747.wav,{HEARD}"],
    "test": [f"41671.wav,{BLIND}", f"41672.wav,{HEARD}"],
}


def test_hume_reads_shares_and_parts(tmp_path: Path) -> None:
    corpus = open_corpus("hume", hume(tmp_path, PARTS))
    splits = {"00001": "train", "00002": "train", "31747": "valid", "41671": "test", "41672": "test"}
    assert {u.id: u.split for u in corpus.utterances} == splits
    shares = {u.id: dict(u.shares) for u in corpus.utterances}
    assert shares["31747"] == dict(zip(EMOTIONS.lower().split(","), map(float, HEARD.split(",")), strict=True))
    assert shares["41671"] == {}
    assert shares["41672"] == shares["00001"]
    assert {(u.label, u.speaker, u.sex, u.language) for u in corpus.utterances} == {(None, None, None, None)}
    assert all(u.audio == tmp_path / f"wav/{u.id}.wav" for u in corpus.utterances)
    assert (corpus.protocol, corpus.unit, corpus.published, corpus.note) == ("own", "id", True, UNKNOWN)


def test_hume_with_a_blind_test_part_is_tested_on_devel(tmp_path: Path) -> None:
    rows = {
        "train": [f"0000{n}.wav,{HEARD}" for n in range(6)],
        "devel": [f"31747.wav,{HEARD}", f"31748.wav,{HEARD}"],
        "test": [f"41671.wav,{BLIND}"],
    }
    corpus = open_corpus("hume", hume(tmp_path, rows))
    assert corpus.note == f"{UNKNOWN}; the test part is blind: devel is tested on, and valid is held out from train"
    (fold,) = make(corpus, Shares()).folds
    assert fold.test == ("31747", "31748")
    assert len(fold.fit) + len(fold.valid) == 6
    assert fold.valid


def test_hume_names_rows_without_a_recording(tmp_path: Path) -> None:
    hume(tmp_path, PARTS)
    (tmp_path / "wav/00002.wav").unlink()
    put(tmp_path, "wav/99999.wav")  # in no list
    corpus = open_corpus("hume", tmp_path)
    assert [u.id for u in corpus.utterances] == ["00001", "31747", "41671", "41672"]
    assert corpus.note == f"incomplete: 4 of 5 utterances; missing: 00002; {UNKNOWN}"


@pytest.mark.parametrize("share", ["1.5", "-0.1", "?", "", "nan", "high"])
@pytest.mark.parametrize("part", ["train", "devel", "test"])
def test_hume_refuses_a_share_that_is_none(tmp_path: Path, part: str, share: str) -> None:
    row = f"00009.wav,{HEARD.replace('1.0', share)}"
    message = refusal(open_corpus, "hume", hume(tmp_path, PARTS | {part: [*PARTS[part][:1], row]}))
    assert f"lab/{part}.csv line 3: Excitement is {share!r}; expected a share of 0 to 1" in message


def test_hume_refuses_a_short_row_and_blind_training(tmp_path: Path) -> None:
    message = refusal(open_corpus, "hume", hume(tmp_path / "short", PARTS | {"devel": ["31747.wav,0.5"]}))
    assert "devel.csv line 2: Boredom is None" in message
    message = refusal(open_corpus, "hume", hume(tmp_path / "blind", PARTS | {"devel": [f"31747.wav,{BLIND}"]}))
    assert "devel.csv line 2: Anger is '?'" in message


def test_hume_names_a_missing_list_column_and_a_foreign_recording(tmp_path: Path) -> None:
    hume(tmp_path / "list", PARTS)
    (tmp_path / "list/lab/devel.csv").unlink()
    assert "lab/devel.csv: no such file" in refusal(open_corpus, "hume", tmp_path / "list")
    hume(tmp_path / "column", PARTS, heading=f"filename,{EMOTIONS.replace('Interest', 'Joy')}")
    assert "lab/train.csv: no column 'Interest'" in refusal(open_corpus, "hume", tmp_path / "column")
    put(hume(tmp_path / "foreign", PARTS), "wav/Ses01F.wav")
    assert "Ses01F.wav: not a file name" in refusal(open_corpus, "hume", tmp_path / "foreign")


# --- the common labels ---


def labelled(*labels: str | None, note: str = "") -> Corpus:
    utterances = tuple(Utterance(f"u{i}", Path(f"u{i}.wav"), label) for i, label in enumerate(labels))
    return Corpus("mine", utterances, protocol="own", unit="speaker", note=note)


def words(module: ModuleType) -> set[str]:
    """The labels in a reader's table."""
    tables = [getattr(module, name) for name in ("EMOTIONS", "LABELS") if hasattr(module, name)]
    return {word for table in tables for word in table.values() if word is not None}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_label_of_every_reader_is_in_the_table(scheme: str) -> None:
    modules = [getattr(bas.corpora, name) for name in READERS if name not in ("manifest", "audformat", "demo", "hume")]
    said = {module.__name__.rpartition(".")[2]: words(module) for module in modules}
    assert [name for name, listed in said.items() if not listed] == []
    assert set().union(*said.values(), synthetic.RULES) == set(SCHEMES[scheme])


@pytest.mark.parametrize(
    ("scheme", "labels", "note"),
    [
        (
            "common",
            ("anger", "happiness", "happiness", "fear", "surprise", "sadness", "disgust", "neutral", None, None, None),
            "labels common: 2 boredom, 1 calm left out",
        ),
        (
            "four",
            ("anger", "happiness", "happiness", None, None, "sadness", None, "neutral", None, None, None),
            "labels four: 2 boredom, 1 calm, 1 disgust, 1 fearful, 1 surprised left out",
        ),
    ],
)
def test_labels_are_renamed_on_request(scheme: str, labels: tuple[str | None, ...], note: str) -> None:
    own = ("angry", "joy", "happy", "fearful", "surprised", "sad", "disgust", "neutral", "boredom", "boredom", "calm")
    corpus = labelled(*own)
    renamed = relabel(corpus, scheme)
    assert tuple(u.label for u in renamed.utterances[:2]) == labels[:2]
    assert {u.id: u.label for u in renamed.utterances} == {f"u{i}": label for i, label in enumerate(labels)}
    assert renamed.note == note
    assert renamed == replace(corpus, utterances=renamed.utterances, labels=scheme, note=note)
    assert {u.id: u.label for u in corpus.utterances} == {f"u{i}": label for i, label in enumerate(own)}


def test_the_note_keeps_what_it_said(tmp_path: Path) -> None:
    renamed = relabel(labelled("sad", None, note="incomplete: 2 of 3 utterances"), "common")
    assert renamed.note == "incomplete: 2 of 3 utterances; labels common"
    assert [u.label for u in renamed.utterances] == ["sadness", None]


def test_unknown_words_and_schemes_are_refused() -> None:
    message = refusal(relabel, labelled("sad", "melancholy"), "common")
    assert "corpus mine: labels common do not know 'melancholy' of utterance 'u1'; allowed: anger, angry, " in message
    assert refusal(relabel, labelled("sad"), "two").startswith(
        "--labels two: must be a scheme, common or four, or a table: .csv, "
    )
