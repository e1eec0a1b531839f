"""What became of the embeddings, over all rotations: every number of the page and of the figures.

A rotation is {rotation, steps, checkpoints, finetune}: of each of its steps the checkpoint holds step, what
`bas.studies.dynamics.analysis.analyse` found, and cut: {own, and at step 0 and the last one refitted: {WA, UA,
macro_f1, predictions: by state}}.

Axes: R rows (a step each, and the last one of every rotation), L hidden states, T rotations, S seeds, N utterances of
all third parts, F acoustic features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bas.speech.acoustics import FAMILIES
from bas.stats import Metric, macro_f1, paired, wa

LAST = "last"
KINDS, SPLITS = ("linear", "relu"), ("grouped", "published")

Rotation = Mapping[str, Any]
Checkpoint = Mapping[str, Any]


def tabulate(rotations: Sequence[Rotation]) -> dict[str, Any]:
    """Every number of the page, as JSON's own types; by row and state where they are lists of lists.

    rows         {step: a number or "last", rotations: how many have it}; means are over these
    rotations    of each: utterances, speakers, steps, epochs, stopped, valid_loss (at first, at best)
    cka          by description and kind: mean, sd, chance (the mean 95th percentile of the permuted), by_chance
                 (mean not above it); change: mean, sd and fell (in how many rotations) of the last less step 0
    svcca        mean by row and state, None where it is refused in some rotation; refused: why
    probes       by kind and split: states {mean, sd (of seeds, each a mean over rotations), sd_rotations}, egemaps
                 {mean, sd}, notes; grouped: against_start, by state (`bas.stats.paired` over speakers)
    ridge        names, families, r2 by row, state and name
    cut          own: {WA, UA, macro_f1}; refitted: {"0", "last": the same}; against_whole: WA of the last
                 checkpoint cut after each state, less that of the whole

    Of cka, probes and ridge also rotations (how many have it) and others (why the others have not); {refused: why}
    where none has.
    """
    steps = sorted({step for rotation in rotations for step in rotation["steps"]})
    rows = [_having(rotations, step) for step in (*steps, LAST)]
    first = [of[0] for of in (_having([rotation], 0) for rotation in rotations)]
    return {
        "rows": [{"step": s, "rotations": len(row)} for s, row in zip((*steps, LAST), rows, strict=True)],
        "states": first[0]["states"],
        "rotations": [_fine_tuned(rotation, start) for rotation, start in zip(rotations, first, strict=True)],
        "analysis": first[0]["settings"],
        "missing": dict(sum((Counter(c["missing"]) for c in first), Counter[str]())),
        "clipped": sum(c["clipped"] for c in first),
        "cka": {name: _cka(rows, name) for name in ("egemaps", *FAMILIES, "start", "text")},
        "svcca": {name: _svcca(rows, name) for name in ("egemaps", "start")},
        "probes": {kind: {split: _probes(rows, kind, split) for split in SPLITS} for kind in KINDS},
        "ridge": _ridge(rows),
        "cut": _cut(rows),
    }


def _having(rotations: Sequence[Rotation], step: int | str) -> list[Checkpoint]:
    wanted = [(rotation, rotation["steps"][-1] if step == LAST else step) for rotation in rotations]
    return [c for rotation, s in wanted for c in rotation["checkpoints"] if c["step"] == s]


def _fine_tuned(rotation: Rotation, start: Checkpoint) -> dict[str, Any]:
    losses = [record["valid"]["loss"] for record in rotation["finetune"]["records"]]
    return {
        "rotation": rotation["rotation"],
        "utterances": start["utterances"],
        "speakers": len(set(start["speakers"])),
        "steps": list(rotation["steps"]),
        "epochs": rotation["finetune"]["epochs"],
        "stopped": rotation["finetune"]["stopped"],
        "valid_loss": [losses[0], min(losses)],
    }


def _at(*names: str) -> Callable[[Checkpoint], Any]:
    def part(checkpoint: Checkpoint) -> Any:
        found: Any = checkpoint
        for name in names:
            found = found[name]
        return found

    return part


def _stacked(rows: Sequence[Sequence[Checkpoint]], value: Callable[[Checkpoint], Any]) -> list[np.ndarray]:
    """`(T, ...)` of each row; of one that no known rotation has, NaN alone."""
    shape = np.shape(value(rows[0][0]))
    return [np.array([value(c) for c in row], np.float64) if row else np.full((1, *shape), np.nan) for row in rows]


def _over(rows: Sequence[Sequence[Checkpoint]], value: Callable[[Checkpoint], Any]) -> dict[str, list[Any]]:
    """Mean and deviation over the rotations of each row; None where a rotation has None."""
    found = _stacked(rows, value)
    return {"mean": [_plain(x.mean(0)) for x in found], "sd": [_plain(_sd(x)) for x in found]}


def _sd(x_T: np.ndarray) -> np.ndarray:
    """Over the first axis, as `bas.stats.spread` has it."""
    return np.asarray(np.std(x_T, axis=0, ddof=1) if len(x_T) > 1 else 0 * x_T[0])


def _plain(values: np.ndarray) -> Any:
    """NaN as None."""
    return np.where(np.isfinite(values), values.astype(object), np.array(None)).tolist()


def _known(
    rows: Sequence[Sequence[Checkpoint]], part: Callable[[Checkpoint], Any]
) -> tuple[list[list[Checkpoint]], str]:
    """The rows without the rotations for which this part was refused, and why it was."""
    refused = [part(c)["refused"] for row in rows for c in row if "refused" in part(c)]
    return [[c for c in row if "refused" not in part(c)] for row in rows], next(iter(refused), "")


def _cka(rows: Sequence[Sequence[Checkpoint]], name: str) -> dict[str, Any]:
    held, why = _known(rows, _at("cka", name))
    if not held[0]:
        return {"refused": why}
    found: dict[str, Any] = {"rotations": len(held[0]), "others": why}
    for kind in ("debiased", "plain"):
        values = _stacked(held, _at("cka", name, kind, "value"))
        changes_TL = values[-1] - values[0]
        found[kind] = {
            "mean": [_plain(x_TL.mean(0)) for x_TL in values],
            "sd": [_plain(_sd(x_TL)) for x_TL in values],
            "change": {
                "mean": changes_TL.mean(0).tolist(),
                "sd": _sd(changes_TL).tolist(),
                "fell": (changes_TL < 0).sum(0).tolist(),
            },
        }
        if name != "start":
            p95 = _stacked(held, _at("cka", name, kind, "p95"))
            found[kind]["chance"] = [_plain(x_TL.mean(0)) for x_TL in p95]
            found[kind]["by_chance"] = [
                (x_TL.mean(0) <= y_TL.mean(0)).tolist() for x_TL, y_TL in zip(values, p95, strict=True)
            ]
    return found


def _svcca(rows: Sequence[Sequence[Checkpoint]], name: str) -> dict[str, Any]:
    refused = (of["refused"] for row in rows for c in row for of in c["svcca"][name] if of["refused"])
    mean = _over(rows, lambda c: [of["value"] for of in c["svcca"][name]])["mean"]
    return {"mean": mean, "refused": next(refused, "")}


def _probes(rows: Sequence[Sequence[Checkpoint]], kind: str, split: str) -> dict[str, Any]:
    held, why = _known(rows, _at("probes", kind, split))
    if not held[0]:
        return {"refused": why}
    parts = [[c["probes"][kind][split] for c in row] for row in held]
    scores = _stacked(held, lambda c: [of["macro_f1"] for of in c["probes"][kind][split]["states"]])
    egemaps_S = np.mean([part["egemaps"]["macro_f1"] for part in parts[0]], axis=0)
    found = {
        "rotations": len(held[0]),
        "others": why,
        "notes": list(dict.fromkeys(part["note"] for part in parts[0])),
        "states": {
            "mean": [_plain(x_TLS.mean((0, 2))) for x_TLS in scores],
            "sd": [_plain(_sd(x_TLS.mean(0).T)) for x_TLS in scores],
            "sd_rotations": [_plain(_sd(x_TLS.mean(2))) for x_TLS in scores],
        },
        "egemaps": {"mean": float(egemaps_S.mean()), "sd": float(_sd(egemaps_S))},
    }
    if split == "grouped":
        found["against_start"] = [
            _paired(
                held[0],
                [part["states"][state]["predictions"] for part in parts[-1]],
                [part["states"][state]["predictions"] for part in parts[0]],
                macro_f1,
            )
            for state in range(len(parts[0][0]["states"]))
        ]
    return found


def _paired(row: Sequence[Checkpoint], a_TSN: Sequence[Any], b_TSN: Sequence[Any], metric: Metric) -> dict[str, Any]:
    """a against b, by the speakers of all third parts; predictions by rotation, seed and utterance."""
    targets_N, speakers_N = (np.concatenate([c[name] for c in row]) for name in ("targets", "speakers"))
    value = paired(targets_N, np.concatenate(a_TSN, axis=1), np.concatenate(b_TSN, axis=1), speakers_N, metric)
    return {**asdict(value), "verdict": value.verdict}


def _ridge(rows: Sequence[Sequence[Checkpoint]]) -> dict[str, Any]:
    held, why = _known(rows, _at("ridge"))
    if not held[0]:
        return {"refused": why}
    one, notes = held[0][0]["ridge"], list(dict.fromkeys(c["ridge"]["note"] for c in held[0]))
    return {
        "rotations": len(held[0]),
        "others": why,
        "notes": notes,
        "names": one["names"],
        "families": one["families"],
        "r2": _over(held, _at("ridge", "r2"))["mean"],
    }


def _cut(rows: Sequence[Sequence[Checkpoint]]) -> dict[str, Any]:
    last, metrics = rows[-1], ("WA", "UA", "macro_f1")
    whole = [[c["cut"]["own"]["predictions"][-1]] for c in last]
    refitted = {
        name: {m: _over([row], _at("cut", "refitted", m)) for m in metrics}
        for name, row in (("0", rows[0]), (LAST, last))
    }
    return {
        "own": {m: _over(rows, _at("cut", "own", m)) for m in metrics},
        "refitted": {n: {m: {k: v[0] for k, v in of.items()} for m, of in by.items()} for n, by in refitted.items()},
        "against_whole": {
            head: [
                _paired(last, [[c["cut"][head]["predictions"][state]] for c in last], whole, wa)
                for state in range(last[0]["states"])
            ]
            for head in ("own", "refitted")
        },
    }
