"""Predictions of many recordings as a table: CSV, or JSON Lines; a killed one goes on where it was."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import TextIO

from rich.console import Console

from bas.corpora import Utterance, open_corpus
from bas.corpora.folders import walk
from bas.corpora.intervals import AUDIO
from bas.corpora.manifest import SUFFIXES
from bas.errors import UserError
from bas.models.predict import Failure, Model, Prediction, predict_all
from bas.util.files import replacing
from bas.util.progress import bar
from bas.util.spreadsheet import defuse

FORMATS = (".csv", ".jsonl")


def sources(places: Sequence[Path]) -> list[Utterance]:
    """The recordings that these name: a recording, all those beneath a folder, or the utterances of a manifest.

    Raises UserError for a place that is not there, a folder without a recording, and what a manifest's reader refuses.
    """
    found: list[Utterance] = []
    for place in places:
        if not place.exists():
            raise UserError(f"{place}: no such file or folder")
        if place.is_dir():
            paths = sorted(walk(place, AUDIO))
            if not paths:
                raise UserError(f"{place}: no recording beneath it; suffixes: {', '.join(AUDIO)}")
            found += [Utterance(str(path), path) for path in paths]
        elif place.suffix.lower() in SUFFIXES:
            found += open_corpus("manifest", place).utterances
        else:
            found.append(Utterance(str(place), place))
    return found


def check(out: Path) -> None:
    """Raise UserError unless a table can be written there."""
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: must end in {' or '.join(FORMATS)}")
    if out.exists():
        raise UserError(f"--out {out}: is there already; delete it, or name another")


def write(
    model: Model, utterances: Sequence[Utterance], out: Path, identity: str, crew: int, console: Console
) -> list[Failure]:
    """Predict the recordings into the file, which is there when it is complete; those that could not be predicted.

    What is done is kept beside it until then (`.part`), and taken by the next call with the same model (`identity`).
    """
    part = out.with_name(f"{out.name}.part")
    done = _done(part, identity)
    failures: list[Failure] = []
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("a" if done else "w", encoding="utf-8") as kept:
        if not done:
            kept.write(json.dumps({"model": identity}) + "\n")
        todo = [u for u in utterances if u.id not in done]
        for utterance, result in zip(todo, _each(model, todo, crew, console, len(done)), strict=True):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                done[utterance.id] = result
                kept.write(json.dumps({"id": utterance.id, "said": list(map(asdict, result))}) + "\n")
                kept.flush()
    rows = [one for u in utterances for one in done.get(u.id, ())]
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        table = Table(stream, model.description.outputs, out.suffix.lower() == ".jsonl")
        for row in rows:
            table.add(row)
    part.unlink()
    return failures


def show(
    model: Model, utterances: Sequence[Utterance], stream: TextIO, as_json: bool, crew: int, console: Console
) -> list[Failure]:
    """Predict the recordings onto a stream, one after the other; those that could not be predicted."""
    table, failures = Table(stream, model.description.outputs, as_json), []
    with closing(_each(model, utterances, crew, console, 0)) as results:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                for row in result:
                    table.add(row)
    return failures


def _each(
    model: Model, utterances: Sequence[Utterance], crew: int, console: Console, before: int
) -> Generator[list[Prediction] | Failure, None, None]:
    with bar(console, "recordings") as progress:
        task = progress.add_task("predict", total=before + len(utterances), completed=before)
        yield from predict_all(model, utterances, crew, lambda: progress.advance(task))


def _done(part: Path, identity: str) -> dict[str, list[Prediction]]:
    """What an unfinished table has, by recording; the last line may be cut off."""
    if not part.exists():
        return {}
    lines = part.read_text(encoding="utf-8", errors="replace").splitlines()
    done: dict[str, list[Prediction]] = {}
    for number, line in enumerate(lines):
        try:
            raw = json.loads(line)
        except json.JSONDecodeError:
            break
        if number == 0 and raw != {"model": identity}:
            return {}
        if number:
            done[raw["id"]] = [Prediction(**said) for said in raw["said"]]
    return done


class Table:
    """Predictions as lines: a CSV with a heading, or JSON Lines."""

    def __init__(self, stream: TextIO, outputs: Sequence[str], as_json: bool) -> None:
        self.stream, self.outputs, self.as_json = stream, outputs, as_json
        if not as_json:
            self._line(["source", "start", "end", "label", *map(defuse, outputs)])

    def add(self, row: Prediction) -> None:
        times = f"{row.start:.3f}", f"{row.end:.3f}"
        if self.as_json:
            self.stream.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        else:
            self._line([defuse(row.source), *times, defuse(row.label), *(f"{row.values[o]:.6f}" for o in self.outputs)])
        self.stream.flush()

    def _line(self, cells: Sequence[object]) -> None:
        line = StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self.stream.write(line.getvalue())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
