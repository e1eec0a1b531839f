"""RAVDESS, CREMA-D, EMOVO, CaFE and ESD against complete trees in their real layouts, the recordings empty."""

# mypy: disable-error-code="list-item"

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from refusals import refusal

from bas.corpora import open_corpus


def lay(root: Path, names: list[str]) -> Path:
    """Empty files: the first, and links to it, which are made far faster."""
    for folder in {(root / name).parent for name in names}:
        folder.mkdir(parents=True, exist_ok=True)
    first = root / names[0]
    first.touch(exist_ok=False)
    for name in names[1:]:
        (root / name).hardlink_to(first)
    return root


def text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def ravdess() -> list[str]:
    codes = product(range(1, 25), range(1, 9), (1, 2), (1, 2), (1, 2))
    return [
        f"Actor_{actor:02}/03-01-{emotion:02}-0{intensity}-0{sentence}-0{repetition}-{actor:02}.wav"
        for actor, emotion, intensity, sentence, repetition in codes
        if (emotion, intensity) != (1, 2)
    ]


MEANT = ("NEU", "HAP", "SAD", "ANG", "FEA", "DIS")
OTHERS = ("TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")


def cremad() -> list[str]:
    """The names in the distribution's list; 20 of all that could be are not there."""
    absent = {f"{1001 + i}_TIE_{code}_XX" for code in MEANT for i in range(5 if code == "NEU" else 3)}
    names = [f"{actor}_{s}_{code}_XX" for actor, s, code in product(range(1001, 1092), OTHERS, MEANT)]
    names += [f"{actor}_IEO_NEU_XX" for actor in range(1001, 1092)]
    names += [f"{a}_IEO_{code}_{level}" for a, code, level in product(range(1001, 1092), MEANT[1:], ("LO", "MD", "HI"))]
    return [name for name in names if name not in absent]


def emovo() -> list[str]:
    sentences = ("b1", "b2", "b3", "l1", "l2", "l3", "l4", "n1", "n2", "n3", "n4", "n5", "d1", "d2")
    emotions = ("dis", "gio", "neu", "pau", "rab", "sor", "tri")
    codes = product(("f1", "f2", "f3", "m1", "m2", "m3"), emotions, sentences)
    return [f"{actor}/{emotion}-{actor}-{sentence}.wav" for actor, emotion, sentence in codes]


# Two of the folders as a zip with accents comes out of a common program.
FRENCH = ("Col\u0160re", "D\u201ago\u2013t", "Joie", "Neutre", "Peur", "Surprise", "Tristesse")


def cafe(suffix: str = ".wav") -> list[str]:
    codes = product(FRENCH, ((1, "Faible/"), (2, "Fort/")), range(1, 13), range(1, 7))
    return [
        f"{folder}/{'' if folder == 'Neutre' else degree}{actor:02}-{folder[0]}-{intensity}-{sentence}{suffix}"
        for folder, (intensity, degree), actor, sentence in codes
        if (folder, intensity) != ("Neutre", 2)
    ]


def esd(speaker: int, parts: bool) -> list[str]:
    def part(sentence: int) -> str:
        return "" if not parts else "evaluation/" if sentence <= 20 else "test/" if sentence <= 50 else "train/"

    return [
        f"{speaker:04}/{folder}/{part(sentence)}{speaker:04}_{350 * block + sentence:06}.wav"
        for block, folder in enumerate(("Neutral", "Angry", "Happy", "Sad", "Surprise"))
        for sentence in range(1, 351)
    ]


TRANSCRIPTS = (  # utterance, what parts the three, text, emotion, encoding
    ("0001_000001", "\t", "打远一看，它们的确很是美丽，", "中立", "gb2312"),
    ("0002_000701", "\t", "打远一看，", "快乐", "utf-8-sig"),
    ("0003_000351", "\t", "它们的确很是美丽，", "生气", "utf-16"),
    ("0011_001072", " ", "And I know why.", "Sad", "ascii"),
    ("0016_001401", "\t", "It’s me.", "Surprise", "gb2312"),
    ("0017_001051", "\t", "It´s\xa0not me.", "Sad", "latin-1"),
)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All five, each in a folder of its name; ESD's Mandarin speakers as in its flat release, the English in parts."""
    root = tmp_path_factory.mktemp("complete")
    lay(root / "ravdess", ravdess())
    renamed = [name.replace("1040_ITH_SAD_XX", "1040_ITH_SAD_X") for name in cremad()]
    lay(root / "cremad", [f"AudioWAV/{name}.wav" for name in renamed])
    rows = "".join(f'{actor},30,"{"Male" if actor < 1049 else "Female"}",""\n' for actor in range(1001, 1092))
    text(root / "cremad/VideoDemographics.csv", '"ActorID","Age","Sex","Race"\n' + rows)
    rows = "".join(f'{number},"{name}"\n' for number, name in enumerate(cremad(), 1))
    text(root / "cremad/SentenceFilenames.csv", '"Stimulus_Number","Filename"\n' + rows)
    lay(root / "emovo", emovo())
    lay(root / "cafe", cafe())
    for speaker in range(1, 21):
        lay(root / "esd", esd(speaker, parts=speaker > 10))
    lay(root / "esd", ["ReadMe.txt", "0011/._0011.txt", "__MACOSX/0011/Sad/._0011_001051.wav", "0011/Sad/._x.wav"])
    for utterance, blank, said, emotion, encoding in TRANSCRIPTS:
        line = f"\r\n{utterance}{blank}{said}{blank}{emotion}\r\n"
        text(root / f"esd/{utterance[:4]}/{utterance[:4]}.txt", line.encode(encoding))
    yield root
    shutil.rmtree(root)  # 45,000 files: pytest would keep three generations of them


WORDS = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
LABELS = {
    "ravdess": {"neutral": 96}
    | dict.fromkeys(("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 192),
    "cremad": {"neutral": 1087} | dict.fromkeys(("anger", "disgust", "fear", "happy", "sad"), 1271),
    "emovo": dict.fromkeys(WORDS, 84),
    "cafe": dict.fromkeys(WORDS, 144) | {"neutral": 72},
    "esd": dict.fromkeys(("neutral", "angry", "happy", "sad", "surprise"), 7000),
}
MEN = {"ravdess": 12, "cremad": 48, "emovo": 3, "cafe": 6, "esd": 10}
WOMEN = MEN | {"cremad": 43}
TEXTS = {"ravdess": 2, "cremad": 12, "emovo": 14, "cafe": 6, "esd": 7}  # ESD: six are known


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELS)
def test_complete_trees_have_the_published_counts(complete: Any, name: str) -> None:
    corpus = open_corpus(name, complete / name)
    assert Counter(u.label for u in corpus.utterances) == LABELS[name]
    assert (corpus.name, corpus.protocol, corpus.unit, corpus.note) == (name, "speaker:5", "speaker", "")
    assert all(u.id == u.audio.stem and u.audio.is_file() and u.session is None for u in corpus.utterances)
    sexes = {(u.speaker, u.sex) for u in corpus.utterances}
    assert Counter(sex for _, sex in sexes) == {"male": MEN[name], "female": WOMEN[name]}
    assert len({u.text for u in corpus.utterances}) == TEXTS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ravdess", ("03-01-06-02-02-01-12", "fearful", "12", "female", "en", "Dogs are sitting by the door.")),
        ("ravdess", ("03-01-08-01-01-02-23", "surprised", "23", "male", "en", "Kids are talking by the door.")),
        ("cremad", ("1040_ITH_SAD_X", "sad", "1040", "male", "en", "I think I have a doctor's appointment.")),
        ("cremad", ("1091_IEO_FEA_MD", "fear", "1091", "female", "en", "It's eleven o'clock.")),
        ("emovo", ("gio-f2-d1", "joy", "f2", "female", "it", "Sabato sera cosa farà?")),
        ("emovo", ("sor-m3-n4", "surprise", "m3", "male", "it", "Insalata pastasciutta coscia d'agnello limoncello.")),
        ("cafe", ("01-C-1-2", "anger", "01", "male", "fr", "Deux ânes aigris au pelage brun.")),
        ("cafe", ("12-D-2-6", "disgust", "12", "female", "fr", "Six ours aimants domestiqués.")),
    ],
)
def test_fields_come_from_the_file_name(complete: Any, name: str, expected: Any) -> None:
    (u,) = [u for u in open_corpus(name, complete / name).utterances if u.id == expected[0]]
    assert (u.id, u.label, u.speaker, u.sex, u.language, u.text) == expected


ONE = {
    "ravdess": "Actor_01/03-01-05-02-01-01-01.wav",
    "cremad": "AudioWAV/1001_DFA_ANG_XX.wav",
    "emovo": "f1/dis-f1-b1.wav",
    "cafe": "Joie/Faible/01-J-1-1.wav",
    "esd": "0011/Angry/train/0011_000401.wav",
}


@pytest.mark.parametrize("name", ["ravdess", "cremad", "emovo", "cafe"])
def test_a_missing_file_is_named(complete: Any, name: str) -> None:
    path, total = complete / name / ONE[name], sum(LABELS[name].values())
    path.unlink()
    note = open_corpus(name, complete / name).note
    path.touch()
    assert note == f"incomplete: {total - 1} of {total} utterances; missing: {path.stem}"


@pytest.mark.parametrize("name", ONE)
def test_the_folder_above_and_the_one_below_will_do(tmp_path: Path, name: str) -> None:
    root = lay(tmp_path / "zip/inner", [ONE[name]])
    corpus = open_corpus(name, root)
    assert open_corpus(name, tmp_path) == open_corpus(name, root / Path(ONE[name]).parts[0]) == corpus
    assert corpus.note.startswith(f"incomplete: 1 of {sum(LABELS[name].values())} utterances")


@pytest.mark.parametrize("name", ONE)
def test_hidden_and_foreign_files_do_not_disturb(tmp_path: Path, name: str) -> None:
    hidden = Path(ONE[name]).with_name(f"._{Path(ONE[name]).name}")
    lay(tmp_path, [str(hidden), "README.txt", "documents/sheet.pdf"])
    assert f"{tmp_path}: no recording found; the folder holds" in refusal(open_corpus, name, tmp_path)
    assert len(open_corpus(name, lay(tmp_path, [ONE[name]])).utterances) == 1


@pytest.mark.parametrize("name", ONE)
def test_a_second_copy_is_refused(tmp_path: Path, name: str) -> None:
    message = refusal(open_corpus, name, lay(tmp_path, [f"one/{ONE[name]}", f"two/{ONE[name]}"]))
    assert message.startswith(f"{tmp_path / 'two' / ONE[name]}: there is {tmp_path / 'one' / ONE[name]} as well")


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("ravdess", "03-01-09-01-01-01-01.wav", "emotion '09'; allowed: 01, 02, 03, 04, 05, 06, 07, 08"),
        ("ravdess", "03-01-01-01-03-01-01.wav", "sentence '03'; allowed: 01, 02"),
        ("ravdess", "03-01-01-01-01-01-25.wav", "actor '25'; allowed: 01, 02, "),
        ("ravdess", "03-01-01-01-01-01.wav", "expected one like 03-01-"),
        ("cremad", "1001_DFA_SUR_XX.wav", "emotion 'SUR'; allowed: ANG, DIS, FEA, HAP, NEU, SAD"),
        ("cremad", "1001_ABC_ANG_XX.wav", "sentence 'ABC'; allowed: IEO, TIE, "),
        ("cremad", "1092_DFA_ANG_XX.wav", "actor '1092'; allowed: 1001, 1002, "),
        ("cremad", "1001_DFA_ANG_X.wav", "expected one like 1001_DFA_ANG_XX.wav"),
        ("emovo", "amo-f1-b1.wav", "emotion 'amo'; allowed: dis, gio, "),
        ("emovo", "dis-f4-b1.wav", "actor 'f4'; allowed: f1, f2, f3, m1, m2, m3"),
        ("emovo", "dis-f1-b4.wav", "sentence 'b4'; allowed: b1, b2, b3, l1, "),
        ("cafe", "01-X-1-1.wav", "emotion 'X'; allowed: C, D, J, N, P, S, T"),
        ("cafe", "13-C-1-1.wav", "actor '13'; allowed: 01, 02, "),
        ("cafe", "01-C-1-7.wav", "sentence '7'; allowed: 1, 2, 3, 4, 5, 6"),
        ("esd", "0011/Fear/0011_000001.wav", "'Fear'; allowed: Neutral, Angry, Happy, Sad, Surprise"),
        ("esd", "0021/Sad/0021_001051.wav", "speaker '0021'; allowed: 0001, 0002, "),
        ("esd", "0011/Sad/0011_001751.wav", "utterance number '001751'; allowed: 000001 to 001750"),
        ("esd", "0011/Sad/sad.wav", "expected one like 0011_000351.wav"),
    ],
)
def test_unknown_codes_are_refused(tmp_path: Path, name: str, path: Path, said: Any) -> None:
    lay(tmp_path, [ONE[name], path])
    message = refusal(open_corpus, name, tmp_path)
    assert message.startswith(f"{tmp_path / path}: ")
    assert said in message


def test_ravdess_leaves_songs_and_videos_out(tmp_path: Path) -> None:
    others = ["Actor_01/03-02-05-02-01-01-01.wav", "Actor_01/01-01-05-02-01-01-01.wav"]
    assert "2 recordings, but none of speech" in refusal(open_corpus, "ravdess", lay(tmp_path, others))
    corpus = open_corpus("ravdess", lay(tmp_path, [ONE["ravdess"], "Actor_01/02-01-05-02-01-01-01.mp4"]))
    assert [u.id for u in corpus.utterances] == ["03-01-05-02-01-01-01"]


def test_cremad_without_its_tables_knows_no_sex_and_names_nothing(tmp_path: Path) -> None:
    corpus = open_corpus("cremad", lay(tmp_path, [ONE["cremad"]]))
    assert (corpus.utterances[0].sex, corpus.note) == (None, "incomplete: 1 of 7442 utterances")


@pytest.mark.parametrize(
    ("content", "said"),
    [("ActorID,Age\n1001,51\n", "no column 'Sex'"), ("ActorID,Sex\n1001,M\n", "sex 'M'; allowed: Female, Male")],
)
def test_cremad_refuses_a_broken_table(tmp_path: Path, content: Any, said: Any) -> None:
    table = text(lay(tmp_path, [ONE["cremad"]]) / "VideoDemographics.csv", content)
    assert refusal(open_corpus, "cremad", tmp_path).startswith(f"{table}: ")
    assert said in refusal(open_corpus, "cremad", tmp_path)


def test_cafe_reads_the_two_halves_of_the_192_khz_copy(tmp_path: Path) -> None:
    names = cafe(".aiff")
    lay(tmp_path, [f"CaFE_192k_{1 + 2 * i // len(names)}/{name}" for i, name in enumerate(names)])
    assert open_corpus("cafe", tmp_path).note == ""
    lay(tmp_path / "CaFE_48k", cafe())
    assert "only one copy" in refusal(open_corpus, "cafe", tmp_path)


def test_esd_reads_languages_parts_and_transcripts_in_all_their_encodings(complete: Any) -> None:
    corpus = open_corpus("esd", complete / "esd")
    assert corpus.published
    mandarin = {u.speaker for u in corpus.utterances if u.language == "zh"}
    assert mandarin == {f"{n:04}" for n in range(1, 11)}
    female = "0001 0002 0003 0007 0009 0015 0016 0017 0018 0019"
    assert {u.speaker for u in corpus.utterances if u.sex == "female"} == set(female.split())
    sizes = Counter((u.language, u.split) for u in corpus.utterances)
    assert sizes == {(i, s): 50 * n for i in ("zh", "en") for s, n in (("train", 300), ("valid", 20), ("test", 30))}
    assert {(u.id, u.text) for u in corpus.utterances if u.text} == {(i, said) for i, _, said, _, _ in TRANSCRIPTS}


def test_esd_names_missing_utterances_and_whole_speakers(complete: Any) -> None:
    path = complete / "esd/0012/Sad/train/0012_001400.wav"
    path.unlink()
    note = open_corpus("esd", complete / "esd/0012").note
    path.touch()
    named = "0012_001400, all of 0001, all of 0002, all of 0003, all of 0004 and 15 more"
    assert note == f"incomplete: 1749 of 35000 utterances; missing: {named}"


@pytest.mark.parametrize(
    ("speaker", "content", "said"),
    [
        ("0011", "\n0011_000401\tNo.\tSad\n", " line 2: 0011_000401 is sad here, but its recording lies in Angry"),
        ("0011", "0011_000401\tNo.\tCross\n", " line 1: unknown emotion 'Cross'; allowed: Neutral, Angry, "),
        ("0011", "0011_000401\tAngry\n", " line 1: '0011_000401\\tAngry' is not an utterance"),
        ("0001", "0001_000401\t打远一看\t生气\n".encode("big5", "replace"), ": neither UTF-8"),
        ("0011", "0011_000401\tIt’s me.\tAngry\n".encode() + b"\xff", ": neither UTF-8"),
        ("0011", "0011_000401\tIt’s me.\tAngry\n".encode("utf-16") + b"\n", ": neither UTF-8"),
    ],
    ids=["contradiction", "emotion", "form", "Big5", "broken UTF-8", "broken UTF-16"],
)
def test_esd_refuses_a_bad_transcript(tmp_path: Path, speaker: Any, content: Any, said: Any) -> None:
    lay(tmp_path, [f"{speaker}/Angry/{speaker}_000401.wav"])
    transcript = text(tmp_path / speaker / f"{speaker}.txt", content)
    assert refusal(open_corpus, "esd", tmp_path).startswith(f"{transcript}{said}")
