"""Inner folds: the training utterances of a fold, split again so that each is held out once.

All training speakers then count in a choice, where a valid part has two or three (Varma and Simon, *BMC Bioinformatics*
7, 2006: the test part stays out of it).
"""

from __future__ import annotations

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

Splits = list[tuple[np.ndarray, np.ndarray]]
"""By inner fold, the positions that train and those that are held out."""


def split(targets_U: np.ndarray, units_U: np.ndarray, folds: int, classes: bool) -> Splits:
    """At most `folds` inner folds over whole units; with a single unit, over utterances, by class if there are classes.

    units_U: no two folds share a unit. targets_U: classes `(U,)`, or numbers `(U, O)`.
    """
    units = len(set(units_U))
    if units > 1:
        return list(GroupKFold(min(folds, units)).split(targets_U, groups=units_U))
    if not classes:
        return list(KFold(min(folds, len(targets_U)), shuffle=True, random_state=0).split(targets_U))
    few = int(np.unique(targets_U, return_counts=True)[1].min())
    return list(StratifiedKFold(max(2, min(folds, few))).split(targets_U, targets_U))
