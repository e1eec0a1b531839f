"""The study: what is prepared, who stands where, what is measured, what goes on after a kill and what is refused."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from damage import SORTS, damaged
from families import save
from records import rewrite
from refusals import refusal
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_finetune import hisses, numbers, weights

from bas.cli.main import main
from bas.corpora import Corpus, Utterance, export, open_corpus
from bas.encoders import load_encoder, tunable
from bas.encoders.base import revision_of
from bas.errors import UserError
from bas.features.store import FeatureStore
from bas.features.verify import verify
from bas.protocols import read
from bas.report.results import write_results
from bas.speech import audio
from bas.studies import load_results
from bas.studies.dynamics import prepare as prepared_module
from bas.studies.dynamics import study
from bas.studies.dynamics.analysis import AnalysisSettings
from bas.studies.dynamics.checkpoints import mean_states, refitted
from bas.studies.dynamics.finetune import checkpoint_of, read_head
from bas.studies.dynamics.prepare import prepare, texts_of
from bas.studies.dynamics.study import Plan, carry_out
from bas.tasks import EMOTION
from bas.training.tuning import PRESETS, Tuning
from bas.util.typed import to_plain

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
HOW = Tuning(lr=1e-3, epochs=2, batch=8, micro_batch=4, evaluate_every=2, checkpoint_every=4, improvement=0.0)
FAST = AnalysisSettings(initialisations=3, splits=2, epochs=5, permutations=5, hidden=4)
SPEAKERS, EACH = 6, 8


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def voices(folder: Path, count: int, name: str) -> list[Utterance]:
    """A buzz with a pitch that moves and a pause, dark in one class and bright in the other: eGeMAPS varies over it."""
    made = []
    for u, seed in zip(hisses(folder, count, name), range(count), strict=True):
        rng = np.random.default_rng([seed, *name.encode()])
        time_S = np.arange(round(rng.uniform(0.6, 0.9) * 16_000)) / 16_000
        hertz_S = rng.uniform(110, 220) * (1 + rng.uniform(0.02, 0.2) * np.sin(2 * np.pi * rng.uniform(2, 5) * time_S))
        phase_S = 2 * np.pi * np.cumsum(hertz_S) / 16_000
        tilt = 0.5 if u.label == "a" else 2.0
        wave_S = np.sum([np.sin(k * phase_S) / k**tilt for k in range(1, 20)], axis=0)
        pause = rng.uniform(0.3, 0.5)
        wave_S[(time_S > pause) & (time_S < pause + 0.1)] = 0.0
        wave_S = 0.1 * wave_S * rng.uniform(0.5, 1.0) + 0.002 * rng.standard_normal(time_S.size)
        soundfile.write(u.audio, wave_S, 16_000, subtype="FLOAT")
        made.append(u)
    return made


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 6 speakers by 8 voices, and a small HuBERT."""
    root = tmp_path_factory.mktemp("given")
    made = []
    for s in range(SPEAKERS):
        for i, u in enumerate(voices(root / "wav", EACH, f"s{s}u")):
            sex, text = ("female", "male")[s % 2], ("the door", "the door is open", "closed")[i % 3]
            made.append(replace(u, speaker=f"s{s}", sex=sex, text=text, language="de"))
    export.write(Corpus("hisses", tuple(made), protocol="own", unit="speaker"), root / "hisses.csv")
    save(root / "model", "hubert-layer")
    return root


def plan(given: Path, **changes: Any) -> Plan:
    choices = {
        **{"corpus": "manifest", "root": str(given / "hisses.csv"), "truncated": False},
        **{"encoder": str(given / "model"), "revision": None},
        **{"real_length": False, "labels": None, "protocol": None, "protocol_seed": 0, "loudness": -23.0},
        **{"text_encoder": None},
        **{"preset": "cpu", "settings": HOW, "seed": 0, "device": "cpu", "analysis": FAST},
    }
    return Plan(**{**choices, **changes})


def quiet() -> Console:
    return Console(file=StringIO(), width=300)


@pytest.fixture(scope="module")
def done(given: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    torch.set_num_threads(1)
    folder, console = tmp_path_factory.mktemp("runs") / "one", quiet()
    results = carry_out(folder, plan(given), console, rotations=1)
    before = (folder / "results.json").read_bytes()
    write_results(folder, load_results(folder))
    assert (folder / "results.json").read_bytes() == before, "read and written again"
    return folder, to_plain(results), console.file.getvalue()


def test_recordings_are_prepared(done: tuple[Path, dict[str, Any], str], given: Path) -> None:
    folder, results, _ = done
    source, prepared = open_corpus("manifest", given / "hisses.csv"), open_corpus("manifest", folder / "corpus.csv")
    for old, new in zip(source.utterances, prepared.utterances, strict=True):
        assert replace(new, audio=old.audio) == old
        assert new.audio.is_relative_to(folder)
        info = soundfile.info(new.audio)
        assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "FLOAT")
        np.testing.assert_array_equal(audio.load(new), audio.to_loudness(audio.load(old), -23.0))
    assert results["skipped"] == {}


def test_equal_runs_prepare_equal_bytes(given: Path, tmp_path: Path) -> None:
    """So that the hashes of their recordings are equal; libsndfile writes the second into a float WAV's head."""
    corpus = open_corpus("manifest", given / "hisses.csv")
    few, encoder = replace(corpus, utterances=corpus.utterances[:2]), tunable(load_encoder(str(given / "model"), CPU))
    raw = []
    for name in ("one", "other"):
        prepare(few, encoder, tmp_path / name, -23.0, quiet())
        raw.append([path.read_bytes() for path in sorted((tmp_path / name / "audio").iterdir())])
        time.sleep(1.1)
    assert len(raw[0]) == 2
    assert raw[0] == raw[1]


def test_speakers_stand_in_one_part_each(done: tuple[Path, dict[str, Any], str], given: Path) -> None:
    folder, results, said = done
    corpus = {u.id: u for u in open_corpus("manifest", given / "hisses.csv").utterances}
    protocol = read(folder / "protocol.json")
    assert (protocol.rule, len(protocol.folds)) == ("speaker:5", 5)
    for fold in protocol.folds:
        fit, valid, test = ({corpus[i].speaker for i in part} for part in fold.parts().values())
        assert len(fit | valid | test) == len(fit) + len(valid) + len(test)
    note = "the default with 6 speakers (below 30: the third part is rotated)"
    assert note in said
    assert note in results["protocol"]["description"]
    assert "1 of 5 rotations" in (folder / "table.md").read_text()


def test_with_enough_speakers_there_is_one_split(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "FEW", 6)
    corpus = open_corpus("manifest", given / "hisses.csv")
    assert study._rule(corpus, plan(given))[0] == "speaker:64/20/16"
    assert study._rule(corpus, plan(given, protocol="own")) == ("own", "")


def test_the_stores_are_stores_of_the_third_part(done: tuple[Path, dict[str, Any], str]) -> None:
    folder, results, _ = done
    steps, test = results["finetuned"][0]["steps"], read(folder / "protocol.json").folds[0].test
    assert steps == [0, 4, 8]
    for step in steps:
        store = FeatureStore(folder / f"rotation0/features/step-{step:05}")
        assert sorted(store.ids) == sorted(test)
        findings = list(verify(store.folder, quiet(), CPU, sample=2 if step == steps[-1] else 0))
        assert not any(finding.problems for finding in findings), findings


def test_only_the_last_weights_are_kept(done: tuple[Path, dict[str, Any], str]) -> None:
    where = done[0] / "rotation0"
    assert sorted(p.name for p in (where / "checkpoints").iterdir()) == [
        *("step-00000.npz", "step-00004.npz", "step-00008", "step-00008.npz")
    ]


def test_what_is_measured_is_what_the_arrays_say(done: tuple[Path, dict[str, Any], str], given: Path) -> None:
    """The last checkpoint's last state with its own head is the fine-tuned model, scored again here from the waves."""
    folder, results, _ = done
    last = results["finetuned"][0]["steps"][-1]
    analysis = json.loads((folder / f"rotation0/analysis/step-{last:05}.json").read_text())
    encoder = tunable(load_encoder(str(checkpoint_of(folder / "rotation0", last)), CPU))
    weight_OD, bias_O, _ = read_head(folder / "rotation0", last)
    known = {u.id: u for u in open_corpus("manifest", folder / "corpus.csv").utterances}
    utterances = [known[i] for i in analysis["ids"]]
    assert analysis["ids"] == sorted(read(folder / "protocol.json").folds[0].test)
    means_UD = np.stack([encoder.outputs([encoder.prepare(audio.load(u))])[0].mean(0).numpy() for u in utterances])
    logits_UO = means_UD @ weight_OD.T + bias_O
    sure_U = np.abs(logits_UO[:, 0] - logits_UO[:, 1]) > 1e-2  # of the states in the store, float16
    predicted_U = np.array(analysis["cut"]["own"]["predictions"][-1])
    assert sure_U.mean() > 0.5
    np.testing.assert_array_equal(predicted_U[sure_U], logits_UO.argmax(1)[sure_U])
    targets_U = np.array(["ab".index(u.label or "") for u in utterances])
    assert analysis["targets"] == targets_U.tolist()
    assert analysis["cut"]["own"]["WA"][-1] == np.mean(predicted_U == targets_U)
    with np.load(folder / f"rotation0/means/step-{last:05}.npz") as held:
        np.testing.assert_allclose(held["x_LUD"], mean_states(encoder, utterances, 3), atol=2e-2)
        assert len(analysis["cut"]["own"]["WA"]) == len(held["x_LUD"]) == analysis["states"]


def test_the_first_and_the_last_are_refitted(done: tuple[Path, dict[str, Any], str]) -> None:
    folder, results, _ = done
    for step in results["finetuned"][0]["steps"]:
        cut = json.loads((folder / f"rotation0/analysis/step-{step:05}.json").read_text())["cut"]
        assert ("refitted" in cut) is (step in (0, 8))
    fold, known = read(folder / "protocol.json").folds[0], open_corpus("manifest", folder / "corpus.csv").utterances
    encoder = tunable(load_encoder(str(checkpoint_of(folder / "rotation0", 8)), CPU))
    parts = {name: [u for u in known if u.id in ids] for name, ids in fold.parts().items()}
    states = {name: mean_states(encoder, parts[name], 1) for name in ("fit", "valid")}
    with np.load(folder / "rotation0/means/step-00008.npz") as held:
        states["test"] = held["x_LUD"]
    targets = {name: EMOTION.targets(utterances, ("a", "b")) for name, utterances in parts.items()}
    again = refitted(states, targets, EMOTION)
    assert again["strengths"] == cut["refitted"]["strengths"]
    assert again["predictions"] == cut["refitted"]["predictions"]


def test_the_third_part_decides_nothing(done: tuple[Path, dict[str, Any], str], given: Path, tmp_path: Path) -> None:
    """With its labels turned round, and its recordings others, the fine-tuning is the same bit by bit."""
    folder, _, _ = done
    protocol = read(folder / "protocol.json")
    replace(protocol, name="file", folds=protocol.folds[:1]).write(tmp_path / "split.json")
    test = set(protocol.folds[0].test)
    source = open_corpus("manifest", given / "hisses.csv").utterances
    other = {"a": "b", "b": "a"}
    turned = [replace(u, label=other[u.label or ""], audio=source[0].audio) if u.id in test else u for u in source]
    for i, u in enumerate(turned):
        if u.id in test:
            wav = tmp_path / f"{u.id}.wav"
            soundfile.write(wav, np.roll(audio.load(source[i]), 500)[:-400], 16_000, subtype="FLOAT")
            turned[i] = replace(u, audio=wav)
    export.write(Corpus("hisses", tuple(turned), protocol="own", unit="speaker"), tmp_path / "hisses.csv")
    choice = plan(given, root=str(tmp_path / "hisses.csv"), protocol=str(tmp_path / "split.json"))
    carry_out(tmp_path / "run", choice, quiet())
    one, two = (json.loads((f / "rotation0/finetune.json").read_text()) for f in (folder, tmp_path / "run"))
    assert numbers(one) == numbers(two)
    assert weights(folder / "rotation0") == weights(tmp_path / "run/rotation0")


def test_what_is_done_is_not_done_again(
    done: tuple[Path, dict[str, Any], str], given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is lost behind it: a killed one goes on, and ends with the same results."""
    folder = tmp_path / "run"
    shutil.copytree(done[0], folder)
    lost = folder / "rotation0/analysis/step-00008.json"
    before = json.loads(lost.read_text())
    for path in (lost, folder / "results.json", folder / "table.md"):
        path.unlink()
    monkeypatch.setattr(study, "finetune", None)
    carry_out(folder, plan(given), quiet(), rotations=1)
    assert json.loads(lost.read_text()) == before
    assert (folder / "table.md").read_text() == (done[0] / "table.md").read_text()
    for job in ("rotation0", "rotation0/third", "figures"):
        assert len(list((folder / "tb" / job).glob("events.*"))) == 1
    events = EventAccumulator(str(folder / "tb/rotation0/third"))
    events.Reload()
    assert [event.step for event in events.Scalars("third part/WA")] == [0, 4, 8]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize(
    "file",
    [
        *(
            "run.json",
            "rotation0/finetune.json",
            "rotation0/analysis/step-00000.json",
            "rotation0/means/step-00000.npz",
        ),
        *("rotation0/checkpoints/step-00008.npz", "rotation0/checkpoints/step-00008/model.safetensors"),
    ],
)
def test_a_fault_is_found_or_harmless(
    file: str, sort: str, done: tuple[Path, dict[str, Any], str], given: Path, tmp_path: Path
) -> None:
    """Of what a run reads again that measures its last checkpoint once more."""
    before, messages = done[1], []
    for number, raw in enumerate(damaged((done[0] / file).read_bytes(), sort, 6)):
        folder = tmp_path / f"run{number}"
        shutil.copytree(done[0], folder)
        for lost in ("analysis/step-00008.json", "means/step-00008.npz"):
            (folder / "rotation0" / lost).unlink()
        (folder / file).write_bytes(raw)
        try:
            results = carry_out(folder, plan(given), quiet(), rotations=1)
        except UserError as error:
            messages.append(str(error))
        else:
            assert to_plain(results) == before, f"fault {number}"
    assert all(str(tmp_path) in message for message in messages)
    assert len(messages) >= 3


def test_what_is_lost_with_its_weights_is_had_again_with_the_rotation(
    done: tuple[Path, dict[str, Any], str], given: Path, tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path / "run")
    where = tmp_path / "run/rotation0"
    first, last = where / "analysis/step-00000.json", where / "analysis/step-00008.json"

    def refused() -> str:
        return refusal(carry_out, tmp_path / "run", plan(given), quiet(), rotations=1)

    kept = {path: path.read_text() for path in (first, last)}
    last.write_text("{")
    assert refused().endswith(f"; delete {last}: it is made again")  # its weights are there
    last.unlink()
    (where / "means/step-00000.npz").unlink()
    assert refused().endswith("step-00000.npz: missing; put it back, or give another --name")
    last.write_text(kept[last])
    first.write_text("{")
    assert refused().endswith(f"; delete {where}: it is made again")
    first.unlink()
    assert refused() == f"{first}: missing, and so are the weights to measure; put them back, or give another --name"


def test_vectors_of_the_texts_are_measured_and_told(
    done: tuple[Path, dict[str, Any], str],
    given: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bert: str,
) -> None:
    folder, choice = tmp_path / "run", plan(given, text_encoder=bert)
    missing = refusal(carry_out, folder, replace(choice, text_encoder=f"{bert}-none"), quiet())
    assert missing.startswith(f"text encoder '{bert}-none': cannot be loaded")
    assert not folder.exists()
    shutil.copytree(done[0], folder)
    path = folder / "rotation0/analysis/step-00008.json"
    before = json.loads(path.read_text())["cka"]
    assert f"made with text encoder None, now {bert}" in refusal(carry_out, folder, choice, quiet())
    path.unlink()
    monkeypatch.setattr(study, "_check_same", lambda folder, made_of: None)  # as if it had been begun so
    carry_out(folder, choice, quiet(), rotations=1)
    after = json.loads(path.read_text())["cka"]
    assert after.pop("text") != before.pop("text")
    assert after == before
    assert f"- text: embeddings of {Path(bert).name}." in (folder / "table.md").read_text()
    made_of = json.loads((folder / "run.json").read_text())["made_of"]
    assert made_of["text encoder's revision"] == revision_of(bert, None)


def test_weights_are_kept_on_request(given: Path, tmp_path: Path) -> None:
    how = replace(HOW, epochs=1, evaluate_every=2, checkpoint_every=2)
    carry_out(tmp_path / "run", plan(given, settings=how), quiet(), rotations=1, keep_weights=True)
    names = [p.name for p in (tmp_path / "run/rotation0/checkpoints").iterdir() if p.is_dir()]
    assert sorted(names) == ["step-00000", "step-00002", "step-00004"]
    for name in names:
        load_encoder(str(tmp_path / "run/rotation0/checkpoints" / name), CPU)


def test_another_plan_is_refused(done: tuple[Path, dict[str, Any], str], given: Path, tmp_path: Path) -> None:
    folder, _, _ = done
    before = sorted(p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock")

    def refused(**changes: Any) -> str:
        return refusal(carry_out, folder, plan(given, **changes), quiet(), rotations=1)

    tail = "give another --name"
    assert refused(seed=1) == f"{folder}: made with seed 0, now 1; {tail}"
    assert refused(loudness=None) == f"{folder}: made with loudness -23.0, now None; {tail}"
    assert "setting lr 0.001, now 0.5" in refused(settings=replace(HOW, lr=0.5))
    assert "made with protocol" in refused(protocol_seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study.acoustics, "opensmile_version", lambda: "0")
        assert refused().endswith(f", now 0; {tail}")
    assert "made with analysis" in refused(analysis=replace(FAST, splits=3))
    assert "made with encoder sha256:" in refused(encoder=str(save(tmp_path / "other", "hubert-layer", seed=1)))
    source = open_corpus("manifest", given / "hisses.csv")
    export.write(replace(source, utterances=source.utterances[:-1]), tmp_path / "fewer.csv")
    assert "made with recordings" in refused(root=str(tmp_path / "fewer.csv"))
    texts = tuple(replace(u, text="another") for u in source.utterances)
    export.write(replace(source, utterances=texts), tmp_path / "texts.csv")
    assert "made with labels" in refused(root=str(tmp_path / "texts.csv"))
    assert refusal(carry_out, folder, plan(given), quiet(), rotations=6) == "--rotations 6: speaker:5 makes 1 to 5"
    assert sorted(p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock") == before


def test_bad_input_writes_nothing(given: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"encoder": "log-mel"}, "no weights to train"),
        ({"protocol": "speeker:5"}, "protocol 'speeker:5': must be"),
        ({"protocol": "speaker:9"}, "only 6 values of speaker"),
        ({"protocol": "id:5"}, "task emotion forbids it"),
        ({"corpus": "mugs"}, "unknown name 'mugs'"),
    ):
        assert message in refusal(carry_out, tmp_path / "run", plan(given, **changes), quiet())
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/results.json").write_text("{}")
    assert "holds something else" in refusal(carry_out, tmp_path / "run", plan(given), quiet())
    rewrite(tmp_path / "run/run.json", {"made_of": {"seed": 0}})
    assert "not of this study" in refusal(carry_out, tmp_path / "run", plan(given), quiet())


def test_what_cannot_be_used_is_left_out_and_told(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = list(open_corpus("manifest", given / "hisses.csv").utterances)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8_000), 16_000)
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16_000)
    for index, name in ((0, "silent"), (9, "short")):
        source[index] = replace(source[index], audio=tmp_path / f"{name}.wav")
    corpus = Corpus("hisses", tuple(source), protocol="own", unit="speaker")
    encoder, console = tunable(load_encoder(str(given / "model"), CPU)), quiet()
    prepared, skipped = prepare(corpus, encoder, tmp_path / "run", -23.0, console)
    assert skipped.keys() == {source[0].id, source[9].id}
    assert "silence" in skipped[source[0].id]
    assert "too short" in skipped[source[9].id]
    assert {u.id for u in prepared.utterances} == {u.id for u in source} - skipped.keys()
    assert f"skipped: {source[0].id}" in console.file.getvalue()
    monkeypatch.setattr(prepared_module, "_write", None)
    assert prepare(corpus, encoder, tmp_path / "run", -23.0, quiet()) == (prepared, skipped)


def test_texts_become_vectors_on_request(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = open_corpus("manifest", given / "hisses.csv")
    monkeypatch.setattr(prepared_module, "embed_texts", lambda name, texts, device: np.eye(len(texts)))
    plain, vectors = texts_of(corpus, None, CPU), texts_of(corpus, "bert", CPU)
    assert plain == {u.id: u.text for u in corpus.utterances}
    assert [int(vectors[u.id].argmax()) for u in corpus.utterances] == list(range(len(corpus.utterances)))
    mute = replace(corpus, utterances=(replace(corpus.utterances[0], text=None), *corpus.utterances[1:]))
    assert refusal(texts_of, mute, "bert", CPU) == "--text-encoder: 1 utterances of hisses have no text"


def test_the_verb(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(study, "carry_out", lambda *a, **more: seen.append((*a[:2], more)))

    def call(*more: str) -> int:
        where = ("--root", str(given / "hisses.csv"), "--encoder", str(given / "model"), "--device", "cpu")
        return main(["dynamics", "--corpus", "manifest", *where, *more])

    assert call() == 0
    folder, choice, more = seen[0]
    assert folder == Path("runs/dynamics-hisses-model-cpu")
    assert (choice.loudness, choice.preset, choice.protocol, choice.settings) == (-23.0, "cpu", None, PRESETS["cpu"])
    assert more == {"rotations": None, "keep_weights": False}
    assert "next: bas board" in capsys.readouterr().out
    changed = ["--preset", "paper", "--set", "lr=3e-5", "--as-recorded", "--rotations", "2", "--keep-weights"]
    assert call(*changed, "--name", "x") == 0
    folder, choice, more = seen[1]
    assert (folder, choice.settings, choice.loudness) == (Path("runs/x"), replace(Tuning(), lr=3e-5), None)
    assert more == {"rotations": 2, "keep_weights": True}
    for wrong, message in {
        ("--seed", "-1"): "--seed -1: must be 0 or more",
        ("--rotations", "0"): "--rotations 0: must be 1 or more",
        ("--set", "lr"): "--set 'lr': must be NAME=VALUE, such as epochs=30",
        ("--set", "layer=3"): "--set layer=3: dynamics does not read it; dynamics reads preset, labels",
        ("--set", "epoch=3"): "--set epoch=3: no such key, the nearest is epochs",
    }.items():
        assert call(*wrong) == 2
        assert capsys.readouterr().err.startswith(f"bas: {message}")
