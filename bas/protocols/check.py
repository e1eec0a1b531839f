"""Check a split: overlap between parts, one recording under two names, classes that cannot be learnt."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from bas.corpora import Corpus, Utterance
from bas.errors import UserError
from bas.protocols.base import REPORTED, Fold, compared, field_of
from bas.protocols.same import Compare, same_samples
from bas.speech import audio
from bas.tasks import Task, labels_of

SHORT = 40  # characters of an example that a message shows


def check(
    corpus: Corpus,
    task: Task,
    folds: Sequence[Fold],
    *,
    published: str = "",
    allowed: Sequence[str] = (),
    compare: Compare | None = same_samples,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Marks and notes of these folds over the utterances that have the task's label.

    published: what the marks call a published split, which may share what the task forbids; empty for another split.
    allowed: fields in which the user allows overlap; it is marked. compare: finds the recordings that are the same;
    None: they are not compared. Overlap that the task does not forbid is noted, and so are a class missing from a valid
    or test part, and overlap of fit and valid alone: what is chosen on valid may then suit its speakers, while no test
    speaker was seen.

    UserError: an id that is unknown, or twice in a fold; an empty part; labels that the task cannot be trained on, such
    as one class alone; a class missing from a fit part; overlap of a
    test part in a field that the task keeps disjoint, or such a field unknown, unless published or allowed; and in any
    case the same samples under two ids in two parts of a fold.
    """
    utterances = corpus.labelled(*labels_of(task))
    by_id = {u.id: u for u in utterances}
    for field in allowed:
        if field not in task.disjoint:
            raise UserError(f"--allow-overlap {field}: task {task.name} forbids only {', '.join(task.disjoint)}")
    check_known(corpus, folds)
    _check_ids(folds)
    task.outputs(utterances)
    used = {i for fold in folds for ids in fold.parts().values() for i in ids}
    marks: list[str] = []
    notes = _check_classes(task, folds, by_id)
    if compare is not None:
        notes += _check_recordings(folds, utterances, compare)
    for field in dict.fromkeys((*task.disjoint, *REPORTED)):
        excuse = "allowed by --allow-overlap" if field in allowed else published
        forbidden = field in task.disjoint
        unknown = [u.id for u in utterances if field_of(u, field) is None and u.id in used]
        if forbidden and unknown:
            message = f"{field} is unknown for {len(unknown)} utterances, e.g. {unknown[0]!r}"
            if not excuse:
                raise UserError(f"corpus {corpus.name}: {message}; task {task.name} must keep it disjoint")
            marks.append(f"{excuse}, though {message}")
        value = compared(utterances, field)
        shared = _find_shared(folds, value)
        if not shared:
            continue
        (index, one, other), values = next(iter(shared.items()))
        example = sorted(values)[0]
        example = example if len(example) <= SHORT else example[:SHORT] + "..."
        if field == "audio":  # its folder differs between machines
            example = Path(example).name
        overlap = f"{field} on both sides: {len(values)} values, e.g. {example!r} in {one} and {other}"
        if not forbidden or (other == "valid" and not excuse):
            notes.append(f"{overlap}, none in test" if other == "valid" else overlap)
        elif excuse:
            marks.append(f"{excuse}, with {overlap}")
        else:
            count = len(set(value.values()) - {None})
            rule = f"such as {field}:5" if count >= 5 else f"the rule {field} leaves one out at a time"
            raise UserError(
                f"protocol fold {index}: {overlap}; task {task.name} forbids it: split by {field} ({rule}), "
                f"or run it, marked, with --allow-overlap {field}"
            )
    return tuple(marks), tuple(notes)


def check_known(corpus: Corpus, folds: Sequence[Fold], also: Collection[str] = ()) -> None:
    """UserError where a fold has an id that is neither in the corpus nor in `also`."""
    known = {u.id for u in corpus.utterances}.union(also)
    for index, fold in enumerate(folds):
        for part, ids in fold.parts().items():
            unknown = [i for i in ids if i not in known]
            if unknown:
                message = f"{len(unknown)} of its {len(ids)} ids in {part} are not of corpus {corpus.name}"
                raise UserError(
                    f"protocol fold {index}: {message}, e.g. {unknown[0]!r}; was it made for another corpus?"
                )


def _check_ids(folds: Sequence[Fold]) -> None:
    for index, fold in enumerate(folds):
        counts = Counter(i for ids in fold.parts().values() for i in ids)
        for part, ids in fold.parts().items():
            if not ids:
                raise UserError(f"protocol fold {index}: {part} is empty; fit, valid and test need utterances")
        id_, count = counts.most_common(1)[0]
        if count > 1:
            raise UserError(f"protocol fold {index}: {id_!r} is there {count} times; once is allowed")


def _check_classes(task: Task, folds: Sequence[Fold], by_id: Mapping[str, Utterance]) -> list[str]:
    """Notes of classes that valid or test parts lack, and of utterances that are tested untested or more than once.

    UserError for a class missing from a fit part.
    """
    notes = []
    used = {i for fold in folds for ids in fold.parts().values() for i in ids}
    lacking: dict[str, list[str]] = defaultdict(list)
    class_of = {i: by_id[i].get(task.classes) for i in used} if task.classes else {}
    for index, fold in enumerate(folds):
        for part, ids in fold.parts().items() if task.classes else ():
            missing = sorted(set(class_of.values()) - {class_of[i] for i in ids})
            if missing and part == "fit":
                name = missing[0] if len(missing[0]) <= SHORT else f"{missing[0][:SHORT]}..."
                message = f"no {task.classes} {name!r} among its {len(ids)} training utterances"
                remedy = _remedy(task, name, [u for i, u in by_id.items() if class_of.get(i) == missing[0]])
                raise UserError(f"protocol fold {index}: {message}; {remedy}")
            lacking[part] += [f"fold {index} {task.classes} {name!r}" for name in missing]
    for part, cases in lacking.items():
        if cases:
            more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
            notes.append(f"classes missing from {part}: {cases[0]}{more}")
    if len(used) < len(by_id):
        lost = next(i for i in by_id if i not in used)
        notes.append(f"{len(by_id) - len(used)} utterances are in no part of any fold, e.g. {lost!r}")
    tests = Counter(i for fold in folds for i in fold.test)
    repeated = [i for i, count in tests.items() if count > 1]
    if repeated:
        notes.append(f"{len(repeated)} utterances are tested in more than one fold, e.g. {repeated[0]!r}")
    untested = sorted(used.difference(tests))
    if untested and len(folds) > 1:
        notes.append(f"{len(untested)} utterances are tested in no fold, e.g. {untested[0]!r}")
    return notes


def _remedy(task: Task, name: str, members: Sequence[Utterance]) -> str:
    """What helps where a fit part lacks a class. members: its utterances."""
    kept = f"empty its {task.classes} in the table (`bas corpus export` writes one of any corpus) to leave it out"
    for field in task.disjoint:
        values = {field_of(u, field) for u in members}
        if len(members) > 1 and len(values) == 1 and None not in values:
            return f"all its {len(members)} are of {field} {values.pop()!r}, who is in one part alone: {kept}"
    if len(members) == 1:
        return f"it has one utterance, which is in one part alone: {kept}"
    return f"use other folds or another seed, or {kept}"


def _find_shared(folds: Sequence[Fold], value: Mapping[str, str | None]) -> dict[tuple[int, str, str], set[str]]:
    """By fold and pair of parts, the values of a field that are in both; overlap with the test part comes first.

    value: by id.
    """
    shared: dict[tuple[int, str, str], set[str]] = {}

    def values(ids: Sequence[str]) -> set[str]:
        return {of for i in ids if (of := value[i]) is not None}

    for one, other in (("fit", "test"), ("valid", "test"), ("fit", "valid")):
        for index, fold in enumerate(folds):
            both = values(fold.parts()[one]) & values(fold.parts()[other])
            if both:
                shared[index, one, other] = both
    return shared


def _check_recordings(folds: Sequence[Fold], utterances: Sequence[Utterance], compare: Compare) -> list[str]:
    groups, unread = compare(utterances)
    segments = _segments_by_file(utterances)
    for index, fold in enumerate(folds):
        part_of = {i: part for part, ids in fold.parts().items() for i in ids}
        for names in groups:
            parts = {part_of[i]: i for i in names if i in part_of}
            if len(parts) > 1:
                (one, a), (other, b) = list(parts.items())[:2]
                raise UserError(
                    f"protocol fold {index}: {a!r} in {one} and {b!r} in {other} are the same recording, sample for "
                    f"sample; leave one of them out (`bas corpus export` writes a manifest to delete it from)"
                )
        for of_file in segments:
            _check_overlap(index, of_file, part_of)
    notes = [f"{len(groups)} recordings have several names, e.g. {' = '.join(groups[0])}"] if groups else []
    if unread:
        notes.append(f"{len(unread)} recordings cannot be read, so not compared with the others, e.g. of {unread[0]!r}")
    return notes


def _segments_by_file(utterances: Iterable[Utterance]) -> list[list[Utterance]]:
    """The utterances of each recording that has several, sorted by start."""
    by_path: dict[Path, list[Utterance]] = defaultdict(list)
    for u in utterances:
        by_path[u.audio].append(u)
    by_file: dict[object, list[Utterance]] = defaultdict(list)
    for path, segments in by_path.items():
        by_file[_file(path)].extend(segments)
    return [sorted(segments, key=lambda u: u.start) for segments in by_file.values() if len(segments) > 1]


def _file(path: Path) -> object:
    """An identity that is equal for two names of one file."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino


def _check_overlap(index: int, segments: Sequence[Utterance], part_of: Mapping[str, str]) -> None:
    """UserError where segments of one recording in two parts overlap by more than the rounding of times, `SLACK`."""
    latest: dict[str, tuple[float, str]] = {}  # by part: the last end so far, and its utterance
    for u in segments:
        part = part_of.get(u.id)
        if part is None:
            continue
        own = math.inf if u.end is None else u.end
        for other, (end, id_) in latest.items():
            if other != part and min(end, own) - u.start > audio.SLACK:
                raise UserError(
                    f"protocol fold {index}: {id_!r} in {other} and {u.id!r} in {part} overlap in time in one "
                    f"recording; leave one of them out, or split by a field that keeps them together"
                )
        latest[part] = max(latest.get(part, (own, u.id)), (own, u.id))
