"""Predictions of many recordings as a table: CSV, or JSON Lines; a killed one goes on where it was."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import TextIO

from rich.console import Console

from bas.corpora import Utterance, open_corpus
from bas.corpora.folders import walk
from bas.corpora.intervals import AUDIO
from bas.corpora.manifest import SUFFIXES
from bas.errors import UserError
from bas.models.description import Description
from bas.models.predict import Failure, Model, Prediction, Timing, predict_all
from bas.report.format import counted
from bas.speech.audio import SLACK
from bas.util.files import hold, replacing
from bas.util.progress import bar
from bas.util.reading import check_name, read_bytes
from bas.util.spreadsheet import defuse

FORMATS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Outcome:
    """What became of recordings, and how fast.

    short: lines of speech shorter than any in the training. pace: how fast; "" where nothing was predicted.
    """

    failures: list[Failure]
    short: int
    pace: str


class Clock:
    """How long recordings take, measured from here on."""

    def __init__(self, model: Model, crew: int) -> None:
        threads = f"{crew} threads" if crew > 1 else "one thread"
        self.on = threads if model.device.type == "cpu" else model.device.type
        self.begun = self.now = time.perf_counter()
        self.times: list[Timing] = []

    def add(self, timing: Timing | None) -> None:
        """Of a recording that is done; None of one that failed."""
        self.now = time.perf_counter()
        self.times += [timing] if timing else []

    def line(self) -> str:
        """The pace of all, and of one recording; "" of none."""
        if not self.times:
            return ""
        speech, whole, encoder = (sum(getattr(t, n) for t in self.times) for n in ("speech", "whole", "encoder"))
        wall, median = self.now - self.begun, statistics.median(t.whole for t in self.times)
        pace = speech / wall
        return (
            f"{counted(len(self.times), 'recording')}, {speech:.1f} s of speech in {wall:.1f} s on {self.on}: "
            f"{pace:,.{0 if pace > 10 else 1}f} times real time; median {median:.3g} s each, "
            f"{100 * encoder / whole:.0f} % of all in the encoder"
        )


def sources(places: Sequence[Path]) -> list[Utterance]:
    """The recordings that these name: a recording, all those beneath a folder, or the utterances of a manifest.

    Raises UserError for a place that is not there, a folder without a recording, what a manifest's reader refuses, a
    name that a table cannot hold, and one that is there twice.
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
    for utterance in found:
        check_name(utterance.id)
        check_name(utterance.audio)
    times = Counter(utterance.id for utterance in found)
    if twice := [id_ for id_, count in times.items() if count > 1]:
        raise UserError(
            f"{twice[0]}: there {times[twice[0]]} times; name each recording once, and give each an id of its own"
        )
    return found


def check(out: Path) -> None:
    """Raise UserError unless a table can be written there."""
    if out.suffix.lower() not in FORMATS:
        raise UserError(f"--out {out}: must end in {' or '.join(FORMATS)}")
    if out.exists():
        raise UserError(f"--out {out}: is there already; delete it, or name another")


def write(
    model: Model, utterances: Sequence[Utterance], out: Path, identity: str, crew: int, console: Console
) -> Outcome:
    """Predict the recordings into the file, which is there when it is complete.

    identity: of the model. What is done is kept beside the file until then (`.part`), and taken by the next call with
    the same model and recordings. Raises UserError for a `.part` of others, and while another process writes it.
    """
    model.encoder  # noqa: B018  a missing one is refused before anything is written
    part, head = out.with_name(f"{out.name}.part"), {"bas predict": _digest(identity, utterances)}
    failures, clock = list[Failure](), Clock(model, crew)
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("a", encoding="utf-8") as kept:
        if not hold(kept) or not _is_still(part, kept):
            raise UserError(f"{part}: another process is writing it; wait for it or stop it")
        check(out)
        done, length = _done(part, head)
        kept.truncate(length)
        if not length:
            kept.write(json.dumps(head) + "\n")
        todo = [utterance for utterance in utterances if utterance.id not in done]
        with closing(_each(model, todo, crew, console, clock, len(done))) as results:
            for utterance, result in zip(todo, results, strict=True):
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                done[utterance.id] = result
                kept.write(json.dumps({"id": utterance.id, "said": list(map(asdict, result))}) + "\n")
                kept.flush()
        with replacing(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            table = Table(stream, model.description, out.suffix.lower() == ".jsonl")
            for row in (one for utterance in utterances for one in done.get(utterance.id, ())):
                table.add(row)
        part.unlink()
    return Outcome(failures, table.short, clock.line())


def _is_still(part: Path, kept: TextIO) -> bool:
    """Whether the open file is still there under its name: another process may have completed its table since."""
    try:
        return os.path.samestat(part.stat(), os.fstat(kept.fileno()))
    except FileNotFoundError:
        return False


def _digest(identity: str, utterances: Sequence[Utterance]) -> str:
    """Of the model and of what is predicted: names, times, sizes and ages of files."""
    digest = hashlib.sha256(identity.encode())
    for utterance in utterances:
        try:
            status = utterance.audio.stat()
            file = status.st_size, status.st_mtime_ns
        except OSError:  # it is told when it is read
            file = (-1, -1)
        digest.update(
            repr((utterance.id, str(utterance.audio.absolute()), utterance.start, utterance.end, file)).encode()
        )
    return digest.hexdigest()


def show(
    model: Model, utterances: Sequence[Utterance], stream: TextIO, as_json: bool, crew: int, console: Console
) -> Outcome:
    """Predict the recordings onto a stream, one after the other."""
    table, failures, clock = Table(stream, model.description, as_json), list[Failure](), Clock(model, crew)
    with closing(_each(model, utterances, crew, console, clock)) as results:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                for row in result:
                    table.add(row)
    return Outcome(failures, table.short, clock.line())


def _each(
    model: Model, utterances: Sequence[Utterance], crew: int, console: Console, clock: Clock, before: int = 0
) -> Generator[list[Prediction] | Failure, None, None]:
    with bar(console, "recordings") as progress:
        task = progress.add_task("predict", total=before + len(utterances), completed=before)

        def done(timing: Timing | None) -> None:
            progress.advance(task)
            clock.add(timing)

        yield from predict_all(model, utterances, crew, done)


def _done(part: Path, head: dict[str, str]) -> tuple[dict[str, list[Prediction]], int]:
    """What an unfinished table has, by recording, and in how many bytes: its last line may be cut off."""
    done: dict[str, list[Prediction]] = {}
    length = 0
    for number, line in enumerate(read_bytes(part).splitlines(keepends=True) if part.exists() else ()):
        try:
            raw = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            raw = None
        if number == 0 and raw != head:
            raise UserError(f"{part}: of another model or of other recordings; delete it, or name another --out")
        if raw is None:
            break
        if number:
            done[raw["id"]] = [Prediction(**said) for said in raw["said"]]
        length += len(line)
    return done, length


class Table:
    """Predictions as lines: a CSV with a heading, or JSON Lines."""

    def __init__(self, stream: TextIO, of: Description, as_json: bool) -> None:
        self.stream, self.outputs, self.shortest, self.as_json = stream, of.outputs, of.shortest, as_json
        self.form = ".9g" if of.ranges else ".6f"  # the unit of a number may be large or small
        self.short = 0
        if not as_json:
            self._line(["source", "start", "end", "label", *map(defuse, of.outputs)])

    def add(self, row: Prediction) -> None:
        self.short += row.end - row.start < self.shortest - SLACK
        times = f"{row.start:.3f}", f"{row.end:.3f}"
        if self.as_json:
            values = {name: float(f"{value:{self.form}}") for name, value in row.values.items()}
            said = asdict(row) | {"start": round(row.start, 3), "end": round(row.end, 3), "values": values}
            self.stream.write(json.dumps(said, ensure_ascii=False) + "\n")
        else:
            self._line(
                [defuse(row.source), *times, defuse(row.label), *(f"{row.values[o]:{self.form}}" for o in self.outputs)]
            )
        self.stream.flush()

    def _line(self, cells: Sequence[object]) -> None:
        line = StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        self.stream.write(line.getvalue())
