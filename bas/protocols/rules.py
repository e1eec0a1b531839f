"""Make folds by a rule.

    own            the corpus's published train, valid and test parts
    FIELD          leave one value of a field out: session, speaker, text, script, ...
    FIELD:5        so many folds of whole values, balanced in size, classes and sexes
    FIELD:64/20/16 one split of whole values into fit, valid and test, in percent
    emobox:FOLDER  EmoBox's fold lists of the corpus
    superb:FOLDER  SUPERB's lists for IEMOCAP, as s3prl has them
    FILE.json      a protocol's file

Where a rule gives no valid part, about a fifth of the training utterances is held out, in whole values. Of few values,
as where one of five sessions is left out, that would cost more: there it is about a tenth, in whole values of the
field that the task keeps disjoint (one of eight speakers). Of a single value, as where one of two speakers is left
out, it is a fifth of its utterances. A note says where fit and valid share a value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

from bas.corpora import Corpus, Utterance
from bas.corpora.base import KNOWN
from bas.errors import UserError
from bas.protocols import published
from bas.protocols.allot import allot
from bas.protocols.base import FIELDS, Fold, Protocol, compared, field_of, read, slug
from bas.protocols.check import check, check_known
from bas.protocols.same import Compare, same_samples
from bas.tasks import Task, labels_of

VALID_SHARE = 0.2  # of the training utterances
FEW, LESS_VALID = 6, 0.1  # of fewer values to train on than this, a whole one would be too much for valid
BALANCED = "label"  # the field by which parts are balanced where a task has no classes: the intended emotion
LONGEST = 40  # characters of the folds or percents of a rule
LISTS = {"emobox": published.emobox, "superb": published.superb}
SOURCES = {"file": ", says its file", **dict.fromkeys(LISTS, ", say its lists")}  # what calls a split published
RULES = "own, FIELD, FIELD:FOLDS, FIELD:FIT/VALID/TEST, emobox:FOLDER, superb:FOLDER or FILE.json"


def make(
    corpus: Corpus,
    task: Task,
    rule: str | None = None,
    seed: int = 0,
    *,
    allowed: Sequence[str] = (),
    skipped: Collection[str] = (),
    compare: Compare | None = same_samples,
) -> Protocol:
    """Split the utterances that have the task's label.

    rule: see the module; None: see `default_rule`. seed: decides which units are in one fold, and
    which are held out as valid. allowed: fields in which the user allows overlap, see `check`. skipped: ids to leave
    out, for instance because they have no features; lists and files may name them, and a note says so.
    compare: see `check`.

    Raises UserError for an unknown rule, a list that is unreadable or of another corpus, unknown values of a field,
    fewer units than parts, and whatever `check` refuses.
    """
    names = (*FIELDS, *corpus.own)
    for field in (task.classes, *task.disjoint):
        if field and field not in names:
            message = f"task {task.name}: an utterance has no field {field!r}; must be one of {', '.join(names)}"
            raise UserError(f"{message}, or an own column of the corpus's table (--keep) or of a table of labels")
    rule = rule or default_rule(corpus, task, skipped)
    usable = tuple(u for u in corpus.labelled(*labels_of(task)) if u.id not in skipped)
    label = " or ".join(labels_of(task))
    target = label if task.classes is None else f"a {label}"
    if not usable:
        unread = [name for name in labels_of(task) if name not in KNOWN]
        remedy = f"; own columns are read where they are named: --keep {' '.join(unread)}" if unread else ""
        raise UserError(f"corpus {corpus.name}: no utterance has {target}, which task {task.name} predicts{remedy}")
    unusable = {u.id for u in corpus.utterances}.union(skipped).difference(u.id for u in usable)
    path = Path(rule).expanduser() if rule.lower().endswith(".json") else None
    original = _from_rule(corpus, usable, task, rule, seed) if path is None else _from_file(corpus, task, path)
    left_out = unusable.intersection(i for fold in original.folds for ids in fold.parts().values() for i in ids)
    notes = (
        [f"{len(left_out)} utterances are left out, without a {label} or features, e.g. {min(left_out)!r}"]
        if left_out
        else []
    )
    used = replace(corpus, utterances=usable)
    check_known(used, original.folds, also=left_out)
    kept = [fold.without(left_out) for fold in original.folds]
    for index, (before, after) in enumerate(zip(original.folds, kept, strict=True)):
        if before.valid and not after.valid:
            raise UserError(f"protocol fold {index}: none of its valid utterances has a {label} and features")
    folds = tuple(fold.in_order() for fold in add_valid(used, task, kept, original.seed))
    protocol = replace(original, folds=folds)
    protocol = protocol if path is None else _restore_rule(corpus, used, task, original, protocol, path)
    name = "published split" + SOURCES.get(protocol.rule.partition(" ")[0], "") if protocol.published else ""
    marks, more = check(used, task, folds, published=name, allowed=allowed, compare=compare)
    return replace(protocol, marks=marks, notes=(*notes, *more))


def default_rule(corpus: Corpus, task: Task, skipped: Collection[str] = ()) -> str:
    """The rule of whoever names none: the task's own, else the corpus's.

    Of a corpus's speaker:5 it is speaker, which leaves one out, where fewer than five have the task's label. A task's
    own rule stays as its author wrote it.
    """
    rule = task.protocol or corpus.protocol
    name, _, count = rule.partition(":")
    if task.protocol or name not in FIELDS or not count.isdecimal():
        return rule
    values = {field_of(u, name) for u in corpus.labelled(*labels_of(task)) if u.id not in skipped} - {None}
    return name if 2 <= len(values) < int(count) else rule


def _from_rule(corpus: Corpus, utterances: Sequence[Utterance], task: Task, rule: str, seed: int) -> Protocol:
    name, colon, rest = rule.partition(":")
    unit, own = corpus.unit, corpus.published
    is_field = name in FIELDS or name in corpus.own
    if len(rest) > LONGEST and is_field:
        raise UserError(f"protocol {rule[:LONGEST]}…: {len(rule)} characters are no rule; such as {name}:5")
    if rule == "own":
        folds = [_own(corpus, utterances)]
    elif name in LISTS and rest:
        folds, own = LISTS[name](corpus, Path(rest).expanduser()), True
        rule = name  # the lists' folder says nothing about the split
    elif is_field and not (colon and not rest):
        folds, own = _by_field(corpus, utterances, task, name, rest, seed), False
        # Utterances of one speaker are not independent, even where the split is by utterance.
        unit = corpus.unit if name == "id" else name
    else:
        raise _unknown(rule)
    task_name = "" if task.name == "emotion" else task.name
    name = slug(*filter(None, (corpus.name, corpus.labels, rule, task_name, f"seed{seed}")))
    return Protocol(name, corpus.name, task.name, rule, seed, tuple(folds), unit, corpus.labels, own)


def _unknown(rule: str) -> UserError:
    details = f"with FIELD one of {', '.join(FIELDS)}, and FIT/VALID/TEST percents, as 60/20/20"
    return UserError(f"protocol {rule!r}: must be {RULES}, {details}")


def _from_file(corpus: Corpus, task: Task, path: Path) -> Protocol:
    protocol = read(path)
    for what, old, new in (("corpus", protocol.corpus, corpus.name), ("task", protocol.task, task.name)):
        if old not in ("", new):
            raise UserError(f"{path}: {what}: made for {old!r}, not for {new!r}; make one for this {what}")
    if protocol.labels != corpus.labels:
        old, new = (
            f"--labels {name}" if name else "the corpus's own labels" for name in (protocol.labels, corpus.labels)
        )
        raise UserError(f"{path}: labels: made for {old}, not for {new}; give the same")
    return replace(protocol, corpus=corpus.name, task=task.name)


def _restore_rule(
    corpus: Corpus, used: Corpus, task: Task, original: Protocol, protocol: Protocol, path: Path
) -> Protocol:
    """`protocol`, read from a file, named after its rule where the rule gives the same folds, else after the file.

    original: the protocol before utterances of `corpus` that are not in `used` were left out.
    """
    unnamed = replace(protocol, name=slug(path.stem), rule=f"file {slug(path.name)}", unit=corpus.unit)
    if original.rule.partition(":")[0] in LISTS:  # the lists are not at hand
        return unnamed
    for of, expected, less in ((used, protocol, ""), (corpus, original, " less what is left out")):
        try:
            made = _from_rule(of, of.labelled(*labels_of(task)), task, original.rule, original.seed)
            made = replace(made, folds=add_valid(of, task, made.folds, made.seed))
        except UserError:  # no rule, or a rule that does not fit this corpus
            return unnamed
        if made.hash == expected.hash and made.published == expected.published:
            return replace(protocol, name=made.name, rule=made.rule + less, unit=made.unit)
    return unnamed


def _by_field(
    corpus: Corpus, utterances: Sequence[Utterance], task: Task, name: str, rest: str, seed: int
) -> list[Fold]:
    rule = f"{name}:{rest}" if rest else name
    groups = _groups(corpus, utterances, name)
    shares = _shares(rule, rest)
    count = int(rest) if rest.isdecimal() else len(groups)
    if len(groups) < max(3 if shares else 2, count):
        raise _too_few(corpus, task, rule, name, len(groups), f"{count} folds" if count > 3 else "fit, valid and test")
    if shares:
        parts = allot(groups, task.classes or BALANCED, shares, [[0]], Random(f"{seed}"))
        return [Fold(*(_ids(groups[unit] for unit in units) for units in parts))]
    if count < 2:
        raise UserError(f"protocol {rule}: must have 2 folds or more, such as {name}:5")
    if count == len(groups):
        tests = [[unit] for unit in sorted(groups)]
    else:
        others = [[p for p in range(count) if p != fold] for fold in range(count)]
        tests = allot(groups, task.classes or BALANCED, [1 / count] * count, others, Random(f"{seed}"))
    folds = []
    for index, units in enumerate(tests):
        training = {unit: members for unit, members in groups.items() if unit not in units}
        valid = _hold_out(corpus, training, name, task, Random(f"{seed}/{index}"))
        fit = set(_ids(training.values())).difference(valid)
        folds.append(Fold(tuple(sorted(fit)), valid, _ids(groups[u] for u in units)))
    return folds


def _too_few(corpus: Corpus, task: Task, rule: str, name: str, count: int, needs: str) -> UserError:
    """What to do where a field has too few values for a rule."""
    if count >= 2:
        remedy = f"; the rule {name} leaves one out at a time"
    elif name in task.disjoint:
        remedy = f"; without another, no split is free of a leak: id:5 with --allow-overlap {name} runs, marked"
    else:
        remedy = ""
    values = f"{count} value{'s' * (count != 1)} of {name}"
    return UserError(f"protocol {rule}: corpus {corpus.name} has only {values}; {needs} need one each{remedy}")


def _shares(rule: str, text: str) -> list[float]:
    """The shares of fit, valid and test from such as 64/20/16; empty for a number of folds or no text."""
    if not text or (text.isdecimal() and text.isascii()):
        return []
    parts = text.split("/")
    if len(parts) != 3 or not all(p.isdecimal() and p.isascii() and int(p) for p in parts):
        raise _unknown(rule)
    if sum(map(int, parts)) != 100:
        raise UserError(
            f"protocol {rule!r}: the percents sum to {sum(map(int, parts))}; they must sum to 100, as 60/20/20"
        )
    return [int(p) / 100 for p in parts]


def _own(corpus: Corpus, utterances: Sequence[Utterance]) -> Fold:
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
    if not parts["valid"] and any(u.split == "valid" for u in corpus.utterances):
        raise UserError(f"protocol own: corpus {corpus.name} has no utterance in split valid that can be used")
    return Fold(*(tuple(u.id for u in parts[name]) for name in ("train", "valid", "test")))


def add_valid(corpus: Corpus, task: Task, folds: Iterable[Fold], seed: int) -> tuple[Fold, ...]:
    """The folds; one without a valid part gets it from fit, in whole values of the first field kept disjoint."""
    by_id = {u.id: u for u in corpus.utterances}
    done = []
    for index, fold in enumerate(folds):
        if not fold.valid:
            members = [by_id[i] for i in fold.fit if i in by_id]  # `check` refuses the others
            # In published lists the speakers may be unknown; `check` marks that.
            disjoint = [name for name in task.disjoint if all(field_of(u, name) is not None for u in members)]
            name = disjoint[0] if disjoint else "id"
            groups = _groups(corpus, members, name)
            valid = _hold_out(corpus, groups, name, task, Random(f"{seed}/{index}"))
            held = set(valid)
            fold = Fold(tuple(i for i in fold.fit if i not in held), valid, fold.test)
        done.append(fold)
    return tuple(done)


def _groups(corpus: Corpus, utterances: Iterable[Utterance], name: str) -> dict[str, list[Utterance]]:
    groups: dict[str, list[Utterance]] = {}
    unknown = []
    utterances = list(utterances)
    values = compared(utterances, name)
    for u in utterances:
        value = values[u.id]
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
    corpus: Corpus, training: Mapping[str, list[Utterance]], name: str, task: Task, rng: Random
) -> tuple[str, ...]:
    """The ids of units with about VALID_SHARE of the utterances; fit keeps every class where that is possible.

    training: the utterances by their value of the field `name`. Of few values, parts are held out, see `_finer`. A
    single one is divided, as there is no other for valid. `check` notes both.
    """
    share = VALID_SHARE
    if finer := _finer(training, name, task):
        training, share = finer, LESS_VALID
    elif len(training) == 1:
        training = {u.id: [u] for members in training.values() for u in members}
    if len(training) < 2:
        rest = f"{name} {next(iter(training))!r}" if training else f"no {name}"
        raise UserError(
            f"corpus {corpus.name}: only {rest} is left to train on; "
            f"fit and valid need an utterance each: use another rule, or more folds"
        )
    units = allot(training, task.classes or BALANCED, [1 - share, share], [[0]], rng)[1]
    return _ids(training[unit] for unit in units)


def _finer(training: Mapping[str, list[Utterance]], name: str, task: Task) -> dict[str, list[Utterance]] | None:
    """The same utterances by the field that the task keeps disjoint, where `name` has few values; None: hold out those.

    Each of its values must lie within one of `name`, as a speaker within a session. None too where the task keeps
    `name` itself disjoint, or `name` has a single value: half a session is too much.
    """
    if not 2 <= len(training) < FEW or not task.disjoint or name in task.disjoint:
        return None
    unit_of = compared((u for members in training.values() for u in members), task.disjoint[0])
    groups: dict[str, list[Utterance]] = {}
    within: dict[str, str] = {}
    for value, members in training.items():
        for u in members:
            unit = unit_of[u.id]
            if unit is None or within.setdefault(unit, value) != value:
                return None
            groups.setdefault(unit, []).append(u)
    return groups if len(groups) > len(training) else None


def _ids(groups: Iterable[list[Utterance]]) -> tuple[str, ...]:
    return tuple(sorted(u.id for group in groups for u in group))
