"""The forms of a manifest: CSV, JSON Lines, EmoBox's; and what is wrong in each."""

# mypy: disable-error-code="operator"

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from places import EMODB

from bas.corpora import Corpus, Word, open_corpus
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


@pytest.fixture
def audio(tmp_path: Path) -> Any:
    """A folder with a.wav and b.wav in it."""
    return write(tmp_path / "a.wav").parent, write(tmp_path / "b.wav").parent


def test_manifest_csv_and_json_lines_read_alike(tmp_path: Path, audio: Any) -> None:
    words = '[[0, 0.5, "ja"], [0.5, 1, "nein"]]'
    csv = "id,audio,label,speaker,session,split,language,text,start,end,words\n"
    csv += f'x,a.wav,joy,s1,d1,dev,de,"ja, nein",1.5,3,"{words.replace(chr(34), chr(34) * 2)}"\n\n'
    csv += f"y,{tmp_path}/b.wav,,,,,,,,,\n"
    rows = [
        {"id": "x", "audio": "a.wav", "label": "joy", "speaker": "s1", "session": "d1", "split": "validation"},
        {"id": "y", "audio": f"{tmp_path}/b.wav", "label": None},
    ]
    rows[0] |= {"language": "de", "text": "ja, nein", "start": 1.5, "end": 3, "words": json.loads(words)}
    one = open_corpus("manifest", write(tmp_path / "mine.csv", "\ufeff" + csv))
    two = open_corpus("manifest", write(tmp_path / "mine.jsonl", "\n".join(map(json.dumps, rows))))
    assert one == two
    assert one.name == "mine"
    x, y = one.utterances
    assert (x.split, x.start, x.end, x.text) == ("valid", 1.5, 3.0, "ja, nein")
    assert x.words == (Word(0.0, 0.5, "ja"), Word(0.5, 1.0, "nein"))
    assert (y.label, y.speaker, y.session, y.split, y.text, y.start, y.end, y.words) == (*[None] * 5, 0.0, None, ())


@pytest.mark.parametrize(
    ("columns", "first", "second", "protocol", "unit"),
    [
        ("speaker,split", "s1,train", "s2,test", "own", "speaker"),
        ("session,split", "d1,train", "d2,test", "own", "session"),
        ("speaker,session", "s1,d1", "s2,d2\nz,a.wav,s3,d3", "session", "session"),
        ("speaker,session", "s1,d1", "s2,d2", "speaker:5", "speaker"),
        ("speaker,session", "s1,d1", "s2,d1", "speaker:5", "speaker"),
        ("speaker,session", "s1,d1", "s2,", "speaker:5", "speaker"),
        ("speaker,split", "s1,train", "s2,", "speaker:5", "speaker"),
        ("speaker,label", "s1,joy", ",joy", "speaker:5", "session"),
    ],
)
def test_manifest_protocol_follows_from_the_columns(
    tmp_path: Path, audio: Any, columns: Any, first: Any, second: Any, protocol: Any, unit: Any
) -> None:
    path = write(tmp_path / "m.csv", f"id,audio,{columns}\nx,a.wav,{first}\ny,b.wav,{second}\n")
    corpus = open_corpus("manifest", path)
    assert (corpus.protocol, corpus.unit) == (protocol, unit)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ("line 1", "no heading", "id, audio, label")),
        ("id,audio\n", ("no utterance",)),
        ("id,audio,speeker\nx,a.wav,s", ("line 1", "'speeker'", "unknown column, rename", "speaker, session, split")),
        ("id,audio,key,wav\nx,a.wav,x,a.wav", ("line 1", "'key'")),
        ("id,audio,id\nx,a.wav,x", ("line 1", "id", "twice")),
        ("id,label\nx,joy", ("line 1", "audio", "required")),
        ("id,audio\n,a.wav", ("line 2", "id", "empty")),
        ("id,audio\nx,", ("line 2", "audio", "empty")),
        ("id,audio\nx,a.wav\ny,c.wav", ("line 3", "audio", "c.wav")),
        ("id,audio\nx,a.wav\nx,b.wav", ("line 3", "id", "'x'", "line 2")),
        ("id,audio\nx,a.wav,joy", ("line 2", "3 cells", "2")),
        ('id,audio\nx,"a.wav\n', ("line 2", "audio", "opens a quote")),
        ("id,audio,split\nx,a.wav,trian", ("line 2", "split", "'trian'", "train, valid, dev, val, validation, test")),
        ("id,audio,start\nx,a.wav,soon", ("line 2", "start", "'soon'", "seconds")),
        ("id,audio,start\nx,a.wav,-1", ("line 2", "start", "'-1'")),
        ("id,audio,start,end\nx,a.wav,2,2", ("line 2", "end", "2.0 is not after")),
        ("id,audio,end\nx,a.wav,0", ("line 2", "end", "0.0 is not after")),
        ('id,audio,words\nx,a.wav,"[[0,1"', ("line 2", "words", "malformed JSON")),
        ('id,audio,words\nx,a.wav,"[[0,1]]"', ("line 2", "words", "[0, 1]")),
        ('id,audio,words\nx,a.wav,"[[1,0.5,""ja""]]"', ("line 2", "words", "0 <= start < end")),
        ('id,audio,words\nx,a.wav,"[[null,1,""ja""]]"', ("line 2", "words", "0 <= start < end")),
        (b"id,audio,label\nx,a.wav,w\xfctend", ("line 2", "UTF-8")),
    ],
)
def test_manifest_refuses_bad_csv(tmp_path: Path, audio: Any, text: str, said: Any) -> None:
    refused("manifest", write(tmp_path / "m.csv", text), "m.csv", *said)


GOOD = '{"id": "x", "audio": "a.wav"}\n'
EMOBOX = {
    "key": "emodb-03a02Wb",
    "dataset": "emodb",
    "wav": "downloads/emodb/wav/03a02Wb.wav",
    "type": "raw",
    "sample_rate": 16000,
    "num_frame": 33978.0,
    "task": "category",
    "length": 2.123625,
    "emo": "anger",
    "channel": 1,
}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n", ("no utterance",)),
        (GOOD + '{"id": "y", "audio": ', ("line 2", "malformed JSON")),
        (GOOD + '["y", "b.wav"]', ("line 2", "list", "one object a line")),
        (GOOD + '{"id": "y", "audio": "b.wav", "speeker": "s"}', ("line 2", "'speeker'", "allowed: id, audio")),
        (GOOD + '{"id": "y"}', ("line 2", "audio", "required")),
        (GOOD + '{"id": null, "audio": "b.wav"}', ("line 2", "id", "empty")),
        (GOOD + '{"id": "y", "audio": ["b.wav"]}', ("line 2", "audio", "['b.wav']")),
        (GOOD + '{"id": "y", "audio": "b.wav", "label": true}', ("line 2", "label", "True")),
        (GOOD + '{"id": "y", "audio": "b.wav", "start": true}', ("line 2", "start", "True")),
        (GOOD + '{"id": "y", "audio": "b.wav", "end": Infinity}', ("line 2", "end", "inf")),
        (GOOD + '{"id": "y", "audio": "b.wav", "words": {"ja": 1}}', ("line 2", "words")),
        (GOOD + GOOD, ("line 2", "id", "'x'", "line 1")),
        (GOOD.encode() + b'{"id": "\xff"}', ("line 2", "UTF-8")),
        (json.dumps(EMOBOX), ("line 1", "wav", "03a02Wb.wav")),
        (json.dumps(EMOBOX | {"wav": "a.wav", "type": "ark"}), ("line 1", "type", "'ark'", "raw")),
        (json.dumps(EMOBOX | {"wav": "a.wav", "key": ""}), ("line 1", "key", "empty")),
    ],
)
def test_manifest_refuses_bad_json_lines(tmp_path: Path, audio: Any, text: str, said: Any) -> None:
    refused("manifest", write(tmp_path / "m.jsonl", text), "m.jsonl", *said)


def test_manifest_refuses_another_extension(tmp_path: Path) -> None:
    refused("manifest", write(tmp_path / "m.xls", "id\taudio\n"), "'.xls'", ".csv, .jsonl, .json, .tsv, .txt")


@pytest.mark.parametrize(
    ("added", "speaker"), [({}, None), ({"speaker": "03"}, "03"), ({"spk": "03"}, "03"), ({"id": "z", "age": 31}, None)]
)
def test_manifest_takes_emobox_lines_as_they_are(tmp_path: Path, added: Any, speaker: Any) -> None:
    wav = write(tmp_path / EMOBOX["wav"])
    path = write(tmp_path / "data/emodb/fold_1/emodb_test_fold_1.jsonl", json.dumps(EMOBOX | added) + "\n")
    corpus = open_corpus("manifest", path)
    (utterance,) = corpus.utterances
    assert (corpus.name, corpus.protocol) == ("emodb_test_fold_1", "speaker:5")
    assert (utterance.id, utterance.audio, utterance.label) == ("emodb-03a02Wb", wav, "anger")
    assert (utterance.speaker, utterance.split) == (speaker, None)
