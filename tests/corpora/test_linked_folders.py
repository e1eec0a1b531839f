"""The folders of every corpus as they are found on disks: links, names in any case, what other systems leave there."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from refusals import refusal
from sounds import tone

from bas.cli.main import main
from bas.corpora import Corpus, export, open_corpus
from bas.corpora.folders import Names, walk
from bas.protocols.published import emobox

HEADING = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"
EMOTIONS = "Anger,Boredom,Calmness,Concentration,Determination,Excitement,Interest,Sadness,Tiredness"
TURN = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]\n"
SILB = "0.1 das\n0.2 will\n0.3 sie\n0.4 am\n0.5 mitt\n0.6 woch\n0.7 ab\n0.8 ge\n0.9 ben\n1.0 .\n"
VOTES = ",A,D,F,H,N,S,fileName,numVotes,numResponses,emoVote\n100001,1,0,0,0,1,0,1001_DFA_ANG_XX,1,2,A\n"

# By corpus, its files with their contents; None: a recording.
TREES: dict[str, dict[str, str | None]] = {
    "aesdd": {"anger/a03 (4).wav": None, "sadness/s01 (5)a.wav": None},
    "cafe": {"Colère/Faible/01-C-1-1.wav": None, "Joie/Fort/02-J-2-3.aiff": None},
    "cremad": {
        "AudioWAV/1001_DFA_ANG_XX.wav": None,
        "AudioWAV/1040_ITH_SAD_X.wav": None,
        "VideoDemographics.csv": "ActorID,Age,Sex\n1001,51,Male\n1040,51,Female\n",
        "SentenceFilenames.csv": "Stimulus_Number,Filename\n1,1001_DFA_ANG_XX\n2,1002_DFA_ANG_XX\n",
        "processedResults/tabulatedVotes.csv": VOTES,
    },
    "emodb": {"wav/03a02Fa.wav": None, "wav/08a02Wb.wav": None, "silb/03a02Fa.silb": SILB},
    "emovo": {"f1/dis-f1-b1.wav": None, "m3/gio-m3-l2.wav": None},
    "esd": {
        "0011/Angry/0011_000351.wav": None,
        "0012/Sad/train/0012_001101.wav": None,
        "0011/0011.txt": "0011_000351\tHello.\tAngry\n",
    },
    "hume": {
        "wav/1.wav": None,
        "wav/2.wav": None,
        "lab/train.csv": f"filename,{EMOTIONS}\n1.wav" + ",0.5" * 9 + "\n",
        "lab/devel.csv": f"filename,{EMOTIONS}\n2.wav" + ",0.5" * 9 + "\n",
        "lab/test.csv": f"filename,{EMOTIONS}\n",
    },
    "iemocap": {
        "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt": TURN,
        "Session1/dialog/transcriptions/Ses01F_impro01.txt": "Ses01F_impro01_F000 [6.2901-8.2357]: Excuse me.\n",
        "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav": None,
        "Session1/sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg": "0 10 1 EXCUSE\n",
    },
    "meld": {
        "train_sent_emo.csv": f"{HEADING}Oh.,Joey,joy,0,1\n",
        "dev_sent_emo.csv": f"{HEADING}No.,Joey,anger,0,1\n",
        "test_sent_emo.csv": f"{HEADING}So?,Joey,anger,0,1\n",
        "train_splits/dia0_utt1.wav": None,
        "dev_splits_complete/dia0_utt1.flac": None,
        "output_repeated_splits_test/dia0_utt1.wav": None,
    },
    "ravdess": {f"Actor_0{a}/03-01-03-01-01-01-0{a}.wav": None for a in (1, 2)},
    "shemo": {"female/F01A01.wav": None, "male/M02N01.wav": None},
    "urdu": {"Angry/SM1_F1_A01.wav": None, "Sad/SM24_F5_S017.wav": None},
    "manifest": {"m.csv": "id,audio,words\na,wav/Märt.wav,w/a.TextGrid\nb,wav/b.wav,w/b.ctm\n", "wav/Märt.wav": None}
    | {"wav/b.wav": None, "w/b.ctm": "b 1 0.1 0.2 hello\n"}
    | {"w/a.TextGrid": '"ooTextFile" "TextGrid" 0 1 <exists> 1 "IntervalTier" "words" 0 1 1 0 1 "hello"'},
}
ROOTS = {"manifest": "m.csv"}  # else the folder


def lay(root: Path, name: str, spell: Callable[[str], str] = str) -> Path:
    """The corpus's tree; spell: changes each path. Returns what the reader reads."""
    for path, content in TREES[name].items():
        file = root / (path if path in ROOTS.values() else spell(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content or "", encoding="utf-8")
    return root / ROOTS.get(name, "")


def known(corpus: Corpus) -> list[object]:
    """All that is known of each utterance but its path."""
    return [(u.id, u.label, u.speaker, u.sex, u.session, u.split, u.text, u.shares, u.words) for u in corpus.utterances]


def upper_suffixes(path: str) -> str:
    stem, _, suffix = path.rpartition(".")
    return f"{stem}.{suffix.upper()}"


def decomposed(path: str) -> str:
    return unicodedata.normalize("NFD", path)


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("spell", [upper_suffixes, str.upper, str.lower, decomposed])
def test_names_are_read_in_any_case(name: str, spell: Callable[[str], str], tmp_path: Path) -> None:
    plain, spelt = open_corpus(name, lay(tmp_path / "a", name)), open_corpus(name, lay(tmp_path / "b", name, spell))
    assert known(spelt) == known(plain)
    assert spelt.note == plain.note
    assert all(u.audio.is_file() for u in spelt.utterances)
    if name == "manifest" and spell is str.upper:
        assert len(spelt.remarks) == 2
        assert "2 recordings have another case or form of accents on the disk: 'wav/Märt.wav' is" in spelt.remarks[0]
        assert spelt.remarks[1].startswith("2 files of words have another case")


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("how", ["folders", "files", "root", "deep"])
def test_links_are_followed(name: str, how: str, tmp_path: Path) -> None:
    """Of what lies in the corpus's folder every second is a link to another disk; or each file; or what is deepest."""
    plain = open_corpus(name, lay(tmp_path / "plain", name))
    root = lay(tmp_path / "disk", name)
    disk, here = tmp_path / "disk", tmp_path / "here"
    if how == "root":
        here.symlink_to(disk)
    elif how == "files":
        for file in TREES[name]:
            (here / file).parent.mkdir(parents=True, exist_ok=True)
            (here / file).symlink_to(disk / file)
    elif how == "folders":
        here.mkdir()
        for number, path in enumerate(sorted(disk.iterdir())):
            if number % 2 or path.name == "wav" or len(list(disk.iterdir())) == 1:
                (here / path.name).symlink_to(path)
            else:
                shutil.copytree(path, here / path.name) if path.is_dir() else shutil.copy(path, here)
    else:
        for folder in sorted({(disk / file).parent for file in TREES[name]} - {disk}):
            (here / folder.relative_to(disk)).parent.mkdir(parents=True, exist_ok=True)
            link = here / folder.relative_to(disk)
            if not link.exists():
                link.symlink_to(folder)
        for path in disk.glob("*.*"):
            shutil.copy(path, here)
    linked = open_corpus(name, here / root.relative_to(disk))
    assert known(linked) == known(plain)
    assert (linked.note, linked.remarks) == (plain.note, ())


WALKED = ("cafe", "cremad", "emovo", "esd", "ravdess", "shemo")


@pytest.mark.parametrize("name", WALKED)
def test_a_link_back_is_refused_by_name(name: str, tmp_path: Path) -> None:
    root = lay(tmp_path, name)
    folder = next(path for path in sorted(root.iterdir()) if path.is_dir())
    (folder / "again").symlink_to(root)
    message = refusal(open_corpus, name, root)
    assert message.startswith(f"{folder / 'again'}: a link that leads back to {root}, above it")


@pytest.mark.parametrize("name", WALKED)
def test_what_links_lead_to_twice_is_one_utterance(name: str, tmp_path: Path) -> None:
    root = lay(tmp_path, name)
    plain = open_corpus(name, root)
    folder = next(path for path in sorted(root.iterdir()) if path.is_dir())
    (root / "newest").mkdir()
    (root / "newest" / folder.name).symlink_to(folder)
    doubled = open_corpus(name, root)
    assert known(doubled) == known(plain)
    (remark,) = doubled.remarks
    assert remark.startswith("counted once: ")
    assert f"{root / 'newest' / folder.name}" in remark


@pytest.mark.parametrize("name", WALKED)
def test_a_second_copy_is_no_link(name: str, tmp_path: Path) -> None:
    root = lay(tmp_path, name)
    folder = next(path for path in sorted(root.iterdir()) if path.is_dir())
    shutil.copytree(folder, root / "copy" / folder.name)
    message = refusal(open_corpus, name, root)
    assert "as well; name the folder that holds only one copy of the corpus" in message


def test_a_link_by_which_the_label_would_be_another_is_refused(tmp_path: Path) -> None:
    root = lay(tmp_path, "esd")
    (root / "0011" / "Happy").symlink_to("Angry")
    (root / "0011" / "0011.txt").unlink()
    message = refusal(open_corpus, "esd", root)
    assert "Happy/0011_000351.wav: the same file as " in message


@pytest.mark.parametrize("name", [n for n in TREES if n not in ("manifest", "meld", "iemocap", "hume")])
def test_names_that_differ_in_case_alone_are_refused(name: str, tmp_path: Path) -> None:
    root = lay(tmp_path, name)
    first = next(path for path, content in TREES[name].items() if content is None)
    twin = root / upper_suffixes(first)
    twin.touch()
    message = refusal(open_corpus, name, root)
    assert str(twin) in message
    assert str(root / first) in message
    assert "differs only in case" in message


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("iemocap", "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.WAV"),
        ("meld", "Train_Sent_Emo.csv"),
        ("meld", "train_splits/DIA0_utt1.wav"),
        ("hume", "wav/1.WAV"),
        ("hume", "lab/Train.csv"),
        ("cremad", "VideoDemographics.CSV"),
        ("emodb", "Wav/x.txt"),
    ],
)
def test_files_that_are_looked_up_have_one_spelling(name: str, path: str, tmp_path: Path) -> None:
    root = lay(tmp_path, name)
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).touch()
    assert "differs only in case" in refusal(open_corpus, name, root)


@pytest.mark.parametrize("name", TREES)
def test_what_macos_leaves_is_passed_over(name: str, tmp_path: Path) -> None:
    plain = open_corpus(name, lay(tmp_path / "a", name))
    root = lay(tmp_path / "b", name)
    for path in TREES[name]:
        for beside in ((tmp_path / "b" / path).parent, tmp_path / "b" / "__MACOSX" / Path(path).parent):
            beside.mkdir(parents=True, exist_ok=True)
            (beside / f"._{Path(path).name}").write_bytes(b"\x00\x05\x16\x07")
        (tmp_path / "b" / "__MACOSX" / path).touch()
    (tmp_path / "b" / ".snapshot").symlink_to(tmp_path / "b")
    assert known(open_corpus(name, root)) == known(plain)


@pytest.mark.parametrize("name", [n for n in TREES if n not in ("manifest", "meld", "iemocap")])
def test_a_link_that_leads_nowhere_is_named(name: str, tmp_path: Path) -> None:
    """Else a disk that is not mounted makes a corpus of half its actors."""
    root = lay(tmp_path, name)
    folder = next((root / path).parent for path, content in TREES[name].items() if content is None)
    (folder / "more").symlink_to("/nowhere/at/all")
    message = refusal(open_corpus, name, root)
    assert message.startswith(
        f"{folder / 'more'}: a link that leads nowhere (to /nowhere/at/all); is its disk mounted?"
    )


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    root = lay(tmp_path, "ravdess")
    os.mkfifo(root / "Actor_01" / "03-01-03-01-01-02-01.WAV")
    assert "neither a file nor a folder" in refusal(open_corpus, "ravdess", root)
    (root / "Actor_01" / "03-01-03-01-01-02-01.WAV").unlink()
    (root / "Actor_03").symlink_to("Actor_03")
    assert "a symbolic link that leads back to itself" in refusal(open_corpus, "ravdess", root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    root = lay(tmp_path, "ravdess")
    (root / "Actor_02").chmod(0)
    message = refusal(open_corpus, "ravdess", root)
    (root / "Actor_02").chmod(0o755)
    assert message == f"{root / 'Actor_02'}: cannot be listed: Permission denied; let your user read it"


def test_the_depth_of_a_walk(tmp_path: Path) -> None:
    for path in ("a.wav", "x/b.WAV", "x/y/c.wav", "x/d.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "x" / "y" / "loop").symlink_to(tmp_path)
    names = [sorted(path.name for path in walk(tmp_path, (".wav",), levels)) for levels in (0, 1)]
    assert names == [["a.wav"], ["b.WAV"]]


def test_a_name_that_is_not_there_stays_as_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "Wav").mkdir()
    assert Names().find(tmp_path, "wav", "A.wav") == tmp_path / "Wav" / "A.wav"
    assert Names().find(tmp_path / "none", "wav") == tmp_path / "none" / "wav"


def test_a_manifest_s_exact_name_comes_first(tmp_path: Path) -> None:
    for name in ("a.wav", "A.wav"):
        (tmp_path / name).write_text(name)
    table = tmp_path / "m.csv"
    table.write_text("id,audio\nx,a.wav\ny,A.wav\n")
    corpus = open_corpus("manifest", table)
    assert [u.audio.name for u in corpus.utterances] == ["a.wav", "A.wav"]
    assert corpus.remarks == ()
    table.write_text("id,audio\nx,a.WAV\n")
    assert "differs only in case" in refusal(open_corpus, "manifest", table)


def test_an_audformat_database_in_any_case(tmp_path: Path) -> None:
    tone(tmp_path / "wav" / "a.wav", 0.1)
    (tmp_path / "m.csv").write_text("id,audio,label\na,wav/a.wav,joy\n")
    plain = open_corpus("manifest", tmp_path / "m.csv")
    from bas.corpora import audformat

    audformat.write(plain, tmp_path / "db")
    for path in list((tmp_path / "db").iterdir()):
        path.rename(path.with_name(path.name.upper()))
    assert known(open_corpus("audformat", tmp_path / "db")) == known(plain)


def test_fold_lists_in_any_case_over_links(tmp_path: Path) -> None:
    root = lay(tmp_path / "corpus", "ravdess", str.upper)
    corpus = open_corpus("ravdess", root)
    disk = tmp_path / "disk"
    for k in (1, 2):
        for part, actor in (("train", k), ("test", 3 - k)):
            path = disk / f"FOLD_{k}" / f"RAVDESS_{part.upper()}_FOLD_{k}.JSONL"
            path.parent.mkdir(parents=True, exist_ok=True)
            wav = f"downloads/ravdess/Actor_0{actor}/03-01-03-01-01-01-0{actor}.wav"
            path.write_text(json.dumps({"key": f"ravdess-{actor}", "wav": wav}) + "\n")
            (path.with_name(f"._{path.name}")).write_bytes(b"\x00\x05")
    lists = tmp_path / "lists"
    lists.mkdir()
    for path in disk.iterdir():
        (lists / path.name).symlink_to(path)
    assert [(len(fold.fit), len(fold.test)) for fold in emobox(corpus, lists)] == [(1, 1), (1, 1)]


def test_an_export_of_linked_folders_is_read_again(tmp_path: Path) -> None:
    disk = lay(tmp_path / "disk", "emovo")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "all").symlink_to(disk)
    corpus = open_corpus("emovo", tmp_path / "here")
    export.write(corpus, tmp_path / "here" / "m.csv")
    assert known(open_corpus("manifest", tmp_path / "here" / "m.csv")) == known(corpus)


OTHER_BYTES = {"cp850": b"Col\x8are", "latin-1": b"Col\xe8re", "shift-jis": b"\x93\xe1\x82\xea", "cut-off": b"Col\xc3"}
UTF8 = {"accents": "Colère", "in-two-pieces": "Cole\u0300re", "chinese": "生气"}


@pytest.mark.parametrize("name", ["cafe", "ravdess", "emovo", "shemo", "cremad"])
@pytest.mark.parametrize("encoding", OTHER_BYTES)
def test_a_name_that_is_not_utf8_is_refused_at_once(name: str, encoding: str, tmp_path: Path) -> None:
    root = lay(tmp_path, name)
    file = root / next(path for path, content in TREES[name].items() if content is None)
    other = os.fsencode(root) + b"/" + OTHER_BYTES[encoding]
    os.mkdir(other)
    os.rename(file, other + b"/" + os.fsencode(file.name))
    message = refusal(open_corpus, name, root)
    shown = OTHER_BYTES[encoding].decode("utf-8", "backslashreplace")
    assert message.startswith(
        f"{root}/{shown}/{file.name}: the name is not UTF-8, one of 1 recordings with such a path;"
    )
    assert "convmv" in message
    message.encode()


@pytest.mark.parametrize("kind", ["the root", "a link to it", "above it"])
def test_a_root_that_is_not_utf8_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/Col\x8are")
    root = lay(Path(odd) / "below" if kind == "above it" else Path(odd), "ravdess")
    if kind == "a link to it":
        (tmp_path / "link").symlink_to(odd)
        root = tmp_path / "link"
    assert "/Col\\x8are" in refusal(open_corpus, "ravdess", root)


@pytest.mark.parametrize("name", UTF8)
def test_a_name_in_utf8_is_read(name: str, tmp_path: Path) -> None:
    root = lay(tmp_path / UTF8[name], "ravdess")
    (root / "Actor_01").rename(root / UTF8[name])
    assert len(open_corpus("ravdess", root).utterances) == 2


@pytest.mark.parametrize(
    "command",
    [
        "corpus show --corpus cafe --root ODD",
        "extract --corpus cafe --root ODD --encoder log-mel",
        "extract --corpus cafe --root good --encoder log-mel --features ODD",
        "protocol make --corpus cafe --root good --protocol speaker:2 --to ODD.json",
        "corpus export --corpus cafe --root good --to ODD.csv",
        "compare --features ODD",
        "compare --features x --name ODD",
        "ODD",
    ],
)
def test_no_argument_ends_in_a_traceback(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lay(tmp_path / "good", "cafe")
    odd = os.fsdecode(b"Col\x8are")
    assert main(command.replace("ODD", odd).split()) == 2
    assert "Col\\x8are" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_a_working_folder_that_is_not_utf8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/Col\x8are")
    monkeypatch.chdir(os.fsdecode(os.fsencode(tmp_path) + b"/Col\x8are"))
    assert main(["corpus", "show", "--corpus", "cafe", "--root", "."]) == 2
    assert "Col\\x8are: the name is not UTF-8;" in capsys.readouterr().err
