"""What an audit makes of its trainings, without any: picks, random search, claims and marks."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import numpy as np
import pytest

from bas.blocks import FFN, MeanPool
from bas.space import SearchSpace
from bas.stats import over_models, wa
from bas.stats.ranking import percentiles
from bas.stats.sampling import Sampled
from bas.studies.audit.notes import mark_uncorrected, whose
from bas.studies.audit.page import claims as claims_table
from bas.studies.audit.results import Claim
from bas.studies.audit.taken import take
from bas.studies.audit.trained import Truth
from bas.studies.audit.verdicts import FIRST, LATER, block_claims, random_search
from bas.training.settings import settings


def truth(scores_AFS: np.ndarray, costs_A: list[float], predictions_ASN: np.ndarray | None = None) -> Truth:
    """One test utterance a fold, unless predictions are given."""
    size, folds, seeds = scores_AFS.shape
    curve_AE, costs_AF = np.ones((size, 1)), np.repeat(np.array(costs_A)[:, None], folds, 1)
    if predictions_ASN is None:
        predictions_ASN = np.zeros((size, seeds, folds), int)
    folds_N = np.arange(predictions_ASN.shape[2]) % folds
    space = SearchSpace({"a": {f"b{i}": FFN for i in range(size)}}, MeanPool)
    every = np.ones((size, seeds), bool)
    arrays = predictions_ASN, every, folds_N, scores_AFS, curve_AE, curve_AE, np.ones(size), costs_AF
    return Truth("s", take(space, None), *arrays)


def test_random_search_spends_what_it_may_and_takes_the_best_on_valid() -> None:
    scores = np.arange(6.0)[:, None, None] + np.zeros((6, 2, 3))
    known = truth(scores, [1.0] * 6)
    all_of_them, tried = random_search(known, 7.0)
    assert tried == 6
    assert all_of_them.shape == (10, 2, 3)
    assert (all_of_them == 5).all()
    for budget, afforded in ((6.9, 5), (3.0, 2), (2.9, 1), (1.0, 1), (0.5, 1)):
        picks, tried = random_search(known, budget)
        assert tried == afforded, "one training more, of the best"
    assert len(np.unique(picks)) == 6, "any of them"


def test_a_pick_is_judged_by_a_training_that_no_search_has_seen() -> None:
    told = 10 * np.arange(3)[:, None, None] + np.arange(2)[:, None] + np.zeros((3, 2, 4), int)  # architecture, seed
    known = truth(np.zeros((3, 2, 2)), [1.0] * 3, told)
    picks_DFS = np.array([[[2, 0], [1, 1]]])  # by fold and seed
    assert known.compose(picks_DFS).rows_SN[:, :, 0].tolist() == [[21, 11, 21, 11], [0, 10, 0, 10]]


def test_a_search_that_chooses_between_trainings_gains_nothing_by_their_luck() -> None:
    """Equal architectures, and trainings whose luck shows on valid: who keeps the best gains, who retrains does not."""
    rng = np.random.default_rng(0)
    luck_ASF = rng.normal(0, 0.1, (9, 2, 40))
    wrong_ASN = rng.random((9, 2, 4000)) > 0.6 + np.tile(luck_ASF, 100)
    known = truth(np.moveaxis(luck_ASF, 1, 2), [1.0] * 9, wrong_ASN.astype(int))
    targets_N = np.zeros(4000, int)
    blind = known.accuracy(targets_N, wa).mean()
    for picks_DFS in (random_search(known, 5.0)[0], known.scores_AFS.argmax(0)[None]):
        reached = np.mean([over_models(wa)(targets_N, of) for of in known.compose(picks_DFS).rows_SN])
        kept = np.mean([over_models(wa)(targets_N, of) for of in known.compose(picks_DFS[:, :, ::-1]).rows_SN[::-1]])
        assert reached == pytest.approx(blind, abs=0.03)
        assert kept > blind + 0.07, "of two seeds turned round, each pick meets the training it was chosen by"


def test_the_claims_are_read_from_the_blocks_of_the_slots() -> None:
    blocks = ("MSA+FFN", "MSA", "FFN")
    designs = [{"layer1": a, "layer2": b} for a in blocks for b in blocks]
    rng = np.random.default_rng(0)
    worth_A = np.array([0.05 * (d["layer1"] == "FFN") - 0.03 * (d["layer2"] == "FFN") for d in designs])

    def sampled(worth_A: np.ndarray, units: int = 8) -> Sampled:
        without_UA = 0.8 + worth_A + rng.normal(0, 1e-4, (units, 9))
        return Sampled(0.8 + worth_A, without_UA, np.full(units, 1 / units), (), by_fold=False)

    claims = block_claims(sampled(worth_A), designs)
    assert claims[FIRST].conclusion == claims[LATER].conclusion == "confirmed"
    assert claims[FIRST].value == pytest.approx(0.05)
    assert claims[LATER].value == pytest.approx(0.03)
    assert block_claims(sampled(-worth_A), designs)[FIRST].conclusion == "rejected"
    assert block_claims(sampled(worth_A), [{**d, "layer1": d["layer1"].lower()} for d in designs]) == {}
    assert block_claims(sampled(worth_A, units=3), designs)[FIRST].conclusion == "no claim"


def test_a_conclusion_that_flips_is_called_so() -> None:
    def flips(*conclusions: str, p: float = 0.001) -> list[str]:
        first, *others = [{FIRST: Claim(0.0, -1.0, 1.0, p, 8, False, c)} for c in conclusions]
        return claims_table(first, {str(i): of for i, of in enumerate(others)})[1][0][1:]

    assert flips("confirmed", "rejected")[-1] == "yes"
    assert flips("confirmed", "confirmed")[-1] == "no"
    assert flips("confirmed", "undecided")[-1] == "not the same"
    assert flips("confirmed")[-1] == "–"
    one, other, flip = flips("confirmed", "rejected", p=0.04)
    assert one.startswith("confirmed, uncorrected: ")
    assert other.startswith("rejected, uncorrected: ")
    assert flip == "not the same", "two comparisons at 0.04: neither stays"


def test_verdicts_that_the_number_of_comparisons_explains_are_marked() -> None:
    verdicts, ps = ["better", "worse", "tie", "no claim", "better"], [0.001, 0.02, 0.3, 1.0, 0.01]
    assert mark_uncorrected(verdicts, ps) == ["better", "worse", "tie", "no claim", "better"]
    assert mark_uncorrected(["better"] * 2, [0.04, 0.01]) == ["better", "better"]
    assert mark_uncorrected(["better"] * 2, [0.04, 0.03]) == ["better, uncorrected"] * 2
    assert mark_uncorrected(["better", "no claim"], [0.04, 1.0]) == ["better", "no claim"], "no claim is no comparison"


def test_a_page_says_whose_search_it_is() -> None:
    assert whose(settings("paper")) == "preset paper, as in the paper"
    assert whose(settings("paper", {"epochs": "50"})) == "preset paper with epochs=50, not the paper's"
    assert whose(settings("cpu")) == "preset cpu, not the paper's"


def test_a_pick_is_valued_by_the_other_seeds() -> None:
    """Twenty equal architectures and noise; whoever picks each seed's own luckiest finds nothing."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        accuracy_AS = rng.normal(0.8, 0.01, (20, 4))
        found.append(percentiles(accuracy_AS, accuracy_AS.argmax(0)[None, None]).mean())
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)
