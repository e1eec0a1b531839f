"""No protocol leaks: by example, on drawn corpora, on hand-built leaks, and on the real EmoDB."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from places import EMODB
from splits import SPEAKER_ID, Row, acted, check_invariants, corpus, dialogues, notes, refused, split, values

from bas.corpora import Corpus, Utterance, open_corpus
from bas.errors import UserError
from bas.protocols import Fold, check, make, read
from bas.tasks import EMOTION, Classification

needs_emodb = pytest.mark.skipif(not EMODB.is_dir(), reason=f"the EmoDB recordings are not at {EMODB}")


# --- field rules ---


@pytest.mark.parametrize("rule", ["speaker:2", "speaker:3", "speaker:5", "speaker:10", "speaker"])
def test_folds_of_whole_speakers(rule: str) -> None:
    c = acted()
    protocol = make(c, EMOTION, rule)
    check_invariants(c, EMOTION, protocol)
    assert len(protocol.folds) == int(rule.partition(":")[2] or 10)
    sizes = [len(values(c, f.test, "speaker")) for f in protocol.folds]
    assert sum(sizes) == 10
    assert max(sizes) - min(sizes) <= 1


def test_rule_of_corpus_task_and_caller() -> None:
    c = acted()
    assert make(c, EMOTION).rule == "speaker:5"
    assert make(c, dataclasses.replace(EMOTION, protocol="speaker:2")).rule == "speaker:2"
    assert make(c, dataclasses.replace(EMOTION, protocol="speaker:2"), "speaker").rule == "speaker"


def test_session_rule_is_speaker_disjoint() -> None:
    c = dialogues()
    protocol = make(c, EMOTION)
    check_invariants(c, EMOTION, protocol)
    assert len(protocol.folds) == 5
    (note,) = notes(protocol)
    assert note.startswith("session on both sides: 1 values, e.g. 'Ses")
    assert note.endswith(" in fit and valid, none in test")
    assert protocol.marks == ()
    for fold in protocol.folds:
        assert [len(values(c, part, "session")) for part in (fold.fit, fold.valid, fold.test)] == [4, 1, 1]


def test_speaker_in_two_sessions_is_refused_by_name() -> None:
    c = dialogues()
    moved = [dataclasses.replace(u, speaker="Ses0F") if u.speaker == "Ses3M" else u for u in c.utterances]
    leaky = dataclasses.replace(c, utterances=tuple(moved))
    for seed in range(5):
        refused(lambda seed=seed: make(leaky, EMOTION, seed=seed), "speaker", "'Ses0F'", "emotion forbids")


def test_rule_that_ignores_the_disjoint_field_is_refused() -> None:
    refused(lambda: make(acted(), EMOTION, "text:2"), "speaker on both sides", "'s00'")
    refused(lambda: make(acted(), EMOTION, "id:5"), "speaker on both sides", "'s0")


def test_overlap_in_other_fields_is_noted() -> None:
    protocol = make(acted(), EMOTION)
    assert protocol.marks == ()
    assert notes(protocol) == ("text on both sides: 4 values, e.g. 'text 0' in fit and test",)


def test_speaker_identification_over_texts() -> None:
    c = acted(speakers=6, texts=10)
    protocol = make(c, SPEAKER_ID)
    check_invariants(c, SPEAKER_ID, protocol)
    assert protocol.rule == "text:5"
    assert [len(values(c, f.test, "text")) for f in protocol.folds] == [2] * 5
    assert any(note.startswith("speaker on both sides: 6 values") for note in protocol.notes)
    refused(lambda: make(c, SPEAKER_ID, "speaker:3"), "no speaker 's0", "training")


def test_unlabelled_utterances_are_left_out() -> None:
    c = acted()
    some = [dataclasses.replace(u, label=None) if i % 7 == 0 else u for i, u in enumerate(c.utterances)]
    some.append(Utterance("unlabelled and of nobody", Path("none.wav")))
    c = dataclasses.replace(c, utterances=tuple(some))
    check_invariants(c, EMOTION, make(c, EMOTION))


def test_unbalanced_speakers() -> None:
    sizes = [500, 60, 3, 2, 2, 2]
    c = corpus([{"speaker": f"s{s}", "label": "ab"[i % 2]} for s, size in enumerate(sizes) for i in range(size)])
    for seed in range(10):
        protocol = make(c, EMOTION, "speaker:3", seed)
        check_invariants(c, EMOTION, protocol)
        assert sorted(len(f.test) for f in protocol.folds) == [9, 60, 500]


def test_a_single_training_speaker_is_divided_and_a_note_says_so() -> None:
    c = corpus([{"speaker": f"s{s}", "label": "ab"[i % 2]} for s, n in enumerate([90, 2, 2, 2]) for i in range(n)])
    protocol = make(c, EMOTION, "speaker:2")
    assert protocol.marks == ()
    assert "speaker on both sides: 1 values, e.g. 's0' in fit and valid, none in test" in protocol.notes
    check_invariants(c, dataclasses.replace(EMOTION, disjoint=()), protocol)
    check_invariants(c, EMOTION, make(c, EMOTION, "speaker:4"))


def test_class_of_one_speaker_is_refused() -> None:
    c = acted(classes="ab")
    rows = [dataclasses.replace(u, label="rage") if u.speaker == "s04" else u for u in c.utterances]
    c = dataclasses.replace(c, utterances=tuple(rows))
    for seed in range(10):
        refused(lambda seed=seed: make(c, EMOTION, seed=seed), "fold", "'rage'", "training")


def test_class_of_two_speakers_stays_in_fit() -> None:
    """Valid may not take the last training speaker of a class, so the two may not share a test fold either."""
    c = acted(speakers=6, classes="ab")
    rows = [dataclasses.replace(u, label="rage") if u.speaker in ("s01", "s04") else u for u in c.utterances]
    c = dataclasses.replace(c, utterances=tuple(rows))
    for seed in range(10):
        check_invariants(c, EMOTION, make(c, EMOTION, "speaker", seed))


def test_odd_names(tmp_path: Path) -> None:
    names = ["", " ", "None", "s\n1", "s\t1", "ß", "\u2028", "own", "speaker:5"]
    c = corpus([{"id": f"{label}\n{s}", "speaker": s, "label": label} for s in names for label in ("\n", "a")])
    protocol = make(c, EMOTION)
    check_invariants(c, EMOTION, protocol)
    protocol.write(tmp_path / "odd.json")
    assert read(tmp_path / "odd.json") == protocol
    refused(lambda: make(c, EMOTION, "id:3"), "speaker")
    refused(lambda: make(corpus([{"id": "a\nb", "label": "a"}, {"label": "b"}]), EMOTION), "'a\\nb'")


@pytest.mark.slow
def test_many_folds_are_quick() -> None:
    rng = random.Random(0)
    c = corpus([{"id": f"{i}", "speaker": f"{i // 2}", "label": rng.choice("ab")} for i in range(800)])
    check_invariants(c, EMOTION, make(c, EMOTION, "speaker"))


def test_every_disjoint_field_counts() -> None:
    """Speaker and session are free of overlap by sessions, not by speakers."""
    task = dataclasses.replace(EMOTION, disjoint=("speaker", "session"))
    c = dialogues()
    check_invariants(c, task, make(c, task))
    refused(lambda: make(c, task, "speaker:5"), "session on both sides", "'Ses")
    refused(lambda: make(c, dataclasses.replace(task, disjoint=("session", "speaker", "label"))), "label", "'a'")


# --- the published split ---


def test_own_leaves_out_what_has_no_label() -> None:
    c = split("abc", "d", "ef")
    c = dataclasses.replace(c, utterances=(*c.utterances, Utterance("none", Path("none.wav"), split="train")))
    check_invariants(c, EMOTION, make(c, EMOTION))


def test_own_parts_are_taken_as_they_are() -> None:
    c = split("abc", "d", "ef")
    protocol = make(c, EMOTION)
    check_invariants(c, EMOTION, protocol)
    (fold,) = protocol.folds
    assert [values(c, part, "speaker") for part in (fold.fit, fold.valid, fold.test)] == [set("abc"), {"d"}, set("ef")]


def test_own_without_valid_draws_whole_speakers_from_train() -> None:
    c = split("abcdefghij", "", "xyz")
    seen = set()
    for seed in range(8):
        protocol = make(c, EMOTION, seed=seed)
        check_invariants(c, EMOTION, protocol)
        (fold,) = protocol.folds
        assert values(c, fold.test, "speaker") == set("xyz")
        assert len(values(c, fold.valid, "speaker")) == 2
        seen.add(fold.valid)
    assert len(seen) > 1


def test_own_without_valid_keeps_every_class_in_fit() -> None:
    rows: list[Row] = [{"speaker": s, "split": "train", "label": s if s in "abcd" else "z"} for s in "abcdefg"]
    c = corpus([*rows, {"speaker": "x", "split": "test", "label": "z"}], protocol="own")
    for seed in range(20):
        check_invariants(c, EMOTION, make(c, EMOTION, seed=seed))


def test_own_without_valid_and_nothing_disjoint_draws_utterances() -> None:
    c = split("ab", "", "x")
    task = dataclasses.replace(EMOTION, disjoint=())
    check_invariants(c, task, make(c, task))


@pytest.mark.parametrize(
    ("parts", "named"),
    [(("abx", "d", "ex"), "in fit and test"), (("ab", "dx", "ex"), "in valid and test"), (("abx", "x", "e"), "valid")],
)
def test_overlap_in_a_split(parts: Any, named: Any) -> None:
    if named == "valid":
        assert (
            "speaker on both sides: 1 values, e.g. 'x' in fit and valid, none in test"
            in make(split(*parts), EMOTION).notes
        )
    else:
        refused(lambda: make(split(*parts), EMOTION), "speaker", "'x'", named, "emotion forbids")
    c = split(*parts, published=True)
    protocol = make(c, EMOTION)
    check_invariants(c, EMOTION, protocol)
    (mark,) = protocol.marks
    assert "published split" in mark
    assert "speaker" in mark
    assert "'x'" in mark
    assert named in mark


def test_published_split_excuses_no_other_rule() -> None:
    c = split("abx", "d", "ex", published=True)
    assert make(c, EMOTION, "speaker:3").marks == ()
    check_invariants(c, EMOTION, make(c, EMOTION, "speaker:3"))
    with_dialogues = [dataclasses.replace(u, session=f"d{i % 4}") for i, u in enumerate(c.utterances)]
    refused(lambda: make(dataclasses.replace(c, utterances=tuple(with_dialogues)), EMOTION, "session"), "speaker", "'")


def test_published_split_may_lack_speakers() -> None:
    c = split("abc", "d", "ef", published=True)
    rows = tuple(dataclasses.replace(u, speaker=None) if u.speaker == "a" else u for u in c.utterances)
    make(dataclasses.replace(c, utterances=rows), EMOTION)
    refused(lambda: make(dataclasses.replace(c, utterances=rows, published=False), EMOTION), "speaker", "u000")


# --- refusals ---


@pytest.mark.parametrize(
    "rule",
    ["speeker:5", "speaker:x", "speaker:-5", "speaker:²", "speaker:", "speaker:5:5", "own:5", "words", ":", "\n"],
)
def test_unknown_rule(rule: str) -> None:
    refused(lambda: make(acted(), EMOTION, rule), repr(rule), "own", "speaker", "session", "text")


def test_too_few_speakers() -> None:
    remedy = "speaker leaves one out at a time"
    refused(lambda: make(acted(4), EMOTION, "speaker:5"), "speaker:5", "only 4", "paper cups", "5 folds", remedy)
    refused(lambda: make(acted(2), EMOTION, "speaker:60/20/20"), "only 2", "fit, valid and test", remedy)
    for rule in ("speaker", None, "speaker:2"):
        refused(lambda rule=rule: make(acted(1), EMOTION, rule), "only 1 value of speaker", "--allow-overlap speaker")


@pytest.mark.parametrize("speakers", [2, 3, 4, 5])
def test_few_speakers_have_one_honest_way(speakers: int) -> None:
    """Each is tested by what was trained on the others; of two the other is divided into fit and valid."""
    c = acted(speakers)
    protocol = make(c, EMOTION)
    assert (protocol.rule, len(protocol.folds)) == ("speaker:5" if speakers == 5 else "speaker", speakers)
    for fold in protocol.folds:
        assert not values(c, fold.test, "speaker") & values(c, (*fold.fit, *fold.valid), "speaker")
        assert bool(values(c, fold.fit, "speaker") & values(c, fold.valid, "speaker")) == (speakers == 2)
        assert values(c, fold.fit, "label") == values(c, c_ids(c), "label")
    assert protocol.marks == ()
    assert any("in fit and valid, none in test" in note and "speaker" in note for note in protocol.notes) == (
        speakers == 2
    )
    if speakers < 5:
        assert make(c, EMOTION, "speaker") == protocol
    assert make(c, EMOTION, f"speaker:{speakers}").folds == protocol.folds


def c_ids(corpus: Corpus) -> tuple[str, ...]:
    return tuple(u.id for u in corpus.utterances)


def test_the_default_counts_the_speakers_that_can_be_used() -> None:
    c = acted(5)
    gone = {u.id for u in c.utterances if u.speaker == "s04"}
    assert make(c, EMOTION, skipped=gone).rule == "speaker"
    rows = tuple(dataclasses.replace(u, label=None) if u.id in gone else u for u in c.utterances)
    assert make(dataclasses.replace(c, utterances=rows), EMOTION).rule == "speaker"


def test_a_tasks_own_rule_is_not_changed() -> None:
    refused(lambda: make(acted(texts=4), SPEAKER_ID), "text:5", "only 4 values of text", "the rule text leaves one out")


def test_a_split_of_two_speakers_from_a_file_without_valid(tmp_path: Path) -> None:
    c = acted(2)
    ids = [sorted(u.id for u in c.utterances if u.speaker == s) for s in ("s00", "s01")]
    (tmp_path / "two.json").write_text(json.dumps({"folds": [{"fit": ids[0], "test": ids[1]}]}))
    (fold,) = make(c, EMOTION, str(tmp_path / "two.json")).folds
    assert sorted((*fold.fit, *fold.valid)) == ids[0]
    assert fold.valid


@pytest.mark.parametrize(("one", "other"), [("Ja.", "ja."), ("Ja.", " Ja. "), ("Gr\u00fcn", "Gru\u0308n")])
def test_two_spellings_of_a_text_stay_together(one: str, other: str) -> None:
    texts = [one, other, "two", "three", "four", "five"]
    c = corpus([{"speaker": f"s{t}", "label": "ab"[i % 2], "text": x} for t, x in enumerate(texts) for i in range(4)])
    task = dataclasses.replace(EMOTION, disjoint=("text",))
    for rule in ("text", "text:3"):
        for fold in make(c, task, rule).folds:
            parts = [ids for ids in fold.parts().values() if values(c, ids, "text") & {one, other}]
            assert len(parts) == 1
    folds = [
        Fold(*(tuple(u.id for u in c.utterances if u.text in part) for part in ((one, "two"), ("three",), (other,))))
    ]
    refused(lambda: check(c, task, folds), "text on both sides", "in fit and test")
    for count in "01":
        refused(lambda count=count: make(acted(), EMOTION, f"speaker:{count}"), f"speaker:{count}", "2 folds or more")


def test_unknown_values() -> None:
    c = acted()
    rows = tuple(dataclasses.replace(u, speaker=None) if i == 7 else u for i, u in enumerate(c.utterances))
    c = dataclasses.replace(c, utterances=rows)
    refused(lambda: make(c, EMOTION), "speaker is unknown for 1", "u007", "paper cups")
    refused(lambda: make(c, EMOTION, "text:2"), "speaker")
    refused(lambda: make(c, EMOTION, "session"), "session is unknown for 120")
    no_text = dataclasses.replace(c, utterances=tuple(dataclasses.replace(u, text=None) for u in c.utterances))
    refused(lambda: make(no_text, SPEAKER_ID), "text is unknown")


def test_unknown_split() -> None:
    c = split("abc", "d", "ef")
    for value in (None, "dev"):
        rows = tuple(dataclasses.replace(u, split=value) if u.speaker == "d" else u for u in c.utterances)
        changed = dataclasses.replace(c, utterances=rows)
        refused(lambda changed=changed: make(changed, EMOTION), "u006", repr(value), "train, valid")
    refused(lambda: make(split("abc", "d", ""), EMOTION), "split test", "paper cups")
    refused(lambda: make(split("", "d", "e"), EMOTION), "split train", "paper cups")
    refused(lambda: make(split("a", "", "e"), EMOTION), "no label", "1 training utterances")
    refused(lambda: make(acted(), EMOTION, "own"), "120 utterances", "u000")


def test_no_label_and_unknown_fields_of_a_task() -> None:
    refused(lambda: make(corpus([{"speaker": "a"}, {"speaker": "b"}]), EMOTION), "label", "emotion", "paper cups")
    wrong = dataclasses.replace(EMOTION, disjoint=("speekers",))
    refused(lambda: make(acted(), wrong), "'speekers'", "speaker", "emotion")
    # A tuple without its comma is a string: its letters must not pass for fields.
    refused(lambda: make(acted(), dataclasses.replace(EMOTION, disjoint="speaker")), "'s'")  # type: ignore[arg-type]
    refused(lambda: make(acted(), dataclasses.replace(EMOTION, label="mood")), "'mood'")


# --- drawn corpora ---

ODD = st.sampled_from(["", " ", "a", "A", "b", "c", "d", "e", "f\n", "ü", "None", "own", "0", "00", "x:5"])


@st.composite
def drawn_corpora(draw: st.DrawFn) -> Corpus:
    named = ODD.filter(str.strip)  # of blanks alone no reader makes a value
    speakers = draw(st.lists(named, min_size=draw(st.sampled_from([1, 6, 6, 6])), max_size=12, unique=True))
    classes = draw(st.lists(named, min_size=1, max_size=4, unique=True))
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 5, 40]), min_size=len(speakers), max_size=len(speakers)))
    tidy = draw(
        st.sampled_from([True, True, True, False])
    )  # sessions and splits of whole speakers, all classes; else anything goes
    # The rows come from a seed: a draw for each cell would be slow and shrink badly.
    rng = random.Random(draw(st.integers(0, 2**32)))
    sexes = draw(st.sampled_from([1, 2, 3]))
    holes = draw(st.sampled_from([0.0] * 6 + [0.02]))
    parts = draw(st.sampled_from([["train", "train", "valid", "test"], ["train", "train", "test"]]))
    rows: list[Row] = []
    for s, (speaker, size) in enumerate(zip(speakers, sizes, strict=True)):
        mine = classes if tidy else rng.sample(classes, rng.randint(1, len(classes)))
        for label in [*mine * tidy, *rng.choices(mine, k=size)]:
            where = s if tidy else rng.randrange(len(speakers))
            row: Row = {"label": label, "speaker": speaker, "session": f"d{where // 2}", "text": rng.choice("wxyz")}
            row |= {"sex": ("female", "male", None)[s % sexes], "script": rng.choice("pqrs")}
            row["split"] = parts[where % len(parts)]
            rows.append({k: None if rng.random() < holes else v for k, v in row.items()})
    return corpus(rows, published=draw(st.booleans()))


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    drawn_corpora(),
    st.sampled_from(["speaker", "speaker:2", "speaker:3", "speaker:5", "session", "session:2", "own"] * 2)
    | st.sampled_from(["speaker:60/20/20", "speaker:64/20/16", "speaker:1/98/1", "text:2", "script:3", "id:4"])
    | st.from_regex(r"(speaker|session|id|own|[a-z]{0,3}):?[0-9²]{0,2}", fullmatch=True),
    st.sampled_from([*[EMOTION] * 6, SPEAKER_ID, Classification(disjoint=("session", "speaker"))]),
    st.integers(-3, 10**6),
    st.booleans(),
)
def test_a_drawn_corpus_is_refused_or_split_without_a_leak(
    tmp_path_factory: pytest.TempPathFactory, c: Any, rule: str, task: Any, seed: int, allow: Any
) -> None:
    allowed = task.disjoint if allow else ()
    try:
        protocol = make(c, task, rule, seed, allowed=allowed)
    except UserError:
        event("refused")
        refused(lambda: make(c, task, rule, seed, allowed=allowed))
        return
    event(f"made by {protocol.rule.partition(':')[0]}")
    event(f"marked: {bool(protocol.marks)}")
    check_invariants(c, task, protocol)
    folder = tmp_path_factory.mktemp("files")
    protocol.write(folder / "one.json")
    make(c, task, rule, seed, allowed=allowed).write(folder / "other.json")
    assert (folder / "one.json").read_bytes() == (folder / "other.json").read_bytes()
    assert read(folder / "one.json") == protocol
    again = make(c, task, str(folder / "one.json"), seed + 1, allowed=allowed)
    assert (again.folds, len(again.marks)) == (protocol.folds, len(protocol.marks))


# --- the real one ---


@needs_emodb
def test_emodb() -> None:
    c = open_corpus("emodb", EMODB)
    protocol = make(c, EMOTION)
    check_invariants(c, EMOTION, protocol)
    assert protocol.rule == "speaker:5"
    assert [len(values(c, f.test, "speaker")) for f in protocol.folds] == [2] * 5
    assert len(protocol.test_ids) == len(set(protocol.test_ids)) == 535
    assert protocol.marks == ()
    assert any(note.startswith("text on both sides: 10 values") for note in protocol.notes)
    texts = make(c, SPEAKER_ID)
    check_invariants(c, SPEAKER_ID, texts)
    assert len(texts.folds) == 5
    refused(lambda: make(c, EMOTION, "own"), "535 utterances", "train, valid and test")
