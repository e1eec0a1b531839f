"""One checkpoint's measures on states that are made to hold something or nothing; ridge against scikit-learn."""

# mypy: disable-error-code="assignment,type-arg"

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from refusals import refusal
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from bas.speech.acoustics import FAMILIES, OTHER, Acoustic
from bas.stats.similarity import cka, standardise
from bas.studies.dynamics import analysis
from bas.studies.dynamics.analysis import AnalysisSettings, analyse, ridge
from bas.studies.dynamics.classifiers import rng_of, speaker_splits

pytestmark = pytest.mark.slow

QUICK = AnalysisSettings(initialisations=1, splits=1, hidden=4, epochs=2, permutations=39, strengths=(0.01, 1.0, 100.0))
UTTERANCES = 80


def acoustics(rng: np.random.Generator, n: int = UTTERANCES, each: int = 3) -> Acoustic:
    """Unrelated features, `each` of every family."""
    families = tuple(family for family in (*FAMILIES, OTHER) for _ in range(each))
    names = tuple(f"{family} {i}" for i, family in enumerate(families))
    values = 4 + 2 * rng.standard_normal((n, len(names)))
    return Acoustic(tuple(f"u{i:03d}" for i in range(n)), names, families, values, np.zeros(n, int))


class Planted:
    """Three states of 24 dimensions: the acoustic features, mixed; noise; the class and the text."""

    def __init__(self, seed: int = 0, speakers: int = 6) -> None:
        rng = np.random.default_rng(seed)
        self.acoustic = acoustics(rng)
        self.classes = rng.integers(0, 3, UTTERANCES)
        self.speakers = np.array([f"s{i}" for i in rng.integers(0, speakers, UTTERANCES)])
        self.texts = [f"sentence {i}" for i in rng.integers(0, 4, UTTERANCES)]
        noise = rng.standard_normal((3, UTTERANCES, 24))
        noise[0] = 0.2 * noise[0] + self.acoustic.values_UF @ rng.standard_normal((15, 24))
        which = np.unique(self.texts, return_inverse=True)[1]
        noise[2] += 3 * rng.standard_normal((3, 24))[self.classes] + 3 * rng.standard_normal((4, 24))[which]
        self.x = noise.astype(np.float32)

    def analyse(
        self, start: np.ndarray | None = None, settings: AnalysisSettings = QUICK, seed: int = 0
    ) -> dict[str, Any]:
        return analyse(self.x, start, self.acoustic, self.classes, self.speakers, self.texts, settings, seed)


@pytest.fixture(scope="module")
def analysed() -> dict[str, Any]:
    return Planted().analyse()


def test_the_result_is_json_and_says_what_it_is_of(analysed: dict[str, Any]) -> None:
    assert json.loads(json.dumps(analysed, allow_nan=False)).keys() == analysed.keys()
    planted = Planted()
    assert analysed["targets"] == planted.classes.tolist()
    assert analysed["speakers"] == planted.speakers.tolist()
    assert (analysed["utterances"], analysed["states"], analysed["missing"], analysed["clipped"]) == (
        UTTERANCES,
        3,
        {},
        0,
    )
    assert set(analysed["cka"]) == {"egemaps", *FAMILIES, "start", "text"}
    assert {len(of["value"]) for side in analysed["cka"].values() for of in side.values()} == {3}


def test_likeness_is_found_where_it_is_planted_and_only_there(analysed: dict[str, Any]) -> None:
    for name in ("egemaps", *FAMILIES):
        result = analysed["cka"][name]["debiased"]
        assert result["p"][0] == 1 / 40
        assert result["value"][0] > 3 * result["p95"][0]
        assert abs(result["value"][1]) < 0.1
    text = analysed["cka"]["text"]["debiased"]
    assert text["value"][2] > 0.2 > 0.05 > max(text["value"][:2])
    plain, debiased = (analysed["cka"]["egemaps"][kind]["value"][1] for kind in ("plain", "debiased"))
    assert plain > 0.1 > abs(debiased)  # few utterances for the dimensions: the plain one sees likeness in noise


def test_cka_is_of_standardised_states_and_features(analysed: dict[str, Any]) -> None:
    planted = Planted()
    egemaps = standardise(planted.acoustic.values_UF[:, :12])  # not those of OTHER
    expected = cka(standardise(planted.x[0]), egemaps)
    for kind in ("debiased", "plain"):
        assert analysed["cka"]["egemaps"][kind]["value"][0] == pytest.approx(expected[kind])
    planted.x[..., 3] *= 1_000
    scaled = planted.analyse()["cka"]["egemaps"]["debiased"]["value"]
    assert scaled == pytest.approx(analysed["cka"]["egemaps"]["debiased"]["value"], abs=1e-5)


def test_at_step_0_a_state_is_as_it_was_and_later_as_far_as_it_has_moved(analysed: dict[str, Any]) -> None:
    for kind in ("debiased", "plain"):
        assert analysed["cka"]["start"][kind]["value"] == pytest.approx([1, 1, 1])
    planted = Planted()
    start = planted.x.copy()
    planted.x[1] = np.random.default_rng(9).standard_normal(planted.x[1].shape)
    planted.x[2] += np.random.default_rng(9).standard_normal(planted.x[2].shape)
    moved = planted.analyse(start)["cka"]["start"]["debiased"]["value"]
    assert moved[0] == pytest.approx(1)
    assert abs(moved[1]) < 0.1 < 0.5 < moved[2] < 0.99


def test_svcca_needs_more_utterances_and_says_so(analysed: dict[str, Any]) -> None:
    for side in ("egemaps", "start"):
        (value,) = {of["value"] for of in analysed["svcca"][side]}
        assert value is None
        assert "80 utterances for" in analysed["svcca"][side][0]["refused"]
    planted = Planted()
    planted.x = planted.x[:, :, :2]
    result = planted.analyse()["svcca"]["start"][0]  # 5 * (2 + 2) utterances are enough
    assert result["value"] == pytest.approx(1)
    assert result["dims"] == (2, 2)


def test_a_text_that_does_not_vary_or_never_repeats_has_no_likeness() -> None:
    planted = Planted()
    for texts, why in (
        (["one"] * UTTERANCES, "the same text"),
        ([f"t{i}" for i in range(UTTERANCES)], "no text repeats"),
        ([None, *["one"] * (UTTERANCES - 1)], "not every utterance has a text"),
    ):
        planted.texts = texts
        assert why in planted.analyse()["cka"]["text"]["refused"]
    planted.texts = planted.x[2, :, :5]  # embeddings
    assert planted.analyse()["cka"]["text"]["debiased"]["value"][2] > 0.2


def test_equal_arguments_give_equal_numbers_and_another_seed_others(analysed: dict[str, Any]) -> None:
    again, other = Planted().analyse(), Planted().analyse(seed=1)
    assert again == analysed
    assert other["cka"]["egemaps"]["debiased"]["value"] == analysed["cka"]["egemaps"]["debiased"]["value"]
    assert other["cka"]["egemaps"]["debiased"]["p95"] != analysed["cka"]["egemaps"]["debiased"]["p95"]
    assert other["ridge"]["r2"] != analysed["ridge"]["r2"]


def test_a_collapsed_state_is_refused() -> None:
    planted = Planted()
    planted.x[1] = 3.0
    assert "collapsed" in refusal(planted.analyse)


# --- ridge ---


def by_hand(x_UD: np.ndarray, y_U: np.ndarray, speakers_U: np.ndarray, splits: list[Any], strengths: tuple) -> float:
    """R² with every fit by scikit-learn; the strength by leaving out each fitted speaker in turn."""
    guess_U = np.zeros(len(y_U))
    for split in splits:
        fit = np.concatenate([split.fit, split.valid])
        z = (x_UD - x_UD[fit].mean(0)) / x_UD[fit].std(0) / np.sqrt(x_UD.shape[1])
        errors = []
        for strength in strengths:
            error = 0.0
            for speaker in np.unique(speakers_U[fit]):
                inner, out = fit[speakers_U[fit] != speaker], fit[speakers_U[fit] == speaker]
                model = Ridge(alpha=strength).fit(z[inner], y_U[inner])
                error += ((model.predict(z[out]) - y_U[out]) ** 2).sum()
            errors.append(error)
        model = Ridge(alpha=strengths[int(np.argmin(errors))]).fit(z[fit], y_U[fit])
        guess_U[split.test] = model.predict(z[split.test])
    return float(r2_score(y_U, guess_U))


@pytest.mark.parametrize("dims", [24, 200])
def test_ridge_is_scikit_learns_with_every_fold_fitted_again(dims: int) -> None:
    planted = Planted()
    rng = np.random.default_rng(1)
    x_LUD = planted.x[:1].astype(np.float64) @ rng.standard_normal((24, dims)) + rng.standard_normal(
        (1, UTTERANCES, dims)
    )
    strengths = (0.001, 0.1, 1.0, 10.0)
    result = ridge(x_LUD, planted.acoustic, planted.classes, planted.speakers, replace(QUICK, strengths=strengths), 0)
    splits, _ = speaker_splits(planted.classes, planted.speakers, 5, rng_of(0, "ridge"))
    y_UF = planted.acoustic.values_UF
    for f in (0, 7, 14):
        expected = by_hand(x_LUD[0], y_UF[:, f], planted.speakers, splits, strengths)
        assert result["r2"][0][f] == pytest.approx(expected, abs=1e-6)
    assert max(result["r2"][0]) > 0.5


def test_left_out_groups_are_as_if_never_fitted() -> None:
    rng = np.random.default_rng(0)
    x_ND, z_NF, groups_N = rng.standard_normal((30, 50)), rng.standard_normal((30, 2)), rng.integers(0, 4, 30)
    x_ND, z_NF = x_ND - x_ND.mean(0), z_NF - z_NF.mean(0)
    values_N, q_NN = np.linalg.eigh(x_ND @ x_ND.T / 50)
    out_NF = analysis._left_out(q_NN, values_N / (values_N + 0.3), z_NF, groups_N)
    for group in range(4):
        kept, left = groups_N != group, groups_N == group
        model = Ridge(alpha=0.3).fit(x_ND[kept] / np.sqrt(50), z_NF[kept])
        assert out_NF[left] == pytest.approx(z_NF[left] - model.predict(x_ND[left] / np.sqrt(50)))


def test_ridge_finds_what_is_there_and_noise_tells_nothing(analysed: dict[str, Any]) -> None:
    r2 = np.array(analysed["ridge"]["r2"])
    assert r2.shape == (3, 15)
    assert np.median(r2[0]) > 0.5
    assert np.median(r2[1]) < 0.05


def test_what_differs_between_speakers_alone_cannot_be_told_for_a_new_one() -> None:
    planted = Planted()
    rng = np.random.default_rng(0)
    who = np.unique(planted.speakers, return_inverse=True)[1]
    values = planted.acoustic.values_UF.copy()
    values[:, 0] = rng.standard_normal(6)[who]
    voices = rng.standard_normal((6, 24))[who] + 0.01 * rng.standard_normal((UTTERANCES, 24))
    result = ridge(
        voices[None], replace(planted.acoustic, values_UF=values), planted.classes, planted.speakers, QUICK, 0
    )
    assert result["r2"][0][0] < 0


def test_missing_and_constant_features_are_told() -> None:
    planted = Planted()
    values = planted.acoustic.values_UF.copy()
    values[:5, 0] = np.nan
    values[:, 1] = 3.3
    clipped = np.zeros(UTTERANCES, int)
    clipped[:2] = 7
    planted.acoustic = replace(planted.acoustic, values_UF=values, clipped_U=clipped)
    result = planted.analyse()
    assert result["missing"] == {planted.acoustic.names[0]: 5}
    assert result["clipped"] == 2
    assert result["ridge"]["r2"][0][1] is None
    assert result["ridge"]["r2"][0][0] > 0.5
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("value", [3.3, np.nan])
def test_a_family_that_does_not_vary_is_refused_by_itself(value: float, analysed: dict[str, Any]) -> None:
    planted = Planted()
    values = planted.acoustic.values_UF.copy()
    values[:, [family == "energy" for family in planted.acoustic.families]] = value
    planted.acoustic = replace(planted.acoustic, values_UF=values)
    result = planted.analyse()
    assert result["cka"]["energy"]["refused"].startswith("energy does not tell utterances apart")
    assert result["cka"]["spectral"] == analysed["cka"]["spectral"]
    assert "debiased" in result["cka"]["egemaps"]
    planted.acoustic = replace(planted.acoustic, values_UF=np.full_like(values, value))
    result = planted.analyse()
    for name in ("egemaps", *FAMILIES):
        assert result["cka"][name]["refused"].startswith(f"{name} does not tell utterances apart")
    assert result["svcca"]["egemaps"][0] == {
        "value": None,
        "dims": (0, 0),
        "refused": result["cka"]["egemaps"]["refused"],
    }
    assert result["cka"]["text"] == analysed["cka"]["text"]
    json.dumps(result, allow_nan=False)


def test_texts_whose_vectors_are_equal_have_no_likeness() -> None:
    planted = Planted()
    planted.texts = np.ones((UTTERANCES, 5))
    assert planted.analyse()["cka"]["text"]["refused"].startswith("text does not tell utterances apart")


def test_the_probes_are_given_what_is_missing_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    planted, seen = Planted(), []
    values = planted.acoustic.values_UF.copy()
    values[3, 0] = np.nan
    planted.acoustic = replace(planted.acoustic, values_UF=values)
    monkeypatch.setattr(analysis, "probes", lambda x_LUD, egemaps_UE, *more: seen.append(egemaps_UE))
    planted.analyse()
    assert np.array_equal(seen[0], values[:, :12], equal_nan=True)


def test_the_fit_never_sees_the_tested_speaker() -> None:
    planted = Planted()
    splits, _ = speaker_splits(planted.classes, planted.speakers, 5, rng_of(0, "ridge"))
    values = planted.acoustic.values_UF.copy()
    values[splits[0].test] = 1e6  # would bend any fit that saw it
    guesses = [
        analysis._predict(planted.x, y_UF, planted.speakers, splits, QUICK.strengths, 0)
        for y_UF in (planted.acoustic.values_UF, values)
    ]
    tested = splits[0].test
    assert np.array_equal(guesses[0][:, tested], guesses[1][:, tested])
    assert not np.array_equal(guesses[0][:, splits[1].test], guesses[1][:, splits[1].test])


@pytest.mark.parametrize("speakers", [1, 2])
def test_few_speakers(speakers: int) -> None:
    planted = Planted(speakers=speakers)
    result = planted.analyse()
    if speakers == 1:
        assert result["ridge"]["refused"] == result["probes"]["linear"]["grouped"]["refused"]
        assert "single speaker" in result["ridge"]["refused"]
    else:
        assert np.median(result["ridge"]["r2"][0]) > 0.3
        assert "random" in result["ridge"]["note"]
    json.dumps(result, allow_nan=False)
