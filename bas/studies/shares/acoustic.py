"""The challenge's baseline: openSMILE's ComParE 2016 functionals and a linear support vector regression.

The row reads recordings, so it is the same beside every store. It is chosen and fitted as a linear row is, by jobs of
the first store's run (`bas.runs.linear`). The challenge's own C, epsilon and parts are not at hand: these are ours.

Axes: U utterances, F functionals, O outputs.

References
    Schuller, Batliner, Amiriparian et al., ACM Multimedia 2023: the challenge of emotion shares.
    Smola and Schölkopf, *Statistics and Computing* 14:199, 2004: support vector regression.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from rich.console import Console
from sklearn.base import BaseEstimator
from sklearn.svm import SVR

from bas.protocols import Fold
from bas.runs.jobs import keep, score_linear
from bas.runs.linear import Pair, fit_row
from bas.runs.plan import Job, Kind
from bas.runs.results import LinearResult, read_result
from bas.runs.run import Run
from bas.runs.session import Session
from bas.runs.workers import Workers
from bas.speech import audio
from bas.speech.acoustics import Functionals, functionals, opensmile_version
from bas.studies.shares.results import ACOUSTIC
from bas.util.progress import bar

FILE = "functionals.npz"

COMPLEXITIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
"""Candidates for C, the inverse regularisation, of standardised functionals."""

EPSILON = 0.01  # an error so small costs nothing: less than one vote of any corpus; ours


class SupportVectors(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A linear support vector regression for each output, of standardised values; NaN counts as 0, the fit part's mean.

    A scikit-learn estimator, from C. The inner products of utterances are taken once for all outputs: memory grows with
    the square of the fit part.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def fit(self, x_UF: np.ndarray, targets_UO: np.ndarray) -> SupportVectors:
        x_UF = np.nan_to_num(x_UF)
        products_UU = x_UF @ x_UF.T
        self.coef_ = np.zeros((targets_UO.shape[1], x_UF.shape[1]))
        self.intercept_ = np.zeros(len(self.coef_))
        for output, targets_U in enumerate(targets_UO.T):
            svr = SVR(kernel="precomputed", C=self.strength, epsilon=EPSILON).fit(products_UU, targets_U)
            self.coef_[output] = svr.dual_coef_[0] @ x_UF[svr.support_]
            self.intercept_[output] = svr.intercept_[0]
        return self

    def predict(self, x_UF: np.ndarray) -> np.ndarray:
        predicted_UO: np.ndarray = np.nan_to_num(x_UF) @ self.coef_.T + self.intercept_
        return predicted_UO


class AcousticSession(Session):
    """A run with the functionals of its recordings, which `measure` has saved."""

    @cached_property
    def functionals(self) -> Functionals:
        return Functionals.load(self.run.folder / FILE)

    def sees(self, parts: Fold, ids: tuple[str, ...]) -> Pair:
        return self.functionals.of(ids), self.run.targets[self.members(ids).numpy()]


def regress(session: Session, job: Job) -> None:
    """Do the row's job in a fold and write its result."""
    assert isinstance(session, AcousticSession)
    row = fit_row(session, SupportVectors, job.fold, session.sees, COMPLEXITIES)
    keep(session, job, score_linear(session, job, row))


def measure(run: Run, console: Console) -> None:
    """Save the functionals of every utterance of the protocol, unless they are there."""
    path = run.folder / FILE
    ids = tuple(sorted({id_ for fold in run.protocol.folds for part in fold.parts().values() for id_ in part}))
    if path.exists():
        saved = Functionals.load(path)
        if (saved.ids, saved.opensmile) == (ids, opensmile_version()):
            return
    with bar(console, "utterances") as progress:
        task = progress.add_task("functionals", total=len(ids))
        waves = ((id_, audio.load(run.utterances[run.position[id_]])) for id_ in ids)
        functionals(waves, lambda: progress.advance(task)).save(path)


def carry_out(run: Run, pool: Workers) -> list[LinearResult]:
    """The row's result in each fold; what is missing is done. run: of the study's first store."""
    jobs = [Job(Kind.LINEAR, ACOUSTIC, fold, run.plan.seeds[0]) for fold in range(len(run.protocol.folds))]
    if not all(run.done(job.name) for job in jobs):
        measure(run, pool.console)
    pool.run(run, jobs, 1, "support vector regressions", work=regress, open=AcousticSession)
    return [read_result(run, job, LinearResult) for job in jobs]
