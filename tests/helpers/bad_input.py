"""What a user may get wrong: how the mistake is made in a folder where all is well, and the command that meets it.

`CASES` are the rows of the table in docs/refusals.md.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from models import SMALL as SMALL_MODEL
from records import rewrite
from sounds import tone

from bas.util.files import CHECKSUM

SPACE = """from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace

space = SearchSpace(slots={"a": {"One": FFN, "Two": FFN}}, pool=MeanPool)
"""
HALF = """
class Half:
    name = label = "half"
    classes = protocol = None
    disjoint = "speaker"
    pooled = True
    linears = {"none": len}
    metrics = outputs = targets = predict = remarks = len

task = Half()
"""
NUMBER = "from bas.tasks import Regression\ntask = Regression({'age': (0, 100)})\n"
ENCODER = """class Encoder:
    num_states, dim, frame_rate, min_samples = 1, 4, 50.0, 320

    def __init__(self, device):
        pass

    def encode(self, wave):
        return wave[: len(wave) // 320 * 320 : 80].reshape((1, -1, 4))
"""
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 94\n"
STORE = "runs/features/cups"
SHOW = "corpus show --corpus manifest --root cups.csv"
PLAIN = "--space mine.py --set epochs=2 --set width=16 --seeds 1 --workers 1"
SMALL = f"{PLAIN} --set strategy=gumbel --set committee=1"
EXTRACT = f"extract --corpus manifest --root cups.csv --features {STORE} --encoder"
IMPORT = (
    "features import --corpus manifest --root cups.csv --encoder mine --source arrays --frame-rate 100 --features new"
)
CHECK = "protocol check split.json --corpus manifest --root cups.csv"
SPLIT = "protocol make --corpus manifest --root cups.csv --to new.json --protocol"
NEW = f"search --features {STORE} {SMALL} --name new"
AUDIT = f"audit --features {STORE} {PLAIN} --name new"
TUNE = f"tune --features {STORE} {SMALL} --name new"
PROBE = f"probe --features {STORE} --space mine.py --set epochs=2 --seeds 1 --workers 1 --name new"
DYNAMICS = "dynamics --corpus manifest --root cups.csv --name new --encoder"
OLD = f"search --features {STORE} {SMALL} --protocol speaker:3 --name old"
TAKE = "03-01-03-01-01-01-02"
JOB = "runs/old/jobs/search-mine-fold1-seed0.json"
CHECKPOINT = "runs/old/jobs/search-mine-fold2-seed0.checkpoint"


@dataclass(frozen=True)
class Case:
    """prepare: makes the mistake in the working folder; what it returns is kept until the command has ended."""

    command: str
    prepare: Callable[[], object] = lambda: None

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)


class Trap:
    """Unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def good() -> None:
    """Five speakers, two classes, twenty tones of which no two are alike; a search space."""
    rows = ["id,audio,label,speaker"]
    for s, speaker in enumerate(("anna", "ben", "carl", "dora", "eve")):
        for n in range(1, 5):
            name = f"{speaker[0]}{n}"
            tone(Path(f"wav/{name}.wav"), 0.2, hertz=200 + 100 * n + 20 * s)
            rows.append(f"{name},wav/{name}.wav,{'calm' if n % 2 else 'angry'},{speaker}")
    write("cups.csv", "\n".join(rows) + "\n")
    write("mine.py", SPACE)


def write(name: str, content: str | bytes) -> None:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)


def halve(name: str) -> None:
    os.truncate(name, os.stat(name).st_size // 2)


def set_field(name: str, at: int, value: int) -> None:
    """In a WAV's header: at 24 the sample rate, at 40 the length of the sound in bytes."""
    raw = Path(name).read_bytes()
    write(name, raw[:at] + value.to_bytes(4, "little") + raw[at + 4 :])


def adapted() -> None:
    """In place of the encoder a wav2vec 2.0 with an adapter."""
    config = transformers.Wav2Vec2Config(**SMALL_MODEL, add_adapter=True, output_hidden_size=SMALL_MODEL["hidden_size"])
    shutil.rmtree("encoder")
    transformers.Wav2Vec2Model(config).save_pretrained("encoder")


def edit(name: str, change: Callable[[Any], object]) -> None:
    """Change a JSON file, a record's checksum along with it."""
    value = json.loads(Path(name).read_text())
    change(value)
    if CHECKSUM in value:
        rewrite(Path(name), value)
    else:
        write(name, json.dumps(value))


def replace(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert old in text
    write(name, text.replace(old, new))


def hold(folder: str) -> object:
    """As another process that works in the folder."""
    stream = open(f"{folder}/.lock", "w")  # noqa: SIM115  let go of when the command has ended
    fcntl.flock(stream, fcntl.LOCK_EX)
    return stream


def manifest(content: str | bytes, name: str = "cups.csv", before: Callable[[], object] = lambda: None) -> Case:
    command = f"extract --corpus manifest --root {name} --encoder log-mel"
    return Case(command, lambda: (before(), write(name, content)))


def row(cells: str, heading: str = "id,audio,label,speaker", **more: Any) -> Case:
    """A manifest of one row, the second line."""
    return manifest(f"{heading}\n{cells}\n", **more)


def ravdess(spoil: Callable[[Path], object]) -> Case:
    """A corpus in folders, of two actors; spoil: changes the second actor's folder."""

    def prepare() -> None:
        for actor in ("01", "02"):
            tone(Path(f"ravdess/Actor_{actor}/03-01-03-01-01-01-{actor}.wav"), 0.2)
        spoil(Path("ravdess/Actor_02"))

    return Case("extract --corpus ravdess --root ravdess --encoder log-mel", prepare)


def words(name: str, content: str) -> Case:
    """A manifest of one row, whose words are in another file."""
    return row(f"a1,wav/a1.wav,{name}", "id,audio,words", before=lambda: write(name, content))


def split(change: Callable[[dict[str, Any]], object], keep_hash: bool = False) -> Case:
    """A protocol's file, changed by hand."""
    return Case(CHECK, lambda: edit("split.json", lambda raw: (change(raw), keep_hash or raw.pop("hash"))))


def leak(raw: dict[str, Any]) -> None:
    """An utterance of a test speaker joins those that train."""
    raw["folds"][0]["fit"].append(raw["folds"][0]["test"].pop())


def far_features() -> None:
    """The features are elsewhere, and there is no run yet."""
    os.rename(STORE, "store")
    shutil.rmtree("runs")


def space(text: str) -> Case:
    return Case(f"{NEW} --space bad.py", lambda: write("bad.py", text))


def old_age() -> None:
    write("bad.py", SPACE + NUMBER)
    ids = [line.partition(",")[0] for line in Path("cups.csv").read_text().splitlines()[1:]]
    write("ages.csv", "\n".join(["id,age", *(f"{id_},{30 if i else 140}" for i, id_ in enumerate(ids))]))


def trap(name: str) -> None:
    torch.save({"model": Trap()}, name)


def own(text: str) -> Case:
    return Case(f"{EXTRACT} my_encoder.py --features new", lambda: write("my_encoder.py", text))


def arrays(spoil: Callable[[Path], object]) -> Case:
    """Features of twenty utterances in a folder, a frame for each hundredth of a second; spoil: changes the folder."""

    def prepare() -> None:
        os.mkdir("arrays")
        for wav in Path("wav").iterdir():
            np.save(f"arrays/{wav.stem}.npy", np.ones((20, 3), np.float32))
        spoil(Path("arrays"))

    return Case(IMPORT, prepare)


def poison() -> None:
    os.remove("encoder/model.safetensors")
    trap("encoder/pytorch_model.bin")


CASES = {
    "Manifest": {
        "a column is missing": row("a1,calm", "id,label"),
        "the file is empty": manifest(""),
        "a heading without rows": manifest("id,audio,label,speaker\n"),
        "an unknown column": row("a1,wav/a1.wav,calm,anna", "id,audio,label,speeker"),
        "a column is there twice": row("wav/a1.wav,calm,calm", "file_name,emotion,Emotion"),
        "two columns for one field": row("a1,wav/a1.wav,calm,3", "id,audio,label,emotion"),
        "a map to no column": Case("corpus show --corpus manifest --root cups.csv --map label=mood"),
        "a map of no field": Case("corpus show --corpus manifest --root cups.csv --map lable=label"),
        "a map for a distribution": Case("corpus show --corpus emodb --root wav --map label=mood"),
        "an own column that is a field's": Case(f"{SHOW} --keep speaker"),
        "an own column that is not there": Case(f"{SHOW} --keep age"),
        "an own column of a distribution": Case("corpus show --corpus emodb --root wav --keep age"),
        "a selection by no field": Case(f"{SHOW} --where tongue=en"),
        "a selection of no value": Case(f"{SHOW} --where speaker=zoe"),
        "a selection without a value": Case(f"{SHOW} --where speaker"),
        "a selection by a field twice": Case(f"{SHOW} --where speaker=anna speaker=ben"),
        "a selection that leaves nothing": Case(f"{SHOW} --where speaker=anna id=b1"),
        "a table of labels for another corpus": Case(
            f"{SHOW} --labels ages.csv --keep age", lambda: write("ages.csv", "id,age\nzoe,3\n")
        ),
        "a word file leaves the folder": row("a1,wav/a1.wav,../a1.TextGrid", "id,audio,words"),
        "an id that is missing": row("nan,wav/a1.wav,calm,anna"),
        "a name too long for a folder": manifest("id,audio\na1,wav/a1.wav\n", "x" * 101 + ".csv"),
        "a line before the heading": row("id,audio\na1,wav/a1.wav", "# from my table"),
        "a quote that stays open": row('a1,wav/a1.wav,"calm,anna\na2,wav/a2.wav,calm","anna'),
        "the line ends of old Macs": manifest("id,audio\ra1,wav/a1.wav\r"),
        "a decimal comma": row("a1;wav/a1.wav;1,5", "id;audio;end"),
        "an id is there twice": row("a1,wav/a1.wav,calm,anna\na1,wav/a2.wav,calm,anna"),
        "an unknown split": row("a1,wav/a1.wav,training", "id,audio,split"),
        "a path leaves the folder": row("a1,../a1.wav,calm,anna"),
        "the audio is a folder": row("a1,wav,calm,anna"),
        "a link leads to itself": row("a1,a1.wav,calm,anna", before=lambda: os.symlink("a1.wav", "a1.wav")),
        "recordings are missing": row("a1,wav/a1.wav,calm,anna\nz1,wav/z1.wav,calm,zoe\nz2,wav/z2.wav,calm,zoe"),
        "not UTF-8": manifest("id,audio,label\na1,wav/a1.wav,fröhlich\n".encode("latin-1")),
        "UTF-16": manifest("id,audio\na1,wav/a1.wav\n".encode("utf-16")),
        "malformed JSON": manifest('{"id": "a1", "audio": "wav/a1.wav"}\n{"id": "a2"\n', "cups.jsonl"),
        "a bad time": row("a1,wav/a1.wav,1:30", "id,audio,start"),
        "an unknown sex": row("a1,wav/a1.wav,w", "id,audio,sex"),
        "an unknown extension": manifest("", "cups.xlsx"),
        "all recordings are cut off": row("a1,wav/a1.wav,calm,anna", before=lambda: halve("wav/a1.wav")),
        "a recording goes on behind what its header says": row(
            "a1,wav/a1.wav,calm,anna", before=lambda: set_field("wav/a1.wav", 40, 3200)
        ),
        "a format whose length cannot be told": row(
            "a1,wav/a1.voc,calm,anna",
            before=lambda: soundfile.write("wav/a1.voc", *soundfile.read("wav/a1.wav"), format="VOC"),
        ),
        "a header without a sample rate": row("a1,wav/a1.wav,calm,anna", before=lambda: set_field("wav/a1.wav", 24, 0)),
        "a sample rate of no recorder": row(
            "a1,wav/a1.wav,calm,anna", before=lambda: set_field("wav/a1.wav", 24, 1_000_003)
        ),
    },
    "Folders and files": {
        "a link leads back": ravdess(lambda actor: os.symlink("..", actor / "all")),
        "a link leads nowhere": ravdess(lambda actor: os.symlink("/mnt/none", actor / "more")),
        "two names differ in case alone": ravdess(
            lambda actor: shutil.copy(actor / f"{TAKE}.wav", actor / f"{TAKE}.WAV")
        ),
        "two copies of a corpus": ravdess(lambda actor: shutil.copytree(actor, actor.with_name("copy"))),
        "a name is not UTF-8": ravdess(lambda actor: actor.rename(actor.with_name(os.fsdecode(b"Col\x8are")))),
        "a pipe for a manifest": Case(
            "extract --corpus manifest --root pipe.csv --encoder log-mel", lambda: os.mkfifo("pipe.csv")
        ),
        "a device for a protocol": Case(
            CHECK, lambda: (os.remove("split.json"), os.symlink("/dev/zero", "split.json"))
        ),
        "a TextGrid without its last quote": words("a1.TextGrid", '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1 "Interval'),
        "a word with a blank in a CTM file": words("a1.ctm", "a1 1 0.1 0.2 ice cream 0.9\n"),
        "a TextGrid that holds more than its sizes": words(
            "a1.TextGrid",
            '"ooTextFile"\n"TextGrid"\n0 1 <exists> 1\n"IntervalTier"\n"words"\n0 1 1\n0 0.1 "a"\n'
            + "\n" * 8
            + '0.1 0.2 "b"',
        ),
        "a CTM file of other utterances": words("a1.ctm", "b1 1 0.1 0.2 ice\n"),
        "one line of words for two utterances": row(
            "a1,wav/a1.wav,a1.ctm\nA1,wav/a2.wav,a1.ctm",
            "id,audio,words",
            before=lambda: write("a1.ctm", "a1 1 0.1 0.1 ice\n"),
        ),
        "a corpus that has moved": Case(NEW, lambda: os.rename("cups.csv", "mugs.csv")),
    },
    "Protocol": {
        "an unknown rule": Case(f"{SPLIT} speeker:5"),
        "shares that are not 100": Case(f"{SPLIT} speaker:60/20/30"),
        "more folds than speakers": Case(f"{NEW} --features store --protocol speaker:9", far_features),
        "one fold": Case(f"{SPLIT} speaker:1"),
        "speakers on both sides": Case(f"{SPLIT} id:5"),
        "`--allow-overlap` of a free field": Case(f"{SPLIT} id:5 --allow-overlap text"),
        "speakers are not known": Case(NEW, lambda: replace("cups.csv", ",anna", ",")),
        "one recording under two names": Case(
            f"{SPLIT} id:5 --allow-overlap speaker", lambda: shutil.copy("wav/a1.wav", "wav/b1.wav")
        ),
        "an EmoBox folder without folds": Case(f"{SPLIT} emobox:wav"),
        "no such file": Case(CHECK.replace("split.json", "spilt.json")),
        "a file is cut off": Case(CHECK, lambda: halve("split.json")),
        "an unknown field": split(lambda raw: raw.update(sede=3)),
        "an unknown part": split(lambda raw: raw["folds"][0].update(dev=["a1"])),
        "an empty part": split(lambda raw: raw["folds"][0].update(test=[])),
        "an id in two parts": split(lambda raw: raw["folds"][0]["fit"].append(raw["folds"][0]["test"][0])),
        "an unknown id": split(lambda raw: raw["folds"][0]["fit"].append("z9")),
        "one class only in training": split(lambda raw: raw["folds"][0].update(fit=raw["folds"][0]["fit"][:1])),
        "a class of one utterance": Case(f"{SPLIT} speaker", lambda: replace("cups.csv", "a1.wav,calm", "a1.wav,rare")),
        "one class alone": Case(f"{SPLIT} speaker", lambda: replace("cups.csv", "angry", "calm")),
        "a file was edited": split(leak, keep_hash=True),
        "another corpus's file": split(lambda raw: raw.update(corpus="mugs")),
        "a file of another format": split(lambda raw: raw.update(format=2)),
    },
    "Setting": {
        "an unknown setting": Case(f"{NEW} --set epoch=3"),
        "an unknown preset": Case(f"{NEW} --preset papier"),
        "a negative rate": Case(f"{NEW} --set lr=-0.1"),
        "no epoch": Case(f"{NEW} --set epochs=0"),
        "not a number": Case(f"{NEW} --set epochs=many"),
        "an unknown strategy": Case(f"{NEW} --set strategy=gumble"),
        "a warm-up that never ends": Case(f"{NEW} --set warmup=2"),
        "an audit of an unknown strategy": Case(f"{AUDIT} --strategy gumble"),
        "an audit's strategy with a training's setting": Case(f"{AUDIT} --strategy gumbel+epochs=3"),
        "an audit under no setting": Case(f"{AUDIT} --variant residual"),
        "an audit of a space that is too large": Case(AUDIT.replace("mine.py", "ser_wide")),
        "an audit of too large a sample": Case(f"{AUDIT} --sample 301"),
        "an audit of a sample of one": Case(f"{AUDIT} --sample 1"),
        "an audit that scores too many paths": Case(
            AUDIT.replace("mine.py", "ser_wide") + " --sample 40 --strategy single-path"
        ),
        "no trial": Case(f"{TUNE} --trials 0"),
        "a probe of one layer": Case(f"{PROBE} --set layer=0"),
        "a share that is the whole": Case(f"{PROBE} --percent 100"),
        "two stores of one name": Case(
            f"{PROBE} --features {STORE} other/cups", lambda: shutil.copytree(STORE, "other/cups")
        ),
        "an unknown setting of a fine-tuning": Case(f"{DYNAMICS} ./encoder --set epoch=3"),
        "checkpoints between evaluations": Case(f"{DYNAMICS} ./encoder --set checkpoint_every=7"),
        "an encoder without weights to tune": Case(f"{DYNAMICS} log-mel"),
        "an encoder with an adapter to tune": Case(f"{DYNAMICS} ./encoder", adapted),
        "more rotations than folds": Case(f"{DYNAMICS} ./encoder --rotations 9"),
        "a name that leaves `runs/`": Case(f"{NEW} --name ../../evil"),
        "a name of folders": Case(f"{NEW} --name mine/new"),
        "a name that is not a run's": Case(f"{NEW} --name features"),
        "no name": Case(f"{NEW} --name ''"),
        "heads do not divide the width": Case(f"{NEW} --set width=12"),
        "too much dropout": Case(f"{NEW} --set dropout=1.5"),
        "a label that is nothing but smoothing": Case(f"{NEW} --set label_smoothing=1"),
        "unknown class weights": Case(f"{NEW} --set class_weights=equal"),
        "a headline that is no metric": Case(f"{NEW} --headline accuracy"),
        "a layer that is not stored": Case(f"{NEW} --layer 7"),
        "a search of states where nothing is searched": Case(f"protocol cost --features {STORE} --layer search"),
        "nothing to mix": Case(f"{NEW} --layer mix"),
        "no such device": Case(f"{NEW} --device cuda"),
        "no worker": Case(f"{NEW} --workers 0"),
        "no seed": Case(f"{NEW} --seeds 0"),
        "negative memory": Case(f"{NEW} --memory -1"),
        "an unknown corpus": Case("corpus show --corpus cups --root cups.csv"),
        "no such folder": Case("corpus show --corpus emodb --root mugs"),
        "unknown labels": Case("corpus show --corpus manifest --root cups.csv --labels six"),
        "an unknown encoder": Case(f"{EXTRACT} openai/wisper-tiny"),
        "no configuration": Case(f"{EXTRACT} ./encoder", lambda: os.remove("encoder/config.json")),
        "weights are cut off": Case(f"{EXTRACT} ./encoder", lambda: halve("encoder/model.safetensors")),
        "weights that would run code": Case(f"{EXTRACT} ./encoder", poison),
        "weights that git has not fetched": Case(
            f"{EXTRACT} ./encoder", lambda: write("encoder/model.safetensors", POINTER)
        ),
        "an encoder's file that is not there": Case(f"{EXTRACT} my_encoder.py --features new"),
        "an encoder's file without a class": own("class Encoder: pass\n"),
        "an encoder of one's own without a width": own(ENCODER.replace("dim, ", "width, ")),
        "an encoder of one's own that gives another shape": own(ENCODER.replace("(1, -1, 4)", "(1, -1, 2)")),
        "an encoder of one's own that fails": own(ENCODER.replace("wave[", "melt(wave)[")),
        "a stride of 0": Case(
            f"{EXTRACT} ./encoder",
            lambda: edit("encoder/config.json", lambda raw: raw.update(conv_stride=[0] * 7)),
        ),
        "ten million layers": Case(
            f"{EXTRACT} ./encoder", lambda: edit("encoder/config.json", lambda raw: raw.update(num_hidden_layers=10**7))
        ),
        "an unknown space": Case(f"{NEW} --space ser_bas5"),
        "a syntax error": space("space = SearchSpace(\n"),
        "a file without a space": space("from bas.blocks import FFN\n"),
        "a task that lacks members": space(SPACE + HALF),
        "a range that is none": space(SPACE + NUMBER.replace("0, 100", "100, 0")),
        "a column that no table has": Case(
            f"{SPLIT} speaker:3 --space bad.py", lambda: write("bad.py", SPACE + NUMBER)
        ),
        "a number out of its range": Case(f"{SPLIT} speaker:3 --space bad.py --labels ages.csv --keep age", old_age),
        "a lambda in a space": space(SPACE.replace('"Two": FFN', '"Two": lambda dim: FFN(dim)')),
    },
    "Features of your own": {
        "no such arrays": Case(IMPORT),
        "an utterance without an array": arrays(lambda of: ((of / "a1.npy").unlink(), (of / "b2.npy").unlink())),
        "an array of another width": arrays(lambda of: np.save(of / "b2.npy", np.ones((20, 4), np.float32))),
        "an array of whole numbers": arrays(lambda of: np.save(of / "b2.npy", np.ones((20, 3), int))),
        "an array of objects": arrays(
            lambda of: np.save(of / "b2.npy", np.array([[Trap()]], dtype=object), allow_pickle=True)
        ),
        "another number of frames than the recording makes": arrays(
            lambda of: np.save(of / "b2.npy", np.ones((300, 3), np.float32))
        ),
        "an array with NaN": arrays(lambda of: np.save(of / "b2.npy", np.full((20, 3), np.nan, np.float32))),
        "a value beyond float16": arrays(lambda of: np.save(of / "b2.npy", np.full((20, 3), 1e5, np.float32))),
        "a store of something else": Case(f"{IMPORT} --features {STORE}", lambda: arrays(lambda of: None).prepare()),
    },
    "Run folder": {
        "another setting": Case(f"{OLD} --set lr=0.5"),
        "another version of `bas`": Case(
            OLD, lambda: edit("runs/old/run.json", lambda raw: raw["made_of"].update({"version of bas": "0.0"}))
        ),
        "a space was changed": Case(OLD, lambda: replace("mine.py", "Two", "Zwei")),
        "the run's own copy was changed": Case(OLD, lambda: replace("runs/old/spaces/mine.py", "Two", "Zwei")),
        "run.json is cut off": Case(OLD, lambda: halve("runs/old/run.json")),
        "run.json lacks its fields": Case(OLD, lambda: rewrite(Path("runs/old/run.json"), {})),
        "no run.json": Case(OLD, lambda: os.remove("runs/old/run.json")),
        "a result is cut off": Case(OLD, lambda: halve(JOB)),
        "a checkpoint is cut off": Case(OLD, lambda: halve(CHECKPOINT)),
        "a checkpoint would run code": Case(OLD, lambda: trap(CHECKPOINT)),
        "another process is at work": Case(OLD, lambda: hold("runs/old")),
        "its lock is a link": Case(
            OLD, lambda: (os.remove("runs/old/.lock"), os.symlink("../../cups.csv", "runs/old/.lock"))
        ),
        "no features": Case(OLD, lambda: shutil.rmtree("runs/features")),
        "store.json is cut off": Case(NEW, lambda: halve(f"{STORE}/store.json")),
        "a shard is cut off": Case(NEW, lambda: halve(f"{STORE}/shard-00000.h5")),
    },
    "Many hosts": {
        "a share that is none": Case("work runs/old --part 3/3"),
        "no run to work on": Case("work wav"),
        "a part of an extraction that is none": Case(f"{EXTRACT} log-mel --part 2"),
    },
    "Model": {
        "a run that is not complete": Case("export runs/old"),
        "the folder of no model": Case("predict wav wav/a1.wav"),
        "a table of another kind": Case("predict model wav --out said.xlsx"),
        "a table that is there": Case("predict model wav --out said.csv", lambda: write("said.csv", "")),
        "a graph of another kind": Case("onnx model --out graph.pb"),
        "the encoder of a graph without one": Case("onnx model --encoder log-mel"),
    },
}


def one_class() -> None:
    replace("cups.csv", "angry", "calm")


# What is not worth a row, and what the line holds.
MORE = {
    "no such manifest": (Case("extract --corpus manifest --root no.csv --encoder log-mel"), ["no such file", "no.csv"]),
    "an unknown column": (row("a1,wav/a1.wav,anna", "id,audio,speeker"), ["cups.csv line 1", "'speeker'", "speaker"]),
    "a short row": (row("a1,wav/a1.wav"), ["cups.csv line 2", "2 cells", "4"]),
    "no audio": (row("a1,cups.csv,calm,anna"), ["no utterance can be used", "cups.csv"]),
    "no split": (Case(f"{SPLIT} own"), ["protocol own", "'a1'", "speaker:5"]),
    "one class": (Case(NEW, one_class), ["task emotion", "'calm'", "two classes"]),
    "an odd output": (Case(f"{SPLIT} speaker:3 --to new.txt"), ["--to new.txt", ".json"]),
    "a folder for a file": (Case(CHECK.replace("split.json", "wav")), ["wav: a folder, not a file"]),
    "a fold that leaks": (split(leak), ["fold 0", "speaker", "--allow-overlap speaker"]),
    "an unknown verb": (Case(NEW.replace("search ", "serach ")), ["serach", "search"]),
    "an argument is missing": (Case("search"), ["--features"]),
    "no value": (Case(f"{NEW} --set epochs"), ["--set 'epochs'", "NAME=VALUE"]),
    "another layer": (Case(f"{EXTRACT} log-mel --layers 0,7"), ["layers: 7", "log-mel has 0 to 0"]),
    "a revision of what has none": (Case(f"{EXTRACT} log-mel --revision main"), ["'log-mel'", "revision 'main'"]),
    "an odd configuration": (
        Case(f"{EXTRACT} ./encoder", lambda: edit("encoder/config.json", lambda raw: raw.update(conv_stride=0))),
        ["'./encoder'", "config.json"],
    ),
    "code in a model's folder": (
        Case(
            f"{EXTRACT} ./encoder",
            lambda: (
                write("encoder/evil.py", "import os; os.mkdir('executed')\nclass Config: pass\n"),
                write("encoder/preprocessor_config.json", '{"auto_map": {"AutoFeatureExtractor": "evil.Config"}}'),
            ),
        ),
        ["'./encoder'", "preprocessor_config.json"],
    ),
    "a space that exits": (space("raise SystemExit(3)\n"), ["bad.py", "SystemExit: 3"]),
    "a task that is none": (
        space(SPACE + "task = 'emotion'\n"),
        ["space bad: task: a str: it has no name, label", "Classification"],
    ),
    "a file where the run is": (
        Case(f"{NEW} --name taken", lambda: write("runs/taken", "")),
        ["runs/taken", "name another folder"],
    ),
    "an empty result": (Case(OLD, lambda: write(JOB, "{}")), [JOB, "delete it"]),
    "other folds": (
        Case(OLD, lambda: edit("runs/old/protocol.json", leak)),
        ["runs/old/protocol.json", "other folds", "delete it"],
    ),
    "another recording": (
        Case(OLD, lambda: tone(Path("wav/a1.wav"), hertz=999)),
        [STORE, "another recording", "a1 the first", "another folder"],
    ),
    "another label": (Case(OLD, lambda: replace("cups.csv", "calm,anna", "angry,anna")), ["labels", "--name"]),
    "a row that was added": (
        Case(OLD, lambda: replace("cups.csv", "a1,wav/a1.wav", "a0,wav/a1.wav,calm,anna\na1,wav/a1.wav")),
        [STORE, "not in the store", "a0 the first", "bas extract"],
    ),
    "a shard is gone": (Case(NEW, lambda: os.remove(f"{STORE}/shard-00000.h5")), [STORE, "gone", "bas extract"]),
    "an unfinished store": (
        Case(NEW, lambda: os.rename(f"{STORE}/store.json", f"{STORE}/plan.json")),
        [STORE, "incomplete", "bas extract"],
    ),
    "a store with odd fields": (
        Case(NEW, lambda: edit(f"{STORE}/store.json", lambda raw: raw["encoder"].pop("dim"))),
        [f"{STORE}/store.json", "encoder.dim", "restore"],
    ),
    "another encoder's store": (Case(f"{EXTRACT} ./encoder"), [STORE, "revision: log-mel 1 there", "--features"]),
    "an extraction at work": (Case(f"{EXTRACT} log-mel", lambda: hold(STORE)), [STORE, "another process"]),
    "shards of nobody": (
        Case(f"{EXTRACT} log-mel", lambda: (os.remove(f"{STORE}/store.json"), os.remove(f"{STORE}/.lock"))),
        [STORE, "no store.json", "restore that"],
    ),
}
