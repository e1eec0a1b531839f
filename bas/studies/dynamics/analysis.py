"""The analysis of one checkpoint: similarity of its states to acoustics, to step 0 and to the text; probes.

The measures of *What Happens To WavLM Embeddings During Speech Emotion Recognition Fine-tuning?* (2024), sections 2.3.3
and 2.3.4, and what they lack: debiased CKA and its null distribution (`bas.stats.similarity`), probes that never test a
speaker they were fitted on, and ridge probes for each acoustic feature.

Axes: L hidden states, U utterances, D width, E width of another description, F acoustic features; N fitted utterances,
G those of a left-out group, T tested utterances.

References
    Hoerl and Kennard, *Technometrics* 12(1), 1970: ridge regression.
    Cook and Weisberg, *Residuals and Influence in Regression*, 1982, ch. 3: residuals of cases left out, from one fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bas.errors import UserError
from bas.speech.acoustics import FAMILIES, Acoustic, fill_missing
from bas.stats.similarity import CONSTANT, Svcca, cka, cka_by_chance, standardise, svcca
from bas.studies.dynamics.classifiers import AnalysisSettings, Split, probes, rng_of, speaker_splits

__all__ = ["AnalysisSettings", "analyse", "ridge"]

EGEMAPS = tuple(FAMILIES)


def analyse(
    x_LUD: np.ndarray,
    start_LUD: np.ndarray | None,
    acoustic: Acoustic,
    classes_U: np.ndarray,
    speakers_U: np.ndarray,
    texts_U: Sequence[str | None] | np.ndarray,
    settings: AnalysisSettings = AnalysisSettings(),  # noqa: B008 (frozen)
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, Any]:
    """All measures of one checkpoint on the third part of one rotation, in JSON's types.

    x_LUD: embeddings averaged over time; start_LUD: those of step 0, None at step 0. acoustic: of the same utterances.
    classes_U: class indices from 0. texts_U: the texts, or their `(U, E)` embeddings. device: where probes train.

        targets, speakers    of the utterances, in order
        missing, clipped     the numbers of missing acoustic values and of clipped utterances; a missing value is filled
                             with the mean, for cka and svcca of all utterances, else of the fitted ones
        cka                  by `egemaps`, each of its families, `start` and `text`: {debiased, plain: {value, mean,
                             p95, p: by state}}; `start` has values only; {refused: why} where there is none
        svcca                egemaps, start: by state {value, dims, refused}
        probes               by linear, relu and published, grouped: {note, states, egemaps}, see `probes`
        ridge                {names, families, r2: by state and name, note}, see `ridge`

    Equal arguments give equal results; on a GPU up to rounding. Only a description that does not vary is refused, not
    the whole analysis. Raises UserError where CKA is not defined for a state (`bas.stats.similarity`).
    """
    states, utterances, _ = x_LUD.shape
    assert len(acoustic.ids) == classes_U.size == speakers_U.size == len(texts_U) == utterances
    assert start_LUD is None or start_LUD.shape == x_LUD.shape
    own_LUD = np.stack([standardise(x_UD) for x_UD in x_LUD])
    first_LUD = own_LUD if start_LUD is None else np.stack([standardise(x_UD) for x_UD in start_LUD])
    described = {name: standardise(fill_missing(acoustic.family(*of))) for name, of in _descriptions().items()}
    descriptions: dict[str, np.ndarray | str] = {**described, "text": _text(texts_U)}
    by_chance = {name: _by_chance(own_LUD, name, y, settings, seed) for name, y in descriptions.items()}
    from_start = [cka(x_UD, y_UD) for x_UD, y_UD in zip(own_LUD, first_LUD, strict=True)]
    start = {kind: {"value": [values[kind] for values in from_start]} for kind in ("debiased", "plain")}
    why = by_chance["egemaps"].get("refused")
    egemaps = [Svcca(None, (0, 0), why) if why else svcca(x_UD, described["egemaps"]) for x_UD in own_LUD]
    return {
        "utterances": utterances,
        "states": states,
        "settings": asdict(settings),
        "seed": seed,
        "targets": classes_U.tolist(),
        "speakers": speakers_U.tolist(),
        "missing": acoustic.missing,
        "clipped": int(np.count_nonzero(acoustic.clipped_U)),
        "cka": {**by_chance, "start": start},
        "svcca": {
            "egemaps": [asdict(similarity) for similarity in egemaps],
            "start": [asdict(svcca(x_UD, y_UD)) for x_UD, y_UD in zip(own_LUD, first_LUD, strict=True)],
        },
        "probes": probes(x_LUD, acoustic.family(*EGEMAPS), classes_U, speakers_U, settings, seed, device),
        "ridge": ridge(x_LUD, acoustic, classes_U, speakers_U, settings, seed),
    }


def _descriptions() -> dict[str, tuple[str, ...]]:
    """The acoustic families of each description: all of eGeMAPS, and each family alone."""
    return {"egemaps": EGEMAPS, **{family: (family,) for family in EGEMAPS}}


def _by_chance(
    own_LUD: np.ndarray, name: str, y_UE: np.ndarray | str, settings: AnalysisSettings, seed: int
) -> dict[str, Any]:
    """CKA of each state with a description, and its null distribution; or why there is none."""
    if isinstance(y_UE, str):
        return {"refused": y_UE}
    try:
        cka(y_UE, y_UE)  # so that an error below is about the state
    except UserError:
        return {"refused": f"{name} does not tell utterances apart: all are alike in it, or every two equally far"}
    values = [cka_by_chance(x_UD, y_UE, settings.permutations, seed) for x_UD in own_LUD]
    fields = ("value", "mean", "p95", "p")
    return {
        kind: {field: [getattr(of[kind], field) for of in values] for field in fields} for kind in ("debiased", "plain")
    }


def _text(texts_U: Sequence[str | None] | np.ndarray) -> np.ndarray | str:
    """Standardised embeddings, or one-hot codes of texts that repeat; or why there is nothing to compare with."""
    if isinstance(texts_U, np.ndarray) and texts_U.ndim == 2:
        return standardise(texts_U)
    if any(text is None for text in texts_U):
        return "not every utterance has a text"
    names, which_U = np.unique(np.asarray(texts_U, np.str_), return_inverse=True)
    if len(names) == 1:
        return "all utterances have the same text"
    if len(names) == len(which_U):
        return "no text repeats: a text encoder is needed"
    return standardise(np.eye(len(names))[which_U])


def ridge(
    x_LUD: np.ndarray,
    acoustic: Acoustic,
    classes_U: np.ndarray,
    speakers_U: np.ndarray,
    settings: AnalysisSettings,
    seed: int,
) -> dict[str, Any]:
    """Predict each acoustic feature from each state by ridge regression, for speakers that it was not fitted on.

    r2: by state and name, 1 minus the ratio of the squared error over all utterances, each predicted in the fold that
    tests its speaker, to the squared deviation from their mean. Below 0: worse than the mean, for example of a feature
    that differs between speakers but cannot be predicted for a new one. None: the feature is constant. An utterance
    without a value does not count in r2, and is fitted as the mean. In each fold the strength of each feature is chosen
    by cross-validation over the fitted speakers; a single fitted speaker is cut into five random groups instead.
    """
    splits, note = speaker_splits(classes_U, speakers_U, settings.folds, rng_of(seed, "ridge"))
    if not splits:
        return {"refused": note}
    y_UF = acoustic.values_UF
    predicted_LUF = _predict(x_LUD, y_UF, speakers_U, splits, settings.strengths, seed)
    known_UF = np.isfinite(y_UF)
    mean_F, sd_F = _moments(y_UF)
    spread_F = np.where(known_UF, (y_UF - mean_F) ** 2, 0).sum(0)
    error_LF = np.where(known_UF, (predicted_LUF - y_UF) ** 2, 0).sum(1)
    r2 = [
        [float(1 - e / s) if sd > 0 else None for e, s, sd in zip(error_F, spread_F, sd_F, strict=True)]
        for error_F in error_LF
    ]
    inner = "of the one fitted, in random groups" if len(splits) == 2 else "of the fitted speakers, left out in turn"
    note = f"{len(splits)} groups of speakers; strength by the error {inner}"
    return {"names": list(acoustic.names), "families": list(acoustic.families), "r2": r2, "note": note}


def _predict(
    x_LUD: np.ndarray,
    y_UF: np.ndarray,
    speakers_U: np.ndarray,
    splits: Sequence[Split],
    strengths: Sequence[float],
    seed: int,
) -> np.ndarray:
    """`(L, U, F)`: each utterance as predicted in the fold that tests it."""
    predicted_LUF = np.full((len(x_LUD), *y_UF.shape), np.nan)
    for split in splits:
        fit, test = np.sort(np.concatenate([split.fit, split.valid])), split.test
        groups_N = np.unique(speakers_U[fit], return_inverse=True)[1]
        if not groups_N.any():
            groups_N = rng_of(seed, "inner").permutation(len(fit)) % 5
        mean_F, sd_F = _moments(y_UF[fit])
        z_NF = np.nan_to_num((y_UF[fit] - mean_F) / np.where(sd_F > 0, sd_F, 1))
        for x_UD, predicted_UF in zip(x_LUD, predicted_LUF, strict=True):
            mean_D, sd_D = _moments(x_UD[fit].astype(np.float64))
            x_ND, test_TD = ((x_UD[part] - mean_D) / np.where(sd_D > 0, sd_D, np.inf) for part in (fit, test))
            predicted_UF[test] = mean_F + sd_F * _ridge(x_ND, z_NF, groups_N, test_TD, strengths)
    return predicted_LUF


def _moments(x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the known values of each column; the deviation is 0 for a constant column."""
    known_ND = np.isfinite(x_ND)
    n_D = np.maximum(known_ND.sum(0), 1)
    mean_D = np.where(known_ND, x_ND, 0).sum(0) / n_D
    sd_D = np.sqrt(np.where(known_ND, (x_ND - mean_D) ** 2, 0).sum(0) / n_D)
    sd_D[sd_D <= CONSTANT * np.where(known_ND, np.abs(x_ND), 0).max(0)] = 0
    return mean_D, sd_D


def _ridge(
    x_ND: np.ndarray, z_NF: np.ndarray, groups_N: np.ndarray, test_TD: np.ndarray, strengths: Sequence[float]
) -> np.ndarray:
    """`(T, F)` predictions; x and z are centred. Each column of z gets the strength that is best for left-out groups.

    With XXᵀ / D = QΛQᵀ the fit is QSQᵀz, S = Λ / (Λ + strength).
    """
    dims = x_ND.shape[1]
    values_N, q_NN = np.linalg.eigh(x_ND @ x_ND.T / dims)
    values_N, turned_NF = np.clip(values_N, 0, None), q_NN.T @ z_NF
    error_AF = [(_left_out(q_NN, values_N / (values_N + a), z_NF, groups_N) ** 2).sum(0) for a in strengths]
    strength_F = np.array(strengths)[np.argmin(error_AF, axis=0)]
    return np.asarray((test_TD @ x_ND.T / dims) @ q_NN @ (turned_NF / (values_N[:, None] + strength_F)))


def _left_out(q_NN: np.ndarray, shrink_N: np.ndarray, z_NF: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """Residuals of each group from a fit without it, intercept included: (1 - H_GG)⁻¹ times its residuals.

    H = QSQᵀ + 1/N maps z to its fit (Cook and Weisberg 1982). Exact for fixed centring and scaling of x.
    """
    residual_NF = z_NF - (q_NN * shrink_N) @ (q_NN.T @ z_NF)
    out_NF = np.zeros(residual_NF.shape)
    for group in np.unique(groups_N):
        q_GN = q_NN[groups_N == group]
        hat_GG = (q_GN * shrink_N) @ q_GN.T + 1 / len(q_NN)
        out_NF[groups_N == group] = np.linalg.solve(np.eye(len(q_GN)) - hat_GG, residual_NF[groups_N == group])
    return out_NF
