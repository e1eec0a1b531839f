"""Splits that others published, read from their own files: EmoBox's fold lists and SUPERB's lists for IEMOCAP."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from bas.corpora import Corpus
from bas.corpora.folders import Names, is_passed_over, plain
from bas.errors import UserError
from bas.protocols.base import Fold
from bas.util.files import read_json
from bas.util.reading import read_lines

SUPERB_VALID = 0.2  # s3prl's valid_ratio


def emobox(corpus: Corpus, folder: Path) -> list[Fold]:
    """The folds of EmoBox's folder of one corpus, `fold_1/emodb_train_fold_1.jsonl` and so on, unchanged.

    A line means the utterance whose id is its `key`, else the one whose audio path ends like its `wav`, suffixes aside.
    Parts are train, valid (empty where EmoBox has none: it is then drawn from train) and test.
    UserError, with file and line: no fold, no train or test, a malformed line, an utterance the corpus lacks.
    """
    folders = [path for path in _list(folder) if re.fullmatch(r"fold_\d+", path.name, re.IGNORECASE)]
    folders.sort(key=lambda path: int(path.name[len("fold_") :]))
    if not folders:
        raise UserError(f"{folder}: no folder fold_1; name EmoBox's folder of the corpus, such as EmoBox/data/emodb")
    finder = _Finder(corpus)
    folds = []
    for fold in folders:
        parts: dict[str, tuple[str, ...]] = {"valid": ()}
        for part, name in (("fit", "train"), ("valid", "valid"), ("test", "test")):
            pattern = re.compile(rf".*_{name}_fold_\d.*\.jsonl", re.IGNORECASE)
            files = [path for path in _list(fold) if pattern.fullmatch(path.name)]
            if len(files) > 1:
                raise UserError(f"{fold}: {files[0].name} and {files[1].name}: keep one {name} list")
            if files:
                parts[part] = tuple(finder.find_row(files[0], number, row) for number, row in _rows(files[0]))
            elif name != "valid":
                raise UserError(f"{fold}: no file *_{name}_{fold.name}.jsonl")
        folds.append(Fold(**parts))
    return folds


def superb(corpus: Corpus, folder: Path) -> list[Fold]:
    """SUPERB's five folds of IEMOCAP, from s3prl's `downstream/emotion/meta_data`, with the valid part s3prl draws.

    `Session1/test_meta_data.json` is fold 1's test part; of `Session1/train_meta_data.json` the last fifth after a
    permutation seeded with 0 is valid, drawn over utterances (torch's random_split): its speakers are those of fit.
    UserError, with file: a missing or malformed list, an utterance the corpus lacks.
    """
    finder, names = _Finder(corpus), Names()
    sessions = [names.find(folder, f"Session{k}") for k in range(1, 6)]
    missing = [session.name for session in sessions if not session.is_dir()]
    if missing:
        raise UserError(f"{folder}: no folder {missing[0]}; name s3prl's s3prl/downstream/emotion/meta_data")
    folds = []
    for session in sessions:
        train, test = (
            _superb_list(names.find(session, f"{part}_meta_data.json"), finder) for part in ("train", "test")
        )
        kept = int((1 - SUPERB_VALID) * len(train))
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0)).tolist()
        folds.append(Fold(tuple(train[i] for i in order[:kept]), tuple(train[i] for i in order[kept:]), tuple(test)))
    return folds


def _list(folder: Path) -> list[Path]:
    """What the folder holds, sorted, without what macOS adds."""
    return sorted(path for path in folder.iterdir() if not is_passed_over(path.name)) if folder.is_dir() else []


def _superb_list(path: Path, finder: _Finder) -> list[str]:
    raw = read_json(path)
    rows = raw.get("meta_data") if isinstance(raw, dict) else None
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("path"), str) for row in rows
    ):
        raise UserError(f"{path}: meta_data: expected a list of objects with a path")
    return [finder.find_path(path, number, row["path"]) for number, row in enumerate(rows, 1)]


def _rows(path: Path) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for number, line in read_lines(path):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} line {number}: malformed JSON ({error}); expected one object a line") from error
        if not isinstance(row, dict) or not isinstance(row.get("key"), str) or not isinstance(row.get("wav"), str):
            raise UserError(f"{path} line {number}: expected an object with the texts key and wav")
        yield number, row


class _Finder:
    """Finds utterances by id, or by the end of their audio's path."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus.name
        self.ids = {u.id for u in corpus.utterances}
        self.by_stem: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        self.named: dict[str, tuple[str, ...]] = {}  # by id, the path by which a list named it
        for u in corpus.utterances:
            parts = _folded(u.audio)
            self.by_stem[parts[-1]].append((parts, u.id))

    def find_row(self, file: Path, number: int, row: Mapping[str, Any]) -> str:
        return row["key"] if row["key"] in self.ids else self.find_path(file, number, row["wav"])

    def find_path(self, file: Path, number: int, wav: str) -> str:
        """The id whose path shares the longest end with `wav`. UserError unless it is one, always for the same path."""
        parts = _folded(Path(wav)) if Path(wav).name else ()
        candidates = self.by_stem.get(parts[-1] if parts else "", [])
        shared = [(_shared_end(parts, own), id_) for own, id_ in candidates]
        longest = [id_ for count, id_ in shared if count == max(c for c, _ in shared)]
        if len(longest) != 1:
            message = f"{len(longest)} utterances have such a path" if longest else "has no such utterance"
            raise UserError(f"{file} line {number}: {wav!r}: corpus {self.corpus} {message}")
        other = self.named.setdefault(longest[0], parts)
        if other != parts:
            message = f"{'/'.join(other)} was taken for it before; is {self.corpus} complete?"
            raise UserError(f"{file} line {number}: {wav!r} looks like {longest[0]!r}, but {message}")
        return longest[0]


def _folded(path: Path) -> tuple[str, ...]:
    """The path's parts without a suffix, as they are compared."""
    return tuple(map(plain, path.with_suffix("").parts))


def _shared_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(other), strict=False):
        if a != b:
            break
        count += 1
    return count
