"""The readers against small trees in the layouts the corpora are handed out in, and against the real EmoDB."""

from __future__ import annotations

import wave
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from places import EMODB

from bas.corpora import READERS, Corpus, Word, open_corpus
from bas.corpora.readers.meld import PARTS
from bas.errors import UserError

needs_emodb = pytest.mark.skipif(not EMODB.is_dir(), reason=f"the EmoDB recordings are not at {EMODB}")


FOUR = ("emodb", "iemocap", "meld", "manifest")


def write(path: Path, text: str | bytes = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(name: str, root: Path, *parts: str) -> str:
    """The one line with which the reader refuses `root`; it must hold all `parts`."""
    with pytest.raises(UserError) as caught:
        open_corpus(name, root)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message
    return message


def by_id(corpus: Corpus) -> dict[str, Any]:
    return {u.id: u for u in corpus.utterances}


# --- the front door ---


def test_unknown_corpus_lists_the_known(tmp_path: Path) -> None:
    refused("emodbb", tmp_path, "'emodbb'", *READERS)


@pytest.mark.parametrize("name", FOUR)
def test_missing_root_is_named(tmp_path: Path, name: str) -> None:
    refused(name, tmp_path / "nowhere", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", FOUR)
def test_empty_folder_is_refused(tmp_path: Path, name: str) -> None:
    refused(name, tmp_path, str(tmp_path))


# --- EmoDB ---


@needs_emodb
def test_emodb_has_the_published_counts() -> None:
    corpus = open_corpus("emodb", EMODB)
    published = {"anger": 127, "boredom": 81, "disgust": 46, "fear": 69, "happiness": 71, "sadness": 62, "neutral": 79}
    assert Counter(u.label for u in corpus.utterances) == published
    sexes = {(u.sex, u.speaker) for u in corpus.utterances}
    assert {speaker for sex, speaker in sexes if sex == "male"} == {"03", "10", "11", "12", "15"}
    assert {speaker for sex, speaker in sexes if sex == "female"} == {"08", "09", "13", "14", "16"}
    assert (corpus.protocol, corpus.unit, corpus.note) == ("speaker:5", "speaker", "")
    assert all(u.language == "de" and u.session is None and u.split is None for u in corpus.utterances)
    alone = open_corpus("emodb", EMODB / "wav")
    assert alone == corpus  # the words as well: silb/ is found beside wav/


@needs_emodb
def test_emodb_words_are_the_sentence_inside_the_recording() -> None:
    utterances = by_id(open_corpus("emodb", EMODB))
    assert [w.text for w in utterances["03a01Fa"].words] == ["Der", "Lappen", "liegt", "auf", "dem", "Eisschrank"]
    assert [u.id for u in utterances.values() if not u.words] == ["13a01Wb"]  # its label file is empty
    for u in utterances.values():
        with wave.open(str(u.audio)) as audio:
            seconds = audio.getnframes() / audio.getframerate()
        times = [time for word in u.words for time in (word.start, word.end)]
        assert times == sorted(times), u.id
        assert all(0 <= word.start < word.end <= seconds for word in u.words), u.id
        assert not u.words or " ".join(w.text for w in u.words) == "".join(c for c in u.text if c not in ".,?"), u.id


SILB = "0.1\tdas\n0.3\twill\n0.5\tsie\n0.7\tam\n0.9\tmitt\n1.0\twoch\n1.2\t(\n1.5\tab\n1.6\tge\n1.8\tben\n2.0\t.\n"


def test_emodb_words_keep_pauses_out(tmp_path: Path) -> None:
    write(tmp_path / "wav/03a02Wb.wav")
    write(tmp_path / "wav/._03a02Wb.wav")
    write(tmp_path / "silb/03a02Wb.silb", SILB)
    corpus = open_corpus("emodb", tmp_path)
    (utterance,) = corpus.utterances
    assert utterance.text == "Das will sie am Mittwoch abgeben."
    assert utterance.words[-2:] == (Word(0.9, 1.2, "Mittwoch"), Word(1.5, 2.0, "abgeben"))
    assert corpus.note == "incomplete: 1 of 535 utterances"


def test_emodb_names_what_its_syllable_labels_know(tmp_path: Path) -> None:
    for name in ("03a02Wb", "._16b10Wb", "16b10Wa"):
        write(tmp_path / f"silb/{name}.silb", SILB)
    write(tmp_path / "lablaut/03a04Waxx.lablaut")  # a take that was labelled and never distributed
    write(tmp_path / "wav/03a02Wb.wav")
    assert open_corpus("emodb", tmp_path).note == "incomplete: 1 of 535 utterances; missing: 16b10Wa"


@pytest.mark.parametrize(
    "silb",
    [
        "",
        SILB.replace("0.7\tam\n", ""),
        SILB.replace("\tdas", "\ter"),
        SILB.replace("2.0\t.\n", ""),
        SILB.replace("1.6\t", "1.9\t"),
    ],
    ids=["empty", "a syllable short", "another word", "no end", "times go back"],
)
def test_emodb_leaves_out_words_that_do_not_fit(tmp_path: Path, silb: Any) -> None:
    write(tmp_path / "wav/03a02Wb.wav")
    write(tmp_path / "silb/03a02Wb.silb", silb)
    assert open_corpus("emodb", tmp_path).utterances[0].words == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("03a02Xb", "emotion letter 'X'; allowed: W, L, E, A, F, T, N"),
        ("03c02Wb", "sentence code 'c02'; allowed: a01"),
        ("04a02Wb", "speaker '04'; allowed: 03, 08, 09, 10"),
        ("3a02Wb", "03a01Fa.wav"),
    ],
)
def test_emodb_refuses_an_unknown_code(tmp_path: Path, name: str, said: Any) -> None:
    refused("emodb", write(tmp_path / f"wav/{name}.wav").parents[1], f"{name}.wav", said)


def test_emodb_refuses_a_broken_label_file(tmp_path: Path) -> None:
    write(tmp_path / "wav/03a02Wb.wav")
    write(tmp_path / "silb/03a02Wb.silb", SILB.replace("0.3", "soon"))
    refused("emodb", tmp_path, "03a02Wb.silb line 2", "soon")


# --- IEMOCAP ---


def iemocap(root: Path, turns: dict[str, str], number: int = 1, dialog: str = "Ses01F_impro01") -> Path:
    """One dialog with its raters' lines, the transcript, and an empty wav for each turn."""
    session = root / f"Session{number}"
    labels, texts = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", "F: (laughs)\n"
    for turn, code in turns.items():
        write(session / f"sentences/wav/{dialog}/{turn}.wav")
        labels += f"[6.2901 - 8.2357]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]\n"
        labels += "C-E2:\tNeutral;\t()\nC-F1:\tNeutral;\t(curious)\nA-E3:\tval 3; act 2; dom  2;\t()\n\n"
        texts += f"{turn} [006.2901-008.2357]: Excuse me.\n"
    write(session / f"dialog/EmoEvaluation/{dialog}.txt", labels)
    write(session / f"dialog/EmoEvaluation/._{dialog}.txt", b"\x00\x05\x16\x07\n[junk")
    write(session / f"dialog/EmoEvaluation/Categorical/{dialog}_e2_cat.txt", "Ses01F_impro01_F000 :Neutral state; ()\n")
    write(session / f"dialog/transcriptions/{dialog}.txt", texts)
    return root


CODES = ("neu", "exc", "hap", "ang", "sad", "fru", "xxx", "sur", "fea", "dis", "oth")


def test_iemocap_keeps_four_classes_and_merges_excited(tmp_path: Path) -> None:
    iemocap(tmp_path, {f"Ses01F_impro01_F{i:03}": code for i, code in enumerate(CODES)})
    iemocap(tmp_path, {"Ses02M_script01_1_M000": "exc"}, 2, "Ses02M_script01_1")
    corpus = open_corpus("iemocap", tmp_path)
    assert Counter(u.label for u in corpus.utterances) == {"neutral": 1, "happy": 3, "angry": 1, "sad": 1}
    assert (corpus.protocol, corpus.unit) == ("session", "session")
    assert corpus.note == "incomplete: 6 of 5531 utterances; missing: Session3, Session4, Session5"
    assert {(u.session, u.script) for u in corpus.utterances} == {("Ses01", "impro01"), ("Ses02", "script01")}
    assert by_id(corpus)["Ses02M_script01_1_M000"].audio.is_file()


def test_iemocap_speaker_is_the_one_of_the_turn(tmp_path: Path) -> None:
    utterances = by_id(open_corpus("iemocap", iemocap(tmp_path, dict.fromkeys(TURNS, "neu"))))
    speakers = {i: (u.speaker, u.sex) for i, u in utterances.items()}
    assert speakers == {TURNS[0]: ("Ses01F", "female"), TURNS[1]: ("Ses01M", "male")}
    assert {u.text for u in utterances.values()} == {"Excuse me."}


TURNS = ("Ses01F_impro01_F000", "Ses01F_impro01_M003")  # both from the dialog in which the woman wore the markers


def test_iemocap_words_are_frames_of_ten_milliseconds(tmp_path: Path) -> None:
    iemocap(tmp_path, dict.fromkeys(TURNS, "neu"))
    wdseg = (
        "\tSFrm\tEFrm\tSegAScr\tWord\n\t0\t12\t-1000\t<s>\n\t13\t60\t-2000\tEXCUSE\n\t61\t65\t-9\t<sil>\n"
        "\t66\t66\t-9\t++BREATHING++\n\t67\t99\t-3000\tME(2)\n\t100\t120\t-9\t</s>\n Total score:   -12345\n"
    )
    path = write(tmp_path / f"Session1/sentences/ForcedAlignment/Ses01F_impro01/{TURNS[0]}.wdseg", wdseg)
    utterances = by_id(open_corpus("iemocap", tmp_path))
    assert utterances[TURNS[0]].words == (Word(0.13, 0.61, "excuse"), Word(0.67, 1.0, "me"))
    assert utterances[TURNS[1]].words == ()
    write(path, wdseg.replace("13\t60", "60\t13"))
    refused("iemocap", tmp_path, f"{TURNS[0]}.wdseg line 3")


def test_iemocap_refuses_an_unknown_code(tmp_path: Path) -> None:
    refused("iemocap", iemocap(tmp_path, {TURNS[0]: "hpy"}), "Ses01F_impro01.txt line 3", "'hpy'", "ang, hap, exc")


def test_iemocap_refuses_a_turn_line_it_cannot_read(tmp_path: Path) -> None:
    iemocap(tmp_path, {TURNS[0]: "neu"})
    path = tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    write(path, path.read_text().replace("_F000\t", "_F000 "))
    refused("iemocap", tmp_path, "Ses01F_impro01.txt line 3")


def test_iemocap_counts_missing_recordings(tmp_path: Path) -> None:
    iemocap(tmp_path, {TURNS[0]: "neu", TURNS[1]: "sad", "Ses01F_impro01_F004": "fru"})
    (tmp_path / f"Session1/sentences/wav/Ses01F_impro01/{TURNS[1]}.wav").unlink()
    (tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F004.wav").unlink()  # not one of the four classes
    refused("iemocap", tmp_path, "1 of 2 labelled turns", f"{TURNS[1]}.wav")


# --- MELD ---

JOEY = ("Joey", "Joey ")
HEADING = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
FOLDERS = {
    "train": ("train_sent_emo.csv", "train_splits"),
    "valid": ("dev_sent_emo.csv", "dev_splits_complete"),
    "test": ("test_sent_emo.csv", "output_repeated_splits_test"),
}
CLASSES = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")


def meld(root: Path, rows: int = 7, suffix: str = ".wav") -> Path:
    """Three parts of `rows` rows, ten utterances a dialogue, the first csv with a byte order mark."""
    for split, (name, clips) in FOLDERS.items():
        text = "\ufeff" + HEADING if split == "train" else HEADING
        for i in range(rows):
            clip, who = f"dia{i // 10}_utt{i % 10}", JOEY[i % 2]
            text += f'{i},"Oh, I\u0092m ""here""",{who},{CLASSES[i % 7]},x,{i // 10},{i % 10},8,21,"00:16:16,059","0"\n'
            write(root / clips / f"{clip}{suffix}")
        write(root / name, text)
    return root


def test_meld_reads_the_published_parts(tmp_path: Path) -> None:
    corpus = open_corpus("meld", meld(tmp_path))
    assert Counter(u.split for u in corpus.utterances) == {"train": 7, "valid": 7, "test": 7}
    assert Counter(u.label for u in corpus.utterances) == dict.fromkeys(CLASSES, 3)
    assert {u.session for u in corpus.utterances} == {"train_dia0", "valid_dia0", "test_dia0"}
    assert (corpus.protocol, corpus.unit) == ("own", "session")
    assert "incomplete: 7 of 9989 rows in train_sent_emo.csv" in corpus.note
    one = by_id(corpus)["valid_dia0_utt1"]
    assert one.audio == tmp_path / "dev_splits_complete/dia0_utt1.wav"
    assert {u.speaker for u in corpus.utterances} == {"Joey"}
    assert (one.label, one.speaker, one.text, one.language) == ("joy", "Joey", 'Oh, I\u0092m "here"', "en")


def test_meld_with_every_row_needs_no_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bas.corpora.readers.meld.PARTS", [(*part[:3], 7) for part in PARTS])
    assert open_corpus("meld", meld(tmp_path)).note == ""


def test_meld_takes_flac(tmp_path: Path) -> None:
    assert {u.audio.suffix for u in open_corpus("meld", meld(tmp_path, suffix=".flac")).utterances} == {".flac"}


def test_meld_survives_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = meld(tmp_path) / "dev_sent_emo.csv"
    path.write_bytes(path.read_bytes().replace("\u0092".encode(), b"\x92"))
    assert by_id(open_corpus("meld", tmp_path))["valid_dia0_utt0"].text == 'Oh, I\ufffdm "here"'


def test_meld_with_only_clips_gives_the_command(tmp_path: Path) -> None:
    message = refused("meld", meld(tmp_path / "a b", suffix=".mp4"), *(clips for _, clips in FOLDERS.values()))
    command = message[message.index("for f in ") :]
    assert command.startswith(f"for f in '{tmp_path}/a b/train_splits'/*.mp4 '")
    assert command.endswith('; do ffmpeg -i "$f" -ac 1 -ar 16000 "${f%.mp4}.wav"; done')


def test_meld_names_a_handful_of_missing_clips_and_refuses_more(tmp_path: Path) -> None:
    meld(tmp_path, rows=100)
    (tmp_path / "train_splits/dia5_utt3.wav").rename(tmp_path / "train_splits/dia5_utt3.mp4")  # could not be converted
    corpus = open_corpus("meld", tmp_path)
    assert len(corpus.utterances) == 299
    assert corpus.note.endswith("left out, no audio: train_dia5_utt3")
    for clip in ("dia1_utt0", "dia2_utt0"):
        (tmp_path / f"dev_splits_complete/{clip}.wav").unlink()
    refused(
        "meld", tmp_path, "dev_splits_complete", "2 of 100 rows of dev_sent_emo.csv", "dia1_utt0.wav, dia2_utt0.wav"
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",joy,", ",joyful,", ("line 3", "Emotion 'joyful'", "neutral, joy")),
        ("Emotion", "Emo", ("'Emotion'", "Dialogue_ID")),
        ("joy,x,0,1", "joy,x,0,one", ("line 3", "Utterance_ID", "'one'")),
        (',0,0,8,21,"00:16:16,059","0"', "", ("line 2", "fewer cells")),
    ],
)
def test_meld_refuses_a_bad_table(tmp_path: Path, old: Any, new: Any, said: Any) -> None:
    path = meld(tmp_path) / "test_sent_emo.csv"
    write(path, path.read_text().replace(old, new))
    refused("meld", tmp_path, "test_sent_emo.csv", *said)


def test_meld_names_a_missing_table(tmp_path: Path) -> None:
    (meld(tmp_path) / "dev_sent_emo.csv").unlink()
    refused("meld", tmp_path, str(tmp_path / "dev_sent_emo.csv"))
