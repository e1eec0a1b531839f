"""What a fold chooses and trains knows nothing of its test part.

Every verb runs twice with the same seeds: on a corpus, and on its double, where the test utterances of fold 0 have
other recordings and other labels under the same ids and speakers. All that the jobs of fold 0 write must be equal, but
for what is about the test part. The last tests plant leaks, and see that they are noticed.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from golden.verbs import RATE, SPACE, SPEAKERS, WIDE, changes, corpus, do, inside
from stores import Fake, quiet
from torch import Tensor

from bas.corpora import open_corpus
from bas.features.extract import extract
from bas.features.plan import Request
from bas.protocols import Fold
from bas.runs.session import Session
from bas.studies.dynamics.analysis import AnalysisSettings
from bas.studies.dynamics.study import Plan, carry_out
from bas.studies.probe import few
from bas.training.batches import Data, by_speaker
from bas.training.settings import RACES, STRATEGIES
from bas.training.tuning import Tuning

pytestmark = pytest.mark.slow

TESTED = ("s0", "s1")
FOLDS = ({"fit": ("s3", "s4", "s5"), "valid": ("s2",), "test": TESTED}, {"fit": ("s0", "s1", "s5"), "valid": ("s4",)})
"""Fold 1 trains on what fold 0 tests. It tests all who are left: s2 and s3."""

LABELS = {"a": "anger", "b": "sadness"}
ABOUT_OTHERS = ("test", "tests", "again", "seconds", "made_of", "protocol", "sha256")
"""Fields of a job's result that are not compared. `again`: test predictions of other trainings; `made_of`: digests of
all words; `protocol`: a hash of all folds, of which fold 0 is compared by itself."""

SMALL = ("--seeds=1", "--workers=1", "--space=four.py")
TINY = changes(epochs=2, width=8, stride=4, batch_size=8)
BY_SPEAKER, PLAIN = changes(normalise="speaker"), changes(normalise="none")
FILE = "--protocol=split.json"


# The corpus and its double


@dataclass(frozen=True)
class Twins:
    """Two folders with equal names in them. `runs` of each are made where a test asks."""

    one: Path
    other: Path

    def run(self, *words: str) -> None:
        """The same command line in both."""
        for root in (self.one, self.other):
            with inside(root):
                do(*words)

    def compare(self, name: str) -> tuple[list[str], int]:
        """What fold 0 of a run wrote that differs, and how many files and trials there are."""
        one, other = (dict(_of_fold_0(root / "runs" / name)) for root in (self.one, self.other))
        assert one.keys() == other.keys()
        return [key for key in one if one[key] != other[key]], len(one)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """Two corpora in each folder: `cups`, and for transfer `mugs` in another language."""
    pair = Twins(tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("other"))
    for root, changed in ((pair.one, False), (pair.other, True)):
        (root / "four.py").write_text(SPACE, encoding="utf-8")
        (root / "wide.py").write_text(WIDE, encoding="utf-8")
        (root / "drawn").mkdir()
        table = corpus(root / "drawn")
        _write(table, root / "cups.csv", changed, "", "de")
        _write(table, root / "mugs.csv", changed, "m", "fr")
        for prefix, name in (("", "split.json"), ("m", "mugs.json")):
            (root / name).write_text(json.dumps({"folds": [_fold(fold, prefix) for fold in FOLDS]}))
        leaky = [_every_second(1), _every_second(0)]
        (root / "leaky.json").write_text(json.dumps({"folds": leaky}))
        for name in ("cups", "mugs"):
            table = root / f"{name}.csv"
            extract(open_corpus("manifest", table), Three(), root / name, Request("manifest", table), quiet())
    return pair


class Three(Fake):
    """Three states of width 4, made of each wave alone: what a batch holds beside it changes no bit."""

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        framed = [x[: len(x) // 320 * 320].reshape(-1, 4, 80) for x in inputs]
        return [torch.stack([x.mean(2), x.abs().mean(2), x.std(2).log1p()]) * 10 for x in framed]


def _write(table: Path, to: Path, changed: bool, prefix: str, language: str) -> None:
    """The corpus under other names; changed: what TESTED say is said otherwise, and labelled otherwise."""
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rng = np.random.default_rng(len(prefix))
    for row in rows:
        wave_S, _ = soundfile.read(table.parent / row["audio"])
        wave_S = wave_S[::-1] if prefix else wave_S
        tested = row["speaker"] in TESTED
        row["label"], row["language"] = LABELS[row["label"]], language
        row["split"] = "test" if tested else "valid" if row["speaker"] in FOLDS[0]["valid"] else "train"
        if changed and tested:
            wave_S = rng.uniform(0.01, 0.3) * rng.standard_normal(wave_S.size + RATE // 10)
            row["label"] = LABELS["a" if row["id"].endswith("0") else "b"]  # six of eight, not four
            row["shares"] = json.dumps({"awe": float(rng.integers(0, 11)) / 10, "fear": 0.3})
        row.update(id=prefix + row["id"], speaker=prefix + row["speaker"], audio=f"{to.stem}-{row['id']}.wav")
        soundfile.write(to.parent / row["audio"], wave_S, RATE)
    with to.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _ids(speakers: Sequence[str], prefix: str = "") -> list[str]:
    return [f"{prefix}{s}{label}{take}" for s in speakers for label in LABELS for take in range(4)]


def _fold(parts: Mapping[str, Sequence[str]], prefix: str) -> dict[str, list[str]]:
    everyone = [f"s{s}" for s in range(SPEAKERS)]
    rest = [s for s in everyone if s not in (*parts["fit"], *parts["valid"])]
    return {name: _ids(speakers, prefix) for name, speakers in {**parts, "test": rest}.items()}


def _every_second(first: int) -> dict[str, list[str]]:
    """A fold that shares every speaker: one for `leak` to measure."""
    everyone = _ids([f"s{s}" for s in range(SPEAKERS)])
    return {"fit": everyone[first::2][4:], "valid": everyone[first::2][:4], "test": everyone[1 - first :: 2]}


# What fold 0 wrote


def _of_fold_0(run: Path) -> Iterator[tuple[str, object]]:
    """By file: results without what is about the test part, weights, trials, and all of a fine-tuning."""
    paths = sorted(path for path in run.rglob("*") if path.is_file())
    for path in paths:
        name = re.sub(r"^transfer-\w+", "transfer", path.relative_to(run).as_posix())  # a hash of all recordings
        if name.startswith("leaky") or "/random/" in name:  # a split that is meant to share speakers
            continue
        if path.name == "protocol.json":
            yield name, json.loads(path.read_text())["folds"][0]
        elif path.parent.name == "jobs" and "-fold0-" in path.name:
            if path.suffix == ".json":
                yield name, _without_test(json.loads(path.read_text()))
            elif path.suffix == ".pt":
                yield name, path.read_bytes()
        elif name.startswith("studies/four/fold0/"):
            trial = json.loads(path.read_text())
            yield name, (trial["params"], trial["value"], trial["losses"], trial["valid"])
        elif name.startswith("rotation0/checkpoints/") or path.name == "finetune.json":
            yield name, _without_test(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
        elif name.startswith("rotation0/analysis/"):
            refitted = json.loads(path.read_text())["cut"].get("refitted")
            yield name, refitted and refitted["strengths"]


def _without_test(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_test(v) for k, v in value.items() if k not in ABOUT_OTHERS}
    return [_without_test(v) for v in value] if isinstance(value, list) else value


def _test_parts(root: Path) -> list[str]:
    """What the jobs of fold 0 say of the test part."""
    paths = sorted(root.rglob("jobs/*-fold0-*.json"))
    return [str(result.get("test") or result.get("heads")) for result in (json.loads(p.read_text()) for p in paths)]


# The verbs


def runs() -> Iterator[tuple[str, int, list[str]]]:
    """A name, how many files and trials fold 0 has, the command line."""
    cups = ["--features=cups", FILE, *SMALL, *TINY]
    wide = [word.replace("four.py", "wide.py") for word in cups]
    for strategy in STRATEGIES:
        of = wide if strategy in RACES else cups
        rows = {"committee": 2, "budget": 5} if strategy in RACES else {"committee": 1}
        way, no_supernet = changes(strategy=strategy, **rows), strategy in RACES
        yield f"best-{strategy}", 6 - no_supernet, ["retrain", *of, "--layer=best", *BY_SPEAKER, *way]
        yield f"mix-{strategy}", 5 - no_supernet, ["retrain", *of, "--layer=mix", *PLAIN, *way]
    raced, gumbel = changes(strategy="race", committee=2, budget=5), changes(strategy="gumbel", committee=1)
    yield "search-race", 4, ["retrain", *wide, "--layer=search", *PLAIN, *raced]
    yield "search-gumbel", 5, ["retrain", *cups, "--layer=search", *PLAIN, *gumbel]
    yield "compare", 9, ["compare", *wide, "--layer=best", *BY_SPEAKER]
    committee = changes(strategy="single-path", committee=3)
    yield "committee", 10, ["compare", *cups, "--layer=best", *BY_SPEAKER, *committee]
    yield "own", 9, ["compare", "--features=cups", "--protocol=own", *SMALL, *TINY, "--layer=best"]
    searches = ["--strategy=single-path", "--strategy=gumbel", "--variant=residual=every"]
    yield "audit", 24, ["audit", *cups, "--layer=best", *BY_SPEAKER, *searches]
    for mode in ("blocks", "search"):
        yield f"tune-{mode}", 12, ["tune", *cups, "--layer=best", *BY_SPEAKER, f"--tune={mode}", "--trials=4"]
    heads = ["--seeds=1", "--workers=1", *changes(epochs=2, batch_size=8, stride=8)]
    both = ["--features", "cups", "mugs", "--protocol=own", "--labels=common"]
    yield "probe", 12, ["probe", *both, *heads, *BY_SPEAKER, "--percent=50"]
    yield "words", 17, ["words", "--features=cups", "--protocol=own", *heads, *BY_SPEAKER, "--text-encoder=random"]
    shares = ["--features=cups", "--protocol=own", "--layer=best", *heads, *changes(width=8)]
    yield "shares", 17, ["shares", *shares, "--metadata=sex"]
    cost = ["protocol", "cost", *cups[:1], *SMALL, *TINY, "--layer=best", *PLAIN]
    yield "leak", 6, [*cost, "--clean=split.json", "--leaky=leaky.json"]


@pytest.mark.parametrize(("name", "count", "words"), [pytest.param(*run, id=run[0]) for run in runs()])
def test_other_test_utterances_change_nothing_that_a_fold_chooses(
    twins: Twins, name: str, count: int, words: list[str]
) -> None:
    with mock.patch.multiple(few, DRAWS=2, COUNTS=(5,)):
        twins.run(*words, f"--name={name}")
    assert twins.compare(name) == ([], count)
    one, other = (_test_parts(root / "runs" / name) for root in (twins.one, twins.other))
    assert one != other, "the test parts should differ"


def test_a_fine_tuning_neither(twins: Twins, hubert: Path) -> None:
    how = Tuning(lr=1e-3, epochs=2, batch=8, micro_batch=4, evaluate_every=2, checkpoint_every=4, improvement=0.0)
    analysis = AnalysisSettings(initialisations=1, splits=1, epochs=1, permutations=2, hidden=4)
    for root in (twins.one, twins.other):
        corpus_, split = str(root / "cups.csv"), str(root / "split.json")
        plan = Plan("manifest", corpus_, False, str(hubert), None, False, None, split, 0, -23.0, None, "cpu", how, 0,
                    "cpu", analysis=analysis)  # fmt: skip
        carry_out(root / "runs" / "dynamics", plan, quiet(), rotations=1)
    differ, count = twins.compare("dynamics")
    assert differ == []
    assert count >= 9
    steps = [json.loads((root / "runs/dynamics/rotation0/analysis/step-00000.json").read_text())["cut"]["own"]
             for root in (twins.one, twins.other)]  # fmt: skip
    assert steps[0] != steps[1]


# Leaks that are noticed


def valid_with_the_test_part(patch: pytest.MonkeyPatch) -> None:
    honest = Session.members

    def members(self: Session, ids: tuple[str, ...]) -> Tensor:
        fold = self.run.protocol.folds[0]
        return honest(self, (*ids, *fold.test) if ids == fold.valid else ids)

    patch.setattr(Session, "members", members)


def layer_by_all(patch: pytest.MonkeyPatch) -> None:
    honest = Session.training_means

    def means(self: Session, fold: int) -> Any:
        folds = self.run.protocol.folds
        everyone = replace(folds[fold], fit=(*folds[fold].fit, *folds[fold].test))
        with mock.patch.object(self.run, "protocol", replace(self.run.protocol, folds=(everyone, *folds[1:]))):
            return honest(self, fold)

    patch.setattr(Session, "training_means", means)


def speakers_of_all_parts(patch: pytest.MonkeyPatch) -> None:
    def of_all(data: Data, fit: Tensor, speakers: Sequence[str | None]) -> Data:
        return by_speaker(data, torch.arange(len(speakers)), speakers)

    patch.setattr("bas.runs.session.by_speaker", of_all)


def moments_of_all_parts(patch: pytest.MonkeyPatch) -> None:
    honest = Data.moments
    patch.setattr(Data, "moments", lambda self, members: honest(self, torch.arange(len(self.lengths_U))))


def inner_folds_with_the_test_part(patch: pytest.MonkeyPatch) -> None:
    honest = Session.inner_folds

    def leaky(self: Session, fold: int, count: int) -> list[Fold]:
        return [replace(parts, valid=(*parts.valid, *parts.test)) for parts in honest(self, fold, count)]

    patch.setattr(Session, "inner_folds", leaky)


@pytest.mark.parametrize(
    ("leak", "seen"),
    [
        (valid_with_the_test_part, "jobs/retrain-four-fold0-seed0.json"),
        (valid_with_the_test_part, "jobs/linear-logistic-regression-fold0-seed0.json"),
        (layer_by_all, "jobs/layer-best-fold0-seed0.json"),
        (speakers_of_all_parts, "jobs/retrain-four-fold0-seed0.pt"),
        (moments_of_all_parts, "jobs/search-four-fold0-seed0.pt"),
        (inner_folds_with_the_test_part, "jobs/search-wide-fold0-seed0.json"),
    ],
)
def test_a_planted_leak_is_noticed(
    twins: Twins, monkeypatch: pytest.MonkeyPatch, leak: Callable[[pytest.MonkeyPatch], None], seen: str
) -> None:
    name = f"{leak.__name__}-{seen[5:9]}"
    leak(monkeypatch)
    verb = "compare" if "linear" in seen else "retrain"
    rows = {"budget": 5, "committee": 2} if "wide" in seen else {"strategy": "single-path", "committee": 1}
    small = [word.replace("four.py", "wide.py") if "wide" in seen else word for word in SMALL]
    run = ["--features=cups", FILE, *small, *TINY, "--layer=best", *BY_SPEAKER, *changes(**rows)]
    twins.run(verb, *run, f"--name={name}")
    assert seen in twins.compare(name)[0]
