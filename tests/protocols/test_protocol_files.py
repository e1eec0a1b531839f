"""A protocol's file, and the verbs about splits."""

# mypy: disable-error-code="misc,type-var"

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from splits import acted, check_invariants, corpus, dialogues, ids, refused, split, values

from bas.cli.main import main
from bas.corpora.labels import relabel
from bas.protocols import Fold, make, read
from bas.protocols.diff import differences
from bas.tasks import EMOTION


def written(folder: Path, change: Callable[[dict[str, Any]], object] = lambda raw: None, **make_options: Any) -> Path:
    """The file of `acted()` by speaker:5 after a change of its JSON."""
    raw = json.loads(json.dumps(make(acted(), EMOTION, **make_options).to_dict()))
    change(raw)
    path = folder / "split.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


# --- the file ---


def test_the_file_is_the_protocol(tmp_path: Path) -> None:
    protocol = make(acted(), EMOTION, seed=3)
    path = tmp_path / "new" / "split.json"
    protocol.write(path)
    assert read(path) == protocol
    assert len(path.read_text().splitlines()) < 100  # a part a line, not an utterance a line
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]
    again = make(acted(), EMOTION, str(path))
    assert (again.hash, again.folds, again.rule, again.seed, again.unit) == (
        protocol.hash,
        protocol.folds,
        "speaker:5",
        3,
        "speaker",
    )


def test_a_file_written_by_hand(tmp_path: Path) -> None:
    c = acted(speakers=4)
    by_speaker = {s: [u.id for u in c.utterances if u.speaker == s] for s in sorted(values(c, ids(c), "speaker"))}
    a, b, e, d = by_speaker.values()
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"folds": [{"fit": a + b, "valid": e, "test": d}, {"fit": e + d + a, "test": b}]}))
    protocol = make(c, EMOTION, str(path))
    assert (protocol.name, protocol.corpus, protocol.unit) == ("mine", "paper cups", "speaker")
    assert protocol.folds[0] == Fold(tuple(a + b), tuple(e), tuple(d))
    drawn = protocol.folds[1]
    assert len(values(c, drawn.valid, "speaker")) == 1
    assert set(drawn.fit) | set(drawn.valid) == set(e + d + a)
    assert make(c, EMOTION, str(path), seed=9) == protocol  # what is drawn goes by the file's seed


def test_a_leaky_file_is_refused_unless_it_is_published_or_allowed(tmp_path: Path) -> None:
    protocol = make(acted(), EMOTION, "id:5", allowed=("speaker",))
    protocol.write(tmp_path / "leaky.json")
    refused(lambda: make(acted(), EMOTION, str(tmp_path / "leaky.json")), "speaker on both sides", "--allow-overlap")
    assert make(acted(), EMOTION, str(tmp_path / "leaky.json"), allowed=("speaker",)).marks == protocol.marks
    c = split("abx", "d", "ex", published=True)
    make(c, EMOTION).write(tmp_path / "own.json")
    (mark,) = make(c, EMOTION, str(tmp_path / "own.json")).marks
    assert mark.startswith("published split, with speaker on both sides")  # it is what the corpus publishes


def test_what_has_no_label_or_no_features_is_left_out_with_a_note(tmp_path: Path) -> None:
    c = acted()
    path = written(tmp_path)
    fewer = dataclasses.replace(c, utterances=c.utterances[1:])
    refused(lambda: make(fewer, EMOTION, str(path)), "1 of its", "'u000'", "another corpus")
    protocol = make(c, EMOTION, str(path), skipped=["u000"])
    check_invariants(fewer, EMOTION, protocol)
    assert make(fewer, EMOTION, str(path), skipped=["u000"]).folds == protocol.folds
    assert protocol.hash != make(c, EMOTION).hash
    assert protocol.notes[0].startswith("1 utterances are left out, without a label or features, e.g. 'u000'")
    blank = tuple(dataclasses.replace(u, label=None) if u.id == "u000" else u for u in c.utterances)
    assert make(dataclasses.replace(c, utterances=blank), EMOTION, str(path)).folds == protocol.folds


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], tuple[str, ...]]] = {
    "no folds": (lambda raw: raw.pop("folds"), ("folds", "missing", "fit")),
    "fold count 0": (lambda raw: raw.update(folds=[]), ("folds", "missing")),
    "another version": (lambda raw: raw.update(format=7), ("format", "7", "allowed: 1")),
    "another corpus": (lambda raw: raw.update(corpus="meld"), ("corpus", "'meld'", "'paper cups'")),
    "another task": (lambda raw: raw.update(task="who"), ("task", "'who'", "'emotion'")),
    "a fold that is none": (lambda raw: raw["folds"].append([1]), ("folds[5]", "fit, valid, test")),
    "an unknown part": (lambda raw: raw["folds"][1].update(dev=["u001"]), ("folds[1]", "fit, valid, test")),
    "no test": (lambda raw: raw["folds"][2].pop("test"), ("folds[2].test", "list of utterance ids")),
    "an empty part": (lambda raw: raw["folds"][0].update(valid=[]), ("folds[0].valid", "empty")),
    "ids that are none": (lambda raw: raw["folds"][0].update(fit=[1, 2]), ("folds[0].fit", "list of utterance ids")),
    "an id twice": (lambda raw: raw["folds"][0]["fit"].append(raw["folds"][0]["test"][0]), ("folds[0]", "already")),
    "an unknown id": (lambda raw: (raw["folds"][0]["fit"].append("x"), raw.pop("hash")), ("fold 0", "'x'", "fit")),
    "edited": (lambda raw: raw["folds"][0]["fit"].pop(), ("hash", "edited", "delete")),
    "a name that is none": (lambda raw: raw.update(name=3), ("name", "3", "text")),
    "a seed that is none": (lambda raw: raw.update(seed="x"), ("seed", "'x'", "whole number")),
    "a seed that is a truth": (lambda raw: raw.update(seed=True), ("seed", "True", "whole number")),
    "marks that are none": (lambda raw: raw.update(marks=3), ("marks", "3", "list of texts")),
    "a name of two lines": (lambda raw: raw.update(name="a\nb"), ("name", "one line")),
    "a name that is markup": (
        lambda raw: raw.update(name="cups[conceal]"),
        ("name", "'cups[conceal]'", "letters, digits"),
    ),
    "an unknown field": (lambda raw: raw.update(sead=1), ("sead", "unknown", "seed")),
    "a name with a folder": (lambda raw: raw.update(name="../evil"), ("name", "'../evil'", "letters, digits")),
    "published maybe": (lambda raw: raw.update(published="yes"), ("published", "'yes'", "true, false")),
    "one class only": (
        lambda raw: (raw["folds"][0].update(fit=raw["folds"][0]["fit"][::3]), raw.pop("hash")),
        ("fold 0", "no label 'b'"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, case: str) -> None:
    change, message = BROKEN[case]
    path = written(tmp_path, change)
    refused(lambda: make(acted(), EMOTION, str(path)), *message)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    refused(lambda: make(acted(), EMOTION, str(tmp_path / "no.json")), str(tmp_path / "no.json"), "no such file")
    (tmp_path / "bad.json").write_bytes(b'{"folds": \xff')
    refused(lambda: make(acted(), EMOTION, str(tmp_path / "bad.json")), "bad.json", "JSON")


def test_ids_in_another_order_are_the_same_split(tmp_path: Path) -> None:
    def turn(raw: dict[str, Any]) -> None:
        for fold in raw["folds"]:
            fold["test"].reverse()

    assert make(acted(), EMOTION, str(written(tmp_path, turn))).folds == make(acted(), EMOTION).folds


def test_a_file_names_the_unit_only_where_its_folds_keep_it_whole(tmp_path: Path) -> None:
    for unit, used in (
        ("sex", "speaker"),
        ("text", "speaker"),
        ("id", "speaker"),
        ("label", "speaker"),
        ("speaker", "speaker"),
    ):
        path = written(tmp_path, lambda raw, unit=unit: raw.update(unit=unit))
        assert make(acted(), EMOTION, str(path)).unit == used
    c = dialogues()
    make(c, EMOTION).write(tmp_path / "sessions.json")
    assert make(c, EMOTION, str(tmp_path / "sessions.json")).unit == "session"


def test_a_valid_part_that_cannot_be_used_is_not_drawn_again(tmp_path: Path) -> None:
    c = split("abc", "d", "ef")
    make(c, EMOTION).write(tmp_path / "own.json")
    gone = [u.id for u in c.utterances if u.speaker == "d"]
    refused(lambda: make(c, EMOTION, str(tmp_path / "own.json"), skipped=gone), "fold 0", "valid")
    refused(lambda: make(c, EMOTION, "own", skipped=gone), "split valid")


def test_a_file_has_its_rules_name_only_where_the_rule_makes_it(tmp_path: Path) -> None:
    """An edited split, and one that calls itself published, go by the file's name."""
    protocol = make(acted(), EMOTION)
    one, other = protocol.folds[0], protocol.folds[1]
    edited = dataclasses.replace(one, fit=(*one.fit, *one.valid), valid=other.test[:12])
    edited = dataclasses.replace(edited, fit=tuple(i for i in edited.fit if i not in edited.valid))
    dataclasses.replace(protocol, folds=(edited, *protocol.folds[1:])).write(tmp_path / "edited.json")
    made = make(acted(), EMOTION, str(tmp_path / "edited.json"))
    assert made.rule == "file edited.json"
    assert "file edited.json" in made.description
    leaky = make(acted(), EMOTION, "id:5", allowed=("speaker",))
    for rule in ("own", "emobox", "id:5"):
        dataclasses.replace(leaky, rule=rule, published=True).write(tmp_path / "said.json")
        said = make(acted(), EMOTION, str(tmp_path / "said.json"))
        assert said.rule == "file said.json"
        assert said.marks[0].startswith("published split, says its file, with speaker on both sides")


def test_a_file_goes_by_its_rule_also_where_a_store_lacks_utterances(tmp_path: Path) -> None:
    c = acted()
    path = written(tmp_path)
    gone = ["u000", "u050"]
    less = make(c, EMOTION, str(path), skipped=gone)
    assert less.rule == "speaker:5 less what is left out"
    make(c, EMOTION, "speaker:5", skipped=gone).write(tmp_path / "gone.json")
    assert make(c, EMOTION, str(tmp_path / "gone.json"), skipped=gone).rule == "speaker:5"


def test_a_files_own_name_is_not_believed(tmp_path: Path) -> None:
    path = written(tmp_path, lambda raw: raw.update(name="emodb-emobox-seed0"))
    assert make(acted(), EMOTION, str(path)).name == "paper-cups-speaker-5-seed0"


def test_labels_belong_to_a_split(tmp_path: Path) -> None:
    rows = [{"speaker": f"s{s}", "label": label} for s in range(6) for label in ("angry", "sad", "boredom")]
    c = corpus(rows)
    common = relabel(c, "common")
    make(common, EMOTION, "speaker:3").write(tmp_path / "common.json")
    assert read(tmp_path / "common.json").name == "paper-cups-common-speaker-3-seed0"
    assert make(common, EMOTION, str(tmp_path / "common.json")).rule == "speaker:3"
    refused(lambda: make(c, EMOTION, str(tmp_path / "common.json")), "labels", "--labels common", "own labels")
    make(c, EMOTION, "speaker:3").write(tmp_path / "own.json")
    refused(lambda: make(common, EMOTION, str(tmp_path / "own.json")), "labels", "--labels common", "own labels")


def test_every_id_wrong_is_told_before_valid_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"folds": [{"fit": ["u000.wav"], "test": ["u001.wav"]}]}))
    refused(lambda: make(acted(), EMOTION, str(path)), "fold 0", "1 of its 1 ids in fit", "'u000.wav'")


# --- differences and verbs ---


def test_differences_name_what_moved() -> None:
    one = make(acted(), EMOTION)
    moved = one.folds[1].fit[0]
    changed = Fold(one.folds[1].fit[1:], (*one.folds[1].valid, moved), one.folds[1].test)
    other = dataclasses.replace(one, folds=(one.folds[0], changed, *one.folds[2:]), name="other")
    assert differences(one, one)[-1] == "the same split"
    lines = differences(one, other)
    assert lines[0].endswith(one.hash)
    assert lines[1].endswith(other.hash)
    assert lines[2:] == [f"fold 1: 1 of 120 from fit to valid: {moved!r}"]
    assert "5 folds, now 4" in differences(one, dataclasses.replace(one, folds=one.folds[:4]))


def manifest(folder: Path, speakers: str = "abcdef") -> Path:
    rows = [(f"{s}{label}{n}", s, label) for s in speakers for label in "xy" for n in range(2)]
    for id_, _, _ in rows:
        (folder / f"{id_}.wav").write_bytes(id_.encode())
    path = folder / "cups.csv"
    path.write_text("id,audio,speaker,label\n" + "".join(f"{i},{i}.wav,{s},{c}\n" for i, s, c in rows))
    return path


def run(*words: str | Path) -> int:
    return main(["protocol", *map(str, words)])


def test_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    of_corpus = ("--corpus", "manifest", "--root", manifest(tmp_path))
    assert run("make", *of_corpus, "--protocol", "speaker:3") == 0
    path = Path("runs/protocols/cups-speaker-3-seed0.json")
    shown = capsys.readouterr().out
    assert f"protocol: {path}" in shown
    assert read(path).hash in shown
    assert run("show", path) == 0
    assert read(path).hash in capsys.readouterr().out
    assert run("check", path, *of_corpus) == 0
    assert "ok: no forbidden overlap; the recordings were not all compared" in capsys.readouterr().out
    assert run("diff", path, path) == 0
    before = path.read_bytes()
    assert run("make", *of_corpus, "--protocol", "speaker:3") == 0  # the same again
    assert run("make", *of_corpus, "--protocol", "speaker:2", "--to", path) == 2
    assert "another split is there" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert run("make", *of_corpus, "--protocol", "speaker:3", "--protocol-seed", "1", "--to", "other.json") == 0
    assert run("diff", path, "other.json") == 1
    assert "from fit to" in capsys.readouterr().out


def test_the_verbs_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    of_corpus = ("--corpus", "manifest", "--root", manifest(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert run("make", *of_corpus, "--protocol", "id:3") == 2
    assert "--allow-overlap speaker" in capsys.readouterr().err
    assert run("make", *of_corpus, "--protocol", "speaker:3", "--to", "split.txt") == 2
    assert run("show", "nowhere.json") == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert run("make", *of_corpus, "--protocol", "id:3", "--allow-overlap", "speaker", "--to", "leaky.json") == 0
    assert "mark: allowed by --allow-overlap" in capsys.readouterr().out
    assert run("check", "leaky.json", *of_corpus) == 2
    assert "speaker on both sides" in capsys.readouterr().err
    assert run("check", "leaky.json", *of_corpus, "--allow-overlap", "speaker") == 0
    assert "MARKED" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["my corpus", "v1+2", "crowd [v2]", "-dash", "it's", 'a "b"', "声音 e\u0301", "+++"])
def test_a_corpus_of_any_name_has_a_file_that_can_be_read(tmp_path: Path, name: str) -> None:
    made = make(dataclasses.replace(acted(), name=name), EMOTION)
    made.write(tmp_path / "made.json")
    assert read(tmp_path / "made.json") == made


def test_a_name_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    made = dataclasses.replace(make(acted(), EMOTION), name="my split")
    with pytest.raises(AssertionError):
        made.write(tmp_path / "made.json")
    assert not (tmp_path / "made.json").exists()
