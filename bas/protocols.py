"""Splits: folds whose parts never share what the task forbids; named, and hashed over every id in every part.

A rule is `own` (the corpus's published train, valid and test parts), a field of `Utterance` (`session`: leave one
session out) or a field and a number of folds (`speaker:5`: five folds of whole speakers).

Each fold has three parts: `fit` trains, `valid` serves every choice (early stopping, layer, strength), `test` is
scored once. A search for a fold sees `fit` and `valid` only.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from bas.corpora import Corpus, Utterance
from bas.errors import UserError
from bas.tasks import Task

VALID_SHARE = 0.2  # of the training units
DRAWS = 200
REPORTED = ("speaker", "session", "text", "audio")
FIELDS = tuple(f.name for f in fields(Utterance) if f.name in (*REPORTED, "language", "label", "id"))


@dataclass(frozen=True)
class Fold:
    """Utterance ids by part."""

    fit: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def parts(self) -> dict[str, tuple[str, ...]]:
        return {"fit": self.fit, "valid": self.valid, "test": self.test}


@dataclass(frozen=True)
class Protocol:
    """Folds and the rule that made them. `marks` are what a reader of a result must be told."""

    rule: str
    seed: int
    folds: tuple[Fold, ...]
    marks: tuple[str, ...]  # e.g. that a published split shares speakers
    notes: tuple[str, ...]  # overlap in fields the task does not forbid

    @property
    def hash(self) -> str:
        """Over every id in every part: equal hashes are equal splits."""
        what = json.dumps([f.parts() for f in self.folds])
        return hashlib.sha256(what.encode()).hexdigest()[:12]

    @property
    def tested(self) -> tuple[str, ...]:
        """Every test id, in the order of the folds."""
        return tuple(i for fold in self.folds for i in fold.test)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "hash": self.hash}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Protocol:
        folds = tuple(Fold(**{part: tuple(ids) for part, ids in fold.items()}) for fold in raw["folds"])
        return cls(raw["rule"], raw["seed"], folds, tuple(raw["marks"]), tuple(raw["notes"]))


def field_of(utterance: Utterance, name: str) -> str | None:
    """The value of a field as text (`audio` is a path), None where it is not known."""
    value = getattr(utterance, name)
    return None if value is None else str(value)


def make(corpus: Corpus, task: Task, rule: str | None = None, seed: int = 0) -> Protocol:
    """Split the utterances that have the task's label.

    rule: None takes the task's own, else the corpus's. seed: which units go together, and which are held out as valid.
    Raises UserError for an unknown rule, unknown values of a field that must be disjoint, fewer units than folds,
    a class missing from a fit part, and forbidden overlap (published splits run and are marked).
    """
    rule = rule or task.protocol or corpus.protocol
    for field in (task.label, *task.disjoint):
        if field not in FIELDS:
            raise UserError(
                f"task {task.name}: an utterance has no field {field!r}; must be one of {', '.join(FIELDS)}"
            )
    utterances = corpus.labelled(task.label)
    if not utterances:
        raise UserError(f"corpus {corpus.name}: no utterance has a {task.label}, which task {task.name} predicts")
    if rule == "own":
        folds: tuple[Fold, ...] = (_own(corpus, utterances, task, seed),)
    else:
        name, colon, number = rule.partition(":")
        if name not in FIELDS or (colon and not number.isdecimal()):
            raise UserError(
                f"protocol {rule!r}: must be own, FIELD or FIELD:FOLDS with FIELD one of {', '.join(FIELDS)}"
            )
        folds = _by_field(corpus, utterances, task, name, int(number) if colon else None, seed)
    marks, notes = _check(corpus, utterances, task, folds, published=rule == "own" and corpus.published)
    return Protocol(rule, seed, folds, marks, notes)


def _by_field(
    corpus: Corpus, utterances: Sequence[Utterance], task: Task, name: str, count: int | None, seed: int
) -> tuple[Fold, ...]:
    groups = _groups(corpus, utterances, name)
    count = len(groups) if count is None else count
    if len(groups) < count:
        raise UserError(f"protocol {name}:{count}: corpus {corpus.name} has only {len(groups)} values of {name}")
    if len(groups) < 3:
        raise UserError(
            f"protocol {name}: corpus {corpus.name} has only {len(groups)} values of {name}; "
            f"fit, valid and test need one each"
        )
    if count < 2:
        raise UserError(f"protocol {name}:{count}: must have 2 folds or more")
    # The largest units first, each into the fold that is smallest so far: folds of nearly equal size.
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda unit: -len(groups[unit]))
    tests: list[list[str]] = [[] for _ in range(count)]
    sizes = [0] * count
    for unit in order:
        smallest = sizes.index(min(sizes))
        tests[smallest].append(unit)
        sizes[smallest] += len(groups[unit])
    folds = []
    for index, units in enumerate(tests):
        training = {unit: members for unit, members in groups.items() if unit not in units}
        valid = _hold_out(corpus, training, name, task, random.Random(f"{seed}/{index}"))
        folds.append(
            Fold(
                _ids(m for unit, m in training.items() if unit not in valid),
                _ids(training[unit] for unit in valid),
                _ids(groups[unit] for unit in units),
            )
        )
    return tuple(folds)


def _own(corpus: Corpus, utterances: Sequence[Utterance], task: Task, seed: int) -> Fold:
    parts = {name: [u for u in utterances if u.split == name] for name in ("train", "valid", "test")}
    unknown = [u for u in utterances if u.split not in parts]
    if unknown:
        raise UserError(
            f"protocol own: {len(unknown)} utterances of {corpus.name} are in no split of train, valid and test, "
            f"e.g. {unknown[0].id!r} in {unknown[0].split!r}; give them one, or a rule such as speaker:5"
        )
    for name in ("train", "test"):
        if not parts[name]:
            raise UserError(f"protocol own: corpus {corpus.name} has no utterance in split {name}")
    if parts["valid"]:
        return Fold(*(tuple(u.id for u in parts[name]) for name in ("train", "valid", "test")))
    name = task.disjoint[0] if task.disjoint else "id"
    groups = _groups(corpus, parts["train"], name)
    valid = _hold_out(corpus, groups, name, task, random.Random(f"{seed}/own"))
    fit = _ids(m for unit, m in groups.items() if unit not in valid)
    return Fold(fit, _ids(groups[unit] for unit in valid), tuple(u.id for u in parts["test"]))


def _groups(corpus: Corpus, utterances: Iterable[Utterance], name: str) -> dict[str, list[Utterance]]:
    groups: dict[str, list[Utterance]] = {}
    unknown = []
    for u in utterances:
        value = field_of(u, name)
        if value is None:
            unknown.append(u.id)
        else:
            groups.setdefault(value, []).append(u)
    if unknown:
        raise UserError(
            f"corpus {corpus.name}: {name} is unknown for {len(unknown)} utterances, e.g. {unknown[0]!r}; "
            f"a split by {name} needs it for all: add it where the corpus names it; the features stay"
        )
    return groups


def _hold_out(
    corpus: Corpus, training: Mapping[str, list[Utterance]], name: str, task: Task, rng: random.Random
) -> tuple[str, ...]:
    """About VALID_SHARE of the units; of many draws, the first in which fit keeps every class and valid has most."""
    units = sorted(training)
    if len(units) < 2:
        raise UserError(
            f"corpus {corpus.name}: only {name} {units[0]!r} is left to train on; "
            f"fit and valid need one each: use another rule, or more folds"
        )
    count = max(1, round(VALID_SHARE * len(units)))

    def classes(names: Iterable[str]) -> set[str]:
        return {getattr(u, task.label) for name in names for u in training[name]}

    every = classes(units)
    best: tuple[int, tuple[str, ...]] | None = None
    for _ in range(DRAWS):
        drawn = tuple(sorted(rng.sample(units, count)))
        score = len(classes(drawn)) - (len(every) + 1) * (classes(set(units) - set(drawn)) != every)
        if best is None or score > best[0]:
            best = score, drawn
        if score == len(every):
            break
    assert best is not None
    return best[1]


def _ids(groups: Iterable[list[Utterance]]) -> tuple[str, ...]:
    return tuple(sorted(u.id for group in groups for u in group))


def _check(
    corpus: Corpus, utterances: Sequence[Utterance], task: Task, folds: Sequence[Fold], published: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Marks and notes of these folds; UserError where they leak or a class cannot be learnt."""
    known = {u.id: u for u in utterances}
    marks: list[str] = []
    notes: list[str] = []
    for fold in folds:
        assert all(fold.parts().values()), "no part is empty"
        assert sorted(fold.fit + fold.valid + fold.test) == sorted(known), "an utterance is in one part of a fold"
    tests = Counter(i for fold in folds for i in fold.test)
    assert max(tests.values()) == 1, "an utterance is tested once"
    every = {getattr(u, task.label) for u in utterances}
    for index, fold in enumerate(folds):
        missing = sorted(every - {getattr(known[i], task.label) for i in fold.fit})
        if missing:
            raise UserError(
                f"protocol fold {index}: no {task.label} {missing[0]!r} among its {len(fold.fit)} training utterances; "
                f"use other folds or another --protocol-seed"
            )
    for field in dict.fromkeys((*task.disjoint, *REPORTED)):
        forbidden = field in task.disjoint
        shared = _shared(folds, known, field)
        blank = [u.id for u in utterances if getattr(u, field) is None]
        if forbidden and blank and not published:
            raise UserError(
                f"corpus {corpus.name}: {field} is unknown for {len(blank)} utterances, e.g. {blank[0]!r}; "
                f"task {task.name} must keep it disjoint"
            )
        if not shared:
            continue
        (fold_index, one, other), values = next(iter(shared.items()))
        told = f"{field} on both sides: {len(values)} values, e.g. {sorted(values)[0]!r} in {one} and {other}"
        if not forbidden:
            notes.append(told)
        elif published:
            marks.append(f"published split with {told}")
        else:
            raise UserError(
                f"protocol fold {fold_index}: {told}; task {task.name} forbids it: split by {field} (such as {field}:5)"
            )
    return tuple(marks), tuple(notes)


def _shared(folds: Sequence[Fold], known: Mapping[str, Utterance], field: str) -> dict[tuple[int, str, str], set[str]]:
    """By fold and pair of parts, the values of `field` that stand in both; overlap with the test part first."""
    found: dict[tuple[int, str, str], set[str]] = {}

    def values(ids: Sequence[str]) -> set[str]:
        return {value for i in ids if (value := field_of(known[i], field)) is not None}

    for one, other in (("fit", "test"), ("valid", "test"), ("fit", "valid")):
        for index, fold in enumerate(folds):
            both = values(fold.parts()[one]) & values(fold.parts()[other])
            if both:
                found[index, one, other] = both
    return found
