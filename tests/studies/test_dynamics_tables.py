"""The study's numbers, page and figures from rotations of different lengths, against sums by hand."""

# mypy: disable-error-code="arg-type,index,misc,operator,union-attr"

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
from test_analysis import Planted

from bas.speech.acoustics import FAMILIES
from bas.stats import Predictions, macro_f1, paired, wa
from bas.studies.dynamics.figures import figures
from bas.studies.dynamics.numbers import tabulate
from bas.studies.dynamics.page import markdown
from bas.studies.dynamics.results import Dynamics, Measured, Rotation
from bas.util.typed import from_plain, to_plain

pytestmark = pytest.mark.slow

STEPS = ([0, 10, 20], [0, 10], [0, 10, 15])


def cut_of(planted: Planted, rng: np.random.Generator, skill: float) -> dict[str, Any]:
    predictions = np.where(rng.random((3, 80)) < skill, planted.classes, rng.integers(0, 3, (3, 80)))
    scores = {"WA": wa, "UA": wa, "macro_f1": macro_f1}
    return {
        **{name: [metric(planted.classes, p_U) for p_U in predictions] for name, metric in scores.items()},
        "predictions": predictions.tolist(),
    }


def rotation(index: int, steps: Sequence[int]) -> dict[str, Any]:
    """Three states; with every step a bit of noise more, so that the likeness to acoustics falls in state 0."""
    planted, checkpoints = Planted(seed=index), []
    planted.speakers = np.char.add(f"r{index}", planted.speakers)
    rng, start = np.random.default_rng(index), planted.x.copy()
    for step in steps:
        planted.x = start + 0.1 * step * rng.standard_normal(start.shape)
        cut = {"own": cut_of(planted, rng, 0.5)}
        if step in (0, steps[-1]):
            cut["refitted"] = cut_of(planted, rng, 0.7)
        analysed = planted.analyse(start if step else None, seed=index)
        checkpoints.append({"step": step, **analysed, "ids": [f"u{u}" for u in range(80)], "cut": cut})
    records = [{"step": 5 * i, "epoch": i, "loss": 1.0, "valid": {"loss": 2.0 - 0.1 * i, "WA": 0.3}} for i in range(3)]
    finetune = {"records": records, "stopped": "4 epochs are over", "epochs": 4.0, "outputs": ["a", "b", "c"]}
    finetune |= {"steps": list(steps), "seconds": 1.0, "parameters": 5}
    made = {"rotation": index, "checkpoints": checkpoints, "finetune": finetune}
    return json.loads(json.dumps(made))  # as read from a run's folder


@pytest.fixture(scope="module")
def rotations() -> list[dict[str, Any]]:
    return [rotation(index, STEPS[index]) for index in range(3)]


@pytest.fixture(scope="module")
def results(rotations: list[dict[str, Any]]) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(measured(rotations))
    return plain


def measured(rotations: list[dict[str, Any]]) -> Measured:
    return tabulate([from_plain(Rotation, rotation, "rotation") for rotation in rotations])


def test_a_row_is_a_step_and_counts_who_has_it(results: dict[str, Any]) -> None:
    counted = [(row["step"], row["rotations"]) for row in results["rows"]]
    assert counted == [(0, 3), (10, 3), (15, 1), (20, 1), ("last", 3)]
    assert json.loads(json.dumps(results, allow_nan=False)) == json.loads(json.dumps(results))
    assert [of["steps"] for of in results["rotations"]] == list(STEPS)
    assert results["rotations"][0]["valid_loss"] == pytest.approx([2.0, 1.8])


def test_likeness_is_the_mean_of_those_that_have_the_step(rotations: list[Any], results: dict[str, Any]) -> None:
    def value(r: int, c: int, name: str, kind: str, field: str = "value") -> np.ndarray:
        return np.array(rotations[r]["checkpoints"][c]["cka"][name][kind][field])

    for name in ("egemaps", "energy", "text"):
        for kind in ("debiased", "plain"):
            of = results["cka"][name][kind]
            first, last = (np.array([value(r, c, name, kind) for r in range(3)]) for c in (0, -1))
            assert of["mean"][0] == pytest.approx(first.mean(0))
            assert of["sd"][0] == pytest.approx(first.std(0, ddof=1))
            assert of["mean"][3] == pytest.approx(value(0, 2, name, kind))  # step 20 is rotation 0's alone
            assert of["sd"][3] == [0, 0, 0]
            assert of["mean"][-1] == pytest.approx(last.mean(0))
            assert of["change"]["mean"] == pytest.approx((last - first).mean(0))
            assert of["change"]["sd"] == pytest.approx((last - first).std(0, ddof=1))
            assert of["change"]["fell"] == (last < first).sum(0).tolist()
            chance = np.mean([value(r, 0, name, kind, "p95") for r in range(3)], axis=0)
            assert of["chance"][0] == pytest.approx(chance)
            assert of["by_chance"][0] == (first.mean(0) <= chance).tolist()
    assert results["cka"]["egemaps"]["debiased"]["by_chance"][0] == [False, True, True]
    assert results["cka"]["egemaps"]["debiased"]["change"]["fell"][0] == 3
    assert results["cka"]["start"]["debiased"]["mean"][0] == pytest.approx([1, 1, 1])
    assert max(results["cka"]["start"]["debiased"]["mean"][-1]) < 1


def with_scores(rotations: list[Any], **scores_TRLS: np.ndarray) -> list[Any]:
    """The rotations with other scores of the linear probes on the published split, by spread."""
    many = copy.deepcopy(rotations)
    for t, of in enumerate(many):
        for row, checkpoint in enumerate(of["checkpoints"]):
            for state, held in enumerate(checkpoint["probes"]["linear"]["published"]["states"]):
                for name, of_probes in scores_TRLS.items():
                    held[name]["macro_f1"] = of_probes[t, row, state].tolist()
    return many


def test_each_spread_is_over_its_own_probes_and_each_probe_a_mean_over_rotations(rotations: list[Any]) -> None:
    rng = np.random.default_rng(0)
    drawn = {name: rng.random((2, 3, 3, count)) for name, count in (("initialisations", 4), ("splits", 3))}
    states = to_plain(measured(with_scores(rotations[:2], **drawn)))["probes"]["linear"]["published"]["states"]
    for name, scores in drawn.items():
        last = np.stack([scores[0, 2], scores[1, 1]])  # (T, L, S): rotation 1 has two steps
        assert states[name]["mean"][-1] == pytest.approx(last.mean((0, 2)))
        assert states[name]["sd"][-1] == pytest.approx(last.mean(0).std(1, ddof=1))
        if name == "splits":
            assert states["sd_rotations"][-1] == pytest.approx(last.mean(2).std(0, ddof=1))


@pytest.mark.parametrize(("same", "other"), [("initialisations", "splits"), ("splits", "initialisations")])
def test_either_spread_is_nothing_where_its_probes_agree(rotations: list[Any], same: str, other: str) -> None:
    rng = np.random.default_rng(1)
    agree, differ = np.repeat(rng.random((3, 3, 3, 1)), 4, axis=3), rng.random((3, 3, 3, 4))
    results = measured(with_scores(rotations, **{same: agree, other: differ}))
    states = to_plain(results)["probes"]["linear"]["published"]["states"]
    assert np.array(states[same]["sd"]).max() == pytest.approx(0, abs=1e-12)
    assert np.array(states[other]["sd"]).min() > 0.01
    table = markdown(results, None).split("**linear probe, as published")[1].split("\n\n")[1].splitlines()
    heads = table[0].strip("| ").split(" | ")
    assert heads[1:3] == ["step 0, over initialisations", "step 0, over splits"]
    cells = dict(zip(heads, table[2].strip("| ").split(" | "), strict=True))
    assert "±" not in cells[f"step 0, over {same}"].replace("± 0.0", "")
    assert f" ± {100 * states[other]['sd'][0][0]:.1f}" in cells[f"step 0, over {other}"]


def test_the_table_of_the_results_has_both_spreads(rotations: list[Any]) -> None:
    rng = np.random.default_rng(2)
    drawn = {name: rng.random((3, 3, 3, 4)) for name in ("initialisations", "splits")}
    results = measured(with_scores(rotations, **drawn))
    states = results.probes["linear"]["published"].states
    table = cast(Any, Dynamics.table).fget(results)  # which needs nothing else of a run
    rows = [row for row in table if (row["probe"], row["split"], row["step"]) == ("linear", "published", 0)]
    assert [row["macro_f1"] for row in rows] == list(states.splits.mean[0])
    assert [row["sd_splits"] for row in rows] == list(states.splits.sd[0])
    assert [row["sd_initialisations"] for row in rows] == list(states.initialisations.sd[0])


# --- comparisons ---


@pytest.fixture(scope="module")
def five() -> list[dict[str, Any]]:
    """Rotations of two steps, enough for claims. State 2 gains at the last step, in every rotation alike."""
    made = []
    for index in range(5):
        of = rotation(index, [0, 10])
        rng = np.random.default_rng([7, index])
        for checkpoint, skill in zip(of["checkpoints"], (0.3, 0.8), strict=True):
            targets = np.array(checkpoint["targets"])
            held = checkpoint["probes"]["linear"]["grouped"]["states"][2]["splits"]
            right = rng.random((4, targets.size)) < skill
            held["predictions"] = np.where(right, targets, (targets + 1) % 3).tolist()
        made.append(of)
    return made


def test_the_last_is_compared_with_the_start_over_whole_rotations(five: list[Any]) -> None:
    def pooled(place: int, state: int) -> np.ndarray:
        of = [r["checkpoints"][place]["probes"]["linear"]["grouped"]["states"][state]["splits"] for r in five]
        return np.concatenate([o["predictions"] for o in of], axis=1)

    targets_N = np.concatenate([r["checkpoints"][0]["targets"] for r in five])
    speakers_N, rotations_N = np.concatenate([r["checkpoints"][0]["speakers"] for r in five]), np.repeat(range(5), 80)
    compared = measured(five).probes["linear"]["grouped"].against_start
    for state, difference in enumerate(compared):
        a, b = (Predictions(pooled(place, state), rotations_N, retrained=False) for place in (-1, 0))
        assert difference == paired(targets_N, a, b, speakers_N, macro_f1)
        assert (difference.units, difference.degrees, difference.by_fold) == (5, pytest.approx(4), True)
        # The mean over splits of the table, but for pooling.
        scores = [[macro_f1(targets_N, p_N) for p_N in side.rows_SN] for side in (a, b)]
        gap = np.mean(scores[0]) - np.mean(scores[1])
        assert difference.difference == pytest.approx(gap)
    assert compared[2].verdict == "better"


def test_the_luck_of_one_fine_tuning_is_no_verdict(five: list[Any]) -> None:
    """Speakers of one rotation gain all alike, those of another lose: many speakers agree, few fine-tunings do."""
    some = copy.deepcopy(five)
    rng = np.random.default_rng(3)
    for of, skills in zip(some, ((0.3, 0.9), (0.3, 0.9), (0.3, 0.9), (0.3, 0.2), (0.3, 0.3)), strict=True):
        for checkpoint, skill in zip(of["checkpoints"], skills, strict=True):
            targets = np.array(checkpoint["targets"])
            right = rng.random((4, targets.size)) < skill
            held = checkpoint["probes"]["linear"]["grouped"]["states"][2]["splits"]
            held["predictions"] = np.where(right, targets, (targets + 1) % 3).tolist()
    difference = measured(some).probes["linear"]["grouped"].against_start[2]
    assert difference.difference > 0.25
    assert difference.verdict == "tie"


def test_the_model_cut_off_is_compared_with_the_whole(five: list[Any], rotations: list[Any]) -> None:
    results = to_plain(measured(rotations))["cut"]
    assert results["own"]["WA"]["mean"][1] == pytest.approx(
        np.mean([r["checkpoints"][1]["cut"]["own"]["WA"] for r in rotations], axis=0)
    )
    cut = measured(five).cut
    refitted = np.array([r["checkpoints"][-1]["cut"]["refitted"]["WA"] for r in five])
    assert cut.refitted["last"]["WA"].mean == pytest.approx(refitted.mean(0))
    assert cut.refitted["last"]["WA"].sd == pytest.approx(refitted.std(0, ddof=1))
    whole = np.mean([r["checkpoints"][-1]["cut"]["own"]["WA"][-1] for r in five])
    assert [one is None for one in cut.against_whole["own"]] == [False, False, True]  # the last is the whole
    first = cut.against_whole["refitted"][0]
    assert first.difference == pytest.approx(refitted[:, 0].mean() - whole)
    assert (first.verdict, first.units, first.degrees) == ("better", 5, pytest.approx(4))


@pytest.mark.parametrize("count", [1, 3])
def test_few_rotations_make_no_claim_and_the_page_says_what_would(five: list[Any], count: int) -> None:
    results = measured(five[:count])
    compared = [
        *results.probes["linear"]["grouped"].against_start,
        *(one for of in results.cut.against_whole.values() for one in of if one),
    ]
    assert {(one.verdict, one.units) for one in compared} == {("no claim", count)}
    page = markdown(results, None)
    assert "No claim: it needs 4 rotations or more; protocol speaker:5 makes five." in page
    assert "Holm" not in page
    assert not any(word in page for word in (": better", ": worse", "Power", "power"))


def test_verdicts_that_do_not_stay_if_corrected_are_marked(five: list[Any]) -> None:
    results = measured(five)
    # Of 6 comparisons, one is clear, one is so only alone, and the others are ties.
    ps = {"linear": (0.3, 0.02, 0.004), "relu": (0.5, 0.6, 0.7)}
    probes = copy.deepcopy(dict(results.probes))
    for kind, of_state in ps.items():
        of = results.probes[kind]["grouped"]
        compared = (replace(one, p=p) for one, p in zip(of.against_start, of_state, strict=True))
        probes[kind]["grouped"] = replace(of, against_start=tuple(compared))
    page = markdown(replace(results, probes=probes), None)
    tables = {kind: page.split(f"**{kind} probe, speakers apart**")[1].split("**")[0] for kind in ps}
    ends = {
        kind: [line.split(" | ")[-1] for line in text.splitlines() if line[:3] in ("| 0", "| 1", "| 2")]
        for kind, text in tables.items()
    }
    assert [("uncorrected" in end, "tie" in end) for end in ends["linear"]] == [
        (False, True),
        (True, False),
        (False, False),
    ]
    assert not any("uncorrected" in end for end in ends["relu"])
    line = (
        "- Against step 0: 6 comparisons, not corrected for their number: 2 are better or worse; corrected (Holm), 1: "
    )
    assert f"{line}linear at state 2 (better)." in page
    assert "- Uncorrected, in a table: better or worse by itself" in page
    assert "Against the whole: 5 comparisons" in page  # the whole itself is none


def test_r2_is_the_mean_over_rotations(rotations: list[Any], results: dict[str, Any]) -> None:
    last = np.array([r["checkpoints"][-1]["ridge"]["r2"] for r in rotations])
    assert np.array(results["ridge"]["r2"][-1]) == pytest.approx(last.mean(0))


def test_the_page_holds_the_numbers_and_says_what_they_are(rotations: list[Any], results: dict[str, Any]) -> None:
    page = markdown(measured(rotations), None)
    of = results["cka"]["egemaps"]["debiased"]
    assert f"| 0 | {of['mean'][0][0]:.3f} → {of['mean'][-1][0]:.3f} |" in page
    assert f"{of['mean'][0][1]:.3f} ×" in page
    assert "fell in 3 of 3" in page
    assert "Not every rotation has step 15 (1), 20 (1)" in page
    assert "Mark, as published" in page
    assert "of 1 probes on one split" in page
    assert "speakers stand on both sides" in page
    assert "Units: 3 whole rotations" in page
    assert "SVCCA with eGeMAPS is refused: 80 utterances for" in page
    assert "eGeMAPS |" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all("nan" not in line and "None" not in line for line in tables)
    heads = [line for line, rule in pairwise(tables) if set(rule) <= set("| -")]
    assert len(heads) == 8  # one for each of four kinds of probes
    assert "about 8 utterances of 3 classes are tested at a time. Macro F1 of so few reads lower" in page


def test_the_figures_show_every_step_and_mark_what_is_not_above_chance(
    rotations: list[Any], results: dict[str, Any], tmp_path: Any
) -> None:
    made = figures(measured(rotations))
    assert set(made) == {"cka-egemaps", "cka-families", "cka-text", "cka-start", "f1-linear", "f1-relu", "r2", "cut"}
    for name, figure in made.items():
        figure.savefig(tmp_path / f"{name}.png", dpi=40)
        assert (tmp_path / f"{name}.png").stat().st_size > 2_000
    axes = made["cka-egemaps"].axes[0]
    assert axes.get_title() == "CKA with eGeMAPS, debiased"
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["0", "10", "15 (1 of 3)", "20 (1 of 3)", "last"]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    by_chance = results["cka"]["egemaps"]["debiased"]["by_chance"]
    assert {place for place, text in cells.items() if "×" in text} == {
        (x, y) for y, row in enumerate(by_chance) for x, mark in enumerate(row) if mark
    }
    f1 = made["f1-linear"].axes
    assert "MARKED" in f1[1].get_title()
    first, *_, last, dashed = f1[0].get_lines()
    assert first.get_color()[2] > 0.9 > 0.1 > first.get_color()[0]  # blue
    assert last.get_color()[0] > 0.9 > 0.1 > last.get_color()[2]  # red
    assert dashed.get_linestyle() == "--"
    drawn = {name: np.random.default_rng(3).random((3, 3, 3, 4)) for name in ("initialisations", "splits")}
    drawn["splits"] *= 2
    spread_out = measured(with_scores(rotations, **drawn))
    states = spread_out.probes["linear"]["published"].states
    lucks = [100 * np.median(of.sd[0]) for of in (states.initialisations, states.splits)]
    label = figures(spread_out)["f1-linear"].axes[1].get_lines()[0].get_label()
    assert label == f"0 (± {lucks[0]:.1f}, ± {lucks[1]:.1f})"
    assert list(first.get_ydata()) == pytest.approx(
        [100 * v for v in results["probes"]["linear"]["grouped"]["states"]["splits"]["mean"][0]]
    )


def test_equal_steps_need_no_last_row(rotations: list[Any]) -> None:
    table = measured(rotations[:1])
    labels = [text.get_text() for text in figures(table)["cka-egemaps"].axes[0].get_yticklabels()]
    assert labels == ["0", "10", "20"]
    assert "Means over 1 rotation" in markdown(table, None)
    assert "±" not in next(line for line in markdown(table, None).splitlines() if line.startswith("| 0 | 0."))


def test_what_was_refused_somewhere_is_left_out_and_told(rotations: list[Any]) -> None:
    some = copy.deepcopy(rotations)
    for checkpoint in some[0]["checkpoints"]:  # the one that has step 20 alone
        checkpoint["cka"]["text"] = {"refused": "no text repeats"}
        checkpoint["ridge"] = {"refused": "a single speaker"}
        for kind in ("linear", "relu"):
            checkpoint["probes"][kind]["grouped"] = {"refused": "a single speaker"}
    table = measured(some)
    plain = to_plain(table)
    assert plain["cka"]["text"]["rotations"] == plain["ridge"]["rotations"] == 2
    assert plain["cka"]["text"]["debiased"]["mean"][3] == [None] * 3
    assert plain["probes"]["linear"]["grouped"]["states"]["splits"]["mean"][3] == [None] * 3
    assert plain["probes"]["linear"]["grouped"]["against_start"][0]["units"] == 2
    assert "CKA with text: 2 of 3 rotations; the others: no text repeats." in markdown(table, None)
    json.dumps(plain, allow_nan=False)
    assert "f1-linear" in figures(table)
    every = [copy.deepcopy(some[0]) for _ in range(2)]
    table = measured(every)
    plain = to_plain(table)
    assert plain["cka"]["text"] == {"refused": "no text repeats"}
    assert plain["ridge"] == {"refused": "a single speaker"}
    assert not {"cka-text", "r2"} & set(figures(table))
    assert "linear probes, grouped: 0 of 2 rotations; the others: a single speaker." in markdown(table, None)
    assert "- text: " not in markdown(table, None)


def test_the_page_says_what_the_texts_were(rotations: list[Any]) -> None:
    assert "- text: which sentence it is." in markdown(measured(rotations), None)
    assert "- text: embeddings of bert." in markdown(measured(rotations), "models/bert/")


@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_description_that_was_refused_is_named_and_has_no_cells(rotations: list[Any], all_of_it: bool) -> None:
    some = copy.deepcopy(rotations)
    names = ("egemaps", *FAMILIES) if all_of_it else ("energy",)
    for checkpoint in (c for of in some for c in of["checkpoints"]):
        for name in names:
            checkpoint["cka"][name] = {"refused": f"{name} tells nothing apart"}
        for r2 in checkpoint["ridge"]["r2"]:
            r2[:] = [None if f in names else v for f, v in zip(checkpoint["ridge"]["families"], r2, strict=True)]
    table = measured(some)
    page, made = markdown(table, None), figures(table)
    for name in names:
        assert f"CKA with {name}: 0 of 3 rotations; the others: {name} tells nothing apart." in page
    assert {"cka-egemaps", "cka-families"} & set(made) == (set() if all_of_it else {"cka-egemaps", "cka-families"})
    if not all_of_it:
        assert [a.get_title() for a in made["cka-families"].axes if "energy" in a.get_title()] == []
    likeness = page[page.index("## Likeness") : page.index("## Emotion")].splitlines()[2]
    assert ("energy" in likeness, "eGeMAPS" in likeness, "spectral" in likeness) == (
        False,
        not all_of_it,
        not all_of_it,
    )
    assert "nan" not in "".join(line for line in page.splitlines() if line.startswith("|"))
    assert "| – |" in page[page.index("## Acoustic") :]
    json.dumps(to_plain(table), allow_nan=False)
